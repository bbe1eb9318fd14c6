"""The oracle's reading of rows: times, what is known, copies, status events, machines (see tests.oracle)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from justai_sim.attribution.rule import Rule

Row = dict[str, Any]

DAY = 86_400_000_000
HOUR = 3_600_000_000
NEGATIVE = ("bounced", "dropped", "suppressed")
STATUS_KINDS = ("bounce", "spam", "delivery", "drop")


@dataclass
class Send:
    """A send as it is known: one per send_id."""

    send_id: str
    user: str
    template: str
    variant: str
    sent_at: int
    delivered_at: int | None
    reached: bool
    ghost: bool
    anchor: int | None = None


@dataclass
class Event:
    """An event that is known and not too late."""

    index: int
    row: Row
    user: str
    at: int
    received: int
    weights: list[tuple[Send, int]] = field(default_factory=list)


# --- time (rules 1-3, 33) ---


def days(x: float) -> int:
    """Rule 1: days become microseconds by rounding half to even."""
    return int((Decimal(str(x)) * DAY).to_integral_value(rounding=ROUND_HALF_EVEN))


def received_at(row: Row, own: str) -> int:
    """Rule 3: a missing received_at is the row's own time."""
    return int(row[own] if row["received_at"] is None else row["received_at"])


def hours(x: float) -> int:
    return int((Decimal(str(x)) * HOUR).to_integral_value(rounding=ROUND_HALF_EVEN))


def local_date(t: int, tz: str) -> int:
    """Rule 2: the local date of an instant as a day number."""
    return datetime.fromtimestamp(t // 1_000_000, ZoneInfo(tz)).date().toordinal()


def start_of_date(day: int, tz: str) -> int:
    """The first instant whose local date is `day`: a search that knows nothing of clock changes."""
    noon = (day - 719163) * DAY + DAY // 2
    before, after = noon - 3 * DAY, noon + 3 * DAY
    while after - before > 1:
        middle = (before + after) // 2
        if local_date(middle, tz) >= day:
            after = middle
        else:
            before = middle
    return after


def known_sends(rule: Rule, rows: list[Row], as_of: int | None) -> dict[str, Send]:
    """Rules 3, 9, 33: the sends known at as_of, merged by send_id, with the status of their rows."""
    by_id: dict[str, list[tuple[int, int, Row]]] = {}
    for row in rows:
        received = received_at(row, "sent_at")
        sent_at = min(row["sent_at"], received)  # rule 3: the future is clamped
        if as_of is not None and received > as_of:
            continue
        if received - sent_at > days(rule.lateness_days):  # rule 33: too late, as if unknown
            continue
        by_id.setdefault(row["send_id"], []).append((received, sent_at, row))
    out = {}
    for send_id, group in by_id.items():
        group.sort(key=lambda g: (g[0], g[1], *(g[2][k].encode() for k in ("user_id", "template_id", "variant_id"))))
        first = group[0][2]
        reached, ghost = True, False
        delivered = None
        for received, _, row in group:
            known_at = received if row["status_known_at"] is None else row["status_known_at"]
            if row["status"] in NEGATIVE and (as_of is None or known_at <= as_of):  # rule 9
                reached = False
            if row["status"] == "held_out":  # rule 31
                ghost = True
            if row["delivered_at"] is not None and (delivered is None or row["delivered_at"] < delivered):
                delivered = row["delivered_at"]
        out[send_id] = Send(
            send_id, first["user_id"], first["template_id"], first["variant_id"], group[0][1],
            delivered, reached, ghost,
        )  # fmt: skip
    return out


def known_events(rule: Rule, rows: list[Row], as_of: int | None, reasons: list[str]) -> list[Event]:
    """Rules 3, 32, 33: `not_yet_known` and `too_late`; a future time is clamped before anything else."""
    out = []
    for i, row in enumerate(rows):
        received = received_at(row, "occurred_at")
        at = min(row["occurred_at"], received)
        if as_of is not None and received > as_of:
            reasons[i] = "not_yet_known"
        elif received - at > days(rule.lateness_days):
            reasons[i] = "too_late"
        else:
            out.append(Event(i, row, row["user_id"], at, received))
    return out


def resolve_users(rule: Rule, alive: list[Event], known: dict[str, Send]) -> None:
    """Rule 16: a missing user is taken from the named send. (Rule 15: `ignore` does not use the id.)"""
    for e in alive:
        if e.row["kind"] == "conversion" and rule.explicit == "ignore":
            continue
        if e.user == "" and e.row["send_id"] in known:
            e.user = known[e.row["send_id"]].user


# --- copies, status events, machines (rules 26, 9, 22) ---


def drop_copies(alive: list[Event], reasons: list[str]) -> list[Event]:
    """Rule 26: first by (user, event_id), then orders by (user, name, order_id)."""

    def survivors(rows: list[Event], group_of: Any) -> list[Event]:
        best: dict[Any, Event] = {}
        for e in rows:
            key = group_of(e)
            if key is not None and (key not in best or first_key(e) < first_key(best[key])):
                best[key] = e
        out = []
        for e in rows:
            key = group_of(e)
            if key is None or best[key] is e:
                out.append(e)
            else:
                reasons[e.index] = "duplicate"
        return out

    def order_key(e: Event) -> tuple[str, str, str] | None:
        return (e.user, e.row["name"], e.row["order_id"]) if is_order(e) and e.row["order_id"] else None

    return survivors(survivors(alive, lambda e: (e.user, e.row["event_id"])), order_key)


def first_key(e: Event) -> tuple[int, int, bytes, int]:
    return (e.at, e.received, e.row["event_id"].encode(), e.index)


def is_order(e: Event) -> bool:
    """A conversion that is not a refund (rule 27)."""
    return e.row["kind"] == "conversion" and (e.row["value"] is None or e.row["value"] >= 0)


def apply_statuses(alive: list[Event], known: dict[str, Send], reasons: list[str]) -> None:
    """Rules 8, 9: bounces and drops make a send unreached, deliveries say when it arrived."""
    for e in alive:
        kind = e.row["kind"]
        if kind not in STATUS_KINDS:
            continue
        reasons[e.index] = "status_event"
        send = known.get(e.row["send_id"])
        if send is None:
            continue
        if kind in ("bounce", "drop"):
            send.reached = False
        if kind == "delivery" and (send.delivered_at is None or e.at < send.delivered_at):
            send.delivered_at = e.at


def flag_machines(rule: Rule, alive: list[Event], reasons: list[str]) -> None:
    """Rule 22."""
    for e in alive:
        if reasons[e.index]:
            continue
        made = e.row["machine"] == 1
        if rule.machine == "exclude" and made:
            reasons[e.index] = "machine"
        if rule.machine == "only" and not made and e.row["kind"] in ("open", "click"):
            reasons[e.index] = "machine"

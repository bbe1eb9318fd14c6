"""The bias identity, slowly: loops over plain rows, on top of the slow reading of the rule in `tests.oracle`.

Truth rows are dicts: event (an integer), cause (send_id, '' = organic), occurred_at, value (micro-units) | None.
`origin`: for each event row the `event` of the truth that it tells of, None for nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from justai_sim.attribution.rule import Rule
from tests.oracle import PARTS, Brute, Goals, _fit, brute
from tests.oracle_rows import Row, received_at

Group = tuple[str, str]
Terms = dict[str, dict[Group, dict[str, int]]]

STANDING = (
    "credited", "in_offset", "past_lookback", "before_send", "no_anchor", "not_delivered", "no_send",
    "outside_engagement_window", "unknown_send", "refund_without_order", "refund", "currency", "wrong_event",
    "machine", "status_event", "too_late", "not_yet_known", "duplicate",
)  # fmt: skip


@dataclass
class World:
    """What a run leaves: rows heard and unheard, the truth, the rule that they are read under."""

    rule: Rule
    sends: list[Row]
    events: list[Row]
    origin: list[int | None]
    goals: Goals | None
    as_of: int
    truth: list[Row]
    unheard_sends: list[Row]
    unheard_events: list[Row]
    unheard_origin: list[int | None]


def share(value: int, weight: int) -> int:
    part = abs(value) * weight // PARTS
    return part if value >= 0 else -part


def is_refund(row: Row) -> bool:
    return row["value"] is not None and row["value"] < 0


class Slow:
    """Terms by identity and group (template, variant); zeros are left out."""

    def __init__(self, world: World) -> None:
        self.w = world
        self.got: Brute = brute(world.rule, world.sends, world.events, world.goals, world.as_of)
        self.user = {e.index: e.user for e in self.got.alive}
        self.out: Terms = {k: defaultdict(lambda: defaultdict(int)) for k in ("events", "sends", "revenue")}
        self.weights: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for i, send, weight in self.got.credits:
            if world.events[i]["kind"] == "conversion" and self.got.reasons[i] == "credited":
                self.weights[i].append((send, weight))

    def terms(self) -> Terms:
        happened = [t for t in self.w.truth if t["occurred_at"] < self.w.as_of]
        told: dict[int, list[int]] = {t["event"]: [] for t in happened if not is_refund(t)}
        for i, e in enumerate(self.w.events):
            if e["kind"] == "conversion" and self.w.origin[i] in told:
                told[self.w.origin[i]].append(i)
            else:
                self._credits(i, None, None)
        causes: dict[str, int] = defaultdict(int)
        for t in happened:
            if is_refund(t):
                self._refunded(t)
                continue
            rows = sorted(told[t["event"]], key=lambda i: self._standing(i, t["cause"]))
            for i in rows:
                self._credits(i, t, rows[0])
            if t["cause"]:
                self._caused(t, rows[0] if rows else None, first=not causes[t["cause"]])
                causes[t["cause"]] += 1
        self._shown()
        return self.out

    def add(self, which: str, send: str, term: str, amount: int) -> None:
        self.out[which][self._group(send)][term] += amount

    def add_weight(self, send: str, term: str, amount: int) -> None:
        self.add("events", send, term, amount)
        self.add("sends", send, term, amount)

    def _rows_of(self, send: str) -> list[tuple[int, bool, Row]]:
        rows = [(received_at(r, "sent_at"), False, r) for r in self.w.sends if r["send_id"] == send]
        rows += [(received_at(r, "sent_at"), True, r) for r in self.w.unheard_sends if r["send_id"] == send]
        return sorted(rows, key=lambda r: r[0])

    def _group(self, send: str) -> Group:
        if send in self.got.known:
            s = self.got.known[send]
            return s.template, "held_out" if s.ghost else s.variant
        rows = self._rows_of(send)
        if not rows:
            return "", ""
        row = rows[0][2]
        return row["template_id"], "held_out" if row["status"] == "held_out" else row["variant_id"]

    def _standing(self, i: int, cause: str) -> tuple[Any, ...]:
        e = self.w.events[i]
        on_cause = sum(w for s, w in self.weights[i] if s == cause)
        received = received_at(e, "occurred_at")
        return STANDING.index(self.got.reasons[i]), -on_cause, received, e["event_id"].encode(), i

    def _credits(self, i: int, t: Row | None, lead: int | None) -> None:
        for send, weight in self.weights[i]:
            if t is None:
                term = "spurious"
            elif not t["cause"]:
                term = "organic"
            elif t["cause"] != send:
                term = "borrowed"
            elif i != lead:
                term = "extra_copies"
            else:
                continue
            self.add_weight(send, term, weight)
            self.add("revenue", send, term, share(self.got.amounts[i], weight))

    def _caused(self, t: Row, row: int | None, first: bool) -> None:
        cause, value = t["cause"], t["value"] or 0
        self.add("events", cause, "caused", PARTS)
        self.add("sends", cause, "caused" if first else "repeats", PARTS)
        self.add("revenue", cause, "caused", value)
        own = 0 if row is None else sum(w for s, w in self.weights[row] if s == cause)
        term = self._missed(t, row)
        self.add_weight(cause, term, own - PARTS)
        self.add("revenue", cause, term, -share(value, PARTS - own))
        got = share(self.got.amounts[row], own) if row is not None and own else 0
        self.add("revenue", cause, "caps_and_rounding", got - (value - share(value, PARTS - own)))

    def _missed(self, t: Row, row: int | None) -> str:
        """The first term that applies, in the order of the identity."""
        cause = t["cause"]
        known = self.got.known.get(cause)
        rows = [] if known else self._rows_of(cause)
        away = bool(rows) and rows[0][0] > self.w.as_of
        late = bool(rows) and not away and not rows[0][1]
        awaited = row is None and t["event"] in self.w.unheard_origin
        reason = "not_yet_known" if awaited else "" if row is None else self.got.reasons[row]
        if reason == "" or (known is None and not away and not late):
            return "lost"
        if reason == "not_yet_known" or away:
            return "not_yet_known"
        if reason == "too_late" or late:
            return "heard_too_late"
        assert row is not None
        assert known is not None
        e = self.w.events[row]
        if reason in ("wrong_event", "refund", "refund_without_order") or not self._goal(known.template, e):
            return "wrong_event"
        if reason in ("machine", "currency"):
            return reason
        if reason == "duplicate" or not self._leads(row, cause):
            return "identity"
        fit = _fit(self.w.rule, known, self._at(row)) if known.reached else "not_delivered"
        return {
            "not_delivered": "not_delivered", "no_anchor": "not_delivered", "before_send": "too_early",
            "in_offset": "too_early", "past_lookback": "too_late", "inside": "elsewhere",
        }[fit]  # fmt: skip

    def _at(self, row: int) -> int:
        return next(e.at for e in self.got.alive if e.index == row)

    def _goal(self, template: str, e: Row) -> bool:
        return self.w.goals is None or e["name"] in self.w.goals.get(template, set())

    def _leads(self, row: int, cause: str) -> bool:
        e, user, known = self.w.events[row], self.user[row], self.got.known
        named = e["send_id"] if self.w.rule.explicit != "ignore" and e["send_id"] in known else ""
        if named and (known[named].user != user or not self._goal(known[named].template, e)):
            named = ""
        if named == cause:
            return True
        if named and (self.w.rule.explicit != "window_then_join" or named in dict(self.weights[row])):
            return False
        mine = known[cause]
        fits = e["template_id"] in ("", mine.template) and e["variant_id"] in ("", mine.variant)
        return bool(user) and user == mine.user and fits

    def _refunded(self, t: Row) -> None:
        if t["cause"]:
            self.add("revenue", t["cause"], "caused", t["value"])
            self.add("revenue", t["cause"], "refunds", -t["value"])

    def _shown(self) -> None:
        for send, o in self.got.outcomes.items():
            if o["close_at"] is None:
                self.add_weight(send, "uncounted", -o["weight"])
                self.add("revenue", send, "uncounted", -o["revenue"])
                continue
            self.add("events", send, "shown", o["weight"])
            self.add("sends", send, "shown", o["numerator"])
            self.add("sends", send, "capped", o["numerator"] - o["weight"])
            money = self._capped(o)
            self.add("revenue", send, "shown", money)
            self.add("revenue", send, "caps_and_rounding", money - o["revenue"])
        for i, send, weight in self.got.credits:
            if self.w.events[i]["kind"] == "conversion" and self.got.reasons[i] == "refund":
                self.add("revenue", send, "refunds", share(self.got.amounts[i], weight))

    def _capped(self, o: Row) -> int:
        rule, cap = self.w.rule, None
        if rule.cap is not None:
            cap = rule.cap * 1e6
        if rule.cap_quantile is not None:
            paid = sorted(
                p["revenue"] for p in self.got.outcomes.values() if p["mature"] and p["reached"] and p["revenue"] > 0
            )
            if paid:
                place = rule.cap_quantile * (len(paid) - 1)
                low = int(place)
                cap = paid[low] + (place - low) * (paid[min(low + 1, len(paid) - 1)] - paid[low])
        return int(o["revenue"]) if cap is None else round(min(float(o["revenue"]), cap))

"""The attribution rule, slowly: a second, independent reading of its text for the tests to compare with.

Plain loops over plain dicts; every block cites the number of the rule it follows. Nothing here is
shared with the production code but the `Rule` struct itself. Days, dates and weights are computed anew.

Rows are dicts in the plain text form:

* send: send_id, user_id, template_id, variant_id, sent_at, delivered_at | None, status,
  status_known_at | None, received_at | None
* event: event_id, user_id ('' = missing), kind, occurred_at, name, received_at | None,
  value (micro-units) | None, currency, send_id, order_id, template_id, variant_id, machine (1, 0, -1)

Times are int microseconds UTC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any

from justai_sim.attribution.rule import Rule
from tests.oracle_rows import (
    DAY,
    Event,
    Row,
    Send,
    apply_statuses,
    days,
    drop_copies,
    flag_machines,
    hours,
    is_order,
    known_events,
    known_sends,
    local_date,
    received_at,
    resolve_users,
    start_of_date,
)

Goals = dict[str, set[str]]

SKEW = 300_000_000
PARTS = 1_000_000_000
ORDER = ("in_offset", "past_lookback", "before_send", "no_anchor", "not_delivered", "no_send")
"""The reasons of a join, in the order of section 11."""


@dataclass
class Brute:
    """credits: (event index, send_id, weight in parts of 1e9); reasons: one text per input event;
    outcomes: send_id -> reached, anchor, close_at, opens, clicks, unsubscribes, weight, numerator,
    revenue, mature, final. known, alive, amounts: the sends, the events that are no copies, and money by event."""

    credits: list[tuple[int, str, int]]
    reasons: list[str]
    outcomes: dict[str, Row]
    known: dict[str, Send]
    alive: list[Event]
    amounts: dict[int, int]


def brute(rule: Rule, sends: list[Row], events: list[Row], goals: Goals | None, as_of: int | None) -> Brute:
    """What the rule makes of the rows known at `as_of` (None: of all rows)."""
    reasons = [""] * len(events)
    known = known_sends(rule, sends, as_of)
    alive = known_events(rule, events, as_of, reasons)
    resolve_users(rule, alive, known)
    alive = drop_copies(alive, reasons)
    apply_statuses(alive, known, reasons)
    flag_machines(rule, alive, reasons)
    _engagement(rule, alive, known, reasons)
    _set_anchors(rule, alive, known)
    amounts = _conversions(rule, alive, known, goals, reasons)
    rows = [(e.index, s.send_id, w) for e in alive for s, w in e.weights]
    rows.sort(key=lambda c: c[0])
    times = [received_at(r, "sent_at") for r in sends] + [received_at(r, "occurred_at") for r in events]
    now = as_of if as_of is not None else max(times, default=0)
    outcomes = _outcomes(rule, alive, known, amounts, reasons, now)
    return Brute(rows, reasons, outcomes, known, alive, amounts)


# --- engagement (rules 16-20) and the anchors that come of it (rule 8) ---


def _attach(rule: Rule, e: Event, known: dict[str, Send]) -> tuple[str, Send | None]:
    """Rules 18-20: the reason of an open, click or unsubscribe, and its send if it is credited."""
    window = days(rule.engagement_lookback_days)
    named = e.row["send_id"]
    if named:
        if named not in known:
            return "unknown_send", None  # rule 16
        send = known[named]
        if not send.reached or send.ghost:
            return "not_delivered", None
        age = e.at - send.sent_at
        if -SKEW <= age < 0:
            age = 0  # rule 20: clock skew
        if age < 0:
            return "before_send", None
        if age >= window:
            return "outside_engagement_window", None
        return "credited", send
    mine = [s for s in known.values() if e.user and s.user == e.user and _partial_ids_match(e, s)]
    real = [s for s in mine if s.reached and not s.ghost]
    inside = [s for s in real if 0 <= e.at - s.sent_at < window]
    if inside:
        return "credited", max(inside, key=lambda s: (s.sent_at, s.send_id.encode()))  # rule 19
    if any(e.at - s.sent_at >= window for s in real):
        return "outside_engagement_window", None
    if real:
        return "before_send", None
    return ("not_delivered" if mine else "no_send"), None


def _partial_ids_match(e: Event, s: Send) -> bool:
    """Rule 17."""
    return e.row["template_id"] in ("", s.template) and e.row["variant_id"] in ("", s.variant)


def _engagement(rule: Rule, alive: list[Event], known: dict[str, Send], reasons: list[str]) -> None:
    for e in alive:
        if reasons[e.index] or e.row["kind"] == "conversion":
            continue
        reason, send = _attach(rule, e, known)
        reasons[e.index] = reason
        if send is not None:
            e.weights = [(send, PARTS)]


def _set_anchors(rule: Rule, alive: list[Event], known: dict[str, Send]) -> None:
    """Rule 8. Ghosts always use the decision time, which is their sent_at."""
    for send in known.values():
        if rule.anchor == "sent" or send.ghost:
            send.anchor = send.sent_at
        elif rule.anchor == "delivered":
            send.anchor = send.delivered_at
    if rule.anchor not in ("opened", "clicked"):
        return
    wanted = {"opened": "open", "clicked": "click"}[rule.anchor]
    for e in alive:
        # The first of its kind that is not machine-made, also where `machine="only"` keeps it out of rates.
        if e.row["kind"] != wanted or e.row["machine"] == 1:
            continue
        _, send_or_none = _attach(rule, e, known)
        if send_or_none is not None and (send_or_none.anchor is None or e.at < send_or_none.anchor):
            send_or_none.anchor = e.at


# --- the conversion window (rules 2, 4, 5, 34) ---


def _edges(rule: Rule) -> tuple[int, int]:
    """Rules 4, 5: both edges in microseconds of age."""
    low, high = days(rule.offset_days), days(rule.lookback_days)
    return (low, low + high) if rule.lookback_from == "offset_end" else (low, high)


def _fit(rule: Rule, send: Send, at: int) -> str:
    """`inside`, or why the window of a reached send does not contain the instant `at`."""
    if send.anchor is None:
        return "no_anchor"
    if at < send.anchor:
        return "before_send"  # rule 2: under every day rule
    age = at - send.anchor
    if rule.day_rule == "calendar":
        age = (local_date(at, rule.tz) - local_date(send.anchor, rule.tz)) * DAY
    low, high = _edges(rule)
    if age < low or (age == low and rule.bounds[0] == "("):
        return "in_offset"
    if age > high or (age == high and rule.bounds[1] == ")"):
        return "past_lookback"
    return "inside"


def _close(rule: Rule, anchor: int) -> int:
    """Rule 34: when the window of a send closes."""
    high = _edges(rule)[1]
    if rule.day_rule == "elapsed":
        return anchor + high
    # The first whole number of dates that no longer qualifies.
    dates = high // DAY + 1 if rule.bounds[1] == "]" else -(-high // DAY)
    return start_of_date(local_date(anchor, rule.tz) + dates, rule.tz)


# --- conversions (rules 10-17, 27, 28; section 11) ---


def _conversions(
    rule: Rule, alive: list[Event], known: dict[str, Send], goals: Goals | None, reasons: list[str]
) -> dict[int, int]:
    """Reasons and weights of every conversion; returns event index -> amount in the declared currency."""
    amounts: dict[int, int] = {}
    todo = [e for e in alive if e.row["kind"] == "conversion" and not reasons[e.index]]
    for e in todo:
        if goals is not None and not any(e.row["name"] in names for names in goals.values()):
            reasons[e.index] = "wrong_event"  # rule 14
            continue
        amount = _amount(rule, e.row)
        if amount is None:
            reasons[e.index] = "currency"  # rule 28
            continue
        amounts[e.index] = amount
    passed = [e for e in todo if not reasons[e.index]]
    orders = [e for e in passed if is_order(e)]
    for e in orders:
        reasons[e.index], e.weights = _judge(rule, e, known, goals)
    for e in passed:
        if not is_order(e):
            reasons[e.index], e.weights = _refund(rule, e, orders)
    return amounts


def _amount(rule: Rule, row: Row) -> int | None:
    """Rule 28: micro-units of the declared currency; None if the currency is refused."""
    value = row["value"] or 0
    if row["currency"] in ("", rule.currency):
        return int(value)
    if row["currency"] not in rule.rates:
        return None
    with localcontext() as context:
        context.prec = 80
        exact = Decimal(value) * Decimal(str(rule.rates[row["currency"]]))
        return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))


def _refund(rule: Rule, e: Event, orders: list[Event]) -> tuple[str, list[tuple[Send, int]]]:
    """Rule 27: the refund takes the weights of its order, on the same sends."""
    same = [o for o in orders if e.row["order_id"] and (o.user, o.row["order_id"]) == (e.user, e.row["order_id"])]
    if not same:
        return "refund_without_order", []
    order = min(same, key=lambda o: (o.at, o.row["event_id"].encode()))
    if e.at - order.at > days(rule.refund_horizon_days):
        return "refund_without_order", []
    return "refund", list(order.weights)


def _judge(rule: Rule, e: Event, known: dict[str, Send], goals: Goals | None) -> tuple[str, list[tuple[Send, int]]]:
    """Rules 10-17 for one order: its reason and its weights."""

    def has_goal(template: str) -> bool:
        return goals is None or e.row["name"] in goals.get(template, set())

    named = known.get(e.row["send_id"]) if rule.explicit != "ignore" else None
    if named is not None and named.user == e.user and has_goal(named.template):  # rules 15, 16
        fit = _fit(rule, named, e.at) if named.reached else "not_delivered"
        if rule.explicit == "trust":
            return ("credited", [(named, PARTS)]) if named.reached else ("not_delivered", [])
        if fit == "inside":
            return "credited", [(named, PARTS)]
        if rule.explicit == "window":
            return fit, []
    scopes: dict[str, list[Send]] = {}
    for s in known.values():
        if e.user and s.user == e.user and has_goal(s.template) and _partial_ids_match(e, s):
            scopes.setdefault(_scope(rule, s.template), []).append(s)
    weights: list[tuple[Send, int]] = []
    failures = ["no_send"]
    for key in sorted(scopes):
        failure, found = _join(rule, e, scopes[key])
        weights += found
        if not found:
            failures.append(failure)
    if weights:
        return "credited", weights
    return min(failures, key=ORDER.index), []


def _scope(rule: Rule, template: str) -> str:
    """Rule 13."""
    if rule.scope == "org":
        return ""
    return rule.groups.get(template, template) if rule.scope == "group" else template


def _join(rule: Rule, e: Event, sends: list[Send]) -> tuple[str, list[tuple[Send, int]]]:
    """Rules 10, 11 within one scope: (why not, []) or ('', weights). `sends` is not empty."""
    reached = [s for s in sends if s.reached]
    if not reached:
        return "not_delivered", []
    anchored = [s for s in reached if s.anchor is not None]
    anchored.sort(key=lambda s: (s.anchor, s.send_id.encode()))
    if rule.credit == "last_then_check":
        before = [s for s in anchored if s.anchor is not None and s.anchor <= e.at]
        if before:
            fit = _fit(rule, before[-1], e.at)
            return ("", [(before[-1], PARTS)]) if fit == "inside" else (fit, [])
    candidates = [s for s in anchored if _fit(rule, s, e.at) == "inside"]
    if candidates:
        return "", _weights(rule, e, candidates)
    return min((_fit(rule, s, e.at) for s in reached), key=ORDER.index), []


def _weights(rule: Rule, e: Event, candidates: list[Send]) -> list[tuple[Send, int]]:
    """Rule 11: the weights of the candidates, which are in the order of rule 10."""
    n = len(candidates)
    if rule.credit == "last_qualifying":
        return [(candidates[-1], PARTS)]
    if rule.credit == "first_qualifying":
        return [(candidates[0], PARTS)]
    if rule.credit == "all":
        return [(s, PARTS) for s in candidates]
    if rule.credit == "all_variants":
        last = {(s.template, s.variant): s for s in candidates}
        return [(s, PARTS) for s in candidates if last[(s.template, s.variant)] is s]
    shares: list[Any]
    if rule.credit == "linear":
        shares = [Fraction(1, n)] * n
    elif rule.credit == "position":
        shares = [Fraction(1, n)] * n
        if n >= 3:
            shares = [Fraction(2, 5), *[Fraction(1, 5 * (n - 2))] * (n - 2), Fraction(2, 5)]
    elif rule.credit == "time_decay":
        shares = _decayed(rule, e, candidates)
    else:
        raise AssertionError(rule.credit)
    return list(zip(candidates, _largest_remainder(shares), strict=True))


def _decayed(rule: Rule, e: Event, candidates: list[Send]) -> list[float]:
    """2^(-age / half_life), normalised; ages are elapsed and relative to the youngest (rules 2, 11)."""
    ages = [e.at - s.anchor for s in candidates if s.anchor is not None]
    raw = [2.0 ** (-(age - min(ages)) / days(rule.half_life_days)) for age in ages]
    total = 0.0
    for w in raw:
        total += w
    return [w / total for w in raw]


def _largest_remainder(shares: list[Any]) -> list[int]:
    """Integer parts of 1e9 that add up exactly; equal remainders: the later send first (rule 11)."""
    exact = [share * PARTS for share in shares]
    parts = [math.floor(x) for x in exact]
    order = sorted(range(len(parts)), key=lambda i: (exact[i] - parts[i], i), reverse=True)
    for i in order[: PARTS - sum(parts)]:
        parts[i] += 1
    return parts


# --- outcomes (rules 21, 24, 25, 27, 34) ---


def _outcomes(
    rule: Rule, alive: list[Event], known: dict[str, Send], amounts: dict[int, int], reasons: list[str], now: int
) -> dict[str, Row]:
    converted = [e for e in alive if e.row["kind"] == "conversion" and reasons[e.index] == "credited"]
    out = {}
    for send_id, send in known.items():
        kinds = {e.row["kind"] for e in alive for s, _ in e.weights if s is send}
        weight = sum(w for e in converted for s, w in e.weights if s is send)
        revenue = 0
        for e in alive:
            for s, w in e.weights:
                if s is send and e.row["kind"] == "conversion":
                    whole = abs(amounts[e.index]) * w // PARTS
                    revenue += whole if amounts[e.index] >= 0 else -whole
        close = None if send.anchor is None else _close(rule, send.anchor)
        out[send_id] = {
            "reached": send.reached,
            "anchor": send.anchor,
            "close_at": close,
            "opens": int("open" in kinds or (rule.click_implies_open and "click" in kinds)),
            "clicks": int("click" in kinds),
            "unsubscribes": int("unsubscribe" in kinds),
            "weight": weight,
            "numerator": _numerator(rule, send, weight, converted),
            "revenue": revenue,
            "mature": close is not None and now >= close + hours(rule.mature_allowance_hours),
            "final": close is not None and now >= close + days(rule.lateness_days),
        }
    return out


def _numerator(rule: Rule, send: Send, weight: int, converted: list[Event]) -> int:
    """Rule 24: what a send adds to the numerator of its conversion rate, in parts of 1e9."""
    if rule.repeat == "every":
        return weight
    if rule.repeat == "once_per_send":
        return min(PARTS, weight)
    of_user = [e for e in converted for s, _ in e.weights if (s.user, s.template) == (send.user, send.template)]
    if not of_user:
        return 0
    first = min(of_user, key=lambda e: (e.at, e.row["event_id"].encode()))
    return sum(w for s, w in first.weights if s is send)

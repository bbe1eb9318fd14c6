"""Logs written by hand for every kind of edge of a rule, in the rule's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from justai_sim import clock
from justai_sim.attribution.rule import Rule
from justai_sim.clock import DAY, HOUR, MINUTE
from justai_sim.testing.draw import CLOCK_CHANGE, Goals, Shape
from justai_sim.testing.rows import Row, SmallLog, event_row, send_row

TIMES = ("sent_at", "occurred_at", "received_at", "delivered_at", "status_known_at")

T0 = CLOCK_CHANGE
"""Monday 2024-03-04: New York changes its clocks six days later."""


@dataclass(frozen=True)
class Edge:
    """A log, what kind of edge it has, and what is known of it (None: all)."""

    group: str
    title: str
    small: SmallLog
    as_of: int | None = None


def edges(rule: Rule, goals: Goals) -> list[Edge]:
    """All of them; the groups take turns, so that any first part of the list spans them."""
    groups: dict[str, list[Edge]] = {}
    for make in MAKERS:
        for edge in make(_Hand(rule, goals)):
            groups.setdefault(edge.group, []).append(edge)
    longest = max(len(g) for g in groups.values())
    return [g[i] for i in range(longest) for g in groups.values() if i < len(g)]


def edge_logs(shape: Shape) -> list[SmallLog]:
    """The edges of a shape's rule that have no other features than its own, on its grid, each once."""
    out: list[SmallLog] = []
    for edge in edges(shape.rule, shape.goals):
        small = SmallLog([_on_grid(r, shape) for r in edge.small.send_rows],
                         [_on_grid(r, shape) for r in edge.small.event_rows])  # fmt: skip
        if features_of(small, shape) <= shape.features and shape.allows(small) and small not in out:
            out.append(small)
    return out


def _on_grid(row: Row, shape: Shape) -> Row:
    return row | {k: shape.on_grid(row[k]) for k in TIMES if row.get(k) is not None}


def features_of(small: SmallLog, shape: Shape) -> frozenset[str]:
    """The complications that a log has, by name. Opens and clicks that the anchor asks for are none.

    >>> log = SmallLog([send_row("S1", "u1", "A", 0)], [event_row("e1", "u1", 5, value=-3, order_id="o1")] * 2)
    >>> sorted(features_of(log, Shape(Rule(), frozenset())))
    ['duplicates', 'refunds']
    """
    sends, events = small.send_rows, small.event_rows
    kinds = {e["kind"] for e in events}
    bought = [e for e in events if e["kind"] == "conversion"]
    paid = [e for e in bought if (e["value"] or 0) >= 0]
    reacted = bool(kinds & {"open", "click"}) and not shape.moved
    ids, orders = [e["event_id"] for e in events], [e["order_id"] for e in paid if e["order_id"]]
    lost = any(s["status"] in ("bounced", "dropped", "suppressed") for s in sends)
    slow = any(s["delivered_at"] not in (None, s["sent_at"]) for s in sends) and shape.rule.anchor != "delivered"
    there = {
        "bounces": lost or slow or "bounce" in kinds,
        "currency": any(e["currency"] for e in events),
        "duplicates": any(len(set(x)) < len(x) for x in (ids, orders, [s["send_id"] for s in sends])),
        # An open that may be left out of the answer is another event.
        "engagement": "unsubscribe" in kinds or (reacted and not shape.has("other_events")),
        "holdout": any(s["status"] == "held_out" for s in sends),
        "ids": any(e[k] for e in events for k in ("send_id", "template_id", "variant_id"))
        or not all(e["user_id"] for e in events),
        "late": any(r["received_at"] is not None for r in [*sends, *events]),
        "machine": any(e["machine"] != -1 for e in events),
        "other_events": any(e["name"] not in shape.names for e in bought),
        "refunds": len(paid) < len(bought),
        "several_templates": len({s["template_id"] for s in sends}) > 1,
    }
    return frozenset(name for name, so in there.items() if so)


class _Hand:
    """Short ways to write rows; ages are in microseconds from T0."""

    def __init__(self, rule: Rule, goals: Goals) -> None:
        self.rule = rule
        shape = Shape(rule, frozenset({"several_templates"}), goals=goals)
        self.name, self.templates = shape.names[0], shape.templates
        self.o, self.u = rule.offset, rule.upper
        self.mid = (self.o + self.u) // 2
        self.late = clock.days(rule.lateness_days)

    def send(self, send_id: str = "S1", at: int = 0, variant: str = "A", **more: Any) -> Row:
        row: Row = {"template_id": self.templates[0], "delivered_at": T0 + at} | more
        return send_row(send_id, row.pop("user_id", "u1"), variant, T0 + at, **row)

    def buy(self, at: int, event_id: str = "e1", **more: Any) -> Row:
        row: Row = {"name": self.name, "value": 20_000_000} | more
        return event_row(event_id, row.pop("user_id", "u1"), T0 + at, **row)

    def react(self, kind: str, at: int, event_id: str = "e1", **more: Any) -> Row:
        return self.buy(at, event_id, **({"kind": kind, "name": "", "value": None} | more))


def _log(group: str, title: str, sends: list[Row], events: list[Row], as_of: int | None = None) -> Edge:
    return Edge(group, title, SmallLog(sends, events), as_of)


def _bounds(h: _Hand) -> Iterator[Edge]:
    yield _log("published", "inside the window", [h.send()], [h.buy(h.mid)])
    yield _log("published", "before the offset has passed", [h.send()], [h.buy(h.o // 3)])
    yield _log("published", "after the window", [h.send()], [h.buy(h.u + 6 * DAY)])
    for name, edge in (("offset", h.o), ("lookback", h.u), ("send", 0)):
        for tick, when in ((0, "exactly at"), (-1, "one microsecond before"), (1, "one microsecond after")):
            yield _log("bounds", f"{when} the {name}", [h.send()], [h.buy(edge + tick)])


def _days(h: _Hand) -> Iterator[Edge]:
    for send_at, name in ((23 * HOUR + 50 * MINUTE, "23:50"), (10 * MINUTE, "00:10"), (12 * HOUR, "noon")):
        for edge in (h.o, h.u):
            start = send_at - send_at % DAY
            for at in (start + edge + 10 * MINUTE, start + edge + DAY - 10 * MINUTE):
                yield _log("days", f"sent at {name}, {at / HOUR:g} hours after that midnight", [h.send(at=send_at)],
                           [h.buy(at)])  # fmt: skip
    for edge in (h.o, h.u):  # sent before New York's clocks change on 10 March at 07:00 UTC
        at = 5 * DAY + 17 * HOUR
        for gap in (-HOUR, -HOUR // 2, 0):
            yield _log("days", "across a change of clocks", [h.send(at=at)], [h.buy(at + edge + gap)])


def _several(h: _Hand) -> Iterator[Edge]:
    now = h.u + DAY
    ages = {"oldest": h.u - 1, "middle": h.mid, "youngest": h.o, "in its offset": h.o - 1, "too old": h.u + 1}

    def at(*names: str) -> list[Row]:
        return [h.send(f"S{i + 1}", now - ages[n], "AB"[i % 2]) for i, n in enumerate(names)]

    yield _log("several", "two qualify", at("oldest", "middle"), [h.buy(now)])
    yield _log("several", "a younger one is in its offset", at("middle", "in its offset"), [h.buy(now)])
    yield _log("several", "an older one is too old", at("too old", "middle"), [h.buy(now)])
    yield _log("several", "none qualifies", at("too old", "in its offset"), [h.buy(now)])
    yield _log("several", "three qualify", at("oldest", "middle", "youngest"), [h.buy(now)])
    four = [*at("oldest", "middle", "youngest"), h.send("S4", now - h.mid // 2 - h.o // 2, "A")]
    yield _log("several", "four qualify, two of each variant", four, [h.buy(now)])
    tie = [h.send("S1", 0, "A"), h.send("S2", 0, "B")]
    yield _log("several", "a tie: the later id", tie, [h.buy(h.mid)])
    yield _log("several", "the same tie, rows in reverse", tie[::-1], [h.buy(h.mid)])
    ten = [h.send("S10", 0, "A"), h.send("S9", 0, "B")]
    yield _log("several", "a tie in the order of bytes, not numbers", ten, [h.buy(h.mid)])
    control = [h.send("S1", 0, "A"), h.send("S2", h.mid // 4, "control")]
    yield _log("several", "the control competes like any other", control, [h.buy(h.mid)])


def _scope(h: _Hand) -> Iterator[Edge]:
    other = h.templates[-1]
    two = [h.send("S1", 0, "A"), h.send("S2", h.mid // 3, "B", template_id=other)]
    yield _log("scope", "two templates", two, [h.buy(h.mid)])
    young = [h.send("S1", 0, "A"), h.send("S2", h.mid - h.o // 2, "B", template_id=other)]
    yield _log("scope", "the other template's send is in its offset", young, [h.buy(h.mid)])
    yield _log("scope", "another user's send", [h.send(user_id="u2")], [h.buy(h.mid)])
    yield _log("scope", "a user without sends", [], [h.buy(h.mid)])
    yield _log("scope", "sends without events", two, [])


def _repeats(h: _Hand) -> Iterator[Edge]:
    again = [h.buy(h.mid), h.buy(h.mid + HOUR, "e2", value=30_000_000)]
    yield _log("repeats", "two purchases of one send", [h.send()], again)
    sends = [h.send(), h.send("S2", h.mid // 2, "B")]
    yield _log("repeats", "a purchase for each of two sends", sends, [h.buy(h.o), h.buy(h.u, "e2")])
    yield _log("repeats", "two purchases at the same instant", [h.send()], [h.buy(h.mid), h.buy(h.mid, "e2")])
    yield _log("repeats", "without a value", [h.send()], [h.buy(h.mid, value=None)])


def _copies(h: _Hand) -> Iterator[Edge]:
    one = h.buy(h.mid, order_id="o1")
    later: Row = {"occurred_at": T0 + h.mid + DAY}
    yield _log("copies", "the event twice", [h.send()], [one, one])
    yield _log("copies", "the send twice", [h.send()] * 2, [one])
    yield _log("copies", "the same id at another time", [h.send()], [one | later, one])
    yield _log("copies", "the order under a second id", [h.send()], [one, one | later | {"event_id": "e2"}])
    early = one | {"event_id": "e2", "occurred_at": T0 + h.o // 2}
    yield _log("copies", "the earlier copy of the order is in the offset", [h.send()], [one, early])
    other = one | {"event_id": "e2", "user_id": "u2"}
    yield _log("copies", "the same order id of another user is no copy", [h.send(), h.send("S2", user_id="u2")],
               [one, other])  # fmt: skip
    apart = one | {"event_id": "e2", "order_id": ""}
    yield _log("copies", "equal rows with ids of their own are no copies", [h.send()], [one | {"order_id": ""}, apart])


def _refunds(h: _Hand) -> Iterator[Edge]:
    order = h.buy(h.mid, order_id="o1")
    horizon = clock.days(h.rule.refund_horizon_days)

    def back(after: int, event_id: str = "e2", **more: Any) -> Row:
        return h.buy(h.mid + after, event_id, **({"order_id": "o1", "value": -20_000_000} | more))

    yield _log("refunds", "in full", [h.send()], [order, back(DAY)])
    yield _log("refunds", "in two parts", [h.send()], [order, back(DAY, value=-5_000_000), back(2 * DAY, "e3",
               value=-7_000_000)])  # fmt: skip
    yield _log("refunds", "at the horizon", [h.send()], [order, back(horizon)])
    yield _log("refunds", "after the horizon", [h.send()], [order, back(horizon + 1)])
    yield _log("refunds", "of an unknown order", [h.send()], [order, back(DAY, order_id="o2")])
    yield _log("refunds", "without an order id", [h.send()], [order, back(DAY, order_id="")])
    uncredited = order | {"occurred_at": T0 + h.o // 2}
    yield _log("refunds", "of an order without credit", [h.send()], [uncredited, back(0)])
    yield _log("refunds", "twice the same row", [h.send()], [order, back(DAY), back(DAY)])


def _ids(h: _Hand) -> Iterator[Edge]:
    two = [h.send("S1", 0, "A"), h.send("S2", h.mid // 2, "B")]
    foreign = [h.send("S1", 0, "A"), h.send("S3", 0, "B", user_id="u2")]
    at = max(h.mid, h.mid // 2 + h.o)
    yield _log("ids", "names the older of two that qualify", two, [h.buy(at, send_id="S1")])
    yield _log("ids", "names a send in its offset", two, [h.buy(h.o // 2, send_id="S1")])
    yield _log("ids", "names a send that is too old, another qualifies", [h.send(), h.send("S2", h.u)],
               [h.buy(h.u + h.mid, send_id="S1")])  # fmt: skip
    yield _log("ids", "names an unknown send", two, [h.buy(at, send_id="S404")])
    yield _log("ids", "names another user's send", foreign, [h.buy(at, send_id="S3")])
    yield _log("ids", "no user: taken from the named send", foreign, [h.buy(at, send_id="S3", user_id="")])
    yield _log("ids", "no user and an unknown send", two, [h.buy(at, send_id="S404", user_id="")])
    yield _log("ids", "names a variant", two, [h.buy(at, variant_id="A")])
    yield _log("ids", "names a template that the user had nothing of", two, [h.buy(at, template_id="T9")])
    bounced = [h.send(status="bounced"), h.send("S2", h.mid // 2, "B")]
    yield _log("ids", "names a send that bounced", bounced, [h.buy(at, send_id="S1")])


def _engagement(h: _Hand) -> Iterator[Edge]:
    length, two = clock.days(h.rule.engagement_lookback_days), [h.send(), h.send("S2", 5 * DAY, "B")]
    yield _log("engagement", "an open in the offset", [h.send()], [h.react("open", 2 * MINUTE, send_id="S1")])
    for tick in (-1, 0):
        yield _log("engagement", "a click at the end of its window", [h.send()],
                   [h.react("click", length + tick, send_id="S1")])  # fmt: skip
    yield _log("engagement", "an open without id", two, [h.react("open", 5 * DAY + HOUR)])
    for gap in (5 * MINUTE, 5 * MINUTE + 1):
        yield _log("engagement", "a clock ahead", [h.send()], [h.react("open", -gap, send_id="S1")])
    yield _log("engagement", "before the send without id", [h.send()], [h.react("open", -1)])
    yield _log("engagement", "an unsubscribe, then a purchase", [h.send()],
               [h.react("unsubscribe", HOUR, send_id="S1"), h.buy(h.mid, "e2")])  # fmt: skip
    yield _log("engagement", "two clicks count once", [h.send()],
               [h.react("click", HOUR, send_id="S1"), h.react("click", 2 * HOUR, "e2", send_id="S1")])  # fmt: skip
    yield _log("engagement", "an unknown send", [h.send()], [h.react("click", HOUR, send_id="S404")])
    yield _log("engagement", "forwarded mail", [h.send()], [h.react("click", HOUR, send_id="S1", user_id="u2")])
    yield _log("machine", "an open by a machine", [h.send()], [h.react("open", HOUR, send_id="S1", machine=1)])
    yield _log("machine", "a purchase by a machine", [h.send()], [h.buy(h.mid, machine=1)])


def _delivery(h: _Hand) -> Iterator[Edge]:
    buy = [h.buy(h.mid)]
    for status in ("bounced", "dropped", "suppressed"):
        yield _log("delivery", f"only a send that was {status}", [h.send(status=status)], buy)
    later = h.send(status="bounced", status_known_at=T0 + h.mid + DAY)
    yield _log("delivery", "the bounce is not yet known", [later], buy, T0 + h.mid + DAY - 1)
    yield _log("delivery", "the bounce is just known", [later], buy, T0 + h.mid + DAY)
    younger = [h.send(), h.send("S2", h.mid // 3, "B", status="bounced")]
    yield _log("delivery", "the younger one bounced", younger, buy)
    bounce = h.react("bounce", HOUR, "e2", send_id="S1")
    yield _log("delivery", "a bounce told by an event", [h.send()], [*buy, bounce])
    slow = h.send(delivered_at=T0 + 6 * HOUR)
    yield _log("delivery", "delivered 6 hours later", [slow], [h.buy(h.o + HOUR)])
    yield _log("delivery", "delivery unknown", [h.send(delivered_at=None)], buy)
    merged = [h.send(), h.send() | {"status": "bounced"}]
    yield _log("delivery", "a second row of the send tells of the bounce", merged, buy)
    ghost = h.send(variant="held_out", status="held_out", delivered_at=None)
    yield _log("holdout", "a held-out user buys", [ghost], buy)
    yield _log("holdout", "a ghost competes with a real send", [h.send("S2"), ghost | {"sent_at": T0 + HOUR}], buy)
    yield _log("holdout", "engagement is never a ghost's", [ghost], [h.react("open", HOUR, send_id="S1")])


def _late(h: _Hand) -> Iterator[Edge]:
    bought = h.buy(h.mid)
    for gap in (h.late, h.late + 1):
        yield _log("late", "at the limit of lateness", [h.send()], [bought | {"received_at": T0 + h.mid + gap}])
        yield _log("late", "a send at the limit of lateness", [h.send(received_at=T0 + gap)], [bought])
    heard = bought | {"received_at": T0 + h.mid + min(DAY, h.late)}
    for tick in (-1, 0):
        yield _log("late", "as of the receipt", [h.send()], [heard], int(heard["received_at"]) + tick)
    yield _log("late", "a clock ahead", [h.send()], [h.buy(h.u + HOUR, received_at=T0 + h.u - HOUR)])
    second = h.send("S2", h.mid - h.o, "B", received_at=T0 + h.mid - h.o + min(5 * DAY, h.late))
    for tick in (-1, 0):
        yield _log("late", "a send that comes late moves the credit", [h.send(), second], [bought],
                   max(int(second["received_at"]), T0 + h.mid) + tick)  # fmt: skip


def _maturity(h: _Hand) -> Iterator[Edge]:
    ripe = h.u + round(h.rule.mature_allowance_hours * HOUR)
    two = [h.send(), h.send("S2", DAY, "B")]
    for tick in (-1, 0):
        yield _log("maturity", "the first send becomes mature", two, [h.buy(h.mid)], T0 + ripe + tick)
        yield _log("maturity", "the first send becomes final", two, [h.buy(h.mid)], T0 + h.u + h.late + tick)


def _goals(h: _Hand) -> Iterator[Edge]:
    yield _log("goal", "an event that is no goal", [h.send()], [h.buy(h.mid, name="page_view", value=None)])
    other = [h.buy(h.mid, name="page_view", value=None), h.buy(h.mid, "e2")]
    yield _log("goal", "a goal and an event that is none", [h.send()], other)
    yield _log("goal", "a conversion without a name", [h.send()], [h.buy(h.mid, name="")])
    own = h.rule.currency
    yield _log("currency", "the declared currency, written", [h.send()], [h.buy(h.mid, currency=own)])
    foreign = "EUR" if own != "EUR" else "USD"
    yield _log("currency", "another currency", [h.send()], [h.buy(h.mid, currency=foreign)])
    both = [h.buy(h.mid), h.buy(h.mid + HOUR, "e2", currency=foreign)]
    yield _log("currency", "one of each", [h.send()], both)


MAKERS: tuple[Callable[[_Hand], Iterator[Edge]], ...] = (
    _bounds, _days, _several, _scope, _repeats, _copies, _refunds, _ids, _engagement, _delivery, _late, _maturity,
    _goals,
)  # fmt: skip

"""How a small adversarial log is made, whoever rolls the dice: hypothesis (it shrinks) or a seeded generator.

Simple comes first in every choice, so that a counter-example shrinks to few rows and round times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Any, Literal, Protocol, get_args

from justai_sim import clock
from justai_sim.attribution.rule import Rule
from justai_sim.clock import DAY, HOUR, MINUTE, SECOND
from justai_sim.errors import UsageError, nearest
from justai_sim.testing.rows import Row, SmallLog, event_row, send_row

Resolution = Literal["microsecond", "second", "day"]
Goals = Mapping[str, Collection[str]] | Collection[str] | None

TICK = {"microsecond": 1, "second": SECOND, "day": DAY}
"""The grid of all times under each resolution."""

FEATURES = {
    "bounces": "sends that bounced, were dropped or suppressed, at once or learned later; bounce events",
    "currency": "purchases in another currency than the rule's",
    "duplicates": "rows delivered twice, orders under a second event id, a copy with another time",
    "engagement": "opens, clicks and unsubscribes whose credits are part of the answer",
    "holdout": "ghost sends of held-out users",
    "ids": "events that name a send (theirs, another's, an unknown one), a template or a variant, or no user",
    "late": "rows received long after they happened, or before (a clock ahead)",
    "machine": "events flagged as made by a machine",
    "other_events": "events that are no goals: other names or none, and opens that an answer may leave out",
    "refunds": "negative amounts, with and without a known order",
    "several_templates": "sends of more than one template",
    "ties": "sends of a user at the same instant",
}
"""The complications of a log by name. Without any: purchases and sends of users, times on every edge."""

START = clock.parse("2024-01-01T00:00:00Z")
"""A Monday."""
CLOCK_CHANGE = clock.parse("2024-03-04T00:00:00Z")
"""A Monday before clocks change (New York on 10 March), for rules in local calendar days."""
LABELS = ("S1", "S2", "S10", "S3", "S4", "S5", "S6", "S7")
"""Send ids in the order of drawing, which differs from their byte order."""
USERS = ("u1", "u2", "u3")


class Dice(Protocol):
    """What the makers below ask for."""

    def pick(self, *values: Any) -> Any: ...
    def integer(self, low: int, high: int) -> int: ...
    def rows(self, make: Callable[[Dice], Row], low: int, high: int) -> list[Row]: ...


class Seeded:
    """Dice of a seeded generator: the same rows under every version of Python and hypothesis."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)

    def integer(self, low: int, high: int) -> int:
        # random() alone is promised to give the same numbers in later versions of Python.
        return low + int(self.random.random() * (high - low + 1))

    def pick(self, *values: Any) -> Any:
        return values[self.integer(0, len(values) - 1)]

    def rows(self, make: Callable[[Dice], Row], low: int, high: int) -> list[Row]:
        # Few rows more often than many: what fails on few is clear at once.
        return [make(self) for _ in range(self.integer(low, max(low, self.integer(low, high))))]


def feature_set(features: Collection[str] | str | None) -> frozenset[str]:
    """The features as a set; None: all but engagement, "all": all. UsageError that names the nearest one.

    >>> sorted(feature_set(["ties", "late"]))
    ['late', 'ties']
    >>> feature_set("tie")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: feature 'tie' is not known; did you mean 'ties'?
    """
    if features is None:
        return frozenset(FEATURES) - {"engagement"}
    if features == "all":
        return frozenset(FEATURES)
    names = [features] if isinstance(features, str) else list(features)
    for name in names:
        if name not in FEATURES:
            raise UsageError(f"feature {name!r} is not known; {nearest(str(name), FEATURES)}")
    return frozenset(names)


@dataclass(frozen=True)
class Shape:
    """What logs to make: aimed at the edges of `rule`, with these features, on this grid, for these goals."""

    rule: Rule
    features: frozenset[str]
    resolution: Resolution = "microsecond"
    goals: Goals = ("purchase",)

    def __post_init__(self) -> None:
        if self.resolution not in TICK:
            raise UsageError(f"resolution {self.resolution!r} is not known; {nearest(self.resolution, TICK)}")
        if not self.names:
            raise UsageError("goals name no conversion event; expected at least one name, or None for every name")

    def has(self, feature: str) -> bool:
        return feature in self.features

    def on_grid(self, t: int) -> int:
        tick = TICK[self.resolution]
        return t - t % tick

    @cached_property
    def start(self) -> int:
        local = self.rule.day_rule == "calendar" and self.rule.tz != "UTC"
        return CLOCK_CHANGE if local else START

    @cached_property
    def names(self) -> list[str]:
        """The goals' event names, in a fixed order."""
        if self.goals is None:
            return ["purchase"]
        if isinstance(self.goals, Mapping):
            return sorted({n for names in self.goals.values() for n in names})
        return [self.goals] if isinstance(self.goals, str) else sorted(set(self.goals))

    @cached_property
    def templates(self) -> list[str]:
        named = sorted(self.goals) if isinstance(self.goals, Mapping) else []
        grouped = sorted(self.rule.groups) if self.rule.scope == "group" else []
        every = list(dict.fromkeys([*named, *grouped, "T1", "T2"]))
        return every[:3] if self.has("several_templates") else every[:1]

    def allows(self, small: SmallLog) -> bool:
        """Whether the times of a log are on the grid, and without ties where there must be none."""
        tick, rows = TICK[self.resolution], [*small.send_rows, *small.event_rows]
        times = ("sent_at", "occurred_at", "received_at", "delivered_at", "status_known_at")
        if any(row[k] % tick for row in rows for k in times if row.get(k) is not None):
            return False
        sends = {s["send_id"]: (s["user_id"], s["sent_at"]) for s in small.send_rows}
        return self.has("ties") or len(set(sends.values())) == len(sends)

    @cached_property
    def moved(self) -> bool:
        """Whether the anchor comes of engagement, so that opens and clicks must occur."""
        return self.rule.anchor in ("opened", "clicked")

    @cached_property
    def edges(self) -> list[int]:
        """Ages at which something changes under the rule, in microseconds."""
        r = self.rule
        found = [r.offset, r.upper, 0]
        if self.has("engagement") or self.moved:
            found += [clock.days(r.engagement_lookback_days), -5 * MINUTE]
        return found

    def times_of_day(self) -> list[int]:
        return [0] if self.resolution == "day" else [0, 0, 0, 12 * HOUR, 23 * HOUR + 50 * MINUTE, 10 * MINUTE]

    def age(self, dice: Dice) -> int:
        """A whole number of days, or an edge of the rule with what lies a tick before and after it."""
        last = max(2, round(self.rule.upper / DAY) + 3)
        how = dice.pick("days", "edge", "edge", "inside", "inside")
        if how == "days":
            return int(dice.integer(0, last)) * DAY
        if how == "inside":  # a multiple of an hour that the window holds
            span = max(1, (self.rule.upper - self.rule.offset) // HOUR)
            return self.on_grid(self.rule.offset + int(dice.integer(0, span - 1)) * HOUR)
        tick = TICK[self.resolution]
        return self.on_grid(int(dice.pick(*self.edges))) + int(dice.pick(0, -1, 1)) * tick


def draw_send(dice: Dice, shape: Shape) -> Row:
    """A send without its id."""
    far = min(30, max(2, round(shape.rule.upper / DAY)))
    day = dice.integer(0, dice.pick(2, far))  # close together half the time: ties, and runs of candidates
    sent_at = shape.start + day * DAY + dice.pick(*shape.times_of_day())
    row = send_row("", dice.pick(*USERS[: dice.pick(1, 2, 3)]), dice.pick("A", "B", "control"), sent_at)
    row["template_id"] = dice.pick(*shape.templates)
    if shape.rule.anchor == "delivered" or shape.has("bounces"):
        row["delivered_at"] = dice.pick(None, shape.on_grid(sent_at + 6 * HOUR), sent_at)
    if shape.has("holdout") and dice.pick(False, False, False, True):
        row |= {"status": "held_out", "variant_id": "held_out", "delivered_at": None}
    elif shape.has("bounces") and dice.pick(False, False, True):
        row["status"] = dice.pick("bounced", "dropped", "suppressed")
        row["status_known_at"] = dice.pick(None, sent_at, shape.on_grid(sent_at + HOUR), sent_at + DAY)
    if shape.has("late"):
        row["received_at"] = dice.pick(None, None, _receipt(dice, shape, sent_at))
    row["tie"] = shape.has("ties") and dice.pick(False, False, True)
    return row


def one_send(dice: Dice, shape: Shape) -> Row:
    """A send by itself, with the id S1."""
    row = draw_send(dice, shape)
    _tie([row])
    return row | {"send_id": "S1"}


def _receipt(dice: Dice, shape: Shape, at: int) -> int:
    """A day later, or on and beside the limit of lateness, or before it happened (clamped)."""
    limit, tick = shape.on_grid(clock.days(shape.rule.lateness_days)), TICK[shape.resolution]
    return int(dice.pick(at + DAY, at + limit, at + limit + tick, at + limit + DAY, at - DAY, at - tick))


def draw_event(dice: Dice, shape: Shape, sends: list[Row]) -> Row:
    """An event about one of the sends, without its id."""
    about = _one_of(dice, sends) or send_row("", "u1", "A", shape.start)
    start = about["sent_at"]
    if shape.rule.anchor == "delivered" and about["delivered_at"] is not None:
        start = about["delivered_at"]
    at = start + shape.age(dice)
    row = event_row("", about["user_id"], at, name=dice.pick(*shape.names))
    row["value"] = dice.pick(20, 30, 5, None) if shape.resolution != "day" else dice.pick(20, None)
    row["value"] = row["value"] and row["value"] * 1_000_000
    _kind(dice, shape, row)
    if shape.has("ids"):
        _ids(dice, shape, row, about, sends)
    if shape.has("currency") and row["kind"] == "conversion":
        row["currency"] = dice.pick("", "", "", shape.rule.currency, "EUR" if shape.rule.currency != "EUR" else "USD")
    if shape.has("machine"):
        row["machine"] = dice.pick(-1, -1, 0, 1)
    if shape.has("late"):
        row["received_at"] = dice.pick(None, _receipt(dice, shape, at))
    if shape.has("duplicates") or shape.has("refunds"):
        row["order_id"] = dice.pick("", "own") if row["kind"] == "conversion" else ""
    row["again"] = _again(dice, shape, row)
    return row


def _one_of(dice: Dice, sends: list[Row]) -> Row | None:
    """One of the sends. The number rolled does not depend on how many there are: sends can be left out in shrinking."""
    k = dice.integer(0, len(LABELS) - 1)
    return sends[k % len(sends)] if sends else None


def _kind(dice: Dice, shape: Shape, row: Row) -> None:
    """Sometimes no conversion, where a feature or the anchor asks for it."""
    kinds = ["conversion"] * 4
    if shape.has("engagement"):
        kinds += ["open", "click", "unsubscribe"]
    elif shape.has("other_events"):
        kinds += ["open", "click"]
    if shape.moved:
        kinds += ["open", "click"]
    if shape.has("other_events"):
        kinds += ["other"]
    if shape.has("bounces"):
        kinds += ["bounce"]
    kind = dice.pick(*kinds)
    if kind == "other":
        row |= {"name": "page_view", "value": None}
    elif kind != "conversion":
        row |= {"kind": kind, "name": "", "value": None}


def _ids(dice: Dice, shape: Shape, row: Row, about: Row, sends: list[Row]) -> None:
    """`send` holds the row that is named: ids are given when the rows are numbered."""
    how = dice.pick("", "", "own", "own", "other", "unknown", "template", "variant", "no user")
    if how in ("own", "no user") and sends:
        row["send"] = about
    if how == "other" and sends:
        row["send"] = _one_of(dice, sends)
    if how == "unknown":
        row["send_id"] = "S404"
    if how == "template":
        row["template_id"] = dice.pick(about["template_id"], *shape.templates, "T9")
    if how == "variant":
        row["variant_id"] = dice.pick(about["variant_id"], "A", "B")
    if how == "no user" and sends:  # a row that names neither cannot be read
        row["user_id"] = ""


def _again(dice: Dice, shape: Shape, row: Row) -> list[Row]:
    """What changes on rows that follow this one: its copies and refunds."""
    out: list[Row] = []
    at = row["occurred_at"]
    if shape.has("duplicates") and dice.pick(False, False, True):
        other_time: Row = {"occurred_at": at + dice.pick(DAY, -DAY, TICK[shape.resolution]), "received_at": None}
        ways: list[Row] = [{}, other_time]
        if row["order_id"]:
            ways += [{"event_id": "new"}, {"event_id": "new"} | other_time]
        if shape.has("late"):
            ways += [{"received_at": at + DAY}]
        out.append(dice.pick(*ways))
    if shape.has("refunds") and row["kind"] == "conversion" and dice.pick(False, False, True):
        horizon = clock.days(shape.rule.refund_horizon_days)
        out.append(
            {
                "event_id": "new",
                "value": -dice.pick(row["value"] or 5_000_000, 5_000_000),
                "occurred_at": at + dice.pick(DAY, 0, 10 * DAY, shape.on_grid(horizon), -DAY),
                "received_at": None,
                "order_id": dice.pick(row["order_id"], row["order_id"], "o404"),
            }
        )
    return out


def draw_log(dice: Dice, shape: Shape, most_sends: int = 6, most_events: int = 6) -> SmallLog:
    """A whole log: up to so many sends and events, their copies and refunds, in one of two orders."""
    # Some features at a time: a log full of everything hides what one alone would show.
    some = frozenset(f for f in sorted(shape.features) if dice.pick(False, True))
    shape = dataclasses.replace(shape, features=some)
    sends = dice.rows(lambda d: draw_send(d, shape), dice.pick(0, 1, 1, 1, 2), most_sends)
    _tie(sends)
    if not shape.has("ties"):
        first = {(s["user_id"], s["sent_at"]): s for s in reversed(sends)}
        sends = [s for s in sends if first[s["user_id"], s["sent_at"]] is s]
    for label, send in zip(LABELS, sends, strict=False):
        send["send_id"] = label
    events = number(dice.rows(lambda d: draw_event(d, shape, sends), dice.pick(0, 1, 1, 1, 2), most_events))
    told_twice = shape.has("duplicates") and bool(sends) and dice.pick(False, True)
    sends = [*sends, dict(sends[0])] if told_twice else sends
    return SmallLog(sends, events) if dice.pick(True, False) else SmallLog(sends[::-1], events[::-1])


def _tie(sends: list[Row]) -> None:
    """A send that is marked so gets the user and the instant of the one before it."""
    for before, send in pairwise([{}, *sends]):
        if send.pop("tie") and before:
            by = before["sent_at"] - send["sent_at"]
            times = ("sent_at", "delivered_at", "status_known_at", "received_at")
            send |= {k: send[k] + by for k in times if send[k] is not None} | {"user_id": before["user_id"]}


def number(drawn: list[Row]) -> list[Row]:
    """Event ids e1, e2, ..., the ids of the sends that they name, and the rows that follow each."""
    out: list[Row] = []
    ids = 0
    for row in drawn:
        again, named = row.pop("again"), row.pop("send", None)
        ids += 1
        row["event_id"] = f"e{ids}"
        if named is not None:
            row["send_id"] = named["send_id"]
        if row["order_id"]:
            row["order_id"] = f"o{ids}"
        out.append(row)
        for change in again:
            more = row | change
            if more["event_id"] == "new":
                ids += 1
                more["event_id"] = f"e{ids}"
            if more["order_id"] == "own":
                more["order_id"] = row["order_id"]
            out.append(more)
    return out


assert tuple(TICK) == get_args(Resolution)

"""Hypothesis strategies of users, sends, events, whole logs with faults, and rules."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from hypothesis import strategies as st

from justai_sim.attribution.rule import CHOICES, Rule
from justai_sim.errors import UsageError
from justai_sim.testing.draw import USERS, Dice, Goals, Resolution, Shape, draw_event, draw_log, feature_set, one_send
from justai_sim.testing.rows import Row, SmallLog

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe")


class Drawn:
    """Dice that hypothesis rolls, so that it can shrink them."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def pick(self, *values: Any) -> Any:
        return values[0] if len(values) == 1 else self.draw(st.sampled_from(values))

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def rows(self, make: Callable[[Dice], Row], low: int, high: int) -> list[Row]:
        return self.draw(st.lists(_made(make), min_size=low, max_size=high))


@st.composite
def _made(draw: st.DrawFn, make: Callable[[Dice], Any]) -> Any:
    return make(Drawn(draw))


def _shape(
    rule: Rule | None, features: Collection[str] | str | None, resolution: Resolution, goals: Goals
) -> Shape:  # fmt: skip
    return Shape(rule or Rule(), feature_set(features), resolution, goals)


def users() -> st.SearchStrategy[str]:
    """User ids, few of them, so that the rows of a log meet.

    >>> from hypothesis import find
    >>> find(users(), lambda u: True)
    'u1'
    """
    return st.sampled_from(USERS)


def sends(
    rule: Rule | None = None, *, features: Collection[str] | str | None = None,
    resolution: Resolution = "microsecond", goals: Goals = ("purchase",),
) -> st.SearchStrategy[Row]:  # fmt: skip
    """Rows of sends (see `testing.rows`) with the features' statuses and receipts, all with the id S1.

    >>> from hypothesis import find
    >>> find(sends(), lambda s: s["status"] == "bounced")["user_id"]
    'u1'
    """
    shape = _shape(rule, features, resolution, goals)
    return _made(lambda dice: one_send(dice, shape))


def events(
    of: list[Row] | None = None, rule: Rule | None = None, *, features: Collection[str] | str | None = None,
    resolution: Resolution = "microsecond", goals: Goals = ("purchase",),
) -> st.SearchStrategy[Row]:  # fmt: skip
    """Rows of events about the sends `of`, at ages on and beside the edges of the rule's window, with the id e1.

    >>> from hypothesis import find
    >>> from justai_sim.testing.rows import send_row
    >>> s = send_row("S1", "u1", "A", 0)
    >>> find(events([s], features=[]), lambda e: 0 < e["occurred_at"] % 86_400_000_000 < 1000)["occurred_at"]
    259200000001
    """
    shape = _shape(rule, features, resolution, goals)

    def make(dice: Dice) -> Row:
        row = draw_event(dice, shape, of or [])
        named = row.pop("send", None)
        del row["again"]
        if row["order_id"]:
            row["order_id"] = "o1"
        return row | {"event_id": "e1"} | ({"send_id": named["send_id"]} if named is not None else {})

    return _made(make)


def logs(
    rule: Rule | None = None, *, features: Collection[str] | str | None = None,
    resolution: Resolution = "microsecond", goals: Goals = ("purchase",), most_sends: int = 6, most_events: int = 6,
) -> st.SearchStrategy[SmallLog]:  # fmt: skip
    """Whole small logs with the faults that `features` name (None: all but engagement), aimed at the edges of `rule`.

    `.sends` and `.events` are DataFrames with the plain log's columns, `.send_rows` and `.event_rows` the same as
    dicts, `.log` the coded tables. `resolution`: the grid of all times, "day" for functions on dates. The order of
    the rows means nothing. A failing example shrinks to few rows and round times.

    >>> from hypothesis import find
    >>> log = find(logs(features="refunds"), lambda log: any((e["value"] or 0) < 0 for e in log.event_rows))
    >>> bool(log.events["value"].min() < 0), len(log) < 6
    (True, True)
    """
    shape = _shape(rule, features, resolution, goals)
    return _made(lambda dice: draw_log(dice, shape, most_sends, most_events))


@st.composite
def rules(draw: st.DrawFn, /, **fixed: Any) -> Rule:
    """Any valid rule, every option mixed with every other; `fixed` options stay as given.

    >>> from hypothesis import find
    >>> find(rules(bounds="[]"), lambda r: r.lookback_days == 7).offset_days
    3
    """

    def pick(name: str, *values: Any) -> Any:
        return fixed.get(name, values[0]) if name in fixed else draw(st.sampled_from(values))

    lookback_from = pick("lookback_from", "send", "offset_end")
    lookback = pick("lookback_days", 14, 7, 3, 1, 10.5, 2.75, 21)
    valid = [x for x in (3, 0, 1, 0.5, 2.25, 7) if lookback_from == "offset_end" or x < lookback]
    first = {name: (getattr(Rule(), name), *CHOICES[name]) for name in CHOICES}
    chosen = {name: pick(name, *dict.fromkeys(first[name])) for name in CHOICES}
    chosen |= {
        "lookback_from": lookback_from,
        "lookback_days": lookback,
        "offset_days": pick("offset_days", *valid),
        "tz": pick("tz", *ZONES),
        "half_life_days": pick("half_life_days", 7, 2, 30),
        "groups": pick("groups", {}, {"T1": "G1", "T2": "G1"}),
        "engagement_lookback_days": pick("engagement_lookback_days", 14, 7, 1),
        "refund_horizon_days": pick("refund_horizon_days", 180, 5, 0),
        "rates": pick("rates", {}, {"EUR": 1.1}),
        "lateness_days": pick("lateness_days", 7, 2, 0.5),
    }
    try:
        return Rule(**(chosen | fixed))
    except UsageError:  # few calendar days, none of them between the bounds
        return Rule(**(chosen | {"offset_days": 0, "bounds": "[)"} | fixed))

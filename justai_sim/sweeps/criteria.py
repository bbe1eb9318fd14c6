"""What a sweep is judged by: one number a world, from the long tables of one point."""

from __future__ import annotations

import re
from typing import Literal

import msgspec
import numpy as np
import pandas as pd

from justai_sim.designs import axes_of, decided
from justai_sim.errors import UsageError, checked_type, nearest
from justai_sim.scenario import Point, Scenario
from justai_sim.tables import F8

ALPHA = 0.02
"""All differences that a recommendation, or a race, compares hold together but for this. At 5 % of 100 sweeps in which
there is nothing to find 5 would be told of a difference on average, and of every second hundred more; at 2 % more than
5 are told in 1 hundred of 65."""


class Criterion(msgspec.Struct, frozen=True):
    """`title` and `unit` are for people; `higher` values are better; a race needs one that no limit goes with."""

    name: str
    title: str
    unit: str
    higher: bool = True
    races: bool = True


CRITERIA = {
    c.name: c
    for c in (
        Criterion("right_by_day", "the best variant leads", "share of worlds and steps"),
        Criterion("conversions", "true conversions earned", "true conversions a world"),
        Criterion("revenue", "true revenue earned", "a world"),
        Criterion("decision_time", "time to decision", "days", higher=False, races=False),
    )
}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A criterion with its settings. day: of right_by_day (None: the last); limit: of false ships."""

    criterion: str
    day: float | None = None
    limit: float = 0.05

    def __post_init__(self) -> None:
        checked_type(self.criterion, str, "criterion", f"one of {', '.join(CRITERIA)}")
        for name, given in (("day", 1 if self.day is None else self.day), ("limit", self.limit)):
            checked_type(given, (int, float, np.number), name, "a number")
        if self.criterion not in CRITERIA:
            raise UsageError(f"criterion {self.criterion!r} is not known; {nearest(self.criterion, CRITERIA)}")
        if self.day is not None and self.criterion != "right_by_day":
            raise UsageError(f"day belongs to the criterion right_by_day, not to {self.criterion}")
        if self.day is not None and not self.day > 0:
            raise UsageError(f"day is {self.day:g}; expected more than 0")
        if not 0 < self.limit < 1:
            raise UsageError(f"limit is {self.limit:g}; expected a share of false ships between 0 and 1")

    @property
    def what(self) -> Criterion:
        return CRITERIA[self.criterion]

    @property
    def bound(self) -> float | None:
        """How far apart the shares of two worlds can be; None where the criterion is no share."""
        return 1.0 if self.criterion == "right_by_day" else None


def values(question: Question, point: Point, metrics: pd.DataFrame, race: pd.DataFrame) -> F8:
    """The criterion in each world, (R,), in the order of the worlds; the frames hold the rows of this point only.

    right_by_day: share of templates whose leader is the best at the last refresh up to that day. conversions: all
    purchases of the users since they signed up, credited or not; what would have happened anyway is the same under
    every decision, so that differences are what decisions earn, less what they displace. revenue: each of them at the
    mean amount of its cause (a variant, or nothing), before refunds: the amounts themselves would only add noise.
    decision_time: days until the rule ships a variant, the mean over templates; the run's length where it never does.
    """
    if question.criterion == "right_by_day":
        if question.day is not None and question.day > point.scenario.days:
            raise UsageError(f"day is {question.day:g}; the sweep ends on day {point.scenario.days:g}")
        days = race["day"][race["day"] <= (question.day or np.inf)]
        if not len(days):
            raise UsageError(f"day is {question.day:g}; the sweep's first is {race['day'].min():g}")
        return _by_world(race[race["day"] == days.max()], "right_leader")
    if question.criterion == "decision_time":
        open_share = 1 - _by_day(race, "shipped_wrong") - _by_day(race, "shipped_right")
        return np.asarray(open_share.to_numpy()[:, :-1] @ np.diff(open_share.columns.to_numpy(np.float64)))
    happened = _by_world(race[race["day"] == race["day"].max()], "happened")
    return _revenue(point.scenario, happened, metrics) if question.criterion == "revenue" else happened


def _revenue(scenario: Scenario, happened: F8, metrics: pd.DataFrame) -> F8:
    """Money of each world's purchases, (R,): those that a variant caused at its mean amount, others at the world's."""
    organic = scenario.world.value.expected
    extra = {
        (t.id, v.id): v.value.expected - organic
        for t in scenario.touches for v in scenario.variants_of(t) if v.value is not None
    }  # fmt: skip
    money = happened * organic
    if extra:
        caused = metrics[metrics["metric"] == "caused"].sort_values("rep", kind="stable")
        keys = zip(caused["template_id"], caused["variant_id"], strict=True)
        each = np.array([extra.get(k, 0.0) for k in keys]) * caused["value"].to_numpy(np.float64)
        money = money + np.bincount(caused["rep"].to_numpy(np.int64), each, len(happened))
    return money


def false_ships(race: pd.DataFrame) -> F8:
    """Share of templates for which a wrong variant was shipped by the end, by world, (R,)."""
    return _by_world(race[race["day"] == race["day"].max()], "shipped_wrong")


def _by_world(rows: pd.DataFrame, column: str) -> F8:
    return rows.sort_values("rep")[column].to_numpy(np.float64)


def _by_day(race: pd.DataFrame, column: str) -> pd.DataFrame:
    return race.pivot_table(index="rep", columns="day", values=column).sort_index().sort_index(axis=1)


Kind = Literal["decision", "assumption"]


def kinds(scenario: Scenario) -> dict[str, Kind]:
    """By axis: whether a choice between its labels can be made, or only be assumed."""
    return {
        name: "decision" if any(map(decided, keys)) else "assumption"
        for axis in axes_of(scenario.sweep, scenario.seed) for name, keys in axis.keys.items()
    }  # fmt: skip


def titles(scenario: Scenario) -> dict[str, str]:
    """By axis: what it is called in a sentence. A variant's key names the variant: 'conversion_rate of story'."""
    out = {}
    for axis in axes_of(scenario.sweep, scenario.seed):
        for name, keys in axis.keys.items():
            place = re.fullmatch(r"variants\.(\d+)\.(.+)", keys[0]) if len(keys) == 1 else None
            out[name] = f"{place[2]} of {scenario.variants[int(place[1])].id}" if place else name
    return out


def families(scenario: Scenario, points: list[Point]) -> dict[tuple[str, ...], list[int]]:
    """Points that differ in decisions only, by the labels of what they assume, in the order of the sweep."""
    assumed = [name for name, kind in kinds(scenario).items() if kind == "assumption"]
    out: dict[tuple[str, ...], list[int]] = {}
    for i, p in enumerate(points):
        out.setdefault(tuple(p.labels[a] for a in assumed), []).append(i)
    return out


def pairs(groups: dict[tuple[str, ...], list[int]]) -> int:
    """How many differences there are between the points of the same family."""
    return sum(len(g) * (len(g) - 1) // 2 for g in groups.values())

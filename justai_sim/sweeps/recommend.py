"""What to choose, by a criterion: every decision against the best one over the same worlds, for each assumption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from justai_sim import stats
from justai_sim.errors import UsageError, listed
from justai_sim.scenario import Point, Scenario
from justai_sim.sweeps import recommend_words as words
from justai_sim.sweeps.criteria import ALPHA, Question, false_ships, families, kinds, pairs, titles, values
from justai_sim.sweeps.data import Raced, SweepData
from justai_sim.sweeps.flips import Flip, flips
from justai_sim.tables import F8

NOT_SHOWN = "limit not shown"
COMPARED = ("best", "tied", "worse", "better")
"""Verdicts of what is compared at all: it keeps the limit."""


@dataclass(frozen=True)
class Standing:
    """How one decision does under one set of assumptions. difference: from the best, over the worlds of both, with an
    interval that holds for all of them together; best_value: the best's value in these worlds; verdict: best, tied,
    worse, better (only of one that left a race by another criterion), or over the limit / limit not shown (of false
    ships)."""

    point: str
    decision: str
    worlds: int
    value: float
    difference: float
    low: float
    high: float
    verdict: str
    best_value: float = np.nan
    stopped: bool = False
    wrong: float = np.nan
    wrong_low: float = np.nan
    wrong_high: float = np.nan

    def may_keep(self, limit: float) -> bool:
        """Whether it is not shown to keep the limit of false ships, but may be by more worlds like these."""
        return self.verdict == NOT_SHOWN and self.wrong < limit


@dataclass(frozen=True)
class Case:
    """One set of assumptions, by axis, and how every decision does under it, in the order of the sweep."""

    assumed: dict[str, str]
    standings: list[Standing]

    @property
    def best(self) -> Standing | None:
        """None where no decision is shown to keep the limit."""
        return next((s for s in self.standings if s.verdict == "best"), None)

    @property
    def chosen(self) -> list[str]:
        """The best decision and those that cannot be told from it, the best first."""
        tied = [s.decision for s in self.standings if s.verdict == "tied"]
        return [self.best.decision, *tied] if self.best else []

    @property
    def decisions(self) -> list[str]:
        return [s.decision for s in self.standings]

    def of(self, decision: str) -> Standing:
        return next(s for s in self.standings if s.decision == decision)


@dataclass(frozen=True)
class Versus:
    """A decision minus the one that is chosen, under the set of assumptions number `case`, with an interval that holds
    for all together; verdict: worse, tied or better."""

    case: int
    decision: str
    difference: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Recommendation:
    """Result of `recommend`.

    chosen: the decision to take whatever is assumed, and those that are tied with it: told worse than another under no
    set of assumptions; none where the best one differs. The order of the assumptions does not matter.
    lead: the first of them against each other decision, under each set of assumptions.
    comparisons: how many differences hold together with 98 % (Bonferroni over Student's intervals).
    """

    question: Question
    scenario: Scenario
    cases: list[Case]
    flips: list[Flip]
    chosen: list[str]
    lead: list[Versus]
    comparisons: int
    looks: int = 1

    @cached_property
    def titles(self) -> dict[str, str]:
        """What each axis is called in a sentence."""
        return titles(self.scenario)

    @property
    def answer(self) -> str:
        """One sentence or two: what to choose, by how much, and where that changes."""
        return words.answer(self)

    @property
    def method(self) -> str:
        """How the numbers were made."""
        return words.method(self)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a set of assumptions and decision: its axes, `point, worlds, value, difference, low, high, verdict,
        stopped, best_value`, and of decision_time `wrong, wrong_low, wrong_high`, the share of false ships. Differences
        are from the best of the same assumptions; `criterion` and `unit` say of what."""
        what = self.question.what
        unit = f"{self.scenario.world.value.currency} {what.unit}" if what.name == "revenue" else what.unit
        rows = []
        for case in self.cases:
            for s in case.standings:
                row: dict[str, Any] = {**case.assumed, "decision": s.decision, "point": s.point, "worlds": s.worlds,
                                       "value": s.value, "difference": s.difference, "low": s.low, "high": s.high,
                                       "verdict": s.verdict, "stopped": s.stopped,
                                       "best_value": s.best_value}  # fmt: skip
                if what.name == "decision_time":
                    row |= {"wrong": s.wrong, "wrong_low": s.wrong_low, "wrong_high": s.wrong_high}
                rows.append(row | {"criterion": what.name, "unit": unit})
        return pd.DataFrame(rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        flips = [
            {"axis": f.axis, "between": [f.below, f.above], "before": f.before, "after": f.after, "fits": f.fits,
             "of": f.of, "under": f.under} for f in self.flips
        ]  # fmt: skip
        rows = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in r.items()}
            for r in self.table.to_dict("records")
        ]
        return {"simulated": True, "answer": self.answer, "criterion": self.question.criterion, "chosen": self.chosen,
                "flips": flips, "method": self.method, "rows": rows}  # fmt: skip

    def __repr__(self) -> str:
        return f"Recommendation({self.question.criterion}: {listed(self.chosen) or 'none'})"

    def __str__(self) -> str:
        return f"SIMULATED: {self.answer}\n{self.method}"

    def _repr_html_(self) -> str:
        from html import escape

        said = f"<p><b>SIMULATED</b> {escape(self.scenario.name)}: {escape(self.answer)}</p>"
        return f"{said}{self.table.to_html(index=False, float_format='%.4g')}<p>{escape(self.method)}</p>"


def recommend(data: SweepData, question: Question) -> Recommendation:
    """Compare all decisions (axes of the program and the flow) under each set of assumptions (all other axes).

    Every decision is compared with the best of those that ran all worlds, over the worlds that both ran. The intervals
    hold for all pairs of decisions under all assumptions together, and for every look of a race: so the best may be
    chosen by looking, and a point may have stopped early. UsageError where the sweep varies no decision, or never two
    under the same assumptions.
    """
    groups = families(data.scenario, data.points)
    names = [n for n, kind in kinds(data.scenario).items() if kind == "decision"]
    if not names:
        raise UsageError("nothing to recommend: the sweep varies no decision (program.*, flow.*.day)")
    if max(map(len, groups.values())) < 2:
        raise UsageError(
            "nothing to recommend: no two decisions met the same assumptions; give either as lists or labels, "
            "so that the design's points meet each of them"
        )
    looks = len(data.raced.looks) if data.raced is not None else 1
    comparisons = pairs(groups) * looks
    frames = [dict(iter(f.groupby("point", sort=False))) for f in (data.metrics, data.race)]
    found = {
        i: _Found(p, p.name if not names else " · ".join(p.labels[n] for n in names), data.raced, question,
                  *(f[p.name] for f in frames))
        for i, p in enumerate(data.points)
    }  # fmt: skip
    level = 1 - ALPHA / comparisons
    assumed = [n for n, kind in kinds(data.scenario).items() if kind == "assumption"]
    grouped = [[found[i] for i in group] for group in groups.values()]
    cases = [
        Case(dict(zip(assumed, labels, strict=True)), _standings(group, question, level))
        for labels, group in zip(groups, grouped, strict=True)
    ]
    chosen, lead = _overall(cases, grouped, question, level)
    return Recommendation(question, data.scenario, cases, flips(data.scenario, cases), chosen, lead, comparisons, looks)


class _Found:
    """What a point's worlds came to."""

    def __init__(
        self, point: Point, decision: str, raced: Raced | None, question: Question, metrics: pd.DataFrame,
        race: pd.DataFrame,
    ) -> None:  # fmt: skip
        self.point, self.decision = point.name, decision
        self.stopped = raced is not None and any(s.point == point.name for s in raced.stopped)
        self.values: F8 = values(question, point, metrics, race)
        self.limit, self.wrong = "", (np.nan, np.nan, np.nan)
        if question.criterion == "decision_time":
            wrong = false_ships(race)
            low, high = (float(x) for x in stats.wilson(wrong.sum(), len(wrong), words.ONE_SIDED))
            self.wrong = float(wrong.mean()), low, high
            self.limit = "" if high <= question.limit else "over the limit" if low > question.limit else NOT_SHOWN


def _overall(
    cases: Sequence[Case], grouped: Sequence[Sequence[_Found]], question: Question, level: float
) -> tuple[list[str], list[Versus]]:
    """What is among the best under all assumptions, the one that comes nearest to the best of each first; and it
    against each other decision. Cases in which no decision is shown to keep a limit have no say."""
    told = [k for k, c in enumerate(cases) if c.best]
    common = [d for d in cases[0].decisions if told and all(d in cases[k].chosen for k in told)]
    if not common:
        return [], []
    sign = 1 if question.what.higher else -1

    def near(decision: str) -> tuple[bool, float]:
        own = [cases[k].of(decision) for k in told]
        return not any(s.stopped for s in own), math.fsum(sign * s.difference for s in own)

    first = max(common, key=near)
    lead: list[Versus] = []
    for k in told:
        by = {f.decision: f.values for f in grouped[k]}
        for s in cases[k].standings:
            if s.decision != first and s.verdict in COMPARED:
                n = min(len(by[first]), len(by[s.decision]))
                gap = by[s.decision][:n] - by[first][:n]
                mean, low, high = stats.paired_interval(gap, level, question.bound)
                lead.append(Versus(k, s.decision, mean, low, high, _verdict(False, sign * low, sign * high)))
    seen = {d: {v.verdict for v in lead if v.decision == d} for d in common}
    return [first, *(d for d in common if d != first and not ("worse" in seen[d] and "better" not in seen[d]))], lead


def _standings(found: Sequence[_Found], question: Question, level: float) -> list[Standing]:
    sign = 1 if question.what.higher else -1
    able = [f for f in found if not f.limit and not f.stopped]
    best = max(able, key=lambda f: sign * f.values.mean(), default=None)
    out = []
    for f in found:
        mean, low, high, best_value = np.nan, np.nan, np.nan, np.nan
        verdict = f.limit
        if best is not None:
            n = min(len(f.values), len(best.values))
            mean, low, high = stats.paired_interval(f.values[:n] - best.values[:n], level, question.bound)
            best_value = float(best.values[:n].mean())
            if f is best:
                mean, low, high = 0.0, np.nan, np.nan
            verdict = f.limit or _verdict(f is best, sign * low, sign * high)
        out.append(Standing(f.point, f.decision, len(f.values), float(f.values.mean()), mean, low, high, verdict,
                            best_value, f.stopped, *f.wrong))  # fmt: skip
    return out


def _verdict(best: bool, one: float, other: float) -> str:
    if best:
        return "best"
    low, high = min(one, other), max(one, other)
    return "worse" if high < 0 else "better" if low > 0 else "tied"

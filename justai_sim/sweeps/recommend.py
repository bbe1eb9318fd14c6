"""What to choose, by a criterion: every decision against the best one over the same worlds, for each assumption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from justai_sim import stats
from justai_sim.designs import axes_of
from justai_sim.errors import UsageError, listed
from justai_sim.scenario import Point, Scenario
from justai_sim.sweeps import recommend_words as words
from justai_sim.sweeps.criteria import ALPHA, Question, false_ships, families, kinds, pairs, values
from justai_sim.sweeps.data import Raced, SweepData
from justai_sim.tables import F8

NOT_SHOWN = "limit not shown"


@dataclass(frozen=True)
class Standing:
    """How one decision does under one set of assumptions. difference: from the best, with an interval that holds for
    all of them together; verdict: best, tied, worse, better (only of one that left a race by another criterion), or
    over the limit / limit not shown (of false ships)."""

    point: str
    decision: str
    worlds: int
    value: float
    difference: float
    low: float
    high: float
    verdict: str
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


@dataclass(frozen=True)
class Flip:
    """Along an axis of assumptions the answer changes between two neighbouring values. It is told so by `fits` of `of`
    sets of assumptions: by all, unless others that a design varies with it matter as well."""

    axis: str
    below: str
    above: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    fits: int = 1
    of: int = 1


@dataclass(frozen=True)
class Recommendation:
    """Result of `recommend`. The first case has what the scenario assumes first; flips leave the other axes there.

    comparisons: how many differences hold together with 98 % (Bonferroni over Student's intervals).
    """

    question: Question
    scenario: Scenario
    cases: list[Case]
    flips: list[Flip]
    comparisons: int
    looks: int = 1

    @property
    def chosen(self) -> list[str]:
        """The decision to take under the first assumptions, and those that are tied with it."""
        return self.cases[0].chosen

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
        stopped`, and of decision_time `wrong, wrong_low, wrong_high`, the share of false ships. Differences are from
        the best of the same assumptions; `criterion` and `unit` say of what."""
        what = self.question.what
        unit = f"{self.scenario.world.value.currency} {what.unit}" if what.name == "revenue" else what.unit
        rows = []
        for case in self.cases:
            for s in case.standings:
                row: dict[str, Any] = {**case.assumed, "decision": s.decision, "point": s.point, "worlds": s.worlds,
                                       "value": s.value, "difference": s.difference, "low": s.low, "high": s.high,
                                       "verdict": s.verdict, "stopped": s.stopped}  # fmt: skip
                if what.name == "decision_time":
                    row |= {"wrong": s.wrong, "wrong_low": s.wrong_low, "wrong_high": s.wrong_high}
                rows.append(row | {"criterion": what.name, "unit": unit})
        return pd.DataFrame(rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        flips = [
            {"axis": f.axis, "between": [f.below, f.above], "before": f.before, "after": f.after, "fits": f.fits,
             "of": f.of} for f in self.flips
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
    cases = [
        Case(dict(zip(assumed, labels, strict=True)), _standings([found[i] for i in group], question, level))
        for labels, group in groups.items()
    ]
    return Recommendation(question, data.scenario, cases, flips(data.scenario, cases), comparisons, looks)


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


def _standings(found: Sequence[_Found], question: Question, level: float) -> list[Standing]:
    sign = 1 if question.what.higher else -1
    able = [f for f in found if not f.limit and not f.stopped]
    best = max(able, key=lambda f: sign * f.values.mean(), default=None)
    out = []
    for f in found:
        mean, low, high = np.nan, np.nan, np.nan
        verdict = f.limit
        if best is not None:
            n = min(len(f.values), len(best.values))
            mean, low, high = stats.paired_interval(f.values[:n] - best.values[:n], level, question.bound)
            if f is best:
                mean, low, high = 0.0, np.nan, np.nan
            verdict = f.limit or _verdict(f is best, sign * low, sign * high)
        out.append(Standing(f.point, f.decision, len(f.values), float(f.values.mean()), mean, low, high, verdict,
                            f.stopped, *f.wrong))  # fmt: skip
    return out


def _verdict(best: bool, one: float, other: float) -> str:
    if best:
        return "best"
    low, high = min(one, other), max(one, other)
    return "worse" if high < 0 else "better" if low > 0 else "tied"


def flips(scenario: Scenario, cases: Sequence[Case]) -> list[Flip]:
    """Where the answer changes along each axis of assumptions, the other axes at their first labels.

    Neighbouring values have the same answer while some decision is among the best of all of them: ties change
    nothing. The axes of a design vary together: one of them is told where a single change along it explains all, else
    the single change that explains most (`_threshold`).
    """
    first = cases[0].assumed
    out: list[Flip] = []
    for axis in axes_of(scenario.sweep, scenario.seed):
        together = [n for n in axis.keys if n in first]
        along = [c for c in cases if all(c.assumed[n] == first[n] for n in first if n not in together)]
        found = [_along(name, along) for name in together]
        whole = [f for of in found if len(together) == 1 or len(of) == 1 for f in of]
        out += whole or (_threshold(together, along) if len(together) > 1 else [])
    return out


def _threshold(names: Sequence[str], cases: Sequence[Case]) -> list[Flip]:
    """The one value of one axis below and above which two decisions are among the best in most cases; none where that
    is hardly more than a single decision achieves (a tenth of the cases, two at least)."""
    decisions = list(dict.fromkeys(d for c in cases for d in c.chosen))
    best: tuple[int, Flip] | None = None
    for name in names:
        ranked = sorted(cases, key=lambda c: order(c.assumed[name]))
        hit = np.array([[d in c.chosen for d in decisions] for c in ranked], np.int64).reshape(len(ranked), -1)
        below = hit.cumsum(0)[:-1]
        above = hit.sum(0) - below
        labels = [c.assumed[name] for c in ranked]
        apart = np.array([a != b for a, b in pairwise(labels)], bool)
        if not apart.any() or not decisions:
            continue
        total = np.where(apart, below.max(1) + above.max(1), -1)
        k = int(total.argmax())
        one, other = decisions[int(below[k].argmax())], decisions[int(above[k].argmax())]
        fits = int(total[k])
        gain = fits - int(hit.sum(0).max())
        if one != other and gain >= max(2, 0.1 * len(cases)) and (best is None or fits > best[0]):
            best = fits, Flip(name, labels[k], labels[k + 1], (one,), (other,), fits, len(cases))
    return [best[1]] if best else []


def _along(name: str, cases: Sequence[Case]) -> list[Flip]:
    """Runs of cases, sorted by one axis, that have a decision in common; a flip between each two runs."""
    runs: list[tuple[list[Case], list[str]]] = []
    for case in sorted(cases, key=lambda c: order(c.assumed[name])):
        common = [d for d in runs[-1][1] if d in case.chosen] if runs else []
        if runs and (common or runs[-1][1] == case.chosen):
            runs[-1] = ([*runs[-1][0], case], common)
        else:
            runs.append(([case], case.chosen))
    return [
        Flip(name, a[0][-1].assumed[name], b[0][0].assumed[name], tuple(a[1]), tuple(b[1])) for a, b in pairwise(runs)
    ]


def order(label: str) -> tuple[float, str]:
    """Numbers by size; other labels keep their order."""
    try:
        return float(label), ""
    except ValueError:
        return 0.0, ""

"""The first screen of a sweep's report: sentences and tables, generated from the frames and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from justai_sim import stats
from justai_sim.pages.assumed import assumptions
from justai_sim.pages.inputs import Recommendation, Standing, SweepData
from justai_sim.pages.naming import (
    alike,
    axis_columns,
    axis_of,
    each_window,
    label_of,
    listed,
    reference,
    siblings,
    window_label,
    with_assumed,
    words,
)
from justai_sim.pages.purchases import credited, lifts
from justai_sim.pages.race import share_band
from justai_sim.pages.recommend import standings
from justai_sim.pages.recommend_page import first_sentence, recommendations
from justai_sim.pages.style import FEW_WORLDS
from justai_sim.pages.table import Column, Part, percent, write
from justai_sim.scenario import Point, Scenario
from justai_sim.tables import F8


@dataclass(frozen=True)
class Answer:
    """Everything that the first screen says; every part has its numbers as rows."""

    size: str
    headline: str
    summary: Part
    comparison: Part
    leads: Part
    lost: Part
    lift: Part
    credited: Part
    assumed: Part

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        parts = {k: getattr(self, k) for k in ("summary", "comparison", "leads", "lost", "lift", "credited", "assumed")}
        return {"size": self.size, "headline": self.headline} | {
            k: {"text": p.text, "rows": p.rows} for k, p in parts.items()
        }


@dataclass(frozen=True)
class Ends:
    """The last day of every point. right, lost: point name -> values by world (R,), the same worlds everywhere; points
    that left a race have only the first of them."""

    scenario: Scenario
    points: list[Point]
    use: Point
    right: dict[str, F8]
    lost: dict[str, F8]

    @property
    def worlds(self) -> int:
        """Worlds of a point that ran all of them."""
        return max(len(v) for v in self.right.values())


def answer(data: SweepData, found: Sequence[Recommendation] | None = None) -> Answer:
    """The parts of the first screen; `found`: what is recommended by each criterion, the one of the page first."""
    ends = _ends(data)
    found = recommendations(data) if found is None else found
    leads, lost, lift, credit = _leads(ends), _lost(ends), lifts(data), credited(data)
    summary = _summary(ends, (leads, lost, lift, credit), found)
    headline = _recommended(ends, found) if found else _described(ends)
    return Answer(
        _size(data), headline, summary, _compared(ends, found), leads, lost, lift, credit, assumptions(data.scenario)
    )


def _summary(ends: Ends, parts: tuple[Part, ...], found: Sequence[Recommendation]) -> Part:
    """All of the first screen's numbers, a row a point; where there is a choice, how each does by the criterion."""
    verdict = {s.point: _verdict(s) for r in found[:1] for c in r.cases for s in c.standings}
    rows: list[dict[str, Any]] = []
    for i, p in enumerate(ends.points):
        row: dict[str, Any] = {}
        for part in parts:
            row |= part.rows[i]
        own = ["in use" if p is ends.use else "", verdict.get(p.name, "")]
        rows.append(row | {"verdict": "; ".join(filter(None, own))})
    columns = [
        *axis_columns(ends.scenario),
        Column("right", "right at the end", "percent", interval=True),
        Column("lost", "lost per 10,000 sends", "one", interval=True),
        Column("true_lift", "true lift", "lift"), Column("shown_lift", "shown lift", "lift", interval=True),
        Column("credited", "credited per 1,000", "one"), Column("caused", "caused per 1,000", "one"),
    ]  # fmt: skip
    if len(ends.points) > 1:
        columns.append(Column("verdict", f"by: {found[0].question.what.title}" if found else "which"))
    return Part("Everything that was compared", "", rows, columns)


def _verdict(s: Standing) -> str:
    return f"{s.verdict}, stopped after {s.worlds} worlds" if s.stopped else s.verdict


def _compared(ends: Ends, found: Sequence[Recommendation]) -> Part:
    """Every decision against the best one, by the criterion of the page."""
    if not found:
        return Part("Every decision", "")
    note = found[0].method
    if (worlds := len(ends.right[ends.use.name])) < FEW_WORLDS:
        note += f" Few worlds ({worlds}): the intervals are rough."
    return standings(found[0].table, f"Every decision, by: {found[0].question.what.title}", "", note)


def _recommended(ends: Ends, by: Sequence[Recommendation]) -> str:
    """What to choose, and what becomes of the decision in use; another criterion where the first tells nothing."""
    found = by[0]
    first, _ = first_sentence(found)
    every = found.cases[0].decisions
    if len(found.chosen) == len(every):
        other = next((r for r in by[1:] if r.chosen and len(r.chosen) < len(every)), None)
        return first if other is None else f"{first} But by {other.question.what.title}: {first_sentence(other)[0]}"
    decision = next(s.decision for c in found.cases for s in c.standings if s.point == ends.use.name)
    worse = sum(c.of(decision).verdict == "worse" for c in found.cases)
    if decision in found.chosen or not worse:
        return first
    sets = len(found.cases)
    where = f" under {'all' if worse == sets else f'{worse} of'} {sets} sets of assumptions" if sets > 1 else ""
    return f"{first} In use: {decision} (counts from {words(ends.use)}), which is worse{where}."


def _described(ends: Ends) -> str:
    """Where there is no choice to be made: what was found, by what is assumed."""
    unit = "(world, step) pairs" if len(ends.use.scenario.touches) > 1 else "worlds"
    if len(ends.points) == 1:
        right = percent(float(ends.right[ends.use.name].mean()))
        return f"Counting from {words(ends.use)} puts the best variant first in {right} of {unit}."
    if len(ends.right[ends.use.name]) < 2:
        return "One world tells nothing apart: simulate more of them (--replications)."
    return _lost_by(ends, siblings(ends.points, ends.use))


def _ends(data: SweepData) -> Ends:
    last = data.race[data.race["day"] == data.race["day"].max()]
    by = {c: last.pivot_table(index="rep", columns="point", values=c) for c in ("right_leader", "lost_per_10k")}
    points = data.points
    use = reference(points, data.reference)
    worlds = last.groupby("point").size()
    right, lost = ({p.name: t[p.name].to_numpy(np.float64)[: worlds[p.name]] for p in points} for t in by.values())
    return Ends(data.scenario, points, use, right, lost)


def _size(data: SweepData) -> str:
    s = data.scenario
    m = data.metrics[(data.metrics["metric"] == "sends") & (data.metrics["point"] == data.reference)]
    sends = m["value"].sum() / max(int(m["rep"].nunique()), 1)
    worlds = max(int(data.metrics["rep"].nunique()), 1)  # the reference may have left a race
    many = len(s.touches)
    steps = f"{many} {'steps' if len(s.flow) == many else 'templates'}" if many > 1 else "1 template"
    return (
        f"{worlds:,} {'worlds' if worlds > 1 else 'world'} × {sends:,.0f} sends ({steps}, {s.days} days), seed {s.seed}"
    )


def _lost_by(ends: Ends, family: list[Point]) -> str:
    """What is lost under each of the assumptions of an axis: none of them can be chosen."""
    least = min(family, key=lambda p: ends.lost[p.name].mean())
    pairs = len(family) * (len(family) - 1) // 2

    def tied(p: Point) -> bool:
        gap = ends.lost[p.name] - ends.lost[least.name]
        low, high = stats.paired_interval(gap, 1 - 0.05 / max(pairs, 1))[1:]
        return bool(low <= 0 <= high)

    said = listed([f"{window_label(p)} {write(float(ends.lost[p.name].mean()), 'one')}" for p in family])
    name = axis_of(ends.use).replace("_", " ")
    if all(tied(p) for p in family if p is not least):
        return f"No difference in {name}: conversions lost per 10,000 sends are {said}."
    return f"Conversions lost per 10,000 sends depend on {name}: {said}."


def _leads(ends: Ends) -> Part:
    """How often the right variant leads at the end under every point."""
    rows = []
    for p in ends.points:
        v = ends.right[p.name]
        low, high = share_band(v[:, None])
        rows.append(label_of(p) | {"right": float(v.mean()), "right_low": float(low[0]), "right_high": float(high[0])})
    text = f"{each_window(ends.scenario, ends.points, ends.use, lambda i: percent(rows[i]['right']))}."
    note = "Share of (world, step) pairs in which the best variant leads on the last day; intervals: 95 %, over worlds."
    columns = (*axis_columns(ends.scenario), Column("right", "right variant leads", "percent", interval=True))
    return Part("How often the right variant leads at the end", text, rows, columns, note)


def _lost(ends: Ends) -> Part:
    """True purchases lost against always sending the best, at the end."""
    rows = []
    for p in ends.points:
        v = ends.lost[p.name]
        low, high = (float(x) for x in stats.mean_interval(v.sum(), (v * v).sum(), len(v)))
        rows.append(label_of(p) | {"lost": float(v.mean()), "lost_low": low, "lost_high": high})
    said = each_window(ends.scenario, ends.points, ends.use, lambda i: write(rows[i]["lost"], "one"))
    own = [p for p in alike(ends.scenario, ends.points, ends.use) if len(ends.lost[p.name]) == ends.worlds]
    text = f"Per 10,000 sends, {said}."
    if len(own) > 1:
        least = min(own, key=lambda p: ends.lost[p.name].mean())
        same = sum(bool(ends.lost[p.name].mean() == ends.lost[least.name].mean()) for p in own)
        text += "" if same > 1 else f" {least.name} loses least{with_assumed(ends.scenario, ends.use)}."
    note = "Against always sending the best variant, by the end; intervals: 95 %, over worlds."
    columns = (*axis_columns(ends.scenario), Column("lost", "lost per 10,000 sends", "one", interval=True))
    return Part("True purchases lost", text, rows, columns, note)


def race_frame(data: SweepData) -> pd.DataFrame:
    """The race with the points in the order of the sweep, the reference's labels first in every axis."""
    order = {p.name: i for i, p in enumerate(data.points)}
    order[data.reference] = -1
    return data.race.sort_values("point", key=lambda c: c.map(order), kind="stable")

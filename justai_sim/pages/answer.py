"""The first screen of a sweep's report: sentences and tables, generated from the frames and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from justai_sim import stats
from justai_sim.pages.assumed import assumptions
from justai_sim.pages.inputs import SweepData
from justai_sim.pages.naming import (
    WINDOW,
    axis_columns,
    axis_of,
    each_window,
    elsewhere,
    label_of,
    listed,
    reference,
    siblings,
    window_label,
    words,
)
from justai_sim.pages.purchases import credited, lifts
from justai_sim.pages.race import share_band
from justai_sim.pages.style import FEW_WORLDS
from justai_sim.pages.table import Column, Part, percent, write
from justai_sim.scenario import Point
from justai_sim.tables import F8

DEFAULT = (3.0, 14.0)


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

    points: list[Point]
    use: Point
    right: dict[str, F8]
    lost: dict[str, F8]


def answer(data: SweepData) -> Answer:
    """The parts of the first screen."""
    ends = _ends(data)
    comparison, headline = _compare(ends, len(data.scenario.touches))
    leads, lost, lift, credit = _leads(ends), _lost(ends), lifts(data), credited(data)
    summary = _summary(ends, (leads, lost, lift, credit))
    return Answer(_size(data), headline, summary, comparison, leads, lost, lift, credit, assumptions(data.scenario))


def _summary(ends: Ends, parts: tuple[Part, ...]) -> Part:
    """All of the first screen's numbers, a row a point."""
    verdict: dict[str, str] = {}
    for p in ends.points:
        if p.name not in verdict:
            family = siblings(ends.points, p)
            verdict |= {q.name: r["verdict"] for q, r in zip(family, _against_best(ends, family), strict=True)}
    verdict[ends.use.name] = f"in use; {verdict[ends.use.name]}"
    rows: list[dict[str, Any]] = []
    for i, p in enumerate(ends.points):
        row: dict[str, Any] = {}
        for part in parts:
            row |= part.rows[i]
        rows.append(row | {"verdict": verdict[p.name]})
    columns = (
        *axis_columns(ends.points),
        Column("right", "right at the end", "percent", interval=True),
        Column("lost", "lost per 10,000 sends", "one", interval=True),
        Column("true_lift", "true lift", "lift"), Column("shown_lift", "shown lift", "lift", interval=True),
        Column("credited", "credited per 1,000", "one"), Column("happened", "happened per 1,000", "one"),
        Column("caused", "caused per 1,000", "one"), Column("verdict", "against the best"),
    )  # fmt: skip
    return Part("Everything that was compared", "", rows, columns)


def _ends(data: SweepData) -> Ends:
    last = data.race[data.race["day"] == data.race["day"].max()]
    by = {c: last.pivot_table(index="rep", columns="point", values=c) for c in ("right_leader", "lost_per_10k")}
    points = data.points
    use = reference(points, data.reference)
    worlds = last.groupby("point").size()
    right, lost = ({p.name: t[p.name].to_numpy(np.float64)[: worlds[p.name]] for p in points} for t in by.values())
    return Ends(points, use, right, lost)


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


def paired(a: F8, b: F8, comparisons: int) -> tuple[float, float, float]:
    """Mean of the difference of two shares over the worlds of both, with its interval: 95 % for all `comparisons`
    together (Bonferroni)."""
    n = min(len(a), len(b))
    return stats.paired_interval(a[:n] - b[:n], 1 - 0.05 / max(comparisons, 1), bound=1.0)


def _against_best(ends: Ends, family: list[Point]) -> list[dict[str, Any]]:
    """Each point of a family against the one that is right most often, paired over worlds."""
    best = max(family, key=lambda p: ends.right[p.name].mean())
    pairs = len(family) * (len(family) - 1) // 2  # the best was chosen by looking: all pairs count
    rows = []
    for p in family:
        mean, low, high = paired(ends.right[p.name], ends.right[best.name], pairs)
        verdict = "most often right" if p is best else "tied" if low <= 0 <= high else "less often right"
        rows.append({
            "label": window_label(p), "counts": words(p), "right": float(ends.right[p.name].mean()),
            "minus_best": mean, "minus_best_low": max(low, -1.0), "minus_best_high": min(high, 1.0),
            "verdict": verdict,
        })  # fmt: skip
    return rows


def _compare(ends: Ends, steps: int) -> tuple[Part, str]:
    """The windows under the policy in use, each against the one that is right most often; and the answer."""
    family = siblings(ends.points, ends.use)
    pairs = len(family) * (len(family) - 1) // 2
    best = max(family, key=lambda p: ends.right[p.name].mean())
    rows = _against_best(ends, family)
    columns = (
        Column("label", axis_of(ends.use).replace("_", " ") or "point"), Column("counts", "counts from"),
        Column("right", "right at the end", "percent"),
        Column("minus_best", "minus the best, points", "points", interval=True), Column("verdict", "verdict"),
    )  # fmt: skip
    note = "Differences are paired: every point meets the same worlds. " + (
        f"The intervals hold for all {pairs} pairs at once (95 %)." if pairs > 1 else "Intervals: 95 %."
    )
    worlds = len(ends.right[ends.use.name])
    if worlds < FEW_WORLDS:
        note += f" Few worlds ({worlds}): the intervals are rough."
    rest = ", ".join(elsewhere(ends.use).values())
    headline = _headline(ends, family, best, rows, steps)
    if axis_of(ends.use) != WINDOW and len(family) > 1:
        headline = _least_lost(ends, family)
    return Part("Which are tied", f"Compared under {rest}." if rest else "", rows, columns, note), headline


def _least_lost(ends: Ends, family: list[Point]) -> str:
    """Where something else than windows is compared: what loses least, whatever metric each of them goes by."""
    least = min(family, key=lambda p: ends.lost[p.name].mean())
    pairs = len(family) * (len(family) - 1) // 2

    def tied(p: Point) -> bool:
        n = min(len(ends.lost[p.name]), len(ends.lost[least.name]))
        gap = ends.lost[p.name][:n] - ends.lost[least.name][:n]
        low, high = stats.paired_interval(gap, 1 - 0.05 / max(pairs, 1))[1:]
        return bool(low <= 0 <= high)

    def told(p: Point) -> str:
        return f"{window_label(p)} {write(float(ends.lost[p.name].mean()), 'one')}"

    rest = [p for p in family if p is not least]
    alike, worse = [p for p in rest if tied(p)], [p for p in rest if not tied(p)]
    name = axis_of(ends.use).replace("_", " ")
    if len(alike) == len(rest):
        return f"No difference in {name}: conversions lost per 10,000 sends are {listed([told(p) for p in family])}."
    also = f", as few as {listed([told(p) for p in alike])}" if alike else ""
    fewest = write(float(ends.lost[least.name].mean()), "one")
    return (
        f"{window_label(least)} loses the fewest true conversions ({name}): {fewest} per 10,000 sends{also}; "
        f"{listed([told(p) for p in worse])}."
    )


def _headline(ends: Ends, family: list[Point], best: Point, rows: list[dict[str, Any]], steps: int) -> str:
    right = {p.name: percent(float(ends.right[p.name].mean())) for p in family}
    unit = "(world, step) pairs" if steps > 1 else "worlds"
    puts = f"puts the best variant first in {right[best.name]} of {unit}"
    if len(family) == 1:
        return f"The window {window_label(best)} (counts {words(best)}) {puts}."
    base = next((p for p in family if _default(p)), ends.use if ends.use in family else family[0])
    tied = [window_label(p) for p, r in zip(family, rows, strict=True) if r["verdict"] == "tied" and p is not base]
    base_row = next(r for p, r in zip(family, rows, strict=True) if p is base)
    also = f"; {listed(tied)} cannot be told from it" if tied else ""
    worst = min(family, key=lambda p: ends.right[p.name].mean())
    if base is best:
        last = f"; {window_label(worst)}: {right[worst.name]}" if window_label(worst) not in tied else ""
        return f"Keep counting from {words(best)} ({window_label(best)}): it {puts}{also}{last}."
    if base_row["verdict"] == "tied":
        alike = [window_label(base), *tied]
        return (
            f"No clear winner: counting from {words(best)} {puts}, {window_label(base)} in "
            f"{right[base.name]}; {listed(alike)} cannot be told from it."
        )
    return f"Count from {words(best)}: it {puts}{also}; {window_label(base)}: {right[base.name]}."


def _default(p: Point) -> bool:
    rule = p.scenario.program.rule
    return (rule.offset_days, rule.upper_days) == DEFAULT


def _leads(ends: Ends) -> Part:
    """How often the right variant leads at the end under every point."""
    rows = []
    for p in ends.points:
        v = ends.right[p.name]
        low, high = share_band(v[:, None])
        rows.append(label_of(p) | {"right": float(v.mean()), "right_low": float(low[0]), "right_high": float(high[0])})
    text = f"{each_window(ends.points, ends.use, lambda i: percent(rows[i]['right']))}. {_most_often(ends)}"
    note = "Share of (world, step) pairs in which the best variant leads on the last day; intervals: 95 %, over worlds."
    columns = (*axis_columns(ends.points), Column("right", "right variant leads", "percent", interval=True))
    return Part("How often the right variant leads at the end", text, rows, columns, note)


def _most_often(ends: Ends) -> str:
    """The best point of all against the best with everything else as in use."""
    own = max(siblings(ends.points, ends.use), key=lambda p: ends.right[p.name].mean())
    best = max(ends.points, key=lambda p: ends.right[p.name].mean())
    if best is own:
        return f"Nothing that was compared is right more often than {own.name}."
    n = len(ends.points)
    _, low, _ = paired(ends.right[best.name], ends.right[own.name], n * (n - 1) // 2)
    values = f"{percent(float(ends.right[best.name].mean()))} against {percent(float(ends.right[own.name].mean()))}"
    sure = "" if low > 0 else ", a difference that these worlds cannot tell from none"
    return f"Most often right of all is {best.name} ({values} for {own.name}{sure})."


def _lost(ends: Ends) -> Part:
    """True purchases lost against always sending the best, at the end."""
    rows = []
    for p in ends.points:
        v = ends.lost[p.name]
        low, high = (float(x) for x in stats.mean_interval(v.sum(), (v * v).sum(), len(v)))
        rows.append(label_of(p) | {"lost": float(v.mean()), "lost_low": low, "lost_high": high})
    said = each_window(ends.points, ends.use, lambda i: write(rows[i]["lost"], "one"))
    least = min(ends.points, key=lambda p: ends.lost[p.name].mean())
    text = f"Per 10,000 sends, {said}. {least.name} loses least."
    note = "Against always sending the best variant, by the end; intervals: 95 %, over worlds."
    columns = (*axis_columns(ends.points), Column("lost", "lost per 10,000 sends", "one", interval=True))
    return Part("True purchases lost", text, rows, columns, note)


def race_frame(data: SweepData) -> pd.DataFrame:
    """The race with the points in the order of the sweep, the reference's labels first in every axis."""
    order = {p.name: i for i, p in enumerate(data.points)}
    order[data.reference] = -1
    return data.race.sort_values("point", key=lambda c: c.map(order), kind="stable")

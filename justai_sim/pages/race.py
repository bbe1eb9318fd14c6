"""When will I know, and what does waiting cost?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from justai_sim import stats
from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.looks import QUESTION, plot_looks
from justai_sim.pages.style import End, distinct, label_ends, look, panels, room_for, shown, units
from justai_sim.tables import F8

MOST_LINES = 4
MEASURES = (
    "right_leader", "right_for_good", "best_share", "shipped_wrong", "shipped_right", "lost_per_10k",
    "lost_revenue_per_10k", "happened",
)  # fmt: skip


@figure
def plot_race(race: Any, *, lines: str = "window", missing: str = "", ax: Axes | None = None) -> Axes:
    """Three panels over the days since the start, one line a label of the axis `lines`; of a log (`Verdict.race`) what
    it would have told on every day (`plot_looks`; `missing`: what to say where that is nothing, as `Verdict.sentence`).

    `race`: `point`, a column per axis, `rep, day, right_leader, shipped_wrong, lost_per_10k`. Other axes stay
    at the label of the first row. At most four lines: the first label (in use) and those that end with the
    right leader most often. The returned axes are a container; its `child_axes` are the panels.
    """
    race = as_pandas(race, "plot_race's frame")
    if "difference_per_1000" in race or not len(race.columns):
        return plot_looks(race, ax, missing)
    need(race, "point rep day right_leader lost_per_10k", "plot_race", "Sweep.race, or Verdict.race")
    here, lines, fixed = same_elsewhere(race, lines)
    labels, left_out = _choose(here, lines)
    names = list(distinct(labels, 16).values())
    heights = [1.75, 1.1, 1.4]
    seen = _race_sentence(here, lines, labels, fixed, left_out)
    ax, (right, wrong, lost), _ = panels(ax, QUESTION, seen, heights, right=room_for(names))
    ends: list[list[End]] = [[], [], []]
    for i, (label, name) in enumerate(zip(labels, names, strict=True)):
        style, part = look(i), here[here[lines] == label]
        for k, (panel, column, factor) in enumerate(
            ((right, "right_leader", 100), (wrong, "shipped_wrong", 100), (lost, "lost_per_10k", 1))
        ):
            days, values = worlds_by_day(part, column)
            y = values.mean(0) * factor
            if k == 0:
                low, high = share_band(values)
                panel.ax.fill_between(days, low * 100, high * 100, color=style.colour, alpha=0.16, linewidth=0)
            panel.ax.plot(days, y, color=style.colour, linestyle=style.dash, linewidth=1.8)
            ends[k].append(End(days[-1], y[-1], name, style.colour))
    last = float(here["day"].max())
    for panel in (right, wrong, lost):
        panel.ax.set_xlim(0, last)
    right.ax.set_ylim(0, 103)
    right.ax.set_yticks([0, 25, 50, 75, 100])
    wrong.ax.set_ylim(0, min(103, max(10, wrong.ax.get_ylim()[1])))
    lost.ax.set_ylim(min(0, lost.ax.get_ylim()[0]), max(1e-9, lost.ax.get_ylim()[1]))
    one = here.groupby(["point", "rep", "day"]).size().max() <= 1
    units(right, "right variant leads, % of worlds × steps (band: 95 %)" if one else "right variant leads, %")
    units(wrong, "already shipped a wrong variant, % of worlds × steps")
    units(lost, "conversions lost per 10,000 sends", "days since the start")
    for panel, e in zip((right, wrong, lost), ends, strict=True):
        label_ends(panel, e)
    return ax


def same_elsewhere(race: pd.DataFrame, lines: str) -> tuple[pd.DataFrame, str, dict[str, str]]:
    """The rows that differ in the axis `lines` only, the axis ('point' if there is none such), and the
    labels at which the other axes are kept: those of the first row."""
    axes = [c for c in race.columns if c not in (*MEASURES, "point", "rep", "day")]
    if lines not in axes:
        return race, "point", {}
    fixed = {a: str(race[a].iloc[0]) for a in axes if a != lines and race[a].nunique() > 1}
    keep = np.ones(len(race), bool)
    for a, label in fixed.items():
        keep &= (race[a].astype(str) == label).to_numpy()
    return race[keep], lines, fixed


def _choose(race: pd.DataFrame, lines: str) -> tuple[list[str], int]:
    labels = list(dict.fromkeys(race[lines].tolist()))
    if len(labels) <= MOST_LINES:
        return labels, 0
    end = race[race["day"] == race["day"].max()].groupby(lines)["right_leader"].mean()
    top = sorted(labels[1:], key=lambda v: -end[v])[: MOST_LINES - 1]
    return [labels[0], *(v for v in labels if v in top)], len(labels) - MOST_LINES


def worlds_by_day(part: pd.DataFrame, column: str) -> tuple[F8, F8]:
    """(days (D,), values (worlds, D)) of one line."""
    table = part.pivot_table(index="rep", columns="day", values=column, aggfunc="mean").sort_index(axis=1)
    return table.columns.to_numpy(np.float64), table.to_numpy(np.float64)


def share_band(values: F8, level: float = 0.95) -> tuple[F8, F8]:
    """Interval of the mean of shares (worlds, ...) with worlds as units, within [0, 1].

    Where all worlds agree they say little about the rest: Wilson's interval for that many trials.
    """
    n, total = len(values), values.sum(0)
    low, high = stats.mean_interval(total, (values**2).sum(0), float(n), level)
    same = (values == values[:1]).all(0)
    w_low, w_high = stats.wilson(np.clip(total, 0, n), float(n), level)
    low, high = np.where(same, w_low, low), np.where(same, w_high, high)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def _race_sentence(race: pd.DataFrame, lines: str, labels: Sequence[str], fixed: dict[str, str], left_out: int) -> str:
    end = race[race["day"] == race["day"].max()].groupby(lines)[["right_leader", "lost_per_10k"]].mean()
    use, top = labels[0], max(labels, key=lambda v: end["right_leader"][v])
    other = top if top != use else min(labels, key=lambda v: end["right_leader"][v])
    at = ", ".join(f"{a} {shown(v, 24)}" for a, v in fixed.items())
    text = f"On day {race['day'].max():g} the right variant leads in {end['right_leader'][use]:.0%} under {shown(use)}"
    text = text.replace("%", " %")
    cost = f"{end['lost_per_10k'][use]:.1f}"
    if other != use:
        text += f" and in {100 * end['right_leader'][other]:.0f} % under {shown(other)}"
        text += f"; by then they have cost {cost} and {end['lost_per_10k'][other]:.1f} conversions per 10,000 sends"
    else:
        text += f"; by then it has cost {cost} conversions per 10,000 sends"
    more = f" {left_out} more are in the table." if left_out else ""
    return f"{text}{f' ({at})' if at else ''}.{more}"

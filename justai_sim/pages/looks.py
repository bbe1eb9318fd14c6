"""What a log would have told on every day: the race of a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from justai_sim.pages.canvas import figure
from justai_sim.pages.style import (
    CONTROL,
    GREY,
    INK,
    PALETTE,
    End,
    Panel,
    distinct,
    label_ends,
    panels,
    room_for,
    shown,
    units,
)
from justai_sim.verdicts.compare import LEAST_EARNED, LEAST_SENDS

QUESTION = "When will I know, and what does waiting cost?"
MOST_NAMED = 8
"""Lines beside the leader's that are named; more would not fit beside the panel."""


@figure
def plot_looks(race: pd.DataFrame, ax: Axes | None = None, missing: str = "") -> Axes:
    """Two panels over the days on which one may have looked: the differences per 1,000 sends with the interval of the
    first variant (the leader now), and the smallest difference that was visible.

    `race`: `Verdict.race`. The interval holds for all variants and all days at once; days before a variant could be
    told of at all are left out. Where that leaves nothing, there is no panel, but what is missing and `missing`. The
    returned axes are a container; its `child_axes` are the panels.
    """
    told = drawable(race)
    if not len(told):
        return panels(ax, QUESTION, f"{nothing(race)} {missing}".strip(), [], foot=0.0)[0]
    leader = str(race["variant_id"].iloc[0])
    names = [leader, *(str(v) for v in told["variant_id"].unique() if v != leader)]
    first, last = told["as_of"].min(), race["as_of"].max()
    labels = distinct(names, 20)
    room = room_for([labels[v] for v in names[: MOST_NAMED + 1]])
    seen = f"{sentence(race)} The band holds for all days and variants at once."
    ax, (top, below), _ = panels(ax, QUESTION, seen, [2.3, 1.2], right=room)
    ends = []
    for i, name in enumerate(names):
        part = told[told["variant_id"] == name].sort_values("as_of")
        if not len(part):
            continue
        x, y = _days(part["as_of"], first), part["difference_per_1000"].to_numpy(np.float64)
        own = i == 0
        colour = PALETTE[0] if own else "#5e5e5e" if i <= MOST_NAMED else GREY
        if own:
            top.ax.fill_between(x, part["low_per_1000"], part["high_per_1000"], color=colour, alpha=0.18, linewidth=0)
            half = (part["high_per_1000"] - part["low_per_1000"]).to_numpy(np.float64) / 2
            below.ax.plot(x, half, color=colour, linewidth=1.8)
        top.ax.plot(x, y, color=colour, linewidth=2.0 if own else 0.9, linestyle="-" if own else (0, (4, 2)))
        if i <= MOST_NAMED:
            ends.append(End(float(x[-1]), float(y[-1]), labels[name], colour if own else INK))
    top.ax.axhline(0, color=CONTROL, linewidth=1.0)
    for panel in (top, below):
        panel.ax.set_xlim(0, max(float(_days(pd.Series([last]), first)[0]), 1.0))
    below.ax.set_ylim(bottom=0)
    _dates(below, first, last)
    top.ax.set_xticks(below.ax.get_xticks())
    against = shown(race["against"].iloc[0], 16)
    units(top, f"minus {against}, per 1,000 sends (band: 95 %)")
    units(below, "smallest difference visible, per 1,000 sends", "looked at on (UTC)")
    label_ends(top, ends)
    return ax


def drawable(race: pd.DataFrame) -> pd.DataFrame:
    """The rows of which something can be told."""
    if not len(race):
        return race
    return race[race["ready"].astype(bool) & np.isfinite(race["low_per_1000"]) & np.isfinite(race["high_per_1000"])]


def nothing(race: pd.DataFrame) -> str:
    """Why there is no day to draw, and what is there now."""
    if not len(race):
        return "There is nothing to draw yet: no two variants have mature sends of the same template."
    now = race[race["as_of"] == race["as_of"].max()]
    sends = dict(zip(now["variant_id"].astype(str), now["sends"], strict=True))
    sends[str(now["against"].iloc[0])] = now["against_sends"].max()
    few = sorted(sends, key=lambda v: sends[v])
    have = ", ".join(f"{sends[v]:,} of {shown(v)}" for v in few)
    if len(few) > MOST_NAMED:
        have = f"{sends[few[0]]:,} (of {shown(few[0])}) to {sends[few[-1]]:,} of each of {len(few)} variants"
    if now["ready"].any():
        return f"There is nothing to draw: {have} are mature, but of too few users for an interval."
    if not (now["earned"] > 0).any():
        return f"There is nothing to draw yet: none of the mature sends ({have}) has an outcome."
    return (
        f"There is nothing to draw yet: it takes {LEAST_SENDS:,} mature sends of each variant, {LEAST_EARNED} of them "
        f"with an outcome. Now there are {have}."
    )


def _days(when: Any, first: pd.Timestamp) -> np.ndarray:
    return np.asarray((when - first) / pd.Timedelta(days=1), np.float64)


def _dates(panel: Panel, first: pd.Timestamp, last: pd.Timestamp) -> None:
    span = max(float(_days(pd.Series([last]), first)[0]), 1.0)
    at = np.arange(0, span + 0.01, max(np.ceil(span / max(panel.width // 0.75, 1)), 1))  # as many as there is room for
    panel.ax.set_xticks(at, [f"{first + pd.Timedelta(days=float(d)):%d %b}" for d in at])


def sentence(race: pd.DataFrame) -> str:
    """When the leader was first told apart, or that it never was."""
    leader, against = str(race["variant_id"].iloc[0]), str(race["against"].iloc[0])
    own = drawable(race[race["variant_id"] == leader]).sort_values("as_of")
    n = race["as_of"].nunique()
    told = own[own["told"] != 0]
    if not len(told):
        now = f": differences below {_half(own):,.1f} per 1,000 are not visible yet" if len(own) else ""
        return f"On none of {n} days would {shown(leader)} have been told apart from {shown(against)}{now}."
    word = "better" if told["told"].iloc[0] > 0 else "worse"
    if not own["told"].iloc[-1]:
        when = f"{len(told)} of {n} days, last on {told['as_of'].iloc[-1]:%d %b %Y}"
        return f"{shown(leader)} was told to be {word} than {shown(against)} on {when}; now they are not told apart."
    text = f"From {told['as_of'].iloc[0]:%d %b %Y} on {shown(leader)} was told to be {word} than {shown(against)}"
    later = own[own["as_of"] > told["as_of"].iloc[0]]
    lost = int((later["told"] != told["told"].iloc[0]).sum())
    return f"{text}{f' (not on {lost} of the later days)' if lost else ''}; {n} days were looked at."


def _half(own: pd.DataFrame) -> float:
    return float(own["high_per_1000"].iloc[-1] - own["low_per_1000"].iloc[-1]) / 2

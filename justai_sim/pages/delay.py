"""What messages add over the background by days since the send, added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from justai_sim.estimate.delay import NONE
from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.style import (
    CONTROL,
    GREY,
    INK,
    SMALL,
    End,
    Panel,
    distinct,
    label_ends,
    looks,
    panels,
    room_for,
    tint,
    units,
    write,
)
from justai_sim.pages.table import write as number
from justai_sim.tables import F8

QUESTION = "How soon messages act, and what the window sees"
X_LABEL = "days since the send"
NOTHING = "background"
TINT = "#fdf3d7"
SOURCES = {
    "holdout": "that of held-out users",
    "before": "mostly the level before users' first message",
    "upper": "an upper bound, so the effects are lower bounds",
}
NOTHING_TOLD = (
    "What messages add cannot be told: they have not been followed long enough, or each user has so many that their "
    "effects overlap."
)
BANDS = 3
"""Variants that are drawn with a band; more would hide one another."""


@dataclass(frozen=True)
class Line:
    """A variant's effect at `days` (D,), conversions per 1,000 messages, with a band for the whole curve."""

    variant: str
    days: F8
    effect: F8
    low: F8
    high: F8

    def at(self, day: float) -> float:
        return float(np.interp(day, self.days, self.effect))


def lines(frame: pd.DataFrame) -> list[Line]:
    """The curves, per 1,000 messages, largest total first."""
    out = []
    for name, part in frame.groupby("variant_id", sort=False):
        part = part[part["effect"].notna()].sort_values("age_day")
        if len(part) > 1:
            days, *values = (part[c].to_numpy(np.float64) for c in ("age_day", "effect", "low", "high"))
            out.append(Line(str(name), days, *(1000 * v for v in values)))
    return sorted(out, key=lambda v: -v.effect[-1])


@figure
def plot_delay(
    frame: Any,
    ax: Axes | None = None,
    *,
    control: str = "control",
    offset_days: float = 3,
    lookback_days: float = 14,
) -> Axes:
    """Conversions that a message has added by each day since the send, per 1,000 messages; the window is tinted.

    `frame`: `variant_id, age_day, effect, low, high, background, source` as in `Replay.delay`. The bands hold a
    whole curve at 95 %. With many variants only some have a band and a name: the one that adds most, the one
    that adds most inside the window, and the control.
    """
    frame = as_pandas(frame, "plot_delay's frame")
    if len(frame.columns):
        need(frame, "variant_id age_day effect background source", "plot_delay", "Replay.delay")
    got = lines(frame) if len(frame) else []
    if not got:
        return panels(ax, QUESTION, NOTHING_TOLD, [])[0]
    named = _named(got, control, offset_days, lookback_days)
    called = distinct([v.variant for v in got])
    texts = [called[v.variant] for v in named]
    seen = sentence(got, named, frame, offset_days, lookback_days)
    ax, (panel,), _ = panels(ax, QUESTION, seen, [2.9], right=room_for([*texts, NOTHING, "others"]))
    last = got[0].days[-1]
    panel.ax.set_xlim(0, last)
    panel.ax.set_xticks([t for t in (0, 7, 14, 21, 28) if t <= last])
    panel.ax.axvspan(min(offset_days, last), min(lookback_days, last), color=TINT, zorder=0, linewidth=0)
    _draw(panel, got, named, control)
    _words(panel, offset_days, lookback_days)
    return ax


def _named(got: list[Line], control: str, offset: float, lookback: float) -> list[Line]:
    if len(got) <= BANDS:
        return got
    inside = max(got, key=lambda v: v.at(lookback) - v.at(offset))
    return [v for v in got if v is got[0] or v is inside or v.variant == control]


def _draw(panel: Panel, got: list[Line], named: list[Line], control: str) -> None:
    ax = panel.ax
    called = distinct([v.variant for v in got])
    style = looks([v.variant for v in got], control if any(v.variant == control for v in got) else None)
    ax.axhline(0, color=GREY, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
    ends = [End(ax.get_xlim()[1], 0.0, NOTHING, "#5e5e5e")]
    others = [v for v in got if v not in named]
    for v in others:
        ax.plot(v.days, v.effect, color="#bdbdbd", linewidth=1.1, zorder=2)
    if others:
        ends.append(End(others[-1].days[-1], others[-1].effect[-1], "others", "#767676"))
    for v in named:
        s = style[v.variant]
        ax.fill_between(v.days, v.low, v.high, color=tint(s.colour, 0.5), alpha=0.35, linewidth=0, zorder=2)
    for v in named:
        s = style[v.variant]
        ax.plot(v.days, v.effect, color=s.colour, linestyle=s.dash, marker=s.marker, markersize=3.2,
                markevery=3, linewidth=1.8, zorder=3)  # fmt: skip
        colour = CONTROL if v.variant == control else s.colour
        ends.append(End(v.days[-1], v.effect[-1], called[v.variant], colour))
    low = min(0.0, *(float(np.nanmin(v.low if v in named else v.effect)) for v in got))
    high = max(1e-9, *(float(np.nanmax(v.high if v in named else v.effect)) for v in got))
    ax.set_ylim(low - 0.04 * (high - low), high + 0.24 * (high - low))  # the words about the window stand above
    units(panel, "conversions added per 1,000 sends, over the background", X_LABEL)
    label_ends(panel, ends)


def _words(panel: Panel, offset: float, lookback: float) -> None:
    ax = panel.ax
    right, (low, high) = ax.get_xlim()[1], ax.get_ylim()
    y = high - 0.015 * (high - low)
    if lookback <= right:
        ax.axvline(lookback, color=INK, linewidth=1, linestyle=(0, (1, 1)))
    if offset > 0:
        ax.axvspan(0, min(offset, right), facecolor="none", edgecolor="#c9c9c9", hatch="////", zorder=0, linewidth=0)
    if offset < right - 7:
        text = f"counts from day {offset:g}\nuntil day {lookback:g}"
        write(ax, offset + 0.3, y, text, ha="left", va="top", fontsize=SMALL)


def sentence(got: list[Line], named: list[Line], frame: pd.DataFrame, offset: float, lookback: float) -> str:
    """What to see: totals with their bands, what of it lies in the window, and the background."""
    last, called = got[0].days[-1], distinct([v.variant for v in got])
    said = []
    for v in named:
        low, high = (number(x, "one") for x in (v.low[-1], v.high[-1]))
        inside = number(v.at(lookback) - v.at(offset), "one")
        said.append(f"{called[v.variant]} {number(v.effect[-1], 'one')} ({low} to {high}), in the window {inside}")
    level = float(frame["background"].iloc[0])
    background = f"{number(1000 * level, 'one')} per 1,000 users and day" if level >= NONE else "practically none"
    source = SOURCES.get(str(frame["source"].iloc[0]), "")
    return (
        f"Within {last:g} days 1,000 sends add conversions: {'; '.join(said)}. Background: "
        f"{background}{', ' + source if source else ''}."
    )

"""The slide: a verdict, the one figure that supports it, and where it comes from. 1600 x 900 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from justai_sim import clock
from justai_sim.errors import checked_type
from justai_sim.pages.canvas import SCALES, figure, inches, white
from justai_sim.pages.rule_words import window_words
from justai_sim.pages.style import (
    FONT,
    GREY,
    GRID,
    INK,
    PALETTE,
    QUIET,
    distinct,
    dress,
    render,
    shown,
    text_width,
    wrap,
    write,
)
from justai_sim.tables import B1
from justai_sim.verdicts.answer import said
from justai_sim.verdicts.verdict import Verdict

SIZE = (8.0, 4.5)
"""Inches; 200 dots an inch make 1600 x 900."""
EDGE = 0.35
COLOURS = {1: PALETTE[0], -1: PALETTE[1], 0: "#6b6b6b"}
"""By what is told of a variant: better, worse, neither."""
MARKS = {"pass": "✓", "fail": "✗", "cannot tell": "?"}


@figure
def plot_brief(got: Verdict, ax: Axes | None = None) -> Axes:
    """The verdict as a slide: its sentence, the differences per 1,000 sends with their intervals, the checks, source,
    as-of and rule. Returns the container; `child_axes` holds the panel. Without `ax` 1600 x 900 pixels at 200 dpi."""
    checked_type(got, Verdict, "plot_brief's verdict", "js.verdict(log)")
    if ax is None:
        made = Figure(figsize=SIZE, facecolor="white")
        FigureCanvasAgg(made)
        ax = made.add_axes((0, 0, 1, 1))
    else:
        width, height = inches(ax)
        SCALES[ax] = min(width / SIZE[0], height / SIZE[1])
        white(ax)
    ax.set_axis_off()
    y = _head(ax, got)
    foot = 0.62
    if _ready(got.table).any():
        _differences(ax, got, top=y - 0.1, bottom=foot + 0.62)
    else:
        _missing(ax, got, top=y - 0.3, bottom=foot + 0.2)
    marks = "   ".join(f"{MARKS[c.status]} {c.name}" for c in got.checks)
    _text(ax, EDGE, foot, f"Checks:  {marks}", fontsize=8.5, va="bottom")
    _text(ax, SIZE[0] - EDGE, foot, "✓ pass   ✗ fail   ? cannot tell", fontsize=7, va="bottom", ha="right", color=GREY)
    ax.plot([EDGE / SIZE[0], 1 - EDGE / SIZE[0]], [0.5 / SIZE[1]] * 2, color=GRID, linewidth=0.8,
            transform=ax.transAxes)  # fmt: skip
    lines = wrap(footnote(got), SIZE[0] - 2 * EDGE, 8)[:2]
    for i, line in enumerate(lines):
        _text(ax, EDGE, 0.38 - 0.15 * i, line, fontsize=8, color="#555555")
    return ax


def save_brief(got: Verdict, path: Path) -> Path:
    """Write the slide as PNG; the same verdict gives the same bytes."""
    path.write_bytes(render(plot_brief(got), "png"))
    return path


def footnote(got: Verdict) -> str:
    """Source, as-of and rule."""
    parts = [
        f"Source: {shown(got.source or 'log', 40)}",
        f"as of {clock.iso(got.as_of)[:16].replace('T', ' ')} UTC",
    ]
    parts += [window_words(got.rule), *([f"goal: {shown(', '.join(got.goals), 30)}"] if got.goals else [])]
    return " · ".join([*parts, "mature sends"])


def _head(ax: Axes, got: Verdict) -> float:
    """Writes the sentence; returns how far down it reaches, in inches."""
    y = SIZE[1] - 0.28
    if got.simulated:
        _text(ax, EDGE, y, "SIMULATED", fontsize=8, weight="bold", color="white", va="top",
              bbox={"boxstyle": "square,pad=0.3", "facecolor": INK, "edgecolor": INK})  # fmt: skip
        y -= 0.27
    for size in (19.0, 16.0, 13.5, 11.5, 9.5):
        lines = wrap(got.sentence, SIZE[0] - 2 * EDGE, size, "bold")
        if len(lines) <= 3:
            break
    for line in lines[:4]:
        _text(ax, EDGE, y, line, fontsize=size, weight="bold", va="top")
        y -= 1.32 * size / 72
    return y


def _ready(table: pd.DataFrame) -> B1:
    """Whether there is an interval to draw, row by row."""
    if not len(table):
        return np.zeros(0, bool)
    ends = table[["low_per_1000", "high_per_1000"]].to_numpy(np.float64)
    return np.asarray(table["ready"].to_numpy(bool) & np.isfinite(ends).all(1))


def _missing(ax: Axes, got: Verdict, top: float, bottom: float) -> None:
    """In place of the panel: why there is no difference to show, and what each variant has, as far as there is room."""
    because = got.decided.because or [""]
    lines = [(part, INK) for text in because for part in wrap(text, SIZE[0] - 2 * EDGE, 12)]
    lines += [(f"{shown(v, 24)}: {text}", QUIET) for v, text in got.differences()]
    room = int((top - bottom) / 0.24)
    if len(lines) > room:
        lines = [*lines[: room - 1], (f"… and {len(lines) - room + 1} more variants", QUIET)]
    for i, (line, colour) in enumerate(lines):
        _text(ax, EDGE, top - 0.24 * i, line, fontsize=12 if colour == INK else 11, color=colour)


def _differences(ax: Axes, got: Verdict, top: float, bottom: float) -> None:
    t = got.table
    size = 11.0 if len(t) <= 8 else max(6.0, 72 * (top - bottom) / len(t) / 1.5)
    names = list(distinct(t["variant_id"], 24).values())
    ready = _ready(t)
    values = [said(r) if there else "too few sends yet" for r, there in zip(t.to_dict("records"), ready, strict=True)]
    left = EDGE + max(text_width(n, size) for n in names) + 0.15
    right = EDGE + max(text_width(v, size) for v in values) + 0.2
    width, height = SIZE[0] - left - right, min(top - bottom, 0.45 * len(t) + 0.25)
    inner = ax.inset_axes((left / SIZE[0], (top - height) / SIZE[1], width / SIZE[0], height / SIZE[1]))
    dress(inner)
    inner.grid(False)
    inner.grid(axis="x", color=GRID, linewidth=0.8)
    inner.set_ylim(len(t) - 0.5, -0.5)
    inner.axvline(0, color=INK, linewidth=1.0, zorder=1)
    inner.set_xlim(*_limits(t[ready]))
    for y, r in enumerate(t.to_dict("records")):
        if ready[y]:
            colour = COLOURS[int(r["told"])]
            inner.plot([r["low_per_1000"], r["high_per_1000"]], [y, y], color=colour, linewidth=2.4, zorder=2)
            inner.plot([r["difference_per_1000"]], [y], marker="o", color=colour, markersize=7 * size / 11, zorder=3)
        inner.annotate(
            values[y], (1, y), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=size, color=INK, family=FONT, annotation_clip=False,
        )  # fmt: skip
    inner.set_yticks(range(len(t)), names)
    inner.tick_params(axis="y", length=0, labelsize=size)
    inner.tick_params(axis="x", labelsize=9)
    inner.xaxis.set_major_formatter(lambda x, _: f"{x:,.10g}".replace("-", "−"))
    inner.spines["left"].set_visible(False)
    unit = f"{got.unit} per 1,000 sends, minus {shown(got.reference, 24)}; intervals hold for all variants and all days"
    _text(ax, EDGE, top - height - 0.27, f"{unit} (95 %)", fontsize=9)


def _limits(t: pd.DataFrame) -> tuple[float, float]:
    """The range that holds 0 and every interval."""
    low, high = min(float(t["low_per_1000"].min()), 0.0), max(float(t["high_per_1000"].max()), 0.0)
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def _text(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text at inches from the lower left corner."""
    write(ax, x / SIZE[0], y / SIZE[1], text, transform=ax.transAxes, **({"va": "top"} | style))

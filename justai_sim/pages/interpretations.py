"""What other readings of the rule say about one pair of variants: a forest plot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.style import (
    CONTROL,
    FONT,
    GRID,
    INK,
    PALETTE,
    QUIET,
    SMALL,
    Panel,
    distinct,
    panels,
    shown,
    text_width,
    tint,
    units,
    width_of,
    wrap,
    write,
)
from justai_sim.whatif.words import clear, nothing_counts, unchanged, verdict

QUESTION = "What would another reading of the rule have said?"
ROW, GAP = 0.3, 0.9
"""Inches that a reading takes, and rows between the options and the presets, where their heading stands."""
NOTHING = "counts nothing"
PRESETS = "as other systems count"
LEVELS = (
    "Each interval is a 95 % one by itself. Whether a leader is clear or too close is judged for all readings at once "
    "(Bonferroni), so a reading whose interval leaves out 0 may still be too close."
)
STAYS, LEADS, FLIPS = PALETTE[0], PALETTE[1], PALETTE[5]


@figure
def plot_interpretations(frame: Any, ax: Axes | None = None) -> Axes:
    """The difference per 1,000 sends with its interval under every reading that changes something.

    `frame`: `Interpretations.table`. The band is what the rule in use says. A square: another variant leads
    (its name at the right, in brackets where that is too close to call); a cross: the sign of the difference
    changes. A reading under which nothing counts has no mark, as it has no leader. An interval that leaves the panel
    ends in an arrow. Returns the container; `child_axes` holds the panel.
    """
    frame = as_pandas(frame, "plot_interpretations's frame")
    need(frame, "status reading difference_per_1000 unit metric", "plot_interpretations", "Interpretations.table")
    rows = frame[frame["status"].isin(["in use", "changes"]) & frame["difference_per_1000"].notna()]
    if not len(rows) or pd.isna(frame["difference_per_1000"].iloc[0]):
        return panels(ax, QUESTION, "Nothing to compare: it takes sends of two variants.", [])[0]
    rows = rows.reset_index(drop=True)
    same = unchanged(frame)
    notes = [same[0].upper() + same[1:]] if same else []
    if len(rows) > 1:
        notes.append(LEVELS)
    labels = [_label(r) for _, r in rows.iterrows()]
    places = _places(rows, labels)
    names = distinct(rows["leader"], 14)
    marks = [_mark(r, names) for _, r in rows.iterrows()]
    widths = [text_width(line, SMALL) for label in labels for line in label] + [text_width(PRESETS, SMALL, "bold")]
    left = min(max(widths) + 0.3, 0.45 * width_of(ax))
    right = max([text_width(m, SMALL) for m in marks if m], default=0.0) + 0.25
    lines = [line for n in notes for line in wrap(n, width_of(ax) - 0.3, SMALL)]
    height = ROW * (places[-1] + 1.2)
    ax, (panel,), (width, total) = panels(
        ax, QUESTION, verdict(frame), [height], left=left, right=right, foot=0.95 + 0.18 * len(lines)
    )
    _draw(panel, rows, places, marks)
    panel.ax.set_yticks(places, ["\n".join(label) for label in labels])
    panel.ax.tick_params(axis="y", length=0, labelsize=SMALL)
    use = rows.iloc[0]
    unit = "sends" if use["unit"] == "sends" else "users"
    what = "conversions" if use["metric"] == "conversion_rate" else str(use["metric"]).replace("_", " ")
    units(panel, "", f"{shown(use['variant'])} minus {shown(use['against'])}: {what} per 1,000 {unit}")
    _key(ax, width, total, 0.18 * len(lines), rows, any(m.startswith("(") for m in marks))
    for i, line in enumerate(lines):
        y = (0.12 + 0.18 * (len(lines) - 1 - i)) / total
        write(ax, 0.1 / width, y, line, fontsize=SMALL, color=QUIET, va="bottom", transform=ax.transAxes)
    return ax


def _places(rows: pd.DataFrame, labels: list[list[str]]) -> list[float]:
    """Where each row stands, from above: two lines need more room; the presets come after a gap."""
    kinds, out = rows["kind"].tolist(), [0.0]
    for i in range(1, len(rows)):
        lines = len(labels[i - 1]) + len(labels[i])
        between = GAP if kinds[i] == "preset" != kinds[i - 1] else 0.0
        out.append(out[-1] + {2: 1.0, 3: 1.15}.get(lines, 1.5) + between)
    return out


def _label(row: Any) -> list[str]:
    """The reading's name; what does not fit in one line, or is in another unit, goes into a second."""
    parts = str(row["reading"]).split(", ")
    lines = [shown(parts[0], 30)] + ([shown(", ".join(parts[1:]), 30)] if len(parts) > 1 else [])
    if row["unit"] == "users" and len(lines) == 1:
        lines.append("(per 1,000 users)")
    return lines


def _mark(row: Any, names: dict[str, str]) -> str:
    if nothing_counts(row):
        return NOTHING
    if not row["leader_changes"]:
        return ""
    name = names[row["leader"]]
    return name if clear(row["lead_low"], row["lead_high"]) else f"({name})"


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Wide enough for every difference and the interval in use; a very wide interval of another reading is cut."""
    use = rows.iloc[0]
    points = [*rows["difference_per_1000"], use["difference_low"], use["difference_high"], 0.0]
    low, high = float(np.nanmin(points)), float(np.nanmax(points))
    room = max(float(np.nan_to_num(use["difference_high"] - use["difference_low"])), high - low, 0.01) / 2
    low = max(low - room, float(np.nanmin([*rows["difference_low"], low])))
    high = min(high + room, float(np.nanmax([*rows["difference_high"], high])))
    edge = max(0.04 * (high - low), 0.005)  # all differences may be 0, without any interval
    return low - edge, high + edge


def _draw(panel: Panel, rows: pd.DataFrame, places: list[float], marks: list[str]) -> None:
    ax, use = panel.ax, rows.iloc[0]
    ax.grid(False)
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    ax.spines["left"].set_visible(False)
    low, high = _limits(rows)
    ax.set_xlim(low, high)
    ax.set_ylim(places[-1] + 0.7, -0.7)
    if use["difference_low"] == use["difference_low"]:
        ax.axvspan(use["difference_low"], use["difference_high"], color=tint(STAYS, 0.13), linewidth=0, zorder=0)
    ax.axvline(use["difference_per_1000"], color=STAYS, linewidth=1, zorder=1)
    ax.axvline(0, color=CONTROL, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    first = next((i for i, kind in enumerate(rows["kind"]) if kind == "preset"), 0)
    if first:
        ax.annotate(PRESETS, (0, places[first] - 0.85), xycoords=("axes fraction", "data"), xytext=(-4, 0),
                    textcoords="offset points", ha="right", va="center", fontsize=SMALL, weight="bold", color=INK,
                    family=FONT, annotation_clip=False)  # fmt: skip
    for (_, r), y, mark in zip(rows.iterrows(), places, marks, strict=True):
        colour = FLIPS if r["sign_changes"] else LEADS if r["leader_changes"] else STAYS
        _beside(ax, y, mark, QUIET if mark == NOTHING else colour)
        if mark == NOTHING:
            continue
        x, a, b = r["difference_per_1000"], r["difference_low"], r["difference_high"]
        if a == a:
            ax.plot([max(a, low), min(b, high)], [y, y], color=colour, linewidth=1.6, zorder=2, solid_capstyle="butt")
            for end, edge, arrow in ((a, low, "<"), (b, high, ">")):
                if (end < edge) if arrow == "<" else (end > edge):
                    ax.plot([edge], [y], arrow, color=colour, markersize=6, clip_on=False, zorder=3)
        edge = 2 if r["sign_changes"] else 1
        ax.plot([x], [y], _shape(r), color=colour, markersize=6.5, zorder=4, markeredgewidth=edge)


def _beside(ax: Axes, y: float, text: str, colour: str) -> None:
    """Right of the panel."""
    if text:
        ax.annotate(text, (1, y), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
                    va="center", fontsize=SMALL, color=colour, family=FONT, annotation_clip=False,
                    parse_math=False)  # fmt: skip


def _shape(row: Any) -> str:
    return "x" if row["sign_changes"] else "s" if row["leader_changes"] else "o"


def _key(ax: Axes, width: float, total: float, below: float, rows: pd.DataFrame, brackets: bool) -> None:
    """What the marks that are there mean, in one line below the axis."""
    there = {_shape(r) for _, r in rows.iterrows() if not nothing_counts(r)}
    y, x = (0.24 + below) / total, 0.15
    for shape, colour, words in (
        ("o", STAYS, "same leader"), ("s", LEADS, "another leads"),
        ("x", FLIPS, "sign changes"),
    ):  # fmt: skip
        if shape not in there:
            continue
        ax.plot([x / width], [y], shape, color=colour, markersize=6, transform=ax.transAxes, clip_on=False,
                markeredgewidth=2 if shape == "x" else 1)  # fmt: skip
        write(ax, (x + 0.12) / width, y, words, fontsize=SMALL, color=INK, va="center", transform=ax.transAxes)
        x += 0.12 + text_width(words, SMALL) + 0.25
    if brackets:
        write(ax, x / width, y, "(name): too close", fontsize=SMALL, color=INK, va="center",
              transform=ax.transAxes)  # fmt: skip

"""What to choose by a criterion: every decision against the best one."""

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
    GREY,
    GRID,
    INK,
    PALETTE,
    SMALL,
    Panel,
    distinct,
    panels,
    shown,
    text_width,
    units,
    width_of,
    write,
)
from justai_sim.pages.table import Column, Form, Part

QUESTION = "Which decision is best, and by how much?"
ROW = 0.29
MOST_ROWS = 24
LOOK = {"best": ("s", PALETTE[0]), "tied": ("o", PALETTE[0]), "worse": ("D", PALETTE[1]), "better": ("^", PALETTE[5])}
"""Marker and colour of each verdict; others are grey crosses: they are not compared."""
WORDS = {"best": "the best", "tied": "tied with it", "worse": "worse", "better": "better, but stopped early"}
FIXED = ("decision", "point", "worlds", "value", "difference", "low", "high", "verdict", "stopped", "best_value",
         "wrong", "wrong_low", "wrong_high", "criterion", "unit")  # fmt: skip
FORMS: dict[str, tuple[str, Form, Form]] = {
    "right_by_day": ("best variant leads", "percent", "points"),
    "conversions": ("true conversions a world", "one", "one"),
    "revenue": ("true revenue a world", "int", "int"),
    "decision_time": ("days to a decision", "one", "one"),
}
"""By criterion: the header of its value, and how a value and a difference are written."""


@figure
def plot_recommend(frame: Any, ax: Axes | None = None) -> Axes:
    """Every decision minus the best one with the same assumptions, with intervals that hold all together.

    `frame`: `Recommendation.table`. Squares are the best, circles cannot be told from it, diamonds are worse. At most
    24 rows, whole sets of assumptions from the first on. Returns the container; `child_axes` holds the panel.
    """
    frame = as_pandas(frame, "plot_recommend's frame")
    need(frame, "decision difference low high verdict criterion unit", "plot_recommend", "Recommendation.table")
    assumed = axes_of(frame)
    rows, left_out = _chosen(frame, assumed)
    scale = 100.0 if rows["criterion"].iloc[0] == "right_by_day" else 1.0
    known = distinct(rows["decision"], 28)
    labels = [known[d] for d in rows["decision"]]
    heads = _heads(rows, assumed)
    places = np.cumsum([1.0 + (1.1 if heads[i] and i else 0.0) for i in range(len(rows))]) - 1.0
    left = min(max([text_width(t, SMALL) for t in labels]) + 0.3, 0.5 * width_of(ax))
    seen = (
        "Squares are the best, circles cannot be told from it: a tie. The intervals hold for all rows together (98 %)."
    )
    if left_out:
        seen += f" {left_out} more rows are in the table."
    top = 0.35 if heads[0] else 0.0
    height = ROW * (places[-1] + 1.2) + top
    ax, (panel,), (width, total) = panels(ax, QUESTION, seen, [height], left=left, right=0.35, foot=0.95)
    _draw(panel, rows, places, scale, heads, top)
    panel.ax.set_yticks(places, labels)
    panel.ax.tick_params(axis="y", length=0, labelsize=SMALL)
    units(panel, "", f"difference from the best, {_unit(rows)}")
    _key(ax, width, total, rows)
    return ax


def axes_of(frame: pd.DataFrame) -> list[str]:
    """The columns of `Recommendation.table` that say what is assumed."""
    return [str(c) for c in frame.columns if c not in FIXED]


def _unit(rows: pd.DataFrame) -> str:
    return "percentage points" if rows["criterion"].iloc[0] == "right_by_day" else str(rows["unit"].iloc[0])


def _chosen(frame: pd.DataFrame, assumed: list[str]) -> tuple[pd.DataFrame, int]:
    """The first sets of assumptions that fit, and how many rows are left out."""
    if not assumed:
        return frame.head(MOST_ROWS).reset_index(drop=True), max(0, len(frame) - MOST_ROWS)
    case = frame.groupby(assumed, sort=False).ngroup()
    fits = max(1, int((case.value_counts(sort=False).sort_index().cumsum() <= MOST_ROWS).sum()))
    rows = frame[case < fits].head(MOST_ROWS).reset_index(drop=True)
    return rows, len(frame) - len(rows)


def _heads(rows: pd.DataFrame, assumed: list[str]) -> list[str]:
    """Above the first row of each set of assumptions what they are; '' elsewhere."""
    texts = [
        ", ".join(f"{shown(a.replace('_', ' '), 24)} {shown(r[a], 16)}" for a in assumed) for _, r in rows.iterrows()
    ]
    return [t if i == 0 or t != texts[i - 1] else "" for i, t in enumerate(texts)]


def _draw(panel: Panel, rows: pd.DataFrame, places: Any, scale: float, heads: list[str], top: float) -> None:
    ax = panel.ax
    ax.grid(False)
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    ax.spines["left"].set_visible(False)
    d, low, high = (rows[c].to_numpy(np.float64) * scale for c in ("difference", "low", "high"))
    known = np.concatenate([[0.0], d, low, high])
    known = known[np.isfinite(known)]
    edge = 0.05 * max(float(np.ptp(known)), 1e-9)
    ax.set_xlim(known.min() - edge, known.max() + edge)
    ax.set_ylim(places[-1] + 0.7, -0.6 - top / ROW)
    ax.axvline(0, color=CONTROL, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    for i, (verdict, y) in enumerate(zip(rows["verdict"], places, strict=True)):
        shape, colour = LOOK.get(verdict, ("x", GREY))
        if np.isfinite(low[i]) and np.isfinite(high[i]):
            ax.plot([low[i], high[i]], [y, y], color=colour, linewidth=1.6, zorder=2, solid_capstyle="butt")
        x = d[i] if np.isfinite(d[i]) else 0.0
        ax.plot([x], [y], shape, color=colour, markersize=6.5, zorder=4, markeredgewidth=2 if shape == "x" else 1)
        if heads[i]:
            ax.annotate(heads[i], (0, y - 0.85), xycoords=("axes fraction", "data"), xytext=(-4, 0),
                        textcoords="offset points", ha="left", va="center", fontsize=SMALL, weight="bold", color=INK,
                        family=FONT, annotation_clip=False, parse_math=False)  # fmt: skip


def _key(ax: Axes, width: float, total: float, rows: pd.DataFrame) -> None:
    """What the marks that are there mean, in one line below the axis."""
    y, x = 0.2 / total, 0.15
    there = list(dict.fromkeys(rows["verdict"]))
    for verdict in [v for v in LOOK if v in there] + [v for v in there if v not in LOOK]:
        shape, colour = LOOK.get(verdict, ("x", GREY))
        ax.plot([x / width], [y], shape, color=colour, markersize=6, transform=ax.transAxes, clip_on=False,
                markeredgewidth=2 if shape == "x" else 1)  # fmt: skip
        words = str(WORDS.get(verdict, verdict))
        write(ax, (x + 0.12) / width, y, words, fontsize=SMALL, color=INK, va="center", transform=ax.transAxes)
        x += 0.12 + text_width(words, SMALL) + 0.25


def standings(frame: pd.DataFrame, title: str, text: str, note: str) -> Part:
    """The table of a recommendation as a part of a page."""
    name, value, difference = FORMS[str(frame["criterion"].iloc[0])]
    unit = f", {_unit(frame)}" if value != "percent" else ", points"
    columns = [
        *(Column(a, a.replace("_", " ")) for a in axes_of(frame)),
        Column("decision", "decision"), Column("value", name, value),
    ]  # fmt: skip
    if frame["worlds"].nunique() > 1:
        columns.append(Column("best_value", "the best in the same worlds", value))
    columns.append(Column("difference", f"minus the best{unit}", difference, interval=True))
    if "wrong" in frame:
        columns.append(Column("wrong", "false ships", "percent", interval=True))
    columns += [Column("worlds", "worlds", "int"), Column("verdict", "verdict")]
    rows: list[dict[str, Any]] = []
    for row in frame.to_dict("records"):
        stopped = f", stopped after {row['worlds']} worlds" if row["stopped"] else ""
        rows.append({str(k): v for k, v in row.items()} | {
            "difference_low": row["low"], "difference_high": row["high"], "verdict": f"{row['verdict']}{stopped}",
        })  # fmt: skip
    return Part(title, text, rows, columns, note)

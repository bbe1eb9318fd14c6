"""What other policies would have earned, and what the log cannot tell: a forest plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.style import (
    CONTROL,
    FONT,
    GRID,
    INK,
    PALETTE,
    SMALL,
    Panel,
    distinct,
    panels,
    text_width,
    tint,
    units,
    width_of,
    write,
)
from justai_sim.whatif.holdout import Check

QUESTION = "What would another policy have earned?"
ROW, GAP = 0.3, 0.6
"""Inches that an estimate takes, and rows between policies with several estimators, and before the time split."""
CHOSEN, OTHER, SPLIT = PALETTE[0], PALETTE[6], PALETTE[1]
QUIET = "#5e5e5e"
ALL = "ALL"


@dataclass(frozen=True)
class _Line:
    """A line of the figure: a mark with its interval, or words where there is none."""

    label: str
    y: float
    colour: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    said: str = ""
    cross: float = math.nan


@figure
def plot_what_if(frame: Any, check: Check | None = None, answer: str = "", ax: Axes | None = None) -> Axes:
    """Each policy's value per send with its 95 % interval, all templates together.

    `frame`: `WhatIf.estimates`; `check`: its time split, drawn below, a cross for what the later half earned;
    `answer`: the sentence under the question. The dashed line is what the log's own policy earned. A policy that the
    log cannot tell of has words in place of a mark. Returns the container; `child_axes` holds the panel.
    """
    frame = as_pandas(frame, "plot_what_if's frame")
    need(frame, "template_id policy status value gain low high metric chosen", "plot_what_if", "WhatIf.estimates")
    first = ALL if (frame["template_id"] == ALL).any() else frame["template_id"].iloc[0]
    rows = frame[frame["template_id"] == first].to_dict("records")
    lines = _lines(rows, check)
    logged = next((r["value"] - r["gain"] for r in rows if r["status"] == "estimated"), None)
    left = min(max(text_width(line.label, SMALL) for line in lines) + 0.3, 0.5 * width_of(ax))
    ax, (panel,), (width, total) = panels(
        ax, QUESTION, answer, [ROW * (lines[-1].y + 1.4)], left=left, right=0.35, foot=0.95
    )
    scale = 1.0 if rows[0]["metric"] == "revenue_per_send" else 100.0
    _draw(panel, lines, logged, scale)
    what = str(rows[0]["metric"]).replace("_", " ")
    unit = "units of the currency" if scale == 1 else "% of sends"
    units(panel, "", f"{what} ({unit}), 95 % intervals")
    _key(ax, width, total, check is not None and check.inside is not None, len(rows) > len({r["policy"] for r in rows}))
    return ax


def _lines(rows: Sequence[dict[str, Any]], check: Check | None) -> list[_Line]:
    several = len(rows) > len({r["policy"] for r in rows})
    names = distinct([r["policy"] for r in rows], 24 if several else 34)
    out: list[_Line] = []
    y, last = 0.0, rows[0]["policy"]
    for r in rows:
        y += 0.0 if not out else 1.0 + (GAP if several and r["policy"] != last else 0.0)
        name = names[r["policy"]]
        label = f"{name} · {r['estimator']}" if several else name
        colour = CHOSEN if r["chosen"] or not several else OTHER
        if r["status"] == "estimated":
            out.append(_Line(label, y, colour, r["value"], r["low"], r["high"]))
        else:
            out.append(_Line(label, y, QUIET, said="the log cannot tell"))
        last = r["policy"]
    if check is not None:
        y += 1 + GAP
        if check.inside is None:
            out.append(_Line("later half, predicted", y, QUIET, said="the earlier half cannot tell"))
        else:
            out.append(
                _Line("later half, predicted", y, SPLIT, check.predicted, check.low, check.high, cross=check.observed)
            )  # fmt: skip
    return out


def _draw(panel: Panel, lines: Sequence[_Line], logged: float | None, scale: float) -> None:
    ax = panel.ax
    ax.grid(False)
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    ax.spines["left"].set_visible(False)
    ends = [x for line in lines for x in (line.low, line.high, line.value, line.cross) if math.isfinite(x)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    edge = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    ax.set_xlim(scale * (low - edge), scale * (high + edge))
    ax.set_ylim(lines[-1].y + 0.7, -0.7)
    if logged is not None:
        ax.axvline(scale * logged, color=CONTROL, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    for line in lines:
        if line.said:
            ax.text(0.5, line.y, line.said, fontsize=SMALL, color=QUIET, family=FONT, style="italic", va="center",
                    ha="center", transform=ax.get_yaxis_transform(), zorder=3,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
            continue
        ax.plot([scale * line.low, scale * line.high], [line.y] * 2, color=line.colour, linewidth=1.8, zorder=2,
                solid_capstyle="butt")  # fmt: skip
        shape = "D" if line.colour == SPLIT else "o" if line.colour == CHOSEN else "s"
        ax.plot([scale * line.value], [line.y], shape, color=line.colour, markersize=6.5, zorder=4)
        if math.isfinite(line.cross):
            ax.plot([scale * line.cross], [line.y], "x", color=INK, markersize=8, markeredgewidth=2, zorder=5)
    if lines[-1].label.startswith("later half"):
        ax.axhspan(lines[-1].y - 0.6, lines[-1].y + 0.7, color=tint(SPLIT, 0.08), linewidth=0, zorder=0)
    ax.set_yticks([line.y for line in lines], [line.label for line in lines])
    ax.tick_params(axis="y", length=0, labelsize=SMALL)


def _key(ax: Axes, width: float, total: float, split: bool, several: bool) -> None:
    """What the marks mean, in one line below the axis, or two."""
    marks = [("o", CHOSEN, "estimate" if not several else "chosen by overlap")]
    marks += [("s", OTHER, "other estimators")] if several else []
    marks += [("|", CONTROL, "the log's own")]
    marks += [("x", INK, "later half, earned")] if split else []
    lengths = [0.12 + text_width(words, SMALL) + 0.25 for *_, words in marks]
    x, y = 0.15, (0.24 if 0.15 + sum(lengths) - 0.25 <= width else 0.32)
    for (shape, colour, words), length in zip(marks, lengths, strict=True):
        if x + length - 0.25 > width:
            x, y = 0.15, y - 0.22
        ax.plot([x / width], [y / total], shape, color=colour, markersize=9 if shape == "|" else 6,
                transform=ax.transAxes, clip_on=False, markeredgewidth=2 if shape in "x|" else 1)  # fmt: skip
        write(ax, (x + 0.12) / width, y / total, words, fontsize=SMALL, color=INK, va="center", transform=ax.transAxes)
        x += length

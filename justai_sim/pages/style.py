"""How every figure looks: sizes in inches and points, colours, labels that do not collide. No global settings."""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from scipy.optimize import isotonic_regression

from justai_sim.pages.canvas import SCALES, inches, white

WIDTH = 5.2
"""Inches. Narrow: where a phone shows the figure 390 pixels wide, 10 points are 10 pixels."""
PT, SMALL, TITLE = 11.0, 10.0, 14.0
FEW_WORLDS = 10
"""Below it, nothing is said about what is expected over worlds."""
LINE = 0.2
"""Inches that a line of text takes."""
LEAST = 0.75
"""Panels of a given axes have at least this part of their usual height; then all text gets smaller."""
FONT = "DejaVu Sans"
INK, GREY, GRID = "#222222", "#8a8a8a", "#e4e4e4"
CONTROL = "#3c3c3c"
FAINT, QUIET = "#bdbdbd", "#5e5e5e"
"""Lines that are not the point, and what is written about them."""
# Okabe and Ito's palette; its black is the control, its yellow (too pale on white) is a wine red here.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#882255", "#56B4E9")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (1.2, 1.2)),
    (0, (3, 1)),
    (0, (8, 2, 1, 2)),
    (0, (2, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Look:
    """Colour, line style and marker of one variant or line."""

    colour: str
    dash: Any
    marker: str


@dataclass(frozen=True)
class Panel:
    """Axes and their size in inches."""

    ax: Axes
    width: float
    height: float


@dataclass(frozen=True)
class End:
    """The right end of a line and what to call it."""

    x: float
    y: float
    text: str
    colour: str


def look(i: int) -> Look:
    """Colours come again after seven, then with another line style and marker: 49 looks differ."""
    n, turn = len(PALETTE), i // len(PALETTE)
    return Look(PALETTE[i % n], DASHES[(i + turn) % n], MARKERS[(i + turn) % n])


def looks(variants: Sequence[str], control: str | None) -> dict[str, Look]:
    """The same look for the same variants in every figure of a report; the control is dark and dashed."""
    others = sorted({str(v) for v in variants} - {control})
    out = {v: look(i) for i, v in enumerate(others)}
    if control is not None:
        out[control] = Look(CONTROL, (0, (4, 2)), "o")
    return out


def shown(name: object, limit: int = 18) -> str:
    """A name as a figure shows it: one line, printable, at most `limit` characters, cut in the middle.

    >>> shown("a very long name of a variant")
    'a very lo…variant'
    """
    text = " ".join("".join(c for c in str(name) if unicodedata.category(c)[0] != "C" or c == "\t").split())
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def distinct(names: Sequence[object], limit: int = 18) -> dict[str, str]:
    """Every name as a figure shows it, no two alike: names that `shown` would make equal are shown from where they
    begin to differ, and numbered if that does not help.

    >>> distinct(["spring_2026_subject_A_discount", "spring_2026_subject_B_discount", "control"]).values()
    dict_values(['…A_discount', '…B_discount', 'control'])
    """
    texts = list(dict.fromkeys(str(n) for n in names))
    out = {t: shown(t, limit) for t in texts}
    alike = [[t for t in texts if out[t] == text] for text in dict.fromkeys(out.values())]
    for group in alike:
        if len(group) > 1:
            pairs = enumerate(zip(min(group), max(group), strict=False))
            start = next((i for i, (a, b) in pairs if a != b), len(min(group)))
            out |= {t: shown(f"…{t[start:]}" if start else t, limit) for t in group}
    taken: set[str] = set()
    for t in texts:
        n, text = 1, out[t]
        while out[t] in taken:
            n += 1
            out[t] = f"{shown(text, limit - len(str(n)) - 1)} {n}"
        taken.add(out[t])
    return out


@lru_cache(maxsize=4096)
def text_width(text: str, pt: float = PT, weight: str = "normal") -> float:
    """Inches."""
    with warnings.catch_warnings():  # a glyph that the font lacks is drawn as a box
        warnings.simplefilter("ignore")
        drawn = TextPath((0, 0), text.replace("$", "S"), size=pt, prop=FontProperties(family=FONT, weight=weight))
    return float(drawn.get_extents().width) / 72 if text.strip() else 0.0


def wrap(text: str, width: float, pt: float = PT, weight: str = "normal") -> list[str]:
    """Lines of at most `width` inches (a longer word stands alone)."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, pt, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def write(ax: Axes, x: float, y: float, text: str, **style: Any) -> Any:
    """Text at data coordinates unless `transform` says otherwise; '$' is a dollar."""
    plain: dict[str, Any] = {"fontsize": PT, "color": INK, "family": FONT, "parse_math": False}
    return ax.text(x, y, text, **(plain | style))


def panels(
    ax: Axes | None, question: str, seen: str, heights: Sequence[float], *,
    left: float = 0.55, right: float = 0.2, gap: float = 0.42, foot: float = 0.55,
) -> tuple[Axes, list[Panel], tuple[float, float]]:  # fmt: skip
    """A container with a heading and stacked panels: (container, panels, its width and height in inches).

    Without `ax` a figure of the right height is made; a given one is turned into the container, and the
    panels share what room it has. Where that is too little the figure is laid out larger, in the inches that are
    returned, and `canvas.figure` scales its text. `seen` is the sentence below the question; `foot` the room below.
    """
    width = width_of(ax)
    while True:
        by = 1.0 if ax is None else inches(ax)[0] / width
        fits = (width - 0.3) * (1.0 if by == 1 else 0.92)  # small letters are drawn on whole pixels, thus wider
        titles = wrap(question, fits, TITLE, "bold")
        lines = wrap(seen, fits)
        head = 0.12 + 0.26 * len(titles) + LINE * len(lines) + 0.36
        rest = head + gap * max(len(heights) - 1, 0) + foot
        height = rest + sum(heights)
        if ax is None:
            break
        if inches(ax)[1] / by >= rest + LEAST * sum(heights):
            height = inches(ax)[1] / by
            break
        width *= 1.05
    if ax is None:
        made = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(made)
        ax = made.add_axes((0, 0, 1, 1))
    else:
        SCALES[ax] = by
        white(ax)
    ax.set_axis_off()
    scale = (height - rest) / sum(heights) if len(heights) else 1.0
    y = height - 0.12
    for pt, weight, step, texts in ((TITLE, "bold", 0.26, titles), (PT, "normal", LINE, lines)):
        for line in texts:
            write(ax, 0.1 / width, y / height, line, fontsize=pt, weight=weight, va="top", transform=ax.transAxes)
            y -= step
    out, top = [], height - head
    for h in heights:
        w, h = width - left - right, h * scale
        inner = ax.inset_axes((left / width, (top - h) / height, w / width, h / height))
        dress(inner)
        out.append(Panel(inner, w, h))
        top -= h + gap
    return ax, out, (width, height)


def width_of(ax: Axes | None) -> float:
    """Inches of the container that `panels` will use, at least."""
    return WIDTH if ax is None else max(WIDTH, inches(ax)[0])


def dress(ax: Axes) -> None:
    """Thin axes, horizontal grid, our font."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)
    ax.set_facecolor("white")
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=SMALL, colors=INK, color=GREY, labelfontfamily=FONT)


def units(panel: Panel, y: str, x: str | None = None) -> None:
    """Axis labels with their units; the y label stands above the panel, where it can be read upright."""
    style: dict[str, Any] = {"fontsize": SMALL, "color": INK, "family": FONT, "parse_math": False}
    panel.ax.set_ylabel(y, rotation=0, ha="left", va="bottom", **style)
    panel.ax.yaxis.set_label_coords(-0.4 / panel.width, 1 + 0.05 / panel.height)
    if x is None:
        panel.ax.tick_params(labelbottom=False)
    else:
        panel.ax.set_xlabel(x, **style)


def spread(y: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places nearest to `y`, in the same order, at least `gap` apart, within [low, high] as far as they fit.

    >>> [round(v, 6) for v in spread([1.0, 0.0, 0.1], 0.5, 0.0, 2.0)]
    [1.0, 0.0, 0.5]
    """
    if not len(y):
        return []
    at = np.asarray(y, np.float64)
    order = np.argsort(at, kind="stable")
    gap = min(gap, (high - low) / max(len(at) - 1, 1))
    steps = gap * np.arange(len(at))
    apart = isotonic_regression(at[order] - steps).x
    out = np.empty(len(at))
    out[order] = np.clip(apart, low, high - steps[-1]) + steps
    return out.tolist()


def label_ends(panel: Panel, ends: Sequence[End], pt: float = SMALL) -> None:
    """Name lines at their right ends, beyond the panel, pushed apart. Limits must be final."""
    low, high = panel.ax.get_ylim()
    at = [float(np.clip((e.y - low) / (high - low), 0, 1)) for e in ends]
    gap = 1.25 * pt / 72 / panel.height
    for e, y in zip(ends, spread(at, gap, 0.0, max(1.0, gap * (len(ends) - 1))), strict=True):
        panel.ax.annotate(
            e.text, xy=(e.x, e.y), xytext=(1 + 0.12 / panel.width, y), textcoords="axes fraction", fontsize=pt,
            color=e.colour, family=FONT, va="center", annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": e.colour, "lw": 0.7, "shrinkA": 1, "shrinkB": 1,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def room_for(texts: Sequence[str], pt: float = SMALL) -> float:
    """Inches right of a panel that its line labels take."""
    return max((text_width(t, pt) for t in texts), default=0.0) + 0.25


def tint(colour: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white; strength 1 is the colour itself."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    r, g, b = (1 - strength * (1 - rgb)).tolist()
    return r, g, b


def render(ax: Axes, form: str) -> bytes:
    """The figure of these axes as 'png' or 'svg'; the same figure gives the same bytes."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    for text in figure.findobj(Text):  # ticks and legends, too: a name from a log is no formula
        text.set_parse_math(False)
    out = io.BytesIO()
    # Ids within the SVG are salted at random and dated by default. Text is drawn as paths: no font is asked for.
    salt: dict[Any, Any] = {"svg.hashsalt": "justai-sim", "svg.fonttype": "path"}
    kept = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    with warnings.catch_warnings(), matplotlib.style.context(["default", salt]):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(out, format=form, dpi=200, metadata=kept)
    return out.getvalue()


def save(ax: Axes, stem: Path) -> None:
    """Write `stem`.png and `stem`.svg."""
    for form in ("png", "svg"):
        stem.with_suffix(f".{form}").write_bytes(render(ax, form))

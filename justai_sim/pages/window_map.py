"""Would another window have picked another winner? Lookback against offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.patches import Rectangle
from scipy import special

from justai_sim.errors import listed, several
from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.style import (
    FEW_WORLDS,
    GRID,
    INK,
    SMALL,
    Look,
    Panel,
    distinct,
    looks,
    panels,
    shown,
    text_width,
    tint,
    units,
    width_of,
    write,
)
from justai_sim.surfaces import SAME_MIX, WindowSurface, of_frame
from justai_sim.tables import B1, F8, I8

QUESTION = "Would another window have picked another winner?"
LOG_QUESTION = "Does any window tell a leader?"
FEW = 10
"""Credited conversions per variant, in a world on average, below which a window is left blank."""
SHADES = ((0.28, "too close to call"), (0.6, "leaning"), (1.0, "clear"))
"""For z below 1, from 1 to 2, above 2 (of at least 10 worlds)."""
CLOSE_FILL, CLOSE_HATCH = "#f4f4f4", "#cfcfcf"
DEFAULT = (14.0, 3.0)
HALO = [patheffects.withStroke(linewidth=2.6, foreground="white")]


@dataclass(frozen=True)
class Worlds:
    """What every window says of simulated worlds: arrays (offsets, lookbacks). leader: index of the variant, -1 where
    blank; z: how surely a single world would show it ahead of the second, as a normal quantile. wrong: the leader is
    not the best variant and ahead of it by more than 2 standard errors over worlds; close: not the best, but not that
    far ahead. groups: number of worlds."""

    variants: list[str]
    offsets: F8
    lookbacks: F8
    leader: I8
    z: F8
    wrong: B1
    close: B1
    groups: int

    def at(self, offset: float, lookback: float) -> tuple[int, int] | None:
        """The cell of a window, if it is on the grid."""
        i, j = np.flatnonzero(self.offsets == offset), np.flatnonzero(self.lookbacks == lookback)
        return (int(i[0]), int(j[0])) if len(i) and len(j) else None


def worlds_of(windows: pd.DataFrame, best: str | None = None) -> Worlds:
    """Who leads under each window and how sure that is; with `best`, where that is expected to be another."""
    got = of_frame(windows, (0.0, 0.0))
    c, n = got.sums["conversions"], got.sums["sends"]
    shape, worlds = c.shape, c.shape[2]
    leader, z = np.full(shape[:2], -1), np.full(shape[:2], np.nan)
    wrong, close = np.zeros(shape[:2], bool), np.zeros(shape[:2], bool)
    b = got.variants.index(best) if best in got.variants else None
    for i, j in np.argwhere(got.windows & (shape[3] > 1)):
        if (c[i, j].sum(0) >= FEW * worlds).all() and (n[i, j].sum(0) > 0).all():
            leader[i, j], z[i, j] = _sure(c[i, j], n[i, j])
            if b is not None and leader[i, j] != b:
                difference, se = _pooled(c[i, j], n[i, j], int(leader[i, j]), b)
                wrong[i, j] = worlds >= FEW_WORLDS and difference > 2 * se
                close[i, j] = not wrong[i, j]
    return Worlds(got.variants, got.offsets, got.lookbacks, leader, z, wrong, close, worlds)


def _pooled(c: F8, n: F8, a: int, b: int) -> tuple[float, float]:
    """Rate of a minus rate of b over all worlds, and its standard error with worlds as clusters."""
    rate = c.sum(0) / n.sum(0)
    moved = (c[:, a] - rate[a] * n[:, a]) / n[:, a].sum() - (c[:, b] - rate[b] * n[:, b]) / n[:, b].sum()
    se = float(np.sqrt(len(c) * moved.var(ddof=1))) if len(c) > 1 else np.nan
    return float(rate[a] - rate[b]), se


def _sure(c: F8, n: F8) -> tuple[int, float]:
    """The leader of one window from conversions and sends (worlds, variants), and how surely one more world would
    show it ahead: Student's predictive distribution of its difference from the second, as a normal quantile. Two
    worlds that agree by chance are thereby not clear."""
    rate = c.sum(0) / n.sum(0)
    order = np.argsort(-rate, kind="stable")
    a, b = int(order[0]), int(order[1])
    there = (n[:, a] > 0) & (n[:, b] > 0)
    each = c[there, a] / n[there, a] - c[there, b] / n[there, b]
    R = len(each)
    scale = float(each.std(ddof=1)) if R > 1 else np.nan
    if not scale > 0:
        return a, 0.0 if np.isnan(scale) or each.mean() <= 0 else np.inf
    t = float(each.mean()) / (scale * np.sqrt(1 + 1 / R))
    return a, float(special.ndtri(special.stdtr(R - 1, t)))


@dataclass(frozen=True)
class Item:
    """A legend entry: a swatch filled with `fill`, or a black line if it is None."""

    fill: Any
    text: str
    line: int = 0
    hatch: bool = False


@dataclass(frozen=True)
class Drawing:
    """What is drawn: arrays (offsets, lookbacks). leader: the variant named in the cell, -1 none. colours: its fill
    (..., 3). hatched: too close. blank: windows that cannot tell. wrong: inside the heavy line."""

    question: str
    said: str
    variants: list[str]
    offsets: F8
    lookbacks: F8
    leader: I8
    colours: F8
    hatched: B1
    blank: B1
    wrong: B1
    items: list[Item]
    line: float


@figure
def plot_window_map(
    windows: Any, *, control: str = "control", offset_days: float = 3,
    lookback_days: float = 14, best: str | None = None, groups_are_worlds: bool = False, from_offset: bool = False,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Who leads under each window, where that can be told.

    `windows`: a surface, or its `by_group` (`group, offset_day, lookback_day, variant_id, conversions, sends`). Of a
    log, windows beyond the bound of the whole map (95 %) are outlined and have the leader's colour, the others are
    hatched (too close) or blank (cannot tell). With `groups_are_worlds`, of simulated worlds, every window has its
    leader's colour, the paler the less surely a single world would show it, and is blank where some variant has fewer
    than 10 credited conversions a world; with `best`, the truth, a line goes round the windows that are expected to
    pick another variant: the leader is ahead of it by more than 2 standard errors over worlds (no line below 10
    worlds). `from_offset`: lookbacks are lengths after the offset. The returned axes are a container.
    """
    use = (float(offset_days), float(lookback_days))
    apart = windows.from_offset if isinstance(windows, WindowSurface) else from_offset
    frame = windows.by_group if isinstance(windows, WindowSurface) else as_pandas(windows, "plot_window_map's frame")
    if not len(frame):
        return panels(ax, LOG_QUESTION, "There is nothing to compare: no send was found.", [])[0]
    columns = "group offset_day lookback_day variant_id conversions sends"
    need(frame, columns, "plot_window_map", "Sweep.windows, or js.window_surface(...)")
    if groups_are_worlds:
        got = _of_worlds(worlds_of(frame, best), use, control, best)
    else:
        got = _of_log(windows if isinstance(windows, WindowSurface) else of_frame(frame, use), use, control)
    rows = _flow(got.items, width_of(ax) - 0.3)
    foot = 0.55 + 0.24 * (rows[-1] + 1) if got.items else 0.55
    ax, (panel,), size = panels(ax, got.question, got.said, [3.2], left=0.5, right=0.25, foot=foot)
    edges = _edges(got.lookbacks), _edges(got.offsets)
    _fill(panel.ax, got, edges)
    panel.ax.set_yticks(_few(got.offsets))
    panel.ax.set_xticks(_few(got.lookbacks))
    counted = "counts for (days after the ignored ones)" if apart else "counts until day (days after the send)"
    units(panel, "ignored first days (days after the send)", counted)
    _borders(panel.ax, got.leader, edges, ((got.line, INK),))
    if got.wrong.any():
        _borders(panel.ax, got.wrong.astype(np.int64) - 1, edges, ((4.2, "white"), (2.2, "black")))
    marks = _marks(panel, use)
    _names(panel, got, edges, marks)
    _draw_legend(ax, got.items, rows, foot - 0.62, size)
    return ax


def _of_worlds(got: Worlds, use: tuple[float, float], control: str, best: str | None) -> Drawing:
    style, colours = looks(got.variants, control), np.ones((*got.leader.shape, 3))
    windows = got.lookbacks > got.offsets[:, None]
    for i, j in np.argwhere(got.leader >= 0):
        colours[i, j] = tint(style[got.variants[got.leader[i, j]]].colour, SHADES[_shade(got.z[i, j], got.groups)][0])
    return Drawing(QUESTION, sentence(got, use, best), got.variants, got.offsets, got.lookbacks, got.leader, colours,
                   np.zeros(got.leader.shape, bool), windows & (got.leader < 0), got.wrong,
                   _worlds_legend(got, style, best), 0.9)  # fmt: skip


def _of_log(got: WindowSurface, use: tuple[float, float], control: str) -> Drawing:
    style, leader = looks(got.variants, control), got.judged.leader
    colours = np.ones((*leader.shape, 3))
    for i, j in np.argwhere(leader >= 0):
        colours[i, j] = tint(style[got.variants[leader[i, j]]].colour, 0.75)
    hatched = got.judged.told & (leader < 0)
    bound = "the bound of the whole map (95 %)"
    names = distinct(got.variants)
    items = [Item(tint(style[v].colour, 0.75), f"{names[v]} leads", 0) for i, v in enumerate(got.variants)
             if (leader == i).any()]  # fmt: skip
    if items:
        items[-1] = replace(items[-1], text=f"{items[-1].text}, beyond {bound}")
    if hatched.any():
        items.append(Item(CLOSE_FILL, "too close" if items else f"too close: within {bound}", 1, hatch=True))
    blank = got.windows & ~got.judged.told
    if blank.any():
        items.append(Item("white", "cannot tell: too few conversions", 1))
    mixed = f" {SAME_MIX}" if got.weighted is not None else ""
    left = f" Not compared, too few conversions in most windows: {listed(got.left_out)}." if got.left_out else ""
    said = f"{got.answer()}{left}{mixed} The window in use ({use[1]:g}/{use[0]:g}): {got.said_at(*use)}."
    return Drawing(LOG_QUESTION, said, got.variants, got.offsets, got.lookbacks, leader, colours, hatched, blank,
                   np.zeros(leader.shape, bool), items, 1.6)  # fmt: skip


def _fill(ax: Axes, got: Drawing, edges: tuple[F8, F8]) -> None:
    x, y = edges
    ax.pcolormesh(x, y, got.colours, edgecolors="white", linewidth=0.4)
    boxes = [Rectangle((x[j], y[i]), x[j + 1] - x[j], y[i + 1] - y[i]) for i, j in np.argwhere(got.hatched)]
    ax.add_collection(PatchCollection(boxes, facecolor=CLOSE_FILL, edgecolor=CLOSE_HATCH, linewidth=0, hatch="////"))
    blank = [Rectangle((x[j], y[i]), x[j + 1] - x[j], y[i + 1] - y[i]) for i, j in np.argwhere(got.blank)]
    ax.add_collection(PatchCollection(blank, facecolor="none", edgecolor=GRID, linewidth=0.8))
    ax.grid(visible=False)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])


def _few(values: F8, most: int = 10) -> F8:
    """Ticks: every value, or every second, ... until there are few."""
    return values[:: -(-len(values) // most)]


def _edges(values: F8) -> F8:
    """Cell borders half-way between the values."""
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    mid = (values[1:] + values[:-1]) / 2
    return np.concatenate([[values[0] - (mid[0] - values[0])], mid, [values[-1] + (values[-1] - mid[-1])]])


def _shade(z: float, worlds: int) -> int:
    """Index in SHADES. A few worlds agree somewhere on a map by chance: then nothing is clear."""
    return int(z >= 1) + int(z > 2 and worlds >= FEW_WORLDS)


def _borders(ax: Axes, value: I8, edges: tuple[F8, F8], strokes: Sequence[tuple[float, str]]) -> None:
    """Lines between cells of different value; outside the map the value is -1."""
    around, (x, y) = np.pad(value, 1, constant_values=-1), edges
    lines = [
        [(x[j], y[i]), (x[j], y[i + 1])] for i, j in np.argwhere(around[1:-1, 1:] != around[1:-1, :-1])
    ] + [
        [(x[j], y[i]), (x[j + 1], y[i])] for i, j in np.argwhere(around[1:, 1:-1] != around[:-1, 1:-1])
    ]  # fmt: skip
    for width, colour in strokes:
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting", clip_on=False))


def _marks(panel: Panel, use: tuple[float, float]) -> list[float]:
    """The window in use (star) and 14/3 (diamond); returns the offsets at which they stand."""
    marks = [(use, "*", 15.0, "in use (14/3)" if _same(use) else f"in use ({use[1]:g}/{use[0]:g})", 1)]
    if not _same(use):
        marks.append(((DEFAULT[1], DEFAULT[0]), "D", 8.0, "14/3", -1))
    ax, done = panel.ax, []
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for (offset, lookback), marker, size, text, side in marks:
        if not (left <= lookback <= right and low <= offset <= high):
            continue
        done.append(offset)
        ax.plot([lookback], [offset], marker=marker, markersize=size, color="white", markeredgecolor="black",
                markeredgewidth=1.3, linestyle="", zorder=5)  # fmt: skip
        dy = 0.17 * (high - low) / panel.height * (side if low + 0.4 * (high - low) / panel.height < offset else 1)
        half = (text_width(text, SMALL, "bold") / 2 + 0.05) * (right - left) / panel.width
        x = float(np.clip(lookback, left + half, right - half))
        write(ax, x, offset + dy, text, fontsize=SMALL, weight="bold", ha="center", color="black", zorder=6,
              va="bottom" if dy > 0 else "top", path_effects=HALO)  # fmt: skip
    return done


def _same(use: tuple[float, float]) -> bool:
    return use == (DEFAULT[1], DEFAULT[0])


def _names(panel: Panel, got: Drawing, edges: tuple[F8, F8], marks: list[float]) -> None:
    """Write each leader's name on its longest run of windows, where it fits and no mark stands."""
    scale = panel.width / (edges[0][-1] - edges[0][0])
    row_height = np.diff(edges[1]) * panel.height / (edges[1][-1] - edges[1][0])
    for v, text in enumerate(distinct(got.variants, 24).values()):
        best = (text_width(text, PT_NAME, "bold") + 0.1, -1, 0.0)
        for i in range(len(got.offsets)):
            clear = all(abs(m - got.offsets[i]) * panel.height / (edges[1][-1] - edges[1][0]) > 0.42 for m in marks)
            for a, b in _runs(got.leader[i] == v) if clear and row_height[i] > 0.12 else []:
                wide = (edges[0][b] - edges[0][a]) * scale
                if wide > best[0]:
                    best = (wide, i, (edges[0][a] + edges[0][b]) / 2)
        if best[1] >= 0:
            y = (edges[1][best[1]] + edges[1][best[1] + 1]) / 2
            write(panel.ax, best[2], y, text, fontsize=PT_NAME, weight="bold", ha="center", va="center_baseline",
                  path_effects=HALO, zorder=4)  # fmt: skip


PT_NAME = 11.0


def _runs(flags: Any) -> list[tuple[int, int]]:
    """Half-open runs of true values."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]])))
    return list(zip(change[::2].tolist(), change[1::2].tolist(), strict=True))


def _worlds_legend(got: Worlds, style: dict[str, Look], best: str | None) -> list[Item]:
    """Line 0: who leads; line 1: how sure, in the colour of the most frequent leader."""
    found = got.leader[got.leader >= 0]
    if not len(found):
        return []
    count = np.bincount(found, minlength=len(got.variants))
    names = distinct(got.variants)
    items = [Item(style[v].colour, names[v], 0) for v, n in zip(got.variants, count, strict=True) if n]
    main = style[got.variants[int(count.argmax())]].colour
    use = SHADES if got.groups >= FEW_WORLDS else SHADES[:-1]
    items += [Item(tint(main, s), text, 1) for s, text in use]
    items.append(Item("white", "too few", 1))
    if best is not None and got.wrong.any():
        items.append(Item(None, f"expected to pick another than {shown(best)}, the best", 2))
    return items


def _width(item: Item) -> float:
    return 0.34 + text_width(item.text, SMALL) + 0.16


def _flow(items: Sequence[Item], width: float) -> list[int]:
    """The row of each entry when they are set like words; a new `line` starts a row."""
    rows: list[int] = []
    x, row, line = 0.0, 0, items[0].line if items else 0
    for item in items:
        if item.line != line or (x and x + _width(item) > width):
            row, x, line = row + 1, 0.0, item.line
        rows.append(row)
        x += _width(item)
    return rows


def _draw_legend(ax: Axes, items: Sequence[Item], rows: Sequence[int], top: float, size: tuple[float, float]) -> None:
    """`top`: inches from the foot of the container to the centre of the first row."""
    width, height = size
    x, last = 0.15, -1
    for item, row in zip(items, rows, strict=True):
        x = 0.15 if row != last else x
        last, y = row, top - 0.24 * row
        if item.fill is None:
            ax.plot(
                [x / width, (x + 0.26) / width], [y / height] * 2, color="black", linewidth=2.2, transform=ax.transAxes
            )
        else:
            ax.add_patch(Rectangle((x / width, (y - 0.07) / height), 0.26 / width, 0.14 / height, facecolor=item.fill,
                                   edgecolor=INK, linewidth=0.5, transform=ax.transAxes))  # fmt: skip
            if item.hatch:
                place = ((x / width, (y - 0.07) / height), 0.26 / width, 0.14 / height)
                ax.add_patch(Rectangle(*place, fill=False, edgecolor=CLOSE_HATCH, linewidth=0, hatch="////",
                                       transform=ax.transAxes))  # fmt: skip
        write(ax, (x + 0.34) / width, y / height, item.text, fontsize=SMALL, va="center", transform=ax.transAxes)
        x += _width(item)


def sentence(got: Worlds, use: tuple[float, float], best: str | None) -> str:
    """What to see, in a sentence; `use` is (offset, lookback)."""
    known = int((got.leader >= 0).sum())
    if not known:
        return (
            f"No window has {FEW} conversions of every variant in a world, on average over "
            f"{several(got.groups, 'world')}: too few to compare. With more users a world the map fills."
        )
    cell = got.at(*use)
    here = ""
    if cell is not None and got.leader[cell] >= 0:
        leads, sure = shown(got.variants[got.leader[cell]]), SHADES[_shade(got.z[cell], got.groups)][1]
        here = f"the window in use ({use[1]:g}/{use[0]:g}) puts {leads} first ({sure})"
    if best is not None:
        wrong, close = int(got.wrong.sum()), int(got.close.sum())
        first = f"{wrong} of {known} windows are expected to pick another variant than {shown(best)}, the best"
        first += f" ({close} more are too close to tell)" if close else ""
        if got.groups < FEW_WORLDS:
            first = f"{got.groups} {'world' if got.groups == 1 else 'worlds'}: too few worlds to tell what is expected"
        return f"{first}; {here}." if here else f"{first}."
    count = np.bincount(got.leader[got.leader >= 0], minlength=len(got.variants))
    top = int(count.argmax())
    first = f"{count[top]} of {known} windows pick {shown(got.variants[top])}"
    return f"{first}; {here}." if here else f"{first}."

"""Would another window have picked another winner? Lookback against offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from justai_sim.pages.style import (
    FEW_WORLDS,
    INK,
    SMALL,
    Look,
    Panel,
    looks,
    panels,
    shown,
    text_width,
    tint,
    units,
    width_of,
    write,
)
from justai_sim.tables import B1, F8, I8

QUESTION = "Would another window have picked another winner?"
FEW = 10
"""Credited conversions per variant, in a world on average, below which a window is left blank."""
SHADES = ((0.28, "too close to call"), (0.6, "leaning"), (1.0, "clear"))
"""For z below 1, from 1 to 2, above 2."""
DEFAULT = (14.0, 3.0)
HALO = [patheffects.withStroke(linewidth=2.6, foreground="white")]


@dataclass(frozen=True)
class Surface:
    """What every window says: arrays (offsets, lookbacks). leader: index of the variant, -1 where blank;
    z: leader minus the second in standard deviations. wrong: the leader is not the best variant and ahead of
    it by more than 2 standard errors over groups; close: not the best, but not that far ahead. groups: number
    of worlds, or of groups of users."""

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


def surface(windows: pd.DataFrame, groups_are_worlds: bool, best: str | None = None) -> Surface:
    """Who leads under each window and how sure that is; with `best`, where that is expected to be another.

    Worlds: z is the mean difference over its standard deviation between worlds, so it speaks of one world.
    Groups of users of one log: the pooled difference over its standard error, groups as clusters.
    """
    variants = sorted({str(v) for v in windows["variant_id"]})
    axes = [np.sort(windows[c].unique()) for c in ("offset_day", "lookback_day", "group")]
    shape = (*(len(a) for a in axes), len(variants))
    place = [np.searchsorted(a, windows[c]) for a, c in zip(axes, ("offset_day", "lookback_day", "group"), strict=True)]
    rows = (*place, np.searchsorted(variants, windows["variant_id"].astype(str)))
    c, n = np.zeros(shape), np.zeros(shape)
    np.add.at(c, rows, np.nan_to_num(windows["conversions"].to_numpy(np.float64)))
    np.add.at(n, rows, np.nan_to_num(windows["sends"].to_numpy(np.float64)))
    leader, z = np.full(shape[:2], -1), np.full(shape[:2], np.nan)
    wrong, close = np.zeros(shape[:2], bool), np.zeros(shape[:2], bool)
    worlds = shape[2] if groups_are_worlds else 1
    b = variants.index(best) if best in variants else None
    for i, j in np.ndindex(*shape[:2]):
        enough = axes[1][j] > axes[0][i] and len(variants) > 1
        if enough and (c[i, j].sum(0) >= FEW * worlds).all() and (n[i, j].sum(0) > 0).all():
            leader[i, j], z[i, j] = _sure(c[i, j], n[i, j], groups_are_worlds)
            if b is not None and leader[i, j] != b:
                difference, se = _pooled(c[i, j], n[i, j], int(leader[i, j]), b)
                wrong[i, j] = shape[2] >= FEW_WORLDS and difference > 2 * se
                close[i, j] = not wrong[i, j]
    offsets, lookbacks = axes[0].astype(np.float64), axes[1].astype(np.float64)
    return Surface(variants, offsets, lookbacks, leader, z, wrong, close, shape[2])


def _pooled(c: F8, n: F8, a: int, b: int) -> tuple[float, float]:
    """Rate of a minus rate of b over all groups, and its standard error with groups as clusters."""
    rate = c.sum(0) / n.sum(0)
    moved = (c[:, a] - rate[a] * n[:, a]) / n[:, a].sum() - (c[:, b] - rate[b] * n[:, b]) / n[:, b].sum()
    se = float(np.sqrt(len(c) * moved.var(ddof=1))) if len(c) > 1 else np.nan
    return float(rate[a] - rate[b]), se


def _sure(c: F8, n: F8, worlds: bool) -> tuple[int, float]:
    """The leader of one window from conversions and sends (groups, variants), and its z."""
    rate = c.sum(0) / n.sum(0)
    order = np.argsort(-rate, kind="stable")
    a, b = int(order[0]), int(order[1])
    difference, scale = _pooled(c, n, a, b)
    if worlds:
        there = (n[:, a] > 0) & (n[:, b] > 0)
        each = c[there, a] / n[there, a] - c[there, b] / n[there, b]
        difference = each.mean() if len(each) else difference
        scale = float(each.std(ddof=1)) if len(each) > 1 else np.nan
    if not scale > 0:
        return a, 0.0 if difference == 0 or np.isnan(scale) else np.inf
    return a, float(difference / scale)


def plot_window_map(
    windows: pd.DataFrame, *, control: str = "control", offset_days: float = 3, lookback_days: float = 14,
    best: str | None = None,
    groups_are_worlds: bool = False, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """The leader (hue) under each window and how sure that is (shade).

    `windows`: `group, offset_day, lookback_day, variant_id, conversions, sends`. With `best`, the truth of a
    simulation, a line goes round the windows that are expected to pick another variant: the leader is ahead of
    it by more than 2 standard errors over groups (no line below 10 groups). Windows where some variant has
    fewer than 10 credited conversions (per world) stay white. The returned axes are a container.
    """
    if not len(windows):
        return panels(ax, QUESTION, "There is nothing to compare: no send was found.", [])[0]
    got = surface(windows, groups_are_worlds, best)
    style, use = looks(got.variants, control), (float(offset_days), float(lookback_days))
    items = _legend(got, style, best)
    rows = _flow(items, width_of(ax) - 0.3)
    foot = 0.55 + 0.24 * (rows[-1] + 1) if items else 0.55
    ax, (panel,), size = panels(ax, QUESTION, sentence(got, use, best), [3.2], left=0.5, right=0.25, foot=foot)
    edges = _edges(got.lookbacks), _edges(got.offsets)
    colours = np.ones((*got.leader.shape, 3))
    for i, j in np.argwhere(got.leader >= 0):
        colours[i, j] = tint(style[got.variants[got.leader[i, j]]].colour, SHADES[_shade(got.z[i, j])][0])
    panel.ax.pcolormesh(*edges, colours, edgecolors="white", linewidth=0.4)
    panel.ax.grid(visible=False)
    panel.ax.set_xlim(edges[0][0], edges[0][-1])
    panel.ax.set_ylim(edges[1][0], edges[1][-1])
    panel.ax.set_yticks(_few(got.offsets))
    panel.ax.set_xticks(_few(got.lookbacks))
    units(panel, "ignored first days (days after the send)", "counts until day (days after the send)")
    _borders(panel.ax, got.leader, edges, ((0.9, INK),))
    if got.wrong.any():
        _borders(panel.ax, got.wrong.astype(np.int64), edges, ((4.2, "white"), (2.2, "black")))
    marks = _marks(panel, use)
    _names(panel, got, edges, marks)
    _draw_legend(ax, items, rows, foot - 0.62, size)
    return ax


def _few(values: F8, most: int = 10) -> F8:
    """Ticks: every value, or every second, ... until there are few."""
    return values[:: -(-len(values) // most)]


def _edges(values: F8) -> F8:
    """Cell borders half-way between the values."""
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    mid = (values[1:] + values[:-1]) / 2
    return np.concatenate([[values[0] - (mid[0] - values[0])], mid, [values[-1] + (values[-1] - mid[-1])]])


def _shade(z: float) -> int:
    return int(z >= 1) + int(z > 2)


def _borders(ax: Axes, value: I8, edges: tuple[F8, F8], strokes: Sequence[tuple[float, str]]) -> None:
    """Lines between cells of different value; outside the map the value is the least one."""
    around, (x, y) = np.pad(value, 1, constant_values=int(value.min())), edges
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


def _names(panel: Panel, got: Surface, edges: tuple[F8, F8], marks: list[float]) -> None:
    """Write each leader's name on its longest run of windows, where it fits and no mark stands."""
    scale = panel.width / (edges[0][-1] - edges[0][0])
    row_height = np.diff(edges[1]) * panel.height / (edges[1][-1] - edges[1][0])
    for v, name in enumerate(got.variants):
        text, best = shown(name, 24), (text_width(shown(name, 24), PT_NAME, "bold") + 0.1, -1, 0.0)
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


@dataclass(frozen=True)
class Item:
    """A legend entry: a swatch filled with `fill`, or a black line if it is None."""

    fill: Any
    text: str
    line: int = 0


def _legend(got: Surface, style: dict[str, Look], best: str | None) -> list[Item]:
    """Line 0: who leads; line 1: how sure, in the colour of the most frequent leader."""
    found = got.leader[got.leader >= 0]
    if not len(found):
        return []
    count = np.bincount(found, minlength=len(got.variants))
    items = [Item(style[v].colour, shown(v), 0) for v, n in zip(got.variants, count, strict=True) if n]
    main = style[got.variants[int(count.argmax())]].colour
    items += [Item(tint(main, s), text, 1) for s, text in SHADES]
    items.append(Item("white", "too few", 1))
    if best is not None and got.wrong.any():
        items.append(Item(None, f"expected to pick another than {shown(best)}, the best", 2))
    return items


def _width(item: Item) -> float:
    return 0.34 + text_width(item.text, SMALL) + 0.16


def _flow(items: Sequence[Item], width: float) -> list[int]:
    """The row of each entry when they are set like words; a new `line` starts a row."""
    rows: list[int] = []
    x, row, line = 0.0, 0, 0
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
        write(ax, (x + 0.34) / width, y / height, item.text, fontsize=SMALL, va="center", transform=ax.transAxes)
        x += _width(item)


def sentence(got: Surface, use: tuple[float, float], best: str | None) -> str:
    """What to see, in a sentence; `use` is (offset, lookback)."""
    known = int((got.leader >= 0).sum())
    if not known:
        return f"No window has {FEW} conversions for every variant: there is nothing to compare yet."
    cell = got.at(*use)
    here = ""
    if cell is not None and got.leader[cell] >= 0:
        leads, sure = shown(got.variants[got.leader[cell]]), SHADES[_shade(got.z[cell])][1]
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

"""What your window sees: conversions by days since the send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from justai_sim import stats
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
    shown,
    units,
    write,
)
from justai_sim.pages.table import write as number
from justai_sim.streams import generator
from justai_sim.tables import F8

QUESTION = "What your window sees"
X_LABEL = "days since the send"
BEFORE = "before the send"
NOT_BACKGROUND = (
    f" Users got other messages earlier, as in a flow: the level {BEFORE!r} holds the effects of these and is no "
    "background."
).replace("'", '"')
IGNORED, TINT = "#c9c9c9", "#fdf3d7"


Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Added:
    """What a variant adds over the control, cumulated from age 0, per 1,000 sends: `diff, low, high` (D + 1,)
    at the ends of the days (`edges`, the first 0). The band holds all days at once; NaN with one group.
    total, window: what it adds over all days and inside the window, each with its own 95 % interval (value,
    low, high) over groups; NaN as above."""

    variant: str
    edges: F8
    diff: F8
    low: F8
    high: F8
    total: Interval
    window: Interval


@dataclass(frozen=True)
class Curves:
    """What the figure draws. rate: (variants, ages), per 1,000 sends and day; NaN where nobody was watched.
    before: the level of all sends' users on the days before the send. leader: has most conversions per send
    inside the window; most: adds most over all days, if that is another variant and clear."""

    variants: list[str]
    ages: F8
    rate: F8
    before: float
    control: str
    leader: Added
    most: Added | None


def curves(age: pd.DataFrame, control: str, offset: float, lookback: float) -> Curves | None:
    """The curves behind the figure; None if there is no control or nobody to compare it with."""
    variants = sorted({str(v) for v in age["variant_id"]})
    if control not in variants or len(variants) < 2 or not (age["exposure"] > 0).any():
        return None
    c, e = (_cube(age, column, variants) for column in ("conversions", "exposure"))  # (G, V, A)
    ages = np.sort(age["age_day"].unique()).astype(np.float64)
    total = e.sum(0)
    # Days that nobody has reached are not drawn: no exposure is not a rate of zero.
    rate = np.divide(c.sum(0), total, out=np.full(total.shape, np.nan), where=total > 0)
    b = variants.index(control)

    def best(weight: F8) -> int:
        score = np.nansum(rate * weight, axis=1)
        score[b] = -np.inf
        return int(score.argmax())

    inside = np.clip(np.minimum(ages + 1, lookback) - np.maximum(ages, offset), 0, 1)
    window = (offset, lookback)
    leaders = best(inside), best((ages >= 0).astype(np.float64))
    added = [_added(c, e, ages, v, b, variants[v], window) for v in leaders]
    past = total[:, ages < 0].sum()
    before = float(1000 * c[:, :, ages < 0].sum() / past) if past > 0 else np.nan
    other = added[1] if added[1].variant != added[0].variant and added[1].low[-1] > 0 else None
    return Curves(variants, ages, rate * 1000, before, control, added[0], other)


def _added(c: F8, e: F8, ages: F8, a: int, b: int, name: str, window: tuple[float, float]) -> Added:
    total = e.sum(0)
    rate = np.divide(c.sum(0), total, out=np.full(total.shape, np.nan), where=total > 0)
    here = np.flatnonzero((ages >= 0) & (total[a] > 0) & (total[b] > 0))
    influence = _influence(c, e, total, rate, a, here) - _influence(c, e, total, rate, b, here)
    diff = np.cumsum(rate[a, here] - rate[b, here]) * 1000
    half = np.full(len(here), np.nan)
    # Each group's part of the curve: the curve is linear in the groups to first order.
    parts = np.cumsum(influence, axis=1) * 1000 + diff / len(c)
    if len(c) >= 2 and len(here):
        _, se, k = stats.simultaneous_band(parts, rng=generator(0, "age band"))
        half = k * se
    edges, zero = np.concatenate([[0.0], ages[here] + 1]), np.zeros(1)
    diff, low, high = (np.concatenate([zero, v]) for v in (diff, diff - half, diff + half))
    at_edges = np.pad(parts, ((0, 0), (1, 0)))
    first, last = (np.array([np.interp(day, edges, p) for p in at_edges]) for day in window)
    return Added(name, edges, diff, low, high, _interval(at_edges[:, -1]), _interval(last - first))


def _interval(parts: F8) -> Interval:
    """The sum of the groups' parts (G,) and its 95 % interval, groups as the independent units."""
    n = len(parts)
    low, high = stats.mean_interval(n * parts.sum(), (n * n * parts * parts).sum(), n)
    return float(parts.sum()), float(low), float(high)


def _cube(age: pd.DataFrame, column: str, variants: list[str]) -> F8:
    groups, ages = np.sort(age["group"].unique()), np.sort(age["age_day"].unique())
    out = np.zeros((len(groups), len(variants), len(ages)))
    rows = np.searchsorted(groups, age["group"]), np.searchsorted(variants, age["variant_id"].astype(str))
    np.add.at(out, (*rows, np.searchsorted(ages, age["age_day"])), age[column].to_numpy(np.float64))
    return out


def _influence(c: F8, e: F8, total: F8, rate: F8, v: int, here: Any) -> F8:
    """What a group (G, A) moves the rate of variant v by."""
    return (c[:, v, here] - rate[v, here] * e[:, v, here]) / total[v, here]


@figure
def plot_age(
    age: Any,
    *,
    control: str = "control",
    offset_days: float = 3,
    lookback_days: float = 14,
    overlapping: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Above: conversions per 1,000 sends on each day since the send; below: leader minus control, cumulated.

    `age`: `group, variant_id, age_day, conversions, exposure` (send-days); groups are the independent units
    of the band (worlds, or groups of users), which holds all days at once at 95 %. `overlapping`: sends follow others
    to the same users, as the steps of a flow do, so that the level before a send is no background. The returned axes
    are a container; its `child_axes` are the two panels.
    """
    age = as_pandas(age, "plot_age's frame")
    need(age, "group variant_id age_day conversions exposure", "plot_age", "Sweep.age, or Replay.age()")
    got = curves(age, control, offset_days, lookback_days)
    if got is None:
        return panels(ax, QUESTION, f"Nothing to compare: it takes sends of {shown(control)} and of a variant.", [])[0]
    note = NOT_BACKGROUND if overlapping and not np.isnan(got.before) else ""
    called = distinct(got.variants)
    names = [*(called[v.variant] for v in _drawn(got)), called[control], "others", BEFORE]
    ax, (top, low), _ = panels(ax, QUESTION, f"{sentence(got, offset_days, lookback_days)}{note}", [2.3, 1.75],
                               right=room_for(names))  # fmt: skip
    for panel in (top, low):
        panel.ax.set_xlim(min(-7.0, got.ages[0]), got.ages[-1] + 1)
        panel.ax.set_xticks([t for t in (-7, 0, 7, 14, 21, 28) if got.ages[0] <= t <= got.ages[-1] + 1])
        _window(panel, offset_days, lookback_days)
    _rates(top, got, offset_days, lookback_days)
    _difference(low, got)
    return ax


def _window(panel: Panel, offset: float, lookback: float) -> None:
    ax = panel.ax
    right = ax.get_xlim()[1]
    ax.axvspan(offset, min(lookback, right), color=TINT, zorder=0, linewidth=0)
    if offset > 0:
        ax.axvspan(0, min(offset, right), facecolor="white", edgecolor=IGNORED, hatch="////", zorder=0, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=0.8)
    if lookback <= right:
        ax.axvline(lookback, color=INK, linewidth=1, linestyle=(0, (1, 1)))


def _drawn(got: Curves) -> list[Added]:
    return [got.leader] if got.most is None else [got.most, got.leader]


def _rates(panel: Panel, got: Curves, offset: float, lookback: float) -> None:
    ax, style, called = panel.ax, looks(got.variants, got.control), distinct(got.variants)
    named = [got.control, *(v.variant for v in _drawn(got))]
    others = [v for v in got.variants if v not in named]
    ends = []
    for v in [*others, *named]:
        y, main = got.rate[got.variants.index(v)], v in named
        colour = style[v].colour if main else "#bdbdbd"
        dash, marker = (style[v].dash, style[v].marker) if main else ("-", "")
        ax.plot(got.ages + 0.5, y, color=colour, linestyle=dash, marker=marker, markersize=3.2,
                linewidth=1.8 if main else 1.1, zorder=3 if main else 2)  # fmt: skip
        drawn = np.flatnonzero(~np.isnan(y))
        if len(drawn) and (main or v == others[-1]):
            text = called[v] if main or len(others) == 1 else "others"
            ends.append(End(got.ages[drawn[-1]] + 0.5, y[drawn[-1]], text, colour if main else "#767676"))
    if not np.isnan(got.before):
        ax.axhline(got.before, color=GREY, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
        ends.append(End(ax.get_xlim()[1], got.before, BEFORE, "#5e5e5e"))
    most = np.nanmax(got.rate) if not np.isnan(got.rate).all() else 0.0
    ax.set_ylim(0, max(most, 1e-9) * 1.42)  # the words about the window stand above the lines
    units(panel, "conversions per 1,000 sends and day")
    label_ends(panel, ends)
    _words(panel, offset, lookback)


def _words(panel: Panel, offset: float, lookback: float) -> None:
    ax = panel.ax
    right, y = ax.get_xlim()[1], ax.get_ylim()[1] * 0.985
    if offset > 0:
        days = "1 day" if offset == 1 else f"{offset:g} days"
        write(ax, offset - 0.2, y, f"ignored\nfirst {days}", ha="right", va="top", fontsize=SMALL)
    until, style = f"counts until\nday {lookback:g}", {"va": "top", "fontsize": SMALL}
    if lookback < right - 9:
        write(ax, lookback + 0.35, y, until, ha="left", **style)
    else:
        write(ax, min(lookback, right) - 0.35, y, until if lookback <= right else f"{until} →", ha="right", **style)


def _difference(panel: Panel, got: Curves) -> None:
    ax, style, called = panel.ax, looks(got.variants, got.control), distinct(got.variants)
    ax.axhline(0, color=CONTROL, linewidth=1.1, linestyle=(0, (4, 2)))
    ends = [End(ax.get_xlim()[1], 0.0, called[got.control], CONTROL)]
    for v in _drawn(got):
        s = style[v.variant]
        if not np.isnan(v.low).any():
            ax.fill_between(v.edges, v.low, v.high, color=s.colour, alpha=0.2, linewidth=0)
        ax.plot(v.edges, v.diff, color=s.colour, linestyle=s.dash, linewidth=1.8)
        ends.append(End(v.edges[-1], v.diff[-1], called[v.variant], s.colour))
    ax.margins(y=0.12)
    units(panel, "minus control: conversions per 1,000 sends, added up from day 0", X_LABEL)
    label_ends(panel, ends)


def sentence(got: Curves, offset: float, lookback: float) -> str:
    """What to see, in a sentence: no claim where the interval of the total holds zero."""
    v = got.leader if got.most is None else got.most
    total, low, high = v.total
    called = distinct(got.variants)
    within, name, control = f"within {v.edges[-1]:g} days", called[v.variant], called[got.control]
    per = f"conversions per 1,000 sends over {control}"
    if np.isnan(low):
        return f"It takes 2 groups to tell how sure this is: {within} {name} adds {total:.1f} {per}."
    if low <= 0 <= high:
        return f"No clear difference: {within} {name} adds {_with(v.total)} {per}."
    sees = f"the window (day {offset:g} to day {lookback:g}) sees {_with(v.window)}"
    if 0 <= v.window[0] <= total:
        sees += " of them"
    if got.most is not None:
        first = f"{called[got.leader.variant]} is first in the window; "
        return f"{first}{within} {name} adds {_with(v.total)} {per}; {sees}."
    if total < 0:
        return f"{name} leads the other variants, yet {within} it adds {_with(v.total)} {per}."
    return f"{within[0].upper()}{within[1:]} {name} adds {_with(v.total)} {per}; {sees}."


def _with(value: Interval) -> str:
    """'0.8 (0.2 to 1.4)'."""
    mean, low, high = (number(x, "one") for x in value)
    return f"{mean} ({low} to {high})"

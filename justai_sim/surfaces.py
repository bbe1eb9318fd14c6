"""The map of windows as frames: what every window credits, who leads in it, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np
import pandas as pd

from justai_sim.attribution import Bound
from justai_sim.errors import UsageError, listed, nearest
from justai_sim.estimate.surface import FEW, HalfSample, Judged, chosen_and_judged, expected, judge
from justai_sim.estimate.windows import LOOKBACKS, OFFSETS, window_counts
from justai_sim.streams import generator, uniform
from justai_sim.tables import B1, F8, HELD_OUT, I8, Log, badge

GROUPS = 200
"""Random groups of users that a map is told with: more change nothing, fewer widen the bound."""
COMPARED = ("conversions", "conversion_count", "converted", "revenue")
"""What may be compared per send of a window: conversions as the rule's `repeat` counts them (the conversion rate),
every credited one, sends that converted, money."""
MAX_WINDOWS = 2000
WEIGHTED = "weighted_"
TOO_CLOSE, CANNOT_TELL = "too close", "cannot tell"
CHOOSE = "Choose a template or days in which they compete."
SAME_MIX = "Shares changed, so variants are compared over the same mix of templates and days."
"""Said where sends are weighted."""
ADVICE = (
    "No window is recommended: a longer one credits more purchases that would have happened anyway, and the one "
    "with the largest lift on a log is chosen by noise."
)


@dataclass(frozen=True)
class WindowSurface:
    """Credited conversions of every window, by variant and random group of users, and what they tell.

    sums: arrays (offsets, lookbacks, groups, variants), NaN where the offset is not below the lookback:
    `conversions` (as the rule's `repeat` counts them) and the mature `sends`, and if known `conversion_count` (all that
    are credited), `converted` (sends) and `revenue`. in_use: (offset, lookback)
    of the rule, days. metric: what is compared, per send. weighted: the same sums with every send weighted so that all
    variants have the same mix of days and templates, and `effective`, the conversions that these are worth; None
    where weights change nothing. What is shown are `sums`; differences and their errors are of `weighted`.
    from_offset: lookbacks are lengths that begin where the offset ends.
    """

    variants: list[str]
    offsets: F8
    lookbacks: F8
    sums: dict[str, F8]
    in_use: tuple[float, float]
    metric: str = "conversions"
    weighted: dict[str, F8] | None = None
    from_offset: bool = False
    simulated: bool = False

    @cached_property
    def _y(self) -> tuple[F8, F8, F8]:
        """What is compared, sends and conversions of the compared variants."""
        sums, count = (self.sums, "conversions") if self.weighted is None else (self.weighted, "effective")
        y, n, c = (sums[k][..., self.compared] for k in (self.metric, "sends", count))
        return y, n, c

    @cached_property
    def _able(self) -> B1:
        """Which variants would have FEW conversions in which window, (offsets, lookbacks, variants)."""
        counted = self.sums["conversions"], self.sums["sends"]
        if self.weighted is not None and np.nansum(self.weighted["sends"]):
            counted = self.weighted["effective"], self.weighted["sends"]
        return np.asarray(np.nan_to_num(expected(*counted)) >= FEW)

    @cached_property
    def compared(self) -> I8:
        """Index of the variants that are compared: those with enough conversions in at least half of the windows in
        which any two variants have them.

        A variant with fewer would make all other windows blind, and a map of few windows tells little. What decides
        are its sends and the rate of all variants together, so no variant is left out for how it did.
        """
        two = self._able.sum(2) > 1
        if not two.any():
            return np.flatnonzero(self._able.any((0, 1)))
        return np.flatnonzero(2 * self._able[two].sum(0) >= two.sum())

    @property
    def left_out(self) -> list[str]:
        """The variants that have too few sends to be compared in most windows."""
        return [v for i, v in enumerate(self.variants) if i not in self.compared]

    @property
    def blinding(self) -> tuple[list[str], int]:
        """The compared variants that alone make windows blind, in which the others have enough conversions, and the
        number of these windows."""
        _, n, c = self._y
        able = np.nan_to_num(expected(c, n)) >= FEW
        blind = self.windows & ~self.judged.told & able.any(2) & ~able.all(2)
        return [self.variants[v] for v in self.compared[(~able[blind]).any(0)]], int(blind.sum())

    @cached_property
    def judged(self) -> Judged:
        """Arrays (offsets, lookbacks), variants as indices of `variants`."""
        y, n, c = self._y
        got = judge(y, n, generator(0, "window surface"), count=c)
        return Judged(
            self._named(got.first), self._named(got.second), got.difference, got.se, got.z, got.groups, got.bound
        )

    def _named(self, index: I8) -> I8:
        return np.where(index >= 0, np.append(self.compared, -1)[index], -1)

    @property
    def windows(self) -> B1:
        """Which pairs are windows, (offsets, lookbacks)."""
        n = self.sums["sends"]
        return np.asarray(~np.isnan(n).all((2, 3))) if n.size else self.lookbacks > self.offsets[:, None]

    def at(self, offset: float, lookback: float) -> tuple[int, int] | None:
        """The index of a window, if it is on the map."""
        i, j = np.flatnonzero(self.offsets == offset), np.flatnonzero(self.lookbacks == lookback)
        return (int(i[0]), int(j[0])) if len(i) and len(j) and self.windows[i[0], j[0]] else None

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a window and variant: `offset_day, lookback_day, variant_id`, the sums, and `rate` (of the metric, per
        mature send), `per_1000`. Empty where there are no sends."""
        out = self._long({k: a.sum(2)[:, :, None] for k, a in self.sums.items()}).drop(columns="group")
        out["rate"] = out[self.metric] / out["sends"].where(out["sends"] > 0)
        out["per_1000"] = 1000 * out["rate"]
        return out

    @cached_property
    def by_group(self) -> pd.DataFrame:
        """The same sums by random group of users, which `plot_window_map` draws; `weighted_*` if there are any."""
        return self._long(self.sums | {f"{WEIGHTED}{k}": a for k, a in (self.weighted or {}).items()})

    def _long(self, sums: dict[str, F8]) -> pd.DataFrame:
        i, j, group, v = np.nonzero(np.broadcast_to(self.windows[:, :, None, None], next(iter(sums.values())).shape))
        names = np.array(self.variants, dtype=object)
        out = {"group": group, "offset_day": self.offsets[i], "lookback_day": self.lookbacks[j], "variant_id": names[v]}
        return pd.DataFrame(out | {k: a[i, j, group, v] for k, a in sums.items()})

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row a window: `offset_day, lookback_day, leader` (a variant, 'too close' or 'cannot tell'), `ahead, second`
        (the best and the one that it is least clearly ahead of), `difference_per_1000` with the ends of an interval
        that holds for the whole map at once, `z, bound, beyond`, and `mature_sends, conversions`."""
        got, (i, j) = self.judged, np.nonzero(self.windows)
        names = np.array([*self.variants, None], dtype=object)
        first, z = got.first[i, j], got.z[i, j]
        beyond = got.leader[i, j] >= 0
        difference, half = 1000 * got.difference[i, j], 1000 * got.bound * got.se[i, j]
        return pd.DataFrame(
            {
                "offset_day": self.offsets[i],
                "lookback_day": self.lookbacks[j],
                "leader": np.where(beyond, names[first], np.where(first >= 0, TOO_CLOSE, CANNOT_TELL)),
                "ahead": names[first],
                "second": names[got.second[i, j]],
                "difference_per_1000": difference,
                "low_per_1000": difference - half,
                "high_per_1000": difference + half,
                "z": z,
                "bound": got.bound,
                "beyond": beyond,
                "mature_sends": self.sums["sends"].sum((2, 3))[i, j],
                "conversions": self.sums["conversions"].sum((2, 3))[i, j],
            }
        )

    @cached_property
    def half_sample(self) -> HalfSample | None:
        """The clearest window of half of the users, judged on the other half; variants as indices of `variants`."""
        y, n, c = self._y
        return chosen_and_judged(y, n, count=c)

    def chosen(self) -> pd.DataFrame:
        """The window in which the leader is clearest on half of the users, and what the other half says of the same
        window and variants. Two rows, `half` 'chosen on' and 'judged on'; only the second is an estimate, with its
        95 % interval. Empty where nothing can be chosen."""
        columns = ["half", "offset_day", "lookback_day", "first", "second", "difference_per_1000", "low_per_1000",
                   "high_per_1000", "z"]  # fmt: skip
        got = self.half_sample
        if got is None:
            return pd.DataFrame(columns=columns)
        i, j = got.cell
        a, b = (self.variants[self.compared[v]] for v in (got.first, got.second))
        where = (self.offsets[i], self.lookbacks[j], a, b)
        rows = [
            ("chosen on", *where, 1000 * got.chosen_difference, np.nan, np.nan, got.chosen_z),
            ("judged on", *where, 1000 * got.difference, 1000 * got.low, 1000 * got.high, got.z),
        ]
        return pd.DataFrame(rows, columns=columns)

    def counts(self) -> dict[str, int]:
        """How many windows name each leader, are too close, cannot tell; leaders first, the most frequent on top."""
        found = self.cells["leader"].value_counts()
        leaders = [str(v) for v in found.index if v not in (TOO_CLOSE, CANNOT_TELL)]
        return {v: int(found.get(v, 0)) for v in [*leaders, TOO_CLOSE, CANNOT_TELL]}

    def answer(self) -> str:
        """What the map tells, in a sentence."""
        count = self.counts()
        close, blind = count.pop(TOO_CLOSE), count.pop(CANNOT_TELL)
        able = close + sum(count.values())
        if not able and self.weighted is not None and not np.nansum(self.weighted["sends"]):
            return f"None of {blind} windows can tell: no template had all variants at the same time. {CHOOSE}"
        if not able:
            who = listed(self.left_out) if len(self.compared) == 1 < len(self.variants) else "some variant"
            return f"None of {blind} windows can tell: too few conversions of {who}, or too few users."
        rest = (f"; {close} too close" if close else "") + (f"; {blind} cannot tell" if blind else "")
        names, n = self.blinding
        if n:
            rest += ": " if n == blind else f", {n} of them: "
            rest += f"too few conversions of {listed(names)}"
        if not count:
            return f"No leader in any of {able} windows that can tell{rest}."
        if len(count) == 1:
            ((name, n),) = count.items()
            return f"Same leader, {name}, in {n} of {able} windows that can tell{rest}."
        said = ", ".join(f"{name} in {n}" for name, n in count.items())
        return f"{len(count)} leaders in {able} windows that can tell: {said}{rest}."

    def said_at(self, offset: float, lookback: float) -> str:
        """What one window tells, in a few words: 'led by story', 'too close', 'cannot tell' or 'not on this map'."""
        place = self.at(offset, lookback)
        if place is None:
            return "not on this map"
        leads = int(self.judged.leader[place])
        if leads >= 0:
            return f"led by {self.variants[leads]}"
        return TOO_CLOSE if self.judged.told[place] else CANNOT_TELL

    def __repr__(self) -> str:
        return f"WindowSurface({int(self.windows.sum()):,} windows of {listed(self.variants)}, comparing {self.metric})"

    def _repr_html_(self) -> str:
        head = f"{badge(self.simulated)}<p>{escape(self.answer())} {ADVICE}</p>"
        return head + self.cells.to_html(max_rows=20, float_format="%.3g", index=False)


def window_surface(
    bound: Bound, log: Log, as_of: int, offsets: Sequence[float] = OFFSETS, lookbacks: Sequence[float] = LOOKBACKS, *,
    keep: B1 | None = None, metric: str = "conversions", weight: F8 | None = None,
) -> WindowSurface:  # fmt: skip
    """Count and judge every window of a grid of days on a log under the rule in `bound`; `keep` (sends,) says what is
    shown (every send competes), `weight` (sends,) how much each counts in a comparison (`mix.comparable`). UsageError
    for a grid without windows or an unknown metric."""
    from_offset = bound.rule.lookback_from == "offset_end"
    offsets, lookbacks = checked_grid(offsets, lookbacks, from_offset)
    checked_metric(metric)
    s, names = log.sends, log.names("variant")
    shown = s.status != HELD_OUT
    variant = np.where(shown if keep is None else shown & keep, s.variant, -1)
    present = np.unique(variant[variant >= 0])
    group, groups = user_groups(s.user)
    column = np.where(variant >= 0, np.searchsorted(present, variant), -1)

    def counted(weight: F8 | None) -> dict[str, F8]:
        got = window_counts(
            bound, s, log.events, as_of, offsets, lookbacks, group, column, groups, len(present), weight
        )
        return {k: getattr(got, k) for k in ("conversions", "sends", "conversion_count", "converted", "revenue")}

    sums, weighted = counted(None), None
    if weight is not None:
        use = column >= 0
        n, w, w2 = (np.bincount(column[use], x, len(present)) for x in (None, weight[use], weight[use] ** 2))
        # Kish's effective share: what weighted sends are worth in unweighted ones.
        weighted = counted(weight) | {"effective": sums["conversions"] * (w**2 / np.maximum(n * w2, 1e-300))}
    in_use = (float(bound.rule.offset_days), float(bound.rule.lookback_days))
    return WindowSurface(
        [names[v] for v in present], np.array(offsets, float), np.array(lookbacks, float), sums, in_use, metric,
        weighted, from_offset, log.simulated,
    )  # fmt: skip


def of_frame(
    windows: pd.DataFrame, in_use: tuple[float, float], metric: str = "conversions", from_offset: bool = False,
    simulated: bool = False,
) -> WindowSurface:  # fmt: skip
    """The map of a frame as `by_group` is: `group, offset_day, lookback_day, variant_id, conversions, sends`, and the
    other sums if they are there."""
    axes = [np.sort(windows[c].unique()) for c in ("offset_day", "lookback_day", "group")]
    variants = sorted({str(v) for v in windows["variant_id"]})
    place = [np.searchsorted(a, windows[c]) for a, c in zip(axes, ("offset_day", "lookback_day", "group"), strict=True)]
    rows = (*place, np.searchsorted(variants, windows["variant_id"].astype(str)))
    shape = (*(len(a) for a in axes), len(variants))
    on_map = np.zeros(shape[:2], bool)
    on_map[rows[0], rows[1]] = True

    def summed(prefix: str, names: Sequence[str]) -> dict[str, F8]:
        out = {}
        for name in [n for n in names if prefix + n in windows]:
            out[name] = np.zeros(shape)
            np.add.at(out[name], rows, np.nan_to_num(windows[prefix + name].to_numpy(np.float64)))
            out[name][~on_map] = np.nan
        return out

    days = (axes[0].astype(np.float64), axes[1].astype(np.float64))
    return WindowSurface(
        variants, *days, summed("", ("sends", *COMPARED)), in_use, metric,
        summed(WEIGHTED, ("sends", *COMPARED, "effective")) or None, from_offset, simulated,
    )  # fmt: skip


def checked_grid(
    offsets: Sequence[float], lookbacks: Sequence[float], apart: bool = False
) -> tuple[list[float], list[float]]:
    """The days sorted, each once. UsageError where they hold no window, too many, or nonsense. `apart`: a lookback is
    a length after the offset, so that any two are a window."""
    grid = []
    for name, days, least in (("offsets", offsets, 0.0), ("lookbacks", lookbacks, None)):
        values = sorted({float(d) for d in days})
        if not values or not all(np.isfinite(values)):
            raise UsageError(f"{name} {list(days)}: expected days, e.g. 0, 3, 7")
        if values[0] < 0 or (least is None and values[0] <= 0):
            raise UsageError(f"{name}: {values[0]:g} days; expected {'0 or more' if least == 0.0 else 'more than 0'}")
        if values[-1] > 3650:
            raise UsageError(f"{name}: {values[-1]:g} days; expected at most 3650")
        grid.append(values)
    count = sum(apart or b > a for a in grid[0] for b in grid[1])
    if not count:
        raise UsageError(f"no window: every offset ({grid[0][0]:g} days or more) is at or beyond the last lookback "
                         f"({grid[1][-1]:g} days)")  # fmt: skip
    if count > MAX_WINDOWS:
        raise UsageError(f"{count:,} windows; expected at most {MAX_WINDOWS:,}: take larger steps, e.g. 0:30:5")
    return grid[0], grid[1]


def checked_metric(metric: str) -> None:
    """UsageError for what cannot be compared."""
    if metric not in COMPARED:
        raise UsageError(f"metric {metric!r} is not known; {nearest(metric, COMPARED)}")


def user_groups(user: I8, most: int = GROUPS) -> tuple[I8, int]:
    """A random group of each send's user, the same every time, and their number: one a user where users are few."""
    found, place = np.unique(user, return_inverse=True)
    rank = np.argsort(np.argsort(uniform(0, "window groups", np.zeros(len(found), np.int64), found)))
    groups = max(min(len(found), most), 1)
    return (rank % groups)[place].astype(np.int64), groups

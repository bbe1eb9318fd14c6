"""Which variant leads in each window, told for a whole map of windows at once.

A map of windows asks hundreds of dependent questions of one log. Each difference is therefore held against the
distribution of the largest |z| anywhere on the map between any two variants, so that at most 5 % of the maps of
equal variants name a leader anywhere (Chernozhukov, Chetverikov and Kato 2013, Gaussian multiplier bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from justai_sim.stats import z_value
from justai_sim.tables import B1, F8, I8

LEVEL = 0.95
FEW = 10
"""Conversions that a variant would have at the rate of all variants, below which a window cannot tell."""
FEW_GROUPS = 20
"""Equally large groups of users below which no window can tell: the errors of so few clusters are guesses."""
DRAWS = 2000
_AT_ONCE = 250


@dataclass(frozen=True)
class Compared:
    """The best variant of each window against the others: arrays of any one shape, an entry a window.

    first: the variant with the highest rate, -1 where the window cannot tell. second: the variant that it is least
    clearly ahead of. difference: rate of first minus rate of second, per send. se, z: its standard error over
    groups of users, and difference / se. groups: how many groups have sends.
    """

    first: I8
    second: I8
    difference: F8
    se: F8
    z: F8
    groups: int

    @property
    def told(self) -> B1:
        """The windows with enough conversions of every variant."""
        return self.first >= 0


@dataclass(frozen=True)
class Judged(Compared):
    """With what z has to pass, the same `bound` for all windows."""

    bound: float

    @property
    def leader(self) -> I8:
        """The first variant where it is beyond the bound, else -1."""
        return np.where(self.told & (self.z > self.bound), self.first, -1)


def judge(
    y: F8, n: F8, rng: np.random.Generator, *, count: F8 | None = None, level: float = LEVEL, draws: int = DRAWS
) -> Judged:
    """Find each window's leader from sums by group of users: `y`, `n` (..., groups, variants).

    `y` is what is compared per send of `n`; `count` the conversions behind it, if `y` is not those. Groups are
    independent clusters: no user is in two. A window with NaN, or with a variant without sends, cannot tell.
    """
    got = compare(y, n, count)
    bound = z_value(level)
    if got.told.any():
        moved = _moved(y[got.told], n[got.told])
        bound = max(bound, _bound(moved, got.groups - 1, level, draws, rng))
    return Judged(got.first, got.second, got.difference, got.se, got.z, got.groups, bound)


def compare(y: F8, n: F8, count: F8 | None = None) -> Compared:
    """`judge` without the bound."""
    count = y if count is None else count
    shape, V = y.shape[:-2], y.shape[-1]
    size = np.nan_to_num(n).sum((*range(n.ndim - 2), -1))  # of each group
    whole, groups = float(size.sum()), int((size > 0).sum())
    alike = whole**2 / float((size**2).sum()) if whole else 0.0
    told = enough(count, n) & (alike >= FEW_GROUPS) & (V > 1)
    first, second = np.full(shape, -1), np.full(shape, -1)
    difference, se, z = (np.full(shape, np.nan) for _ in range(3))
    if told.any():
        y, n, count = y[told], n[told], count[told]
        rate, error, row = y.sum(1) / n.sum(1), _errors(y, n, count, groups), np.arange(int(told.sum()))
        best = rate.argmax(1)
        ahead, spread = rate[row, best][:, None] - rate, error[row, best]
        score = np.divide(ahead, spread, out=np.where(ahead > 0, np.inf, 0.0), where=spread > 0)
        score[row, best] = np.inf
        other = score.argmin(1)
        first[told], second[told], z[told] = best, other, score[row, other]
        difference[told], se[told] = ahead[row, other], spread[row, other]
    return Compared(first, second, difference, se, z, groups)


def enough(count: F8, n: F8) -> B1:
    """Windows where every variant would have FEW conversions at the common rate: (..., groups, variants) -> (...)."""
    return np.asarray((expected(count, n) >= FEW).all(-1))


def expected(count: F8, n: F8) -> F8:
    """Conversions of each variant at the rate of all together: (..., groups, variants) -> (..., variants).

    What is expected and not what was found: else a variant that is truly bad would make every window blind.
    """
    c, sends = count.sum((-2, -1)), n.sum(-2)
    whole = sends.sum(-1)
    return sends * np.divide(c, whole, out=np.full_like(c, np.nan), where=whole > 0)[..., None]


def _moved(y: F8, n: F8) -> F8:
    """Each group's part in the error of each rate, (windows, groups, variants): linear in what the group did."""
    total = n.sum(1, keepdims=True)
    return (y - y.sum(1, keepdims=True) / total * n) / total


def _errors(y: F8, n: F8, count: F8, groups: int) -> F8:
    """Standard error of every difference between two variants, (windows, variants, variants), groups as clusters.

    A variant that by chance has few conversions has a small spread of its own, and would seem to be surely behind:
    with arms of 10 and 90 % of the sends one map in nine of equal variants then names a leader. So no variant has
    less variance than independent sends have at the rate of the two together.
    """
    moved = _moved(y, n)
    part = np.swapaxes(moved, 1, 2) @ moved * (groups / (groups - 1))
    own = np.diagonal(part, axis1=1, axis2=2)
    total, sums, events = n.sum(1), y.sum(1), count.sum(1)
    both = total[:, :, None] + total[:, None, :]
    hoped = total[:, :, None] * (events[:, :, None] + events[:, None, :]) / both
    common = (sums[:, :, None] + sums[:, None, :]) / both
    # Bernoulli's variance of `hoped` conversions of one size, as a variance of the rate.
    least = common**2 / np.maximum(hoped, 1.0) * np.maximum(1 - hoped / total[:, :, None], 0.0)
    variance = np.maximum(own[:, :, None], least)  # of the one against the other
    return np.sqrt(np.maximum(variance + np.swapaxes(variance, 1, 2) - 2 * part, 0.0))


def _bound(moved: F8, df: int, level: float, draws: int, rng: np.random.Generator) -> float:
    """The quantile of the largest |t| over all windows and pairs of variants if all variants were equal.

    Each draw gives every group a normal weight, the same in all windows: that keeps how they depend on each
    other. All are divided by one estimated standard deviation of `df` degrees of freedom (a multivariate t).
    `stats.simultaneous_band` does this for one curve from its covariance, which for all pairs would be too large.
    """
    M, G, V = moved.shape
    flat = moved.transpose(1, 0, 2).reshape(G, M * V)
    most = []
    for k in _blocks(draws):
        drawn = (rng.standard_normal((k, G)) @ flat).reshape(k, M, V)
        largest = np.zeros(k)
        for a, b in combinations(range(V), 2):
            se = np.sqrt(((moved[:, :, a] - moved[:, :, b]) ** 2).sum(1))
            use = se > 0
            if use.any():
                np.maximum(largest, (np.abs(drawn[:, use, a] - drawn[:, use, b]) / se[use]).max(1), out=largest)
        most.append(largest / np.sqrt(rng.chisquare(df, k) / df))
    return float(np.quantile(np.concatenate(most), level, method="higher"))


def _blocks(draws: int) -> Iterator[int]:
    for start in range(0, draws, _AT_ONCE):
        yield min(_AT_ONCE, draws - start)


@dataclass(frozen=True)
class HalfSample:
    """A window chosen on half of the users and judged on the other half; differences are per send.

    cell: index of the window. first, second: the variants compared, as the choosing half ranked them. The z of
    that half is inflated by the choice; difference, low, high, z of the other half are honest.
    """

    cell: tuple[int, ...]
    first: int
    second: int
    chosen_difference: float
    chosen_z: float
    difference: float
    low: float
    high: float
    z: float


def clearest(got: Compared) -> F8:
    """The criterion of `chosen_and_judged`: the difference between best and second that is largest in errors."""
    return got.z


def chosen_and_judged(
    y: F8, n: F8, *, count: F8 | None = None, cell: tuple[int, ...] | None = None,
    criterion: Callable[[Compared], F8] = clearest, level: float = LEVEL,
) -> HalfSample | None:  # fmt: skip
    """Choose a window and its leader on the even groups, estimate that difference anew on the odd ones.

    The window is the one with the largest `criterion` (an array, a value a window; NaN is never chosen), or `cell`.
    None where no window of the choosing half can tell, or the other half has no sends in it. Arrays as in `judge`.
    """
    count = y if count is None else count
    one = compare(y[..., ::2, :], n[..., ::2, :], count[..., ::2, :])
    score = np.where(one.told, criterion(one), np.nan)
    if cell is None and not np.isnan(score).all():
        cell = tuple(int(i) for i in np.unravel_index(int(np.nanargmax(score)), score.shape))
    if cell is None or not one.told[cell]:
        return None
    a, b = int(one.first[cell]), int(one.second[cell])
    y, n, count = (x[cell][None, 1::2, [a, b]] for x in (y, n, count))
    groups = int((n.sum((0, 2)) > 0).sum())
    if groups < 2 or not (n.sum(1) > 0).all():
        return None
    rate = (y.sum(1) / n.sum(1))[0]
    difference, se = float(rate[0] - rate[1]), float(_errors(y, n, count, groups)[0, 0, 1])
    if not se > 0:
        return None
    half = float(special.stdtrit(groups - 1, 0.5 + level / 2)) * se
    return HalfSample(
        cell, a, b, float(one.difference[cell]), float(one.z[cell]), difference, difference - half, difference + half,
        difference / se,
    )  # fmt: skip

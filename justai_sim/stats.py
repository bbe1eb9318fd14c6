"""Intervals, tests and curves on plain arrays; nothing here knows what a send is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Num = npt.ArrayLike
F8 = npt.NDArray[np.float64]


def z_value(level: float) -> float:
    """The two-sided normal quantile: P(|Z| <= z) = level.

    >>> round(z_value(0.95), 4)
    1.96
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number strictly between 0 and 1")
    return float(special.ndtri(0.5 + level / 2))


def wilson(y: Num, n: Num, level: float = 0.95) -> tuple[F8, F8]:
    """Wilson's score interval of a share: arrays y <= n of any equal shape -> (low, high), nan where n = 0.

    `y` may be a sum of fractional credits. The interval holds y / n, also in its last digits.

    >>> low, high = wilson(3, 100)
    >>> round(float(low), 4), round(float(high), 4)
    (0.0103, 0.0845)
    """
    y, n = np.asarray(y, np.float64), np.asarray(n, np.float64)
    z2 = z_value(level) ** 2
    n = np.where(n > 0, n, np.nan)
    p = y / n
    centre = p + z2 / (2 * n)
    # A sum of fractional credits may pass n by a rounding error.
    half = np.sqrt(np.maximum(z2 * (p * (1 - p) / n + z2 / (4 * n * n)), 0.0))
    scale = 1 + z2 / n
    return np.clip((centre - half) / scale, 0.0, p), np.clip((centre + half) / scale, p, np.maximum(p, 1.0))


def trials_to_show(share: float, limit: float, level: float = 0.95) -> float:
    """Trials after which Wilson's interval lies below `limit`, if this share of them succeed; inf where none suffice.

    From the interval's definition: |share - limit| = z sqrt(limit (1 - limit) / n) at its end.

    >>> trials_to_show(0.0, 0.05, level=0.90)
    52
    """
    if not share < limit:
        return math.inf
    return math.ceil(z_value(level) ** 2 * limit * (1 - limit) / (limit - share) ** 2)


def mean_interval(total: Num, total2: Num, n: Num, level: float = 0.95) -> tuple[F8, F8]:
    """Student's interval of a mean from sums of values and of squares -> (low, high), nan where n < 2.

    >>> low, high = mean_interval(30.0, 110.0, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (1.934, 4.066)
    """
    total, total2, n = (np.asarray(v, np.float64) for v in (total, total2, n))
    z_value(level)
    n = np.where(n >= 2, n, np.nan)
    mean = total / n
    variance = np.maximum(total2 - total * mean, 0.0) / (n - 1)
    half = special.stdtrit(n - 1, 0.5 + level / 2) * np.sqrt(variance / n)
    return mean - half, mean + half


def paired_interval(difference: Num, level: float = 0.95, bound: float | None = None) -> tuple[float, float, float]:
    """Mean of paired differences (n,) with its interval -> (mean, low, high); without bounds (inf) where n < 2.

    Student's. Differences that lie within [-bound, bound] by nature, such as those of shares, get t^2 / 4 invented ones
    at each end: the adjusted Wald interval of Bonett and Price (2012) for paired shares, who take 1 (at 95 %). So
    ten worlds that agree are not certainty.

    >>> [round(x, 2) for x in paired_interval([1.0] * 10, bound=1.0)]
    [1.0, 0.41, 1.0]
    >>> [round(x, 2) for x in paired_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    d = np.asarray(difference, np.float64)
    n = len(d)
    mean = float(d.mean()) if n else math.nan
    if n < 2:
        return mean, -math.inf, math.inf
    t = float(special.stdtrit(n - 1, 0.5 + level / 2))
    if bound is None:
        half = t * math.sqrt(float(((d - mean) ** 2).sum()) / (n - 1) / n)
        return mean, mean - half, mean + half
    trials = n + t * t / 2
    centre = n * mean / trials
    variance = (float((d * d).sum()) + t * t / 2 * bound * bound) / trials - centre * centre
    half = t * math.sqrt(max(variance, 0.0) / trials)
    return mean, max(min(centre - half, mean), -bound), min(max(centre + half, mean), bound)


def two_proportion_z(y1: Num, n1: Num, y2: Num, n2: Num) -> tuple[F8, F8]:
    """The pooled two-sample test of shares -> (z, two-sided p); z > 0 where the first share is larger.

    Nan where a group is empty or where no, or every, trial succeeded (there is nothing to compare).

    >>> z, p = two_proportion_z(60, 1000, 40, 1000)
    >>> round(float(z), 3), round(float(p), 4)
    (2.052, 0.0402)
    """
    y1, n1, y2, n2 = (np.asarray(v, np.float64) for v in (y1, n1, y2, n2))
    n1, n2 = np.where(n1 > 0, n1, np.nan), np.where(n2 > 0, n2, np.nan)
    p = (y1 + y2) / (n1 + n2)
    variance = p * (1 - p) * (1 / n1 + 1 / n2)
    z = (y1 / n1 - y2 / n2) / np.sqrt(np.where(variance > 0, variance, np.nan))
    return z, 2 * special.ndtr(-np.abs(z))


def min_detectable_lift(
    p: float, n1: float, n2: float, power: float = 0.8, alpha: float = 0.05, *, variance: str = "base"
) -> float:
    """The smallest relative lift over a base share `p` that a two-sided test finds with that power.

    `n1` trials at the base share, `n2` at the lifted one. With `variance` = 'base' both groups have the
    variance of the base share: the usual planning formula, short of the truth where the lift is large. With
    'solved' the lifted group has its own variance and the test is pooled, as `two_proportion_z` is. Inf
    where no lift up to a share of 1 is found; nan without trials or for p outside (0, 1).

    >>> round(min_detectable_lift(0.02, 1000, 1000), 2), round(min_detectable_lift(0.02, 333, 1000), 2)
    (0.88, 1.24)
    >>> round(min_detectable_lift(0.02, 1000, 1000, variance="solved"), 2)
    1.08
    """
    if variance not in ("base", "solved"):
        raise ValueError(f"variance is {variance!r}; expected 'base' or 'solved'")
    if not (0 < p < 1 and n1 > 0 and n2 > 0):
        return math.nan
    z_test, z_power = z_value(1 - alpha), float(special.ndtri(power))
    if variance == "base":
        lift = (z_test + z_power) * math.sqrt(p * (1 - p) * (1 / n1 + 1 / n2)) / p
        return lift if p * (1 + lift) <= 1 else math.inf

    def short(q: float) -> bool:
        pooled = (p * n1 + q * n2) / (n1 + n2)
        null = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
        own = math.sqrt(p * (1 - p) / n1 + q * (1 - q) / n2)
        return q - p < z_test * null + z_power * own

    if short(1.0):
        return math.inf
    low, high = p, 1.0
    while high - low > 1e-12:
        mid = (low + high) / 2
        low, high = (mid, high) if short(mid) else (low, mid)
    return high / p - 1


def trials_needed(p1: float, p2: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Trials in each of two equal groups after which a two-sided test finds the difference of two shares.

    Each group has its own variance. Inf where the shares are equal or none lies strictly between 0 and 1.

    >>> round(trials_needed(0.02, 0.025)), trials_needed(0.02, 0.02)
    (13807, inf)
    """
    variance = p1 * (1 - p1) + p2 * (1 - p2)
    if p1 == p2 or not variance > 0:
        return math.inf
    z = z_value(1 - alpha) + float(special.ndtri(power))
    return math.ceil(z * z * variance / (p1 - p2) ** 2)


def fewer_by_chance(y: int, n: int, others_y: int, others_n: int) -> float:
    """P(at most y of the successes of both groups fall into the first) if both have the same share: Fisher's exact
    one-sided test of y of n against others_y of others_n.

    >>> round(fewer_by_chance(0, 100, 50, 900), 5)
    0.00448
    """
    N, K = n + others_n, y + others_y
    k = np.arange(max(0, K - others_n), min(y, n, K) + 1)

    def choose(a: Num, b: Num) -> F8:
        return special.gammaln(np.add(a, 1)) - special.gammaln(np.add(b, 1)) - special.gammaln(np.subtract(a, b) + 1)

    each = choose(n, k) + choose(others_n, K - k) - choose(N, K)
    return min(float(np.exp(special.logsumexp(each))), 1.0) if len(k) else 1.0


def simultaneous_band(
    groups: F8, level: float = 0.95, draws: int = 2000, *, rng: np.random.Generator
) -> tuple[F8, F8, float]:
    """A band that holds a whole curve at once: (estimate (A,), se (A,), multiplier).

    `groups` (G, A): what each independent group (a user) adds to the curve at A points, so that the curve is
    the sum over groups. The band is estimate -+ multiplier * se. The Gaussian multiplier bootstrap of
    max |z| draws sum_g xi_g (g_a - mean_a), which given the data is exactly normal with the empirical
    covariance: it is drawn from that, at a cost that does not grow with G times draws. Points where every
    group adds the same have se 0 and do not count. Raises ValueError for fewer than 2 groups.
    """
    G = len(groups)
    if G < 2:
        raise ValueError(f"{G} groups; expected at least 2")
    pointwise = z_value(level)
    estimate = groups.sum(0)
    centred = groups - estimate / G
    covariance = centred.T @ centred * (G / (G - 1))
    se = np.sqrt(np.diag(covariance))
    # Rounding leaves a trace where all groups are equal: 1e-12 of the curve's scale is nothing.
    varies = se > 1e-12 * math.sqrt(G) * np.maximum(np.abs(groups).max(0, initial=0.0), 1e-300)
    se = np.where(varies, se, 0.0)
    if not varies.any():
        return estimate, se, pointwise
    s = se[varies]
    values, vectors = np.linalg.eigh(covariance[np.ix_(varies, varies)] / np.outer(s, s))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    z = np.abs(rng.standard_normal((draws, len(s))) @ root.T).max(1)
    return estimate, se, max(float(np.quantile(z, level)), pointwise)


def kaplan_meier(age: Num, event: Num, at: Num) -> tuple[F8, F8]:
    """Incidence with censoring: P(an event has happened at age <= at) -> (incidence, standard error), as `at`.

    `age` (n,): where the row had its event (`event` true) or was last seen without one (false), in any
    unit. Rows censored at an age are still at risk at that age. The error is Greenwood's. Beyond the last
    row seen the incidence is nan, unless nobody was left; without rows it is nan everywhere. For a
    half-open window pass its last instant.

    >>> kaplan_meier([1, 2, 2, 3], [True, True, False, False], [0, 1, 2])[0].tolist()
    [0.0, 0.25, 0.5]
    """
    age, event, at = np.asarray(age), np.asarray(event, np.bool_), np.asarray(at)
    if not len(age):
        return np.full(at.shape, np.nan), np.full(at.shape, np.nan)
    when, events = np.unique(age[event], return_counts=True)
    at_risk = len(age) - np.searchsorted(np.sort(age), when, side="left")
    survival = np.concatenate([[1.0], np.cumprod(1 - events / at_risk)])
    gone = at_risk == events
    terms = np.divide(events, at_risk * np.maximum(at_risk - events, 1), out=np.zeros(len(when)), where=~gone)
    greenwood = np.concatenate([[0.0], np.cumsum(terms)])
    i = np.searchsorted(when, at, side="right")
    seen = (at <= age.max()) | (survival[i] == 0)
    nan = np.where(seen, 0.0, np.nan)
    return 1 - survival[i] + nan, survival[i] * np.sqrt(greenwood[i]) + nan


def kaplan_meier_error(age: Num, event: Num, at: float, cluster: Num) -> float:
    """Standard error of `kaplan_meier(age, event, at)` when rows of one cluster depend on each other.

    Each row's influence on the survival is S(at) times (its own martingale) / at risk; the influences are
    summed within a cluster and the squares of the sums added up (the infinitesimal jackknife of Lin and Wei
    1989). `cluster` (n,): any labels >= 0. With clusters of one row it agrees with Greenwood's error up to
    terms of 1 / n. Nan where no row was seen up to `at` and for fewer than 2 clusters.
    """
    age, event, cluster = np.asarray(age), np.asarray(event, np.bool_), np.asarray(cluster)
    if not len(age) or (age.max() < at):
        return math.nan
    event = event & (age <= at)
    when, events = np.unique(age[event], return_counts=True)
    at_risk = (len(age) - np.searchsorted(np.sort(age), when, side="left")).astype(np.float64)
    left = np.maximum(at_risk - events, 1)
    survival = float(np.prod(1 - events / at_risk))
    hazard = np.concatenate([[0.0], np.cumsum(events / (at_risk * left))])
    own = np.zeros(len(age))
    own[event] = 1 / left[np.searchsorted(when, age[event])]
    own -= hazard[np.searchsorted(when, age, side="right")]
    return survival * _cluster_error(own, cluster)


def mean_error(value: Num, cluster: Num) -> float:
    """Standard error of the mean of rows when rows of one cluster depend on each other: value (n,), cluster (n,).

    The ratio (linearised) error of sums over clusters. Nan for fewer than 2 clusters.

    >>> round(mean_error([1, 1, 0, 0], [0, 0, 1, 1]), 3), round(mean_error([1, 0, 0, 1], [0, 1, 2, 3]), 3)
    (0.5, 0.289)
    """
    value = np.asarray(value, np.float64)
    return _cluster_error(value - value.mean(), np.asarray(cluster)) / len(value) if len(value) else math.nan


def _cluster_error(influence: F8, cluster: npt.NDArray[Any]) -> float:
    """Root of the sum over clusters of the squared sums of influences that add up to 0."""
    if cluster.dtype.kind != "i" or cluster.min() < 0 or cluster.max() > 8 * len(cluster) + 65_536:
        _, cluster = np.unique(cluster, return_inverse=True)
    n = int((np.bincount(cluster) > 0).sum())
    if n < 2:
        return math.nan
    total = np.bincount(cluster, influence)
    return math.sqrt(float((total * total).sum()) * n / (n - 1))


def influence_interval(estimate: float, influence: F8, users: int, alpha: float = 0.05) -> tuple[float, float]:
    """1 - alpha interval of an estimate from what each user moves it by; users are the independent units.

    `influence` (users,), or fewer where the others move nothing. Student's. The degrees of freedom are the effective
    number of users, (sum d^2)^2 / sum d^4 (Satterthwaite's, as for a mean of few large values among many small ones),
    less one: five buyers among a million users are five observations. NaN where nothing can be said: below 2 users, or
    no two users differ and the estimate is not 0 (three buyers of three against none of three). No width where it is 0
    for everyone.
    """
    nothing = float("nan"), float("nan")
    if users < 2:
        return nothing
    squares = influence * influence  # not a product of vectors: threads of BLAS cost more than they bring here
    square = float(squares.sum())
    if square * users <= 1e-24:  # the rounding of sums
        return (estimate, estimate) if abs(estimate) <= 1e-12 else nothing
    effective = square / float((squares / square * squares).sum())
    half = float(special.stdtrit(max(effective - 1, 1.0), 1 - alpha / 2)) * float(np.sqrt(square * users / (users - 1)))
    return estimate - half, estimate + half


def wilson_effective(p: float, se: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share known with standard error `se`: that of p (1 - p) / se^2 trials, at most `n`.

    The effective sample size of Dorey and Korn (1987) for survival curves, and of survey practice for
    clusters. A share of exactly 0 or 1 shows no error: it then counts as `n` trials.

    >>> [round(x, 4) for x in wilson_effective(0.03, 0.017058, 1000)]
    [0.0103, 0.0845]
    """
    trials = n
    if se > 0 and 0 < p < 1:
        trials = min(n, max(p * (1 - p) / (se * se), 1e-9))
    low, high = wilson(p * trials, trials, level)
    return float(low), float(high)


def ratio_interval(
    a: float, b: float, var_a: float, var_b: float, cov: float, level: float = 0.95
) -> tuple[float, float]:
    """Fieller's interval of a / b for jointly normal estimates; (nan, nan) where b cannot be told from 0.

    >>> low, high = ratio_interval(2.0, 4.0, 0.01, 0.0, 0.0)
    >>> round(low, 3), round(high, 3)
    (0.451, 0.549)
    """
    z2 = z_value(level) ** 2
    q = b * b - z2 * var_b
    if not q > 0:
        return math.nan, math.nan
    m = a * b - z2 * cov
    root = math.sqrt(max(m * m - q * (a * a - z2 * var_a), 0.0))
    return (m - root) / q, (m + root) / q


def mixture_radius(sd: Num, n: Num, r: float = 0.05, alpha: Num = 0.05) -> Any:
    """Half-width, at any time n, of a confidence sequence for a mean that may be looked at after every trial.

    The normal mixture (Robbins; Howard et al. 2021): P(any n ever misses) <= alpha for known `sd` of normal
    data. `r` tunes it: the sequence is tightest near n = 8.2 / r^2 (at 95 %). With an estimated sd start at n >= 1,000.
    Inf where n = 0.

    >>> wald = 1.959964 / np.sqrt([100, 1000, 5000])
    >>> (mixture_radius(1.0, [100, 1000, 5000]) / wald).round(2).tolist()
    [2.84, 1.62, 1.55]
    """
    alpha = np.asarray(alpha, np.float64)
    if not (r > 0 and ((alpha > 0) & (alpha < 1)).all()):
        raise ValueError(f"r = {r}, alpha = {alpha}; expected r > 0 and alpha strictly between 0 and 1")
    v = np.where(np.asarray(n) > 0, np.asarray(n, np.float64) * r * r, np.nan)
    radius = np.sqrt(2 * (v + 1) / (v / r) ** 2 * np.log(np.sqrt(v + 1) / alpha)) * np.asarray(sd)
    return np.where(np.isnan(v), np.inf, radius)

"""Intervals for data from a bandit that may be looked at after every row."""

from __future__ import annotations

import numpy as np

from justai_sim import stats
from justai_sim.errors import DataError, UsageError
from justai_sim.estimate.trials import (
    Estimate,
    Trials,
    aipw_scores,
    contrast,
    dense,
    error,
    estimated,
    first_row,
    ipw_scores,
    mean_of,
    propensity_of,
)
from justai_sim.tables import F8, I8


def confidence_sequence(
    trials: Trials, of: int, against: int | None = None, level: float = 0.95, *, tuned: int = 5_000
) -> Estimate:
    """An interval that holds at all looks at once: AIPW scores with the normal mixture's radius, tightest at `tuned`
    rows, a number to be chosen before the data are seen.

    Asymptotic (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024; for bandits Waudby-Smith, Wu, Ramdas, Karampatziakis
    & Mineiro, arXiv 2210.10768): begin to look when each arm has a hundred outcomes that are not 0.
    """
    first = None if trials.user is None else first_row(trials.user)
    method = "confidence_sequence"
    got = contrast(lambda k: mean_of(aipw_scores(trials, k, first, method, False)), trials, of, against)
    plain = estimated(trials, got, level, method, "")
    radius = sequence_radius(plain.se, trials.n, level, tuned)
    caveat = "Holds at every look at once, for many trials; the propensities must be those that were drawn from."
    return Estimate(plain.estimate, plain.se, plain.estimate - radius, plain.estimate + radius, level, method, caveat)


def confidence_path(trials: Trials, of: int, against: int, *, at: I8) -> tuple[F8, F8]:
    """Estimate and standard error (m,) of `confidence_sequence` after the first `at` (m,) rows, in one pass over (n,).

    Where outcomes arrive over time and users keep their variant, what a user adds later is like what it added before:
    looks agree more than those of a martingale do, and the bound holds all the more (Slepian's inequality).
    The radius is `sequence_radius(se, at, level, tuned)`. Nan where fewer than 2 users were seen.
    """
    user = np.arange(trials.n) if trials.user is None else dense(trials.user)[0]
    first = None if trials.user is None else first_row(user)
    a, b = (aipw_scores(trials, k, first, "confidence_sequence", False) for k in (of, against))
    score = a - b
    order = np.argsort(user, kind="stable")
    x, start = score[order], np.flatnonzero(np.diff(user[order], prepend=-1))
    length = np.diff(np.append(start, trials.n))
    rank = np.arange(trials.n) - np.repeat(start, length)
    sums = np.cumsum(x)
    earlier = np.empty(trials.n)  # what the row's user had added before, and from how many rows
    earlier[order] = sums - x - np.repeat(sums[start] - x[start], length)
    rows = np.empty(trials.n)
    rows[order] = rank

    def after(step: F8) -> F8:
        return np.append(0.0, np.cumsum(step))[at]

    n = np.where(at > 0, at, np.nan)
    mean = after(score) / n
    # The sum over users of (sum of scores - mean x rows)^2, by what each row adds to its three terms.
    squares = after(score * (score + 2 * earlier)) - 2 * mean * after(earlier + score * (rows + 1))
    squares += mean * mean * after(2 * rows + 1)
    users = after((rows == 0).astype(np.float64))
    users = np.where(users >= 2, users, np.nan)
    return mean, np.sqrt(np.maximum(squares, 0.0) * users / (users - 1)) / n


def sequence_radius(se: F8, n: F8 | I8 | int, level: float, tuned: int) -> F8:
    """Half-width after n rows whose mean has the standard error `se`, tightest at `tuned` rows."""
    return np.asarray(stats.mixture_radius(se * np.sqrt(n), n, np.sqrt(8.2 / tuned), 1 - level))


def bernstein_sequence(
    trials: Trials, of: int, against: int | None = None, level: float = 0.95, *, floor: float, top: float = 1.0
) -> Estimate:
    """An interval that holds at all looks at once without any approximation, for outcomes in [0, top].

    The predictable plug-in empirical-Bernstein sequence (Waudby-Smith & Ramdas 2024, JRSS-B, theorem 2) of the IPW
    scores, which lie in [0, top / floor]: `floor` is a share that the arm could never fall below, known beforehand.
    Wide where it is small. Raises UsageError where a user has several rows: their sum has no such bound.
    """
    centre, radius = bernstein_path(trials, of, against, level, floor=floor, top=top)
    c, r = centre[..., -1], radius[..., -1]
    caveat = "Holds at every look at once, exactly, if no propensity can fall below the floor; wide for small floors."
    se = error(trials, contrast(lambda k: mean_of(ipw_scores(trials, k)), trials, of, against))
    return Estimate(c, se, c - r, c + r, level, "bernstein_sequence", caveat)


def bernstein_path(
    trials: Trials, of: int, against: int | None = None, level: float = 0.95, *, floor: float, top: float = 1.0
) -> tuple[F8, F8]:
    """Centre and radius of `bernstein_sequence` after every row, arrays (..., n)."""
    z = stats.z_value(level)
    if not (0 < floor <= 1 and top > 0 and np.isfinite(z)):
        raise UsageError(f"floor = {floor}, top = {top}; expected a floor in (0, 1] and a top above 0")
    if trials.user is not None and (first_row(trials.user) != np.arange(trials.n)).any():
        raise UsageError("bernstein_sequence needs one row a user; use confidence_sequence, or each user's first row")
    if (trials.outcome < 0).any() or (trials.outcome > top).any():
        raise DataError(f"outcome leaves [0, {top}], the range that bernstein_sequence was told")
    arms = [of] if against is None else [of, against]
    least = min(float(np.min(np.where(trials.arm == k, propensity_of(trials, k, "bernstein"), 1.0))) for k in arms)
    if least < floor * (1 - 1e-9):
        raise DataError(f"a propensity is {least:g}, below the floor of {floor:g}")
    span = top / floor * len(arms)
    shift = 0.0 if against is None else span / 2
    x = ipw_scores(trials, of)
    if against is not None:
        x = x - ipw_scores(trials, against)
    centre, radius = _plug_in_bernstein((x + shift) / span, 1 - level)
    return centre * span - shift, radius * span


def _plug_in_bernstein(x: F8, alpha: float) -> tuple[F8, F8]:
    """Centre and radius for x (..., n) in [0, 1] with one conditional mean."""
    t = np.arange(1, x.shape[-1] + 1)
    mean = (0.5 + np.cumsum(x, -1)) / (t + 1)
    before = np.concatenate([np.full((*x.shape[:-1], 1), 0.5), mean[..., :-1]], axis=-1)
    variance = (0.25 + np.cumsum((x - mean) ** 2, -1)) / (t + 1)
    earlier = np.concatenate([np.full((*x.shape[:-1], 1), 0.25), variance[..., :-1]], axis=-1)
    bet = np.minimum(np.sqrt(2 * np.log(2 / alpha) / (earlier * t * np.log1p(t))), 0.5)
    price = np.cumsum(4 * (x - before) ** 2 * (-np.log1p(-bet) - bet) / 4, -1)
    total = np.cumsum(bet, -1)
    return np.cumsum(bet * x, -1) / total, (np.log(2 / alpha) + price) / total

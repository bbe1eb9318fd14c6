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
    error,
    estimated,
    first_row,
    ipw_scores,
    mean_of,
    propensity_of,
)
from justai_sim.tables import F8


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
    radius = stats.mixture_radius(plain.se * np.sqrt(trials.n), trials.n, np.sqrt(8.2 / tuned), 1 - level)
    caveat = "Holds at every look at once, for many trials; the propensities must be those that were drawn from."
    return Estimate(plain.estimate, plain.se, plain.estimate - radius, plain.estimate + radius, level, method, caveat)


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

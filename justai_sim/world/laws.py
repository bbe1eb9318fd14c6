"""Quantile functions of the world's laws: uniforms in, delays and amounts out."""

from __future__ import annotations

import numpy as np
from scipy import special

from justai_sim.clock import DAY
from justai_sim.tables import F8, I8, MICRO
from justai_sim.world.spec import Delay, Value


def delay(law: Delay, u: F8) -> I8:
    """Delays in microseconds, shape (n,), for uniforms in (0, 1)."""
    if law.law == "exponential":
        d = -law.mean_days * np.log1p(-u)
    elif law.law == "weibull":
        d = law.scale_days * (-np.log1p(-u)) ** (1 / law.shape)
    else:
        d = law.median_days * np.exp(law.sigma * special.ndtri(u))
    # A delay beyond a century is an event nobody waits for; the cap keeps int64 arithmetic safe.
    return np.minimum(d, 36_500.0).__mul__(DAY).astype(np.int64)


def delay_cdf(law: Delay, x: F8) -> F8:
    """P(delay <= x days)."""
    x = np.maximum(x, 0)
    if law.law == "exponential":
        return -np.expm1(-x / law.mean_days)
    if law.law == "weibull":
        return -np.expm1(-((x / law.scale_days) ** law.shape))
    with np.errstate(divide="ignore"):
        return special.ndtr((np.log(x) - np.log(law.median_days)) / law.sigma)


def amount(law: Value, u: F8, grid: int) -> I8:
    """Amounts in micro-units, rounded to the provider's grid (10_000 is a cent)."""
    if law.law == "fixed":
        x = np.full(len(u), law.mean)
    else:
        x = law.mean * np.exp(law.sigma * special.ndtri(u) - law.sigma**2 / 2)
    return np.rint(x * (MICRO / grid)).astype(np.int64) * grid


def exponential(mean: float, u: F8) -> I8:
    """Exponential times in microseconds with the given mean in microseconds."""
    return (-mean * np.log1p(-u)).astype(np.int64)


def poisson(mean: float, u: F8) -> I8:
    """Poisson counts by inversion."""
    if mean == 0:
        return np.zeros(len(u), np.int64)
    k = np.ceil(special.pdtrik(u, mean)).astype(np.int64)
    k = np.maximum(k, 0)
    # pdtrik interpolates between integers: step back where the count below already reaches u.
    return np.where((k > 0) & (special.pdtr(k - 1, mean) >= u), k - 1, k)

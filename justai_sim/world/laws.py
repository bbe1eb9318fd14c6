"""Quantile functions of the world's laws: uniforms in, delays and amounts out."""

from __future__ import annotations

import numpy as np
from scipy import special

from justai_sim.clock import DAY
from justai_sim.tables import F8, I8, MICRO
from justai_sim.world.spec import Delay, Value

CENTURY = 36_500.0
"""A delay beyond it is an event nobody waits for; the cap keeps int64 arithmetic safe."""


def delay(law: Delay, u: F8) -> I8:
    """Delays in microseconds, shape (n,), for uniforms in (0, 1)."""
    with np.errstate(over="ignore"):
        return (np.minimum(delay_days(law, u), CENTURY) * DAY).astype(np.int64)


def delay_days(law: Delay, u: F8) -> F8:
    """Quantiles in days."""
    if law.law == "exponential":
        return -law.mean_days * np.log1p(-u)
    if law.law == "weibull":
        return law.scale_days * (-np.log1p(-u)) ** (1 / law.shape)
    if law.law == "gamma":
        return np.asarray(law.scale_days * special.gammaincinv(law.shape, u))
    if law.law == "empirical":
        seen = np.sort(np.array(law.days))
        return np.interp(u, np.linspace(0, 1, len(seen)), seen)
    if law.law == "mixture":
        return _mixture(law, u)
    return np.asarray(law.median_days * np.exp(law.sigma * special.ndtri(u)))


def _mixture(law: Delay, u: F8) -> F8:
    """One uniform does for both: which part its place in (0, 1) falls into, and how far into that part."""
    edges = np.concatenate([[0.0], np.cumsum(law.weights) / np.sum(law.weights)])
    out = np.zeros(len(u))
    for i, part in enumerate(law.parts):
        mine = (u >= edges[i]) & (u < edges[i + 1])
        out[mine] = delay_days(part, (u[mine] - edges[i]) / (edges[i + 1] - edges[i]))
    return out


def delay_cdf(law: Delay, x: F8) -> F8:
    """P(delay <= x days)."""
    x = np.maximum(x, 0)
    if law.law == "exponential":
        return -np.expm1(-x / law.mean_days)
    if law.law == "weibull":
        return -np.expm1(-((x / law.scale_days) ** law.shape))
    if law.law == "gamma":
        return np.asarray(special.gammainc(law.shape, x / law.scale_days))
    if law.law == "empirical":
        seen = np.sort(np.array(law.days))
        return np.interp(x, seen, np.linspace(0, 1, len(seen)))
    if law.law == "mixture":
        weights = np.array(law.weights) / np.sum(law.weights)
        parts = [w * delay_cdf(p, x) for w, p in zip(weights, law.parts, strict=True)]
        return np.asarray(sum(parts))
    with np.errstate(divide="ignore"):
        return np.asarray(special.ndtr((np.log(x) - np.log(law.median_days)) / law.sigma))


def amount(law: Value, u: F8, grid: int) -> I8:
    """Amounts in micro-units, rounded to the provider's grid (10_000 is a cent). The first `zero_share` of the uniforms
    cost nothing; the rest is stretched to (0, 1)."""
    zero = u < law.zero_share
    if law.zero_share:
        u = np.where(zero, 0.5, (u - law.zero_share) / max(1 - law.zero_share, 1e-300))
    if law.law == "fixed":
        x = np.full(len(u), law.mean)
    elif law.law == "pareto":
        x = law.mean * (1 - 1 / law.tail) * (1 - u) ** (-1 / law.tail)
    else:
        x = law.mean * np.exp(law.sigma * special.ndtri(u) - law.sigma**2 / 2)
    return np.where(zero, 0, np.rint(np.minimum(x, 1e9) * (MICRO / grid)).astype(np.int64) * grid)


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


def gamma_factor(spread: float, u: F8) -> F8:
    """Factors with mean 1 and this coefficient of variation, by the gamma law."""
    shape = 1 / max(spread, 1e-6) ** 2
    return np.asarray(special.gammaincinv(shape, u) / shape)

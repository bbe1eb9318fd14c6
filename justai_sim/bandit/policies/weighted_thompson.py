"""The product's default: Thompson sampling on Beta posteriors, or on a weighted score of several metrics.

Shares equal Thompson sampling at each request as long as the posterior stands, that is between refreshes. Each segment
learns alone. One rate: the chance of the largest Beta. Several metrics: a weighted sum of posteriors, taken as a normal
with the sum's mean and variance (a sum of Betas is no Beta). Average revenue: Student's posterior of a mean.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from justai_sim.bandit.best import best_beta
from justai_sim.bandit.independent import Normal, Student, best_of
from justai_sim.bandit.policies.normal import inverse_gamma, mean_posterior
from justai_sim.bandit.policy import LOWER_IS_BETTER, RATES, Policy, PolicySpec, State
from justai_sim.tables import B1, F8, I8

MANY = 4096
"""Posteriors from which a second thread is worth its start."""


def shares(state: State, live: B1, _now: int) -> F8:
    """P(best) of each live arm, per segment."""
    if state.spec.weights:
        return _mixture(state, live)
    if state.shape.metric not in RATES:
        return best_of(Student(*inverse_gamma(state)), live)
    a, b = beta(state, live)
    return best_beta(a, b, live)


def beta(state: State, live: B1) -> tuple[F8, F8]:
    """Parameters of the posteriors of the reward's rate."""
    (n, s), (a, b) = corrected(state, live), prior(state)
    # A sum of fractional credits may exceed its trials by a rounding error.
    return a + s, b + np.maximum(n - s, 0.0)


def prior(state: State) -> tuple[float, float]:
    spec = state.spec
    return (spec.prior_beta, spec.prior_alpha) if state.shape.minimise else (spec.prior_alpha, spec.prior_beta)


def corrected(state: State, live: B1) -> tuple[F8, F8]:
    n, s = state["n"], state["y"]
    return median_corrected(n, s, live) if state.spec.bias_correction else (n, s)


def _mixture(state: State, live: B1) -> F8:
    mean, variance = np.zeros(state.size), np.zeros(state.size)
    for metric, weight in state.spec.weights.items():
        n, y, y2 = (state[f"{k}:{metric}"] for k in ("n", "y", "y2"))
        m, v = moments(state.spec, metric, n, y, y2, live)
        mean += (-weight if metric in LOWER_IS_BETTER else weight) * m
        variance += weight**2 * v
    return best_of(Normal(mean, np.sqrt(variance)), live)


def moments(spec: PolicySpec, metric: str, n: F8, y: F8, y2: F8, live: B1) -> tuple[F8, F8]:
    """Posterior mean and variance of one metric of each arm."""
    if spec.bias_correction:
        (_, y2), (n, y) = median_corrected(n, y2, live), median_corrected(n, y, live)
    if metric in RATES:
        a, b = spec.prior_alpha + y, spec.prior_beta + np.maximum(n - y, 0.0)
        return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    mean, scale, _ = mean_posterior(spec, spec.prior_mean, n, y, y2)
    return mean, scale**2


def median_corrected(n: F8, s: F8, live: B1) -> tuple[F8, F8]:
    """Every live arm as if it had had the median number of trials at its own rate: s' = s m / n, n' = m.

    The median is over the live arms of a replication and segment; an arm without trials keeps its prior.
    """
    mask = np.broadcast_to(live, n.shape)
    # Dead arms sort last; the median of the first `count` is that of the live ones.
    count = mask.sum(-1, keepdims=True)
    ranked = np.sort(np.where(mask, n, np.inf), axis=-1)
    lower = np.take_along_axis(ranked, np.maximum(count - 1, 0) // 2, -1)
    upper = np.take_along_axis(ranked, np.minimum(count // 2, n.shape[-1] - 1), -1)
    use = mask & (n > 0)
    median = (np.where(count > 0, lower, 0.0) + np.where(count > 0, upper, 0.0)) / 2
    scale = np.divide(median, n, out=np.ones_like(n), where=use)
    return np.where(use, median, n), s * scale


def draw(state: State, live: B1, rng: np.random.Generator) -> I8:
    """An arm (R, C) by Thompson sampling itself: one draw of each posterior."""
    if state.spec.weights or state.shape.metric not in RATES:
        raise NotImplementedError("draws are of one rate")
    from justai_sim.bandit.kernel import draw_beta

    n, s = corrected(state, live)
    out, may, (a, b) = np.empty(n.shape[:2], np.int64), np.broadcast_to(live, n.shape), prior(state)
    half = len(n) // 2 if n.size >= MANY else 0
    if not half:
        draw_beta(n, s, a, b, may, rng, out)
        return out
    other = np.random.Generator(np.random.PCG64(rng.integers(1 << 63)))  # a stream of its own for the second thread
    second = _second().submit(draw_beta, n[half:], s[half:], a, b, may[half:], other, out[half:])
    draw_beta(n[:half], s[:half], a, b, may[:half], rng, out[:half])
    second.result()
    return out


@cache
def _second() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


WEIGHTED_THOMPSON = Policy(
    "weighted_thompson", "product", "chance to be the best, of one metric or of a weighted score", shares,
    money=("y2",),
    settings=("prior_alpha", "prior_beta", "bias_correction", "weights", "prior_mean", "prior_weight", "prior_sd"),
    trials=True, chances=True, draw=draw,
    approximate="a weighted score of several metrics is taken as normal, average revenue as a mean of many",
)  # fmt: skip

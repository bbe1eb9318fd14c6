"""Thompson sampling on revenue per send that is mostly zero: the chance of a purchase times the mean of its amount.

Purchases are Bernoulli (Beta posterior), amounts log-normal (normal-inverse-gamma posterior of the logarithms). The
logarithm of revenue per send, log theta + mu + sigma^2 / 2, is taken as normal with the exact posterior mean and
variance of that sum; for a handful of purchases the true posterior has a longer right tail. Against draws of the true
posterior a share is off by up to .03 below five purchases a variant, .004 at twenty, .001 at fifty.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from justai_sim.bandit.independent import Normal, best_of
from justai_sim.bandit.policy import Policy, State
from justai_sim.tables import B1, F8, I8

FREEDOM = 4.0
"""Degrees of freedom of the prior of sigma^2: the least with a finite variance, and room."""


def amounts(state: State) -> tuple[F8, F8, F8, F8]:
    """Normal-inverse-gamma posterior of the logarithms of amounts: mean, weight, shape and rate of sigma^2."""
    s, m, total, square = state.spec, state["positive"], state["log"], state["log2"]
    k = s.prior_weight + m
    mean = (s.prior_weight * s.prior_mean + total) / k
    around = np.maximum(square - 2 * mean * total + m * mean**2, 0.0) + s.prior_weight * (s.prior_mean - mean) ** 2
    return mean, k, (FREEDOM + 1 + m) / 2, ((FREEDOM - 1) * s.prior_sd**2 + around) / 2


def posterior(state: State) -> Normal:
    """The logarithm of revenue per send."""
    s = state.spec
    a = s.prior_alpha + state["positive"]
    n = s.prior_alpha + s.prior_beta + np.maximum(state["n"], state["positive"])
    mean, k, shape, rate = amounts(state)
    sigma2 = rate / (shape - 1)
    center = special.digamma(a) - special.digamma(n) + mean + sigma2 / 2
    wide = special.polygamma(1, a) - special.polygamma(1, n) + sigma2 / k + sigma2**2 / (shape - 2) / 4
    return Normal(center, np.sqrt(wide))


def shares(state: State, live: B1, _now: int) -> F8:
    return best_of(posterior(state), live)


def draw(state: State, live: B1, rng: np.random.Generator) -> I8:
    p = posterior(state)
    return np.where(live, rng.normal(p.mean, p.sd), -np.inf).argmax(-1)


LOGNORMAL_THOMPSON = Policy(
    "lognormal_thompson", "sensible", "chance to be the best in revenue, zero-inflated log-normal", shares,
    stats=("n", "positive", "log", "log2"),
    settings=("prior_alpha", "prior_beta", "prior_mean", "prior_weight", "prior_sd"),
    metrics=("revenue_per_send",), chances=True, draw=draw,
    approximate="the logarithm of revenue per send is taken as normal with the posterior's mean and variance",
)  # fmt: skip

"""Contextual Thompson sampling with a model of its own for each arm: linear (the product's) and logistic.

A segment c has features x(c, k) for arm k: an intercept, its attributes, the variant's themes (`Shape.features`;
without any, an intercept and one indicator a segment). An arm's score is normal given the data, arms are independent,
so the shares of a segment are exact chances to be the best under the model.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from justai_sim.bandit.independent import Normal, best_of
from justai_sim.bandit.policy import RATES, Policy, State
from justai_sim.tables import B1, F8, I8

STEPS = 50


def linear(state: State) -> Normal:
    """Posterior of every score less the mean of all (R, C, K): ridge regression of what outcomes are above or below
    that mean, so that a new arm starts there, their spread pooled over the arms (Li et al. 2010, disjoint model; the
    prior of each coefficient is N(0, s^2 / ridge), the spread starts from `prior_weight` outcomes of sd `prior_sd`)."""
    s, n, y, y2 = state.spec, state["n"], state["y"], state["y2"]
    total = n[..., 1:].sum((1, 2))
    mean = np.divide(y[..., 1:].sum((1, 2)), total, out=np.zeros_like(total), where=total > 0)
    square = np.maximum(y2[..., 1:].sum((1, 2)) - total * mean**2, 0.0)
    noise = (s.prior_weight * s.prior_sd**2 + square) / (s.prior_weight + total)
    score, wide = _scores(state, n, y - n * mean[:, None, None])
    return Normal(score, np.sqrt(wide * noise[:, None, None]))


def logistic(state: State) -> Normal:
    """Laplace approximation of every score on the logit scale (R, C, K), prior N(0, 1 / ridge) a coefficient (Chapelle
    and Li 2011, algorithm 3, with whole covariances)."""
    n, y = state["n"], state["y"]
    score = np.zeros(n.shape)
    for _ in range(STEPS):
        p = special.expit(score)
        weight = n * p * (1 - p)
        step = _scores(state, weight, y - n * p + weight * score)[0] - score
        size = np.abs(step).max(1, keepdims=True, initial=0.0)
        score = score + step * np.minimum(1.0, 2.0 / np.maximum(size, 1e-300))
        if size.max(initial=0.0) < 1e-10:
            break
    p = special.expit(score)
    return Normal(score, np.sqrt(_scores(state, n * p * (1 - p), y)[1]))


def _scores(state: State, n: F8, b: F8) -> tuple[F8, F8]:
    """Means and variances (R, C, K) of the scores of the arms' own ridge regressions; of the control nothing."""
    from justai_sim.bandit.normal_kernel import linear_scores

    score, wide = np.empty(n.shape), np.empty(n.shape)
    linear_scores(state.shape.basis, n, b, state.spec.ridge, score, wide)
    return score, np.maximum(wide, 1e-300)


def shares_linear(state: State, live: B1, _now: int) -> F8:
    return best_of(linear(state), live)


def shares_logistic(state: State, live: B1, _now: int) -> F8:
    return best_of(logistic(state), live)


def draw_linear(state: State, live: B1, rng: np.random.Generator) -> I8:
    p = linear(state)
    return np.where(live, rng.normal(p.mean, p.sd), -np.inf).argmax(-1)


LINEAR_THOMPSON = Policy(
    "linear_thompson", "product", "chance to be the best in a segment, a linear model for each variant",
    shares_linear, stats=("n", "y", "y2"), settings=("ridge", "prior_weight", "prior_sd"), chances=True,
    contextual=True, draw=draw_linear, approximate="outcomes are taken as normal with one spread",
)  # fmt: skip
LOGISTIC_THOMPSON = Policy(
    "logistic_thompson", "reference", "chance to be the best in a segment, a logistic model for each variant",
    shares_logistic, settings=("ridge",), metrics=RATES, trials=True, chances=True, contextual=True,
    approximate="the posterior is taken as normal at its mode (Laplace)",
)  # fmt: skip

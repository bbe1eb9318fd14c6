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


def features(state: State) -> F8:
    """(C, K, d)."""
    found, (_, C, K) = state.shape.features, state.size
    if found is not None:
        return found
    plain = np.ones((C, 1)) if C == 1 else np.concatenate([np.ones((C, 1)), np.eye(C)], 1)
    return np.broadcast_to(plain[:, None, :], (C, K, plain.shape[1]))


def linear(state: State) -> Normal:
    """Posterior of every score less the mean of all (R, C, K): ridge regression of what outcomes are above or below
    that mean, so that a new arm starts there, their spread pooled over the arms (Li et al. 2010, disjoint model; the
    prior of each coefficient is N(0, s^2 / ridge), the spread starts from `prior_weight` outcomes of sd `prior_sd`)."""
    x, s, n, y, y2 = features(state), state.spec, state["n"], state["y"], state["y2"]
    inverse = _inverse(_moment(x, n, s.ridge))
    total = n[..., 1:].sum((1, 2))
    mean = np.divide(y[..., 1:].sum((1, 2)), total, out=np.zeros_like(total), where=total > 0)
    theta = (inverse @ np.einsum("rck,ckd->rkd", y - n * mean[:, None, None], x)[..., None])[..., 0]
    square = np.maximum(y2[..., 1:].sum((1, 2)) - total * mean**2, 0.0)
    noise = (s.prior_weight * s.prior_sd**2 + square) / (s.prior_weight + total)
    wide = _quadratic(x, inverse) * noise[:, None, None]
    return Normal(np.einsum("rkd,ckd->rck", theta, x), np.sqrt(wide))


def logistic(state: State) -> Normal:
    """Laplace approximation of every score on the logit scale (R, C, K), prior N(0, 1 / ridge) a coefficient (Chapelle
    and Li 2011, algorithm 3, with whole covariances)."""
    x, s, n, y = features(state), state.spec, state["n"], state["y"]
    theta = np.zeros((n.shape[0], n.shape[2], x.shape[2]))
    for _ in range(STEPS):
        p = special.expit(np.einsum("rkd,ckd->rck", theta, x))
        slope = np.einsum("rck,ckd->rkd", y - n * p, x) - s.ridge * theta
        step = np.linalg.solve(_moment(x, n * p * (1 - p), s.ridge), slope[..., None])[..., 0]
        size = np.abs(step).max(-1, keepdims=True, initial=0.0)
        theta = theta + step * np.minimum(1.0, 2.0 / np.maximum(size, 1e-300))
        if size.max(initial=0.0) < 1e-10:
            break
    score = np.einsum("rkd,ckd->rck", theta, x)
    p = special.expit(score)
    return Normal(score, np.sqrt(_quadratic(x, _inverse(_moment(x, n * p * (1 - p), s.ridge)))))


def _moment(x: F8, weight: F8, ridge: float) -> F8:
    """(R, K, d, d): sum over segments of weight x x', with the ridge."""
    by_arm = np.ascontiguousarray(x.transpose(1, 0, 2))  # (K, C, d)
    weighted = weight.transpose(0, 2, 1)[..., None] * by_arm
    return np.asarray(np.swapaxes(weighted, 2, 3) @ by_arm + ridge * np.eye(x.shape[2]), np.float64)


def _inverse(a: F8) -> F8:
    return np.asarray(np.linalg.inv(a), np.float64)


def _quadratic(x: F8, inverse: F8) -> F8:
    """x' inverse x, (R, C, K)."""
    by_arm = np.ascontiguousarray(x.transpose(1, 0, 2))
    return np.maximum(((by_arm @ inverse) * by_arm).sum(-1), 1e-300).transpose(0, 2, 1)


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

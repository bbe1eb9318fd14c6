"""Policies that play the arm with the largest index, each live arm once before; ties are shared.

t counts the sends decided so far, and the one to come. Outcomes are taken to lie in [0, `reward_max`].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from justai_sim.bandit.policy import RATES, Policy, State
from justai_sim.tables import B1, F8, I8

Index = Callable[[State, F8, F8, F8, I8], F8]
"""From a state, n, mean (in [0, 1]), t (R, C, 1) and the number of live arms: an index (R, C, K)."""


def largest(index: F8, live: B1) -> F8:
    """1 for the arms (..., K) of the largest index among the live ones."""
    index = np.where(live, index, -np.inf)
    return (index == index.max(-1, keepdims=True)).astype(np.float64)


def of_index(index: Index) -> Callable[[State, B1, int], F8]:
    """The shares of an index policy."""

    def shares(state: State, live: B1, _now: int) -> F8:
        n, y = state["n"], state["y"]
        top = 1.0 if state.shape.metric in RATES else state.spec.reward_max
        mean = np.divide(y, n * top, out=np.zeros_like(y), where=n > 0)
        decided = np.where(live, state["decided"], 0.0)
        t = decided.sum(-1, keepdims=True) + 1
        with np.errstate(divide="ignore", invalid="ignore"):
            known = index(state, n, mean, t, live.sum(-1, keepdims=True))
        # What was sent but is not known yet waits until it is: it is neither new nor better than what is known.
        value = np.where(n > 0, known, -np.inf)
        fresh = live & (decided == 0)
        return np.where(fresh.any(-1, keepdims=True), fresh, largest(value, live))

    return shares


def _greedy(_state: State, _n: F8, mean: F8, _t: F8, _arms: I8) -> F8:
    return mean


def _ucb1(state: State, n: F8, mean: F8, t: F8, _arms: I8) -> F8:
    """Auer, Cesa-Bianchi and Fischer 2002; `confidence` scales the width."""
    return mean + state.spec.confidence * np.sqrt(2 * np.log(t) / n)


def _tuned(state: State, n: F8, mean: F8, t: F8, _arms: I8) -> F8:
    """UCB-tuned (the same paper, section 4)."""
    top = 1.0 if state.shape.metric in RATES else state.spec.reward_max
    variance = np.maximum(state["y2"] / (n * top**2) - mean**2, 0.0) + np.sqrt(2 * np.log(t) / n)
    return mean + state.spec.confidence * np.sqrt(np.log(t) / n * np.minimum(0.25, variance))


def _kl(state: State, n: F8, mean: F8, t: F8, _arms: I8) -> F8:
    """KL-UCB (Garivier and Cappe 2011) with c = 0: the largest q with n kl(mean, q) <= confidence log t."""
    mean = np.clip(mean, 0.0, 1.0)
    limit = state.spec.confidence * np.log(t) / n
    low, high = mean.copy(), np.ones_like(mean)
    for _ in range(60):
        q = (low + high) / 2
        inside = special.kl_div(mean, q) + special.kl_div(1 - mean, 1 - q) <= limit
        low, high = np.where(inside, q, low), np.where(inside, high, q)
    return low


def _bayes(state: State, n: F8, mean: F8, t: F8, _arms: I8) -> F8:
    """Bayes-UCB (Kaufmann, Cappe and Garivier 2012) with c = 0: the 1 - 1/t quantile of the Beta posterior."""
    s = state.spec
    a, b = (s.prior_beta, s.prior_alpha) if state.shape.minimise else (s.prior_alpha, s.prior_beta)
    y = np.clip(mean, 0.0, 1.0) * n
    return np.asarray(special.betaincinv(a + y, b + n - y, 1 - 1 / t))


def _moss(state: State, n: F8, mean: F8, t: F8, arms: I8) -> F8:
    """MOSS (Audibert and Bubeck 2009) with its horizon, or t where `horizon` is 0 (anytime)."""
    horizon = state.spec.horizon or t
    return mean + np.sqrt(np.maximum(np.log(horizon / (arms * n)), 0.0) / n)


def _policy(name: str, said: str, index: Index, *settings: str, stats: tuple[str, ...] = ()) -> Policy:
    return Policy(name, "reference", said, of_index(index), stats=("n", "y", "decided", *stats),
                  settings=(*settings, "reward_max"), deterministic=True)  # fmt: skip


GREEDY = _policy("greedy", "the larger mean so far", _greedy)
UCB1 = _policy("ucb1", "the largest upper bound (Hoeffding)", _ucb1, "confidence")
UCB_TUNED = _policy("ucb_tuned", "the largest upper bound (variance)", _tuned, "confidence", stats=("y2",))
KL_UCB = _policy("kl_ucb", "the largest upper bound (Kullback-Leibler)", _kl, "confidence")
BAYES_UCB = _policy("bayes_ucb", "the largest posterior quantile", _bayes, "prior_alpha", "prior_beta")
MOSS = _policy("moss", "the largest upper bound (minimax)", _moss, "horizon")

"""Boltzmann exploration: weights exp(mean / temperature), outcomes in units of `reward_max`."""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.policy import RATES, Policy, State
from justai_sim.tables import B1, F8


def shares(state: State, live: B1, _now: int) -> F8:
    n, y = state["n"], state["y"]
    top = 1.0 if state.shape.metric in RATES else state.spec.reward_max
    mean = np.divide(y, n * top, out=np.zeros_like(y), where=n > 0)
    return normalised_exp(mean / state.spec.temperature, live)


def normalised_exp(score: F8, live: B1) -> F8:
    """exp(score) over the live arms, scaled so that none overflows."""
    score = np.where(live, score, -np.inf)
    most = np.where(live.any(-1, keepdims=True), score.max(-1, keepdims=True), 0.0)
    return np.exp(score - most)


SOFTMAX = Policy("softmax", "reference", "shares by exp(mean / temperature)", shares,
                 settings=("temperature", "reward_max"))  # fmt: skip

"""Epsilon-greedy: the larger mean so far, with a random live arm at rate `explore`; each live arm once before.

`decay_sends`: the rate falls as explore / (1 + t / decay_sends), t the sends decided; 0 keeps it. Not to be mixed up
with the setting `epsilon`, which any policy has on top, from the first send on.
"""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.policies.index import GREEDY
from justai_sim.bandit.policy import Policy, State
from justai_sim.tables import B1, F8


def shares(state: State, live: B1, now: int) -> F8:
    best = GREEDY.shares(state, live, now)
    best = best / np.maximum(best.sum(-1, keepdims=True), 1)
    decided = np.where(live, state["decided"], 0.0)
    t = decided.sum(-1, keepdims=True)
    rate = state.spec.explore / (1 + t / state.spec.decay_sends) if state.spec.decay_sends else state.spec.explore
    forced = (live & (decided == 0)).any(-1, keepdims=True)
    even = live / np.maximum(live.sum(-1, keepdims=True), 1)
    return np.where(forced, best, (1 - rate) * best + rate * even)


EPSILON_GREEDY = Policy(
    "epsilon_greedy", "reference", "the larger mean so far, at times a random arm", shares,
    stats=("n", "y", "decided"), settings=("explore", "decay_sends", "reward_max"),
)  # fmt: skip

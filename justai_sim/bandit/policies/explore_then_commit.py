"""Even shares until every live arm has `explore_sends` sends, then the larger mean of those sends, for good.

Whole cohorts are learnt, the one in which the last arm fills up too. Conversions of those sends that come late still
count, so the choice may change until they are final, and not after. A new arm is explored in its turn.
"""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.policies.index import largest
from justai_sim.bandit.policy import Policy, State
from justai_sim.tables import B1, F8


def learn(state: State, cohort: dict[str, F8]) -> State:
    served = (state["decided"] > 0) | (cohort["decided"] > 0)
    few = (served & (state["decided"] < state.spec.explore_sends))[..., 1:].any(-1, keepdims=True)
    return state + {k: np.where(few, a, 0.0) for k, a in cohort.items()}


def shares(state: State, live: B1, _now: int) -> F8:
    n, y = state["n"], state["y"]
    mean = np.divide(y, n, out=np.full_like(y, -np.inf), where=n > 0)
    exploring = (live & (state["decided"] < state.spec.explore_sends)).any(-1, keepdims=True)
    return np.where(exploring, live, largest(mean, live))


EXPLORE_THEN_COMMIT = Policy(
    "explore_then_commit", "reference", "even shares first, then the winner for good", shares,
    stats=("n", "y", "decided"), settings=("explore_sends",), learn=learn,
)  # fmt: skip

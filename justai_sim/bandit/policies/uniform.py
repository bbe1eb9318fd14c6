"""Equal shares for all live arms: the reference that learns nothing."""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.policy import Policy, State
from justai_sim.tables import B1, F8


def shares(state: State, _live: B1, _now: int) -> F8:
    return np.ones(state.size)


UNIFORM = Policy("uniform", "reference", "equal shares, learns nothing", shares, stats=())

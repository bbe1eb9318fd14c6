"""Equal shares for all live arms: the reference that learns nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from justai_sim.bandit.policy import PolicySpec, spread
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.tables import B1, F8

name = "uniform"
memory = False


class UniformState(NamedTuple):
    """Nothing is remembered."""


def init(_spec: PolicySpec, _shape: Shape) -> UniformState:
    return UniformState()


def update(state: UniformState, _cohort: Tally) -> UniformState:
    return state


def allocate(_state: UniformState, open_tally: Tally, live: B1, _now: int) -> F8:
    return spread(np.ones(open_tally.n.shape[:3]), live)

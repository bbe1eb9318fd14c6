"""A split that stays: weights by variant, renormalised over the arms that are live."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from justai_sim.bandit.policy import PolicySpec, spread
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, F8

name = "fixed"
memory = False


class FixedState(NamedTuple):
    """`weights` (R, K): of each arm, relative; the control's is 0."""

    weights: F8


def init(spec: PolicySpec, shape: Shape) -> FixedState:
    """Raises UsageError for a variant that the template does not have, or for the control."""
    if not shape.variants:
        raise UsageError("policy 'fixed' needs the names of the variants; the shape has none")
    control, *treated = shape.variants
    weights = np.zeros(shape.K)
    for variant, share in spec.shares.items():
        if variant == control:
            raise UsageError(f"policy.shares names the control {variant!r}; its share is the control share")
        if variant not in treated:
            raise UsageError(f"policy.shares names {variant!r}, no variant; {nearest(variant, treated)}")
        weights[shape.variants.index(variant)] = share
    return FixedState(np.tile(weights, (shape.R, 1)))


def update(state: FixedState, _cohort: Tally) -> FixedState:
    return state


def allocate(state: FixedState, open_tally: Tally, live: B1, _now: int) -> F8:
    """Where no weighted arm is live, the live ones share evenly."""
    return spread(np.broadcast_to(state.weights[:, None, :], open_tally.n.shape[:3]), live)

"""A split that stays: weights by variant, renormalised over the arms that are live."""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.policy import Policy, PolicySpec, State
from justai_sim.bandit.tally import Shape
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, F8


def start(spec: PolicySpec, shape: Shape) -> dict[str, F8]:
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
    return {"weights": np.tile(weights, (shape.R, shape.C, 1))}


def shares(state: State, _live: B1, _now: int) -> F8:
    """Where no weighted arm is live, the live ones share evenly."""
    return state["weights"]


FIXED = Policy("fixed", "reference", "a split that stays", shares, stats=(), settings=("shares",), start=start)

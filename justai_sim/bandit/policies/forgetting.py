"""Thompson sampling that forgets: the last `window` cohorts only, or every cohort discounted once a refresh.

For rates that drift (Garivier and Moulines 2011). Cohorts are those of the decision, so that a late conversion counts
with the sends that it belongs to.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from justai_sim.bandit.policies import weighted_thompson
from justai_sim.bandit.policy import RATES, Policy, PolicySpec, State
from justai_sim.bandit.tally import Shape
from justai_sim.tables import F8


def recent(spec: PolicySpec, shape: Shape) -> dict[str, F8]:
    size = (shape.R, shape.C, shape.K, spec.window)
    return {"recent_n": np.zeros(size), "recent_y": np.zeros(size)}


def slide(state: State, cohort: dict[str, F8]) -> State:
    """One cohort in, the oldest out. Sums are made anew, so that no rounding is carried along."""
    arrays = dict(state.arrays)
    for k in ("n", "y"):
        arrays[f"recent_{k}"] = np.concatenate([state[f"recent_{k}"][..., 1:], cohort[k][..., None]], -1)
        arrays[k] = arrays[f"recent_{k}"].sum(-1)
    return replace(state, arrays=arrays)


def fade(state: State, cohort: dict[str, F8]) -> State:
    return replace(state, arrays=state.arrays | {k: state.spec.discount * state[k] + cohort[k] for k in ("n", "y")})


SLIDING_THOMPSON = Policy(
    "sliding_thompson", "sensible", "chance to be the best on the last refreshes' sends", weighted_thompson.shares,
    settings=("prior_alpha", "prior_beta", "bias_correction", "window"), metrics=RATES, trials=True, chances=True,
    start=recent, learn=slide, draw=weighted_thompson.draw,
)  # fmt: skip
DISCOUNTED_THOMPSON = Policy(
    "discounted_thompson", "sensible", "chance to be the best, old sends count less", weighted_thompson.shares,
    settings=("prior_alpha", "prior_beta", "bias_correction", "discount"), metrics=RATES, trials=True, chances=True,
    learn=fade, draw=weighted_thompson.draw,
)  # fmt: skip

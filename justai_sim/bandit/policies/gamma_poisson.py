"""Thompson sampling on conversions per exposure: Gamma posteriors of a Poisson rate.

With feedback "weighted" a young send is a part of a trial, as much as of its window's conversions would have come by
now: it teaches at once, and its silence is no failure yet (Vernade et al. 2017). Counts may then exceed trials, which
Beta posteriors do not allow.
"""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.independent import LogGamma, best_of
from justai_sim.bandit.policy import Policy, State
from justai_sim.tables import B1, F8, I8


def posterior(state: State) -> LogGamma:
    s = state.spec
    return LogGamma(s.prior_alpha + np.maximum(state["y"], 0.0), s.prior_beta + state["n"])


def shares(state: State, live: B1, _now: int) -> F8:
    return best_of(posterior(state), live)


def draw(state: State, live: B1, rng: np.random.Generator) -> I8:
    p = posterior(state)
    return np.where(live, rng.standard_gamma(p.shape) / p.rate, -1.0).argmax(-1)


GAMMA_POISSON = Policy(
    "gamma_poisson", "sensible", "chance to be the best, conversions per exposure (feedback 'weighted')", shares,
    settings=("prior_alpha", "prior_beta"), chances=True, draw=draw,
    metrics=("open_rate", "click_rate", "conversion_rate", "revenue_per_send"),
)  # fmt: skip

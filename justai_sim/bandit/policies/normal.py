"""Thompson sampling on normal outcomes: of known spread (normal) and of unknown (normal-inverse-gamma, Student's)."""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.independent import Normal, Student, best_of
from justai_sim.bandit.policy import Policy, PolicySpec, State
from justai_sim.tables import B1, F8, I8


def known_noise(state: State) -> Normal:
    """Posterior of each mean; prior N(prior_mean, prior_sd^2 / prior_weight), outcomes of sd `prior_sd`."""
    s, (n, y, _), sign = state.spec, outcomes(state), -1 if state.shape.minimise else 1
    weight = s.prior_weight + n
    return Normal((s.prior_weight * sign * s.prior_mean + y) / weight, s.prior_sd / np.sqrt(weight))


def outcomes(state: State) -> tuple[F8, F8, F8]:
    """n, y, y2 of the metric, negative where lower is better: the priors are of the metric, not of 1 less it."""
    n, y = state["n"], state["y"]
    y2 = state.arrays.get("y2", y)
    return (n, y - n, y2 - 2 * y + n) if state.shape.minimise else (n, y, y2)


def inverse_gamma(state: State) -> tuple[F8, F8, F8]:
    """Location, scale and degrees of freedom of each mean's posterior, see `mean_posterior`."""
    center = -state.spec.prior_mean if state.shape.minimise else state.spec.prior_mean
    return mean_posterior(state.spec, center, *outcomes(state))


def mean_posterior(spec: PolicySpec, center: float, n: F8, y: F8, y2: F8) -> tuple[F8, F8, F8]:
    """Student's location, scale and degrees of freedom of means (Gelman et al., BDA3, 3.3): the prior is worth
    `prior_weight` outcomes of mean `center` and sd `prior_sd`; n, y, y2 of any one shape."""
    k = spec.prior_weight + n
    mean = (spec.prior_weight * center + y) / k
    around = spec.prior_weight * (spec.prior_sd**2 + (center - mean) ** 2)
    around = around + np.maximum(y2 - 2 * mean * y + n * mean**2, 0.0)
    return mean, np.sqrt(around / k / k), k


def shares_known(state: State, live: B1, _now: int) -> F8:
    return best_of(known_noise(state), live)


def shares_unknown(state: State, live: B1, _now: int) -> F8:
    return best_of(Student(*inverse_gamma(state)), live)


def draw_known(state: State, live: B1, rng: np.random.Generator) -> I8:
    p = known_noise(state)
    return np.where(live, rng.normal(p.mean, p.sd), -np.inf).argmax(-1)


def draw_unknown(state: State, live: B1, rng: np.random.Generator) -> I8:
    mean, scale, df = inverse_gamma(state)
    return np.where(live, mean + scale * rng.standard_t(df), -np.inf).argmax(-1)


PRIOR = ("prior_mean", "prior_weight", "prior_sd")
NORMAL_THOMPSON = Policy(
    "normal_thompson", "reference", "chance to be the best, normal outcomes of known spread", shares_known,
    settings=PRIOR, chances=True, draw=draw_known,
)  # fmt: skip
NIG_THOMPSON = Policy(
    "nig_thompson", "reference", "chance to be the best, normal outcomes of unknown spread", shares_unknown,
    stats=("n", "y", "y2"), settings=PRIOR, chances=True, draw=draw_unknown,
)  # fmt: skip

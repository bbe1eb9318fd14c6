"""What an arm is worth, or two arms differ by, on data whose shares followed the results.

Every method takes `Trials` and gives an `Estimate` of the mean outcome of arm `of`, or with `against` of its lead over
that arm. A leading axis of replications is carried along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from justai_sim.errors import UsageError, nearest
from justai_sim.estimate.batches import batched_ols, stratified
from justai_sim.estimate.sequences import confidence_sequence
from justai_sim.estimate.trials import (
    Estimate,
    Part,
    Trials,
    aipw_scores,
    contrast,
    count,
    estimated,
    first_row,
    ipw_scores,
    mean_of,
    share_of,
)
from justai_sim.tables import F8

Weights = Literal["uniform", "sqrt", "two_point"]


def sample_mean(trials: Trials, of: int, against: int | None = None, level: float = 0.95) -> Estimate:
    """The plain mean of the rows of the arm, with Wald's interval.

    Its bias at a fixed horizon is exactly -Cov(N, mean) / E N, moments given N >= 1 (Bowden & Trippa 2017), mostly
    downwards (Nie, Tian, Taylor & Zou 2018).
    """

    def part(k: int) -> Part:
        here = trials.arm == k
        n = count(here)
        mean = (trials.outcome * here).sum(-1) / n
        return Part(mean, here * (trials.outcome - mean[..., None]) / n[..., None], here)

    caveat = (
        "Biased where shares followed results: an arm with bad luck was shown less and never recovered, so means are "
        "mostly too low and intervals too optimistic."
    )
    return estimated(trials, contrast(part, trials, of, against), level, "sample_mean", caveat)


def ipw(trials: Trials, of: int, against: int | None = None, level: float = 0.95) -> Estimate:
    """Inverse propensity weighting (Horvitz & Thompson 1952): the mean over all rows of 1{chosen} y / propensity."""
    caveat = (
        "Unbiased if the logged propensities are those that were drawn from; its spread grows with 1 / propensity, and "
        "its interval is too short where a share went to 0."
    )
    got = contrast(lambda k: mean_of(ipw_scores(trials, k)), trials, of, against)
    return estimated(trials, got, level, "ipw", caveat)


def aipw(
    trials: Trials,
    of: int,
    against: int | None = None,
    level: float = 0.95,
    *,
    weights: Weights = "uniform",
    decay: float = 0.7,
) -> Estimate:
    """Augmented IPW with the arm's mean so far as its model, and evaluation weights h (Hadad, Hirshberg, Zhan, Wager &
    Athey 2021, PNAS): sum h score / sum h, score = m + 1{chosen} (y - m) / propensity.

    `uniform`: h = 1, unbiased. `sqrt`: h = sqrt(e), the variance-stabilising constant allocation. `two_point`: the
    allocation between e that persists and e that falls as t^-decay, 0 <= decay < 1 (at 0 it is `sqrt`). The last two
    need `shares`: e of the arm on every row, chosen or not (`shares_by_batch` finds them). The model of a user's rows
    is taken before the user's first row, so that a sticky arm never predicts itself.
    """
    if weights not in WEIGHTED:
        raise UsageError(f"weights is {weights!r}; {nearest(weights, WEIGHTED)}")
    if not 0 <= decay < 1:
        raise UsageError(f"decay is {decay}; expected a number from 0, below 1")
    first = None if trials.user is None else first_row(trials.user)

    def part(k: int) -> Part:
        score = aipw_scores(trials, k, first, f"aipw_{weights}", weights != "uniform")
        if weights == "uniform":
            return mean_of(score)
        h = _evaluation_weights(share_of(trials, k), weights, decay)
        total = count(h)
        mean = (h * score).sum(-1) / total
        return Part(mean, h * (score - mean[..., None]) / total[..., None], h > 0)

    return estimated(trials, contrast(part, trials, of, against), level, f"aipw_{weights}", WEIGHTED[weights])


WEIGHTED = {
    "uniform": (
        "Unbiased if the logged propensities are those that were drawn from; not normal where a share went to 0, and "
        "its interval is then too short."
    ),
    "sqrt": "Nearly normal under changing shares, with a bias that vanishes in long runs; assumes a mean that stays.",
    "two_point": (
        "Nearly normal also where shares fall to 0 slowly, with a bias that vanishes in long runs; assumes a mean that "
        "stays."
    ),
}


def _evaluation_weights(e: F8, weights: str, decay: float) -> F8:
    """h (..., n) for shares e: sqrt(e), or by stick-breaking h^2 / e = rate x what is left."""
    if weights == "sqrt":
        return np.sqrt(e)
    T = e.shape[-1]
    t = np.arange(1, T + 1)
    keeps = 1 / (T - t + 1)
    falls = (1 - decay) / (1 - decay + T * (t / T) ** decay - t)
    rate = np.clip(e * keeps + (1 - e) * falls, 0.0, 1.0)
    left = np.cumprod(1 - rate, -1)
    left = np.concatenate([np.ones((*e.shape[:-1], 1)), left[..., :-1]], axis=-1)
    return np.sqrt(rate * left * e)


Method = Callable[..., Estimate]
METHODS: dict[str, Method] = {
    "sample_mean": sample_mean,
    "ipw": ipw,
    "aipw_uniform": aipw,
    "aipw_sqrt": lambda *a, **k: aipw(*a, weights="sqrt", **k),
    "aipw_two_point": lambda *a, **k: aipw(*a, weights="two_point", **k),
    "batched_ols": batched_ols,
    "stratified": stratified,
    "confidence_sequence": confidence_sequence,
}
"""The methods that need nothing but trials, by name."""

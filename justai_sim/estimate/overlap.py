"""Whether a log can tell what a policy would have earned: diagnostics, refusals, and the estimator that fits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from justai_sim.estimate.offpolicy import Choices
from justai_sim.stats import mean_error
from justai_sim.tables import F8

LEAST_USERS, LEAST_SAMPLE, LEAST_REWARDED = 30, 50.0, 10
"""Below them an interval cannot be trusted: effective users and decisions, users with a reward and a weight."""
MOST_ON_ONE = 0.1
"""The most of the total weight that may hang on one user."""
MOST_UNSEEN = 0.005
"""The most of the target's traffic that may go where the log never could have sent it."""
TOLD_APART = 5.0
"""Standard errors by which mean weights may miss 1: by chance once in a million."""
GOOD = 0.5
"""Effective decisions, as a part of those with a weight, from which weights are even enough to be left alone."""


@dataclass(frozen=True)
class Overlap:
    """What the weights of a target on a log say.

    decisions, users: how many; weighted: decisions with a weight above 0. effective: Kish's effective sample size,
    (sum w)^2 / sum w^2. largest: the largest weight, largest_part: the largest user's part of all weight. mean,
    mean_se: of the weights; 1 where propensities are the probabilities drawn from. unseen: the target's traffic on
    arms of probability 0. rewarded: users with a reward and a weight. effective_users: as `effective`,
    of users' weights.
    """

    decisions: int
    users: int
    weighted: int
    effective: float
    largest: float
    largest_part: float
    mean: float
    mean_se: float
    unseen: float
    rewarded: int
    effective_users: float

    @property
    def z(self) -> float:
        """By how many standard errors the mean weight misses 1."""
        apart = abs(self.mean - 1)
        if apart <= 1e-9:
            return 0.0
        return apart / self.mean_se if self.mean_se > 0 else math.inf


def overlap(c: Choices) -> Overlap:
    """The diagnostics of a target. Without `behaviour` nothing is known to be unseen."""
    w = c.weight
    by_user = np.bincount(c.cluster, w, c.users).astype(np.float64)
    total = float(w.sum())
    unseen = 0.0 if c.behaviour is None else float((c.target * (c.behaviour <= 0)).sum(1).mean())
    rewarded = len(np.unique(c.cluster[(c.reward != 0) & (w > 0)]))
    return Overlap(
        len(w), c.users, int((w > 0).sum()), _kish(w), float(w.max()),
        float(by_user.max()) / total if total > 0 else 1.0, float(w.mean()), mean_error(w, c.cluster), unseen, rewarded,
        _kish(by_user),
    )  # fmt: skip


def untrusted(o: Overlap) -> list[str]:
    """Why an estimate cannot be trusted; empty where it can."""
    why = []
    if o.unseen > MOST_UNSEEN:
        why.append(f"{_percent(o.unseen)} of its traffic goes to variants that were never drawn at that time and place")
    if o.effective < LEAST_SAMPLE:
        why.append(
            f"{o.decisions:,} decisions are worth only {o.effective:.3g} (effective sample; at least "
            f"{LEAST_SAMPLE:g}): the largest weight is {o.largest:,.4g}"
        )
    elif o.effective_users < LEAST_USERS:
        why.append(f"{o.users:,} users are worth only {o.effective_users:.3g}: too few (at least {LEAST_USERS})")
    if o.largest_part > MOST_ON_ONE:
        why.append(f"{_percent(o.largest_part)} of all weight hangs on one user (at most {MOST_ON_ONE:.0%})")
    if o.unseen <= MOST_UNSEEN and o.z > TOLD_APART:
        why.append(
            f"weights average {o.mean:.3g}, not 1 ({o.z:.1f} standard errors off): the propensities are not the "
            "probabilities with which variants were drawn"
        )
    if o.rewarded < LEAST_REWARDED:
        why.append(f"{o.rewarded} users with a reward are too few (at least {LEAST_REWARDED})")
    return why


def fitting(o: Overlap, learnt: bool) -> tuple[str, str]:
    """The default estimator and why; `learnt`: the log's shares changed over time."""
    if o.effective >= o.decisions * (1 - 1e-9):
        return "ips", "every weight is 1: the mean of the log"
    part = f"{o.weighted:,} decisions with a weight are worth {o.effective:,.0f}"
    if o.effective >= GOOD * o.weighted:
        return "dr", f"weights are even: {part}"
    if learnt:
        return "adaptive", f"weights are uneven and shares changed over time: {part}"
    return "dros", f"weights are uneven: {part}, so large ones are shrunk"


def _kish(w: F8) -> float:
    square = float((w * w).sum())
    return float(w.sum()) ** 2 / square if square > 0 else 0.0


def _percent(x: float) -> str:
    return f"{100 * x:.3g} %"

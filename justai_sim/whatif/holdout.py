"""The log split in time: what the earlier decisions say of the later ones, beside what those earned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from justai_sim import clock
from justai_sim.estimate.offpolicy import Choices, Estimate, estimator
from justai_sim.estimate.overlap import fitting, overlap, untrusted
from justai_sim.estimate.reward_model import fit
from justai_sim.stats import influence_interval
from justai_sim.streams import uniform
from justai_sim.tables import F8, I8
from justai_sim.whatif.decided import Decided

FOLDS = 5
"""Parts of the users, of which each is predicted from the others."""


@dataclass(frozen=True)
class Check:
    """What the decisions before `at` (microseconds) predicted for those from then on.

    predicted with its interval (95 %, from both parts' noise), observed: per decision. inside: whether the interval
    holds what was observed; None where the earlier part cannot tell, with the reason in `why`.
    """

    at: int
    earlier: int
    later: int
    estimator: str
    predicted: float
    low: float
    high: float
    observed: float
    inside: bool | None
    why: str = ""


def choices(d: Decided, target: F8) -> Choices:
    """The arrays of an estimate, with a reward model fitted across users."""
    zero = np.zeros(len(d), np.int64)
    fold = (uniform(0, "off-policy folds", zero, d.user) * FOLDS).astype(np.int64)
    prediction, leverage = fit(d.reward, d.arm, d.context, fold, target)
    draw = uniform(0, "off-policy rejection", zero, d.send)
    return Choices(
        d.reward, d.arm, d.pscore, target, d.user, prediction, leverage, d.behaviour, d.context, draw
    )  # fmt: skip


def held_out(d: Decided, asked: str | None = None) -> Check:
    """Predict the later half from the earlier: the value of the later shares, over the later mix of contexts."""
    at = int(np.median(d.at))
    early, late = d.take(d.at < at), d.take(d.at >= at)
    both = np.intersect1d(early.context, late.context)
    early, late = early.take(np.isin(early.context, both)), late.take(np.isin(late.context, both))
    nothing = Check(at, len(early), len(late), asked or "", *(math.nan,) * 4, None)
    if not len(early) or not len(late):
        return _refused(nothing, "no template was served in both halves")
    shares = np.zeros((len(d.templates), d.arms))
    np.add.at(shares, late.context, late.behaviour)
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-300)
    c = choices(early, shares[early.context])
    o = overlap(c)
    if why := untrusted(o):
        return _refused(nothing, "; ".join(why))
    name = asked or fitting(o, early.learnt)[0]
    value, influence = _over_mix(early, late, c, name)
    observed = float(late.reward.mean())
    own = (late.reward - observed) / len(late)
    users = np.unique(np.concatenate([early.user, late.user]), return_inverse=True)
    move = np.bincount(users[1].ravel(), np.concatenate([influence, -own]), len(users[0])).astype(np.float64)
    low, high = influence_interval(value - observed, move, len(users[0]))
    # The interval of the difference, put around the prediction: it holds the observed where the difference holds 0.
    half = (high - low) / 2
    inside = bool(low <= 0 <= high)
    return Check(at, len(early), len(late), name, value, value - half, value + half, observed, inside)


def _over_mix(early: Decided, late: Decided, c: Choices, name: str) -> tuple[float, F8]:
    """The estimates of each context weighted as the later part has them; and the influences (early decisions,)."""
    value, influence = 0.0, np.zeros(len(early))
    for x in np.unique(early.context).tolist():
        rows: I8 = np.flatnonzero(early.context == x)
        part = float((late.context == x).mean())
        got: Estimate = estimator(name)(c.take(rows))
        value += part * got.value
        influence[rows] = part * got.influence
    return value, influence


def _refused(nothing: Check, why: str) -> Check:
    return Check(**(vars(nothing) | {"why": why}))


def said(c: Check, what: str) -> str:
    """The check in a sentence; `what` writes a value."""
    halves = f"the {c.earlier:,} decisions before {clock.iso(c.at)}"
    if c.inside is None:
        return f"Time split: {halves} cannot predict the {c.later:,} after it ({c.why})."
    place = "inside" if c.inside else "OUTSIDE"
    warn = "" if c.inside else " What earned before does not tell what earns now: read the estimates with doubt."
    return (
        f"Time split: {halves} predict {what.format(c.predicted)} ({what.format(c.low)} to {what.format(c.high)}) for "
        f"the {c.later:,} after it, which earned {what.format(c.observed)}: {place} the interval.{warn}"
    )

"""Thompson sampling with Beta posteriors: an arm's share is its probability of being the best.

Shares equal Thompson sampling at each request as long as the posterior stands, that is between refreshes.
Each segment learns alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from justai_sim.bandit.best import best_beta
from justai_sim.bandit.policy import LOWER_IS_BETTER, METRICS, RATES, PolicySpec, spread, treatments
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, F8

name = "weighted_thompson"
memory = False


class BetaState(NamedTuple):
    """Trials `n` and successes `s` (R, C, K); the rest (R,): the prior, whether the metric is minimised,
    whether the median bias correction is on."""

    n: F8
    s: F8
    alpha: F8
    beta: F8
    minimise: B1
    corrected: B1


def init(spec: PolicySpec, shape: Shape) -> BetaState:
    """Raises UsageError for a key metric that is not a share of sends."""
    if shape.metric not in RATES:
        why = "is money, not 0 or 1 for each send" if shape.metric in METRICS else "is unknown"
        raise UsageError(
            f"policy {name!r} learns rates; key metric {shape.metric!r} {why}; {nearest(shape.metric, RATES)}"
        )
    R = shape.R
    return BetaState(
        n=np.zeros((R, shape.C, shape.K)),
        s=np.zeros((R, shape.C, shape.K)),
        alpha=np.full(R, spec.prior_alpha),
        beta=np.full(R, spec.prior_beta),
        minimise=np.full(R, shape.metric in LOWER_IS_BETTER),
        corrected=np.full(R, spec.bias_correction),
    )


def update(state: BetaState, cohort: Tally) -> BetaState:
    """Raises UsageError where a cohort has more successes than trials."""
    _refuse_exposure(cohort)
    add = cohort.sum()
    return state._replace(n=state.n + add.n, s=state.s + add.y)


def allocate(state: BetaState, open_tally: Tally, live: B1, _now: int) -> F8:
    """P(best) of each live arm, per segment. Raises UsageError as `update` does."""
    now_known = update(state, open_tally)
    n, s = now_known.n, now_known.s
    if state.corrected.any():
        n, s = _median_corrected(n, s, treatments(live), state.corrected)
    a = state.alpha[:, None, None] + s
    # A sum of fractional credits may exceed its trials by a rounding error.
    b = state.beta[:, None, None] + np.maximum(n - s, 0.0)
    low = state.minimise[:, None, None]
    # The largest 1 - x is the smallest x: turn the posterior round before ranking.
    best = best_beta(np.where(low, b, a), np.where(low, a, b), treatments(live)[:, None, :])
    return spread(best, live)


def _median_corrected(n: F8, s: F8, live: B1, on: B1) -> tuple[F8, F8]:
    """Every live arm as if it had had the median number of trials at its own rate: s' = s m / n, n' = m.

    The median is over the live arms of a replication and segment; an arm without trials keeps its prior.
    """
    mask = np.broadcast_to(live[:, None, :], n.shape)
    # Dead arms sort last; the median of the first `count` is that of the live ones.
    count = mask.sum(-1, keepdims=True)
    ranked = np.sort(np.where(mask, n, np.inf), axis=-1)
    lower = np.take_along_axis(ranked, np.maximum(count - 1, 0) // 2, -1)
    upper = np.take_along_axis(ranked, np.minimum(count // 2, n.shape[-1] - 1), -1)
    use = on[:, None, None] & mask & (n > 0)
    median = (np.where(count > 0, lower, 0.0) + np.where(count > 0, upper, 0.0)) / 2
    scale = np.divide(median, n, out=np.ones_like(n), where=use)
    return np.where(use, median, n), s * scale


def _refuse_exposure(tally: Tally) -> None:
    bad = ~((tally.y >= 0) & (tally.y <= tally.n * (1 + 1e-9) + 1e-9))
    if bad.any():
        r, c, k, h = (int(i) for i in np.argwhere(bad)[0])
        raise UsageError(
            f"policy {name!r}: arm {k} (replication {r}, segment {c}, cohort {h}) has y = {tally.y[r, c, k, h]:g} "
            f"successes in n = {tally.n[r, c, k, h]:g} trials; expected 0 <= y <= n. Exposure-weighted counts "
            "(feedback 'weighted') and repeated conversions of one send are no Beta trials: use feedback 'all' or "
            "'mature' and repeat 'once_per_send'"
        )

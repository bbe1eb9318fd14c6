"""Estimates that take each batch by itself: no propensities are needed, and drift between batches does no harm."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from justai_sim.errors import UsageError
from justai_sim.estimate.trials import Estimate, Part, Trials, contrast, count, dense, estimated
from justai_sim.tables import F8, I8


def batched_ols(trials: Trials, of: int, against: int | None = None, level: float = 0.95) -> Estimate:
    """The batched least-squares estimator (Zhang, Janson & Murphy 2020): each batch's difference, studentised, is
    close to N(0, 1) whatever shares the batch had. With w = 1 / its error, sum w d / sum w has error sqrt(B) / sum w.

    Variances are pooled over batches, one an arm. A batch counts in which each arm has a row, or two with users, where
    the error is that of the sums over users. B is the number of batches since the first that counts, those without an
    arm included: how many are left out depends on luck (an arm that begins badly is shown no more, and its bad luck is
    not diluted), so that with B the number of those that count a 95 % interval held the truth in 91 %.
    """
    cells = _cells(trials, [of] if against is None else [of, against], "batched_ols")
    # Over users the spread is that of the rows around their batch's mean, and a single row has none.
    there = (cells.n >= (1 if trials.user is None else 2)).all(-1)
    freedom = np.maximum(cells.n - 1, 0).sum(-2)
    pooled = cells.squares.sum(-2) / np.where(freedom > 0, freedom, np.nan)
    varies = (pooled > 0).any(-1)
    pooled = np.where(varies[..., None] | np.isnan(pooled), pooled, 1.0)  # no spread at all: weights by counts
    spread = (pooled[..., None, :] / np.maximum(cells.n, 1)).sum(-1)
    w = np.where(there, np.nan_to_num(1 / np.sqrt(np.where(spread > 0, spread, np.nan))), 0.0)
    got = _combine(trials, cells, w, of, against)
    since = (np.cumsum(there, -1) > 0).sum(-1)
    wider = np.sqrt(since / np.maximum(there.sum(-1), 1))
    got = got._replace(influence=got.influence * wider[..., None])
    caveat = (
        "Normal if every batch is large and has all compared arms; where batches lack one the interval is wider than "
        "need be, so keep a floor. A difference that changes over time is averaged by precision."
    )
    se = None if trials.user is not None else varies * np.sqrt(since) / count(w)
    return estimated(trials, got, level, "batched_ols", caveat, se)


def stratified(trials: Trials, of: int, against: int | None = None, level: float = 0.95) -> Estimate:
    """The difference within each epoch, averaged by the epochs' rows (of all arms): immune to Simpson's paradox.

    An epoch counts in which each arm has at least 2 rows; weights are then renormalised, and `used` says what is left.
    """
    cells = _cells(trials, [of] if against is None else [of, against], "stratified")
    got = _combine(trials, cells, np.where((cells.n >= 2).all(-1), cells.rows, 0.0), of, against)
    caveat = (
        "Unbiased if shares changed only between epochs; it is about the epochs in which every compared arm has at "
        "least 2 rows."
    )
    return estimated(trials, got, level, "stratified", caveat)


class _Cells(NamedTuple):
    """By batch and compared arm (..., B, A): rows, means, squares around them; `rows` (..., B) of all arms; `code`
    (..., n) of each row's batch."""

    n: F8
    mean: F8
    squares: F8
    rows: F8
    code: I8


def _cells(trials: Trials, arms: list[int], method: str) -> _Cells:
    if trials.batch is None:
        raise UsageError(f"{method} needs the batch (epoch) of every choice")
    code, B = dense(trials.batch)
    lead = code.shape[:-1]
    R = int(np.prod(lead, dtype=np.int64))
    flat = (code.reshape(R, -1) + B * np.arange(R)[:, None]).ravel()

    def sums(x: Any) -> F8:
        weights = np.broadcast_to(x, code.shape).ravel().astype(np.float64)
        return np.bincount(flat, weights, R * B).astype(np.float64).reshape(*lead, B)

    here = [trials.arm == k for k in arms]
    n = np.stack([sums(h) for h in here], -1)
    mean = np.stack([sums(h * trials.outcome) for h in here], -1) / np.maximum(n, 1)
    at = [np.take_along_axis(mean[..., i], code, -1) for i in range(len(arms))]
    squares = np.stack([sums(h * (trials.outcome - m) ** 2) for h, m in zip(here, at, strict=True)], -1)
    return _Cells(n, mean, squares, sums(1.0), code)


def _combine(trials: Trials, cells: _Cells, weight: F8, of: int, against: int | None) -> Part:
    """Batch differences averaged by `weight` (..., B)."""
    share = np.nan_to_num(weight / count(weight)[..., None])
    share_row = np.take_along_axis(share, cells.code, -1)
    index = {of: 0} if against is None else {of: 0, against: 1}
    none = np.where(np.isnan(count(weight)), np.nan, 0.0)

    def part(k: int) -> Part:
        i = index[k]
        n, mean = (np.take_along_axis(a[..., i], cells.code, -1) for a in (cells.n, cells.mean))
        # With few rows in a batch its own mean hides part of the spread: n / (n - 1) as for any sample.
        grown = share_row * np.sqrt(n / np.maximum(n - 1, 1)) / np.maximum(n, 1)
        influence = np.where(trials.arm == k, grown * (trials.outcome - mean), 0.0)
        return Part((share * cells.mean[..., i]).sum(-1) + none, influence, share_row > 0)

    return contrast(part, trials, of, against)

"""Choices with their propensities and outcomes, and what every estimate on them shares: errors and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from justai_sim import stats
from justai_sim.errors import DataError, UsageError, several
from justai_sim.tables import B1, F8, I8

CERTAIN = 1 - 1e-12
"""A choice drawn with this share or more left nothing to the other arms."""


@dataclass(frozen=True)
class Trials:
    """One row a choice, in the order in which they were made: arrays (..., n), any leading axes being replications.

    arm: integers from 0. outcome: any finite number. propensity: the share that the arm was drawn with. shares
    (..., n, K): those of all arms (then `propensity` may be left out). user: labels; rows of one user are not
    independent, intervals allow for it. batch: integers from 0, the batch or epoch in which shares stood still.
    A sticky repeat carries the propensity of the user's first draw.
    Raises DataError for shapes that differ and for values out of range.
    """

    arm: I8
    outcome: F8
    propensity: F8 | None = None
    shares: F8 | None = None
    user: I8 | None = None
    batch: I8 | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.arm)
        if not shape or not shape[-1]:
            raise DataError("there are no trials")
        for name in ("arm", "user", "batch"):
            value = getattr(self, name)
            if value is not None and (np.shape(value) != shape or np.asarray(value).dtype.kind not in "iu"):
                raise DataError(
                    f"{name} is {np.asarray(value).dtype} of shape {np.shape(value)}; expected integers, {shape}"
                )
            if value is not None and name != "user" and np.min(value) < 0:
                raise DataError(f"{name} holds {np.min(value)}; expected integers from 0")
        if np.shape(self.outcome) != shape or not np.isfinite(self.outcome).all():
            raise DataError(f"outcome has shape {np.shape(self.outcome)}; expected finite numbers of shape {shape}")
        if self.shares is not None:
            self._check_shares(self.shares, shape)
        if self.propensity is not None and np.shape(self.propensity) != shape:
            raise DataError(f"propensity has shape {np.shape(self.propensity)}; expected {shape}")

    def _check_shares(self, shares: F8, shape: tuple[int, ...]) -> None:
        if np.shape(shares)[:-1] != shape or int(np.max(self.arm)) >= np.shape(shares)[-1]:
            raise DataError(f"shares have shape {np.shape(shares)}; expected {(*shape, int(np.max(self.arm)) + 1)}")
        if (shares < 0).any() or (shares.sum(-1) > 1 + 1e-6).any():
            raise DataError("shares hold a negative number or rows that sum to more than 1")
        chosen = np.take_along_axis(shares, self.arm[..., None], -1)[..., 0]
        if self.propensity is None:
            object.__setattr__(self, "propensity", chosen)
        elif (np.abs(chosen - self.propensity) > 1e-9).any():
            raise DataError("propensity differs from the shares of the arms that were chosen")

    @property
    def n(self) -> int:
        """Trials (a replication)."""
        return int(np.shape(self.arm)[-1])


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval, arrays of the leading shape of the trials (numbers where there is none).

    `se` its standard error, `level` the coverage aimed at, `method` the function's name, `caveat` a sentence that names
    its bias or what it assumes, `used` the share of rows that it could use. Nan where an arm has too few rows.
    """

    estimate: F8
    se: F8
    low: F8
    high: F8
    level: float
    method: str
    caveat: str
    used: F8 | float = 1.0


def shares_by_batch(arm: I8, propensity: F8, batch: I8, arms: int | None = None) -> F8:
    """The shares of all arms on every row, (n, K), from those of the chosen arms, where shares stand still in a batch.

    arm, propensity, batch (n,): `batch` any labels (of refresh and segment). The share of an arm that was never chosen
    in a batch is what the others leave where it is the only such arm, or where they leave nothing; else it is nan.
    Raises DataError where an arm has two propensities in one batch.

    >>> shares_by_batch(np.array([0, 1, 0]), np.array([0.25, 0.75, 1.0]), np.array([0, 0, 1])).tolist()
    [[0.25, 0.75], [0.25, 0.75], [1.0, 0.0]]
    """
    K = int(np.max(arm)) + 1 if arms is None else arms
    _, code = np.unique(batch, return_inverse=True)
    B = int(code.max()) + 1
    table = np.full((B, K), np.nan)
    table[code, arm] = propensity
    off = np.abs(table[code, arm] - propensity) > 1e-9
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise DataError(
            f"arm {arm[i]} has the propensities {propensity[i]:g} and {table[code[i], arm[i]]:g} in batch {batch[i]}; "
            "expected shares that stand still within a batch (split it by refresh and segment)"
        )
    left = np.maximum(1 - np.nansum(table, axis=1), 0.0)
    unseen = np.isnan(table)
    known = (unseen.sum(1) == 1) | (left <= 1e-9)
    fill = np.where(known, np.where(left <= 1e-9, 0.0, left), np.nan)
    return np.where(unseen, fill[:, None], table)[code]


class Part(NamedTuple):
    """An estimate (...), each row's influence on it (..., n), whose sums over users have mean 0; and the rows that
    count (..., n)."""

    estimate: F8
    influence: F8
    counts: B1

    def minus(self, other: Part) -> Part:
        return Part(self.estimate - other.estimate, self.influence - other.influence, self.counts | other.counts)


def contrast(part: Callable[[int], Part], trials: Trials, of: int, against: int | None) -> Part:
    for k in (of,) if against is None else (of, against):
        if not (trials.arm == k).any():
            raise DataError(f"arm {k} was never chosen in {several(trials.n, 'trial')}")
    if of == against:
        raise UsageError(f"arm {of} is compared with itself")
    got = part(of)
    return got if against is None else got.minus(part(against))


def estimated(trials: Trials, part: Part, level: float, method: str, caveat: str, se: F8 | None = None) -> Estimate:
    z = stats.z_value(level)
    se = error(trials, part) if se is None else se
    used = part.counts.mean(-1) if method in ("batched_ols", "stratified") else 1.0
    value = part.estimate
    return Estimate(value, se, value - z * se, value + z * se, level, method, caveat, used)


def error(trials: Trials, part: Part) -> F8:
    """Root of the summed squares of the users' influences (the sandwich of Liang & Zeger 1986, with G / (G - 1))."""
    influence, counts = part.influence, part.counts
    if trials.user is None:
        squares, G = (influence * influence).sum(-1), counts.sum(-1)
    else:
        lead = influence.shape[:-1]
        code, span = dense(trials.user)
        R = int(np.prod(lead, dtype=np.int64))
        code = (code.reshape(R, -1) + span * np.arange(R)[:, None]).ravel()
        sums = np.bincount(code, influence.ravel(), R * span).reshape(*lead, span)
        squares = (sums * sums).sum(-1)
        G = (np.bincount(code, counts.ravel().astype(np.float64), R * span).reshape(*lead, span) > 0).sum(-1)
    G = np.where(G >= 2, G, np.nan)
    return np.sqrt(squares * G / (G - 1))


def dense(label: npt.NDArray[Any]) -> tuple[I8, int]:
    _, code = np.unique(label, return_inverse=True)
    return code.reshape(label.shape), int(code.max()) + 1


def count(x: Any) -> F8:
    """Sums over rows, nan for 0: an arm without rows has no mean."""
    total = np.asarray(x, np.float64).sum(-1)
    return np.where(total > 0, total, np.nan)


def first_row(user: npt.NDArray[Any]) -> I8:
    """For each row the first row of its user, (..., n)."""
    code, span = dense(user)
    n = user.shape[-1]
    flat = code.reshape(-1, n)
    first = np.full((len(flat), span), n)
    rep = np.broadcast_to(np.arange(len(flat))[:, None], flat.shape)
    np.minimum.at(first, (rep, flat), np.broadcast_to(np.arange(n), flat.shape))
    out: I8 = np.take_along_axis(first, flat, -1).reshape(user.shape)
    return out


def mean_of(score: F8) -> Part:
    mean = score.mean(-1)
    return Part(mean, (score - mean[..., None]) / score.shape[-1], np.ones(score.shape, bool))


def propensity_of(trials: Trials, k: int, method: str) -> F8:
    """The propensities of the rows (..., n), checked: known and above 0 where arm k was chosen, and arm k possible."""
    e = trials.propensity
    if e is None:
        raise UsageError(f"{method} needs the propensity of every choice; 'stratified' and 'batched_ols' do without")
    chosen = trials.arm == k
    bad = chosen & ~((e > 0) & (e <= 1 + 1e-9))
    if bad.any():
        raise DataError(
            f"{several(int(bad.sum()), 'row')} of arm {k} with a propensity outside (0, 1], the first at "
            f"{tuple(int(i) for i in np.argwhere(bad)[0])}: {e[bad][0]:g}; expected the share that it was drawn with"
        )
    return e


def _possible(trials: Trials, k: int) -> None:
    """DataError where arm k could not have been drawn: no weighting can make up for that."""
    never = (trials.arm != k) & (np.asarray(trials.propensity) >= CERTAIN)
    if trials.shares is not None:
        never |= trials.shares[..., k] <= 0
    if never.any():
        raise DataError(
            f"arm {k} could not be drawn in {several(int(never.sum()), 'row')} of {never.size:,} (share 0, or another "
            "arm with propensity 1); leave out deterministic rows, or use 'stratified'"
        )


def share_of(trials: Trials, k: int) -> F8:
    if trials.shares is None:
        raise UsageError("weights 'sqrt' and 'two_point' need the shares of all arms on every row; see shares_by_batch")
    e = trials.shares[..., k]
    if np.isnan(e).any():
        raise DataError(f"the share of arm {k} is not known in {several(int(np.isnan(e).sum()), 'row')}")
    return e


def ipw_scores(trials: Trials, k: int) -> F8:
    e = propensity_of(trials, k, "ipw")
    _possible(trials, k)
    chosen = trials.arm == k
    return np.where(chosen, trials.outcome, 0.0) / np.where(chosen, e, 1.0)


def aipw_scores(trials: Trials, k: int, first: I8 | None, method: str, zero_shares: bool) -> F8:
    """AIPW scores (..., n) of arm k; the model is the arm's mean over earlier rows, 0 before its first."""
    e = propensity_of(trials, k, method)
    if not zero_shares:
        _possible(trials, k)
    chosen = trials.arm == k
    y = np.where(chosen, trials.outcome, 0.0)
    n, total = np.cumsum(chosen, -1) - chosen, np.cumsum(y, -1) - y
    model = total / np.maximum(n, 1)
    if first is not None:
        model = np.take_along_axis(model, first, -1)
    return model + np.where(chosen, (trials.outcome - model) / np.where(chosen, e, 1.0), 0.0)

"""From a policy's shares to one arm and its propensity: the mixtures, and the draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from justai_sim.bandit.policy import treatments
from justai_sim.errors import UsageError
from justai_sim.tables import B1, F8, I8


def final_shares(shares: F8, live: B1, control_share: float, epsilon: float, floor: float) -> F8:
    """The shares that are drawn from, (R, C, K), rows sum to 1.

    A policy's shares (R, C, K) are mixed, in this order, with the uniform split of the live arms (weight
    `epsilon`), with the floor (each live arm gets `floor` and its part of what is left: nobody is clipped,
    so the propensity stays exact), and with the control (`control_share` to arm 0). Where no treatment arm
    is live the control has all. Column 0 of `live` (R, K) is ignored.
    Raises UsageError for a setting out of range or a floor that more live arms ask for than there is,
    ValueError for shares that do not sum to 1 over the live arms.
    """
    for field, value in (("control_share", control_share), ("epsilon", epsilon), ("floor", floor)):
        if not 0 <= value <= 1:
            raise UsageError(f"{field} is {value}; expected a number from 0 to 1")
    mask = treatments(live)[:, None, :]
    count = mask.sum(-1, keepdims=True)
    most = int(count.max(initial=0))
    if most * floor > 1 + 1e-12:
        raise UsageError(f"floor is {floor}; expected at most {1 / most:.4g}: {most} live arms share the traffic")
    treated = np.where(mask, shares, 0.0)
    off = np.where(count[..., 0] > 0, np.abs(treated.sum(-1) - 1), 0.0)
    if not ((treated >= 0).all() and (off <= 1e-9).all()):
        raise ValueError("shares must be at least 0 and sum to 1 over the live treatment arms of every row")
    even = np.divide(mask, count, out=np.zeros(mask.shape), where=count > 0)
    treated = (1 - epsilon) * treated + epsilon * even
    treated = np.maximum(1 - count * floor, 0.0) * treated + floor * mask
    treated *= 1 - control_share
    treated[..., 0] = np.where(count[..., 0] > 0, control_share, 1.0)
    return treated


def choose(
    shares: F8, rep_row: npt.NDArray[np.integer[Any]], segment_row: npt.NDArray[np.integer[Any]], u: F8, *,
    eligible: B1 | None = None, epsilon: F8 | None = None, live: B1 | None = None,
) -> tuple[I8, F8]:  # fmt: skip
    """One arm for each of n decisions, and its propensity: the very share that it was drawn from.

    `eligible` (n, K): the treatment arms that a decision may have; their shares are scaled up to the whole treatment
    traffic (evenly where they have none), and the control, which is always eligible, has all where there is none.
    `epsilon` (n,), with `live` (R, K): a request's own part that is drawn evenly from its live eligible arms.

    `shares` (R, C, K) as `final_shares` gives them; `rep_row`, `segment_row` (n,) say which row a decision
    draws from, `u` (n,) in [0, 1) is its draw. Arm k is chosen for u in [edge k-1, edge k), edges being the
    cumulated shares; what rounding leaves above the last edge belongs to the last arm that has a share.
    Returns arm int64 (n,) and propensity float64 (n,).

    >>> import numpy as np
    >>> row = np.zeros(3, int)
    >>> choose(np.array([[[0.25, 0.0, 0.75]]]), row, row, np.array([0.0, 0.25, 0.99]))
    (array([0, 2, 2]), array([0.25, 0.75, 0.75]))
    """
    from justai_sim.bandit.kernel import pick

    K = shares.shape[2]
    if not (np.isfinite(shares).all() and (shares >= 0).all() and (shares.sum(-1) > 0).all()):
        raise ValueError("shares must be finite, at least 0 and not all 0 in any row")
    if len(u) and not (u.min() >= 0 and u.max() < 1):
        raise ValueError("draws must lie in [0, 1)")
    if eligible is not None or epsilon is not None:
        shares = requested(shares[rep_row, segment_row], rep_row, eligible, epsilon, live)[:, None]
        rep_row, segment_row = np.arange(len(u)), np.zeros(len(u), np.int64)
    edges = np.cumsum(shares, axis=-1)
    last = K - 1 - np.argmax(shares[..., ::-1] > 0, axis=-1)
    edges[np.arange(K) >= last[..., None]] = 2.0
    arm, propensity = np.empty(len(u), np.int64), np.empty(len(u))
    pick(edges, shares, np.asarray(rep_row, np.int64), np.asarray(segment_row, np.int64), u, arm, propensity)
    return arm, propensity


def pinned(u: F8, split: F8, control: F8) -> F8:
    """The draws (n,) of users who stay with the control or with the treatment: `split` is a user's own draw, the same
    at every request, `control` the control's share. Over users the arm's propensity is its share, as ever.

    >>> pinned(np.array([0.5, 0.5]), np.array([0.05, 0.7]), np.array([0.1, 0.1])).round(3).tolist()
    [0.05, 0.55]
    """
    return np.where(split < control, control * u, np.minimum(control + (1 - control) * u, np.nextafter(1.0, 0.0)))


def requested(
    rows: F8, rep_row: npt.NDArray[np.integer[Any]], eligible: B1 | None, epsilon: F8 | None, live: B1 | None
) -> F8:
    """The shares (n, K) that each request draws from, see `choose`. UsageError for an epsilon out of range."""
    may = np.ones(rows.shape, bool) if live is None else np.array(live[rep_row], bool)
    if eligible is not None:
        may &= eligible
    may[:, 0] = False
    treated = np.where(may, rows, 0.0)
    count = may.sum(1, keepdims=True)
    even = np.divide(may, count, out=np.zeros(rows.shape), where=count > 0)
    total = treated.sum(1, keepdims=True)
    treated = np.divide(treated, total, out=even.copy(), where=total > 0)
    if epsilon is not None:
        if len(epsilon) and not (epsilon.min() >= 0 and epsilon.max() <= 1):
            raise UsageError(f"epsilon is {epsilon[(epsilon < 0) | (epsilon > 1)][:1]}; expected numbers from 0 to 1")
        treated = (1 - epsilon[:, None]) * treated + epsilon[:, None] * even
    out = (1 - rows[:, :1]) * treated
    out[:, 0] = np.where(count[:, 0] > 0, rows[:, 0], 1.0)
    return out

"""The reward model of off-policy estimates: shrunken means by arm and context, fitted on other users."""

from __future__ import annotations

import numpy as np

from justai_sim.tables import F8, I8, Array

PULL = 5.0
"""A mean counts as if it had been seen this often at the mean above it: a context's arm at the arm's, that at all."""


def fit(reward: F8, arm: I8, context: I8, fold: I8, target: F8) -> tuple[F8, F8]:
    """Predictions (n, K), and the leverage (n,) of each reward on the direct estimate.

    `reward, arm, context, fold` (n,), the last two codes from 0; `target` (n, K). Rows of a fold (a part of the users)
    are predicted from the other folds, so that no reward predicts itself (cross-fitting; Chernozhukov et al., 2018).
    The mean of arm k in context c is (S + PULL m_k) / (N + PULL), m_k likewise towards the mean of all: James and
    Stein's shrinkage with a fixed strength. leverage_i is n d mean(sum_k target q) / d reward_i, the mean of all taken
    as known; with it the direct estimate's error is that of its means.
    """
    K, F, C = target.shape[1], int(fold.max()) + 1, int(context.max()) + 1
    cell = (fold * C + context) * K + arm
    count = _others(np.bincount(cell, minlength=F * C * K).reshape(F, C, K))
    total = _others(np.bincount(cell, reward, F * C * K).reshape(F, C, K))
    all_n, all_y = count.sum((1, 2)), total.sum((1, 2))
    mean = np.divide(all_y, all_n, out=np.zeros(F), where=all_n > 0)[:, None]
    arm_n = count.sum(1)
    arm_mean = (total.sum(1) + PULL * mean) / (arm_n + PULL)  # (F, K)
    q = (total + PULL * arm_mean[:, None]) / (count + PULL)  # (F, C, K)
    return q[fold, context], _leverage(arm, context, fold, target, count, arm_n)


def _others(table: Array) -> F8:
    """Sums over all folds but one; a single fold predicts itself."""
    return np.asarray(table.sum(0, keepdims=True) - table if len(table) > 1 else table, np.float64)


def _leverage(arm: I8, context: I8, fold: I8, target: F8, count: F8, arm_n: F8) -> F8:
    F, C, K = count.shape
    mass = np.zeros((F, C, K))  # of the target, on decisions that each mean predicts
    np.add.at(mass, (fold, context), target)
    own = mass / (count + PULL)
    shared = (mass * PULL / (count + PULL)).sum(1) / (arm_n + PULL)
    each = own + shared[:, None]
    moved = each.sum(0, keepdims=True) - each if F > 1 else each  # a reward is in the means of the other folds
    return moved[fold, context, arm]

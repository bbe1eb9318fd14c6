"""Compiled sums over the sends known; imported only where it runs."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def tally(
    template, variant, rep, decided, sent, counted, ghost, close, value, scale, arm_of,
    known_before, first, end, start, refresh, cohorts, reps, arms, missing,
):  # fmt: skip
    """n, y, y2 of shape (templates, reps, arms, cohorts); `known_before` is the latest close that counts,
    [first, end) the instants of sending."""
    shape = (arm_of.shape[0], reps, arms, max(cohorts, 1))
    n, y, y2 = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for i in range(len(template)):
        if not counted[i] or ghost[i] or close[i] > known_before or sent[i] < first or sent[i] >= end:
            continue
        a = arm_of[template[i], variant[i]]
        if a < 0:
            continue
        at = sent[i] if decided[i] == missing else decided[i]
        h = min(max((at - start) // refresh, 0), max(cohorts - 1, 0))
        v = value[i] * scale
        n[template[i], rep[i], a, h] += 1.0
        y[template[i], rep[i], a, h] += v
        y2[template[i], rep[i], a, h] += v * v
    return n, y, y2

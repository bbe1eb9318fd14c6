"""Compiled sums over the sends known; imported only where it runs."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def tally(
    template, variant, rep, segment, decided, sent, counted, ghost, close, value, scale, weight, arm_of,
    reset, kept, known_before, first, end, start, refresh, cohorts, reps, segments, arms, missing,
):  # fmt: skip
    """n, y, y2 of shape (templates, reps, segments, arms, cohorts); `known_before` is the latest close that counts,
    [first, end) the instants of sending, `weight` (n,) the part of a trial that each send is, empty: 1. Sends decided
    before the instant `reset` (templates, arms) do not count, but for those still under way then if `kept`."""
    shape = (arm_of.shape[0], reps, segments, arms, max(cohorts, 1))
    n, y, y2 = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for i in range(len(template)):
        if not counted[i] or ghost[i] or close[i] > known_before or sent[i] < first or sent[i] >= end:
            continue
        a = arm_of[template[i], variant[i]]
        if a < 0:
            continue
        at = sent[i] if decided[i] == missing else decided[i]
        since = reset[template[i], a]
        if at < since and not (kept and close[i] > since):
            continue
        h = min(max((at - start) // refresh, 0), max(cohorts - 1, 0))
        s = segment[i] + 1 if segments > 1 else 0
        v = value[i] * scale
        n[template[i], rep[i], s, a, h] += weight[i] if len(weight) else 1.0
        y[template[i], rep[i], s, a, h] += v
        y2[template[i], rep[i], s, a, h] += v * v
    return n, y, y2


@njit(cache=True, nogil=True)
def more(
    template, variant, rep, segment, decided, sent, counted, ghost, close, value, scale, propensity, minimise, arm_of,
    reset, kept, known_before, first, end, start, refresh, cohorts, reps, segments, arms, missing,
):  # fmt: skip
    """decided, positive, log, log2 and reward_ip, in one array with that axis first; else as `tally`. A reward without
    a propensity counts as if it had been certain."""
    out = np.zeros((5, arm_of.shape[0], reps, segments, arms, max(cohorts, 1)))
    for i in range(len(template)):
        if not counted[i] or ghost[i]:
            continue
        a = arm_of[template[i], variant[i]]
        if a < 0:
            continue
        at = sent[i] if decided[i] == missing else decided[i]
        since = reset[template[i], a]
        if at < since and not (kept and close[i] > since):
            continue
        h = min(max((at - start) // refresh, 0), max(cohorts - 1, 0))
        s = segment[i] + 1 if segments > 1 else 0
        t, r = template[i], rep[i]
        out[0, t, r, s, a, h] += 1.0  # of any age: what was sent was sent
        if close[i] > known_before or sent[i] < first or sent[i] >= end:
            continue
        v = value[i] * scale
        if v > 0:
            out[1, t, r, s, a, h] += 1.0
            out[2, t, r, s, a, h] += np.log(v)
            out[3, t, r, s, a, h] += np.log(v) ** 2
        p = propensity[i]
        out[4, t, r, s, a, h] += (1.0 - v if minimise else v) / (p if p > 0 else 1.0)
    return out

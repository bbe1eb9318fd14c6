"""Compiled passes of the loop: who has something new, and sums over sends; imported only where it runs."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def tally(
    template, variant, rep, segment, decided, sent, counted, ghost, close, value, scale, weight, arm_of,
    known_before, first, end, start, refresh, missing, n, y, y2,
):  # fmt: skip
    """Added to n, y, y2 of shape (templates, reps, segments, arms, cohorts); `known_before` is the latest close that
    counts, [first, end) the instants of sending, `weight` (n,) the part of a trial that each send is, empty: 1."""
    segments, cohorts = n.shape[2], n.shape[4]
    for i in range(len(template)):
        if not counted[i] or ghost[i] or close[i] > known_before or sent[i] < first or sent[i] >= end:
            continue
        a = arm_of[template[i], variant[i]]
        if a < 0:
            continue
        at = sent[i] if decided[i] == missing else decided[i]
        h = min(max((at - start) // refresh, 0), cohorts - 1)
        s = segment[i] + 1 if segments > 1 else 0
        v = value[i] * scale
        n[template[i], rep[i], s, a, h] += weight[i] if len(weight) else 1.0
        y[template[i], rep[i], s, a, h] += v
        y2[template[i], rep[i], s, a, h] += v * v


@njit(cache=True, nogil=True)
def more(
    template, variant, rep, segment, decided, sent, counted, ghost, close, value, scale, propensity, minimise, arm_of,
    known_before, first, end, start, refresh, missing, out,
):  # fmt: skip
    """decided, positive, log, log2 and reward_ip, in one array with that axis first; else as `tally`. A reward without
    a propensity counts as if it had been certain."""
    segments, cohorts = out.shape[3], out.shape[5]
    for i in range(len(template)):
        if not counted[i] or ghost[i]:
            continue
        a = arm_of[template[i], variant[i]]
        if a < 0:
            continue
        at = sent[i] if decided[i] == missing else decided[i]
        h = min(max((at - start) // refresh, 0), cohorts - 1)
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


@njit(cache=True, nogil=True)
def _add(n, y, y2, at, sign, v):
    n[at] += sign
    y[at] += sign * v
    y2[at] += sign * v * v


@njit(cache=True, nogil=True)
def move(
    template, variant, rep, segment, decided, sent, was, old, use, value, unit, arm_of, start, refresh, missing,
    n, y, y2,
):  # fmt: skip
    """Take out of n, y, y2 what these sends counted for and add what they do now, outcomes in units. Whether that is
    exact (whole outcomes below 2^20, cohorts that there is room for), the latest instant, the greatest outcome."""
    segments, cohorts = n.shape[2], n.shape[4]
    last, most, exact = missing, 0, True
    for i in range(len(template)):
        at = sent[i] if decided[i] == missing else decided[i]
        last = max(last, at, sent[i])
        a = arm_of[template[i], variant[i]]
        if a < 0 or not (was[i] or use[i]):
            continue
        h = max((at - start) // refresh, 0)
        if h >= cohorts or value[i] % unit != 0 or value[i] < 0 or value[i] >> 20 >= unit:
            exact = False
            continue
        cell = (template[i], rep[i], segment[i] + 1 if segments > 1 else 0, a, h)
        if was[i]:
            _add(n, y, y2, cell, -1.0, float(old[i] // unit))
        if use[i]:
            most = max(most, value[i] // unit)
            _add(n, y, y2, cell, 1.0, float(value[i] // unit))
    return exact, last, most


@njit(cache=True, nogil=True)
def claim(owner, key, user, again):
    """Note who a send id belongs to: `owner` (ids,) is 1 + its first user, 0 for none. Into `again` go the rows
    whose id was known; returns how many."""
    count = 0
    for i in range(len(key)):
        if owner[key[i]] == 0:
            owner[key[i]] = user[i] + 1
        else:
            again[count] = i
            count += 1
    return count


@njit(cache=True, nogil=True)
def chain(account, user, first, newest, before, size):
    """Hang rows first, first + 1, ... of these users on the chain of their account: `newest` (accounts,) is its last
    row, `before` (rows,) the row before each, -1 at the end; `size` counts them."""
    for i in range(len(user)):
        a = account[user[i]]
        before[first + i] = newest[a]
        newest[a] = first + i
        size[a] += 1


@njit(cache=True, nogil=True)
def touched(account, user, mark, out, count):
    """Add to `out` the accounts of these users that are not yet marked, `mark` (accounts,) flags them."""
    for i in range(len(user)):
        a = account[user[i]]
        if not mark[a]:
            mark[a] = True
            out[count] = a
            count += 1
    return count


@njit(cache=True, nogil=True)
def walk(accounts, newest, before, out):
    """All rows of these accounts."""
    count = 0
    for a in accounts:
        row = newest[a]
        while row >= 0:
            out[count] = row
            count += 1
            row = before[row]


@njit(cache=True, nogil=True)
def ranks(a, b, users):
    """Users (users,) numbered from 0 in their order, of those in `a` and `b` only."""
    rank = np.zeros(users, np.int32)
    for u in a:
        rank[u] = 1
    for u in b:
        rank[u] = 1
    count = 0
    for i in range(users):
        if rank[i]:
            rank[i] = count
            count += 1
    return rank

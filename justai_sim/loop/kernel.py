"""Compiled passes of the loop: who has something new, and sums over sends; imported only where it runs."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def gather(data, rows, out):
    """out = data[rows]."""
    for i in range(len(rows)):
        out[i] = data[rows[i]]


@njit(cache=True, nogil=True)
def cells(template, variant, rep, segment, decided, sent, arm_of, start, refresh, missing, reps, segments, arms, out):
    """Into `out` where each send is counted: a flat index by (cohort, template, replication, segment, arm), -1 for
    nowhere. Returns the latest instant at which one was decided or left."""
    last = missing
    for i in range(len(template)):
        at = sent[i] if decided[i] == missing else decided[i]
        last = max(last, at, sent[i])
        t, a = template[i], arm_of[template[i], variant[i]]
        h = max((at - start) // refresh, 0)
        s = segment[i] + 1 if segments > 1 else 0
        row = ((h * arm_of.shape[0] + t) * reps + rep[i]) * segments + s
        out[i] = -1 if a < 0 else row * arms + a
    return last


@njit(cache=True, nogil=True)
def _in_last(cell, size, n):
    """The cell, or that of the last cohort where it lies beyond."""
    return cell if cell < n else n - size + cell % size


@njit(cache=True, nogil=True)
def tally(cell, use, close, sent, value, scale, weight, size, known_before, first, end, n, y, y2):
    """Added to n, y, y2, flat arrays of `cells`, `size` of them a cohort. `known_before` is the latest close that
    counts (`close` empty: all), [first, end) the instants of sending (`sent` empty: all), `weight` the part of a trial
    that each send is (empty: 1)."""
    for i in range(len(cell)):
        if cell[i] < 0 or not use[i] or (len(close) and close[i] > known_before):
            continue
        if len(sent) and (sent[i] < first or sent[i] >= end):
            continue
        c = _in_last(cell[i], size, len(n))
        v = value[i] * scale
        n[c] += weight[i] if len(weight) else 1.0
        y[c] += v
        y2[c] += v * v


@njit(cache=True, nogil=True)
def more(cell, use, close, sent, value, scale, propensity, minimise, size, known_before, first, end, out):
    """decided, positive, log, log2 and reward_ip, in one array with that axis first; else as `tally`. A reward without
    a propensity counts as if it had been certain."""
    for i in range(len(cell)):
        if cell[i] < 0 or not use[i]:
            continue
        c = _in_last(cell[i], size, out.shape[1])
        out[0, c] += 1.0  # of any age: what was sent was sent
        if (len(close) and close[i] > known_before) or (len(sent) and (sent[i] < first or sent[i] >= end)):
            continue
        v = value[i] * scale
        if v > 0:
            out[1, c] += 1.0
            out[2, c] += np.log(v)
            out[3, c] += np.log(v) ** 2
        p = propensity[i]
        out[4, c] += (1.0 - v if minimise else v) / (p if p > 0 else 1.0)


@njit(cache=True, nogil=True)
def _add(n, y, y2, c, sign, v):
    n[c] += sign
    y[c] += sign * v
    y2[c] += sign * v * v


@njit(cache=True, nogil=True)
def move(cell, was, old, use, value, unit, n, y, y2):
    """Take out of n, y, y2 what these sends counted for and add what they do now, outcomes in units. Whether that is
    exact (whole outcomes below 2^20, cohorts that there is room for), and the greatest outcome."""
    most, exact = 0, True
    for i in range(len(cell)):
        c = cell[i]
        if c < 0 or not (was[i] or use[i]):
            continue
        if c >= len(n) or value[i] % unit != 0 or value[i] < 0 or value[i] >> 20 >= unit:
            exact = False
            continue
        if was[i]:
            _add(n, y, y2, c, -1.0, float(old[i] // unit))
        if use[i]:
            most = max(most, value[i] // unit)
            _add(n, y, y2, c, 1.0, float(value[i] // unit))
    return exact, most


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
def _rank(u, rank, count):
    if rank[u] < 0:
        rank[u] = count
        return count + 1
    return count


@njit(cache=True, nogil=True)
def ranks(a, b, none, rank, of_a, of_b):
    """Users numbered from 0 as they come, first those in `a`, then those in `b`, where `none` stays -1; `rank` (users,)
    holds -1 before and after."""
    count = 0
    for i in range(len(a)):
        count = _rank(a[i], rank, count)
        of_a[i] = rank[a[i]]
    for i in range(len(b)):
        if b[i] == none:
            of_b[i] = -1
        else:
            count = _rank(b[i], rank, count)
            of_b[i] = rank[b[i]]
    for i in range(len(a)):
        rank[a[i]] = -1
    for i in range(len(b)):
        rank[b[i]] = -1


@njit(cache=True, nogil=True)
def unmark(accounts, mark):
    for a in accounts:
        mark[a] = False

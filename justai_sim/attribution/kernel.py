"""The compiled heart: for each conversion the qualifying sends of its user and their weights.

Imported only where it runs, so that `--help` never pays for the compiler. Sends are sorted by (user,
scope, class, anchor, send id), where class 0 has an anchor and was reached, 1 lacks the anchor, 2 was
not reached. A *run* is the stretch of one user and scope; its class-0 head is in time order, so a
window is found by bisection.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from justai_sim.tables import PARTS, REASON

CREDITED = REASON["credited"]
IN_OFFSET = REASON["in_offset"]
PAST = REASON["past_lookback"]
BEFORE = REASON["before_send"]
NO_ANCHOR = REASON["no_anchor"]
NOT_DELIVERED = REASON["not_delivered"]
NO_SEND = REASON["no_send"]
OUTSIDE = REASON["outside_engagement_window"]

LAST, LAST_THEN_CHECK, FIRST, ALL, ALL_VARIANTS, LINEAR, TIME_DECAY, POSITION = range(8)
WINDOW, TRUST, IGNORE, WINDOW_THEN_JOIN = range(4)

ONE = PARTS


@njit(cache=True, nogil=True)
def _position(age, day_age, window):
    """-1 too young, 0 qualifies, 1 too old. `age` in microseconds, `day_age` in local dates."""
    offset, upper, offset_days, upper_days, low_closed, high_closed, calendar = window
    if calendar:
        young = day_age < offset_days or (day_age == offset_days and not low_closed)
        old = day_age > upper_days or (day_age == upper_days and not high_closed)
    else:
        young = age < offset or (age == offset and not low_closed)
        old = age > upper or (age == upper and not high_closed)
    if young:
        return -1
    if old:
        return 1
    return 0


@njit(cache=True, nogil=True)
def _first_above(a, lo, hi, x):
    """The first index in [lo, hi) with a[i] > x, else hi."""
    while lo < hi:
        mid = (lo + hi) // 2
        if a[mid] > x:
            hi = mid
        else:
            lo = mid + 1
    return lo


@njit(cache=True, nogil=True)
def _in_scope(is_goal, template, variant, only_template, only_variant):
    """Whether a send may compete, given the goal and the partial ids on the event."""
    return (
        is_goal and (only_template < 0 or template == only_template) and (only_variant < 0 or variant == only_variant)
    )


@njit(cache=True, nogil=True)
def _weights(rule, ages, n, half_life, out):
    """Integer parts of 1e9 over n candidates in time order; largest remainder, later send first."""
    if rule == LINEAR:
        base = ONE // n
        rest = ONE - base * n
        for i in range(n):
            out[i] = base + (1 if i >= n - rest else 0)
    elif rule == POSITION:
        if n == 1:
            out[0] = ONE
        elif n == 2:
            out[0] = out[1] = ONE // 2
        else:
            out[0] = out[n - 1] = ONE * 2 // 5
            middle = ONE // 5
            base = middle // (n - 2)
            rest = middle - base * (n - 2)
            for i in range(1, n - 1):
                out[i] = base + (1 if i >= n - 1 - rest else 0)
    elif rule == TIME_DECAY:
        w = np.empty(n)
        total = 0.0
        for i in range(n):
            w[i] = 2.0 ** (-(ages[i] - ages[n - 1]) / half_life)
            total += w[i]
        part = np.empty(n)
        given = 0
        for i in range(n):
            x = w[i] / total * ONE
            out[i] = int(np.floor(x))
            part[i] = x - np.floor(x)
            given += out[i]
        # Largest remainder: at most n extra parts; a stable sort of the reversed list puts later sends first.
        order = np.argsort(-part[::-1], kind="mergesort")
        k = 0
        while given < ONE:
            out[n - 1 - order[k % n]] += 1
            given += 1
            k += 1
    else:
        for i in range(n):
            out[i] = ONE


@njit(cache=True, nogil=True)
def _grow(a, n):
    if n < len(a):
        return a
    b = np.empty(max(16, 2 * len(a)), a.dtype)
    b[: len(a)] = a
    return b


@njit(cache=True, nogil=True)
def conversions(
    t, day, name, only_template, only_variant, named, run_lo, run_hi,
    run_start, run_anchor_end, run_reached_end, run_end,
    anchor, anchor_day, template, variant, klass, goal,
    credit, explicit, window, slack, half_life, per_template,
):  # fmt: skip
    """Reasons (n,), and credits (event, send, weight) over the given conversions and sorted sends.

    `named[i]` is the resolved named send or -1; `run_lo[i]:run_hi[i]` are the runs of the user;
    `goal[template, name + 1]` says whether the name is a goal; `window` is (offset, upper edge, both in
    days, whether each end is closed, calendar); `slack` widens the bisection where local dates judge.
    """
    n = len(t)
    reason = np.empty(n, np.int8)
    c_event = np.empty(max(16, n), np.int64)
    c_send = np.empty(max(16, n), np.int64)
    c_weight = np.empty(max(16, n), np.int64)
    count = 0
    found = np.empty(64, np.int64)
    ages = np.empty(64, np.float64)
    weight = np.empty(64, np.int64)
    for i in range(n):
        ti, di, g = t[i], day[i], name[i] + 1
        s = named[i]
        if s >= 0 and explicit != IGNORE and goal[template[s], g]:
            if klass[s] == 2:
                verdict = NOT_DELIVERED
            elif explicit == TRUST:
                verdict = CREDITED
            elif klass[s] == 1:
                verdict = NO_ANCHOR
            elif anchor[s] > ti:
                verdict = BEFORE
            else:
                p = _position(ti - anchor[s], di - anchor_day[s], window)
                verdict = CREDITED if p == 0 else (IN_OFFSET if p < 0 else PAST)
            if verdict == CREDITED:
                c_event, c_send, c_weight = (
                    _grow(c_event, count),
                    _grow(c_send, count),
                    _grow(c_weight, count),
                )
                c_event[count], c_send[count], c_weight[count] = i, s, ONE
                count += 1
            if verdict == CREDITED or explicit != WINDOW_THEN_JOIN:
                reason[i] = verdict
                continue
        best = NO_SEND
        tpl, var = only_template[i], only_variant[i]
        for r in range(run_lo[i], run_hi[i]):
            start, last = run_start[r], run_anchor_end[r]
            if per_template and (not goal[template[start], g] or (tpl >= 0 and template[start] != tpl)):
                continue
            plain = var < 0 and per_template
            hi = _first_above(anchor, start, last, ti)
            lo = _first_above(anchor, start, hi, ti - window[1] - slack - 1)
            # Sends that are too young cannot win: a user may have thousands of them.
            stop = hi if credit == LAST_THEN_CHECK else _first_above(anchor, lo, hi, ti - window[0] + slack)
            m = 0
            j = lo if credit == FIRST else stop - 1
            while (j < stop) if credit == FIRST else (j >= lo):
                if plain or _in_scope(goal[template[j], g], template[j], variant[j], tpl, var):
                    p = _position(ti - anchor[j], di - anchor_day[j], window)
                    if p == 0:
                        seen = False
                        if credit == ALL_VARIANTS:
                            for k in range(m):
                                if template[found[k]] == template[j] and variant[found[k]] == variant[j]:
                                    seen = True
                                    break
                        if not seen:
                            if m >= len(found):
                                found = _grow(found, m)
                            found[m] = j
                            m += 1
                        if credit == LAST or credit == FIRST:
                            break
                    if credit == LAST_THEN_CHECK:
                        break
                j += 1 if credit == FIRST else -1
            if m > 0:
                if m > len(ages):
                    ages = np.empty(2 * m, np.float64)
                if m > len(weight):
                    weight = np.empty(2 * m, np.int64)
                for k in range(m):  # found is newest first (one element under FIRST): weights want time order
                    ages[k] = ti - anchor[found[m - 1 - k]]
                _weights(credit, ages, m, half_life, weight)
                for k in range(m):
                    c_event, c_send = _grow(c_event, count), _grow(c_send, count)
                    c_weight = _grow(c_weight, count)
                    c_event[count], c_send[count], c_weight[count] = i, found[m - 1 - k], weight[k]
                    count += 1
                best = min(best, CREDITED)
                continue
            why = _why_not(ti, di, g, tpl, var, plain, start, hi, last, run_reached_end[r], run_end[r],
                           anchor, anchor_day, template, variant, goal, window)  # fmt: skip
            best = min(best, why)
        reason[i] = best
    return reason, c_event[:count], c_send[:count], c_weight[:count]


@njit(cache=True, nogil=True)
def _why_not(
    ti, di, g, tpl, var, plain, start, hi, last, reached_end, end,
    anchor, anchor_day, template, variant, goal, window,
):  # fmt: skip
    """The reason of a run that gave no credit."""
    for j in range(hi - 1, start - 1, -1):
        if plain or _in_scope(goal[template[j], g], template[j], variant[j], tpl, var):
            p = _position(ti - anchor[j], di - anchor_day[j], window)
            return IN_OFFSET if p < 0 else PAST
    for j in range(hi, end):
        if plain or _in_scope(goal[template[j], g], template[j], variant[j], tpl, var):
            if j < last:
                return BEFORE
            if j < reached_end:
                return NO_ANCHOR
            return NOT_DELIVERED
    return NO_SEND


@njit(cache=True, nogil=True)
def joined_engagement(t, only_template, only_variant, lo, hi, sent, template, variant, reached, ghost, window):
    """For engagement without an id: (reason, send index or -1); sends sorted by (user, sent_at, id)."""
    n = len(t)
    reason = np.empty(n, np.int8)
    attached = np.full(n, -1, np.int64)
    for i in range(n):
        tpl, var, ti = only_template[i], only_variant[i], t[i]
        best = NO_SEND
        stop = _first_above(sent, lo[i], hi[i], ti)
        for j in range(stop - 1, lo[i] - 1, -1):
            if (tpl >= 0 and template[j] != tpl) or (var >= 0 and variant[j] != var):
                continue
            if ghost[j] or not reached[j]:
                best = min(best, NOT_DELIVERED)
                continue
            if ti - sent[j] < window:
                best = CREDITED
                attached[i] = j
            else:
                best = OUTSIDE
            break
        if attached[i] < 0 and best != OUTSIDE:
            for j in range(stop, hi[i]):
                if (tpl >= 0 and template[j] != tpl) or (var >= 0 and variant[j] != var):
                    continue
                best = min(best, BEFORE if reached[j] and not ghost[j] else NOT_DELIVERED)
                if best == BEFORE:
                    break
        reason[i] = best
    return reason, attached

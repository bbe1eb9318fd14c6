"""The compiled part of the ledger that finds what to look at, and writes down what changed.

Imported only where it runs. Tables are those of `ledger_store`; `n` holds their lengths in the order of
`Store.COUNTS`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from justai_sim.attribution.ledger_kernel import _joined, _root
from justai_sim.attribution.ledger_store import ALWAYS, DEEP, IMPROVABLE, RUN_DEEP, SEVERAL, SHOWN
from justai_sim.tables import CLICK, CONVERSION, OPEN, PARTS, REASON

CREDITED = REASON["credited"]
NO_ANCHOR_REASON, NOT_DELIVERED, NO_SEND = REASON["no_anchor"], REASON["not_delivered"], REASON["no_send"]
FULL = float(np.iinfo(np.int64).max)
ONE = PARTS


# --- what is looked at -------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _grow(a, n):
    """The array with a place n."""
    if n < len(a):
        return a
    b = np.empty(max(1024, 2 * n), a.dtype)
    b[: len(a)] = a
    return b


@njit(cache=True, nogil=True)
def _context(ev, j, extra):
    """Until when an event row may matter: an open or click may set an anchor long after it is settled itself."""
    return ev.until[j] + extra if ev.kind[j] == OPEN or ev.kind[j] == CLICK else ev.until[j]


@njit(cache=True, nogil=True)
def _remember(ids, s, j, goal_class, mask):
    """Note in `mask` that the user of send row j has had a closed send of its class."""
    i = s.id[j]
    if ids.row[i] == j:
        mask[s.user[j]] |= np.int64(1) << (4 * goal_class[s.template[j]] + ids.klass[i])


@njit(cache=True, nogil=True)
def gather(acc, ids, s, ev, roots, settled, extra, goal_class, always):
    """Positions of the send and event rows that the accounts must be attributed with.

    Rows closed at `settled`, the instant of the last settle, turn cold on the way; an account that must be seen
    whole gets all its rows back.
    """
    sends, events = np.empty(1024, np.int64), np.empty(1024, np.int64)
    ns = ne = ms = me = 0
    front, at = np.empty(len(roots), np.int32), np.empty(len(roots), np.int32)
    front_e, at_e = np.empty(len(roots), np.int32), np.empty(len(roots), np.int32)
    for k in range(len(roots)):
        r = roots[k]
        deep = always or (acc.flag[r] & (DEEP | ALWAYS)) != 0 or acc.deep_until[r] > settled
        if deep:
            last = acc.deep_until[r]
            acc.hot_send[r] = _joined(acc.hot_send[r], acc.cold_send[r], s.next)
            acc.hot_event[r] = _joined(acc.hot_event[r], acc.cold_event[r], ev.next)
            acc.cold_send[r] = acc.cold_event[r] = -1
            j = acc.hot_send[r]
            while j >= 0:
                acc.closed[s.user[j]] = acc.forgotten[s.user[j]]
                last = max(last, ids.until[s.id[j]])
                sends = _grow(sends, ns)
                sends[ns] = j
                ns += 1
                j = s.next[j]
            j = acc.hot_event[r]
            while j >= 0:
                last = max(last, _context(ev, j, extra))
                events = _grow(events, ne)
                events[ne] = j
                ne += 1
                j = ev.next[j]
            if acc.flag[r] & DEEP:
                acc.deep_until[r] = last
            acc.flag[r] = (acc.flag[r] & ~(DEEP | IMPROVABLE)) | RUN_DEEP
            continue
        if acc.hot_send[r] >= 0:
            front[ms], at[ms] = acc.hot_send[r], r
            acc.hot_send[r] = -1
            ms += 1
        if acc.hot_event[r] >= 0:
            front_e[me], at_e[me] = acc.hot_event[r], r
            acc.hot_event[r] = -1
            me += 1
    # All lists are walked side by side: following one to its end waits for memory at every step.
    while ms > 0:
        m, ms = ms, 0
        sends = _grow(sends, ns + m)
        for k in range(m):
            j, r = front[k], at[k]
            after, until = s.next[j], s.until[j]
            if until == SEVERAL:
                until = ids.until[s.id[j]]
            if until <= settled:
                _remember(ids, s, j, goal_class, acc.closed)
                s.next[j], acc.cold_send[r] = acc.cold_send[r], j
            else:
                s.next[j], acc.hot_send[r] = acc.hot_send[r], j
                sends[ns] = j
                ns += 1
            if after >= 0:
                front[ms], at[ms] = after, r
                ms += 1
    while me > 0:
        m, me = me, 0
        events = _grow(events, ne + m)
        for k in range(m):
            j, r = front_e[k], at_e[k]
            after = ev.next[j]
            if _context(ev, j, extra) <= settled:
                ev.next[j], acc.cold_event[r] = acc.cold_event[r], j
            else:
                ev.next[j], acc.hot_event[r] = acc.hot_event[r], j
                events[ne] = j
                ne += 1
            if after >= 0:
                front_e[me], at_e[me] = after, r
                me += 1
    return sends[:ns].copy(), events[:ne].copy()


@njit(cache=True, nogil=True)
def dense(acc, s, ev, sends, events, roots, settled, horizon):
    """Users as small integers, which events are judged, and the old sends to be represented.

    Events are judged that were open after `settled`, in accounts seen whole after `horizon`.
    Returns users of sends and events, `live` of events, and (user, kind of goal, class) of what is represented.
    """
    su, eu = np.empty(len(sends), np.int64), np.empty(len(events), np.int64)
    live = np.empty(len(events), np.bool_)
    who, what, klass = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.int64)
    users = m = 0
    for k in range(len(sends)):
        u = s.user[sends[k]]
        if acc.local[u] < 0:
            acc.local[u] = users
            users += 1
        su[k] = acc.local[u]
    for k in range(len(events)):
        j = events[k]
        u = ev.owner[j]
        deep = (acc.flag[_root(acc, u)] & RUN_DEEP) != 0
        live[k] = ev.until[j] > (horizon if deep else settled)
        if acc.local[u] < 0:
            acc.local[u] = users
            users += 1
        eu[k] = acc.local[u] if ev.user[j] >= 0 else -1
        mask = acc.forgotten[u] if deep else acc.closed[u]
        if mask != 0 and not acc.flag[u] & SHOWN:
            acc.flag[u] |= SHOWN
            b = 0
            while mask >> b != 0:  # nearly always only the lowest bit is set
                if mask >> b & 1:
                    who, what, klass = _grow(who, m), _grow(what, m), _grow(klass, m)
                    who[m], what[m], klass[m] = acc.local[u], b // 4, b % 4
                    m += 1
                b += 1
    for k in range(len(sends)):
        acc.local[s.user[sends[k]]] = -1
    for k in range(len(events)):
        acc.local[ev.owner[events[k]]] = -1
        acc.flag[ev.owner[events[k]]] &= ~SHOWN
    for k in range(len(roots)):
        acc.flag[roots[k]] &= ~RUN_DEEP
    return su, eu, live, who[:m].copy(), what[:m].copy(), klass[:m].copy()


@njit(cache=True, nogil=True)
def picked(a, at):
    """a[at] as int64, shape (m,)."""
    out = np.empty(len(at), np.int64)
    for k in range(len(at)):
        out[k] = a[at[k]]
    return out


# --- what changed ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _share(value, weight):
    """value x weight / 1e9 towards zero, without overflow (as `events.money_share`)."""
    size = abs(value)
    share = (size // ONE) * weight + (size % ONE) * weight // ONE
    return share if value >= 0 else -share


@njit(cache=True, nogil=True)
def _account_for(ids, i, kind, paid, amount, weight, sign):
    """Add a credit to what its send earned, or take it back; whether that would be beyond int64."""
    if kind != CONVERSION:
        return False
    if paid:
        ids.weight[i] += sign * weight
    share = _share(amount, weight)
    if abs(float(ids.revenue[i]) + float(sign) * float(share)) > FULL * 0.999999:
        return True
    ids.revenue[i] += sign * share
    return False


@njit(cache=True, nogil=True)
def differs(ev, pool, events, reason, start, c_id, c_weight):
    """Event rows whose reason or credits are not those that stand, shape (m,)."""
    out = np.zeros(len(events), np.bool_)
    for k in range(len(events)):
        j = events[k]
        p, c = ev.credit[j], start[k]
        while p >= 0 and c < start[k + 1] and pool.id[p] == c_id[c] and pool.weight[p] == c_weight[c]:
            p = pool.next[p]
            c += 1
        out[k] = p >= 0 or c < start[k + 1] or reason[k] != ev.reason[j]
    return out


@njit(cache=True, nogil=True)
def book(acc, ids, ev, pool, n, events, live, changed, reason, start, c_id, c_weight, amount):
    """Write credits and reasons of the rows that changed; returns the signed changes and whether money overflows.

    Credits of gathered event k are c_id, c_weight [start[k]:start[k + 1]], by rising id.
    """
    row, send, weight = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024, np.int64)
    m = 0
    over = False
    for k in range(len(events)):
        j = events[k]
        if live[k] and (reason[k] == NO_SEND or reason[k] == NOT_DELIVERED or reason[k] == NO_ANCHOR_REASON):
            acc.flag[_root(acc, ev.owner[j])] |= IMPROVABLE
        if not changed[k]:
            continue
        kind, was_paid, is_paid = ev.kind[j], ev.reason[j] == CREDITED, reason[k] == CREDITED
        p, c = ev.credit[j], start[k]
        while p >= 0 or c < start[k + 1]:
            i, delta = -1, 0
            old = p >= 0 and (c >= start[k + 1] or pool.id[p] <= c_id[c])
            new = c < start[k + 1] and (p < 0 or c_id[c] <= pool.id[p])
            if old:
                i, delta = pool.id[p], -pool.weight[p]
                over |= _account_for(ids, i, kind, was_paid, amount[k], pool.weight[p], -1)
                after = pool.next[p]
                pool.next[p] = n[5]  # back to the unused ones
                n[5] = p
                p = after
            if new:
                i = c_id[c]
                delta += c_weight[c]
                over |= _account_for(ids, i, kind, is_paid, amount[k], c_weight[c], 1)
                c += 1
            if delta != 0:
                row, send, weight = _grow(row, m), _grow(send, m), _grow(weight, m)
                row[m], send[m], weight[m] = j, i, delta
                m += 1
        head = -1
        for c in range(start[k + 1] - 1, start[k] - 1, -1):
            p = n[5]
            if p >= 0:
                n[5] = pool.next[p]
            else:
                p = n[4]
                n[4] += 1
            pool.id[p], pool.weight[p], pool.next[p] = c_id[c], c_weight[c], head
            head = p
        ev.credit[j], ev.reason[j] = head, reason[k]
    return row[:m].copy(), send[:m].copy(), weight[:m].copy(), over


# --- forgetting --------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def retire(acc, ids, s, n, gone, goal_class):
    """Note the classes of send rows about to be forgotten."""
    for j in range(n[2]):
        if gone[j]:
            _remember(ids, s, j, goal_class, acc.closed)
            _remember(ids, s, j, goal_class, acc.forgotten)


@njit(cache=True, nogil=True)
def close_up(table, rows):
    """Move these rows (rising) to the front, in place."""
    for k in range(len(rows)):
        if rows[k] != k:
            table[k] = table[rows[k]]


@njit(cache=True, nogil=True)
def repool(ev, pool, n, new):
    """The credits of the event rows that are left, in a pool without gaps."""
    m = 0
    for j in range(n[3]):
        p, last = ev.credit[j], -1
        ev.credit[j] = -1
        while p >= 0:
            new.id[m], new.weight[m], new.next[m] = pool.id[p], pool.weight[p], -1
            if last < 0:
                ev.credit[j] = m
            else:
                new.next[last] = m
            last = m
            m += 1
            p = pool.next[p]
    n[4], n[5] = m, -1
    return new


@njit(cache=True, nogil=True)
def relink(acc, ids, s, ev, n, settled, extra, goal_class):
    """Hang every row into its account anew."""
    for a in range(n[0]):
        acc.hot_send[a] = acc.hot_event[a] = acc.cold_send[a] = acc.cold_event[a] = -1
    for j in range(n[2]):
        r = _root(acc, s.user[j])
        if ids.until[s.id[j]] <= settled:
            _remember(ids, s, j, goal_class, acc.closed)
            s.next[j], acc.cold_send[r] = acc.cold_send[r], j
        else:
            s.next[j], acc.hot_send[r] = acc.hot_send[r], j
    for j in range(n[3]):
        r = _root(acc, ev.owner[j])
        if _context(ev, j, extra) <= settled:
            ev.next[j], acc.cold_event[r] = acc.cold_event[r], j
        else:
            ev.next[j], acc.hot_event[r] = acc.hot_event[r], j

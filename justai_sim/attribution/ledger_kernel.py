"""The compiled part of the ledger that takes rows in: indices of ids, accounts, the stored rows.

Imported only where it runs. Tables are those of `ledger_store`; `n` holds their lengths in the order of
`Store.COUNTS`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from justai_sim.attribution.ledger_store import ALWAYS, DEEP, DIRTY, IMPROVABLE, SEVERAL, STRAY_EVENT, STRAY_ORDER
from justai_sim.clock import MISSING
from justai_sim.tables import BOUNCE, CONVERSION, DELIVERY, DROP

# --- indices -----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _mix(a, b):
    """64 well-mixed bits of two integers (the finaliser of splitmix64), never 0."""
    z = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(b)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) | np.uint64(1 << 62))


@njit(cache=True, nogil=True)
def index(first, second, count, size):
    """Open-addressing index of the first `count` keys, `size` places."""
    slot = np.full(size, -1, np.int32)
    for i in range(count):
        h = _mix(first[i], second[i]) & (size - 1)
        while slot[h] >= 0:
            h = (h + 1) & (size - 1)
        slot[h] = i
    return slot


@njit(cache=True, nogil=True)
def _account(acc, n, slot, tag, code):
    """The node of (tag, code), made if there is none."""
    h = _mix(tag, code) & (len(slot) - 1)
    while slot[h] >= 0:
        i = slot[h]
        if acc.code[i] == code and acc.tag[i] == tag:
            return i
        h = (h + 1) & (len(slot) - 1)
    i = n[0]
    n[0] += 1
    slot[h] = i
    acc.tag[i], acc.code[i], acc.parent[i], acc.local[i] = tag, code, i, -1
    acc.hot_send[i] = acc.hot_event[i] = acc.cold_send[i] = acc.cold_event[i] = -1
    acc.flag[i], acc.deep_until[i], acc.closed[i], acc.forgotten[i] = 0, MISSING, 0, 0
    return np.int32(i)


@njit(cache=True, nogil=True)
def _id(ids, n, slot, rep, code):
    """The place of a send id; a new one has no account yet."""
    h = _mix(rep, code) & (len(slot) - 1)
    while slot[h] >= 0:
        i = slot[h]
        if ids.code[i] == code and ids.rep[i] == rep:
            return i
        h = (h + 1) & (len(slot) - 1)
    i = n[1]
    n[1] += 1
    slot[h] = i
    ids.rep[i], ids.code[i], ids.account[i], ids.row[i], ids.rows[i] = rep, code, -1, -1, 0
    ids.until[i] = ids.final_at[i] = MISSING
    ids.klass[i], ids.told[i], ids.weight[i], ids.revenue[i] = 0, 0, 0, 0
    return np.int32(i)


@njit(cache=True, nogil=True)
def _print(n, prints, key):
    """The place of a fingerprint; a new one has row -1. Two keys with one print only cost time."""
    h = key & (len(prints) - 1)
    while prints.key[h] != 0:
        if prints.key[h] == key:
            return h
        h = (h + 1) & (len(prints) - 1)
    prints.key[h] = key
    n[6] += 1
    return h


@njit(cache=True, nogil=True)
def _print_event(ev, i, n, prints):
    """Enter the ids of event row i; (whether one was there before, place of the event id)."""
    h = _print(n, prints, _mix(_mix(ev.owner[i], 1), ev.event[i]))
    met = prints.row[h] >= 0
    if not met or _before(ev, i, prints.row[h]):
        prints.row[h] = i
    if ev.kind[i] == CONVERSION and ev.order[i] >= 0:
        g = _print(n, prints, _mix(_mix(ev.owner[i], 2), ev.order[i]))
        met |= prints.row[g] >= 0
        prints.row[g] = i
    return met


@njit(cache=True, nogil=True)
def _before(ev, i, j):
    """Row i is as good a first copy as row j in every respect."""
    return ev.occurred_at[i] <= ev.occurred_at[j] and ev.received_at[i] <= ev.received_at[j]


@njit(cache=True, nogil=True)
def print_all(ev, n, prints):
    n[6] = 0
    for i in range(n[3]):
        _print_event(ev, i, n, prints)


# --- accounts ----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _root(acc, i):
    while acc.parent[i] != i:
        acc.parent[i] = acc.parent[acc.parent[i]]
        i = acc.parent[i]
    return i


@njit(cache=True, nogil=True)
def _joined(a, b, next_row):
    """Two lists as one."""
    if a < 0:
        return b
    if b < 0:
        return a
    i = b
    while next_row[i] >= 0:
        i = next_row[i]
    next_row[i] = a
    return b


@njit(cache=True, nogil=True)
def _union(acc, s, ev, a, b):
    """One account of two; all its rows are looked at again."""
    a, b = _root(acc, a), _root(acc, b)
    if a == b:
        return
    acc.parent[b] = a
    acc.hot_send[a] = _joined(acc.hot_send[a], acc.hot_send[b], s.next)
    acc.cold_send[a] = _joined(acc.cold_send[a], acc.cold_send[b], s.next)
    acc.hot_event[a] = _joined(acc.hot_event[a], acc.hot_event[b], ev.next)
    acc.cold_event[a] = _joined(acc.cold_event[a], acc.cold_event[b], ev.next)
    acc.deep_until[a] = max(acc.deep_until[a], acc.deep_until[b])
    acc.flag[a] |= acc.flag[b] | DEEP


AHEAD = 256


@njit(cache=True, nogil=True)
def _read_ahead(acc, account_slot, id_slot, rep, user, send, lo, hi):
    """Touch what the next rows will need, many at a time, so that memory answers them together."""
    seen = 0
    for k in range(lo, hi):
        seen += account_slot[_mix(np.int64(4) * rep[k], user[k]) & (len(account_slot) - 1)]
        if send[k] >= 0:
            seen += id_slot[_mix(rep[k], send[k]) & (len(id_slot) - 1)]
    for k in range(lo, hi):
        i = account_slot[_mix(np.int64(4) * rep[k], user[k]) & (len(account_slot) - 1)]
        if i >= 0:
            seen += acc.flag[i] + acc.code[i]
    return seen


@njit(cache=True, nogil=True)
def enter_sends(
    acc, ids, s, ev, n, account_slot, id_slot, settled, touched,
    rep, send, user, template, variant, sent, delivered, status, status_known, received, until, final_at,
):  # fmt: skip
    """Store send rows; `touched` (m,) gets a node of the account of each, -1 where the row tells nothing new."""
    seen = 0
    for k in range(len(send)):
        if k % AHEAD == 0:
            seen += _read_ahead(acc, account_slot, id_slot, rep, user, send, k, min(k + AHEAD, len(send)))
        u = _account(acc, n, account_slot, np.int64(4) * rep[k], user[k])
        i = _id(ids, n, id_slot, rep[k], send[k])
        r = ids.row[i]
        touched[k] = -1
        if (
            r >= 0 and s.user[r] == u and s.sent_at[r] == sent[k] and s.received_at[r] <= received[k]
            and s.template[r] == template[k] and s.variant[r] == variant[k] and s.status[r] == status[k]
            and s.delivered_at[r] == delivered[k] and s.status_known_at[r] <= status_known[k]
        ):  # fmt: skip
            continue  # delivered twice
        deep = received[k] <= settled
        if ids.account[i] < 0:
            ids.account[i] = u
        else:
            deep = True
            _union(acc, s, ev, ids.account[i], u)
        at = _root(acc, u)
        if r < 0:
            ids.row[i], ids.final_at[i] = n[2], final_at[k]
        elif s.user[r] != u:
            acc.flag[at] |= ALWAYS
        ids.rows[i] += 1
        ids.until[i] = max(ids.until[i], until[k])
        if deep or acc.flag[at] & IMPROVABLE:
            acc.flag[at] |= DEEP
        j = n[2]
        n[2] += 1
        s.id[j], s.user[j], s.template[j], s.variant[j], s.sent_at[j] = i, u, template[k], variant[k], sent[k]
        s.delivered_at[j], s.status[j], s.status_known_at[j] = delivered[k], status[k], status_known[k]
        s.received_at[j], s.next[j] = received[k], acc.hot_send[at]
        s.until[j] = ids.until[i]
        if r >= 0:
            s.until[j] = s.until[r] = SEVERAL
        acc.hot_send[at] = j
        acc.flag[at] |= DIRTY
        touched[k] = u
    return seen  # so that the compiler does not leave it out


@njit(cache=True, nogil=True)
def enter_events(
    acc, ids, s, ev, n, account_slot, id_slot, prints, settled, anchored, delivered, ignore, touched,
    serial, rep, event, user, kind, machine, name, currency, send, order, template, variant,
    occurred, received, value, until,
):  # fmt: skip
    """Store event rows; `touched` (m,) gets a node of the account of each, -1 for a copy that can never count.

    `anchored`: anchors come of events; `delivered`: of deliveries; `ignore`: ids on conversions say nothing.
    """
    seen = 0
    for k in range(len(event)):
        if k % AHEAD == 0:
            seen += _read_ahead(acc, account_slot, id_slot, rep, user, send, k, min(k + AHEAD, len(event)))
        touched[k] = -1
        tag = np.int64(4) * rep[k]
        u = np.int32(-1)
        if user[k] >= 0:
            u = _account(acc, n, account_slot, tag, user[k])
            if _is_late_copy(ev, prints, u, event[k], occurred[k], received[k]):
                continue
        deep = received[k] <= settled or template[k] >= 0 or variant[k] >= 0
        i = np.int32(-1)
        if send[k] >= 0:
            i = _id(ids, n, id_slot, rep[k], send[k])
        owner = u
        stray = False
        if u < 0:
            lead = ids.row[i] if i >= 0 else -1
            if lead >= 0 and not (ignore and kind[k] == CONVERSION):
                owner = s.user[lead]
            else:
                stray, deep = True, True
                owner = _account(acc, n, account_slot, tag + STRAY_EVENT, event[k])
                if order[k] >= 0:
                    _union(acc, s, ev, owner, _account(acc, n, account_slot, tag + STRAY_ORDER, order[k]))
        if i >= 0:
            if ids.account[i] < 0:
                ids.account[i] = owner
            elif _root(acc, ids.account[i]) != _root(acc, owner):
                _union(acc, s, ev, ids.account[i], owner)
                deep = True
            if ids.row[i] >= 0 and ids.until[i] < until[k]:
                ids.until[i] = until[k]
                if ids.rows[i] == 1:
                    s.until[ids.row[i]] = until[k]
                deep = True
            if kind[k] == BOUNCE or kind[k] == DROP or (kind[k] == DELIVERY and delivered):
                deep = True
        at = _root(acc, owner)
        if stray:
            acc.flag[at] |= ALWAYS
        if anchored and kind[k] != CONVERSION and acc.flag[at] & IMPROVABLE:
            deep = True
        j = n[3]
        n[3] += 1
        ev.serial[j], ev.event[j], ev.rep[j], ev.user[j], ev.owner[j] = serial[k], event[k], rep[k], u, owner
        ev.kind[j], ev.machine[j], ev.reason[j], ev.name[j] = kind[k], machine[k], -1, name[k]
        ev.currency[j], ev.id[j], ev.order[j], ev.template[j] = currency[k], i, order[k], template[k]
        ev.variant[j], ev.occurred_at[j], ev.received_at[j] = variant[k], occurred[k], received[k]
        ev.value[j], ev.until[j], ev.credit[j], ev.next[j] = value[k], until[k], -1, acc.hot_event[at]
        acc.hot_event[at] = j
        deep |= _print_event(ev, j, n, prints)
        acc.flag[at] |= DIRTY | DEEP if deep else DIRTY
        touched[k] = owner
    return seen


@njit(cache=True, nogil=True)
def _is_late_copy(ev, prints, user, event, occurred, received):
    """A stored row of the same user and event id comes before this one, whatever else will be heard."""
    key = _mix(_mix(user, 1), event)
    h = key & (len(prints) - 1)
    while prints.key[h] != 0:
        if prints.key[h] == key:
            j = prints.row[h]
            return (
                ev.user[j] == user and ev.event[j] == event
                and ev.occurred_at[j] <= occurred and ev.received_at[j] <= received
            )  # fmt: skip
        h = (h + 1) & (len(prints) - 1)
    return False


@njit(cache=True, nogil=True)
def wake(acc, nodes, flag):
    """Flag the accounts of the nodes."""
    for k in range(len(nodes)):
        acc.flag[_root(acc, nodes[k])] |= flag


@njit(cache=True, nogil=True)
def roots(acc, touched):
    """The accounts to look at, each once; their DIRTY flag goes out."""
    out = np.empty(len(touched), np.int32)
    m = 0
    for k in range(len(touched)):
        if touched[k] >= 0:
            r = _root(acc, touched[k])
            if acc.flag[r] & DIRTY:
                acc.flag[r] &= ~DIRTY
                out[m] = r
                m += 1
    return out[:m].copy()


@njit(cache=True, nogil=True)
def outside(columns, low, high, missing):
    """The first (column, row) with a value outside [low, high) that is not `missing`; (-1, -1) for none."""
    for c in range(len(columns)):
        a = columns[c]
        for i in range(len(a)):
            if (a[i] < low[c] or a[i] >= high[c]) and a[i] != missing[c]:
                return c, i
    return -1, -1

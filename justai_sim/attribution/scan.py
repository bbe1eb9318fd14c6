"""Compiled passes over whole columns: what is in them, and the newest qualifying send in one go.

Sends and conversions in time order need no sorting by user: one cursor goes through the sends, a table holds the
newest of each *lane* (user and scope). Imported only where it runs. Large arrays that are written at random come from
the caller: numpy asks for huge pages, the compiler's own allocation does not, and that halves the time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from justai_sim.clock import MISSING
from justai_sim.tables import BOUNCE, CONVERSION, REASON

CREDITED = REASON["credited"]
IN_OFFSET = REASON["in_offset"]
PAST = REASON["past_lookback"]
BEFORE = REASON["before_send"]
NO_ANCHOR = REASON["no_anchor"]
NO_SEND = REASON["no_send"]


@njit(cache=True, nogil=True)
def look_sends(rep, user, send, sent, received, status, limit, lateness):
    """(rows unknown or late, rows clamped, rows with a status, ids strictly rising, in (time, id) order,
    least and greatest instant, least and greatest user, greatest id, several replications)."""
    out = clamped = told = reps = 0
    rising = ordered = True
    low, high = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    least, most, top = np.int64(0), np.int64(-1), np.int64(-1)
    for i in range(len(sent)):
        t, r = sent[i], received[i]
        if r == MISSING:
            r = t
        low, high = min(low, t, r), max(high, t, r)
        if t > r:
            clamped += 1
            t = r
        out += (r > limit) | (r - t > lateness)
        told += status[i] != 0
        least, most, top = min(least, user[i]), max(most, user[i]), max(top, send[i])
        reps |= rep[i]
        if i > 0:
            up = send[i] > send[i - 1]
            rising &= up
            ordered &= (t > sent[i - 1]) | ((t == sent[i - 1]) & up)
    return out, clamped, told, rising, ordered, low, high, least, most, top, reps


EVENT_LOOK = (
    "out", "clamped", "status", "engagement", "named", "partial", "machine", "ordered_goods", "negative",
    "foreign", "rising", "in_time", "low", "high", "top_user", "top_send", "reps",
)  # fmt: skip


@njit(cache=True, nogil=True)
def look_events(
    rep, event, user, kind, occurred, received, value, currency, send, order, template, variant, machine,
    limit, lateness,
):  # fmt: skip
    """How many rows have what (EVENT_LOOK): all that decides which checks have work to do."""
    out = clamped = status = engagement = named = partial = flagged = orders = negative = foreign = 0
    reps = 0
    rising = in_time = True
    low, high = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    top_user, top_send = np.int64(-1), np.int64(-1)
    for i in range(len(occurred)):
        t, r = occurred[i], received[i]
        if r == MISSING:
            r = t
        low, high = min(low, t, r), max(high, t, r)
        if t > r:
            clamped += 1
            t = r
        out += (r > limit) | (r - t > lateness)
        status += kind[i] >= BOUNCE
        engagement += (kind[i] != CONVERSION) & (kind[i] < BOUNCE)
        named += send[i] >= 0
        partial += (template[i] >= 0) | (variant[i] >= 0)
        flagged += machine[i] == 1
        orders += order[i] >= 0
        negative += (value[i] != MISSING) & (value[i] < 0)
        foreign += currency[i] >= 0
        top_user, top_send = max(top_user, user[i]), max(top_send, send[i])
        reps |= rep[i]
        if i > 0:
            rising &= event[i] > event[i - 1]
            in_time &= t >= occurred[i - 1]
    return (
        out, clamped, status, engagement, named, partial, flagged, orders, negative, foreign,
        int(rising), int(in_time), low, high, top_user, top_send, reps,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def repeats(code, low, span):
    """Whether a code occurs twice; codes lie in [low, low + span)."""
    seen = np.zeros(span, np.bool_)
    for i in range(len(code)):
        c = code[i] - low
        if seen[c]:
            return True
        seen[c] = True
    return False


@njit(cache=True, nogil=True)
def _slot(key, mask):
    """Where the search for a key begins (Fibonacci hashing, Knuth 6.4)."""
    return ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & np.uint64(mask)


@njit(cache=True, nogil=True)
def hang(keys, table):
    """Positions of distinct keys into `table`, all -1 before, a power of two and at least twice as long."""
    mask = len(table) - 1
    for i in range(len(keys)):
        at = _slot(keys[i], mask)
        while table[at] >= 0:
            at = (at + np.uint64(1)) & np.uint64(mask)
        table[at] = i


@njit(cache=True, nogil=True)
def found(keys, table, wanted):
    """The positions that `hang` gave to these keys, -1 where there is none."""
    mask, out = len(table) - 1, np.empty(len(wanted), np.int64)
    for i in range(len(wanted)):
        at = _slot(wanted[i], mask)
        while table[at] >= 0 and keys[table[at]] != wanted[i]:
            at = (at + np.uint64(1)) & np.uint64(mask)
        out[i] = table[at] if wanted[i] >= 0 else -1
    return out


@njit(cache=True, nogil=True)
def counting_order(key, size, order):
    """`order` sorted stably by key[order], keys in [0, size); and the start of each key (size + 1,)."""
    start = np.zeros(size + 1, np.int64)
    for i in range(len(order)):
        start[key[order[i]] + 1] += 1
    for k in range(size):
        start[k + 1] += start[k]
    place = start[:-1].copy()
    out = np.empty(len(order), np.int64)
    for i in range(len(order)):
        k = key[order[i]]
        out[place[k]] = order[i]
        place[k] += 1
    return out, start


@njit(cache=True, nogil=True)
def sum_by(index, value, n):
    """Exact integer sums of `value` by `index`, shape (n,)."""
    out = np.zeros(n, np.int64)
    for i in range(len(index)):
        out[index[i]] += value[i]
    return out


@njit(cache=True, nogil=True)
def qualifying(lane, anchor, who, t, least, most, scopes, table, out):
    """Into `out`, per conversion and scope, the newest send of its lane with least <= age: its index if age <= most
    too, else -2 - index (-1: there is none). `table` (lanes,): all -1.

    Sends in (anchor, id) order: `lane` (n,) = user x scopes + scope. Conversions in time order: `who` (m,) =
    user x scopes, negative where unknown. Ages are judged by the index up to which anchors are too old, so
    that nothing is looked up at random.
    """
    n, m = len(anchor), len(t)
    young = old = 0
    for k in range(m):
        edge = t[k] - least
        while young < n and anchor[young] <= edge:
            table[lane[young]] = young
            young += 1
        edge = t[k] - most
        while old < n and anchor[old] < edge:
            old += 1
        for s in range(scopes):
            a = table[who[k] + s]
            out[k * scopes + s] = a if a >= old else -2 - a


@njit(cache=True, nogil=True)
def newest(lane, anchor, who, t, scopes, table, out):
    """Into `out` the newest send of each lane at each conversion, -1 for none; `table` ends as the newest of all."""
    n, m = len(anchor), len(t)
    i = 0
    for k in range(m):
        now = t[k]
        while i < n and anchor[i] <= now:
            table[lane[i]] = i
            i += 1
        for s in range(scopes):
            out[k * scopes + s] = table[who[k] + s]
    while i < n:
        table[lane[i]] = i
        i += 1


@njit(cache=True, nogil=True)
def verdicts(found, new, last, who, name, goal, reason, event, send):
    """Reasons (m,) and credits (event, send) from `qualifying` and `newest`, returns how many; `goal` (scopes,
    names + 1); `last`: the newest send of each lane."""
    m, scopes = len(name), len(goal)
    count = 0
    for k in range(m):
        best = NO_SEND
        for s in range(scopes):
            if not goal[s, name[k] + 1]:
                continue
            a, b = found[k * scopes + s], new[k * scopes + s]
            event[count], send[count] = k, a
            count += a >= 0
            why = NO_SEND if b < 0 else (PAST if a == -2 - b else IN_OFFSET)
            best = min(best, CREDITED if a >= 0 else why)
        if best == NO_SEND:  # no send up to the purchase: one afterwards is the reason
            for s in range(scopes):
                if goal[s, name[k] + 1] and last[who[k] + s] >= 0:
                    best = BEFORE
        reason[k] = best
    return count


@njit(cache=True, nogil=True)
def lane_classes(lane, klass, lanes):
    """The least class of the sends of each lane, 3 where there is none."""
    out = np.full(lanes, 3, np.int8)
    for i in range(len(lane)):
        out[lane[i]] = min(out[lane[i]], klass[i])
    return out


@njit(cache=True, nogil=True)
def unreached(reason, who, name, goal, least):
    """Turn `no_send` into why the user's sends could not qualify: no anchor, or not delivered."""
    for k in range(len(reason)):
        if reason[k] == NO_SEND:
            for s in range(len(goal)):
                c = least[who[k] + s]
                if goal[s, name[k] + 1] and c < 3:
                    reason[k] = min(reason[k], NO_ANCHOR + c - 1)


@njit(cache=True, nogil=True)
def _cell(i, at, group, variant, variants):
    """The cell of send i in line, -1 where it is left out; `at`: rows of group and variant, empty where they are i."""
    row = at[i] if len(at) else i
    return group[row] * variants + variant[row] if group[row] >= 0 and variant[row] >= 0 else np.int64(-1)


@njit(cache=True, nogil=True)
def closed_sends(anchor, at, group, variant, variants, weight, lengths, as_of, count):
    """Into `count` (lengths + 1, cells) the sends of a cell that had closed under each length, from row 1 on.

    Sends in time order; a window of length x is over iff anchor + x <= as_of. `weight` by row, empty: 1 each.
    """
    b = len(lengths)
    for i in range(len(anchor)):
        while b > 0 and lengths[b - 1] > as_of - anchor[i]:
            b -= 1
        c = _cell(i, at, group, variant, variants)
        if c >= 0:
            count[b, c] += weight[at[i] if len(at) else i] if len(weight) else 1
    for b in range(len(lengths) - 1, -1, -1):
        count[b] += count[b + 1]


@njit(cache=True, nogil=True)
def _up_to(values, x):
    """How many of the sorted values are <= x."""
    lo, hi = 0, len(values)
    while lo < hi:
        mid = (lo + hi) // 2
        if values[mid] <= x:
            lo = mid + 1
        else:
            hi = mid
    return lo


@njit(cache=True, nogil=True)
def chain(lane, anchor, at, group, variant, variants, who, t, least, scopes, table, record, head):
    """Into `record` (n, 2) what a walk along a lane reads of each send: its anchor, and the send before it with its
    cell in one integer. Into `head` per conversion and scope the newest send that is at least `least` old (-1: none).
    `table` (lanes,): all -1."""
    n, m = len(anchor), len(t)
    i = 0
    for k in range(m):
        edge = t[k] - least
        while i < n and anchor[i] <= edge:
            record[i, 0] = anchor[i]
            record[i, 1] = (np.int64(table[lane[i]]) << 32) | (_cell(i, at, group, variant, variants) + 1)
            table[lane[i]] = i
            i += 1
        for s in range(scopes):
            head[k * scopes + s] = table[who[k] + s]


@njit(cache=True, nogil=True)
def _add(steps, c, q, low, high, what, x):
    """From offset q on, x more for the lookbacks [low, high); nothing lies beyond the last of either."""
    if q < steps.shape[1]:
        steps[c, q, low, what] += x
        if high < steps.shape[2]:
            steps[c, q, high, what] -= x


@njit(cache=True, nogil=True)
def surface(record, head, at, weight, who, t, name, goal, value, least, most, lengths, as_of, seen, steps, part, parts):
    """Credits of `last_qualifying` under every window at once, of sends whose window was over at `as_of`: into
    `steps` (cells, offsets, lookbacks, 3), zeros at first, conversions, converted sends and revenue: what changes from
    one offset, and from one lookback, to the next, so that `summed` makes the totals.

    The winner under an offset does not depend on the lookback, and a greater offset only moves it back along the
    sends of its lane, which `chain` links. `least` (offsets), `most` and `lengths` (lookbacks): inclusive ages and
    lengths of the windows, ascending. `seen` (n,), zeros: a bit for each offset.
    `at`, `weight` as in `closed_sends`. Looks at the users of one `part` only, so that threads may share the work.
    """
    offsets, lookbacks, scopes, last = len(least), len(lengths), len(goal), most[-1]
    # A table of ages, so that the lookback of one is found without search: `coarse[age >> fine]` is nearly it.
    fine = 0
    while last >> fine >= 4096:
        fine += 1
    coarse = np.empty((last >> fine) + 1, np.int64)
    for x in range(len(coarse)):
        coarse[x] = _up_to(most, (x << fine) - 1)
    for k in range(len(t)):
        if (who[k] // scopes) % parts != part:
            continue
        for s in range(scopes):
            if not goal[s, name[k] + 1]:
                continue
            a = head[k * scopes + s]
            o = 0
            while a >= 0 and o < offsets:
                age, link, mine = t[k] - record[a, 0], record[a, 1], a
                if age > last:
                    break
                a, c = link >> 32, (link & 0xFFFFFFFF) - 1
                first = o
                while o < offsets and age >= least[o]:
                    o += 1
                if o == first or c < 0:
                    continue
                low = coarse[age >> fine]
                while most[low] < age:
                    low += 1
                high = lookbacks
                if as_of - t[k] + age < lengths[lookbacks - 1]:
                    high = _up_to(lengths, as_of - t[k] + age)
                if low >= high:
                    continue
                one = weight[at[mine] if len(at) else mine] if len(weight) else 1
                _add(steps, c, first, low, high, 0, one)
                _add(steps, c, o, low, high, 0, -one)
                _add(steps, c, first, low, high, 2, one * value[k])
                _add(steps, c, o, low, high, 2, -one * value[k])
                stretch = (1 << o) - (1 << first)
                fresh = stretch & ~seen[mine]
                seen[mine] |= fresh
                if fresh == stretch:  # under all of these offsets it is the send's first conversion
                    _add(steps, c, first, low, high, 1, one)
                    _add(steps, c, o, low, high, 1, -one)
                elif fresh:
                    for q in range(first, o):
                        if (fresh >> q) & 1:
                            _add(steps, c, q, low, high, 1, one)
                            _add(steps, c, q + 1, low, high, 1, -one)


@njit(cache=True, nogil=True)
def summed(steps):
    """Add up `steps` along offsets and lookbacks, in place."""
    cells, offsets, lookbacks = steps.shape[:3]
    for c in range(cells):
        for q in range(offsets):
            if q > 0:
                steps[c, q] += steps[c, q - 1]
        for q in range(offsets):
            for b in range(1, lookbacks):
                steps[c, q, b] += steps[c, q, b - 1]

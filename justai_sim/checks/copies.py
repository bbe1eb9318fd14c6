"""Rows under one id: which are copies, and which tell of something else and are lost."""

from __future__ import annotations

import numpy as np

from justai_sim.attribution.prepare import SKEW
from justai_sim.clock import DAY, MISSING
from justai_sim.tables import I1, I8, REASON, Events, Sends

RETOLD = DAY
"""Sources tell one send with times so far apart: when it was planned, and when it left."""


def first_sends(s: Sends) -> I8:
    """For each row (n,) the earliest row with its id."""
    return _first(np.lexsort((s.sent_at, s.send)), s.send)


def lost_sends(s: Sends, first: I8) -> I8:
    """Rows with the id of an earlier send, their `first`, that they are no copy of."""
    other = (s.user != s.user[first]) | (s.variant != s.variant[first]) | (s.template != s.template[first])
    return np.flatnonzero(other | (s.sent_at - s.sent_at[first] > RETOLD))


def lost_events(e: Events, user: I8, occurred: I8, reason: I1) -> I8:
    """Rows that are left out as copies of one of the same user and id, but tell of something else. `user`, `occurred`
    and `reason` (n,) are what attribution found."""
    copy = reason == REASON["duplicate"]
    rows = np.flatnonzero((reason >= REASON["duplicate"]) & np.isin(e.event, e.event[copy]))
    who, event = user[rows], e.event[rows]
    kept = rows[_first(np.lexsort((copy[rows], event, who)), who, event)]
    other = (e.kind[rows] != e.kind[kept]) | (e.name[rows] != e.name[kept])
    other |= np.abs(occurred[rows] - occurred[kept]) > SKEW
    amounts = (e.value[rows] != MISSING) & (e.value[kept] != MISSING)
    other |= amounts & ((e.value[rows] != e.value[kept]) | (e.currency[rows] != e.currency[kept]))
    return rows[other & copy[rows]]


def _first(order: I8, *keys: I8) -> I8:
    """For each row the first one in `order`, which is sorted by `keys`, whose keys are the same."""
    new = np.ones(len(order), bool)
    new[1:] = np.any([k[order][1:] != k[order][:-1] for k in keys], axis=0)
    out = np.empty(len(order), np.int64)
    out[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return out

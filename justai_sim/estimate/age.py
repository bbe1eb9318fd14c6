"""Conversions by days since the send, whatever window is in force, with the exposure behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from justai_sim.clock import DAY
from justai_sim.tables import B1, CONVERSION, F8, I1, I8, REASON, Events

FIRST_AGE, LAST_AGE = -7, 30
"""Ages shown: the days [a, a + 1) for a from FIRST_AGE to LAST_AGE - 1."""


@dataclass(frozen=True)
class AgeProfile:
    """Arrays (groups, variants, ages): conversions of the user, and send-days observed."""

    conversions: F8
    exposure: F8


def countable(kind: I1, reason: I1) -> B1:
    """Conversions that got as far as the window: goals, in time, no copies, no refunds."""
    return (kind == CONVERSION) & (reason >= REASON["credited"])


def age_profile(
    user: I8, group: I8, variant: I8, sent_at: I8, events: Events, event_user: I8, use: B1,
    groups: int, variants: int, start: int, end: int,
) -> AgeProfile:  # fmt: skip
    """Pair every counted conversion (`use`) with every send of its user; ages from -7 to 30 days.

    `user, group, variant, sent_at` are columns of the sends to look at, shape (n,); rows with variant -1
    are left out. The log is taken to cover [start, end].
    """
    ages = LAST_AGE - FIRST_AGE
    keep = variant >= 0
    user, group, variant, sent_at = user[keep], group[keep], variant[keep], sent_at[keep]
    cell = group * variants + variant
    exposure = np.zeros((groups * variants, ages))
    for a in range(FIRST_AGE, LAST_AGE):
        span = np.minimum(end, sent_at + (a + 1) * DAY) - np.maximum(start, sent_at + a * DAY)
        exposure[:, a - FIRST_AGE] = np.bincount(cell, np.maximum(span, 0) / DAY, groups * variants)
    rows = np.flatnonzero(use)
    who, when = event_user[rows], events.occurred_at[rows]
    order = np.argsort(user, kind="stable")
    ranked = user[order]
    lo = np.searchsorted(ranked, who, side="left")
    n = np.searchsorted(ranked, who, side="right") - lo
    send = order[np.repeat(lo - np.cumsum(n) + n, n) + np.arange(int(n.sum()))]
    age = (np.repeat(when, n) - sent_at[send]) // DAY - FIRST_AGE
    inside = (age >= 0) & (age < ages)
    flat = np.bincount(cell[send[inside]] * ages + age[inside], minlength=groups * variants * ages)
    shape = (groups, variants, ages)
    return AgeProfile(flat.reshape(shape).astype(np.float64), exposure.reshape(shape))

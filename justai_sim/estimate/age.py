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
    groups: int, variants: int, start: int, end: int, weight: F8 | None = None,
) -> AgeProfile:  # fmt: skip
    """Pair every counted conversion (`use`) with every send of its user; ages from -7 to 30 days.

    `user, group, variant, sent_at` are columns of the sends to look at, shape (n,); rows with variant -1
    are left out. The log is taken to cover [start, end]: a send is at risk on a day of age for as much of it
    as lies in there, whatever its user did meanwhile (who unsubscribes or has bought can still buy, and to
    leave them out would select by outcome). `weight` (n,) of the sends; None: 1 each.
    """
    ages = LAST_AGE - FIRST_AGE
    keep = variant >= 0
    user, group, variant, sent_at = user[keep], group[keep], variant[keep], sent_at[keep]
    weight = None if weight is None else weight[keep]
    cell = group * variants + variant
    exposure = np.zeros((groups * variants, ages))
    for a in range(FIRST_AGE, LAST_AGE):
        span = np.minimum(end, sent_at + (a + 1) * DAY) - np.maximum(start, sent_at + a * DAY)
        days = np.maximum(span, 0) / DAY
        exposure[:, a - FIRST_AGE] = np.bincount(cell, days if weight is None else days * weight, groups * variants)
    rows = np.flatnonzero(use)
    who, when = event_user[rows], events.occurred_at[rows]
    order = np.argsort(user, kind="stable")
    ranked = user[order]
    lo = np.searchsorted(ranked, who, side="left")
    n = np.searchsorted(ranked, who, side="right") - lo
    send = order[np.repeat(lo - np.cumsum(n) + n, n) + np.arange(int(n.sum()))]
    age = (np.repeat(when, n) - sent_at[send]) // DAY - FIRST_AGE
    inside = (age >= 0) & (age < ages)
    send = send[inside]
    each = None if weight is None else weight[send]
    flat = np.bincount(cell[send] * ages + age[inside], each, groups * variants * ages)
    shape = (groups, variants, ages)
    return AgeProfile(flat.reshape(shape).astype(np.float64), exposure.reshape(shape))


def send_weights(variant: I8, template: I8, decided_at: I8, propensity: F8) -> tuple[F8, str]:
    """Weights that give every variant the same mix of days and templates, and the name of the method.

    Shares that change as a policy learns give variants different days, and days differ (Simpson; theory, section
    4). Where all sends carry the probability with which they were drawn the weight is its inverse; else that of
    the variant's share of its stratum (template and UTC day), an estimate of it. They are scaled to average 1 in
    each variant. Columns of the sends, shape (n,); rows with variant -1 get 0.
    """
    out = np.zeros(len(variant))
    use = variant >= 0
    if not use.any():
        return out, "none"
    v, p = variant[use], propensity[use]
    name = "inverse propensity"
    if not (p > 0).all():  # a missing one is NaN
        name = "day"
        day = decided_at[use] // DAY
        stratum = (day - day.min()) * (int(template.max()) + 1) + template[use]
        _, stratum, all_of = np.unique(stratum, return_inverse=True, return_counts=True)
        cell = stratum * (int(v.max()) + 1) + v
        _, cell, mine = np.unique(cell, return_inverse=True, return_counts=True)
        p = mine[cell] / all_of[stratum]
    w = 1 / p
    out[use] = w / (np.bincount(v, w) / np.maximum(np.bincount(v), 1))[v]
    return out, name

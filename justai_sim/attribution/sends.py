"""Sends as attribution sees them: one row a known send id, with its status and anchor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from justai_sim.attribution.rule import Rule
from justai_sim.clock import MISSING
from justai_sim.tables import B1, BOUNCED, HELD_OUT, I8, SUPPRESSED, Array, Sends


@dataclass
class Known:
    """The sends known at an instant, sorted by `key`; columns of shape (n,)."""

    row: I8
    """Row of the input table that gives user, template, variant and time."""
    key: I8
    user: I8
    template: I8
    variant: I8
    send: I8
    sent_at: I8
    delivered_at: I8
    negative: B1
    ghost: B1

    def find(self, keys: I8) -> I8:
        """Positions of the keys, -1 where there is none."""
        if not len(self.key):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self.key, keys), len(self.key) - 1)
        return np.where((self.key[at] == keys) & (keys >= 0), at, -1)

    @property
    def reached(self) -> B1:
        return ~self.negative


def composite(rep: Array, code: I8, span: int) -> I8:
    """One integer for (rep, code), in that order; -1 where the code is missing."""
    if not rep.any():
        return code
    assert int(rep.max()) < (1 << 62) // max(span, 1), "ids times replications exceed 62 bits"
    return np.where(code >= 0, rep * np.int64(span) + code, -1)


def span_of(*codes: I8) -> int:
    return max((int(c.max()) + 1 for c in codes if len(c)), default=1)


def known_sends(sends: Sends, as_of: int, lateness: int, span: int, user_span: int) -> Known:
    """Merge the rows known at `as_of` to one a send id (rule 9): the first heard of gives who and when,
    any known negative status wins, a held-out row makes a ghost."""
    received = np.where(sends.received_at == MISSING, sends.sent_at, sends.received_at)
    sent = np.minimum(sends.sent_at, received)
    rows = np.flatnonzero((received <= as_of) & (received - sent <= lateness))
    key = composite(sends.rep, sends.send, span)[rows]
    order = np.argsort(key, kind="stable")
    first = np.ones(len(rows), bool)
    first[1:] = key[order][1:] != key[order][:-1]
    if not first.all():  # several rows of one send: the first heard of leads
        order = np.lexsort((rows, sent[rows], received[rows], key))
    rows, key = rows[order], key[order]
    group = np.cumsum(first) - 1
    status_at = np.where(sends.status_known_at == MISSING, received, sends.status_known_at)[rows]
    status = sends.status[rows]
    n = int(first.sum())
    negative = np.zeros(n, bool)
    negative[group[(status >= BOUNCED) & (status <= SUPPRESSED) & (status_at <= as_of)]] = True
    ghost = np.zeros(n, bool)
    ghost[group[status == HELD_OUT]] = True
    far = np.iinfo(np.int64).max
    delivered = np.full(n, far)
    here = sends.delivered_at[rows]
    np.minimum.at(delivered, group, np.where(here == MISSING, far, here))
    lead = rows[first]
    return Known(
        row=lead,
        key=key[first],
        user=composite(sends.rep, sends.user, user_span)[lead],
        template=sends.template[lead],
        variant=sends.variant[lead],
        send=sends.send[lead],
        sent_at=sent[lead],
        delivered_at=np.where(delivered == far, MISSING, delivered),
        negative=negative,
        ghost=ghost,
    )


def anchors(rule: Rule, known: Known, first_open: I8, first_click: I8) -> I8:
    """The instant from which a send's window is measured; MISSING where there is none (rule 8)."""
    chosen = {
        "sent": known.sent_at,
        "delivered": known.delivered_at,
        "opened": first_open,
        "clicked": first_click,
    }[rule.anchor]
    return np.where(known.ghost, known.sent_at, chosen)

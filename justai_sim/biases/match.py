"""The rows that attribution saw, matched with the truth behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from justai_sim.attribution.prepare import Ready
from justai_sim.attribution.sends import composite, span_of
from justai_sim.biases.terms import AWAY, KNOWN, LATE, LOST, standing
from justai_sim.clock import MISSING
from justai_sim.tables import B1, CONVERSION, HELD_OUT, I1, I4, I8, NONE, Events, Sends
from justai_sim.truth import Truth, Unheard

HELD = -2
"""In the place of a variant: the ghost sends of held-out users."""


class Index:
    """Positions of the rows (rep, code) of a table; of several equal ones the first."""

    def __init__(self, rep: I4, code: I8) -> None:
        self.span = span_of(code)
        key = composite(rep, code, self.span)
        top = int(key.max(initial=-1)) + 1
        self.dense = top <= 8 * len(key) + 65_536  # then a table by key beats sorting
        if self.dense:
            self.order = np.full(top + 1, -1, np.int64)
            self.order[key[::-1]] = np.arange(len(key))[::-1]
            self.order[top] = -1  # where missing codes, -1, look
        else:
            self.order = np.argsort(key, kind="stable")
            self.key = key[self.order]

    def find(self, rep: I4, code: I8) -> I8:
        """Position of each (rep, code), -1 where there is none."""
        wanted = composite(rep, code, self.span)
        wanted = np.where((code >= 0) & (code < self.span), wanted, -1)
        if self.dense:
            return self.order[np.where(wanted < len(self.order) - 1, wanted, -1)]
        at = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        return np.where(self.key[at] == wanted, self.order[at], -1)


@dataclass(frozen=True)
class Sent:
    """Everything that was sent: first the sends that attribution knows, in its order, then all others."""

    rep: I4
    send: I8
    template: I8
    variant: I8
    """HELD for ghosts; NONE, as the template, where only the truth knows of the send."""
    fate: I1
    """KNOWN, AWAY, LATE or LOST."""


def all_sent(ready: Ready, unheard: Unheard, truth: Truth) -> Sent:
    """What attribution knows, what it was told too late, what is on its way or lost, and causes that nobody knows."""
    known = ready.known
    lead = np.arange(len(known)) if known.row is None else known.row
    rep = ready.sends.rep[lead]
    there = Index(rep, known.send)
    follows = np.ones(len(ready.sends), bool)
    follows[lead] = False
    other = ready.sends.take(follows)
    rest = Sends.concat([other, unheard.sends])
    heard = np.arange(len(rest)) < len(other)
    at = np.where(rest.received_at == MISSING, rest.sent_at, rest.received_at)
    new = np.flatnonzero(there.find(rest.rep, rest.send) < 0)
    new = new[np.argsort(at[new], kind="stable")]
    fate = np.where(at > ready.as_of, AWAY, np.where(heard, LATE, LOST))[new]
    rest = rest.take(new)
    truth = truth.take(truth.cause != NONE)
    stray = there.find(truth.rep, truth.cause) < 0
    stray[stray] = Index(rest.rep, rest.send).find(truth.rep[stray], truth.cause[stray]) < 0
    nowhere = np.full(int(stray.sum()), NONE)
    parts = (
        (rep, rest.rep, truth.rep[stray]),
        (known.send, rest.send, truth.cause[stray]),
        (known.template, rest.template, nowhere),
        (np.where(known.ghost, HELD, known.variant), np.where(rest.status == HELD_OUT, HELD, rest.variant), nowhere),
        (np.full(len(known), KNOWN, np.int8), fate.astype(np.int8), np.full(len(nowhere), LOST, np.int8)),
    )
    return Sent(*(np.concatenate(p) for p in parts))


def is_refund(truth: Truth) -> B1:
    return (truth.value != MISSING) & (truth.value < 0)


def told_of(events: Events, origin: I8, happened: Truth) -> I8:
    """The row of `happened` that each event row tells of; -1 for rows that are no conversions or tell of nothing."""
    rows = np.flatnonzero(events.kind == CONVERSION)
    out = np.full(len(events), -1, np.int64)
    out[rows] = Index(happened.rep, happened.event).find(events.rep[rows], origin[rows])
    return out


def representatives(events: Events, told: I8, reason: I1, own: I8, n: int) -> I8:
    """The row that stands for each of n true events, -1 where there is none: its surviving copy, the credited one first
    (of several the one with most weight on its cause, `own`, then the first that was received)."""
    rows = np.flatnonzero(told >= 0)
    received = np.where(events.received_at == MISSING, events.occurred_at, events.received_at)[rows]
    order = rows[np.lexsort((rows, events.event[rows], received, -own[rows], standing()[reason[rows]], told[rows]))]
    first = np.ones(len(order), bool)
    first[1:] = told[order[1:]] != told[order[:-1]]
    out = np.full(n, -1, np.int64)
    out[told[order[first]]] = order[first]
    return out

"""Credited conversions by their true cause: the send's own, another send's, nobody's."""

from __future__ import annotations

import numpy as np

from justai_sim.tables import CONVERSION, F8, I1, I8, NONE, PARTS, REASON, Credits, Events, Sends
from justai_sim.truth import Truth

PARTS_OF_CREDIT = ("own", "borrowed", "organic")


def credited_by_cause(
    credits_: Credits, reason: I1, sends: Sends, events: Events, truth: Truth, cell: I8, cells: int
) -> dict[str, F8]:
    """Weight credited to each cell of sends, split by the cause of the event; arrays (cells,).

    `cell` gives the cell of each send row, shape (n sends,).
    """
    paid = events.kind[credits_.event_row] == CONVERSION
    paid &= reason[credits_.event_row] == REASON["credited"]
    row, send = credits_.event_row[paid], credits_.send_row[paid]
    cause = cause_of(events.rep[row].astype(np.int64), events.event[row], truth)
    which = np.where(cause == NONE, 2, np.where(cause == sends.send[send], 0, 1))
    weight = credits_.weight[paid] / PARTS
    return {
        name: np.bincount(cell[send[which == i]], weight[which == i], cells).astype(np.float64)
        for i, name in enumerate(PARTS_OF_CREDIT)
    }


def cause_of(rep: I8, event: I8, truth: Truth) -> I8:
    """The send that caused each event, NONE for organic ones."""
    span = int(max(truth.event.max(initial=0), event.max(initial=0))) + 1
    keys = truth.rep * np.int64(span) + truth.event
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], rep * np.int64(span) + event)
    return truth.cause[order[np.minimum(at, len(order) - 1)]] if len(order) else np.full(len(event), NONE)

"""Two readings of one log, conversion by conversion: a bridge from one total to the other that adds up exactly."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from justai_sim.attribution import Attribution
from justai_sim.estimate.maturity import occurred
from justai_sim.tables import CONVERSION, I8, REASON, REASONS
from justai_sim.whatif.study import Numbers, Study

CREDITED = REASON["credited"]
ELSEWHERE, NOT_SHOWN, REPEAT, PART, IMMATURE = (
    "credited_elsewhere", "not_shown", "repeat", "smaller_part", "immature",
)  # fmt: skip
"""What became of a credited event that is not in a variant's numerator, beside the reasons of REASONS: credited
to another variant or template that is compared, to a send that is not compared, counted before (`repeat`),
counted with less weight or for fewer sends, credited to a send whose window has not closed."""


WHY = (*REASONS, ELSEWHERE, NOT_SHOWN, REPEAT, PART, IMMATURE)


@dataclass(frozen=True)
class Counted:
    """What each event adds to the numerator of each cell, in integer parts of 1e9: rows of (event, cell).

    raw: the same before `repeat` (a second purchase of a send is in raw only). inside: parts of credits in all
    cells, per event row; immature: parts that are in none only for want of maturity. reason: per event row.
    """

    event: I8
    cell: I8
    parts: I8
    raw: I8
    inside: I8
    immature: I8
    reason: I8


def counted(s: Study, got: Attribution, n: Numbers, cells: I8) -> Counted:
    """Split every send's numerator over its conversions in the order of time, the first fully.

    `n`: the conversions of `got` by cell, `cells` the cell of every send row. Sums of `parts` are the
    numerator exactly: a send's credits are never below what `repeat` leaves of them.
    """
    c, e, o = got.credits, s.log.events, got.outcomes
    position = np.full(len(s.log.sends), -1, np.int64)
    position[o.send_row] = np.arange(len(o))
    paid = (e.kind[c.event_row] == CONVERSION) & (got.reason[c.event_row] == CREDITED)
    event, send, weight = c.event_row[paid], position[c.send_row[paid]], c.weight[paid]
    order = np.lexsort((e.event[event], occurred(s.log, event), send))
    event, send, weight = event[order], send[order], weight[order]
    before = np.cumsum(weight) - weight
    first = np.ones(len(send), bool)
    first[1:] = send[1:] != send[:-1]
    before -= np.repeat(before[first], np.diff(np.append(np.flatnonzero(first), len(send))))
    parts = np.clip(o.numerator[send] - before, 0, weight)
    cell = n.cell[send]
    size = len(e)
    inside, young = cell >= 0, (cell < 0) & (cells[o.send_row[send]] >= 0)
    compared, immature = np.zeros(size, np.int64), np.zeros(size, np.int64)
    np.add.at(compared, event[inside], weight[inside])
    np.add.at(immature, event[young], weight[young])
    width = int(n.total.shape[0])
    pairs, index = np.unique(event[inside] * np.int64(width) + cell[inside], return_inverse=True)
    total, raw = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    np.add.at(total, index.ravel(), parts[inside])
    np.add.at(raw, index.ravel(), weight[inside])
    return Counted(pairs // width, pairs % width, total, raw, compared, immature, got.reason.astype(np.int64))


def why(c: Counted) -> I8:
    """Code in WHY of every event row: what became of it in the cells; 'credited' if it adds to a numerator there."""
    events = np.flatnonzero(c.reason == CREDITED)
    total, raw = np.zeros(len(c.reason), np.int64), np.zeros(len(c.reason), np.int64)
    np.add.at(total, c.event, c.parts)
    np.add.at(raw, c.event, c.raw)
    out = c.reason.copy()
    lost = events[total[events] == 0]
    out[lost] = _why(c, lost, np.ones(len(lost), np.int64), raw[lost])
    return out


def within(c: Counted, cells: Collection[int]) -> Counted:
    """The same with some cells as one, cell 0, and without the others: a move between them is no difference."""
    use = np.isin(c.cell, list(cells))
    events, index = np.unique(c.event[use], return_inverse=True)
    parts, raw = np.zeros(len(events), np.int64), np.zeros(len(events), np.int64)
    np.add.at(parts, index.ravel(), c.parts[use])
    np.add.at(raw, index.ravel(), c.raw[use])
    return Counted(events, np.zeros(len(events), np.int64), parts, raw, c.inside, c.immature, c.reason)


@dataclass(frozen=True)
class Line:
    """One step of the bridge: signed parts of 1e9, positive where the other reading counts more; `events` many
    conversions take part. `reason`: what became of them under the reading that counts less."""

    reason: str
    adds: bool
    parts: int
    events: int


def bridge(ours: Counted, other: Counted) -> list[Line]:
    """From our numerator to another reading's; the parts of all lines add up to the difference exactly.

    Both are of one cell (see `within`). What the other counts first, the largest step first.
    """
    events = np.union1d(ours.event, other.event)
    (mine, my_raw), (its, its_raw) = (_aligned(events, c) for c in (ours, other))
    delta = its - mine
    out = []
    for adds, here, less, wanted, raw in (
        (True, delta > 0, ours, its, my_raw),
        (False, delta < 0, other, mine, its_raw),
    ):
        why = _why(less, events[here], wanted[here], raw[here])
        for code in np.unique(why).tolist():
            chosen = delta[here][why == code]
            out.append(Line(WHY[code], adds, int(chosen.sum()), len(chosen)))
    return sorted(out, key=lambda x: (not x.adds, -abs(x.parts), x.reason))


def _aligned(events: I8, c: Counted) -> tuple[I8, I8]:
    parts, raw = np.zeros(len(events), np.int64), np.zeros(len(events), np.int64)
    at = np.searchsorted(events, c.event)
    parts[at], raw[at] = c.parts, c.raw
    return parts, raw


def _why(less: Counted, events: I8, wanted: I8, raw: I8) -> I8:
    """Code in WHY: why a reading counts less of these events than `wanted`."""
    reason = less.reason[events]
    named = [reason != CREDITED, raw >= wanted, raw > 0, less.immature[events] > 0, less.inside[events] > 0]
    codes = [reason, *(np.full(len(events), WHY.index(w)) for w in (REPEAT, PART, IMMATURE, ELSEWHERE))]
    return np.select(named, codes, WHY.index(NOT_SHOWN))

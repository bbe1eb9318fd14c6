"""Sends as attribution sees them: one row a known send id, with its status and anchor."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from justai_sim import clock
from justai_sim.attribution.rule import Rule
from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.tables import B1, BOUNCED, HELD_OUT, I8, SUPPRESSED, Array, Sends


@dataclass
class Known:
    """The sends known at an instant; columns of shape (n,), in the order of the input table.

    Where every row of the table is a send of its own, the columns are the table's, not copies.
    """

    row: I8 | None
    """Row of the input table that gives user, template, variant and time; None: every row, in order."""
    key: I8
    user: I8
    template: I8
    variant: I8
    send: I8
    sent_at: I8
    delivered_at: I8
    negative: B1
    ghost: B1
    ordered: bool
    """Already in the total order (sent_at, send)."""
    plain: bool
    """No send is negative or a ghost."""
    _index: tuple[I8, I8] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.key)

    def rows(self, at: I8) -> I8:
        """Input rows of the sends at these positions."""
        return at if self.row is None else self.row[at]

    def find(self, keys: I8) -> I8:
        """Positions of the keys, -1 where there is none."""
        if not len(self.key) or not len(keys):
            return np.full(len(keys), -1, np.int64)
        span = int(self.key.max()) + 1
        if int(self.key.min()) >= 0 and span <= 8 * len(self.key) + 65_536:  # dense codes: a table
            if self._index is None:
                table = np.full(span + 1, -1, np.int64)
                table[self.key] = np.arange(len(self.key))
                self._index = (table, table)
            return self._index[0][np.where((keys >= 0) & (keys < span), keys, span)]
        from justai_sim.attribution import scan

        if self._index is None:
            table = np.full(1 << (2 * len(self.key)).bit_length(), -1, np.int32)
            scan.hang(self.key, table)
            self._index = (table, table)
        return scan.found(self.key, self._index[0], keys)

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


def distinct(code: I8) -> bool:
    """Whether no code occurs twice, shape (n,)."""
    from justai_sim.attribution import scan

    if len(code) < 2:
        return True
    low = int(code.min())
    span = int(code.max()) - low + 1
    if span < len(code):
        return False
    if span <= 8 * len(code) + 65_536:  # dense codes: a table beats sorting
        return not scan.repeats(code, low, span)
    ranked = np.sort(code)
    return not bool((ranked[1:] == ranked[:-1]).any())


def check_times(what: str, low: int, high: int) -> None:
    """DataError for instants outside 1970..2100: a mistaken unit, and what int64 arithmetic cannot hold."""
    for t in (low, high):
        if not clock.EARLIEST <= t < clock.LATEST:
            raise DataError(f"{what}: time {t} lies outside 1970..2100; expected microseconds since the epoch, UTC")


def known_sends(sends: Sends, as_of: int, lateness: int, top_send: int, top_user: int) -> tuple[Known, int, int]:
    """Merge the rows known at `as_of` to one a send id (rule 9): the first heard of gives who and when,
    any known negative status wins, a held-out row makes a ghost.

    `top_send`, `top_user`: greatest codes on the events. Also returns the spans for `composite`.
    """
    from justai_sim.attribution import scan

    out, clamped, told, rising, ordered, low, high, least, most, top, reps = scan.look_sends(
        sends.rep, sends.user, sends.send, sends.sent_at, sends.received_at, sends.status, as_of, lateness
    )
    span, user_span = max(int(top), top_send) + 1, max(int(most), top_user) + 1
    if len(sends):
        check_times("sends", low, high)
    if least < 0:
        raise DataError("sends: a row has no user; a message went to somebody")
    received, sent = sends.received_at, sends.sent_at
    if clamped or out or told or not rising:
        received = np.where(received == MISSING, sent, received)
        sent = np.minimum(sent, received)
    key = composite(sends.rep, sends.send, span) if reps else sends.send
    rows = np.flatnonzero((received <= as_of) & (received - sent <= lateness)) if out else None
    here = key if rows is None else key[rows]
    if not (rising and key is sends.send) and not distinct(here):
        some = np.arange(len(sends)) if rows is None else rows
        return _merged(sends, key, received, sent, some, as_of, user_span), span, user_span
    user = composite(sends.rep, sends.user, user_span) if reps else sends.user
    negative = ghost = np.zeros(len(here), bool)
    if told:
        status_at = np.where(sends.status_known_at == MISSING, received, sends.status_known_at)
        status = sends.status
        negative = (status >= BOUNCED) & (status <= SUPPRESSED) & (status_at <= as_of)
        ghost = status == HELD_OUT
        negative, ghost = (a if rows is None else a[rows] for a in (negative, ghost))
    columns = (user, sends.template, sends.variant, sends.send, sent, sends.delivered_at)
    if rows is not None:
        columns = tuple(c[rows] for c in columns)  # type: ignore[assignment]
    plain = not (told and (negative.any() or ghost.any()))
    known = Known(rows, here, *columns, negative, ghost, bool(ordered and not clamped), plain)
    return known, span, user_span


def _merged(sends: Sends, key: I8, received: I8, sent: I8, rows: I8, as_of: int, user_span: int) -> Known:
    """`known_sends` where several rows tell of one send: the first heard of leads; of several at that instant the one
    whose user, template and variant come first, so that the order of the rows decides nothing."""
    who = (sends.variant[rows], sends.template[rows], sends.user[rows])
    rows = rows[np.lexsort((*who, sent[rows], received[rows], key[rows]))]
    ids = key[rows]
    first = np.ones(len(rows), bool)
    first[1:] = ids[1:] != ids[:-1]
    lead = rows[first]
    place = np.argsort(lead)  # back into the order of the table
    group = np.empty(len(lead), np.int64)
    group[place] = np.arange(len(lead))
    group = group[np.cumsum(first) - 1]
    lead = lead[place]
    status_at = np.where(sends.status_known_at == MISSING, received, sends.status_known_at)[rows]
    status = sends.status[rows]
    negative, ghost = np.zeros(len(lead), bool), np.zeros(len(lead), bool)
    negative[group[(status >= BOUNCED) & (status <= SUPPRESSED) & (status_at <= as_of)]] = True
    ghost[group[status == HELD_OUT]] = True
    far = np.iinfo(np.int64).max
    delivered = np.full(len(lead), far)
    here = sends.delivered_at[rows]
    np.minimum.at(delivered, group, np.where(here == MISSING, far, here))
    return Known(
        row=lead,
        key=key[lead],
        user=composite(sends.rep, sends.user, user_span)[lead],
        template=sends.template[lead],
        variant=sends.variant[lead],
        send=sends.send[lead],
        sent_at=sent[lead],
        delivered_at=np.where(delivered == far, MISSING, delivered),
        negative=negative,
        ghost=ghost,
        ordered=False,
        plain=not (negative.any() or ghost.any()),
    )


def anchors(rule: Rule, known: Known, first_open: I8 | None, first_click: I8 | None) -> I8:
    """The instant from which a send's window is measured; MISSING where there is none (rule 8)."""
    if rule.anchor == "sent":
        return known.sent_at
    chosen = {"delivered": known.delivered_at, "opened": first_open, "clicked": first_click}[rule.anchor]
    assert chosen is not None
    there = chosen[chosen != MISSING]
    if len(there):
        check_times(f"anchor {rule.anchor!r}", int(there.min()), int(there.max()))
    return chosen if known.plain else np.where(known.ghost, known.sent_at, chosen)


def time_order(anchor: I8, send: I8) -> I8:
    """Positions in the total order (anchor, send), shape (n,)."""
    nearly = np.count_nonzero(anchor[1:] < anchor[:-1]) < len(anchor) // 8
    order = np.argsort(anchor, kind="stable" if nearly else "quicksort")  # stable: by runs, one pass if in order
    tied = np.zeros(len(order), bool)
    tied[1:] = anchor[order[1:]] == anchor[order[:-1]]
    if not tied.any():
        return order
    tied[:-1] |= tied[1:]
    at = np.flatnonzero(tied)
    mine = order[at]
    order[at] = mine[np.lexsort((send[mine], anchor[mine]))]
    return order

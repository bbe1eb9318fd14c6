"""Everything about a log that does not depend on the conversion window: what is known, copies, engagement, anchors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from justai_sim import clock
from justai_sim.attribution import events as ev
from justai_sim.attribution.events import Bound
from justai_sim.attribution.sends import Known, anchors, check_times, composite, distinct, known_sends, span_of
from justai_sim.clock import MISSING
from justai_sim.tables import B1, BOUNCE, CLICK, CONVERSION, DELIVERY, DROP, I1, I8, OPEN, PARTS, REASON, Events, Sends

SKEW = 5 * clock.MINUTE
"""Clocks differ by so much without being wrong: an engagement may lie this much before the send it names (rule 20)."""


class Look(NamedTuple):
    """How many event rows have what: a check without work to do is skipped."""

    out: int
    clamped: int
    status: int
    engagement: int
    named: int
    partial: int
    machine: int
    ordered_goods: int
    negative: int
    foreign: int
    rising: int
    in_time: int
    low: int
    high: int
    top_user: int
    top_send: int
    reps: int


@dataclass
class Ready:
    """A log made ready for a window. `rows`: conversions to be judged; arrays named after events are per event row."""

    bound: Bound
    sends: Sends
    events: Events
    as_of: int
    look: Look
    known: Known
    anchor: I8
    """Per known send; MISSING where it has none."""
    reason: I1
    """-1 where the window decides."""
    value: I8
    occurred: I8
    user: I8
    users: int
    """All users lie below."""
    named: I8
    """Position of the send that the event names, -1 for none."""
    engagement: tuple[I8, I8]
    """Credited (event row, position of the send)."""
    rows: I8
    refunds: I8
    """Rows of refunds of a known order."""
    refunded: I8
    """The row of the order of each."""


def prepare(bound: Bound, sends: Sends, events: Events, as_of: int | None) -> Ready:
    """Run the rule's checks up to the window; `as_of` as in `attribute`."""
    return _Preparation(bound, sends, events, as_of).run()


class _Preparation:
    """The checks in the order of the rule."""

    def __init__(self, bound: Bound, sends: Sends, events: Events, as_of: int | None) -> None:
        from justai_sim.attribution import scan

        self.bound, self.rule = bound, bound.rule
        self.sends, self.events = sends, events
        e = events
        limit = np.iinfo(np.int64).max if as_of is None else as_of  # without as_of every row is known
        self.lateness = clock.days(self.rule.lateness_days)
        self.look = Look(
            *scan.look_events(
                e.rep, e.event, e.user, e.kind, e.occurred_at, e.received_at, e.value, e.currency, e.send, e.order,
                e.template, e.variant, e.machine, limit, self.lateness,
            )
        )  # fmt: skip
        if len(e):
            check_times("events", self.look.low, self.look.high)
        if as_of is None:
            heard = np.where(sends.received_at == MISSING, sends.sent_at, sends.received_at)
            received = np.where(e.received_at == MISSING, e.occurred_at, e.received_at)
            as_of = max((int(a.max()) for a in (received, heard) if len(a)), default=0)
        self.as_of, self.limit = as_of, limit
        known = known_sends(sends, limit, self.lateness, self.look.top_send, self.look.top_user)
        self.known, self.span, self.user_span = known
        reps = max((int(r.max()) for r in (sends.rep, e.rep) if len(r) and r.any()), default=0) + 1
        self.users = reps * self.user_span
        self.reason = np.full(len(e), -1, np.int8)
        self.received = e.received_at
        if self.look.clamped or self.look.out:
            self.received = np.where(e.received_at == MISSING, e.occurred_at, e.received_at)
        self.occurred = np.minimum(e.occurred_at, self.received) if self.look.clamped else e.occurred_at

    def run(self) -> Ready:
        rows = self.resolve()
        rows = self.status_events(rows)
        engaged = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        first_open = first_click = None
        if self.look.engagement or self.rule.anchor in ("opened", "clicked"):
            responses = self.events.kind[rows] != CONVERSION
            engaged, first_open, first_click = self.engagement(rows[responses])
            rows = rows[~responses]
        anchor = anchors(self.rule, self.known, first_open, first_click)
        rows, refunds, refunded = self.conversions(rows)
        return Ready(
            self.bound, self.sends, self.events, self.as_of, self.look, self.known, anchor, self.reason, self.value,
            self.occurred, self.user, self.users, self.named, engaged, rows, refunds, refunded,
        )  # fmt: skip

    # -- what counts at all -------------------------------------------------------------------------

    def resolve(self) -> I8:
        """Rows that are known, in time and no copies; sets `named` and `user` for all rows."""
        e, look = self.events, self.look
        self.user = composite(e.rep, e.user, self.user_span) if look.reps else e.user
        self.named = np.zeros(0, np.int64)
        if look.named:
            self.named = self.known.find(composite(e.rep, e.send, self.span))
            self.owners()
        rows = np.arange(len(e))
        if look.out:
            unknown = self.received > self.limit
            late = ~unknown & (self.received - self.occurred > self.lateness)
            self.reason[unknown] = REASON["not_yet_known"]
            self.reason[late] = REASON["too_late"]
            rows = np.flatnonzero(~(unknown | late))
        event = composite(e.rep, e.event, span_of(e.event)) if look.reps else e.event
        no_copies = bool(look.rising) if event is e.event else False
        if look.ordered_goods or not (no_copies or distinct(event)):
            order = composite(e.rep, e.order, span_of(e.order))[rows]
            # A user that cannot be resolved is one user per replication, so that its copies are still found.
            who = np.where(self.user[rows] < 0, -1 - e.rep[rows].astype(np.int64), self.user[rows])
            received = np.where(e.received_at == MISSING, e.occurred_at, e.received_at)
            copy = ev.duplicates(e, rows, who, self.occurred[rows], received[rows], event[rows], order)
            self.reason[rows[copy]] = REASON["duplicate"]
            rows = rows[~copy]
        return rows

    def owners(self) -> None:
        """An event without a user has the user of the send that it names (rule 16)."""
        orphan = (self.user < 0) & (self.named >= 0)
        if self.rule.explicit == "ignore":  # then the id says nothing about a conversion, its user included
            orphan &= self.events.kind != CONVERSION
        if orphan.any():
            self.user = self.user.copy()
            self.user[orphan] = self.known.user[self.named[orphan]]

    def status_events(self, rows: I8) -> I8:
        """Fold bounces and deliveries into the sends they name."""
        if not self.look.status:
            return rows
        kind, known = self.events.kind[rows], self.known
        status = kind >= BOUNCE
        self.reason[rows[status]] = REASON["status_event"]
        if not self.look.named:
            return rows[~status]
        named = self.named[rows]
        bad = ((kind == BOUNCE) | (kind == DROP)) & (named >= 0)
        if bad.any():
            known.negative, known.plain = known.negative.copy(), False
            known.negative[named[bad]] = True
        told = (kind == DELIVERY) & (named >= 0)
        if told.any():
            far = np.iinfo(np.int64).max
            best = np.where(known.delivered_at == MISSING, far, known.delivered_at)
            np.minimum.at(best, named[told], self.occurred[rows[told]])
            known.delivered_at = np.where(best == far, MISSING, best)
        return rows[~status]

    # -- engagement ---------------------------------------------------------------------------------

    def engagement(self, rows: I8) -> tuple[tuple[I8, I8], I8 | None, I8 | None]:
        """Credit opens, clicks and unsubscribes; returns the credits, the first human open and click of each send (None
        where no window starts there)."""
        e, known, t = self.events, self.known, self.occurred[rows]
        named = self.named[rows] if self.look.named else np.full(len(rows), -1, np.int64)
        reason = np.full(len(rows), REASON["unknown_send"], np.int8)
        attached = np.full(len(rows), -1, np.int64)
        window = clock.days(self.rule.engagement_lookback_days)
        has = named >= 0
        s = named[has]
        age = t[has] - known.sent_at[s]
        gone = known.negative[s] | known.ghost[s]
        reason[has] = np.select(
            [gone, age < -SKEW, age >= window],
            [REASON["not_delivered"], REASON["before_send"], REASON["outside_engagement_window"]],
            REASON["credited"],
        )
        attached[has] = np.where(reason[has] == REASON["credited"], s, -1)
        free = np.flatnonzero(e.send[rows] < 0)
        if len(free):
            reason[free], attached[free] = self.joined(rows[free], window)
        machine, kind = e.machine[rows] == 1, e.kind[rows]
        firsts: tuple[I8 | None, ...] = (None, None)
        if self.rule.anchor in ("opened", "clicked"):
            human = ~machine & (attached >= 0)
            firsts = tuple(self.first(rows, attached, human & (kind == k)) for k in (OPEN, CLICK))
        if self.rule.machine == "exclude":
            reason[machine] = REASON["machine"]
        elif self.rule.machine == "only":
            reason[~machine & ((kind == OPEN) | (kind == CLICK))] = REASON["machine"]
        self.reason[rows] = reason
        good = reason == REASON["credited"]
        return (rows[good], attached[good]), firsts[0], firsts[1]

    def joined(self, rows: I8, window: int) -> tuple[I1, I8]:
        """Engagement without an id goes to the newest reached send of the user (rule 19)."""
        from justai_sim.attribution import kernel

        k = self.known
        order = np.lexsort((k.send, k.sent_at, k.user))
        user = k.user[order]
        who = self.user[rows]
        lo = np.searchsorted(user, who, side="left")
        hi = np.where(who >= 0, np.searchsorted(user, who, side="right"), lo)
        reason, at = kernel.joined_engagement(
            self.occurred[rows],
            self.events.template[rows],
            self.events.variant[rows],
            lo,
            hi,
            k.sent_at[order],
            k.template[order],
            k.variant[order],
            k.reached[order],
            k.ghost[order],
            window,
        )
        return reason, np.append(order, -1)[at]

    def first(self, rows: I8, attached: I8, which: B1) -> I8:
        far = np.iinfo(np.int64).max
        out = np.full(len(self.known), far)
        np.minimum.at(out, attached[which], self.occurred[rows[which]])
        return np.where(out == far, MISSING, out)

    # -- conversions --------------------------------------------------------------------------------

    def conversions(self, rows: I8) -> tuple[I8, I8, I8]:
        """Machine, names, currency, refunds: what is left for the window, refunds of orders and those orders."""
        e, look = self.events, self.look
        if look.machine and self.rule.machine == "exclude":
            rows = self.drop(rows, e.machine[rows] == 1, "machine")
        if not self.bound.wanted.all():
            rows = self.drop(rows, ~self.bound.wanted[e.name[rows] + 1], "wrong_event")
        value = e.value[rows]
        if look.foreign:
            value, refused = ev.converted_values(self.bound, value, e.currency[rows])
            value = value[~refused]
            rows = self.drop(rows, refused, "currency")
        if len(rows) == len(e):
            self.value = np.where(value == MISSING, 0, value)
        else:
            self.value = np.zeros(len(e), np.int64)
            self.value[rows] = np.where(value == MISSING, 0, value)
        if not look.negative:
            return rows, np.zeros(0, np.int64), np.zeros(0, np.int64)
        raw = e.value[rows]  # the sign before conversion: a refund of a few yen may round to zero dollars
        negative = (raw != MISSING) & (raw < 0)
        horizon = clock.days(self.rule.refund_horizon_days)
        order = composite(e.rep, e.order, span_of(e.order))[rows]
        match = ev.match_refunds(
            self.user[rows], order, self.occurred[rows], e.event[rows], ~negative, negative, horizon
        )
        self.reason[rows[negative]] = np.where(match[negative] >= 0, REASON["refund"], REASON["refund_without_order"])
        refunds = negative & (match >= 0)
        return rows[~negative], rows[refunds], rows[match[refunds]]

    def drop(self, rows: I8, which: B1, reason: str) -> I8:
        if not which.any():
            return rows
        self.reason[rows[which]] = REASON[reason]
        return rows[~which]


def whole(pairs: tuple[I8, I8]) -> tuple[I8, I8, I8]:
    """Credits of weight 1."""
    return (*pairs, np.full(len(pairs[0]), PARTS, np.int64))

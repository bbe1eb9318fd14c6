"""The batch door: rule, sends and events in; credits, reasons and outcomes out."""

from __future__ import annotations

from typing import get_args

import numpy as np

from justai_sim import clock
from justai_sim.attribution import events as ev
from justai_sim.attribution.events import Bound, money_share
from justai_sim.attribution.outcomes import Attribution, Outcomes, close_of
from justai_sim.attribution.rule import CreditRule, Explicit
from justai_sim.attribution.sends import anchors, composite, known_sends, span_of
from justai_sim.clock import DAY, MISSING
from justai_sim.errors import DataError
from justai_sim.tables import (
    B1,
    BOUNCE,
    CLICK,
    CONVERSION,
    DELIVERY,
    DROP,
    I1,
    I8,
    OPEN,
    PARTS,
    REASON,
    UNSUBSCRIBE,
    Credits,
    Events,
    Sends,
)

SKEW = 5 * clock.MINUTE
"""An engagement that names its send may lie this much before it (rule 20)."""


def attribute(bound: Bound, sends: Sends, events: Events, as_of: int | None = None) -> Attribution:
    """Credit of every event that is known at `as_of` (microseconds; None: all rows), as attribution rules say.

    A pure function of the rows known: their order and repetition change nothing.
    """
    return _Pass(bound, sends, events, as_of).run()


class _Pass:
    """One attribution, in the order of the rule's checks. Arrays named after rows are aligned with `rows`."""

    def __init__(self, bound: Bound, sends: Sends, events: Events, as_of: int | None) -> None:
        self.bound, self.rule = bound, bound.rule
        self.sends, self.events = sends, events
        received = np.where(events.received_at == MISSING, events.occurred_at, events.received_at)
        limit = np.iinfo(np.int64).max if as_of is None else as_of  # without as_of every row is known
        if as_of is None:
            heard = np.where(sends.received_at == MISSING, sends.sent_at, sends.received_at)
            as_of = max((int(a.max()) for a in (received, heard) if len(a)), default=0)
        self.as_of, self.limit = as_of, limit
        self.lateness = clock.days(self.rule.lateness_days)
        self.span = span_of(sends.send, events.send)
        self.user_span = span_of(sends.user, events.user)
        self.known = known_sends(sends, limit, self.lateness, self.span, self.user_span)
        self.reason = np.full(len(events), -1, np.int8)
        self.received = received
        self.occurred = np.minimum(events.occurred_at, received)
        self.credits: list[tuple[I8, I8, I8]] = []  # (event row, position in known, weight)

    def run(self) -> Attribution:
        rows = self.resolve()
        rows = self.status_events(rows)
        responses = self.events.kind[rows] != CONVERSION
        first_open, first_click = self.engagement(rows[responses])
        self.anchor = anchors(self.rule, self.known, first_open, first_click)
        self.conversions(rows[~responses])
        return self.result()

    # -- what counts at all -------------------------------------------------------------------------

    def resolve(self) -> I8:
        """Rows that are known, in time and no copies; sets `named` and `user` for all rows."""
        e = self.events
        self.named = self.known.find(composite(e.rep, e.send, self.span))
        user = composite(e.rep, e.user, self.user_span)
        orphan = (user < 0) & (self.named >= 0)
        if self.rule.explicit == "ignore":  # then the id says nothing about a conversion, its user included
            orphan &= e.kind != CONVERSION
        user[orphan] = self.known.user[self.named[orphan]]
        self.user = user
        unknown = self.received > self.limit
        late = ~unknown & (self.received - self.occurred > self.lateness)
        self.reason[unknown] = REASON["not_yet_known"]
        self.reason[late] = REASON["too_late"]
        rows = np.flatnonzero(~(unknown | late))
        event = composite(e.rep, e.event, span_of(e.event))[rows]
        order = composite(e.rep, e.order, span_of(e.order))[rows]
        # A user that cannot be resolved is one user per replication, so that its copies are still found.
        who = np.where(user[rows] < 0, -1 - e.rep[rows].astype(np.int64), user[rows])
        copy = ev.duplicates(e, rows, who, self.occurred[rows], self.received[rows], event, order)
        self.reason[rows[copy]] = REASON["duplicate"]
        return rows[~copy]

    def status_events(self, rows: I8) -> I8:
        """Fold bounces and deliveries into the sends they name."""
        kind = self.events.kind[rows]
        status = kind >= BOUNCE
        self.reason[rows[status]] = REASON["status_event"]
        named = self.named[rows]
        self.known.negative[named[((kind == BOUNCE) | (kind == DROP)) & (named >= 0)]] = True
        told = (kind == DELIVERY) & (named >= 0)
        at = self.known.delivered_at
        far = np.iinfo(np.int64).max
        best = np.where(at == MISSING, far, at)
        np.minimum.at(best, named[told], self.occurred[rows[told]])
        self.known.delivered_at = np.where(best == far, MISSING, best)
        return rows[~status]

    # -- engagement ---------------------------------------------------------------------------------

    def engagement(self, rows: I8) -> tuple[I8, I8]:
        """Credit opens, clicks and unsubscribes; returns the first human open and click of each send."""
        e, known = self.events, self.known
        named, t = self.named[rows], self.occurred[rows]
        reason = np.full(len(rows), REASON["unknown_send"], np.int8)
        attached = np.full(len(rows), -1, np.int64)
        window = clock.days(self.rule.engagement_lookback_days)
        has = named >= 0
        s = named[has]
        age = t[has] - known.sent_at[s]
        gone = known.negative[s] | known.ghost[s]
        reason[has] = np.select(
            [gone, age < -SKEW, age >= np.maximum(window, 0)],
            [REASON["not_delivered"], REASON["before_send"], REASON["outside_engagement_window"]],
            REASON["credited"],
        )
        attached[has] = np.where(reason[has] == REASON["credited"], s, -1)
        free = np.flatnonzero(e.send[rows] < 0)
        if len(free):
            reason[free], attached[free] = self.joined(rows[free], window)
        machine = e.machine[rows] == 1
        kind = e.kind[rows]
        if self.rule.machine == "exclude":
            out = machine
        elif self.rule.machine == "only":
            out = ~machine & ((kind == OPEN) | (kind == CLICK))
        else:
            out = np.zeros(len(rows), bool)
        human = ~machine & (attached >= 0)
        firsts = tuple(self.first(rows, attached, human & (kind == k)) for k in (OPEN, CLICK))
        reason[out] = REASON["machine"]
        self.reason[rows] = reason
        good = reason == REASON["credited"]
        self.credits.append((rows[good], attached[good], np.full(int(good.sum()), PARTS, np.int64)))
        return firsts[0], firsts[1]

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
        out = np.full(len(self.known.key), far)
        np.minimum.at(out, attached[which], self.occurred[rows[which]])
        return np.where(out == far, MISSING, out)

    # -- conversions --------------------------------------------------------------------------------

    def conversions(self, rows: I8) -> None:
        """Names, currency, refunds, then the window."""
        e = self.events
        machine = e.machine[rows] == 1
        if self.rule.machine == "exclude":
            self.reason[rows[machine]] = REASON["machine"]
            rows = rows[~machine]
        wrong = ~self.bound.wanted[e.name[rows] + 1]
        self.reason[rows[wrong]] = REASON["wrong_event"]
        rows = rows[~wrong]
        value, refused = ev.converted_values(self.bound, e.value[rows], e.currency[rows])
        self.reason[rows[refused]] = REASON["currency"]
        rows, value = rows[~refused], value[~refused]
        self.value = np.zeros(len(e), np.int64)
        self.value[rows] = np.where(value == MISSING, 0, value)
        raw = e.value[rows]  # the sign before conversion: a refund of a few yen may round to zero dollars
        negative = (raw != MISSING) & (raw < 0)
        horizon = clock.days(self.rule.refund_horizon_days)
        order = composite(e.rep, e.order, span_of(e.order))[rows]
        match = ev.match_refunds(
            self.user[rows], order, self.occurred[rows], e.event[rows], ~negative, negative, horizon
        )
        self.reason[rows[negative]] = np.where(match[negative] >= 0, REASON["refund"], REASON["refund_without_order"])
        self.window(rows[~negative])
        refunds = negative & (match >= 0)
        self.refund(rows[refunds], rows[match[refunds]])

    def window(self, rows: I8) -> None:
        from justai_sim.attribution import kernel

        rule, k, e = self.rule, self.known, self.events
        if not len(rows):
            return
        klass = np.where(~k.reached, 2, np.where(self.anchor == MISSING, 1, 0)).astype(np.int8)
        anchor = np.where(self.anchor == MISSING, k.sent_at, self.anchor)
        scope = self.bound.scope[k.template]
        # Only the sends of users who converted matter here: they are few, and sorting is what costs.
        some = np.flatnonzero(_among(k.user, self.user[rows]))
        order = some[np.lexsort((k.send[some], anchor[some], klass[some], scope[some], k.user[some]))]
        runs = _Runs(k.user[order], scope[order], klass[order])
        position = np.full(len(k.key), -1, np.int64)
        position[order] = np.arange(len(order))
        named = self.named[rows]
        own = (named >= 0) & (np.append(k.user, -1)[named] == self.user[rows])
        named = np.where(own, np.append(position, -1)[named], -1)
        lo, hi = runs.of(self.user[rows])
        calendar = rule.day_rule == "calendar"
        window = (
            rule.offset, rule.upper, float(rule.offset_days), float(rule.upper_days),
            rule.bounds[0] == "[", rule.bounds[1] == "]", calendar,
        )  # fmt: skip
        t = self.occurred[rows]
        day = clock.local_dates(t, rule.tz) if calendar else np.zeros(len(t), np.int64)
        anchor_day = clock.local_dates(anchor[order], rule.tz) if calendar else np.zeros(len(order), np.int64)
        reason, event, send, weight = kernel.conversions(
            t, day, e.name[rows], e.template[rows], e.variant[rows], named, lo, hi,
            runs.start, runs.anchor_end, runs.reached_end, runs.end,
            anchor[order], anchor_day, k.template[order], k.variant[order], klass[order], self.bound.goal,
            get_args(CreditRule).index(rule.credit), get_args(Explicit).index(rule.explicit),
            window, 2 * DAY if calendar else 0, float(clock.days(rule.half_life_days)), rule.scope == "template",
        )  # fmt: skip
        self.reason[rows] = reason
        self.credits.append((rows[event], order[send], weight))

    def refund(self, refunds: I8, orders: I8) -> None:
        """A refund follows its order's credits, with the order's weights."""
        if not len(refunds) or not self.credits:
            return
        event, send, weight = self.credits[-1]
        sort = np.argsort(event, kind="stable")
        lo = np.searchsorted(event[sort], orders, side="left")
        n = np.searchsorted(event[sort], orders, side="right") - lo
        at = sort[np.repeat(lo - np.cumsum(n) + n, n) + np.arange(int(n.sum()))]
        self.credits.append((np.repeat(refunds, n), send[at], weight[at]))

    # -- what each send earned ----------------------------------------------------------------------

    def result(self) -> Attribution:
        event, send, weight = (np.concatenate(c) for c in zip(*self.credits, strict=True))
        k = self.known
        table = Credits(event_row=event, send_row=k.row[send], weight=weight)
        outcomes = self.outcomes(event, send, weight)
        return Attribution(self.rule, self.as_of, table, self.reason, self.value, outcomes)

    def outcomes(self, event: I8, send: I8, weight: I8) -> Outcomes:
        k, kind, n = self.known, self.events.kind[event], len(self.known.key)

        def any_of(wanted: int) -> I8:
            out = np.zeros(n, np.int64)
            out[send[kind == wanted]] = 1
            return out

        opens, clicks = any_of(OPEN), any_of(CLICK)
        conversion = kind == CONVERSION
        paid = conversion & (self.reason[event] == REASON["credited"])
        total = _sum_by(send[paid], weight[paid], n)
        revenue = np.zeros(n, np.int64)
        if conversion.any():
            share = money_share(self.value[event[conversion]], weight[conversion], PARTS)
            # int64 holds 9.2e12 units of money on one send; beyond that a sum would wrap round silently.
            if np.abs(np.bincount(send[conversion], share, n)).max() > 9.2e18:
                raise DataError("the revenue of one send exceeds 9.2e12: check the unit of `value`")
            revenue = _sum_by(send[conversion], share, n)
        numerator = total
        if self.rule.repeat == "once_per_send":
            numerator = np.minimum(total, PARTS)
        elif self.rule.repeat == "once_per_user":
            numerator = self.first_of_user(event[paid], send[paid], weight[paid])
        return Outcomes(
            send_row=k.row,
            reached=k.reached,
            ghost=k.ghost,
            anchor=self.anchor,
            close_at=close_of(self.rule, self.anchor),
            engagement_close_at=k.sent_at + clock.days(self.rule.engagement_lookback_days),
            opens=np.maximum(opens, clicks) if self.rule.click_implies_open else opens,
            clicks=clicks,
            unsubscribes=any_of(UNSUBSCRIBE),
            weight=total,
            numerator=numerator,
            revenue=revenue,
        )

    def first_of_user(self, event: I8, send: I8, weight: I8) -> I8:
        """Weights of a user's first credited conversion per template only (rule 24)."""
        k = self.known
        user, template = k.user[send], k.template[send]
        order = np.lexsort((self.events.event[event], self.occurred[event], template, user))
        lead = np.ones(len(order), bool)
        u, t = user[order], template[order]
        lead[1:] = (u[1:] != u[:-1]) | (t[1:] != t[:-1])
        leader = event[order][lead][np.cumsum(lead) - 1] if len(order) else event
        keep = order[event[order] == leader]
        return _sum_by(send[keep], weight[keep], len(k.key))


def _sum_by(index: I8, value: I8, n: int) -> I8:
    """Exact integer sums of `value` by `index`, shape (n,)."""
    out = np.zeros(n, np.int64)
    np.add.at(out, index, value)
    return out


def _among(values: I8, wanted: I8) -> B1:
    """Whether each value is one of `wanted`."""
    low = int(wanted.min())
    span = int(wanted.max()) - low + 1
    if span <= 8 * (len(values) + len(wanted)):  # codes are dense: a table beats sorting
        flag = np.zeros(span, bool)
        flag[wanted - low] = True
        inside = (values >= low) & (values < low + span)
        return inside & flag[np.where(inside, values - low, 0)]
    return np.isin(values, wanted)


class _Runs:
    """Stretches of one (user, scope) in the sorted sends, each split by class."""

    def __init__(self, user: I8, scope: I8, klass: I1) -> None:
        n = len(user)
        first = np.ones(n, bool)
        first[1:] = (user[1:] != user[:-1]) | (scope[1:] != scope[:-1])
        self.start = np.flatnonzero(first)
        self.end = np.append(self.start[1:], n).astype(np.int64)
        group = np.cumsum(first) - 1
        count = len(self.start)
        self.anchor_end = self.start + np.bincount(group[klass == 0], minlength=count)
        self.reached_end = self.anchor_end + np.bincount(group[klass == 1], minlength=count)
        self.user = user[self.start]

    def of(self, user: I8) -> tuple[I8, I8]:
        """The runs [lo, hi) of each user; none for a missing user."""
        lo = np.searchsorted(self.user, user, side="left")
        hi = np.searchsorted(self.user, user, side="right")
        return lo, np.where(user >= 0, hi, lo)

"""The window applied to a prepared log: which sends are credited with each conversion, or why none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, get_args

import numpy as np

from justai_sim import clock
from justai_sim.attribution.prepare import Ready
from justai_sim.attribution.rule import CreditRule, Explicit, Rule
from justai_sim.attribution.sends import time_order
from justai_sim.clock import DAY, MISSING
from justai_sim.tables import B1, I1, I8, PARTS, REASON

MANY = 500_000
"""Rows from which a second thread is worth its start."""


class Judged(NamedTuple):
    """`reason` per conversion judged; credits as (event row, position of the send, weight)."""

    reason: I1
    event: I8
    send: I8
    weight: I8


@dataclass
class Contest:
    """The sends of a prepared log arranged for competition; made once for all windows."""

    ready: Ready

    @cached_property
    def klass(self) -> I1 | None:
        """0 may win, 1 has no anchor, 2 was not reached; None: all may win."""
        r = self.ready
        if r.bound.rule.anchor == "sent" and r.known.plain:
            return None
        return np.where(~r.known.reached, 2, np.where(r.anchor == MISSING, 1, 0)).astype(np.int8)

    @cached_property
    def scopes(self) -> int:
        return int(self.ready.bound.scope.max(initial=0)) + 1

    @cached_property
    def lane(self) -> I8:
        """user x scopes + scope of each known send: who competes with whom."""
        k = self.ready.known
        return k.user if self.scopes == 1 else k.user * self.scopes + self.ready.bound.scope[k.template]

    @cached_property
    def who(self) -> I8:
        """user x scopes of each conversion to judge; negative where the user is not known."""
        r = self.ready
        user = r.user if len(r.rows) == len(r.user) else r.user[r.rows]
        return user if self.scopes == 1 else user * self.scopes

    @cached_property
    def lanes(self) -> int:
        """Number of lanes, one set more for unknown users."""
        return (self.ready.users + 1) * self.scopes

    @cached_property
    def dense(self) -> bool:
        """A table by lane is affordable."""
        return self.lanes <= 4 * (len(self.ready.known) + len(self.ready.events)) + 65_536

    @cached_property
    def line(self) -> tuple[I8 | None, I8, I8]:
        """Sends that may win in (anchor, id) order: positions (None: all as they are), lanes, anchors."""
        r, k = self.ready, self.ready.known
        if self.klass is None and k.ordered:
            return None, self.lane, r.anchor
        may = np.arange(len(k)) if self.klass is None else np.flatnonzero(self.klass == 0)
        order = may[time_order(r.anchor[may], k.send[may])]
        return order, self.lane[order], r.anchor[order]

    @cached_property
    def goal(self) -> B1 | None:
        """(scopes, names + 1): what counts in a scope; None where the templates of one differ."""
        bound = self.ready.bound
        out = np.zeros((self.scopes, bound.goal.shape[1]), bool)
        some = np.ones_like(out)
        for s, g in zip(bound.scope.tolist(), bound.goal, strict=False):
            out[s] |= g
            some[s] &= g
        return out if not len(bound.scope) or bool((out == some)[np.unique(bound.scope)].all()) else None

    @cached_property
    def simple(self) -> B1 | None:
        """Conversions that name nothing, so that the order of the sends alone decides; None: all of them."""
        r, e = self.ready, self.ready.events
        names = r.look.named > 0 and r.bound.rule.explicit != "ignore"
        if not names and not r.look.partial:
            return None
        rows = r.rows
        plain = (e.template[rows] < 0) & (e.variant[rows] < 0)
        if names:
            plain &= e.send[rows] < 0
        return None if plain.all() else plain

    def judge(self, rule: Rule) -> Judged:
        """Credits under `rule`, which may differ from the prepared one in the window and the credit rule only."""
        rows = self.ready.rows
        if not len(rows):
            none = np.zeros(0, np.int64)
            return Judged(np.zeros(0, np.int8), none, none, none)
        fast = rule.credit == "last_qualifying" and rule.day_rule == "elapsed" and self.dense and self.goal is not None
        if not fast:
            return self._each(rule, np.arange(len(rows)))
        if self.simple is None:
            return self._newest(rule, None)
        plain, rest = np.flatnonzero(self.simple), np.flatnonzero(~self.simple)
        a, b = self._newest(rule, plain), self._each(rule, rest)
        reason = np.empty(len(rows), np.int8)
        reason[plain], reason[rest] = a.reason, b.reason
        return Judged(reason, *(np.concatenate(c) for c in zip(a[1:], b[1:], strict=True)))

    def _newest(self, rule: Rule, some: I8 | None) -> Judged:
        """`last_qualifying` in one pass through sends and conversions in time order."""
        from justai_sim.attribution import scan

        rows, t, who, name, order = self.in_time(some)
        at, lane, anchor = self.line
        least, most = edges(rule)
        goal = self.goal
        assert goal is not None
        m, scopes = len(t), len(goal)
        tables, found = np.full((2, self.lanes), -1, np.int32), np.empty((2, m * scopes), np.int32)
        if len(anchor) + m < MANY:
            scan.newest(lane, anchor, who, t, scopes, tables[1], found[1])
            scan.qualifying(lane, anchor, who, t, least, most, scopes, tables[0], found[0])
        else:
            with ThreadPoolExecutor(1) as other:  # the compiled passes release the interpreter
                newest = other.submit(scan.newest, lane, anchor, who, t, scopes, tables[1], found[1])
                scan.qualifying(lane, anchor, who, t, least, most, scopes, tables[0], found[0])
                newest.result()
        reason, event, send = np.empty(m, np.int8), np.empty(m * scopes, np.int64), np.empty(m * scopes, np.int64)
        count = scan.verdicts(*found, tables[1], who, name, goal, reason, event, send)
        event, send = event[:count], send[:count]
        if self.klass is not None and (reason == REASON["no_send"]).any():
            scan.unreached(reason, who, name, goal, scan.lane_classes(self.lane, self.klass, self.lanes))
        if order is not None:
            back = np.empty_like(reason)
            back[order], event = reason, order[event]
            reason = back
        return Judged(reason, rows[event], send if at is None else at[send], np.full(len(event), PARTS, np.int64))

    @property
    def positions(self) -> I8:
        """Positions of the sends in `line`."""
        at = self.line[0]
        return np.arange(len(self.line[1])) if at is None else at

    def in_time(self, some: I8 | None) -> tuple[I8, I8, I8, I8, I8 | None]:
        """Event rows of some of the conversions to judge (None: all); instants, `who` and names of them in time
        order; and that order (None: they are in it)."""
        r = self.ready
        rows = r.rows if some is None else r.rows[some]
        whole = len(rows) == len(r.events)
        t = r.occurred if whole else r.occurred[rows]
        who = self.who if some is None else self.who[some]
        name = r.events.name if whole else r.events.name[rows]
        if r.look.in_time:
            return rows, t, who, name, None
        order = np.argsort(t, kind="stable")
        return rows, t[order], who[order], name[order], order

    @cached_property
    def _runs(self) -> _Runs:
        return _Runs(self)

    def _each(self, rule: Rule, some: I8) -> Judged:
        """Any rule: each conversion looks at the sends of its user, sorted by (scope, class, anchor, id)."""
        if not len(some):  # sorting the sends is what costs
            none = np.zeros(0, np.int64)
            return Judged(np.zeros(0, np.int8), none, none, none)
        from justai_sim.attribution import kernel

        r, runs = self.ready, self._runs
        rows, e, k = r.rows[some], r.events, r.known
        calendar = rule.day_rule == "calendar"
        window = (
            rule.offset, rule.upper, float(rule.offset_days), float(rule.upper_days),
            rule.bounds[0] == "[", rule.bounds[1] == "]", calendar,
        )  # fmt: skip
        t, user = r.occurred[rows], r.user[rows]
        named = np.full(len(rows), -1, np.int64)
        if r.look.named:
            at = r.named[rows]
            own = (at >= 0) & (np.append(k.user, -1)[at] == user)
            named = np.where(own, np.append(runs.place, -1)[at], -1)
        day = clock.local_dates(t, rule.tz) if calendar else np.zeros(len(t), np.int64)
        anchor_day = clock.local_dates(runs.anchor, rule.tz) if calendar else np.zeros(len(runs.anchor), np.int64)
        lo, hi = runs.of(user)
        reason, event, send, weight = kernel.conversions(
            t, day, e.name[rows], e.template[rows], e.variant[rows], named, lo, hi,
            runs.start, runs.anchor_end, runs.reached_end, runs.end,
            runs.anchor, anchor_day, runs.template, runs.variant, runs.klass, r.bound.goal,
            get_args(CreditRule).index(rule.credit), get_args(Explicit).index(rule.explicit),
            window, 2 * DAY if calendar else 0, float(clock.days(rule.half_life_days)), rule.scope == "template",
        )  # fmt: skip
        return Judged(reason, rows[event], runs.order[send], weight)


JUDGED = ("lookback_days", "offset_days", "bounds", "lookback_from", "credit", "half_life_days")
"""The options that `Contest.judge` reads from the rule that it is given; all others are of the prepared log."""


def same_contest(a: Rule, b: Rule) -> bool:
    """Whether a log that was prepared under one of the rules can be judged under the other."""
    return all(getattr(a, f) == getattr(b, f) for f in a.__struct_fields__ if f not in JUDGED)


def edges(rule: Rule) -> tuple[int, int]:
    """Least and greatest age that qualifies, microseconds, both inclusive."""
    return rule.offset + (rule.bounds[0] != "["), rule.upper - (rule.bounds[1] != "]")


class _Runs:
    """Stretches of one (user, scope) in the sorted sends, each split by class."""

    def __init__(self, contest: Contest) -> None:
        r, k = contest.ready, contest.ready.known
        klass = np.zeros(len(k), np.int8) if contest.klass is None else contest.klass
        anchor = np.where(r.anchor == MISSING, k.sent_at, r.anchor)
        # Only the sends of users who converted matter here: often they are few, and sorting is what costs.
        some = np.flatnonzero(_among(k.user, r.user[r.rows]))
        self.order = order = some[self._sorted(contest, some, klass, anchor)]
        lane, self.klass, self.anchor = contest.lane[order], klass[order], anchor[order]
        self.template, self.variant = k.template[order], k.variant[order]
        self.place = np.full(len(k), -1, np.int64)
        self.place[order] = np.arange(len(order))
        first = np.ones(len(order), bool)
        first[1:] = lane[1:] != lane[:-1]
        self.start = np.flatnonzero(first)
        self.end = np.append(self.start[1:], len(order)).astype(np.int64)
        group = np.cumsum(first) - 1
        count = len(self.start)
        self.anchor_end = self.start + np.bincount(group[self.klass == 0], minlength=count)
        self.reached_end = self.anchor_end + np.bincount(group[self.klass == 1], minlength=count)
        self.user = k.user[order][self.start]

    @staticmethod
    def _sorted(contest: Contest, some: I8, klass: I1, anchor: I8) -> I8:
        from justai_sim.attribution import scan

        k = contest.ready.known
        if not contest.dense:
            return np.lexsort((k.send[some], anchor[some], klass[some], contest.lane[some]))
        key = contest.lane[some] * 3 + klass[some]
        ordered = k.ordered and contest.ready.bound.rule.anchor == "sent"
        start = np.arange(len(some)) if ordered else time_order(anchor[some], k.send[some])
        return scan.counting_order(key, contest.lanes * 3, start)[0]

    def of(self, user: I8) -> tuple[I8, I8]:
        """The runs [lo, hi) of each user; none for a missing user."""
        top = int(self.user.max(initial=-1)) + 1
        if top <= 8 * (len(self.user) + len(user)) + 65_536:
            lo_of = np.searchsorted(self.user, np.arange(top + 1), side="left")
            at = np.where((user >= 0) & (user < top), user, top)
            return lo_of[at], np.append(lo_of[1:], lo_of[-1])[at]
        lo = np.searchsorted(self.user, user, side="left")
        hi = np.searchsorted(self.user, user, side="right")
        return lo, np.where(user >= 0, hi, lo)


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

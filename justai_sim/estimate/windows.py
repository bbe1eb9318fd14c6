"""What each window would have credited: a whole grid of offsets and lookbacks from one preparation of the log."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import numpy as np

from justai_sim import clock
from justai_sim.attribution import Bound
from justai_sim.attribution.attribute import refunds
from justai_sim.attribution.earnings import capped, first_of_user
from justai_sim.attribution.events import money_share
from justai_sim.attribution.outcomes import close_of
from justai_sim.attribution.prepare import Ready, prepare
from justai_sim.attribution.rule import Rule
from justai_sim.attribution.sends import composite, distinct, span_of
from justai_sim.attribution.window import Contest, Judged, edges
from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.tables import B1, BOUNCE, CONVERSION, F8, I8, PARTS, Events, Sends

OFFSETS = tuple(range(8))
LOOKBACKS = tuple(range(1, 31))
"""The grid of windows that the pages show, in days."""


@dataclass(frozen=True)
class WindowCounts:
    """Arrays (offsets, lookbacks, groups, variants); NaN where the offset is not below the lookback.

    All of sends (or users, as the rule's denominator is) that were mature at `as_of` under the window: `conversions` as
    the rule's `repeat` counts them (the numerator of the conversion rate), `conversion_count` (sum of all weights),
    `converted` sends (with any credit),
    `revenue` net of refunds (units of money), and those `sends`.
    """

    offsets: tuple[float, ...]
    lookbacks: tuple[float, ...]
    conversions: F8
    sends: F8
    conversion_count: F8
    converted: F8
    revenue: F8


def window_counts(
    bound: Bound, sends: Sends, events: Events, as_of: int, offsets: Sequence[float], lookbacks: Sequence[float],
    group: I8, variant: I8, groups: int, variants: int, weight: F8 | None = None,
) -> WindowCounts:  # fmt: skip
    """Every window [offset, lookback) of the grid, each as attributing it alone would give.

    `offsets`, `lookbacks`: days. `group`, `variant` are columns of the sends (n,); -1 leaves a send out. With `weight`
    (n,) every send counts that much, in all five arrays. The default rule takes one pass; rules whose winner does not
    depend on the lookback one an offset; the others one a window.
    """
    offsets, lookbacks = tuple(sorted(set(offsets))), tuple(sorted(set(lookbacks)))
    rule = bound.rule
    idle = (events.kind != CONVERSION) & (events.kind < BOUNCE)
    if rule.anchor in ("sent", "delivered") and idle.any() and distinct(_event_keys(events)):
        # Engagement decides nothing here, unless it is a copy of something; status events do.
        events = events.take((events.kind == CONVERSION) | (events.kind >= BOUNCE))
    ready = prepare(bound, sends, events, as_of)
    grid = _Grid(ready, offsets, lookbacks, group, variant, groups, variants, weight)
    grid.fill()
    tables = (a.reshape(len(offsets), len(lookbacks), groups, variants) for a in grid.tables)
    return WindowCounts(offsets, lookbacks, *tables)


def _event_keys(events: Events) -> I8:
    return composite(events.rep, events.event, span_of(events.event))


class _Grid:
    """Tables (offsets, lookbacks, cells) of a prepared log: in the order of WindowCounts."""

    def __init__(
        self, ready: Ready, offsets: Sequence[float], lookbacks: Sequence[float], group: I8, variant: I8, groups: int,
        variants: int, weight: F8 | None,
    ) -> None:  # fmt: skip
        self.weight = weight
        self.ready, self.contest, self.rule = ready, Contest(ready), ready.bound.rule
        self.offsets, self.lookbacks, self.group, self.variant = offsets, lookbacks, group, variant
        self.variants, self.cells = variants, groups * variants
        self.as_of = ready.as_of - round(self.rule.mature_allowance_hours * clock.HOUR)
        self.lengths = np.array([clock.days(x) for x in lookbacks], np.int64)
        self.tables = [np.full((len(offsets), len(lookbacks), self.cells), np.nan) for _ in range(5)]
        after = self.rule.lookback_from == "offset_end"  # then the lookback is a length of its own
        self.usable = np.array([[after or b > o for b in lookbacks] for o in offsets], bool).reshape(len(offsets), -1)

    def at(self, offset: float, lookback: float) -> Rule:
        return msgspec.structs.replace(self.rule, offset_days=offset, lookback_days=lookback)

    def fill(self) -> None:
        rule, contest = self.rule, self.contest
        apart = rule.credit in ("last_qualifying", "all") and rule.explicit in ("window", "ignore")
        apart = apart and rule.lookback_from == "send" and rule.day_rule == "elapsed"
        at_once = apart and rule.credit == "last_qualifying" and len(self.offsets) < 63
        at_once = at_once and rule.repeat != "once_per_user" and rule.denominator == "reached"
        at_once = at_once and rule.cap is None and rule.cap_quantile is None
        if at_once and contest.simple is None and contest.dense and contest.goal is not None:
            return self.one_pass()
        self.cell = self.cells_of_sends()
        row = self.ready.known.rows(np.arange(len(self.ready.known)))
        self.each = np.ones(len(row)) if self.weight is None else self.weight[row]
        for i, offset in enumerate(self.offsets):
            js = np.flatnonzero(self.usable[i])
            for chosen in [js] if apart else js[:, None]:
                if len(chosen):
                    at = self.at(offset, self.lookbacks[chosen[-1]])
                    self.read(i, chosen, contest.judge(at), at, apart)
        return None

    def one_pass(self) -> None:
        """The default rule: a greater offset only moves the winner back."""
        from justai_sim.attribution import scan

        r, c = self.ready, self.contest
        position, lane, anchor = c.line
        at = np.zeros(0, np.int64) if r.known.row is None and position is None else r.known.rows(c.positions)
        none = np.zeros(0, np.int64)
        weight: I8 | F8 = none if self.weight is None else self.weight
        of = (at, self.group, self.variant, self.variants)
        rows, t, who, name, order = c.in_time(None)
        value = self.net_values()[rows]
        if order is not None:
            value = value[order]
        ages = [edges(self.at(o, max(self.lookbacks[-1], o + 1)))[0] for o in self.offsets]
        most = self.lengths - (self.rule.bounds[1] != "]")
        goal = c.goal
        assert goal is not None
        least = np.array(ages, np.int64)
        table, record = np.full(c.lanes, -1, np.int32), np.empty((len(anchor), 2), np.int64)
        head = np.empty(len(t) * len(goal), np.int32)
        seen = np.zeros(len(anchor), np.int32 if len(least) < 31 else np.int64)
        halves = np.zeros((2, self.cells, len(least), len(most), 3), weight.dtype)
        closed = np.zeros((len(most) + 1, self.cells), weight.dtype)

        def part(i: int) -> None:
            scan.surface(
                record, head, at, weight, who, t, name, goal, value, least, most, self.lengths, self.as_of, seen,
                halves[i], i, 2,
            )  # fmt: skip

        with ThreadPoolExecutor(1) as other:  # the compiled passes release the interpreter
            closing = other.submit(lambda: scan.closed_sends(anchor, *of, weight, self.lengths, self.as_of, closed))
            scan.chain(lane, anchor, *of, who, t, least[0], len(goal), table, record, head)
            second = other.submit(part, 1)
            part(0)
            second.result()
            closing.result()
        got = halves[0]
        got += halves[1]
        scan.summed(got)
        found = np.moveaxis(got, 0, 2)
        whole = np.broadcast_to(closed[1:], found.shape[:3])
        count, converted, revenue = (found[..., k] for k in range(3))
        conversions = count if self.rule.repeat == "every" else converted  # a winner's credit is whole
        for i, a in enumerate((conversions, whole, count, converted, revenue / 1e6)):
            self.tables[i][self.usable] = a[self.usable]

    def net_values(self) -> I8:
        """Value of each event row less its refunds, micro-units; DataError where the sum is beyond int64."""
        r = self.ready
        most = float(np.abs(r.value).sum(dtype=np.float64)) * self.contest.scopes  # one purchase may count in each
        if most > 9.2e18:
            raise DataError("the revenue of the log exceeds 9.2e12: check the unit of `value`")
        if not len(r.refunds):
            return r.value
        net = r.value.copy()
        np.add.at(net, r.refunded, r.value[r.refunds])
        return net

    def cells_of_sends(self) -> I8:
        """The cell of each known send that may win, -1 for the others."""
        r = self.ready
        row = r.known.rows(np.arange(len(r.known)))
        reached = r.known.reached | (self.rule.denominator == "sends")
        good = reached & (r.anchor != MISSING) & (self.group[row] >= 0) & (self.variant[row] >= 0)
        return np.where(good, self.group[row] * self.variants + self.variant[row], -1)

    def read(self, i: int, chosen: I8, judged: Judged, rule: Rule, apart: bool) -> None:
        """Fill one offset's row at the chosen lookbacks from the credits under `rule`, the longest of them."""
        r, weight = self.ready, judged.weight
        share = money_share(r.value[judged.event], weight, PARTS)
        back, of = refunds(r, judged.event)
        np.add.at(share, of, money_share(r.value[back], weight[of], PARTS))
        age = r.occurred[judged.event] - r.anchor[judged.send]
        close = close_of(rule, r.anchor)
        n = len(r.known)
        for j in chosen.tolist():
            if apart:
                ripe = (r.anchor != MISSING) & (r.anchor <= self.as_of - self.lengths[j])
                inside = age <= self.lengths[j] - (rule.bounds[1] != "]")
            else:
                ripe = (close != MISSING) & (close <= self.as_of)
                inside = np.ones(len(age), bool)
            send = judged.send[inside]
            count = np.bincount(send, weight[inside], n) / PARTS
            money = np.bincount(send, share[inside], n).astype(np.float64)
            revenue = capped(self.rule, money, ripe & r.known.reached) / 1e6
            values = (self.numerator(judged, inside), np.ones(n), count, (count > 0).astype(np.float64), revenue)
            for table, found in zip(self.tables, self.totals(ripe & (self.cell >= 0), values), strict=True):
                table[i, j] = found

    def totals(self, over: B1, values: tuple[F8, ...]) -> list[F8]:
        """Sums by cell of values of the known sends; of users where they are the denominator: a user has converted or
        not, brings all the money of the sends, and weighs what they weigh on average."""
        cell, each = self.cell[over], self.each[over]
        if self.rule.denominator != "users":
            return [np.bincount(cell, v[over] * each, self.cells).astype(np.float64) for v in values]
        user = self.ready.known.user[over]
        key, index = np.unique(cell * np.int64(self.ready.users + 1) + user, return_inverse=True)
        w = np.bincount(index, each, len(key)) / np.maximum(np.bincount(index, minlength=len(key)), 1)
        by_user = [np.bincount(index, v[over], len(key)) for v in values]
        numerator, one, count, converted, revenue = by_user
        shares = (np.minimum(numerator, 1.0), np.minimum(one, 1.0), count, np.minimum(converted, 1.0), revenue)
        return [np.bincount(key // (self.ready.users + 1), v * w, self.cells).astype(np.float64) for v in shares]

    def numerator(self, judged: Judged, inside: B1) -> F8:
        """What each known send adds to the conversion rate by credits `inside` the window, as `repeat` says."""
        event, send, weight = judged.event[inside], judged.send[inside], judged.weight[inside]
        if self.rule.repeat == "once_per_user":
            first = first_of_user(self.ready, event, send)
            send, weight = send[first], weight[first]
        total = np.bincount(send, weight, len(self.ready.known)) / PARTS
        return np.minimum(total, 1.0) if self.rule.repeat == "once_per_send" else total

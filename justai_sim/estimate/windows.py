"""What each window would have credited: conversions per variant for a grid of offsets and lookbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from justai_sim import clock
from justai_sim.attribution import Attribution, Bound, attribute
from justai_sim.clock import MISSING
from justai_sim.tables import B1, BOUNCE, CONVERSION, F8, I8, PARTS, REASON, Events, Sends

OFFSETS = tuple(range(8))
LOOKBACKS = tuple(range(1, 31))
"""The grid of windows that the pages show, in days."""


@dataclass(frozen=True)
class WindowCounts:
    """Arrays (offsets, lookbacks, groups, variants); NaN where the offset is not below the lookback."""

    offsets: tuple[float, ...]
    lookbacks: tuple[float, ...]
    conversions: F8
    sends: F8


def window_counts(
    bound: Bound, sends: Sends, events: Events, as_of: int, offsets: Sequence[float], lookbacks: Sequence[float],
    group: I8, variant: I8, groups: int, variants: int,
) -> WindowCounts:  # fmt: skip
    """Credited conversions of sends whose window [offset, lookback) had closed at `as_of`, and those sends.

    `group`, `variant` are columns of the sends (n,); -1 leaves a send out. Under rules whose winner does
    not depend on the lookback one attribution per offset is enough; the others are attributed cell by cell.
    """
    shape = (len(offsets), len(lookbacks), groups, variants)
    conversions, closed = np.full(shape, np.nan), np.full(shape, np.nan)
    rule = bound.rule
    if rule.anchor in ("sent", "delivered"):  # engagement decides nothing here; status events do
        events = events.take((events.kind == CONVERSION) | (events.kind >= BOUNCE))
    once = rule.credit in ("last_qualifying", "all") and rule.explicit in ("window", "ignore")
    once = once and rule.lookback_from == "send" and rule.day_rule == "elapsed"
    lengths = np.array([clock.days(x) for x in lookbacks], np.int64)
    for i, offset in enumerate(offsets):
        usable = [j for j, x in enumerate(lookbacks) if x > offset]
        for chosen in [usable] if once else [[j] for j in usable]:
            if not chosen:
                continue
            at = msgspec.structs.replace(rule, offset_days=offset, lookback_days=lookbacks[chosen[-1]])
            got = attribute(replace(bound, rule=at), sends, events, as_of)
            grid = _Grid(got, sends, events, as_of, group, variant, groups, variants)
            closed[i, chosen] = grid.closed(lengths[chosen]) if once else grid.own_closed()
            conversions[i, chosen] = grid.credited(lengths[chosen]) if once else grid.own_credited()
    return WindowCounts(tuple(offsets), tuple(lookbacks), conversions, closed)


class _Grid:
    """One attribution read at several lookbacks, each at most its own."""

    def __init__(
        self, got: Attribution, sends: Sends, events: Events, as_of: int, group: I8, variant: I8, groups: int,
        variants: int,
    ) -> None:  # fmt: skip
        self.got, self.events, self.as_of = got, events, as_of
        self.shape = (groups, variants)
        o = got.outcomes
        self.anchor = np.full(len(sends), MISSING, np.int64)
        self.anchor[o.send_row] = np.where(o.reached, o.anchor, MISSING)
        self.good: B1 = (self.anchor != MISSING) & (group >= 0) & (variant >= 0)
        self.cell = np.where(self.good, group * variants + variant, 0)
        close = np.full(len(sends), MISSING, np.int64)
        close[o.send_row] = o.close_at
        self.over: B1 = self.good & (close <= as_of)

    def closed(self, lengths: I8) -> F8:
        """Sends whose window of each length is over at `as_of`: (lengths, groups, variants)."""
        age = self.as_of - self.anchor[self.good]
        bins = np.searchsorted(lengths, age, side="right")
        cells, steps = int(np.prod(self.shape)), len(lengths) + 1
        count = np.bincount(self.cell[self.good] * steps + bins, minlength=cells * steps).reshape(cells, steps)
        over = count[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        return over.T.reshape(-1, *self.shape).astype(np.float64)

    def credited(self, lengths: I8) -> F8:
        """Credited conversions of those sends, by length: (lengths, groups, variants)."""
        c, rule = self.got.credits, self.got.rule
        paid: B1 = (self.events.kind[c.event_row] == CONVERSION) & (self.got.reason[c.event_row] == REASON["credited"])
        paid &= self.good[c.send_row]
        row, weight = c.send_row[paid], c.weight[paid] / PARTS
        age = self.events.occurred_at[c.event_row[paid]] - self.anchor[row]
        seen = self.as_of - self.anchor[row]
        out = []
        for length in lengths.tolist():
            use = (age <= length if rule.bounds[1] == "]" else age < length) & (seen >= length)
            out.append(np.bincount(self.cell[row[use]], weight[use], int(np.prod(self.shape))))
        return np.array(out, np.float64).reshape(-1, *self.shape)

    def own_closed(self) -> F8:
        """Sends whose window under the attribution's own rule is over: (groups, variants)."""
        count = np.bincount(self.cell[self.over], minlength=int(np.prod(self.shape)))
        return count.reshape(self.shape).astype(np.float64)

    def own_credited(self) -> F8:
        """Credited conversions of those sends, whatever rule put them there: (groups, variants)."""
        c = self.got.credits
        paid = (self.events.kind[c.event_row] == CONVERSION) & (self.got.reason[c.event_row] == REASON["credited"])
        paid &= self.over[c.send_row]
        cell, weight = self.cell[c.send_row[paid]], c.weight[paid] / PARTS
        return np.bincount(cell, weight, int(np.prod(self.shape))).reshape(self.shape).astype(np.float64)

"""When people are active: delays and purchases run on a clock that is fast at their busy hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from justai_sim import clock
from justai_sim.clock import DAY, HOUR
from justai_sim.tables import F8, I8
from justai_sim.world.spec import Shock, World


class Activity:
    """A clock for each time zone, running at a rate whose mean over a week is 1.

    Time to the next event of a process with intensity r(t) is exponential on the clock R(t) = integral of r
    (time rescaling, e.g. Daley & Vere-Jones 2003, section 7.4).
    """

    def __init__(self, world: World, start: int, end: int, shocks: Sequence[Shock] = (), zero: int = 0) -> None:
        """`start`, `end`: the instants that matter (microseconds); `shocks`, by their day after `zero`, multiply the
        rate of purchases that happen anyway."""
        zones = list(world.time_zones) or ["UTC"]
        self.flat = not world.hours and not world.weekdays and not shocks
        edges = [zero + round(d * DAY) for s in shocks for d in (s.day, s.day + s.days)]
        first = start - start % HOUR
        # Local hours begin at quarters of an hour in places like Kathmandu.
        whole = all(not (offsets(z, np.array([first, end], float)) % HOUR).any() for z in zones)
        grid = range(first, end + 1, HOUR if whole else HOUR // 4)  # a run ends at midnight
        self.knots: F8 = np.unique([*grid, *(e for e in edges if first < e < end)]).astype(float)
        self.total: list[F8] = []
        for name in [] if self.flat else zones:
            rate = weekly(world)(local_hour(name, self.knots[:-1]))
            for s in shocks:
                low, high = zero + round(s.day * DAY), zero + round((s.day + s.days) * DAY)
                rate = np.where((self.knots[:-1] >= low) & (self.knots[:-1] < high), rate * s.organic, rate)
            self.total.append(np.concatenate([[0.0], np.cumsum(rate * np.diff(self.knots))]))

    def later(self, zone: I8, t: I8, wait: I8) -> I8:
        """The instants at which `wait` microseconds of activity have gone by since `t`; after the end, time is even."""
        if self.flat:
            return t + wait
        out = np.empty(len(t), np.int64)
        for z, total in enumerate(self.total):
            mine = np.flatnonzero(zone == z)
            want = np.interp(t[mine], self.knots, total) + np.maximum(t[mine] - self.knots[-1], 0) + wait[mine]
            beyond = np.maximum(want - total[-1], 0)
            out[mine] = (np.interp(want, total, self.knots) + beyond).astype(np.int64)
        return np.maximum(out, t)


def weekly(world: World) -> Callable[[I8], F8]:
    """Relative activity by local hour of the week (0: Monday midnight), mean 1."""
    hours = np.array(world.hours or [1.0] * 24)
    days = np.array(world.weekdays or [1.0] * 7)
    table = np.outer(days / days.mean(), hours / hours.mean()).ravel()
    return lambda hour: table[hour]


def local_hour(zone: str, at: F8) -> I8:
    """Hour of the week in a zone, at instants in microseconds."""
    local = at.astype(np.int64) + offsets(zone, at)
    return local // HOUR % 24 + 24 * ((local // DAY + 3) % 7)  # day 0 was a Thursday


def offsets(zone: str, at: F8) -> I8:
    """Local time less UTC, microseconds, at each instant; looked up once an hour."""
    hour = at.astype(np.int64) // HOUR
    if not len(hour):
        return hour
    first, where = int(hour.min()), clock.zone(zone)
    hours = range(first, int(hour.max()) + 1)
    found = [datetime.fromtimestamp(h * 3600, UTC).astimezone(where).utcoffset() for h in hours]
    table = np.array([0 if o is None else round(o.total_seconds() * 1e6) for o in found], np.int64)
    return table[hour - first]

"""Time since each user's latest send: what is to be expected when, whatever the calendar of sends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from justai_sim.clock import DAY, HOUR, SECOND
from justai_sim.tables import F8, I8

EDGES = np.array([*range(25), *(24 * d for d in (*range(2, 31), 45, 60, 90, 180, 365)), 1e6]) * HOUR
"""Ages between which the rate is taken for constant, microseconds: hours, then days, then longer."""


@dataclass(frozen=True)
class Ages:
    """Stretches from a send to the user's next (or the end), sorted by (user, time); columns of shape (n,)."""

    user: I8
    start: I8
    end: I8
    base: int
    span: int

    @staticmethod
    def of(user: I8, sent_at: I8, end: int) -> Ages:
        """From the sends' columns; those after `end` are left out."""
        keep = sent_at <= end
        user, at = user[keep], sent_at[keep]
        base = int(at.min(initial=end))
        span = (end - base) // SECOND + 2
        key = user * span + (at - base) // SECOND
        order = np.argsort(key, kind="stable")
        user, at = user[order], at[order]
        until = np.full(len(at), end)
        same = user[1:] == user[:-1]
        until[:-1][same] = np.maximum(at[1:], at[:-1])[same]
        return Ages(user, at, until, base, span)

    def parts(self) -> tuple[Ages, Ages]:
        """The first stretch of each user, and the later ones."""
        new = np.append(True, self.user[1:] != self.user[:-1])[: len(self.user)]
        first, later = (Ages(self.user[k], self.start[k], self.end[k], self.base, self.span) for k in (new, ~new))
        return first, later

    @cached_property
    def _key(self) -> I8:
        return self.user * self.span + (self.start - self.base) // SECOND

    def since(self, user: I8, at: I8) -> I8:
        """Age since the user's latest send at these instants, microseconds; -1 where there is none before, or where its
        stretch is over."""
        if not len(self.start):
            return np.full(len(at), -1, np.int64)
        second = np.clip((at - self.base) // SECOND, -1, self.span - 1)
        i = np.searchsorted(self._key, user * self.span + second, side="right") - 1
        good = (i >= 0) & (user >= 0) & (self.user[i] == user) & (second >= 0) & (at <= self.end[i])
        return np.where(good, np.maximum(at - self.start[i], 0), -1)

    def exposure(self, edges: F8) -> F8:
        """Days that all users together spend at ages between `edges`, shape (len(edges) - 1,)."""
        length = np.sort(self.end - self.start)
        total = np.concatenate([[0.0], np.cumsum(length / DAY)])
        i = np.searchsorted(length, edges)
        up_to = total[i] + (len(length) - i) * edges / DAY
        return np.diff(up_to)

    def rate(self, age: I8) -> F8:
        """Events per user-day between EDGES, of events with these ages."""
        n = np.histogram(age[age >= 0], EDGES)[0]
        days = self.exposure(EDGES)
        return np.divide(n, days, out=np.zeros(len(n)), where=days > 0)

    def expected(self, rate: F8, start: int, end: int) -> float:
        """Events to be expected in [start, end) at the rates by age."""
        total = np.concatenate([[0.0], np.cumsum(rate * np.diff(EDGES) / DAY)])
        here = (self.start < end) & (self.end > start)
        s, e = self.start[here], self.end[here]
        first, last = np.maximum(start, s) - s, np.minimum(end, e) - s
        return float((np.interp(last, EDGES, total) - np.interp(first, EDGES, total)).sum())

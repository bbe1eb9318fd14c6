"""What is due when: a calendar queue, so that waiting costs nothing."""

from __future__ import annotations

import numpy as np

from justai_sim.clock import HOUR
from justai_sim.tables import I4, I8


class Agenda:
    """Numbers with an instant each; `due(now)` takes out those whose instant has come.

    >>> a = Agenda()
    >>> a.add(np.array([7, 8]), np.array([5 * HOUR, 3 * HOUR]))
    >>> a.due(4 * HOUR), a.due(4 * HOUR), len(a)
    (array([8]), array([], dtype=int64), 1)
    """

    def __init__(self) -> None:
        self.hours: dict[int, list[tuple[I8, I8]]] = {}

    def __len__(self) -> int:
        return sum(len(n) for parts in self.hours.values() for n, _ in parts)

    def add(self, number: I8, at: I8) -> None:
        """Numbers with a missing instant (below 0) are never due."""
        hour = np.maximum(at // HOUR, 0)
        order = np.argsort(hour, kind="stable")
        order = order[at[order] >= 0]
        number, at, hour = number[order], at[order], hour[order]
        cuts = np.flatnonzero(np.diff(hour)) + 1
        for lo, hi in zip([0, *cuts.tolist()], [*cuts.tolist(), len(hour)], strict=True):
            if lo < hi:
                self.hours.setdefault(int(hour[lo]), []).append((number[lo:hi], at[lo:hi]))

    def due(self, now: int) -> I8:
        hours = sorted(h for h in self.hours if h <= now // HOUR)
        parts = [p for h in hours for p in self.hours.pop(h)]
        if not parts:
            return np.zeros(0, np.int64)
        number, at = (np.concatenate(c) for c in zip(*parts, strict=True))
        self.add(number[at > now], at[at > now])
        return number[at <= now]

    def arrays(self) -> dict[str, I8]:
        """Everything, in an order that does not depend on how it came."""
        parts = [p for h in sorted(self.hours) for p in self.hours[h]]
        number, at = (
            np.concatenate([np.zeros(0, np.int64), *c]) for c in (zip(*parts, strict=True) if parts else ((), ()))
        )
        order = np.lexsort((number, at))
        return {"number": number[order], "at": at[order]}

    def restore(self, arrays: dict[str, I8]) -> None:
        self.hours = {}
        self.add(arrays["number"], arrays["at"])

    def renumber(self, new: I4) -> None:
        """Replace each number by `new[number]`; -1 takes it out."""
        number, at = self.arrays().values()
        there = new[number] >= 0
        self.hours = {}
        self.add(new[number[there]].astype(np.int64), at[there])

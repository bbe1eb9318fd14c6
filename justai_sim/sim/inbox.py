"""Rows on their way to us: put at any time, taken when the clock has reached their receipt."""

from __future__ import annotations

import numpy as np

from justai_sim.loop.step import Batch
from justai_sim.tables import I8, Events, Sends


class Inbox:
    """Rows by the first of `times` (microseconds, ascending) at or after their receipt."""

    def __init__(self, times: I8) -> None:
        self.times = times
        self.sends: list[list[Sends]] = [[] for _ in times]
        self.events: list[list[Events]] = [[] for _ in times]

    def put(self, sends: Sends | None = None, events: Events | None = None) -> None:
        """Rows whose receipt lies after the last time are never heard of."""
        if sends is not None:
            for k, rows in self._split(sends.received_at):
                self.sends[k].append(sends.take(rows))
        if events is not None:
            for k, rows in self._split(events.received_at):
                self.events[k].append(events.take(rows))

    def _split(self, received: I8) -> list[tuple[int, I8]]:
        tick = np.searchsorted(self.times, received, side="left")
        order = np.argsort(tick, kind="stable")
        cuts = np.searchsorted(tick[order], np.arange(len(self.times) + 1))
        return [(k, order[cuts[k] : cuts[k + 1]]) for k in range(len(self.times)) if cuts[k] < cuts[k + 1]]

    def take(self, k: int) -> Batch:
        """All rows that become known at time k; they are forgotten here."""
        sends, self.sends[k] = Sends.concat(self.sends[k]), []
        events, self.events[k] = Events.concat(self.events[k]), []
        return Batch(sends, events)

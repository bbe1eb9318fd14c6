"""Rows on their way to us: put at any time, taken when the clock has reached their receipt."""

from __future__ import annotations

import numpy as np

from justai_sim.loop.step import Batch
from justai_sim.tables import I8, Events, Sends
from justai_sim.truth import Unheard


class Inbox:
    """Rows by the first of `times` (microseconds, ascending) at or after their receipt; events with their origin, the
    code of the true event that they tell of (NONE: of nothing that happened)."""

    def __init__(self, times: I8) -> None:
        self.times = times
        self.sends: list[list[Sends]] = [[] for _ in range(len(times) + 1)]
        self.events: list[list[tuple[Events, I8]]] = [[] for _ in range(len(times) + 1)]

    def put(self, sends: Sends) -> None:
        for k, rows in self._split(sends.received_at):
            self.sends[k].append(sends.take(rows))

    def tell(self, events: Events, origin: I8) -> None:
        for k, rows in self._split(events.received_at):
            self.events[k].append((events.take(rows), origin[rows]))

    def lose(self, sends: Sends) -> None:
        """Sends that left without anybody hearing of them."""
        self.sends[-1].append(sends)

    def _split(self, received: I8) -> list[tuple[int, I8]]:
        tick = np.searchsorted(self.times, received, side="left")
        if len(self.times) < 2**15:  # numpy sorts small integers by counting
            tick = tick.astype(np.int16)
        order = np.argsort(tick, kind="stable")
        cuts = np.concatenate([[0], np.cumsum(np.bincount(tick, minlength=len(self.times) + 1))])
        return [(k, order[cuts[k] : cuts[k + 1]]) for k in range(len(self.times) + 1) if cuts[k] < cuts[k + 1]]

    def take(self, k: int) -> tuple[Batch, I8]:
        """All rows that become known at time k, and the origins of the events; they are forgotten here."""
        sends, self.sends[k] = Sends.concat(self.sends[k]), []
        told, self.events[k] = self.events[k], []
        origin = np.concatenate([o for _, o in told]) if told else np.zeros(0, np.int64)
        return Batch(sends, Events.concat([e for e, _ in told])), origin

    def rest(self) -> Unheard:
        """What is received after the last time, or never."""
        batch, origin = self.take(len(self.times))
        return Unheard(batch.sends, batch.events, origin)

"""Purchases that happen anyway, told as time goes on: a caused purchase may take the place of the next one."""

from __future__ import annotations

import numpy as np

from justai_sim.tables import B1, CONVERSION, I8
from justai_sim.truth import Truth
from justai_sim.world.codes import COPIES
from justai_sim.world.people import Draws, Users
from justai_sim.world.world import Happened


class Organics:
    """The organic purchases of a block, by user and time. Refunds go with their purchases."""

    def __init__(self, happened: Happened, users: Users, u: Draws, share: float) -> None:
        self.happened, self.users, self.u, self.share = happened, users, u, share
        e = happened.events
        self.sale: I8 = np.flatnonzero(e.value >= 0)
        who = users.row(e.rep, e.user)[self.sale]
        order = np.lexsort((e.event[self.sale], e.occurred_at[self.sale], who))
        self.sale, self.who = self.sale[order], who[order]
        self.at = e.occurred_at[self.sale]
        self.gone: B1 = np.zeros(len(self.sale), bool)
        self.by: list[Truth] = []
        """The caused purchases that took the place of another."""

    def replace(self, caused: Happened, start: int, stop: int) -> None:
        """Of the caused purchases of [start, stop), earliest first: a `share` of them takes the user's next organic
        purchase that is still to come."""
        e = caused.events
        rows = np.flatnonzero(
            (e.kind == CONVERSION) & (e.value >= 0) & (e.occurred_at >= start) & (e.occurred_at < stop)
        )
        rows = rows[self.u("replaces", e.rep[rows], e.event[rows]) < self.share]
        rows = rows[np.lexsort((e.event[rows], e.occurred_at[rows]))]
        who = self.users.row(e.rep[rows], e.user[rows])
        took = np.zeros(len(rows), bool)
        for k, (user, t) in enumerate(zip(who.tolist(), e.occurred_at[rows].tolist(), strict=True)):
            low, high = np.searchsorted(self.who, [user, user + 1])
            i = low + int(np.searchsorted(self.at[low:high], t, side="right"))
            while i < high and self.gone[i]:
                i += 1
            if i < high:
                self.gone[i] = took[k] = True
        truth, span = caused.truth, int(self.users.rep.max(initial=0)) + 1
        won = e.event[rows[took]] * span + e.rep[rows[took]]
        self.by.append(truth.take(np.isin(truth.event * span + truth.rep, won)))

    def of(self, start: int, stop: int) -> Happened:
        """The purchases of [start, stop) that happen after all, with their refunds (whenever they are)."""
        kept = self.sale[~self.gone & (self.at >= start) & (self.at < stop)]
        e, truth = self.happened.events, self.happened.truth
        span = int(e.rep.max(initial=0)) + 1
        own = np.isin(e.event // COPIES * span + e.rep, e.event[kept] // COPIES * span + e.rep[kept])
        return Happened(e.take(own), truth.take(own))

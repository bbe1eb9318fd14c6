"""What cannot be taken back: a variant shipped to everybody, variants archived; a step a refresh, a row a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from justai_sim.bandit.stopping import GO_ON, Look, Stop
from justai_sim.clock import DAY
from justai_sim.tables import B1, F8, I8

if TYPE_CHECKING:
    from justai_sim.bandit.tally import Tally


class Change(NamedTuple):
    """An arm of a template of a replication, shipped (arm 0: the control stays) or archived, from `now` on."""

    now: int
    template: int
    rep: int
    arm: int
    what: Literal["ship", "archive"]


@dataclass
class Lifecycle:
    """`shipped` (templates, R): the arm that everybody gets, or GO_ON; `archived` (templates, R, K)."""

    shipped: I8
    archived: B1

    @classmethod
    def fresh(cls, templates: int, reps: int, arms: int) -> Lifecycle:
        return cls(np.full((templates, reps), GO_ON), np.zeros((templates, reps, arms), bool))

    def advance(
        self, rule: Stop, tallies: tuple[Tally, ...], live: B1, start: int, now: int, minimise: bool
    ) -> list[Change]:
        """Look at what is known at `now` and decide where nothing was decided yet. `live` (templates, K)."""
        out: list[Change] = []
        for t, counts in enumerate(tallies):
            open_ = np.flatnonzero(self.shipped[t] == GO_ON)
            if not live[t].any() or not len(open_):
                continue
            may = live[t] & ~self.archived[t]
            may[:, 0] = True
            look = Look.of(counts.sum(), may, (now - start) / DAY, minimise).rows(open_)
            got = rule.decide(look)
            gone = got.archive & may[open_]
            self.archived[t, open_] |= gone
            self.shipped[t, open_] = got.ship
            out += [Change(now, t, int(open_[i]), int(a), "archive") for i, a in np.argwhere(gone)]
            out += [Change(now, t, int(open_[i]), int(got.ship[i]), "ship") for i in np.flatnonzero(got.ship != GO_ON)]
        return out

    def still(self, live: B1) -> B1:
        """The arms (templates, R, K) that may still be served: of `live`, and the control where it was shipped."""
        out = live & ~self.archived
        for t, r in np.argwhere(self.shipped != GO_ON):
            arm = self.shipped[t, r]
            out[t, r] = (np.arange(out.shape[2]) == arm) & (live[t, r] | (arm == 0))
        return out

    def served(self, shares: F8, live: B1) -> F8:
        """Shares (templates, R, C, K) with everything for what was shipped; for the control where that is no longer
        `live` (templates, K), because somebody archived it."""
        out = shares.copy()
        for t, r in np.argwhere(self.shipped != GO_ON):
            arm = self.shipped[t, r]
            out[t, r] = 0.0
            out[t, r, :, arm if live[t, arm] else 0] = 1.0
        return out

"""Racing: points that are clearly worse than another stop early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from justai_sim import stats
from justai_sim.errors import UsageError
from justai_sim.scenario import Point, Scenario
from justai_sim.sweeps.collect import frame_of
from justai_sim.sweeps.criteria import ALPHA, CRITERIA, Question, families, pairs, values
from justai_sim.sweeps.data import Raced, Stopped
from justai_sim.sweeps.parts import Tables
from justai_sim.tables import F8

FIRST_LOOK = 10
"""Worlds before the first look."""


def looks(cut: Sequence[range]) -> list[int]:
    """Numbers of worlds at which a race is looked at: each at least twice the one before, then all.

    >>> looks([range(i, i + 5) for i in range(0, 100, 5)])
    [10, 20, 40, 80, 100]
    """
    out: list[int] = []
    for b in cut:
        if b.stop >= (2 * out[-1] if out else FIRST_LOOK) or b is cut[-1]:
            out.append(b.stop)
    return out


class Racing:
    """A race under way. It depends on the worlds simulated alone, so that an interrupted one goes on as it would have.

    At every look each point is compared with the one that is best so far among those with the same assumptions, over
    the same worlds, and stops where the interval of the difference leaves out 0. The intervals hold for all pairs and
    all looks together: which pair is looked at, and when, may follow the results.
    """

    def __init__(self, scenario: Scenario, points: list[Point], criterion: str, at: list[int]) -> None:
        self.question = Question(criterion=criterion)
        if not self.question.what.races:
            able = ", ".join(c.name for c in CRITERIA.values() if c.races)
            raise UsageError(f"a race by {criterion} could stop what alone keeps the limit; race by one of {able}")
        self.scenario, self.points = scenario, points
        self.groups = families(scenario, points)
        level = 1 - ALPHA / max(1, pairs(self.groups) * len(at))
        self.raced = Raced(criterion, at, level, [])
        self.ends = [scenario.replications] * len(points)

    @property
    def out(self) -> list[int]:
        """Points that have stopped."""
        return [i for i, n in enumerate(self.ends) if n < self.scenario.replications]

    def look(self, parts: Sequence[list[Tables]], worlds: int) -> None:
        """Stop what is clearly worse by now; `parts` are those of each point's first `worlds` worlds."""
        if worlds == self.scenario.replications:
            return
        for group in self.groups.values():
            still = [i for i in group if i not in self.out]
            found = {i: self._values(i, parts[i]) for i in still}
            best = max(still, key=lambda i: (self._better(found[i]), -i))
            for i in still:
                mean, low, high = stats.paired_interval(found[i] - found[best], self.raced.level, self.question.bound)
                if (high < 0) if self.question.what.higher else (low > 0):
                    names = self.points[i].name, self.points[best].name
                    self.raced.stopped.append(Stopped(names[0], worlds, names[1], mean, low, high))
                    self.ends[i] = worlds

    def _better(self, v: F8) -> float:
        return float(v.mean()) if self.question.what.higher else -float(v.mean())

    def _values(self, i: int, parts: list[Tables]) -> F8:
        frames: list[Any] = [frame_of(self.scenario, self.points[i], parts, t) for t in ("metrics", "race")]
        return np.asarray(values(self.question, self.points[i], *frames))

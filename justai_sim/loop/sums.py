"""What a policy may learn from: sums over the sends known, by template, replication, segment, arm and cohort."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from justai_sim import clock
from justai_sim.attribution import TrainingWindow
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import LOWER_IS_BETTER, MORE, Tally
from justai_sim.clock import MISSING
from justai_sim.loop.columns import Rows
from justai_sim.loop.exposure import exposure
from justai_sim.loop.program import Layout, Program
from justai_sim.loop.state import METRIC, Earned, State
from justai_sim.tables import B1, F8, I8, Array, Sends

if TYPE_CHECKING:
    from justai_sim.loop.step import Machine

PORTION = 1 << 20
"""Sends that are unpacked at a time."""


def tally(
    machine: Machine, state: State, now: int, cohorts: int, training: TrainingWindow | None = None
) -> tuple[Tally, ...]:
    """Sums over the sends known (that `training` holds), by template, replication, segment, arm and decision cohort;
    shape (R, C, K, H)."""
    program = machine.program
    spec = program.policy
    chosen = policy(spec.name)
    sums = Summing(machine, state, now, cohorts, training or TrainingWindow())
    moving = state.moving.read(now, cohorts) if state.moving is not None and training is None else None
    main = moving or sums.of(program.key_metric)
    extra = sums.more(program.key_metric) if set(chosen.stats) & set(MORE) or spec.burn_in else {}
    others = {m: sums.of(m) for m in spec.weights if m != program.key_metric}
    return tuple(
        Tally(main[0][t], main[1][t], main[2][t], {k: a[t] for k, a in extra.items()},
              {m: Tally(of[0][t], of[1][t], of[2][t]) for m, of in others.items()})
        for t in range(len(main[0]))
    )  # fmt: skip


PORTION = 1 << 20
"""Sends that are unpacked at a time."""


class Summing:
    """The sends of a state as the compiled sums take them: a portion at a time."""

    def __init__(self, machine: Machine, state: State, now: int, cohorts: int, training: TrainingWindow) -> None:
        self.machine, self.state, self.now = machine, state, now
        program = machine.program
        allowance = round(program.rule.mature_allowance_hours * clock.HOUR)
        limit = now - allowance if program.feedback == "mature" else np.iinfo(np.int64).max
        first, end = training.bounds(now)
        self.end = (machine.layout.arm, limit, first, end, state.start, program.refresh, MISSING)
        self.shape = (len(machine.layout.arm), state.reps, machine.rows, machine.layout.arms, max(cohorts, 1))

    def _portions(self, metric: str) -> Iterator[tuple[slice, tuple[Array, ...], I8, I8, float]]:
        value, close, scale = METRIC[metric]
        sends, earned = self.state.sends, self.state.earnings
        for start in range(0, sends.n, PORTION):
            p = slice(start, min(start + PORTION, sends.n))
            who = tuple(sends.column(k, p) for k in ("template", "variant", "rep", "segment", "decided_at", "sent_at"))
            who += (earned.column("counted", p), earned.column("ghost", p))
            yield p, who, earned.column(close, p), earned.column(value, p), scale

    def of(self, metric: str) -> tuple[F8, F8, F8]:
        from justai_sim.loop import kernel

        n, y, y2 = (np.zeros(self.shape) for _ in range(3))
        weighted, weight = self.machine.program.feedback == "weighted", np.zeros(0)
        if weighted:
            every, heard = exposure(self.state, self.machine.program.rule, metric, self.now)
        for p, who, close, value, scale in self._portions(metric):
            if weighted:
                weight, value = every[p], np.where(heard[p], value, 0)
            kernel.tally(*who, close, value, scale, weight, *self.end, n, y, y2)
        return n, y, y2

    def more(self, metric: str) -> dict[str, F8]:
        from justai_sim.loop import kernel

        out, low = np.zeros((5, *self.shape)), metric in LOWER_IS_BETTER
        for p, who, close, value, scale in self._portions(metric):
            kernel.more(*who, close, value, scale, self.state.sends.column("propensity", p), low, *self.end, out)
        return dict(zip(MORE, out, strict=True))


class Moving:
    """The sums of the key metric, moved by each send whose outcome changes: only while that is exact.

    It is where every send counts once and outcomes are whole numbers, whose sums do not depend on their order: then
    these are the very numbers that `Summing` finds in all sends. Else, and where a send lies ahead of the clock,
    `read` says None.
    """

    def __init__(self, program: Program, layout: Layout, reps: int, segments: int, start: int) -> None:
        self.layout, self.start, self.refresh = layout, start, program.refresh
        self.exact = program.feedback == "all" and program.key_metric != "revenue_per_send"
        self.value, _, unit = METRIC[program.key_metric]
        self.unit = round(1 / unit)
        self.last = MISSING
        """The latest instant at which a send was decided or left."""
        self.most = 0
        """The greatest outcome ever: squares are apart from 2 on."""
        shape = (len(layout.arm), reps, segments, layout.arms, 1)
        self.sums = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def counts(self, earned: Rows[Earned], rows: I8, n: int) -> tuple[B1, I8]:
        """Which of these sends count, and their outcomes, when only the first `n` were known."""
        if not self.exact:
            return np.zeros(0, np.bool_), np.zeros(0, np.int64)
        use = earned.column("counted", rows) & ~earned.column("ghost", rows) & (rows < n)
        return use, earned.column(self.value, rows)

    def move(self, sends: Rows[Sends], rows: I8, before: tuple[B1, I8], after: tuple[B1, I8], now: int) -> None:
        from justai_sim.loop import kernel

        if not self.exact or not len(rows):
            return
        self.widen((now - self.start) // self.refresh)
        i = np.flatnonzero((before[0] != after[0]) | (before[1] != after[1]))
        who = (sends.column(k, rows[i]) for k in ("template", "variant", "rep", "segment", "decided_at", "sent_at"))
        was, old, use, value = (a[i] for a in (*before, *after))
        of = (self.unit, self.layout.arm, self.start, self.refresh, MISSING)
        self.exact, last, most = kernel.move(*who, was, old, use, value, *of, *self.sums)
        self.last, self.most = max(self.last, last), max(self.most, most)

    def widen(self, cohorts: int) -> None:
        """Room for one cohort more than there are, and some to come."""
        if cohorts + 1 > self.sums[0].shape[-1]:
            extra = [(0, 0)] * 4 + [(0, 2 * cohorts + 1 - self.sums[0].shape[-1])]
            n, y, y2 = (np.pad(a, extra) for a in self.sums)
            self.sums = n, y, y2

    def read(self, now: int, cohorts: int) -> tuple[F8, F8, F8] | None:
        if not self.exact or self.last >= min(now, self.start + cohorts * self.refresh):
            return None
        self.widen(cohorts)
        n, y, y2 = (a[..., : max(cohorts, 1)] for a in self.sums)
        y = y.copy()
        return n.copy(), y, y2.copy() if self.most > 1 else y

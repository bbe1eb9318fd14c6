"""What a policy may learn from: sums over the sends known, by template, replication, segment, arm and cohort."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from justai_sim import clock
from justai_sim.attribution import TrainingWindow
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import LOWER_IS_BETTER, MORE, Tally
from justai_sim.clock import MISSING
from justai_sim.loop.columns import Column, Rows
from justai_sim.loop.exposure import exposure
from justai_sim.loop.program import NEVER_BEFORE, Layout, Program
from justai_sim.loop.state import METRIC, PORTION, Earned, State
from justai_sim.tables import B1, F8, I8, Sends

if TYPE_CHECKING:
    from justai_sim.loop.step import Machine


NOTHING: I8 = np.zeros(0, np.int64)


class Cells:
    """Where each send is counted; what is summed by cell has shape (templates, R, C, K, H) in the end."""

    def __init__(self, layout: Layout, reps: int, segments: int, start: int, refresh: int) -> None:
        self.shape = (len(layout.arm), reps, segments, layout.arms)
        self.size, self.start, self.refresh = math.prod(self.shape), start, refresh
        self.by = (layout.arm, start, refresh, MISSING, *self.shape[1:])
        self.known, self.last = Column("int64"), MISSING

    def of(self, sends: Rows[Sends], rows: I8 | slice) -> tuple[I8, int]:
        """The cells of these sends, and the latest instant at which one was decided or left."""
        from justai_sim.loop import kernel

        who = [sends.column(k, rows) for k in ("template", "variant", "rep", "segment", "decided_at", "sent_at")]
        out = np.empty(len(who[0]), np.int64)
        return out, kernel.cells(*who, *self.by, out)

    def portions(self, sends: Rows[Sends]) -> Iterator[tuple[slice, I8]]:
        """All sends, some at a time, with their cells."""
        for start in range(self.known.n, sends.n, PORTION):
            cell, last = self.of(sends, slice(start, min(start + PORTION, sends.n)))
            self.known.append(cell)
            self.last = max(self.last, last)
        for start in range(0, sends.n, PORTION):
            p = slice(start, min(start + PORTION, sends.n))
            yield p, self.known.take(p)

    def shaped(self, flat: F8, cohorts: int) -> F8:
        """A new array (templates, R, C, K, H) of the first cohorts."""
        by = flat.reshape(-1, *self.shape)[: max(cohorts, 1)]
        return np.array(np.moveaxis(by, 0, -1), order="C")


class Summing:
    """The sends of a state as the compiled sums take them: a portion at a time."""

    def __init__(self, machine: Machine, state: State, now: int, cohorts: int, training: TrainingWindow) -> None:
        self.program, self.state, self.now, self.cohorts = machine.program, state, now, cohorts
        allowance = round(self.program.rule.mature_allowance_hours * clock.HOUR)
        self.mature, self.training = self.program.feedback == "mature", training
        self.bounds = (now - allowance, *training.bounds(now))
        assert state.moving is not None
        self.cells, self.arm = state.moving.cells, machine.layout.arm
        reset = machine.layout.reset
        self.reset = np.where(reset <= now, reset, NEVER_BEFORE) if (reset > NEVER_BEFORE).any() else None

    def _portions(self, metric: str) -> Iterator[tuple[slice, tuple[Any, ...]]]:
        value, close, scale = METRIC[metric]
        sends, earned = self.state.sends, self.state.earnings
        for p, cell in self.cells.portions(sends):
            use = earned.column("counted", p) & ~earned.column("ghost", p)
            if self.reset is not None:
                use &= self._since_reset(p, self.reset, close)
            every = self.cells.last < self.bounds[2] and self.training.lookback_days is None
            sent = NOTHING if every else sends.column("sent_at", p)
            yield p, (cell, use, earned.column(close, p) if self.mature else NOTHING, sent,
                      earned.column(value, p), scale)  # fmt: skip

    def _since_reset(self, p: slice, reset: I8, close: str) -> B1:
        """Which of these sends were decided since their variant was reset, or were under way then where those are
        kept."""
        sends = self.state.sends
        template, variant, decided = (sends.column(k, p) for k in ("template", "variant", "decided_at"))
        at = np.where(decided == MISSING, sends.column("sent_at", p), decided)
        since = reset[template, self.arm[template, variant]]
        kept = self.program.pending == "kept"
        return (at >= since) | (self.state.earnings.column(close, p) > since if kept else False)

    def of(self, metric: str) -> tuple[F8, F8, F8]:
        from justai_sim.loop import kernel

        sums = np.zeros((3, max(self.cohorts, 1) * self.cells.size))
        weighted, weight = self.program.feedback == "weighted", np.zeros(0)
        if weighted:
            every, heard = exposure(self.state, self.program.rule, metric, self.now)
        for p, (*who, value, scale) in self._portions(metric):
            if weighted:
                weight, value = every[p], np.where(heard[p], value, 0)
            kernel.tally(*who, value, scale, weight, self.cells.size, *self.bounds, *sums)
        n, y, y2 = (self.cells.shaped(a, self.cohorts) for a in sums)
        return n, y, y2

    def more(self, metric: str) -> dict[str, F8]:
        from justai_sim.loop import kernel

        out, low = np.zeros((5, max(self.cohorts, 1) * self.cells.size)), metric in LOWER_IS_BETTER
        for p, who in self._portions(metric):
            kernel.more(*who, self.state.sends.column("propensity", p), low, self.cells.size, *self.bounds, out)
        return {k: self.cells.shaped(a, self.cohorts) for k, a in zip(MORE, out, strict=True)}


class Moving:
    """The sums of the key metric, moved by each send whose outcome changes: only while that is exact.

    It is where every send counts once and outcomes are whole numbers, whose sums do not depend on their order: then
    these are the very numbers that `Summing` finds in all sends. Else, and where a send lies ahead of the clock,
    `read` says None.
    """

    def __init__(self, program: Program, layout: Layout, reps: int, segments: int, start: int) -> None:
        self.cells = Cells(layout, reps, segments, start, program.refresh)
        self.exact = program.feedback == "all" and program.key_metric != "revenue_per_send"
        self.exact &= not (layout.reset > NEVER_BEFORE).any()
        self.value, _, unit = METRIC[program.key_metric]
        self.unit = round(1 / unit)
        self.last = MISSING
        """The latest instant at which a send was decided or left."""
        self.most = 0
        """The greatest outcome ever: squares are apart from 2 on."""
        self.sums = np.zeros((3, self.cells.size))

    def counts(self, earned: Rows[Earned], rows: I8, n: int) -> tuple[B1, I8]:
        """Which of these sends count, and their outcomes, when only the first `n` were known."""
        if not self.exact:
            return np.zeros(0, np.bool_), NOTHING
        use = earned.column("counted", rows) & ~earned.column("ghost", rows) & (rows < n)
        return use, earned.column(self.value, rows)

    def move(self, sends: Rows[Sends], rows: I8, before: tuple[B1, I8], after: tuple[B1, I8], now: int) -> None:
        from justai_sim.loop import kernel

        if not self.exact or not len(rows):
            return
        self.widen((now - self.cells.start) // self.cells.refresh)
        i = np.flatnonzero((before[0] != after[0]) | (before[1] != after[1]))
        cell, last = self.cells.of(sends, rows[i])
        was, old, use, value = (a[i] for a in (*before, *after))
        self.exact, most = kernel.move(cell, was, old, use, value, self.unit, *self.sums)
        self.last, self.most = max(self.last, last), max(self.most, most)

    def widen(self, cohorts: int) -> None:
        """Room for one cohort more than there are, and some to come."""
        missing = (cohorts + 1) * self.cells.size - self.sums.shape[1]
        if missing > 0:
            self.sums = np.pad(self.sums, ((0, 0), (0, missing + cohorts * self.cells.size)))

    def read(self, now: int, cohorts: int) -> tuple[F8, F8, F8] | None:
        """n, y and y2 as `Summing.of` gives them."""
        if not self.exact or self.last >= min(now, self.cells.start + cohorts * self.cells.refresh):
            return None
        self.widen(cohorts)
        n, y = (self.cells.shaped(a, cohorts) for a in self.sums[:2])
        return n, y, self.cells.shaped(self.sums[2], cohorts) if self.most > 1 else y


def tally(
    machine: Machine, state: State, now: int, cohorts: int, training: TrainingWindow | None = None
) -> tuple[Tally, ...]:
    """Sums over the sends known (that `training` holds), by template, replication, segment, arm and decision cohort;
    shape (R, C, K, H)."""
    program = machine.program
    spec = program.policy
    chosen = policy(spec.name)
    sums = Summing(machine, state, now, cohorts, training or TrainingWindow())
    assert state.moving is not None
    moved = state.moving.read(now, cohorts) if training is None else None
    main = moved or sums.of(program.key_metric)
    extra = sums.more(program.key_metric) if set(chosen.stats) & set(MORE) or spec.burn_in else {}
    others = {m: sums.of(m) for m in spec.weights if m != program.key_metric}
    return tuple(
        Tally(main[0][t], main[1][t], main[2][t], {k: a[t] for k, a in extra.items()},
              {m: Tally(of[0][t], of[1][t], of[2][t]) for m, of in others.items()})
        for t in range(len(main[0]))
    )  # fmt: skip

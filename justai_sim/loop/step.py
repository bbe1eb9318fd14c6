"""One refresh of production: new rows in, credits, tallies and shares out. Every door comes through here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from justai_sim import clock
from justai_sim.attribution import Bound, TrainingWindow, attribute
from justai_sim.bandit.choose import final_shares
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.clock import DAY, MISSING
from justai_sim.loop.program import Layout, Program
from justai_sim.loop.state import State, metric_of
from justai_sim.tables import F8, Events, Sends


@dataclass(frozen=True)
class Batch:
    """Rows that became known since the last step, in any order."""

    sends: Sends
    events: Events


@dataclass(frozen=True)
class Tick:
    """What a refresh found and decided.

    n, y: trials and sums of the key metric, (templates, R, K); shares: (templates, R, 1, K), what `choose`
    draws from until the next refresh.
    """

    index: int
    now: int
    n: F8
    y: F8
    tallies: tuple[Tally, ...]
    shares: F8


@dataclass(frozen=True)
class Machine:
    """A program bound to the codes of its rows: what `step` needs besides state and batch."""

    program: Program
    bound: Bound
    layout: Layout
    variants: tuple[tuple[str, ...], ...]
    """Texts of the variants of each template code, control first."""

    @classmethod
    def of(cls, program: Program, bound: Bound, templates: list[str], variants: list[str]) -> Machine:
        by_id = {t.id: tuple(t.variants) for t in program.templates}
        return cls(program, bound, Layout(program, templates, variants), tuple(by_id.get(t, ()) for t in templates))


def step(machine: Machine, state: State, batch: Batch, now: int) -> tuple[State, Tick]:
    """Refresh at `now` (microseconds), with every row received up to then; consumes `state`.

    Attributes again each user of whom something new is known, forms the tallies from the rows known (a
    snapshot, never incremented) and asks the policy for the shares until the next refresh.
    """
    late = max((int(t.received_at.max()) for t in (batch.sends, batch.events) if len(t)), default=MISSING)
    if late > now:
        raise ValueError(f"a row received at {clock.iso(late)} cannot be known at {clock.iso(now)}")
    if len(batch.sends) or len(batch.events):
        accounts = state.add(batch.sends, batch.events)
        send_rows, event_rows = state.rows_of(accounts)
        got = attribute(machine.bound, state.sends.take(send_rows), state.events.take(event_rows), now)
        state.write(send_rows, event_rows, got)
    index = (now - state.start) // machine.program.refresh
    shown = tally(machine, state, now, max(index, 0))
    training = machine.program.training  # the page shows all sends, whatever the policy learns from
    tallies = shown if training is None else tally(machine, state, now, max(index, 0), training)
    shares = allocate(machine, state, tallies, now)
    none = np.zeros((0, state.reps, machine.layout.arms))
    n = np.stack([t.n.sum(axis=(1, 3)) for t in shown]) if shown else none
    y = np.stack([t.y.sum(axis=(1, 3)) for t in shown]) if shown else none
    return state, Tick(index, now, n, y, tallies, shares)


def tally(
    machine: Machine, state: State, now: int, cohorts: int, training: TrainingWindow | None = None
) -> tuple[Tally, ...]:
    """Sums over the sends known (that `training` holds), by template, replication, arm and decision cohort; shape
    (R, 1, K, H)."""
    from justai_sim.loop import kernel

    program, layout = machine.program, machine.layout
    sends, n, earned = state.sends.table, state.sends.n, state.earned
    value, close, scale = metric_of(earned, program.key_metric, n)
    allowance = round(program.rule.mature_allowance_hours * clock.HOUR)
    limit = now - allowance if program.feedback == "mature" else np.iinfo(np.int64).max
    first, end = (training or TrainingWindow()).bounds(now)
    trials, y, y2 = kernel.tally(
        sends.template, sends.variant, sends.rep, sends.decided_at, sends.sent_at, earned.counted[:n],
        earned.ghost[:n], close, value, scale, layout.arm, limit, first, end, state.start, program.refresh, cohorts,
        state.reps, layout.arms, MISSING,
    )  # fmt: skip
    return tuple(Tally(n=trials[t][:, None], y=y[t][:, None], y2=y2[t][:, None]) for t in range(len(trials)))


def allocate(machine: Machine, state: State, tallies: tuple[Tally, ...], now: int) -> F8:
    """Shares (templates, R, 1, K) from the policy, with epsilon, floor and control share mixed in."""
    program = machine.program
    spec = program.policy
    chosen = policy(spec.name)
    out = []
    wait = clock.days(program.rule.upper_days + program.rule.lateness_days) + 2 * DAY
    for t, counts in enumerate(tallies):
        live = np.broadcast_to(machine.layout.live[t], (state.reps, machine.layout.arms))
        arms = machine.variants[t] + ("",) * (machine.layout.arms - len(machine.variants[t]))
        memory = chosen.init(spec, Shape(state.reps, 1, machine.layout.arms, arms, program.key_metric))
        # Folding what is final anew at each refresh keeps the shares a function of the snapshot alone.
        done = min(max((now - wait - state.start) // program.refresh, 0), counts.n_cohorts)
        if chosen.memory:
            for h in range(done):
                memory = chosen.update(memory, counts.cohorts(h, h + 1))
            counts = counts.cohorts(done, counts.n_cohorts)
        shares = chosen.allocate(memory, counts, live, now)
        out.append(final_shares(shares, live, program.control_share, spec.epsilon, spec.floor))
    return np.stack(out) if out else np.zeros((0, state.reps, 1, machine.layout.arms))

"""One refresh of production: new rows in, credits, tallies and shares out. Every door comes through here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from justai_sim import clock
from justai_sim.attribution import Bound, attribute
from justai_sim.bandit.choose import final_shares
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import LOWER_IS_BETTER, Shape, Tally
from justai_sim.clock import DAY, MISSING
from justai_sim.loop.lifecycle import Change, Lifecycle
from justai_sim.loop.program import Layout, Program
from justai_sim.loop.segments import features
from justai_sim.loop.state import State
from justai_sim.loop.sums import Moving, tally
from justai_sim.tables import B1, F8, I8, Events, Sends


@dataclass(frozen=True)
class Batch:
    """Rows that became known since the last step, in any order."""

    sends: Sends
    events: Events


@dataclass(frozen=True)
class Tick:
    """What a refresh found and decided.

    n, y, y2: trials, sums of the key metric and of its square, (templates, R, K); shares: (templates, R, C, K), what
    `choose` draws from until the next refresh; C is 1, or of a contextual policy the segments, users without one first.
    """

    index: int
    now: int
    n: F8
    y: F8
    tallies: tuple[Tally, ...]
    shares: F8
    changes: tuple[Change, ...]
    live: B1
    y2: F8


@dataclass(frozen=True)
class Machine:
    """A program bound to the codes of its rows: what `step` needs besides state and batch."""

    program: Program
    bound: Bound
    layout: Layout
    variants: tuple[tuple[str, ...], ...]
    """Texts of the variants of each template code, control first."""
    segments: tuple[str, ...] = ()
    """Texts of the segments that the policy tells apart; none for policies that are not contextual."""

    @classmethod
    def of(
        cls, program: Program, bound: Bound, templates: list[str], variants: list[str], segments: Sequence[str] = ()
    ) -> Machine:
        by_id = {t.id: tuple(t.variants) for t in program.templates}
        told = tuple(segments) if policy(program.policy.name).contextual else ()
        return cls(program, bound, Layout(program, templates, variants), tuple(by_id.get(t, ()) for t in templates),
                   told)  # fmt: skip

    @property
    def rows(self) -> int:
        """Rows of the shares: 1, or one a segment and one for users without."""
        return len(self.segments) + 1 if self.segments else 1

    def shape(self, template: int, reps: int) -> Shape:
        arms = self.layout.arms
        names = self.variants[template] + ("",) * (arms - len(self.variants[template]))
        x = None
        if policy(self.program.policy.name).contextual:
            x = features(self.segments, [self.program.themes.get(v, []) if i else [] for i, v in enumerate(names)])
        return Shape(reps, self.rows, arms, names, self.program.key_metric, x)


def step(machine: Machine, state: State, batch: Batch, now: int) -> tuple[State, Tick]:
    """Refresh at `now` (microseconds), with every row received up to then; consumes `state`.

    Attributes again each user of whom something new is known, forms the tallies of the rows known (a snapshot: how
    they came does not matter) and asks the policy for the shares until the next refresh.
    """
    if state.moving is None:
        state.moving = Moving(machine.program, machine.layout, state.reps, machine.rows, state.start)
    learn(machine.bound, state, batch, now)
    return state, refresh(machine, state, now)


def learn(bound: Bound, state: State, batch: Batch, now: int) -> tuple[I8, I8]:
    """Take in the rows of a batch; returns the rows of sends and of events that were attributed again."""
    late = max((int(t.received_at.max()) for t in (batch.sends, batch.events) if len(t)), default=MISSING)
    if late > now:
        raise ValueError(f"a row received at {clock.iso(late)} cannot be known at {clock.iso(now)}")
    if not (len(batch.sends) or len(batch.events)):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    send_rows, event_rows = state.add(batch.sends, batch.events, bound.rule.explicit != "ignore")
    got = attribute(bound, *state.taken(send_rows, event_rows), now)
    if state.moving is None:
        state.write(send_rows, event_rows, got)
        return send_rows, event_rows
    before = state.moving.counts(state.earnings, send_rows, state.sends.n - len(batch.sends))
    state.write(send_rows, event_rows, got)
    after = state.moving.counts(state.earnings, send_rows, state.sends.n)
    state.moving.move(state.sends, send_rows, before, after, now)
    return send_rows, event_rows


def refresh(machine: Machine, state: State, now: int) -> Tick:
    """The tallies of what the state knows, and the shares that follow from them."""
    if state.moving is None:  # what was found was not followed: all sends are summed up
        state.moving = Moving(machine.program, machine.layout, state.reps, machine.rows, state.start)
        state.moving.exact = False
    index = (now - state.start) // machine.program.refresh
    shown = tally(machine, state, now, max(index, 0))
    training = machine.program.training  # the page shows all sends, whatever the policy learns from
    tallies = shown if training is None else tally(machine, state, now, max(index, 0), training)
    changes = _advance(machine, state, shown, now)
    shares = allocate(machine, state, tallies, now)
    y2 = np.stack([t.y2.sum(axis=(1, 3)) for t in shown]) if shown else np.zeros((0, state.reps, machine.layout.arms))
    none = np.zeros((0, state.reps, machine.layout.arms))
    n = np.stack([t.n.sum(axis=(1, 3)) for t in shown]) if shown else none
    y = np.stack([t.y.sum(axis=(1, 3)) for t in shown]) if shown else none
    still = machine.layout.live_at(now)
    live = np.broadcast_to(still[:, None], (len(still), state.reps, machine.layout.arms))
    live = live if state.lifecycle is None else state.lifecycle.still(live)
    return Tick(index, now, n, y, tallies, shares, changes, live, y2)


def _advance(machine: Machine, state: State, shown: tuple[Tally, ...], now: int) -> tuple[Change, ...]:
    """Ship and archive by the program's rule, at the refreshes of the grid only."""
    program, live = machine.program, machine.layout.live_at(now)
    if program.shipping is None or (now - state.start) % program.refresh:
        return ()
    if state.lifecycle is None:
        state.lifecycle = Lifecycle.fresh(len(live), state.reps, machine.layout.arms)
    low = program.key_metric in LOWER_IS_BETTER
    return tuple(state.lifecycle.advance(program.shipping.stop(), shown, live, state.start, now, low))


def allocate(machine: Machine, state: State, tallies: tuple[Tally, ...], now: int) -> F8:
    """Shares (templates, R, C, K) from the policy, with epsilon, floor and control share mixed in."""
    program = machine.program
    spec = program.policy
    chosen = policy(spec.name)
    out = []
    wait = clock.days(program.rule.upper_days + program.rule.lateness_days) + 2 * DAY
    there = machine.layout.live_at(now)
    for t, counts in enumerate(tallies):
        live = np.broadcast_to(there[t], (state.reps, machine.layout.arms))
        if state.lifecycle is not None:
            live = live & ~state.lifecycle.archived[t]
        shape = machine.shape(t, state.reps)
        if not machine.layout.live[t].any():  # a template that the program does not have
            out.append(np.broadcast_to(np.eye(1, shape.K), (shape.R, shape.C, shape.K)))
            continue
        memory = chosen.init(program.spec_of(shape.variants), shape)
        # Folding what is final anew at each refresh keeps the shares a function of the snapshot alone.
        done = min(max((now - wait - state.start) // program.refresh, 0), counts.n_cohorts)
        if chosen.memory:
            memory = chosen.update(memory, counts.cohorts(0, done))
            counts = counts.cohorts(done, counts.n_cohorts)
        shares = chosen.allocate(memory, counts, live, now)
        out.append(final_shares(shares, live, program.control_share, spec.epsilon, spec.floor))
    found = np.stack(out) if out else np.zeros((0, state.reps, machine.rows, machine.layout.arms))
    return found if state.lifecycle is None else state.lifecycle.served(found, there)

"""The closed loop: simpy drives the calendar; each tick works on ragged rows over a block of worlds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import simpy

from justai_sim.attribution import bind
from justai_sim.bandit.choose import choose, pinned
from justai_sim.esp.base import Adapter, adapter
from justai_sim.loop.segments import segment_of
from justai_sim.loop.state import State
from justai_sim.loop.step import Machine, Tick, step
from justai_sim.scenario import Scenario
from justai_sim.sim.block import Block, even_split
from justai_sim.sim.inbox import Inbox
from justai_sim.sim.organics import Organics
from justai_sim.sim.plan import by_code, most_times, plan
from justai_sim.sim.wire import Wire, carried_by
from justai_sim.tables import (
    B1,
    CONVERSION,
    F8,
    HELD_OUT,
    I4,
    I8,
    KINDS,
    NONE,
    SENT,
    SUPPRESSED,
    Codes,
    MadeCodes,
    Sends,
    TextCodes,
)
from justai_sim.truth import Truth
from justai_sim.world.codes import MISNAMED, TEMPLATES, kinds_of_events, send_code
from justai_sim.world.faults import Faults
from justai_sim.world.people import Draws, cells, users_of
from justai_sim.world.telemetry import misnamed
from justai_sim.world.world import NEVER, NEVER_BEFORE, Grid, Happened, Responder

__all__ = ["Block", "Engine", "simulate_block"]


def tick_times(scenario: Scenario) -> I8:
    """Refresh instants from the start, and the end of the run as the last."""
    grid = np.arange(scenario.start_us, scenario.end_us, scenario.program.refresh, dtype=np.int64)
    return np.append(grid, scenario.end_us)


def codes_of(scenario: Scenario, esp: Adapter, goal: str, times: int) -> dict[str, Codes]:
    """Texts of the simulated ids, as the provider's adapter reads them back."""
    touches = by_code(scenario)
    wrong = misnamed(goal)

    users, serials = MadeCodes.of("u%08d", 10**8), MadeCodes.of("d%012d", NEVER)

    def sends(codes: I8) -> list[str]:
        who, template = np.divmod(codes // times, len(touches))
        named = [touches[t].id for t in template.tolist()]
        return [*map(esp.send_id, serials.text(codes), users.text(who), named, repeat(""))]

    def events(codes: I8) -> list[str]:
        # 0: a purchase, 1: one whose name is wrong, then the other kinds.
        which = np.where(
            kinds_of_events(codes) == CONVERSION, (codes & MISNAMED) // MISNAMED, 1 + kinds_of_events(codes)
        )
        known = [(KINDS[0], goal), (KINDS[0], wrong), *((k, "") for k in KINDS[1:])]
        told = zip(codes.tolist(), which.tolist(), strict=True)
        return [esp.event_id(f"e{c:017d}", *known[w]) for c, w in told]

    # Most providers take our ids as they are.
    own_sends, own_events = esp.send_id("d", "u", "t", "") == "d", esp.event_id("e", "open", "") == "e"
    return {
        "user": users, "decision": serials, "order": MadeCodes.of("o%017d", NEVER),
        "send": MadeCodes(serials.make if own_sends else sends, 10**8 * len(touches) * times),
        "event": MadeCodes.of("e%017d", NEVER) if own_events else MadeCodes(events, NEVER),
        "template": TextCodes.of(t.id for t in touches),
        "variant": TextCodes.of(v.id for t in touches for v in scenario.variants_of(t)),
        "segment": TextCodes.of(segments_of(scenario)),
        "name": TextCodes.of([goal, wrong]), "currency": TextCodes.of([scenario.world.value.currency]),
    }  # fmt: skip


def segments_of(scenario: Scenario) -> list[str]:
    """The text of each cell's segment."""
    return [segment_of(scenario.program.segments, cell) for cell in cells(scenario.world)]


class Engine:
    """One block of worlds from start to end."""

    def __init__(self, scenario: Scenario, reps: range, wire: bool, keep_journal: bool) -> None:
        self.scenario, self.reps = scenario, reps
        # A replay of the journal is held against the tallies of every refresh; else they would only take memory.
        self.keep_tallies = keep_journal
        esp = adapter(scenario.esp)
        self.program = program = scenario.full_program()
        goal = program.goals[0] if program.goals else "purchase"
        self.touches = by_code(scenario)
        start, end, world = scenario.start_us, scenario.end_us, scenario.world
        self.u = Draws(scenario.seed, reps.start)
        self.many = max(most_times(t, scenario.days) for t in self.touches)
        self.codes = codes_of(scenario, esp, goal, self.many)
        carried = carried_by(esp, self.codes, 0), carried_by(esp, self.codes, 1)
        grid = Grid(esp.time_grid, esp.money_grid, carried[0].order)
        self.users = users_of(world, self.u, len(reps), scenario.days, start, grid.time)
        self.plan = plan(scenario, self.users, self.u, grid)
        variants = [scenario.variants_of(t) for t in self.touches]
        self.responder = Responder(world, variants, self.u, self.users, start, end, grid)
        self.faults = Faults(scenario.telemetry, self.u, self.users, start, end, grid, scenario.esp, carried)
        texts = {
            k: self.codes[k].text(np.arange(len(self.codes[k]))) for k in ("template", "variant", "segment", "name")
        }
        bound = bind(program.rule, templates=texts["template"], names=texts["name"],
                     currencies=[world.value.currency], goals=program.goals or None)  # fmt: skip
        self.machine = Machine.of(program, bound, texts["template"], texts["variant"], texts["segment"])
        told = {name: i for i, name in enumerate(texts["segment"])}
        self.segment: I8 = np.array([told.get(s, NONE) for s in segments_of(scenario)], np.int64)[self.users.cell]
        self.held: B1 = self.u("holdout", self.users.rep, self.users.user) < program.holdout_share
        self.times = tick_times(scenario)
        self.inbox = Inbox(self.times)
        span = int(self.users.user.max(initial=0)) + 1
        self.state = State(len(reps), span, span * len(self.touches) * self.many, start, len(self.plan))
        self.wire = Wire(esp, self.codes, len(reps), keep_journal) if wire else None
        self.seen: I4 = np.zeros(len(self.users.rep), np.int32)
        self.stop_at: I8 = np.full(len(self.users.rep), NEVER, np.int64)
        pins = len(self.touches) if program.sticky == "variant" else 0
        self.pinned: I8 = np.full((pins, len(self.users.rep)), NONE, np.int64)
        self.pinned_p: F8 = np.zeros(self.pinned.shape)
        self.organics: Organics | None = None
        self.caused: list[Happened] = []
        self.truths: list[Truth] = []
        self.origins: list[I8] = []
        self.suppressed: list[Sends] = []
        self.ticks: list[Tick] = []

    def run(self, on_tick: Callable[[int], None] | None = None) -> Block:
        # The allocator learns from a large block given back to keep what the refreshes ask for again and again.
        np.empty(31 << 20, np.int8)
        organic = self.responder.organic()
        if self.scenario.world.replaces_organic:
            self.organics = Organics(organic, self.users, self.u, self.scenario.world.replaces_organic)
            self.happen(self.organics.of(NEVER_BEFORE, int(self.times[0])))
        else:
            self.happen(organic)
        for told, origin in self.faults.tests():
            self.inbox.tell(told, origin)
        env = simpy.Environment(initial_time=int(self.times[0]))
        env.process(self.calendar(env, on_tick))
        env.run()
        return Block(
            self.scenario, self.reps, self.program, self.machine, self.state, Truth.concat(self.truths),
            np.concatenate(self.origins), self.inbox.rest(), Sends.concat(self.suppressed), self.users, self.ticks,
            self.codes, self.wire, Truth.concat(self.organics.by if self.organics is not None else []),
        )  # fmt: skip

    def calendar(self, env: Any, on_tick: Callable[[int], None] | None) -> Generator[Any, Any, None]:
        """At equal instants the refresh precedes the decisions."""
        for k, at in enumerate(self.times.tolist()):
            yield env.timeout(at - env.now)
            batch, origin = self.inbox.take(k)
            if self.wire is not None:
                batch, origin = self.wire.carry(batch, origin)
            self.origins.append(origin)
            self.state, tick = step(self.machine, self.state, batch, at)
            self.ticks.append(tick if self.keep_tallies else replace(tick, tallies=()))
            if k + 1 < len(self.times):
                self.serve(at, int(self.times[k + 1]), tick)
                self.happen_anyway(at, int(self.times[k + 1]))
            if on_tick is not None:
                on_tick(k)

    def serve(self, start: int, stop: int, tick: Tick) -> None:
        """All messages of [start, stop): who is still mailed, the choice, the message, the responses."""
        from justai_sim.sim import kernel

        at, who, place = self.plan.within(start, stop)
        turn = kernel.turns(who, self.seen)
        # Within one tick a user's messages are served in turn: an unsubscribe stops the next one.
        for wave in range(int(turn.max(initial=-1)) + 1):
            w = np.flatnonzero((turn == wave) & (self.stop_at[who] > at))
            self.send(at[w], who[w], place[w], tick)

    def send(self, at: I8, who: I8, place: I8, tick: Tick) -> None:
        """Messages of different users: chosen, left, answered."""
        rep, user, template = self.users.rep[who], self.users.user[who], place % TEMPLATES
        arm, propensity = self.choice(who, place, tick)
        status = np.full(len(at), SENT, np.int8)
        if self.scenario.world.suppressed_rate:
            status[self.u("suppressed", rep, user, place) < self.scenario.world.suppressed_rate] = SUPPRESSED
        status[self.held[who]] = HELD_OUT
        code = send_code(user, place, len(self.touches), self.many)
        sends = Sends.build(
            len(at), send=code, rep=rep, user=user, template=template, sent_at=at, decided_at=at, received_at=at,
            variant=self.machine.layout.variant[template, arm], propensity=propensity, segment=self.segment[who],
            status=status,
        )  # fmt: skip
        if status.any():
            held, suppressed = status == HELD_OUT, status == SUPPRESSED
            # A decision is known from the next instant on: the refresh of the same instant came before it.
            self.inbox.put(sends.take(held).with_(received_at=at[held] + 1))
            self.suppressed.append(sends.take(suppressed))
            left = np.flatnonzero(status == SENT)
            sends, who, place, arm = sends.take(left), who[left], place[left], arm[left]
        heard, lost = self.faults.sends(sends, place)
        self.inbox.put(heard)
        self.inbox.lose(lost)
        happened, there, stop = self.responder.respond(sends, place, arm)
        self.stop_at[who] = np.minimum(self.stop_at[who], stop)
        self.happen(happened)
        if self.organics is not None:
            self.caused.append(happened)
        for told, origin in self.faults.machines(sends, place, there):
            self.inbox.tell(told, origin)

    def choice(self, who: I8, place: I8, tick: Tick) -> tuple[I8, F8]:
        """The arm and its propensity of each message, from the shares of its template."""
        users, program = self.users, self.program
        rep, user, template = users.rep[who], users.user[who], place % TEMPLATES
        u = self.u("choice", rep, user, place)
        _, reps, rows, arms = tick.shares.shape
        row = template * reps + rep
        if program.split == "external":
            arm, propensity = even(tick.live.reshape(-1, arms), row, u), np.full(len(who), np.nan)
        else:
            shares = tick.shares.reshape(-1, rows, arms)
            segment = self.segment[who] + 1 if self.machine.segments else np.zeros(len(who), np.int64)
            if program.sticky == "arm":
                u = pinned(u, self.u("split", rep, user), shares[row, segment, 0])
            arm, propensity = choose(shares, row, segment, u)
        if len(self.pinned):
            arm, propensity = self.repeated(who, template, arm, propensity, tick)
        held = self.held[who]
        return np.where(held, 0, arm), np.where(held, np.nan, propensity)

    def repeated(self, who: I8, template: I8, arm: I8, propensity: F8, tick: Tick) -> tuple[I8, F8]:
        """A user gets the variant of a template again that he had, with the propensity of that first choice, as long as
        it is served: the control until another is shipped to everybody."""
        before, rep = self.pinned[template, who], self.users.rep[who]
        control = (tick.shares[template, rep, 0, 0] > 0) | (self.program.shipping is None)
        served = np.where(before == 0, control, tick.live[template, rep, np.maximum(before, 0)])
        again = (before >= 0) & served
        arm = np.where(again, before, arm)
        propensity = np.where(again, self.pinned_p[template, who], propensity)
        self.pinned[template, who], self.pinned_p[template, who] = arm, propensity
        return arm, propensity

    def happen_anyway(self, start: int, stop: int) -> None:
        """The organic purchases of [start, stop), where caused ones may have taken their place."""
        if self.organics is None:
            return
        self.organics.replace(Happened.all(self.caused), start, stop)
        self.happen(self.organics.of(start, stop))
        self.caused = [h.since(stop) for h in self.caused]

    def happen(self, happened: Happened) -> None:
        self.truths.append(happened.truth)
        for told, origin in self.faults.events(happened.events):
            self.inbox.tell(told, origin)


def even(live: B1, rep: Any, u: F8) -> I8:
    """The arms (n,) of the provider's own split, for uniforms u (n,) and rows rep (n,) of `live` (R, K)."""
    edges = np.cumsum(even_split(live), axis=1)
    return np.asarray((u[:, None] >= edges[rep]).sum(axis=1), np.int64)


def simulate_block(
    scenario: Scenario, reps: range, *, wire: bool = False, keep_journal: bool = False,
    on_tick: Callable[[int], None] | None = None,
) -> Block:  # fmt: skip
    """Run the worlds `reps` of a scenario; any split into blocks gives the same worlds."""
    return Engine(scenario, reps, wire, keep_journal).run(on_tick)

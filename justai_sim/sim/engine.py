"""The closed loop: simpy drives the calendar; each tick works on ragged rows over a block of worlds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from justai_sim.attribution import bind
from justai_sim.bandit.choose import choose, pinned
from justai_sim.clock import DAY
from justai_sim.errors import UsageError
from justai_sim.esp.base import Adapter, adapter
from justai_sim.loop.program import Program
from justai_sim.loop.state import State
from justai_sim.loop.step import Machine, Tick, step
from justai_sim.scenario import Scenario, Step
from justai_sim.sim.inbox import Inbox
from justai_sim.sim.wire import Wire
from justai_sim.tables import F8, I4, I8, Codes, Decisions, Events, Log, MadeCodes, Sends, TextCodes
from justai_sim.truth import Truth, Unheard
from justai_sim.world.world import TEMPLATES, Responder, Users, event_code, organic_truth, send_code

NEVER = np.iinfo(np.int64).max


@dataclass
class Block:
    """What a block of worlds left behind: state at the end of the run, truth, and every refresh."""

    scenario: Scenario
    reps: range
    program: Program
    machine: Machine
    state: State
    truth: Truth
    origin: I8
    """The true event that each row of `state.events` tells of; NONE: of nothing that happened."""
    unheard: Unheard
    users: Users
    ticks: list[Tick]
    codes: dict[str, Codes]
    wire: Wire | None

    def signed_up(self, rep: I4, user: I8) -> I8:
        """When each user signed up, microseconds."""
        at = np.zeros(len(self.reps) * self.state.users, np.int64)
        at[self.users.rep * np.int64(self.state.users) + self.users.user] = self.users.signed_up
        return at[rep * np.int64(self.state.users) + user]

    @property
    def rates(self) -> F8:
        """True conversion rates, (templates, arms); NaN where a template has fewer arms."""
        s = self.scenario
        out = np.full((len(s.flow), self.machine.layout.arms), np.nan)
        for t, one in enumerate(by_code(s)):
            row = s.variants_of(one)
            out[t, : len(row)] = [v.conversion_rate for v in row]
        return out

    def log(self, rep: int) -> Log:
        """The rows of one world that were known at the end, as a log."""
        local = rep - self.reps.start
        sends, events = self.state.sends.table, self.state.events.table
        s, e = sends.take(sends.rep == local), events.take(events.rep == local)
        s = s.with_(rep=np.zeros(len(s), np.int32))
        e = e.with_(rep=np.zeros(len(e), np.int32))
        return Log(s, e, decisions_of(s), self.codes, source=f"simulated: {self.scenario.name}")


def decisions_of(sends: Sends) -> Decisions:
    """The decision log of simulated sends: one policy decision each, with its propensity."""
    return Decisions.build(
        len(sends), decision=sends.send, user=sends.user, template=sends.template, variant=sends.variant,
        segment=sends.segment, decided_at=sends.decided_at, propensity=sends.propensity,
    )  # fmt: skip


def by_code(scenario: Scenario) -> list[Step]:
    """The flow's steps in the order of their template codes."""
    return sorted(scenario.flow, key=lambda s: s.id.encode())


def tick_times(scenario: Scenario) -> I8:
    """Refresh instants from the start, and the end of the run as the last."""
    grid = np.arange(scenario.start_us, scenario.end_us, scenario.program.refresh, dtype=np.int64)
    return np.append(grid, scenario.end_us)


def codes_of(scenario: Scenario, esp: Adapter, goal: str) -> dict[str, Codes]:
    """Texts of the simulated ids, as the provider's adapter reads them back."""
    steps = by_code(scenario)
    templates = TextCodes.of(s.id for s in steps)
    variants = TextCodes.of(v.id for s in scenario.flow for v in scenario.variants_of(s))

    def user(code: int) -> str:
        return f"u{code:08d}"

    def send(code: int) -> str:
        return esp.send_id(f"d{code:012d}", user(code // len(steps)), steps[code % len(steps)].id, "")

    def event(code: int) -> str:
        kind, name = kind_of_event(code)
        return esp.event_id(f"e{code:014d}", kind, goal if name else "")

    return {
        "user": MadeCodes(user, 10**8), "send": MadeCodes(send, 10**8 * len(steps)),
        "event": MadeCodes(event, NEVER), "order": TextCodes([]), "decision": MadeCodes(lambda c: f"d{c:012d}", NEVER),
        "template": templates, "variant": variants, "segment": TextCodes([]),
        "name": TextCodes.of([goal]), "currency": TextCodes.of([scenario.world.value.currency]),
    }  # fmt: skip


def kind_of_event(code: int) -> tuple[str, bool]:
    """The kind of a simulated event code, and whether it is a conversion."""
    from justai_sim.tables import KINDS
    from justai_sim.world.world import ORGANIC, SLOTS

    organic = (code // ORGANIC) % SLOTS == TEMPLATES
    kind = 0 if organic else code % ORGANIC
    return KINDS[kind], kind == 0


class Engine:
    """One block of worlds from start to end."""

    def __init__(self, scenario: Scenario, reps: range, wire: bool, keep_journal: bool) -> None:
        if len(scenario.flow) > TEMPLATES:
            raise UsageError(f"flow has {len(scenario.flow)} steps; at most {TEMPLATES} can be simulated")
        self.scenario, self.reps = scenario, reps
        esp = adapter(scenario.esp)
        program = scenario.full_program()
        goal = program.goals[0] if program.goals else "purchase"
        self.codes = codes_of(scenario, esp, goal)
        templates: list[str] = self.codes["template"].text(np.arange(len(self.codes["template"])))
        variants: list[str] = self.codes["variant"].text(np.arange(len(self.codes["variant"])))
        bound = bind(program.rule, templates=templates, names=[goal], currencies=[scenario.world.value.currency],
                     goals=program.goals or None)  # fmt: skip
        self.machine = Machine.of(program, bound, templates, variants)
        self.program = program
        self.steps = by_code(scenario)
        self.responder = Responder(
            scenario.world, [scenario.variants_of(s) for s in self.steps], scenario.seed, scenario.start_us,
            scenario.end_us, esp.time_grid, esp.money_grid, 0, 0, reps.start,
        )  # fmt: skip
        self.times = tick_times(scenario)
        self.inbox = Inbox(self.times)
        self.users = self.responder.users(len(reps), scenario.days)
        self.user_span = int(self.users.user.max()) + 1 if len(self.users.user) else 1
        self.state = State(
            len(reps),
            self.user_span,
            self.user_span * TEMPLATES,
            scenario.start_us,
            len(self.users.user) * len(self.steps),
        )
        self.wire = Wire(esp, self.codes, len(reps), keep_journal) if wire else None
        self.stop_at: I8 = np.full(len(reps) * self.user_span, NEVER, np.int64)
        self.truths: list[Truth] = []
        self.origins: list[I8] = []
        self.ticks: list[Tick] = []
        self.schedule = self._schedule(self.users)

    def _schedule(self, users: Users) -> tuple[I8, I4, I8, I8]:
        """All planned sends in time order: instant, replication, user, template."""
        n, k = len(users.user), len(self.steps)
        at = (users.signed_up[:, None] + np.array([round(s.day * DAY) for s in self.steps])).ravel()
        at = self.responder.floor(at)
        rep, user = np.repeat(users.rep, k), np.repeat(users.user, k)
        template = np.tile(np.arange(k), n)
        order = np.argsort(at, kind="stable")  # rows stand by (rep, user, template): ties keep that order
        order = order[at[order] < self.scenario.end_us]
        return at[order], rep[order], user[order], template[order]

    def run(self, on_tick: Callable[[int], None] | None = None) -> Block:
        organic = self.responder.organic(self.users)
        self.truths.append(organic_truth(organic))
        self.deliver(organic)
        env = simpy.Environment(initial_time=int(self.times[0]))
        env.process(self.calendar(env, on_tick))
        env.run()
        truth = Truth.concat(self.truths)
        return Block(self.scenario, self.reps, self.program, self.machine, self.state, truth,
                     np.concatenate(self.origins), self.inbox.rest(), self.users, self.ticks, self.codes,
                     self.wire)  # fmt: skip

    def calendar(self, env: Any, on_tick: Callable[[int], None] | None) -> Generator[Any, Any, None]:
        """At equal instants the refresh precedes the decisions."""
        for k, at in enumerate(self.times.tolist()):
            yield env.timeout(at - env.now)
            batch, origin = self.inbox.take(k)
            if self.wire is not None:
                batch, origin = self.wire.carry(batch, origin)
            self.origins.append(origin)
            self.state, tick = step(self.machine, self.state, batch, at)
            self.ticks.append(tick)
            if k + 1 < len(self.times):
                self.serve(at, int(self.times[k + 1]), tick)
            if on_tick is not None:
                on_tick(k)

    def serve(self, start: int, stop: int, tick: Tick) -> None:
        """All sends of [start, stop): who is still mailed, the choice, the message, the responses."""
        at, rep, user, template = self.schedule
        lo, hi = np.searchsorted(at, [start, stop])
        rows = np.arange(lo, hi)
        # Within one tick a user's sends are served in turn: an unsubscribe stops the next one.
        turn = _turns(rep[rows].astype(np.int64) * self.user_span + user[rows])
        for wave in range(int(turn.max()) + 1 if len(turn) else 0):
            w = rows[turn == wave]
            w = w[self.stop_at[rep[w].astype(np.int64) * self.user_span + user[w]] > at[w]]
            self.send(at[w], rep[w], user[w], template[w], tick)

    def send(self, at: I8, rep: I4, user: I8, template: I8, tick: Tick) -> None:
        r = self.responder
        arm = np.zeros(len(at), np.int64)
        propensity = np.zeros(len(at))
        u = r.u("choice", rep, user, template)
        split = r.u("split", rep, user) if self.program.sticky == "arm" else None
        for t in range(len(self.steps)):
            here = np.flatnonzero(template == t)
            none = np.zeros(len(here), np.int64)
            row, mine = rep[here].astype(np.int64), u[here]
            if split is not None:
                mine = pinned(mine, split[here], tick.shares[t][row, 0, 0])
            arm[here], propensity[here] = choose(tick.shares[t], row, none, mine)
        code = send_code(user, template, len(self.steps))
        sends = Sends.build(
            len(at), send=code, rep=rep, user=user, template=template, sent_at=at, decided_at=at,
            variant=self.machine.layout.variant[template, arm], propensity=propensity,
            received_at=at + r.latency(rep, event_code(user, template, 15)),
        )  # fmt: skip
        events, truth, stop = r.respond(sends, arm)
        who = rep.astype(np.int64) * self.user_span + user
        self.stop_at[who] = np.minimum(self.stop_at[who], stop)
        self.truths.append(truth)
        self.inbox.put(sends)
        self.deliver(events)

    def deliver(self, events: Events) -> None:
        self.inbox.tell(events, events.event)
        if self.scenario.world.duplicate_share:
            copies = self.responder.twice(events)
            self.inbox.tell(copies, copies.event)


def _turns(who: I8) -> I8:
    """For each row how many earlier rows have the same value."""
    order = np.argsort(who, kind="stable")
    s = who[order]
    first = np.searchsorted(s, s, side="left")
    out = np.empty(len(who), np.int64)
    out[order] = np.arange(len(who)) - first
    return out


def simulate_block(
    scenario: Scenario, reps: range, *, wire: bool = False, keep_journal: bool = False,
    on_tick: Callable[[int], None] | None = None,
) -> Block:  # fmt: skip
    """Run the worlds `reps` of a scenario; any split into blocks gives the same worlds."""
    return Engine(scenario, reps, wire, keep_journal).run(on_tick)

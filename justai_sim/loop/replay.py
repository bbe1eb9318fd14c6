"""A log through the same steps that the simulator and the service take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from justai_sim import clock
from justai_sim.attribution import Attribution, Bound, attribute
from justai_sim.clock import MISSING
from justai_sim.errors import UsageError
from justai_sim.loop.program import Program, bound_to
from justai_sim.loop.state import State
from justai_sim.loop.step import Batch, Machine, Tick, step
from justai_sim.tables import I8, Decisions, Events, Log, Sends

MAX_REFRESHES = 20_000


def last_received(log: Log) -> int:
    """The largest receipt of any row, microseconds; 0 for an empty log."""
    return max((int(t.received_at.max()) for t in (log.sends, log.events) if len(t)), default=0)


def attribute_log(program: Program, log: Log, as_of: int | None = None) -> tuple[Bound, Attribution]:
    """Attribute a whole log at once, the batch door."""
    bound = bound_to(program, log)
    return bound, attribute(bound, log.sends, log.events, as_of)


def machine_of(program: Program, log: Log) -> Machine:
    """The program bound to the codes of a log."""
    return Machine.of(program, bound_to(program, log), log.names("template"), log.names("variant"),
                      log.names("segment"))  # fmt: skip


def replay_log(
    program: Program, log: Log, as_of: int, start: int | None = None, on_tick: Callable[[Tick], None] | None = None
) -> tuple[Machine, State, list[Tick]]:
    """Refresh by refresh, with the rows received up to each: t_k = start + k x refresh, up to `as_of`.

    `start` is the UTC midnight of the first decision (or send). Arms come from the log and are never
    drawn again. A last step at `as_of` itself is added when it lies between two refreshes.
    """
    sends = with_decisions(log.sends, log.decisions)
    times, start = refresh_times(program, log, sends, as_of, start)
    machine = machine_of(program, log)
    state, ticks = stepped(machine, sends, log.events, times, start, on_tick)
    return machine, state, ticks


def refresh_times(program: Program, log: Log, sends: Sends, as_of: int, start: int | None) -> tuple[I8, int]:
    """The refreshes up to `as_of`, and the first; `sends` with their decision times. UsageError for too many."""
    if start is None:
        decided = np.where(sends.decided_at == MISSING, sends.sent_at, sends.decided_at)
        first = [int(t.min()) for t in (decided, log.decisions.decided_at) if len(t)]
        start = clock.midnight(min(first)) if first else clock.midnight(as_of)
    grid = np.arange(start, as_of + 1, program.refresh, dtype=np.int64)
    if len(grid) > MAX_REFRESHES:
        raise UsageError(
            f"the log spans {len(grid)} refreshes of {program.refresh_hours:g} h from {clock.iso(start)}; "
            f"expected at most {MAX_REFRESHES}: narrow it with --since and --until, or set a longer refresh"
        )
    return (grid if len(grid) and grid[-1] == as_of else np.append(grid, as_of)), start


def stepped(
    machine: Machine, sends: Sends, events: Events, times: I8, start: int, on_tick: Callable[[Tick], None] | None = None
) -> tuple[State, list[Tick]]:
    """A step at each of `times`, with the rows received by then."""
    state = State(1, *spans(sends, events), start)
    ticks = []
    batches = Arrivals(sends, events)
    for now in times.tolist():
        state, tick = step(machine, state, batches.until(now), now)
        ticks.append(tick)
        if on_tick is not None:
            on_tick(tick)
    return state, ticks


def spans(sends: Sends, events: Events) -> tuple[int, int]:
    """One more than the largest code of a user, and of a send."""
    users = max((int(t.user.max()) + 1 for t in (sends, events) if len(t)), default=1)
    span = max((int(t.send.max()) + 1 for t in (sends, events) if len(t)), default=1)
    return max(users, 1), max(span, 1)


class Arrivals:
    """Rows in the order of their receipt, handed out once."""

    def __init__(self, sends: Sends, events: Events) -> None:
        self.sends, self.events = sends, events
        self.order = {
            "s": np.argsort(sends.received_at, kind="stable"),
            "e": np.argsort(events.received_at, kind="stable"),
        }
        self.at = {"s": sends.received_at[self.order["s"]], "e": events.received_at[self.order["e"]]}
        self.done = {"s": 0, "e": 0}

    def until(self, now: int) -> Batch:
        rows = {}
        for k in ("s", "e"):
            stop = int(np.searchsorted(self.at[k], now, side="right"))
            rows[k] = self.order[k][self.done[k] : stop]
            self.done[k] = stop
        return Batch(self.sends.take(rows["s"]), self.events.take(rows["e"]))


def with_decisions(sends: Sends, decisions: Decisions) -> Sends:
    """Decision time, propensity and segment from the decision log, where a send has none of its own.

    A send belongs to the latest decision of the same user, template and variant up to 5 minutes after it
    left (clocks differ); one without a decision keeps its propensity missing.
    """
    if not len(decisions) or not len(sends):
        return sends
    d, n = decisions, len(decisions)
    group = np.zeros(n + len(sends), np.int64)  # one number for user, template and variant
    for ids in ("user", "template", "variant"):
        code = np.concatenate([getattr(d, ids), getattr(sends, ids)])
        group = group * (int(code.max()) + 2) + code + 1
    time = np.concatenate([d.decided_at, sends.sent_at + 5 * clock.MINUTE])
    is_send = np.arange(len(time)) >= n
    order = np.lexsort((is_send, time, group))
    # Walking in (group, time) order, the last decision seen so far is the send's, if the group agrees.
    last = np.maximum.accumulate(np.where(is_send[order], -1, np.arange(len(order))))
    latest = np.empty(len(order), np.int64)
    latest[order] = np.where(last >= 0, order[last], -1)
    row = latest[n:]
    found = (row >= 0) & (group[row] == group[n:])
    own_time, own_p = sends.decided_at != MISSING, ~np.isnan(sends.propensity)
    return sends.with_(
        decided_at=np.where(found & ~own_time, d.decided_at[row], sends.decided_at),
        propensity=np.where(found & ~own_p, d.propensity[row], sends.propensity),
        segment=np.where(found & (sends.segment < 0), d.segment[row], sends.segment),
    )

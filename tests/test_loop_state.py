"""What a run holds from refresh to refresh: the rows as they came, and what one attribution of all of them says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim import clock
from justai_sim.attribution import TrainingWindow, attribute
from justai_sim.bandit.policy import PolicySpec
from justai_sim.clock import MISSING
from justai_sim.loop.columns import Column, Rows
from justai_sim.loop.program import Program, Template, bound_to
from justai_sim.loop.replay import last_received
from justai_sim.loop.state import State
from justai_sim.loop.step import Batch, Machine, step
from justai_sim.loop.sums import Summing
from justai_sim.scenario import read, with_settings
from justai_sim.sim.engine import Engine
from justai_sim.tables import NONE, OPEN, Decisions, Events, Log, Sends
from tests.strategies import cases, to_log

EDGES = [0, 1, -1, 127, 128, -128, -129, 2**15, -(2**15) - 1, 2**31 - 1, 2**31, -(2**31) - 1, MISSING, 2**62]
numbers = st.lists(st.sampled_from(EDGES) | st.integers(-200, 200), max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["append", "add", "put"]), numbers)), st.integers(0, 9))
def test_a_column_holds_what_was_written(steps: list[tuple[str, list[int]]], reserve: int) -> None:
    column, plain = Column("int64", reserve), np.zeros(0, np.int64)
    open_ = np.zeros(0, np.bool_)  # rows without a value yet
    for what, values in steps:
        a = np.array(values, np.int64)
        if what == "put":
            rows = np.arange(len(plain))[: len(a)]
            column.put(rows, a[: len(rows)])
            plain[rows], open_[rows] = a[: len(rows)], False
            continue
        plain, open_ = np.append(plain, a), np.append(open_, np.full(len(a), what == "add"))
        column.append(a) if what == "append" else column.add(len(a))
        got = column.take(slice(None))
        assert got.dtype == np.int64
        assert np.array_equal(got[~open_], plain[~open_])
        rows = np.flatnonzero(~open_)[::2]
        assert np.array_equal(column.take(rows), plain[rows])


def test_a_column_is_as_narrow_as_its_values() -> None:
    column = Column("int64")
    column.append(np.full(10, 5))
    assert column.data is None
    for value, size in ((6, 1), (200, 2), (70_000, 4), (2**40, 8), (0, 8)):
        column.append(np.full(3, value))
        assert column.data is not None
        assert column.data.itemsize == size
    assert column.take(slice(None)).tolist() == [5] * 10 + [v for v in (6, 200, 70_000, 2**40, 0) for _ in range(3)]


def test_times_that_follow_each_other_and_missing_ones_come_back() -> None:
    sent = np.array([10**15, 10**15 + 7, 10**15 + 9])
    table = Sends.build(3, send=[1, 2, 3], user=0, template=0, variant=0, sent_at=sent, propensity=[0.1, np.nan, 0.1],
                        received_at=[10**15 + 5, MISSING, 10**15 + 10], decided_at=sent)  # fmt: skip
    rows = Rows(Sends, since={"received_at": "sent_at", "decided_at": "sent_at"})
    rows.append(table)
    rows.append(table)
    for c in Sends.SCHEMA:
        np.testing.assert_array_equal(getattr(rows.table, c.name), np.tile(getattr(table, c.name), 2))
    assert rows.columns["decided_at"].data is None


def heard(log: Log) -> Log:
    """A log in which every row says when we heard of it, and a status is known with its row."""
    s, e = log.sends, log.events
    s = s.with_(
        received_at=np.where(s.received_at == MISSING, s.sent_at, s.received_at),
        status_known_at=np.full(len(s), MISSING),
    )
    e = e.with_(received_at=np.where(e.received_at == MISSING, e.occurred_at, e.received_at))
    return Log(s, e, log.decisions, log.codes)


@given(cases(), st.lists(st.floats(0, 1), max_size=4))
def test_steps_say_what_one_attribution_of_all_rows_says(case: Any, cuts: list[float]) -> None:
    rule, sends, events, goals, _ = case
    log = heard(to_log(sends, events))
    if not len(log.sends):
        return
    templates = [Template(id=t, variants=log.names("variant")) for t in log.names("template")]
    wanted = sorted(set().union(*goals.values())) if goals else []
    program = Program(templates=templates, rule=rule, goals=wanted, policy=PolicySpec(name="uniform"))
    machine = Machine.of(program, bound_to(program, log), log.names("template"), log.names("variant"))
    first = int(min(t.received_at.min() for t in (log.sends, log.events) if len(t)))
    start, end = clock.midnight(first), last_received(log)
    state = State(1, len(log.names("user")), len(log.names("send")), start)
    told = start - 1
    for now in [*sorted(round(first + c * (end - first)) for c in cuts), end]:
        new = [t.take((t.received_at > told) & (t.received_at <= now)) for t in (log.sends, log.events)]
        state, tick = step(machine, state, Batch(*new), now)  # type: ignore[arg-type]
        told = now
        equal_to_the_batch(machine, state, now)
        n, y, y2 = Summing(machine, state, now, max(tick.index, 0), TrainingWindow()).of(program.key_metric)
        for t, tally in enumerate(tick.tallies):
            assert np.array_equal(tally.n, n[t])
            assert np.array_equal(tally.y, y[t])
            assert np.array_equal(tally.y2, y2[t])


def equal_to_the_batch(machine: Machine, state: State, now: int) -> None:
    got = attribute(machine.bound, state.sends.table, state.events.table, now)
    assert np.array_equal(got.reason, state.reason[: state.events.n])
    o, earned = got.outcomes, state.earned
    counted = np.zeros(state.sends.n, np.bool_)
    counted[o.send_row] = o.reached & (o.anchor != MISSING)
    assert np.array_equal(earned.counted, counted)
    for name in ("ghost", *earned.NUMBERS):
        assert np.array_equal(getattr(earned, name)[o.send_row], getattr(o, name)), name
    columns = ("event_row", "send_row", "weight")
    mine = sorted(zip(*(getattr(state.credits, c).tolist() for c in columns), strict=True))
    assert mine == sorted(zip(*(getattr(got.credits, c).tolist() for c in columns), strict=True))


@pytest.mark.parametrize(
    ("settings", "exact"),
    [
        ({}, True),
        ({"program.rule.offset_days": 0, "program.rule.repeat": "every", "program.policy.name": "uniform"}, True),
        ({"program.key_metric": "unsubscribe_rate"}, True),
        ({"program.rule.credit": "linear", "program.rule.scope": "org", "program.rule.offset_days": 0}, False),
        ({"program.key_metric": "revenue_per_send"}, False),
        ({"program.feedback": "mature"}, False),
    ],
)
def test_sums_that_are_moved_are_the_sums_of_all_sends(settings: dict[str, Any], exact: bool) -> None:
    few = {"world.signups_per_day": 40, "days": 25, "esp": "generic", "telemetry.duplicate_share": 0.1}
    engine = Engine(with_settings(read("welcome"), few | settings), range(2), False, False)
    moved = 0.0

    def look(k: int) -> None:
        nonlocal moved
        state, now = engine.state, int(engine.times[k])
        want = Summing(engine.machine, state, now, k, TrainingWindow()).of(engine.program.key_metric)
        assert state.moving is not None
        got = state.moving.read(now, k)
        if got is not None:
            assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
            moved = max(moved, float(want[1].sum()))

    engine.run(look)
    assert engine.state.moving is not None
    assert engine.state.moving.exact == exact
    assert (moved > 3) == exact


def stepping(users: int) -> tuple[Machine, State, int]:
    """One template, nobody known yet, and a midnight."""
    start = clock.parse("2026-03-02T00:00:00Z")
    program = Program(templates=[Template(id="t", variants=["control", "a"])])
    log = Log(Sends.empty(), Events.empty(), Decisions.empty(), to_log([], []).codes)
    return Machine.of(program, bound_to(program, log), ["t"], ["a", "control"]), State(1, users, users, start), start


def test_users_whose_rows_touch_are_looked_at_together() -> None:
    """An open that names a send of somebody else, heard before it; two users of one send id."""
    machine, state, t = stepping(9)
    opened = Events.build(1, event=0, user=1, kind=OPEN, occurred_at=t + 20, received_at=t + 30, send=7)

    def sent(user: int, send: int, at: int) -> Sends:
        return Sends.build(1, send=send, user=user, template=0, variant=0, sent_at=at, received_at=at)

    batches = [
        Batch(sent(3, 3, t + 10), opened),
        Batch(sent(2, 7, t + clock.HOUR).with_(sent_at=np.array([t + 15])), Events.empty()),
        Batch(sent(4, 3, t + 2 * clock.HOUR), Events.empty()),
    ]
    for day, batch in enumerate(batches, 1):
        state, _ = step(machine, state, batch, t + day * clock.DAY)
        equal_to_the_batch(machine, state, t + day * clock.DAY)
    assert state.earned.opens.tolist() == [0, 1, 0]
    assert state.earned.counted.tolist() == [True, True, False]


def test_events_of_nobody_do_not_join_the_users_whose_sends_they_name() -> None:
    """Otherwise every event without a user would make one account of all of them, looked at again at every step."""
    n = 50
    machine, state, t = stepping(n)
    sent = t + np.arange(n)
    sends = Sends.build(n, send=np.arange(n), user=np.arange(n), template=0, variant=0, sent_at=sent, received_at=sent)
    events = Events.build(n, event=np.arange(n), user=NONE, kind=OPEN, occurred_at=sent + 5, received_at=sent + 5,
                          send=np.arange(n))  # fmt: skip
    state, _ = step(machine, state, Batch(sends, events), t + clock.DAY)
    assert len(np.unique(state.account)) == n + 1
    assert state.earned.opens.sum() == n
    equal_to_the_batch(machine, state, t + clock.DAY)

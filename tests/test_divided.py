"""A log replayed in parts says, to the bit, what it says in one piece: on 1, 2, 7 and 64 of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import justai_sim as js
from justai_sim.attribution import Rule
from justai_sim.bandit.policy import PolicySpec
from justai_sim.errors import UsageError
from justai_sim.executor import Executor
from justai_sim.loop.divided import Divided, accounts, split
from justai_sim.loop.program import Program, program_of
from justai_sim.loop.replay import attribute_log, last_received, replay_log
from justai_sim.loop.step import Tick
from justai_sim.scenario import read, with_settings
from justai_sim.tables import REASONS, Log
from tests.strategies import cases, to_log

PARTS = (1, 2, 7, 64)


def columns(table: Any) -> dict[str, list[Any]]:
    return {f.name: getattr(table, f.name).tolist() for f in dataclasses.fields(table)}


def plain(ticks: list[Tick]) -> list[Any]:
    """Every number of every tick, as bytes: NaN equals NaN, and -0.0 is not 0.0."""

    def bits(a: Any) -> Any:
        return (a.shape, a.tobytes())

    return [
        (t.index, t.now, bits(t.n), bits(t.y), bits(t.shares), bits(t.live), t.changes,
         [(bits(x.n), bits(x.y), bits(x.y2), {k: bits(v) for k, v in x.more.items()}) for x in t.tallies])
        for t in ticks
    ]  # fmt: skip


def same(program: Program, log: Log, as_of: int) -> None:
    _, whole = attribute_log(program, log, as_of)
    _, _, ticks = replay_log(program, log, as_of)
    order = np.lexsort((whole.credits.send_row, whole.credits.event_row))
    for parts in PARTS:
        divided = Divided(program, log, as_of, None, Executor(), parts, True)
        got = divided.attribution
        assert got.reason.tolist() == whole.reason.tolist(), parts
        assert got.value.tolist() == whole.value.tolist()
        assert columns(got.credits) == columns(whole.credits.take(order))
        assert columns(got.outcomes) == columns(whole.outcomes)
        assert plain(divided.ticks()) == plain(ticks), parts


@settings(max_examples=15)
@given(case=cases())
def test_any_log_under_any_rule(case: Any) -> None:
    """Shared send ids, events that name other users' sends or nobody, copies and refunds without a user included."""
    rule, sends, events, goals, as_of = case
    if not sends:
        return
    log = to_log(sends, events)
    names = sorted({n for of in goals.values() for n in of}) if goals else []
    weighted: dict[str, Any] = {"policy": PolicySpec(name="gamma_poisson"), "feedback": "weighted"}
    even: dict[str, Any] = {"policy": PolicySpec(name="uniform")}
    for settings_ in (even, weighted):
        program = program_of(log, Program(rule=rule, goals=names, **settings_))
        same(program, log, last_received(log) if as_of is None else as_of)


def rows(*users: str, **more: Any) -> list[dict[str, Any]]:
    base = {"template_id": "T", "variant_id": "A", "status": "sent", "status_known_at": None, "delivered_at": None,
            "received_at": None, "sent_at": 10}  # fmt: skip
    return [base | {"send_id": f"S{u}", "user_id": u} | more for u in users]


def event(user: str, **more: Any) -> dict[str, Any]:
    return {"event_id": "", "user_id": user, "kind": "conversion", "occurred_at": 20, "name": "purchase",
            "received_at": None, "value": None, "currency": "", "send_id": "", "order_id": "", "template_id": "",
            "variant_id": "", "machine": -1} | more  # fmt: skip


def test_accounts_join_what_touches() -> None:
    sends = [*rows("a", "b", "c", "d"), *rows("e", send_id="Sd")]
    events = [event("a"), event("b", send_id="Sa"), event("", send_id="Sc", event_id="1"),
              event("", send_id="S?", event_id="2"), event("f"),
              event("", event_id="x"), event("", event_id="x", send_id="Sc"), event("", order_id="o", event_id="3"),
              event("", order_id="o", event_id="4")]  # fmt: skip
    log = to_log(sends, events)
    s, e = (x.tolist() for x in accounts(log.sends, log.events))
    a, b, c, d, of_e = s
    assert a == b == e[0] == e[1], "an event that names another user's send"
    assert d == of_e, "a send id that two users have"
    assert e[2] == c, "an event without a user is the send's"
    assert e[5] == e[6] == c, "perhaps a copy"
    assert e[7] == e[8]
    assert len({a, c, d, e[3], e[4], e[7]}) == 6, "all others stand apart"
    parts = split(log.sends, log.events, 3)
    assert sorted(np.concatenate([x[0] for x in parts]).tolist()) == list(range(5))
    assert sorted(np.concatenate([x[1] for x in parts]).tolist()) == list(range(9))


@pytest.mark.parametrize(
    ("events", "reasons"),
    [
        ([event("b", send_id="Sa", kind="bounce", event_id="1"), event("a", event_id="2")],
         ["status_event", "not_delivered"]),
        ([event("", send_id="Sc")], ["credited"]),
        ([event("d", send_id="Sd")], ["no_send"]),
        ([event("", event_id="x", occurred_at=t) for t in range(20, 25)], ["no_send"] + ["duplicate"] * 4),
        ([event("", order_id="o", value=5, event_id="x"), event("", order_id="o", value=-5, event_id="y")],
         ["no_send", "refund"]),
        ([event("", event_id="x"), *(event(u) for u in "abc"), event("", event_id="x", send_id="S?")],
         ["no_send", "credited", "credited", "credited", "duplicate"]),
    ],
    ids=["named", "nobody", "two users", "copies", "refund", "copy that names"],
)  # fmt: skip
def test_what_touches_is_judged_together(events: list[dict[str, Any]], reasons: list[str]) -> None:
    """Each of these comes out otherwise where its rows lie in different parts."""
    log = to_log([*rows("a", "b", "c", "d"), *rows("e", send_id="Sd", sent_at=5)], events)
    program = program_of(log, Program(rule=Rule(offset_days=0), policy=PolicySpec(name="uniform")))
    _, whole = attribute_log(program, log, 30)
    assert [REASONS[r] for r in whole.reason.tolist()] == reasons
    same(program, log, 30)


@pytest.fixture(scope="module")
def log() -> Log:
    s = with_settings(read("welcome"), {"world.signups_per_day": 25, "days": 24, "telemetry.duplicate_share": 0.1})
    return js.simulate(s).log


@pytest.mark.parametrize(
    "program",
    [
        Program(),
        Program(key_metric="revenue_per_send", policy=PolicySpec(name="normal_thompson"), rule=Rule(credit="linear")),
        Program(policy=PolicySpec(name="exp3"), feedback="mature", rule=Rule(lookback_days=4, offset_days=0)),
        Program(policy=PolicySpec(name="gamma_poisson"), feedback="weighted", rule=Rule(offset_days=0)),
    ],
    ids=["default", "money", "exp3", "weighted"],
)
def test_a_simulated_log(log: Log, program: Program) -> None:
    same(program_of(log, program), log, last_received(log))


def equal(a: Any, b: Any) -> None:
    for name in ("metrics", "credits", "reasons", "shares"):
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True)
    pd.testing.assert_frame_equal(a.windows(), b.windows(), check_exact=True)
    assert a.notes == b.notes


def test_replay_takes_partitions(log: Log) -> None:
    whole = js.replay(log)
    assert len(whole.shares)
    equal(js.replay(log, partitions=7, workers=1), whole)
    with pytest.raises(UsageError, match="expected a whole number from 1 to 4096"):
        js.replay(log, partitions=0, workers=1)


@pytest.mark.slow
def test_replay_on_two_processes(log: Log) -> None:
    equal(js.replay(log, workers=2), js.replay(log))

"""One code path: what the simulator saw is what a replay of its payloads sees, at every refresh."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from justai_sim.bandit.registry import POLICIES, policy
from justai_sim.clock import MISSING
from justai_sim.esp.base import adapter
from justai_sim.esp.coding import build
from justai_sim.esp.rows import DecisionRow, EventRow, Rows, SendRow
from justai_sim.loop.replay import replay_log
from justai_sim.loop.state import State
from justai_sim.loop.step import Tick
from justai_sim.scenario import Scenario, read, with_settings
from justai_sim.sim.engine import Engine
from justai_sim.tables import REASONS, Codes, Log


def scenario(esp: str, **settings: Any) -> Scenario:
    base = {
        "world.signups_per_day": 25,
        "days": 24,
        "esp": esp,
        "telemetry.clean": False,
        "telemetry.duplicate_share": 0.1,
        "world.bounce_rate": 0.05,
    }
    return with_settings(read("welcome"), base | settings)


def seen(state: State, codes: dict[str, Codes]) -> dict[str, Any]:
    """Credits, reasons and outcomes of a state, in texts."""
    s, e, n = state.sends.table, state.events.table, state.sends.n
    c, earned = state.credits, state.earned
    send = codes["send"].text(s.send)
    event = codes["event"].text(e.event)
    rows = zip(c.event_row.tolist(), c.send_row.tolist(), c.weight.tolist(), strict=True)
    outcomes: dict[str, tuple[int, ...]] = {}
    for i in range(n):  # of several rows of one send only the leading one holds its outcome
        values = tuple(int(getattr(earned, name)[i]) for name in ("counted", *earned.NUMBERS))
        outcomes[send[i]] = max(values, outcomes.get(send[i], values))
    return {
        "credits": {(event[i], send[j], w) for i, j, w in rows},
        "reasons": sorted((event[i], REASONS[r]) for i, r in enumerate(state.reason[: state.events.n].tolist())),
        "outcomes": outcomes,
    }


def simulated(s: Scenario) -> tuple[Engine, list[Tick], list[dict[str, Any]]]:
    """A wire-mode world with what production saw at each refresh."""
    engine = Engine(s, range(1), wire=True, keep_journal=True)
    views: list[dict[str, Any]] = []
    engine.run(lambda _k: views.append(seen(engine.state, engine.codes)))
    return engine, engine.ticks, views


def decisions(engine: Engine) -> list[DecisionRow]:
    """The decision log: what the service would have written when it chose."""
    s = engine.state.sends.table
    text = {k: engine.codes[k].text(getattr(s, k)) for k in ("user", "template", "variant", "send")}
    return [
        DecisionRow(d, u, t, v, int(at), float(p))
        for d, u, t, v, at, p in zip(
            text["send"], text["user"], text["template"], text["variant"], s.decided_at, s.propensity, strict=True
        )
    ]


def parsed(engine: Engine, journal: list[tuple[int, bytes]], receipts: bool) -> Log:
    rows = Rows()
    esp = adapter(engine.scenario.esp)
    for serial, (received, body) in enumerate(journal):
        esp.parse(body, rows, f"payload {serial}", received if receipts else MISSING)
    assert not rows.rejects
    if not receipts:
        rows.sends = [SendRow(*r)._replace(received_at=MISSING) for r in rows.sends]
        rows.events = [EventRow(*r)._replace(received_at=MISSING) for r in rows.events]
    rows.decisions = decisions(engine)
    return build([rows])


@pytest.mark.parametrize("esp", ["braze", "segment", "customerio", "iterable", "sfmc"])
@pytest.mark.parametrize("feedback", ["all", "mature"])
def test_replay_of_the_journal_equals_the_simulation_at_every_tick(esp: str, feedback: str) -> None:
    s = scenario(esp, **{"program.feedback": feedback, "program.rule.offset_days": 0, "program.rule.lookback_days": 4})
    engine, ticks, views = simulated(s)
    assert len(engine.state.credits) > 300
    log = parsed(engine, engine.wire.journal[0], receipts=True)  # type: ignore[union-attr]
    replayed: list[dict[str, Any]] = []
    states: list[State] = []
    program = s.full_program()

    # replay_log owns its state; look at it through the ticks it reports
    from justai_sim.loop import replay as module

    original = module.step

    def watched(machine: Any, state: State, batch: Any, now: int) -> Any:
        state, tick = original(machine, state, batch, now)
        replayed.append(seen(state, log.codes))
        states.append(state)
        return state, tick

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "step", watched)
        _, _, again = replay_log(program, log, int(ticks[-1].now), start=s.start_us)
    assert [t.now for t in again] == [t.now for t in ticks]
    for a, b in zip(ticks, again, strict=True):
        assert np.array_equal(a.n, b.n)
        assert np.array_equal(a.y, b.y)
        assert np.array_equal(a.shares, b.shares)
        for x, y in zip(a.tallies, b.tallies, strict=True):
            assert np.array_equal(x.n, y.n)
            assert np.array_equal(x.y2, y.y2)
    assert replayed == views


@pytest.mark.parametrize("esp", ["braze", "segment", "customerio", "iterable", "sfmc"])
def test_without_the_journal_and_in_any_order_the_end_is_the_same(esp: str) -> None:
    s = scenario(esp)
    engine, ticks, views = simulated(s)
    journal = list(engine.wire.journal[0])  # type: ignore[union-attr]
    random.Random(1).shuffle(journal)
    log = parsed(engine, journal + journal[:50], receipts=False)
    _, state, again = replay_log(s.full_program(), log, int(ticks[-1].now), start=s.start_us)
    end = seen(state, log.codes)
    # The copies that were added here are copies, nothing else changes.
    assert end["outcomes"] == views[-1]["outcomes"]
    assert np.array_equal(again[-1].shares, ticks[-1].shares)
    assert {(e, snd) for e, snd, _ in end["credits"]} == {(e, snd) for e, snd, _ in views[-1]["credits"]}


@pytest.mark.parametrize("esp", ["braze", "segment", "customerio", "iterable", "sfmc", "generic"])
def test_wire_and_columnar_are_equal(esp: str) -> None:
    s = scenario(esp)
    wire, plain = Engine(s, range(1), True, False), Engine(s, range(1), False, False)
    a, b = wire.run(), plain.run()
    assert seen(a.state, a.codes) == seen(b.state, b.codes)
    for x, y in zip(a.ticks, b.ticks, strict=True):
        assert np.array_equal(x.shares, y.shares)


def test_batch_door_equals_the_steps() -> None:
    """The state at the end of the steps is what one attribution of all rows says."""
    from justai_sim.attribution import attribute

    s = scenario("generic")
    block = Engine(s, range(2), False, False).run()
    state = block.state
    got = attribute(block.machine.bound, state.sends.table, state.events.table, int(block.ticks[-1].now))
    assert np.array_equal(got.reason, state.reason[: state.events.n])
    assert np.array_equal(got.outcomes.numerator, state.earned.numerator[got.outcomes.send_row])
    assert np.array_equal(got.outcomes.revenue, state.earned.revenue[got.outcomes.send_row])
    mine = np.stack([got.credits.event_row, got.credits.send_row, got.credits.weight])
    theirs = np.stack([state.credits.event_row, state.credits.send_row, state.credits.weight])
    assert np.array_equal(np.unique(mine, axis=1), np.unique(theirs, axis=1))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_sets_the_same_shares_in_simulation_and_replay(name: str) -> None:
    """From the decisions and the journal: at every refresh, to the rounding of a sum."""
    chosen = policy(name)
    metric = "conversion_rate" if "conversion_rate" in chosen.metrics else "revenue_per_send"
    settings: dict[str, Any] = {"program.policy.name": name, "program.key_metric": metric}
    if name == "fixed":
        settings["program.policy.shares"] = {"story": 3.0, "discount": 1.0}
    if name == "explore_then_commit":
        settings["program.policy.explore_sends"] = 40.0
    if name == "gamma_poisson":
        settings["program.feedback"] = "weighted"
    short = {"program.rule.offset_days": 0, "program.rule.lookback_days": 4, "days": 16}
    engine, ticks, _ = simulated(scenario("segment", **short, **settings))
    assert engine.wire is not None
    log = parsed(engine, engine.wire.journal[0], receipts=True)
    _, _, again = replay_log(engine.scenario.full_program(), log, ticks[-1].now, engine.scenario.start_us)
    moved = 0.0
    for a, b in zip(ticks, again, strict=True):
        np.testing.assert_allclose(b.shares, a.shares, rtol=0, atol=1e-9)
        moved = max(moved, float(np.abs(a.shares - ticks[0].shares).max()))
    assert (moved > 0) == (name not in ("uniform", "fixed"))


@pytest.mark.parametrize("rule", ["significance", "expected_loss"])
def test_shipping_is_the_same_in_simulation_and_replay_and_is_never_taken_back(rule: str) -> None:
    given = {"min_sends": 60.0} if rule == "significance" else {"min_days": 5.0, "threshold": 0.4}
    settings: dict[str, Any] = {
        "program.shipping": {"rule": rule, "settings": given},
        "program.rule.offset_days": 0, "program.rule.lookback_days": 4, "program.control_share": 0.3,
        "world.signups_per_day": 120,
    }  # fmt: skip
    engine, ticks, _ = simulated(scenario("segment", **settings))
    assert engine.wire is not None
    log = parsed(engine, engine.wire.journal[0], receipts=True)
    _, _, again = replay_log(engine.scenario.full_program(), log, ticks[-1].now, engine.scenario.start_us)
    assert [t.changes for t in again] == [t.changes for t in ticks]
    for a, b in zip(ticks, again, strict=True):
        np.testing.assert_array_equal(b.shares, a.shares)
    changes = [c for t in ticks for c in t.changes]
    assert changes
    assert len({(c.template, c.arm, c.what) for c in changes}) == len(changes)
    for c in changes:
        later = [t.shares[c.template, c.rep, 0] for t in ticks if t.now >= c.now]
        assert all(s[c.arm] == (1 if c.what == "ship" else 0) for s in later)


def test_exposure_counts_only_what_it_has_exposed() -> None:
    """With feedback "weighted" a response within the maturity allowance waits for the exposure of its send."""
    settings: dict[str, Any] = {
        "program.policy.name": "gamma_poisson", "program.feedback": "weighted", "program.rule.offset_days": 0,
        "program.rule.lookback_days": 4, "world.signups_per_day": 200,
    }  # fmt: skip
    _, ticks, _ = simulated(scenario("segment", **settings))
    seen = 0
    for t in ticks:
        for counts in t.tallies:
            n, y = counts.n.sum(3), counts.y.sum(3)
            assert (y[n == 0] == 0).all()
            rate = y[n > 20] / n[n > 20]
            seen += len(rate)
            assert (rate < 0.5).all()
    assert seen > 50

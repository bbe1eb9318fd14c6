"""The bias identity: exact in integers on any log under any rule, and equal to a second, slow reading, term by term."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise, product
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import justai_sim as js
from justai_sim.api import Run
from justai_sim.attribution import Rule, bind
from justai_sim.attribution.attribute import attribute
from justai_sim.biases.identity import Identity, identity
from justai_sim.biases.match import HELD
from justai_sim.biases.terms import (
    ADDED,
    ASTRAY,
    AWAY,
    IDENTITIES,
    KNOWN,
    LATE,
    LEADS,
    LOST,
    MEANING,
    MISSED,
    NO_GOAL,
    NO_ROW,
    TERMS,
    missed_table,
    missed_term,
)
from justai_sim.cli import run as command
from justai_sim.clock import DAY, HOUR, MISSING
from justai_sim.errors import UsageError
from justai_sim.estimate.metrics import metrics_table
from justai_sim.pages.bias import of_sweep
from justai_sim.scenario import Scenario, parse, with_settings
from justai_sim.sim.engine import Block, simulate_block
from justai_sim.tables import MICRO, NONE, PARTS, REASON, REASONS, Events, Log, Sends
from justai_sim.testing.rows import event_row, send_row
from justai_sim.truth import Behind, Truth, Unheard
from tests.bias_oracle import Slow, World
from tests.strategies import cases, rules, to_log

UNKNOWN = "nobody knows"
START = 1_772_668_800_000_000


# -- worlds made at random: the rows of `tests.strategies`, with truth and losses laid over them ---


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rule, sends, events, goals, as_of = draw(cases())
    cap = draw(st.sampled_from([{}, {}, {"cap": 15.0}, {"cap_quantile": 0.5}]))
    rule = msgspec.structs.replace(rule, **cap)
    dice = Random(draw(st.integers(0, 2**32)))
    events = events + [  # the same told again, under another id
        e | {"event_id": f"d{_number(e)}", "order_id": ""}
        for e in events
        if e["kind"] == "conversion" and e["event_id"][0] == "e" and dice.random() < 0.3
    ]
    gone = {r["send_id"] for r in sends if dice.random() < 0.12}
    under_way = [e["kind"] == "conversion" and dice.random() < 0.15 for e in events]
    if as_of is None:
        received = [r["received_at"] or r.get("sent_at", r.get("occurred_at")) for r in (*sends, *events)]
        as_of = max(received, default=0) + dice.choice([1, DAY])
    truth = _truth(dice, sends, events, as_of)
    known = [t["event"] for t in truth]
    origin = [_origin(dice, e, known) for e in events]
    kept = [i for i in range(len(events)) if not under_way[i]]
    way = [i for i in range(len(events)) if under_way[i]]
    lost = dice.random() < 0.3  # then they are not under way either
    return World(
        rule, [r for r in sends if r["send_id"] not in gone], [events[i] for i in kept], [origin[i] for i in kept],
        goals, as_of, truth, [r for r in sends if r["send_id"] in gone],
        [] if lost else [events[i] for i in way], [] if lost else [origin[i] for i in way],
    )  # fmt: skip


def _truth(dice: Random, sends: list[Any], events: list[Any], as_of: int) -> list[Any]:
    """A true event for most conversion rows, and a few of which no row tells."""
    out: dict[int, Any] = {}
    for e in [e for e in events if e["kind"] == "conversion"]:
        number = _number(e)
        if number in out or dice.random() < 0.1:
            continue
        mine = [s["send_id"] for s in sends if s["user_id"] == e["user_id"]]
        cause = dice.choice([*(mine or [""]) * 3, *(s["send_id"] for s in sends), "", "", UNKNOWN])
        value = dice.choice([e["value"], e["value"], e["value"], 7_000_001, None])
        at = e["occurred_at"] + dice.choice([0, 0, 0, HOUR, -HOUR, DAY])
        out[number] = {"event": number, "cause": cause, "occurred_at": at, "value": value}
        if dice.random() < 0.2:
            lost = dict(out[number], event=100 + number, occurred_at=dice.choice([at, as_of, as_of - 1]))
            out[100 + number] = lost
    return list(out.values())


def _number(e: Any) -> int:
    """Copies of a row (d3, e3) tell of one event; refunds (r3a, r3b) of one each."""
    digits = int("".join(c for c in e["event_id"] if c.isdigit()))
    return digits if e["event_id"][0] in "ed" else 200 + 2 * digits + (e["event_id"][-1] == "b")


def _origin(dice: Random, e: Any, known: list[int]) -> int | None:
    """Nearly always the event itself; or nothing, or another event, as where an id is used twice."""
    own = _number(e)
    return dice.choice([*[own] * 16, None, *(dice.sample(known, 1) if known else [])])


def tables(w: World) -> tuple[Log, Any, Behind]:
    """The world as coded tables, the rule bound to them, and what is behind them."""
    log = to_log(w.sends + w.unheard_sends, w.events + w.unheard_events)
    n, m = len(w.sends), len(w.events)
    bound = bind(
        w.rule, templates=log.names("template"), names=log.names("name"), currencies=log.names("currency"),
        goals=w.goals,
    )  # fmt: skip
    send: dict[str, int] = {t: i for i, t in enumerate(log.names("send"))} | {"": NONE, UNKNOWN: len(log.names("send"))}

    def codes(origin: list[int | None]) -> Any:
        return np.array([NONE if o is None else o for o in origin], np.int64)

    truth = Truth.build(
        len(w.truth), event=[t["event"] for t in w.truth], cause=[send[t["cause"]] for t in w.truth],
        occurred_at=[t["occurred_at"] for t in w.truth],
        value=[MISSING if t["value"] is None else t["value"] for t in w.truth],
    )  # fmt: skip
    unheard = Unheard(log.sends.take(slice(n, None)), log.events.take(slice(m, None)), codes(w.unheard_origin))
    heard = Log(log.sends.take(slice(0, n)), log.events.take(slice(0, m)), log.decisions, log.codes)
    return heard, bound, Behind(truth, codes(w.origin), unheard)


def terms_of(found: Identity, which: str = "events") -> dict[str, int]:
    """The terms over all groups, held-out users and all."""
    return dict(zip(TERMS, found.amount[which].sum(axis=0).tolist(), strict=True))


def read(log: Log, found: Identity) -> dict[str, dict[tuple[str, str], dict[str, int]]]:
    """Amounts that are not zero, by identity, group and term."""
    template, variant = log.text("template", found.template), log.text("variant", found.variant)
    variant = ["held_out" if c == HELD else v for c, v in zip(found.variant.tolist(), variant, strict=True)]
    out: Any = {k: {} for k in IDENTITIES}
    for k, amount in found.amount.items():
        for group, row in zip(zip(template, variant, strict=True), amount.tolist(), strict=True):
            out[k][group] = {t: x for t, x in zip(TERMS, row, strict=True) if x}
    return out


def holds(found: Identity) -> None:
    """Each group's terms add up to what is shown, and an identity has no other terms than its own."""
    for name, amount in found.amount.items():
        assert amount.dtype == np.int64
        assert np.array_equal(amount[:, :-1].sum(axis=1), amount[:, -1]), name
        assert not amount[:, [i for i, t in enumerate(TERMS) if t not in IDENTITIES[name]]].any()


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_the_identity_holds_and_a_slow_reading_finds_the_same_terms(w: World) -> None:
    log, bound, behind = tables(w)
    found = identity(bound, log.sends, log.events, behind, w.as_of)
    holds(found)
    slow = Slow(w).terms()
    fast = read(log, found)
    for name in IDENTITIES:
        plain = {g: {t: x for t, x in row.items() if x} for g, row in slow[name].items()}
        assert {g: r for g, r in fast[name].items() if r} == {g: r for g, r in plain.items() if r}, name


@settings(max_examples=50, deadline=None)
@given(worlds())
def test_shown_is_what_the_results_table_shows(w: World) -> None:
    log, bound, behind = tables(w)
    shown = read(log, identity(bound, log.sends, log.events, behind, w.as_of))
    got = attribute(bound, log.sends, log.events, w.as_of)
    for row in metrics_table(log, bound, got)[:-1]:
        group = row["template_id"], row["variant_id"]
        for name, column, unit in (
            ("events", "conversion_count", PARTS), ("sends", "conversions", PARTS), ("revenue", "revenue", MICRO),
        ):  # fmt: skip
            ours = shown[name][group].get("shown", 0) / unit
            assert ours == pytest.approx(row[column], abs=1e-5 if name == "revenue" else 1e-8), (group, name)


# -- worlds of the simulator -----------------------------------------------------------------------------

FLOW = """
name = "tiny"
days = 24
replications = 2
esp = "generic"
[program]
goals = ["purchase"]
[program.policy]
name = "uniform"
[telemetry]
webhook_delay_minutes = 600
duplicate_share = 0.2
[world]
signups_per_day = 2
organic_per_user_day = 0.04
bounce_rate = 0.1
suppressed_rate = 0.05
delay = { law = "exponential", mean_days = 3.0 }
[[variants]]
id = "control"
conversion_rate = 0.3
[[variants]]
id = "b"
conversion_rate = 0.5
unsubscribe_rate = 0.1
[[flow]]
id = "T1"
day = 0
[[flow]]
id = "T2"
day = 2
[[flow]]
id = "T3"
day = 5
"""


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Any rule over any mixture of faults, refunds and held-out users."""
    shares = (
        "machine_open_share", "lost_share", "late_share", "duplicate_share", "recoded_share", "reused_id_share",
        "wrong_name_share", "missing_user_share", "zone_error_share",
    )  # fmt: skip
    telemetry = {f"telemetry.{k}": draw(st.sampled_from((0.0, 0.3))) for k in shares} | {
        "telemetry.clean": draw(st.sampled_from((False, False, False, True))),
        "telemetry.test_purchases_per_user_day": draw(st.sampled_from((0.0, 0.02))),
        "telemetry.late_hours": draw(st.sampled_from((12, 200))),
        "telemetry.clock_skew_seconds": draw(st.sampled_from((0, 40_000))),
        "telemetry.outages": draw(st.sampled_from(([], [{"day": 6, "hours": 30}]))),
    }
    more = {
        "program.holdout_share": draw(st.sampled_from((0.0, 0.2))),
        "world.refund_rate": draw(st.sampled_from((0.0, 0.4))),
        "world.repeat_rate": draw(st.sampled_from((0.0, 0.3))),
        "world.replaces_organic": draw(st.sampled_from((0.0, 0.5))),
        "seed": draw(st.integers(1, 1000)),
    }
    s = with_settings(parse(FLOW, "tiny"), telemetry | more)
    return msgspec.structs.replace(s, program=msgspec.structs.replace(s.program, rule=draw(rules())))


def identity_of(block: Block) -> Identity:
    state = block.state
    behind = Behind(block.truth, block.origin, block.unheard)
    return identity(block.machine.bound, state.sends.table, state.events.table, behind, block.ticks[-1].now, 0)


def plain_world(block: Block, rep: int) -> World:
    """One world of a block as plain rows."""

    def rows(table: Any) -> list[Any]:
        t = table.take(table.rep == rep)
        out = []
        for i in range(len(t)):
            row = {}
            for c in t.SCHEMA:
                if c.name in ("rep", "decided_at", "propensity", "segment"):
                    continue
                x = int(getattr(t, c.name)[i])
                if c.codes:
                    row[c.public] = block.codes[c.codes].text(np.array([x]))[0]
                elif isinstance(c.text, tuple):
                    row[c.public] = c.text[x]
                else:
                    row[c.public] = None if c.missing is not None and x == c.missing and c.name != "machine" else x
            out.append(row)
        return out

    def origins(table: Any, origin: Any) -> list[int | None]:
        return [None if o < 0 else int(o) for o in origin[table.rep == rep]]

    s, u, t = block.state, block.unheard, block.truth.take(block.truth.rep == rep)
    causes = block.codes["send"].text(t.cause)
    truth = [
        {"event": int(e), "cause": c, "occurred_at": int(at), "value": None if v == MISSING else int(v)}
        for e, c, at, v in zip(t.event, causes, t.occurred_at, t.value, strict=True)
    ]
    goals = {step.id: {"purchase"} for step in block.scenario.flow}
    return World(
        block.program.rule, rows(s.sends.table), rows(s.events.table),
        origins(s.events.table, block.origin), goals, block.ticks[-1].now, truth, rows(u.sends),
        rows(u.events), origins(u.events, u.origin),
    )  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(scenarios())
def test_the_identity_holds_in_simulated_worlds(scenario: Scenario) -> None:
    block = simulate_block(scenario, range(2))
    found = identity_of(block)
    holds(found)
    e, sends, n = block.state.earned, block.state.sends.table, block.state.sends.n
    for rep in (0, 1):
        here = found.rep == rep
        shown = found.amount["sends"][here, -1].sum()
        assert shown == e.numerator[:n][(sends.rep == rep) & e.counted[:n]].sum(), "what production found"
        one = Identity(*(getattr(found, c)[here] for c in ("rep", "template", "variant")),
                       {k: a[here] for k, a in found.amount.items()})  # fmt: skip
        fast, slow = read(block.log(rep), one), Slow(plain_world(block, rep)).terms()
        for name in IDENTITIES:
            plain = {g: {t: x for t, x in r.items() if x} for g, r in slow[name].items()}
            assert {g: r for g, r in fast[name].items() if r} == {g: r for g, r in plain.items() if r}, name


# -- the total function ----------------------------------------------------------------------------------


def test_every_reason_and_every_fact_has_one_term() -> None:
    """Said once more as the ordered list of the identity: the first line that applies."""
    r = {**REASON, "no_row": NO_ROW}
    seen = set()
    for reason, send, way, verdict in product(range(NO_ROW + 1), range(4), range(3), range(NO_ROW)):
        judged = reason >= r["credited"] and reason != NO_ROW  # its row got as far as the window
        told = {k: reason == i for k, i in r.items()}
        other = any(told[k] for k in ("refund", "refund_without_order", "status_event", "unknown_send"))
        applies = {
            "lost": told["no_row"] or send == LOST,
            "not_yet_known": told["not_yet_known"] or send == AWAY,
            "heard_too_late": told["too_late"] or send == LATE,
            "wrong_event": told["wrong_event"] or way == NO_GOAL or other or told["outside_engagement_window"],
            "machine": told["machine"],
            "currency": told["currency"],
            "identity": told["duplicate"] or way == ASTRAY or verdict == r["no_send"] or verdict < r["credited"],
            "not_delivered": verdict in (r["not_delivered"], r["no_anchor"]),
            "too_early": verdict in (r["in_offset"], r["before_send"]),
            "too_late": verdict == r["past_lookback"],
            "elsewhere": verdict == r["credited"],
        }
        assert tuple(applies) == MISSED
        term = missed_term(reason, send, way, verdict)
        assert term == next(t for t, yes in applies.items() if yes), (reason, send, way, verdict)
        assert TERMS[missed_table()[reason, send, way, verdict]] == term
        if judged and send == KNOWN and way == LEADS:
            seen.add(term)
    assert seen == {"not_delivered", "too_early", "too_late", "elsewhere", "identity"}
    assert list(MEANING) == list(TERMS)
    page = (Path(__file__).parents[1] / "docs" / "simulator.md").read_text()
    assert all(f"| `{term}` | {said} |" in page for term, said in MEANING.items())
    assert len(REASONS) == NO_ROW


# -- elsewhere and borrowed ------------------------------------------------------------------------------


def flood(rng: np.random.Generator, templates: int, users: int = 300) -> tuple[Sends, Events, Behind]:
    """Users with six sends within ten days, each of which causes a conversion within two days of the last."""
    n = users * 6
    user, t = np.repeat(np.arange(users), 6), np.tile(np.arange(6), users) % templates
    at = START + rng.integers(0, 10 * DAY, n)
    sends = Sends.build(n, send=np.arange(n), user=user, template=t, variant=rng.integers(0, 2, n), sent_at=at,
                        received_at=at)  # fmt: skip
    when = START + 10 * DAY + rng.integers(0, 2 * DAY, n)
    events = Events.build(n, event=np.arange(n), user=user, kind=0, name=0, occurred_at=when, received_at=when, value=7)
    truth = Truth.build(n, event=np.arange(n), cause=np.arange(n), occurred_at=when, value=7)
    return sends, events, Behind(truth, np.arange(n), Unheard(Sends.empty(), Events.empty(), np.zeros(0, np.int64)))


def flooded(rule: Rule, templates: int = 2) -> dict[str, int]:
    sends, events, behind = flood(np.random.default_rng(5), templates)
    bound = bind(rule, templates=[f"T{i}" for i in range(templates)], names=["purchase"])
    found = identity(bound, sends, events, behind, START + 30 * DAY)
    holds(found)
    return terms_of(found)


def test_elsewhere_balances_borrowed_for_single_credit_over_all_templates_only() -> None:
    for credit in ("last_qualifying", "first_qualifying", "linear", "time_decay", "position"):
        wide: Any = {"offset_days": 0, "lookback_days": 14, "credit": credit}
        single = flooded(Rule(scope="org", **wide))
        assert single["borrowed"] == -single["elsewhere"] > 0
        each = flooded(Rule(scope="template", **wide))
        assert each["borrowed"] > -each["elsewhere"], "credited once in each template"
    whole = flooded(Rule(scope="org", offset_days=0, credit="all"))
    assert whole["elsewhere"] == 0 < whole["borrowed"]
    # Where its own send does not qualify, the term says why, and others may still have the credit.
    tight = flooded(Rule(scope="org", offset_days=3, lookback_days=8))
    assert tight["borrowed"] > -tight["elsewhere"]
    nobody = tight["caused"] - tight["shown"]
    assert nobody > 0
    assert tight["borrowed"] + nobody == -sum(tight[t] for t in MISSED)


# -- single cases ----------------------------------------------------------------------------------------


def one_event(rule: Rule | None = None, sends: list[Any] | None = None, goals: Any = None, **event: Any) -> str:
    """The term of a conversion that S1 (T1, A, u1, day 0) caused, and whose row is as given."""
    sends = [send_row("S1", "u1", "A", START)] if sends is None else sends
    row = event_row("e1", "u1", START + 5 * DAY) | event
    truth = [{"event": 1, "cause": "S1", "occurred_at": START + 5 * DAY, "value": None}]
    w = World(rule or Rule(), sends, [row], [1], goals, START + 40 * DAY, truth, [], [], [])
    log, bound, behind = tables(w)
    found = identity(bound, log.sends, log.events, behind, w.as_of)
    holds(found)
    missing = [t for t, x in terms_of(found).items() if x and t in MISSED]
    return missing[0] if missing else "own"


def test_single_cases() -> None:
    two = [send_row("S1", "u1", "A", START), send_row("S2", "u1", "B", START + DAY)]
    assert one_event() == "own"
    assert one_event(sends=two) == "elsewhere"
    assert one_event(Rule(offset_days=4.5), two) == "own", "a later send is still in its offset"
    early = [send_row("S1", "u1", "A", START), send_row("S0", "u1", "B", START - 5 * DAY)]
    assert one_event(Rule(offset_days=6), early) == "too_early", "an earlier send has the credit"
    assert one_event(Rule(lookback_days=4.5), two) == "too_late", "a later send has the credit"
    assert one_event(Rule(credit="last_then_check", offset_days=4.5), two) == "elsewhere", "nobody has the credit"
    assert one_event(user_id="") == "identity"
    assert one_event(user_id="u2") == "identity"
    assert one_event(user_id="", send_id="S1") == "own"
    assert one_event(sends=two, send_id="S2") == "identity"
    assert one_event(sends=two, variant_id="B") == "identity"
    assert one_event(Rule(explicit="trust"), two, send_id="S1") == "own"
    assert one_event(received_at=START + 20 * DAY) == "heard_too_late"
    assert one_event(machine=1) == "machine"
    assert one_event(currency="EUR") == "currency"
    assert one_event(Rule(anchor="delivered")) == "not_delivered"
    assert one_event(sends=[send_row("S1", "u1", "A", START, status="bounced")]) == "not_delivered"
    assert one_event(value=-5) == "wrong_event", "a purchase that is told as a refund"
    named: Any = {"occurred_at": START + 2 * DAY, "received_at": START + 2 * DAY}
    assert one_event(send_id="S1", variant_id="B", **named) == "too_early", "the id goes before partial ids"
    two[1]["template_id"] = "T2"
    goals = {"T1": {"purchase"}, "T2": {"signup"}}
    assert one_event(sends=two, goals=goals, send_id="S2", **named) == "too_early", "S2 has another goal"
    assert one_event(sends=two, goals=goals, send_id="S2", name="signup") == "wrong_event"


def totals(w: World, which: str) -> dict[str, int]:
    log, bound, behind = tables(w)
    found = identity(bound, log.sends, log.events, behind, w.as_of)
    holds(found)
    return {t: x for t, x in terms_of(found, which).items() if x}


def test_of_several_credited_rows_the_one_on_the_cause_stands_for_the_event() -> None:
    sends = [send_row("S1", "u1", "A", START), send_row("S2", "u1", "B", START + 6 * DAY)]
    late = START + 12 * DAY
    rows = [event_row("e1", "u1", START + 10 * DAY), event_row("e2", "u1", START + 7 * DAY, received_at=late)]  # S2, S1
    truth = [{"event": 1, "cause": "S1", "occurred_at": START + 7 * DAY, "value": None}]
    w = World(Rule(), sends, rows, [1, 1], None, START + 40 * DAY, truth, [], [], [])
    assert totals(w, "events") == {"caused": PARTS, "borrowed": PARTS, "shown": 2 * PARTS}
    rows[0] = event_row("e1", "u1", START + 8 * DAY)
    extra = totals(dataclasses.replace(w, events=rows), "events")
    assert extra == {"caused": PARTS, "extra_copies": PARTS, "shown": 2 * PARTS}


def test_a_quantile_cap_is_of_settled_sends() -> None:
    sends = [send_row("S1", "u1", "A", START), send_row("S2", "u2", "A", START + 20 * DAY)]
    rows = [event_row(f"e{i}", f"u{i}", START + (20 * i - 15) * DAY, value=i * 10 * MICRO) for i in (1, 2)]
    truth = [
        {"event": i, "cause": f"S{i}", "occurred_at": r["occurred_at"], "value": r["value"]}
        for i, r in enumerate(rows, 1)
    ]
    w = World(Rule(cap_quantile=1.0), sends, rows, [1, 2], None, START + 26 * DAY, truth, [], [], [])
    assert totals(w, "revenue") == {"caused": 30 * MICRO, "caps_and_rounding": -10 * MICRO, "shown": 20 * MICRO}


def test_worlds_of_a_block_do_not_touch_one_another() -> None:
    sends, events, behind = flood(np.random.default_rng(6), 2, users=40)
    truth = behind.truth
    other = events.with_(occurred_at=events.occurred_at - DAY)
    rule = Rule(offset_days=0, lookback_days=8)
    bound = bind(rule, templates=["T0", "T1"], names=["purchase"])

    def as_rep(table: Any, rep: int) -> Any:
        return table.with_(rep=np.full(len(table), rep, np.int32))

    both = identity(
        bound, Sends.concat([as_rep(sends, 0), as_rep(sends, 1)]), Events.concat([as_rep(events, 0), as_rep(other, 1)]),
        Behind(Truth.concat([as_rep(truth, 0), as_rep(truth, 1)]), np.tile(behind.origin, 2), behind.unheard),
        START + 30 * DAY,
    )  # fmt: skip
    for rep, table in enumerate((events, other)):
        alone = identity(bound, sends, table, behind, START + 30 * DAY)
        for name in IDENTITIES:
            assert np.array_equal(both.amount[name][both.rep == rep], alone.amount[name])


# -- the doors ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> Run:
    s = with_settings(parse(FLOW, "tiny"), {"world.signups_per_day": 10})
    return js.simulate(s)


def test_bias_of_a_run_adds_up_and_is_what_replay_shows(run: Run) -> None:
    got = js.bias(run)
    assert list(got.table.columns) == ["template_id", "variant_id", "identity", "term", "value"]
    for (_, _, name), rows in got.table.groupby(["template_id", "variant_id", "identity"]):
        assert tuple(rows["term"]) == IDENTITIES[name]
        assert rows["value"].iloc[:-1].sum() == pytest.approx(rows["value"].iloc[-1], abs=1e-6)
    shown = run.replay().metrics.set_index(["template_id", "variant_id"])
    wide = got.wide("sends").set_index(["template_id", "variant_id"])
    for key in [k for k in wide.index if "ALL" not in k]:
        assert wide.loc[key, "shown"] == pytest.approx(shown.loc[key, "conversions"])
    end = pd.Timestamp(run.scenario.end_us * 1000, tz="UTC")
    caused = (run.truth["cause_send_id"] != "") & (run.truth["occurred_at"] < end)
    every = got.wide("events").set_index(["template_id", "variant_id"])
    assert every.loc[("ALL", "ALL"), "caused"] == caused.sum()
    assert "SIMULATED" in got._repr_html_()
    assert set(got.meaning) >= set(got.table["term"])


def test_bias_under_another_rule(run: Run) -> None:
    open_ = js.bias(run, offset_days=0, lookback_days=365, scope="org", repeat="every").wide("events").iloc[-1]
    assert "too_early" not in open_.index
    assert js.bias(run).wide("events").iloc[-1]["too_early"] < 0
    with pytest.raises(UsageError, match="did you mean 'offset_days'"):
        js.bias(run, offset_day=0)
    with pytest.raises(UsageError, match="only a simulator knows"):
        js.bias(run.log)  # type: ignore[arg-type]


def test_the_waterfall_starts_at_the_truth_and_ends_at_what_is_shown(run: Run) -> None:
    table = js.bias(run).table
    for name, variant, template in (("sends", None, None), ("events", "b", None), ("revenue", "b", "T2")):
        ax = js.plot_bias(table, identity=name, variant=variant, template=template).child_axes[0]
        here = table[(table["identity"] == name) & (table["template_id"] == (template or "ALL"))]
        here = here[here["variant_id"] == (variant or "ALL")].set_index("term")["value"]
        drawn = [t for t in IDENTITIES[name] if t in ("caused", "shown") or abs(here[t]) > 1e-9]
        bars = list(ax.patches)
        assert len(bars) == len(drawn) == len(ax.get_yticklabels())
        assert [p.get_width() for p in bars] == pytest.approx([here[t] for t in drawn])
        assert bars[0].get_x() == bars[-1].get_x() == 0
        for one, two in pairwise(bars[:-1]):
            assert two.get_x() == pytest.approx(one.get_x() + one.get_width())
        assert ax.get_xlabel()
    with pytest.raises(UsageError, match="did you mean 'control'"):
        js.plot_bias(table, variant="contrl")
    with pytest.raises(UsageError, match="identity"):
        js.plot_bias(table, identity="send")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(FLOW)
    assert command(["bias", str(path), "--json", "--variant", "b", "--out", str(tmp_path / "out")]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["schema_version"] == 1
    assert got["simulated"]
    assert {r["variant_id"] for r in got["terms"]} == {"b"}
    assert all(Path(f).exists() for f in got["files"])
    assert command(["bias", str(path), "--set", "offset_days=0"]) == 0
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines()]
    assert lines[0] == ["term", "b", "control", "ALL"]
    assert (lines[1][0], lines[-1][0]) == ("caused", "shown")
    columns = np.array([[float(x.replace(",", "")) for x in line[1:]] for line in lines[1:]])
    assert np.array_equal(columns[:-1].sum(axis=0), columns[-1])
    assert "SIMULATED" in told.err
    for wrong in (["--identity", "send"], ["--variant", "c"], ["--template", "T9"], ["--set", "x=1"], ["--rep", "-1"]):
        assert command(["bias", str(path), *wrong]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_a_sweep_keeps_the_terms(tmp_path: Path) -> None:
    swept = js.sweep(parse(FLOW, "tiny"), tmp_path, workers=1)
    data = swept.data
    page = js.report(swept, tmp_path)
    assert "From the sends that caused a conversion" in page.read_text()
    assert (tmp_path / "bias.png").exists()
    m = data.metrics.pivot_table(index=["rep", "template_id", "variant_id"], columns="metric", values="value")
    gained = m[[f"credited_{t}" for t in ADDED]].sum(axis=1)
    lost = m[[f"missed_{t}" for t in MISSED]].sum(axis=1)
    assert np.allclose(m["caused"] + gained - lost - m["uncounted"], m["conversion_count"])
    assert np.allclose(m["conversion_count"] - m["capped"], m["conversions"])
    assert np.allclose(m["credited_own"], m["caused"] - lost)
    assert (m["caused"] >= m["caused_sends"]).all()
    terms = of_sweep(data)
    drawn = terms[terms["term"] == "shown"]["value"].sum()
    assert drawn == pytest.approx(m["conversions"].sum() / 2)
    sums = terms.groupby("term")["value"].sum()
    assert sums.drop("shown").sum() == pytest.approx(sums["shown"])
    old = dataclasses.replace(data, metrics=data.metrics[~data.metrics["metric"].str.startswith("caused")])
    assert not len(of_sweep(old))

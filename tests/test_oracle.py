"""The oracle against the worked examples, a few rules that they leave out, and its own invariants."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.attribution.rule import Rule
from justai_sim.tables import KINDS, PARTS, REASONS, STATUSES
from tests.oracle import Brute, brute
from tests.strategies import cases, to_log
from tests.worked_examples import DAY, EXAMPLES, HOUR, MICRO, MINUTE, S1, T0, TWO, Example, event, send

GOALS = {"T": {"purchase"}, "T2": {"purchase"}}


def run(sends: list[Any], events: list[Any], as_of: int | None = None, **settings: Any) -> Brute:
    return brute(Rule(**settings), sends, events, GOALS, as_of)


def weights(b: Brute, index: int = 0) -> dict[str, int]:
    return {s: w for e, s, w in b.credits if e == index}


def totals(outcomes: list[dict[str, Any]]) -> dict[str, float]:
    """An example's totals, of the outcomes of a run."""
    total = {k: sum(o[k] for o in outcomes) for k in ("opens", "clicks", "unsubscribes")}
    mature = [o for o in outcomes if o["reached"] and o["mature"]]
    return total | {
        "numerator": sum(o["numerator"] for o in outcomes) / PARTS,
        "conversion_count": sum(o["weight"] for o in outcomes) / PARTS,
        "revenue": sum(o["revenue"] for o in outcomes) / MICRO,
        "mature_sends": len(mature),
        "mature_numerator": sum(o["numerator"] for o in mature) / PARTS,
    }


@pytest.mark.parametrize("x", EXAMPLES, ids=lambda x: x.id)
def test_worked_example(x: Example) -> None:
    b = brute(Rule(**x.settings), x.sends, x.events, x.goals, x.as_of)
    got: dict[str, dict[str, float]] = defaultdict(dict)
    for index, send_id, weight in b.credits:
        got[x.events[index]["event_id"]][send_id] = weight / PARTS
    assert got == x.credits
    assert b.reasons == x.reasons
    found = totals(list(b.outcomes.values()))
    assert {k: found[k] for k in x.totals} == x.totals
    for send_id, expected in x.per_send.items():
        of_send = totals([b.outcomes[send_id]])
        assert {k: of_send[k] for k in expected} == expected


def test_published_examples_under_every_reading_of_rules_2_4_5() -> None:
    for x in EXAMPLES[:3]:
        for bounds in ("[)", "[]", "(]", "()"):
            for day_rule in ("elapsed", "calendar"):
                for lookback_from in ("send", "offset_end"):
                    rule = Rule(bounds=bounds, day_rule=day_rule, lookback_from=lookback_from)
                    assert brute(rule, x.sends, x.events, x.goals, None).reasons == x.reasons


def test_calendar_days_across_the_clock_change() -> None:
    """New York, 6 March noon to 9 March 12:30: a date difference of 3, and a close at local midnight."""
    x = next(x for x in EXAMPLES if x.number == 17)
    rule = Rule(day_rule="calendar", tz="America/New_York")
    b = brute(rule, x.sends, x.events, x.goals, None)
    assert b.reasons == ["credited"]
    sent = x.sends[0]["sent_at"]  # 12:00 EST; the window closes on 20 March 00:00 EDT
    assert b.outcomes["S1"]["close_at"] == sent + 13 * DAY + 11 * HOUR


def test_close_under_a_closed_upper_bound() -> None:
    b = run([S1], [], day_rule="calendar", bounds="[]")
    assert b.outcomes["S1"]["close_at"] == T0 - 9 * HOUR + 15 * DAY


def test_last_then_check_and_largest_remainder() -> None:
    late = [S1, send("S2", 9, "B")]
    assert run(late, [event(day=10)], credit="last_then_check").reasons == ["in_offset"]
    three = [send("S1"), send("S2", 1), send("S3", 2)]
    assert weights(run(three, [event(day=10)], credit="linear")) == {
        "S1": 333_333_333,
        "S2": 333_333_333,
        "S3": 333_333_334,
    }
    decayed = weights(run([S1, send("S2", 7)], [event(day=10.5)], credit="time_decay"))
    assert decayed == {"S1": 333_333_333, "S2": 666_666_667}
    assert weights(run([*three, send("S4", 3, "B")], [event(day=10)], credit="all_variants")) == {
        "S3": PARTS,
        "S4": PARTS,
    }


def test_explicit_ids() -> None:
    early = [event(day=10, send_id="S2")]
    two = [S1, send("S2", 9, "B")]
    assert run(two, early).reasons == ["in_offset"]
    assert weights(run(two, early, explicit="trust")) == {"S2": PARTS}
    assert weights(run(two, early, explicit="ignore")) == {"S1": PARTS}
    assert weights(run(two, early, explicit="window_then_join")) == {"S1": PARTS}
    foreign = [event(day=10, send_id="X")]
    assert weights(run([S1, send("X", 0, user_id="v")], foreign)) == {"S1": PARTS}
    nobody = [event(day=10, user_id="", send_id="S1"), event("e2", 10, user_id="")]
    assert run([S1], nobody).reasons == ["credited", "no_send"]
    assert weights(run(TWO, [event(day=10, variant_id="A")])) == {"S1": PARTS}


def test_engagement_by_skew_ghost_and_foreign_user() -> None:
    def reason(**changes: Any) -> str:
        return run([S1], [event(kind="open", **changes)]).reasons[0]

    assert reason(at=T0 - 5 * MINUTE, send_id="S1") == "credited"
    assert reason(at=T0 - 5 * MINUTE - 1, send_id="S1") == "before_send"
    assert reason(at=T0 - 1) == "before_send"
    assert reason(at=T0 + 14 * DAY) == "outside_engagement_window"
    assert reason(at=T0, send_id="S1", user_id="friend") == "credited"
    assert reason(at=T0, send_id="S404") == "unknown_send"
    assert reason(at=T0, user_id="friend") == "no_send"
    ghost = send(status="held_out")
    assert run([ghost], [event(kind="open"), event("e2", kind="open", send_id="S1")]).reasons == [
        "not_delivered",
        "not_delivered",
    ]


def test_refunds_follow_their_order() -> None:
    order = event("e1", 5, order_id="o", value=10 * MICRO)
    part = event("r1", 30, order_id="o", value=-3 * MICRO - 1)
    b = run(TWO, [part, order], credit="linear", offset_days=0)
    assert b.reasons == ["refund", "credited"]
    assert weights(b, 0) == weights(b, 1) == {"S1": PARTS // 2, "S2": PARTS // 2}
    assert [o["revenue"] for o in b.outcomes.values()] == [3_500_000] * 2
    assert [o["weight"] for o in b.outcomes.values()] == [PARTS // 2] * 2
    assert run(TWO, [part]).reasons == ["refund_without_order"]
    uncredited = run([S1], [event("e1", 1, order_id="o", value=1), part])
    assert (uncredited.reasons, uncredited.credits) == (["in_offset", "refund"], [])
    assert run([S1], [order, part], refund_horizon_days=24).reasons[1] == "refund_without_order"


def test_copies_currency_and_lateness() -> None:
    a, b = event("e1", 6, order_id="o"), event("e2", 5, order_id="o")
    assert run([S1], [a, b]).reasons == ["duplicate", "credited"]
    euro = event(day=5, value=1_500_005, currency="EUR")
    assert run([S1], [euro]).reasons == ["currency"]
    assert run([S1], [euro], rates={"EUR": 1.1}).outcomes["S1"]["revenue"] == 1_650_006  # half to even
    late = T0 + 12 * DAY
    assert run([S1], [event(day=5, received_at=late), event("e2", 5, received_at=late + 1)]).reasons == [
        "credited",
        "too_late",
    ]
    future = event(day=20, received_at=T0 + 5 * DAY)  # clamped to when we heard of it
    assert run([S1], [future]).reasons == ["credited"]


def test_status_events_and_anchors() -> None:
    bounce = event("b1", 0.1, kind="bounce", send_id="S1")
    assert run([S1], [bounce, event(day=5)]).reasons == ["status_event", "not_delivered"]
    opened = event("o1", 1, kind="open", machine=0)
    machine = event("o2", 0.5, kind="open", machine=1)
    b = run([S1], [opened, machine, event(day=3.5)], anchor="opened")
    assert b.reasons == ["credited", "machine", "in_offset"]
    assert b.outcomes["S1"]["anchor"] == T0 + DAY
    assert run([S1], [event(day=5)], anchor="opened").reasons == ["no_anchor"]
    only = run([S1], [opened, machine, event(day=3.5)], anchor="opened", machine="only")
    assert only.reasons == ["machine", "credited", "in_offset"]


@given(cases(), st.randoms(use_true_random=False))
def test_invariants(case: Any, random: Any) -> None:
    """Every event has one reason; weights add up; row order changes nothing but which copy stays."""
    rule, sends, events, goals, as_of = case
    b = brute(rule, sends, events, goals, as_of)
    assert len(b.reasons) == len(events)
    assert set(b.reasons) <= set(REASONS)
    for i, reason in enumerate(b.reasons):
        mine = weights(b, i)
        assert (reason == "credited") <= bool(mine)
        assert not mine or reason in ("credited", "refund")
        if mine and rule.scope == "org" and rule.credit not in ("all", "all_variants"):
            assert sum(mine.values()) == PARTS
    order = list(range(len(events)))
    random.shuffle(order)
    shuffled = list(sends)
    random.shuffle(shuffled)
    other = brute(rule, shuffled, [events[i] for i in order], goals, as_of)
    assert other.outcomes == b.outcomes

    def of_ids(x: Brute, rows: list[Any]) -> list[Any]:
        return sorted((rows[i]["event_id"], rows[i]["user_id"], s, w) for i, s, w in x.credits)

    assert of_ids(other, [events[i] for i in order]) == of_ids(b, events)
    assert sorted(other.reasons) == sorted(b.reasons)


@given(cases())
def test_to_log_keeps_every_row(case: Any) -> None:
    _, sends, events, _, _ = case
    log = to_log(sends, events)
    assert log.text("send", log.sends.send) == [s["send_id"] for s in sends]
    assert log.text("send", log.events.send) == [e["send_id"] for e in events]
    assert log.text("user", log.events.user) == [e["user_id"] for e in events]
    assert [KINDS[k] for k in log.events.kind] == [e["kind"] for e in events]
    assert [STATUSES[k] for k in log.sends.status] == [s["status"] for s in sends]

"""What the draws of a world must not depend on, and that nothing is lost without a word."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from justai_sim.clock import MISSING
from justai_sim.esp.base import adapter
from justai_sim.esp.rows import Rows
from justai_sim.loop.replay import replay_log
from justai_sim.sim.engine import Block, Engine, simulate_block
from justai_sim.sim.inbox import Inbox
from justai_sim.sim.plan import in_time
from justai_sim.tables import BOUNCE, CONVERSION, HELD_OUT, NONE, OPEN, REASON, REASONS, UNSUBSCRIBE, Events
from justai_sim.world import codes
from justai_sim.world.faults import Faults
from tests.test_twin import SCENARIOS, rows, scenario

UNIFORM = {"program.policy.name": "uniform"}
EVERYTHING = SCENARIOS["everything"]
NO_FAULTS = {
    "telemetry.clean": False, "telemetry.machine_open_share": 0.0, "telemetry.scanner_share": 0.0,
    "telemetry.lost_share": 0.0, "telemetry.late_share": 0.0, "telemetry.duplicate_share": 0.0,
    "telemetry.missing_user_share": 0.0, "telemetry.clock_skew_seconds": 0.0,
}  # fmt: skip


def run(*settings: dict[str, Any]) -> Block:
    merged: dict[str, Any] = {}
    for s in settings:
        merged |= s
    return simulate_block(scenario(merged), range(2))


def told(block: Block, without: tuple[str, ...] = ()) -> Counter[tuple[Any, ...]]:
    """All webhooks about events that will ever be heard, without some columns."""
    every = Events.concat([block.state.events.table, block.unheard.events])
    keep = [i for i, c in enumerate(Events.SCHEMA) if c.name not in without]
    return Counter(tuple(r[i] for i in keep) for r in rows(every))


def send_rows(block: Block) -> set[tuple[Any, ...]]:
    """What was sent to whom, when, chosen how; of copies one."""
    names = ("send", "rep", "user", "template", "variant", "sent_at", "status", "propensity", "segment")
    found: set[tuple[Any, ...]] = set()
    for t in (block.state.sends.table, block.unheard.sends, block.suppressed):
        t = t.with_(propensity=np.nan_to_num(t.propensity, nan=-1.0))
        found |= set(zip(*(getattr(t, n).tolist() for n in names), strict=True))
    return found


FAULTS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "machine_open_share": (0.4, "more", ()),
    "scanner_share": (0.4, "more", ()),
    "lost_share": (0.2, "less", ()),
    "late_share": (0.2, "changed", ("received_at",)),
    "duplicate_share": (0.3, "more", ()),
    "recoded_share": (0.3, "more", ()),
    "reused_id_share": (0.2, "changed", ("event",)),
    "outages": ([{"day": 3.5, "hours": 2}], "changed", ("received_at",)),
    "wrong_name_share": (0.2, "changed", ("name", "event", "value", "currency")),
    "renamed_from_day": (6.0, "changed", ("name", "event", "value", "currency")),
    "missing_user_share": (0.2, "changed", ("user",)),
    "clock_skew_seconds": (600.0, "changed", ("occurred_at",)),
    "zone_error_share": (0.2, "changed", ("occurred_at",)),
    "test_purchases_per_user_day": (0.05, "more", ()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_what_it_is_about_and_nothing_else(fault: str) -> None:
    """What happened is the same, and what is told of it differs in the columns of the fault, for some of the rows."""
    value, how, columns = FAULTS[fault]
    world = SCENARIOS["responses"] | UNIFORM | NO_FAULTS | {"esp": "segment"}
    plain, other = run(world), run(world, {f"telemetry.{fault}": value})
    assert rows(plain.truth) == rows(other.truth)
    assert send_rows(plain) == send_rows(other)
    before, after = told(plain), told(other)
    assert before != after
    if how == "more":
        assert before <= after
    elif how == "less":
        assert after <= before
    else:
        assert told(plain, columns) == told(other, columns)
        assert sum((before & after).values()) > 0.2 * len(before), "most rows are as they were"


def test_faults_do_not_touch_each_other() -> None:
    """Two faults together: the rows that neither changed are those that each by itself has left alone."""
    world = SCENARIOS["responses"] | UNIFORM | NO_FAULTS
    a, b = {"telemetry.missing_user_share": 0.3}, {"telemetry.zone_error_share": 0.3}
    plain, one, two, both = (told(run(world, x)) for x in ({}, a, b, a | b))
    assert plain & both == plain & one & two
    # And they fall on rows independently of one another.
    paid = [r for r in (plain - one) if r[3] == CONVERSION]
    n, hit = len(paid), sum(r not in (plain & two) for r in paid)
    assert n > 60
    assert abs(hit / n - 0.3) < 4.5 * np.sqrt(0.3 * 0.7 / n)


def test_the_draws_do_not_know_the_variant() -> None:
    """Where all variants are alike, a policy that chooses others leaves everything that happens as it was."""
    same = {"conversion_rate": 0.3, "open_rate": 0.5, "unsubscribe_rate": 0.1}
    alike = {f"variants.{i}.{k}": v for i in range(3) for k, v in same.items()}
    alike |= {f"variants.{i}.click_rate": 0.4 for i in range(3)}
    a, b = (run(SCENARIOS["faults, orders"], alike, x) for x in (UNIFORM, {"program.policy.name": "weighted_thompson"}))
    assert changed_users(a, b)
    assert rows(a.truth) == rows(b.truth)
    assert told(a) == told(b)


def without_users(block: Block, users: set[tuple[int, int]]) -> list[tuple[Any, ...]]:
    found = rows(block.truth)
    return [r for r in found if (r[1], int(codes.user_of_event(np.array([r[0]]))[0])) not in users]


def changed_users(a: Block, b: Block) -> set[tuple[int, int]]:
    """Users for whom something else was chosen."""
    chosen = [{(r[1], r[2], r[3], r[5]): a_variant(block, r[4], r[6]) for r in send_rows(block)} for block in (a, b)]
    first, second = chosen
    return {k[:2] for k in first.keys() | second.keys() if first.get(k) != second.get(k)}


def a_variant(block: Block, variant: int, status: int) -> tuple[str, int]:
    return block.codes["variant"].text(np.array([variant]))[0], status


@pytest.mark.parametrize(
    ("what", "before", "after"),
    [
        ("a policy", UNIFORM, {"program.policy.name": "weighted_thompson"}),
        ("a window", {"program.policy.name": "weighted_thompson"},
         {"program.policy.name": "weighted_thompson", "program.rule.lookback_days": 1}),
        ("a variant that the provider gives a part of the traffic", {"program.split": "external", "variants": 3},
         {"program.split": "external"}),
    ],
)  # fmt: skip
def test_where_the_choice_is_the_same_so_is_everything(
    what: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    fourth = {"id": "new", "conversion_rate": 0.4, "open_rate": 0.6}
    base = scenario(SCENARIOS["responses"])
    variants = [*({"id": v.id, "conversion_rate": v.conversion_rate, "open_rate": v.open_rate,
                   "unsubscribe_rate": v.unsubscribe_rate} for v in base.variants), fourth]  # fmt: skip
    world = SCENARIOS["responses"] | {"variants.1.unsubscribe_rate": 0.1}
    world = {k: v for k, v in world.items() if not k.startswith("variants.")} | {"variants": variants}
    first = {k: variants[:v] if k == "variants" else v for k, v in before.items()}
    a, b = run(world, first), run(world, after)
    users = changed_users(a, b)
    everybody = {(int(r), int(u)) for r, u in zip(a.users.rep, a.users.user, strict=True)}
    assert 0.05 < len(users) / len(everybody) < 0.95, what
    assert without_users(a, users) == without_users(b, users)
    assert len(without_users(a, users)) > 20


def test_a_variant_without_a_share_changes_nothing() -> None:
    shares = {"program.policy.name": "fixed", "program.policy.shares": {"a": 1.0, "b": 2.0}}
    s = scenario(SCENARIOS["faults"] | shares)
    new = msgspec.structs.replace(s.variants[2], id="z", conversion_rate=0.9)
    plain = simulate_block(s, range(2))
    more = simulate_block(msgspec.structs.replace(s, variants=[*s.variants, new]), range(2))
    assert rows(plain.truth) == rows(more.truth)
    assert told(plain) == told(more)
    assert send_rows(plain) == send_rows(more)


@pytest.mark.parametrize(
    "touch",
    [
        {"blasts": [{"id": "zz", "day": 3, "times": 2}]},
        {"triggered": [{"id": "zz", "per_user_day": 0.3}]},
    ],
)
def test_another_template_leaves_the_others_alone(touch: dict[str, Any]) -> None:
    """Nobody leaves here and nobody tires: then all that differs is what the new messages cause. (A template's draws go
    by the place of its id among the ids, so the new one sorts last.)"""
    world = UNIFORM | {"variants.1.unsubscribe_rate": 0.0, "variants.0.unsubscribe_rate": 0.0,
                       "variants.2.unsubscribe_rate": 0.0}  # fmt: skip
    plain, more = run(world), run(world, touch)
    new = 3  # the code of the new template
    cause = more.truth.cause
    times = more.state.send_span // ((int(more.users.user.max()) + 1) * 4)
    foreign = (cause != NONE) & (cause // times % 4 == new)
    kept = more.truth.take(~foreign)
    assert len(kept) < len(more.truth)
    nobody = np.full(len(kept), NONE)  # the codes of sends go by the number of templates
    plain_rows = rows(plain.truth.with_(cause=np.full(len(plain.truth), NONE)))
    assert plain_rows == rows(kept.with_(cause=nobody))


def test_fatigue_only_takes_away() -> None:
    """A setting changes chances, never the draws: what still happens happens as before."""
    world = SCENARIOS["responses"] | UNIFORM | {"world.fatigue": 0.0, "world.fatigue_unsubscribe": 0.0,
                                                "world.open_effect": 1.0, "world.click_effect": 1.0}  # fmt: skip
    fresh, tired = told(run(world)), told(run(world, {"world.fatigue": 0.8}))
    assert tired < fresh


@pytest.mark.parametrize("cuts", [[(0, 1), (1, 4)], [(0, 3), (3, 4)]])
def test_any_cut_of_blocks_gives_the_same_worlds(cuts: list[tuple[int, int]]) -> None:
    # Shares of the linear policies may differ in the last bit, by the number of worlds that BLAS takes at once.
    often = {"triggered": [{"id": "cart", "per_user_day": 0.2}]}  # as many times as it happens
    s = scenario(EVERYTHING | {"program.policy.name": "weighted_thompson"} | often)
    whole = simulate_block(s, range(4))

    def world(block: Block, rep: int) -> list[Any]:
        r = rep - block.reps.start
        events, origin = block.state.events.table, block.origin
        tables = [block.state.sends.table, events, block.truth, block.unheard.sends, block.unheard.events,
                  block.suppressed]  # fmt: skip
        mine = [t.take(t.rep == r) for t in tables]
        mine = [t.with_(rep=np.zeros(len(t), np.int32)) for t in mine]
        shares = [t.shares[:, r].tolist() for t in block.ticks]
        return [*map(rows, mine), sorted(origin[events.rep == r].tolist()), shares]

    for first, end in cuts:
        part = simulate_block(s, range(first, end))
        for rep in range(first, end):
            assert world(part, rep) == world(whole, rep)


ESPS = ["braze", "segment", "customerio", "iterable", "sfmc"]


@pytest.mark.parametrize("esp", ESPS)
def test_wire_equals_columnar_under_every_fault(esp: str) -> None:
    """Missing users, renamed events, refunds with and without orders, machines flagged and not."""
    s = scenario(EVERYTHING | {"esp": esp})
    wire, plain = simulate_block(s, range(2), wire=True), simulate_block(s, range(2))
    events = plain.state.events.table
    paid = events.kind == CONVERSION
    assert (events.user[paid] == NONE).any() == (esp not in ("braze", "iterable")), "these take nothing without a user"
    assert (events.name[paid] == 1).any()
    assert (events.value[paid & (events.value != MISSING)] < 0).any()
    assert set(events.machine[events.kind == OPEN].tolist()) == {0, 1}

    def carried(block: Block) -> list[tuple[Any, ...]]:
        e = block.state.events.table
        if esp == "sfmc":  # its tracking extracts name the send, not its user, and do not say that it was a person
            e = e.with_(user=np.where(e.send >= 0, NONE, e.user), machine=np.where(e.machine == 0, -1, e.machine))
        return rows(e, block.origin.tolist())

    assert rows(wire.state.sends.table) == rows(plain.state.sends.table)
    assert carried(wire) == carried(plain)
    assert found(wire) == found(plain)
    for x, y in zip(wire.ticks, plain.ticks, strict=True):
        np.testing.assert_array_equal(x.n, y.n)
        np.testing.assert_array_equal(x.y, y.y)
        np.testing.assert_allclose(x.shares, y.shares, rtol=0, atol=1e-12)


@pytest.mark.parametrize("goal", ["purchase", "signup"])
@pytest.mark.parametrize("esp", ESPS)
def test_wire_equals_columnar_whatever_the_goal_is_called(esp: str, goal: str) -> None:
    s = scenario({"esp": esp, "program.goals": [goal], "world.refund_rate": 0.4, "days": 9})
    wire, plain = simulate_block(s, range(1), wire=True), simulate_block(s, range(1))
    assert found(wire) == found(plain)


def found(block: Block) -> list[tuple[Any, ...]]:
    """Each event's reason and credits, by ids."""
    state = block.state
    sends, events, c = state.sends.table, state.events.table, state.credits
    out = Counter(zip(events.rep.tolist(), events.event.tolist(), state.reason[: len(events)].tolist(), strict=True))
    credit = zip(events.event[c.event_row].tolist(), sends.send[c.send_row].tolist(), c.weight.tolist(), strict=True)
    return [*sorted(out.items()), *sorted(credit)]


def test_every_planned_message_has_one_fate() -> None:
    """planned = stopped before (left or bounced) + held out + suppressed + bounced + delivered."""
    s = scenario(SCENARIOS["responses"] | {"esp": "generic"})
    engine = Engine(s, range(2), False, False)
    block = engine.run()
    sends = block.state.sends.table
    kinds = block.state.events.table.take(block.state.events.table.kind == BOUNCE)
    late = block.unheard.events.take(block.unheard.events.kind == BOUNCE)
    bounced = len(kinds) + len(late)
    held = int((sends.status == HELD_OUT).sum())
    sent = len(sends) - held + len(block.unheard.sends)
    delivered = sent - bounced
    # Who stops when, from what is told: nothing at or after an unsubscribe, nothing after the message that bounced.
    every = Events.concat([block.state.events.table, block.unheard.events])
    stop: dict[tuple[int, int], tuple[int, int]] = {}
    for e in (every.take(every.kind == UNSUBSCRIBE), every.take(every.kind == BOUNCE)):
        who = zip(e.rep.tolist(), e.user.tolist(), strict=True)
        left = zip(e.kind.tolist(), e.occurred_at.tolist(), e.send.tolist(), strict=True)
        for key, (kind, t, send) in zip(who, left, strict=True):
            template, n = send // engine.many % 3, send % engine.many
            at = (t, -1) if kind == UNSUBSCRIBE else (t - 30_000_000, template + codes.TEMPLATES * n)
            stop[key] = min(at, stop.get(key, at))
    when, who, where = engine.plan.within(0, 2**62)
    rep, user = block.users.rep[who].tolist(), block.users.user[who].tolist()
    planned = zip(rep, user, when.tolist(), where.tolist(), strict=True)
    stopped = sum((at, place) > stop.get((r, u), (2**62, 0)) for r, u, at, place in planned)
    assert min(stopped, held, bounced, len(block.suppressed)) > 10
    assert len(when) == len(engine.plan) == stopped + held + len(block.suppressed) + bounced + delivered


@given(npst.arrays(np.int64, st.integers(0, 60), elements=st.one_of(st.integers(0, 5), st.integers(0, 2**62))))
def test_messages_are_in_time_and_those_of_one_instant_as_planned(t: Any) -> None:
    assert in_time(t).tolist() == np.argsort(t, kind="stable").tolist()


def test_what_is_received_at_a_refresh_is_known_to_it() -> None:
    inbox = Inbox(np.array([0, 10, 20]))
    events = Events.build(3, event=[0, 1, 2], user=0, kind=OPEN, occurred_at=0, received_at=[10, 11, 21])
    inbox.tell(events, events.event)
    assert [inbox.take(k)[1].tolist() for k in (0, 1, 2)] == [[], [0], [1]]
    assert inbox.rest().origin.tolist() == [2]


@pytest.mark.parametrize("name", ["faults", "faults, orders", "everything"])
def test_every_webhook_is_heard_or_on_its_way_or_lost(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrival, copy = Faults.arrival, Faults.copy
    made, lost = Counter[str](), Counter[str]()

    def counted_arrival(self: Faults, *of: Any) -> Any:
        at, gone = arrival(self, *of)
        made["all"] += len(at)
        lost["all"] += int(gone.sum())
        return at, gone

    def counted_copy(self: Faults, true: Events, *of: Any) -> Any:
        heard, origin = copy(self, true, *of)
        made["events"] += len(true)
        lost["events"] += len(true) - len(heard)
        return heard, origin

    monkeypatch.setattr(Faults, "arrival", counted_arrival)
    monkeypatch.setattr(Faults, "copy", counted_copy)
    block = run(SCENARIOS[name])
    sends = block.state.sends.table
    never = block.unheard.sends.received_at == MISSING
    assert never.any()
    assert (block.unheard.sends.received_at[~never] > block.ticks[-1].now).all()
    assert lost["events"] > 20
    assert made["events"] == len(block.state.events.table) + len(block.unheard.events) + lost["events"]
    webhooks = int((sends.status != HELD_OUT).sum()) + int((~never).sum())
    # A message is unheard of only if every copy of its webhook was lost.
    gone = block.unheard.sends.send[never] + block.unheard.sends.rep[never] * np.int64(2**40)
    assert not np.isin(gone, sends.send + sends.rep * np.int64(2**40)).any()
    told = made["all"] - made["events"]
    assert len(gone) <= told - webhooks <= lost["all"]


@pytest.mark.parametrize("name", ["at the refresh", "faults, orders", "everything"])
def test_a_world_that_is_read_as_a_log_has_the_same_refreshes(name: str) -> None:
    """Ghosts, copies, receipts and decisions included."""
    s = scenario(SCENARIOS[name])
    block = simulate_block(s, range(1))
    _, _, again = replay_log(s.full_program(), block.log(0), block.ticks[-1].now, start=s.start_us)
    for a, b in zip(block.ticks, again, strict=True):
        assert np.array_equal(a.n, b.n)
        assert np.array_equal(a.y, b.y)
        np.testing.assert_allclose(a.shares, b.shares, rtol=0, atol=1e-12)


@pytest.mark.parametrize("esp", ESPS)
def test_every_payload_is_parsed_and_every_event_has_a_reason(esp: str) -> None:
    s = scenario(EVERYTHING | {"esp": esp})
    block = simulate_block(s, range(1), wire=True, keep_journal=True)
    assert block.wire is not None
    read = Rows()
    journal = block.wire.journal[0]
    for i, (received, body) in enumerate(journal):
        adapter(esp).parse(body, read, f"payload {i}", received)
    assert len(journal) == block.wire.payloads
    assert len(journal) == len(read.sends) + len(read.events) + len(read.rejects) + sum(read.skipped.values())
    assert not read.rejects
    events = block.state.events.table
    assert len(read.events) == len(events)
    reason = Counter(block.state.reason[: len(events)].tolist())
    assert sum(reason.values()) == len(events)
    assert set(reason) <= set(range(len(REASONS)))
    # Copies: the rows beyond the first of each id of a user.
    known = events.user != NONE
    ids = Counter(zip(events.user[known].tolist(), events.event[known].tolist(), strict=True))
    copies = sum(ids.values()) - len(ids)
    assert copies > 20
    assert reason[REASON["duplicate"]] + reason[REASON["too_late"]] >= copies

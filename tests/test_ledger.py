"""The streaming ledger: whatever the order, batches and settles, its sums are the batch answer and the oracle's."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from justai_sim import clock
from justai_sim.attribution import Bound, Rule, attribute, bind, ledger, ledger_inbox, ledger_rows
from justai_sim.attribution.ledger import Ledger, Settlement, open_ledger
from justai_sim.clock import DAY, HOUR, MISSING
from justai_sim.errors import DataError, UsageError
from justai_sim.tables import BOUNCED, CLICK, CONVERSION, OPEN, PARTS, REASONS, SUPPRESSED, Events, Log, Sends
from tests.oracle import brute
from tests.strategies import cases, to_log

START = 1_772_668_800_000_000
MEMORY = 400


def bound_of(rule: Rule, log: Log, goals: Any) -> Bound:
    return bind(
        rule, templates=log.names("template"), names=log.names("name"), currencies=log.names("currency"), goals=goals
    )


class Reader:
    """What somebody who adds up the settlements of a ledger knows."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.credits: dict[tuple[int, int], int] = defaultdict(int)
        """By (serial of the event, send code)."""
        self.reasons: dict[int, int] = {}
        self.final: dict[int, tuple[int, int, int]] = {}
        self.told_at: dict[int, int] = {}

    def settle(self, now: int) -> Settlement:
        got = self.ledger.settle(now)
        c, f = got.changes, got.final
        for serial, send, weight in zip(c.serial.tolist(), c.send.tolist(), c.weight.tolist(), strict=True):
            assert weight != 0
            self.credits[serial, send] += weight
        self.reasons |= dict(zip(got.reasons.serial.tolist(), got.reasons.reason.tolist(), strict=True))
        for send, *values in zip(
            f.send.tolist(), f.weight.tolist(), f.numerator.tolist(), f.revenue.tolist(), strict=True
        ):
            assert send not in self.final, "told twice"
            self.final[send] = tuple(values)
            self.told_at[send] = now
        return got

    def sums(self) -> dict[tuple[int, int], int]:
        return {k: w for k, w in self.credits.items() if w}


def batch(bound: Bound, sends: Sends, events: Events, now: int) -> tuple[dict[tuple[int, int], int], dict[int, int]]:
    """Credits by (event row, send code) and reasons of the rows known, from the batch door."""
    got = attribute(bound, sends, events, now)
    c = got.credits
    keys = zip(c.event_row.tolist(), sends.send[c.send_row].tolist(), strict=True)
    received = np.where(events.received_at == MISSING, events.occurred_at, events.received_at)
    known = {i: int(got.reason[i]) for i in np.flatnonzero(received <= now).tolist()}
    return dict(zip(keys, c.weight.tolist(), strict=True)), known


def moments(sends: Sends, events: Events, dice: Random, rule: Rule) -> list[int]:
    """Instants to settle at: receipts, just before and after, closings with and without lateness, far ones."""
    heard = np.concatenate([sends.received_at, events.received_at, sends.status_known_at]).tolist() or [START]
    late = round(rule.lateness_days * DAY)
    ends = [int(t) + rule.upper for t in sends.sent_at.tolist()]
    pool = [t + d for t in heard for d in (-1, 0, 1, late, late - 1)] + [
        e + d for e in ends for d in (0, late, late - 1)
    ]
    pool += [max(heard) + k * DAY for k in (1, 20, 45)]
    return sorted(dice.choice(pool) for _ in range(dice.choice([1, 3, 6, 12])))


def in_batches(log: Log, dice: Random, tidy: bool) -> list[tuple[str, np.ndarray]]:
    """Row numbers of both tables cut at random; `tidy`: by the instant of receipt, else in any order."""
    parts = []
    for name, table in (("sends", log.sends), ("events", log.events)):
        order = list(range(len(table)))
        dice.shuffle(order)
        if tidy:
            order.sort(key=lambda i: table.received_at[i])
        while order:
            n = dice.choice([1, 1, 2, 5, 100])
            parts.append((name, np.array(order[:n])))
            order = order[n:]
    if tidy:
        parts.sort(key=lambda p: int(getattr(log, p[0]).received_at[p[1]].max()))
    else:
        dice.shuffle(parts)
    return parts


def play(
    rule: Rule, log: Log, goals: Any, seed: int, *, tidy: bool, reload: bool = False, memory: float = MEMORY
) -> None:
    """Feed a log to a ledger; at every settle its sums must be the batch answer on what it was given."""
    dice = Random(seed)
    bound = bound_of(rule, log, goals)
    reader = Reader(open_ledger(bound, memory_days=memory))
    given_rows: dict[str, list[int]] = {"sends": [], "events": []}
    parts = in_batches(log, dice, tidy)
    times = moments(log.sends, log.events, dice, rule)
    while parts or times:
        if tidy and parts and times:  # nothing is handed over after the settle that should have had it
            name, rows = parts[0]
            give = bool(getattr(log, name).received_at[rows].min() <= times[0])
        else:
            give = bool(parts) and (not times or dice.random() < 0.6)
        if give:
            name, rows = parts.pop(0)
            given_rows[name] += rows.tolist()
            reader.ledger.ingest(**{name: getattr(log, name).take(rows)})
            continue
        now = times.pop(0)
        reader.settle(now)
        sends, events = (getattr(log, k).take(np.array(v, np.int64)) for k, v in given_rows.items())
        credited, reasons = batch(bound, sends, events, now)
        assert reader.sums() == credited
        assert reader.reasons == reasons
        if tidy:
            finals_agree(bound, sends, events, now, reader)
        if reload and dice.random() < 0.5:
            data = reader.ledger.save()
            reader.ledger = Ledger.load(data, bound)
            assert reader.ledger.save() == data


def finals_agree(bound: Bound, sends: Sends, events: Events, now: int, reader: Reader) -> None:
    """Finality and what is final, as the batch has them (values only where nothing may move them any more)."""
    got = attribute(bound, sends, events, now)
    ids = set(sends.send[got.outcomes.send_row][got.final()].tolist())
    # What was told as final is not taken back when a bounce becomes known only afterwards.
    known = np.where(sends.status_known_at == MISSING, sends.received_at, sends.status_known_at)
    bounced = (sends.status >= BOUNCED) & (sends.status <= SUPPRESSED) & (known <= now)
    later = {s for s, t in zip(sends.send[bounced].tolist(), known[bounced].tolist(), strict=True)
             if t > reader.told_at.get(s, now)}  # fmt: skip
    assert ids <= set(reader.final) <= ids | later


Case = tuple[Rule, list[Any], list[Any], Any, int | None]


@given(cases(), st.integers(0, 2**32))
def test_stream_is_batch_in_any_order(case: Case, seed: int) -> None:
    """Rows handed over whenever, also long after a settle that should have had them; saved and loaded on the way."""
    rule, sends, events, goals, _ = case
    play(rule, to_log(sends, events), goals, seed, tidy=False, reload=True)


@given(cases(), st.integers(0, 2**32))
def test_stream_is_batch_when_rows_come_in_time(case: Case, seed: int) -> None:
    """The usual life of a ledger: rows handed over before the settle that should have them, so that rows close."""
    rule, sends, events, goals, _ = case
    play(rule, to_log(sends, events), goals, seed, tidy=True)


def test_a_late_click_gives_an_old_send_no_anchor() -> None:
    """The send that stands in for closed ones lies before every click that is still looked at, by a whole window."""
    rule = Rule(anchor="clicked", engagement_lookback_days=1, lookback_days=3, offset_days=2, day_rule="calendar")
    bound = bind(rule, templates=["t"], names=["purchase"])
    for hour in range(0, 24 * 6, 6):
        at = START + DAY + 6 * HOUR + hour * HOUR
        sends = Sends.build(1, send=0, user=0, template=0, variant=0, sent_at=START)
        events = Events.build(2, event=[0, 1], user=0, kind=[CLICK, CONVERSION], name=[-1, 0],
                              occurred_at=[at, START + 17 * DAY])  # fmt: skip
        reader = Reader(open_ledger(bound))
        reader.ledger.ingest(sends, events)
        for now in range(START, START + 18 * DAY, 6 * HOUR):
            reader.settle(now)
        reader.settle(START + 18 * DAY)
        assert reader.reasons == batch(bound, sends, events, START + 18 * DAY)[1]


@pytest.mark.parametrize("anchor", ["opened", "sent"])
def test_an_event_handed_over_when_it_would_be_forgotten_is_too_late(anchor: Any) -> None:
    """It says that it was received in time, but comes after the memory is over; nothing is lost in silence."""
    rule = Rule(anchor=anchor, engagement_lookback_days=14, refund_horizon_days=5)
    bound = bind(rule, templates=["t"], names=["purchase"])
    for days in range(10, 70):
        sends = Sends.build(1, send=0, user=0, template=0, variant=0, sent_at=START, delivered_at=START)
        at = START + days * DAY
        events = Events.build(2, event=[0, 1], user=0, kind=[OPEN, CONVERSION], name=[-1, 0],
                              occurred_at=[at, at + 5 * DAY])  # fmt: skip
        reader = Reader(open_ledger(bound, memory_days=10))
        reader.ledger.ingest(sends)
        for now in (START + DAY, START + 79 * DAY, START + 80 * DAY):
            reader.settle(now)
        reader.ledger.ingest(events=events)
        reader.settle(START + 81 * DAY)
        told = [REASONS[reader.reasons[i]] for i in (0, 1)]
        # An event is open for 7 days and remembered for 10: at day 80 what happened by day 63 is too late.
        assert [r == "too_late" for r in told] == [days <= 63, days + 5 <= 63]
        assert not reader.sums()


@given(cases(), st.integers(0, 2**32))
def test_stream_is_brute_force(case: Case, seed: int) -> None:
    """Against the second reading of the rule's text; every row handed over again at the end changes no credit."""
    rule, sends, events, goals, as_of = case
    dice = Random(seed)
    log = to_log(sends, events)
    bound = bound_of(rule, log, goals)
    reader = Reader(open_ledger(bound, memory_days=MEMORY))
    now = as_of if as_of is not None else START + 300 * DAY
    for t in sorted(dice.randint(START - DAY, now) for _ in range(3)):
        rows = np.array([i for i in range(len(log.sends)) if dice.random() < 0.5], np.int64)
        reader.ledger.ingest(sends=log.sends.take(rows))
        reader.settle(t)
    reader.ledger.ingest(sends=log.sends, events=log.events)
    reader.settle(now)
    expected = brute(rule, sends, events, goals, now)
    texts = log.text("send", np.array([send for _, send in reader.sums()], np.int64))
    found = [(serial, text, w) for ((serial, _), w), text in zip(reader.sums().items(), texts, strict=True)]
    assert sorted(found) == sorted(expected.credits)
    assert {i: REASONS[r] for i, r in reader.reasons.items()} == {
        i: r for i, r in enumerate(expected.reasons) if r != "not_yet_known"
    }
    before = ids_of(reader, log)
    reader.ledger.ingest(sends=log.sends, events=log.events)
    reader.settle(now)
    assert ids_of(reader, log) == before


def ids_of(reader: Reader, log: Log) -> dict[tuple[int, int], int]:
    """Credits by (event code, send code)."""
    out: dict[tuple[int, int], int] = defaultdict(int)
    for (serial, send), w in reader.sums().items():
        out[int(log.events.event[serial % max(1, len(log.events))]), send] += w
    return {k: w for k, w in out.items() if w}


@given(cases(), st.integers(0, 2**32))
def test_a_loaded_ledger_goes_on_as_if_it_had_never_stopped(case: Case, seed: int) -> None:
    rule, sends, events, goals, _ = case
    dice, log = Random(seed), to_log(sends, events)
    bound = bound_of(rule, log, goals)
    one = open_ledger(bound, memory_days=max(rule.refund_horizon_days, 10))
    parts = in_batches(log, dice, tidy=False)
    times = moments(log.sends, log.events, dice, rule)
    for now in [*times, max([START + 200 * DAY, *times])]:
        for _ in range(dice.randrange(4)):
            if parts:
                name, rows = parts.pop()
                one.ingest(**{name: getattr(log, name).take(rows)})
        data = one.save()
        two = Ledger.load(data, bound)
        assert two.save() == data
        a, b = one.settle(now), two.settle(now)
        assert_equal(a, b)
        assert one.save() == two.save()


def assert_equal(a: Settlement, b: Settlement) -> None:
    for x, y in zip(a[1:], b[1:], strict=True):
        for c in x.SCHEMA:
            assert np.array_equal(getattr(x, c.name), getattr(y, c.name)), c.name


# --- forgetting ---


def life(seed: int, days: int = 150) -> Log:
    """A log of months in which nothing refers far back: copies, refunds, names and statuses come within 15 days."""
    dice = Random(seed)
    sends: list[Any] = []
    events: list[Any] = []
    for k in range(days):
        t = START + k * DAY + dice.randrange(DAY)
        user = dice.choice(("u1", "u2", "u3"))
        status = dice.choice(["sent"] * 8 + ["bounced", "held_out"])
        send_id = f"s{k:03}"
        sends.append({
            "send_id": send_id, "user_id": user, "template_id": dice.choice(("T1", "T1", "T2")), "status": status,
            "variant_id": dice.choice("AB"), "sent_at": t, "delivered_at": dice.choice([t + HOUR, None]),
            "status_known_at": t + 2 * DAY if status == "bounced" else None,
            "received_at": t + dice.choice([0, DAY, 7 * DAY]),
        })  # fmt: skip
        for j in range(dice.randrange(3)):
            kind = dice.choice(["conversion"] * 3 + ["open", "click", "bounce"])
            sold = kind == "conversion"
            at = t + (dice.randrange(-2 * DAY, 15 * DAY) if sold else dice.randrange(5 * DAY))
            row = {
                "event_id": f"e{k}.{j}", "user_id": user, "kind": kind, "occurred_at": at,
                "received_at": at + dice.choice([0, 0, 7 * DAY]), "name": "purchase" if sold else "",
                "value": 10_000_000 if sold else None, "currency": "", "order_id": f"o{k}.{j}" if sold else "",
                "send_id": dice.choice(["", "", send_id]), "template_id": "", "variant_id": "", "machine": -1,
            }  # fmt: skip
            events.append(row)
            if sold and dice.random() < 0.3:
                back = {"occurred_at": at + dice.randrange(10 * DAY), "received_at": None, "send_id": ""}
                events.append(row | back | {"event_id": f"r{k}.{j}", "value": -4_000_000})
            if dice.random() < 0.2:
                events.append(row | {"received_at": row["received_at"] + dice.choice([0, 1])})
    return to_log(sends, events)


LIVES = (
    {}, {"credit": "linear", "anchor": "delivered"}, {"credit": "all", "scope": "org", "explicit": "trust"},
    {"credit": "last_then_check", "anchor": "opened"}, {"credit": "position", "explicit": "window_then_join"},
    {"credit": "first_qualifying", "bounds": "[]", "anchor": "clicked"},
    {"day_rule": "calendar", "tz": "Europe/Berlin"},
    {"repeat": "once_per_user", "credit": "time_decay"},
    {"credit": "all_variants", "explicit": "ignore"},
)  # fmt: skip


@pytest.mark.parametrize("settings", LIVES, ids=lambda s: " ".join(map(str, s.values())) or "default")
def test_nothing_is_lost_by_forgetting_what_nobody_refers_to(settings: dict[str, Any]) -> None:
    """Months of rows under a memory of 20 days: credits and reasons stay those of the batch, and rows do go."""
    rule = Rule(refund_horizon_days=20, **settings)
    log = life(7)
    bound = bound_of(rule, log, None)
    reader = Reader(open_ledger(bound))
    held, last = [], START - DAY
    for now in range(START, START + 170 * DAY, DAY):
        for name in ("sends", "events"):
            table = getattr(log, name)
            new = (table.received_at > last) & (table.received_at <= now)
            reader.ledger.ingest(**{name: table.take(new)})
        reader.settle(now)
        last = now
        held.append(reader.ledger.memory())
        if now % (40 * DAY) < DAY:
            reader.ledger = Ledger.load(reader.ledger.save(), bound)
    serial = np.argsort(log.events.received_at, kind="stable")
    by_day = np.maximum(0, -((START - log.events.received_at[serial]) // DAY))
    order = serial[np.lexsort((serial, by_day))]
    credited, reasons = batch(bound, log.sends, log.events.take(order), last)
    assert reader.sums() == credited
    assert reader.reasons == reasons
    assert max(m.sends for m in held) < len(log.sends) * 0.6
    assert max(m.events for m in held) < len(log.events) * 0.6


def one_send(code: int, at: int, **more: Any) -> Sends:
    return Sends.build(1, **{"send": code, "user": 1, "template": 0, "variant": 0, "sent_at": at} | more)


def one_event(code: int, at: int, **more: Any) -> Events:
    return Events.build(
        1, **{"event": code, "user": 1, "kind": 0, "name": 0, "occurred_at": at, "value": 5_000_000} | more
    )


def simple(rule: Rule) -> Bound:
    return bind(rule, templates=["t"], names=["purchase"])


def test_beyond_the_memory() -> None:
    """What the module text says of references to forgotten rows."""
    bound = simple(Rule(refund_horizon_days=5))
    reader = Reader(open_ledger(bound))
    go = reader.ledger
    go.ingest(one_send(1, START), one_event(1, START + 4 * DAY, order=8))
    for day in (5, 15, 30, 40):
        reader.settle(START + day * DAY)
    assert reader.sums() == {(0, 1): PARTS}
    assert go.memory()[:5] == (0, 0, 0, 0, 0)
    t = START + 50 * DAY
    go.ingest(events=one_event(2, t, order=8, value=-1_000_000))
    go.ingest(events=one_event(3, t, send=1))
    go.ingest(events=one_event(4, t, kind=2, send=1))
    go.ingest(events=one_event(1, t))
    reader.settle(t)
    told = {serial: REASONS[r] for serial, r in reader.reasons.items()}
    assert told == {0: "credited", 1: "refund_without_order", 2: "past_lookback", 3: "unknown_send", 4: "past_lookback"}
    go.ingest(one_send(2, t), one_event(1, t + 4 * DAY))
    reader.settle(t + 5 * DAY)
    assert reader.reasons[5] == REASONS.index("duplicate"), "the copy of serial 4, which is remembered"
    assert reader.sums() == {(0, 1): PARTS}
    go.ingest(events=one_event(9, t + 4 * DAY, send=1))
    reader.settle(t + 6 * DAY)
    assert reader.sums() == {(0, 1): PARTS, (6, 2): PARTS}, "an unknown id: the join"


# --- mutations ---
#
# How we know that the properties can fail: each of these changes one thing in the ledger, and a law that holds
# without it (the tests above, and the edges below, run unchanged) must fail with it.


def late_conversion() -> None:
    """A purchase at the closed end of the window, received at the last instant that is not too late."""
    bound = simple(Rule(bounds="[]", lateness_days=7))
    reader = Reader(open_ledger(bound))
    reader.ledger.ingest(one_send(1, START))
    reader.settle(START + 21 * DAY - 1)
    reader.ledger.ingest(events=one_event(1, START + 14 * DAY, received_at=START + 21 * DAY))
    reader.settle(START + 21 * DAY)
    assert reader.sums() == {(0, 1): PARTS}


def late_send() -> None:
    """A send that left at the instant of a purchase is heard of at the last instant: it takes the credit over."""
    bound = simple(Rule(offset_days=0))
    reader = Reader(open_ledger(bound))
    reader.ledger.ingest(one_send(1, START), one_event(1, START + DAY))
    reader.settle(START + DAY)
    reader.settle(START + 8 * DAY - 1)
    reader.ledger.ingest(one_send(2, START + DAY, received_at=START + 8 * DAY))
    reader.settle(START + 8 * DAY)
    assert reader.sums() == {(0, 2): PARTS}


def last_refund() -> None:
    """A refund at the end of the horizon, received at the last instant; the sweep before it must spare the order."""
    bound = simple(Rule(refund_horizon_days=30))
    reader = Reader(open_ledger(bound))
    bought = START + 4 * DAY
    reader.ledger.ingest(one_send(1, START), one_event(1, bought, order=3))
    reader.settle(bought)
    reader.settle(bought + 37 * DAY - 1)
    back = one_event(2, bought + 30 * DAY, received_at=bought + 37 * DAY, order=3, value=-1)
    reader.ledger.ingest(events=back)
    reader.settle(bought + 37 * DAY)
    assert reader.sums() == {(0, 1): PARTS, (1, 1): PARTS}


EDGES = (late_conversion, late_send, last_refund)


@pytest.mark.parametrize("edge", EDGES)
def test_edge(edge: Any) -> None:
    edge()


def by_another(change: Any) -> Any:
    """`attribute` as the ledger calls it, with arguments changed."""

    def attribute_changed(bound: Bound, sends: Sends, events: Events, as_of: int) -> Any:
        return attribute(*change(bound, sends, events), as_of)

    return attribute_changed


def longer(by: int) -> Any:
    def change(bound: Bound, sends: Sends, events: Events) -> Any:
        rule = msgspec.structs.replace(bound.rule, lookback_days=(clock.days(bound.rule.lookback_days) + by) / DAY)
        return replace(bound, rule=rule), sends, events

    return by_another(change)


def ties_backwards(bound: Bound, sends: Sends, events: Events) -> Any:
    top = 1 << 20
    named = np.where(events.send >= 0, top - events.send, -1)
    return bound, sends.with_(send=top - sends.send), events.with_(send=named)


MUTATIONS = {
    "window a microsecond longer": (ledger_rows, "attribute", longer(1)),
    "window a microsecond shorter": (ledger_rows, "attribute", longer(-1)),
    "< for <= in what is known": (ledger_inbox, "heard", lambda received, now: received < now),
    "ties the other way round": (ledger_rows, "attribute", by_another(ties_backwards)),
    "closed a day early": (ledger, "open_until", lambda over, lateness: over + lateness - DAY),
}

PRUNING = {
    "sends closed 1 us early": ("open_until", -1, late_conversion),
    "events closed 1 us early": ("open_until", -1, late_send),
    "closed a day early": ("open_until", -DAY, late_conversion),
    "events closed a day early": ("open_until", -DAY, late_send),
    "forgotten 1 us early": ("forgotten_at", -1, last_refund),
    "forgotten a day early": ("forgotten_at", -DAY, last_refund),
}


@pytest.mark.parametrize("name", PRUNING)
def test_pruning_too_early_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, by, edge = PRUNING[name]
    monkeypatch.setattr(ledger, function, lambda at, more: at + more + by)
    with pytest.raises(AssertionError):
        edge()


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught_by_the_property(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, function, mutant = MUTATIONS[name]
    monkeypatch.setattr(where, function, mutant)

    @settings(max_examples=400, derandomize=True, database=None, phases=[Phase.generate], print_blob=False)
    @given(cases(), st.integers(0, 2**32))
    def law(case: Case, seed: int) -> None:
        rule, sends, events, goals, _ = case
        play(rule, to_log(sends, events), goals, seed, tidy=True)

    with pytest.raises(AssertionError):
        law()


# --- input of every kind ---


def test_any_batch_size_gives_the_same() -> None:
    log = life(3)
    bound = bound_of(Rule(), log, None)
    found = []
    for size in (1, 7, 10_000):
        reader = Reader(open_ledger(bound))
        for name in ("sends", "events"):
            table = getattr(log, name)
            for i in range(0, len(table), size):
                reader.ledger.ingest(**{name: table.take(slice(i, i + size))})
        reader.settle(START + 400 * DAY)
        found.append((reader.sums(), reader.reasons, reader.final))
    assert found[0] == found[1] == found[2]
    assert found[0][0]


def test_final_values_are_those_of_the_batch() -> None:
    """Weight, numerator and revenue of every final send, under rules whose numerators differ."""
    once, all_days = {"repeat": "once_per_user"}, {"credit": "linear", "anchor": "delivered"}
    for options in ({}, {"repeat": "every"}, once, all_days):
        rule = Rule(refund_horizon_days=20, **options)
        log = life(11, 60)
        bound = bound_of(rule, log, None)
        reader = Reader(open_ledger(bound, memory_days=300))
        now = START + 200 * DAY
        reader.ledger.ingest(log.sends, log.events)
        reader.settle(now)
        got = attribute(bound, log.sends, log.events, now)
        o, final = got.outcomes, got.final()
        columns = (o.weight[final].tolist(), o.numerator[final].tolist(), o.revenue[final].tolist())
        ids = log.sends.send[o.send_row[final]].tolist()
        assert reader.final == dict(zip(ids, zip(*columns, strict=True), strict=True))
        assert sum(o.weight) > 0


def test_replications_do_not_mix() -> None:
    """The same codes in two replications: each is as if it were alone."""
    log = life(5, 40)
    bound = bound_of(Rule(), log, None)
    alone = Reader(open_ledger(bound))
    alone.ledger.ingest(log.sends, log.events)
    alone.settle(START + 300 * DAY)
    both = open_ledger(bound)
    for rep in (1, 0):
        n, m = (np.full(len(t), rep, np.int32) for t in (log.sends, log.events))
        both.ingest(log.sends.with_(rep=n), log.events.with_(rep=m))
    got = both.settle(START + 300 * DAY).changes
    for rep in (0, 1):
        mine = got.take(got.rep == rep)
        offset = 0 if rep else len(log.events)
        keys = zip((mine.serial - offset).tolist(), mine.send.tolist(), strict=True)
        assert dict(zip(keys, mine.weight.tolist(), strict=True)) == alone.sums()


def test_a_million_copies_of_one_event_cost_little_and_are_all_told() -> None:
    bound = simple(Rule())
    reader = Reader(open_ledger(bound))
    n, at = 1_000_000, START + 5 * DAY
    reader.ledger.ingest(one_send(1, START), one_event(1, at))
    copies = Events.build(
        n, event=1, user=1, kind=0, name=0, occurred_at=at, received_at=at + np.arange(n), value=5_000_000
    )
    for i in range(0, n, 100_000):
        reader.ledger.ingest(events=copies.take(slice(i, i + 100_000)))
        got = reader.settle(at + i + 99_999)
        assert set(got.reasons.reason.tolist()) <= {REASONS.index("credited"), REASONS.index("duplicate")}
    assert reader.sums() == {(0, 1): PARTS}
    assert len(reader.reasons) == n + 1
    assert reader.ledger.memory().events == 1


def test_rows_of_the_future_wait_for_their_time() -> None:
    reader = Reader(open_ledger(simple(Rule())))
    at = START + 5 * DAY
    reader.ledger.ingest(one_send(1, START), one_event(1, at))
    assert not len(reader.settle(at - 1).reasons)
    assert reader.ledger.memory().waiting == 1
    assert len(reader.settle(at).changes) == 1
    assert reader.ledger.memory().waiting == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"sends": one_send(1, -1)}, "sends.sent_at, row 0: time -1 lies outside 1970"),
        ({"sends": one_send(1, 5_000_000_000_000_000)}, "sends.sent_at, row 0"),
        ({"sends": one_send(1, START, delivered_at=-5)}, "sends.delivered_at, row 0"),
        (
            {"sends": one_send(1, START, template=3)},
            "sends.template, row 0: found 3, expected at least 0",
        ),
        ({"sends": one_send(1, START, user=-1)}, "sends.user, row 0"),
        ({"events": one_event(1, START, received_at=1 << 60)}, "events.received_at, row 0"),
        ({"events": one_event(1, START, name=1)}, "events.name, row 0"),
        ({"events": one_event(1, START, currency=0)}, "events.currency, row 0"),
        ({"events": one_event(1, START, kind=8)}, "events.kind, row 0"),
        ({"events": one_event(1 << 62, START)}, "events.event, row 0"),
    ],
)
def test_a_bad_row_is_refused_with_its_batch(rows: Any, message: str) -> None:
    reader = Reader(open_ledger(simple(Rule())))
    good = {"sends": one_send(1, START), "events": one_event(1, START + 4 * DAY)}
    with pytest.raises(DataError, match=message):
        reader.ledger.ingest(**good | rows)
    assert reader.ledger.memory().waiting == 0
    reader.ledger.ingest(**good)
    reader.settle(START + 5 * DAY)
    assert reader.sums() == {(0, 1): PARTS}


def test_settle_does_not_go_back_and_needs_a_time() -> None:
    go = open_ledger(simple(Rule()))
    go.settle(START)
    go.settle(START)
    with pytest.raises(UsageError, match="goes back"):
        go.settle(START - 1)
    with pytest.raises(DataError, match="1970"):
        go.settle(-1)
    with pytest.raises(UsageError, match="refund_horizon_days"):
        open_ledger(simple(Rule()), memory_days=10)


def test_money_beyond_int64_is_told_and_the_ledger_stops() -> None:
    go = open_ledger(simple(Rule()))
    go.ingest(one_send(1, START))
    for k in range(3):
        go.ingest(events=one_event(k, START + 4 * DAY, value=(1 << 62)))
    saved = go.save()
    with pytest.raises(DataError, match="exceeds"):
        go.settle(START + 5 * DAY)
    with pytest.raises(UsageError, match="load what was last saved"):
        go.settle(START + 5 * DAY)
    assert Ledger.load(saved, simple(Rule())).memory().waiting == 4


def test_what_load_refuses(tmp_path: Any) -> None:
    go = open_ledger(simple(Rule()))
    go.ingest(one_send(1, START))
    data = go.save(tmp_path / "ledger")
    assert (tmp_path / "ledger").read_bytes() == data
    assert Ledger.load(tmp_path / "ledger", simple(Rule())).save() == data
    with pytest.raises(UsageError, match="lookback_days=14, the rule given has 15"):
        Ledger.load(data, simple(Rule(lookback_days=15)))
    with pytest.raises(UsageError, match="bound to other goals"):
        Ledger.load(data, bind(Rule(), templates=["t"], names=["purchase", "signup"]))
    with pytest.raises(DataError, match="checksum"):
        Ledger.load(data[:-40] + b"x" + data[-39:], simple(Rule()))
    with pytest.raises(DataError, match="not a saved ledger"):
        Ledger.load(b"PK" + data, simple(Rule()))
    with pytest.raises(UsageError, match="cannot read"):
        Ledger.load(tmp_path / "none", simple(Rule()))
    with pytest.raises(UsageError, match="cannot write"):
        go.save(tmp_path / "no" / "where")
    body = data[:-32].replace(b'"version":1', b'"version":2')
    with pytest.raises(UsageError, match="saved as version 2; this program reads version 1"):
        Ledger.load(body + hashlib.sha256(body).digest(), simple(Rule()))

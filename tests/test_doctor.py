"""The doctor: every finding on a log with that fault planted, silence on clean ones, and no traceback on any."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import justai_sim as js
from justai_sim import stats
from justai_sim.checks import ratio, times
from justai_sim.checks.ages import EDGES as AGE_EDGES
from justai_sim.checks.ages import Ages
from justai_sim.checks.doctor import CHECKS
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import LEVEL, SEVERITIES, Finding
from justai_sim.checks.price import MORE_IS_NOT_BETTER, Prices
from justai_sim.cli import run
from justai_sim.clock import DAY, HOUR, MINUTE, MISSING, SECOND
from justai_sim.errors import UsageError
from justai_sim.tables import CLICK, CONVERSION, DELIVERY, HELD_OUT, OPEN, Log
from justai_sim.testing import strategies as small
from tests.doctor_logs import (
    DAYS,
    SHARES,
    T0,
    clean_log,
    more_events,
    named,
    with_events,
    with_sends,
    without_events,
    without_sends,
)
from tests.samples import samples

ROOT = Path(__file__).parents[1]
CLEAN_SEEDS = range(40)
Planted = tuple[Log, dict[str, Any]]


@pytest.fixture(scope="module")
def clean() -> Log:
    return clean_log(1)


def found(log: Log, **options: Any) -> dict[str, Finding]:
    """The findings by name, the first of each."""
    out: dict[str, Finding] = {}
    for f in js.doctor(log, **options).findings:
        out.setdefault(f.name, f)
    return out


# -- the faults ---------------------------------------------------------------------------------------


def no_conversions(log: Log) -> Planted:
    return without_events(log, log.events.kind == CONVERSION), {}


def wrong_event(log: Log) -> Planted:
    return named(log, "order_completed"), {"goals": ["Order Complete"]}


def goal_not_chosen(log: Log) -> Planted:
    some = np.flatnonzero(log.events.kind == CONVERSION)[:300]
    at = log.events.occurred_at[some] + 7 * HOUR
    more = more_events(log, some, name=np.ones(300, int), event=_new(log, 300), occurred_at=at, received_at=at)
    return named(more, "buy", "login"), {}


def other_spelling(log: Log) -> Planted:
    e = log.events
    return named(with_events(log, name=np.where(e.name == 0, np.arange(len(e)) % 2, -1)), "Purchase", "purchase"), {
        "goals": "purchase"
    }


def ids_do_not_match(log: Log) -> Planted:
    moved = np.where(log.events.kind == CONVERSION, log.events.user + 3000, log.events.user)
    return with_events(_more_users(log), user=moved), {}


def nothing_credited(log: Log) -> Planted:
    e = log.events
    at = np.where(e.kind == CONVERSION, T0 + np.arange(len(e)) * SECOND, e.occurred_at)
    return with_events(log, occurred_at=at, received_at=at), {}


def missing_users(log: Log) -> Planted:
    e = log.events
    return with_events(log, user=np.where((e.kind == CONVERSION) & (np.arange(len(e)) % 5 == 0), -1, e.user)), {}


def page_view_goal(log: Log) -> Planted:
    rng = np.random.default_rng(5)
    some = np.resize(np.flatnonzero(log.events.kind == CONVERSION), 60_000)
    n, hole = len(some), np.full(len(some), MISSING)
    at = T0 + rng.integers(0, DAYS * DAY, n)
    out = more_events(log, some, event=_new(log, n), occurred_at=at, received_at=at, value=hole,
                      user=rng.integers(0, 3000, n), name=np.ones(n, int))  # fmt: skip
    return named(out, "purchase", "seen"), {"goals": "seen"}


def restated_goal(log: Log) -> Planted:
    some = np.flatnonzero(log.events.kind == CONVERSION)
    at = log.events.occurred_at[some] + 5 * SECOND
    out = more_events(log, some, event=_new(log, len(some)), occurred_at=at, name=np.ones(len(some), int))
    return named(out, "campaign_conversion", "purchase"), {"goals": ["campaign_conversion", "purchase"]}


def twins(log: Log) -> Planted:
    some = np.flatnonzero(log.events.kind == CONVERSION)[::4]
    at = log.events.occurred_at[some] + 20 * SECOND
    return more_events(log, some, event=_new(log, len(some)), occurred_at=at, received_at=at), {}


def no_sends(log: Log) -> Planted:
    return without_sends(log, np.ones(len(log.sends), bool)), {}


def refused_rows(log: Log) -> Planted:
    return replace(log, rejects={"bad_time": 40}), {}


def too_early(log: Log) -> Planted:
    end = int(log.sends.sent_at.min()) + 2 * DAY
    out = without_events(without_sends(log, log.sends.received_at > end), log.events.received_at > end)
    some = np.arange(20)
    at = np.full(20, end - HOUR)
    bought = {"kind": np.full(20, CONVERSION, np.int8), "name": np.zeros(20, int), "send": np.full(20, -1)}
    return more_events(out, some, event=_new(log, 20), occurred_at=at, received_at=at, **bought), {}


def in_offset(log: Log) -> Planted:
    """One in three users buys a day after the first message."""
    s = log.sends
    early = np.flatnonzero((s.template == 0) & (s.status == 0))[::3]
    n, at = len(early), s.sent_at[early] + DAY
    bought = {"kind": np.full(n, CONVERSION, np.int8), "name": np.zeros(n, int), "send": np.full(n, -1)}
    some = np.resize(np.arange(len(log.events)), n)
    return more_events(log, some, event=_new(log, n), occurred_at=at, received_at=at, user=s.user[early], **bought), {}


def past_lookback(log: Log) -> Planted:
    return log, {"lookback_days": 6}


def silent(log: Log) -> Planted:
    e = log.events
    gap = (e.occurred_at > T0 + 25 * DAY) & (e.occurred_at < T0 + 28 * DAY)
    return without_events(log, (e.kind == OPEN) & gap), {}


def silent_to_the_end(log: Log) -> Planted:
    e = log.events
    return without_events(log, (e.kind == CLICK) & (e.occurred_at > T0 + 31 * DAY)), {}


def silent_from_the_start(log: Log) -> Planted:
    e = log.events
    return without_events(log, (e.kind == CONVERSION) & (e.occurred_at < T0 + 20 * DAY)), {}


def late(log: Log) -> Planted:
    e = log.events
    at = np.where(np.arange(len(e)) % 9 == 0, e.occurred_at + 9 * DAY, e.received_at)
    return with_events(log, received_at=at), {}


def late_import(log: Log) -> Planted:
    n, m = len(log.sends), len(log.events)
    at = T0 + 90 * DAY
    return with_events(with_sends(log, received_at=np.full(n, at)), received_at=np.full(m, at)), {}


def future(log: Log) -> Planted:
    e = log.events
    return with_events(log, received_at=np.where(np.arange(len(e)) % 9 == 0, e.occurred_at - HOUR, e.received_at)), {}


def wrong_unit(log: Log) -> Planted:
    s = log.sends
    return with_sends(log, sent_at=s.sent_at // 1_000_000, received_at=s.received_at // 1_000_000), {}


def time_shift(log: Log, hours: int = 6, since: int = 0) -> Planted:
    e, s = log.events, log.sends
    shift = np.where((e.kind <= CLICK) & (e.send >= 0) & (s.sent_at[np.maximum(e.send, 0)] >= since), hours * HOUR, 0)
    return with_events(log, occurred_at=e.occurred_at + shift, received_at=e.received_at + shift), {}


def time_shift_back(log: Log) -> Planted:
    return time_shift(log, -1)


def time_shift_in_summer(log: Log) -> Planted:
    return time_shift(log, 1, T0 + 25 * DAY)


def no_opens(log: Log) -> Planted:
    return without_events(log, _of_variant(log, OPEN, 1)), {}


def no_clicks(log: Log) -> Planted:
    return without_events(log, _of_variant(log, CLICK, 1)), {}


def no_clicks_of_a_template(log: Log) -> Planted:
    e, s = log.events, log.sends
    return without_events(log, (e.kind == CLICK) & (s.template[np.maximum(e.send, 0)] == 1)), {}


def no_conversions_of_a_variant(log: Log) -> Planted:
    users = np.unique(log.sends.user[log.sends.variant == 1])
    return without_events(log, (log.events.kind == CONVERSION) & np.isin(log.events.user, users)), {}


def sample_ratio(log: Log) -> Planted:
    lost = (log.sends.variant == 1) & (np.arange(len(log.sends)) % 6 == 0)
    return without_sends(log, lost), {}


def sample_ratio_of_the_split(log: Log) -> Planted:
    return with_sends(log, propensity=np.full(len(log.sends), np.nan)), {"split": {"a": 0.4, "b": 0.4, "control": 0.2}}


def a_variant_missing_for_days(log: Log) -> Planted:
    at = log.sends.sent_at
    return without_sends(log, (log.sends.variant == 1) & (at > T0 + 20 * DAY) & (at < T0 + 30 * DAY)), {}


def several_arms(log: Log) -> Planted:
    return with_sends(log, template=np.zeros(len(log.sends), int)), {}


def holdout_reached(log: Log) -> Planted:
    s = log.sends
    return with_sends(log, status=np.where((s.status == HELD_OUT) & (s.template == 0), 0, s.status)), {}


def copies(log: Log) -> Planted:
    return more_events(log, np.arange(0, len(log.events), 7)), {}


def shared_send_ids(log: Log) -> Planted:
    return with_sends(log, send=log.sends.send // 2 * 2), {}


def two_variants(log: Log) -> Planted:
    more = log.sends.take(np.arange(50))
    return replace(log, sends=type(more).concat([log.sends, more.with_(variant=(more.variant + 1) % 3)])), {}


def shared_event_ids(log: Log) -> Planted:
    clicks = np.flatnonzero(log.events.kind == CLICK)[:100]
    event = log.events.event.copy()
    for row in clicks:
        mine = np.flatnonzero((log.events.kind == OPEN) & (log.events.send == log.events.send[row]))
        event[row] = event[mine[0]]
    return with_events(log, event=event), {}


def shared_event_ids_of_conversions(log: Log) -> Planted:
    """The shop's customer id as event id: all purchases of a customer have one."""
    e, some = log.events, np.flatnonzero(log.events.kind == CONVERSION)[:200]
    event = e.event.copy()
    event[some] = int(e.event.max()) + 1 + e.user[some]
    log = with_events(log, event=event)
    at = e.occurred_at[some] + 5 * DAY
    return more_events(log, some, occurred_at=at, received_at=at), {}


def shared_event_ids_of_amounts(log: Log) -> Planted:
    some = np.flatnonzero(log.events.kind == CONVERSION)[:200]
    return more_events(log, some, value=log.events.value[some] + 1_000_000), {}


def event_ids_of_several_users(log: Log) -> Planted:
    some = np.flatnonzero(log.events.kind == CONVERSION)[:200]
    return more_events(_more_users(log), some, user=log.events.user[some] + 3000), {}


def repeated_send_ids(log: Log) -> Planted:
    more = log.sends.take(np.flatnonzero(log.sends.sent_at < T0 + 20 * DAY)[:100])
    more = more.with_(sent_at=more.sent_at + 7 * DAY, received_at=more.received_at + 7 * DAY)
    return replace(log, sends=type(more).concat([log.sends, more])), {}


def machine_opens(log: Log) -> Planted:
    e = log.events
    return with_events(log, machine=np.where((e.kind == OPEN) & (np.arange(len(e)) % 3 == 0), 1, e.machine)), {}


def machine_clicks(log: Log) -> Planted:
    e = log.events
    return with_events(log, machine=np.where((e.kind == CLICK) & (np.arange(len(e)) % 3 == 0), 1, e.machine)), {}


def fast_opens(log: Log) -> Planted:
    e, s = log.events, log.sends
    fast = (e.kind == OPEN) & (np.arange(len(e)) % 3 == 0)
    return with_events(log, occurred_at=np.where(fast, s.sent_at[np.maximum(e.send, 0)] + SECOND, e.occurred_at)), {}


def fast_clicks(log: Log) -> Planted:
    e, s = log.events, log.sends
    fast = (e.kind == CLICK) & (np.arange(len(e)) % 3 == 0)
    return with_events(log, occurred_at=np.where(fast, s.sent_at[np.maximum(e.send, 0)] + SECOND, e.occurred_at)), {}


def bounced(log: Log) -> Planted:
    s = log.sends
    return with_sends(log, status=np.where((s.status == 0) & (np.arange(len(s)) % 8 == 0), 1, s.status)), {}


def undelivered(log: Log) -> Planted:
    return without_events(log, (log.events.kind == DELIVERY) & (np.arange(len(log.events)) % 8 == 0)), {}


def unknown_sends(log: Log) -> Planted:
    return without_sends(log, log.sends.sent_at < T0 + 12 * DAY), {}


def _new(log: Log, n: int) -> Any:
    return int(log.events.event.max()) + 1 + np.arange(n)


def _more_users(log: Log) -> Log:
    from justai_sim.tables import MadeCodes

    return replace(log, codes={**log.codes, "user": MadeCodes.of("u%07d", 6000)})


def _of_variant(log: Log, kind: int, variant: int) -> Any:
    e, s = log.events, log.sends
    at = np.maximum(e.send, 0)
    return (e.kind == kind) & (s.variant[at] == variant) & (s.template[at] == 0)


FAULTS: dict[str, tuple[Callable[[Log], Planted], str]] = {
    "no_conversions": (no_conversions, "wrong"),
    "wrong_event": (wrong_event, "wrong"),
    "goal_not_chosen": (goal_not_chosen, "note"),
    "other_spelling": (other_spelling, "wrong"),
    "ids_do_not_match": (ids_do_not_match, "wrong"),
    "nothing_credited": (nothing_credited, "wrong"),
    "missing_users": (missing_users, "doubtful"),
    "page_view_goal": (page_view_goal, "doubtful"),
    "restated_goal": (restated_goal, "wrong"),
    "twins": (twins, "doubtful"),
    "no_sends": (no_sends, "wrong"),
    "refused_rows": (refused_rows, "doubtful"),
    "too_early": (too_early, "note"),
    "in_offset": (in_offset, "doubtful"),
    "past_lookback": (past_lookback, "note"),
    "silent": (silent, "wrong"),
    "silent (to the end)": (silent_to_the_end, "wrong"),
    "silent (from the start)": (silent_from_the_start, "wrong"),
    "late": (late, "wrong"),
    "late (import)": (late_import, "wrong"),
    "future": (future, "wrong"),
    "wrong_unit": (wrong_unit, "wrong"),
    "time_shift": (time_shift, "wrong"),
    "time_shift (back)": (time_shift_back, "wrong"),
    "time_shift (summer)": (time_shift_in_summer, "wrong"),
    "variant_without_opens": (no_opens, "wrong"),
    "variant_without_clicks": (no_clicks, "wrong"),
    "variant_without_clicks (template)": (no_clicks_of_a_template, "doubtful"),
    "variant_without_conversions (variant)": (no_conversions_of_a_variant, "wrong"),
    "sample_ratio": (sample_ratio, "wrong"),
    "sample_ratio (split)": (sample_ratio_of_the_split, "wrong"),
    "sample_ratio (days)": (a_variant_missing_for_days, "wrong"),
    "several_arms": (several_arms, "note"),
    "holdout_reached": (holdout_reached, "wrong"),
    "copies": (copies, "note"),
    "shared_send_ids": (shared_send_ids, "wrong"),
    "two_variants": (two_variants, "wrong"),
    "shared_event_ids": (shared_event_ids, "wrong"),
    "shared_event_ids (conversions)": (shared_event_ids_of_conversions, "wrong"),
    "shared_event_ids (amounts)": (shared_event_ids_of_amounts, "wrong"),
    "event_ids_of_several_users": (event_ids_of_several_users, "doubtful"),
    "repeated_send_ids": (repeated_send_ids, "wrong"),
    "machine_opens": (machine_opens, "note"),
    "machine_clicks": (machine_clicks, "note"),
    "fast_opens": (fast_opens, "doubtful"),
    "fast_clicks": (fast_clicks, "doubtful"),
    "bounced": (bounced, "doubtful"),
    "undelivered": (undelivered, "doubtful"),
    "unknown_sends": (unknown_sends, "doubtful"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_a_clean_log_has_none_of_it(fault: str, clean: Log) -> None:
    plant, severity = FAULTS[fault]
    name = fault.partition(" ")[0]
    assert name not in found(clean)
    log, options = plant(clean)
    got = found(log, **options)
    assert name in got, list(got)
    f = got[name]
    assert f.severity == severity
    assert f.sentence.endswith(".")
    assert f.next_step.endswith(".")
    assert f.numbers
    assert any(c.isdigit() for c in f.sentence), "the number behind it"


@pytest.mark.parametrize(
    ("fault", "others"),
    [
        ("variant_without_clicks", set()), ("sample_ratio", {"unknown_sends"}), ("time_shift", set()),
        ("silent", set()),
        ("twins", set()), ("in_offset", set()), ("machine_opens", set()), ("undelivered", set()), ("copies", set()),
    ],
)  # fmt: skip
def test_a_fault_raises_no_other_finding(fault: str, others: set[str], clean: Log) -> None:
    log, options = FAULTS[fault][0](clean)
    assert set(found(log, **options)) <= {fault} | others


def test_what_is_lost_by_a_shared_id_is_counted_and_is_no_copy(clean: Log) -> None:
    got = found(shared_event_ids_of_conversions(clean)[0])
    assert "copies" not in got
    f = got["shared_event_ids"]
    assert f.numbers["events"] == f.numbers["conversions"] >= 200
    got = found(shared_event_ids_of_amounts(clean)[0])
    assert "copies" not in got
    assert got["shared_event_ids"].numbers == {"events": 200, "conversions": 200, "ids": 200}
    assert "200 events have the id of another event" in got["shared_event_ids"].sentence
    assert "(200 'purchase')" in got["shared_event_ids"].sentence
    assert "copies" not in found(repeated_send_ids(clean)[0])
    # A retry with the clock of another door, or without the amount, is a copy all the same.
    some = np.flatnonzero(clean.events.kind == CONVERSION)[:200]
    at, hole = clean.events.occurred_at[some] + 30 * SECOND, np.full(200, MISSING)
    got = found(more_events(clean, some, occurred_at=at, value=hole))
    assert set(got) == {"copies"}
    assert got["copies"].numbers["events"] == 200


def test_every_finding_of_the_code_has_a_fault_and_a_line_in_the_docs() -> None:
    source = "\n".join(p.read_text() for p in (ROOT / "justai_sim" / "checks").glob("*.py"))
    names = set(re.findall(r'Finding\(\s*f?"([a-z_]+)"', source))
    made = re.findall(r'Finding\(\s*f"([a-z_]+)_\{\w+\}s"', source)
    names |= {f"{m}_{k}s" for m in made for k in ("open", "click")}
    tested = {f.partition(" ")[0] for f in FAULTS}
    assert names <= tested, names - tested
    page = (ROOT / "docs" / "doctor.md").read_text()
    assert all(f"`{name}`" in page for name in tested), [n for n in tested if f"`{n}`" not in page]


# -- silence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [40, 400, 3000])
def test_clean_logs_of_any_size_raise_nothing(users: int) -> None:
    for seed in CLEAN_SEEDS:
        got = js.doctor(clean_log(seed, users))
        assert not got.findings, (seed, got.findings)


@pytest.mark.slow
@pytest.mark.parametrize("users", [60, 300, 3000])
def test_false_alarms_are_rarer_than_one_in_a_thousand(users: int) -> None:
    """The level is 10^-4 a check that tests for chance: of 1,000 clean logs about one may raise something."""
    raised = sum(bool(js.doctor(clean_log(seed, users)).findings) for seed in range(1000, 2000))
    assert raised <= 5


@pytest.mark.slow
def test_a_million_sends_take_seconds() -> None:
    log, _ = in_offset(clean_log(1, users=510_000))
    start = time.perf_counter()
    js.doctor(log)
    assert time.perf_counter() - start < 60  # 4 to 9 s on two busy cores


def test_campaign_days_nights_and_weekends_are_no_silence() -> None:
    """All sends on Mondays at nine; nobody responds before seven, and nobody buys at weekends."""
    for seed in range(12):
        got = js.doctor(_campaigns(clean_log(seed)))
        assert not [f for f in got.findings if f.severity != "note"], (seed, got.findings)


@pytest.mark.parametrize("every", [4, 20])
def test_sends_that_are_missing_from_a_campaign_that_is_over_are_no_silence(every: int) -> None:
    """Responses to them come late after the user's latest known send: no reason to expect any after the last one."""
    for seed in range(3):
        log = _over(clean_log(seed, users=20_000, background=0.001))
        assert "silent" not in found(log)
        log = without_sends(log, np.random.default_rng(seed).random(len(log.sends)) < 1 / every)
        assert set(found(log)) - {"past_lookback"} == {"unknown_sends"}
        e = log.events
        gap = (e.occurred_at > T0 + 20 * DAY) & (e.occurred_at < T0 + 22 * DAY)
        assert found(without_events(log, (e.kind == OPEN) & gap))["silent"].numbers["stream"] == "opens"


def test_purchases_that_begin_some_days_after_the_first_message_are_no_silence() -> None:
    """Second messages meet the late purchases of first ones at once; at the start of a log there are none of them."""
    for seed in range(3):
        assert not found(_over(clean_log(seed, users=20_000, effect=0.3, background=0)))


def _over(log: Log) -> Log:
    """The log of those users whose sends are all in its first 26 days."""
    s = log.sends
    late = np.unique(s.user[s.sent_at > T0 + 26 * DAY])
    return without_events(without_sends(log, np.isin(s.user, late)), np.isin(log.events.user, late))


def _campaigns(log: Log) -> Log:
    rng = np.random.default_rng(9)
    s, e = log.sends, log.events
    moved = T0 + (s.sent_at - T0) // (7 * DAY) * 7 * DAY + 9 * HOUR - s.sent_at
    back = np.where(e.send >= 0, moved[np.maximum(e.send, 0)], 0)
    at = e.occurred_at + back
    night = (e.kind <= CLICK) & (at % DAY < 7 * HOUR)
    at = np.where(night, at - at % DAY + 7 * HOUR + rng.integers(0, 3 * HOUR, len(at)), at)
    weekday = (at // DAY + 3) % 7
    at = np.where((e.kind == CONVERSION) & (weekday >= 5), at + (7 - weekday) * DAY, at)
    sent = s.sent_at + moved
    return with_events(
        with_sends(log, sent_at=sent, received_at=sent + SECOND), occurred_at=at, received_at=at + SECOND
    )


def test_a_declared_split_that_was_kept_raises_nothing() -> None:
    for seed in range(20):
        log = clean_log(seed)
        log = without_sends(log, log.sends.status == HELD_OUT)
        log = with_sends(log, propensity=np.full(len(log.sends), np.nan))
        assert "sample_ratio" not in found(log, split=SHARES)


def test_the_chance_of_a_sample_ratio_is_a_chance() -> None:
    """Shares that change within the day, users who keep their variant: p is below 0.05 in about one world of twenty."""
    rng = np.random.default_rng(3)
    low, worlds = 0, 0
    for world in range(300):
        n = 3000
        user = np.sort(rng.integers(0, 1000, n))
        day = rng.integers(0, 5, n)
        kept = world % 2 == 0
        share = np.full(n, 0.3) if kept else rng.choice([0.1, 0.3, 0.6], n)
        draw = rng.random(1000)[user] if kept else rng.random(n)
        variant = np.where(draw < share, 1, 0)
        p = np.where(variant == 1, share, 1 - share)
        d = ratio.logged(user, np.zeros(n, int), variant, day, p)
        some = np.ones(len(d.where), bool)
        c = ratio.counts(d, some, d.which)[1]
        spread = ratio._design(d, d.which == 1) * float((d.meant * (1 - d.share) * d.uneven)[d.which == 1].sum())
        chance = ratio._chance(c.found, c.expected, spread)
        low, worlds = low + (chance < 0.05), worlds + 1
    spread = np.sqrt(0.05 * 0.95 * worlds)
    assert abs(low - 0.05 * worlds) < 4 * spread, low


def test_a_thin_log_of_many_templates_is_looked_at_as_a_whole() -> None:
    rng = np.random.default_rng(4)
    n = 20_000
    template, day, variant = rng.integers(0, 100, n), rng.integers(0, 60, n), rng.integers(0, 2, n)
    p = np.full(n, 0.5)
    d = ratio.logged(np.arange(n), template, variant, day, p)
    assert len(d.total) == 100
    every = ratio.counts(d, d.meant >= ratio.LIKELY, d.which)
    assert all(c.chance > LEVEL for c in every.values())
    keep = (variant == 0) | (rng.random(n) > 0.1)
    d = ratio.logged(np.arange(n)[keep], template[keep], variant[keep], day[keep], p[keep])
    assert ratio.counts(d, d.meant >= ratio.LIKELY, d.which)[1].chance < LEVEL
    p = np.where(day < 30, 0.4, 0.5)  # shares that changed stay by day
    assert len(ratio.logged(np.arange(n), template, variant, day, p).total) > 5000


# -- what it says -------------------------------------------------------------------------------------


def test_more_credited_is_not_better_is_said_first_with_its_price(clean: Log) -> None:
    log, options = in_offset(clean)
    got = js.doctor(log, **options)
    f = next(f for f in got.findings if f.name == "in_offset")
    assert f.sentence.startswith(MORE_IS_NOT_BETTER)
    assert str(got).startswith(MORE_IS_NOT_BETTER)
    base = js.replay(log, goals=["purchase"]).attribution.reasons()
    for days in (0, 1):
        n = js.replay(log, goals=["purchase"], offset_days=days).attribution.reason
        credited = int(((n == js_reason("credited")) & (log.events.kind == CONVERSION)).sum())
        start = int(((js.replay(log, goals="purchase").attribution.reason == js_reason("credited"))
                     & (log.events.kind == CONVERSION)).sum())  # fmt: skip
        assert f.numbers[f"offset_{days}_more"] == credited - start
        assert f"Offset {days} would give {credited - start:,} more (background about" in f.sentence
        assert f.numbers[f"offset_{days}_sends_needed_per_variant"]
    assert f.numbers["conversions"] == base["in_offset"]
    assert f.numbers["in_use_background_source"] == "holdout"


def js_reason(name: str) -> int:
    from justai_sim.tables import REASON

    return REASON[name]


@pytest.mark.parametrize(
    ("holdout", "history", "source"), [(True, 1, "holdout"), (False, 1, "before"), (False, 0, "unknown")]
)
def test_the_background_share_is_the_truth(holdout: bool, history: int, source: str) -> None:
    """Known by construction: a share of the credited conversions is organic; without history it is unknown."""
    log = clean_log(7, users=12_000, effect=0.05, background=0.004)
    if not holdout:
        log = without_sends(log, log.sends.status == HELD_OUT)
    if not history:
        first = np.full(12_000, T0 + 99 * DAY)
        np.minimum.at(first, log.sends.user, log.sends.sent_at)
        e = log.events
        log = without_events(log, (e.kind == CONVERSION) & (e.occurred_at < first[e.user]))
    facts = Facts(log, js.Rule(), ["purchase"], ["purchase"], int(log.events.received_at.max()))
    price = Prices(facts).of()
    assert price.source == source
    if source == "unknown":
        assert price.background is None
        assert price.numbers()["background_share"] == "unknown"
        assert price.words().startswith("background unknown; ")
        return
    # Days 3 to 14 after each of two messages 6 days apart, cut at the end of the log: 17 days a user at most.
    s = log.sends
    real = s.take(s.status != HELD_OUT)
    first = np.unique(real.user, return_index=True)[1]
    days = np.minimum(real.sent_at[first] + 20 * DAY, T0 + DAYS * DAY) - real.sent_at[first] - 3 * DAY
    organic = 0.004 * float(np.maximum(days, 0).sum()) / DAY
    assert price.background == pytest.approx(organic / price.credited, rel=0.15)


def test_every_part_of_the_report_is_there(clean: Log) -> None:
    got = js.doctor(clean)
    assert "Found: nothing." in str(got)
    assert set(got.clean) | {u.name for u in got.unchecked} >= set(CHECKS) - {"silence", "quiet variants"}
    log = with_sends(clean, propensity=np.full(len(clean.sends), np.nan))
    text = str(js.doctor(log))
    assert "not checked: sample ratio (the log has no propensities; say what was meant with --split" in text
    order = [SEVERITIES.index(f.severity) for f in js.doctor(*[unknown_sends(clean)[0]], lookback_days=6).findings]
    assert order == sorted(order)


def test_many_findings_of_one_name_are_shortened_in_the_text(clean: Log) -> None:
    one = js.doctor(no_clicks(clean)[0])
    f = next(f for f in one.findings if f.name == "variant_without_clicks")
    text = str(replace(one, findings=[f] * 12))
    assert text.count("WRONG variant_without_clicks") == 5
    assert "and 7 more of variant_without_clicks" in text


def test_the_commands_of_the_page_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    commands = re.findall(r"^justai-sim (doctor .*)$", page, re.M)
    assert len(commands) >= 2
    for command in commands:
        code, text, _ = cli(capsys, *command.split(), "--help")
        assert code == 0
        assert all(word in text for word in command.split() if word.startswith("--"))


def test_names_from_a_log_reach_no_terminal_and_no_page_raw(clean: Log) -> None:
    log, _ = no_clicks(clean)
    from justai_sim.tables import TextCodes

    evil = ["a", "\x1b[31m<script>alert(1)</script>", "control", "held_out"]
    log = replace(log, codes={**log.codes, "variant": TextCodes(evil)})
    got = js.doctor(log)
    assert any("script" in f.sentence for f in got.findings)
    assert "\x1b" not in str(got)
    assert "<script>" not in got._repr_html_()
    assert got.frame["finding"].tolist() == [f.name for f in got.findings]


def test_the_kind_of_a_shift_is_told(clean: Log) -> None:
    for hours in (-5, -1, 1, 6, 11):
        f = found(time_shift(clean, hours)[0])["time_shift"]
        assert f.numbers["hours"] == hours
    f = found(time_shift_in_summer(clean)[0])["time_shift"]
    assert f.numbers["hours"] == 1
    assert str(f.numbers["from"]) >= "2026-01-26"


@given(st.lists(st.integers(0, 200 * 60), min_size=1, max_size=60), st.sampled_from(times.SHIFTS))
def test_a_shift_is_never_seen_where_delays_start_at_once(minutes: list[int], k: int) -> None:
    delay = np.array([0, *minutes]) * MINUTE
    assert len(delay) > 50 or times.shift_of(delay, (k,), LEVEL) == 0


def test_ages_agree_with_a_count_by_hand() -> None:
    rng = np.random.default_rng(2)
    user, at = rng.integers(0, 5, 40), T0 + rng.integers(0, 400, 40) * HOUR
    end = T0 + 500 * HOUR
    ages = Ages.of(user, at, end)
    edges = np.array([0, 10, 100, 1000]) * HOUR
    by_hand, when = np.zeros(3), T0 + np.arange(0, 500) * HOUR + 30 * MINUTE
    for u in range(5):
        mine = at[user == u]
        for t in when:
            before = mine[mine <= t]
            if len(before):
                by_hand[np.searchsorted(edges, t - before.max(), side="right") - 1] += 1 / 24
    assert ages.exposure(edges.astype(float)) == pytest.approx(by_hand)
    for u, t in zip(rng.integers(-1, 6, 50).tolist(), rng.choice(when, 50).tolist(), strict=True):
        before = at[(user == u) & (at <= t)]
        assert ages.since(np.array([u]), np.array([t]))[0] == (t - before.max() if len(before) else -1)
    flat = np.full(len(AGE_EDGES) - 1, 2.0)
    covered = sum((at[user == u] <= t).any() for u in range(5) for t in when[100:300])
    assert ages.expected(flat, T0 + 100 * HOUR, T0 + 300 * HOUR) == pytest.approx(2 * covered / 24)


def test_trials_needed_find_the_difference_four_times_in_five() -> None:
    n = int(stats.trials_needed(0.05, 0.06))
    rng = np.random.default_rng(1)
    y = rng.binomial(n, [[0.05], [0.06]], (2, 20_000))
    _, p = stats.two_proportion_z(y[0], n, y[1], n)
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.015)


@given(st.integers(0, 40), st.integers(0, 60), st.integers(0, 40), st.integers(0, 60))
def test_fewer_by_chance_is_fishers_test(y: int, more: int, others_y: int, others_more: int) -> None:
    from scipy.stats import hypergeom

    n, m = y + more, others_y + others_more
    expected = hypergeom.cdf(y, n + m, y + others_y, n) if n + m else 1.0
    assert stats.fewer_by_chance(y, n, others_y, m) == pytest.approx(expected, abs=1e-9)


# -- any log, any way in ------------------------------------------------------------------------------


@given(small.logs(features="all", goals=("purchase", "sign_up")), small.rules())
def test_no_log_with_faults_and_no_rule_raises(log: Any, rule: js.Rule) -> None:
    got = js.doctor(log.log, rule=rule)
    assert str(got).startswith(MORE_IS_NOT_BETTER)
    assert got._repr_html_()
    assert all(f.sentence and f.next_step for f in got.findings)


@given(small.logs(features="all"), st.sampled_from(["purchase", "page_view", "Purchase", "nothing at all", ""]))
def test_no_goal_raises(log: Any, goal: str) -> None:
    got = js.doctor(log.log, goals=[goal] if goal else [])
    assert len(got.findings) + len(got.unchecked) + len(got.clean) >= len(CHECKS) - 2


def test_empty_tables() -> None:
    empty = clean_log(0, users=20)
    empty = without_events(without_sends(empty, np.ones(len(empty.sends), bool)), np.ones(len(empty.events), bool))
    assert {"no_sends", "no_conversions"} <= set(found(empty))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": {"contrl": 0.5, "a": 0.5}}, "did you mean 'control'"),
        ({"split": {"control": 0.5, "a": 0.4}}, "add up to 0.9"),
        ({"split": {"control": 0, "a": 1}}, "expected a number above 0"),
        ({"control": "contrl"}, "did you mean 'control'"),
        ({"credits": "linear"}, "did you mean 'credit'"),
        ({"rule": "naive"}, "expected a Rule"),
    ],
)
def test_wrong_calls(clean: Log, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        js.doctor(clean, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain log on disk with a quiet variant."""
    from justai_sim import frames

    out = tmp_path_factory.mktemp("plain")
    log, _ = no_clicks(clean_log(1, users=1500))
    for table in ("sends", "events"):
        frames.to_frame(log, table).to_parquet(out / f"{table}.parquet", index=False)
    return out


def cli(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = run([str(a) for a in argv])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def test_the_command(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    code, text, err = cli(capsys, "doctor", folder, "--out", tmp_path / "out")
    assert code == 0, err
    assert text.startswith(MORE_IS_NOT_BETTER)
    assert "WRONG variant_without_clicks: Variant 'b' of 't1'" in text
    assert "(the last receipt); goal: 'purchase'" in err
    assert all(len(line) <= 110 for line in text.splitlines())
    assert (tmp_path / "out" / "doctor.txt").read_text() == text
    code, out, _ = cli(
        capsys, "doctor", folder, "--json", "--set", "lookback_days=7", "--split", "a=0.9,b=0.05,control=0.05"
    )
    got = json.loads(out)
    assert code == 0
    assert got["schema_version"] == 1
    assert got["rule"]["lookback_days"] == 7
    names = [f["name"] for f in got["findings"]]
    assert {"variant_without_clicks", "sample_ratio", "past_lookback"} <= set(names)
    written = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert written["kind"] == "doctor"
    assert written["findings"][0]["severity"] == "wrong"


def test_the_command_goes_on_where_the_goal_is_misspelt(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, text, _ = cli(capsys, "doctor", folder, "--goal", "Purchases")
    assert code == 0
    assert "No event is called 'Purchases'. Present, nearest first: 'purchase'" in text


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--control", "contrl"], 2, "did you mean 'control'"),
        (["--split", "contrl=0.5,a=0.5"], 2, "did you mean 'control'"),
        (["--split", "control:0.5"], 2, "expected variant=share"),
        (["--split", "a=0.5,a=0.5"], 2, "twice"),
        (["--set", "credit=liner"], 2, "did you mean 'linear'"),
        (["--preset", "defalt"], 2, "did you mean 'default'"),
        (["--as-of", "2026-01-12"], 2, "--timezone"),
        (["--esp", "braz"], 2, "did you mean 'braze'"),
        (["--golas", "x"], 2, "goal"),
    ],
)
def test_wrong_options(
    capsys: pytest.CaptureFixture[str], folder: Path, argv: list[str], code: int, message: str
) -> None:
    got, out, err = cli(capsys, "doctor", folder, *argv)
    assert got == code, err
    assert message in err
    assert out == ""


def test_wrong_places(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    code, _, err = cli(capsys, "doctor", folder.with_name(folder.name + "x"))
    assert code == 3
    assert "did you mean" in err
    code, _, err = cli(capsys, "doctor", tmp_path)
    assert code == 3
    assert "name its --esp" in err
    code, _, err = cli(capsys, "doctor", folder, "--out", folder)
    assert code == 2
    assert "holds a log" in err


@pytest.mark.parametrize("esp", ["braze", "customerio", "iterable", "segment", "sfmc"])
def test_samples_of_providers(capsys: pytest.CaptureFixture[str], esp: str) -> None:
    code, text, err = cli(capsys, "doctor", samples(esp), "--esp", esp)
    assert code == 0, err
    assert text.startswith(MORE_IS_NOT_BETTER)


def test_conversions_that_name_nobody(clean: Log) -> None:
    """The step to take is to send the user, not to make two kinds of ids agree."""
    nobody = with_events(clean, user=np.full(len(clean.events), -1), send=np.full(len(clean.events), -1))
    assert "send the user id" in found(nobody)["nothing_credited"].next_step
    unchecked = {u.name: u.why for u in js.doctor(nobody).unchecked}
    assert unchecked["ids of both sides"] == "fewer than 10 goal conversions name a user"

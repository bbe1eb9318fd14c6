"""The doctor: every finding on a log with that fault planted, silence on clean ones, and no traceback on any."""

from __future__ import annotations

import json
import re
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
from justai_sim.checks.doctor import CHECKS, Diagnosis
from justai_sim.checks.finding import LEVEL, SEVERITIES, Finding, at_least
from justai_sim.checks.price import MORE_IS_NOT_BETTER
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
    more = more_events(log, some, name=np.ones(300, int), event=_new(log, 300), occurred_at=at)
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

    return replace(log, codes={**log.codes, "user": MadeCodes("u{:07}".format, 6000)})


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
    "late": (late, "wrong"),
    "late (import)": (late_import, "wrong"),
    "future": (future, "wrong"),
    "wrong_unit": (wrong_unit, "wrong"),
    "time_shift": (time_shift, "wrong"),
    "time_shift (back)": (time_shift_back, "wrong"),
    "time_shift (summer)": (time_shift_in_summer, "wrong"),
    "variant_without_opens": (no_opens, "wrong"),
    "variant_without_clicks": (no_clicks, "wrong"),
    "variant_without_clicks (template)": (no_clicks_of_a_template, "wrong"),
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


def test_every_finding_of_the_code_has_a_fault_and_a_line_in_the_docs() -> None:
    source = "\n".join(p.read_text() for p in (ROOT / "justai_sim" / "checks").glob("*.py"))
    names = set(re.findall(r'Finding\(\s*f?"([a-z_]+)"', source))
    made = re.findall(r'Finding\(\s*f"([a-z_]+)_\{\w+\}s"', source)
    names |= {f"{m}_{k}s" for m in made for k in ("open", "click")}
    tested = {f.partition(" ")[0] for f in FAULTS}
    assert names <= tested, names - tested
    page = (ROOT / "docs" / "doctor.md").read_text()
    assert all(f"`{name}`" in page for name in tested), [n for n in tested if f"`{n}`" not in page]

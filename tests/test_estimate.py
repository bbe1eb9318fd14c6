"""Metrics, age profiles and window surfaces against plain recomputation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.attribution import attribute, bind
from justai_sim.attribution.rule import Rule
from justai_sim.clock import DAY, MISSING
from justai_sim.errors import DataError
from justai_sim.estimate.age import FIRST_AGE, LAST_AGE, age_profile
from justai_sim.estimate.metrics import ALL, HELD_OUT, capped_revenue, metrics_table
from justai_sim.estimate.windows import window_counts
from justai_sim.tables import CLICK, CONVERSION, PARTS, REASON, Events, Log, Sends
from tests.strategies import cases, logs, to_log


def bound_of(rule: Rule, log: Log, goals: Any) -> Any:
    texts = {"templates": log.names("template"), "names": log.names("name"), "currencies": log.names("currency")}
    return bind(rule, goals=goals, **texts)


@given(cases())
def test_metrics_are_sums_over_the_outcomes(case: Any) -> None:
    rule, sends, events, goals, as_of = case
    log = to_log(sends, events)
    bound = bound_of(rule, log, goals)
    got = attribute(bound, log.sends, log.events, as_of)
    rows = metrics_table(log, bound, got)
    o = got.outcomes
    for row in rows[:-1]:
        here = np.array(log.text("template", log.sends.template[o.send_row])) == row["template_id"]
        variant = np.array(log.text("variant", log.sends.variant[o.send_row]), dtype=object)
        variant[o.ghost] = HELD_OUT
        here &= variant == row["variant_id"]
        use = here & o.reached & (o.anchor != MISSING)
        assert row["sends"] == use.sum()
        assert row["mature_sends"] == (use & got.mature()).sum()
        assert row["conversions"] == pytest.approx(o.numerator[use].sum() / PARTS)
        assert row["revenue"] == pytest.approx(o.revenue[use].sum() / 1e6)
        assert row["opens"] == o.opens[here & o.reached].sum()
        if row["variant_id"] == HELD_OUT:
            assert row["open_rate"] is None
        for rate in ("open_rate", "click_rate", "conversion_rate", "unsubscribe_rate"):
            if row[rate] is not None and row[f"{rate}_low"] is not None:
                assert row[f"{rate}_low"] <= row[rate] + 1e-9
                assert row[rate] <= row[f"{rate}_high"] + 1e-9
        if row["sends"] == 0:
            assert row["conversion_rate"] is None
    last = rows[-1]
    assert last["template_id"] == ALL
    counts = np.zeros(len(log.sends), bool)
    counts[o.send_row] = ~o.ghost & o.reached & (o.anchor != MISSING)
    credited = np.unique(got.credits.event_row[counts[got.credits.send_row]])
    credited = credited[(log.events.kind[credited] == CONVERSION) & (got.reason[credited] == REASON["credited"])]
    assert last["conversion_count"] <= len(credited) + 1e-6
    if rule.anchor == "sent" and not o.ghost.any():  # else a ghost may have a part of an event
        assert last["conversion_count"] == pytest.approx(len(credited), abs=1e-6)
    assert last["conversions"] <= last["conversion_count"] + 1e-6
    assert last["sends"] == sum(r["sends"] for r in rows[:-1] if r["variant_id"] != HELD_OUT)
    if rule.repeat != "every" and last["conversion_rate_low"] is not None:
        assert 0 <= last["conversion_rate_low"] <= last["conversion_rate"] + 1e-9 <= 1 + 2e-9


READINGS: list[dict[str, Any]] = [
    {},
    {"scope": "org"},
    {"explicit": "ignore"},
    {"anchor": "delivered"},
    {"credit": "all"},
    {"credit": "linear"},
    {"credit": "first_qualifying"},
    {"bounds": "[]"},
    {"repeat": "every"},
    {"cap": 15.0},
    {"cap_quantile": 0.5, "credit": "all"},
    {"denominator": "sends"},
    {"denominator": "sends", "anchor": "delivered", "cap": 12.5},
    {"denominator": "users"},
    {"denominator": "users", "repeat": "every", "credit": "linear", "cap": 15.0},
    {"repeat": "every", "credit": "linear"},
    {"repeat": "once_per_user"},
    {"repeat": "once_per_user", "credit": "all_variants"},
    {"repeat": "once_per_user", "lookback_from": "offset_end"},
    {"bounds": "(]"},
    {"lookback_from": "offset_end"},
    {"day_rule": "calendar", "bounds": "[]", "tz": "America/New_York"},
    {"explicit": "window_then_join"},
    {"explicit": "trust"},
]


@given(logs(), st.sampled_from(READINGS))
def test_a_window_surface_equals_separate_attributions(case: Any, reading: dict[str, Any]) -> None:
    sends, events, goals, _ = case
    log = to_log(sends, events)
    if not len(log.sends):
        return
    as_of = int(max(log.sends.received_at.max(), *(log.events.received_at.tolist() or [0]))) + 20 * DAY
    offsets, lookbacks = (0.0, 1.0, 3.0), (1.0, 2.5, 7.0, 14.0)
    bound = bound_of(Rule(**reading), log, goals)
    variants = len(log.names("variant"))
    group = np.zeros(len(log.sends), np.int64)
    got = window_counts(bound, log.sends, log.events, as_of, offsets, lookbacks, group, log.sends.variant, 1, variants)
    weight = np.random.default_rng(len(sends)).uniform(0.5, 2, len(log.sends))
    weighted = window_counts(
        bound, log.sends, log.events, as_of, offsets, lookbacks, group, log.sends.variant, 1, variants, weight
    )
    for i, offset in enumerate(offsets):
        for j, lookback in enumerate(lookbacks):
            if lookback <= offset and reading.get("lookback_from") != "offset_end":
                assert np.isnan(got.sends[i, j]).all()
                continue
            rule = Rule(offset_days=offset, lookback_days=lookback, **reading)
            one = attribute(bound_of(rule, log, goals), log.sends, log.events, as_of)
            for v in range(variants):
                for found, w in ((got, np.ones(len(log.sends))), (weighted, weight)):
                    sums = expected(one, log, v, w)
                    for name, value in sums.items():
                        assert getattr(found, name)[i, j, 0, v] == pytest.approx(value, abs=1e-4), name


def expected(one: Any, log: Log, variant: int, weight: Any) -> dict[str, float]:
    """The sums of one variant under one window, from attributing that window alone."""
    o = one.outcomes
    use = (o.reached | (one.rule.denominator == "sends")) & one.mature() & (log.sends.variant[o.send_row] == variant)
    money = capped_revenue(one)[use] / 1e6
    numbers = o.numerator[use] / PARTS, np.ones(use.sum()), o.weight[use] / PARTS, o.weight[use] > 0, money
    names = ("conversions", "sends", "conversion_count", "converted", "revenue")
    user, w = log.sends.user[o.send_row[use]], weight[o.send_row[use]]
    if one.rule.denominator != "users":
        return {n: float((x * w).sum()) for n, x in zip(names, numbers, strict=True)}
    out = dict.fromkeys(names, 0.0)
    for u in set(user.tolist()):
        mine = user == u
        for n, x in zip(names, numbers, strict=True):
            total = float(x[mine].sum())
            out[n] += w[mine].mean() * (total if n in ("conversion_count", "revenue") else min(total, 1.0))
    return out


def test_an_event_id_that_two_kinds_share_is_one_event_on_the_map_too() -> None:
    """Copies are judged among all events (rule 26): a purchase with a click's id is its copy."""
    start = 1_767_225_600_000_000
    sends = Sends.build(1, send=0, user=0, template=0, variant=0, sent_at=start)
    kind = np.array([CLICK, CONVERSION], np.int8)
    events = Events.build(2, event=7, user=0, kind=kind, occurred_at=start + np.array([1, 5 * DAY]), send=[0, -1])
    bound = bind(Rule(), templates=["t"], names=[])
    assert attribute(bound, sends, events).reasons() == {"duplicate": 1, "credited": 1}
    zero = np.zeros(1, np.int64)
    got = window_counts(bound, sends, events, start + 60 * DAY, (3.0,), (14.0,), zero, zero, 1, 1)
    assert (got.conversions.sum(), got.sends.sum()) == (0, 1)


def test_one_purchase_in_many_templates_cannot_overflow_the_map() -> None:
    start = 1_767_225_600_000_000
    sends = Sends.build(3, send=np.arange(3), user=0, template=np.arange(3), variant=0, sent_at=start)
    events = Events.build(1, event=0, user=0, kind=CONVERSION, occurred_at=start + 5 * DAY, value=4 * 10**18)
    bound = bind(Rule(), templates=["a", "b", "c"], names=[])
    zero = np.zeros(3, np.int64)
    with pytest.raises(DataError, match=r"exceeds 9\.2e12"):
        window_counts(bound, sends, events, start + 60 * DAY, (3.0,), (14.0,), zero, zero, 1, 1)


@given(logs())
def test_age_profile_counts_every_pair(case: Any) -> None:
    sends, events, goals, as_of = case
    log = to_log(sends, events)
    s, e = log.sends, log.events
    got = attribute(bound_of(Rule(), log, goals), s, e, as_of)
    end = got.as_of
    start = int(min(s.sent_at.min(initial=end), e.occurred_at.min(initial=end)))
    use = (e.kind == CONVERSION) & (got.reason >= REASON["credited"])
    variants = max(1, len(log.names("variant")))
    zero = np.zeros(len(s), np.int64)
    profile = age_profile(s.user, zero, s.variant, s.sent_at, e, e.user, use, 1, variants, start, end)
    expected = np.zeros((variants, LAST_AGE - FIRST_AGE))
    for i in np.flatnonzero(use).tolist():
        for j in range(len(s)):
            age = (int(e.occurred_at[i]) - int(s.sent_at[j])) // DAY
            if s.user[j] == e.user[i] and FIRST_AGE <= age < LAST_AGE:
                expected[s.variant[j], age - FIRST_AGE] += 1
    assert np.array_equal(profile.conversions[0], expected)
    assert (profile.exposure >= 0).all()
    full = max(0, min(end, start + 40 * DAY) - start) / DAY
    assert profile.exposure.sum() <= len(s) * max(full, 37) + 1e-6

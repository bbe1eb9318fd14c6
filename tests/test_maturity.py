"""Rates of young sends against closed forms, and their columns in the results table against a plain recount."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import justai_sim as js
from justai_sim import frames, stats
from justai_sim.attribution import Rule, close_of
from justai_sim.clock import DAY, MISSING, parse
from justai_sim.estimate.maturity import (
    NEVER,
    exposure_rate,
    inside_window,
    kaplan_meier_rate,
    no_survival,
    opens_at,
    organic_bias,
    remarks,
    share_rate,
)
from justai_sim.streams import generator

P, RHO, OFFSET, LOOKBACK, MEAN, T = 0.03, 0.01, 3.0, 14.0, 5.0, 28.0
W = LOOKBACK - OFFSET
G = math.exp(-OFFSET / MEAN) - math.exp(-LOOKBACK / MEAN)
LAST = round(W * DAY) - 1
N = 300_000


def world(name: str, rho: float, n: int = N, shared: int = 1) -> tuple[Any, Any]:
    """(first, seen): sends at even times over T days, causal and organic conversions; the window [OFFSET, LOOKBACK).

    `shared` sends of one user in a row have the same fate and the same time."""
    rng = generator(0, name)
    users = n // shared
    age = rng.uniform(0, T, users)
    caused = np.where(rng.random(users) < P, rng.exponential(MEAN, users), np.inf)
    caused[(caused < OFFSET) | (caused >= LOOKBACK)] = np.inf
    free = OFFSET + rng.exponential(1 / rho, users) if rho else np.full(users, np.inf)
    free[free >= LOOKBACK] = np.inf
    t = np.minimum(caused, free)
    first = np.full(users, NEVER)
    got = np.isfinite(t)
    first[got] = ((t[got] - OFFSET) * DAY).astype(np.int64)
    return np.repeat(first, shared), np.repeat(((age - OFFSET) * DAY).astype(np.int64), shared)


def within(rate: float | None, truth: float, n: float) -> bool:
    """4 standard errors of a share of n trials."""
    assert rate is not None
    return abs(rate - truth) < 4 * math.sqrt(truth * (1 - truth) / n)


def test_kaplan_meier_mature_and_naive_rates_are_what_theory_says() -> None:
    truth = 1 - (1 - P * G) * math.exp(-RHO * W)
    first, seen = world("km", RHO)
    mature = seen >= W * DAY
    got = kaplan_meier_rate(first, seen, LAST)
    assert within(got.rate, truth, mature.sum())
    assert within(share_rate((first[mature] <= LAST).astype(float), None).rate, truth, mature.sum())
    assert got.low is not None
    assert got.high is not None
    assert got.low < truth < got.high
    exact = math.sqrt(truth * (1 - truth) / mature.sum()) * 2 * stats.z_value(0.95)
    assert 0.5 * exact < got.high - got.low < exact, "young sends add to what mature ones tell"
    first, seen = world("naive", 0.0)
    low, high = math.exp(-OFFSET / MEAN), math.exp(-LOOKBACK / MEAN)
    naive = P / T * (W * low - (low - high) * MEAN + (T - LOOKBACK) * G)
    assert naive / (P * G) == pytest.approx(0.763, abs=5e-4)
    assert within(share_rate((first <= seen).astype(float), None).rate, naive, N)
    assert within(kaplan_meier_rate(first, seen, LAST).rate, P * G, (seen >= W * DAY).sum())


def test_exposure_weighting_is_unbiased_without_organic_purchases_and_biased_by_the_stated_amount_with() -> None:
    def inside(seen: Any) -> Any:
        """The truth about causal delays."""
        a = np.clip(seen / DAY, 0, W) + OFFSET
        return (math.exp(-OFFSET / MEAN) - np.exp(-a / MEAN)) / G

    first, seen = world("exposure", 0.0)
    got = exposure_rate(first, seen, inside)
    assert got.rate is not None
    assert within(got.rate, P * G, got.denominator)
    for rho in (0.01, 0.02):
        first, seen = world(f"exposure {rho}", rho)
        got = exposure_rate(first, seen, inside)
        h, watched = inside(seen[seen >= 0]), np.clip(seen[seen >= 0] / DAY, 0, W)
        bias = organic_bias(rho, h, watched, G)
        # A send converts once at most, so 0/1 outcomes fall short of counts by a second-order term.
        exact = (1 - (1 - P * G * h) * np.exp(-rho * watched)).sum() / h.sum()
        assert 0 < P * G + bias - exact < 1.3 * rho * W * (P * G + rho * W / 2)
        assert got.rate is not None
        noise = 4 * math.sqrt(exact / got.denominator)
        assert abs(got.rate - exact) < noise
        assert exact - P * G > 5 * noise, "the bias is large against the noise"
        assert bias < rho * W, "early delays: organic purchases are still to come"


def test_the_logs_own_delays_make_exposure_weighting_agree_with_kaplan_meier() -> None:
    first, seen = world("own", RHO, 60_000)
    inside = inside_window(first, seen, LAST)
    assert inside is not None
    got, km = exposure_rate(first, seen, inside), kaplan_meier_rate(first, seen, LAST)
    assert got.rate == pytest.approx(km.rate, rel=0.01)
    assert inside(np.array([0, LAST])).tolist() == [0.0, 1.0]
    assert inside_window(np.full(5, NEVER), np.full(5, 20 * DAY), LAST) is None


def test_intervals_cover_as_often_as_they_say_with_and_without_shared_users() -> None:
    truth = 1 - (1 - P * G) * math.exp(-RHO * W)
    logs = 300
    for shared in (1, 4):
        inside = alone = 0
        for k in range(logs):
            first, seen = world(f"cover {shared} {k}", RHO, 2000 * shared, shared)
            user = np.arange(len(first)) // shared
            got = kaplan_meier_rate(first, seen, LAST, user)
            assert got.low is not None
            assert got.high is not None
            inside += got.low <= truth <= got.high
            plain = kaplan_meier_rate(first, seen, LAST)
            alone += plain.low <= truth <= plain.high  # type: ignore[operator]
        sd = math.sqrt(0.95 * 0.05 / logs)
        assert abs(inside / logs - 0.95) < 4 * sd
        assert (alone / logs < 0.95 - 4 * sd) == (shared > 1), "taking copies for sends must be caught"


def test_clustered_errors_equal_greenwood_for_users_with_one_send_and_grow_with_copies() -> None:
    first, seen = world("greenwood", RHO, 20_000)
    first, seen = first[seen >= 0], seen[seen >= 0]
    age, event = np.minimum(first, seen), first <= seen
    greenwood = float(stats.kaplan_meier(age, event, LAST)[1])
    each = np.arange(len(age))
    assert stats.kaplan_meier_error(age, event, LAST, each) == pytest.approx(greenwood, rel=0.01)
    copies = stats.kaplan_meier_error(np.repeat(age, 4), np.repeat(event, 4), LAST, np.repeat(each, 4))
    assert copies == pytest.approx(greenwood, rel=0.01), "copies of a send add nothing"
    groups = generator(0, "groups").integers(0, 100, len(age))
    assert stats.kaplan_meier_error(age, event, LAST, groups) == pytest.approx(greenwood, rel=4 / math.sqrt(2 * 99))
    assert math.isnan(stats.kaplan_meier_error(age, event, LAST, np.zeros(len(age), np.int64)))
    assert math.isnan(stats.kaplan_meier_error([], [], 1, []))
    assert math.isnan(stats.mean_error([], []))


def test_no_value_before_a_window_was_watched_to_its_end_and_none_without_sends() -> None:
    first, seen = np.array([DAY, NEVER]), np.array([5 * DAY, 10 * DAY])
    assert kaplan_meier_rate(first, seen, LAST)[:3] == (None, None, None)
    assert kaplan_meier_rate(first, seen, LAST).numerator == 1
    none = np.zeros(0, np.int64)
    assert kaplan_meier_rate(none, none, LAST) == (None, None, None, 0, 0)
    assert exposure_rate(none, none, lambda s: s / DAY).rate is None
    quiet = kaplan_meier_rate(np.full(100, NEVER), np.full(100, 20 * DAY), LAST)
    assert quiet.rate == 0
    assert quiet.high == pytest.approx(float(stats.wilson(0, 100)[1])), "no conversion is not certainty"


@pytest.mark.parametrize("bounds", ["[)", "[]", "(]", "()"])
@pytest.mark.parametrize("tz", ["UTC", "America/New_York"])
def test_calendar_windows_open_and_close_at_local_midnights(bounds: Any, tz: str) -> None:
    rule = Rule(day_rule="calendar", tz=tz, bounds=bounds)
    anchor = np.array([parse("2026-03-06T17:00:00Z"), MISSING])
    opens, closes = opens_at(rule, anchor), close_of(rule, anchor)
    first = 4 if bounds[0] == "(" else 3
    assert opens[0] == parse(f"2026-03-{6 + first:02d}", tz)
    assert closes[0] == parse("2026-03-21" if bounds[1] == "]" else "2026-03-20", tz)
    assert opens[1] == MISSING
    free = Rule(day_rule="calendar", tz=tz, bounds="[)", offset_days=0)
    assert opens_at(free, anchor)[0] == anchor[0], "nothing counts before the send"
    assert opens_at(Rule(), anchor)[0] == anchor[0] + 3 * DAY


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"credit": "all"}, ""),
        ({"repeat": "once_per_user"}, ""),
        ({"credit": "time_decay"}, "parts of a conversion"),
        ({"repeat": "every"}, "more than once"),
        ({"denominator": "users"}, "counts users"),
        ({"explicit": "trust"}, "outside the window"),
    ],
)
def test_rules_without_yes_or_no_have_no_kaplan_meier_rate_and_say_why(options: dict[str, Any], said: str) -> None:
    rule = Rule(**options)
    assert said in no_survival(rule)
    assert (no_survival(rule) == "") == (said == "")
    got = js.replay(small_log(), rule=rule, goals="purchase")
    assert got.metrics["km_conversion_rate"].notna().any() == (said == "")
    if said:
        assert any(said in w and "mature rate is the one to read" in w for w in got.warnings)


def small_log(days: int = 40, late: int | None = None) -> Any:
    """Five sends a day of two variants; each second user of `a` buys on day 4, `late`: with how long a delay known."""
    sends, events = [], []
    for d in range(days):
        for i in range(5):
            v, user = "ab"[i % 2], f"u{d:02d}{i}"
            at = parse("2026-01-05T00:00:00Z") + d * DAY
            sends.append({"send_id": f"s{user}", "user_id": user, "template_id": "T", "variant_id": v, "sent_at": at})
            when = at + 4 * DAY
            if v == "a" and i == 0 and when < parse("2026-01-05T00:00:00Z") + days * DAY:
                events.append({"event_id": f"e{user}", "user_id": user, "kind": "conversion", "name": "purchase",
                               "occurred_at": when, "received_at": when + (late or 0) * DAY})  # fmt: skip
    return frames.from_frames(pd.DataFrame(sends), pd.DataFrame(events))


def test_the_table_is_a_plain_recount() -> None:
    log = small_log()
    as_of = parse("2026-01-05T00:00:00Z") + 40 * DAY
    got = js.replay(log, goals="purchase", as_of=as_of)
    row = got.metrics.set_index("variant_id").loc["a"]
    # Three of five sends a day are of `a`, of which one buys on day 4; judged 48 h before the end.
    at_risk = 3 * sum(40 - 2 - d >= 3 for d in range(40))
    events = sum(40 - 2 - d >= 4 for d in range(40))
    assert (row["km_sends"], row["km_conversions"]) == (at_risk, events)
    assert row["km_conversion_rate"] == pytest.approx(1 / 3)
    assert row["mature_conversion_rate"] == pytest.approx(1 / 3)
    assert row["conversion_rate"] < 1 / 3
    assert row["exposure_conversion_rate"] == pytest.approx(1 / 3)
    assert row["exposure_sends"] == pytest.approx(3 * events)
    assert (row["mature_moved"], row["final_sends"]) == (0, 3 * sum(40 - d >= 21 for d in range(40)))
    assert got.metrics.iloc[-1]["km_conversion_rate"] == pytest.approx(1 / 5)
    long = got.maturity
    assert list(long["estimator"].unique()) == ["kaplan_meier", "mature", "so_far", "exposure"]
    assert len(long) == 4 * len(got.metrics)
    pd.testing.assert_series_equal(
        long[long["estimator"] == "mature"]["rate"].reset_index(drop=True), got.metrics["mature_conversion_rate"],
        check_names=False,
    )  # fmt: skip


def test_conversions_heard_of_after_maturity_are_counted() -> None:
    as_of = parse("2026-01-05T00:00:00Z") + 60 * DAY
    rule = Rule(lateness_days=30)
    for late, moved in ((11, 0), (13, 36)):  # closed on day 14, mature on day 16, bought on day 4
        got = js.replay(small_log(late=late), goals="purchase", as_of=as_of, rule=rule)
        assert got.metrics.iloc[0]["mature_moved"] == moved
        assert any("only after they had matured" in w for w in got.warnings) == (moved > 0)


def test_remarks_name_a_rate_that_exposure_weighting_gets_wrong() -> None:
    km = {"km_conversion_rate": 0.05, "km_conversion_rate_low": 0.045, "km_conversion_rate_high": 0.055}
    row = {"template_id": "T", "variant_id": "a", "exposure_conversion_rate": 0.052, "mature_moved": 0} | km
    row["mature_sends"] = 9
    assert remarks(Rule(), [row, row]) == []
    said = remarks(Rule(), [row, row | {"exposure_conversion_rate": 0.06}])
    assert len(said) == 1
    assert said[0].startswith("T a: the exposure-weighted conversion rate is 6.00 % and Kaplan-Meier's 5.00 %")
    none = {k: None if "rate" in k else v for k, v in row.items()}
    assert remarks(Rule(), [none, none]) == [
        "no Kaplan-Meier rate yet: no send has been watched to the end of its window"
    ]

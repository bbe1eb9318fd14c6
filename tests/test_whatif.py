"""Interpretations and reconciliations: against the results table, by hand, under hypothesis, and with wrong input."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import justai_sim as js
from justai_sim import frames
from justai_sim.attribution import Rule, with_settings
from justai_sim.attribution.presets import PRESETS
from justai_sim.bandit.policy import PolicySpec
from justai_sim.cli import run
from justai_sim.clock import DAY, HOUR
from justai_sim.errors import DataError, JustaiError, UsageError
from justai_sim.estimate.metrics import metrics_table
from justai_sim.loop.program import Program, bound_to
from justai_sim.pages.interpretations import PRESETS as PRESETS_HEAD
from justai_sim.pages.style import render
from justai_sim.tables import HELD_OUT, PARTS, Log
from justai_sim.whatif import receipt, words
from justai_sim.whatif.dashboard import read_dashboard
from justai_sim.whatif.interpretations import _Comparison
from justai_sim.whatif.reconcile import measured, reconcile
from justai_sim.whatif.study import Numbers, interval, numbers, study
from tests.strategies import cases, to_log
from tests.test_presets import T0, write_log


def busy_log(users: int = 300, seed: int = 5, templates: int = 2) -> Log:
    """Overlapping sends, repeats, bounces, deliveries, opens, machine events and conversions that name sends."""
    rng = np.random.default_rng(seed)
    sends, events = [], []
    for u in range(users):
        for k in range(int(rng.integers(1, 6))):
            at = T0 + int(rng.integers(0, 20 * 24)) * HOUR
            sends.append(
                {"send_id": f"s{u}-{k}", "user_id": f"u{u}", "template_id": f"T{rng.integers(templates)}",
                 "variant_id": ("control", "A", "B")[rng.integers(3)], "sent_at": at,
                 "delivered_at": at + int(rng.integers(0, 20)) * HOUR,
                 "status": "bounced" if rng.random() < 0.05 else "sent"}
            )  # fmt: skip
            if rng.random() < 0.6:
                opened = {
                    "kind": ("open", "click")[rng.integers(2)],
                    "occurred_at": at + int(rng.integers(1, 90)) * HOUR,
                }
                machine = bool(rng.random() < 0.2)
                events.append({"user_id": f"u{u}", "send_id": f"s{u}-{k}", "machine": machine} | opened)
        for _ in range(int(rng.integers(0, 4))):
            named = f"s{u}-0" if rng.random() < 0.2 else ""
            at = T0 + int(rng.integers(0, 40 * 24)) * HOUR
            value = float(rng.integers(5, 80))
            events.append({"user_id": f"u{u}", "kind": "conversion", "name": "buy", "occurred_at": at, "value": value,
                           "send_id": named, "machine": bool(rng.random() < 0.03)})  # fmt: skip
    table = pd.DataFrame(events)
    table["event_id"] = [f"e{i}" for i in range(len(table))]
    return frames.from_frames(pd.DataFrame(sends), table)


@pytest.fixture(scope="module")
def busy() -> Log:
    return busy_log()


@pytest.fixture(scope="module")
def one_template() -> Log:
    return busy_log(templates=1, seed=6)


def table_of(log: Log, rule: Rule) -> pd.DataFrame:
    """The results table under a rule, without its total."""
    frame = js.replay(log, rule=rule, policy="uniform").metrics
    return frame[~frame["template_id"].str.startswith("ALL")].reset_index(drop=True)


# -- interpretations --------------------------------------------------------------------------------


def test_every_reading_has_the_numbers_of_the_results_table(one_template: Log) -> None:
    got = js.interpretations(one_template, presets=False)
    rates = got.rates.set_index(["reading", "variant_id"])
    applied = got.table[got.table["status"].isin(["changes", "changes nothing"])]
    assert len(applied) > 20
    for name in applied["reading"]:
        options = dict(part.split("=", 1) for part in name.split(", "))
        expected = table_of(one_template, with_settings(Rule(), options)).set_index("variant_id")
        for v in ("control", "A", "B"):
            assert rates.loc[(name, v), "rate"] == pytest.approx(expected.loc[v, "conversion_rate"], rel=1e-12), name
            if "users" not in name:
                assert rates.loc[(name, v), "conversions"] == pytest.approx(expected.loc[v, "conversions"], rel=1e-12)
                assert rates.loc[(name, v), "sends"] == expected.loc[v, "sends"]
        row = got.table.set_index("reading").loc[name]
        gap = rates.loc[(name, row["variant"]), "rate"] - rates.loc[(name, row["against"]), "rate"]
        assert row["difference_per_1000"] == pytest.approx(1000 * gap, abs=1e-9)
        assert row["effect_per_1000"] == pytest.approx(row["difference_per_1000"] - in_use(got)["difference_per_1000"])
        assert row["leader"] == expected.loc[["control", "A", "B"], "conversion_rate"].astype(float).idxmax()


def in_use(got: Any) -> Any:
    return got.table.iloc[0]


def test_every_option_of_the_rule_is_read(one_template: Log) -> None:
    from justai_sim.attribution.rule import CHOICES

    names = set(js.interpretations(one_template, presets=False).table["reading"])
    default = Rule()
    for option, values in CHOICES.items():
        for v in values:
            if option == "day_rule":
                continue
            assert (f"{option}={v}" in names) == (v != getattr(default, option))
    assert {"day_rule=calendar, tz=UTC", "day_rule=calendar, tz=America/New_York"} <= names
    assert "click_implies_open=True" in set(js.interpretations(one_template, metric="open_rate").table["reading"])
    berlin = set(js.interpretations(one_template, tz="Europe/Berlin", credit="linear").table["reading"])
    assert {"day_rule=calendar, tz=Europe/Berlin", "credit=last_qualifying"} <= berlin
    assert "credit=linear" not in berlin


def test_the_order_is_by_effect_and_presets_come_last(busy: Log) -> None:
    t = js.interpretations(busy).table
    assert t["status"].iloc[0] == "in use"
    kinds = t["kind"].tolist()
    assert kinds == sorted(kinds, key=lambda k: k == "preset")
    for kind in ("reading", "preset"):
        size = t[(t["kind"] == kind) & (t["status"] == "changes") & (t["unit"] == "sends")]["effect_per_1000"].abs()
        assert size.is_monotonic_decreasing
    assert set(t[t["status"] == "changes nothing"]["reading"]) >= {"default", "vendor", "justai_api"}
    assert set(t[t["kind"] == "preset"]["reading"]) == set(PRESETS)


def arms_log(purchases: dict[str, list[float]], n: int = 40, **more: Any) -> Log:
    """n users each in every variant, one send each; the first of them buy at the given days."""
    sends = [
        {"send_id": f"{v}{i}", "user_id": f"{v}{i}", "template_id": "T", "variant_id": v, "sent_at": T0} | more
        for v in purchases for i in range(n)
    ]  # fmt: skip
    events = [
        {"event_id": f"{v}{i}", "user_id": f"{v}{i}", "kind": "conversion", "name": "buy",
         "occurred_at": T0 + round(d * DAY)}
        for v, days in purchases.items() for i, d in enumerate(days)
    ]  # fmt: skip
    return frames.from_frames(pd.DataFrame(sends), pd.DataFrame(events))


def test_a_reading_that_changes_leader_and_sign_says_so() -> None:
    log = arms_log({"control": [5.0] * 10, "A": [5.0] * 12, "B": [5.0] * 8 + [14.0] * 10})
    t = js.interpretations(log, presets=False).table.set_index("reading")
    assert tuple(t.loc["as in use", ["leader", "variant", "against"]]) == ("A", "A", "control")
    closed = t.loc["bounds=[]"]
    assert (closed["leader"], bool(closed["leader_changes"]), bool(closed["sign_changes"])) == ("B", True, False)
    assert closed["lead_per_1000"] == pytest.approx(1000 * (18 - 12) / 40)
    assert closed["status"] == "changes"  # the difference of the pair stays, another variant's rate moves
    assert closed["effect_per_1000"] == 0
    same = t.loc["credit=linear"]
    assert (same["status"], bool(same["leader_changes"])) == ("changes nothing", False)

    log = arms_log({"control": [5.0] * 10 + [14.0] * 5, "A": [5.0] * 12})
    closed = js.interpretations(log, presets=False).table.set_index("reading").loc["bounds=[]"]
    assert bool(closed["sign_changes"])
    assert closed["difference_per_1000"] == pytest.approx(1000 * (12 - 15) / 40)
    assert closed["effect_per_1000"] == pytest.approx(-1000 * 5 / 40)


def test_few_users_get_no_interval_and_no_clear_leader() -> None:
    """Three buyers of three against none of three: no two users of a variant differ, so nothing has a spread."""
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(6)], "user_id": [f"u{i}" for i in range(6)], "template_id": "T",
        "variant_id": ["A", "control"] * 3, "sent_at": pd.Timestamp("2026-01-01", tz="UTC"),
    })  # fmt: skip
    events = pd.DataFrame({
        "event_id": list("abc"), "user_id": ["u0", "u2", "u4"], "kind": "conversion", "name": "purchase",
        "occurred_at": pd.Timestamp("2026-01-06", tz="UTC"),
    })  # fmt: skip
    got = js.interpretations(frames.from_frames(sends, events))
    use = got.table.iloc[0]
    assert use["difference_per_1000"] == 1000
    assert np.isnan([use["difference_low"], use["difference_high"], use["lead_low"]]).all()
    assert words.leader_of(use) == "A (too close)"
    assert any(n.startswith("3 conversions in all, fewer than 10") for n in got.notes)
    some = frames.from_frames(sends, events.head(2))
    for _, r in js.interpretations(some).table.dropna(subset="difference_low").iterrows():
        assert -1000 <= r["difference_low"] <= r["difference_high"] <= 1000
    none = js.interpretations(frames.from_frames(sends, events.assign(name="other", kind="click"))).table.iloc[0]
    assert words.leader_of(none) == "counts nothing"
    assert words.leader_of({**none, "total": 2.0, "leader": "A"}) == "A (a tie)"


def test_a_tie_changes_no_leader_and_a_small_move_is_a_change() -> None:
    log = arms_log({"A": [5.0] * 5 + [14.0], "B": [5.0] * 6, "control": [5.0]})
    t = js.interpretations(log, presets=False).table.set_index("reading")
    tied = t.loc["bounds=[]"]
    assert (tied["leader"], bool(tied["leader_changes"])) == ("B", False)
    assert tied["effect_per_1000"] == 0
    assert tied["status"] == "changes"  # A moves by 25 per 1,000, though neither leader nor pair does


def test_readings_that_cannot_apply_say_why() -> None:
    t = js.interpretations(arms_log({"control": [5.0], "A": [5.0]}), presets=False).table.set_index("reading")
    why = t.loc[t["status"] == "cannot apply", "why"]
    assert why["anchor=delivered"] == "the log tells of no delivery"
    assert why["anchor=clicked"] == "the log holds no click by a person"
    assert why["explicit=trust"] == "no conversion names a send"
    assert why["machine=only"] == "no event is flagged as machine-made"
    assert why["scope=org"] == "the log has one template"
    assert t.loc[why.index, "conversions"].isna().all()
    line = words.not_applied(t.reset_index())
    assert "\n" not in line
    assert "anchor=delivered (the log tells of no delivery)" in line
    log = arms_log({"control": [5.0], "A": [5.0]})
    from_end = js.interpretations(log, lookback_from="offset_end", lookback_days=2, offset_days=3).table
    row = from_end.set_index("reading").loc["lookback_from=send"]
    assert "offset_days 3 is not below lookback_days 2" in row["why"]


def test_without_a_control_the_best_two_are_compared() -> None:
    log = arms_log({"A": [5.0] * 3, "B": [5.0] * 9, "C": [5.0] * 6})
    got = js.interpretations(log, presets=False)
    assert tuple(in_use(got)[["variant", "against"]]) == ("B", "C")
    assert any("best two" in n for n in got.notes)
    named = js.interpretations(log, presets=False, control="A")
    assert tuple(in_use(named)[["variant", "against"]]) == ("B", "A")
    with pytest.raises(UsageError, match="not a variant of the log"):
        js.interpretations(log, control="contrl")


def test_one_variant_is_compared_with_nothing() -> None:
    got = js.interpretations(arms_log({"A": [5.0, 14.0]}), presets=False)
    assert math.isnan(in_use(got)["difference_per_1000"])
    assert got.table.loc[1, "reading"].startswith("bounds")  # sorted by conversions
    assert "no pair" in words.verdict(got.table)
    assert render(js.plot_interpretations(got.table), "svg")


def test_lower_is_better_for_unsubscribes() -> None:
    log = arms_log({"control": [5.0], "A": [5.0]})
    ids = [f"A{i}" for i in range(9)]
    gone = pd.DataFrame(
        {"event_id": ids, "user_id": ids, "kind": "unsubscribe", "occurred_at": T0 + HOUR, "send_id": ids}
    )
    both = frames.from_frames(frames.to_frame(log, "sends"), gone)
    got = js.interpretations(both, metric="unsubscribe_rate", presets=False)
    assert in_use(got)["leader"] == "control"
    assert in_use(got)["difference_per_1000"] == pytest.approx(1000 * 9 / 40)


def test_templates_with_other_variants_are_not_mixed() -> None:
    a, b = arms_log({"control": [5.0] * 3, "A": [5.0]}), arms_log({"control": [5.0], "X": [5.0] * 9}, n=60)
    rows = [frames.to_frame(x, "sends").assign(template_id=t, user_id=lambda f, t=t: t + f["user_id"],
            send_id=lambda f, t=t: t + f["send_id"]) for x, t in ((a, "T"), (b, "T2"))]  # fmt: skip
    told = [frames.to_frame(x, "events").assign(user_id=lambda f, t=t: t + f["user_id"],
            event_id=lambda f, t=t: t + f["event_id"]) for x, t in ((a, "T"), (b, "T2"))]  # fmt: skip
    log = frames.from_frames(pd.concat(rows), pd.concat(told))
    got = js.interpretations(log, presets=False)
    assert set(got.rates["variant_id"]) == {"control", "X"}
    assert any("'T2'" in n for n in got.notes)
    assert set(js.interpretations(log, presets=False, template="T").rates["variant_id"]) == {"control", "A"}


def test_a_rules_own_metric_and_unknown_ones(one_template: Log) -> None:
    expected = table_of(one_template, Rule()).set_index("variant_id")
    for metric in ("revenue_per_send", "open_rate", "click_rate"):
        got = js.interpretations(one_template, metric=metric, presets=False)
        first = got.rates[got.rates["reading"] == "as in use"].set_index("variant_id")
        for v in ("control", "A", "B"):
            assert first.loc[v, "rate"] == pytest.approx(expected.loc[v, metric], rel=1e-12)
    with pytest.raises(UsageError, match="did you mean 'open_rate'"):
        js.interpretations(one_template, metric="open_rat")


# -- uncertainty ------------------------------------------------------------------------------------


def drawn(rng: np.random.Generator, users: int, rates: tuple[float, float], per: str = "send") -> Numbers:
    """Users with 1 to 4 sends; a user's sends convert together half of the time."""
    n = rng.integers(1, 5, users)
    user = np.repeat(np.arange(users), n)
    cell = np.repeat(rng.integers(0, 2, users), n)
    p = np.array(rates)[cell]
    alone, shared = rng.random(len(user)), np.repeat(rng.random(users), n)
    value = (np.where(np.repeat(rng.random(users) < 0.5, n), shared, alone) < p).astype(float)
    return made(value, cell, user, users, per)


def made(value: Any, cell: Any, user: Any, users: int, per: str) -> Numbers:
    if per == "user":
        both = pd.DataFrame({"u": user, "c": cell, "v": value}).groupby(["c", "u"])["v"].max().clip(upper=1)
        total, count = both.groupby("c").sum(), both.groupby("c").size()
    else:
        total, count = (np.bincount(cell, w, 2) for w in (value, np.ones(len(cell))))
    total = np.asarray(total, float)
    return Numbers(value, cell, user, users, per, total, np.asarray(count, float), total)


@pytest.mark.parametrize("per", ["send", "user"])
def test_the_interval_holds_the_truth_as_often_as_it_says(per: str) -> None:
    rng, reps, hits = np.random.default_rng(11), 400, 0
    rates = (0.10, 0.14)
    if per == "send":
        truth = rates[1] - rates[0]
    else:  # any of 1..4 sends, together or alone
        truth = float(np.mean([0.5 * (p2 - p1) + 0.5 * ((1 - p1) ** k - (1 - p2) ** k)
                               for k in range(1, 5) for p1, p2 in [rates]]))  # fmt: skip
    for _ in range(reps):
        n = drawn(rng, 800, rates, per)
        low, high = interval(float(n.rate[1] - n.rate[0]), n.influence(1) - n.influence(0), n.users)
        hits += low <= truth <= high
    assert abs(hits / reps - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / reps)


@pytest.mark.parametrize("per", ["send", "user"])
def test_influence_is_what_a_user_moves(per: str) -> None:
    """Sums to zero, and its variance is that of leaving one user out (Tukey's jackknife)."""
    n = drawn(np.random.default_rng(3), 400, (0.2, 0.3), per)
    d = n.influence(1) - n.influence(0)
    assert abs(d.sum()) < 1e-12
    left = []
    for u in range(400):
        keep = n.user != u
        x = made(n.value[keep], n.cell[keep], n.user[keep], 400, per)
        left.append(float(x.rate[1] - x.rate[0]))
    jackknife = 399 / 400 * float(((np.array(left) - np.mean(left)) ** 2).sum())
    assert float(d @ d) * 400 / 399 == pytest.approx(jackknife, rel=0.02)


def test_few_large_values_have_few_degrees_of_freedom() -> None:
    d = np.zeros(10_000)
    d[:3], d[3:] = 1.0, -3 / 9997
    half = interval(0.0, d, 10_000)[1] / math.sqrt(float(d @ d))
    assert 4.0 < half < 4.6  # Student's with 2, not the normal's 1.96
    assert interval(0.0, np.zeros(5), 5) == (0.0, 0.0)
    assert math.isnan(interval(1.0, np.zeros(5), 5)[0])
    assert math.isnan(interval(1.0, np.zeros(1), 1)[0])


def test_the_effect_is_paired(one_template: Log) -> None:
    """The change of a difference is far surer than the difference itself, where few conversions move."""
    t = js.interpretations(one_template, presets=False).table.set_index("reading")
    row = t.loc["denominator=sends"]
    assert row["effect_high"] - row["effect_low"] < 0.5 * (row["difference_high"] - row["difference_low"])
    for _, r in t[t["status"] == "changes"].iterrows():
        assert r["effect_low"] <= r["effect_per_1000"] <= r["effect_high"]


# -- the same mix, and many looks -------------------------------------------------------------------


def drifting(seed: int, n: int, by: str, share: float = 0.8, propensity: bool = True, then: float | None = None) -> Log:
    """Equal variants A and control. Base rates are 10 % and 3 % in two halves (templates, or days), shares of A
    `share` and `then` (1 - share)."""
    rng = np.random.default_rng(seed)
    half = np.repeat([0, 1], n)
    p = np.where(half == 0, share, 1 - share if then is None else then)
    a = rng.random(2 * n) < p
    day = rng.integers(0, 10, 2 * n) + (10 * half if by == "day" else 0)
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(2 * n)], "user_id": [f"u{i}" for i in range(2 * n)],
        "template_id": [f"T{h}" for h in half] if by == "template" else "T0",
        "variant_id": np.where(a, "A", "control"), "sent_at": T0 + day * DAY,
    })  # fmt: skip
    if propensity:
        sends["propensity"] = np.where(a, p, 1 - p)
    buys = np.flatnonzero(rng.random(2 * n) < np.where(half == 0, 0.10, 0.03))
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in buys], "user_id": [f"u{i}" for i in buys], "kind": "conversion", "name": "buy",
        "occurred_at": T0 + day[buys] * DAY + 5 * DAY,
    })  # fmt: skip
    return frames.from_frames(sends, events)


@pytest.mark.parametrize("propensity", [True, False])
@pytest.mark.parametrize("by", ["template", "day"])
def test_changed_shares_favour_no_variant(by: str, propensity: bool) -> None:
    """Unweighted the better half's favourite is 42 per 1,000 ahead; weighted the interval of equal ones holds 0."""
    got = js.interpretations(drifting(2, 4000, by, propensity=propensity))
    assert any("weighted to the same mix" in n for n in got.notes)
    t = got.table[got.table["difference_per_1000"].notna()]
    assert len(t) > 20
    first = in_use(got)
    half = (first["difference_high"] - first["difference_low"]) / 2
    assert abs(first["difference_per_1000"]) < 3.5 / 1.96 * half < 30  # 3.5 standard errors, and sharp enough
    assert (t["difference_per_1000"].abs() < 30).all()
    plain = got.rates[got.rates["reading"] == "as in use"].set_index("variant_id")
    raw = plain["conversions"] / plain["sends"]  # counts stay plain
    assert 1000 * abs(raw["A"] - raw["control"]) > 30


@pytest.mark.parametrize("by", ["template", "day"])
def test_a_variant_that_joins_late_is_compared_where_both_were(by: str) -> None:
    """Unweighted the control, which alone had the better half, is 47 per 1,000 ahead."""
    got = js.interpretations(drifting(4, 4000, by, 0.0, propensity=False, then=0.5))
    first = in_use(got)
    half = (first["difference_high"] - first["difference_low"]) / 2
    assert abs(first["difference_per_1000"]) < 3.5 / 1.96 * half < 30
    assert by == "template" or any("in no comparison" in n for n in got.notes)


def test_variants_that_never_met_are_not_compared() -> None:
    got = js.interpretations(drifting(5, 500, "day", 1.0, propensity=False))
    assert np.isnan(in_use(got)["difference_per_1000"])
    assert any("no variants are compared" in n for n in got.notes)


@pytest.mark.parametrize("propensity", [True, False])
def test_constant_shares_leave_the_plain_rates(propensity: bool) -> None:
    got = js.interpretations(drifting(3, 1500, "day", 0.5, propensity))
    assert not any("same mix" in n for n in got.notes)
    assert got.rates["rate"].tolist() == pytest.approx((got.rates["total"] / got.rates["sends"]).tolist(), rel=1e-12)


@pytest.mark.parametrize("per", ["send", "user"])
def test_weighted_influence_is_what_a_user_moves(per: str) -> None:
    n = drawn(np.random.default_rng(4), 300, (0.2, 0.3), per)
    w = np.random.default_rng(5).uniform(0.5, 3, len(n.user))
    x = Numbers(n.value, n.cell, n.user, 300, per, n.total, n.count, n.converted, w)
    d = x.influence(1) - x.influence(0)
    assert abs(d.sum()) < 1e-12
    left = []
    for u in range(300):
        keep = n.user != u
        y = Numbers(n.value[keep], n.cell[keep], n.user[keep], 300, per, n.total, n.count, n.converted, w[keep])
        left.append(float(y.rate[1] - y.rate[0]))
    jackknife = 299 / 300 * float(((np.array(left) - np.mean(left)) ** 2).sum())
    assert float(d @ d) * 300 / 299 == pytest.approx(jackknife, rel=0.03)


def test_users_of_several_templates_are_not_compared(busy: Log) -> None:
    t = js.interpretations(busy).table.set_index("reading")
    for name in ("denominator=users", "braze_campaign", "growthbook"):
        assert t.loc[name, "status"] == "cannot apply"
        assert "choose one with --template" in t.loc[name, "why"]
    alone = js.interpretations(busy, template="T1").table.set_index("reading")
    assert (alone.loc[["denominator=users", "growthbook"], "status"] == "changes").all()
    users = js.interpretations(busy, denominator="users")
    assert in_use(users)["unit"] == "users"
    assert any("users of several templates cannot be compared; shown is" in n for n in users.notes)


def test_a_template_with_one_variant_is_left_out() -> None:
    both = frames.to_frame(arms_log({"control": [5.0] * 3, "A": [5.0] * 9}), "sends")
    more = both[both["variant_id"] == "A"].assign(template_id="T2", send_id=lambda f: "x" + f["send_id"])
    log = arms_log({"control": [5.0] * 3, "A": [5.0] * 9})
    log = frames.from_frames(pd.concat([both, more]), frames.to_frame(log, "events"))
    got = js.interpretations(log, presets=False)
    assert in_use(got)["sends"] == 80
    assert any("one variant: T2" in n for n in got.notes)


def test_equal_variants_are_seldom_clearly_led_by_another() -> None:
    """Over all readings together: 20 independent ones of 3 equal variants, at most 5 % of the tables."""
    rng, reps, readings, users = np.random.default_rng(8), 300, 20, 1500
    cell = np.repeat(np.arange(3), users // 3)
    wrong = singly = 0

    def reading() -> Numbers:
        value = (rng.random(users) < 0.2).astype(float)
        total = np.bincount(cell, value)
        return Numbers(value, cell, np.arange(users), users, "send", total, np.bincount(cell).astype(float), total)

    for _ in range(reps):
        first = reading()
        compare, naive = (_Comparison(first, ["control", "A", "B"], "control", "conversion_rate", k)
                          for k in (readings * 2, 1))  # fmt: skip
        table = [reading() for _ in range(readings)]
        rows, plain = ([c.row(n) for n in table] for c in (compare, naive))
        wrong += any(r["sign_clear"] or (r["leader_changes"] and r["lead_low"] > 0) for r in rows)
        singly += any(r["leader_changes"] and r["lead_low"] > 0 for r in plain)
    assert wrong / reps < 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)
    assert singly / reps > 0.3  # what 95 % intervals one by one would have said


def test_conversions_are_conversions_whatever_the_metric(one_template: Log) -> None:
    money = in_use(js.interpretations(one_template, metric="revenue_per_send", presets=False))
    plain = in_use(js.interpretations(one_template, presets=False))
    assert money["conversions"] == plain["conversions"] == plain["total"]
    assert money["total"] == pytest.approx(table_of(one_template, Rule())["revenue"].sum())


# -- reconciliation ---------------------------------------------------------------------------------


def dashboard_of(log: Log, rule: Rule, columns: tuple[str, ...] = ("conversions",)) -> pd.DataFrame:
    return table_of(log, rule)[["template_id", "variant_id", *columns]]


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_dashboard_of_a_preset_is_recognised(name: str, busy: Log) -> None:
    dash = dashboard_of(busy, PRESETS[name].rule, ("sends", "conversions", "conversion_rate"))
    got = reconcile(busy, dash)
    alike = {n for n, p in PRESETS.items() if p.rule == PRESETS[name].rule}
    assert set(got.closest) == alike
    assert (got.distance, got.close) == (0, True)
    assert got.closest_rule == PRESETS[name].rule
    assert with_settings(Rule(), got.options) == PRESETS[name].rule
    assert got.presets["distance"].is_monotonic_increasing
    assert (got.receipt[got.receipt["step"] == "unexplained"]["conversions"] == 0).all()
    check_receipt(got.receipt)
    rows = got.comparison[got.comparison["measure"] == "conversions"]
    assert rows["theirs"].tolist() == pytest.approx(rows["closest"].tolist())


def test_presets_that_count_alike_on_a_log_are_said_as_a_tie() -> None:
    log = arms_log({"control": [1.0] * 4 + [5.0] * 3, "A": [2.0] * 6})
    got = reconcile(log, dashboard_of(log, PRESETS["growthbook"].rule))
    assert set(got.closest) == {"braze_canvas", "braze_campaign", "growthbook"}
    same = got.presets.set_index("preset")["same_as"]
    assert set(same["growthbook"].split(", ")) == {"braze_canvas", "braze_campaign"}


def test_readings_with_the_same_conversions_are_told_apart_by_the_other_numbers() -> None:
    log = arms_log({"control": [5.0] * 4, "A": [5.0] * 6})
    bounced = frames.to_frame(log, "sends")
    bounced["status"] = ["bounced" if i.endswith("9") else "sent" for i in bounced["send_id"]]
    log = frames.from_frames(bounced, frames.to_frame(log, "events"))
    alone = reconcile(log, dashboard_of(log, PRESETS["naive"].rule))
    assert set(alone.closest) >= {"naive", "default"}
    assert reconcile(log, dashboard_of(log, PRESETS["naive"].rule, ("conversions", "sends"))).closest == ["naive"]


def test_another_window_of_a_system_is_found_and_nothing_close_is_said(busy: Log) -> None:
    rule = with_settings(PRESETS["customerio"].rule, {"lookback_days": 14})
    got = reconcile(busy, dashboard_of(busy, rule))
    # With no offset the newest send is the last that qualifies, so these two cannot differ.
    assert got.closest == ["braze_canvas with lookback_days=14", "customerio with lookback_days=14"]
    assert got.closest_rule.lookback_days == 14
    far = dashboard_of(busy, Rule())
    far["conversions"] = far["conversions"] * 7 + 31
    lost = reconcile(busy, far)
    assert not lost.close
    check_receipt(lost.receipt)
    assert lost.receipt[lost.receipt["step"] == "unexplained"]["conversions"].abs().sum() > 0


def check_receipt(frame: pd.DataFrame) -> None:
    """ours + they count + we count + unexplained = theirs, in every block."""
    assert len(frame)
    for _, block in frame.groupby(["template_id", "variant_id"], sort=False):
        total = block[block["step"] != "theirs"]["conversions"].sum()
        assert total == pytest.approx(block[block["step"] == "theirs"]["conversions"].item(), abs=1e-6)
        assert (block[block["step"] == "they count"]["conversions"] > 0).all()
        assert (block[block["step"] == "we count"]["conversions"] < 0).all()


def test_the_receipt_by_hand() -> None:
    """Each reason once: in the offset, past the window, credited elsewhere, a repeat, a send not shown."""

    def sent(i: str, u: str, v: str, day: float, t: str = "T") -> dict[str, Any]:
        return {"send_id": i, "user_id": u, "template_id": t, "variant_id": v, "sent_at": T0 + round(day * DAY)}

    def bought(i: str, u: str, day: float) -> dict[str, Any]:
        return {"event_id": i, "user_id": u, "kind": "conversion", "name": "b", "occurred_at": T0 + round(day * DAY)}

    sends = [sent("1", "u1", "A", 0), sent("2", "u2", "A", 0), sent("3", "u3", "A", 0), sent("4", "u3", "B", 4),
             sent("5", "u4", "A", 0), sent("6", "u5", "B", 0), sent("7", "u5", "C", 1)]  # fmt: skip
    events = [bought("e1", "u1", 1), bought("e2", "u2", 10), bought("e3", "u3", 5), bought("e4", "u4", 5),
              bought("e5", "u4", 6), bought("e6", "u5", 2.5)]  # fmt: skip
    log = frames.from_frames(pd.DataFrame(sends), pd.DataFrame(events))
    # Theirs: iterable's reading with 3 days: e1 A, e3 B, e6 C (C is not on the dashboard); e2, e4, e5 none.
    dash = pd.DataFrame({"variant_id": ["A", "B"], "conversions": [1, 1]})
    got = reconcile(log, dash)
    assert got.closest[0] in ("braze_canvas", "braze_campaign", "growthbook", "customerio")
    rule = got.closest_rule
    assert (rule.lookback_days, rule.offset_days) == (3, 0)
    lines = {
        (r["variant_id"], r["step"], r["reason"]): r["conversions"]
        for _, r in got.receipt[got.receipt["step"].isin(["they count", "we count"])].iterrows()
    }
    a = {k[1:]: v for k, v in lines.items() if k[0] == "A"}
    assert a == {
        ("they count", "in_offset"): 1,
        ("we count", "past_lookback"): -2,  # e2 and e4; e5 repeats e4
        ("we count", "credited_elsewhere"): -1,
    }
    assert {k[1:]: v for k, v in lines.items() if k[0] == "B"} == {("they count", "credited_elsewhere"): 1}
    whole = {k[1:]: v for k, v in lines.items() if k[0] == ""}
    assert whole == {("they count", "in_offset"): 1, ("we count", "past_lookback"): -2}
    reasons = got.reasons.set_index("reason")
    assert reasons.loc["credited", ["events", "counted_by_closest"]].tolist() == [3, 1]
    assert reasons.loc["repeat", ["events", "counted_by_closest"]].tolist() == [1, 0]
    # e6 is C's under both, and C is not on the dashboard.
    assert (reasons["events"].sum(), reasons["counted_by_closest"].sum()) == (6, 2)
    assert any("not on the dashboard" in n and "T/C" in n for n in got.notes)


def test_a_repeat_and_an_immature_send_have_their_names() -> None:
    log = arms_log({"A": [5.0], "B": [5.0]})
    extra = frames.to_frame(log, "events")
    later = extra["occurred_at"] + pd.Timedelta("1D")
    again = pd.concat([extra.assign(occurred_at=later, received_at=later), extra])  # ids do not tell the order
    again["event_id"] = [f"e{i}" for i in range(len(again))]
    both = frames.from_frames(frames.to_frame(log, "sends"), again)
    s = study(both, rule=Rule(repeat="every"))
    cells = np.where(both.sends.variant == 0, 0, 1)
    counts = []
    for rule, mature in ((Rule(), False), (Rule(repeat="every"), False), (Rule(), True)):
        s = study(both, rule=rule, mature=mature, as_of=T0 + 15 * DAY)
        got = s.attribute(rule)
        counts.append(receipt.counted(s, got, numbers(s, got, "conversion_rate", cells, 2), cells))
    once, every, ripe = (receipt.within(c, [0, 1]) for c in counts)
    assert [(x.reason, x.parts, x.events) for x in receipt.bridge(once, every)] == [("repeat", 2 * PARTS, 2)]
    counted_at = both.events.occurred_at[once.event[once.parts > 0]]
    assert (counted_at == T0 + 5 * DAY).all()  # of two purchases the first counts, the second repeats
    assert [(x.reason, x.parts, x.events) for x in receipt.bridge(ripe, once)] == [("immature", 2 * PARTS, 2)]
    assert [(x.reason, x.adds, x.parts) for x in receipt.bridge(every, once)] == [("repeat", False, -2 * PARTS)]


@settings(max_examples=60)
@given(cases(), st.data())
def test_the_bridge_adds_up_exactly(case: Any, data: st.DataObject) -> None:
    """Between the drawn rule and any preset, per variant and over any of them, in integer parts."""
    rule, sends, events, _, as_of = case
    log = to_log(sends, events)
    real = log.sends.status != HELD_OUT
    assume(len(log.sends) and real.any())
    goals = sorted({e["name"] for e in events if e["name"]})
    mature = data.draw(st.booleans())
    s = study(log, rule=rule, goals=goals, as_of=as_of, currency_given=True, mature=mature)
    other_rule = PRESETS[data.draw(st.sampled_from(sorted(PRESETS)))].rule
    width = len(log.names("variant"))
    kept = data.draw(st.sets(st.sampled_from(range(width)), min_size=1))
    cells = np.where(s.shown & np.isin(log.sends.variant, list(kept)), log.sends.variant, -1)
    both = []
    for r in (rule, other_rule):
        got = s.attribute(r)
        n = numbers(s, got, "conversion_rate", cells, width)
        c = receipt.counted(s, got, n, cells)
        exact = np.zeros(width, np.int64)
        inside = n.cell >= 0
        np.add.at(exact, n.cell[inside], got.outcomes.numerator[inside])
        found = np.zeros(width, np.int64)
        np.add.at(found, c.cell, c.parts)
        assert found.tolist() == exact.tolist()
        both.append((c, exact))
    for members in [[v] for v in sorted(kept)] + [sorted(kept)]:
        ours, theirs = (receipt.within(c, members) for c, _ in both)
        lines = receipt.bridge(ours, theirs)
        start, end = (int(exact[members].sum()) for _, exact in both)
        assert start + sum(x.parts for x in lines) == end
        assert all((x.parts > 0) == x.adds and x.events > 0 for x in lines)
        assert all(x.reason != "credited" for x in lines)
        assert mature or all(x.reason != "immature" for x in lines)


@settings(max_examples=20)
@given(cases(), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_reconcile_agrees_with_the_results_table(case: Any, theirs: list[int]) -> None:
    rule, sends, events, _, as_of = case
    log = to_log(sends, events)
    goals = sorted({e["name"] for e in events if e["name"]})
    shown = sorted({r["variant_id"] for r in sends})
    assume(goals and shown and (log.sends.status != HELD_OUT).any() and len({r["send_id"] for r in sends}) > 2)
    dash = pd.DataFrame({"variant_id": shown, "conversions": theirs[: len(shown)]})
    got = reconcile(log, dash, rule=rule, goals=goals, as_of=as_of, currency_given=True)
    check_receipt(got.receipt)
    s = study(log, rule=rule, goals=goals, as_of=as_of, currency_given=True)
    table = metrics_table(
        log, bound_to(Program(rule=rule, goals=goals, policy=PolicySpec(name="uniform")), log), s.attribute(rule)
    )
    for v in shown:
        expected = sum(r["conversions"] for r in table if r["variant_id"] == v)
        mine = got.receipt[(got.receipt["variant_id"] == v) & (got.receipt["step"] == "ours")]["conversions"].item()
        assert mine == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rule", [Rule(), Rule(denominator="users", repeat="every"), Rule(denominator="sends")])
def test_measures_are_those_of_the_results_table(rule: Rule, busy: Log) -> None:
    s = study(busy, rule=rule)
    expected = table_of(busy, rule)
    pairs = list(zip(expected["template_id"], expected["variant_id"], strict=True))
    texts = zip(busy.text("template", busy.sends.template), busy.text("variant", busy.sends.variant), strict=True)
    cells = np.array([pairs.index(p) for p in texts])
    columns = ["sends", "conversions", "revenue", "opens", "clicks", "conversion_rate", "revenue_per_send", "open_rate"]
    got = measured(s, s.attribute(rule), cells, len(pairs), columns)
    for c in columns:
        assert got[c].tolist() == pytest.approx(expected[c].astype(float).tolist(), rel=1e-9), c


# -- the dashboard's file ---------------------------------------------------------------------------


def file(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "dash.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Variant,Sends,Conversions,CVR\nA,"1,234","1,000",81.0%\n', (1234, 1000, 0.81)),
        ("variant_id;sends;conversions;conversion_rate\nA;1.234;1.000;81,0 %\n", (1234, 1000, 0.81)),
        ("arm\tsent\tconverted\tConversion Rate\nA\t1234\t1000\t0.8104\n", (1234, 1000, 0.8104)),
        ("VARIANT ID,total sends,conversion count,conversion_rate\nA,1234,1000,81.04\n", (1234, 1000, 0.8104)),
        ("variant,sent,converted,Conversion %\nA,1234,1000,0.81\n", (1234, 1000, 0.0081)),
        ("variant,sends,conversions,conversion rate (%)\nA,1234.0,1000,81.04\nTotal,1234,1000,81.04\n",
         (1234, 1000, 0.8104)),
        ("variant,sends,conversions,cvr\nA,1 234,1’000,0.81\n\n", (1234, 1000, 0.81)),
        ('variant,sends,conversions,cvr\nA,"1,234",1000,"0,279"\n', (1234, 1000, 0.279)),
        ("variant;sends;conversions;cvr\nA;1234;1000;0.279\n", (1234, 1000, 0.279)),
        ('variant,sends,conversions,cvr\nA,"1,23,400","1,00,000",81%\n', (123400, 100000, 0.81)),
        ("variant|sends|conversions|cvr\nA|1234|1000|0.81\nAverage|1234|1000|0.81\n", (1234, 1000, 0.81)),
        ("Weekly report, variants\n\nvariant,sends,conversions,cvr\nA,1234,1000,0.81\n", (1234, 1000, 0.81)),
    ],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(text: str, expected: tuple[float, ...], tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        got = read_dashboard(file(tmp_path, text, encoding))
        assert got.variants == ["A"]
        found = [got.values[m][0] for m in ("sends", "conversions", "conversion_rate")]
        assert found == pytest.approx(expected)


def test_money_blanks_and_small_percentages(tmp_path: Path) -> None:
    text = 'variant,revenue,conversions,sends,cvr\nA,"$1,200.50",4,1000,0.4\nB,-12 USD,-,1000,n/a\nC,(3.5),,,\n'
    got = read_dashboard(file(tmp_path, text))
    assert got.values["revenue"].tolist() == [1200.5, -12, -3.5]
    assert got.values["conversion_rate"][0] == pytest.approx(0.004)  # its counts say that 0.4 is per cent
    assert np.isnan(got.values["conversions"][1:]).all()
    assert any("per cent" in n for n in got.notes)


def test_rows_by_day_are_added_up(tmp_path: Path) -> None:
    got = read_dashboard(file(tmp_path, "day,variant,sends,conversions,cvr\n1,A,10,1,10%\n2,A,30,2,6.7%\n1,B,5,0,0%\n"))
    assert (got.variants, got.values["conversions"].tolist()) == (["A", "B"], [3, 0])
    assert "conversion_rate" not in got.values
    assert any("left out: conversion_rate" in n for n in got.notes)
    assert any("not compared: day" in n for n in got.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("conversions\n3\n", "no column variant_id"),
        ("varient_id,conversions\nA,3\n", "did you mean 'variant_id'"),
        ("variant_id\nA\n", "no number to compare"),
        ("variant_id,conversons\nA,3\n", "did you mean 'conversions'"),
        ("variant_id,conversions\nA,many\n", "dash.csv line 2, column 'conversions': found 'many', expected a number"),
        ("variant_id,conversions\nA,-3\n", "expected at least 0"),
        ("variant_id,conversions\nA,3%\n", "without a percent sign"),
        ("variant_id,conversions\nA,inf\n", "line 2, column 'conversions': found 'inf', expected a number"),
        ("variant_id,conversions\nA,1e400\n", "found '1e400', expected a number"),
        ("variant_id,conversions\nA,nan\n", "found 'nan', expected a number"),
        ("variant_id,conversions\nA,1_000\n", "found '1_000', expected a number"),
        ('variant_id,conversions\nA,3\nB,"0,279"\n', "line 3, column 'conversions': found '0,279', expected a whole"),
        ("variant_id,sends\nA,1.5\n", "expected a whole number of sends"),
        ('variant_id,sends\nA,"0,279,000"\n', "found '0,279,000', expected a number"),
        ("A title\nmore of it\nvarient,conversions\nA,3\n", "no column variant_id"),
        ("variant_id,conversions\nTotal,3\n", "no row with a variant"),
        ("variant_id,variant_id,conversions\nA,A,3\n", "is there twice"),
        ("variant_id,conversion_rate\nA,3%\nA,4%\n", "cannot be added"),
        ("a\x00b,conversions\n1,2\n", "is not text"),
        ("variant_id,conversions\ncontrl,3\n", "line 2: variant 'contrl' is not in the log; did you mean 'control'"),
        ("template_id,variant_id,conversions\nT7,A,3\n", "template 'T7' is not in the log; valid: T0, T1"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_what(text: str, says: str, tmp_path: Path, busy: Log) -> None:
    with pytest.raises(DataError) as e:
        reconcile(busy, file(tmp_path, text))
    assert says in str(e.value)


def test_parts_of_conversions_are_read_where_the_rule_shares_them(tmp_path: Path, busy: Log) -> None:
    path = file(tmp_path, "variant_id,conversions\nA,30.5\ncontrol,20.25\n")
    with pytest.raises(DataError, match="whole number of conversions"):
        reconcile(busy, path)
    got = reconcile(busy, path, rule=Rule(credit="linear"))
    assert any("read as shared credit" in n for n in got.notes)


def test_a_measure_that_contradicts_the_closest_is_said(busy: Log) -> None:
    dash = dashboard_of(busy, PRESETS["iterable"].rule, ("sends", "conversions", "conversion_rate"))
    assert reconcile(busy, dash).contradicts == {}
    dash["conversion_rate"] = dash["conversion_rate"].astype(float) * 2
    got = reconcile(busy, dash)
    assert got.closest == ["iterable"]
    assert got.contradicts == {"conversion_rate": pytest.approx(0.5, abs=0.01)}


def test_the_dust_of_sums_is_no_difference(busy: Log) -> None:
    dash = dashboard_of(busy, Rule(), ("conversions", "revenue"))
    dash["revenue"] = dash["revenue"].astype(float) * (1 + 2e-16) + 9e-13
    got = reconcile(busy, dash)
    assert (got.comparison["difference"] == 0).all()


def test_a_file_that_is_not_there_is_a_usage_error(busy: Log, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        reconcile(busy, tmp_path / "no.csv")


@settings(max_examples=150)
@given(st.text(st.sampled_from('variant_id,conversions;AB0123456789.%\n\t"$- €'), max_size=60))
def test_no_text_is_more_than_an_error_with_a_message(text: str) -> None:
    frame = pd.DataFrame({"variant_id": ["A"], "conversions": [text]})
    with contextlib.suppress(JustaiError):  # anything else is a traceback
        found = read_dashboard(frame).values["conversions"][0]
        assert found >= 0 or np.isnan(found)


def test_names_in_other_letters_and_rates_alone(busy: Log) -> None:
    table = dashboard_of(busy, PRESETS["iterable"].rule, ("sends", "conversion_rate"))
    table["variant_id"] = table["variant_id"].str.upper()
    table["conversion_rate"] = [f"{100 * x:.2f}%" for x in table["conversion_rate"].astype(float)]
    got = reconcile(busy, table)
    assert (got.closest, got.distance) == (["iterable"], 0)
    check_receipt(got.receipt)
    left = got.receipt[(got.receipt["step"] == "unexplained") & (got.receipt["template_id"] == "ALL")]
    assert abs(left["conversions"].item()) < 0.00005 * table["sends"].sum()  # what two decimals hide
    alone = reconcile(busy, table.drop(columns="sends"))
    assert not len(alone.receipt)
    assert any("no receipt" in n for n in alone.notes)


# -- commands and figures ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(busy: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log")
    sends, events = frames.to_frame(busy, "sends"), frames.to_frame(busy, "events")
    times = {
        "sends": ("sent_at", "delivered_at", "status_known_at", "received_at"),
        "events": ("occurred_at", "received_at"),
    }
    for f, columns in ((sends, times["sends"]), (events, times["events"])):
        for c in columns:
            f[c] = f[c].map(lambda t: "" if pd.isna(t) else t.isoformat())
    write_log(
        path, sends.dropna(axis=1, how="all").to_dict("records"), events.dropna(axis=1, how="all").to_dict("records")
    )
    return path


def test_the_command_interpretations(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["interpretations", str(folder), "--goal", "buy", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "As in use, " in out
    assert "change nothing: " in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "interpretations.csv", "rates.csv", "interpretations.png", "interpretations.svg", "index.html",
        "manifest.json", "tables",
    }  # fmt: skip
    assert run(["interpretations", str(folder), "--json", "--template", "T1", "--set", "credit=linear"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert found["readings"][0]["reading"] == "as in use"
    assert "credit=last_qualifying" in {r["reading"] for r in found["readings"]}
    for wrong, says in (
        (["--set", "credit=liner"], "did you mean 'linear'"),
        (["--preset", "iterabel"], "did you mean 'iterable'"),
        (["--metric", "clicks_rate"], "did you mean 'click_rate'"),
        (["--goal", "bye"], "did you mean 'buy'"),
        (["--template", "T9"], "is not in the log"),
        (["--out", str(folder)], "holds a log"),
        (["--since", "2026-13-01"], "not ISO-8601"),
    ):
        assert run(["interpretations", str(folder), *wrong]) == 2
        assert says in capsys.readouterr().err
    assert run(["interpretations", str(folder), "--since", "2031-01-01T00:00:00Z"]) == 3
    assert "no send is left" in capsys.readouterr().err


def test_the_command_reconcile(folder: Path, busy: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dash = tmp_path / "dash.csv"
    dashboard_of(busy, PRESETS["braze_canvas"].rule, ("sends", "conversions")).to_csv(dash, index=False)
    assert run(["reconcile", str(folder), "--against", str(dash), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("The dashboard counts most like braze_canvas (its conversions are the same).")
    assert "differs from the default rule in: lookback_days=3, offset_days=0" in out
    assert "in_offset" in out
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".csv", ".png", ".svg", ".html", ".json", ""}
    assert run(["reconcile", str(folder), "--against", str(dash), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["closest"] == ["braze_canvas"]
    assert found["options"]["scope"] == "org"
    whole = [r for r in found["receipt"] if r["template_id"] == "ALL"]
    assert sum(r["conversions"] for r in whole[:-1]) == pytest.approx(whole[-1]["conversions"])
    assert run(["reconcile", str(folder), "--against", str(tmp_path / "none.csv")]) == 2
    twice = pd.read_csv(dash).assign(conversion_rate="1%")
    twice.to_csv(tmp_path / "twice.csv", index=False)
    assert run(["reconcile", str(folder), "--against", str(tmp_path / "twice.csv")]) == 0
    assert "other numbers of the dashboard are not those of braze_canvas: conversion rate (" in capsys.readouterr().out
    dash.write_text("variant_id,conversions\nZ,1\n")
    assert run(["reconcile", str(folder), "--against", str(dash)]) == 3
    assert "line 2: variant 'Z' is not in the log" in capsys.readouterr().err


def test_the_command_reconcile_where_nothing_comes_close(
    folder: Path, busy: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dash = tmp_path / "dash.csv"
    for factor, says in ((0, "The dashboard's conversions are all 0, and every preset counts some."),
                         (7, "No preset comes close to the dashboard; the nearest is ")):  # fmt: skip
        theirs = dashboard_of(busy, Rule(), ("conversions",))
        theirs.assign(conversions=factor * theirs["conversions"]).to_csv(dash, index=False)
        out = tmp_path / f"out{factor}"
        assert run(["reconcile", str(folder), "--against", str(dash), "--out", str(out)]) == 0
        text = capsys.readouterr().out
        assert text.startswith(says)
        assert "no receipt: " in text
        assert "from our conversions to theirs" not in text
        assert "counted_by_closest" not in text
        assert not (out / "receipt.png").exists()
        assert not re.search(r"[ (]-\d|\d{4}\.\d%", text), "one kind of minus, no percentage of nothing"
        assert ("−" if factor == 0 else "+") in text


def test_one_kind_of_minus_in_a_receipt(folder: Path, busy: Log, tmp_path: Path, capsys: Any) -> None:
    dash = tmp_path / "dash.csv"
    dashboard_of(busy, PRESETS["braze_canvas"].rule, ("conversions",)).to_csv(dash, index=False)
    assert run(["reconcile", str(folder), "--against", str(dash), "--set", "lookback_days=30"]) == 0
    text = capsys.readouterr().out
    assert "− we count; for them " in text
    assert "- we count" not in text
    assert not re.search(r"[ (]-\d", text)


def test_the_forest_plot_marks_what_changes() -> None:
    log = arms_log({"control": [5.0] * 10 + [14.0] * 5, "A": [5.0] * 12, "a variant with a long name": [14.0] * 30})
    t = js.interpretations(log).table
    ax = js.plot_interpretations(t)
    panel = ax.child_axes[0]
    labels = [x.get_text() for x in panel.get_yticklabels()]
    drawn_rows = t[t["status"].isin(["in use", "changes"])]
    assert len(labels) == len(drawn_rows)
    assert labels[0] == "as in use"
    assert any("a varia…g name" in x.get_text() for x in panel.texts)
    low, high = panel.get_xlim()
    assert all(low < x < high for x in drawn_rows["difference_per_1000"])
    assert "per 1,000 sends" in panel.get_xlabel()
    assert render(ax, "png")[:4] == b"\x89PNG"


def test_the_forest_plot_of_equal_rates_has_an_axis() -> None:
    """All differences are 0 and have no interval: not one point of matplotlib's axis may be left of it, or it warns."""
    t = js.interpretations(arms_log({"control": [5.0] * 40, "A": [5.0] * 40})).table
    assert (t["difference_per_1000"].dropna() == 0).all()
    low, high = js.plot_interpretations(t).child_axes[0].get_xlim()
    assert low < 0 < high


def test_the_forest_plot_says_its_levels_names_the_presets_and_explains_only_what_is_there() -> None:
    log = arms_log({"control": [5.0] * 10 + [14.0] * 5, "A": [5.0] * 12, "a variant with a long name": [14.0] * 30})
    table = js.interpretations(log).table
    for alike in (True, False):
        changed = table["leader_changes"].eq(True)
        t = table[~changed].reset_index(drop=True) if alike else table
        ax = js.plot_interpretations(t)
        said = " ".join(x.get_text() for x in ax.texts)
        assert "for all readings at once (Bonferroni)" in " ".join(said.split())
        assert "tz=utc" not in said, "names as they are written"
        shown = t[t["status"].isin(["in use", "changes"])]
        panel = ax.child_axes[0]
        inside = [x.get_text() for x in panel.texts]
        assert (PRESETS_HEAD in inside) == (shown["kind"] == "preset").any()
        squares = shown["leader_changes"].eq(True) & ~shown["sign_changes"].eq(True)
        assert ("another leads" in said) == squares.any()
        assert ("(name): too close" in said) == any(x.startswith("(") for x in inside)


def test_the_receipts_bars_end_where_the_next_begins(busy: Log) -> None:
    got = reconcile(busy, dashboard_of(busy, PRESETS["iterable"].rule))
    rows = got.receipt[got.receipt["template_id"] == "ALL"]
    panel = js.plot_receipt(got.receipt).child_axes[0]
    bars = panel.patches
    assert len(bars) == len(rows)
    ends = [b.get_x() + b.get_width() for b in bars]
    starts = [b.get_x() for b in bars]
    assert starts[1:-1] == pytest.approx(ends[:-2])
    assert ends[-1] == pytest.approx(ends[-2])
    empty = got.receipt[:0]
    assert not js.plot_receipt(empty).child_axes

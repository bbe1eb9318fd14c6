"""The door to estimates on adaptive data: a log in, a table by variant and method out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

import justai_sim as js
from justai_sim.errors import DataError, UsageError
from justai_sim.estimate.adaptive import METHODS
from justai_sim.scenario import read
from justai_sim.tables import Decisions, Log

SCENARIO = Path(__file__).parents[1] / "scenarios" / "welcome.toml"


@pytest.fixture(scope="module")
def log() -> Log:
    world = read(SCENARIO)
    return js.simulate(msgspec.structs.replace(world, days=42)).log


@pytest.fixture(scope="module")
def table(log):
    return js.estimates(log, goals=["purchase"]).table


def blind(log, some=None):
    """The log without propensities, or without `some` of them."""
    p = log.sends.propensity.copy()
    p[slice(None) if some is None else some] = np.nan
    return replace(log, sends=log.sends.with_(propensity=p), decisions=Decisions.empty())


def test_every_variant_by_every_method(table):
    assert len(table) == 5 * 4 * len(METHODS)
    assert set(table["method"]) == set(METHODS)
    treated = table[table["variant_id"] != "control"]
    assert treated["lead"].notna().all()
    assert table.loc[table["variant_id"] == "control", "lead"].isna().all()
    assert (table["low"] < table["estimate"]).all()


def test_the_plain_mean_is_that_of_the_results_table(log, table):
    metrics = js.replay(log, goals=["purchase"]).metrics
    rates = metrics.set_index(["template_id", "variant_id"])["mature_conversion_rate"]
    plain = table[table["method"] == "sample_mean"].set_index(["template_id", "variant_id"])["estimate"]
    for cell, value in plain.items():
        assert value == pytest.approx(rates[cell], rel=1e-12)


def test_methods_agree_within_their_errors(table):
    """One world: every method estimates the same rate, so none is far from AIPW."""
    wide = table.pivot(index=["template_id", "variant_id"], columns="method", values="estimate")
    error = table.pivot(index=["template_id", "variant_id"], columns="method", values="se")
    for method in METHODS:
        off = (wide[method] - wide["aipw_uniform"]).abs()
        assert (off <= 4 * np.hypot(error[method], error["aipw_uniform"])).all()


def test_sends_without_a_propensity_stay_out_of_weighting(log):
    some = np.arange(len(log.sends)) % 10 == 0
    got = js.estimates(blind(log, some), goals=["purchase"], template="welcome-1")
    by = got.table.groupby("method")["sends"].sum()
    assert by["ipw"] < by["sample_mean"]
    assert any("without a propensity left out" in n for n in got.notes)
    none = js.estimates(blind(log), goals=["purchase"], template="welcome-1")
    assert set(none.table["method"]) == {"sample_mean", "batched_ols", "stratified"}
    assert sum("the log has no propensities" in n for n in none.notes) == len(METHODS) - 3
    with pytest.raises(DataError, match="no propensities"):
        js.estimates(blind(log), goals=["purchase"], method="ipw")


def test_shares_that_move_within_an_epoch_are_said(log):
    got = js.estimates(log, goals=["purchase"], template="welcome-1", epoch_days=7)
    assert "aipw_sqrt" not in set(got.table["method"])
    assert any("shares that stand still within a batch" in n for n in got.notes)


def test_a_method_by_name_on_another_metric(log):
    got = js.estimates(log, goals=["purchase"], method="stratified", metric="open_rate", mature=False)
    assert set(got.table["method"]) == {"stratified"}
    assert math.isclose(got.level, 0.95)
    assert "Unbiased if shares changed only between epochs" in got.table["caveat"][0]
    assert "<table" in got._repr_html_()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "aipw"}, "method 'aipw' is not known"),
        ({"denominator": "users"}, "estimates are per send"),
        ({"metric": "conversions"}, "is not known"),
        ({"epoch_days": 0}, "epoch_days is 0"),
        ({"control": "contrl"}, "did you mean 'control'"),
    ],
)
def test_wrong_options_are_refused(log, options, said):
    with pytest.raises(UsageError, match=said):
        js.estimates(log, goals=["purchase"], **options)


@pytest.mark.slow
def test_simulated_logs_are_unbiased_and_covered():
    """Through the whole simulator, its policy's logged shares and the attribution: four equal variants, 150 worlds."""
    world = read(SCENARIO)
    flow = [msgspec.structs.replace(v, conversion_rate=0.05) for v in world.variants]
    world = msgspec.structs.replace(world, days=42, variants=flow)
    leads: dict[str, list[list[float]]] = {m: [] for m in METHODS}
    for rep in range(150):
        got = js.estimates(js.simulate(world, rep=rep).log, goals=["purchase"], template="welcome-1").table
        story = got[got["variant_id"] == "story"].set_index("method")
        for m in METHODS:
            leads[m].append(story.loc[m, ["lead", "lead_low", "lead_high"]].tolist())
    for m, rows in leads.items():
        lead, low, high = np.array(rows, float).T
        if m in ("ipw", "aipw_uniform", "stratified"):
            assert abs(lead.mean()) <= 4 * lead.std() / math.sqrt(150), m
        covered = ((low <= 0) & (high >= 0)).mean()
        assert covered >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 150), m

"""Designs over ranges: where the points lie, what they are called, and that they come from the scenario's seed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from justai_sim.designs import Design, Range, SweepError, axes_of, unit_points
from justai_sim.scenario import Scenario, packaged, parse, points, read

LHS = {"kind": "latin_hypercube", "points": 40}


def with_sweep(**sweep: Any) -> Scenario:
    return msgspec.structs.replace(read("welcome"), sweep=sweep)


def test_a_latin_hypercube_has_one_point_in_every_stratum_of_every_axis() -> None:
    u = unit_points(Design(**LHS), 3, seed=1)
    assert (np.sort((u * 40).astype(int), axis=0) == np.arange(40)[:, None]).all()
    assert not (np.sort((unit_points(Design(kind="random", points=40), 3, 1) * 40).astype(int), axis=0)
                == np.arange(40)[:, None]).all()  # fmt: skip


@pytest.mark.parametrize("kind", ["random", "latin_hypercube"])
def test_points_are_those_of_the_seed(kind: Any) -> None:
    one, again, other = (unit_points(Design(kind=kind, points=7), 2, seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert not (one == other).any()


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_values_are_even_on_their_scale(scale: Any) -> None:
    """Kolmogorov's bound at 1e-6 with a fixed seed; whole numbers by chi-square on their share of the scale."""
    u = np.random.default_rng(3).random(4000)
    v = np.array(Range(low=2, high=50, scale=scale).at(u))
    shape = stats.loguniform(2, 50) if scale == "log" else stats.uniform(2, 48)
    assert stats.kstest(v, shape.cdf).pvalue > 1e-6
    n = np.array(Range(low=2, high=9, scale=scale, integer=True).at(u))
    edges = np.log(np.arange(2, 11)) if scale == "log" else np.arange(2, 11)
    expected = np.diff(edges) / (edges[-1] - edges[0]) * len(u)
    assert stats.chisquare(np.bincount(n, minlength=10)[2:], expected).pvalue > 1e-6
    assert set(n.tolist()) == set(range(2, 10))


def test_a_design_meets_every_label_of_the_other_axes() -> None:
    s = with_sweep(**{
        "program.policy.name": ["uniform", "weighted_thompson"], "design": LHS,
        "world.signups_per_day": {"low": 10, "high": 1000, "scale": "log", "integer": True},
        "world.bounce_rate": {"low": 0.0, "high": 0.2},
    })  # fmt: skip
    found = points(s)
    assert len(found) == 80
    assert list(found[0].labels) == ["policy", "signups_per_day", "bounce_rate"]
    assert {tuple(p.labels.values())[1:] for p in found[:40]} == {tuple(p.labels.values())[1:] for p in found[40:]}
    for p in found:
        assert p.labels["signups_per_day"] == f"{p.scenario.world.signups_per_day:.0f}"
        assert float(p.labels["bounce_rate"]) == p.scenario.world.bounce_rate
    assert points(s) == found
    assert points(msgspec.structs.replace(s, seed=2)) != found


def test_equal_points_of_whole_numbers_are_there_once() -> None:
    s = with_sweep(**{"program.rule.lookback_days": {"low": 7, "high": 9, "integer": True}, "design": LHS})
    assert sorted(p.name for p in points(s)) == ["7", "8", "9"]


def test_axes_are_told_apart_by_their_names() -> None:
    rates = {"variants.0.conversion_rate": [0.01, 0.02], "variants.1.conversion_rate": [0.01]}
    (a, b) = axes_of(rates, 1)
    assert (list(a.keys), list(b.keys)) == (["variants.0.conversion_rate"], ["variants.1.conversion_rate"])
    (day,) = axes_of({"flow.0.day": [1]}, 1)
    assert list(day.keys) == ["flow.0.day"], "the tables have a column 'day'"
    with pytest.raises(SweepError, match="column of that name"):
        axes_of({"value": {"a": {"days": 3}}}, 1)


def test_the_example_of_the_docs_is_a_sweep() -> None:
    page = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    table = re.search(r"```toml\n(.*?)```", page, re.S)
    assert table is not None
    welcome = (packaged() / "welcome.toml").read_text(encoding="utf-8")
    found = points(parse(welcome[: welcome.index("[sweep.window]")] + table[1], "docs"))
    assert len(found) == 80
    assert list(found[0].labels) == ["policy", "mean_days", "signups_per_day", "window"]

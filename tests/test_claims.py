"""What is claimed of recommendations and verdicts on the packaged scenarios, in the small, and that the study which
measures it in the large (`benchmarks/claims.py`) can tell right from wrong."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchmarks.claims import (
    QUESTIONS,
    Worlds,
    asked,
    deciding,
    equal,
    false_verdicts,
    judged,
    mirrored,
    no_difference,
    smaller,
    truly_best,
)
from justai_sim.scenario import Scenario, packaged, read, with_settings
from justai_sim.sim.cost import expected_sends
from justai_sim.sweeps.criteria import ALPHA, Question, false_ships, kinds
from justai_sim.sweeps.recommend import recommend

RIGHT, CONVERSIONS, TIME = QUESTIONS
N, SIZE = 10, 20


@pytest.fixture(scope="module")
def windows() -> Worlds:
    """wrong_winner_window: with a lookback below 7.15 days the worse variant leads for good."""
    return Worlds(smaller(deciding("wrong_winner_window"), 3_000), N * SIZE)


def leads(scenario: Scenario, draws: int = 400_000) -> float:
    """The chance that b has the better rate on the last day, under an even split of isolated messages: Poisson numbers
    of sends at uniform times, of which each counts with the delay's share of what of its window has passed."""
    rng = np.random.default_rng(3)
    days, window = scenario.days, scenario.program.rule.lookback_days
    rate = []
    for v in scenario.variants:
        assert v.delay is not None
        m = v.delay.mean_days
        seen = window - m * -np.expm1(-window / m) + (days - window) * -np.expm1(-window / m)
        n = rng.poisson(expected_sends(scenario) / 2 * (1 - scenario.world.bounce_rate), draws)
        rate.append(rng.binomial(n, v.conversion_rate * seen / days) / n)
    return float((rate[1] > rate[0]).mean())


def test_the_worlds_are_as_right_as_the_closed_form_says(windows: Worlds) -> None:
    """The oracle of the study against one that simulates nothing of ours: 200 worlds, 4 standard errors."""
    for point, found in zip(windows.points, windows.of(RIGHT), strict=True):
        p = leads(point.scenario)
        assert abs(found.mean() - p) < 4 * np.sqrt(p * (1 - p) / len(found)), (point.name, found.mean(), p)


def test_what_is_recommended_is_right_or_a_stated_tie(windows: Worlds) -> None:
    """By the closed form as well: 0-14 is best, the short windows are hardly ever right."""
    truth = {p.name: leads(p.scenario) for p in windows.points}
    assert truth["0-14"] > truth["0-9"] > truth["0-5"] > truth["0-3"]
    told = list(asked(windows, RIGHT, N, SIZE))
    assert sum(said == "wrong" for _, said in told) <= scipy_stats.binom.ppf(1 - 1e-3, N, ALPHA)
    for r, said in told:
        assert (said != "wrong") == ("0-14" in r.chosen or "0-9" in r.chosen)
    assert sum("0-3" not in r.chosen for r, _ in told) > N / 2, "a tie everywhere would be right, too"


def test_a_wrong_recommendation_is_found_out(windows: Worlds) -> None:
    """Of worlds whose points have changed places."""
    turned = Worlds.__new__(Worlds)
    turned.__dict__ |= windows.__dict__
    names = [p.name for p in windows.points]
    turned.races = [r.assign(point=n, window=n) for n, r in zip(names, reversed(windows.races), strict=True)]
    others = np.arange(N * SIZE) >= SIZE
    found, wrong = windows.of(RIGHT), [false_ships(r) for r in windows.races]
    told = recommend(turned.sweep(range(SIZE)), RIGHT)
    assert judged(told, windows, RIGHT, found, wrong, others) == "wrong"
    assert truly_best(found, range(4), others, higher=True) <= {0, 1}
    assert 3 in truly_best(found, range(4), others, higher=False)


def test_a_decision_over_the_limit_is_a_wrong_one(windows: Worlds) -> None:
    r = recommend(windows.sweep(range(SIZE)), TIME)
    found, others = windows.of(TIME), np.arange(N * SIZE) >= SIZE
    none, all_of = ([np.full(N * SIZE, x) for _ in windows.points] for x in (0.0, 1.0))
    assert judged(r, windows, TIME, found, none, others) in ("alone", "tie")
    assert judged(r, windows, TIME, found, all_of, others) == "wrong"
    strict = recommend(windows.sweep(range(SIZE)), Question(criterion="decision_time", limit=0.01))
    assert judged(strict, windows, TIME, found, none, others) == "open"


def test_no_difference_is_said_where_there_is_none() -> None:
    """Two decisions that are equal by symmetry, but not in any world."""
    null = Worlds(mirrored(smaller(read("fast_converter"), 1_500)), N * SIZE)
    for question in (RIGHT, CONVERSIONS):
        one, other = null.of(question)
        d = one - other
        assert np.count_nonzero(d) >= 10
        assert abs(d.mean()) < 4 * d.std(ddof=1) / np.sqrt(len(d))
        assert no_difference(null, question, N, SIZE) >= N - scipy_stats.binom.ppf(1 - 1e-3, N, ALPHA)


def test_equal_variants_of_a_scenario_are_hardly_ever_shipped() -> None:
    scenario = equal(smaller(with_settings(read("fast_converter"), {"program.rule.offset_days": 0}), 20_000))
    assert false_verdicts(scenario, 10) <= scipy_stats.binom.ppf(1 - 1e-3, 10, 0.05)


def test_variants_that_differ_are_shipped() -> None:
    """Else the test above could not fail."""
    raw = smaller(with_settings(read("fast_converter"), {"program.rule.offset_days": 0}), 20_000)
    assert false_verdicts(with_settings(raw, {"variants.1.conversion_rate": 0.2}), 2) == 2


@pytest.mark.parametrize("name", sorted(p.stem for p in packaged().glob("*.toml")))
def test_every_scenario_has_decisions_to_choose_between(name: str) -> None:
    scenario = deciding(name)
    assert "decision" in kinds(scenario).values()
    assert len(kinds(mirrored(read(name)))) == 1
    first, *others = equal(read(name)).variants
    for v in others:
        assert msgspec.structs.replace(v, id=first.id, from_day=0.0) == first

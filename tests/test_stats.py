"""Intervals and tests: textbook values, and coverage within bounds computed from the number of runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special

from justai_sim import stats


def within(rate, target, runs, k=4.0):
    """Whether a share of `runs` lies within k standard errors of the target."""
    return abs(rate - target) <= k * math.sqrt(target * (1 - target) / runs)


@given(st.integers(1, 10**7), st.data())
def test_wilson_solves_its_equation(n, data):
    y = data.draw(st.integers(0, n))
    for edge in stats.wilson(y, n, 0.9):
        if 0 < edge < 1:
            assert abs(y / n - edge) == pytest.approx(1.6448536 * math.sqrt(edge * (1 - edge) / n), rel=1e-5)


def test_wilson_edges():
    low, high = stats.wilson([0, 5, 0, 5 + 1e-12], [5, 5, 0, 5])
    assert low[0] == 0
    assert high[1] == 1
    assert np.isnan([low[2], high[2]]).all()
    assert high[0] == pytest.approx(1 - low[1])
    assert low[3] < 1 <= high[3]


def test_wilson_holds_the_observed_share():
    n = np.arange(1, 400)
    low, high = stats.wilson(n // 3, n, 0.5)
    assert ((low <= n // 3 / n) & (n // 3 / n <= high)).all()


def test_mean_interval_covers():
    rng, runs, n = np.random.default_rng(1), 20_000, 8
    x = rng.normal(3.0, 2.0, (runs, n))
    low, high = stats.mean_interval(x.sum(1), (x * x).sum(1), np.full(runs, n), 0.9)
    assert within(((low <= 3) & (high >= 3)).mean(), 0.9, runs)
    assert np.isnan(stats.mean_interval(1.0, 1.0, 1)).all()
    low, high = stats.mean_interval(0.3, 0.03, 3)
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)


def test_two_proportion_z():
    z, p = stats.two_proportion_z([60, 40, 0, 5], [1000, 1000, 10, 5], [40, 60, 0, 3], [1000, 1000, 10, 0])
    assert z[0] == pytest.approx(0.02 / math.sqrt(0.05 * 0.95 * 2 / 1000))
    assert z[1] == -z[0]
    assert p[0] == pytest.approx(2 * special.ndtr(-z[0]))
    assert np.isnan(z[2:]).all()
    assert np.isnan(p[2:]).all()


def test_two_proportion_level():
    rng, runs = np.random.default_rng(2), 40_000
    y = rng.binomial(2_000, 0.1, (2, runs))
    _, p = stats.two_proportion_z(y[0], 2_000, y[1], 2_000)
    # the true level of the discrete test lies within .003 of the nominal one
    assert abs((p < 0.05).mean() - 0.05) < 0.003 + 4 * math.sqrt(0.05 * 0.95 / runs)


def test_min_detectable_lift_at_a_thousand_sends():
    assert round(100 * stats.min_detectable_lift(0.02, 1000, 1000)) == 88
    assert round(100 * stats.min_detectable_lift(0.02, 333, 1000)) == 124
    assert stats.min_detectable_lift(0.5, 10, 10) == math.inf
    assert stats.min_detectable_lift(0.5, 20, 20, variance="solved") < 1
    assert math.isnan(stats.min_detectable_lift(0.0, 10, 10))
    with pytest.raises(ValueError, match="expected 'base' or 'solved'"):
        stats.min_detectable_lift(0.1, 10, 10, variance="x")


def test_min_detectable_lift_solved_has_the_power():
    rng, runs = np.random.default_rng(3), 40_000
    lift = stats.min_detectable_lift(0.02, 2_000, 4_000, variance="solved")
    y1, y2 = rng.binomial(2_000, 0.02, runs), rng.binomial(4_000, 0.02 * (1 + lift), runs)
    _, p = stats.two_proportion_z(y1, 2_000, y2, 4_000)
    # normal approximation of skewed counts: one or two points of power
    assert abs((p < 0.05).mean() - 0.8) < 0.02 + 4 * math.sqrt(0.16 / runs)
    assert stats.min_detectable_lift(0.02, 10, 10, variance="solved") > 5


def test_simultaneous_band_covers_a_whole_curve():
    rng, runs, G, A = np.random.default_rng(4), 400, 300, 12
    hits = pointwise = 0
    for _ in range(runs):
        estimate, se, c = stats.simultaneous_band(rng.standard_normal((G, A)).cumsum(1), 0.9, 1000, rng=rng)
        hits += bool((np.abs(estimate) <= c * se).all())
        pointwise += bool((np.abs(estimate) <= 1.645 * se).all())
    # the quantile from 1,000 draws adds its own error to the coverage of each run, not to the mean of runs
    assert within(hits / runs, 0.9, runs)
    assert pointwise < hits


def test_simultaneous_band_multiplier_of_independent_points():
    rng = np.random.default_rng(5)
    _, se, c = stats.simultaneous_band(rng.standard_normal((20_000, 10)), 0.95, 20_000, rng=rng)
    exact = stats.z_value(0.95**0.1)
    density = 20 * 0.975 ** (19) * math.exp(-exact * exact / 2) / math.sqrt(2 * math.pi)
    assert abs(c - exact) < 4 * math.sqrt(0.05 * 0.95 / 20_000) / density + 0.02
    np.testing.assert_allclose(se, math.sqrt(20_000), rtol=0.03)


def test_simultaneous_band_degenerate_points():
    rng = np.random.default_rng(6)
    groups = np.column_stack([np.full(50, 0.1), rng.standard_normal(50), np.zeros(50)])
    estimate, se, c = stats.simultaneous_band(groups, rng=rng)
    assert estimate[0] == pytest.approx(5.0)
    assert se[0] == se[2] == 0 < se[1]
    assert c == pytest.approx(stats.z_value(0.95), abs=0.15)
    assert stats.simultaneous_band(np.ones((5, 2)), rng=rng)[2] == stats.z_value(0.95)
    with pytest.raises(ValueError, match="expected at least 2"):
        stats.simultaneous_band(np.ones((1, 2)), rng=rng)


def test_kaplan_meier_textbook():
    # remission times of the 6-MP group (Freireich et al. 1963): S(6) = .857, S(10) = .753, S(23) = .448
    age = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    event = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    got, se = stats.kaplan_meier(age, event, [5, 6, 10, 23, 35, 36])
    np.testing.assert_allclose(got[:4], [0, 1 - 0.857, 1 - 0.753, 1 - 0.448], atol=6e-4)
    np.testing.assert_allclose(se[:4], [0, 0.0764, 0.0963, 0.1346], atol=6e-5)
    assert got[4] == got[3]
    assert np.isnan(got[5])
    assert np.isnan(se[5])


def test_kaplan_meier_edges():
    got, se = stats.kaplan_meier([1, 2], [True, True], [2, 9])
    assert got.tolist() == [1, 1]
    assert se.tolist() == [0, 0]
    assert np.isnan(stats.kaplan_meier([], [], [1])[0]).all()
    assert stats.kaplan_meier([3, 4], [False, False], [3])[0].tolist() == [0]


def test_kaplan_meier_is_consistent_under_censoring():
    rng, n = np.random.default_rng(7), 200_000
    delay = np.where(rng.random(n) < 0.05, rng.exponential(5, n), np.inf)
    seen = rng.uniform(0, 28, n)
    got, se = stats.kaplan_meier(np.minimum(delay, seen), delay <= seen, [3.0, 14.0])
    exact = 0.05 * (1 - np.exp(-np.array([3.0, 14.0]) / 5))
    assert (np.abs(got - exact) < 4 * se).all()


def test_mixture_radius_is_tightest_where_said():
    best = optimize.minimize_scalar(lambda n: stats.mixture_radius(1, n) * math.sqrt(n), bounds=(100, 30_000))
    assert best.x * 0.05**2 == pytest.approx(8.2, abs=0.05)
    assert stats.mixture_radius(1.0, 0) == math.inf


def test_mixture_radius_always_valid():
    """Uniform miss rate from t = 100 to 5,000: .0225 +- .001, against .444 for the repeated Wald interval."""
    rng, runs, T = np.random.default_rng(8), 3_000, 5_000
    n = np.arange(100, T + 1)
    radius, wald = stats.mixture_radius(1.0, n), stats.z_value(0.95) / np.sqrt(n)
    miss = repeated = 0
    for _ in range(runs // 300):
        mean = np.abs(rng.standard_normal((300, T), np.float32).cumsum(1, np.float64)[:, 99:] / n)
        miss += int((mean > radius).any(1).sum())
        repeated += int((mean > wald).any(1).sum())
    assert abs(miss / runs - 0.0225) < 0.001 + 4 * math.sqrt(0.0225 / runs)
    assert within(repeated / runs, 0.444, runs)


@pytest.mark.parametrize("level", [0, 1, 95, math.nan])
def test_levels_are_checked(level):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        stats.wilson(1, 2, level)

"""Estimates on adaptive data against what is known exactly (bandits.md 1 and 4, theory.md 4), and their pitfalls."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from justai_sim import stats
from justai_sim.errors import DataError, UsageError
from justai_sim.estimate.adaptive import METHODS, aipw, ipw, sample_mean
from justai_sim.estimate.batches import batched_ols, stratified
from justai_sim.estimate.sequences import bernstein_path, bernstein_sequence, confidence_sequence
from justai_sim.estimate.trials import Trials, shares_by_batch
from justai_sim.streams import generator

_spec = importlib.util.spec_from_file_location("adaptive_study", Path(__file__).with_name("adaptive_study.py"))
study = importlib.util.module_from_spec(_spec)
sys.modules["adaptive_study"] = study
_spec.loader.exec_module(study)

each_method = pytest.mark.parametrize("name", sorted(METHODS))
Z = stats.z_value(0.95)


def trials(s, user=None):
    return Trials(s.arm, s.outcome, shares=s.shares, batch=s.batch, user=user)


def near(values, expected, at_least=0.0):
    """The mean of independent replications is `expected`, to 4 standard errors."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    error = 4 * values.std() / math.sqrt(len(values))
    assert values.mean() == pytest.approx(expected, abs=error + at_least), (values.mean(), expected, error)


def covers(e, truth):
    return (e.low <= truth) & (truth <= e.high)


# The sample mean: exact values


@pytest.mark.parametrize(
    ("rates", "T", "policy", "regret", "bias1", "bias2", "wald", "cov1", "pick"),
    [
        ((0.6, 0.5), 200, "uniform", 10.0, 0, 0, 0.30345, 0.94600, 0.92248),
        ((0.6, 0.5), 200, "TS", 5.372354, -0.013733, -0.059960, 0.27404, 0.92528, 0.90018),
        ((0.6, 0.5), 200, "greedy", 7.653316, -0.189787, -0.211985, 0.70676, 0.67416, 0.62780),
        ((0.6, 0.5), 200, "UCB1", 7.162398, -0.004299, -0.014311, 0.29132, 0.94308, 0.92293),
        ((0.5, 0.5), 200, "TS", 0, -0.034541, -0.034541, 0.14040, 0.90022, None),
        ((0.5, 0.5), 200, "eps", 0, -0.043214, -0.043214, 0.09191, 0.92166, None),
        ((0.6, 0.5), 100, "TS", 3.285310, -0.023437, -0.065825, 0.21675, 0.91699, 0.82193),
    ],
)
def test_what_adaptive_choices_do_to_the_sample_mean(rates, T, policy, regret, bias1, bias2, wald, cov1, pick):
    """bandits.md 1, by dynamic programming."""
    s = study.bernoulli(policy, rates, T, 20_000, seed=1)
    data = Trials(s.arm, s.outcome)
    n = (s.arm == 1).sum(1)
    near(n * (rates[0] - rates[1]), regret)
    one, two, both = sample_mean(data, 0), sample_mean(data, 1), sample_mean(data, 0, 1)
    near(one.estimate - rates[0], bias1)
    near(two.estimate - rates[1], bias2)
    # The oracle's variance is p (1 - p) / n: without the n / (n - 1) of the estimate's.
    se1 = one.se * np.sqrt((T - n - 1) / (T - n))
    near(np.where(se1 > 0, np.abs(one.estimate - rates[0]) <= Z * se1, False)[n < T], cov1)
    se = np.nan_to_num(both.se) * math.sqrt((T - 1) / T)
    near((se > 0) & (np.abs(np.nan_to_num(both.estimate)) > Z * se), wald)
    if pick is not None:
        near(np.sign(both.estimate) / 2 + 0.5, pick)


@pytest.mark.parametrize(
    ("B", "regret", "bias", "false"),
    [
        (1, 3.285310, -0.065825, 0.14778),
        (5, 3.332845, -0.060102, 0.13984),
        (10, 3.399272, -0.050790, 0.12635),
        (20, 3.547063, -0.035402, 0.10040),
        (50, 4.047645, -0.013810, 0.06613),
        (100, 5.0, 0.0, 0.05645),
    ],
)
def test_batches_cost_regret_and_take_bias_away(B, regret, bias, false):
    s = study.bernoulli("TS", (0.6, 0.5), 100, 20_000, seed=2, B=B)
    near((s.arm == 1).sum(1) * 0.1, regret)
    near(sample_mean(Trials(s.arm, s.outcome), 1).estimate - 0.5, bias)
    null = study.bernoulli("TS", (0.5, 0.5), 100, 20_000, seed=3, B=B)
    e = sample_mean(Trials(null.arm, null.outcome), 0, 1)
    se = np.nan_to_num(e.se) * math.sqrt(0.99)
    near((se > 0) & (np.abs(np.nan_to_num(e.estimate)) > Z * se), false)


@pytest.mark.parametrize(("T", "bias"), [(3, -1 / 16), (4, -19 / 192)])
def test_greedy_by_hand(T, bias):
    s = study.bernoulli("greedy", (0.5, 0.5), T, 100_000, seed=4)
    near(sample_mean(Trials(s.arm, s.outcome), 0).estimate - 0.5, bias)


def test_the_bias_is_minus_the_covariance_of_count_and_mean():
    """E[N (mean - p)] = 0 at a fixed horizon, hence bias = -Cov(N, mean) / E N."""
    s = study.bernoulli("TS", (0.6, 0.5), 100, 20_000, seed=5)
    n, e = (s.arm == 1).sum(1), sample_mean(Trials(s.arm, s.outcome), 1)
    seen = n > 0
    near(n[seen] * (e.estimate[seen] - 0.5), 0.0)
    covariance = np.cov(n[seen], e.estimate[seen], ddof=0)[0, 1]
    rest = (n[seen] * (e.estimate[seen] - 0.5)).mean() / n[seen].mean()
    assert (e.estimate[seen] - 0.5).mean() == pytest.approx(rest - covariance / n[seen].mean(), rel=1e-9)


# Two stages: closed forms


@pytest.mark.parametrize(("e", "bias"), [(0.7, -0.117539), (0.9, -0.268662), (0.99, -0.363802)])
def test_two_stage_bias_of_the_sample_mean(e, bias):
    a, high, low = 0.25, e / 2, (1 - e) / 2
    closed = -(a / (a + low) - a / (a + high)) / (2 * math.sqrt(math.pi * a))
    assert closed == pytest.approx(bias, abs=1e-6)
    T = 400
    s = study.two_stage(T, 20_000, e, seed=1)
    for k in (0, 1):
        near(math.sqrt(T) * sample_mean(trials(s), k).estimate, bias)


@pytest.mark.parametrize(("e", "variance"), [(0.7, 2.190476), (0.9, 3.777778), (0.99, 26.252525)])
def test_two_stage_variance_of_ipw(e, variance):
    T, R = 200, 20_000
    s = study.two_stage(T, R, e, seed=2, fixed=False)
    got = ipw(trials(s), 1)
    near(got.estimate, 0.0)
    square = T * got.estimate**2
    near(square, variance)
    near(T * got.se**2, variance, at_least=0.005 * variance)  # its own error, less what the mean takes (1 / n)
    near(aipw(trials(s), 1).estimate, 0.0)


def test_two_stage_tails_of_the_naive_interval():
    """Coverage is nominal, its tails are not: .02782 below, .02218 above (e = .9, known variance)."""
    below, above = [], []
    for chunk in range(10):
        s = study.two_stage(40, 20_000, 0.9, seed=10 + chunk)
        for k in (0, 1):
            z = sample_mean(trials(s), k).estimate * np.sqrt((s.arm == k).sum(1))
            below.append(z < -1.959964)
            above.append(z > 1.959964)
    # The arms of one replication depend on each other: the mean of the two is one value.
    near(np.concatenate([np.mean(below[i : i + 2], axis=0) for i in range(0, 20, 2)]), 0.02782)
    near(np.concatenate([np.mean(above[i : i + 2], axis=0) for i in range(0, 20, 2)]), 0.02218)


# IPW and AIPW are unbiased with the propensities that were drawn from


@pytest.mark.parametrize("of", [0, 1, 2])
def test_weighting_is_unbiased_where_the_mean_is_not(of):
    truth = (1.0, 1.2, 1.0)
    s = study.thompson_normal(truth, 200, 5_000, seed=of, B=20, floor=(0.1, 0.0), noise="normal")
    data = trials(s)
    near(ipw(data, of).estimate, truth[of])
    near(aipw(data, of).estimate, truth[of])
    bias = sample_mean(data, of).estimate - truth[of]
    assert np.nanmean(bias) < -4 * np.nanstd(bias) / math.sqrt(5_000)
    other = (of + 1) % 3
    near(aipw(data, of, other).estimate, truth[of] - truth[other])
    near(ipw(data, of, other).estimate, truth[of] - truth[other])


@pytest.mark.parametrize("method", [ipw, aipw])
def test_sticky_users_are_unbiased_and_their_intervals_cover(method):
    """Unbiased while shares follow results; coverage under shares that stand still, where theory is normal."""
    s, user = study.sticky(5_000, seed=1)
    near(method(trials(s, user), 1, 0).estimate, 0.0)
    s, user = study.sticky(5_000, seed=2, learn=False)
    clustered, rows = method(trials(s, user), 1, 0), method(trials(s), 1, 0)
    near(covers(clustered, 0.0), 0.95, at_least=0.002)  # Student's t of 240 users covers .949
    assert covers(rows, 0.0).mean() < 0.91


def test_a_sticky_arm_does_not_predict_itself():
    """One user, two rows, arm 1 with probability 1/2: over both draws the estimate is the mean of the outcomes. With a
    model from the user's own first row it would be 3/4 of it."""
    arm, y = np.array([[0, 0], [1, 1]]), np.full((2, 2), 4.0)
    got = aipw(Trials(arm, y, np.full((2, 2), 0.5), user=np.zeros((2, 2), int)), 1)
    assert got.estimate.mean() == pytest.approx(4.0)
    assert aipw(Trials(arm, y, np.full((2, 2), 0.5)), 1).estimate.mean() == pytest.approx(3.0)


def test_the_mean_of_sticky_users_clusters_as_survey_errors_do():
    rng = generator(1, "clusters")
    user = rng.integers(0, 60, 400)
    arm = (user % 3 == 0).astype(np.int64)
    y = rng.standard_normal(60)[user] + rng.standard_normal(400)
    e = sample_mean(Trials(arm, y, user=user), 1)
    assert e.se == pytest.approx(stats.mean_error(y[arm == 1], user[arm == 1]), rel=1e-12)
    single = sample_mean(Trials(arm, y, user=np.arange(400)), 1)
    assert single.se == pytest.approx(y[arm == 1].std(ddof=1) / math.sqrt((arm == 1).sum()), rel=1e-12)


# Adaptive weights


def plain_two_point(e, decay):
    """The stick broken one piece at a time."""
    T, left, h = len(e), 1.0, []
    for t in range(1, T + 1):
        persists = 1 / (T - t + 1)
        falls = t**-decay / (t**-decay + (T ** (1 - decay) - t ** (1 - decay)) / (1 - decay))
        piece = left * (e[t - 1] * persists + (1 - e[t - 1]) * falls)
        h.append(math.sqrt(piece * e[t - 1]))
        left -= piece
    return np.array(h)


@pytest.mark.parametrize("weights", ["uniform", "sqrt", "two_point"])
def test_weighted_scores_by_a_loop(weights):
    s = study.thompson_normal((1.0, 1.0, 1.0), 60, 1, seed=3, B=5)
    y, arm, e = s.outcome[0], s.arm[0], s.shares[0]
    part = {}
    for k in (0, 2):
        seen, score = [], []
        for t in range(60):
            m = float(np.mean(seen)) if seen else 0.0
            score.append(m + (y[t] - m) / e[t, k] if arm[t] == k else m)
            if arm[t] == k:
                seen.append(y[t])
        h = {"uniform": np.ones(60), "sqrt": np.sqrt(e[:, k]), "two_point": plain_two_point(e[:, k], 0.7)}[weights]
        value = float((h * score).sum() / h.sum())
        part[k] = value, h * (np.array(score) - value) / h.sum()
    got = aipw(Trials(arm, y, shares=e), 2, 0, weights=weights)
    assert got.estimate == pytest.approx(part[2][0] - part[0][0], rel=1e-10)
    assert got.se == pytest.approx(math.sqrt(((part[2][1] - part[0][1]) ** 2).sum() * 60 / 59), rel=1e-10)


def test_two_point_weights_use_up_the_stick_and_are_sqrt_without_decay():
    e = generator(2, "shares").uniform(0.01, 1, 500)
    h = plain_two_point(e, 0.7)
    assert (h * h / e).sum() == pytest.approx(1.0, abs=1e-9)
    shares = np.stack([e, 1 - e], 1)
    rng = generator(3, "rows")
    data = Trials((rng.random(500) > e).astype(np.int64), rng.standard_normal(500), shares=shares)
    a, b = aipw(data, 0, weights="two_point", decay=0.0), aipw(data, 0, weights="sqrt")
    assert (a.estimate, a.se) == (pytest.approx(b.estimate, rel=1e-9), pytest.approx(b.se, rel=1e-9))


@pytest.mark.parametrize(
    ("T", "mean", "weighted", "wald", "interval"),
    [
        (1_000, -0.079, -0.046, 0.887, 0.915),
        pytest.param(5_000, -0.040, -0.023, 0.909, 0.935, marks=pytest.mark.slow),
    ],
)
def test_thompson_on_two_arms_of_5_percent(T, mean, weighted, wald, interval):
    """theory.md 4: relative bias and coverage after 10 equal batches, shares clipped at .02.

    The figures there are simulated themselves (coverage "about"): .002 and .005 are allowed for that."""
    got = {"mean": [], "weighted": [], "wald": [], "interval": []}
    for chunk in range(10):
        data = trials(study.thompson_beta((0.05, 0.05), T, 2_000, chunk, clip=True))
        for name, cover, e in (("mean", "wald", sample_mean(data, 0)),
                               ("weighted", "interval", aipw(data, 0, weights="sqrt"))):  # fmt: skip
            got[name].append(e.estimate / 0.05 - 1)
            got[cover].append(covers(e, 0.05))
    near(np.concatenate(got["mean"]), mean, at_least=0.002)
    near(np.concatenate(got["weighted"]), weighted, at_least=0.002)
    near(np.concatenate(got["wald"]), wald, at_least=0.005)
    near(np.concatenate(got["interval"]), interval, at_least=0.005)


@pytest.mark.slow
def test_coverage_after_thompson_sampling_on_three_equal_arms():
    """bandits.md 4: T = 10,000, 90 % intervals, floor (1/3) t^-.7: .83-.85 and .895-.899. Shares learnt every 20 rows:
    every 100, both cover half a point more."""
    got = {"sample_mean": [], "aipw_two_point": []}
    for chunk in range(60):
        data = trials(study.thompson_normal((1.0, 1.0, 1.0), 10_000, 100, seed=chunk, B=20, noise="normal"))
        for name, all_ in got.items():
            all_.append(np.mean([covers(METHODS[name](data, k, level=0.9), 1.0) for k in range(3)], axis=0))
    near(np.concatenate(got["sample_mean"]), 0.84, at_least=0.01)
    near(np.concatenate(got["aipw_two_point"]), 0.897, at_least=0.002)


# Batches and epochs


def test_batched_ols_by_hand():
    arm = np.array([0, 0, 1, 1, 1, 0, 0, 0, 1, 1])
    y = np.array([1.0, 2.0, 3.0, 5.0, 4.0, 0.0, 2.0, 1.0, 2.0, 6.0])
    batch = np.repeat([0, 1], 5)
    v0, v1 = (0.5 + 2.0) / 3, (2.0 + 8.0) / 3
    w = [1 / math.sqrt(v0 / 2 + v1 / 3), 1 / math.sqrt(v0 / 3 + v1 / 2)]
    d = [4.0 - 1.5, 4.0 - 1.0]
    e = batched_ols(Trials(arm, y, batch=batch), 1, 0)
    assert e.estimate == pytest.approx((w[0] * d[0] + w[1] * d[1]) / sum(w), rel=1e-12)
    assert e.se == pytest.approx(math.sqrt(2) / sum(w), rel=1e-12)
    alone = np.append(batch, 2)
    f = batched_ols(Trials(np.append(arm, 1), np.append(y, 50.0), batch=alone), 1, 0)
    assert (f.estimate, f.used) == (pytest.approx(e.estimate, rel=1e-12), pytest.approx(10 / 11))


def test_batched_ols_is_normal_after_thompson_sampling():
    """Large batches with a floor: nominal in both tails, while the sample mean's lower tail is not."""
    R, low, high, naive = 10_000, [], [], []
    for chunk in range(5):
        data = trials(study.thompson_normal((0.0, 0.0), 1_000, R // 5, chunk, floor=(0.1, 0.0), noise="normal"))
        e = batched_ols(data, 1, 0, level=0.9)
        low.append(e.high < 0)
        high.append(e.low > 0)
        naive.append(covers(sample_mean(data, 1, 0, level=0.9), 0.0))
    near(np.concatenate(low), 0.05, at_least=0.001)
    near(np.concatenate(high), 0.05, at_least=0.001)
    assert np.concatenate(naive).mean() < 0.89


@pytest.mark.parametrize("means", [(0.0, 0.0), (0.0, 0.3)])
@pytest.mark.parametrize("clustered", [False, True])
def test_batched_ols_covers_where_batches_lack_an_arm(means, clustered):
    """Without a floor an arm that begins badly is left out of later batches: its bad luck must not count for more."""
    R, got, used = 3_000, [], []
    for chunk in range(2):
        found = study.thompson_normal(means, 200, R // 2, chunk, B=10, floor=(0.0, 0.0), noise="normal")
        user = np.broadcast_to(np.arange(200), found.arm.shape) if clustered else None
        e = batched_ols(trials(found, user), 1, 0)
        fine = np.isfinite(e.se)
        got.append(((e.low <= means[1]) & (means[1] <= e.high))[fine])
        used.append(e.used)
    assert np.concatenate(used).mean() < 0.85
    assert np.concatenate(got).mean() > 0.95 - 4 * (0.05 * 0.95 / R) ** 0.5


def simpson():
    """Two equal epochs, share .1 then .9, base .06 then .03, difference .010."""
    arm, y, epoch = [], [], []
    for e, k, n, ones in ((0, 1, 100, 7), (0, 0, 900, 54), (1, 1, 900, 36), (1, 0, 100, 3)):
        arm += [k] * n
        y += [1.0] * ones + [0.0] * (n - ones)
        epoch += [e] * n
    return Trials(np.array(arm), np.array(y), batch=np.array(epoch))


def test_simpsons_paradox():
    data = simpson()
    assert sample_mean(data, 1, 0).estimate == pytest.approx(-0.014, abs=1e-12)
    e = stratified(data, 1, 0)
    assert e.estimate == pytest.approx(0.010, abs=1e-12)
    var = [0.07 * 0.93 / 99, 0.06 * 0.94 / 899, 0.04 * 0.96 / 899, 0.03 * 0.97 / 99]
    assert e.se == pytest.approx(0.5 * math.sqrt(sum(var)) * math.sqrt(2000 / 1999), rel=1e-9)
    assert batched_ols(data, 1, 0).estimate == pytest.approx(0.010, abs=1e-12)
    assert stratified(data, 1).estimate == pytest.approx((0.07 + 0.04) / 2, abs=1e-12)


def test_epochs_without_one_of_the_arms_are_left_out():
    data = simpson()
    more = Trials(np.append(data.arm, [0] * 500), np.append(data.outcome, [1.0] * 500),
                  batch=np.append(data.batch, [2] * 500))  # fmt: skip
    e = stratified(more, 1, 0)
    assert (e.estimate, e.used) == (pytest.approx(0.010, abs=1e-12), pytest.approx(0.8))
    assert np.isnan(stratified(Trials(np.array([0, 0, 1, 1]), np.ones(4), batch=np.array([0, 0, 1, 1])), 1, 0).estimate)


# Confidence sequences


def test_an_asymptotic_sequence_holds_at_all_looks():
    """After Thompson sampling; 16 looks from 1,000 rows on, while repeated Wald intervals miss far more often."""
    R, looks = 600, range(1_000, 4_001, 200)
    s = study.thompson_normal((0.0, 0.0), 4_000, R, seed=1, floor=(0.1, 0.0), noise="normal")
    missed, wald = np.zeros(R, bool), np.zeros(R, bool)
    for n in looks:
        e = confidence_sequence(Trials(s.arm[:, :n], s.outcome[:, :n], shares=s.shares[:, :n]), 1, 0, tuned=3_000)
        missed |= ~covers(e, 0.0)
        wald |= np.abs(e.estimate) > Z * e.se
    assert missed.mean() <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / R)
    assert wald.mean() > 0.10


@pytest.mark.parametrize("against", [None, 0])
def test_a_bernstein_sequence_holds_from_the_first_row_on(against):
    R = 2_000
    s = study.thompson_beta((0.3, 0.3), 1_000, R, seed=2, batches=20, floor=0.1)
    truth = 0.3 if against is None else 0.0
    centre, radius = bernstein_path(trials(s), 1, against, floor=0.1)
    missed = (np.abs(centre - truth) > radius).any(1).mean()
    assert missed <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / R)
    assert np.median(radius[:, -1]) < np.median(radius[:, 200]) / 1.5
    e = bernstein_sequence(trials(s), 1, against, floor=0.1)
    np.testing.assert_allclose(e.high - e.low, 2 * radius[:, -1])


def test_a_bernstein_sequence_by_a_loop():
    rng = generator(4, "loop")
    x, alpha = rng.random(30), 0.05
    centre, radius = bernstein_path(Trials(np.zeros(30, int), x, np.ones(30)), 0, floor=1.0)
    mean, var, bets, total, price = 0.5, 0.25, 0.0, 0.0, 0.0
    for t in range(1, 31):
        bet = min(math.sqrt(2 * math.log(2 / alpha) / (var * t * math.log(t + 1))), 0.5)
        bets, total = bets + bet, total + bet * x[t - 1]
        price += 4 * (x[t - 1] - mean) ** 2 * (-math.log(1 - bet) - bet) / 4
        assert centre[t - 1] == pytest.approx(total / bets, rel=1e-12)
        assert radius[t - 1] == pytest.approx((math.log(2 / alpha) + price) / bets, rel=1e-12)
        mean = (0.5 + x[:t].sum()) / (t + 1)
        means = [(0.5 + x[: i + 1].sum()) / (i + 2) for i in range(t)]
        var = (0.25 + ((x[:t] - means) ** 2).sum()) / (t + 1)


# A burn-in that was not random


def burn_in(R, first, drift=0.0, seed=1):
    """All rows chosen by rule, `first` (T,), and logged as 1/2; arm means 2, rows drift upwards."""
    T = len(first)
    y = 2 + drift * np.arange(T) / T + generator(seed, "burn-in").standard_normal((R, T))
    return Trials(np.broadcast_to(first, (R, T)), y, np.full((R, T), 0.5))


def test_ipw_survives_an_even_deterministic_burn_in_but_its_error_does_not():
    T = 40
    e = ipw(burn_in(20_000, np.arange(T) % 2), 0)
    near(e.estimate, 2.0)
    near(T * (e.estimate - 2.0) ** 2, 2.0)  # sd^2 / (T / 2) each
    near(T * e.se**2, 2 * (1 + 4) - 4, at_least=6 / T)  # what it believes: E y^2 / e - mean^2 = 6


def test_ipw_is_biased_by_uneven_or_drifting_burn_ins():
    near(ipw(burn_in(2_000, np.arange(40) % 4 // 3), 0).estimate, 2.0 * 30 / 20)
    blocks = ipw(burn_in(2_000, np.arange(40) // 20, drift=1.0), 0, 1)
    near(blocks.estimate, -0.5)  # no arm is better; the second had the better half


def test_aipw_with_a_running_mean_is_biased_by_any_deterministic_burn_in():
    """Two rows, arm 0 then 1: scores of arm 0 are 2 y and y, so it expects 1.5 times the mean."""
    near(aipw(burn_in(20_000, np.array([0, 1])), 0).estimate, 3.0)


def test_an_honestly_logged_burn_in_is_refused():
    data = Trials(np.array([0, 1, 0, 1]), np.ones(4), np.array([1.0, 1.0, 0.5, 0.5]))
    for method in (ipw, aipw):
        with pytest.raises(DataError, match="arm 0 could not be drawn in 1 row of 4"):
            method(data, 0)


# Shares from propensities


def test_shares_come_back_from_the_propensities_of_the_chosen():
    s = study.thompson_normal((1.0, 1.0, 1.0), 300, 1, seed=5, B=100, floor=(0.2, 0.0))
    arm, full = s.arm[0], s.shares[0]
    got = shares_by_batch(arm, np.take_along_axis(full, arm[:, None], 1)[:, 0], s.batch[0])
    np.testing.assert_allclose(got, full, atol=1e-12)
    some = shares_by_batch(np.array([0, 0]), np.array([0.5, 0.5]), np.array([3, 3]), 3)
    assert np.isnan(some[:, 1:]).all()
    hole = Trials(np.array([0, 2, 0]), np.ones(3), shares=np.array([[0.5, 0.5, np.nan], [0.2, 0, 0.8], [1, 0, 0]]))
    with pytest.raises(DataError, match=r"the share of arm 2 is not known in 1 row"):
        aipw(hole, 2, weights="sqrt")
    with pytest.raises(DataError, match="expected shares that stand still"):
        shares_by_batch(np.array([0, 0]), np.array([0.5, 0.4]), np.array([3, 3]))


# Conformance and errors


@each_method
def test_replications_do_not_know_each_other(name):
    s = study.thompson_normal((1.0, 1.1, 1.0), 200, 5, seed=6, B=50, floor=(0.1, 0.0))
    user = generator(7, "users").integers(0, 80, (5, 200))
    for u in (None, user):
        whole = METHODS[name](trials(s, u), 1, 0)
        for r in range(5):
            one = Trials(s.arm[r], s.outcome[r], shares=s.shares[r], batch=s.batch[r], user=None if u is None else u[r])
            got = METHODS[name](one, 1, 0)
            for field in ("estimate", "se", "low", "high"):
                assert getattr(got, field) == pytest.approx(getattr(whole, field)[r], rel=1e-10)
        assert whole.caveat.endswith(".")
        assert whole.method == name


@each_method
def test_swapping_the_arms_turns_the_sign(name):
    data = trials(study.thompson_normal((1.0, 1.1), 300, 1, seed=8, B=50, floor=(0.1, 0.0)))
    a, b = METHODS[name](data, 1, 0), METHODS[name](data, 0, 1)
    np.testing.assert_allclose([a.estimate, a.low, a.se], [-b.estimate, -b.high, b.se], rtol=1e-12)


ARM, Y = np.array([0, 1, 0]), np.ones(3)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Trials(np.zeros(0, int), np.zeros(0)), DataError, "no trials"),
        (lambda: Trials(ARM, Y[:2]), DataError, "outcome has shape"),
        (lambda: Trials(ARM, np.array([1, np.nan, 0])), DataError, "finite"),
        (lambda: Trials(ARM.astype(float), Y), DataError, "arm is float64"),
        (lambda: Trials(ARM - 1, Y), DataError, "arm holds -1"),
        (lambda: Trials(ARM, Y, np.ones(2)), DataError, "propensity has shape"),
        (lambda: Trials(ARM, Y, user=np.ones(2, int)), DataError, "user is int64"),
        (lambda: Trials(ARM, Y, shares=np.ones((3, 1))), DataError, "shares have shape"),
        (lambda: Trials(ARM, Y, shares=np.ones((3, 2))), DataError, "more than 1"),
        (lambda: Trials(ARM, Y, np.full(3, 0.4), np.full((3, 2), 0.5)), DataError, "differs from the shares"),
        (lambda: ipw(Trials(ARM, Y), 0), UsageError, "ipw needs the propensity"),
        (lambda: ipw(Trials(ARM, Y, np.array([0.0, 0.5, 0.5])), 0), DataError, r"1 row of arm 0 .* outside \(0, 1\]"),
        (lambda: ipw(Trials(ARM, Y, np.array([np.nan, 0.5, 0.5])), 0), DataError, "outside"),
        (lambda: aipw(Trials(ARM, Y, np.array([1.5, 0.5, 0.5])), 0), DataError, "outside"),
        (lambda: aipw(Trials(ARM, Y, np.full(3, 0.5)), 0, weights="sqrt"), UsageError, "shares_by_batch"),
        (lambda: aipw(Trials(ARM, Y, np.full(3, 0.5)), 0, weights="sqr"), UsageError, "did you mean 'sqrt'"),
        (lambda: aipw(Trials(ARM, Y, np.full(3, 0.5)), 0, weights="two_point", decay=1.0), UsageError, "decay is 1"),
        (lambda: sample_mean(Trials(ARM, Y), 2), DataError, "arm 2 was never chosen"),
        (lambda: sample_mean(Trials(ARM, Y), 1, 1), UsageError, "compared with itself"),
        (lambda: stratified(Trials(ARM, Y), 0), UsageError, "stratified needs the batch"),
        (lambda: bernstein_sequence(Trials(ARM, Y, np.full(3, 0.5)), 0, floor=0.0), UsageError, "floor = 0.0"),
        (lambda: bernstein_sequence(Trials(ARM, Y, np.full(3, 0.1)), 0, floor=0.2), DataError, "below the floor"),
        (lambda: bernstein_sequence(Trials(ARM, 2 * Y, np.full(3, 0.5)), 0, floor=0.2), DataError, r"leaves \[0, 1"),
        (
            lambda: bernstein_sequence(Trials(ARM, Y, np.full(3, 0.5), user=ARM), 0, floor=0.2),
            UsageError,
            "one row a user",
        ),
    ],
)
def test_wrong_input_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()

"""Stopping rules: what each decides on given counts, how often it is wrong, and the smallest lift it sees."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from justai_sim import stats
from justai_sim.bandit.best import best_beta
from justai_sim.bandit.lift import sees, smallest_lift
from justai_sim.bandit.posterior import expected_loss, value_above
from justai_sim.bandit.stopping import GO_ON, STOPS, Look, follow, stop
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.errors import UsageError
from justai_sim.scenario import read, with_settings
from justai_sim.sim.engine import simulate_block
from justai_sim.sim.record import _shipped
from justai_sim.streams import generator

each_rule = pytest.mark.parametrize("name", sorted(STOPS))


def look(n, y, days=28.0, minimise=False, live=None, y2=None):
    n, y = np.atleast_2d(np.array(n, float)), np.atleast_2d(np.array(y, float))
    live = np.ones(n.shape, bool) if live is None else np.atleast_2d(live)
    return Look(n, y, y if y2 is None else np.atleast_2d(np.array(y2, float)), live, days, minimise)


def random_look(seed, R=200, K=4, minimise=False):
    rng = generator(seed, "a look")
    n = rng.integers(0, 6_000, (R, K)).astype(float)
    y = rng.binomial(n.astype(int), rng.uniform(0.02, 0.06, (R, K))).astype(float)
    return Look(n, y, y, rng.random((R, K)) > 0.2, 28.0, minimise)


def benchmark():
    path = Path(__file__).parents[1] / "benchmarks" / "stopping.py"
    spec = importlib.util.spec_from_file_location("stopping_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What could still be lost


def posteriors(seed, R=300, K=4):
    rng = generator(seed, "posteriors")
    live = rng.random((R, K)) > 0.2
    live[:, 0] = True
    return 10 ** rng.uniform(0, 6, (R, K)), 10 ** rng.uniform(0, 6, (R, K)), live


@pytest.mark.parametrize("minimise", [False, True])
def test_expected_losses_differ_by_the_posterior_means(minimise):
    """E max is the same for all arms: loss_i - loss_j = mean_j - mean_i exactly."""
    a, b, live = posteriors(1)
    loss = expected_loss(a, b, live, minimise)
    mean = a / (a + b)
    total = np.where(live, loss - mean if minimise else loss + mean, np.nan)
    assert np.nanmax(np.nanmax(total, 1) - np.nanmin(total, 1)) < 1e-7
    assert (np.isnan(loss) == ~live).all()
    assert (loss[live] >= -1e-12).all()


@pytest.mark.parametrize("minimise", [False, True])
def test_no_margin_leaves_the_probability_of_not_being_the_best(minimise):
    a, b, live = posteriors(2)
    best = best_beta(a, b, live, minimise)
    champion = np.argmax(best, axis=1)
    got = value_above(a, b, live, champion, 0.0, minimise)
    np.testing.assert_allclose(got, 1 - best[np.arange(len(a)), champion], atol=1e-5)


def test_two_arms_by_plain_integration():
    a, b = np.array([[41.0, 36.0]]), np.array([[961.0, 966.0]])
    density = [lambda x, k=k: math.exp((a[0, k] - 1) * math.log(x) + (b[0, k] - 1) * math.log1p(-x)
                                       - special.betaln(a[0, k], b[0, k])) for k in (0, 1)]  # fmt: skip
    above, _ = integrate.quad(
        lambda x: density[0](x) * special.betaincc(a[0, 1], b[0, 1], 1.05 * x), 1e-6, 0.2, epsabs=1e-12, limit=400
    )
    below, _ = integrate.quad(
        lambda x: density[0](x) * special.betainc(a[0, 1], b[0, 1], 0.95 * x), 1e-6, 0.2, epsabs=1e-12, limit=400
    )
    loss, _ = integrate.quad(
        lambda x: special.betaincc(a[0, 1], b[0, 1], x) * special.betainc(a[0, 0], b[0, 0], x), 0, 0.2, epsabs=1e-13
    )
    live, champion = np.ones((1, 2), bool), np.zeros(1, int)
    assert value_above(a, b, live, champion, 0.05)[0] == pytest.approx(above, abs=1e-8)
    assert value_above(a, b, live, champion, 0.05, minimise=True)[0] == pytest.approx(below, abs=1e-8)
    assert expected_loss(a, b, live)[0, 0] == pytest.approx(loss, abs=1e-10)


# What each rule decides


def test_the_products_rule_is_the_two_proportion_test_from_1000_sends_on():
    z, _ = stats.two_proportion_z(61, 1000, 40, 1000)
    assert z > 1.96
    assert stop("significance").decide(look([1000, 1000], [40, 61])).ship[0] == 1
    assert stop("significance").decide(look([1000, 999], [40, 61])).ship[0] == GO_ON
    assert stop("significance").decide(look([333, 1000], [13, 61])).ship[0] == GO_ON  # the same rates, fewer controls
    behind = stop("significance").decide(look([1000, 1000, 1000], [61, 40, 60]))
    assert (behind.ship[0], behind.archive[0].tolist()) == (GO_ON, [False, True, False])
    assert stop("significance").decide(look([1000, 1000], [61, 40])).ship[0] == 0  # nothing is left but the control


def test_only_the_leader_ships():
    ready_but_second = look([1000, 1000, 500], [40, 61, 45])
    assert stop("significance").decide(ready_but_second).ship[0] == GO_ON
    assert stop("significance").decide(look([1000, 1000, 500], [40, 61, 45], live=[True, True, False])).ship[0] == 1


def test_the_unpooled_test_and_money_use_each_arms_own_variance():
    n, y, y2 = [1000.0, 1500.0], [200.0, 390.0], [900.0, 1800.0]
    at = look(n, y, y2=y2)
    mean = np.array(y) / n
    variance = np.array(y2) / n - mean**2
    expected = (mean[1] - mean[0]) / math.sqrt(variance[0] / n[0] + variance[1] / n[1])
    assert stop("significance", pooled=False).z(at)[0, 1] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UsageError, match="for money use 'significance'"):
        stop("value_remaining").decide(at)


def test_confidence_sequences_use_the_mixtures_radius():
    """Fixed split: one sequence of the difference in 1 / (1 / n + 1 / n); adaptive: one an arm, at a share of alpha."""
    p, n = 0.05, 4000
    sd = math.sqrt(p * (1 - p))
    rule = stop("always_valid", adaptive=False, tuned_sends=5000)
    radius = stats.mixture_radius(sd, n / 2, math.sqrt(8.2 / 2500), 0.05)
    assert rule.needed(p, p, n, n, 1) == pytest.approx(radius, rel=1e-12)
    rule = stop("always_valid", tuned_sends=5000)
    own = [stats.mixture_radius(sd, m, math.sqrt(8.2 / 5000), 0.05 / 4) for m in (n, 2 * n)]
    assert rule.needed(p, p, n, 2 * n, 3) == pytest.approx(sum(own), rel=1e-12)
    ahead = p + 1.01 * stats.mixture_radius(sd, n, math.sqrt(8.2 / 5000), 0.05 / 2) * 2
    assert rule.decide(look([n, n], [p * n, ahead * n])).ship[0] == GO_ON  # its own spread is larger than the control's
    assert rule.decide(look([n, n], [p * n, 1.05 * ahead * n])).ship[0] == 1
    assert rule.decide(look([999, n], [50, 1.5 * ahead * n])).ship[0] == GO_ON


def test_a_fixed_horizon_decides_once():
    rule = stop("fixed_horizon", days=28, min_sends=2000)
    assert rule.decide(look([3000, 3000], [60, 120], days=27)).ship[0] == GO_ON
    assert rule.decide(look([3000, 1999], [60, 120], days=28)).ship[0] == GO_ON
    assert rule.decide(look([3000, 3000], [60, 120], days=28)).ship[0] == 1
    assert rule.decide(look([3000, 3000], [60, 62], days=28)).ship[0] == 0


@each_rule
def test_lower_is_better_turns_every_rule_round(name):
    """Counting failures and minimising is the same problem (also for relative value: both are tested on their own)."""
    at = random_look(3)
    turned = Look(at.n, at.n - at.y, at.n - at.y, at.live, at.days, True)
    a, b = stop(name).decide(at), stop(name).decide(turned)
    if name in ("value_remaining", "expected_loss"):  # relative to another rate: only the sign of the lead is equal
        both = (a.ship != GO_ON) & (b.ship != GO_ON)
        assert both.any()
        assert (a.ship == b.ship)[both].all()
    else:
        assert (a.ship == b.ship).all()
        assert (a.archive == b.archive).all()


@each_rule
def test_replications_do_not_know_each_other_and_arms_have_no_order(name):
    at = random_look(4)
    whole = stop(name).decide(at)
    assert (whole.ship != GO_ON).any()
    assert (whole.ship == GO_ON).any() or name == "fixed_horizon"
    for r in range(0, 200, 20):
        one = stop(name).decide(at.rows(slice(r, r + 1)))
        assert one.ship[0] == whole.ship[r]
        assert (one.archive[0] == whole.archive[r]).all()
    order = np.array([0, 3, 1, 2])
    moved = Look(at.n[:, order], at.y[:, order], at.y2[:, order], at.live[:, order], at.days)
    got = stop(name).decide(moved)
    back = np.where(got.ship > 0, order[np.maximum(got.ship, 0)], got.ship)
    # Equal counts are equal leads: arms of exactly equal rate may swap.
    tied = [len(set((at.y[r] / np.maximum(at.n[r], 1)).tolist())) < 4 for r in range(200)]
    assert ((back == whole.ship) | tied).all()


@each_rule
@given(seed=st.integers(0, 10_000))
def test_dead_arms_are_never_shipped_nor_archived(name, seed):
    at = random_look(seed, R=5)
    got = stop(name).decide(at)
    shipped = got.ship > 0
    assert at.live[np.flatnonzero(shipped), got.ship[shipped]].all()
    assert not (got.archive & ~at.live).any()
    assert not got.archive[:, 0].any()
    assert at.y is at.y2  # nothing was changed


@each_rule
def test_empty_counts_decide_nothing_before_the_horizon(name):
    assert stop(name).decide(look([0, 0, 0], [0, 0, 0], days=0.0)).ship[0] == GO_ON


def test_follow_keeps_the_first_decision_and_what_was_archived():
    days = [look([1000, 1000, 1000], [61, 40, 61], 1), look([2000, 2000, 2000], [100, 170, 110], 2),
            look([3000, 3000, 3000], [150, 300, 230], 3), look([4000, 4000, 4000], [200, 200, 200], 4)]  # fmt: skip
    got = follow(stop("significance"), days)
    # Arm 1 was archived on day 1, so it cannot ship on day 2; arm 2 leads what is left and is ahead on day 3.
    assert (got.ship.tolist(), got.day.tolist()) == ([2], [3])
    assert np.isnan(follow(stop("significance"), days[:2]).day).all()


def test_a_look_from_a_tally_adds_up_the_segments():
    tally = Tally.zeros(Shape(2, 3, 2), 4)
    n = tally.n + 2
    at = Look.of(Tally(n, n / 2, n / 2).sum(), np.ones((2, 2), bool), 7.0)
    assert at.n.tolist() == [[24.0, 24.0]] * 2


# Wrong settings


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("significanse", {}, "did you mean 'significance'"),
        ("significance", {"alfa": 0.1}, "did you mean 'alpha'"),
        ("significance", {"alpha": 0.0}, r"stop\.alpha is 0\.0; expected a number from 1e-09 to 0\.5"),
        ("fixed_horizon", {"days": -1}, r"stop\.days is -1; expected a number of at least 0"),
        ("value_remaining", {"quantile": 1.0}, r"stop\.quantile"),
        ("expected_loss", {"threshold": math.nan}, r"stop\.threshold is nan"),
        ("expected_loss", {"prior_alpha": 0.0}, r"stop\.prior_alpha"),
        ("always_valid", {"tuned_sends": 0}, r"stop\.tuned_sends"),
    ],
)
def test_wrong_settings_are_refused(name, settings, said):
    with pytest.raises(UsageError, match=said):
        stop(name, **settings)


# The smallest lift


def test_the_figures_that_go_with_1000_sends():
    assert [round(stats.min_detectable_lift(0.02, n, 1000), 2) for n in (1000, 333)] == [0.88, 1.24]
    assert [round(smallest_lift(stop("significance"), 0.02, n, 1000), 2) for n in (1000, 333)] == [1.08, 1.74]
    assert "+88 %" in sees(0.02, 1000)
    assert "+124 %" in sees(0.02, 333)


@pytest.mark.parametrize(("p", "n0", "n1"), [(0.02, 1000, 1000), (0.02, 333, 1000), (0.3, 5000, 700), (0.9, 20, 20)])
def test_the_pooled_tests_lift_is_that_of_the_planning_function(p, n0, n1):
    got = smallest_lift(stop("significance"), p, n0, n1)
    assert got == pytest.approx(stats.min_detectable_lift(p, n0, n1, variance="solved"), rel=1e-9)


def test_the_classical_test_of_scott_needs_11166_a_group():
    """95 % power and 5 % two-sided, pooled: 4 % against 5 % is just seen (bandits.md: 11,166, 223 days)."""
    rule = stop("significance")
    assert smallest_lift(rule, 0.04, 11_166, 11_166, 0.95) == pytest.approx(0.25, abs=2e-4)


@each_rule
def test_the_smallest_lift_is_found_with_its_power(name):
    """At one look; large counts, so that the normal approximation is no part of the error."""
    R, n, p = 20_000, 40_000, 0.1
    rule = stop(name)
    q = p * (1 + smallest_lift(rule, p, n, n))
    rng = generator(5, f"power {name}")
    y = np.stack([rng.binomial(n, p, R), rng.binomial(n, q, R)], axis=1).astype(float)
    shipped = (rule.decide(look(np.full((R, 2), n), y)).ship == 1).mean()
    assert shipped == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / R) + 0.002)


@each_rule
def test_no_lift_is_seen_without_trials(name):
    assert math.isnan(smallest_lift(stop(name), 0.02, 0, 1000))
    assert math.isnan(smallest_lift(stop(name), 0.0, 10, 1000))


# How often each is wrong


@pytest.mark.parametrize(("times", "expected"), [(1, 0.05), (2, 0.0831), (5, 0.1417), (10, 0.1934)])
def test_peeking_at_5_percent(times, expected):
    """Armitage, McPherson & Rowe 1969: false positives of equally spaced looks."""
    R, n = 20_000, 4_000
    rng = generator(6, f"peeking {times}")
    y = np.cumsum(rng.binomial(n, 0.5, (times, R, 2)), axis=0).astype(float)
    looks = (look(np.full((R, 2), n * (i + 1)), y[i], days=i) for i in range(times))
    decided = (follow(stop("significance"), looks).ship != GO_ON).mean()
    assert decided == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / R) + 0.001)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.3, 0.3, 0.3], None])
def test_confidence_sequences_may_be_looked_at_daily(shares):
    """At most 5 % of A/A worlds decide anything, whatever the allocation did; half of the errors would ship."""
    R, K = 2_000, 2 if shares and len(shares) == 2 else 4
    looks = benchmark().looks([0.05] * K, 1_000, 60, R, shares, 0.0 if K == 2 else 0.1)
    got = follow(stop("always_valid"), looks)
    assert (got.ship != GO_ON).mean() <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / R)


def test_a_fixed_horizon_keeps_its_level():
    """Two-sided 5 %: half of it ships."""
    R = 20_000
    looks = benchmark().looks([0.02, 0.02], 500, 28, R, [0.5, 0.5])
    shipped = (follow(stop("fixed_horizon"), looks).ship == 1).mean()
    assert shipped == pytest.approx(0.025, abs=4 * math.sqrt(0.025 * 0.975 / R) + 0.001)


@pytest.mark.slow
def test_value_remaining_as_in_scott_2010():
    """bandits.md: mean 43-47 days (to 2), right arm 96.6 %, champion's rate .0015 too high, from drawn quantiles.

    A computed tail is not noisy, so it stops a little later than any number of draws: mean 48.6, median 30.
    """
    R = 10_000
    got = benchmark().scott(R)
    assert abs(got["mean_days"] - 45) <= 2 + 2 + 4 * got["days_se"]
    assert got["right_arm"] == pytest.approx(0.966, abs=0.008 + 4 * math.sqrt(0.966 * 0.034 / R))
    assert got["too_high"] == pytest.approx(0.0015, abs=0.0002 + 4 * got["too_high_se"])


@pytest.mark.slow
def test_value_remaining_with_drawn_quantiles_stops_earlier():
    """The same rule with 500 posterior draws a look, as it is usually run: mean 43-47 (to 2), median 26-28."""
    R, draws = 4_000, 500
    rng, rates = generator(7, "scott drawn"), np.array([0.04, 0.05])
    n, y, share, day = np.zeros((R, 2)), np.zeros((R, 2)), np.full((R, 2), 0.5), np.full(R, np.nan)
    for today in range(1, 401):
        left = np.flatnonzero(np.isnan(day))
        sent = rng.multinomial(100, share[left])
        n[left] += sent
        y[left] += rng.binomial(sent, rates)
        theta = rng.beta(1 + y[left, None], 1 + (n - y)[left, None], (len(left), draws, 2))
        better = (theta[..., 1] > theta[..., 0]).mean(1)
        share[left] = np.stack([1 - better, better], axis=1)
        mine = np.take_along_axis(theta, (better > 0.5).astype(int)[:, None, None], 2)[..., 0]
        value = np.quantile((theta.max(2) - mine) / mine, 0.95, axis=1)
        day[left[(value < 0.01) & (today >= 14)]] = today
    se = np.nanstd(day) / math.sqrt(R)
    assert np.nanmean(day) == pytest.approx(45, abs=2 + 2 + 4 * se)
    low, high = np.nanquantile(day, [0.5 - 2 / math.sqrt(R), 0.5 + 2 / math.sqrt(R)])  # 4 errors of a median's rank
    assert low <= 28
    assert high >= 26


@pytest.mark.slow
def test_false_ships_of_the_table():
    """What benchmarks/README.md prints is measured again with other draws, to 4 standard errors of both runs."""
    text = (Path(__file__).parents[1] / "benchmarks" / "README.md").read_text()
    printed = {tuple(c.strip() for c in line.split("|")[1:3]): line.split("|")[3] for line in text.splitlines()
               if line.startswith(("| two arms", "| control 10 %"))}  # fmt: skip
    assert len(printed) == 21
    module, R = benchmark(), 2_000
    for design, (shares, control, m) in module.DESIGNS.items():
        at = list(module.looks([0.02] * (m + 1), 500, 28, R, shares, control, seed=2))
        for name, rule in module.rules().items():
            p = float(printed[design, name].strip(" %")) / 100
            got = module.row(rule, at, 0)[1]
            pooled = max((p + got) / 2, 1 / R)
            assert got == pytest.approx(p, abs=4 * math.sqrt(2 * pooled / R) + 0.0005), (design, name)


def test_a_simulated_ship_on_money_knows_the_spread_of_amounts():
    """1,500 sends each, 20 orders of 40 against 32: z of the means is 1.7, and 20 if amounts are taken as 0 or 1."""
    n = np.full((1, 1, 1, 2), 1500.0)
    orders = np.array([[[[20.0, 32.0]]]])
    shipped, _ = _shipped(n, orders * 40, orders * 1600, False)
    assert not shipped.any()
    shipped, arm = _shipped(n, orders * 40, orders * 40, False)
    assert shipped.all()
    assert arm.tolist() == [[1]]


def test_ticks_hold_the_squares_of_what_sends_earned():
    settings = {"program.key_metric": "revenue_per_send", "days": 12}
    block = simulate_block(with_settings(read("welcome"), settings), range(1))
    tick, state = block.ticks[-1], block.state
    money = state.earned.revenue[: state.sends.n] * 1e-6
    use = state.earned.counted[: state.sends.n] & ~state.earned.ghost[: state.sends.n]
    assert tick.y2.sum() > 10 * tick.y.sum() > 0
    assert tick.y2.sum() == pytest.approx((money[use] ** 2).sum())

"""Off-policy estimators: against plain loops, unbiased, covering, and refused where the log cannot tell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from justai_sim.errors import UsageError
from justai_sim.estimate import offpolicy as ope
from justai_sim.estimate import reward_model
from justai_sim.estimate.offpolicy import Choices
from justai_sim.estimate.overlap import fitting, overlap, untrusted
from justai_sim.streams import generator
from tests import ope_oracle as oracle

K, C = 3, 2
RATES = np.array([[0.10, 0.20, 0.15], [0.30, 0.10, 0.20]])
"""Of each context's arms."""
SHARES = np.array([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2]])
TARGET = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
TRUTH = float((TARGET * RATES).sum(1).mean())
"""The contexts are equally frequent."""


def world(
    rng: np.random.Generator, n: int, shares: np.ndarray = SHARES, target: np.ndarray = TARGET, per_user: int = 1
) -> Choices:
    """n decisions; with `per_user` > 1 users share a context, a first choice and most of their luck (sticky)."""
    users = n // per_user
    context = np.repeat(rng.integers(C, size=users), per_user)
    arm = np.repeat((rng.random(users)[:, None] > shares[context[::per_user]].cumsum(1)[:, :-1]).sum(1), per_user)
    luck = np.where(rng.random(n) < (0.7 if per_user > 1 else 0), np.repeat(rng.random(users), per_user), rng.random(n))
    reward = (luck < RATES[context, arm]).astype(np.float64)
    user, behaviour = np.repeat(np.arange(users), per_user), shares[context]
    pscore, wanted = behaviour[np.arange(n), arm], target[context]
    q, leverage = reward_model.fit(reward, arm, context, user % 5, wanted)
    return Choices(reward, arm, pscore, wanted, user, q, leverage, behaviour, context, rng.random(n))


def uneven(rng: np.random.Generator, n: int) -> Choices:
    """Every decision with probabilities, target and predictions of its own, and rewards beyond 1."""
    behaviour, target = rng.dirichlet(np.ones(K), n), rng.dirichlet(np.ones(K) / 2, n)
    behaviour = (behaviour + 0.02) / (1 + 0.02 * K)
    arm = (rng.random(n)[:, None] > behaviour.cumsum(1)[:, :-1]).sum(1)
    return Choices(
        rng.random(n), arm, behaviour[np.arange(n), arm], target, np.arange(n), rng.random((n, K)), None, behaviour,
        rng.integers(C, size=n), rng.random(n),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_estimators_equal_plain_loops(seed: int) -> None:
    c = uneven(generator(seed, "ope loops"), 300)
    for name in ("ips", "snips", "dm", "dr", "sndr", "adaptive"):
        assert ope.estimator(name)(c).value == pytest.approx(getattr(oracle, name)(c), rel=1e-10, abs=1e-10), name
    for at in (0.1, 1.0, 7.0, math.inf):
        assert ope.switch_dr(c, at).value == pytest.approx(oracle.switch_dr(c, at), rel=1e-10, abs=1e-10)
        assert ope.dros(c, at).value == pytest.approx(oracle.dros(c, at), rel=1e-10, abs=1e-10)
    assert ope.dros(c, 0.0).value == pytest.approx(ope.dm(c).value, abs=1e-12)
    assert ope.dros(c, math.inf).value == pytest.approx(ope.dr(c).value, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_tuning_equals_plain_loops(seed: int) -> None:
    c = uneven(generator(seed, "ope tuning"), 200)
    for shrink, plain, candidates, method, name in (
        (ope.switch_weight, oracle.switched, ope.taus, ope.switch_dr, "tau"),
        (ope.shrunk_weight, oracle.shrunk, ope.lambdas, ope.dros, "lambda"),
    ):
        grid = candidates(c.weight).tolist()
        scores = [oracle.mse_score(c, plain, x) for x in grid]
        assert [ope.mse_bound(c, shrink(c.weight, x)) for x in grid] == pytest.approx(scores, rel=1e-10)
        got = method(c)
        assert got.diagnostics[name] == grid[int(np.argmin(scores))]
        wanted = {"tau": oracle.switch_dr, "lambda": oracle.dros}[name](c, got.diagnostics[name])
        assert got.value == pytest.approx(wanted, rel=1e-10)


def test_tuning_does_not_depend_on_the_unit_of_money() -> None:
    c = uneven(generator(0, "ope money"), 400)
    assert c.prediction is not None
    dollars, cents = (replace(c, reward=c.reward * x, prediction=c.prediction * x) for x in (40, 4000))
    assert ope.dros(dollars).diagnostics["lambda"] == ope.dros(cents).diagnostics["lambda"]
    assert ope.dros(cents).value == pytest.approx(100 * ope.dros(dollars).value)


def test_rejection_on_a_uniform_log_is_the_replay_method() -> None:
    rng = generator(0, "ope replay")
    single = np.tile([0.0, 1.0, 0.0], (C, 1))
    c = world(rng, 3000, np.full((C, K), 1 / K), single)
    assert ope.rejection(c).value == pytest.approx(oracle.replay(c), abs=1e-12)
    assert ope.rejection(c).diagnostics["accepted"] == (c.arm == 1).sum()


def test_reward_model_equals_plain_loops_and_its_leverage_is_the_derivative() -> None:
    rng = generator(0, "ope model")
    n = 60
    arm, context, fold = rng.integers(K, size=n), rng.integers(C, size=n), rng.integers(3, size=n)
    reward, target = rng.random(n), rng.dirichlet(np.ones(K), n)
    q, leverage = reward_model.fit(reward, arm, context, fold, target)
    c = Choices(reward, arm, np.full(n, 1 / K), target, np.arange(n), q)
    assert q == pytest.approx(np.array(oracle.shrunken_means(c, context, fold, reward_model.PULL)), rel=1e-10)
    # The mean of all is taken as known in the leverage: move a pair in opposite directions to hold it fixed.
    i, j = np.flatnonzero(fold == 0)[:2]
    step = np.zeros(n)
    step[i], step[j] = 1e-3, -1e-3
    moved = reward_model.fit(reward + step, arm, context, fold, target)[0]
    change = ((moved - q) * target).sum(1).mean() / 1e-3 * n
    assert change == pytest.approx(leverage[i] - leverage[j], abs=1e-9)


def test_influences_sum_to_zero_and_are_the_derivative_by_weights() -> None:
    """Dropping one decision moves an estimate by about minus its influence."""
    c = world(generator(0, "ope influence"), 2000)
    for name in ("ips", "snips", "dr", "sndr", "adaptive", "rejection"):
        got = ope.estimator(name)(c)
        assert abs(got.influence.sum()) < 1e-9, name
        i = int(np.argmax(np.abs(got.influence)))
        without = ope.estimator(name)(c.take(np.arange(2000) != i)).value
        assert got.value - without == pytest.approx(got.influence[i], rel=0.02), name


def estimates(name: str, worlds: int, n: int, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """Values, and whether the interval held the truth, over worlds."""
    rng = generator(0, f"ope worlds {name}")
    got = [ope.estimator(name)(world(rng, n, **options)) for _ in range(worlds)]  # type: ignore[arg-type]
    return np.array([g.value for g in got]), np.array([g.low <= TRUTH <= g.high for g in got])


@pytest.mark.parametrize("name", ["ips", "snips", "dm", "dr", "sndr", "switch-dr", "dros", "adaptive", "rejection"])
def test_unbiased_and_covering(name: str) -> None:
    """The mean within 4 of its standard errors of the truth, coverage within 4 of 95 % (or above where bias widens)."""
    worlds = 400
    value, inside = estimates(name, worlds, 1500)
    error = value.std(ddof=1) / math.sqrt(worlds)
    # The model's shrinkage moves the direct estimate by at most PULL / smallest cell of the spread of its means.
    bias = 0.15 * reward_model.PULL / (1500 / C * 0.8 * SHARES.min()) if name == "dm" else 0.0
    assert abs(value.mean() - TRUTH) < 4 * error + bias
    allowed = 4 * math.sqrt(0.95 * 0.05 / worlds)
    assert inside.mean() > 0.95 - allowed
    if name not in ("switch-dr", "dros"):
        assert inside.mean() < 0.95 + allowed


@pytest.mark.parametrize("name", ["dr", "sndr", "switch-dr", "dros", "adaptive"])
def test_covering_where_overlap_is_thin(name: str) -> None:
    """Weights up to 25 on 4 % of the decisions."""
    worlds, rng = 300, generator(0, f"ope thin {name}")
    target, truth = np.array([[0.0, 0.5, 0.5]] * 2), float(RATES[:, 1:].mean())
    logs = [world(rng, 6000, np.array([[0.96, 0.02, 0.02]] * 2), target) for _ in range(worlds)]
    got = [ope.estimator(name)(c) for c in logs]
    assert np.mean([g.low <= truth <= g.high for g in got]) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / worlds)


def test_intervals_cluster_by_user() -> None:
    """Sticky users: five decisions that share the first choice's propensity and most of their luck."""
    worlds = 250
    for name in ("ips", "dr", "dm"):
        _, inside = estimates(name, worlds, 3000, per_user=5)
        assert inside.mean() > 0.95 - 4 * math.sqrt(0.95 * 0.05 / worlds), name
        rng = generator(0, f"ope worlds {name}")
        c = world(rng, 3000, per_user=5)
        alone = ope.estimator(name)(replace(c, user=np.arange(3000)))
        assert ope.estimator(name)(c).se > 1.5 * alone.se


def learnt(rng: np.random.Generator, n: int, batches: int = 20) -> Choices:
    """Two equal arms whose shares follow their means, each share at least 5 %: the log of a greedy learner."""
    size, e = n // batches, np.array([0.5, 0.5])
    arm, behaviour, y, count = [], [], np.zeros(2), np.zeros(2)
    rewards = []
    for _ in range(batches):
        a = (rng.random(size) > e[0]).astype(np.int64)
        r = (rng.random(size) < 0.2).astype(np.float64)
        arm.append(a), rewards.append(r), behaviour.append(np.tile(e, (size, 1)))
        y += np.bincount(a, r, 2)
        count += np.bincount(a, minlength=2)
        lead = np.argmax(y / np.maximum(count, 1))
        e = np.where(np.arange(2) == lead, 0.95, 0.05)
    a, r, b = np.concatenate(arm), np.concatenate(rewards), np.concatenate(behaviour)
    target = np.tile([1.0, 0.0], (n, 1))
    q, leverage = reward_model.fit(r, a, np.zeros(n, np.int64), np.arange(n) % 5, target)
    return Choices(r, a, b[np.arange(n), a], target, np.arange(n), q, leverage, b, None, rng.random(n))


def test_on_the_log_of_a_learner_the_mean_is_biased_and_the_estimators_are_not() -> None:
    worlds, rng = 1500, generator(0, "ope learner")
    logs = [learnt(rng, 2000) for _ in range(worlds)]
    naive = np.array([c.reward[c.arm == 0].mean() for c in logs])
    assert naive.mean() < 0.2 - 4 * naive.std() / math.sqrt(worlds)
    for name in ("ips", "dr", "adaptive"):
        got = [ope.estimator(name)(c) for c in logs]
        value = np.array([g.value for g in got])
        if name != "adaptive":  # a ratio, and so not exactly unbiased
            assert abs(value.mean() - 0.2) < 4 * value.std(ddof=1) / math.sqrt(worlds), name
        inside = np.mean([g.low <= 0.2 <= g.high for g in got])
        assert inside > 0.95 - 4 * math.sqrt(0.95 * 0.05 / worlds), (name, inside)


# -- refusals ------------------------------------------------------------------------------------------------------


def test_one_tiny_propensity_is_refused() -> None:
    """One propensity of 1e-6 among 10,000: an effective sample of about 2 (here 1.02)."""
    rng = generator(0, "ope tiny")
    c = world(rng, 10_000)
    pscore = c.pscore.copy()
    pscore[np.flatnonzero(c.reward)[0]] = 1e-6
    o = overlap(replace(c, pscore=pscore))
    assert o.effective < 2.5
    assert any("effective sample" in why for why in untrusted(o))
    assert not untrusted(overlap(c))


def test_two_effective_decisions_in_ten_thousand_are_refused() -> None:
    c = world(generator(0, "ope two"), 10_000)
    pscore = c.pscore.copy()
    pscore[np.flatnonzero(c.reward)[:2]] = 1e-6
    o = overlap(replace(c, pscore=pscore))
    assert o.effective == pytest.approx(2, abs=0.5)
    assert any("effective sample" in why for why in untrusted(o))


def test_wrong_propensities_are_refused_by_the_mean_weight() -> None:
    c = world(generator(0, "ope wrong"), 10_000)
    assert any("not 1" in why for why in untrusted(overlap(replace(c, pscore=np.full(10_000, 0.9)))))


def test_variants_that_were_never_drawn_are_refused() -> None:
    shares = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    c = world(generator(0, "ope unseen"), 5000, shares)
    assert any("never drawn" in why for why in untrusted(overlap(c)))


def test_few_users_and_few_rewards_are_refused() -> None:
    c = world(generator(0, "ope few"), 5000)
    few = replace(c, user=c.user % 20)
    assert any("users are worth only" in why for why in untrusted(overlap(few)))
    rare = replace(c, reward=np.where(np.arange(5000) < 20, c.reward, 0.0))
    assert any("with a reward" in why for why in untrusted(overlap(rare)))


def test_refusals_are_rare_where_nothing_is_wrong() -> None:
    rng = generator(0, "ope calm")
    assert not [1 for _ in range(300) if untrusted(overlap(world(rng, 2000)))]


def test_the_default_follows_the_overlap() -> None:
    rng = generator(0, "ope default")
    assert fitting(overlap(world(rng, 2000)), learnt=True)[0] == "dr"
    thin = world(rng, 20_000, np.array([[0.98, 0.01, 0.01]] * 2), np.full((C, K), 1 / K))
    assert fitting(overlap(world(rng, 2000, SHARES, SHARES)), learnt=True)[0] == "ips"
    assert fitting(overlap(thin), learnt=False)[0] == "dros"
    assert fitting(overlap(thin), learnt=True)[0] == "adaptive"


def test_wrong_arrays_and_names_are_refused() -> None:
    c = world(generator(0, "ope bad"), 100)
    with pytest.raises(UsageError, match="did you mean 'snips'"):
        ope.estimator("snip")
    for bad, found in (
        ({"pscore": np.zeros(100)}, "pscore"), ({"target": np.ones((100, K))}, "sum to 1"),
        ({"arm": np.full(100, K)}, "arms lie"), ({"reward": np.full(100, np.nan)}, "finite"),
        ({"user": np.zeros(3, int)}, "user has shape"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=found):
            replace(c, **bad)
    with pytest.raises(ValueError, match="needs prediction"):
        ope.dr(replace(c, prediction=None))
    assert math.isnan(ope.dm(replace(c, leverage=None)).low)

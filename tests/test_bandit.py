"""Conformance of every registered policy, the mixtures, and the draw."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from justai_sim.bandit.best import best_beta
from justai_sim.bandit.choose import choose, final_shares, pinned, requested
from justai_sim.bandit.policy import METRICS, RATES, PolicySpec, spread, top_two
from justai_sim.bandit.registry import POLICIES, policy
from justai_sim.bandit.saved import load, save
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.errors import DataError, UsageError

each_policy = pytest.mark.parametrize("name", sorted(POLICIES))
NOW = 1_767_571_200_000_000
STACKS = [
    {}, {"epsilon": 0.1}, {"top_two": 0.5}, {"burn_in": 50.0}, {"freeze_after": 1}, {"warm_start": {"b": (20.0, 3.0)}},
    {"top_two": 0.3, "burn_in": 20.0, "freeze_after": 2, "warm_start": {"b": (9.0, 1.0)}},
]  # fmt: skip
LINEAR = ("linear_thompson", "logistic_thompson")


def names(K):
    return tuple("abcdefgh"[:K])


@st.composite
def cases(draw, name="weighted_thompson"):
    """(shape, tally of H cohorts, live, rng): counts as production makes them, y <= n, whole numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    R, C, K, H = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(2, 6)), draw(st.integers(1, 3))
    known = [m for m in ("conversion_rate", "unsubscribe_rate", "revenue_per_send") if m in policy(name).metrics]
    shape = Shape(R, C, K, names(K), draw(st.sampled_from(known)))
    n = np.floor(10 ** rng.uniform(0, draw(st.sampled_from([1, 4])), (R, C, K, H)) * (rng.random((R, C, K, H)) > 0.2))
    hits = rng.binomial(n.astype(int), rng.uniform(0, 0.2, (R, C, K, 1))).astype(float)
    money = shape.metric == "revenue_per_send"
    y = np.where(hits > 0, hits * 20, 0.0) if money else hits
    more = {
        "decided": n + 3.0 * (n > 0), "positive": hits, "log": hits * np.log(20), "log2": hits * np.log(20) ** 2,
        "reward_ip": (y if shape.metric != "unsubscribe_rate" else n - y) * 4.0,
    }  # fmt: skip
    return shape, Tally(n, y, y * 20 if money else y.copy(), more), rng.random((R, K)) > 0.25, rng


def each_case(test):
    """A case that the policy `name` can learn from, drawn for each."""

    @each_policy
    @given(data=st.data(), stack=st.sampled_from(STACKS))
    def run_it(name, data, stack):
        p, case = policy(name), data.draw(cases(name))
        left = [] if p.chances else ["top_two"]
        left += [] if p._counts and case[0].metric in RATES else ["warm_start"]
        test(name, case, {k: v for k, v in stack.items() if k not in left})

    run_it.__name__ = test.__name__
    return run_it


def spec_for(name, K, **settings):
    if name == "fixed":
        settings["shares"] = {v: float(i) for i, v in enumerate(names(K)[1:])} | {names(K)[-1]: 2.0}
    return PolicySpec(name=name, **settings)


def run(name, shape, tally, live, split=0, **settings):
    """The policy's shares after learning the first `split` cohorts, the rest being open."""
    p = policy(name)
    state = p.init(spec_for(name, shape.K, **settings), shape)
    for h in range(split):
        state = p.update(state, tally.cohorts(h, h + 1))
    return p.allocate(state, tally.cohorts(split, tally.n_cohorts), live, NOW)


def same(a, b):
    """Equal states, bit by bit."""
    assert a.arrays.keys() == b.arrays.keys()
    for k in a.arrays:
        np.testing.assert_array_equal(a[k], b[k])


@each_case
def test_rows_sum_to_one_over_live_arms(name, case, stack):
    shape, tally, live, _ = case
    shares = run(name, shape, tally, live, **stack)
    assert shares.shape == (shape.R, shape.C, shape.K)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=0, atol=1e-12)
    treated = live[:, 1:].any(1)
    for r in range(shape.R):
        dead = ~live[r, 1:]
        assert (shares[r][:, 1:][:, dead] == 0).all()
        assert (shares[r, :, 0] == (0 if treated[r] else 1)).all()


@each_case
def test_pure(name, case, stack):
    shape, tally, live, _ = case
    for a in (tally.n, tally.y, tally.y2, *tally.more.values(), live):
        a.flags.writeable = False
    p = policy(name)
    state = p.update(p.init(spec_for(name, shape.K, **stack), shape), tally.cohorts(0, 1))
    before = copy.deepcopy(state)
    p.update(state, tally)
    once = p.allocate(state, tally, live, NOW)
    np.testing.assert_array_equal(once, p.allocate(state, tally, live, NOW))
    same(before, state)
    for a in state.arrays.values():
        assert a.shape[:3] == state.size


@each_case
def test_order_and_split_of_cohorts_do_not_matter_without_memory(name, case, stack):
    shape, tally, live, rng = case
    p = policy(name)
    whole = run(name, shape, tally, live, **stack)
    split = int(rng.integers(0, tally.n_cohorts + 1))
    exact = 1e-12 if "log" in p.stats else 0  # sums of logarithms depend on their order
    np.testing.assert_allclose(run(name, shape, tally, live, split, **stack), whole, rtol=0, atol=exact)
    if p.memory or "freeze_after" in stack:
        return
    order = rng.permutation(tally.n_cohorts)
    mixed = tally._each(lambda a: a[..., order])
    again = run(name, shape, mixed, live, split, **stack)
    np.testing.assert_allclose(again, whole, rtol=0, atol=1e-9)  # money sums to a rounding error
    a, b = tally.cohorts(0, 1), mixed.cohorts(0, 1)
    s = p.init(spec_for(name, shape.K, **stack), shape)
    one, two = p.update(p.update(s, a), b), p.update(s, a + b)
    for k in one.arrays:
        np.testing.assert_allclose(one[k], two[k], rtol=1e-12)


@each_case
def test_relabelling_arms_permutes_shares(name, case, stack):
    shape, tally, live, rng = case
    if name == "fixed" or "warm_start" in stack:
        return
    order = np.append(0, 1 + rng.permutation(shape.K - 1))
    shares = run(name, shape, tally, live, **stack)
    again = run(name, shape, tally.arms(order), live[:, order], **stack)
    np.testing.assert_allclose(again, shares[..., order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"fixed"}))
@given(n=st.integers(0, 10**6), y=st.integers(0, 10**6))
def test_exchangeable_arms_are_alike(name, n, y):
    shape = Shape(1, 1, 5, metric=policy(name).metrics[0])
    n, y = np.full((1, 1, 5, 1), float(n)), np.full((1, 1, 5, 1), float(min(n, y)))
    more = {"decided": n, "positive": y, "log": 2 * y, "log2": 4 * y, "reward_ip": 3 * y}
    shares = run(name, shape, Tally(n, y, y, more), np.ones((1, 5), bool))
    np.testing.assert_allclose(shares, [[[0, 0.25, 0.25, 0.25, 0.25]]], rtol=0, atol=1e-8)


@each_case
def test_replications_do_not_leak(name, case, stack):
    """R = 1 is the slice of R = n: bit by bit for counts, nearly so for linear models."""
    shape, tally, live, _ = case
    p, spec = policy(name), spec_for(name, shape.K, **stack)
    state = p.update(p.init(spec, shape), tally.cohorts(0, 1))
    shares = p.allocate(state, tally, live, NOW)
    one = Shape(1, shape.C, shape.K, shape.variants, shape.metric)
    for r in range(shape.R):
        row = slice(r, r + 1)
        alone = p.update(p.init(spec, one), tally.rows(row).cohorts(0, 1))
        for k in alone.arrays:
            np.testing.assert_array_equal(alone[k], state[k][row])
        got = p.allocate(alone, tally.rows(row), live[row], NOW)
        np.testing.assert_allclose(got, shares[row], rtol=0, atol=1e-9 if name in LINEAR else 0)


@each_case
def test_states_are_saved_and_loaded(name, case, stack):
    shape, tally, live, _ = case
    p = policy(name)
    state = p.update(p.init(spec_for(name, shape.K, **stack), shape), tally.cohorts(0, 1))
    data = save(state)
    again = load(data)
    same(state, again)
    assert (again.spec, again.cohorts, again.size) == (state.spec, state.cohorts, state.size)
    np.testing.assert_array_equal(p.allocate(again, tally, live, NOW), p.allocate(state, tally, live, NOW))
    for broken in (b"", b"x" * 40, data[: len(data) // 2], data.replace(b"header", b"hxader")):
        with pytest.raises(DataError, match="not the saved state"):
            load(broken)


@each_policy
def test_arms_come_and_go(name):
    shape = Shape(2, 1, 3, names(3), policy(name).metrics[0])
    n = np.full((2, 1, 3, 1), 100.0)
    y = np.array([0, 5.0, 9.0])[None, None, :, None] * np.ones((2, 1, 1, 1))
    tally = Tally(n, y, y, {"positive": y, "log": y, "log2": y, "reward_ip": 3 * y})
    p = policy(name)
    state = p.update(p.init(spec_for(name, 3), shape), tally)
    more = p.with_arm(state, "d")
    assert more.size == (2, 1, 4)
    fresh = p.init(spec_for(name, 3), more.shape)
    for k, a in more.arrays.items():
        np.testing.assert_array_equal(a[:, :, :3], state[k])
        np.testing.assert_array_equal(a[:, :, 3], fresh[k][:, :, 3])
    back = p.reset(more, 2)
    for k, a in back.arrays.items():
        np.testing.assert_array_equal(a[:, :, 2], fresh[k][:, :, 2])
        np.testing.assert_array_equal(a[:, :, 1], state[k][:, :, 1])
    warm = p.warmed(fresh, 3, 50, 20)
    if "n" in p.stats:
        assert (warm["n"][:, :, 3] == 50).all()
        assert (fresh["n"] == 0).all()


@each_policy
def test_settings_of_other_policies_are_refused(name):
    p = policy(name)
    for field, value in {"temperature": 2.0, "discount": 0.5, "window": 3, "gamma": 0.5, "ridge": 2.0}.items():
        if field not in p.settings:
            with pytest.raises(UsageError, match=f"policy.{field} is no setting of the policy '{name}'; it has: "):
                p.check(spec_for(name, 3, **{field: value}), p.metrics[0])
    if not p.chances:
        with pytest.raises(UsageError, match="top_two is no setting"):
            p.check(spec_for(name, 3, top_two=0.5), p.metrics[0])


def test_the_control_does_not_teach():
    shape = Shape(1, 1, 3)
    n, y = np.full((1, 1, 3, 1), 100.0), np.array([[[[90.0], [5.0], [7.0]]]])
    shares = run("weighted_thompson", shape, Tally(n, y, y), np.ones((1, 3), bool))
    y0 = y.copy()
    y0[0, 0, 0] = 0
    np.testing.assert_array_equal(shares, run("weighted_thompson", shape, Tally(n, y0, y0), np.ones((1, 3), bool)))


def tally_of(n, y):
    """One replication, segment and cohort from lists by arm."""
    n, y = (np.array(v, float)[None, None, :, None] for v in (n, y))
    return Tally(n, y, y)


def test_weighted_thompson_is_the_published_posterior():
    tally = tally_of([500, 1000, 1000, 1000], [0, 30, 35, 45])
    live = np.ones((1, 4), bool)
    exact = [0, 0.02822328, 0.12169139, 0.85008533]
    got = run("weighted_thompson", Shape(1, 1, 4), tally, live)
    np.testing.assert_allclose(got[0, 0], exact, rtol=0, atol=6e-9)
    low = run("weighted_thompson", Shape(1, 1, 4, metric="unsubscribe_rate"), tally, live)
    mirrored = best_beta(np.array([971.0, 966, 956]), np.array([31.0, 36, 46]), np.ones(3, bool))
    np.testing.assert_allclose(low[0, 0, 1:], mirrored, rtol=0, atol=1e-12)
    prior = run("weighted_thompson", Shape(1, 1, 4), tally_of([0] * 4, [0] * 4), live, prior_alpha=31, prior_beta=971)
    np.testing.assert_allclose(prior[0, 0], [0, 1 / 3, 1 / 3, 1 / 3], atol=1e-9)


def test_the_second_of_a_sure_best_does_not_depend_on_empty_places():
    """Dead and padded arms get nothing, and the leader has its part whatever their number."""
    for K in (3, 4, 6, 21):
        n, y = np.zeros((1, 1, K, 1)), np.zeros((1, 1, K, 1))
        n[..., 1:3, 0], y[..., 1, 0], y[..., 2, 0] = 1e6, 2e5, 1e5
        live = np.zeros((1, K), bool)
        live[:, 1:3] = True
        shares = run("weighted_thompson", Shape(1, 1, K), Tally(n, y, y), live, top_two=0.5)
        np.testing.assert_allclose(shares[0, 0, :3], [0, 0.5, 0.5], atol=1e-9)
    three = top_two(np.array([1.0, 0, 0, 0]), 0.4, np.array([True, True, True, False]))
    np.testing.assert_allclose(three, [0.6, 0.2, 0.2, 0])


@pytest.mark.parametrize("name", ["moss", "exp3s", "exp3", "ucb1"])
def test_empty_places_change_no_share(name):
    """A template with fewer variants than another has empty places."""
    got = []
    for K in (3, 11):
        names = ("c", "a", "b") + ("",) * (K - 3)
        n, y = np.zeros((1, 1, K, 1)), np.zeros((1, 1, K, 1))
        n[0, 0, 1:3, 0], y[0, 0, 1:3, 0] = [400, 600], [40, 63]
        live = np.zeros((1, K), bool)
        live[:, 1:3] = True
        shape = Shape(1, 1, K, names)
        p = policy(name)
        state = p.update(p.init(PolicySpec(name=name), shape), Tally(n, y, y, {"decided": n, "reward_ip": y / 0.5}))
        none = Tally(0 * n, 0 * n, 0 * n, {"decided": 0 * n, "reward_ip": 0 * n})
        got.append(p.allocate(state, none, live, NOW)[0, 0, :3])
    np.testing.assert_allclose(got[0], got[1], atol=1e-12)


@pytest.mark.parametrize("name", ["greedy", "ucb1", "kl_ucb", "bayes_ucb", "moss", "epsilon_greedy"])
def test_what_was_sent_and_is_not_known_yet_is_not_sent_alone(name):
    n, y = tally_of([0, 5000, 0], [0, 100, 0]).n, tally_of([0, 5000, 0], [0, 100, 0]).y
    decided = tally_of([0, 5000, 700], [0, 0, 0]).n
    shares = run(name, Shape(1, 1, 3), Tally(n, y, y, {"decided": decided}), np.ones((1, 3), bool))
    assert shares[0, 0, 1] >= 0.9
    new = run(name, Shape(1, 1, 3), Tally(n, y, y, {"decided": n}), np.ones((1, 3), bool))
    assert new[0, 0, 2] == 1


@pytest.mark.parametrize(("metric", "y"), [("unsubscribe_rate", [0, 80, 90, 0]), ("open_rate", [0, 19000, 19010, 0])])
def test_a_linear_model_tries_a_new_arm_whatever_the_rate(metric, y):
    """Outcomes are taken against their mean: a prior around 0 would shut out a new arm where rates are near 1."""
    n = tally_of([0, 20000, 20000, 0], [0] * 4).n
    y = tally_of(y, y).y
    shares = run("linear_thompson", Shape(1, 1, 4, metric=metric), Tally(n, y, y), np.ones((1, 4), bool))
    assert 0.3 < shares[0, 0, 3] < 0.7


def test_priors_are_of_the_metric_where_lower_is_better():
    n, y = tally_of([0, 20000, 20000, 0], [0, 200, 220, 0]).n, tally_of([0, 20000, 20000, 0], [0, 200, 220, 0]).y
    settings = {"prior_mean": 0.01, "prior_weight": 5000.0, "prior_sd": 0.1}
    for name in ("normal_thompson", "nig_thompson"):
        shares = run(name, Shape(1, 1, 4, metric="unsubscribe_rate"), Tally(n, y, y), np.ones((1, 4), bool), **settings)
        assert 0.2 < shares[0, 0, 3] < 0.6
        assert shares[0, 0, 1] > shares[0, 0, 2]


def test_segments_learn_alone():
    n = np.full((1, 2, 3, 1), 1000.0)
    y = np.zeros_like(n)
    y[0, 0, 1], y[0, 1, 2] = 100, 100
    shares = run("weighted_thompson", Shape(1, 2, 3), Tally(n, y, y), np.ones((1, 3), bool))
    assert shares[0, 0, 1] > 0.999
    assert shares[0, 1, 2] > 0.999


@pytest.mark.parametrize(
    ("live", "n", "median"),
    [
        ([1, 1, 1, 1], [9, 100, 900, 400], 400),
        ([1, 1, 1, 0], [9, 100, 900, 400], 500),
        ([0, 1, 1, 1], [9, 0, 900, 400], 400),
        ([0, 1, 0, 0], [9, 70, 900, 400], 70),
    ],
)
def test_median_bias_correction(live, n, median):
    live, n = np.array([live], bool), np.array(n, float)
    y = np.floor(0.1 * n + [0, 2, 5, 1] * (n > 0))
    got = run("weighted_thompson", Shape(1, 1, 4), tally_of(n, y), live, bias_correction=True)
    seen = n > 0
    s = np.where(seen, y * median / np.maximum(n, 1), 0)
    m = np.where(seen, median, 0)
    expected = best_beta(1 + s, 1 + m - s, live[0] & (np.arange(4) > 0))
    np.testing.assert_allclose(got[0, 0], expected, rtol=0, atol=1e-12)


def test_exposure_weighted_counts_are_refused():
    tally = tally_of([10, 10, 3.4], [1, 1, 4])
    p = policy("weighted_thompson")
    state = p.init(PolicySpec(), Shape(1, 1, 3))
    with pytest.raises(UsageError, match=r"arm 2 .*y = 4 .*n = 3\.4 .*Exposure-weighted"):
        p.update(state, tally)
    with pytest.raises(UsageError, match="Exposure-weighted"):
        p.allocate(state, tally, np.ones((1, 3), bool), NOW)
    rounding = tally_of([10, 10, 3], [1, 1, 3 + 1e-12])
    assert np.isfinite(p.allocate(state, rounding, np.ones((1, 3), bool), NOW)).all()


@pytest.mark.parametrize(
    ("name", "metric", "why"),
    [("ucb1", "conversion", "did you mean 'conversion_rate'"), ("sliding_thompson", "revenue_per_send", "is money"),
     ("lognormal_thompson", "open_rate", "learns revenue_per_send; key metric 'open_rate'")],
)  # fmt: skip
def test_metrics_that_a_policy_cannot_learn_are_refused(name, metric, why):
    assert "revenue_per_send" in METRICS
    with pytest.raises(UsageError, match=why):
        policy(name).init(PolicySpec(name=name), Shape(1, 1, 2, metric=metric))


def test_fixed_follows_the_names_and_renormalises():
    shape, tally = Shape(1, 1, 4, ("ctl", "x", "y", "z")), Tally.zeros(Shape(1, 1, 4))
    p = policy("fixed")
    state = p.init(PolicySpec(name="fixed", shares={"z": 3, "x": 1}), shape)
    for live, expected in (
        ([1, 1, 1, 1], [0, 0.25, 0, 0.75]),
        ([1, 1, 1, 0], [0, 1, 0, 0]),
        ([1, 0, 1, 0], [0, 0, 1, 0]),
        ([1, 0, 0, 0], [1, 0, 0, 0]),
    ):
        assert p.allocate(state, tally, np.array([live], bool), NOW)[0, 0].tolist() == expected
    for shares, message in (({"ctl": 1.0}, "the control"), ({"other": 1.0}, "no variant; valid: x, y, z")):
        with pytest.raises(UsageError, match=message):
            p.init(PolicySpec(name="fixed", shares=shares), shape)
    with pytest.raises(UsageError, match="needs the names"):
        p.init(PolicySpec(name="fixed", shares={"x": 1}), Shape(1, 1, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 1.2}, r"policy.epsilon is 1.2; expected a number from 0 to 1"),
        ({"epsilon": math.nan}, "policy.epsilon is nan"),
        ({"floor": -0.1}, "policy.floor is -0.1"),
        ({"prior_alpha": 0.0}, "policy.prior_alpha is 0.0; expected"),
        ({"prior_beta": math.inf}, "policy.prior_beta is inf"),
        ({"name": "fixed"}, "expects a positive weight"),
        ({"name": "fixed", "shares": {"b": -1.0}}, r"policy.shares\['b'\] is -1.0"),
        ({"weights": {"clicks": 1.0}}, "policy.weights names 'clicks', no metric"),
        ({"weights": {"click_rate": -1.0}}, r"policy.weights\['click_rate'\] is -1.0"),
        ({"weights": {"click_rate": 0.0}}, "expected a positive weight for a metric"),
        ({"warm_start": {"b": (0.0, 1.0)}}, r"policy.warm_start\['b'\] is \[0.0, 1.0\]"),
        ({"discount": 1.5}, "policy.discount is 1.5"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        PolicySpec(**settings)
    with pytest.raises(UsageError, match=message):
        msgspec.convert(settings, PolicySpec)


def test_unknown_settings_are_refused():
    with pytest.raises(msgspec.ValidationError, match="epsilom"):
        msgspec.convert({"epsilom": 0.1}, PolicySpec)


def test_shapes_and_tallies_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        Shape(1, 0, 2)
    with pytest.raises(ValueError, match="2 variants"):
        Shape(1, 1, 3, ("a", "b"))
    z = np.zeros((1, 1, 2, 1))
    with pytest.raises(ValueError, match=r"tally\.y is int64"):
        Tally(z, z.astype(int), z)
    with pytest.raises(ValueError, match="cannot be added"):
        _ = Tally(z, z, z) + Tally.zeros(Shape(1, 1, 2), 2)
    tally = tally_of([1, 2], [0, 1])
    assert [a.shape for a in tally.sum()] == [(1, 1, 2)] * 3
    assert (tally + tally).sum().n.tolist() == [[[2, 4]]]


# Mixtures and the draw.


def test_mixtures_in_order():
    live = np.array([[True, True, True, False, True]])
    shares = np.array([[[0.0, 1.0, 0.0, 0.0, 0.0]]])
    got = final_shares(shares, live, 0.1, 0.3, 0.05)
    after_epsilon = np.array([0, 0.8, 0.1, 0, 0.1])
    after_floor = 0.85 * after_epsilon + 0.05 * np.array([0, 1, 1, 0, 1])
    np.testing.assert_allclose(got[0, 0], 0.9 * after_floor + [0.1, 0, 0, 0, 0], atol=1e-15)
    assert (got[0, 0, [1, 2, 4]] >= 0.9 * 0.05).all()
    assert got[0, 0, 0] == 0.1
    assert got[0, 0, 3] == 0


@given(
    case=cases(),
    control=st.floats(0, 1),
    epsilon=st.floats(0, 1),
    floor=st.floats(0, 0.2),
)
def test_final_shares_hold_what_they_say(case, control, epsilon, floor):
    shape, tally, live, _ = case
    shares = run("weighted_thompson", shape, tally, live)
    before = shares.copy()
    got = final_shares(shares, live, control, epsilon, floor)
    np.testing.assert_array_equal(shares, before)
    np.testing.assert_allclose(got.sum(-1), 1, rtol=0, atol=1e-12)
    some = live[:, 1:].any(1)
    assert (got[some][..., 0] == control).all()
    assert (got[~some][..., 0] == 1).all()
    for r in range(shape.R):
        arms = got[r][:, 1:]
        assert (arms[:, ~live[r, 1:]] == 0).all()
        assert (arms[:, live[r, 1:]] >= (1 - control) * floor * (1 - 1e-12)).all()


def test_no_live_arm_serves_the_control():
    got = final_shares(np.array([[[1.0, 0.0]]]), np.array([[True, False]]), 0.1, 0.2, 0.1)
    assert got.tolist() == [[[1, 0]]]


def test_mixtures_refuse():
    live, shares = np.ones((1, 4), bool), np.array([[[0, 0.5, 0.25, 0.25]]])
    np.testing.assert_allclose(final_shares(shares, live, 0, 0, 1 / 3)[0, 0], [0, 1 / 3, 1 / 3, 1 / 3])
    with pytest.raises(UsageError, match=r"floor is 0\.4; expected at most 0\.3333: 3 live arms"):
        final_shares(shares, live, 0.1, 0, 0.4)
    with pytest.raises(UsageError, match=r"control_share is 1\.1"):
        final_shares(shares, live, 1.1, 0, 0)
    with pytest.raises(UsageError, match="epsilon is nan"):
        final_shares(shares, live, 0.1, math.nan, 0)
    for wrong in ([0.5, 0.5, 0, 0], [0, 1.5, -0.5, 0], [0, math.nan, 0, 0]):
        with pytest.raises(ValueError, match="sum to 1"):
            final_shares(np.array([[wrong]], float), live, 0.1, 0, 0)


def test_an_edge_belongs_to_the_next_arm():
    shares = np.array([[[0.25, 0.25, 0.0, 0.5]]])
    u = np.array([0, 0.25, np.nextafter(0.25, 0), 0.5, np.nextafter(0.5, 0), np.nextafter(1, 0)])
    row = np.zeros(len(u), int)
    arm, propensity = choose(shares, row, row, u)
    assert arm.tolist() == [0, 1, 0, 3, 1, 3]
    assert propensity.tolist() == [0.25, 0.25, 0.25, 0.5, 0.25, 0.5]


@given(st.data())
def test_rounding_never_yields_a_dead_arm(data):
    K = data.draw(st.integers(1, 12))
    w = np.array(data.draw(st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 1 / 3, 0.7]), min_size=K, max_size=K)))
    assume(w.sum() > 0)
    shares = (w / w.sum())[None, None]
    edges = np.cumsum(shares)
    u = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 2), [0, np.nextafter(1, 0)]])
    u = u[(u >= 0) & (u < 1)]
    row = np.zeros(len(u), int)
    arm, propensity = choose(shares, row, row, u)
    assert (propensity > 0).all()
    np.testing.assert_array_equal(propensity, shares[0, 0, arm])


def test_choose_draws_with_the_logged_propensity():
    """Counts by row and arm against the shares, and the mean of 1 / propensity against the number of live arms."""
    rng, n = np.random.default_rng(11), 400_000
    live = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 0]], bool)
    shares = final_shares(spread(rng.random((3, 2, 4)), live), live, 0.1, 0.1, 0.02)
    rep, segment = rng.integers(0, 3, n), rng.integers(0, 2, n)
    arm, propensity = choose(shares, rep, segment, rng.random(n))
    np.testing.assert_array_equal(propensity, shares[rep, segment, arm])
    k = 4.5  # 24 comparisons: a false alarm in 6,000 runs, and the seed is fixed
    for r in range(3):
        for c in range(2):
            here = (rep == r) & (segment == c)
            counts = np.bincount(arm[here], minlength=4)
            p = shares[r, c]
            assert (np.abs(counts - here.sum() * p) <= k * np.sqrt(here.sum() * p * (1 - p))).all()
    positive = (shares > 0).sum(-1)[rep, segment]
    z = (1 / propensity - positive).sum() / math.sqrt(((1 / propensity - positive) ** 2).sum())
    assert abs(z) < k


def test_choose_refuses():
    row = np.zeros(1, int)
    for u in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="draws"):
            choose(np.array([[[1.0, 0.0]]]), row, row, np.array([u]))
    for wrong in ([math.nan, 1.0], [-1.0, 2.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="shares must be finite"):
            choose(np.array([[wrong]]), row, row, np.array([0.5]))
    arm, propensity = choose(np.array([[[1.0, 0.0]]]), row[:0], row[:0], np.zeros(0))
    assert len(arm) == len(propensity) == 0


@each_policy
def test_deterministic_policies_are_marked(name):
    """Different results in every arm: one arm gets everything exactly where the registry says so."""
    n = np.array([0.0, 900, 1000, 1100]).reshape(1, 1, 4, 1)
    y = np.array([0.0, 40, 60, 80]).reshape(1, 1, 4, 1)
    more = {"decided": n, "positive": y, "log": y * 0.1, "log2": y * 0.02, "reward_ip": y * 3}
    tally, p = Tally(n, y, y, more), policy(name)
    metric = p.metrics[-1] if "conversion_rate" not in p.metrics else "conversion_rate"
    got = run(name, Shape(1, 1, 4, names(4), metric), tally, np.ones((1, 4), bool))
    assert p.deterministic == (got.max() == 1.0)


def test_a_burn_in_counts_the_sends_of_a_variant_in_all_segments():
    """30 sends in each of two segments are the 50 that a variant is to have first; in none of them alone."""
    n = np.full((1, 2, 3, 1), 30.0)
    y = np.zeros(n.shape)
    y[:, :, 1] = 25
    tally, live = Tally(n, y, y, {"decided": n}), np.ones((1, 3), bool)
    shape = Shape(1, 2, 3, names(3))
    for name in LINEAR:
        assert run(name, shape, tally, live, burn_in=50.0)[0, 0, 1] > 0.9
        np.testing.assert_array_equal(run(name, shape, tally, live, burn_in=61.0)[0, :, 1:], 0.5)
    np.testing.assert_array_equal(run("weighted_thompson", shape, tally, live, burn_in=50.0)[0, :, 1:], 0.5)


def test_importing_the_bandit_costs_no_compiler():
    code = (
        "import sys, justai_sim.bandit.registry, justai_sim.bandit.choose, justai_sim.stats;"
        "print([m for m in ('numba', 'pandas', 'simpy', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_eligible_arms_share_the_treatment_traffic():
    """What a request may not have goes to the others in proportion; the control keeps its share."""
    shares = np.array([[[0.2, 0.4, 0.3, 0.1]]])
    row = np.zeros(4, int)
    may = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]], bool)
    got = requested(shares[row, row], row, may, None, None)
    np.testing.assert_allclose(got, [[0.2, 0.64, 0, 0.16], [1, 0, 0, 0], [0.2, 0.4, 0.3, 0.1], [0.2, 0, 0, 0.8]])
    eps = requested(shares[row, row], row, may, np.full(4, 0.5), np.ones((1, 4), bool))
    np.testing.assert_allclose(eps[0], [0.2, 0.52, 0, 0.28])
    np.testing.assert_allclose(eps.sum(1), 1)
    nothing = requested(np.array([[0.2, 0.8, 0.0, 0.0]]), row[:1], np.array([[0, 0, 1, 1]], bool), None, None)
    np.testing.assert_allclose(nothing, [[0.2, 0, 0.4, 0.4]])
    arm, p = choose(shares, row, row, np.full(4, 0.95), eligible=may)
    assert arm.tolist() == [3, 0, 3, 3]
    np.testing.assert_allclose(p, [0.16, 1, 0.1, 0.8])
    with pytest.raises(UsageError, match="epsilon"):
        choose(shares, row, row, np.zeros(4), epsilon=np.full(4, 1.5), live=np.ones((1, 4), bool))


@given(st.integers(0, 2**32))
def test_pinned_users_have_the_shares_as_ever(seed):
    rng = np.random.default_rng(seed)
    n, control = 4000, float(rng.uniform(0.05, 0.5))
    shares = np.array([[[control, 0.75 * (1 - control), 0.25 * (1 - control)]]])
    split = rng.random(n)
    u = pinned(rng.random(n), split, np.full(n, control))
    zero = np.zeros(n, int)
    arm, p = choose(shares, zero, zero, u)
    assert ((arm == 0) == (split < control)).all()
    np.testing.assert_array_equal(p, shares[0, 0, arm])
    for k in range(3):
        assert abs((arm == k).mean() - shares[0, 0, k]) <= 5 * (shares[0, 0, k] * (1 - shares[0, 0, k]) / n) ** 0.5

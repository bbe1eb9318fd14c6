"""Policies against values known exactly: by dynamic programming, in closed form, or by hand.

A right implementation lands within 4 standard deviations / sqrt(R) of the value (of the replications' own spread where
the exact one is not known).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from justai_sim.bandit.best import best_beta
from justai_sim.bandit.independent import LogGamma, Normal, Student, best_of
from justai_sim.bandit.policies.linear import linear, logistic
from justai_sim.bandit.policies.lognormal_thompson import amounts, posterior
from justai_sim.bandit.policy import PolicySpec, top_two
from justai_sim.bandit.registry import policy
from justai_sim.bandit.study import Study, retiring, study
from justai_sim.bandit.tally import Shape
from justai_sim.streams import generator

R = 20_000
SPECS: dict[str, dict[str, Any]] = {
    "uniform": {"name": "uniform"},
    "TS": {"name": "weighted_thompson"},
    "greedy": {"name": "greedy"},
    "eps": {"name": "epsilon_greedy", "explore": 0.1},
    "UCB1": {"name": "ucb1"},
}
# rates, T, policy, regret, bias1, bias2, Wald, cov1, pick, sd(regret)
TABLE: list[tuple[Any, ...]] = [
    ((0.6, 0.5), 200, "uniform", 10.0, 0, 0, 0.30345, 0.94600, 0.92248, 0.7071),
    ((0.6, 0.5), 200, "TS", 5.372354, -0.013733, -0.059960, 0.27404, 0.92528, 0.90018, 4.368),
    ((0.6, 0.5), 200, "greedy", 7.653316, -0.189787, -0.211985, 0.70676, 0.67416, 0.62780, 9.385),
    ((0.6, 0.5), 200, "UCB1", 7.162398, -0.004299, -0.014311, 0.29132, 0.94308, 0.92293, 1.944),
    ((0.5, 0.5), 200, "TS", 0, -0.034541, -0.034541, 0.14040, 0.90022, None, 0),
    ((0.5, 0.5), 200, "eps", 0, -0.043214, -0.043214, 0.09191, 0.92166, None, 0),
    ((0.6, 0.5), 100, "TS", 3.285310, -0.023437, -0.065825, 0.21675, 0.91699, 0.82193, 2.372),
]


@cache
def played(name: str, rates: tuple[float, ...], decisions: int, batch: int = 1) -> Study:
    rng = generator(6, f"exact {name} {rates} {decisions} {batch}")
    return study(PolicySpec(**SPECS[name]), rates, decisions, R, rng, batch=batch)


def near(values: Any, expected: float, sd: float | None = None) -> None:
    values = np.asarray(values, np.float64)
    spread = values.std(ddof=1) if sd is None else sd
    assert abs(values.mean() - expected) <= 4 * spread / len(values) ** 0.5 + 1e-5, (values.mean(), expected)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[2]} {row[0]} {row[1]}")
def test_two_arms_exactly(row: tuple[Any, ...]) -> None:
    rates, T, name, regret, bias1, bias2, wald, cov1, pick, sd = row
    got = played(name, rates, T)
    near(got.regret, regret, sd)
    for arm, bias in ((0, bias1), (1, bias2)):
        found, se = got.bias(arm)
        assert abs(found - bias) <= 4 * se + 1e-5
    near(got.rejects(), wald, (wald * (1 - wald)) ** 0.5)
    near(got.covered(0), cov1, (cov1 * (1 - cov1)) ** 0.5)
    if pick is not None:
        near(got.picked(), pick)


@pytest.mark.parametrize(
    ("batch", "regret", "bias"),
    [(1, 3.285310, -0.065825), (5, 3.332845, -0.060102), (10, 3.399272, -0.050790), (20, 3.547063, -0.035402),
     (50, 4.047645, -0.013810), (100, 5, 0)],
)  # fmt: skip
def test_feedback_in_batches(batch: int, regret: float, bias: float) -> None:
    got = played("TS", (0.6, 0.5), 100, batch)
    near(got.regret, regret)
    found, se = got.bias(1)
    assert abs(found - bias) <= 4 * se


@pytest.mark.parametrize(
    ("batch", "wald"), [(1, 0.14778), (5, 0.13984), (10, 0.12635), (20, 0.10040), (50, 0.06613), (100, 0.05645)]
)
def test_false_positives_in_batches(batch: int, wald: float) -> None:
    near(played("TS", (0.5, 0.5), 100, batch).rejects(), wald, (wald * (1 - wald)) ** 0.5)


@pytest.mark.parametrize(("T", "bias"), [(3, -1 / 16), (4, -19 / 192)])
def test_greedy_by_hand(T: int, bias: float) -> None:
    found, se = played("greedy", (0.5, 0.5), T).bias(0)
    assert abs(found - bias) <= 4 * se


@pytest.mark.parametrize("name", ["TS", "UCB1", "eps"])
def test_a_wrong_table_would_be_noticed(name: str) -> None:
    """The tolerance is small enough to tell the policies of the table apart."""
    rows = {r[2]: r for r in TABLE if r[0] == (0.6, 0.5) and r[1] == 200}
    other = rows["greedy"]
    with pytest.raises(AssertionError):
        near(played(name, (0.6, 0.5), 200).regret, other[3], other[9])


def test_weights_of_fixed_posteriors() -> None:
    a, b = np.array([31.0, 36, 46]), np.array([971.0, 966, 956])
    best = best_beta(a, b, np.ones(3, bool))
    np.testing.assert_allclose(best, [0.02822328, 0.12169139, 0.85008533], rtol=0, atol=1e-8)
    np.testing.assert_allclose(top_two(best, 0.5), [0.09608634, 0.40763600, 0.49627767], rtol=0, atol=2e-8)
    # The rule that a shipped system uses instead, (best + second) / 2, is another one.
    assert abs(top_two(best, 0.5) - [0.13850510, 0.37036333, 0.49113158]).max() > 0.005


def rows(rng: np.random.Generator, K: int) -> dict[str, Any]:
    """Posteriors of very uneven counts, 0 to 10^7, near enough to compete."""
    n = 10 ** rng.uniform(0, 7, K) * (rng.random(K) > 0.2)
    p = rng.uniform(0.001, 0.2) * np.exp(rng.normal(0, 0.05, K))
    a, b = 1 + n * p, 1 + n * (1 - p)
    mean, sd = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
    return {"Normal": Normal(mean, sd), "Student": Student(mean, sd, 3 + n), "LogGamma": LogGamma(a, 1 + n)}


def by_brute_force(p: Any, points: int | None = None) -> Any:
    """The same integrals on a much finer grid."""
    levels = np.geomspace(1e-13, 0.5, 1500 if points is None else points)
    ends = np.sort(np.concatenate([q.ravel() for q in p.quantile(levels)]))
    nodes, weights = np.polynomial.legendre.leggauss(4)
    half = np.diff(ends)[:, None] / 2
    x, w = (ends[:-1, None] + half + half * nodes).ravel(), (half * weights).ravel()
    cdf, pdf = p.cdf(x), p.pdf(x)
    before = np.cumprod(np.concatenate([np.ones_like(cdf[:1]), cdf[:-1]]), 0)
    after = np.cumprod(np.concatenate([np.ones_like(cdf[:1]), cdf[:0:-1]]), 0)[::-1]
    out = (w * pdf * before * after).sum(1)
    return out / out.sum()


@pytest.mark.parametrize("kind", ["Normal", "Student", "LogGamma"])
def test_chances_of_independent_posteriors(kind: str) -> None:
    rng = generator(1, f"posteriors {kind}")
    for _ in range(8):
        p = rows(rng, int(rng.integers(2, 21)))[kind]
        live = np.ones(len(by := by_brute_force(p)), bool)
        np.testing.assert_allclose(best_of(p, live), by, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Normal", "Student", "LogGamma"])
def test_chances_of_two_hundred_arms(kind: str) -> None:
    p = rows(generator(2, f"posteriors {kind}"), 200)[kind]
    np.testing.assert_allclose(best_of(p, np.ones(200, bool)), by_brute_force(p, 60), rtol=0, atol=1e-4)


def test_dead_arms_have_no_chance() -> None:
    p = Normal(np.array([[5.0, 1.0, 0.0], [1.0, 2.0, 3.0]]), np.ones((2, 3)))
    got = best_of(p, np.array([[False, True, True], [False, False, False]]))
    assert got[0, 0] == 0
    assert got[0, 1] == pytest.approx(0.7602499389)
    assert (got[1] == 0).all()


@pytest.mark.parametrize("batch", [1, 25])
def test_chances_to_be_the_best_are_calibrated(batch: int) -> None:
    """In worlds drawn from the prior, however the data were collected: said 90 %, right in 90 %."""
    rng = generator(7, f"calibration {batch}")
    rates = rng.beta(1, 1, (R // 4, 4))
    said, right, n = study(PolicySpec(), rates, 200, R // 4, rng, batch=batch).calibration()
    assert len(said) == 10
    # The arms of one world are not independent: at most as uncertain as worlds are.
    error = np.sqrt(right * (1 - right) / n * 2)
    assert (np.abs(said - right) <= 4 * error + 1e-6).all(), (said, right, error)


TABLE_1 = {1: 9105, 3: 9199, 10: 9049, 32: 9451, 100: 11_550, 316: 21_594, 1000: 59_256}


@pytest.mark.slow
@pytest.mark.parametrize(("delay", "published"), TABLE_1.items())
def test_retiring_items_with_delayed_feedback(delay: int, published: float) -> None:
    """Chapelle and Li 2011, Table 1, within 10 % where the policy learns of a swap with the next feedback. One item is
    gone every 1,000 decisions; R = 20 leave an error of 1 to 3 %."""
    regret = retiring(1_000_000, 20, delay, generator(3, f"retiring {delay}"))
    print(f"delay {delay}: {regret.mean():,.0f} +- {regret.std(ddof=1) / 20**0.5:,.0f}, published {published:,.0f}")
    assert abs(regret.mean() / published - 1) < 0.10 + 4 * regret.std(ddof=1) / 20**0.5 / published


@pytest.mark.slow
def test_what_becomes_of_pending_feedback_matters() -> None:
    """Told at once and with the pending feedback dropped, the last cell of the table is 35,069 +- 448."""
    regret = retiring(1_000_000, 20, 1000, generator(3, "retiring, dropped"), pending="dropped")
    print(f"dropped: {regret.mean():,.0f} +- {regret.std(ddof=1) / 20**0.5:,.0f}")
    assert abs(regret.mean() - 35_069) < 4 * (448**2 + regret.var(ddof=1) / 20) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "regret", "se"),
    [((0.9, 0.8), 9.50, 0.40), ((0.5, *[0.4] * 9), 167.5, 2.4), ((0.05, 0.04), 16.7, 0.7)],
)
def test_reference_regrets_at_ten_thousand(rates: tuple[float, ...], regret: float, se: float) -> None:
    got = study(PolicySpec(), rates, 10_000, 500, generator(4, f"reference {rates}")).regret
    print(f"{rates[:2]}: {got.mean():.2f} +- {got.std(ddof=1) / 500**0.5:.2f}, reference {regret}")
    assert abs(got.mean() - regret) < 4 * (se**2 + got.var(ddof=1) / 500) ** 0.5


@pytest.mark.parametrize(("C", "d", "own"), [(1, 1, False), (4, 9, False), (9, 4, True), (7, 7, True), (6, 3, False)])
def test_linear_models_against_dense_algebra(C: int, d: int, own: bool) -> None:
    """Scores of every segment under each arm's own ridge regression, whatever the shape of the features."""
    rng = generator(8, f"linear {C} {d} {own}")
    R, K, ridge = 2, 4, 0.7
    x = rng.normal(size=(C, K if own else 1, d)) * np.ones((1, K, 1))
    n = rng.poisson(3, (R, C, K)) * 10.0 ** rng.integers(0, 4, (R, C, K))
    y = n * rng.random((R, C, K))
    state = linear_state("linear_thompson", x, n, y, y, ridge)
    p, q = linear(state), logistic(linear_state("logistic_thompson", x, n, y, None, ridge))
    for r in range(R):
        seen, total = n[r, :, 1:].sum(), y[r, :, 1:].sum()
        noise = (1 + total - total**2 / seen) / (1 + seen)
        for k in range(1, K):
            X, w = x[:, k], n[r, :, k]
            inverse = np.linalg.inv(ridge * np.eye(d) + (X.T * w) @ X)
            theta = inverse @ X.T @ (y[r, :, k] - w * total / seen)
            np.testing.assert_allclose(p.mean[r, :, k], X @ theta, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(p.sd[r, :, k] ** 2, noise * ((X @ inverse) * X).sum(1), rtol=1e-8)
            # At the mode of the logistic posterior its slope is zero, and the covariance is the inverse curvature.
            s = 1 / (1 + np.exp(-q.mean[r, :, k]))
            theta = np.linalg.lstsq(X, q.mean[r, :, k], rcond=None)[0]
            slope = X.T @ (y[r, :, k] - w * s) - ridge * theta
            np.testing.assert_allclose(slope, 0, atol=1e-7 * (1 + w.sum()))
            inverse = np.linalg.inv(ridge * np.eye(d) + (X.T * (w * s * (1 - s))) @ X)
            np.testing.assert_allclose(q.sd[r, :, k] ** 2, ((X @ inverse) * X).sum(1), rtol=1e-7)


def linear_state(name: str, x: Any, n: Any, y: Any, y2: Any, ridge: float) -> Any:
    shape = Shape(*n.shape, features=x)
    state = policy(name).init(PolicySpec(name=name, ridge=ridge), shape)
    return state + ({"n": n, "y": y} | ({} if y2 is None else {"y2": y2}))


def test_many_alike_normals_are_resolved() -> None:
    """Where 200 arms are nearly alike the best one's distribution is the narrowest: panels must still resolve it."""
    rng = generator(9, "alike")
    for K in (20, 200):
        p = Normal(rng.normal(size=K) * 0.2, rng.uniform(0.8, 1.2, K))
        np.testing.assert_allclose(
            best_of(p, np.ones(K, bool)), by_brute_force(p, 1500 if K == 20 else 20), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("orders", "off"), [((1, 2, 4), 0.035), ((0, 0, 0), 0.035), ((15, 20, 12), 0.005), ((60, 40, 50), 0.002)]
)
def test_how_far_the_log_normal_approximation_is_off(orders: tuple[int, ...], off: float) -> None:
    """Against 400,000 draws of the true posterior; what the docs say of it."""
    rng, draws = generator(11, f"log-normal {orders}"), 400_000
    positive, n = np.array([0.0, *orders]), np.array([0.0, 2000, 2000, 2000])
    logs = [rng.normal(3.5, 0.6, int(k)) for k in positive]
    sums = {"log": [x.sum() for x in logs], "log2": [(x**2).sum() for x in logs], "n": n, "positive": positive}
    shape = Shape(1, 1, 4, metric="revenue_per_send")
    spec = PolicySpec(name="lognormal_thompson", prior_mean=3.5, prior_sd=0.6)
    state = policy(spec.name).init(spec, shape) + {k: np.array(v, float)[None, None] for k, v in sums.items()}
    said = best_of(posterior(state), np.array([False, True, True, True]))[0, 0, 1:]
    mean, weight, a, b = (x[0, 0, 1:] for x in amounts(state))
    theta = rng.beta(1 + positive[1:], 1 + n[1:] - positive[1:], (draws, 3))
    variance = b / rng.gamma(a, 1, (draws, 3))
    worth = np.log(theta) + mean + rng.normal(size=(draws, 3)) * np.sqrt(variance / weight) + variance / 2
    found = np.bincount(worth.argmax(1), minlength=3) / draws
    assert np.abs(said - found).max() <= off + 4 * 0.5 / draws**0.5

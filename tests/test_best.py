"""P(best) against exact values and against an independent quadrature built on scipy's incomplete beta."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from justai_sim.bandit.best import best_beta, best_beta_raw

QUANTILES = np.concatenate([10.0 ** -np.arange(14, 0, -1.0), [0.003, 0.03, 0.2, 0.35, 0.5]])
GAUSS = np.polynomial.legendre.leggauss(16)


def _logit_quantiles(a, b):
    low, high = special.betaincinv(a, b, QUANTILES), special.betaincinv(b, a, QUANTILES)
    u = np.concatenate([np.log(low) - np.log1p(-low), np.log1p(-high) - np.log(high)])
    return u[np.isfinite(u)]


def _cdf(a, b, u):
    return np.where(u < 0, special.betainc(a, b, special.expit(u)), 1 - special.betainc(b, a, special.expit(-u)))


def oracle(alpha, beta):
    """P(best) in logit space, 16 nodes between any two quantiles of any arm, scipy's betainc for the CDFs."""
    points = np.unique(np.concatenate([_logit_quantiles(a, b) for a, b in zip(alpha, beta, strict=True)]))
    pieces = [np.linspace(p, q, min(50, math.ceil(q - p)) + 1)[:-1] for p, q in itertools.pairwise(points)]
    points = np.append(np.concatenate(pieces), points[-1])
    half = np.diff(points)[:, None] / 2
    u, w = points[:-1, None] + half * (1 + GAUSS[0]), half * GAUSS[1]
    cdf = np.array([_cdf(a, b, u) for a, b in zip(alpha, beta, strict=True)])
    out = []
    for i, (a, b) in enumerate(zip(alpha, beta, strict=True)):
        f = w * np.exp(a * u - (a + b) * np.logaddexp(0, u) - special.betaln(a, b))
        # betaln of 1e7 is only good to 1e-8: the density's own integral is the better constant
        out.append((f * np.delete(cdf, i, 0).prod(0)).sum() / f.sum())
    return np.array(out)


def test_published_values():
    n, s = 1000, np.array([30.0, 35.0, 45.0])
    exact = [0.02822328, 0.12169139, 0.85008533]
    live = np.ones(3, bool)
    np.testing.assert_allclose(best_beta(1 + s, 1 + n - s, live), exact, rtol=0, atol=6e-9)
    half = best_beta(np.array([2.0, 1.0, 1.0]), np.ones(3), live)
    np.testing.assert_allclose(half, [0.5, 0.25, 0.25], rtol=0, atol=1e-9)


def test_scipy_quad_on_three_arms():
    a, b = np.array([3.0, 8.0, 20.0]), np.array([5.0, 9.0, 30.0])

    def density(x, i):
        others = np.prod([special.betainc(a[j], b[j], x) for j in range(3) if j != i])
        return others * math.exp((a[i] - 1) * math.log(x) + (b[i] - 1) * math.log1p(-x) - special.betaln(a[i], b[i]))

    exact = [integrate.quad(density, 0, 1, args=(i,), epsabs=1e-12, limit=200)[0] for i in range(3)]
    np.testing.assert_allclose(best_beta(a, b, np.ones(3, bool)), exact, rtol=0, atol=1e-9)


def test_two_arms_closed_form():
    """P(B > A) of integer posteriors is a finite sum."""
    (a1, b1), (a2, b2) = (31, 971), (46, 956)
    i = np.arange(a2)
    terms = special.betaln(a1 + i, b1 + b2) - np.log(b2 + i) - special.betaln(1 + i, b2) - special.betaln(a1, b1)
    got = best_beta(np.array([a1, a2], float), np.array([b1, b2], float), np.ones(2, bool))
    assert got[1] == pytest.approx(np.exp(terms).sum(), abs=1e-9)


@st.composite
def posteriors(draw):
    """2..20 arms: counts 0..1e7, even or very uneven, equal or different rates, priors .3 to 3."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    K = draw(st.integers(2, 20))
    top = draw(st.sampled_from([0.7, 2.0, 4.0, 7.0]))
    n = np.full(K, 10 ** rng.uniform(0, top)) if draw(st.booleans()) else 10 ** rng.uniform(0, top, K)
    n = np.floor(n * (rng.random(K) > 0.1)).astype(int)
    p = draw(st.sampled_from([0.0005, 0.02, 0.3, 0.5, 0.97])) * np.ones(K)
    if draw(st.booleans()):
        p = p * rng.uniform(0.5, 1.02, K)
    s = rng.binomial(n, p)
    prior = draw(st.sampled_from([0.3, 0.5, 1.0, 3.0]))
    return s + prior, n - s + prior


@given(posteriors())
def test_random_and_extreme_posteriors(ab):
    a, b = ab
    live = np.ones(len(a), bool)
    np.testing.assert_allclose(best_beta(a, b, live), oracle(a, b), rtol=0, atol=1e-7)
    assert abs(best_beta_raw(a, b, live).sum() - 1) < 1e-7


@pytest.mark.parametrize("n", [0, 3, 1_000, 10_000_000])
@pytest.mark.parametrize("K", [1, 2, 7, 20])
def test_exchangeable_arms_share_alike(n, K):
    a, b = np.full(K, 1 + 0.02 * n), np.full(K, 1 + 0.98 * n)
    np.testing.assert_allclose(best_beta_raw(a, b, np.ones(K, bool)), 1 / K, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1e-3, 1.0], [1e-3, 1.0]),  # all mass at 0 and 1: half the time best
        ([1e-6, 1e-6], [1e-6, 1e-6]),
        ([1e12, 1e12], [1e12, 1e12]),
        ([1e7, 1.0], [1e7, 1.0]),  # by symmetry round 1/2
        ([1e12, 1e-6], [1e12, 1e-6]),
    ],
)
def test_symmetric_extremes(a, b):
    raw = best_beta_raw(np.array(a), np.array(b), np.ones(2, bool))
    np.testing.assert_allclose(raw, 0.5, rtol=0, atol=1e-6)


def test_hopeless_arms_get_exact_or_tiny_shares():
    got = best_beta(np.array([1e6, 2e6, 1.0]), np.array([9e6, 8e6, 1e6]), np.ones(3, bool))
    np.testing.assert_allclose(got, [0, 1, 0], atol=1e-12)


def test_minimise_turns_the_posterior_round():
    a, b = np.array([31.0, 36.0, 46.0]), np.array([971.0, 966.0, 956.0])
    live = np.ones(3, bool)
    got = best_beta(a, b, live, minimise=True)
    np.testing.assert_allclose(got, oracle(b, a), rtol=0, atol=1e-8)
    assert got[0] > got[1] > got[2]


def test_dead_arms_and_empty_rows():
    a, b = np.array([[1.0, np.nan, 5.0], [1.0, 1.0, 1.0]]), np.ones((2, 3))
    live = np.array([[True, False, True], [False, False, False]])
    got = best_beta(a, b, live)
    np.testing.assert_allclose(got, [[1 / 6, 0, 5 / 6], [0, 0, 0]], atol=1e-9)
    assert got[0, 1] == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, 1e13])
def test_impossible_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=r"posterior at \(1,\)"):
        best_beta(np.array([1.0, bad]), np.ones(2), np.ones(2, bool))


def test_rows_are_independent_bitwise():
    rng = np.random.default_rng(5)
    a, b = rng.uniform(1, 100, (6, 2, 4)), rng.uniform(1, 100, (6, 2, 4))
    live = np.ones((6, 2, 4), bool)
    whole = best_beta(a, b, live)
    for r in range(6):
        np.testing.assert_array_equal(best_beta(a[r], b[r], live[r]), whole[r])


def test_speed():
    """200 rows of 10 arms: about 5 ms measured on one core; the bound leaves room for a busy machine."""
    rng = np.random.default_rng(0)
    n = np.full((200, 10), 1000)
    s = rng.binomial(n, 0.02)
    a, b, live = 1.0 + s, 1.0 + n - s, np.ones(n.shape, bool)
    best_beta(a, b, live)
    took = []
    for _ in range(10):
        start = time.perf_counter()
        best_beta(a, b, live)
        took.append(time.perf_counter() - start)
    print(f"P(best), 200 rows x 10 arms: {min(took) * 1e3:.2f} ms")
    assert min(took) < 0.05


def test_a_hopeless_arm_with_many_trials_has_no_negative_chance() -> None:
    rng = np.random.default_rng(1)
    n = np.floor(1e7 * rng.dirichlet([0.3] * 4, size=2000))
    y = np.round(n * np.array([0.003, 0.003, 0.0041, 0.0024]) * rng.uniform(0.9, 1.1, n.shape))
    live = np.broadcast_to(np.array([False, True, True, True]), n.shape)
    assert (best_beta_raw(1 + y, 1 + n - y, live) < 0).any()  # else this test has nothing to find
    shares = best_beta(1 + y, 1 + n - y, live)
    assert (shares >= 0).all()
    assert np.abs(shares.sum(-1) - 1).max() < 1e-12

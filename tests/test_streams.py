"""Draws are pure functions, uniform, and the compiled and the plain twin agree."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from justai_sim import streams

big = st.integers(0, 2**40)


@given(st.integers(0, 2**63), st.lists(st.tuples(big, big, big), min_size=1, max_size=20), st.integers(0, 4095))
def test_compiled_equals_plain(seed: int, rows: list[tuple[int, int, int]], k: int) -> None:
    rep, user, place = (np.array(c) for c in zip(*rows, strict=True))
    got = streams.uniform(seed, "open", rep, user, place, k)
    assert got.tolist() == [streams.uniform_one(seed, "open", *r, k) for r in rows]


def test_uniform_and_unrelated() -> None:
    n = 200_000
    rep, user = np.zeros(n, np.int64), np.arange(n)
    draws = [streams.uniform(1, p, rep, user, place) for p, place in (("open", 0), ("open", 1), ("click", 0))]
    draws.append(streams.uniform(2, "open", rep, user))
    for u in draws:
        assert u.min() > 0
        assert u.max() < 1
        # Kolmogorov-Smirnov at one in a million: fails by chance once in 250,000 changes of the hash.
        assert stats.kstest(u, "uniform").pvalue > 1e-6
    correlation = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlation).max() < 6 / np.sqrt(n)

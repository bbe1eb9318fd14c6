"""Vectorised studies for the tests of estimates: R replications of a bandit, written as plainly as possible."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from justai_sim.streams import generator


class Study(NamedTuple):
    """Arrays (R, T); `shares` (R, T, K) or None where they were not computed; `batch` (R, T)."""

    arm: np.ndarray
    outcome: np.ndarray
    shares: np.ndarray | None = None
    batch: np.ndarray | None = None


def pick(policy, n, y, t, rng):
    """The arm of decision t (from 0) in every replication, two Bernoulli arms; n, y (R, 2)."""
    R = len(n)
    coin = rng.integers(0, 2, R)
    if policy == "uniform":
        return coin
    if policy == "TS":
        theta = rng.beta(1 + y, 1 + n - y)
        return (theta[:, 1] > theta[:, 0]).astype(int)
    if policy == "UCB1":
        with np.errstate(divide="ignore", invalid="ignore"):
            score = y / n + np.sqrt(2 * np.log(t + 1) / n)
        score = np.where(n > 0, score, np.inf)
        return np.where(score[:, 0] == score[:, 1], coin, np.argmax(score, 1))
    if t < 2:  # greedy and eps: each arm once, the first by coin
        return coin if t == 0 else (n[:, 0] > 0).astype(int)
    mean = y / n
    best = np.where(mean[:, 0] == mean[:, 1], coin, np.argmax(mean, 1))
    if policy == "eps":
        return np.where(rng.random(R) < 0.1, rng.integers(0, 2, R), best)
    assert policy == "greedy"
    return best


def bernoulli(policy, rates, T, R, seed, B=1):
    """T decisions; the counts that are known are renewed every B decisions."""
    rng = generator(seed, f"{policy} {rates} {T} {B}")
    n, y = np.zeros((R, 2)), np.zeros((R, 2))
    arm, outcome = np.empty((R, T), np.int8), np.empty((R, T), np.int8)
    row, rates = np.arange(R), np.array(rates)
    for t in range(T):
        if t % B == 0:
            known_n, known_y = n.copy(), y.copy()
        arm[:, t] = pick(policy, known_n, known_y, t, rng)
        outcome[:, t] = rng.random(R) < rates[arm[:, t]]
        n[row, arm[:, t]] += 1
        y[row, arm[:, t]] += outcome[:, t]
    return Study(arm.astype(np.int64), outcome.astype(float))


_X, _W = np.polynomial.hermite_e.hermegauss(40)


def best_normal(mean, sd):
    """P(largest) of independent normals, (R, K), by Gauss-Hermite in each arm's own variable, normalised."""
    K = mean.shape[1]
    out = np.empty(mean.shape)
    for k in range(K):
        x = mean[:, k, None] + sd[:, k, None] * _X
        below = np.ones(x.shape)
        for j in range(K):
            if j != k:
                below *= special.ndtr((x - mean[:, j, None]) / sd[:, j, None])
        out[:, k] = below @ _W
    return out / out.sum(1, keepdims=True)


def thompson_normal(means, T, R, seed, B=100, floor=(1 / 3, 0.7), noise="uniform"):
    """Gaussian Thompson sampling (prior N(0, 1), known variance) in batches of B, floored by a mixture at f t^-d."""
    rng = generator(seed, f"normal {means} {T} {B}")
    K, means, variance = len(means), np.array(means), 1 / 3 if noise == "uniform" else 1.0
    n, total = np.zeros((R, K)), np.zeros((R, K))
    arm, outcome, shares = np.empty((R, T), np.int64), np.empty((R, T)), np.empty((R, T, K))
    for t in range(0, T, B):
        p = np.full((R, K), 1 / K)
        if t:
            p = best_normal(total / (n + variance), np.sqrt(variance / (n + variance)))
            least = floor[0] * (t + 1) ** -floor[1]
            p = least + (1 - K * least) * p
        edges = np.cumsum(p, 1)[:, :-1]
        now = (rng.random((R, B))[..., None] >= edges[:, None, :]).sum(-1)
        e = rng.uniform(-1, 1, (R, B)) if noise == "uniform" else rng.standard_normal((R, B))
        arm[:, t : t + B], outcome[:, t : t + B] = now, means[now] + e
        shares[:, t : t + B] = p[:, None, :]
        for k in range(K):
            n[:, k] += (now == k).sum(1)
            total[:, k] += np.where(now == k, outcome[:, t : t + B], 0.0).sum(1)
    return Study(arm, outcome, shares, np.broadcast_to(np.arange(T) // B, (R, T)))


def two_stage(T, R, e, seed, mean=0.0, fixed=True):
    """Half of T uniform, then the leader of two N(mean, 1) arms has probability e (`fixed`: exactly e T / 2 rows)."""
    rng = generator(seed, f"two stages {T} {e} {fixed}")
    half = T // 2
    y = mean + rng.standard_normal((R, T))
    if fixed:
        first = np.broadcast_to(np.arange(half) % 2, (R, half))
        spot = np.broadcast_to(np.arange(half) >= round(e * half), (R, half)).astype(int)
    else:
        first, spot = rng.integers(0, 2, (R, half)), (rng.random((R, half)) >= e).astype(int)
    ones = first.sum(1)
    mean1 = (y[:, :half] * first).sum(1) / np.maximum(ones, 1)
    mean0 = (y[:, :half] * (1 - first)).sum(1) / np.maximum(half - ones, 1)
    leader = (mean1 > mean0).astype(int)[:, None]
    arm = np.concatenate([first, np.where(spot == 0, leader, 1 - leader)], axis=1)
    shares = np.full((R, T, 2), 0.5)
    shares[:, half:, 1] = np.where(leader == 1, e, 1 - e)
    shares[:, half:, 0] = 1 - shares[:, half:, 1]
    return Study(arm, y, shares, np.broadcast_to((np.arange(T) >= half).astype(int), (R, T)))


def thompson_beta(rates, T, R, seed, batches=10, floor=0.02, clip=False):
    """Bernoulli Thompson sampling in equal batches, Beta(1, 1), shares floored by a mixture (`clip`: two arms only)."""
    from justai_sim.bandit.best import best_beta

    rng = generator(seed, f"beta {rates} {T} {batches}")
    K, rates, B = len(rates), np.array(rates), T // batches
    n, y, live = np.zeros((R, K)), np.zeros((R, K)), np.ones((R, K), bool)
    arm, outcome, shares = np.empty((R, T), np.int64), np.empty((R, T)), np.empty((R, T, K))
    for t in range(0, T, B):
        p = best_beta(1 + y, 1 + n - y, live)
        p = np.clip(p, floor, 1 - floor) if clip else floor + (1 - K * floor) * p
        now = (rng.random((R, B))[..., None] >= np.cumsum(p, 1)[:, None, :-1]).sum(-1)
        got = (rng.random((R, B)) < rates[now]).astype(float)
        arm[:, t : t + B], outcome[:, t : t + B], shares[:, t : t + B] = now, got, p[:, None, :]
        for k in range(K):
            n[:, k] += (now == k).sum(1)
            y[:, k] += np.where(now == k, got, 0.0).sum(1)
    return Study(arm, outcome, shares, np.broadcast_to(np.arange(T) // B, (R, T)))


def sticky(R, seed, batches=12, size=20, effect=1.0, learn=True):
    """Two arms of equal mean 1; every batch brings `size` new users and the last batch's once more, who keep their
    arm and its propensity (Thompson's, or .3). Users differ by N(0, effect^2), rows by N(0, 1). Returns the study and
    user (R, T)."""
    rng = generator(seed, f"sticky {batches} {size} {effect}")
    arms, outcomes, shares, users = [], [], [], []
    n, total = np.zeros((R, 2)), np.zeros((R, 2))
    old = None
    for b in range(batches):
        p1 = special.ndtr(np.diff(total / (n + 1), axis=1)[:, 0] / np.sqrt((1 / (n + 1)).sum(1)))
        p1 = 0.1 + 0.8 * p1 if learn else np.full(R, 0.3)
        new = (
            (rng.random((R, size)) < p1[:, None]).astype(int),
            effect * rng.standard_normal((R, size)),
            np.repeat(p1[:, None], size, 1),
            np.broadcast_to(np.arange(size) + b * size, (R, size)),
        )
        for arm, mood, p, user in [new] if old is None else [new, old]:
            y = 1 + mood + rng.standard_normal((R, size))
            arms.append(arm), outcomes.append(y), users.append(user)
            shares.append(np.stack([1 - p, p], -1))
            for k in (0, 1):
                n[:, k] += (arm == k).sum(1)
                total[:, k] += np.where(arm == k, y, 0.0).sum(1)
        old = new
    return Study(np.hstack(arms), np.hstack(outcomes), np.concatenate(shares, 1)), np.hstack(users)

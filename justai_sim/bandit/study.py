"""Policies on Bernoulli arms that answer at once or in batches: exact textbook settings, many replications at a time.

The production policies' own `update`, `allocate` and `draw`, without sends, windows and attribution. This is where
their regret and the bias of what they leave behind are held against values that are known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from justai_sim import stats
from justai_sim.bandit.choose import choose
from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.tables import F8


@dataclass(frozen=True)
class Study:
    """What R replications of T decisions left: arrays (R, K) of decisions `n`, successes `y` and the chances to be the
    best that the policy then saw (`shares`); rates (K,), or (R, K) where every replication has its own."""

    rates: F8
    n: F8
    y: F8
    shares: F8

    @property
    def regret(self) -> F8:
        """Successes lost against always playing the best arm, in expectation given the choices: (R,)."""
        return np.asarray((self.n * (self.rates.max(-1, keepdims=True) - self.rates)).sum(1))

    def calibration(self, bins: int = 10) -> tuple[F8, F8, F8]:
        """Of every arm and replication, by what was said of it: the mean chance said, how often it was the best, and
        how many; bins of equal width, empty ones left out."""
        right = (self.rates == self.rates.max(-1, keepdims=True)).astype(np.float64)
        said, right = self.shares.ravel(), np.broadcast_to(right, self.shares.shape).ravel()
        at = np.minimum((said * bins).astype(np.int64), bins - 1)
        n = np.bincount(at, minlength=bins)
        use = n > 0
        said, right = (np.bincount(at, x, bins)[use] / n[use] for x in (said, right))
        return said, right, n[use].astype(np.float64)

    def bias(self, arm: int) -> tuple[float, float]:
        """Mean of the sample mean less the rate over the replications that played the arm, and its standard error."""
        seen = self.n[:, arm] > 0
        error = self.y[seen, arm] / self.n[seen, arm] - self.rates[arm]
        return float(error.mean()), float(error.std(ddof=1) / np.sqrt(len(error)))

    def rejects(self, a: int = 0, b: int = 1) -> F8:
        """Whether a two-sided 5 % Wald test of equal rates rejects (unpooled variance; never without variance)."""
        n, y = np.maximum(self.n, 1), self.y
        p = y / n
        variance = p * (1 - p) / n
        se = np.sqrt(variance[:, a] + variance[:, b])
        able = (self.n[:, a] > 0) & (self.n[:, b] > 0) & (se > 0)
        return np.asarray(able & (np.abs(p[:, a] - p[:, b]) > stats.z_value(0.95) * np.where(able, se, 1)), np.float64)

    def covered(self, arm: int) -> F8:
        """Whether the 95 % Wald interval holds the rate, of the replications that played the arm; an interval
        without width does not."""
        seen = self.n[:, arm] > 0
        n, y = self.n[seen, arm], self.y[seen, arm]
        p = y / n
        half = stats.z_value(0.95) * np.sqrt(p * (1 - p) / n)
        return np.asarray((half > 0) & (np.abs(p - self.rates[arm]) <= half), np.float64)

    def picked(self) -> F8:
        """1 where the larger sample mean is the best arm's, ties count their part."""
        mean = np.where(self.n > 0, self.y / np.maximum(self.n, 1), -np.inf)
        top = mean == mean.max(1, keepdims=True)
        return np.asarray(top[:, int(self.rates.argmax())] / top.sum(1))


def study(
    spec: PolicySpec, rates: Sequence[float] | F8, decisions: int, replications: int, rng: np.random.Generator, *,
    batch: int = 1,
) -> Study:  # fmt: skip
    """Play `decisions` in batches: the policy learns after each. An exact sampler (`draw`) is used where the policy
    has one and no mixture is asked for, else its shares."""
    chosen, p = policy(spec.name), np.asarray(rates, np.float64)
    R, K = replications, p.shape[-1] + 1
    truth = np.broadcast_to(p, (R, K - 1))
    shape = Shape(R, 1, K, ("", *(f"v{i}" for i in range(1, K))))
    live = np.ones((R, K), bool)
    live[:, 0] = False
    state = chosen.init(spec, shape)
    plain = not (spec.epsilon or spec.floor or spec.top_two or spec.burn_in)
    n, y = np.zeros((R, K)), np.zeros((R, K))
    row = np.arange(R)
    done = 0
    while done < decisions:
        size = min(batch, decisions - done)
        add_n, add_y, add_ip = np.zeros((3, R, K))
        shares: F8 | None = None
        for _ in range(size):
            if chosen.draw is not None and plain:
                arm = chosen.draw(state, live[:, None, :], rng)[:, 0]
            else:
                if shares is None:
                    shares = chosen.allocate(state, Tally.zeros(shape), live, 0)
                arm, _ = choose(shares, row, np.zeros(R, np.int64), rng.random(R))
            hit = rng.random(R) < truth[row, arm - 1]
            add_n[row, arm] += 1
            add_y[row, arm] += hit
            if "reward_ip" in chosen.stats and shares is not None:
                add_ip[row, arm] += hit / shares[row, 0, arm]
        state = chosen.update(state, _cohort(add_n, add_y, add_ip))
        n, y, done = n + add_n, y + add_y, done + size
    last = chosen.allocate(state, Tally.zeros(shape), live, 0)
    return Study(p, n[:, 1:], y[:, 1:], last[:, 0, 1:])


def _cohort(n: F8, y: F8, ip: F8) -> Tally:
    """One cohort of counts (R, K)."""
    n, y, ip = (a[:, None, :, None] for a in (n, y, ip))
    return Tally(n, y, y, {"decided": n, "reward_ip": ip})


def retiring(
    decisions: int,
    replications: int,
    delay: int,
    rng: np.random.Generator,
    *,
    items: int = 10,
    retire: float = 1e-3,
    pending: Literal["boundary", "dropped"] = "boundary",
) -> F8:
    """Regret (R,) of Thompson sampling where items retire and feedback waits: Chapelle and Li 2011, Table 1.

    At each decision an item retires with chance `retire` and a new one takes its place; rates are Beta(4, 4). The
    policy hears of its successes every `delay` decisions. `pending` says what becomes of a swap in between:
    "boundary": the policy learns of it with the next feedback, of which it keeps what belongs to the new item;
    "dropped": it is told at once, and forgets both what it knew and what has not been heard yet.
    """
    chosen = policy("weighted_thompson")
    R, row = replications, np.arange(replications)
    state = chosen.init(PolicySpec(), Shape(R, 1, items + 1))
    live = np.ones((R, 1, items + 1), bool)
    live[..., 0] = False
    rates, regret = rng.beta(4, 4, (R, items + 1)), np.zeros(R)
    rates[:, 0] = 0
    for start in range(0, decisions, delay):
        n, y = np.zeros((R, items + 1)), np.zeros((R, items + 1))
        swapped = np.zeros((R, items + 1), bool)
        for _ in range(min(delay, decisions - start)):
            gone = np.flatnonzero(rng.random(R) < retire)
            if len(gone):
                item = rng.integers(1, items + 1, len(gone))
                rates[gone, item] = rng.beta(4, 4, len(gone))
                n[gone, item] = y[gone, item] = 0
                swapped[gone, item] = True
                if pending == "dropped":
                    state = chosen.reset(state, which=swapped)
                    swapped[:] = False
            arm = chosen.draw(state, live, rng)[:, 0] if chosen.draw is not None else row
            p = rates[row, arm]
            regret += rates.max(1) - p
            n[row, arm] += 1
            y[row, arm] += rng.random(R) < p
        if swapped.any():
            state = chosen.reset(state, which=swapped)
        state = chosen.update(state, _cohort(n, y, n))
    return regret

"""Policies on Bernoulli arms that answer at once or in batches: exact textbook settings, many replications at a time.

The production policies' own `update`, `allocate` and `draw`, without sends, windows and attribution. This is where
their regret and the bias of what they leave behind are held against values that are known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from justai_sim import stats
from justai_sim.bandit.choose import choose
from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.tables import F8


@dataclass(frozen=True)
class Study:
    """What R replications of T decisions left: arrays (R, K) of decisions `n` and successes `y`; rates (K,)."""

    rates: F8
    n: F8
    y: F8

    @property
    def regret(self) -> F8:
        """Successes lost against always playing the best arm, in expectation given the choices: (R,)."""
        return np.asarray(self.n @ (self.rates.max() - self.rates))

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
    spec: PolicySpec, rates: Sequence[float], decisions: int, replications: int, rng: np.random.Generator, *,
    batch: int = 1,
) -> Study:  # fmt: skip
    """Play `decisions` in batches: the policy learns after each. An exact sampler (`draw`) is used where the policy
    has one and no mixture is asked for, else its shares."""
    chosen, p = policy(spec.name), np.asarray(rates, np.float64)
    R, K = replications, len(p) + 1
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
            hit = rng.random(R) < p[arm - 1]
            add_n[row, arm] += 1
            add_y[row, arm] += hit
            if "reward_ip" in chosen.stats and shares is not None:
                add_ip[row, arm] += hit / shares[row, 0, arm]
        state = chosen.update(state, _cohort(add_n, add_y, add_ip))
        n, y, done = n + add_n, y + add_y, done + size
    return Study(p, n[:, 1:], y[:, 1:])


def _cohort(n: F8, y: F8, ip: F8) -> Tally:
    """One cohort of counts (R, K)."""
    n, y, ip = (a[:, None, :, None] for a in (n, y, ip))
    return Tally(n, y, y, {"decided": n, "reward_ip": ip})

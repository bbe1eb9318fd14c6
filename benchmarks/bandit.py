"""Thompson sampling beside the libraries that people use: the same arms, decisions with their propensities.

python benchmarks/bandit.py            the table with ratios, medians of 5
pip install mabwiser river vowpalwabbit    first; what is not installed is left out

Peers play one replication at a time, except the plain NumPy sampler, which is vectorised over replications as ours is.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: threads would only cost the peer time

import numpy as np

from justai_sim.bandit.choose import choose, final_shares
from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import Shape, Tally

RUNS, ARMS, R, BATCH = 5, 10, 1000, 1000
RATES = np.linspace(0.02, 0.04, ARMS)


def seconds(run: Callable[[], int]) -> float:
    """Median seconds a decision; `run` returns how many it made."""
    run()
    out = []
    for _ in range(RUNS):
        t = time.perf_counter()
        n = run()
        out.append((time.perf_counter() - t) / n)
    return statistics.median(out)


class Ours:
    """The production policy, R replications at a time."""

    def __init__(self, name: str = "weighted_thompson") -> None:
        self.policy, self.rng = policy(name), np.random.default_rng(1)
        self.shape = Shape(R, 1, ARMS + 1)
        self.state = self.policy.init(PolicySpec(name=name), self.shape)
        self.live = np.ones((R, ARMS + 1), bool)
        self.live[:, 0] = False
        self.row = np.arange(R)

    def learn(self, n: Any, y: Any) -> None:
        n, y = n[:, None, :, None], y[:, None, :, None]
        self.state = self.policy.update(self.state, Tally(n, y, y))

    def batches(self) -> int:
        """One batch of BATCH decisions each, from computed propensities."""
        shares = self.policy.allocate(self.state, Tally.zeros(self.shape), self.live, 0)
        shares = final_shares(shares, self.live, 0.0, 0.0, 0.0)
        rep = np.repeat(self.row, BATCH)
        arm, _ = choose(shares, rep, np.zeros(len(rep), np.int64), self.rng.random(len(rep)))
        hit = self.rng.random(len(rep)) < RATES[arm - 1]
        at, size = rep * (ARMS + 1) + arm, R * (ARMS + 1)
        self.learn(*(np.bincount(at, w, size).reshape(R, -1) for w in (np.ones(len(rep)), hit)))
        return len(rep)

    def single(self, steps: int = 200) -> int:
        """A decision each, then an update, `steps` times."""
        assert self.policy.draw is not None
        for _ in range(steps):
            arm = self.policy.draw(self.state, self.live[:, None, :], self.rng)[:, 0]
            n, y = np.zeros((R, ARMS + 1)), np.zeros((R, ARMS + 1))
            n[self.row, arm] = 1
            y[self.row, arm] = self.rng.random(R) < RATES[arm - 1]
            self.learn(n, y)
        return R * steps


class Sampler:
    """What one writes oneself: Beta draws of all replications at once."""

    def __init__(self) -> None:
        self.a, self.b, self.rng, self.row = np.ones((R, ARMS)), np.ones((R, ARMS)), np.random.default_rng(1), None

    def single(self, steps: int = 200) -> int:
        row = np.arange(R)
        for _ in range(steps):
            arm = self.rng.beta(self.a, self.b).argmax(1)
            hit = self.rng.random(R) < RATES[arm]
            self.a[row, arm] += hit
            self.b[row, arm] += ~hit
        return R * steps

    def batches(self) -> int:
        n, y = np.zeros((R, ARMS)), np.zeros((R, ARMS))
        row = np.arange(R)
        for _ in range(BATCH):
            arm = self.rng.beta(self.a, self.b).argmax(1)
            n[row, arm] += 1
            y[row, arm] += self.rng.random(R) < RATES[arm]
        self.a += y
        self.b += n - y
        return R * BATCH


def mabwiser() -> dict[str, Callable[[], int]]:
    from mabwiser.mab import MAB, LearningPolicy

    rng = np.random.default_rng(1)
    arms = list(range(ARMS))
    mab = MAB(arms, LearningPolicy.ThompsonSampling(), seed=1)
    mab.fit(arms * 2, [1] * ARMS + [0] * ARMS)

    def single(steps: int = 300) -> int:
        for _ in range(steps):
            arm = mab.predict()
            mab.partial_fit([arm], [int(rng.random() < RATES[arm])])
        return steps

    def batches() -> int:
        chosen = [mab.predict() for _ in range(BATCH)]
        mab.partial_fit(chosen, (rng.random(BATCH) < RATES[chosen]).astype(int))
        return BATCH

    return {"single": single, "batches": batches}


def river() -> dict[str, Callable[[], int]]:
    from river import bandit, proba

    rng = np.random.default_rng(1)
    arms = list(range(ARMS))
    found = bandit.ThompsonSampling(reward_obj=proba.Beta(), seed=1)

    def single(steps: int = 2000) -> int:
        for _ in range(steps):
            arm = found.pull(arms)
            found.update(arm, bool(rng.random() < RATES[arm]))
        return steps

    return {"single": single}


def vowpal() -> dict[str, Callable[[], int]]:
    import vowpalwabbit as vw

    rng = np.random.default_rng(1)
    model = vw.Workspace("--cb_explore 10 --bag 10 --quiet")

    def single(steps: int = 2000) -> int:
        for _ in range(steps):
            p = np.array(model.predict("| a"))
            arm = int(rng.choice(ARMS, p=p / p.sum()))
            cost = -int(rng.random() < RATES[arm])
            model.learn(f"{arm + 1}:{cost}:{p[arm]} | a")
        return steps

    return {"single": single}


def linear() -> list[tuple[str, float]]:
    """50 features, 20 arms: seconds a decision. BATCH rows of 50 contexts are learnt, then BATCH requests decided; ours
    with the propensities of all arms, which the peer does not give. Both go on learning; 20 batches a run."""
    C, K, many, rng = 50, 20, 20, np.random.default_rng(1)
    p = policy("linear_thompson")
    x = np.broadcast_to(rng.normal(size=(C, 1, C)), (C, K + 1, C)).copy()
    shape = Shape(1, C, K + 1, features=x)
    live = np.ones((1, K + 1), bool)
    drawn = [[rng.integers(0, top, BATCH) for top in (C, K, 2)] for _ in range(many)]
    size, zero = C * (K + 1), np.zeros(BATCH, np.int64)
    state = p.init(PolicySpec(name="linear_thompson"), shape)

    def ours() -> int:
        nonlocal state
        for context, arm, reward in drawn:
            at = context * (K + 1) + arm + 1
            n, y = (np.bincount(at, w, size).reshape(1, C, K + 1, 1) for w in (np.ones(BATCH), reward))
            state = p.update(state, Tally(n, y, y))
            shares = p.allocate(state, Tally.zeros(shape), live, 0)
            choose(final_shares(shares, live, 0.0, 0.0, 0.0), zero, context, rng.random(BATCH))
        return many * BATCH

    out = [("justai_sim, propensities computed", seconds(ours))]
    try:
        from mabwiser.mab import MAB, LearningPolicy
    except ImportError:
        return out
    mab = MAB(list(range(K)), LearningPolicy.LinTS(alpha=1.0), seed=1)
    mab.fit(drawn[0][1], drawn[0][2], x[drawn[0][0], 0])

    def theirs() -> int:
        for context, arm, reward in drawn:
            mab.partial_fit(arm, reward, x[context, 0])
            mab.predict(x[context, 0])
        return many * BATCH

    return [*out, ("MABWiser", seconds(theirs))]


def main() -> None:
    ours, sampler = Ours(), Sampler()
    found: dict[str, dict[str, float]] = {
        "single": {"justai_sim draw": seconds(ours.single), "NumPy sampler": seconds(sampler.single)},
        "batches": {"justai_sim computed": seconds(ours.batches), "NumPy sampler": seconds(sampler.batches)},
    }
    for name, peer in (("MABWiser", mabwiser), ("River", river), ("VW bag", vowpal)):
        try:
            runs = peer()
        except ImportError:
            print(f"{name} is not installed")
            continue
        for kind, run in runs.items():
            found[kind][name] = seconds(run)
    for kind, title in (("single", "one decision an update"), ("batches", f"batches of {BATCH:,}")):
        first = next(iter(found[kind].values()))
        print(f"\n| Thompson, {ARMS} arms, {title} | M decisions/s | ours is faster by |\n|---|---|---|")
        for name, s in found[kind].items():
            print(f"| {name} | {1e-6 / s:.3f} | {s / first:.2f}x |")
    table = linear()
    print("\n| LinTS, 50 features, 20 arms, batches of 1,000 | ms a batch | ours is faster by |\n|---|---|---|")
    for name, s in table:
        print(f"| {name} | {1e3 * BATCH * s:.2f} | {s / table[0][1]:.1f}x |")
    state = policy("weighted_thompson").init(PolicySpec(), Shape(200, 1, ARMS + 1))
    rng = np.random.default_rng(2)
    state += {k: rng.integers(*r, (200, 1, ARMS + 1)) * 1.0 for k, r in (("n", (500, 3000)), ("y", (5, 60)))}
    live = np.ones((200, ARMS + 1), bool)
    s = seconds(lambda: policy("weighted_thompson").allocate(state, Tally.zeros(state.shape), live, 0).size and 1)
    print(f"\nShares of 200 replications x {ARMS} arms: {1e3 * s:.2f} ms")


if __name__ == "__main__":
    main()

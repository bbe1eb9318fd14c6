"""What each stopping rule ships by mistake when it is looked at every day, and what it finds.

python benchmarks/stopping.py [replications]

Worlds without delays: a day's sends are split at random by the shares, and the counts are what is known that night. No
rule changes the traffic before it has decided, so all of them face the same worlds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

from justai_sim.bandit.best import best_beta
from justai_sim.bandit.lift import smallest_lift
from justai_sim.bandit.stopping import STOPS, Course, Look, Stop, follow, stop
from justai_sim.streams import generator

Counts = np.ndarray


def looks(
    rates: list[float], daily: int, days: int, R: int, shares: list[float] | None, control: float = 0.0, seed: int = 1
) -> Iterator[Look]:
    """Daily looks at R worlds. `shares` of the arms; None: by P(best), learnt daily, of all arms or, with a `control`
    share, of the treatment arms."""
    rng = generator(seed, f"stopping {rates} {shares} {control}")
    K = len(rates)
    n, y, live = np.zeros((R, K)), np.zeros((R, K)), np.ones((R, K), bool)
    for day in range(1, days + 1):
        p = np.tile(np.array(shares if shares is not None else [0.0] * K), (R, 1))
        if shares is None:
            mask = live.copy()
            mask[:, 0] = control == 0
            p = (1 - control) * best_beta(1 + y, 1 + n - y, mask)
            p[:, 0] += control
        sent = rng.multinomial(daily, p / p.sum(1, keepdims=True))
        n, y = n + sent, y + rng.binomial(sent, np.array(rates))
        yield Look(n, y, y, live, day)


def rules() -> dict[str, Stop]:
    """Every rule with its defaults, and the variants of them that are worth a line."""
    return {name: stop(name) for name in STOPS} | {
        "significance, shared level": stop("significance", corrected=True),
        "always_valid, fixed split": stop("always_valid", adaptive=False),
    }


def row(rule: Stop, at: list[Look], best: int) -> tuple[float, float, float]:
    """Shares of worlds that shipped the best arm, and any other variant; and the mean day of those that decided."""
    got: Course = follow(rule, at)
    right = (got.ship == best).mean() if best else 0.0
    wrong = ((got.ship > 0) & (got.ship != best)).mean()
    decided = ~np.isnan(got.day)
    return float(right), float(wrong), float(got.day[decided].mean()) if decided.any() else float("nan")


DESIGNS: dict[str, tuple[list[float] | None, float, int]] = {
    "two arms, even": ([0.5, 0.5], 0.0, 1),
    "control 10 %, 3 variants, even": ([0.1, 0.3, 0.3, 0.3], 0.1, 3),
    "control 10 %, 3 variants, Thompson": (None, 0.1, 3),
}


def table(R: int, base: float = 0.02, daily: int = 500, days: int = 28) -> Iterator[str]:
    """A Markdown table: A/A, every variant 10 % worse, one variant 20 % and 100 % better; `days` daily looks."""
    yield "| design | rule | A/A ships | all 10 % worse: ships | +20 %: ships it | +100 %: ships it | mean day | sees |"
    yield "|---|---|---|---|---|---|---|---|"
    for design, (shares, control, m) in DESIGNS.items():
        worlds = {
            "A/A": [base] * (m + 1),
            "worse": [base] + [0.9 * base] * m,
            "20": [base] * m + [1.2 * base],
            "100": [base] * m + [2.0 * base],
        }
        seen = {k: list(looks(rates, daily, days, R, shares, control)) for k, rates in worlds.items()}
        split = shares or [control] + [(1 - control) / m] * m
        n0, n1 = daily * days * split[0], daily * days * split[1]
        for name, rule in rules().items():
            got = {k: row(rule, at, m if k in ("20", "100") else 0) for k, at in seen.items()}
            lift = smallest_lift(rule, base, n0, n1, variants=m)
            yield (
                f"| {design} | {name} | {got['A/A'][1]:.1%} | {got['worse'][1]:.1%} | {got['20'][0]:.1%} | "
                f"{got['100'][0]:.1%} | {got['100'][2]:.1f} | {lift:+.0%} |"
            )


def scott(R: int, days: int = 400) -> dict[str, float]:
    """Scott (2010): 4 % against 5 %, 100 visits a day by P(best), value remaining below 1 %, at least 14 days."""
    at, rates = list(looks([0.04, 0.05], 100, days, R, None)), np.array([0.04, 0.05])
    got = follow(stop("value_remaining"), at)
    done = np.flatnonzero(got.ship >= 0)
    when, arm = got.day[done].astype(int) - 1, got.ship[done]
    y, n = (np.stack([getattr(a, f) for a in at])[when, done, arm] for f in ("y", "n"))
    over = y / n - rates[arm]
    return {
        "decided": len(done) / R,
        "mean_days": float(got.day[done].mean()),
        "median_days": float(np.median(got.day[done])),
        "right_arm": float((arm == 1).mean()),
        "too_high": float(over.mean()),
        "too_high_se": float(over.std() / np.sqrt(len(done))),
        "days_se": float(got.day[done].std() / np.sqrt(len(done))),
    }


if __name__ == "__main__":
    R = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    start = time.perf_counter()
    for line in table(R):
        print(line, flush=True)
    print("\nScott 2010:", {k: round(v, 5) for k, v in scott(R).items()})
    print(f"{time.perf_counter() - start:.0f} s, {R:,} worlds a cell")

"""Off-policy estimators as plain loops, written from the papers' formulas and not from the package.

Open Bandit Pipeline's classes compute the same: ReplayMethod (uniform logs), InverseProbabilityWeighting,
SelfNormalizedInverseProbabilityWeighting, DirectMethod, DoublyRobust, SelfNormalizedDoublyRobust, SwitchDoublyRobust,
DoublyRobustWithShrinkage, and the tuning of the last two by `_estimate_mse_score` with the bias upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def weights(data: Any) -> list[float]:
    return [float(data.target[i][data.arm[i]]) / float(data.pscore[i]) for i in range(len(data.reward))]


def direct(data: Any) -> list[float]:
    out = []
    for pi, q in zip(data.target.tolist(), data.prediction.tolist(), strict=True):
        total = 0.0
        for p, value in zip(pi, q, strict=True):
            total += p * value
        out.append(total)
    return out


def residuals(data: Any) -> list[float]:
    return [float(data.reward[i]) - float(data.prediction[i][data.arm[i]]) for i in range(len(data.reward))]


def mean(x: Sequence[float]) -> float:
    return math.fsum(x) / len(x)


def replay(data: Any) -> float:
    """Mean reward where a deterministic target chose as the log did."""
    matched = [float(r) for r, pi, a in zip(data.reward, data.target, data.arm, strict=True) if pi[a] == 1]
    return mean(matched)


def ips(data: Any) -> float:
    return mean([w * float(r) for w, r in zip(weights(data), data.reward, strict=True)])


def snips(data: Any) -> float:
    w = weights(data)
    return mean([x / mean(w) * float(r) for x, r in zip(w, data.reward, strict=True)])


def dm(data: Any) -> float:
    return mean(direct(data))


def mended(data: Any, w: Sequence[float]) -> list[float]:
    return [b + x * e for b, x, e in zip(direct(data), w, residuals(data), strict=True)]


def dr(data: Any) -> float:
    return mean(mended(data, weights(data)))


def sndr(data: Any) -> float:
    w = weights(data)
    middle = mean(w)
    return mean(mended(data, [x / middle for x in w]))


def switched(w: float, tau: float) -> float:
    return w if w <= tau else 0.0


def shrunk(w: float, lam: float) -> float:
    return w if math.isinf(lam) else lam * w / (w * w + lam)


def switch_dr(data: Any, tau: float) -> float:
    return mean(mended(data, [switched(w, tau) for w in weights(data)]))


def dros(data: Any, lam: float) -> float:
    return mean(mended(data, [shrunk(w, lam) for w in weights(data)]))


def mse_score(data: Any, change: Callable[[float, float], float], at: float, delta: float = 0.05) -> float:
    w = weights(data)
    n, kept = len(w), [change(x, at) for x in w]
    rounds = mended(data, kept)
    middle = mean(rounds)
    variance = mean([(x - middle) ** 2 for x in rounds]) / n
    bias = abs(mean([(a - b) * e for a, b, e in zip(w, kept, residuals(data), strict=True)]))
    bias += math.sqrt(2 * mean([x * x for x in w]) * math.log(2 / delta) / n)
    bias += 2 * max(w) * math.log(2 / delta) / (3 * n)
    return variance + bias**2


def adaptive(data: Any) -> float:
    """Zhan et al. (2021): each decision counts its context's part x h / (sum of h in the context)."""
    scores, h = mended(data, weights(data)), []
    for pi, e in zip(data.target.tolist(), data.behaviour.tolist(), strict=True):
        h.append(1 / math.sqrt(math.fsum(p * p / q for p, q in zip(pi, e, strict=True))))
    n, out = len(h), 0.0
    for x in sorted(set(data.context.tolist())):
        rows = [i for i in range(n) if data.context[i] == x]
        out += len(rows) / n * math.fsum(h[i] * scores[i] for i in rows) / math.fsum(h[i] for i in rows)
    return out


def shrunken_means(data: Any, context: Sequence[int], fold: Sequence[int], pull: float) -> list[list[float]]:
    """The reward model: each decision from the users of other folds."""
    n, K = data.target.shape
    out = []
    for i in range(n):
        others = [j for j in range(n) if fold[j] != fold[i]]
        middle = mean([float(data.reward[j]) for j in others]) if others else 0.0
        row = []
        for k in range(K):
            of_arm = [float(data.reward[j]) for j in others if data.arm[j] == k]
            arm = (math.fsum(of_arm) + pull * middle) / (len(of_arm) + pull)
            here = [float(data.reward[j]) for j in others if data.arm[j] == k and context[j] == context[i]]
            row.append((math.fsum(here) + pull * arm) / (len(here) + pull))
        out.append(row)
    return out

"""What another policy would have earned on the decisions of a log: estimators on plain arrays.

Notation: n decisions, K arms; w = target(a) / pscore, the importance weight of the arm that was chosen; q the reward
model. All but `dm` need the probability with which the chosen arm was drawn. Values are means per decision, in the
unit of the reward; intervals are 95 % and over users, whose decisions may depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np

from justai_sim.errors import UsageError, nearest
from justai_sim.stats import influence_interval
from justai_sim.tables import B1, F8, I8


@dataclass(frozen=True)
class Choices:
    """Decisions that were drawn at random, and the policy to be valued on them.

    reward (n,); arm (n,) in 0..K-1; pscore (n,) in (0, 1], the probability with which that arm was drawn; target
    (n, K), rows sum to 1; user (n,) any codes. For the estimators that need them: prediction (n, K), the reward model;
    leverage (n,), n times what each reward moves the direct estimate by (`reward_model.fit`); behaviour (n, K), the
    probabilities of all arms; context (n,) codes from 0; draw (n,) uniforms in [0, 1) for `rejection`. Raises
    ValueError for anything else.
    """

    reward: F8
    arm: I8
    pscore: F8
    target: F8
    user: I8
    prediction: F8 | None = None
    leverage: F8 | None = None
    behaviour: F8 | None = None
    context: I8 | None = None
    draw: F8 | None = None

    def __post_init__(self) -> None:
        n, shape = len(self.reward), self.target.shape
        if n == 0 or len(shape) != 2 or shape[0] != n:
            raise ValueError(f"{n} rewards, target of shape {shape}; expected (n, K) with n > 0")
        for name in ("arm", "pscore", "user", "leverage", "context", "draw", "prediction", "behaviour"):
            a, wanted = getattr(self, name), shape if name in ("prediction", "behaviour") else (n,)
            if a is not None and a.shape != wanted:
                raise ValueError(f"{name} has shape {a.shape}; expected {wanted}")
        if not (np.isfinite(self.reward).all() and self.arm.min() >= 0 and self.arm.max() < shape[1]):
            raise ValueError(f"rewards must be finite and arms lie in 0..{shape[1] - 1}")
        if not ((self.pscore > 0) & (self.pscore <= 1)).all():
            raise ValueError("pscore must be above 0 and at most 1")
        if not ((self.target >= 0).all() and (np.abs(self.target.sum(1) - 1) < 1e-9).all()):
            raise ValueError("target must be at least 0 and its rows must sum to 1")

    @cached_property
    def weight(self) -> F8:
        """w (n,)."""
        return self.of_arm(self.target) / self.pscore

    @cached_property
    def cluster(self) -> I8:
        """user (n,) as 0..users-1."""
        return np.unique(self.user, return_inverse=True)[1].ravel()

    @property
    def users(self) -> int:
        return int(self.cluster.max()) + 1

    @cached_property
    def direct(self) -> F8:
        """What the model expects of the target in each decision, sum_k target q, (n,)."""
        return np.asarray((self.target * _given(self.prediction, "prediction")).sum(1))

    @cached_property
    def residual(self) -> F8:
        """reward - q of the arm chosen, (n,)."""
        return self.reward - self.of_arm(_given(self.prediction, "prediction"))

    def of_arm(self, table: F8) -> F8:
        """The column of the arm chosen, (n, K) -> (n,)."""
        return table[np.arange(len(self.arm)), self.arm]

    def take(self, rows: I8 | B1) -> Choices:
        """Some of the decisions."""
        cut = {f.name: v[rows] for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(self, **cut)


@dataclass(frozen=True)
class Estimate:
    """A value per decision with its standard error and 95 % interval, both over users.

    diagnostics: what the estimator chose or found (`tau`, `lambda`, `bias`, `accepted`). influence (n,): what each
    decision moves the value by; it sums to 0. words: the method in half a sentence.
    """

    value: float
    se: float
    low: float
    high: float
    n: int
    diagnostics: Mapping[str, float]
    method: str
    words: str
    influence: F8 = field(repr=False, compare=False)


def clustered(
    c: Choices, method: str, value: float, influence: F8, wider: float = 0.0, **diagnostics: float
) -> Estimate:  # fmt: skip
    """An estimate from its influences; `wider`, what it may be off by besides, widens the interval on both sides."""
    by_user: F8 = np.bincount(c.cluster, influence, c.users).astype(np.float64)
    low, high = influence_interval(value, by_user, c.users)
    se = math.sqrt(float((by_user * by_user).sum()) * c.users / (c.users - 1)) if c.users > 1 else math.nan
    words = WORDS[method]
    return Estimate(value, se, low - wider, high + wider, len(c.reward), diagnostics, method, words, influence)


def ips(c: Choices) -> Estimate:
    """mean(w r): unbiased where every arm that the target uses could be drawn (Horvitz & Thompson, 1952)."""
    score = c.weight * c.reward
    return clustered(c, "ips", float(score.mean()), _centred(score))


def snips(c: Choices) -> Estimate:
    """sum(w r) / sum(w) (Swaminathan & Joachims, 2015). NaN where no decision has a weight."""
    total = float(c.weight.sum()) or math.nan
    value = float(c.weight @ c.reward) / total
    return clustered(c, "snips", value, c.weight * (c.reward - value) / total)


def dm(c: Choices) -> Estimate:
    """mean(sum_k target q): the reward model alone (Beygelzimer & Langford, 2009).

    Its error is that of the model's means, through `leverage`; without it there is none (NaN).
    """
    value = float(c.direct.mean())
    leverage = np.full(len(c.reward), np.nan) if c.leverage is None else c.leverage
    return clustered(c, "dm", value, _centred(c.direct) + leverage * c.residual / len(c.reward))


def dr(c: Choices) -> Estimate:
    """mean(sum_k target q + w (r - q)): right if the propensities are, whatever the model (Dudik et al., 2011)."""
    score = c.direct + c.weight * c.residual
    return clustered(c, "dr", float(score.mean()), _centred(score))


def sndr(c: Choices) -> Estimate:
    """`dr` with weights that are made to average 1 (Thomas & Brunskill, 2016; Kallus & Uehara, 2019)."""
    total = float(c.weight.sum()) or math.nan
    mended = float(c.weight @ c.residual) / total
    influence = _centred(c.direct) + c.weight * (c.residual - mended) / total
    return clustered(c, "sndr", float(c.direct.mean()) + mended, influence)


def switch_weight(weight: F8, tau: float) -> F8:
    """w where it is at most `tau`, else 0."""
    return np.where(weight <= tau, weight, 0.0)


def shrunk_weight(weight: F8, lam: float) -> F8:
    """lambda w / (w^2 + lambda): small weights are kept, large ones shrunk."""
    return weight if math.isinf(lam) else lam * weight / (weight**2 + lam) if lam > 0 else np.zeros(len(weight))


def switch_dr(c: Choices, tau: float | None = None) -> Estimate:
    """`dr`, and the model alone where w > tau (Wang, Agarwal & Dudik, 2017). Without `tau` it is tuned."""
    return _shrunk(c, "switch-dr", "tau", tau, switch_weight, taus)


def dros(c: Choices, lam: float | None = None) -> Estimate:
    """`dr` with weights lambda w / (w^2 + lambda), optimistic shrinkage (Su et al., 2020). Without `lam` tuned."""
    return _shrunk(c, "dros", "lambda", lam, shrunk_weight, lambdas)


def _shrunk(
    c: Choices, method: str, name: str, given: float | None, shrink: Callable[[F8, float], F8],
    candidates: Callable[[F8], F8],
) -> Estimate:  # fmt: skip
    chosen = tuned(c, shrink, candidates(c.weight)) if given is None else given
    kept = shrink(c.weight, chosen)
    score, whole = c.direct + kept * c.residual, c.direct + c.weight * c.residual
    bias = abs(float((whole - score).mean()))
    # Tuning looks for a bias that cancels, where the value is that of `dr`: so is its error, and not the smaller one
    # of the shrunken terms (intervals from those held the truth in 55 % of simulated logs with thin overlap).
    widest = max(_centred(score), _centred(whole), key=lambda x: float((np.bincount(c.cluster, x) ** 2).sum()))
    return clustered(c, method, float(score.mean()), widest, bias, **{name: chosen, "bias": bias})


def taus(weight: F8) -> F8:
    """Candidates for `switch_dr`: 30 between the 5th and 95th percentile of the weights above 0, and no switch."""
    low, high = _spread(weight)
    return np.append(np.geomspace(low, high, 30), np.inf)


def lambdas(weight: F8) -> F8:
    """Candidates for `dros`: 30 from a hundredth of the 5th percentile squared to a hundred times the 95th percentile
    squared (section 5 of Su et al., 2020), and no shrinkage."""
    low, high = _spread(weight)
    return np.append(np.geomspace(0.01 * low**2, 100 * high**2, 30), np.inf)


def _spread(weight: F8) -> tuple[float, float]:
    low, high = np.quantile(weight[weight > 0], (0.05, 0.95)) if (weight > 0).any() else (1.0, 1.0)
    return float(low), float(high)


def tuned(c: Choices, shrink: Callable[[F8, float], F8], candidates: F8) -> float:
    """The candidate with the least bound of the mean squared error; of equal ones the first."""
    return float(candidates[int(np.argmin([mse_bound(c, shrink(c.weight, x)) for x in candidates.tolist()]))])


def mse_bound(c: Choices, kept: F8, delta: float = 0.05) -> float:
    """Variance and squared bias bound of `dr` with weights `kept` (n,) in place of w (Su et al., 2020, section 5).

    The bias is |mean((w - kept)(r - q))| plus a Bernstein bound at 1 - delta, as Open Bandit Pipeline writes it:
    sqrt(2 mean(w^2) log(2 / delta) / n) + 2 max(w) log(2 / delta) / (3 n). That bound is for residuals of at most 1;
    where they are larger (money) everything is measured in units of the largest, so that the choice has no unit.
    """
    n, w, span = len(c.reward), c.weight, max(float(np.abs(c.residual).max()), 1.0)
    log = math.log(2 / delta)
    bias = abs(float(((w - kept) * c.residual).mean())) / span
    bias += math.sqrt(2 * float((w**2).mean()) * log / n) + 2 * float(w.max()) * log / (3 * n)
    return float(np.var((c.direct + kept * c.residual) / span)) / n + bias**2


def adaptive(c: Choices) -> Estimate:
    """`dr` weighted by h = (sum_k target^2 / behaviour)^(-1/2), which keeps the variance of the terms level over time.

    For logs whose shares were learnt, where the plain mean is not normal (Hadad et al., 2021, for one arm; Zhan et
    al., 2021, for a policy: weights are compared within a context, so that each context keeps its part). It is
    asymptotically normal and not exactly unbiased; the value must not drift, for it is the h-weighted mean of the log.
    """
    behaviour = _given(c.behaviour, "behaviour")
    n, context = len(c.reward), np.zeros(len(c.reward), np.int64) if c.context is None else c.context
    terms = np.divide(c.target**2, behaviour, out=np.zeros(c.target.shape), where=behaviour > 0)
    h = 1 / np.sqrt(np.maximum(terms.sum(1), 1e-300))
    h *= (np.bincount(context) / np.maximum(np.bincount(context, h), 1e-300))[context] / n
    score = c.direct + c.weight * c.residual
    value, size = float(h @ score), np.maximum(np.bincount(context), 1)
    each = (np.bincount(context, h * score) * n / size)[context]
    return clustered(c, "adaptive", value, h * (score - each) + (each - value) / n)


def rejection(c: Choices) -> Estimate:
    """The mean reward of decisions kept with probability w / max(w) (Li et al., 2011, for uniform logs, where a
    single variant keeps exactly its own sends; von Neumann's rejection otherwise)."""
    kept = _given(c.draw, "draw") * float(c.weight.max()) < c.weight
    n = int(kept.sum())
    value = float(c.reward[kept].mean()) if n else math.nan
    influence = np.where(kept, c.reward - value, 0.0) / max(n, 1)
    return clustered(c, "rejection", value, influence, accepted=float(n))


ESTIMATORS: dict[str, Callable[[Choices], Estimate]] = {
    "dr": dr, "ips": ips, "snips": snips, "dm": dm, "sndr": sndr, "switch-dr": switch_dr, "dros": dros,
    "adaptive": adaptive, "rejection": rejection,
}  # fmt: skip
WORDS = {
    "dr": "doubly robust", "ips": "inverse propensity", "snips": "inverse propensity, self-normalised",
    "dm": "reward model alone", "sndr": "doubly robust, self-normalised",
    "switch-dr": "doubly robust, the model alone where weights are large",
    "dros": "doubly robust with shrunk weights", "adaptive": "doubly robust, level variance over time",
    "rejection": "decisions kept as the policy would have drawn them",
}  # fmt: skip


def estimator(name: str) -> Callable[[Choices], Estimate]:
    """The estimator of that name.

    >>> estimator("snip")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: --estimator 'snip' is not known; did you mean 'snips'?
    """
    if name not in ESTIMATORS:
        raise UsageError(f"--estimator {name!r} is not known; {nearest(name, ESTIMATORS)}")
    return ESTIMATORS[name]


def _centred(score: F8) -> F8:
    return (score - score.mean()) / len(score)


def _given(a: F8 | None, name: str) -> F8:
    if a is None:
        raise ValueError(f"the estimator needs {name}")
    return a

"""What a policy is: pure functions on explicit state that return allocation shares; and its settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
import numpy as np

from justai_sim.bandit.tally import LOWER_IS_BETTER as LOWER_IS_BETTER
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, F8, I8

RATES = ("open_rate", "click_rate", "conversion_rate", "unsubscribe_rate")
METRICS = (*RATES, "revenue_per_send")
"""The key metrics a template can have; the first four are shares of sends, 0/1 for each send."""
Shelf = Literal["product", "sensible", "reference"]

RANGES: dict[str, tuple[float, float, str]] = {
    "epsilon": (0, 1, "a number from 0 to 1"),
    "floor": (0, 1, "a number from 0 to 1"),
    "top_two": (0, 1, "a number from 0 to 1"),
    "burn_in": (0, 1e9, "sends a variant, 0 or more"),
    "freeze_after": (0, 1e6, "refreshes, 0 or more"),
    "prior_alpha": (1e-3, 1e9, "a number from 0.001 to 1e9"),
    "prior_beta": (1e-3, 1e9, "a number from 0.001 to 1e9"),
    "prior_mean": (-1e9, 1e9, "a number from -1e9 to 1e9"),
    "prior_weight": (1e-6, 1e9, "sends that the prior is worth, from 1e-6 to 1e9"),
    "prior_sd": (1e-9, 1e9, "a number from 1e-9 to 1e9"),
    "ridge": (1e-6, 1e9, "a number from 1e-6 to 1e9"),
    "explore": (0, 1, "a number from 0 to 1"),
    "decay_sends": (0, 1e12, "sends, 0 or more"),
    "temperature": (1e-9, 1e9, "a number above 0"),
    "confidence": (0, 1e3, "a number from 0 to 1000"),
    "horizon": (0, 1e12, "sends, 0 or more"),
    "gamma": (0, 1, "a number from 0 to 1"),
    "switching": (0, 1, "a number from 0 to 1"),
    "reward_max": (1e-9, 1e12, "a number above 0"),
    "window": (1, 1e6, "refreshes, 1 or more"),
    "discount": (0, 1, "a number from 0 to 1"),
    "explore_sends": (1, 1e9, "sends a variant, 1 or more"),
}


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy's settings. The registry knows the names and which settings each reads; a Program refuses the others.

    For every policy: `burn_in` sends a variant at uniform random first, `freeze_after` refreshes learning ends,
    `warm_start` (variant: [sends, sum of outcomes]) is added to what a variant has, then the mixtures `epsilon` and
    `floor`, in this order; `floor` is the least share of each live arm, as a part of the treatment traffic. `top_two`
    is the chance to play the best other arm instead of the best, for policies whose shares are chances to be best.

    >>> PolicySpec().name
    'weighted_thompson'
    >>> PolicySpec(epsilon=1.5)
    Traceback (most recent call last):
    justai_sim.errors.UsageError: policy.epsilon is 1.5; expected a number from 0 to 1
    """

    name: str = "weighted_thompson"
    epsilon: float = 0.0
    floor: float = 0.0
    top_two: float = 0.0
    burn_in: float = 0.0
    freeze_after: int = 0
    warm_start: dict[str, tuple[float, float]] = {}
    prior_alpha: float = 1.0
    prior_beta: float = 1.0
    bias_correction: bool = False
    weights: dict[str, float] = {}
    prior_mean: float = 0.0
    prior_weight: float = 1.0
    prior_sd: float = 1.0
    ridge: float = 1.0
    shares: dict[str, float] = {}
    explore: float = 0.1
    decay_sends: float = 0.0
    temperature: float = 0.01
    confidence: float = 1.0
    horizon: float = 0.0
    gamma: float = 0.1
    switching: float = 0.001
    reward_max: float = 1.0
    window: int = 28
    discount: float = 0.95
    explore_sends: float = 1000.0

    def __post_init__(self) -> None:
        for name, (low, high, expected) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"policy.{name} is {value}; expected {expected}")
        for variant, share in self.shares.items():
            if not (math.isfinite(share) and share >= 0):
                raise UsageError(f"policy.shares[{variant!r}] is {share}; expected a weight of at least 0")
        if self.name == "fixed" and not sum(self.shares.values()) > 0:
            raise UsageError(
                f"policy.shares is {self.shares}; the policy 'fixed' expects a positive weight for a variant, "
                "e.g. shares = {b = 3, c = 1}"
            )
        for metric, weight in self.weights.items():
            if metric not in METRICS:
                raise UsageError(f"policy.weights names {metric!r}, no metric; {nearest(metric, METRICS)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(f"policy.weights[{metric!r}] is {weight}; expected a weight of at least 0")
        if self.weights and not sum(self.weights.values()) > 0:
            raise UsageError(f"policy.weights is {self.weights}; expected a positive weight for a metric")
        for variant, (n, y) in self.warm_start.items():
            if not (math.isfinite(n) and math.isfinite(y) and n > 0 and y >= 0):
                raise UsageError(f"policy.warm_start[{variant!r}] is {[n, y]}; expected [sends > 0, sum of outcomes]")


BURNT = "burnt_in"
"""The array of sends decided, which only `burn_in` reads."""
COMMON = ("name", "epsilon", "floor", "burn_in", "freeze_after", "warm_start")
"""Settings that every policy has."""


@dataclass(frozen=True)
class State:
    """What a policy remembers: arrays by name with leading axes (R, C, K), and how many cohorts it has learnt."""

    spec: PolicySpec
    shape: Shape
    arrays: dict[str, F8]
    cohorts: int = 0

    def __getitem__(self, name: str) -> F8:
        return self.arrays[name]

    def __add__(self, more: dict[str, F8]) -> State:
        """The state with more added to some arrays."""
        return replace(self, arrays=self.arrays | {k: self.arrays[k] + a for k, a in more.items()})

    @property
    def size(self) -> tuple[int, int, int]:
        return self.shape.R, self.shape.C, self.shape.K


Shares = Callable[[State, B1, int], F8]
"""From a state, the live treatment arms (R, 1, K) and the instant (microseconds): weights (R, C, K), any scale."""


@dataclass(frozen=True)
class Policy:
    """One policy, registered in `registry`. All methods are pure.

    shares: see `Shares`. stats: what is summed of a tally, and `money` besides where the metric is money. settings:
    the fields of the spec that it reads. metrics: the key metrics that it can learn. trials: it needs 0 <= y <= n.
    chances: its shares are chances to be the best. start: more arrays of the state. learn: how a cohort changes the
    state where sums do not tell (then the order of cohorts matters: `memory`). draw: an exact sampler of the same
    distribution, for studies that update at every decision: arms (R, C). contextual: it learns across segments by
    their features. deterministic: one arm gets all, or those that tie; nothing can be told of the others from what it
    logs. approximate: in which way the shares are not exact.
    """

    name: str
    shelf: Shelf
    said: str
    shares: Shares
    stats: tuple[str, ...] = ("n", "y")
    money: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    metrics: tuple[str, ...] = METRICS
    trials: bool = False
    chances: bool = False
    contextual: bool = False
    deterministic: bool = False
    start: Callable[[PolicySpec, Shape], dict[str, F8]] | None = None
    learn: Callable[[State, dict[str, F8]], State] | None = None
    draw: Callable[[State, B1, np.random.Generator], I8] | None = field(default=None, compare=False)
    approximate: str = ""

    @property
    def memory(self) -> bool:
        """Whether the order of cohorts, or when they were learnt, matters."""
        return self.learn is not None

    @property
    def _counts(self) -> bool:
        """Whether all that it knows of an arm are sums of sends and outcomes, so that more of them can be given."""
        return {"n", "y"} <= set(self.stats) <= {"n", "y", "decided", "y2"} and not (self.start or self.contextual)

    def needs(self, metric: str) -> tuple[str, ...]:
        """The statistics of a tally that it sums."""
        return self.stats if metric in RATES else (*self.stats, *self.money)

    def check(self, spec: PolicySpec, metric: str = "conversion_rate") -> None:
        """UsageError for settings that belong to other policies, and for a key metric that it cannot learn."""
        plain = PolicySpec(name="uniform")
        known = (*COMMON, *self.settings, *(("top_two",) if self.chances else ()))
        for f in PolicySpec.__struct_fields__:
            if f not in known and getattr(spec, f) != getattr(plain, f):
                raise UsageError(
                    f"policy.{f} is no setting of the policy {self.name!r}; it has: {', '.join(known[1:])}"
                )
        if spec.warm_start and not (self._counts and metric in RATES and not spec.weights):
            raise UsageError(
                f"policy.warm_start is for policies that learn one rate from sends and their sum; {self.name!r} "
                f"learns {'a weighted score' if spec.weights else 'more, or ' + metric}"
            )
        for variant, (n, y) in spec.warm_start.items():
            if y > n:
                raise UsageError(f"policy.warm_start[{variant!r}] is {[n, y]}; expected no more successes than sends")
        for m in (metric, *spec.weights):
            if m not in self.metrics:
                why = "is money, not 0 or 1 for each send" if m == METRICS[-1] else "is a rate"
                why = why if m in METRICS else "is unknown"
                raise UsageError(
                    f"policy {self.name!r} learns {', '.join(self.metrics)}; key metric {m!r} {why}; "
                    f"{nearest(m, self.metrics)}"
                )

    def init(self, spec: PolicySpec, shape: Shape) -> State:
        """The state before anything was learnt. Raises UsageError where spec and shape do not fit."""
        self.check(spec, shape.metric)
        arrays = {k: np.zeros((shape.R, shape.C, shape.K)) for k in self.needs(shape.metric)}
        if spec.burn_in:
            arrays[BURNT] = np.zeros((shape.R, shape.C, shape.K))
        for m in spec.weights:
            arrays |= {f"{k}:{m}": np.zeros((shape.R, shape.C, shape.K)) for k in ("n", "y", "y2")}
        state = State(spec, shape, arrays | (self.start(spec, shape) if self.start else {}))
        for variant, (n, y) in spec.warm_start.items():
            state = self.warmed(state, _arm(shape, variant), n, y)
        return state

    def update(self, state: State, cohort: Tally) -> State:
        """The state after a cohort that has become final (H = 1, or several in order). UsageError where a policy
        that needs trials gets more successes than trials."""
        if self.trials and state.shape.metric in RATES:
            _refuse_exposure(self.name, cohort)
        served = cohort.stat("decided").sum(3)
        stop = state.spec.freeze_after
        if stop:
            cohort = cohort.cohorts(0, max(stop - state.cohorts, 0))
        new = replace(state, cohorts=state.cohorts + cohort.n_cohorts)
        if state.spec.burn_in:
            new = new + {BURNT: served}
        found = {k: reward(cohort, k, state.shape.minimise) for k in self.needs(state.shape.metric)}
        for m in state.spec.weights:
            one = cohort if m == state.shape.metric else cohort.others.get(m)
            if one is None:
                raise ValueError(f"the tally holds no {m!r}, which policy.weights names")
            found |= {f"{k}:{m}": one.stat(k) for k in ("n", "y", "y2")}
        if self.learn is None:
            return new + {k: a.sum(3) for k, a in found.items()}
        for h in range(cohort.n_cohorts):
            new = self.learn(new, {k: a[..., h] for k, a in found.items()})
        return new

    def allocate(self, state: State, open_tally: Tally, live: B1, now: int) -> F8:
        """Shares (R, C, K) of the treatment traffic, given in addition the cohorts that are still open.

        Rows sum to 1 over the live treatment arms; where there is none, arm 0 has all. Column 0 of `live` (R, K) is
        ignored: the control's share is a mixture that `choose.final_shares` adds. `now` is in microseconds.
        """
        known = self.update(state, open_tally)
        shares = spread(self.shares(known, treatments(live)[:, None, :], now), live)
        spec = state.spec
        if spec.top_two:
            shares = spread(top_two(shares, spec.top_two, treatments(live)[:, None, :]), live)
        if spec.burn_in:
            # Over all segments where they share what they learn.
            had = known[BURNT].sum(1, keepdims=True) if self.contextual else known[BURNT]
            young = (treatments(live)[:, None, :] & (had < spec.burn_in)).any(-1, keepdims=True)
            shares = np.where(young, spread(np.ones(shares.shape), live), shares)
        return shares

    def warmed(self, state: State, arm: int, n: float, y: float) -> State:
        """The state as if an arm had had n more sends with outcomes that sum to y."""
        y = n - y if state.shape.minimise else y
        add = {"n": n, "y": y, "y2": y * y / n, "positive": min(n, y), "decided": n, BURNT: n}
        arrays = {k: a.copy() for k, a in state.arrays.items()}
        for k in set(arrays) & set(add):
            arrays[k][:, :, arm] += add[k]
        return replace(state, arrays=arrays)

    def reset(self, state: State, arm: int | None = None, which: B1 | None = None) -> State:
        """The state with one arm as new, or the arms `which` (R, K) of each replication."""
        fresh = self.init(state.spec, state.shape)
        if which is None:
            which = np.zeros((state.shape.R, state.shape.K), bool)
            which[:, arm] = True
        arrays = {}
        for k, a in state.arrays.items():
            new = which.reshape(which.shape[0], 1, which.shape[1], *[1] * (a.ndim - 3))
            arrays[k] = np.where(new, fresh[k], a)
        return replace(state, arrays=arrays)

    def with_arm(self, state: State, variant: str) -> State:
        """The state with one more arm, the last, of which nothing is known."""
        names = (*state.shape.variants, variant) if state.shape.variants else ()
        shape = replace(state.shape, K=state.shape.K + 1, variants=names)
        fresh = self.init(state.spec, shape)
        arrays = {k: a.copy() for k, a in fresh.arrays.items()}
        for k, a in arrays.items():
            a[:, :, : state.shape.K] = state[k]
        return replace(state, shape=shape, arrays=arrays)


def reward(cohort: Tally, name: str, minimise: bool) -> F8:
    """A statistic of the reward, (R, C, K, H): of the outcome, or of 1 less it where lower is better."""
    a = cohort.stat(name)
    if not minimise or name in ("n", "decided", "reward_ip"):
        return a
    if name == "y2":
        return cohort.n - 2 * cohort.y + a
    return cohort.n - a


def _arm(shape: Shape, variant: str) -> int:
    treated = shape.variants[1:]
    if variant not in treated:
        raise UsageError(f"policy.warm_start names {variant!r}, no variant; {nearest(variant, treated)}")
    return shape.variants.index(variant)


def _refuse_exposure(name: str, tally: Tally) -> None:
    bad = ~((tally.y >= 0) & (tally.y <= tally.n * (1 + 1e-9) + 1e-9))
    if bad.any():
        r, c, k, h = (int(i) for i in np.argwhere(bad)[0])
        raise UsageError(
            f"policy {name!r}: arm {k} (replication {r}, segment {c}, cohort {h}) has y = {tally.y[r, c, k, h]:g} "
            f"successes in n = {tally.n[r, c, k, h]:g} trials; expected 0 <= y <= n. Exposure-weighted counts "
            "(feedback 'weighted') and repeated conversions of one send are no trials: use the policy "
            "'gamma_poisson', or feedback 'all' or 'mature' and repeat 'once_per_send'"
        )


def treatments(live: B1) -> B1:
    """`live` (R, K) without the control."""
    out = np.array(live, np.bool_)
    out[:, 0] = False
    return out


def spread(weights: F8, live: B1) -> F8:
    """Weights (R, C, K) as shares over the live treatment arms.

    A row whose live arms weigh nothing is spread evenly over them; one without a live arm gives arm 0 all.

    >>> import numpy as np
    >>> spread(np.array([[[9.0, 3.0, 1.0]]]), np.array([[True, True, True]])).tolist()
    [[[0.0, 0.75, 0.25]]]
    """
    mask = np.broadcast_to(treatments(live)[:, None, :], weights.shape)
    kept = np.where(mask, weights, 0.0)
    total = kept.sum(-1, keepdims=True)
    kept = np.where(total > 0, kept, mask)
    total = kept.sum(-1, keepdims=True)
    out = np.divide(kept, total, out=np.zeros(weights.shape), where=total > 0)
    out[..., 0] = total[..., 0] == 0
    return out


def top_two(best: F8, second: float, live: B1 | bool = True) -> F8:
    """Top-two Thompson sampling (Russo 2020) from chances to be the best (..., K): with the chance `second` the draw
    is repeated until another arm comes out.

    >>> import numpy as np
    >>> top_two(np.array([0.02822328, 0.12169139, 0.85008533]), 0.5).round(6).tolist()
    [0.096086, 0.407636, 0.496278]
    """
    alive = np.broadcast_to(live, best.shape)
    others = np.maximum(alive.sum(-1, keepdims=True) - 1, 1)
    odds = np.divide(best, 1 - best, out=np.zeros_like(best), where=best < 1)
    again = best * (odds.sum(-1, keepdims=True) - odds)
    sure = best >= 1  # nobody else ever comes out: the second place is anybody's
    certain = np.where(sure, 1 - second, alive * second / others)
    return np.where(sure.any(-1, keepdims=True), certain, (1 - second) * best + second * again)

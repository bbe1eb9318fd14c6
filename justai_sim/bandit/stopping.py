"""When to ship, go on or archive: rules on the counts of one look, for every replication at once.

Each rule is a frozen struct of settings with two pure functions: `decide`, from a `Look` to a `Verdict`, and
`needed`, the difference over the control that lets a variant ship, from which `lift.smallest_lift` is computed.
What they ship by mistake is measured by `benchmarks/stopping.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from scipy import special

from justai_sim import stats
from justai_sim.bandit.best import best_beta
from justai_sim.bandit.policy import treatments
from justai_sim.bandit.posterior import expected_loss, value_above
from justai_sim.bandit.tally import Sums
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, F8, I8

GO_ON = -1
READY_SENDS = 1_000
"""Significance starts at this many sends of a variant (published by the product; its test and level are not)."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known at one look: arrays (R, K), arm 0 the control, all segments and cohorts summed.

    `n` trials, `y` the sum of the outcome, `y2` of its square (`y` again for rates), `live` which arms may still be
    served. `days` since the first send. `minimise`: a lower metric is better.
    """

    n: F8
    y: F8
    y2: F8
    live: B1
    days: float
    minimise: bool = False

    def __post_init__(self) -> None:
        for field in ("n", "y", "y2", "live"):
            shape = getattr(self, field).shape
            if len(shape) != 2 or shape != self.n.shape or shape[1] < 2:
                raise ValueError(f"look.{field} has shape {shape}; expected (R, K) = {self.n.shape} with K >= 2")

    @classmethod
    def of(cls, sums: Sums, live: B1, days: float, minimise: bool = False) -> Self:
        """From a tally's sums (R, C, K), added up over the segments."""
        return cls(sums.n.sum(1), sums.y.sum(1), sums.y2.sum(1), live, days, minimise)

    def rows(self, which: Any) -> Look:
        """Some of the replications."""
        return Look(self.n[which], self.y[which], self.y2[which], self.live[which], self.days, self.minimise)

    def means(self) -> tuple[F8, F8]:
        """Mean and variance of every arm's outcome, nan without trials."""
        n = np.where(self.n > 0, self.n, np.nan)
        mean = self.y / n
        return mean, np.maximum(self.y2 / n - mean * mean, 0.0)

    def gain(self) -> F8:
        """How far each arm is ahead of the control, (R, K): positive is better."""
        mean, _ = self.means()
        return (mean[:, :1] - mean) if self.minimise else (mean - mean[:, :1])

    def leader(self) -> I8:
        """The live variant with the best mean (R,); 0 where none can be compared with the control."""
        gain = np.where(treatments(self.live), self.gain(), -np.inf)
        return np.argmax(np.nan_to_num(gain, nan=-np.inf, neginf=-np.inf), axis=1)


class Verdict(NamedTuple):
    """`ship` (R,): the arm to send to everybody from now on (0: the control), or GO_ON. `archive` (R, K): variants
    to stop serving."""

    ship: I8
    archive: B1


class Stop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule's settings. Raises UsageError for a value out of range."""

    def decide(self, look: Look) -> Verdict:
        """What to do after this look. Pure; replications do not know each other."""
        raise NotImplementedError

    def needed(self, p: float, q: float, n0: float, n1: float, variants: int) -> float:
        """The least observed difference with which a variant of true rate q (n1 trials) is shipped against a control of
        rate p (n0 trials), other conditions (days, sends) being met."""
        raise NotImplementedError


def _within(rule: Stop, low: float, high: float, *fields: str) -> None:
    for field in fields:
        value = getattr(rule, field)
        if not (math.isfinite(value) and low <= value <= high):
            span = f"of at least {low:g}" if math.isinf(high) or high >= 1e9 else f"from {low:g} to {high:g}"
            raise UsageError(f"stop.{field} is {value}; expected a number {span}")


class _Test(Stop, frozen=True, kw_only=True):
    """A two-sided z test of every variant against the control."""

    alpha: float = 0.05
    pooled: bool = True
    corrected: bool = False

    def z(self, look: Look) -> F8:
        """How many standard errors each arm is ahead of the control, (R, K); 0 where nothing can be compared."""
        n = np.where(look.n > 0, look.n, np.nan)
        _, variance = look.means()
        if self.pooled:
            both = n + n[:, :1]
            mean = (look.y + look.y[:, :1]) / both
            shared = np.maximum((look.y2 + look.y2[:, :1]) / both - mean * mean, 0.0)
            se2 = shared * (1 / n + 1 / n[:, :1])
        else:
            se2 = variance / n + variance[:, :1] / n[:, :1]
        return np.nan_to_num(look.gain() / np.sqrt(np.where(se2 > 0, se2, np.nan)))

    def critical(self, variants: Any) -> Any:
        """The z that is needed, `variants` being those compared."""
        share = self.alpha / np.maximum(variants, 1) if self.corrected else self.alpha
        return special.ndtri(1 - share / 2)

    def needed(self, p: float, q: float, n0: float, n1: float, variants: int) -> float:
        if self.pooled:
            both = (p * n0 + q * n1) / (n0 + n1)
            se = math.sqrt(both * (1 - both) * (1 / n0 + 1 / n1))
        else:
            se = math.sqrt(p * (1 - p) / n0 + q * (1 - q) / n1)
        return float(self.critical(variants)) * se


class Significance(_Test, frozen=True, kw_only=True):
    """The product's rule: from `min_sends` of a variant on, ship it when it leads the variants and is significantly
    ahead of the control, and archive it when it is significantly behind.

    Looked at daily for 28 days at 2 % and 500 sends a day it ships a variant in 10 to 14 % of worlds in which nothing
    differs (benchmarks/README.md).
    The 1,000 sends are published; test, level and corrections are not: the pooled two-proportion z at 5 %, two-sided
    and uncorrected, is ours. The control needs no least number of sends.
    """

    min_sends: float = READY_SENDS

    def __post_init__(self) -> None:
        _within(self, 1e-9, 0.5, "alpha")
        _within(self, 0, 1e12, "min_sends")

    def decide(self, look: Look) -> Verdict:
        z, live = self.z(look), treatments(look.live)
        enough = live & (look.n >= self.min_sends)
        critical = self.critical(live.sum(1, keepdims=True))
        return _verdict(look, enough & (z > critical), enough & (z < -critical))


class FixedHorizon(_Test, frozen=True, kw_only=True):
    """One test on the day that was fixed before: ship the leader where it is significant, else keep the control.

    Nothing is decided before `days` have passed and every live arm has `min_sends`. The level is shared among the
    variants (Bonferroni), unless `corrected` is false.
    """

    days: float = 28.0
    min_sends: float = 0.0
    corrected: bool = True

    def __post_init__(self) -> None:
        _within(self, 1e-9, 0.5, "alpha")
        _within(self, 0, 1e12, "days", "min_sends")

    def decide(self, look: Look) -> Verdict:
        live = treatments(look.live)
        asked = live.copy()
        asked[:, 0] = True
        due: B1 = np.logical_and(look.days >= self.days, (~asked | (look.n >= self.min_sends)).all(1))
        ahead = self.z(look) > self.critical(live.sum(1, keepdims=True))
        got = _verdict(look, due[:, None] & live & ahead, np.zeros_like(live))
        return got._replace(ship=np.where(due & (got.ship == GO_ON), 0, got.ship))


class AlwaysValid(Stop, frozen=True, kw_only=True):
    """Confidence sequences: the difference to the control is known to lie in an interval at all looks at once, so
    looking costs nothing. Ship the leader when its interval is above 0, archive what lies below.

    The normal mixture of Robbins (Howard, Ramdas, McAuliffe & Sekhon 2021) with estimated variances, tightest at
    `tuned_sends` a side. With `adaptive` every arm has a sequence in its own count and their radii are added: valid
    whatever the allocation did, and wider. Without, one sequence of the difference at n = 1 / (1 / n_0 + 1 / n_k), for
    shares that do not move. Errors are shared among the live arms. The variance is an estimate: with fewer than
    `min_sends` on either side nothing is decided.
    """

    alpha: float = 0.05
    tuned_sends: float = 5_000.0
    min_sends: float = READY_SENDS
    adaptive: bool = True

    def __post_init__(self) -> None:
        _within(self, 1e-9, 0.5, "alpha")
        _within(self, 1, 1e12, "tuned_sends", "min_sends")

    def decide(self, look: Look) -> Verdict:
        live = treatments(look.live)
        _, variance = look.means()
        radius = self._radius(look.n, look.y, look.y2, variance, live.sum(1, keepdims=True))
        enough = live & (look.n >= self.min_sends) & (look.n[:, :1] >= self.min_sends)
        gain = np.nan_to_num(look.gain())
        return _verdict(look, enough & (gain > radius), enough & (gain < -radius))

    def _radius(self, n: F8, y: F8, y2: F8, variance: F8, variants: Any) -> F8:
        """Half-width of the interval of each arm's difference to arm 0, (R, K)."""
        if self.adaptive:
            own = stats.mixture_radius(np.sqrt(variance), n, self._r(self.tuned_sends), self.alpha / (variants + 1))
            return own + own[:, :1]
        n = np.where(n > 0, n, np.nan)
        both = n + n[:, :1]
        mean = (y + y[:, :1]) / both
        sd = np.sqrt(np.maximum((y2 + y2[:, :1]) / both - mean * mean, 0.0))
        size = np.nan_to_num(1 / (1 / n + 1 / n[:, :1]))
        return stats.mixture_radius(sd, size, self._r(self.tuned_sends / 2), self.alpha / np.maximum(variants, 1))

    def _r(self, n: float) -> float:
        """The mixture that is tightest at n (`stats.mixture_radius`)."""
        return math.sqrt(8.2 / n)

    def needed(self, p: float, q: float, n0: float, n1: float, variants: int) -> float:
        if min(n0, n1) < self.min_sends:
            return math.inf
        n, y = np.array([[n0, n1]]), np.array([[p * n0, q * n1]])
        variance = np.array([[p * (1 - p), q * (1 - q)]])
        return float(self._radius(n, y, y, variance, np.array([[variants]]))[0, 1])


class Posterior(Stop, frozen=True, kw_only=True):
    """Independent Beta posteriors of rates; the champion may be the control."""

    threshold: float = 0.01
    min_days: float = 14.0
    prior_alpha: float = 1.0
    prior_beta: float = 1.0

    def __post_init__(self) -> None:
        _within(self, 0, 10, "threshold")
        _within(self, 0, 1e12, "min_days")
        _within(self, 1e-3, 1e9, "prior_alpha", "prior_beta")

    def beta(self, look: Look) -> tuple[F8, F8, B1]:
        """Parameters (R, K) and the arms that may win. Raises UsageError for what is no share of trials."""
        y, y2, top = look.y, look.y2, 1 + 1e-9
        if not ((y >= 0) & (y <= look.n * top) & (y2 <= y * top + 1e-9)).all():
            raise UsageError(
                f"stop {name_of(self)!r} knows outcomes from 0 to 1 for each send; "
                "for money use 'significance', 'always_valid' or 'fixed_horizon'"
            )
        live = treatments(look.live)
        live[:, 0] = True
        return self.prior_alpha + look.y, self.prior_beta + np.maximum(look.n - look.y, 0.0), live

    def _stopped(self, champion: I8, stop: B1, look: Look) -> Verdict:
        return Verdict(np.where(stop, champion, GO_ON), np.zeros(look.n.shape, bool))


class ValueRemaining(Posterior, frozen=True, kw_only=True):
    """Scott (2010): stop when the `quantile` of (best theta - theta_champion) / theta_champion is below `threshold`.

    The champion, the arm most probably the best, is shipped. What is bounded is the loss, not how often an equal or a
    slightly worse variant ships.
    """

    quantile: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, 0.5, 1 - 1e-6, "quantile")

    def decide(self, look: Look) -> Verdict:
        a, b, live = self.beta(look)
        champion = np.argmax(best_beta(a, b, live, look.minimise), axis=1)
        if look.days < self.min_days:
            return self._stopped(champion, np.zeros(len(champion), bool), look)
        left = value_above(a, b, live, champion, self.threshold, look.minimise)
        return self._stopped(champion, left < 1 - self.quantile, look)

    def needed(self, p: float, q: float, n0: float, n1: float, _variants: int) -> float:
        """Normal approximation of the two posteriors."""
        scale = 1 + self.threshold
        sd = math.sqrt(p * (1 - p) / n0 + scale * scale * q * (1 - q) / n1)
        return max(0.0, float(special.ndtri(self.quantile)) * sd - self.threshold * q)


class ExpectedLoss(Posterior, frozen=True, kw_only=True):
    """Stucchio (2015): stop when the arm with the least expected loss would cost less than `threshold`, as a part of
    its own rate, and ship it. As with value remaining, small losses are bounded, not wrong ships."""

    def decide(self, look: Look) -> Verdict:
        a, b, live = self.beta(look)
        if look.days < self.min_days:
            return self._stopped(np.zeros(len(a), np.int64), np.zeros(len(a), bool), look)
        loss = expected_loss(a, b, live, look.minimise)
        champion = np.nanargmin(loss, axis=1)
        row = np.arange(len(a))
        rate = (a / (a + b))[row, champion]
        return self._stopped(champion, loss[row, champion] < self.threshold * rate, look)

    def needed(self, p: float, q: float, n0: float, n1: float, _variants: int) -> float:
        """Normal approximation: E loss = sd (phi(z) - z Phi(-z)) at z = difference / sd."""
        sd = math.sqrt(p * (1 - p) / n0 + q * (1 - q) / n1)
        allowed = self.threshold * q / sd

        def excess(z: float) -> float:
            return math.exp(-z * z / 2) / math.sqrt(2 * math.pi) - z * float(special.ndtr(-z)) - allowed

        return 0.0 if excess(0.0) <= 0 else sd * root(excess, 0.0, 40.0)


STOPS: dict[str, type[Stop]] = {
    "significance": Significance,
    "fixed_horizon": FixedHorizon,
    "always_valid": AlwaysValid,
    "value_remaining": ValueRemaining,
    "expected_loss": ExpectedLoss,
}


def stop(name: str, **settings: Any) -> Stop:
    """The rule of that name with some settings changed. Raises UsageError for an unknown name, field or value.

    >>> stop("value_remaning")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: stop is 'value_remaning'; did you mean 'value_remaining'?
    """
    if name not in STOPS:
        raise UsageError(f"stop is {name!r}; {nearest(name, STOPS)}")
    fields = STOPS[name].__struct_fields__
    for field in settings:
        if field not in fields:
            raise UsageError(f"stop {name!r} has no setting {field!r}; {nearest(field, fields)}")
    return STOPS[name](**settings)


def name_of(rule: Stop) -> str:
    """The rule's name in the registry."""
    return next(name for name, kind in STOPS.items() if kind is type(rule))


class Course(NamedTuple):
    """`ship` (R,): the arm shipped, or GO_ON; `day` (R,): when, nan where the rule never decided."""

    ship: I8
    day: F8


def follow(rule: Stop, looks: Iterable[Look]) -> Course:
    """The rule's first decision over looks in time order; what it archives stays archived.

    The counts are given, so archiving changes what is compared but not who gets what.
    """
    ship, day, gone = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 0), bool)
    for i, look in enumerate(looks):
        if i == 0:
            R = len(look.n)
            ship, day, gone = np.full(R, GO_ON), np.full(R, np.nan), np.zeros(look.n.shape, bool)
        open_ = np.flatnonzero(ship == GO_ON)
        if not len(open_):
            break
        part = look.rows(open_)
        got = rule.decide(Look(part.n, part.y, part.y2, part.live & ~gone[open_], look.days, look.minimise))
        gone[open_] |= got.archive
        ship[open_] = got.ship
        day[open_[got.ship != GO_ON]] = look.days
    return Course(ship, day)


def _verdict(look: Look, ready: B1, behind: B1) -> Verdict:
    """Ship the leader where it is ready; where every live variant is behind the control is kept."""
    leader = look.leader()
    go = ready[np.arange(len(leader)), leader]
    left = (treatments(look.live) & ~behind).any(1)
    return Verdict(np.where(go, leader, np.where(left, GO_ON, 0)), behind)


def root(f: Any, low: float, high: float) -> float:
    """Where f falls below 0 between `low` (f > 0) and `high`, by bisection."""
    while high - low > 1e-12 * max(1.0, abs(high)):
        mid = (low + high) / 2
        low, high = (mid, high) if f(mid) > 0 else (low, mid)
    return high

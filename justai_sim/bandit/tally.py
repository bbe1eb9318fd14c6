"""What a policy may learn from: sums over sends, by decision cohort."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from justai_sim.tables import F8, I8

LOWER_IS_BETTER = frozenset({"unsubscribe_rate"})
MORE = {
    "decided": "sends decided, whether or not they are mature",
    "positive": "sends with an outcome above 0",
    "log": "sum of the logarithms of the outcomes above 0",
    "log2": "sum of the squares of these logarithms",
    "reward_ip": "sum of reward / propensity; the reward is the outcome, 1 less it where lower is better",
}
"""Statistics besides n, y and y2, for the policies that ask for them."""


@dataclass(frozen=True)
class Shape:
    """The size of one template's problem and what its axes mean.

    R replications, C segments, K arms including the control (arm 0). `variants` names the arms in order (needed only
    where a policy's settings name variants); `metric` is the key metric that is learnt; `features` (C, K, d) describes
    a segment to an arm, for contextual policies (None: every segment is a category of its own).
    """

    R: int
    C: int
    K: int
    variants: tuple[str, ...] = ()
    metric: str = "conversion_rate"
    features: F8 | None = None

    def __post_init__(self) -> None:
        if min(self.R, self.C, self.K) < 1:
            raise ValueError(f"shape ({self.R}, {self.C}, {self.K}): expected at least 1 on every axis")
        if self.variants and len(self.variants) != self.K:
            raise ValueError(f"{len(self.variants)} variants are named for {self.K} arms (the control is one)")
        if self.features is not None and self.features.shape[:2] != (self.C, self.K):
            raise ValueError(f"features of shape {self.features.shape}; expected ({self.C}, {self.K}, d)")

    @property
    def minimise(self) -> bool:
        """Whether a lower value of the metric is better."""
        return self.metric in LOWER_IS_BETTER

    @cached_property
    def basis(self) -> F8:
        """The features turned so that they are lower trapezoidal, (1 or K, C, m) with m = min(C, d): a ridge prior is
        the same in all directions, so that a linear model says the same of every segment, with less work.

        The first axis has length 1 where all arms have the same features.
        """
        C = self.C
        x = self.features
        if x is None:
            x = (np.ones((C, 1)) if C == 1 else np.concatenate([np.ones((C, 1)), np.eye(C)], 1))[:, None, :]
        elif x.strides[1] == 0 or (x == x[:, :1]).all():
            x = x[:, :1]
        turned = np.linalg.qr(x.transpose(1, 2, 0)).R  # (arms, m, C)
        return np.ascontiguousarray(turned.transpose(0, 2, 1), np.float64)


class Sums(NamedTuple):
    """A tally summed over its cohorts: arrays (R, C, K)."""

    n: F8
    y: F8
    y2: F8


@dataclass(frozen=True, slots=True)
class Tally:
    """A snapshot of statistics, arrays (R, C, K, H) of float64: H decision cohorts, oldest first.

    Cohort h holds the sends decided between refreshes h and h + 1. `n` counts trials as the feedback mode counts them
    (each send, mature ones, or their exposure), `y` sums the outcome of the key metric, `y2` its square (money in
    major units). `more` holds the statistics of MORE that a policy asks for, `others` the n, y, y2 of further metrics,
    each by its own maturity.
    """

    n: F8
    y: F8
    y2: F8
    more: Mapping[str, F8] = field(default_factory=dict)
    others: Mapping[str, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("n", "y", "y2")} | dict(self.more)
        given |= {f"others[{m!r}].n": t.n for m, t in self.others.items()}
        for name, a in given.items():
            if a.ndim != 4 or a.shape != self.n.shape or a.dtype != np.float64:
                raise ValueError(
                    f"tally.{name} is {a.dtype} of shape {a.shape}; expected float64 (R, C, K, H) = {self.n.shape}"
                )

    @classmethod
    def zeros(cls, shape: Shape, H: int = 0) -> Self:
        """An empty tally of H cohorts."""
        n, y, y2 = (np.zeros((shape.R, shape.C, shape.K, H)) for _ in range(3))
        return cls(n, y, y2)

    @property
    def n_cohorts(self) -> int:
        """The number of cohorts."""
        return int(self.n.shape[3])

    def stat(self, name: str) -> F8:
        """A statistic by name, (R, C, K, H). `decided` is `n` where it is not kept apart; ValueError for others."""
        if name in ("n", "y", "y2"):
            found: F8 = getattr(self, name)
            return found
        if name in self.more:
            return self.more[name]
        if name == "decided":
            return self.n
        raise ValueError(f"the tally holds no {name!r}; expected it for this policy ({MORE.get(name, 'unknown')})")

    def sum(self) -> Sums:
        """The statistics summed over the cohorts, arrays (R, C, K)."""
        return Sums(self.n.sum(3), self.y.sum(3), self.y2.sum(3))

    def cohorts(self, start: int, stop: int) -> Self:
        """The cohorts start..stop - 1, as views."""
        return self._each(lambda a: a[..., start:stop])

    def rows(self, reps: slice) -> Self:
        """A slice of the replications, as views."""
        return self._each(lambda a: a[reps])

    def arms(self, order: I8) -> Self:
        """The arms in another order, or some of them."""
        return self._each(lambda a: a[:, :, order])

    def _each(self, of: Callable[[F8], F8]) -> Self:
        return type(self)(
            of(self.n), of(self.y), of(self.y2), {k: of(a) for k, a in self.more.items()},
            {k: t._each(of) for k, t in self.others.items()},
        )  # fmt: skip

    def __add__(self, other: Tally) -> Tally:
        """The sum cohort by cohort of two tallies of equal shape."""
        if self.n.shape != other.n.shape:
            raise ValueError(f"tallies of shapes {self.n.shape} and {other.n.shape} cannot be added")
        more = {k: a + other.more[k] for k, a in self.more.items()}
        others = {k: t + other.others[k] for k, t in self.others.items()}
        return Tally(self.n + other.n, self.y + other.y, self.y2 + other.y2, more, others)

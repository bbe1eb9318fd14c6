"""What a policy may learn from: sums over sends, by decision cohort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from justai_sim.tables import F8


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of one template's problem and what its axes mean.

    R replications, C segments, K arms including the control (arm 0). `variants` names the arms in order
    (needed only where a policy's settings name variants); `metric` is the key metric that is learnt.
    """

    R: int
    C: int
    K: int
    variants: tuple[str, ...] = ()
    metric: str = "conversion_rate"

    def __post_init__(self) -> None:
        if min(self.R, self.C, self.K) < 1:
            raise ValueError(f"shape ({self.R}, {self.C}, {self.K}): expected at least 1 on every axis")
        if self.variants and len(self.variants) != self.K:
            raise ValueError(f"{len(self.variants)} variants are named for {self.K} arms (the control is one)")


class Sums(NamedTuple):
    """A tally summed over its cohorts: arrays (R, C, K)."""

    n: F8
    y: F8
    y2: F8


@dataclass(frozen=True, slots=True)
class Tally:
    """A snapshot of statistics, arrays (R, C, K, H) of float64: H decision cohorts, oldest first.

    Cohort h holds the sends decided between refreshes h and h + 1. `n` counts trials as the feedback mode
    counts them, `y` sums the outcome of the key metric, `y2` its square (money in major units).
    """

    n: F8
    y: F8
    y2: F8

    def __post_init__(self) -> None:
        for name in ("n", "y", "y2"):
            a = getattr(self, name)
            if a.ndim != 4 or a.shape != self.n.shape or a.dtype != np.float64:
                raise ValueError(
                    f"tally.{name} is {a.dtype} of shape {a.shape}; expected float64 (R, C, K, H) = {self.n.shape}"
                )

    @classmethod
    def zeros(cls, shape: Shape, H: int = 0) -> Self:
        """An empty tally of H cohorts."""
        return cls(*(np.zeros((shape.R, shape.C, shape.K, H)) for _ in range(3)))

    @property
    def n_cohorts(self) -> int:
        """The number of cohorts."""
        return int(self.n.shape[3])

    def sum(self) -> Sums:
        """The statistics summed over the cohorts, arrays (R, C, K)."""
        return Sums(self.n.sum(3), self.y.sum(3), self.y2.sum(3))

    def cohorts(self, start: int, stop: int) -> Self:
        """The cohorts start..stop - 1, as views."""
        return type(self)(*(a[..., start:stop] for a in (self.n, self.y, self.y2)))

    def rows(self, reps: slice) -> Self:
        """A slice of the replications, as views."""
        return type(self)(*(a[reps] for a in (self.n, self.y, self.y2)))

    def __add__(self, other: Tally) -> Tally:
        """The sum cohort by cohort of two tallies of equal shape."""
        if self.n.shape != other.n.shape:
            raise ValueError(f"tallies of shapes {self.n.shape} and {other.n.shape} cannot be added")
        return Tally(self.n + other.n, self.y + other.y, self.y2 + other.y2)

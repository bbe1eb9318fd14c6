"""What a policy is: pure functions on explicit state that return allocation shares; and its settings."""

from __future__ import annotations

import math
from typing import Any, Protocol

import msgspec
import numpy as np

from justai_sim.bandit.tally import Shape, Tally
from justai_sim.errors import UsageError
from justai_sim.tables import B1, F8

State = Any
"""A NamedTuple of arrays with leading axis R; each policy has its own type."""

RATES = ("open_rate", "click_rate", "conversion_rate", "unsubscribe_rate")
METRICS = (*RATES, "revenue_per_send")
"""The key metrics a template can have; the first four are shares of sends, 0/1 for each send."""
LOWER_IS_BETTER = frozenset({"unsubscribe_rate"})


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy's settings. The registry knows the names; a Program refuses the others.

    `epsilon` and `floor` are mixtures applied after the policy, in that order. `floor` is the least share of
    each live arm, as a part of the treatment traffic. `shares` are relative
    weights by variant name and belong to the policy `fixed`.

    >>> PolicySpec().name
    'weighted_thompson'
    >>> PolicySpec(epsilon=1.5)
    Traceback (most recent call last):
    justai_sim.errors.UsageError: policy.epsilon is 1.5; expected a number from 0 to 1
    """

    name: str = "weighted_thompson"
    epsilon: float = 0.0
    floor: float = 0.0
    prior_alpha: float = 1.0
    prior_beta: float = 1.0
    bias_correction: bool = False
    shares: dict[str, float] = {}

    def __post_init__(self) -> None:
        for field in ("epsilon", "floor"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise UsageError(f"policy.{field} is {value}; expected a number from 0 to 1")
        for field in ("prior_alpha", "prior_beta"):
            value = getattr(self, field)
            if not 1e-3 <= value <= 1e9:
                raise UsageError(f"policy.{field} is {value}; expected a number from 0.001 to 1e9")
        for variant, share in self.shares.items():
            if not (math.isfinite(share) and share >= 0):
                raise UsageError(f"policy.shares[{variant!r}] is {share}; expected a weight of at least 0")
        if self.name == "fixed" and not sum(self.shares.values()) > 0:
            raise UsageError(
                f"policy.shares is {self.shares}; the policy 'fixed' expects a positive weight for a variant, "
                "e.g. shares = {b = 3, c = 1}"
            )
        if self.name != "fixed" and self.shares:
            raise UsageError(f"policy.shares belongs to the policy 'fixed'; policy.name is {self.name!r}")


class Policy(Protocol):
    """A module with these names, registered in `registry`. Arguments go by position.

    `memory` says whether the order of cohorts, or when they were learnt, matters. All functions are pure.
    Column 0 of `live` (R, K) is ignored: the control's share is a mixture that `choose.final_shares` adds.
    """

    name: str
    memory: bool

    def init(self, spec: PolicySpec, shape: Shape, /) -> State:
        """The state before anything was learnt. Raises UsageError where spec and shape do not fit."""

    def update(self, state: State, cohort: Tally, /) -> State:
        """The state after a cohort that has become final (H = 1, or several in order)."""

    def allocate(self, state: State, open_tally: Tally, live: B1, now: int, /) -> F8:
        """Shares (R, C, K) of the treatment traffic, given in addition the cohorts that are still open.

        Rows sum to 1 over the live treatment arms; where there is none, arm 0 has all. `now` is in
        microseconds.
        """


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

"""The policies by name: one literal line each."""

from __future__ import annotations

from justai_sim.bandit import fixed, uniform, weighted_thompson
from justai_sim.bandit.policy import Policy
from justai_sim.errors import UsageError, nearest

POLICIES: dict[str, Policy] = {
    "weighted_thompson": weighted_thompson,
    "uniform": uniform,
    "fixed": fixed,
}


def policy(name: str) -> Policy:
    """The policy of that name.

    >>> policy("weighted_thomson")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: policy.name is 'weighted_thomson'; did you mean 'weighted_thompson'?
    """
    if name not in POLICIES:
        raise UsageError(f"policy.name is {name!r}; {nearest(name, POLICIES)}")
    return POLICIES[name]

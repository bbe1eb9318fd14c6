"""The policies by name: one literal line each."""

from __future__ import annotations

from justai_sim.bandit.policies.epsilon_greedy import EPSILON_GREEDY
from justai_sim.bandit.policies.exp3 import EXP3, EXP3S
from justai_sim.bandit.policies.explore_then_commit import EXPLORE_THEN_COMMIT
from justai_sim.bandit.policies.fixed import FIXED
from justai_sim.bandit.policies.forgetting import DISCOUNTED_THOMPSON, SLIDING_THOMPSON
from justai_sim.bandit.policies.gamma_poisson import GAMMA_POISSON
from justai_sim.bandit.policies.index import BAYES_UCB, GREEDY, KL_UCB, MOSS, UCB1, UCB_TUNED
from justai_sim.bandit.policies.linear import LINEAR_THOMPSON, LOGISTIC_THOMPSON
from justai_sim.bandit.policies.lognormal_thompson import LOGNORMAL_THOMPSON
from justai_sim.bandit.policies.normal import NIG_THOMPSON, NORMAL_THOMPSON
from justai_sim.bandit.policies.softmax import SOFTMAX
from justai_sim.bandit.policies.uniform import UNIFORM
from justai_sim.bandit.policies.weighted_thompson import WEIGHTED_THOMPSON
from justai_sim.bandit.policy import Policy, PolicySpec
from justai_sim.errors import UsageError, nearest

POLICIES: dict[str, Policy] = {
    "weighted_thompson": WEIGHTED_THOMPSON,
    "linear_thompson": LINEAR_THOMPSON,
    "gamma_poisson": GAMMA_POISSON,
    "lognormal_thompson": LOGNORMAL_THOMPSON,
    "sliding_thompson": SLIDING_THOMPSON,
    "discounted_thompson": DISCOUNTED_THOMPSON,
    "uniform": UNIFORM,
    "fixed": FIXED,
    "greedy": GREEDY,
    "epsilon_greedy": EPSILON_GREEDY,
    "softmax": SOFTMAX,
    "ucb1": UCB1,
    "ucb_tuned": UCB_TUNED,
    "kl_ucb": KL_UCB,
    "bayes_ucb": BAYES_UCB,
    "moss": MOSS,
    "normal_thompson": NORMAL_THOMPSON,
    "nig_thompson": NIG_THOMPSON,
    "logistic_thompson": LOGISTIC_THOMPSON,
    "exp3": EXP3,
    "exp3s": EXP3S,
    "explore_then_commit": EXPLORE_THEN_COMMIT,
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


def checked(spec: PolicySpec, metric: str) -> Policy:
    """The policy of a spec. UsageError for an unknown name, a setting that belongs to others, a metric that it cannot
    learn."""
    chosen = policy(spec.name)
    chosen.check(spec, metric)
    return chosen

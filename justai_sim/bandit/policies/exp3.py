"""Exp3 and Exp3.S: exponential weights on importance-weighted rewards (Auer, Cesa-Bianchi, Freund, Schapire 2002).

A reward counts divided by the propensity that was logged with its send, so that rarely served arms are not forgotten;
rewards are in units of `reward_max`. Exp3.S leaks weight to all arms, so that it can follow a change of the best.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from justai_sim.bandit.policies.softmax import normalised_exp
from justai_sim.bandit.policy import RATES, Policy, PolicySpec, State
from justai_sim.bandit.tally import Shape
from justai_sim.tables import B1, F8

LEAST = -700.0
"""The least logarithm of a weight: an arm that seems hopeless stays in the race."""


def _estimate(state: State, total: F8) -> F8:
    return total / (1.0 if state.shape.metric in RATES else state.spec.reward_max)


def _mixed(state: State, score: F8, live: B1) -> F8:
    weight = normalised_exp(score, live)
    total = weight.sum(-1, keepdims=True)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    return (1 - state.spec.gamma) * share + state.spec.gamma * live / np.maximum(live.sum(-1, keepdims=True), 1)


def shares(state: State, live: B1, _now: int) -> F8:
    arms = np.maximum(live.sum(-1, keepdims=True), 1)
    return _mixed(state, state.spec.gamma * _estimate(state, state["reward_ip"]) / arms, live)


def start(_spec: PolicySpec, shape: Shape) -> dict[str, F8]:
    return {"log_weight": np.zeros((shape.R, shape.C, shape.K))}


def learn(state: State, cohort: dict[str, F8]) -> State:
    names = state.shape.variants
    there = np.array([bool(v) for v in names] if names else [True] * state.shape.K)
    there[0] = False  # templates with fewer variants have empty places, and the control has no weight
    arms = int(there.sum())
    if not arms:
        return state
    score = state["log_weight"] + state.spec.gamma * _estimate(state, cohort["reward_ip"]) / arms
    score[..., ~there] = -np.inf
    most = score.max(-1, keepdims=True)
    weight = np.exp(score - most)
    before = np.where(there, np.exp(state["log_weight"] - most), 0.0).sum(-1, keepdims=True)
    weight = np.where(there, weight + np.e * state.spec.switching / arms * before, 0.0)
    with np.errstate(divide="ignore"):
        log = np.maximum(np.log(weight / weight.sum(-1, keepdims=True)), LEAST)
    log[..., ~there] = 0.0
    return replace(state, arrays=state.arrays | {"log_weight": log})


def shares_switching(state: State, live: B1, _now: int) -> F8:
    return _mixed(state, state["log_weight"], live)


EXP3 = Policy("exp3", "reference", "exponential weights on reward / propensity", shares, stats=("reward_ip",),
              settings=("gamma", "reward_max"))  # fmt: skip
EXP3S = Policy(
    "exp3s", "reference", "exponential weights that can follow a change", shares_switching, stats=("reward_ip",),
    settings=("gamma", "switching", "reward_max"), start=start, learn=learn,
)  # fmt: skip

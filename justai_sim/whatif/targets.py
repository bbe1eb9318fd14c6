"""Policies to be valued on a log whose shares do not depend on what is learnt from it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from justai_sim.bandit.choose import final_shares
from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.registry import POLICIES, policy
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, F8
from justai_sim.whatif.decided import Decided

LOGGED = "logged"
"""The name of the policy that made the log."""
FIXED = ("uniform", "fixed")
"""Policies of the registry that learn nothing."""


@dataclass(frozen=True)
class Target:
    """A policy to be valued: its name in tables, what it does in words, shares (n, K) for the decisions of a log."""

    name: str
    words: str
    shares: F8


@dataclass(frozen=True)
class Mixed:
    """What is mixed into a policy's shares, as `bandit.choose.final_shares` does it.

    control_share: None keeps the log's. For the logged policy epsilon and floor are mixed into the shares as logged,
    from which `logged_epsilon` and `logged_floor` (what the log's own policy had mixed in) are taken out first.
    """

    control_share: float | None = None
    epsilon: float = 0.0
    floor: float = 0.0
    logged_epsilon: float = 0.0
    logged_floor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("control_share", "epsilon", "floor", "logged_epsilon", "logged_floor"):
            value, most = getattr(self, name), 1 if name in ("epsilon", "floor", "control_share") else 0.999
            if value is not None and not 0 <= value <= most:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; expected a number from 0 to {most}")

    def words(self, logged: bool = False) -> str:
        """'with epsilon 0.1 and control share 0'; '' for nothing."""
        said = [f"{k} {v:g}" for k, v in (("epsilon", self.epsilon), ("floor", self.floor)) if v or (
            logged and getattr(self, f"logged_{k}"))]  # fmt: skip
        said += [] if self.control_share is None else [f"control share {self.control_share:g}"]
        return f" with {' and '.join(said)}" if said else ""


def policy_of(name: str) -> str:
    """The name, if it is a policy of the registry or the logged one. UsageError with the nearest one otherwise."""
    names = [*POLICIES, LOGGED]
    if name not in names:
        raise UsageError(f"--policy {name!r} is not known; {nearest(name, names)}")
    return name


def fixed(d: Decided, spec: PolicySpec, control_share: float | None = None) -> Target:
    """A policy of the registry that learns nothing (`uniform`, `fixed`), over the variants that the log knows."""
    none, shares = Shape(1, 1, d.arms), np.zeros((len(d.templates), d.arms))
    for c, names in enumerate(d.variants):
        shape = Shape(1, 1, d.arms, names + ("",) * (d.arms - len(names)), d.metric)
        live, chosen = d.live[c][None], policy(spec.name)
        got = chosen.allocate(chosen.init(_of_template(spec, d, c), shape), Tally.zeros(none), live, 0)
        shares[c] = final_shares(got, live, 0.0, spec.epsilon, spec.floor)[0, 0]
    with_ = Mixed(control_share, spec.epsilon, spec.floor).words()
    name, words = ("uniform", "equal shares") if spec.name == "uniform" else (f"fixed {_ratio(spec.shares)}",) * 2
    words = words.replace("fixed", "shares")
    return Target(name + with_, words + with_, with_control(d, shares[d.context], control_share))


def _of_template(spec: PolicySpec, d: Decided, c: int) -> PolicySpec:
    """The weights of the variants that a template has; an unknown name, the control, or none at all is an error."""
    if not spec.shares:
        return spec
    everywhere = {v for names in d.variants for v in names}
    for v in spec.shares:
        if v not in everywhere:
            raise UsageError(f"--shares names {v!r}, no variant of the log; {nearest(v, everywhere)}")
    control, *treated = d.variants[c]
    own = {v: x for v, x in spec.shares.items() if v in treated or v == control}
    if not sum(own.values()) > 0:
        raise UsageError(
            f"--shares has no weight for template {d.templates[c]!r}; its variants are {', '.join(treated)} "
            "(choose one template with --template)"
        )
    return msgspec.structs.replace(spec, shares=own)


def only(d: Decided, variant: str, control_share: float | None = None) -> Target:
    """Every decision that one variant; a control share is given to the control. Templates without it raise."""
    everywhere = {v for c, names in enumerate(d.variants) for v in _present(names, d.live[c])}
    if variant not in everywhere:
        raise UsageError(f"--variant {variant!r} is not a variant of the log; {nearest(variant, everywhere)}")
    lacking = [t for t, names in zip(d.templates, d.variants, strict=True) if variant not in names]
    if lacking:
        raise UsageError(f"--variant {variant!r} is not in template {lacking[0]!r}; choose one with --template")
    shares = np.zeros((len(d.templates), d.arms))
    for c, names in enumerate(d.variants):
        shares[c, names.index(variant)] = 1.0
    with_ = Mixed(control_share).words()
    treated = shares[d.context]
    return Target(f"only {variant}{with_}", f"every send {variant}{with_}",
                  with_control(d, treated, control_share) if control_share else treated)  # fmt: skip


def _present(names: tuple[str, ...], live: B1) -> list[str]:
    return [v for v, there in zip(names, live.tolist(), strict=False) if there]


def shared_variants(d: Decided) -> list[str]:
    """The variants that every template of the log has, the control first."""
    each = [set(_present(names, d.live[c])) for c, names in enumerate(d.variants)]
    order = list(dict.fromkeys(v for names in d.variants for v in names))
    return [v for v in order if all(v in names for names in each)]


def logged(d: Decided, mixed: Mixed) -> Target:
    """The policy of the log, with other settings mixed in. UsageError where the log's shares cannot hold what
    `logged_epsilon` and `logged_floor` say."""
    words = "the policy that made the log" + mixed.words(logged=True)
    name = LOGGED + mixed.words(logged=True)
    treated, control = d.behaviour.copy(), d.behaviour[:, :1]
    treated[:, 0] = 0.0
    total = treated.sum(1, keepdims=True)
    live = (treated > 0) | (d.live & (mixed.floor > 0 or mixed.epsilon > 0))[d.context]
    live[:, 0] = False
    count = live.sum(1, keepdims=True)
    shares = np.divide(treated, total, out=np.zeros_like(treated), where=total > 0)
    even = np.divide(live, count, out=np.zeros_like(treated), where=count > 0)
    taken = shares - mixed.logged_floor * live
    taken /= 1 - np.minimum(count * mixed.logged_floor, 0.999)
    taken = (taken - mixed.logged_epsilon * even) / (1 - mixed.logged_epsilon)
    if (taken < -1e-6).any():
        raise UsageError(
            f"--logged-epsilon {mixed.logged_epsilon:g} and --logged-floor {mixed.logged_floor:g} are more than the "
            f"log's shares hold: the least is {shares[live].min():.4g}"
        )
    most = int(count.max(initial=1))
    if most * mixed.floor > 1 + 1e-12:
        raise UsageError(
            f"--floor is {mixed.floor:g}; expected at most {1 / most:.4g}: {most} variants share the traffic"
        )
    shares = (1 - mixed.epsilon) * np.maximum(taken, 0.0) + mixed.epsilon * even
    shares = np.maximum(1 - count * mixed.floor, 0.0) * shares + mixed.floor * live
    if mixed.control_share is None:
        out = shares * (1 - control)
        out[:, 0] = np.where(total[:, 0] > 0, control[:, 0], 1.0)
        return Target(name, words, _rows(out))
    return Target(name, words, with_control(d, np.where(total > 0, shares, d.behaviour), mixed.control_share))


def with_control(d: Decided, treated: F8, control_share: float | None) -> F8:
    """Treatment shares (n, K) with the control's share mixed in: the log's on that day, or a given one."""
    control = d.behaviour[:, 0] if control_share is None else np.full(len(d), control_share)
    if control_share:
        without = sorted({d.templates[c] for c in np.unique(d.context).tolist() if not d.live[c, 0]})
        if without:
            raise UsageError(
                f"--control-share is {control_share:g}, but template {without[0]!r} has no control in the log"
            )
    out = treated * (1 - control[:, None])
    out[:, 0] += control
    return _rows(out)


def _rows(shares: F8) -> F8:
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _ratio(shares: dict[str, float]) -> str:
    return ",".join(f"{k}={v:g}" for k, v in shares.items())

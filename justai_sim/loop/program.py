"""What production runs: templates, goals, key metric, split, policy, rule and refresh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from justai_sim import clock
from justai_sim.attribution import Bound, Rule, TrainingWindow, bind
from justai_sim.bandit.policy import RATES, PolicySpec
from justai_sim.bandit.registry import checked, policy
from justai_sim.bandit.stopping import Posterior, Stop, stop
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, HELD_OUT, I8, Log

KeyMetric = Literal["conversion_rate", "open_rate", "click_rate", "unsubscribe_rate", "revenue_per_send"]
Feedback = Literal["all", "mature", "weighted"]
Sticky = Literal["none", "arm", "variant"]
Split = Literal["internal", "external"]
Pending = Literal["dropped", "kept"]
CONTROL = "control"
NEVER_BEFORE, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One touchpoint. The first variant is the control. `added`, `archived`: the instants (microseconds) from which a
    variant may be served, and from which it may not. `reset`: the instant before which nothing counts of a variant for
    the policy, because it was then made another under the same id."""

    id: str
    variants: list[str]
    added: dict[str, int] = {}
    archived: dict[str, int] = {}
    reset: dict[str, int] = {}

    def __post_init__(self) -> None:
        for name in ("added", "archived", "reset"):
            for variant in getattr(self, name):
                if variant not in self.variants[1:]:
                    what = "is the control, which is always there" if variant in self.variants else "is no variant"
                    raise UsageError(f"{name} of template {self.id!r}: {variant!r} {what}; "
                                     f"{nearest(variant, self.variants[1:])}")  # fmt: skip

    @property
    def most_live(self) -> int:
        """The largest number of variants besides the control that may be served at one instant."""
        spans = [(self.added.get(v, NEVER_BEFORE), self.archived.get(v, NEVER)) for v in self.variants[1:]]
        return max((sum(start <= at < end for start, end in spans) for at, _ in spans), default=0)


class Shipping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a variant is shipped to everybody or archived, for good: a rule of `bandit.stopping` and its settings."""

    rule: str = "significance"
    settings: dict[str, float | bool] = {}

    def __post_init__(self) -> None:
        self.stop()

    def stop(self) -> Stop:
        return stop(self.rule, **self.settings)


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What production is told. `goals`: names of the conversion events; empty means any name. `training`: the ages
    of the sends that the policy learns from (None: all); it never touches credit, which is `rule`. `sticky`: a user
    stays with control or treatment ("arm"), or gets the same variant of a template again ("variant"). `segments`: the
    attributes that contextual policies learn from, each with its values or the upper ends of its buckets; `themes`: of
    each variant, texts that are features of its own model. `pending`: whether sends that were under way when their
    variant was reset are forgotten with the others ("dropped"), or still count ("kept").
    `shipping`: None goes on for ever. `holdout_share`: users who get no message at all, only a ghost of it. `split`:
    "external" leaves the choice to the provider, which splits evenly and tells no propensity."""

    templates: list[Template] = []
    goals: list[str] = []
    key_metric: KeyMetric = "conversion_rate"
    control_share: float = 0.10
    holdout_share: float = 0.0
    split: Split = "internal"
    refresh_hours: float = 24
    feedback: Feedback = "all"
    sticky: Sticky = "none"
    pending: Pending = "dropped"
    segments: dict[str, list[str | float]] = {}
    themes: dict[str, list[str]] = {}
    training: TrainingWindow | None = None
    shipping: Shipping | None = None
    policy: PolicySpec = PolicySpec()
    rule: Rule = Rule()

    def __post_init__(self) -> None:
        if not 0 <= self.control_share < 1:
            raise UsageError(f"control_share is {self.control_share}; expected a number in [0, 1)")
        if not 0 <= self.holdout_share < 1:
            raise UsageError(f"holdout_share is {self.holdout_share}; expected a number in [0, 1)")
        if not 0 < self.refresh_hours <= 24 * 365:
            raise UsageError(f"refresh_hours is {self.refresh_hours}; expected hours above 0")
        for name, kind in (("rule", Rule), ("training", TrainingWindow)):
            given = getattr(self, name)
            if not isinstance(given, kind) and not (given is None and name == "training"):
                raise UsageError(f"{name} is a {type(given).__name__}; expected a {kind.__name__}")
        if twice := next((g for i, g in enumerate(self.goals) if g in self.goals[:i]), None):
            raise UsageError(f"goals names {twice!r} twice; expected each goal once")
        checked(self.policy, self.key_metric)
        if why := cannot_work(self):
            raise UsageError(why)
        for name, values in self.segments.items():
            if not values or len(set(values)) < len(values) or any(c in name for c in "=|"):
                raise UsageError(f"segments.{name} is {values}; expected distinct values, or ends of buckets")
            if len({isinstance(v, str) for v in values}) > 1:
                raise UsageError(f"segments.{name} is {values}; expected either values or ends of buckets")
            if not isinstance(values[0], str) and [float(v) for v in values] != sorted(float(v) for v in values):
                raise UsageError(f"segments.{name} is {values}; expected ends of buckets in rising order")
        for variant, texts in self.themes.items():
            if not texts or not all(texts) or len(set(texts)) < len(texts):
                raise UsageError(f"themes.{variant} is {texts}; expected texts, each once")
        seen: set[str] = set()
        for t in self.templates:
            if t.id in seen:
                raise UsageError(f"template {t.id!r} is named twice")
            seen.add(t.id)
            if not t.variants or len(set(t.variants)) < len(t.variants):
                raise UsageError(f"template {t.id!r} needs distinct variants, found {t.variants}")
        if self.templates:
            fits(self)

    def spec_of(self, variants: Sequence[str]) -> PolicySpec:
        """The policy's settings for a template of these variants: what names variants names these only."""
        kept = {
            f: {v: x for v, x in getattr(self.policy, f).items() if v in variants} for f in ("warm_start", "shares")
        }
        if self.policy.name == "fixed" and not sum(kept["shares"].values()) > 0:
            raise UsageError(f"policy.shares gives no weight to a variant of {', '.join(variants[1:])}")
        return msgspec.structs.replace(self.policy, **kept)

    @property
    def refresh(self) -> int:
        """Microseconds between refreshes."""
        return round(self.refresh_hours * clock.HOUR)


def fits(program: Program) -> None:
    """UsageError where settings name variants that no template has, or ask for more than the variants of one."""
    spec, treated = program.policy, {v for t in program.templates for v in t.variants[1:]}
    for name, given in (("policy.warm_start", spec.warm_start), ("policy.shares", spec.shares),
                        ("themes", program.themes)):  # fmt: skip
        for variant in given:
            if variant not in treated:
                controls = {t.variants[0] for t in program.templates}
                what = "the control" if variant in controls else "no variant of any template"
                raise UsageError(f"{name} names {variant!r}, {what}; {nearest(variant, sorted(treated))}")
    for t in program.templates:
        for name, given in (("policy.warm_start", spec.warm_start), ("policy.shares", spec.shares)):
            if t.variants[0] in given:
                raise UsageError(f"{name} names {t.variants[0]!r}, the control of template {t.id!r}; expected variants "
                                 "that are no template's control")  # fmt: skip
        if spec.name == "fixed":
            program.spec_of(t.variants)
        most = t.most_live
        if most * spec.floor > 1 + 1e-12:
            raise UsageError(f"policy.floor is {spec.floor}; expected at most {1 / most:.4g}: template {t.id!r} has "
                             f"{most} variants at once besides the control")  # fmt: skip


def cannot_work(program: Program) -> str:
    """Why policy, shipping and feedback do not go together; '' if they do."""
    spec, shipping = program.policy, program.shipping
    repeated = program.rule.repeat == "every"
    if spec.name == "explore_then_commit" and program.training is not None:
        return "policy 'explore_then_commit' keeps to its first sends, which a training window would forget"
    if policy(spec.name).trials:
        if repeated and "conversion_rate" in (program.key_metric, *spec.weights):
            return f"policy {spec.name!r} learns shares of sends, not repeat 'every'; use another of either"
        if program.feedback == "weighted":
            return (f"policy {spec.name!r} learns trials, not the exposure of feedback 'weighted'; use the policy "
                    "'gamma_poisson', or feedback 'mature' or 'all'")  # fmt: skip
    if shipping is not None and isinstance(shipping.stop(), Posterior):
        if program.key_metric not in RATES:
            return f"shipping.rule {shipping.rule!r} decides on rates, not on money; use another rule"
        if program.feedback == "weighted" or (repeated and program.key_metric == "conversion_rate"):
            return (f"shipping.rule {shipping.rule!r} decides on trials, not on feedback 'weighted' or repeat "
                    "'every'; use significance, fixed_horizon or always_valid")  # fmt: skip
    return ""


class Layout:
    """A program's templates and variants bound to code texts.

    arm: (template codes, variant codes) -> arm, -1 where the variant is not of the template; arm 0 is
    the control. live: (templates, arms) the treatment arms that a policy may serve.
    """

    def __init__(self, program: Program, templates: Sequence[str], variants: Sequence[str]) -> None:
        self.arms = max((len(t.variants) for t in program.templates), default=1)
        self.arm: I8 = np.full((len(templates), len(variants)), -1, np.int64)
        self.live: B1 = np.zeros((len(templates), self.arms), bool)
        self.variant: I8 = np.full((len(templates), self.arms), -1, np.int64)
        self.added: I8 = np.full((len(templates), self.arms), NEVER_BEFORE)
        self.archived: I8 = np.full((len(templates), self.arms), NEVER)
        self.reset: I8 = np.full((len(templates), self.arms), NEVER_BEFORE)
        by_id = {t.id: t for t in program.templates}
        code = {v: i for i, v in enumerate(variants)}
        for i, name in enumerate(templates):
            if name not in by_id:
                continue
            for a, v in enumerate(by_id[name].variants):
                at = code.get(v, -1)  # a control that was never sent keeps its place
                if at >= 0:
                    self.arm[i, at] = a
                self.variant[i, a] = at
                self.live[i, a] = a > 0
                self.added[i, a] = by_id[name].added.get(v, NEVER_BEFORE)
                self.archived[i, a] = by_id[name].archived.get(v, NEVER)
                self.reset[i, a] = by_id[name].reset.get(v, NEVER_BEFORE)

    def live_at(self, now: int) -> B1:
        """(templates, arms): the treatment arms that may be served at an instant."""
        return self.live & (self.added <= now) & (now < self.archived)


def program_of(log: Log, program: Program, control: str | None = None) -> Program:
    """The program with its templates read off a log: every variant seen, the control first.

    The control is `control`, else the variant named 'control' (any case); a template without it has none
    and gets an empty place, so that arm 0 keeps its meaning.
    """
    names, variants = log.names("template"), log.names("variant")
    if control is not None and control not in variants:
        raise UsageError(f"--control {control!r} is not a variant of the log; {nearest(control, variants)}")
    found: dict[int, set[int]] = {}
    real = log.sends.status != HELD_OUT  # a held-out user is no arm of anything
    pairs = np.unique(np.stack([log.sends.template, log.sends.variant])[:, real], axis=1)
    for t, v in pairs.T.tolist():
        found.setdefault(t, set()).add(v)
    templates = []
    for t, vs in sorted(found.items()):
        texts = [variants[v] for v in sorted(vs)]
        wanted = control or next((v for v in texts if v.lower() == CONTROL), CONTROL)
        templates.append(Template(id=names[t], variants=[wanted, *(v for v in texts if v != wanted)]))
    return msgspec.structs.replace(program, templates=templates)


def bound_to(program: Program, log: Log) -> Bound:
    """The program's rule bound to the codes of a log."""
    return bind(
        program.rule,
        templates=log.names("template"),
        names=log.names("name"),
        currencies=log.names("currency"),
        goals=program.goals or None,
    )

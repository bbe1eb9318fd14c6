"""What other policies would have earned on a log: an interval each, or the reasons why the log cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.bandit.policy import PolicySpec
from justai_sim.errors import UsageError, nearest
from justai_sim.estimate.offpolicy import ESTIMATORS, Choices, Estimate
from justai_sim.estimate.overlap import LEAST_SAMPLE, Overlap, fitting, overlap, untrusted
from justai_sim.sheets import write_csv
from justai_sim.stats import influence_interval
from justai_sim.tables import F8, Log, badge
from justai_sim.whatif.decided import Decided, decided
from justai_sim.whatif.holdout import Check, choices, held_out, said
from justai_sim.whatif.learning import Learning, Learnt, learner, learnt, uneven
from justai_sim.whatif.policy_words import ALL, answer, form_of, headline, misdrawn, overlap_table
from justai_sim.whatif.study import Study, control_of, metric_of, study
from justai_sim.whatif.targets import FIXED, LOGGED, Mixed, Target, fixed, logged, only, policy_of, shared_variants

EVERY = "all"
"""As an estimator: every one of them."""
PROPENSITIES = ("auto", "logged", "estimated")


@dataclass(frozen=True)
class WhatIf:
    """Result of `what_if`.

    estimates: a row a policy, template (and `ALL` where there are several) and estimator: `value, low, high` per send
    (95 %, over users), `gain, gain_low, gain_high` over the log's own policy on the same decisions, diagnostics, and
    `status` (estimated, refused) with `why`. overlap: a row a template, segment and variant. check: the time split.
    answers: a sentence a policy. as_of in microseconds.
    """

    estimates: pd.DataFrame
    overlap: pd.DataFrame
    check: Check
    answers: list[str]
    notes: list[str]
    metric: str
    as_of: int
    source: str
    rule: Rule
    goals: list[str]
    simulated: bool = False

    @property
    def check_said(self) -> str:
        """The time split in a sentence."""
        return said(self.check, form_of(self.metric))

    @property
    def headline(self) -> str:
        """What the best policy that the log can tell of would have earned, in a sentence."""
        return headline(self.estimates, self.metric)

    def __repr__(self) -> str:
        return f"WhatIf({self.headline})"

    def _repr_html_(self) -> str:
        lines = badge(self.simulated) + "".join(f"<p>{escape(a)}</p>" for a in [*self.answers, self.check_said])
        show = ["policy", "template_id", "estimator", "value", "low", "high", "gain", "gain_low", "gain_high", "status"]
        return lines + self.estimates[show].to_html(index=False, float_format="%.4g")


def what_if(
    log: Log,
    *,
    policies: Sequence[PolicySpec | str] = (),
    variants: Sequence[str] = (),
    mixed: Mixed | None = None,
    learning: Learning | None = None,
    estimator: str | None = None,
    propensities: str = "auto",
    metric: str = "conversion_rate",
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: int | None = None,
    until: int | None = None,
    as_of: int | None = None,
    currency_given: bool = False,
) -> WhatIf:
    """Value policies on the decisions of a log. Times in microseconds.

    `policies`: names of the registry (or their settings), or `logged`, the log's own with `mixed` settings;
    `variants`: sending one variant only. Without either: the log's own policy, `uniform` and each single variant.
    `estimator`: one of `estimate.offpolicy.ESTIMATORS`, `all`, or None, chosen by the overlap of each policy with the
    log. `propensities`: `auto` takes the logged ones if there are any, else estimates them from shares.
    `learning`: how policies that learn are told of outcomes.
    Raises UsageError for a wrong setting, and for one that no policy asked for has a use for, DataError where no
    decision is left.
    """
    wanted = [_checked(p) for p in policies]
    learners = [p.name for p in wanted if isinstance(p, PolicySpec) and p.name not in FIXED]
    if estimator is not None and learners:
        raise UsageError(f"--estimator {estimator!r} is for policies that learn nothing; {learners[0]!r} learns and is "
                         "replayed over an evenly drawn log: ask for it in a run of its own")  # fmt: skip
    if learning is not None and not learners:
        raise UsageError("--feedback and --refresh-hours are for a --policy that learns; none is asked for")
    mixed = mixed or Mixed()
    _useless(mixed, wanted, variants)
    if estimator not in (None, EVERY, *ESTIMATORS):
        raise UsageError(f"--estimator {estimator!r} is not known; {nearest(str(estimator), [*ESTIMATORS, EVERY])}")
    if propensities not in PROPENSITIES:
        raise UsageError(f"--propensities {propensities!r} is not known; {nearest(propensities, PROPENSITIES)}")
    s = study(log, rule=rule, goals=goals, template=template, since=since, until=until, as_of=as_of,
              currency_given=currency_given)  # fmt: skip
    taken = None if propensities == "auto" else propensities == "logged"
    d = decided(s, metric_of(metric), control_of(log, control), taken)
    if not wanted and not variants:
        wanted, variants = [LOGGED, PolicySpec(name="uniform")], shared_variants(d)
    found = [_rows(s, d, one, mixed, estimator, learning) for one in wanted]
    found += [_valued(d, only(d, v, mixed.control_share), estimator) for v in variants]
    table = overlap_table(d)
    return WhatIf(
        pd.DataFrame([row for rows in found for row in rows]), table,
        held_out(d, None if estimator == EVERY else estimator), [answer(rows, d, table) for rows in found],
        [*s.notes, *d.notes, *misdrawn(table)], metric, s.as_of, Path(log.source).name, s.rule, s.goals,
        log.simulated,
    )  # fmt: skip


def _useless(mixed: Mixed, wanted: Sequence[PolicySpec | str], variants: Sequence[str]) -> None:
    """UsageError for what is mixed into no policy that was asked for."""
    if variants and not wanted:
        for name in ("epsilon", "floor"):
            if getattr(mixed, name):
                raise UsageError(f"--{name} is for a --policy, and --variant is every send that variant; "
                                 f"write --policy fixed --shares {variants[0]}=1")  # fmt: skip
    if (wanted or variants) and LOGGED not in wanted:
        for name in ("logged_epsilon", "logged_floor"):
            if getattr(mixed, name):
                raise UsageError(f"--{name.replace('_', '-')} is for --policy {LOGGED}, which is not asked for")


def _checked(p: PolicySpec | str) -> PolicySpec | str:
    """Settings of a policy of the registry, or the name of the logged one."""
    name = policy_of(p if isinstance(p, str) else p.name)
    return LOGGED if name == LOGGED else p if isinstance(p, PolicySpec) else PolicySpec(name=name)


def _rows(
    s: Study, d: Decided, asked: PolicySpec | str, mixed: Mixed, estimator: str | None, learning: Learning | None
) -> list[dict[str, Any]]:
    """The rows of one policy."""
    if isinstance(asked, str):
        return _valued(d, logged(d, mixed), estimator)
    spec = msgspec.structs.replace(asked, epsilon=asked.epsilon or mixed.epsilon, floor=asked.floor or mixed.floor)
    if spec.name in FIXED:
        return _valued(d, fixed(d, spec, mixed.control_share), estimator)
    return _learning(s, d, spec, mixed, learning)


def _valued(d: Decided, target: Target, asked: str | None) -> list[dict[str, Any]]:
    """Rows of a target whose shares are given: all templates together, then each."""
    parts: list[tuple[str, Any]] = [(ALL, np.ones(len(d), np.bool_))]
    names = list(dict.fromkeys(d.templates))
    of = np.array([names.index(t) for t in d.templates])[d.context]
    parts = [*(parts if len(names) > 1 else []), *((t, of == i) for i, t in enumerate(names))]
    out = []
    for name, use in parts:
        part = d.take(use)
        c = choices(part, target.shares[use])
        o = overlap(c)
        why = untrusted(o)
        chosen, because = fitting(o, part.learnt)
        head = {"policy": target.name, "words": target.words, "template_id": name, "metric": d.metric}
        for e in ESTIMATORS if asked == EVERY else [asked or chosen]:
            row = head | {"estimator": e, "chosen": e == chosen, "because": because if asked is None else ""}
            out.append(row | _numbers(c, o, e, why))
    return out


def _numbers(c: Choices, o: Overlap, name: str, why: list[str]) -> dict[str, Any]:
    """The columns of one estimate; its values are missing where it is refused."""
    told: dict[str, Any] = {
        "decisions": o.decisions,
        "users": o.users,
        "weighted": o.weighted,
        "effective": o.effective,
        "largest_weight": o.largest,
        "largest_part": o.largest_part,
        "mean_weight": o.mean,
        "mean_weight_se": o.mean_se,
        "unseen": o.unseen,
    }
    got = None if why else ESTIMATORS[name](c)
    if got is not None and not math.isfinite(got.low):
        why = ["too few users differ for an interval"]
    if got is None or why:
        return _value(None, None) | told | {"tuned": None, "status": "refused", "why": "; ".join(why)}
    own = (c.reward - c.reward.mean()) / len(c.reward)
    gain = _gain(got.value - float(c.reward.mean()), got.influence - own, c, got.diagnostics.get("bias", 0.0))
    if c.reward.min() >= 0 and c.reward.max() <= 1:
        got = replace(got, low=max(got.low, 0.0), high=min(got.high, 1.0))
    tuned = next((v for k, v in got.diagnostics.items() if k in ("tau", "lambda")), None)
    return _value(got, gain) | told | {"tuned": tuned, "status": "estimated", "why": ""}


def _value(got: Estimate | Learnt | None, gain: tuple[float, float, float] | None) -> dict[str, Any]:
    value = {k: None if got is None else getattr(got, k) for k in ("value", "se", "low", "high")}
    names = ("gain", "gain_low", "gain_high")
    return value | dict(zip(names, gain or (None, None, None), strict=True))


def _gain(gain: float, influence: F8, c: Choices | Decided, wider: float = 0.0) -> tuple[float, float, float]:
    """The difference from the log's own policy on the same decisions, with its interval over users."""
    code = np.unique(c.user, return_inverse=True)[1].ravel()
    users = int(code.max()) + 1
    low, high = influence_interval(gain, np.bincount(code, influence, users).astype(np.float64), users)
    return gain, low - wider, high + wider


def _learning(s: Study, d: Decided, spec: PolicySpec, mixed: Mixed, learning: Learning | None) -> list[dict[str, Any]]:
    """The row of a policy that learns: replayed where variants were drawn evenly, refused elsewhere."""
    learner(d, spec, learning)  # what does not go together is said, whatever the log
    name = " ".join([spec.name, *_settings(spec, learning)])
    head = {
        "policy": name, "words": f"the policy {name}, which learns", "metric": d.metric,
        "template_id": ALL if len(set(d.templates)) > 1 else d.templates[0],
        "estimator": "replay", "chosen": True, "because": "",
    }  # fmt: skip
    why = uneven(d)
    if not why:
        got = learnt(s, d, spec, mixed.control_share, learning)
        kept = float(got.kept.sum(1).mean())
        gain = got.value - float(d.reward.mean())
        own = (d.reward - d.reward.mean()) / len(d)
        told = {
            "decisions": len(d), "users": len(np.unique(d.user)), "effective": kept, "tuned": None,
            "status": "estimated", "why": "",
            "because": f"each pass keeps {kept:,.0f} of {len(d):,} decisions: the value is at that traffic, and the "
            "interval is over users given the shares that it set",
        }  # fmt: skip
        few = kept < LEAST_SAMPLE or len(np.unique(d.user[got.kept.any(0) & (d.reward != 0)])) < 10
        if not few and math.isfinite(got.low):
            return [head | _value(got, _gain(gain, got.influence - own, d)) | told]
        why = f"each pass keeps only {kept:,.0f} decisions"
    reason = (
        f"what a policy that learns would have earned can only be told from a log whose variants were drawn evenly; "
        f"here {why}; `justai-sim replay` shows the shares it would have set on the data you had"
    )
    o = {"decisions": len(d), "users": len(np.unique(d.user)), "tuned": None, "status": "refused", "why": reason}
    return [head | _value(None, None) | o]


def _settings(spec: PolicySpec, learning: Learning | None) -> list[str]:
    """What is not as it comes, `key=value`."""
    plain, told = PolicySpec(name="uniform"), vars(learning or Learning())
    changed = {f: getattr(spec, f) for f in spec.__struct_fields__[1:] if getattr(spec, f) != getattr(plain, f)}
    changed |= {k: v for k, v in told.items() if v != vars(Learning())[k]}
    parts = {f: v if isinstance(v, dict) else {"": v} for f, v in changed.items()}
    each = {f"{f}.{k}".rstrip("."): x for f, v in parts.items() for k, x in v.items()}
    return [f"{k}={x:g}" if isinstance(x, float) else f"{k}={x}" for k, x in each.items()]


def check_record(got: WhatIf) -> dict[str, Any]:
    """The time split as plain values, and its sentence."""
    told = {k: None if isinstance(v, float) and v != v else v for k, v in vars(got.check).items()}
    return told | {"at": clock.iso(got.check.at), "said": got.check_said}


def write_tables(got: WhatIf, out: Path) -> None:
    """estimates.csv and overlap.csv."""
    write_csv(got.estimates, out / "estimates.csv")
    write_csv(got.overlap, out / "overlap.csv")


def manifest(got: WhatIf) -> dict[str, Any]:
    """What its report's manifest.json says."""
    return {
        "source": got.source, "simulated": got.simulated, "as_of": clock.iso(got.as_of),
        "metric": got.metric, "rule": msgspec.to_builtins(got.rule), "goals": got.goals, "answers": got.answers,
        "check": check_record(got), "notes": got.notes,
    }  # fmt: skip

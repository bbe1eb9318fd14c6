"""What other policies would have earned on a log: an interval each, or the reasons why the log cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.attribution import Rule
from justai_sim.bandit.policy import PolicySpec
from justai_sim.errors import DataError, UsageError, nearest
from justai_sim.estimate.offpolicy import ESTIMATORS, Choices, Estimate
from justai_sim.estimate.overlap import LEAST_SAMPLE, Overlap, fitting, overlap, untrusted
from justai_sim.stats import influence_interval
from justai_sim.tables import F8, Log
from justai_sim.whatif.decided import Decided, decided
from justai_sim.whatif.holdout import Check, choices, held_out, said
from justai_sim.whatif.learning import Learnt, learnt, uneven
from justai_sim.whatif.study import Study, control_of, metric_of, study
from justai_sim.whatif.targets import FIXED, LOGGED, Mixed, Target, fixed, logged, only, policy_of, shared_variants
from justai_sim.whatif.words import ranged, signed

ALL = "ALL"
"""The row of all templates together."""
EVERY = "all"
"""As an estimator: every one of them."""
PROPENSITIES = ("auto", "logged", "estimated")
MISDRAWN = 5.0
"""Standard errors by which a variant may have been drawn more or less often than its propensities say."""


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

    @property
    def check_said(self) -> str:
        """The time split in a sentence."""
        return said(self.check, form_of(self.metric))

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{a}</p>" for a in [*self.answers, self.check_said])
        show = ["policy", "template_id", "estimator", "value", "low", "high", "gain", "gain_low", "gain_high", "status"]
        return lines + self.estimates[show].to_html(index=False, float_format="%.4g")


def what_if(
    log: Log,
    *,
    policies: Sequence[PolicySpec | str] = (),
    variants: Sequence[str] = (),
    mixed: Mixed | None = None,
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
    Raises UsageError for a wrong setting, DataError where no decision is left.
    """
    mixed, wanted = mixed or Mixed(), [p if isinstance(p, PolicySpec) else policy_of(p) for p in policies]
    if estimator not in (None, EVERY, *ESTIMATORS):
        raise UsageError(f"--estimator {estimator!r} is not known; {nearest(str(estimator), [*ESTIMATORS, EVERY])}")
    if propensities not in PROPENSITIES:
        raise UsageError(f"--propensities {propensities!r} is not known; {nearest(propensities, PROPENSITIES)}")
    s = study(log, rule=rule, goals=goals, template=template, since=since, until=until, as_of=as_of,
              currency_given=currency_given)  # fmt: skip
    d = decided(
        s, metric_of(metric), control_of(log, control), {"auto": None}.get(propensities, propensities == "logged")
    )
    if not wanted and not variants:
        wanted, variants = [LOGGED, "uniform"], shared_variants(d)
    rows: list[dict[str, Any]] = []
    answers: list[str] = []
    table = _overlap_table(d)
    for one in wanted:
        spec = PolicySpec(name=one) if isinstance(one, str) and one not in (LOGGED, "fixed") else one
        if isinstance(spec, PolicySpec) and spec.name not in FIXED:
            found = _learning(s, d, spec, mixed)
        else:
            target = logged(d, mixed) if spec == LOGGED else fixed(d, _spec(spec), mixed)
            found = _valued(d, target, estimator)
        rows += found
        answers.append(_answer(found, d, table))
    for v in variants:
        found = _valued(d, only(d, v, mixed.control_share), estimator)
        rows += found
        answers.append(_answer(found, d, table))
    if not rows:
        raise DataError("nothing to value: no variant is in every template; name a policy, or one template")
    asked = None if estimator == EVERY else estimator
    return WhatIf(
        pd.DataFrame(rows), table, held_out(d, asked), answers, [*s.notes, *d.notes, *_misdrawn(table)], metric,
        s.as_of, log.source,
    )  # fmt: skip


def _spec(spec: PolicySpec | str) -> PolicySpec:
    return spec if isinstance(spec, PolicySpec) else PolicySpec(name=spec)


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
        "decisions": o.decisions, "users": o.users, "weighted": o.weighted, "effective": o.effective, "largest_weight": o.largest,
        "largest_part": o.largest_part, "mean_weight": o.mean, "mean_weight_se": o.mean_se, "unseen": o.unseen,
    }  # fmt: skip
    got = None if why else ESTIMATORS[name](c)
    if got is not None and not math.isfinite(got.low):
        why = ["too few users differ for an interval"]
    if got is None or why:
        return _value(None, None) | told | {"tuned": None, "status": "refused", "why": "; ".join(why)}
    own = (c.reward - c.reward.mean()) / len(c.reward)
    gain = _gain(got.value - float(c.reward.mean()), got.influence - own, c, got.diagnostics.get("bias", 0.0))
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


def _learning(s: Study, d: Decided, spec: PolicySpec, mixed: Mixed) -> list[dict[str, Any]]:
    """The row of a policy that learns: replayed where variants were drawn evenly, refused elsewhere."""
    head = {
        "policy": spec.name, "words": f"the policy {spec.name}, which learns", "template_id": ALL, "metric": d.metric,
        "estimator": "replay", "chosen": True, "because": "",
    }  # fmt: skip
    why = uneven(d)
    if not why:
        got = learnt(s, d, spec, mixed.control_share)
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


# -- words ---------------------------------------------------------------------------------------------------------


def form_of(metric: str) -> str:
    """How a value of the metric is written."""
    return "{:.4g}" if metric == "revenue_per_send" else "{:.3%}"


def _answer(rows: list[dict[str, Any]], d: Decided, table: pd.DataFrame) -> str:
    """A policy in a sentence: its value and gain by the estimator that fits, or what the log cannot tell."""
    row = next((r for r in rows if r["chosen"]), rows[0])
    what = d.metric.replace("_", " ")
    if row["status"] == "refused":
        return f"{_capital(row['words'])}: the log cannot tell ({row['why']}).{_missing(row, rows, table)}"
    form = form_of(d.metric)
    value, low, high = (form.format(row[k]) for k in ("value", "low", "high"))
    own = form.format(float(d.reward.mean()))
    if row["policy"] == LOGGED:
        return f"The policy that made the log earned a {what} of {value} ({low} to {high})."
    gain = ranged(*(1000 * row[k] for k in ("gain", "gain_low", "gain_high"))) + " per 1,000 sends"
    if row["gain_low"] <= 0 <= row["gain_high"]:
        gain += ", which could be nothing"
    told = f" {_capital(row['because'])}." if row["estimator"] == "replay" else ""
    return f"{_capital(row['words'])}: {what} {value} ({low} to {high}) where the log had {own}, {gain}.{told}"


def _missing(row: dict[str, Any], rows: list[dict[str, Any]], table: pd.DataFrame) -> str:
    """Which variants the log says too little of, for a refused policy."""
    if row["estimator"] == "replay":
        return ""
    thin = table[(table["decisions"] < LEAST_SAMPLE) | (table["propensity_least"] < 1e-3)]
    name = str(row["policy"])
    if name.startswith("only "):
        thin = thin[thin["variant_id"] == name.removeprefix("only ")]
    told = [
        f"{r['variant_id']} in {r['template_id']}{' ' + r['segment'] if r['segment'] else ''} was drawn "
        f"{r['decisions']:,} times" + (f", at least once with probability {r['propensity_least']:.2g}"
                                       if r["propensity_least"] < 1e-3 else "")
        for r in thin.head(3).to_dict("records")
    ]  # fmt: skip
    fine = [str(r["template_id"]) for r in rows if r["template_id"] != ALL and r["status"] == "estimated"]
    more = f" It can tell in {', '.join(dict.fromkeys(fine))}." if fine else ""
    return (f" Too little is known of: {'; '.join(told)}." if told else "") + more


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _overlap_table(d: Decided) -> pd.DataFrame:
    """`template_id, segment, variant_id, decisions, share, propensity, propensity_least, drawn, z`: how often each
    variant was chosen, with which probability, and `drawn`, how often for each time that its probabilities say (1 where
    they are right, by `z` standard errors off)."""
    out = []
    for c, names in enumerate(d.variants):
        rows = np.flatnonzero(d.context == c)
        for k in np.flatnonzero(d.live[c]).tolist():
            mine = d.arm[rows] == k
            p = d.behaviour[rows, k]
            apart = mine - p
            noise = math.sqrt(float((p * (1 - p)).sum()))
            out.append(
                {
                    "template_id": d.templates[c], "segment": d.segments[c], "variant_id": names[k],
                    "decisions": int(mine.sum()), "share": float(mine.mean()), "propensity": float(p.mean()),
                    "propensity_least": float(d.pscore[rows][mine].min()) if mine.any() else 0.0,
                    "drawn": float(mine.sum() / p.sum()) if p.sum() > 0 else math.nan,
                    "z": float(apart.sum()) / noise if noise > 1e-9 else 0.0,
                }
            )  # fmt: skip
    return pd.DataFrame(out)


def _misdrawn(table: pd.DataFrame) -> list[str]:
    """A note where a variant was drawn far more, or less, often than its propensities say."""
    far = table[table["z"].abs() > MISDRAWN]
    return [
        f"propensities look wrong: {r['variant_id']} of {r['template_id']} was drawn {r['drawn']:.2f} times as often "
        f"as they say (z {signed(r['z'], 1)})"
        for r in far.to_dict("records")
    ]

"""What the estimates of other policies say, in sentences; and the table of overlap behind them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.bandit.policy import LOWER_IS_BETTER
from justai_sim.estimate.overlap import LEAST_SAMPLE
from justai_sim.stats import z_value
from justai_sim.whatif.decided import Decided
from justai_sim.whatif.targets import LOGGED
from justai_sim.whatif.words import ranged, signed

ALL = "ALL"
"""The row of all templates together."""
MISDRAWN = 5.0
"""Standard errors by which a variant may have been drawn more or less often than its propensities say."""


def form_of(metric: str) -> str:
    """How a value of the metric is written."""
    return "{:.4g}" if metric == "revenue_per_send" else "{:.3%}"


def headline(estimates: pd.DataFrame, metric: str) -> str:
    """The best policy that is clearly better than the log's own, and how many the log cannot tell of.

    Clearly: by the interval that holds for all compared at once (Bonferroni), for the best of several is chosen.
    """
    first = ALL if (estimates["template_id"] == ALL).any() else estimates["template_id"].iloc[0]
    rows = estimates[(estimates["template_id"] == first) & (estimates["policy"] != LOGGED)]
    if not len(rows):
        return "This is what the log's own policy earned."
    rows = rows.sort_values("chosen", ascending=False, kind="stable").drop_duplicates("policy").sort_index()
    told = rows[rows["status"] == "estimated"]
    unknown = len(rows) - len(told)
    tail = f" The log cannot tell of {unknown} of {len(rows)}." if unknown else ""
    if not len(told):
        return f"The log cannot tell what {'it' if len(rows) == 1 else 'any of them'} would have earned."
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    wider = z_value(1 - 0.05 / len(told)) / z_value(0.95)
    gain, half = told["gain"].astype(float), (told["gain_high"] - told["gain_low"]).astype(float) / 2 * wider
    ahead = told[sign * gain > half]
    if not len(ahead):
        one = "It would not clearly" if len(told) == 1 else f"None of {len(told)} would clearly"
        return f"{one} have done better than the log's own policy.{tail}"
    best = (sign * gain[ahead.index]).idxmax()
    at = 1000 * gain[best], 1000 * (gain[best] - half[best]), 1000 * (gain[best] + half[best])
    many = f" (an interval for all {len(told)} policies at once)" if len(told) > 1 else ""
    name = str(told.loc[best, "policy"])
    return (
        f"{'Sending ' if name.startswith('only ') else ''}{name} would have changed the {metric.replace('_', ' ')} of "
        f"the log's own policy by {ranged(*at)} per 1,000 sends{many}.{tail}"
    )


def answer(rows: list[dict[str, Any]], d: Decided, table: pd.DataFrame) -> str:
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
    if row["gain_low"] == row["gain_high"] == 0:
        gain = "the same shares"
    elif row["gain_low"] <= 0 <= row["gain_high"]:
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
        thin = thin[thin["variant_id"] == name.removeprefix("only ").split(" with ")[0]]
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


def overlap_table(d: Decided) -> pd.DataFrame:
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


def _within(segment: object) -> str:
    return f" ({segment})" if segment else ""


def misdrawn(table: pd.DataFrame) -> list[str]:
    """A note where a variant was drawn far more, or less, often than its propensities say."""
    far = table[table["z"].abs() > MISDRAWN]
    return [
        f"propensities look wrong: {r['variant_id']} of {r['template_id']}{_within(r['segment'])} was drawn "
        f"{r['drawn']:.2f} times as often as they say (z {signed(r['z'], 1)})"
        for r in far.to_dict("records")
    ]

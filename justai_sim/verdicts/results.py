"""The results table with what people ask next: the difference against the control, and the chance to be the best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from justai_sim.bandit.independent import Normal, best_of
from justai_sim.errors import DataError
from justai_sim.estimate.adaptive import aipw
from justai_sim.estimate.metrics import HELD_OUT, metrics_table
from justai_sim.replays import Replay, restricted
from justai_sim.stats import z_value
from justai_sim.tables import I8, NONE
from justai_sim.verdicts.compare import Compared, by_template
from justai_sim.verdicts.verdict import decisions
from justai_sim.whatif.decided import Decided

ADDED = ("against", "difference_per_1000", "low_per_1000", "high_per_1000", "told", "chance_best")
MOST_SEGMENTS = 50


def results(result: Replay, found: tuple[Decided, I8] | None = None) -> pd.DataFrame:
    """`Replay.metrics` with, per template and variant, by the key metric on mature sends: `against` (the control),
    `difference_per_1000, low_per_1000, high_per_1000` (a confidence sequence for all variants of the template and all
    days at once, as in the verdict), `told` (1 better, -1 worse, 0 neither), and `chance_best` within the template.

    The chance is that of independent normal posteriors around the differences, of which the control's is 0, each with
    the error of the variant's own mean: by AIPW, but not below that of its mature rate, as a few sends without an
    outcome have none. It is missing for all variants of a template of which one has no such difference.
    Missing where too little is mature, for the control (but for its chance), held-out users and `ALL (distinct)`.
    `found`: what `verdicts.verdict.decisions` gave.
    """
    rows = result.rows()
    try:
        d, ripe = found or decisions(result)
        each = by_template(d, ripe, result.attribution.as_of)
    except DataError:
        each = {}
    metric = result.program.key_metric
    for row in rows:
        row |= dict.fromkeys(ADDED)
    for template, got in each.items():
        here = {r["variant_id"]: r for r in rows if r["template_id"] == template and r["variant_id"] != HELD_OUT}
        for r in got.table.to_dict("records"):
            if r["ready"]:
                here[r["variant_id"]] |= {str(k): r[k] for k in ADDED[:-1]}
        for variant, chance in _chances(got, here, metric).items():
            here[variant]["chance_best"] = chance
    return pd.DataFrame(rows)


def _chances(got: Compared, rows: dict[str, dict[str, Any]], metric: str) -> dict[str, float]:
    """By variant of one template: the chance to have the best rate, by the same estimates as the differences."""
    ends = {v: (r.get(f"mature_{metric}_low"), r.get(f"mature_{metric}_high")) for v, r in rows.items()}
    rows = {v: r for v, r in rows.items() if None not in ends[v]}
    if not got.pairs or set(rows) != {*(p.variant for p in got.pairs), _base(got, rows)}:
        return {}
    mean, error = {_base(got, rows): 0.0}, {}
    for p in got.pairs:
        own, base = (float(aipw(p.trials, k).se) for k in (1, 0))
        mean[p.variant], error[p.variant] = float(aipw(p.trials, 1, 0).estimate), own
        error[_base(got, rows)] = min(base, error.get(_base(got, rows), np.inf))
    sd = np.array([
        max(error[v], (ends[v][1] - ends[v][0]) / (2 * z_value(0.95)), 1e-12) for v in rows  # type: ignore[operator]
    ])  # fmt: skip
    if not np.isfinite(sd).all():
        return {}
    at = got.sign * np.array([mean[v] for v in rows])
    chance = best_of(Normal(at[None], sd[None]), np.ones((1, len(at)), bool))[0]
    return dict(zip(rows, chance.tolist(), strict=True))


def _base(got: Compared, rows: dict[str, dict[str, Any]]) -> str:
    """The one variant of a template that the others are compared with."""
    return next((v for v in rows if v not in {p.variant for p in got.pairs}), "")


def segments(result: Replay) -> pd.DataFrame:
    """The results table of every segment, the largest first: `segment` and the columns of `Replay.metrics`. Empty where
    the log has none. At most `MOST_SEGMENTS`; sends without a segment are one, ''."""
    log = result.log
    segment = log.sends.segment
    keep = result.selection.keeps(log)
    found, n = np.unique(segment[keep], return_counts=True)
    if not (found != NONE).any():
        return pd.DataFrame()
    out: list[dict[str, Any]] = []
    for code in found[np.argsort(-n, kind="stable")][:MOST_SEGMENTS].tolist():
        name = "" if code == NONE else log.text("segment", np.array([code]))[0]
        part = metrics_table(log, result.bound, restricted(result.attribution, keep & (segment == code)))
        out += [{"segment": name} | row for row in part]
    return pd.DataFrame(out)

"""The results table with what people ask next: the difference against the control, and the chance to be the best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from justai_sim.bandit.independent import Normal, best_of
from justai_sim.bandit.policy import LOWER_IS_BETTER
from justai_sim.errors import DataError
from justai_sim.estimate.metrics import ALL, HELD_OUT, metrics_table
from justai_sim.replays import Replay, restricted
from justai_sim.stats import z_value
from justai_sim.tables import I8, NONE
from justai_sim.verdicts.compare import compare
from justai_sim.verdicts.verdict import decisions
from justai_sim.whatif.decided import Decided

ADDED = ("against", "difference_per_1000", "low_per_1000", "high_per_1000", "told", "chance_best")
MOST_SEGMENTS = 50


def results(result: Replay, found: tuple[Decided, I8] | None = None) -> pd.DataFrame:
    """`Replay.metrics` with, per template and variant, by the key metric on mature sends: `against` (the control),
    `difference_per_1000, low_per_1000, high_per_1000` (a confidence sequence for all variants of the template and all
    days at once, as in the verdict), `told` (1 better, -1 worse, 0 neither), and `chance_best` within the template.

    The chance is that of independent normal posteriors with the mature rates and the errors of their 95 % intervals.
    Missing where too little is mature, for the control, held-out users and `ALL (distinct)`. `found`: what
    `verdicts.verdict.decisions` gave.
    """
    rows = result.rows()
    told = _differences(result, found)
    chance = _chances(rows, result.program.key_metric)
    for i, row in enumerate(rows):
        row |= dict.fromkeys(ADDED) | told.get((row["template_id"], row["variant_id"]), {})
        row["chance_best"] = chance.get(i)
    return pd.DataFrame(rows)


def _differences(result: Replay, found: tuple[Decided, I8] | None) -> dict[tuple[str, str], dict[str, Any]]:
    try:
        d, ripe = found or decisions(result)
    except DataError:
        return {}
    out: dict[tuple[str, str], dict[str, Any]] = {}
    now = np.array([result.attribution.as_of], np.int64)
    of = np.array(d.templates, dtype=object)
    for template in sorted(set(d.templates)):
        here = (of == template)[d.context]
        table = compare(d.take(here), ripe[here], now).table
        for r in table.to_dict("records"):
            if r["ready"]:
                out[template, str(r["variant_id"])] = {str(k): r[k] for k in ADDED[:-1]}
    return out


def _chances(rows: list[dict[str, Any]], metric: str) -> dict[int, float]:
    """By row: the chance to have the best mature rate of its template."""
    of: dict[str, list[int]] = {}
    for i, r in enumerate(rows):
        known = r.get(f"mature_{metric}_low") is not None and r.get(f"mature_{metric}_high") is not None
        if r["template_id"] != ALL and r["variant_id"] != HELD_OUT and known:
            of.setdefault(r["template_id"], []).append(i)
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    out: dict[int, float] = {}
    for at in of.values():
        mean = sign * np.array([rows[i][f"mature_{metric}"] for i in at])
        width = np.array([rows[i][f"mature_{metric}_high"] - rows[i][f"mature_{metric}_low"] for i in at])
        sd = np.maximum(width / (2 * z_value(0.95)), 1e-12)
        chance = best_of(Normal(mean[None], sd[None]), np.ones((1, len(at)), bool))[0]
        out |= dict(zip(at, chance.tolist(), strict=True))
    return out


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

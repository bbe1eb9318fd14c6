"""The report of what other policies would have earned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from justai_sim.pages.page import picture
from justai_sim.pages.question_page import write_question_page
from justai_sim.pages.table import Column, Form, Part
from justai_sim.pages.what_if import QUESTION, plot_what_if
from justai_sim.whatif.interpretations import records
from justai_sim.whatif.policy import WhatIf, write_tables

CAPTION = (
    "Each policy's value per send on the decisions of the log, all templates together, with 95 % intervals over users. "
    "The dashed line is what the log's own policy earned; of intervals that cross it, the difference may be nothing. "
    "Below, what the earlier half of the log predicts for the later one, and (a cross) what that earned."
)
LIMITS = (
    "One decision at a time: what an earlier message does to the response to a later one stays as it was in the log. "
    "Nothing is told of variants that were not drawn, nor of users who were not served."
)


def write_what_if_report(got: WhatIf, title: str, out: Path) -> Path:
    """Write index.html, the figure as PNG and SVG, estimates.csv and overlap.csv into the folder `out`; returns the
    page. The same result gives the same bytes."""
    write_tables(got, out)
    drawn = plot_what_if(got.estimates, got.check, got.headline)
    return write_question_page(
        out, title=title, headline=got.headline, lines=got.answers, simulated=got.simulated,
        blocks=[picture(drawn, out, "what_if", QUESTION, CAPTION),
                Part("Does the log predict itself?", got.check_said), estimates_part(got), overlap_part(got)],
        rule=got.rule, as_of=got.as_of, facts=[("metric", got.metric.replace("_", " "))],
        notes=[*got.notes, LIMITS], files=["estimates.csv", "overlap.csv"],
    )  # fmt: skip


def estimates_part(got: WhatIf) -> Part:
    """Every estimate with its diagnostics."""
    form: Form = "money" if got.metric == "revenue_per_send" else "percent2"
    rows: list[dict[str, Any]] = []
    for r in records(got.estimates):
        per_1000 = {k: None if r[k] is None else 1000 * r[k] for k in ("gain", "gain_low", "gain_high")}
        ends = {"value_low": r["low"], "value_high": r["high"]}
        rows.append(
            r | per_1000 | ends | {"said": r["because"] if r["status"] == "estimated" else f"cannot tell: {r['why']}"}
        )
    columns = (
        Column("policy", "policy"), Column("template_id", "template"), Column("estimator", "estimator"),
        Column("value", got.metric.replace("_", " "), form, interval=True),
        Column("gain", "gain per 1,000 sends", "number", interval=True), Column("decisions", "decisions", "int"),
        Column("effective", "worth", "int"), Column("largest_weight", "largest weight", "number"),
        Column("mean_weight", "mean weight", "number"), Column("said", "why"),
    )  # fmt: skip
    return Part(
        "Estimates", "Worth: as many decisions of the policy itself would tell as much (effective sample size). "
        "Weights must average 1.", rows, columns,
    )  # fmt: skip


def overlap_part(got: WhatIf) -> Part:
    """How often each variant was drawn, and with which probability."""
    columns = (
        Column("template_id", "template"), Column("segment", "segment"), Column("variant_id", "variant"),
        Column("decisions", "decisions", "int"), Column("share", "share", "percent"),
        Column("propensity", "mean propensity", "percent2"), Column("propensity_least", "least", "percent2"),
        Column("drawn", "drawn per propensity", "number"), Column("z", "z", "one"),
    )  # fmt: skip
    return Part(
        "What the log can tell of", "How often each variant was chosen, and with which probability. Drawn per "
        "propensity: 1 where variants were drawn as their probabilities say.", records(got.overlap), columns,
    )  # fmt: skip

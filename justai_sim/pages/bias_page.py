"""The report of one world's bias identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justai_sim.biases.table import Bias
from justai_sim.pages.bias import LABELS, QUESTION, UNITS, plot_bias, seen
from justai_sim.pages.page import picture
from justai_sim.pages.question_page import write_question_page
from justai_sim.pages.table import Column, Part
from justai_sim.sheets import write_csv

CAPTION = "Orange adds to what is shown, green takes away; every step is exact."


@dataclass(frozen=True)
class BiasData:
    """The bias of a world, and which part of it is shown."""

    bias: Bias
    identity: str = "sends"
    variant: str | None = None
    template: str | None = None


def write_bias_report(data: BiasData, title: str, out: Path) -> Path:
    """Write index.html, the waterfall and bias.csv (all identities) into the folder `out`; returns the page."""
    shown: dict[str, Any] = {"identity": data.identity, "variant": data.variant, "template": data.template}
    write_csv(data.bias.table, out / "bias.csv", "%.15g")
    return write_question_page(
        out, title=title, headline=seen(data.bias.table, **shown), simulated=True,
        blocks=[picture(plot_bias(data.bias.table, **shown), out, "bias", QUESTION, CAPTION), terms(data)],
        about="Source", facts=[("world", data.bias.world), ("counted", UNITS[data.identity])], files=["bias.csv"],
    )  # fmt: skip


def terms(data: BiasData) -> Part:
    """Every term that is not zero everywhere, by variant, and what it says."""
    rows, names = data.bias.by_variant(data.identity, data.variant, data.template)
    columns = [Column("label", "term"), *(Column(f"v {n}", n, "number") for n in names), Column("said", "meaning")]
    told = [
        {"label": LABELS[r["term"]], "said": data.bias.meaning[r["term"]], **{f"v {n}": r[n] for n in names}}
        for r in rows
    ]
    return Part("Term by term", "From what the sends caused down to what is shown; all terms add up.", told, columns)

"""The reports of the single questions about a log: verdict, interpretations, doctor, reconcile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from justai_sim.checks.doctor import Diagnosis
from justai_sim.pages.brief import save_brief
from justai_sim.pages.figures import plot_interpretations, plot_receipt
from justai_sim.pages.interpretations import QUESTION as READINGS
from justai_sim.pages.page import picture
from justai_sim.pages.question_page import write_question_page
from justai_sim.pages.receipt import QUESTION as RECEIPT
from justai_sim.pages.replay_tabs import OPTIONS, differences, findings, race, readings, trust, write_race
from justai_sim.pages.table import Column, Form, Part
from justai_sim.sheets import write_csv
from justai_sim.verdicts.verdict import Verdict
from justai_sim.whatif import reconcile_words, words
from justai_sim.whatif.interpretations import Interpretations, records
from justai_sim.whatif.reconcile import Reconciliation

MOST = 10
"""Presets in the table; the file holds all."""


def write_verdict_report(got: Verdict, title: str, out: Path) -> Path:
    """Write index.html, the slide, the figures and race.csv into the folder `out`; returns the page."""
    write_race(got, out)
    save_brief(got, out / "brief.png")
    table = differences(got)
    return write_question_page(
        out, title=title, headline=got.sentence, lines=got.decided.because, simulated=got.simulated,
        blocks=[*([table] if table.rows else []), trust(got), race(got, out)],
        rule=got.rule, as_of=got.as_of, facts=[("metric", got.metric.replace("_", " ")), *_goals(got.goals)],
        notes=got.notes, files=["brief.png", *(["race.csv"] if len(got.race) else [])],
    )  # fmt: skip


def write_interpretations_report(got: Interpretations, title: str, out: Path) -> Path:
    """Write index.html, the figure, interpretations.csv and rates.csv into the folder `out`; returns the page."""
    write_csv(got.table, out / "interpretations.csv")
    write_csv(got.rates, out / "rates.csv")
    left = [text for text in (words.unchanged(got.table), words.not_applied(got.table)) if text]
    return write_question_page(
        out, title=title, headline=words.headline(got.table), lines=[words.verdict(got.table)], simulated=got.simulated,
        blocks=[picture(plot_interpretations(got.table), out, "interpretations", READINGS, OPTIONS), readings(got)],
        rule=got.rule, as_of=got.as_of, facts=[("metric", got.metric.replace("_", " "))],
        notes=[*got.notes, *left], files=["interpretations.csv", "rates.csv"],
    )  # fmt: skip


def write_doctor_report(got: Diagnosis, title: str, out: Path) -> Path:
    """Write index.html and doctor.txt into the folder `out`; returns the page."""
    (out / "doctor.txt").write_text(f"{got}\n", encoding="utf-8", newline="\n")
    clean = f"Nothing found by: {', '.join(got.clean)}." if got.clean else ""
    return write_question_page(
        out, title=title, headline=first_finding(got), lines=[got.headline], simulated=got.simulated,
        blocks=[*([findings(got)] if got.findings else []),
                *([Part("What could not be looked at", " · ".join(got.not_checked))] if got.unchecked else [])],
        rule=got.rule, as_of=got.as_of, facts=_goals(got.goals), notes=[clean] if clean else [], files=["doctor.txt"],
    )  # fmt: skip


def first_finding(got: Diagnosis) -> str:
    """The worst finding, or that there is none; what a design explains is no fault."""
    worst = next((f for f in got.findings if f.severity != "note"), None)
    return worst.sentence if worst is not None else f"Nothing is wrong with this log in any of {len(got.clean)} checks."


def write_reconcile_report(got: Reconciliation, title: str, out: Path) -> Path:
    """Write index.html, the receipt and the tables into the folder `out`; returns the page."""
    tables = ("comparison", "receipt", "presets", "reasons")
    for name in tables:
        write_csv(getattr(got, name), out / f"{name}.csv")
    told = len(got.receipt) > 0 and got.close
    first, *more = reconcile_words.verdict(got)
    caption = f"From our conversions to theirs, as {got.closest[0]} counts."
    return write_question_page(
        out, title=title, headline=first, lines=more, simulated=got.simulated,
        blocks=[*([picture(plot_receipt(got.receipt), out, "receipt", RECEIPT, caption)] if told else []),
                *_compared(got)],
        rule=got.rule, as_of=got.as_of, notes=got.notes, files=[f"{n}.csv" for n in tables],
    )  # fmt: skip


def _compared(got: Reconciliation) -> list[Part]:
    """The dashboard's numbers beside ours, the presets, and where every goal event ended."""
    c = got.comparison
    out = []
    for name, part in c.groupby("measure", sort=False):
        form: Form = "percent2" if str(name).endswith("_rate") else "number"
        numbers = (("theirs", "theirs"), ("ours", "ours"), ("difference", "difference"), ("closest", got.closest[0]))
        columns = [Column("template_id", "template"), Column("variant_id", "variant"),
                   *(Column(k, text, form) for k, text in numbers)]  # fmt: skip
        out.append(Part(str(name).replace("_", " ").capitalize(), "", records(part), columns))
    what = got.measure.replace("_", " ")
    rows: list[dict[str, Any]] = [
        r | {"apart": words.off(r["distance"], got.empty)} for r in records(got.presets)[:MOST]
    ]
    presets = (Column("preset", "preset"), Column("conversions", "conversions", "int"),
               Column("apart", f"{what} apart"))  # fmt: skip
    out.append(Part("What other systems would count", "The nearest first; all are in presets.csv.", rows, presets))
    reasons = [Column("reason", "reason"), Column("events", "events", "int")]
    reasons += [Column("counted_by_closest", f"counted by {got.closest[0]}", "int")] if got.close else []
    return [*out, Part("What our rule did with every goal event", "", records(got.reasons), reasons)]


def _goals(goals: Sequence[str]) -> list[tuple[str, str]]:
    return [("goal", ", ".join(goals))] if goals else []

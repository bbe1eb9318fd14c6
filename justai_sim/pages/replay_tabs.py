"""The tabs of a replay's page that hold what else is asked of the log: verdict, interpretations, doctor, what-if."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from justai_sim.checks.doctor import Diagnosis
from justai_sim.errors import listed
from justai_sim.pages.brief import save_brief
from justai_sim.pages.figures import plot_interpretations, plot_race, plot_what_if
from justai_sim.pages.interpretations import QUESTION as READINGS
from justai_sim.pages.looks import QUESTION as RACE
from justai_sim.pages.looks import drawable
from justai_sim.pages.page import Picture, picture
from justai_sim.pages.rule_words import window_words
from justai_sim.pages.table import Column, Form, Part
from justai_sim.pages.what_if import QUESTION as POLICIES
from justai_sim.pages.what_if_page import CAPTION, LIMITS, estimates_part, overlap_part
from justai_sim.sheets import write_csv
from justai_sim.verdicts.compare import LEAST_SENDS, LEAST_USERS
from justai_sim.verdicts.desk import Desk
from justai_sim.verdicts.verdict import Verdict
from justai_sim.whatif.interpretations import Interpretations, records
from justai_sim.whatif.words import leader_of
from justai_sim.whatif.words import verdict as readings_said

TOLD = {1: "better", -1: "worse", 0: "not told apart"}
LOOKS = (
    "What the log would have told on every day. The band is the leader's interval; it holds for all variants and all "
    "days at once (95 %), so that looking daily costs nothing. Rows that were heard of late count on the day on which "
    "their send was mature. Below, the smallest difference that was visible."
)
NO_LOOKS = "On no day could anything have been told."
RULES = {
    "results": "Below, each template and metric by itself; intervals of rates are of this day alone.",
    "window": "Below, a leader is one by the window that is looked at.",
    "interpretations": "Below, a leader is one by the reading that is looked at.",
    "what-if": "Below, gains are over the log's own policy, on the decisions of the log, looked at once.",
}
"""What the other tabs say is no second verdict."""
OPTIONS = "Each reading changes one option of the rule; presets count as other systems do."


def tabs(desk: Desk, out: Path) -> dict[str, Any]:
    """Values of the template; writes the figures and the slide into `out`."""
    readings, other = desk.readings, desk.what_if
    return {
        "verdict": desk.verdict,
        "window_words": window_words(desk.verdict.rule),
        "differences": differences(desk.verdict),
        "trust": trust(desk.verdict),
        "race": race(desk.verdict, out),
        "brief": save_brief(desk.verdict, out / "brief.png").name,
        "segments": segments(desk),
        "readings": None if readings is None else _readings(readings, out),
        "doctor": None if desk.diagnosis is None else _doctor(desk.diagnosis),
        "what_if": None if other is None else {
            "headline": other.headline, "answers": other.answers, "check": other.check_said,
            "notes": [*other.notes, LIMITS], "estimates": estimates_part(other), "overlap": overlap_part(other),
            "picture": picture(plot_what_if(other.estimates, other.check, other.headline), out, "what_if", POLICIES,
                               CAPTION),
        },
        "why": desk.why,
        "rules": {k: f"The verdict decides: {desk.verdict.answer}. {text}" for k, text in RULES.items()},
    }  # fmt: skip


def race(got: Verdict, out: Path) -> Picture:
    """What the log would have told on every day, or what it lacks for that."""
    told = len(got.race) and len(drawable(got.race))
    return picture(plot_race(got.race, missing=got.sentence), out, "race", RACE, LOOKS if told else NO_LOOKS)


def write_tables(desk: Desk, out: Path) -> None:
    """results.csv, race.csv, segments.csv, interpretations.csv: what the page shows, as long tables."""
    write_csv(desk.results, out / "results.csv")
    write_race(desk.verdict, out)
    if len(desk.segments):
        write_csv(desk.segments, out / "segments.csv")
    if desk.readings is not None:
        write_csv(desk.readings.table, out / "interpretations.csv")


def write_race(got: Verdict, out: Path) -> None:
    """race.csv, if there is anything to tell."""
    if len(got.race):
        times = got.race["as_of"].map(lambda t: t.isoformat())
        write_csv(got.race.assign(as_of=times), out / "race.csv", "%.10g")


def differences(got: Verdict) -> Part:
    """Every variant against the control."""
    rows: list[dict[str, Any]] = []
    for r in got.table.to_dict("records"):
        ends = {"difference_low": r["low_per_1000"], "difference_high": r["high_per_1000"]}
        shown = {"difference": r["difference_per_1000"], **ends} if r["ready"] else {}
        few = "too few users" if r["users"] < LEAST_USERS and r["sends"] >= LEAST_SENDS else "too few mature sends"
        said = TOLD[int(r["told"])] if r["ready"] else few
        rows.append({"variant_id": r["variant_id"], "sends": r["sends"], "against": r["against_sends"], **shown,
                     "said": said})  # fmt: skip
    columns = (
        Column("variant_id", "variant"),
        Column("difference", f"{got.unit} per 1,000 sends minus {got.reference}", "number", interval=True),
        Column("said", "told"), Column("sends", "mature sends", "int"),
        Column("against", f"of {got.reference}", "int"),
    )  # fmt: skip
    note = (
        "Below a number: its interval, for all variants and all days at once (95 %). Shares that changed are allowed "
        "for by the probabilities with which variants were drawn."
    )
    return Part(f"Differences against {got.reference}", "", rows, columns, note)


def trust(got: Verdict) -> Part:
    """The seven checks."""
    rows = [{"name": c.name, "status": c.status, "said": c.said} for c in got.checks]
    columns = (Column("name", "check"), Column("status", "result"), Column("said", "because"))
    return Part("Can these numbers be trusted?", "", rows, columns)


def segments(desk: Desk) -> Part:
    """The key metric by segment, on mature sends."""
    metric = desk.verdict.metric
    form: Form = "money" if metric == "revenue_per_send" else "percent2"
    columns = [Column("segment", "segment"), Column("template_id", "template"), Column("variant_id", "variant")]
    columns += [Column("sends", "sends", "int"), Column("mature_sends", "mature sends", "int")]
    columns += [Column(f"mature_{metric}", f"{metric.replace('_', ' ')}, mature", form, interval=True)]
    note = "All five metrics of every segment are in segments.csv. Of many segments some differ by chance."
    return Part("By segment", "", records(desk.segments), columns, note)


def readings(got: Interpretations) -> Part:
    """Every reading that changes something."""
    t = got.table
    rows: list[dict[str, Any]] = []
    for r in records(t[t["status"].isin(["in use", "changes"])]):
        own = {"difference": r["difference_per_1000"], "effect": r["effect_per_1000"], "leader": leader_of(r)}
        own |= {f"{k}_{e}": r[f"{k}_{e}"] for k in ("difference", "effect") for e in ("low", "high")}
        rows.append(r | own)
    columns = (
        Column("reading", "reading"), Column("meaning", "meaning"), Column("total", "counts", "int"),
        Column("leader", "leader"), Column("difference", "difference per 1,000", "number", interval=True),
        Column("effect", "changes it by", "number", interval=True),
    )  # fmt: skip
    return Part("Readings that change something", "", rows, columns)


def _readings(got: Interpretations, out: Path) -> dict[str, Any]:
    return {
        "said": readings_said(got.table),
        "notes": got.notes,
        "picture": picture(plot_interpretations(got.table), out, "interpretations", READINGS, OPTIONS),
        "table": readings(got),
    }  # fmt: skip


def findings(got: Diagnosis) -> Part:
    """What the doctor found."""
    rows = [{"severity": f.severity, "name": f.name.replace("_", " "), "said": f.sentence, "next": f.next_step}
            for f in got.findings]  # fmt: skip
    columns = (Column("severity", "severity"), Column("name", "finding"), Column("said", "what was found"),
               Column("next", "next step"))  # fmt: skip
    return Part("Findings", "", rows, columns)


def _doctor(got: Diagnosis) -> dict[str, Any]:
    return {
        "headline": got.headline,
        "table": findings(got),
        "unchecked": got.not_checked,
        "clean": listed(got.clean, 99),
    }


def key_columns(against: str) -> list[Column]:
    """The columns that `verdicts.results` adds to the results table."""
    return [
        Column("difference", f"per 1,000 sends minus {against}", "number", interval=True),
        Column("chance_best", "chance to be the best", "percent"),
    ]


def with_key(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `verdicts.results` with the keys that a column with an interval asks for."""
    out = []
    for r in rows:
        ends = {"difference": r.get("difference_per_1000"), "difference_low": r.get("low_per_1000"),
                "difference_high": r.get("high_per_1000")}  # fmt: skip
        out.append(r | {k: None if v is None or not np.isfinite(v) else v for k, v in ends.items()})
    return out

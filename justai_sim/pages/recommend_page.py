"""The page of a recommendation, and what a sweep's page says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from justai_sim.errors import UsageError
from justai_sim.pages.assumed import assumptions
from justai_sim.pages.figures import plot_recommend
from justai_sim.pages.inputs import CRITERIA, Question, Raced, Recommendation, SweepData, recommend
from justai_sim.pages.page import picture
from justai_sim.pages.question_page import write_question_page
from justai_sim.pages.recommend import standings
from justai_sim.pages.table import Column, Part
from justai_sim.sheets import write_csv

ALT = "Each decision minus the best one, with intervals that hold all together"


@dataclass(frozen=True)
class RecommendData:
    """A recommendation, and how the race of its sweep went."""

    found: Recommendation
    raced: Raced | None = None


def write_recommend_page(data: RecommendData, title: str, out: Path) -> Path:
    """Write index.html, recommend.csv and the figure into the folder `out`; returns the page."""
    found, scenario = data.found, data.found.scenario
    first, _, rest = found.answer.rstrip(".").partition(". ")
    write_csv(found.table, out / "recommend.csv", "%.10g")
    tie = "A tie is a tie: more worlds may tell."
    return write_question_page(
        out, title=title, top=f"judged by: {found.question.what.title}", headline=f"{first}.", simulated=True,
        lines=[f"{rest}." if rest else ""],
        blocks=[picture(plot_recommend(found.table), out, "recommend", ALT, tie),
                *(p for p in (standings(found.table, "Every decision", "", ""), stopped(data.raced)) if p.rows),
                assumptions(scenario)],
        about="How the numbers were made", notes=[found.method], files=["recommend.csv"],
        facts=[("question", scenario.question)] if scenario.question else [],
    )  # fmt: skip


def by_criterion(data: SweepData) -> tuple[Part, pd.DataFrame | None]:
    """What to choose by each criterion, and the table of the first; nothing where a sweep compares no decisions."""
    first = data.raced.criterion if data.raced is not None else "right_by_day"
    rows: list[dict[str, str]] = []
    table, note = None, ""
    few = data.metrics["rep"].nunique() < 2
    for name in [] if few else sorted(CRITERIA, key=lambda c: c != first):
        try:
            found = recommend(data, Question(criterion=name))
        except UsageError:
            break
        table = found.table if table is None else table
        rows.append({"criterion": CRITERIA[name].title, "answer": found.answer})
        note = found.method
    columns = (Column("criterion", "judged by"), Column("answer", "answer"))
    return Part("What to choose", "", rows, columns, note), table


def stopped(raced: Raced | None) -> Part:
    """Which points left a race: when, and behind which."""
    if raced is None:
        return Part("What stopped early", "")
    share = raced.criterion == "right_by_day"
    rows = [
        {"point": s.point, "worlds": s.worlds, "against": s.against, "difference": s.difference,
         "difference_low": s.low, "difference_high": s.high} for s in raced.stopped
    ]  # fmt: skip
    columns = (
        Column("point", "stopped"), Column("worlds", "after worlds", "int"), Column("against", "behind"),
        Column("difference", "by, points" if share else "by", "points" if share else "one", interval=True),
    )  # fmt: skip
    looks = ", ".join(map(str, raced.looks))
    note = (
        f"A race by: {CRITERIA[raced.criterion].title}. It was looked at after {looks} worlds; what was clearly "
        "worse then was not simulated further. The intervals hold for all pairs and looks together (98 %, Bonferroni)."
    )
    return Part("What stopped early", "" if rows else "Nothing was clearly worse.", rows, columns, note)

"""The page of a recommendation, and what a sweep's page says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from justai_sim.errors import UsageError
from justai_sim.pages.assumed import assumptions
from justai_sim.pages.figures import plot_recommend
from justai_sim.pages.inputs import CRITERIA, Question, Raced, Recommendation, SweepData, recommend
from justai_sim.pages.naming import WINDOW
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
    first, rest = first_sentence(found)
    write_csv(found.table, out / "recommend.csv", "%.10g")
    tie = "A tie is a tie: more worlds may tell."
    return write_question_page(
        out, title=title, top=f"judged by: {found.question.what.title}", headline=first, simulated=True,
        lines=[rest],
        blocks=[picture(plot_recommend(found.table), out, "recommend", ALT, tie),
                *(p for p in (standings(found.table, "Every decision", "", ""), stopped(data.raced)) if p.rows),
                assumptions(scenario)],
        about="How the numbers were made", notes=[found.method], files=["recommend.csv"],
        facts=[("question", scenario.question)] if scenario.question else [],
    )  # fmt: skip


def first_sentence(found: Recommendation) -> tuple[str, str]:
    """The answer's first sentence, and the others."""
    first, _, rest = found.answer.rstrip(".").partition(". ")
    return f"{first}.", f"{rest}." if rest else ""


def recommendations(data: SweepData) -> list[Recommendation]:
    """What to choose by each criterion; none where a sweep compares no decisions, or has one world.

    The first is what the page is about: the criterion of the race, else the right variant where windows are compared,
    else conversions: what they are measured by may differ.
    """
    windows = any(WINDOW in p.labels for p in data.points)
    first = data.raced.criterion if data.raced is not None else "right_by_day" if windows else "conversions"
    if data.metrics["rep"].nunique() < 2:
        return []
    try:
        return [recommend(data, Question(criterion=name)) for name in sorted(CRITERIA, key=lambda c: c != first)]
    except UsageError:
        return []


def by_criterion(found: Sequence[Recommendation]) -> Part:
    """What to choose by each criterion."""
    rows = [{"criterion": r.question.what.title, "answer": r.answer} for r in found]
    columns = (Column("criterion", "judged by"), Column("answer", "answer"))
    return Part("What to choose", "", rows, columns, found[-1].method if found else "")


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

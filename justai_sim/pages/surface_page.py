"""The report of a window surface: who leads under which window, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from justai_sim.attribution import Rule
from justai_sim.pages.page import WINDOWS, picture
from justai_sim.pages.question_page import write_question_page
from justai_sim.pages.surface_words import in_use, judgement, usual_rows
from justai_sim.pages.table import Column, Part, number
from justai_sim.pages.window_map import plot_window_map
from justai_sim.replays import Replay
from justai_sim.sheets import write_csv
from justai_sim.surfaces import ADVICE, CANNOT_TELL, WindowSurface, of_frame

MAP = (
    "Every rectangle is a window. A coloured one has a leader: its difference per 1,000 sends is beyond the bound that "
    "the largest of all windows passes in 5 % of logs of equal variants."
)
FILES = ("windows.csv", "cells.csv", "chosen.csv")


@dataclass(frozen=True)
class SurfaceData:
    """A surface with what its page says of the log; windows: `WindowSurface.by_group`."""

    windows: pd.DataFrame
    metric: str
    rule: Rule
    goals: list[str]
    control: str
    as_of: int
    notes: list[str]
    simulated: bool

    @property
    def surface(self) -> WindowSurface:
        rule = self.rule
        return of_frame(self.windows, (rule.offset_days, rule.lookback_days), self.metric,
                        rule.lookback_from == "offset_end", self.simulated)  # fmt: skip


def surface_data(result: Replay, got: WindowSurface) -> SurfaceData:
    """What the page of a replayed log's surface needs."""
    return SurfaceData(
        got.by_group, got.metric, result.program.rule, list(result.program.goals), result.control,
        result.attribution.as_of, [*result.notes, *result.mix[1]], got.simulated,
    )  # fmt: skip


def write_surface_report(data: SurfaceData, title: str, out: Path) -> Path:
    """Write index.html, the figure and the tables of every window into the folder `out`; returns the page."""
    got = data.surface
    write_csv(got.frame, out / "windows.csv", "%.10g")
    write_csv(got.cells, out / "cells.csv", "%.10g")
    write_csv(got.chosen(), out / "chosen.csv", "%.10g")
    offset, lookback = got.in_use
    drawn = plot_window_map(got, control=data.control, offset_days=offset, lookback_days=lookback)
    left_out = [f"not compared, too few conversions in most windows: {', '.join(v or '(none)' for v in got.left_out)}"]
    return write_question_page(
        out, title=title, headline=got.answer(), lines=[in_use(got), ADVICE], simulated=data.simulated,
        blocks=[picture(drawn, out, "window_map", WINDOWS, MAP), usual(got),
                Part("A window chosen on half of the users", judgement(got))],
        rule=data.rule, as_of=data.as_of, facts=facts_of(data), files=FILES,
        notes=[*data.notes, *(left_out if got.left_out else [])],
    )  # fmt: skip


def facts_of(data: SurfaceData) -> list[tuple[str, str]]:
    facts = [("compared", f"{data.metric.replace('_', ' ')} per mature send"), ("control", data.control)]
    return [*facts, *([("goal", ", ".join(data.goals))] if data.goals else [])]


def usual(got: WindowSurface) -> Part:
    """The usual windows as a table."""
    rows = [
        {"window": r["window"], "leader": r["leader"], "difference": r["difference_per_1000"],
         "difference_low": r["low_per_1000"], "difference_high": r["high_per_1000"],
         "of": f"{r['ahead']} minus {r['second']}" if r["leader"] != CANNOT_TELL else "", "z": r["z"],
         "conversions": r["conversions"], "sends": r["mature_sends"]} for r in usual_rows(got)
    ]  # fmt: skip
    columns = (
        Column("window", "window"), Column("difference", "difference per 1,000", "number", interval=True),
        Column("of", "of"), Column("leader", "leader"), Column("z", "z", "number"),
        Column("conversions", "conversions", "int"), Column("sends", "mature sends", "int"),
    )  # fmt: skip
    note = (
        f"A leader needs z above {number(got.judged.bound)}, the bound of the whole map (95 %); the intervals hold for "
        "all windows at once. All windows are in cells.csv."
    )
    return Part("The usual windows", "", rows, columns, note)

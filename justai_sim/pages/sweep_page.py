"""The report of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from justai_sim.pages.answer import answer, race_frame
from justai_sim.pages.bias import of_sweep
from justai_sim.pages.figures import plot_age, plot_bias, plot_race, plot_recommend, plot_shares, plot_window_map
from justai_sim.pages.inputs import SweepData
from justai_sim.pages.page import AGE, WINDOWS, Picture, picture, write_page
from justai_sim.pages.purchases import best_overall, control_of
from justai_sim.pages.recommend_page import ALT, by_criterion, recommendations, stopped

BEST = "By the first of the criteria above. `justai-sim recommend` draws it by another one, or by another day."


def write_sweep_report(data: SweepData, out: Path) -> Path:
    """Write index.html, and the figures as PNG and SVG, into the folder `out` (made if absent); returns the page.

    The same data gives the same bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = recommendations(data)
    said = answer(data, found)
    chosen = [picture(plot_recommend(r.table), out, "recommend", ALT, BEST) for r in found[:1]]
    tables = [p for p in (stopped(data.raced), said.comparison, said.credited) if p.rows or p.text]
    return write_page(
        "sweep.html.j2", out, title=data.scenario.name, question=data.scenario.question, said=said,
        choose=by_criterion(found), chosen=chosen, pictures=_pictures(data, out), tables=tables,
        notes=[said.leads, said.lost, said.lift],
    )  # fmt: skip


def _pictures(data: SweepData, out: Path) -> list[Picture]:
    rule = next((p for p in data.points if p.name == data.reference), data.points[0]).scenario.program.rule
    window: dict[str, Any] = {
        "control": control_of(data.scenario),
        "offset_days": rule.offset_days,
        "lookback_days": rule.upper_days,
    }
    best = best_overall(data.scenario)
    point = next((p for p in data.points if p.name == data.figures), data.points[0])
    split = ": an even split shows the windows alone" if point.scenario.program.policy.name == "uniform" else ""
    even = f" Sends of {data.figures}{split}." if data.figures else ""
    flow = len(data.scenario.program.templates) > 1
    return [
        picture(
            plot_age(data.age, **window, overlapping=flow), out, "age", AGE[0], AGE[1] + even,
        ),
        picture(
            plot_window_map(data.windows, **window, best=best, groups_are_worlds=True), out, "window_map",
            WINDOWS,
            "Every rectangle is a window. Its colour is the variant that leads in it over all worlds; the paler, the "
            "more often a single world would name another one." + even,
        ),
        picture(
            plot_race(race_frame(data)), out, "race",
            "Right leader, wrong shipments and lost conversions by days since the start",
            "A window that is right sooner loses less. Shipped: the product's own rule has fired and the flow has "
            "settled on a variant.",
        ),
        picture(
            plot_shares(data.shares[data.shares["point"] == data.reference], control=control_of(data.scenario)), out,
            "shares", "Share of each variant by days since the start, a panel a template",
            f"What the policy in use gives each variant, the mean over worlds, under {data.reference}.",
        ),
        *_bias(data, out),
    ]  # fmt: skip


def _bias(data: SweepData, out: Path) -> list[Picture]:
    """The waterfall of the point in use; none for the tables of an earlier version."""
    terms = of_sweep(data)
    if not len(terms):
        return []
    return [picture(
        plot_bias(terms), out, "bias", "From the sends that caused a conversion to those that the dashboard shows",
        f"All variants and templates of {data.reference}, means over worlds. Orange adds to what is shown, green takes "
        "away, and every step is exact: one world by variant is printed by justai-sim bias.",
    )]  # fmt: skip

"""Figures on any axes, under any style, of any names; and what they say where there is nothing to draw."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

import justai_sim as js
from justai_sim.pages.figures import (
    plot_age,
    plot_brief,
    plot_delay,
    plot_interpretations,
    plot_race,
    plot_shares,
    plot_what_if,
    plot_window_map,
    render,
)
from justai_sim.pages.log_pages import write_verdict_report
from justai_sim.pages.style import CONTROL, FAINT, distinct, looks, shown
from justai_sim.verdicts.verdict import Verdict
from justai_sim.whatif import words
from tests.test_pages import delay_frame, replay_data, sweep_data
from tests.verdict_logs import made_log

LONG = [f"a long variant name {i:02}" for i in range(19)]


@cache
def told() -> Verdict:
    return js.verdict(made_log(1, rates=(0.04, 0.08, 0.04), days=40), goals=["purchase"])


@cache
def estimates() -> pd.DataFrame:
    return js.what_if(made_log(1, days=20, per_day=100), goals=["purchase"]).estimates


@cache
def readings_table() -> pd.DataFrame:
    return js.interpretations(made_log(1, days=20, per_day=100), goals=["purchase"]).table


FIGURES: dict[str, Callable[..., Axes]] = {
    "age": lambda ax=None: plot_age(sweep_data(8).age, ax=ax),
    "map of a log": lambda ax=None: plot_window_map(replay_data(4).windows, ax=ax),
    "map of worlds": lambda ax=None: plot_window_map(
        sweep_data(4).windows, best="story", groups_are_worlds=True, ax=ax
    ),
    "race": lambda ax=None: plot_race(sweep_data(4).race, ax=ax),
    "race of a log": lambda ax=None: plot_race(told().race, ax=ax),
    "shares": lambda ax=None: plot_shares(replay_data(4).shares, ax=ax),
    "delay": lambda ax=None: plot_delay(delay_frame(3), ax=ax),
    "brief": lambda ax=None: plot_brief(told(), ax=ax),
    "what if": lambda ax=None: plot_what_if(estimates(), ax=ax),
    "interpretations": lambda ax=None: plot_interpretations(readings_table(), ax=ax),
}


def figure_of(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def texts(ax: Axes) -> list[Text]:
    """What is written in the container and its panels, after it was drawn."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    out = [*ax.texts]
    for a in ax.child_axes:
        out += [*a.texts, a.xaxis.label, a.yaxis.label]
        for axis, (low, high) in ((a.xaxis, sorted(a.get_xlim())), (a.yaxis, sorted(a.get_ylim()))):
            shown_ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_visible()]
            out += [t.label1 for t in shown_ticks]
    return [t for t in out if t.get_text().strip()]


def contrast(colour: Any, behind: Any = "white") -> float:
    """WCAG's contrast of two colours."""

    def light(c: Any) -> float:
        rgb = np.array(to_rgb(c))
        return float(np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((light(colour), light(behind)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", FIGURES)
def test_own_axes_under_a_dark_style_have_dark_text_on_a_white_sheet_that_stays_within_them(name: str) -> None:
    with matplotlib.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        ax = figure_of(18, 14).subplots(3, 3)[1, 1]
        assert FIGURES[name](ax) is ax
        assert dict(matplotlib.rcParams) == before
        written = texts(ax)
        sheet = min((p for p in ax.patches if isinstance(p, Rectangle)), key=lambda p: p.get_zorder())
        assert to_rgb(sheet.get_facecolor()) == (1, 1, 1)
        assert all(to_rgb(a.get_facecolor()) == (1, 1, 1) for a in ax.child_axes)
        boxes = [(t, Text.get_window_extent(t)) for t in written]
    room = ax.get_window_extent()
    assert len(written) > 8
    for t, b in boxes:
        assert contrast(t.get_color()) > 1.9, f"{t.get_text()} is {t.get_color()} on white"
        assert room.x0 - 1 <= b.x0 <= b.x1 <= room.x1 + 1, t.get_text()
        assert room.y0 - 1 <= b.y0 <= b.y1 <= room.y1 + 1, t.get_text()
    if name != "map of a log":  # names stand in cells, where they may meet the mark of the window in use
        for (t, one), (u, other) in itertools.combinations(boxes, 2):
            across, down = (
                min(one.x1, other.x1) - max(one.x0, other.x0),
                min(one.y1, other.y1) - max(one.y0, other.y0),
            )
            assert min(across, down) <= 2, f"{t.get_text()!r} lies over {u.get_text()!r}"
    for a in ax.child_axes:
        assert a.get_window_extent().height > 0.1 * room.height, "a panel is a sliver"


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("size", [(1.4, 1.0), (3.0, 9.0)])
def test_axes_of_any_size_hold_the_figure(name: str, size: tuple[float, float]) -> None:
    ax = figure_of(*size).add_axes((0, 0, 1, 1))
    written = texts(FIGURES[name](ax))
    room = ax.get_window_extent()
    sizes = [t.get_fontsize() for t in written]
    assert min(sizes) > 0
    for t in written:
        b = Text.get_window_extent(t)
        if size[0] < 3:  # no more than a few pixels a letter
            continue
        assert b.x1 <= room.x1 + 2, t.get_text()
        assert b.y0 >= room.y0 - 2, t.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_leaves_a_figure_of_its_own(name: str) -> None:
    ax = FIGURES[name]()
    written, room = texts(ax), ax.get_window_extent()
    for t in written:
        b = Text.get_window_extent(t)
        assert room.x0 - 1 <= b.x0 <= b.x1 <= room.x1 + 1, t.get_text()
        assert room.y0 - 1 <= b.y0 <= b.y1 <= room.y1 + 1, t.get_text()


def test_a_page_made_under_another_style_is_the_same() -> None:
    own = {"lines.marker": "x", "xtick.direction": "in", "axes.grid": True, "font.family": "monospace"}

    def made() -> list[bytes]:
        return [render(plot_race(told().race), "png"), render(plot_brief(told()), "svg"),
                render(plot_what_if(estimates()), "svg")]  # fmt: skip

    usual = made()
    with matplotlib.style.context(["dark_background", own]):
        assert made() == usual


def test_names_that_begin_alike_are_told_apart() -> None:
    assert shown("a long variant name 14") != shown("a long variant name 15")
    hard = [
        *LONG, *(f"spring_2026_{c}_of_the_long_campaign" for c in "ABCDEFG"),
        *(f"{'x' * 40}{i}{'y' * 40}{j}{'z' * 40}" for i in range(4) for j in range(4)), "control", "", "x" * 200,
    ]  # fmt: skip
    for limit in (14, 16, 18, 20, 24):
        got = distinct(hard, limit)
        assert list(got) == hard
        assert len(set(got.values())) == len(hard)
        assert max(map(len, got.values())) <= limit
    assert distinct(["control", "a"]) == {"control": "control", "a": "a"}


def test_twenty_variants_have_looks_of_their_own() -> None:
    style = looks([*LONG, "control"], "control")
    assert len({(s.colour, str(s.dash)) for s in style.values()}) == 20
    assert len({(s.colour, s.marker) for s in style.values()}) == 20


def long_shares() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    share = rng.dirichlet(np.ones(20), 30)
    share[-1] = np.sort(share[-1])
    names = [*LONG, "control"]
    rows = [("t", d, v, share[d, i]) for d in range(30) for i, v in enumerate(reversed(names))]
    return pd.DataFrame(rows, columns=["template_id", "day", "variant_id", "share"])


def test_shares_of_twenty_variants_name_each_and_show_the_leader_and_the_control() -> None:
    frame = long_shares()
    (panel,) = plot_shares(frame).child_axes
    labels = [t.get_text() for t in panel.texts]
    assert len(set(labels)) == 20
    last = frame[frame["day"] == 29].set_index("variant_id")["share"]
    for v in (*LONG, "control"):
        assert sum(label.startswith(shown(v)) and label.endswith(f"{100 * last[v]:.0f} %") for label in labels) == 1
    colours = [line.get_color() for line in panel.lines]
    assert colours.count(FAINT) == 15
    assert colours.count(CONTROL) == 1
    drawn = [line for line in panel.lines if line.get_color() not in (FAINT, CONTROL)]
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 4
    ends = [line.get_ydata()[-1] for line in drawn]
    leader = last.drop("control").max() * 100
    assert any(abs(end - leader) < 1e-9 for end in ends)  # type: ignore[operator]


def nothing_told() -> Verdict:
    return js.verdict(made_log(2, days=24, per_day=150, shares=(0.4, 0.3, 0.3)), goals=["purchase"])


def test_the_slide_of_a_log_that_tells_nothing_has_no_empty_axis_and_says_when() -> None:
    got = nothing_told()
    assert not got.table["ready"].any()
    ax = plot_brief(got)
    assert not ax.child_axes
    said = " ".join(t.get_text() for t in ax.texts)
    assert f"Wait {got.days} days, until " in said
    for variant, text in got.differences():
        assert f"{variant}: {text}" in said


def test_the_race_of_a_log_that_tells_nothing_says_what_is_missing_and_when(tmp_path: Any) -> None:
    got = nothing_told()
    ax = plot_race(got.race, missing=got.sentence)
    said = " ".join(t.get_text() for t in ax.texts)
    now = got.table.iloc[0]
    assert not ax.child_axes
    assert "it takes 1,000 mature sends of each variant" in said
    assert f"{now['sends']:,} of {now['variant_id']}" in said
    assert f"{now['against_sends']:,} of control" in said
    assert f"Wait {got.days} days" in said
    page = write_verdict_report(got, "t", tmp_path).read_text()
    assert "The band is" not in page
    assert "The band is" in write_verdict_report(told(), "t", tmp_path).read_text()


def test_an_interval_without_ends_is_not_drawn() -> None:
    race = nothing_told().race.assign(ready=True, low_per_1000=np.nan, high_per_1000=np.nan)
    ax = plot_race(race)
    assert not ax.child_axes
    assert "of too few users" in " ".join(t.get_text() for t in ax.texts)


def test_a_reading_under_which_nothing_counts_has_no_leader_and_no_mark() -> None:
    table = readings_table()
    empty = table[table["total"] == 0]
    assert len(empty)  # a preset that counts from 15 days on, or on the first day only
    assert set(empty["leader"]) == {""}
    assert {words.leader_of(r) for _, r in empty.iterrows()} == {"counts nothing"}
    (panel,) = plot_interpretations(table).child_axes
    marks = [t for t in panel.texts if t.get_text() == "counts nothing"]
    assert len(marks) == len(empty)
    places = {line.get_ydata()[0] for line in panel.lines if line.get_marker() in ("o", "s", "x")}  # type: ignore[index]
    assert not places & {t.xy[1] for t in marks}  # type: ignore[attr-defined]


def test_sentences_about_readings_do_not_call_nothing_a_leader() -> None:
    table = readings_table()
    n = len(table[(table["kind"] == "reading") & (table["total"] > 0)]) - 1
    empty = table["reading"].eq("credit=all")
    table = table.assign(status=table["status"].where(~empty, "changes"), total=table["total"].where(~empty, 0.0))
    assert f"of {n - 1} other" in words.headline(table) or f"all {n - 1} other" in words.headline(table)
    assert "1 more counts nothing" in words.headline(table)
    assert "1 of them counts nothing" in words.verdict(table)
    none = table.assign(total=0.0)
    assert words.headline(none) == "Nothing counts under the rule in use, so no variant is ahead."
    assert words.verdict(none).startswith("As in use, nothing counts.")

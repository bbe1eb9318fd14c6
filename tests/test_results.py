"""What every public result shows in a notebook, and the tables that public functions take."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from matplotlib.axes import Axes

import justai_sim as js
from justai_sim import api, frames
from justai_sim.errors import DataError, UsageError
from justai_sim.tables import SIMULATED, Log

CHOICES = ("Rule", "TrainingWindow", "Preset")
GOALS = ["purchase"]


@pytest.fixture(scope="module")
def world() -> api.Run:
    return js.simulate(js.read_scenario("fast_converter", {"days": 28, "world.signups_per_day": 100}))


def dashboard(world: api.Run) -> pd.DataFrame:
    m = js.replay(world.log, goals=GOALS).metrics
    return m.loc[m.template_id == "offer", ["variant_id", "sends", "conversions"]].reset_index(drop=True)


def results(world: api.Run, log: Log) -> dict[str, Any]:
    """One of each public class of results, all of the same log; `Run`, `Bias` and the sweep's are simulated anyway."""
    sends, events = (frames.to_frame(log, t) for t in ("sends", "events"))
    small = js.read_scenario("fast_converter", {"days": 14, "world.signups_per_day": 20, "replications": 2})
    sweep = js.sweep(small, workers=1)
    made: dict[str, Any] = {
        "Run": world, "Bias": js.bias(world), "Sweep": sweep, "Recommendation": js.recommend(sweep, "conversions"),
        "Replay": js.replay(log, goals=GOALS), "Attributed": js.attribute(js.Rule(), sends, events),
        "WindowSurface": js.window_surface(js.Rule(), sends, events, [0, 3], [7, 14]),
        "Interpretations": js.interpretations(log, goals=GOALS), "Estimates": js.estimates(log, goals=GOALS),
        "Reconciliation": js.reconcile(log, dashboard(world), goals=GOALS), "Log": log,
        "WhatIf": js.what_if(log, "uniform", goals=GOALS), "Diagnosis": js.doctor(log, goals=GOALS),
    }  # fmt: skip
    if "verdict" in js.__all__:
        made["Verdict"] = api.verdict(log, goals=GOALS)
    return made


@pytest.fixture(scope="module")
def shown(world: api.Run) -> dict[str, dict[str, str]]:
    """HTML of every result: of a simulated log, and of the same rows as if they were somebody's."""
    yours = dataclasses.replace(world.log, source="log")
    logs = {"simulated": world.log, "yours": yours}
    return {k: {name: r._repr_html_() for name, r in results(world, log).items()} for k, log in logs.items()}


def test_every_public_result_has_html(shown: dict[str, dict[str, str]]) -> None:
    classes = {n for n in api.__all__ if isinstance(getattr(api, n), type)} - {*CHOICES}
    assert classes <= set(shown["yours"]), "a new result: make one in `results`"
    for name, html in shown["yours"].items():
        assert re.search(r"<(table|p|ul|div)\b", html), name
        assert "<script" not in html


def test_they_say_simulated_where_they_are(shown: dict[str, dict[str, str]]) -> None:
    assert [n for n, html in shown["simulated"].items() if SIMULATED not in html] == []
    told = [n for n, html in shown["yours"].items() if SIMULATED in html]
    assert told == ["Run", "Bias", "Sweep", "Recommendation"]


def test_a_line_in_a_console_says_what_a_result_is(world: api.Run) -> None:
    """Not its arrays; and a table or an attribution within a result neither."""
    made = results(world, world.log)
    parts = {"Sends": world.log.sends, "Attribution": made["Attributed"].result, "SweepData": made["Sweep"].data}
    for name, result in (made | parts).items():
        said = repr(result)
        assert said.startswith(f"{name}("), said
        assert len(said) < 250, said
        assert "\n" not in said
        assert "array(" not in said
    assert f"{len(world.log.sends):,} sends" in repr(made["Replay"])


def test_texts_of_a_log_are_no_html() -> None:
    """Names come from outside: a variant's name must not become markup."""
    name = "<script>alert(1)</script>"
    sends = pd.DataFrame({"send_id": ["s1", "s2"], "user_id": ["u", "v"], "template_id": ["t", "t"],
                          "variant_id": [name, "control"], "sent_at": ["2026-01-05T00:00:00Z"] * 2})  # fmt: skip
    events = pd.DataFrame({"event_id": ["e"], "user_id": ["u"], "kind": ["conversion"], "name": [name],
                           "occurred_at": ["2026-01-09T00:00:00Z"]})  # fmt: skip
    log = dataclasses.replace(frames.from_frames(sends, events), source=name)
    made = [log, js.replay(log), js.doctor(log), js.interpretations(log), js.window_surface(js.Rule(), sends, events),
            js.attribute(js.Rule(), sends, events), js.estimates(log, mature=False),
            js.reconcile(log, pd.DataFrame({"variant_id": [name], "sends": [1]}))]  # fmt: skip
    for result in made:
        assert "<script" not in result._repr_html_(), type(result).__name__


def test_a_mark_goes_with_a_simulated_log(world: api.Run, tmp_path: Path) -> None:
    js.export(world.log, "generic", tmp_path / "export")
    js.load(tmp_path / "export", "generic", tmp_path / "log")
    for folder in ("export", "log"):
        log = js.read_log(tmp_path / folder)
        assert log.simulated, folder
        assert js.replay(log, goals=GOALS).simulated
    (tmp_path / "log" / SIMULATED).unlink()
    assert not js.read_log(tmp_path / "log").simulated


FORMS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda f: f,
    "arrow strings": lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
    "arrow": lambda f: pa.Table.from_pandas(f, preserve_index=False),
    "polars": lambda f: pl.from_arrow(pa.Table.from_pandas(f, preserve_index=False)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_table_is_taken(world: api.Run, form: str) -> None:
    of = FORMS[form]
    sends, events = world.sends, world.events
    given = of(sends), of(events)
    expected = js.attribute(js.Rule(), sends, events).credits
    got = js.attribute(js.Rule(), *given, goals=GOALS)
    pd.testing.assert_frame_equal(got.credits, expected)
    assert len(expected) > 100
    assert js.outcomes(got)["converted"].sum() == dashboard(world).conversions.sum() > 0
    assert set(js.metrics(got)["variant_id"]) > {"fast", "slow"}
    grid: tuple[Any, ...] = ([0, 3], [7, 14])
    pd.testing.assert_frame_equal(
        js.window_surface(js.Rule(), *given, *grid).frame, js.window_surface(js.Rule(), sends, events, *grid).frame
    )
    theirs = dashboard(world)
    found = js.reconcile(world.log, of(theirs), goals=GOALS)
    assert found.distance == 0
    assert "default" in found.closest


@pytest.fixture(scope="module")
def figures(world: api.Run) -> tuple[dict[str, Any], dict[str, str]]:
    """Every figure, of a frame that is turned into another kind of table; and what it shows of the frame itself."""
    log, small = world.log, js.read_scenario("fast_converter", {"days": 14, "replications": 3})
    result, swept, told = js.replay(log, goals=GOALS), js.sweep(small, workers=1), js.what_if(log, goals=GOALS)
    readings, both = js.interpretations(log, goals=GOALS), js.reconcile(log, dashboard(world), goals=GOALS)
    made = js.verdict(result).race, js.recommend(swept).table, js.bias(world).table
    plots: dict[str, Any] = {
        "plot_age": lambda of: js.plot_age(of(result.age())),
        "plot_bias": lambda of: js.plot_bias(of(made[2])),
        "plot_delay": lambda of: js.plot_delay(of(result.delay)),
        "plot_interpretations": lambda of: js.plot_interpretations(of(readings.table)),
        "plot_race": lambda of: js.plot_race(of(swept.race)),
        "plot_race of a log": lambda of: js.plot_race(of(made[0])),
        "plot_receipt": lambda of: js.plot_receipt(of(both.receipt)),
        "plot_receipt of a log": lambda of: js.plot_receipt(of(result.reason_counts())),
        "plot_recommend": lambda of: js.plot_recommend(of(made[1])),
        "plot_shares": lambda of: js.plot_shares(of(result.shares)),
        "plot_what_if": lambda of: js.plot_what_if(of(told.estimates), told.check),
        "plot_window_map": lambda of: js.plot_window_map(of(result.windows())),
    }
    return plots, {name: repr(drawn(plot(FORMS["pandas"]))) for name, plot in plots.items()}


def drawn(ax: Axes) -> list[Any]:
    """All texts and all lines of a figure."""
    texts = [t.get_text() for a in (ax, *ax.child_axes) for t in a.texts]
    lines = [np.asarray(line.get_xydata()).round(9).tolist() for a in ax.child_axes for line in a.lines]
    return [texts, lines]


@pytest.mark.parametrize("form", [f for f in FORMS if f != "pandas"])
def test_every_figure_takes_every_table(figures: tuple[dict[str, Any], dict[str, str]], form: str) -> None:
    plots, expected = figures
    assert {n.split(" ")[0] for n in plots} == {n for n in js.__all__ if n.startswith("plot_")} - {"plot_brief"}
    for name, plot in plots.items():
        assert repr(drawn(plot(FORMS[form]))) == expected[name], name


def test_what_is_no_table_is_an_error(world: api.Run) -> None:
    with pytest.raises(UsageError, match="the dashboard: found int, expected a DataFrame"):
        js.reconcile(world.log, 7, goals=GOALS)
    with pytest.raises(UsageError, match="plot_age's frame: found list, expected a DataFrame"):
        js.plot_age([1, 2])


def test_scenarios_from_python() -> None:
    changed = js.read_scenario("welcome", {"days": 14, "program.rule.offset_days": 1}, sweep={"seed": [1, 2]})
    assert (changed.days, changed.program.rule.offset_days, changed.sweep) == (14, 1, {"seed": [1, 2]})
    assert js.read_scenario(changed).sweep == {"seed": [1, 2]}
    with pytest.raises(DataError, match="lookback_days"):
        js.read_scenario("welcome", {"program.rule.lookback_day": 7})
    with pytest.raises(DataError, match="signups_per_day"):
        js.read_scenario("welcome", sweep={"world.signup_per_day": [1]})
    listed = js.scenarios()
    assert list(listed.columns) == ["name", "question", "answer"]
    assert listed.question.str.endswith("?").all()
    total = js.bias(js.simulate(js.read_scenario("fast_converter", {"days": 14}))).total()
    assert total.drop("shown").sum() == total["shown"] > 0

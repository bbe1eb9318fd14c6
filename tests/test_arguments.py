"""Wrong arguments from Python end in one sentence: what was found, what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import justai_sim as js
from justai_sim.errors import UsageError

OTHER = pd.DataFrame({"sends": [3], "variant": ["b"]})
EMPTY_IS_FINE = {"plot_delay", "plot_race", "plot_shares", "plot_window_map"}
"""They say that there is nothing to show."""
PLOTS = sorted(name for name in js.__all__ if name.startswith("plot_"))


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_of_something_else_says_what_it_expects(name: str) -> None:
    plot = getattr(js, name)
    with pytest.raises(UsageError, match=f"{name}'s .* expected "):
        plot(None)
    with pytest.raises(UsageError, match=f"{name}'s .* expected [A-Zj]"):
        plot(OTHER)
    if name not in EMPTY_IS_FINE:
        with pytest.raises(UsageError, match=f"{name}'s "):
            plot(pd.DataFrame())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda _: js.recommend(None), "result is a NoneType; expected a Sweep, or the folder of one"),
        (lambda _: js.recommend("x", None), "criterion is a NoneType; expected one of right_by_day"),
        (lambda _: js.recommend("x", day="3"), "day is a str; expected a number"),
        (lambda _: js.recommend("x", "decision_time", limit="1"), "limit is a str; expected a number"),
        (lambda out: js.report(None, out), "result is a NoneType; expected one of Sweep, Replay"),
        (lambda out: js.report(OTHER, out), "result is a DataFrame; expected one of"),
        (lambda _: js.sweep("welcome", replications="8"), "replications is a str; expected a whole number"),
        (lambda _: js.sweep("welcome", workers="2"), "workers is a str; expected a whole number"),
        (lambda _: js.sweep("welcome", race=1), "criterion is a int; expected one of"),
        (lambda _: js.simulate("welcome", seed="x"), "seed is a str; expected a whole number"),
        (lambda _: js.verdict(None), "log is a NoneType; expected a Log, or the path of one"),
        (lambda _: js.replay(OTHER), "log is a DataFrame; expected a Log, or the path of one"),
    ],
)
def test_an_argument_of_another_type(call: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as found:
        call(tmp_path / "out")
    assert str(found.value).startswith(says)
    assert not (tmp_path / "out").exists()


def test_a_metric_that_is_none_is_not_a_matter_of_a_policy() -> None:
    log = js.simulate(js.read_scenario("fast_converter", {"world.signups_per_day": 5, "days": 6})).log
    for call in (js.verdict, js.replay):
        with pytest.raises(UsageError, match=r"^metric 'conversion' is not known; did you mean 'conversion_rate'"):
            call(log, goals=["purchase"], metric="conversion")

"""The training window: which sends a policy learns from, and that nobody takes it for the attribution window."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import justai_sim as js
from justai_sim import replays, scenario
from justai_sim.attribution import TrainingWindow, bind, preset, training_window
from justai_sim.clock import DAY
from justai_sim.errors import UsageError
from justai_sim.loop.program import Program

MIXED = """
from justai_sim.attribution import Rule, TrainingWindow, bind
from justai_sim.loop.program import Program
bind({}, templates=["t"], names=[])
Program(rule={})
Program(training={})
"""


def test_the_ends_are_half_open_to_the_microsecond() -> None:
    now = 100 * DAY
    sent = np.array([now - 17 * DAY - 1, now - 17 * DAY, now - 3 * DAY - 1, now - 3 * DAY])
    assert TrainingWindow(lookback_days=14, offset_days=3).holds(sent, now).tolist() == [False, True, True, False]
    assert TrainingWindow().holds(sent, now).all()
    assert not TrainingWindow().holds(np.array([now]), now).any()


def test_the_type_checker_refuses_one_for_the_other(tmp_path: Path) -> None:
    """The errors of a strict check over both mix-ups, and none over the right use."""
    root = Path(__file__).parents[1]

    def errors(rule: str, training: str) -> list[str]:
        file = tmp_path / "mixed.py"
        file.write_text(MIXED.format(rule, rule, training))
        command = [sys.executable, "-m", "mypy", "--strict", str(file)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=root)
        assert run.returncode < 2, run.stderr
        return [line for line in run.stdout.splitlines() if line.split(":")[0].endswith("mixed.py") and "error" in line]

    assert errors("Rule()", "TrainingWindow()") == []
    assert len(errors("TrainingWindow()", "Rule()")) == 3


def test_at_run_time_too() -> None:
    wrong: Any = TrainingWindow(lookback_days=14, offset_days=3)
    with pytest.raises(UsageError, match="rule is a TrainingWindow; expected a Rule"):
        bind(wrong, templates=["t"], names=[])
    right: Any = js.Rule()
    with pytest.raises(UsageError, match="training is a Rule; expected a TrainingWindow"):
        Program(training=right)
    with pytest.raises(UsageError, match="rule is a TrainingWindow"):
        Program(rule=wrong)
    empty = js.simulate("welcome").log
    calls: list[Any] = [js.replay, js.interpretations]
    for call in calls:
        with pytest.raises(UsageError, match="rule is a TrainingWindow"):
            call(empty, goals=["purchase"], rule=js.TrainingWindow())
        with pytest.raises(UsageError, match=r"the rule of a preset is its \.rule"):
            call(empty, goals=["purchase"], rule=js.preset("naive"))


@pytest.mark.parametrize(
    "text", ["14", "lookback=14", "lookback_days=", "lookback_days=0", "offset_days=-1", "lookback_days=nan", ""]
)
def test_bad_texts(text: str) -> None:
    with pytest.raises(UsageError, match="training"):
        training_window(text)


def test_it_changes_what_is_learned_and_never_the_credit() -> None:
    """Shares follow the sends in the training window alone; credits, reasons and the page's rates stay."""
    world = scenario.read("welcome")
    small = msgspec.structs.replace(world, days=40, world=msgspec.structs.replace(world.world, signups_per_day=60))
    log = js.simulate(small).log
    window = TrainingWindow(lookback_days=5, offset_days=2)
    all_of_it = replays.replay(log, goals=["purchase"])
    some = replays.replay(log, goals=["purchase"], training=window)
    assert all_of_it.credits.equals(some.credits)
    assert all_of_it.reasons.equals(some.reasons)
    assert all_of_it.shares.drop(columns="share").equals(some.shares.drop(columns="share"))
    assert not all_of_it.shares["share"].equals(some.shares["share"])
    tick = some.ticks[-1]
    learned = sum(float(t.n.sum()) for t in tick.tallies)
    sends = log.sends
    real = window.holds(sends.sent_at, tick.now) & (sends.status == 0) & (sends.received_at <= tick.now)
    bounced = set(log.events.send[log.events.kind == 4].tolist())
    assert learned == sum(s not in bounced for s in sends.send[real].tolist())


def test_the_preset_combines_both() -> None:
    p = preset("justai_api")
    assert p.training == TrainingWindow(lookback_days=14, offset_days=3)
    assert p.rule == js.Rule()

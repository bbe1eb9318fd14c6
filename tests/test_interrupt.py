"""Ctrl-C: every long command ends with 130 and a sentence; what is kept is said, and the same command then works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest

import justai_sim as js
from justai_sim.attribution.window import Contest
from justai_sim.cli import main, run
from justai_sim.errors import StoppedError
from justai_sim.scenario import packaged, read, with_settings
from justai_sim.sim.engine import Engine
from justai_sim.summary import Summary
from justai_sim.sweeps import collect

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of a small world, a scenario of a few small ones with a decision in it, and its sweep."""
    root = tmp_path_factory.mktemp("interrupted")
    small = {"days": 24, "world.signups_per_day": 30, "esp": "generic"}
    js.export(js.simulate(with_settings(read("welcome"), small)).log, "generic", root / "log")
    text = (packaged() / "fast_converter.toml").read_text()
    for old, new in (("days = 56", "days = 12"), ("= 400", "= 20"), ("replications = 40", "replications = 2")):
        assert old in text
        text = text.replace(old, new)
    (root / "mine.toml").write_text(text)
    js.sweep(root / "mine.toml", root / "swept", workers=1)
    return root


@contextmanager
def pressed(where: type, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C while that method runs."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, name, stop)
        yield


JUDGE, DRAW, SIMULATE = (Contest, "judge"), (matplotlib.figure.Figure, "savefig"), (Engine, "run")
READ = (Summary, "add")
ONE = ("--workers", "1")
AGAIN = "interrupted; the same command starts again"
NOTHING = "no part was finished yet: the same command starts again"
COMMANDS = {
    "load": (READ, ("load", "log", "--esp", "generic", "--out", "out"), "the same command goes on where it was"),
    "replay": (JUDGE, ("replay", "log", "--goal", "purchase"), AGAIN),
    "replay, its page": (DRAW, ("replay", "log", "--goal", "purchase", "--out", "out"), AGAIN),
    "verdict": (JUDGE, ("verdict", "log", "--goal", "purchase"), AGAIN),
    "interpretations": (JUDGE, ("interpretations", "log", "--goal", "purchase"), AGAIN),
    "doctor": (JUDGE, ("doctor", "log", "--goal", "purchase"), AGAIN),
    "surface": (DRAW, ("surface", "log", "--goal", "purchase", "--offsets", "0:1", "--lookbacks", "7:8", "--out",
                       "out"), AGAIN),
    "what-if": (JUDGE, ("what-if", "log", "--goal", "purchase"), AGAIN),
    "bias": (SIMULATE, ("bias", "mine.toml"), AGAIN),
    "run": (SIMULATE, ("run", "mine.toml", "--out", "out", *ONE), NOTHING),
    "run, its page": (DRAW, ("run", "mine.toml", "--out", "out", *ONE), "tables are kept: justai-sim report out"),
    "sweep": (SIMULATE, ("sweep", "mine.toml", "--out", "out", *ONE), NOTHING),
    "sweep, its page": (DRAW, ("sweep", "mine.toml", "--out", "out", *ONE), "tables are kept: justai-sim report out"),
    "demo": (SIMULATE, ("demo", "--out", "out", "--replications", "1", *ONE), NOTHING),
    "report": (DRAW, ("report", "swept"), "the tables are kept: justai-sim report swept"),
    "recommend": (DRAW, ("recommend", "swept", "--out", "out"), AGAIN),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_long_command_says_that_it_was_stopped(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, argv, says = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    for there in ("log", "mine.toml", "swept"):
        Path(there).symlink_to(made / there)
    with pressed(*place, monkeypatch):
        assert run(list(argv)) == 130
    said = capsys.readouterr().err
    assert says in said, said
    assert "Traceback" not in said
    if name == "run":
        assert run([*argv, "--resume"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replay, its page", "run, its page", "surface", "report", "recommend"])
def test_what_was_stopped_is_made_whole(name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a folder of pages is no hindrance."""
    place, argv, _ = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    for there in ("log", "mine.toml", "swept"):
        Path(there).symlink_to(made / there)
    with pressed(*place, monkeypatch):
        assert run(list(argv)) == 130
    assert run(list(argv)) == 0


def test_a_report_that_was_stopped_is_that_of_its_tables(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And tables that were stopped are made of the finished parts."""
    out = tmp_path / "out"
    argv = ["sweep", str(made / "mine.toml"), "--out", str(out), *ONE]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collect, "write_tables", stop)
        assert run(argv) == 130
    assert (
        f"finished parts are kept in {out / 'parts'}: the same command with --resume goes on" in capsys.readouterr().err
    )
    with pressed(*SIMULATE, monkeypatch), pressed(*DRAW, monkeypatch):
        assert run([*argv, "--resume"]) == 130, "nothing is simulated again"
    assert run(["report", str(out)]) == 0
    for path in (made / "swept" / "tables").iterdir():
        assert (out / "tables" / path.name).read_bytes() == path.read_bytes()


def test_from_python_it_says_how_to_go_on(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pressed(*SIMULATE, monkeypatch):
        with pytest.raises(StoppedError, match="no part was finished yet: the same call starts again"):
            js.sweep(made / "mine.toml", tmp_path / "out", workers=1)
        with pytest.raises(StoppedError, match=r"nothing is kept without a folder \(out\)"):
            js.sweep(made / "mine.toml", workers=1)


def test_before_the_command_began(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """While the parser is imported."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("justai_sim.cli.run", stop)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 1.0, 2.0])
def test_workers_of_a_replay_end_with_it(made: Path, tmp_path: Path, wait: float) -> None:
    """The signal goes to the whole group, as from a terminal; nobody is left, and nobody prints a traceback."""
    argv = ["replay", str(made / "log"), "--goal", "purchase", "--workers", "2", "--out", str(tmp_path / "out")]
    code = "from justai_sim.cli import main; main()"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", code, *argv], env=env, stderr=subprocess.PIPE, text=True,
                             start_new_session=True)  # fmt: skip
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    while child.poll() is None and not children.read_text().strip():
        time.sleep(0.01)
    time.sleep(wait)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "interrupted; the same command starts again" in said
    assert "Traceback" not in said
    time.sleep(2)
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)

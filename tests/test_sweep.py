"""Sweeps: equal for any number of workers, resumable, refused where they would mix."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from justai_sim import api
from justai_sim.cli import run
from justai_sim.cli.output import Bar
from justai_sim.errors import DataError, StoppedError, UsageError
from justai_sim.scenario import Scenario, packaged, points, read, with_settings
from justai_sim.sweeps import run as runs
from justai_sim.sweeps.collect import read_tables
from justai_sim.sweeps.parts import Tables, blocks, write_part


def small() -> Scenario:
    s = read("welcome")
    sweep = s.sweep
    s = with_settings(s, {"world.signups_per_day": 20, "days": 12, "replications": 3, "esp": "generic"})
    return msgspec.structs.replace(s, sweep={"window": {k: sweep["window"][k] for k in ("14/3", "0-3")}})


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "tables").iterdir())}


def test_points_are_the_product_of_the_axes() -> None:
    found = points(read("welcome"))
    assert [p.name for p in found][:3] == ["14/3 · weighted_thompson", "14/3 · uniform", "0-14 · weighted_thompson"]
    assert len(found) == 8
    assert found[-1].scenario.program.rule.lookback_days == 3
    assert found[-1].scenario.program.policy.name == "uniform"


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One world a block, so that there is something to hand out.
    monkeypatch.setattr(runs, "blocks", lambda s: [range(i, i + 1) for i in range(s.replications)])
    for name, workers in (("one", 1), ("two", 2)):
        api.run_sweep(small(), tmp_path / name, workers=workers)
    monkeypatch.undo()
    api.run_sweep(small(), tmp_path / "whole", workers=1)
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "whole")


def test_a_sweep_resumes_without_redoing_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = api.run_sweep(small(), tmp_path / "whole", workers=1)
    done: list[runs.Unit] = []
    original = runs.run_unit

    def dies_at_the_second(unit: runs.Unit) -> Tables:
        if done:
            raise KeyboardInterrupt
        done.append(unit)
        return original(unit)

    monkeypatch.setattr(runs, "run_unit", dies_at_the_second)
    out = tmp_path / "out"
    with pytest.raises(StoppedError, match="--resume") as stopped:
        api.run_sweep(small(), out, workers=1)
    assert stopped.value.exit_code == 130
    (part,) = (out / "parts").glob("*.npz")
    stamp = part.stat().st_mtime_ns
    later: list[runs.Unit] = []
    monkeypatch.setattr(runs, "run_unit", lambda u: later.append(u) or original(u))
    again = api.run_sweep(small(), out, workers=1, resume=True)
    assert part.stat().st_mtime_ns == stamp
    assert done[0] not in later
    assert len(later) == len(points(small())) * len(blocks(small())) - 1
    pd.testing.assert_frame_equal(again.metrics, whole.metrics)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("how", ["cut", "garbage", "empty", "zeroed"])
def test_a_damaged_part_is_done_again(how: str, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    api.run_sweep(small(), whole, workers=1)
    shutil.copytree(whole, out)
    first, second = sorted((out / "parts").glob("*.npz"))
    good = second.read_bytes()
    damaged = {"cut": good[: len(good) // 2], "garbage": b"no archive" * 50, "empty": b"",
               "zeroed": good[:2000] + bytes(4000) + good[6000:]}[how]  # fmt: skip
    second.write_bytes(damaged)
    stamp = first.stat().st_mtime_ns
    said: list[str] = []
    api.run_sweep(small(), out, workers=1, resume=True, notice=said.append)
    assert len(said) == 1
    assert str(second) in said[0]
    assert "is damaged" in said[0]
    assert "done again" in said[0]
    assert first.stat().st_mtime_ns == stamp
    assert second.read_bytes() == good
    assert files(out) == files(whole)


def test_damaged_tables_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.run_sweep(small(), tmp_path, workers=1)
    path = tmp_path / "tables" / "race.parquet"
    good = path.read_bytes()
    for damaged in (good[:100], b"", good[:-200] + bytes(200)):
        path.write_bytes(damaged)
        for argv in (["recommend", str(tmp_path)], ["report", str(tmp_path)]):
            assert run(argv) == 3
            said = capsys.readouterr().err
            assert str(path) in said
            assert "--resume writes it again" in said


def test_a_finished_sweep_is_not_overwritten_without_a_word(tmp_path: Path) -> None:
    out = tmp_path / "out"
    api.run_sweep(small(), out, workers=1)
    before = files(out)
    other = msgspec.structs.replace(small(), name="other")
    with pytest.raises(UsageError, match=r"holds the sweep of another scenario, welcome; choose another folder"):
        api.run_sweep(other, out, workers=1)
    assert files(out) == before
    assert len(list((out / "parts").glob("*.npz"))) == 2
    with pytest.warns(UserWarning, match="2 parts of an earlier sweep are replaced; --resume would have kept them"):
        api.run_sweep(small(), out, workers=1)
    said: list[str] = []
    api.run_sweep(msgspec.structs.replace(small(), seed=8), out, workers=1, notice=said.append)
    assert said == [f"{out}: 2 parts of an earlier sweep are replaced"]


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("justai_sim.cli.output.time.monotonic", lambda: now[0])
    bar = Bar("simulating")
    for done in range(10, 101):  # ten were there; one every ten seconds
        bar(done, 100)
        now[0] += 10.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "simulating: 13 %, about 14 min left"
    assert len(lines) == 29
    bar.close()


def test_a_killed_sweep_resumes(tmp_path: Path) -> None:
    """kill -9 in the middle, the whole process group; what is finished stays untouched, the tables are the same."""
    scenario = tmp_path / "mine.toml"
    text = (packaged() / "welcome.toml").read_text().replace("signups_per_day = 400", "signups_per_day = 20")
    scenario.write_text(text.replace("replications = 100", "replications = 40"))
    out, whole = tmp_path / "out", tmp_path / "whole"
    code = "from justai_sim.cli import main; main()"
    argv = [sys.executable, "-c", code, "sweep", str(scenario), "--out", str(out), "--workers", "2"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    child = subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL, start_new_session=True)
    for _ in range(600):
        if len(list((out / "parts").glob("*.npz"))) >= 2 or child.poll() is not None:
            break
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    done = {p: p.stat().st_mtime_ns for p in (out / "parts").glob("*.npz")}
    assert 2 <= len(done) < 8, "killed in the middle"
    api.run_sweep(read(scenario), out, workers=1, resume=True)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert not list((out / "parts").glob(".point*"))
    api.run_sweep(read(scenario), whole, workers=1)
    assert files(out) == files(whole)


def test_a_part_done_again_has_the_same_bytes(tmp_path: Path) -> None:
    unit = runs.Unit(0, points(small())[0].scenario, 0, 2, True)
    for name in ("a", "b"):
        write_part(tmp_path / name, runs.run_unit(unit))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path: Path) -> None:
    scenario, out = tmp_path / "mine.toml", tmp_path / "out"
    text = (packaged() / "welcome.toml").read_text().replace("signups_per_day = 400", "signups_per_day = 40")
    scenario.write_text(text)
    code = "from justai_sim.cli import main; main()"
    argv = [sys.executable, "-c", code, "sweep", str(scenario), "--out", str(out), "--workers", "2"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    child = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(600):
        if len(list((out / "parts").glob("*.npz"))) >= 1 or child.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the workers hear it too
    _, said = child.communicate(timeout=20)
    assert child.returncode == 130, said
    assert "finished parts are kept in" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert list((out / "parts").glob("*.npz"))


def test_a_report_comes_back_from_its_tables_byte_for_byte(tmp_path: Path) -> None:
    """A race over a design: what stopped, the points drawn and every figure come from the tables alone."""
    s = with_settings(read("welcome"), {"world.signups_per_day": 20, "days": 12, "replications": 20, "esp": "generic"})
    design = {"kind": "latin_hypercube", "points": 3}
    days = {"low": 4, "high": 13, "integer": True}
    s = msgspec.structs.replace(s, sweep={"program.rule.lookback_days": days, "design": design})
    out = tmp_path / "out"
    api.report(api.Sweep(api.run_sweep(s, out, workers=1, race="conversions")), out)

    def pages() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".html", ".png", ".svg")}

    before = pages()
    assert len(before) == 13, "a page and six figures"
    for name in before:
        (out / name).unlink()
    assert run(["report", str(out)]) == 0
    assert pages() == before
    assert files(out).keys() == {f"{t}.{e}" for t in ("metrics", "race") for e in ("csv", "parquet")} | {
        "age.parquet", "windows.parquet", "shares.parquet",
    }  # fmt: skip


def test_parts_of_another_scenario_are_not_mixed_in(tmp_path: Path) -> None:
    api.run_sweep(small(), tmp_path, workers=1)
    other = msgspec.structs.replace(small(), seed=2)
    with pytest.raises(UsageError, match="another scenario"):
        api.run_sweep(other, tmp_path, workers=1, resume=True)
    api.run_sweep(other, tmp_path, workers=1, notice=lambda _: None)
    assert read_tables(tmp_path).scenario.seed == 2


def test_tables_come_back_from_disk(tmp_path: Path) -> None:
    data = api.run_sweep(small(), tmp_path, workers=1)
    again = read_tables(tmp_path)
    assert again.scenario == data.scenario
    assert [p.name for p in again.points] == [p.name for p in data.points]
    pd.testing.assert_frame_equal(again.metrics, data.metrics, check_dtype=False)
    columns = ["point", "window", "rep", "template_id", "variant_id", "metric", "value"]
    assert list(data.metrics.columns) == columns
    assert list(pd.read_csv(tmp_path / "tables" / "metrics.csv").columns) == columns
    with pytest.raises(DataError, match="not the folder of a finished sweep"):
        read_tables(tmp_path / "tables")


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"program.rule.lookbak_days": [7]}, "did you mean 'lookback_days'"),
        ({"window": {"x": {"program.rule.offset_days": 20}}}, "not below lookback_days"),
        ({"program.policy.name": []}, "has no values"),
        ({"program.policy.name": "uniform"}, "expected a list of values"),
        ({"variants.9.conversion_rate": [0.1]}, "the scenario has no '9'"),
    ],
)
def test_wrong_axes(sweep: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        points(msgspec.structs.replace(small(), sweep=sweep))

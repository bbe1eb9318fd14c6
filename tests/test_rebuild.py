"""Every report comes back from its tables byte for byte, and they hold nobody's data."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import justai_sim as js
from justai_sim.api import Sweep
from justai_sim.cli import run
from justai_sim.errors import DataError, UsageError
from justai_sim.esp import exports
from justai_sim.pages import reports, store
from justai_sim.replays import Replay
from justai_sim.sweeps.collect import write_tables
from justai_sim.verdicts import desk
from tests.test_pages import sweep_data
from tests.verdict_logs import made_log

MADE = {".html", ".png", ".svg", ".csv", ".txt"}
OURS = ("metrics.csv",)
"""Written once by the command, as credits.parquet is: no page is made of it."""
PERSONAL = re.compile(rb"\b[us]0\d{5,}|\be0\d{5,}")
"""Ids of `made_log`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = made_log(3, rates=(0.1, 0.05, 0.05), per_day=120, days=40, amounts=lambda rng, n: rng.uniform(5, 60, n))
    out = tmp_path_factory.mktemp("log") / "mine"
    exports.export(log, "generic", out)
    return out


@pytest.fixture(scope="module")
def replayed(folder: Path) -> Replay:
    return js.replay(folder, goals=["purchase"])


def asked(*command: str) -> Callable[[Path, Path], None]:
    """A command on the log, with its page in a folder."""

    def ask(log: Path, out: Path) -> None:
        assert run([command[0], str(log), "--goal", "purchase", "--out", str(out), *command[1:]]) == 0

    return ask


def dashboard(log: Path, out: Path) -> None:
    theirs = out.with_suffix(".csv")
    theirs.write_text("variant_id,sends,conversions\na,2160,225\nb,2160,120\ncontrol,480,25\n")
    asked("reconcile", "--against", str(theirs))(log, out)


def recommended(_: Path, out: Path) -> None:
    swept = out.parent / "swept"
    write_tables(sweep_data(), swept)
    assert run(["recommend", str(swept), "--criterion", "conversions", "--out", str(out)]) == 0


def simulated(_: Path, out: Path) -> None:
    assert run(["run", "fast_converter", "--replications", "2", "--workers", "1", "--out", str(out)]) == 0


def biased(_: Path, out: Path) -> None:
    assert run(["bias", "fast_converter", "--identity", "revenue", "--out", str(out)]) == 0


ASKED: dict[str, Callable[[Path, Path], None]] = {
    "replay": asked("replay"),
    "verdict": asked("verdict"),
    "surface": asked("surface", "--lookbacks", "1:14", "--metric", "revenue"),
    "interpretations": asked("interpretations"),
    "reconcile": dashboard,
    "doctor": asked("doctor"),
    "what-if": asked("what-if"),
    "recommend": recommended,
    "bias": biased,
    "sweep": simulated,
}


def test_every_kind_is_asked() -> None:
    assert set(ASKED) == {*reports.KINDS, reports.SWEEP}


@pytest.mark.parametrize("kind", ASKED)
def test_a_report_comes_back_from_its_tables(kind: str, folder: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    ASKED[kind](folder, out)
    made = {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in MADE and p.name not in OURS}
    assert "index.html" in made
    assert kind == "doctor" or any(n.endswith(".png") for n in made)
    again.mkdir()
    shutil.copytree(out / "tables", again / "tables")
    shutil.copyfile(out / "manifest.json", again / "manifest.json")
    assert run(["report", str(again)]) == 0
    found = {p.name: p.read_bytes() for p in again.iterdir() if p.suffix in MADE}
    assert sorted(found) == sorted(made)
    assert [n for n in made if found[n] != made[n]] == []
    for path in again.rglob("*"):
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            assert not {"user_id", "send_id", "event_id"} & set(frame.columns), path
            told = frame.select_dtypes(exclude="number").to_csv().encode()
        else:
            told = path.read_bytes() if path.is_file() and path.suffix != ".png" else b""
        assert not PERSONAL.search(told), path


def test_a_table_that_is_changed_changes_the_page(replayed: Replay, tmp_path: Path) -> None:
    """The page is made of the tables, and of nothing that the command still had in its hands."""
    page = js.report(js.verdict(replayed), tmp_path)
    before = page.read_bytes()
    path = tmp_path / "tables" / "table.parquet"
    pd.read_parquet(path).assign(sends=1234567).to_parquet(path, index=False)
    assert b"1,234,567" in reports.rebuild(tmp_path).read_bytes()
    assert b"1,234,567" not in before


def test_what_is_left_out_is_said_with_its_command(
    replayed: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MOST_SENDS", 4799)
    text = js.report(replayed, tmp_path).read_text()
    for command in ("interpretations", "what-if"):
        assert f"the log has 4,800 sends; ask by itself: justai-sim {command}" in text.replace("\u2011", "-")
    assert f"The verdict decides: {js.verdict(replayed).answer}." in text


def test_a_log_in_which_nothing_happened_has_every_page(tmp_path: Path) -> None:
    early = js.replay(made_log(0, per_day=20, days=5), goals=["purchase"], as_of="2026-01-07T00:00:00Z")
    page = js.report(early, tmp_path).read_text()
    assert "no send is mature yet" in page
    assert ">nan" not in page


def test_what_is_written_is_read(replayed: Replay, tmp_path: Path) -> None:
    got = js.verdict(replayed)
    store.write(got, tmp_path)
    back = store.read(type(got), tmp_path)
    pd.testing.assert_frame_equal(back.table, got.table, check_dtype=False)
    pd.testing.assert_frame_equal(back.race, got.race, check_dtype=False)
    assert str(back) == str(got)
    data = replayed.data("mine")
    store.write(data, tmp_path)
    again = store.read(type(data), tmp_path)
    assert again.same_mix == data.same_mix
    assert (again.rule, again.settings, again.warnings) == (data.rule, data.settings, data.warnings)
    assert not (tmp_path / "tables" / "race.parquet").exists(), "a table of the report before"


def test_numbers_that_are_none_come_back(tmp_path: Path) -> None:
    found = js.recommend(Sweep(sweep_data()))
    assert np.isnan(found.cases[0].standings[0].wrong)
    store.write(found, tmp_path)
    assert str(store.read(type(found), tmp_path)) == str(found)


def test_other_folders_are_refused(folder: Path, replayed: Replay, tmp_path: Path, capsys: Any) -> None:
    js.report(js.verdict(replayed), tmp_path)
    with pytest.raises(UsageError, match="holds another report"):
        js.report(replayed, tmp_path)
    with pytest.raises(UsageError, match="holds a log"):
        js.report(js.verdict(replayed), folder)
    with pytest.raises(DataError, match="is not the folder of a report"):
        reports.rebuild(folder)
    (tmp_path / "tables" / "page.json").write_text('{"decided": 1}')
    with pytest.raises(DataError, match="are not the tables of a report"):
        reports.rebuild(tmp_path)
    (tmp_path / "manifest.json").write_text('{"kind": "verdikt"}')
    assert run(["report", str(tmp_path)]) == 3
    assert "found kind 'verdikt', expected one of sweep, replay, verdict" in capsys.readouterr().err

"""Loads that are stopped, that keep less, that hash: the same bytes in the end, and nothing of a person on the disk."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justai_sim import durable, privacy, work
from justai_sim import log as logs
from justai_sim.cli import run
from justai_sim.errors import DataError, UsageError
from justai_sim.esp import parts
from justai_sim.esp.base import PROVIDERS, adapter, switches
from justai_sim.esp.coding import rows_of
from justai_sim.esp.rows import Reject
from justai_sim.log import load, read_log
from justai_sim.replays import replay

KEY = b"a key of sixteen bytes or more"
ROOT = Path(__file__).parents[1]


def event(i: int, name: str, **properties: Any) -> dict[str, Any]:
    at = f"2026-03-{1 + i % 28:02d}T09:{i // 60:02d}:{i % 60:02d}.000Z"  # no ties, which ids would break
    return {
        "type": "track", "event": name, "messageId": f"e{i:05d}", "userId": f"Ann{i % 50}@x.org", "timestamp": at,
        "receivedAt": at, "properties": properties,
    }  # fmt: skip


def lines(i: int) -> list[dict[str, Any]]:
    return [
        event(3 * i, "Email Sent", message_id=f"m{i}", template_id="welcome", copy_id=f"c{i % 3}"),
        event(3 * i + 1, "Email Opened", message_id=f"m{i}"),
        event(3 * i + 2, "Order Completed", order_id=f"o{i}", revenue=i + 0.5, currency="USD"),
    ]


def export(folder: Path, files: int = 12, each: int = 20) -> Path:
    """Segment's raw logs in `files` files; one of them has a line that cannot be read."""
    folder.mkdir(parents=True)
    for k in range(files):
        found = [json.dumps(e) for i in range(k * each, (k + 1) * each) for e in lines(i)]
        found += ['{"type": "track", "userId": "Bad@x.org", "event": 7}'] if k == files // 2 else []
        (folder / f"{k:06d}.json.gz").write_bytes(gzip.compress("\n".join(found).encode(), 1, mtime=0))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "FILES", 2)
    monkeypatch.setattr(work, "FLUSH", 37)
    monkeypatch.setattr(work, "GROUP", 50)


def stopping(after: int) -> Callable[[int, int], None]:
    """A progress that stops the load at its call number `after`."""
    left = [after]

    def at(*_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return at


@pytest.mark.parametrize("after", range(0, 13, 2))
def test_what_was_stopped_goes_on_with_equal_bytes(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = export(tmp_path / "export")
    load(src, "segment", tmp_path / "whole", rejects=tmp_path / "r1")
    read = list[Path]()
    reader = type(adapter("segment"))
    original = reader.read

    def watched(self: Any, path: Path, timezone: str | None, only: Any, asked: Any) -> Iterator[Any]:
        read.extend(file for file, _ in only)
        return original(self, path, timezone, only, asked)

    monkeypatch.setattr(reader, "read", watched)
    out = tmp_path / "log"
    try:
        load(src, "segment", out, rejects=tmp_path / "r2", progress=stopping(after))
    except KeyboardInterrupt:
        assert not out.exists()
        finished = len(list((tmp_path / ".log.loading").glob("[0-9]*.json")))
        before = len(read)
        summary = load(src, "segment", out, rejects=tmp_path / "r2")
        assert len(read) - before == 12 - 2 * finished  # finished parts are not read again
        assert "goes on" in summary.said[0]
    assert content(out) == content(tmp_path / "whole")
    assert content(tmp_path / "r1") == content(tmp_path / "r2")
    assert not (tmp_path / ".log.loading").exists()


def test_another_load_starts_again(tmp_path: Path) -> None:
    src, out = export(tmp_path / "export"), tmp_path / "log"

    def stopped(**options: Any) -> list[str]:
        with pytest.raises(KeyboardInterrupt):
            load(src, "segment", out, progress=stopping(7))
        summary = load(src, "segment", out, **options)
        return summary.said

    assert stopped() == ["an unfinished load goes on: 4 parts of it kept"]
    assert stopped(events=["open"]) == ["an unfinished load had other options: it starts again"]
    assert stopped(esp_options={"deliveries_as_sends": True})[0].startswith("an unfinished load had other provider")
    with pytest.raises(KeyboardInterrupt):
        load(src, "segment", out, progress=stopping(7))
    os.utime(src / "000000.json.gz", ns=(1, 1))
    whole = load(src, "segment", out)
    assert whole.said == ["an unfinished load had other files: it starts again"]
    assert len(read_log(out).sends) == 240


def test_two_loads_at_once(tmp_path: Path) -> None:
    src, out = export(tmp_path / "export"), tmp_path / "log"
    refused = list[str]()

    def second(*_: int) -> None:
        if not refused:
            with pytest.raises(UsageError, match="another load is at work") as e:
                load(src, "segment", out)
            refused.append(str(e.value))

    load(src, "segment", out, progress=second)
    assert refused
    assert len(read_log(out).sends) == 240


def test_the_merge_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src, out = export(tmp_path / "export"), tmp_path / "log"
    load(src, "segment", tmp_path / "whole")
    merge, left = work.Work._merge_one, [20]

    def stopped(*argv: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        merge(*argv)

    monkeypatch.setattr(work.Work, "_merge_one", stopped)
    with pytest.raises(OSError, match="No space"):
        load(src, "segment", out)
    load(src, "segment", out)
    assert content(out) == content(tmp_path / "whole")


SCRIPT = """
import sys, time
from justai_sim import work
from justai_sim.esp import parts
parts.FILES, work.FLUSH, work.GROUP = 2, 37, 50
from justai_sim.log import load
load(sys.argv[1], "segment", sys.argv[2], progress=lambda *_: time.sleep(0.02))
"""


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a loss of power could leave an empty file that a later load takes for a finished one."""
    export(tmp_path / "export")
    synced, named, sync, rename = set[int](), list[str](), os.fsync, Path.rename

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        sync(handle)

    def checked(self: Path, target: Path) -> Path:
        if "export" not in self.parts:
            assert self.stat().st_ino in synced, self
            named.append(self.name)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", checked)
    load(tmp_path / "export", "segment", tmp_path / "log", partitions=2)
    assert (tmp_path / "log" / "manifest.json").stat().st_ino in synced
    assert {"log", "part-00.unfinished", "00000.unfinished"} <= set(named)


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_killed_load_goes_on(kills: int, tmp_path: Path) -> None:
    """kill -9 at any moment, again and again; then the same command."""
    src, out = export(tmp_path / "export", files=24), tmp_path / "log"
    load(src, "segment", tmp_path / "whole")
    argv = [sys.executable, "-c", SCRIPT, str(src), str(out)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = 0
    for k in range(kills):
        child = subprocess.Popen(argv, env=env)
        deadline = time.monotonic() + 60
        while not (tmp_path / ".log.loading" / "load.json").exists() and time.monotonic() < deadline:
            if child.poll() is not None:
                break
            time.sleep(0.002)
        time.sleep(0.05 + 0.013 * (k % 17))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
    assert killed
    load(src, "segment", out)
    assert content(out) == content(tmp_path / "whole")


def customerio_export(folder: Path, people: int, row_group: int = 20_000) -> None:
    """People with a delivery each, sent and opened, half of them by either arm of a split."""
    folder.mkdir()
    at, one = pa.array(np.full(people, 1_772_323_200_000_000), pa.timestamp("us", "UTC")), np.arange(people)
    person, delivery = [f"cio{i}" for i in range(people)], [f"d{i}" for i in range(people)]
    tables = {
        "people": {"internal_customer_id": person, "customer_id": [f"Ann{i}@x.org" for i in range(people)],
                   "updated_at": at, "seq_num": one},
        "outputs": {"output_id": delivery, "delivery_id": delivery, "split_test_index": one % 2, "created_at": at},
        "deliveries": {"delivery_id": delivery, "internal_customer_id": person, "delivery_type": ["email"] * people,
                       "campaign_id": ["5"] * people, "created_at": at},
        "metrics": {"event_id": [f"e{i}" for i in range(2 * people)], "delivery_id": delivery * 2,
                    "metric": ["sent"] * people + ["opened"] * people, "created_at": pa.concat_arrays([at, at])},
    }  # fmt: skip
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}_v4_1_1.parquet", row_group_size=row_group)


def test_a_killed_join_of_customerio_leaves_nothing_elsewhere(tmp_path: Path) -> None:
    """Its temporary files lie in the work folder, hold no id of a user, and are gone after the next load."""
    customerio_export(tmp_path / "export", 500)
    (system := tmp_path / "tmp").mkdir()
    script = "import os, sys; from justai_sim.esp.customerio_export import Export; from justai_sim.log import load\n"
    script += "Export._part = lambda *_: os.kill(os.getpid(), 9)\nload(sys.argv[1], 'customerio', sys.argv[2])"
    argv = [sys.executable, "-c", script, str(tmp_path / "export"), str(tmp_path / "log")]
    done = subprocess.run(argv, env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(system)})
    assert done.returncode == -signal.SIGKILL
    left = content(tmp_path / ".log.loading")
    assert any("justai-sim-" in name for name in left)
    assert not list(system.iterdir())
    assert not any(b"@x.org" in data for data in left.values())
    load(tmp_path / "export", "customerio", tmp_path / "log", hash_key=None)
    assert len(read_log(tmp_path / "log").sends) == 500
    assert not (tmp_path / ".log.loading").exists()


def test_a_killed_read_of_customerio_leaves_nothing_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left where TMPDIR says is gone with the next read; what another process is at work in stays."""
    customerio_export(tmp_path / "export", 50)
    (system := tmp_path / "tmp").mkdir()
    script = (
        "import os, sys; from justai_sim.esp.customerio_export import Export; from justai_sim.log import read_log\n"
    )
    script += "Export._part = lambda *_: os.kill(os.getpid(), 9)\nread_log(sys.argv[1], 'customerio')"
    argv = [sys.executable, "-c", script, str(tmp_path / "export")]
    done = subprocess.run(argv, env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(system)})
    assert done.returncode == -signal.SIGKILL
    assert len(list(system.iterdir())) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(system))
    with durable.scratch() as busy:  # what was left may be that of a process which has not yet locked it
        assert len(list(system.iterdir())) == 2
        monkeypatch.setattr(durable, "_YOUNG", -1)
        assert len(read_log(tmp_path / "export", "customerio").sends) == 50
        assert list(system.iterdir()) == [busy]
    assert not list(system.iterdir())


@pytest.mark.slow
def test_memory_of_the_join_of_customerio(tmp_path: Path) -> None:
    """It grows with the people alone, by less than 150 bytes each."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the peak of a child alone is told by Linux")
    script = (
        "import sys; from pathlib import Path; from justai_sim import work; from justai_sim.log import load\n"
        "from justai_sim.esp import customerio_export as export, customerio_spread as spread\n"
        "work.FLUSH = work.GROUP = export.PART = 10_000; spread.WAITING = 5_000; spread._CACHE = '-2000'\n"
        "load(sys.argv[1], 'customerio', sys.argv[2])\n"  # with these all buffers are full with the smaller export
        f"print(Path({str(status)!r}).read_text().partition('VmHWM:')[2].split()[0])"
    )
    peaks = []
    for people in (50_000, 250_000):
        customerio_export(tmp_path / str(people), people)
        argv = [sys.executable, "-c", script, str(tmp_path / str(people)), str(tmp_path / f"log{people}")]
        env = os.environ | {"PYTHONPATH": str(ROOT), "ARROW_DEFAULT_MEMORY_POOL": "system"}
        done = subprocess.run(argv, env=env, capture_output=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 40 + 200_000 * 150 / 2**20, peaks


def test_many_small_files_hold_few_open_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "FILES", 200)
    src = export(tmp_path / "export", files=600, each=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    inherited = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 64
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, inherited + 24), hard))
        load(src, "segment", tmp_path / "log")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(read_log(tmp_path / "log").sends) == 600


@pytest.mark.slow
def test_memory_does_not_grow_with_the_export(tmp_path: Path) -> None:
    script = "import sys, resource; from justai_sim.log import load; load(sys.argv[1], 'segment', sys.argv[2]);"
    script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    peaks = []
    for thousands in (100, 500):
        src = tmp_path / str(thousands)
        src.mkdir()
        with (src / "all.ndjson").open("w") as f:
            for i in range(1000 * thousands // 3):
                f.writelines(json.dumps(e | {"messageId": f"{i}-{k}", "userId": f"u{i}"}) + "\n"
                             for k, e in enumerate(lines(i % 500)))  # fmt: skip
        argv = [sys.executable, "-c", script, str(src), str(tmp_path / f"log{thousands}")]
        done = subprocess.run(argv, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks


def test_a_file_with_a_name_that_is_no_text(tmp_path: Path) -> None:
    src = export(tmp_path / "export", files=2)
    try:
        (src / os.fsdecode(b"x.\xff\xfe")).write_text("x")
    except OSError:
        pytest.skip("this file system has names of text only")
    summary = load(src, "segment", tmp_path / "log")
    assert summary.skipped.total() == 1
    assert read_log(tmp_path / "log").skipped == {"file: *.\\udcff\\udcfe": 1}


def test_progress_counts_the_bytes_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("justai_sim.esp.rows.BATCH", 50)
    src = tmp_path / "export"
    src.mkdir()
    (src / "all.ndjson").write_text("\n".join(json.dumps(e) for i in range(2000) for e in lines(i)))
    seen = list[tuple[int, int]]()
    load(src, "segment", tmp_path / "log", progress=lambda *at: seen.append(at))
    size = (src / "all.ndjson").stat().st_size
    done = [d for d, _ in seen]
    assert {total for _, total in seen} == {size}
    assert done == sorted(done)
    assert done[-1] == size
    if sys.platform.startswith("linux"):
        assert len(set(done)) > 3  # within the one file


def test_kinds_of_events(tmp_path: Path) -> None:
    src = export(tmp_path / "export")
    summary = load(src, "segment", tmp_path / "log", events=["open"])
    assert summary.kinds == {"open": 240}
    assert summary.skipped == {"not asked for: conversion": 240}
    assert len(read_log(tmp_path / "log").sends) == 240
    with pytest.raises(UsageError, match="did you mean 'open'"):
        load(src, "segment", tmp_path / "log", events=["opne"])


# ------------------------------------------------------------------------------------------- hashing


def test_hashed_ids_join_as_the_plain_ones_do_and_nothing_else_is_written(tmp_path: Path) -> None:
    src = export(tmp_path / "export")
    plain, hashed = tmp_path / "plain", tmp_path / "hashed"
    load(src, "segment", plain, keep_emails=True)
    summary = load(src, "segment", hashed, hash_key=KEY, rejects=tmp_path / "rejects")
    a, b = replay(read_log(plain), goals=["Order Completed"]), replay(read_log(hashed), goals=["Order Completed"])
    pd.testing.assert_frame_equal(a.metrics, b.metrics)
    assert a.attribution.reasons() == b.attribution.reasons()
    log = read_log(hashed)
    of = privacy.Hashes(KEY).of
    assert set(log.names("user")) == {of("user_id", f"ann{i}@X.org") for i in range(50)}
    written = b"".join([*content(hashed).values(), *content(tmp_path / "rejects").values()]) + str(summary).encode()
    for secret in (b"x.org", b"Ann", b"Bad", b"m17", b"o17"):
        assert secret not in written
    (reject,) = [json.loads(line) for line in (tmp_path / "rejects" / "rejects.ndjson").read_text().splitlines()]
    assert reject == {
        "place": "000006.json.gz:61", "reason": "bad_value", "raw": "",
        "message": "event: found ***, expected the name of the event",
    }  # fmt: skip


def test_nothing_is_on_the_disk_before_it_is_hashed(tmp_path: Path) -> None:
    src = export(tmp_path / "export")
    with pytest.raises(KeyboardInterrupt):
        load(src, "segment", tmp_path / "log", hash_key=KEY, rejects=tmp_path / "r", progress=stopping(9))
    found = b"".join(content(tmp_path / ".log.loading").values())
    assert b"h:" in found
    assert b"x.org" not in found


def test_the_same_key_gives_the_same_hashes_and_another_one_others() -> None:
    one, again, other = privacy.Hashes(KEY), privacy.Hashes(KEY), privacy.Hashes(KEY + b"!")
    assert one.of("user_id", "u1") == again.of("user_id", "u1") != other.of("user_id", "u1")
    assert one.of("user_id", "u1") != one.of("send_id", "u1")
    assert one.fingerprint != other.fingerprint
    assert KEY.decode() not in one.fingerprint
    with pytest.raises(UsageError, match="at least 16"):
        privacy.Hashes(b"short")


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=60)
def test_what_a_reject_found_is_never_kept_under_a_key(found: str, more: str) -> None:
    secret = f"Ann{found}@x.org"
    for message in (
        f"user_id: found {secret!r}, expected an id",
        f"found {secret} (bad, expected x), expected JSON{''}",
    ):
        kept = privacy.Hashes(KEY).reject(Reject("f.json:1", "bad", message, secret + more))
        assert secret not in str(kept)
        assert "x.org" not in str(kept)


def test_the_key_comes_from_the_environment_or_a_file_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    src, out = export(tmp_path / "export", files=2), tmp_path / "log"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(privacy.KEY_VARIABLE, raising=False)
    argv = ["load", str(src), "--esp", "segment", "--out", str(out), "--hash-users"]
    assert run(argv) == 0
    file = tmp_path / "home" / "justai-sim" / "hash.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"a new key for hashing was written to {file}" in capsys.readouterr().err
    first = content(out)
    assert run(argv) == 0
    assert "ids are hashed with the key in" in capsys.readouterr().err
    assert content(out) == first
    with pytest.raises(UsageError, match="home is a folder; expected a file that holds the key"):
        privacy.hash_key(tmp_path / "home")
    file.chmod(0o644)
    assert run(argv) == 2
    assert "chmod 600" in capsys.readouterr().err
    monkeypatch.setenv(privacy.KEY_VARIABLE, "short")
    assert run(argv) == 2
    assert "at least 16" in capsys.readouterr().err
    monkeypatch.setenv(privacy.KEY_VARIABLE, "another key that is long enough")
    assert run(argv) == 0
    assert content(out) != first
    assert json.loads((out / "manifest.json").read_text())["ids"] == "ids as keyed hashes"
    assert run([*argv, "--hash-key", str(tmp_path / "mine.key")]) == 0
    assert (tmp_path / "mine.key").stat().st_mode & 0o777 == 0o600
    for more in ("--raw", "--keep-emails"):
        assert run([*argv, more]) == 2
    assert run([*argv[:-1], "--hash-key", str(file)]) == 2
    assert "add --hash-users" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- parts and options


def test_unreadable_parts_are_counted_and_only_a_source_of_nothing_else_is_refused(tmp_path: Path) -> None:
    src = export(tmp_path / "export", files=3)
    for name in ("a.txt", "b.txt", "c.log", "d.log"):
        (src / name).write_text("x")
    summary = load(src, "segment", tmp_path / "log")
    assert summary.skipped == {"file: *.log": 2, "file: *.txt": 2}
    assert dict(read_log(src, "segment").skipped) == summary.skipped
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match="found nothing; expected raw logs"):
        load(other, "segment", tmp_path / "none")
    for i in range(12):
        (other / f"{i:02d}.txt").write_text("x")
    with pytest.raises(DataError, match=r"07\.txt and 4 more; expected raw logs"):
        load(other, "segment", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_note_about_all_of_an_export_is_not_made_of_one_part(tmp_path: Path) -> None:
    src = tmp_path / "export"
    src.mkdir()
    for i in range(4):
        made = event(i, "Email Delivered", message_id=f"m{i}", template_id="t", copy_id="c")
        (src / f"{i}.json").write_text(json.dumps(made))
    alone = load(src, "segment", tmp_path / "log")
    assert [n for note, n in alone.notes.items() if "no send event" in note] == [4]
    (src / "9.json").write_text(json.dumps(lines(1)[0]))
    both = load(src, "segment", tmp_path / "log")
    assert not [note for note in both.notes if "no send event" in note]
    assert both.notes == load(src, "segment", tmp_path / "log").notes


@given(st.lists(st.integers(0, 9), max_size=30))
def test_parts_hold_every_file_once_in_order(sizes: list[int]) -> None:
    class File:
        def __init__(self, size: int) -> None:
            self.st_size = size

        def stat(self) -> Any:
            return self

    files: Any = [(File(s), str(i)) for i, s in enumerate(sizes)]
    found = parts.in_parts(files)
    assert [f for p in found for f in p] == files
    assert all(1 <= len(p) <= 2 for p in found)


@pytest.mark.parametrize("esp", list(PROVIDERS))
def test_every_switch_can_be_set_by_its_own_text(esp: str) -> None:
    known = switches(adapter(esp))
    for name, value in known.items():
        text = ",".join(value) if isinstance(value, tuple) else {True: "yes", False: "no"}.get(value, str(value))
        assert type(adapter(esp, {name: text})) is type(adapter(esp))
    with pytest.raises(UsageError, match=f"{esp} has no option 'nothing'"):
        adapter(esp, {"nothing": "x"})


def test_switches_change_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src, out = tmp_path / "export", tmp_path / "log"
    src.mkdir()
    made = {
        "eventName": "emailSend", "userId": "u1",
        "dataFields": {"createdAt": "2026-03-01 09:00:00 +00:00", "campaignId": 5, "templateId": 9, "messageId": "m1",
                       "transactionalData": {"copy_id": "warm", "my_copy": "cold"}},
    }  # fmt: skip
    (src / "hooks.json").write_text(json.dumps(made))
    argv = ["--esp", "iterable", "--out", str(out)]

    def variants(*options: str) -> list[str]:
        assert run(["load", str(src), *argv, *(w for o in options for w in ("--esp-option", o))]) == 0
        capsys.readouterr()
        return read_log(out).names("variant")

    assert variants() == ["warm"]
    assert variants("copy_keys=my_copy") == ["cold"]
    assert variants("variant_from=templateId,url") == ["9"]
    assert logs.read_log(src, "iterable", esp_options={"copy_keys": ["my_copy"]}).names("variant") == ["cold"]
    for bad, said in (
        ("copy_key=x", "iterable has no option 'copy_key'; did you mean 'copy_keys'?"),
        ("variant_from=tempalteId", "did you mean 'templateId'"),
        ("soft_bounces=perhaps", "expected yes or no"),
        ("copy_keys=", "expected names with commas"),
        ("copy_keys", "expected key=value"),
    ):
        for command in (["load", str(src), *argv], ["replay", str(src), "--esp", "iterable"]):
            assert run([*command, "--esp-option", bad]) == 2
            assert said in capsys.readouterr().err
    assert run(["replay", str(out), "--esp-option", "copy_keys=x"]) == 2
    assert "belong to the load" in capsys.readouterr().err
    assert len(rows_of(read_log(out)).sends) == 1


def test_links_are_followed_and_each_folder_is_read_once(tmp_path: Path) -> None:
    export, away = tmp_path / "export", tmp_path / "away"
    (away / "day").mkdir(parents=True)
    export.mkdir()
    (away / "day" / "a.json").write_text("{}")
    (export / "link").symlink_to(away)
    (export / "link2").symlink_to(away)
    (away / "loop").symlink_to(export)
    (export / "gone.json").symlink_to(tmp_path / "nowhere")
    assert [place for _, place in parts.files(export)] == ["link/day/a.json"]

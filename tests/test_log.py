"""Building, loading and reading logs: codes, order, masks, whole or not at all."""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justai_sim import clock, privacy, work
from justai_sim.clock import MISSING
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.coding import ROWS, build, rows_of, text_tables
from justai_sim.esp.documents import documents
from justai_sim.esp.generic import ADAPTER
from justai_sim.esp.rows import EventRow, Reject, Rows, SendRow
from justai_sim.log import conversion_names, load, read_log, read_log_with_rejects, write_rejects
from justai_sim.privacy import mask_text
from justai_sim.tables import CODE_SPACES, NONE
from tests.log_rows import all_rows, same

T0 = clock.parse("2026-01-05T00:00:00Z")
SENDS = "send_id,user_id,template_id,variant_id,sent_at\n"
EVENTS = "event_id,user_id,kind,occurred_at,name,value\n"


def plain(tmp: Path, users: int = 40, extra: str = "") -> Path:
    """A plain log: a send and two events a user, and `extra` lines of events."""
    src = tmp / "export"
    src.mkdir(parents=True)
    (src / "sends.csv").write_text(SENDS + "".join(f"s{i},u{i},welcome,v{i % 3},{T0 + i}\n" for i in range(users)))
    events = "".join(
        f"o{i},u{i},open,{T0 + i + 5},,\np{i},u{i},conversion,{T0 + i + 9},purchase,{i}.25\n" for i in range(users)
    )
    (src / "events.csv").write_text(EVENTS + events + extra)
    return src


def write_ndjson(rows: Rows, folder: Path) -> Path:
    """Rows as a plain log, through the adapter's own rendering."""
    folder.mkdir()
    found: dict[str, list[bytes]] = {n: [] for n in ROWS}
    for _, body in ADAPTER.render(build([rows])):
        found[json.loads(body)["table"]].append(body)
    for name, bodies in found.items():
        (folder / f"{name}.ndjson").write_bytes(b"\n".join(bodies))
    return folder


@given(all_rows)
def test_codes_are_in_byte_order(rows: Rows) -> None:
    log = build([rows])
    for space in CODE_SPACES:
        names = log.names(space)
        assert names == sorted(set(names), key=str.encode)
        codes = log.codes[space]
        assert codes.codes(names).tolist() == list(range(len(names)))  # type: ignore[attr-defined]
        assert codes.codes(["\x00 nothing", ""]).tolist() == [NONE, NONE]  # type: ignore[attr-defined]
        assert codes.text(np.array([NONE])) == [""]


@given(all_rows)
def test_build_keeps_the_texts_and_fills_the_times(rows: Rows) -> None:
    log = build([rows])
    back = rows_of(log)
    assert [s[:6] for s in back.sends] == [s[:6] for s in rows.sends]
    for was, now in zip(rows.sends, back.sends, strict=True):
        assert now.status_known_at == (was.received_at if was.status_known_at == MISSING else was.status_known_at)
        assert now.decided_at == was.decided_at
    assert list(map(repr, back.events)) == list(map(repr, rows.events))
    assert list(map(repr, back.decisions)) == list(map(repr, rows.decisions))
    assert not log.sends.rep.any()


@given(all_rows, st.randoms(use_true_random=False))
def test_order_and_batches_change_nothing(rows: Rows, random: Any) -> None:
    parts = []
    for name in ROWS:
        for row in getattr(rows, name):
            part = Rows()
            getattr(part, name).append(row)
            parts.append(part)
    random.shuffle(parts)
    assert same(rows_of(build(parts)), rows_of(build([rows])))


def test_build_fills_what_is_missing() -> None:
    rows = Rows(
        sends=[SendRow("s", "u", "t", "v", T0), SendRow("s2", "u", "t", "v", T0, received_at=T0 + 7)],
        events=[EventRow("", "u", "open", T0 + 1), EventRow("e", "", "click", T0 + 2, send_id="s9")],
    )
    rows.reject("x:1", "bad_json", "no")
    rows.skipped["page"] += 2
    rows.notes["a note"] += 1234
    log = build([rows, Rows(skipped=rows.skipped.copy())], "here", ["first"])
    assert log.sends.received_at.tolist() == log.sends.status_known_at.tolist() == [T0, T0 + 7]
    assert log.sends.decided_at.tolist() == [MISSING, MISSING]
    assert log.events.received_at.tolist() == [T0 + 1, T0 + 2]
    assert log.text("event", log.events.event)[0].startswith("auto:")
    assert log.events.user.tolist() == [0, NONE]
    assert log.names("send") == ["s", "s2", "s9"]
    assert (log.rejects, log.skipped, log.notes, log.source) == (
        {"bad_json": 1},
        {"page": 4},
        ("first", "a note: 1,234"),
        "here",
    )


def test_build_refuses_what_adapters_must_not_say() -> None:
    rows = Rows(sends=[SendRow("", "u", "t", "v", T0), SendRow("s", "u", "t", "v", T0)])
    log = build([rows])
    assert (len(log.sends), log.rejects) == (1, {"missing_value": 1})
    with pytest.raises(DataError, match=r"events\.kind: found 'opened'"):
        build([Rows(events=[EventRow("e", "u", "opened", T0)])])
    lone = build([Rows(events=[EventRow("e\ud800", "u", "open", T0)])])
    assert lone.names("event") == ["e\\ud800"]


@settings(max_examples=25)
@given(all_rows, st.integers(1, 20))
def test_loaded_equals_read_directly(rows: Rows, partitions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        src = write_ndjson(rows, Path(folder) / "src")
        out = Path(folder) / "log"
        if not len(rows):
            with pytest.raises(DataError, match="it holds no rows"):
                load(src, "generic", out)
            return
        summary = load(src, "generic", out, partitions=partitions)
        loaded, direct = read_log(out), read_log(src)
        assert same(rows_of(loaded), rows_of(direct))
        assert (loaded.rejects, loaded.skipped, loaded.notes) == (direct.rejects, direct.skipped, direct.notes)
        assert sum(summary.rows.values()) == len(rows)
        assert all(loaded.names(s) == direct.names(s) for s in CODE_SPACES)
        # A loaded log is a plain log, too, should its manifest be lost.
        (out / "manifest.json").unlink()
        assert same(rows_of(read_log(out)), rows_of(direct))


def test_load_partitions_by_user_and_repeats_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = plain(tmp_path, extra="bad line\n")
    monkeypatch.setattr(work, "FLUSH", 16)
    seen: list[tuple[int, int]] = []
    summary = load(src, "generic", tmp_path / "log", partitions=4, progress=lambda *at: seen.append(at))
    size = sum(f.stat().st_size for f in src.iterdir())
    assert seen == sorted(seen)
    assert (seen[-1], dict(summary.rejects)) == ((size, size), {"field_count": 1})
    assert summary.first_rejects[0].place == "events.csv:82"
    homes: dict[str, set[str]] = {}
    for name in ("sends", "events"):
        for file in sorted((tmp_path / "log" / name).iterdir()):
            for user in pq.read_table(file, columns=["user_id"])["user_id"].to_pylist():
                homes.setdefault(user, set()).add(file.name)
    assert len(homes) == 40
    assert all(len(h) == 1 for h in homes.values())
    assert len({next(iter(h)) for h in homes.values()}) > 1
    manifest = json.loads((tmp_path / "log" / "manifest.json").read_text())
    assert manifest["rows"] == {"sends": 40, "events": 80, "decisions": 0}
    assert manifest["kinds"] == {"conversion": 40, "open": 40}
    assert manifest["names"] == {"purchase": 40}
    assert manifest["rejects"] == {"field_count": 1}
    monkeypatch.setattr(work, "FLUSH", 1000)  # what is held is no matter
    load(src, "generic", tmp_path / "again", partitions=4)
    load(src, "generic", tmp_path / "log", partitions=4)  # a log may be replaced
    for file in (tmp_path / "again").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "log" / file.relative_to(tmp_path / "again")).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "export", "log"]


def test_an_interrupted_load_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    src, out = plain(tmp_path), tmp_path / "log"

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(src, "generic", out, progress=interrupt)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".log.loading", "export"]
    load(src, "generic", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["export", "log"]
    before = (out / "manifest.json").read_bytes()
    other = plain(tmp_path / "b", users=3)
    with pytest.raises(KeyboardInterrupt):
        load(other, "generic", out, progress=interrupt)
    assert (out / "manifest.json").read_bytes() == before
    assert len(read_log(out).sends) == 40
    (other / "sends.csv").write_text("nothing")  # an error leaves nothing behind
    with pytest.raises(DataError):
        load(other, "generic", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "export", "log"]


def test_load_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    src = plain(tmp_path)
    other = tmp_path / "thesis"
    other.mkdir()
    load(src, "generic", other)  # empty is fine
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "chapter.txt").write_text("x")
    for out in ("file", "full", "export"):
        with pytest.raises(UsageError, match=r"expected a|expected another"):
            load(src, "generic", tmp_path / out)
    with pytest.raises(UsageError, match="partitions is 0"):
        load(src, "generic", tmp_path / "new", partitions=0)
    with pytest.raises(UsageError, match="lies inside"):
        load(src, "generic", tmp_path / "new", rejects=tmp_path / "new" / "rejects")
    for out in (src / "log", src, src / "a" / "b"):
        with pytest.raises(UsageError, match=r"expected another folder for the log|is not empty and not a log"):
            load(src, "generic", out)
    with pytest.raises(UsageError, match="expected another folder for the rejects"):
        load(src, "generic", tmp_path / "new", rejects=src / "rejects")
    with pytest.raises(UsageError, match="did you mean 'generic'"):
        load(src, "generics", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_addresses_are_masked_everywhere(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "sends.csv").write_text(
        SENDS.strip() + ",email,segment\ns1,Ann@x.org,t,v,2026-01-05T00:00:00Z,ann@x.org,west\ns2,bob,t,v,5,,\n"
    )
    (src / "events.csv").write_text(
        EVENTS + "e1,ann@X.org,open,2026-01-06T00:00:00Z,,\ne2,ann@x.org,opn,2026-01-06T00:00:00Z,,\n"
        "e3,u,open,cid@y.com,,\n"
    )
    rejects = tmp_path / "rejects"
    summary = load(src, "generic", tmp_path / "log", rejects=rejects)
    log = read_log(tmp_path / "log")
    assert same(rows_of(log), rows_of(read_log(src)))
    users = log.text("user", log.sends.user)
    assert set(users) == {"bob", privacy.mask_id("ann@x.org")}
    assert set(log.text("user", log.events.user)) == {privacy.mask_id("ANN@x.org")}
    written = (rejects / "rejects.ndjson").read_text() + str(summary.first_rejects)
    assert "***@***" in written
    found = [json.loads(line) for line in (rejects / "rejects.ndjson").read_text().splitlines()]
    assert [list(r) for r in found] == [["place", "reason", "message", "raw"]] * 2
    everything = b"".join(p.read_bytes() for p in (tmp_path / "log").rglob("*.*")).lower()
    for address in ("ann@", "cid@", "x.org"):
        assert address not in written.lower()
        assert address.encode() not in everything
    load(src, "generic", tmp_path / "log", rejects=rejects, raw=True, keep_emails=True)
    assert "ann@x.org" in (rejects / "rejects.ndjson").read_text()
    assert "Ann@x.org" in read_log(tmp_path / "log").names("user")


def test_nothing_readable_is_an_error_with_the_first_rejects(tmp_path: Path) -> None:
    src = plain(tmp_path, users=0, extra="bad\nworse,1\n" * 5)
    for attempt in (lambda: load(src, "generic", tmp_path / "log", rejects=tmp_path / "r"), lambda: read_log(src)):
        with pytest.raises(DataError, match=r"10 rows refused, the first:\n  events\.csv:2: found 1 fields") as e:
            attempt()
        assert str(e.value).count("\n") == 3
        assert e.value.exit_code == 3
    assert not (tmp_path / "log").exists()
    assert len((tmp_path / "r" / "rejects.ndjson").read_text().splitlines()) == 10


def test_read_log_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    src = plain(tmp_path)
    with pytest.raises(DataError, match=r"exprot does not exist; did you mean .*export\?"):
        read_log(tmp_path / "exprot")
    with pytest.raises(DataError, match="nor does"):
        read_log(tmp_path / "no" / "where")
    with pytest.raises(DataError, match="neither a loaded log nor a plain one"):
        read_log(tmp_path)
    load(src, "generic", tmp_path / "log", partitions=2)
    manifest = tmp_path / "log" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(DataError, match="found a log of version 9, expected 1"):
        read_log(tmp_path / "log")
    manifest.write_text(text)
    part = next((tmp_path / "log" / "events").iterdir())
    part.write_bytes(b"nothing")
    with pytest.raises(DataError, match=f"{part.name}: cannot be read"):
        read_log(tmp_path / "log")
    part.unlink()
    with pytest.raises(DataError, match="the manifest says 80"):
        read_log(tmp_path / "log")


def test_rejects_of_a_direct_read(tmp_path: Path) -> None:
    src = plain(tmp_path, extra="bad line\n")
    log, rejects = read_log_with_rejects(src)
    assert (log.rejects, len(rejects)) == ({"field_count": 1}, 1)
    assert log.notes == (
        "events without received_at (occurred_at is used): 80",
        "sends without received_at (sent_at is used): 40",
    )
    path = write_rejects(tmp_path / "r", [*rejects, Reject("p", "r", "m", "caf\udce9 a@b")])
    assert [json.loads(x)["raw"] for x in path.read_text().splitlines()] == ["bad line", "caf? ***@***"]


def test_a_loaded_log_of_a_truncated_file(tmp_path: Path) -> None:
    src = plain(tmp_path, users=3000)
    whole = gzip.compress((src / "events.csv").read_bytes())
    (src / "events.csv").unlink()
    (src / "events.csv.gz").write_bytes(whole[: len(whole) // 2])
    summary = load(src, "generic", tmp_path / "log")
    assert summary.rejects == {"truncated_gzip": 1}
    assert 0 < len(read_log(tmp_path / "log").events) == summary.rows["events"] < 6000


def test_conversion_names() -> None:
    rows = Rows(
        sends=[SendRow(f"s{i}", f"u{i % 4}", "t", "v", T0) for i in range(8)],
        events=[EventRow(f"e{i % 6}", "u", "conversion", T0, "buy") for i in range(8)]
        + [EventRow("x", "u", "conversion", T0), EventRow("y", "u", "open", T0, "z")],
    )
    assert conversion_names(build([rows])) == [("buy", 6, 1.5), ("", 1, 0.25)]
    assert conversion_names(build([])) == []


def test_text_tables_are_accepted_by_build() -> None:
    rows = Rows(events=[EventRow("", "u", "open", T0)])
    assert same(rows_of(build(text_tables(rows))), rows_of(build([rows])))


def test_addresses_are_masked_in_linear_time_in_links_and_json() -> None:
    start = time.perf_counter()
    assert mask_text("a" * 8_000_000 + "@") == "a" * 8_000_000 + "@"
    assert time.perf_counter() - start < 5
    text = '{"u":"ann@x.org","l":"https://y.z/?e=ann%40x.org&b","v":"ann\\u0040x.org","n":"@"}'
    got = mask_text(text)
    assert "ann" not in got
    assert got.count("***@***") == 3
    assert mask_text(got) == got


@pytest.mark.parametrize("line", ['[{"type": "track"}]', '{ "type": "track" }'])
def test_a_bad_first_line_loses_none_of_the_others(line: str, tmp_path: Path) -> None:
    """Lines that are arrays, or objects with blanks, are lines too."""
    (tmp_path / "a.ndjson").write_text("\n".join(["{broken", *[line] * 100]))
    found = list(documents(tmp_path / "a.ndjson", "a", Rows))
    assert len(found) == 101


def test_printed_objects_one_after_the_other(tmp_path: Path) -> None:
    """A file of several printed objects is as many documents; one that is broken loses none of the others."""
    events = [{"type": "track", "n": i, "deep": {"a": [1, {}]}} for i in range(4)]
    texts = [json.dumps(e, indent=2) for e in events]
    texts[2] = texts[2].replace('"deep"', "deep")
    (tmp_path / "a.json").write_text("\n".join(texts) + "\n")
    found = list(documents(tmp_path / "a.json", "a", Rows))
    assert [at for at, _ in found] == ["a:1", "a:11", "a:21", "a:31"]
    assert [json.loads(d)["n"] for i, (_, d) in enumerate(found) if i != 2] == [0, 1, 3]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_told_as_that(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(('\ufeff{"type": "track"}\n' * 3).encode(encoding))
    rows = Rows()
    assert list(documents(tmp_path / "a.ndjson", "a", lambda: rows)) == []
    ((place, reason, message, _),) = rows.rejects
    assert (place, reason) == ("a", "bad_encoding")
    assert "UTF-16, expected UTF-8" in message


def test_a_packed_file_that_holds_no_json_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(DataError, match=r"found x\.gz; expected raw logs.*; a packed file \(\.gz\) must hold JSON"):
        load(tmp_path, "segment", tmp_path.with_name("out"))

"""Hostile files and bodies: each is read in a process of its own, whose peak memory is told and bounded."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justai_sim.clock import MISSING
from justai_sim.esp import avro, limits
from justai_sim.esp.base import PROVIDERS, adapter
from justai_sim.esp.bytelines import ByteLines
from justai_sim.esp.rows import OTHERS, Counts, Rows

MB = 1_000_000
MOST = 450 * MB
"""Peak memory beyond the imports, whatever is read."""
_CHILD = """
import json, resource, sys
from collections import Counter
from pathlib import Path
import fastavro, pyarrow.parquet
from justai_sim.esp.base import adapter
from justai_sim.esp.rows import Rows
from justai_sim.errors import DataError
how, esp, path = sys.argv[1:]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, rows, reasons, skipped, error = peak(), 0, Counter(), 0, ""
def batches():
    if how == "read":
        yield from adapter(esp).read(Path(path), None)
    else:
        rows = Rows()
        adapter(esp).parse(Path(path).read_bytes(), rows, "body", 1767225600000000)
        yield rows
try:
    for batch in batches():
        rows += len(batch)
        reasons.update(r.reason for r in batch.rejects)
        skipped += batch.skipped.total()
except DataError as e:
    error = str(e)
print(json.dumps([rows, reasons, skipped, error, peak() - before]))
"""


class Found:
    """What a process of its own found in a file."""

    def __init__(self, how: str, esp: str, path: Path) -> None:
        run = subprocess.run(
            [sys.executable, "-c", _CHILD, how, esp, str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        self.rows, reasons, self.skipped, self.error, self.peak = json.loads(run.stdout)
        self.reasons = Counter(reasons)
        assert self.peak < MOST, f"{self.peak / MB:.0f} MB"


def read(esp: str, path: Path) -> Found:
    return Found("read", esp, path)


def posted(esp: str, path: Path, body: bytes) -> Found:
    assert len(body) <= 10 * MB
    path.write_bytes(body)
    return Found("parse", esp, path)


GOOD = {
    "segment": b'{"type":"track","event":"Signed Up","messageId":"m1","userId":"u1",'
    b'"timestamp":"2026-03-01T00:00:00Z"}',
    "braze": b'{"event_type":"users.behaviors.CustomEvent","id":"1","time":1767225600,"user":{"external_user_id":"u"},'
    b'"properties":{"name":"n"}}',
    "iterable": b'{"eventName":"n","userId":"u","createdAt":"2026-01-05 09:30:00 +00:00"}',
    "customerio": b'{"table":"events","event_id":"e","user_id":"u","kind":"open","occurred_at":"2026-03-01T00:00:00Z"}',
    "sfmc": b'{"table":"events","event_id":"e","user_id":"u","kind":"open","occurred_at":"2026-03-01T00:00:00Z"}',
    "generic": b'{"event_id":"e","user_id":"u","kind":"open","occurred_at":"2026-03-01T00:00:00Z"}',
}
JSON_ESPS = sorted(set(GOOD) - {"generic"})
DEEP = b"[" * 100_000 + b"]" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def hole(path: Path, before: bytes, size: int, after: bytes) -> None:
    """A file with `size` zero bytes that take no disk."""
    with path.open("wb") as f:
        f.write(before)
        f.seek(size, os.SEEK_CUR)
        f.write(after)


def bomb(path: Path, piece: bytes, times: int) -> None:
    """Many gzip members of the same bytes."""
    path.write_bytes(gzip.compress(piece, 9) * times)


# ---------------------------------------------------------------------------------------- lines and gzip


@pytest.mark.parametrize(
    "piece", [bytes(10 * MB), (b" " * 999 + b"\n") * 10_000, (b'{"type":"page"}' + b" " * 999 + b"\n") * 10_000]
)
def test_a_small_gzip_file_of_a_gigabyte(tmp_path: Path, piece: bytes) -> None:
    bomb(tmp_path / "a.ndjson.gz", piece, 100)
    found = read("segment", tmp_path)
    assert found.reasons["gzip_too_large"] == 1


@pytest.mark.parametrize(
    ("esp", "name"), [("generic", "sends.csv.gz"), ("iterable", "emailOpen.csv.gz"), ("sfmc", "Opens.csv.gz")]
)
def test_a_small_gzip_file_of_a_gigabyte_of_csv(tmp_path: Path, esp: str, name: str) -> None:
    header = b"send_id,user_id,template_id,variant_id,sent_at,EventDate,_type" + b" " * 300 + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(header) + gzip.compress(bytes(10 * MB), 9) * 100)
    (tmp_path / "events.csv").write_bytes(b"event_id,user_id,kind,occurred_at\n")
    found = read(esp, tmp_path)
    assert found.reasons["gzip_too_large"] + found.reasons["zip_too_large"] == 1


@pytest.mark.parametrize("esp", JSON_ESPS)
def test_a_line_of_a_gigabyte_costs_no_neighbour(tmp_path: Path, esp: str) -> None:
    path = tmp_path / ("emailOpen.ndjson" if esp == "iterable" else "a.ndjson")
    hole(path, GOOD[esp] + b'\n{"a":"', 1 << 30, b'"}\n' + GOOD[esp])
    found = read(esp, tmp_path)
    assert (found.rows, found.reasons) == (2, {"line_too_long": 1})


EVENTS = b"event_id,user_id,kind,occurred_at\n"
ROW = b"e,u,open,2026-03-01T00:00:00Z\n"


def plain_log(folder: Path, events: bytes) -> Path:
    (folder / "sends.csv").write_bytes(b"send_id,user_id,template_id,variant_id,sent_at\n")
    (folder / "events.csv").write_bytes(events)
    return folder / "events.csv"


def test_a_line_of_a_gigabyte_in_csv(tmp_path: Path) -> None:
    hole(plain_log(tmp_path, b""), EVENTS + ROW, 1 << 30, b"\n" + ROW)
    found = read("generic", tmp_path)
    assert (found.rows, found.reasons) == (2, {"line_too_long": 1})
    (tmp_path / "events.csv").unlink()
    hole(tmp_path / "events.ndjson", GOOD["generic"] + b"\n", 1 << 30, b"\n" + GOOD["generic"])
    found = read("generic", tmp_path)
    assert (found.rows, found.reasons) == (2, {"line_too_long": 1})


def test_a_line_of_a_gigabyte_in_other_tables(tmp_path: Path) -> None:
    row = b"open,m1,u1,2026-01-05 09:30:00 +00:00\n"
    hole(tmp_path / "emailOpen.csv", b"eventName,messageId,userId,createdAt\n" + row, 1 << 30, b"\n" + row)
    found = read("iterable", tmp_path)
    assert (found.rows, found.reasons) == (2, {"line_too_long": 1})
    hole(
        tmp_path / "Opens.csv",
        b"SendID,SubscriberKey,EventDate\n" + b"1,u,3/1/2026 1:00:00 AM\n" * 9,
        1 << 30,
        b"\n1,u,3/1/2026 2:00:00 AM\n",
    )
    (tmp_path / "emailOpen.csv").unlink()
    found = read("sfmc", tmp_path)
    assert (found.rows, found.reasons) == (10, {"line_too_long": 1})


def test_damaged_gzip_is_told_where_it_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(gzip.compress(GOOD["segment"] + b"\n" + os.urandom(100_000))[:-20_000])
    assert read("segment", tmp_path).reasons["truncated_gzip"] == 1


def test_byte_lines(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345678\n123456789\n\n1\n123456789")
    rows = Rows()
    with ByteLines(tmp_path / "a", "a", 9) as lines:
        assert [(line, lines.number) for line in iter(lines.read, b"")] == [
            (b"12345678\n", 1),
            (b"\n", 3),
            (b"1\n", 4),
            (b"123456789", 5),
        ]
        lines.report(rows)
        lines.report(rows)
    assert [(r.place, r.reason, r.raw) for r in rows.rejects] == [("a:2", "line_too_long", "123456789\n")]


# --------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("esp", sorted(GOOD))
@pytest.mark.parametrize("deep", [DEEP, DEEP_OBJECT, b"[" * 2_000_000, b'{"events":' + DEEP + b"}"])
def test_deep_json_as_a_body(esp: str, deep: bytes) -> None:
    for body in (deep, b"[" + GOOD[esp] + b"," + deep + b"]"):
        rows = Rows()
        adapter(esp).parse(body, rows, "body", 1)
        assert {r.reason for r in rows.rejects} <= {"bad_json", "bad_value", "event_too_long", "document_too_long"}
        assert rows.rejects


@pytest.mark.parametrize("esp", JSON_ESPS)
def test_deep_json_in_files(tmp_path: Path, esp: str) -> None:
    (tmp_path / "emailOpen.ndjson").write_bytes(b"\n".join([GOOD[esp], DEEP, DEEP_OBJECT, GOOD[esp]]))
    found = read(esp, tmp_path)
    assert (found.rows, found.reasons) == (2, {"bad_json": 2})
    (tmp_path / "emailOpen.ndjson").rename(tmp_path / "data.json")
    (tmp_path / "data.json").write_bytes(b"\n" + DEEP.replace(b"[", b"[\n"))
    assert read(esp, tmp_path).reasons == {"bad_json": 1}


@pytest.mark.parametrize("esp", ["generic", "segment", "sfmc"])
@pytest.mark.parametrize("piece", [b"0", b"{}", b"[]", b"[[]]", b'""', b"{"])
def test_a_body_of_many_nothings(tmp_path: Path, esp: str, piece: bytes) -> None:
    body = b"[" + (piece + b",") * (9 * MB // (len(piece) + 1)) + piece + b"]"
    found = posted(esp, tmp_path / "body", body)
    assert not found.rows
    assert found.reasons


def test_shared_fields_that_each_event_would_carry(tmp_path: Path) -> None:
    shared = b'{"context":{"x":"' + b"x" * 5 * MB + b'"},"batch":[' + b'{"type":"track"},' * 200_000
    found = posted("segment", tmp_path / "body", shared + GOOD["segment"] + b"]}")
    assert found.reasons == {"missing_field": limits.ELEMENTS, "too_many_events": 1}


def test_documents_over_the_bound(tmp_path: Path) -> None:
    line = b'  {"type":"track","event":"x"},\n'
    (tmp_path / "a.json").write_bytes(b"[\n" + line * (limits.DOCUMENT // len(line) + 1) + b"{}]")
    assert read("segment", tmp_path).reasons == {"document_too_long": 1}
    hole(tmp_path / "a.json", b'{"event":"', limits.LINE, b'"}')
    assert read("segment", tmp_path).reasons == {"document_too_long": 1}
    hole(tmp_path / "a.json", b"[" + GOOD["segment"] + b',{"event":"', limits.LINE, b'"},' + GOOD["segment"] + b"]")
    found = read("segment", tmp_path)
    assert (found.rows, found.reasons) == (2, {"event_too_long": 1})


def test_lines_of_which_the_first_is_bad_are_streamed(tmp_path: Path) -> None:
    lines = limits.DOCUMENT // len(GOOD["segment"]) + 1_000
    (tmp_path / "a.ndjson").write_bytes(b"{\n" + (GOOD["segment"] + b"\n") * lines)
    found = read("segment", tmp_path)
    assert (found.rows, found.reasons) == (lines, {"bad_json": 1})


@pytest.mark.parametrize("esp", sorted(GOOD))
def test_an_id_of_a_megabyte(esp: str) -> None:
    for key, long in ((b'"u"', b'"' + b"u" * MB + b'"'), (b'"u1"', b'"' + b"u" * MB + b'"')):
        rows = Rows()
        adapter(esp).parse(GOOD[esp].replace(key, long), rows, "body", 1)
        if long in GOOD[esp].replace(key, long):
            assert [r.reason for r in rows.rejects] == ["text_too_long"]


def test_names_without_end_are_counted_together() -> None:
    counts = Counts()
    for i in range(100_000):
        counts[f"type {i}"] += 2
    assert len(counts) <= limits.KINDS + 2
    assert counts.total() == 200_000
    assert counts["type 0"] == 2
    whole = Counts()
    whole.add(counts)
    whole.add({"x": 1})
    assert whole.total() == 200_001
    assert whole[OTHERS] > 190_000


# ---------------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize("delimiter", [b",", b"\t"])
def test_a_million_columns(tmp_path: Path, delimiter: bytes) -> None:
    wide = delimiter.join(b"c%d" % i for i in range(MB)) + b"\n"
    plain_log(tmp_path, EVENTS.strip() + b"," + wide + ROW)
    found = read("generic", tmp_path)
    assert "columns, expected at most 2,000" in found.error
    plain_log(tmp_path, EVENTS + ROW + wide * 3 + ROW)
    found = read("generic", tmp_path)
    assert (found.rows, found.reasons) == (2, {"field_count": 3})
    for esp, name in (("iterable", "emailOpen.csv"), ("sfmc", "Opens.csv")):
        (tmp_path / name).write_bytes(wide)
        assert read(esp, tmp_path / name).reasons == ({"bad_header": 1} if esp == "iterable" else {"line_too_long": 1})


@pytest.mark.parametrize("line", [b'x","\n', b'"x\n', b'"""\n', b'""x",""\n', b'e,u,open,"\n'])
def test_quotes_that_never_close(tmp_path: Path, line: bytes) -> None:
    """Every line may begin a record that swallows the rest: neither memory nor time may follow."""
    plain_log(tmp_path, EVENTS + ROW + line * 300_000 + b"\n" + ROW)
    found = read("generic", tmp_path)
    assert found.rows >= 1
    assert set(found.reasons) <= {"field_count", "bad_time"}


# --------------------------------------------------------------------------------------------------- Avro

long, text = avro._long, avro._text
CUSTOM = "users.behaviors.CustomEvent"


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": CUSTOM, "fields": [{"name": k, "type": v} for k, v in fields.items()]}


PLAIN = record(id="string", user_id="string", name="string", time="long")


def row(name: str = "n") -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PLAIN, {"id": "1", "user_id": "u", "name": name, "time": 1_767_225_600})
    return out.getvalue()


def file(schema: Any, blocks: Iterable[tuple[int, int | None, bytes]], codec: bytes = b"null") -> bytes:
    """An Avro file of blocks (records claimed, bytes claimed or None for the truth, data)."""
    head = b"Obj\x01" + long(2) + text(b"avro.schema") + text(json.dumps(schema).encode())
    out = [head + text(b"avro.codec") + text(codec) + long(0) + b"s" * 16]
    for count, size, data in blocks:
        out.append(long(count) + long(len(data) if size is None else size) + data + b"s" * 16)
    return b"".join(out)


def deflated(data: bytes) -> bytes:
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    return c.compress(data) + c.flush()


def snappy(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="snappy", asbytes=True)) + zlib.crc32(data).to_bytes(4, "big")


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


CODECS: dict[bytes, Callable[[bytes], bytes]] = {b"deflate": deflated, b"snappy": snappy, b"zstandard": zstd}
TWICE: Any = "null"
for _i in range(30):
    _name = TWICE if isinstance(TWICE, str) else TWICE["name"]
    TWICE = {"type": "record", "name": f"r{_i}", "fields": [{"name": "a", "type": TWICE}, {"name": "b", "type": _name}]}
INTS = {"type": "array", "items": "int"}
PAIRS: Any = {"type": "array", "items": None}
PAIRS["items"] = {"type": "record", "name": "q", "fields": [{"name": "x", "type": ["null", "int"]}]}


def avro_read(folder: Path, data: bytes) -> Found:
    (folder / "a.avro").write_bytes(data)
    return read("braze", folder)


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_an_avro_block_that_unpacks_to_too_much(tmp_path: Path, codec: bytes) -> None:
    pack = CODECS[codec]
    data = file(PLAIN, [(1, None, pack(row())), (9, None, pack(bytes(500 * MB))), (1, None, pack(row()))], codec)
    found = avro_read(tmp_path, data)
    assert (found.rows, found.reasons) == (2, {"avro_too_large": 1})


@pytest.mark.parametrize(
    ("schema", "blocks", "reasons", "rows"),
    [
        (PLAIN, [(1 << 60, None, row()), (1, None, row())], ["avro_too_large"], 1),
        (PLAIN, [(1, None, row()), (1, 1 << 60, row())], ["truncated_avro"], 1),
        (PLAIN, [(1, None, row()), (1, None, long(1 << 60) + b"x")], ["truncated_avro"], 1),
        (record(a="null"), [(1 << 60, None, b""), (1 << 60, None, b"x")], ["avro_too_large"] * 2, 0),
        (record(a={"type": "array", "items": "null"}), [(1, None, long(1 << 60))], ["bad_avro"], 0),
        (record(a={"type": "map", "values": "int"}), [(1, None, long(1 << 60) + b"\0" * 50)], ["truncated_avro"], 0),
        (record(a=INTS), [(1, None, long(1 << 60) + b"\2" * 50)], ["truncated_avro"], 0),
        (record(a=PAIRS), [(1, None, long(10 * MB) + bytes(10 * MB) + b"\0")], ["avro_too_large"], 0),
        (record(a=["null", CUSTOM]), [(1, None, b"\2" * MB)], ["bad_avro"], 0),
        (record(a={"type": "fixed", "name": "f", "size": 1 << 60}), [(1, None, b"x")], ["bad_avro"], 0),
        (TWICE, [(1, None, b"x")], ["bad_avro"], 0),
        (record(**{f"f{i}": "null" for i in range(20_000)}), [(1, None, b"x")], ["bad_avro"], 0),
        (json.loads("[" * 900 + "]" * 900), [(1, None, b"x")], ["bad_avro"], 0),
    ],
)  # fmt: skip
def test_avro_that_claims_too_much(tmp_path: Path, schema: Any, blocks: Any, reasons: list[str], rows: int) -> None:
    found = avro_read(tmp_path, file(schema, blocks))
    assert (found.rows, found.reasons) == (rows, Counter(reasons))


def test_avro_headers_that_claim_too_much(tmp_path: Path) -> None:
    head = b"Obj\x01"
    for data in (
        head + long(1 << 60),
        head + long(1) + text(b"avro.schema") + long(1 << 60),
        head + long(1) + text(b"avro.schema") + text(DEEP) + long(0) + bytes(16),
        head + b"\xff" * 100,
        file(PLAIN, [(1, None, row())], b"unheard"),
    ):
        assert avro_read(tmp_path, data).reasons == {"bad_avro": 1}


# ------------------------------------------------------------------------------------------------ Parquet


def export(folder: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, folder / "metrics_v4.parquet", **options)
    return folder / "metrics_v4.parquet"


def test_one_long_text_for_many_rows(tmp_path: Path) -> None:
    """A dictionary of one megabyte, 2,000 times: 100 kB on disk, 2 GB as texts."""
    n = 2_000
    long_text = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), ["x" * MB])
    table = pa.table(
        {"delivery_id": ["d"] * n, "metric": long_text, "link_url": long_text, "created_at": [1_767_225_600] * n}
    )
    path = export(tmp_path, table, compression="zstd")
    assert path.stat().st_size < 2 * MB
    found = read("customerio", tmp_path)
    assert not found.rows
    assert found.reasons["text_too_long"] == n


def test_a_dictionary_page_beyond_the_bound(tmp_path: Path) -> None:
    texts = pa.array(["x" * (limits.PARQUET_PAGE + MB)])
    export(tmp_path, pa.table({"delivery_id": texts, "metric": texts}), compression="zstd")
    assert read("customerio", tmp_path).reasons == {"bad_parquet": 1}
    (tmp_path / "metrics_v4.parquet").rename(tmp_path / "events.parquet")
    export(tmp_path, pa.table({c: pa.array([], pa.string()) for c in ("event_id", "kind")})).unlink()
    plain_log(tmp_path, b"").unlink()
    pq.write_table(
        pa.table(dict.fromkeys(("event_id", "user_id", "kind", "occurred_at"), texts)),
        tmp_path / "events.parquet",
        compression="zstd",
    )
    assert "a page of 68" in read("generic", tmp_path).error


def test_rows_that_take_no_bytes(tmp_path: Path) -> None:
    n = 30 * MB
    export(tmp_path, pa.table({"delivery_id": pa.nulls(n, pa.string()), "metric": pa.nulls(n, pa.string())}))
    assert read("customerio", tmp_path).reasons == {"bad_parquet": 1}


@pytest.mark.parametrize("at", [-4, -8, -9, -100, 4, 20, 60])
def test_damaged_parquet(tmp_path: Path, at: int) -> None:
    path = export(
        tmp_path,
        pa.table({"delivery_id": ["d", "e"], "metric": ["opened", "clicked"], "created_at": [1_767_225_600] * 2}),
    )
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    found = read("customerio", tmp_path)
    assert set(found.reasons) <= {"bad_parquet", "bad_time", "missing_field", "bad_value"}


def test_every_provider_has_a_good_line() -> None:
    assert {name.partition("-")[0] for name in PROVIDERS} == set(GOOD)
    for esp, body in GOOD.items():
        rows = Rows()
        adapter(esp).parse(body, rows, "body", MISSING)
        assert len(rows) == 1, esp


def test_the_documented_bounds_are_those_in_use() -> None:
    page = (Path(__file__).parents[1] / "docs" / "limits.md").read_text(encoding="utf-8")
    mib = {limits.LINE: "8", limits.DOCUMENT: "64", limits.FLOOR: "64", limits.AVRO_HEADER: "4"}
    mib |= {limits.AVRO_BLOCK: "64", limits.PARQUET_PAGE: "64"}
    assert all(f"{n} MiB" in page and size == int(n) << 20 for size, n in mib.items())
    numbers = (limits.ELEMENTS, limits.COLUMNS, limits.TEXT, limits.AVRO_NODES, limits.KINDS)
    assert all(f"{n:,}" in page for n in numbers)
    assert f"{limits.RATIO} times" in page
    assert f"{limits.PARQUET_ROWS} a byte" in page

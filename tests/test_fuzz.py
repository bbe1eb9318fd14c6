"""Fuzzing of the readers: half a minute in all with each run, ten minutes a provider with `make test-slow`.

`make fuzz PROVIDER=braze SECONDS=600` does one. What it found is below, and in the tests of the provider.
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import fastavro
import pytest

from justai_sim.clock import MISSING
from justai_sim.esp import avro, avro_columns, braze, braze_lane
from justai_sim.esp import braze_fields as f
from justai_sim.esp.base import adapter
from justai_sim.esp.rows import Rows
from tests.esp_rows import read_all
from tests.fuzzing import _HOSTILE, FORMATS, PROVIDERS, RECEIVED, mutated, one_input, seeds

HARNESS = Path(__file__).with_name("fuzzing.py")
FOUND: list[tuple[str, bytes]] = [
    ("generic", b'\x00"\xff\xff"'),  # a text that is no UTF-8
    ("generic", b'\x00{"table":{"a":1}}'),  # a table that is no text
    ("generic", b'\x00{"table":["events"]}'),
    ("sfmc", b'\x01{"table":[],"event_id":"e"}'),
    ("generic", b'\x00{"event_id":"e","user_id":"u","kind":["open"],"occurred_at":1772668800000000}'),
    # a number that is too large for a decimal
    ("generic", b'\x00{"event_id":"e","value":1e99999999999999999999}'),
    ("generic", b'\x02{"event_id":"e","user_id":"u","value":1e99999999999999999999}'),
    # an event without id of a user that is no UTF-8
    ("generic", b"\x01event_id,user_id,kind,occurred_at\n,\xff,open,1772500000000000\n"),
    # a file in an archive without a name
    ("sfmc", b"\x05PK\x01\x02\x14\x03" + bytes(2 + 38) + b"PK\x05\x06" + bytes(4) + b"\x01\0\x01\0.\0\0\0" + bytes(6)),
    # times that are numbers beyond any
    ("customerio", b'\x03{"delivery_id":"d1","created_at":1e300,"seq_num":1}'),
    ("customerio", b'\x05{"output_id":"o","subject_name":"s","split_test_index":1,"created_at":1e300}'),
    (
        "customerio",
        b'\x06{"internal_customer_id":"c","customer_id":"u","updated_at":"never"}\n'
        b'{"internal_customer_id":"c","customer_id":"u","updated_at":1.5}',
    ),
]
"""Inputs on which something else than a typed error came out."""
ELEMENTS = {"generic": "_elements", "customerio": "_lines"}
"""What takes a body apart, where it is not `elements`."""


def fuzz(provider: str, seconds: int) -> None:
    run = subprocess.run(
        [sys.executable, str(HARNESS), provider, str(seconds)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]


needs_atheris = pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no build for this system")


@needs_atheris
@pytest.mark.parametrize("provider", PROVIDERS)
def test_half_a_minute_in_all(provider: str) -> None:
    fuzz(provider, 30 // len(PROVIDERS))


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_ten_minutes(provider: str) -> None:
    fuzz(provider, 600)


@pytest.mark.parametrize(("provider", "data"), FOUND)
def test_what_was_found(provider: str, data: bytes, tmp_path: Path) -> None:
    one_input(provider, data, tmp_path)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_seeds_are_read(provider: str, tmp_path: Path) -> None:
    found = seeds(provider)
    assert {seed[0] for seed in found} == set(range(len(FORMATS[provider])))
    for seed in found:
        one_input(provider, seed, tmp_path)


# ------------------------------------------------------------------------------------------- fast lanes


def test_the_lane_of_segment_reads_as_elements_do(tmp_path: Path) -> None:
    """Whole files by the lane, their lines as bodies without it: the same rows, rejects and counts."""
    rng, esp = random.Random(1), adapter("segment")
    start = [seed for seed in seeds("segment") if seed[0] == 1]
    for i in range(1_500):
        data = start[i % len(start)]
        for _ in range(rng.randrange(6)):
            data = mutated(data, rng)
        lines = [line for line in data[1:].split(b"\n") if line.strip()]
        (tmp_path / "a.ndjson").write_bytes(b'{"type":"page"}\n' + b"\n".join(lines))
        expected = Rows()
        for number, line in enumerate(lines, 2):
            esp.parse(line, expected, f"a.ndjson:{number}", MISSING)
        found = read_all(esp, tmp_path)
        found.skipped["page"] -= 1
        assert (found.sends, found.events) == (expected.sends, expected.events), lines
        assert found.rejects == expected.rejects, lines
        assert +found.skipped == expected.skipped, lines
        delivered = {k: v for k, v in found.notes.items() if "segment-deliveries" not in k}
        assert delivered == expected.notes, lines


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_body_is_read_as_its_elements_are(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the fast lanes of bodies that hold one event: the same rows, rejects and counts."""
    rng, esp = random.Random(3), adapter(provider)
    start, bodies = [seed[1:] for seed in seeds(provider) if not FORMATS[provider][seed[0]].name], list[bytes]()
    for i in range(6_000):
        data = b"\0" + start[i % len(start)]
        for _ in range(rng.randrange(4)):
            data = mutated(data, rng)
        bodies.append(data[1:])

    def read() -> list[Rows]:
        found = list[Rows]()
        for i, body in enumerate(bodies):
            found.append(Rows())
            esp.parse(body, found[-1], "body 1", RECEIVED if i % 3 else MISSING)
        return found

    fast, module = read(), f"justai_sim.esp.{provider}"
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{ELEMENTS.get(provider, 'elements')}", lambda *_, **__: [])
        assert sum(map(len, read())) > 500, "no body takes the lane"
    for name in {module, "justai_sim.esp.generic"}:
        monkeypatch.setattr(f"{name}.lone", lambda *_, **__: None)
    monkeypatch.setattr("justai_sim.esp.braze_http.append", lambda *_: False)
    for body, found, expected in zip(bodies, fast, read(), strict=True):
        assert repr(found) == repr(expected), body


def test_the_lane_of_braze_reads_as_elements_do(tmp_path: Path) -> None:
    """Whole files with the lane and without it: the same rows, rejects and counts, in any order."""
    rng, esp, used, left = random.Random(2), adapter("braze", {"restated": True}), 0, 0
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in (row for seed in seeds("braze") if seed[0] == 3 for row in _records(seed)):
        kinds.setdefault(str(row.pop("event_type")), []).append(row)
    for i in range(100):
        kind = sorted(kinds)[i % len(kinds)]
        _write(tmp_path / "a.avro", kind, [rng.choice(kinds[kind]) for _ in range(60)], rng)
        slow, fast = Rows(), read_all(esp, tmp_path)
        with mock.patch.object(avro_columns.Flat, "of", return_value=None):
            slow = read_all(esp, tmp_path)
        with mock.patch.object(braze, "_append"):
            only = len(read_all(esp, tmp_path))
        used, left = used + only, left + len(fast) - only
        assert _sorted(fast) == _sorted(slow)
        assert (fast.rejects, fast.skipped, fast.notes) == (slow.rejects, slow.skipped, slow.notes)
    assert used > 1_500
    assert left > 300


def test_columns_of_avro_are_its_records() -> None:
    """Blocks as they should be and damaged ones: where there are columns, fastavro finds the same in the records."""
    rng, found, whole = random.Random(3), 0, 0
    scalars = ["boolean", "int", "long", "float", "double", "string"]
    for _ in range(2_000):
        kinds: list[Any] = [rng.choice(scalars) for _ in range(rng.randrange(1, 6))]
        kinds = [{"type": "array", "items": rng.choice([k, ["null", k]])} if rng.random() < 0.2 else k for k in kinds]
        kinds = [rng.choice([k, ["null", k], [k, "null"]]) for k in kinds]
        schema: Any = {
            "type": "record",
            "name": "r",
            "fields": [{"name": f"f{i}", "type": k} for i, k in enumerate(kinds)],
        }
        rows = [{f"f{i}": _value(k, rng) for i, k in enumerate(kinds)} for _ in range(40)]
        out = io.BytesIO()
        for row in rows:
            fastavro.schemaless_writer(out, schema, row)
        data, damaged = bytearray(out.getvalue()), rng.random() < 0.5
        if damaged:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        flat = avro_columns.Flat.of(schema, frozenset(rows[0]))
        assert flat is not None
        columns = flat.read([avro.Block(40, bytes(data))])
        whole, found = whole + (not damaged), found + (columns is not None)
        if columns is None:
            assert damaged
            continue
        stream = io.BytesIO(bytes(data))
        try:
            theirs: list[Any] = [fastavro.schemaless_reader(stream, schema, None) for _ in range(40)]
        except UnicodeDecodeError:  # of an item: only how many there are is looked at
            assert damaged
            continue
        assert stream.tell() == len(data)
        for i, kind in enumerate(kinds):
            told = [row[f"f{i}"] for row in theirs]
            if "array" in str(kind):
                told = [None if v is None else bool(v) for v in told]
            assert repr(columns[f"f{i}"].to_pylist()) == repr(told)
    assert found > whole + 100


def _value(kind: Any, rng: random.Random) -> Any:
    if isinstance(kind, list):
        return None if rng.random() < 0.3 else _value(next(k for k in kind if k != "null"), rng)
    if isinstance(kind, dict):
        return [_value(kind["items"], rng) for _ in range(rng.randrange(3))]
    if kind == "string":
        return rng.choice(["", "a", "né", "x" * 200])
    size = 31 if kind == "int" else 63
    number = rng.randrange(-(1 << size), 1 << size) >> rng.choice([0, rng.randrange(size)])
    return {"boolean": number > 0, "float": 0.5 * (number % 100), "double": number / 7}.get(kind, number)


def _sorted(rows: Rows) -> list[str]:
    return sorted(map(repr, [*rows.sends, *rows.events]))


def _write(path: Path, kind: str, rows: list[dict[str, Any]], rng: random.Random) -> None:
    """Rows as Avro in which each field has one type, with values that are odd for it and others left out."""
    types: dict[Any, Any] = {str: "string", int: "long", float: "double", bool: "boolean"}
    types[list] = {"type": "array", "items": ["null", "string"]}
    fields, made = dict[str, Any](), [dict[str, Any]() for _ in rows]
    changed = f.MACHINE_OPENS_SINCE // 1_000_000
    for name in sorted(braze_lane.FIELDS.union(*rows)):
        values = [row.get(name) for row in rows]
        if not any(values) and rng.random() < 0.3:
            values = [rng.choice([None, "a", "b", "true"]) for _ in rows]
        usual = next((type(v) for v in values if type(v) in types), str)
        of = usual if rng.random() < 0.98 else rng.choice(list(types))
        if rng.random() < 0.9:
            fields[name] = of
        for out, v in zip(made, values, strict=True):
            out[name] = v if type(v) is of else None
    for out in made:
        for _ in range(rng.randrange(4)):
            name = rng.choice(["time", *sorted(braze_lane.FIELDS)])
            if name not in fields:
                continue
            odd = [v for v in (*_HOSTILE, *[changed, changed - 1] * 5) if type(v) is fields[name] and _is_avro(v)]
            out[name] = rng.choice([None, rng.choice(odd)])
    columns = [{"name": k, "type": rng.choice([["null", types[t]], [types[t], "null"]])} for k, t in fields.items()]
    with path.open("wb") as out:
        schema = fastavro.parse_schema({"type": "record", "name": kind, "fields": columns})
        fastavro.writer(out, schema, made, codec="deflate", sync_interval=rng.choice([500, 5_000]))


def _is_avro(value: Any) -> bool:
    if isinstance(value, list):
        return not value
    if isinstance(value, str):
        return not any("\ud800" <= c <= "\udfff" for c in value)
    return isinstance(value, bool | float) or -(1 << 63) <= value < 1 << 63


def _records(seed: bytes) -> list[dict[str, object]]:
    import json

    return [json.loads(line) for line in seed[1:].splitlines()]

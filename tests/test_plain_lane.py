"""Columns at once and rows one by one: the same rows, the same rejects, the same notes."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from justai_sim.errors import DataError
from justai_sim.esp import csv_lane, plain_lane
from justai_sim.esp.coding import COLUMNS, ROWS, listed
from justai_sim.esp.generic import ADAPTER, _append_values, append_arrow
from justai_sim.esp.plain import REQUIRED, Where, append, micro_to_units, values_of
from justai_sim.esp.rows import Rows

TIMES = [
    "2026-01-05T09:30:00Z", "2026-01-05 09:30:00.123456+05:30", "2026-01-05T09:30Z", "2026-01-05T09Z", "2026-01-05",
    "2026-01-05T09:30:00", "2026-03-29T02:30:00", "2026-10-25T02:30:00", "2026-01-05T09:30:00.123456789Z",
    "20260105T093000Z", "2026-02-30T00:00:00Z", "2026-01-05T24:00:00Z", "2026-06-30T23:59:60Z", "2101-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z", "1767225600000000", "+1767225600000000", "-1", "0x10", "0", "5", " 2026-01-05T09:30:00Z",
    "2026-01-05T09:30:00+0100", "2026-01-05T09:30:00 Z", "9999999999999999999", "0" * 30 + "7", "", "soon",
    "2026-01-05T09:30:00-00:00", "2026-01-05T09:30:00.5Z", "2026-01-05t09:30:00z", "2026-01-05T09:30:00+24:00",
]  # fmt: skip
AMOUNTS = [
    "19.99", "-5", "+5", ".5", "5.", "1e3", "1E-7", "1e0003", "0.0000005", "0.0000015", "-0.0000005", "1_0", "nan",
    "inf", "4611686018427.387903", "4611686018427.387904", "-4611686018427.387904", "9" * 30,
    "0" * 70 + "1", "0" * 23 + "1", " 7", "12 USD", "", "1,5", "-0", "0x10",
]  # fmt: skip
CHANCES = [
    "0.5",
    "1",
    "0",
    "1.0000001",
    "-0",
    "-0.1",
    "1e-5",
    "1e-0005",
    "nan",
    "inf",
    "+0.5",
    " 0.5",
    ".5",
    "5.",
    "",
    "x",
]
FLAGS = ["true", "FALSE", "1", "0", "", " true", "1.0", "yes", "2"]
NAMES = [
    "open",
    "Click",
    " conversion",
    "CONVERSION",
    "",
    "konversion",
    "sent",
    "bounced",
    "Held_Out",
    "sticky",
    "policy",
]
IDS = ["e1", "", " ", "x" * 4096, "x" * 4097, "\u00e9" * 4096, 'a"b', "a,b", "email@x.org", "0"]
CELLS = {"time": TIMES, "money": AMOUNTS, "number": CHANCES, "flag": FLAGS, "id": IDS}


def pool(table: str, column: str) -> list[str]:
    kind = COLUMNS[table][column].text
    return NAMES if isinstance(kind, tuple) else CELLS[kind]


def good(table: str, column: str) -> str:
    kind = COLUMNS[table][column].text
    if isinstance(kind, tuple):
        return kind[0]
    return {"time": TIMES[0], "money": "1.5", "number": "0.5", "flag": "1", "id": "a"}[kind]


@st.composite
def cells(draw: st.DrawFn) -> tuple[str, list[str], list[list[str]]]:
    """A table, its columns, and rows in which few cells are odd (so that some rows stay)."""
    table = draw(st.sampled_from(sorted(ROWS)))
    columns = list(dict.fromkeys([*REQUIRED[table], *draw(st.lists(st.sampled_from(sorted(COLUMNS[table]))))]))
    rows = [[good(table, c) for c in columns] for _ in range(draw(st.integers(1, 6)))]
    for _ in range(draw(st.integers(0, 8))):
        row, at = draw(st.sampled_from(rows)), draw(st.integers(0, len(columns) - 1))
        row[at] = draw(st.sampled_from(pool(table, columns[at])))
    return table, columns, rows


ZONES = st.sampled_from([None, "Europe/Berlin", "UTC-6", "UTC"])


def same(a: Rows, b: Rows) -> None:
    for name in ROWS:
        assert repr(getattr(a, name)) == repr(getattr(b, name))  # NaN is not itself
    assert a.rejects == b.rejects
    assert a.notes == b.notes


def read(path: Path, timezone: str | None) -> Rows:
    out = Rows()
    with mock.patch("justai_sim.esp.generic._refuse_naive", return_value=None):
        for batch in map(listed, ADAPTER.read(path, timezone)):
            for name in (*ROWS, "rejects"):
                getattr(out, name).extend(getattr(batch, name))
            out.notes.update(batch.notes)
    out.rejects.sort(key=lambda r: (r.place.partition(":")[0], int(r.place.partition(":")[2])))
    return out


def both(table: str, data: bytes, timezone: str | None = None) -> tuple[Rows, Rows, int]:
    """As read by blocks and line by line, and how many blocks were read at once."""
    taken, real = 0, csv_lane.split

    def counted(block: bytes, form: csv_lane.Form, first: int) -> csv_lane.Block | None:
        nonlocal taken
        found = real(block, form, first)
        taken += found is not None
        return found

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for other in ("sends", "events"):
            (folder / f"{other}.ndjson").write_bytes(b"")
        (folder / f"{table}.ndjson").unlink(missing_ok=True)
        (folder / f"{table}.csv").write_bytes(data)
        with mock.patch.object(csv_lane, "split", counted):
            fast = read(folder, timezone)
        with mock.patch.object(csv_lane, "split", return_value=None):
            slow = read(folder, timezone)
    return fast, slow, taken


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\n') else cell


@given(cells(), ZONES)
def test_cells_of_csv(found: tuple[str, list[str], list[list[str]]], timezone: str | None) -> None:
    table, columns, rows = found
    lines = [",".join(columns), *(",".join(map(quoted, row)) for row in rows)]
    fast, slow, taken = both(table, "\n".join(lines).encode(), timezone)
    same(fast, slow)
    assert taken or not any('"' not in line for line in lines[1:]) or any('"' in line for line in lines)
    assert len(fast) + len(fast.rejects) == len(rows)


HEAD = b"event_id,user_id,kind,occurred_at,value\n"
GOOD = b"e,u,open,5,"


@given(st.lists(st.sampled_from([
    GOOD, b'"e","u",open,5,"1"', b'e,"u,u",open,5,', b'e,"u""u",open,5,', b'e,"u', b'u",open,5,', b'"e,u,open,5,',
    b'e"x,u,open,5,', b'"e"x,u,open,5,', b"", b"  ", b'""', b'"  "', b"e,u,open", b"e,u,open,5,,,", b"\r", GOOD + b"\r",
    b"e\r,u,open,5,", b"caf\xe9,u,open,5,", b"caf\xc3\xa9,u,open,5,", b"e,u\0,open,5,", b"\xef\xbb\xbfe,u,open,5,",
    b",,,,", b"e" * 70_000 + b",u,open,5,", b'e,"",open,5,', b'e,"""",open,5,', b"'e',u,open,5,", b"e,u,open,5,\x1c",
    b"\x0b",
]), max_size=8), st.booleans(), st.sampled_from([2, 3, 60, 1 << 20]))  # fmt: skip
@example([b'"e,u,open,5,'] + [GOOD] * 3, True, 3)
def test_lines_of_csv(lines: list[bytes], ends: bool, block: int) -> None:
    data = HEAD + b"\n".join(lines) + (b"\n" if ends else b"")
    with mock.patch.object(csv_lane, "BLOCK", block):
        fast, slow, _ = both("events", data)
    same(fast, slow)


def test_usual_csv_is_read_in_blocks() -> None:
    odd = {7: b"e,u,nope,5,", 9: b"e,u", 11: b"", 12: b'"e""7","u",open,5,3'}
    fast, slow, taken = both("events", HEAD + b"\n".join(odd.get(i, GOOD) for i in range(1000)))
    same(fast, slow)
    assert taken == 1
    assert len(fast.events) == 997
    assert [(r.place, r.reason) for r in fast.rejects] == [
        ("events.csv:9", "unknown_kind"),
        ("events.csv:11", "field_count"),
    ]


def test_blocks_and_odd_blocks_in_turns() -> None:
    """Line numbers stay right when blocks that are read at once follow others."""
    lines = [b'"e\n%d",u,open,5,' % i if i % 40 == 20 else b"e%d,u,open,5," % i for i in range(400)]
    lines[399] = b"e,u,nope,5,"
    with mock.patch.object(csv_lane, "BLOCK", 128):
        fast, slow, taken = both("events", HEAD + b"\n".join(lines))
    same(fast, slow)
    assert taken > 20
    assert [r.place for r in fast.rejects] == ["events.csv:411"]


# --- Arrow tables -----------------------------------------------------------------------------------------------

MOMENT = st.datetimes(datetime(1960, 1, 1), datetime(2110, 1, 1))
TEXTS = st.sampled_from(sorted({*TIMES, *AMOUNTS, *CHANCES, *FLAGS, *NAMES, *IDS}))
VALUES: dict[pa.DataType, st.SearchStrategy[object]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4_102_444_800_000_000),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats() | st.sampled_from([19.99, 1.0, 0.5, -0.0]),
    pa.float32(): st.floats(width=32),
    pa.bool_(): st.booleans(),
    pa.decimal128(30, 7): st.decimals(-(10**12), 10**12, places=7),
    pa.timestamp("us", "Europe/Berlin"): MOMENT,
    pa.timestamp("us"): MOMENT,
    pa.date32(): MOMENT.map(datetime.date),
    pa.string(): TEXTS,
    pa.large_string(): TEXTS,
    pa.dictionary(pa.int32(), pa.string()): TEXTS,
}


@st.composite
def arrays(draw: st.DrawFn) -> pa.Array:
    kind = draw(st.sampled_from(list(VALUES)))
    return pa.array(draw(st.lists(st.none() | VALUES[kind], min_size=3, max_size=3)), kind)


@given(st.sampled_from(sorted(ROWS)), st.data(), ZONES)
def test_columns_of_arrow(table: str, data: st.DataObject, timezone: str | None) -> None:
    kinds = {c: pa.array([good(table, c)] * 3) for c in REQUIRED[table]}
    for column in data.draw(st.lists(st.sampled_from(sorted(COLUMNS[table])), min_size=1, max_size=3)):
        kinds[column] = data.draw(arrays())
    found = pa.table(kinds)
    if data.draw(st.booleans()) and "value" in kinds and kinds["value"].type == pa.int64():
        field = pa.field("value", pa.int64(), metadata={"unit": "micro-units"})
        found = found.set_column(found.schema.get_field_index("value"), field, found["value"])
    fast, slow = Rows(), Rows()
    where = Where(lambda i: f"p:{1 + i}", lambda i: str(found.slice(i, 1).to_pylist()[0]), timezone)
    try:
        columns = {n: values_of(found[n], "p", n, where) for n in found.column_names}
    except DataError as e:  # a naive time: the table is refused, unless there is none of them
        times = [c for c in found.columns if pa.types.is_temporal(c.type)]
        if not any(c.null_count == 3 for c in times):
            with pytest.raises(DataError, match=re.escape(str(e))):
                append_arrow(fast, table, found, "p", timezone)
        return
    micro = [f.name for f in found.schema if f.metadata]
    columns |= {n: micro_to_units(columns[n]) for n in micro}
    append(slow, table, columns, 3, where)
    assert append_arrow(fast, table, found, "p", timezone) == len(slow)
    same(listed(fast), slow)


JSON = st.one_of(
    *(TEXTS, st.none(), st.booleans(), st.integers(), st.integers(0, 2**53)),
    *(st.decimals(allow_nan=False, allow_infinity=False), st.floats(0, 1).map(repr).map(Decimal)),
    *(st.just([1]), st.just({"a": 1})),
)


@given(st.sampled_from(sorted(ROWS)), st.data(), ZONES)
def test_values_of_json(table: str, data: st.DataObject, timezone: str | None) -> None:
    columns: dict[str, list[object]] = {c: [good(table, c)] * 3 for c in REQUIRED[table]}
    for column in data.draw(st.lists(st.sampled_from(sorted(COLUMNS[table])), min_size=1, max_size=3)):
        cell = st.one_of(JSON, st.sampled_from([0, 1, good(table, column), *pool(table, column)]))
        columns[column] = data.draw(st.lists(cell, min_size=3, max_size=3) | cell.map(lambda v: [v] * 3))
    where = Where(lambda i: f"p:{1 + i}", str, timezone)
    fast, slow = Rows(), Rows()
    append(slow, table, columns, 3, where)
    assert _append_values(fast, table, columns, 3, where) == len(slow)
    same(listed(fast), slow)


def test_a_usual_table_needs_no_rows() -> None:
    when = pa.array([datetime(2026, 1, 5, tzinfo=UTC)] * 3, pa.timestamp("ns", "UTC"))
    found = pa.table({"event_id": ["a", "b", "c"], "user_id": [1, 2, 3], "kind": ["open", "Click", "conversion"],
                      "occurred_at": when, "value": pa.array([None, Decimal("1.50"), Decimal(-2)])})  # fmt: skip
    rows = Rows()
    with mock.patch.object(plain_lane.plain, "append", side_effect=AssertionError):
        assert append_arrow(rows, "events", found, "p", None) == 3
    assert listed(rows).events[1].value == 1_500_000

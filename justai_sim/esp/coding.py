"""From text rows to coded tables and back: what every adapter, the loader and the frames share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.esp.rows import DecisionRow, EventRow, Rows, SendRow
from justai_sim.tables import CODE_SPACES, NONE, TABLES, Array, Codes, Column, Log, Table, TextCodes

ROWS: dict[str, type[Any]] = {"sends": SendRow, "events": EventRow, "decisions": DecisionRow}
"""The row type of each table; its fields are the table's public columns."""

COLUMNS: dict[str, dict[str, Column]] = {
    name: {c.public: c for c in table.SCHEMA if c.public in ROWS[name]._fields} for name, table in TABLES.items()
}
"""Public column name -> column, per table (without `rep`, which exists only in simulated runs)."""

OWN_TIME = {"sends": "sent_at", "events": "occurred_at", "decisions": "decided_at"}
_LARGEST = ("event", "send", "order", "decision", "user")
_LARGE = frozenset(_LARGEST)


class ArrowCodes:
    """Codes of a sorted Arrow array of distinct texts: as `TextCodes`, in a tenth of the memory."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def code(self, text: str) -> int:
        return int(self.codes([text])[0])

    def codes(self, texts: Iterable[str]) -> Array:
        wanted = pa.array(list(texts), self.values.type)
        return pc.index_in(wanted, self.values).fill_null(NONE).to_numpy(zero_copy_only=False).astype(np.int64)

    def text(self, codes: Array) -> list[str]:
        at = np.asarray(codes, np.int64)
        found: list[str] = self.values.take(pa.array(at, mask=at < 0)).fill_null("").to_pylist()
        return found


def auto_id(row: EventRow) -> str:
    """A stable id for an event without one: a hash of all its columns but `received_at`.

    >>> a = EventRow("", "u", "open", 1, received_at=5)
    >>> auto_id(a) == auto_id(a._replace(received_at=9)), len(auto_id(a))
    (True, 25)
    """
    body = msgspec.json.encode(row._replace(event_id="", received_at=0))
    return "auto:" + hashlib.blake2b(body, digest_size=10).hexdigest()


def arrow_type(column: Column) -> pa.DataType:
    """The type of a column in a text table: ids and enumerations as text, times and money as int64."""
    numeric = {"time": pa.int64(), "money": pa.int64(), "number": pa.float64(), "flag": pa.int8()}
    return pa.string() if isinstance(column.text, tuple) else numeric.get(column.text, pa.string())


@cache
def text_schema(table: str) -> pa.Schema:
    """The Arrow schema of a text table; each field's metadata says its unit and meaning."""
    units = {"time": "microseconds since the epoch, UTC", "money": "micro-units", "flag": "1, 0; null: unknown"}
    fields = []
    for name in ROWS[table]._fields:
        c = COLUMNS[table][name]
        meta = {"meaning": c.meaning} | ({"unit": units[str(c.text)]} if c.text in units else {})
        fields.append(pa.field(name, arrow_type(c), metadata=meta))
    return pa.schema(fields)


def text_tables(rows: Rows) -> dict[str, pa.Table]:
    """The rows as Arrow tables, nulls where a value is missing, every event with an id.

    A row without a required value is moved to `rows.rejects`: adapters should have said so themselves.
    """
    out = {}
    for name in ROWS:
        items, made = getattr(rows, name), rows.tables.get(name, [])
        if items or not made:
            schema = text_schema(name)
            columns = list(zip(*items, strict=True)) if items else [()] * len(schema)
            arrays = [_arrow(v, COLUMNS[name][f.name]) for v, f in zip(columns, schema, strict=True)]
            made = [pa.Table.from_arrays(arrays, schema=schema), *made]
        table = pa.concat_tables(made)
        if name == "events":
            table = with_event_ids(table)
        out[name] = _complete(name, table, rows)
    return out


def listed(rows: Rows) -> Rows:
    """The same with every row in the lists and none in tables."""
    for name in ROWS:
        for table in rows.tables.pop(name, []):
            whole = with_event_ids(table) if name == "events" else table
            getattr(rows, name).extend(table_rows(name, whole))
    return rows


def _arrow(values: tuple[Any, ...], column: Column) -> pa.Array:
    kind = arrow_type(column)
    if kind == pa.string():
        try:
            texts = pa.array(values, kind)
        except UnicodeEncodeError:  # a lone surrogate, which JSON can spell and UTF-8 cannot hold
            texts = pa.array([v.encode("utf-8", "backslashreplace").decode() for v in values], kind)
        return pc.if_else(pc.equal(texts, ""), None, texts)
    numbers = np.array(values, kind.to_pandas_dtype())
    missing = np.isnan(numbers) if column.text == "number" else numbers == column.missing
    if column.text == "time":
        missing = numbers == MISSING
    return pa.array(numbers, kind, mask=missing)


def required(table: str) -> list[str]:
    """The public columns that every row must fill."""
    return [name for name, c in COLUMNS[table].items() if c.missing is None]


def _complete(name: str, table: pa.Table, rows: Rows) -> pa.Table:
    holes = [c for c in required(name) if table[c].null_count]
    if not holes:
        return table
    bad = pc.is_null(table[holes[0]])
    for c in holes[1:]:
        bad = pc.or_(bad, pc.is_null(table[c]))
    for row in table.filter(bad).to_pylist():
        empty = next(c for c in holes if row[c] is None)
        rows.reject(name, "missing_value", f"{empty} is empty; expected {COLUMNS[name][empty].meaning}", str(row))
    return table.filter(pc.invert(bad))


def with_event_ids(events: pa.Table) -> pa.Table:
    """The events with an automatic id where there was none."""
    column = events["event_id"]
    if not column.null_count:
        return events
    column = column.cast(pa.string())
    hole = pc.is_null(column).combine_chunks()
    made = pa.array([auto_id(r) for r in table_rows("events", events.filter(hole))], pa.string())
    filled = pc.replace_with_mask(column.combine_chunks(), hole, made)
    return events.set_column(events.schema.get_field_index("event_id"), events.schema.field("event_id"), filled)


def table_rows(name: str, table: pa.Table) -> list[Any]:
    """A text table as rows."""
    columns = []
    for field in ROWS[name]._fields:
        c = COLUMNS[name][field]
        hole: Any = "" if arrow_type(c) == pa.string() else MISSING if c.text == "time" else c.missing
        columns.append([hole if v is None else v for v in table[field].to_pylist()])
    return [ROWS[name]._make(r) for r in zip(*columns, strict=True)]


def build(
    rows: Iterable[Rows] | Mapping[str, pa.Table],
    source: str = "",
    notes: Iterable[str] = (),
    *,
    rejects: Mapping[str, int] | None = None,
    skipped: Mapping[str, int] | None = None,
) -> Log:
    """Text rows (or text tables, see `text_tables`) to one coded log.

    Codes are in the byte order of the texts. A missing `received_at` is the row's own time, a missing
    `status_known_at` the row's `received_at`. Counts of rejects, skips and notes of the rows are kept.
    """
    said, refused, passed = list(notes), Counter(rejects or {}), Counter(skipped or {})
    if isinstance(rows, Mapping):
        tables = {n: rows[n] if n in rows else text_schema(n).empty_table() for n in ROWS}
        tables["events"] = with_event_ids(tables["events"])
        tables = {n: packed(t) for n, t in tables.items()}
    else:
        parts: dict[str, list[pa.Table]] = {n: [packed(text_schema(n).empty_table())] for n in ROWS}
        counts: Counter[str] = Counter()
        for batch in rows:
            for n, t in text_tables(batch).items():
                parts[n].append(packed(t))
            refused.update(r.reason for r in batch.rejects)
            passed.update(batch.skipped)
            counts.update(batch.notes)
        tables = {n: pa.concat_tables(ts) for n, ts in parts.items()}
        said += note_texts(counts)
    return coded(Held(tables), notes=tuple(said), source=source, rejects=dict(refused), skipped=dict(passed))


class Columns(Protocol):
    """The columns of text tables, one at a time; texts as dictionaries (see `packed`)."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows of each table."""
        ...

    def take(self, table: str, column: str) -> pa.ChunkedArray:
        """A column, once."""
        ...


class Held:
    """The columns of packed tables in memory; each is let go of when it has been taken."""

    def __init__(self, tables: dict[str, pa.Table]) -> None:
        self.rows = {n: t.num_rows for n, t in tables.items()}
        self._columns = {(n, c): t[c] for n, t in tables.items() for c in t.column_names}
        tables.clear()

    def take(self, table: str, column: str) -> pa.ChunkedArray:
        return self._columns.pop((table, column))


def packed(table: pa.Table) -> pa.Table:
    """A text table with each distinct text of a column held once, and 4 bytes a row; `build` takes it as well."""
    texts = [i for i, f in enumerate(table.schema) if f.type == pa.string()]
    for i in texts:
        column = table.column(i).combine_chunks().dictionary_encode()
        table = table.set_column(i, table.schema.field(i).with_type(column.type), column)
    return table


def note_texts(counts: Mapping[str, int]) -> list[str]:
    """Notes with their counts, as sentences, in a fixed order."""
    return [f"{text}: {n:,}" for text, n in sorted(counts.items())]


def coded(columns: Columns, **rest: Any) -> Log:
    """The coded log of some columns; `rest` are its notes, counts and source.

    One code space at a time, those of most texts first: while they are sorted little else is in memory.
    """
    made: dict[str, dict[str, Array]] = {n: {} for n in ROWS}
    codes: dict[str, Codes] = {}
    for space in sorted(CODE_SPACES, key=lambda s: _LARGEST.index(s) if s in _LARGE else len(_LARGEST)):
        of_space = [(n, public) for n in ROWS for public, c in COLUMNS[n].items() if c.codes == space]
        chunks = [columns.take(*at).chunks for at in of_space]
        indices = [[chunk.indices for chunk in column] for column in chunks]
        texts = [chunk.dictionary for column in chunks for chunk in column]
        del chunks
        values, ranks = _ranked(texts)
        codes[space] = ArrowCodes(values) if space in _LARGE else TextCodes(values.to_pylist())
        for n, public in of_space:
            column = indices.pop(0)
            taken = [ranks.pop(0) for _ in column]
            made[n][COLUMNS[n][public].name] = _by_index(column, taken, np.dtype(np.int64))
        let_go()
    for n in ROWS:
        for public, c in COLUMNS[n].items():
            if c.codes:
                continue
            column = columns.take(n, public)
            if isinstance(c.text, tuple):
                made[n][c.name] = _enumerated(n, public, column, c)
            else:
                made[n][c.name] = _numpy(column, MISSING if c.text == "time" else c.missing, np.dtype(c.dtype))
            del column
            let_go()
    tables: dict[str, Any] = {n: _table(n, made.pop(n), columns.rows[n]) for n in ROWS}
    return Log(**tables, codes=codes, **rest)


def let_go() -> None:
    """Give freed memory back: else it stays with the process, a third of what a log takes."""
    pa.default_memory_pool().release_unused()


def _ranked(dictionaries: list[pa.Array]) -> tuple[pa.Array, list[Array]]:
    """All distinct texts in byte order, and for each array the places of its texts among them; the arrays are let go.

    By sorting: a table of hashes would take several times the memory of the texts.
    """
    size, edges = sum(d.nbytes for d in dictionaries), np.cumsum([len(d) for d in dictionaries])[:-1]
    kind = pa.string() if size < 1 << 30 else pa.large_string()  # the former ends at 2 GB
    whole = pa.concat_arrays([pa.array([], kind), *(d.cast(kind) for d in dictionaries)])
    dictionaries.clear()
    order = pc.array_sort_indices(whole)  # Arrow compares strings as bytes
    ordered, order = whole.take(order), order.to_numpy()
    del whole
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = pc.not_equal(ordered.slice(1), ordered.slice(0, len(order) - 1)).to_numpy(zero_copy_only=False)
    values = ordered if new.all() else ordered.filter(pa.array(new))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(new) - 1
    return values, np.split(rank, edges)


def _by_index(indices: Sequence[pa.Array], values: list[Array], dtype: np.dtype[Any]) -> Array:
    """For each row of a dictionary column the value of its text, both given chunk by chunk; `NONE` for a null."""
    out, at = np.empty(sum(map(len, indices)), dtype), 0
    for chunk, of_text in zip(indices, values, strict=True):
        index = chunk.fill_null(len(of_text)).to_numpy(zero_copy_only=False)
        out[at : at + len(index)] = np.append(of_text, NONE)[index]
        at += len(index)
    return out


def _table(name: str, columns: dict[str, Array], rows: int) -> Table:
    if "received_at" in columns:
        got = columns["received_at"]
        np.copyto(got, columns[OWN_TIME[name]], where=got == MISSING)
    if "status_known_at" in columns:
        known = columns["status_known_at"]
        np.copyto(known, columns["received_at"], where=known == MISSING)
    return TABLES[name].build(rows, **columns)


def _numpy(column: pa.ChunkedArray, hole: Any, dtype: np.dtype[Any]) -> Array:
    out, at = np.empty(len(column), dtype), 0
    for chunk in column.chunks:
        out[at : at + len(chunk)] = chunk.fill_null(pa.scalar(hole, column.type)).to_numpy(zero_copy_only=False)
        at += len(chunk)
    return out


def _enumerated(name: str, public: str, column: pa.ChunkedArray, c: Column) -> Array:
    known, values = {t: i for i, t in enumerate(c.text)}, list[Array]()
    for chunk in column.chunks:
        texts = chunk.dictionary.to_pylist()
        if wrong := [t for t in texts if t not in known]:
            raise DataError(f"{name}.{public}: found {wrong[0]!r}, expected one of {', '.join(c.text)}")
        values.append(np.array([known[t] for t in texts], np.dtype(c.dtype)))
    out = _by_index([chunk.indices for chunk in column.chunks], values, np.dtype(c.dtype))
    if column.null_count:
        out[pc.is_null(column).to_numpy()] = c.missing
    return out


def public_columns(log: Log, name: str) -> dict[str, list[Any]]:
    """A table of a log as Python values by public column: texts, names of enumerations, integers."""
    table = getattr(log, name)
    out: dict[str, list[Any]] = {}
    for public in ROWS[name]._fields:
        c = COLUMNS[name][public]
        values = getattr(table, c.name)
        if c.codes:
            out[public] = log.text(c.codes, values)
        elif isinstance(c.text, tuple):
            out[public] = [c.text[i] for i in values.tolist()]
        else:
            out[public] = values.tolist()
    return out


def rows_of(log: Log) -> Rows:
    """A log as text rows again."""
    rows = Rows()
    for name, row in ROWS.items():
        getattr(rows, name).extend(map(row._make, zip(*public_columns(log, name).values(), strict=True)))
    return rows

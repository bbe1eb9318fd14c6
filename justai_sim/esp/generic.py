"""The plain log: a folder with `sends.*`, `events.*` and perhaps `decisions.*` (Parquet, CSV or NDJSON)."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from heapq import merge
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from justai_sim.clock import MISSING
from justai_sim.errors import DataError, nearest
from justai_sim.esp import csv_lane, limits, parquet, plain_lane, plain_one
from justai_sim.esp.coding import COLUMNS, ROWS, rows_of, text_schema, text_tables
from justai_sim.esp.csvlines import Lines, header_names, records, text_of
from justai_sim.esp.jsonbytes import encode, lone
from justai_sim.esp.origin import Document, Origin, as_received
from justai_sim.esp.parts import ALL, Asked, Files, in_parts
from justai_sim.esp.payloads import in_order, split
from justai_sim.esp.plain import REQUIRED, Where, append, check_columns, micro_to_units, values_of
from justai_sim.esp.plain_render import objects
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import shown
from justai_sim.tables import TABLES, Log

BATCH = 50_000
"""Rows converted at a time."""
_ORDER = ("decisions", "sends", "events")
_FILE = re.compile(r"^(sends|events|decisions)([-_.].*)?$")
_ENDING = re.compile(r"\.(parquet|csv|ndjson|jsonl|json)(\.gz)?$")


def _exact(number: str) -> Decimal | str:
    """A number as it is written; as text where it is beyond any decimal, for its column to refuse."""
    try:
        return Decimal(number)
    except InvalidOperation:
        return number


_DECODE = msgspec.json.Decoder(float_hook=_exact)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Generic:
    """The adapter of the plain log."""

    name = "generic"
    time_grid = 1
    money_grid = 1
    cannot_carry: tuple[str, ...] = ()
    export_cannot_carry: tuple[str, ...] = ()

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:  # noqa: ARG002
        return serial

    def event_id(self, serial: str, kind: str, name: str) -> str:  # noqa: ARG002
        return serial

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """One JSON object a row, in the order of (received_at, sends, events, decisions, row)."""
        decisions = _decisions(log) if len(log.decisions) else []
        return merge(bodies(log), decisions, key=lambda told: told[0])

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """A JSON object, an array of objects, or objects a line, each with `table` (default events)."""
        element = lone(body, decode=_DECODE.decode)
        if element is not None and plain_one.append(element, rows, received_at):
            return
        for i, (where, element, origin) in enumerate(_elements(body, place, rows)):
            if i == limits.ELEMENTS:
                message = f"found more than {limits.ELEMENTS:,} rows in one body, expected less; those before are kept"
                rows.reject(where, "too_many_events", message)
                return
            if isinstance(element, dict):
                _append(element, origin, rows, where, received_at, None)
            else:
                raw = as_received(origin)
                rows.reject(where, "bad_json", f"found {_clip(raw)}, expected a JSON object", raw)

    def append(
        self, e: dict[str, Any], origin: Origin, rows: Rows, place: str, received_at: int, timezone: str | None
    ) -> None:
        """A row that stands among a provider's own; `timezone` is that of times without one."""
        _append(_DECODE.decode(encode(e)), origin, rows, place, received_at, timezone)

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """A Parquet file a table, rows in the order of the log, a row group every `BATCH` rows."""
        empty = {name: table.empty() for name, table in TABLES.items()}
        for name in _ORDER:
            table = getattr(log, name)
            with pq.ParquetWriter(folder / f"{name}.parquet", text_schema(name)) as writer:
                for at in range(0, len(table), BATCH):
                    piece: dict[str, Any] = empty | {name: table.take(slice(at, at + BATCH))}
                    writer.write_table(text_tables(rows_of(replace(log, **piece)))[name])
        return Counter()

    def parts(self, path: Path) -> list[Files]:
        """The files of decisions, sends and events in parts."""
        found = _tables(path)
        return in_parts([(f, str(f.relative_to(path))) for t in _ORDER for f in found.get(t, [])])

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:  # noqa: ARG002 - a table holds all kinds
        """Decisions, sends, events of a folder, in batches of up to `BATCH` rows."""
        found, wanted = _tables(path), None if only is None else {file for file, _ in only}
        for table in _ORDER:
            for file in found.get(table, []):
                if wanted is None or file in wanted:
                    yield from _read_file(table, file, str(file.relative_to(path)), timezone)


ADAPTER = Generic()


def _tables(path: Path) -> dict[str, list[Path]]:
    """As `plain_files`; DataError where sends or events are missing."""
    found = plain_files(path)
    for table in ("sends", "events"):
        if table not in found:
            here = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
            shown = ", ".join(here[:12]) or "nothing"
            raise DataError(
                f"{path}: found {shown}; expected {table}.parquet, {table}.csv or {table}.ndjson (.gz allowed)"
            )
    return found


def plain_files(path: Path) -> dict[str, list[Path]]:
    """The files of a plain log by table: `sends.csv`, `sends-1.csv.gz`, `sends/part-00.parquet`."""
    out: dict[str, list[Path]] = {}
    for p in sorted(path.iterdir()) if path.is_dir() else []:
        if p.is_dir() and p.name in ROWS:
            out.setdefault(p.name, []).extend(f for f in sorted(p.iterdir()) if _ENDING.search(f.name))
        else:
            table, ending = _FILE.match(p.name), _ENDING.search(p.name)
            if table and ending and p.is_file():
                out.setdefault(table[1], []).append(p)
    return out


def _read_file(table: str, file: Path, place: str, timezone: str | None) -> Iterator[Rows]:
    """The batches of one file; a file whose every time is naive is one error, not a reject a row."""
    ending = _ENDING.search(file.name)
    assert ending is not None
    reader: Callable[..., Iterator[tuple[Rows, int]]] = {"parquet": _parquet, "csv": _csv}.get(ending[1], _ndjson)
    good = 0
    for rows, n in reader(table, file, place, timezone):
        good += n
        if not good:
            _refuse_naive(rows)
        yield rows


def _refuse_naive(rows: Rows) -> None:
    naive = [r for r in rows.rejects if r.reason == "naive_time"]
    if naive and 2 * len(naive) >= len(rows.rejects):
        raise DataError(f"nothing could be read, no time has an offset. {naive[0].place}: {naive[0].message}")


def _csv(table: str, file: Path, place: str, timezone: str | None) -> Iterator[tuple[Rows, int]]:
    with Lines(file, place) as lines:
        header = next(lines, "")
        if lines.broken:
            raise DataError(f"{place}: {lines.broken}; nothing could be read")
        delimiter = max(",;\t", key=header.count)
        names = header_names(header, delimiter, place)
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise DataError(f"{place}: column {twice!r} is there twice")
        rows = Rows()
        check_columns(table, names, place, rows)
        yield rows, 0
        form = csv_lane.Form(names, delimiter, frozenset(COLUMNS[table]))
        # Whole blocks as Arrow reads them; one in which anything is odd, record by record.
        with csv_lane.Ahead(lines, form) as blocks:
            while True:
                found = blocks.next()
                if found is not None:
                    yield _block(table, found, place, timezone)
                    continue
                more = False
                for rows, n in _csv_records(table, lines, form, timezone):
                    more = True
                    yield rows, n
                if not more:
                    rows = Rows()
                    lines.report(rows)
                    yield rows, 0
                    return


def _block(table: str, found: csv_lane.Block, place: str, timezone: str | None) -> tuple[Rows, int]:
    rows = Rows()
    for line, wrong in found.wrong:
        rows.reject(f"{place}:{found.first + line}", "field_count", wrong, text_of(found.raw(line)))

    def where(row: int) -> str:
        return f"{place}:{found.first + int(found.line[row])}"

    at = Where(where, lambda row: text_of(found.raw(int(found.line[row]))), timezone)
    n = plain_lane.append(
        rows, table, found.columns, len(found.line), at, lambda f, i: found.columns[f].take(i).fill_null("").to_pylist()
    )
    return _sorted(rows), n


def _csv_records(table: str, lines: Lines, form: csv_lane.Form, timezone: str | None) -> Iterator[tuple[Rows, int]]:
    """Batches of records one by one, at least until all lines that wait have been read; none at the end of the file."""
    rows, place, width = Rows(), lines.place, len(form.names)
    # Three lists, not one of tuples: fewer objects for the garbage collector to walk.
    numbers, fields, texts, held = list[int](), list[list[str]](), list[str](), 0

    def flush() -> int:
        columns = dict(zip(form.names, map(list, zip(*fields, strict=True)), strict=False))
        where = Where(lambda i: f"{place}:{numbers[i]}", lambda i: text_of(texts[i].rstrip("\r\n")), timezone)
        n = len(append(rows, table, columns, len(fields), where)) if fields else 0
        for kept in (numbers, fields, texts):
            kept.clear()
        return n

    for number, found, text in records(lines, form.delimiter, width):
        if isinstance(found, str):
            rows.reject(f"{place}:{number}", "field_count", found, text_of(text.rstrip("\r\n")))
        else:
            numbers.append(number)
            fields.append(found)
            texts.append(text)
            held += len(text)
        full = len(fields) == BATCH or held > limits.HELD or rows.held > limits.HELD
        if full or not lines.waiting:
            held, n = 0, flush()
            lines.report(rows)
            yield _sorted(rows), n
            rows = Rows()
            if not lines.waiting:
                return
    if fields or rows.rejects:
        n = flush()
        lines.report(rows)
        yield _sorted(rows), n


def _sorted(rows: Rows) -> Rows:
    """Rejects in the order of their lines (a batch finds broken lines before bad values)."""
    rows.rejects.sort(key=lambda r: int(r.place.rpartition(":")[2]))
    return rows


def _ndjson(table: str, file: Path, place: str, timezone: str | None) -> Iterator[tuple[Rows, int]]:
    with Lines(file, place) as lines:
        yield from _ndjson_batches(table, lines, place, timezone)


def _ndjson_batches(table: str, lines: Lines, place: str, timezone: str | None) -> Iterator[tuple[Rows, int]]:
    rows, batch, checked, held = Rows(), list[tuple[int, str, dict[str, Any]]](), False, 0

    def flush() -> int:
        nonlocal checked
        keys = list(dict.fromkeys(k for _, _, d in batch for k in d))
        if not checked and batch:
            check_columns(table, keys, place, rows)
            checked = True
        wanted = [c for c in COLUMNS[table] if c in keys or c in REQUIRED[table]]
        columns = {c: [d.get(c) for _, _, d in batch] for c in wanted}
        where = Where(lambda i: f"{place}:{batch[i][0]}", lambda i: text_of(batch[i][1].strip()), timezone)
        n = _append_values(rows, table, columns, len(batch), where) if batch else 0
        batch.clear()
        return n

    for line in lines:
        lines.start()
        if not line.strip():
            continue
        try:
            found = _DECODE.decode(line.encode("utf-8", "surrogateescape"))
            wrong = "" if isinstance(found, dict) else f"found {_clip(line.strip())}, expected a JSON object"
        except _NOT_JSON as e:
            wrong = f"found a line that is not JSON ({e}), expected an object"
        if wrong:
            rows.reject(f"{place}:{lines.number}", "bad_json", wrong, text_of(line.strip()))
            continue
        batch.append((lines.number, line, found))
        held += len(line)
        if len(batch) == BATCH or held > limits.HELD:
            held, n = 0, flush()
            lines.report(rows)
            yield _sorted(rows), n
            rows = Rows()
    n = flush()
    lines.report(rows)
    yield _sorted(rows), n


def _append_values(rows: Rows, table: str, columns: dict[str, list[Any]], n: int, where: Where) -> int:
    """As `append`; whole columns at a time where each holds values of one type."""
    try:
        arrays = {name: pa.array(values) for name, values in columns.items()}
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return len(append(rows, table, columns, n, where))
    return plain_lane.append(rows, table, arrays, n, where, lambda f, at: [columns[f][i] for i in at.to_pylist()])


def _parquet(table: str, file: Path, place: str, timezone: str | None) -> Iterator[tuple[Rows, int]]:
    try:
        names = parquet.schema_of(file).names
        rows, first = Rows(), 1
        check_columns(table, names, place, rows)
        for batch in parquet.batches(file, tuple(c for c in COLUMNS[table] if c in names), BATCH):
            n = append_arrow(rows, table, batch, place, timezone, first=first)
            first += len(batch)
            yield rows, n
            rows = Rows()
        yield rows, 0
    except parquet.UNREADABLE as e:
        raise DataError(f"{place}: not a Parquet file that can be read ({e})") from None


def append_arrow(
    rows: Rows,
    table: str,
    found: pa.Table,
    place: str,
    timezone: str | None,
    *,
    option: str = "--timezone",
    first: int = 1,
) -> int:
    """Append an Arrow table with the plain log's columns; rows are numbered from `first` in rejects."""
    where = Where(lambda i: f"{place}:{first + i}", lambda i: str(found.slice(i, 1).to_pylist()[0]), timezone, option)
    fields = {f.name: f for f in found.schema if f.name in COLUMNS[table]}
    micro = frozenset(n for n, f in fields.items() if (f.metadata or {}).get(b"unit") == b"micro-units")

    columns = {name: plain_lane.whole(found[name]) for name in fields}

    def values(field: str, at: pa.Array) -> list[Any]:
        out = values_of(columns[field].take(at), place, field, where)
        return micro_to_units(out) if field in micro else out

    return plain_lane.append(rows, table, columns, found.num_rows, where, values, micro)


def _append(
    element: dict[str, Any], origin: Origin, rows: Rows, place: str, received_at: int, timezone: str | None
) -> None:
    table = element.get("table", "events")
    if not isinstance(table, str) or table not in ROWS:
        expected = f"expected sends, events or decisions; {nearest(str(table)[:80], ROWS)}"
        rows.reject(place, "unknown_table", f"table: found {shown(table)}, {expected}", as_received(origin))
        return
    if "received_at" in COLUMNS[table] and element.get("received_at") in (None, "") and received_at != MISSING:
        element["received_at"] = received_at
    # A required key that is absent is an empty value: its own reject, like any other.
    columns = {c: [element.get(c)] for c in COLUMNS[table] if c in element or c in REQUIRED[table]}
    append(rows, table, columns, 1, Where(lambda _: place, lambda _: as_received(origin), timezone))


def _elements(body: bytes, place: str, rows: Rows) -> Iterator[tuple[str, Any, Origin]]:
    try:
        found = _DECODE.decode(body)
    except _NOT_JSON as e:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2:
            rows.reject(place, "bad_json", f"found a body that is not JSON ({e}), expected an object", text_of(body))
            return
        for i, line in enumerate(io.BytesIO(body), 1):
            if line.strip():
                try:
                    yield f"{place}:{i}", _DECODE.decode(line), (Document(line), None)
                except _NOT_JSON:
                    yield f"{place}:{i}", line, (Document(line), None)
        return
    document = Document(body)
    if isinstance(found, list):
        yield from ((f"{place}[{i}]", e, (document, i)) for i, e in enumerate(found))
    else:
        yield place, found, (document, None)


def bodies(log: Log) -> Iterator[tuple[int, bytes]]:
    """(received_at, JSON object) of each send and event in the order of arrival."""
    tables = [(table, np.zeros(len(getattr(log, table)), np.int8)) for table in ("sends", "events")]
    parts = [part for table, key in tables for _, part in split(log, table, key)]
    return in_order(log, ((part, objects(part)) for part in parts))


def _decisions(log: Log) -> list[tuple[int, bytes]]:
    """The same of the decisions, which are told of when they are made."""
    told = list[tuple[int, bytes]]()
    for _, part in split(log, "decisions", np.zeros(len(log.decisions), np.int8)):
        told += zip(part.values("decided_at").tolist(), objects(part), strict=True)
    return sorted(told, key=lambda t: t[0])


def _clip(raw: str | bytes) -> str:
    text = text_of(raw)
    return text if len(text) <= 80 else text[:77] + "..."

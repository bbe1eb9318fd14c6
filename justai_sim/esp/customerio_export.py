"""Customer.io's Parquet export: its tables joined by delivery, in parts that fit into memory.

Each file holds what changed since the one before it, so a row may come many times: the one with the largest
`seq_num` counts (of equals the last). Deliveries, their contents and their metrics are first spread by a
hash of the delivery over temporary files, people and the arms of splits are put where they can be looked up
(`customerio_spread`); then each part is joined by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from justai_sim import durable
from justai_sim.clock import EARLIEST, LATEST, MISSING
from justai_sim.esp import customerio_fields as f
from justai_sim.esp import parquet
from justai_sim.esp.customerio_spread import SPREAD, Lookups, Output, Spread, wrong
from justai_sim.esp.jsonbytes import raw
from justai_sim.esp.parts import Asked
from justai_sim.esp.rows import Batches, Rows
from justai_sim.esp.segment_fields import flag, instant
from justai_sim.esp.values import Element, ElementError, first_ident, shown

PART = 50_000
"""Rows of deliveries, contents and metrics of one part."""
_READ = 20_000
_MOST_PARTS = 1_000
_LARGEST = (1 << 63) - 1
_TABLE = re.compile(r"delivery_contents|deliveries|metrics|outputs|people|subjects|attributes|campaigns|broadcasts")
_COLUMNS = {
    "people": ("internal_customer_id", "customer_id", "email_addr", "updated_at", "seq_num"),
    "outputs": ("output_id", "delivery_id", "subject_name", "split_test_index", "created_at", "seq_num"),
    "deliveries": (
        "delivery_id", "internal_customer_id", "subject_id", "delivery_type", "campaign_id", "action_id",
        "newsletter_id", "content_id", "broadcast_id", "transactional_message_id", "created_at", "seq_num",
    ),
    "delivery_contents": ("delivery_id", "headers", "body", "seq_num"),
    "metrics": (
        "delivery_id", "event_id", "metric", "link_id", "link_url", "created_at", "seq_num",
        "proxied", "prefetched", "machine", "synthetic",
    ),
}  # fmt: skip
_TIMES = ("created_at", "updated_at")
_FLAGS = ("proxied", "prefetched", "machine", "synthetic")


def table_of(place: str) -> str:
    """The table that a Parquet file holds by its name, else by its folders; '' if it is no Parquet file.

    >>> table_of("a/metrics_v4_1_2.parquet"), table_of("people/part-0.parquet"), table_of("metrics.csv")
    ('metrics', 'people', '')
    """
    if not place.lower().endswith(".parquet"):
        return ""
    for name in reversed(place.lower().split("/")):
        if m := _TABLE.search(name):
            return m[0]
    return "unknown"


class Export:
    """The files of one export; `read` gives their rows. `zone` is for times without one, else UTC."""

    def __init__(self, reading: f.Reading, batches: Batches, zone: tzinfo | None, asked: Asked) -> None:
        self.reading, self.batches, self.zone, self.asked = reading, batches, zone, asked
        self.files: dict[str, list[tuple[Path, str]]] = {}

    def add(self, table: str, file: Path, place: str) -> None:
        if table in _COLUMNS:
            self.files.setdefault(table, []).append((file, place))
        else:
            self.batches.rows.skipped[f"file: {table}"] += 1

    def read(self) -> Iterator[Rows]:
        """Sends and events in batches, part by part."""
        total = sum(_length(file) for table in SPREAD for file, _ in self.files.get(table, []))
        parts = min(_MOST_PARTS, max(1, -(-total // PART)))
        with durable.scratch(self.asked.scratch) as folder, Lookups(folder) as known:
            yield from self._lookups(known)
            with Spread(folder, parts) as spread:
                for table in SPREAD:
                    for place, row in self._rows(table):
                        with _Guard(self.batches.rows, place, row):
                            found = self._spread(table, row, place)
                            if table != "metrics" or self._asked_for(found[2]):
                                spread.add(table, found)
                        yield from self.batches.full()
            for part in range(parts):
                yield from self._part(spread, known, part)

    def _lookups(self, known: Lookups) -> Iterator[Rows]:
        """People, and the arms of splits."""
        for place, row in self._rows("people"):
            with _Guard(self.batches.rows, place, row):
                key = _needed(row, "internal_customer_id")
                user = f.person(first_ident(row, ("customer_id",)), row.get("email_addr"), key)
                known.person(key, _seq(row), self._moment(row, "updated_at"), user)
            yield from self.batches.full()
        for place, row in self._rows("outputs"):
            with _Guard(self.batches.rows, place, row):
                known.output(self._output(row, place))
            yield from self.batches.full()
        for bad in known.settle():
            reason, _, message = bad.wrong.partition("\n")
            self.batches.rows.reject(bad.place, reason, message, bad.raw)
            yield from self.batches.full()

    def _output(self, row: Element, place: str) -> Output:
        """What an output tells of the arm of a split; an error counts only if the row is the newest of its key."""
        key, seq = _needed(row, "output_id"), _seq(row)
        try:
            arm = first_ident(row, ("split_test_index",))
            if not arm:
                return Output(key, seq)
            delivery, subject = first_ident(row, ("delivery_id",)), first_ident(row, ("subject_name",))
            return Output(key, seq, arm, delivery, subject, max(EARLIEST, self._moment(row, "created_at")))
        except ElementError as e:
            return Output(key, seq, wrong=wrong(e), place=place, raw=raw(row))

    def _rows(self, table: str) -> Iterator[tuple[str, Element]]:
        """(place, row) of a table's files. A damaged file is one reject; the rows before are kept."""
        for file, place in self.files.get(table, []):
            number = 0
            try:
                # Bodies are large.
                size = max(1, _READ // 40) if table == "delivery_contents" else _READ
                for batch in parquet.batches(file, _COLUMNS[table], size):
                    names = batch.column_names
                    columns = [self._values(batch[c], c) for c in names]
                    for values in zip(*columns, strict=True):
                        number += 1
                        yield f"{place}:row {number}", dict(zip(names, values, strict=True))
            except PermissionError:
                raise
            except parquet.UNREADABLE as e:
                message = f"found a file that is damaged or not Parquet ({e}); the {number:,} rows before are kept"
                self.batches.rows.reject(place, "bad_parquet", message)

    def _values(self, column: Any, name: str) -> list[Any]:
        """A column as Python values; timestamps as microseconds."""
        if not pa.types.is_timestamp(column.type):
            return list(column.to_pylist())
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        if column.type.tz is None:
            column = pc.assume_timezone(column, _arrow_zone(self.zone), ambiguous="earliest", nonexistent="earliest")
            if name == "created_at":
                note = "time_without_offset" if self.zone else "time_without_offset_read_as_utc"
                self.batches.rows.notes[note] += len(column)
        return list(column.cast(pa.int64()).to_pylist())

    def _spread(self, table: str, row: Element, place: str) -> tuple[Any, ...]:
        delivery = _needed(row, "delivery_id")
        if table == "delivery_contents":
            found = f.header(row.get("headers"), self.reading.header), f.comment(row.get("body"), self.reading.comment)
            return delivery, *found, place, _seq(row)
        if table == "deliveries":
            names = ("internal_customer_id",), ("subject_id",), ("delivery_type",), self.reading.template_from
            texts = [first_ident(row, keys) for keys in (*names, ("content_id",), f.OWN_ID)]
            return delivery, *texts, place, _seq(row), self._moment(row, "created_at")
        metric, t = _needed(row, "metric").strip().lower(), self._time(row.get("created_at"))
        texts = [first_ident(row, ("event_id",)), metric, first_ident(row, ("link_url", "link_id"))]
        return delivery, *texts, place, _seq(row), t, *(flag(row.get(name)) for name in _FLAGS)

    def _asked_for(self, metric: str) -> bool:
        """Whether a metric's rows are wanted; those that are not, are counted."""
        kind = f.MEANING.get(metric, "")
        if not self.asked.wants(kind):
            self.batches.rows.skipped[f"not asked for: {kind}"] += 1
            return False
        return True

    def _time(self, value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 10**14:
            if value < LATEST:
                return value
        else:
            try:
                return instant(value, self.zone, self.batches.rows)
            except (ValueError, OverflowError):
                pass
        raise ElementError("bad_time", f"created_at: found {shown(value)}, expected a timestamp")

    def _moment(self, row: Element, name: str) -> int:
        """A time that only orders rows: `MISSING` if there is none or none that can be read, which is noted."""
        if row.get(name) is None:
            return MISSING
        try:
            return self._time(row[name])
        except ElementError:
            self.batches.rows.notes[f"{name}_unreadable"] += 1
            return MISSING

    def _part(self, spread: Spread, known: Lookups, part: int) -> Iterator[Rows]:
        held: dict[str, dict[str, tuple[Any, ...]]] = {}
        for table in ("deliveries", "delivery_contents"):
            newest = held[table] = {}
            seq = SPREAD[table][0]
            for row in spread.rows(table, part):
                if row[0] not in newest or row[seq] >= newest[row[0]][seq]:
                    newest[row[0]] = row
        metrics: dict[Any, tuple[Any, ...]] = {}
        for row in spread.rows("metrics", part):
            key = row[1] or (row[0], row[2], row[6], row[3])
            if key in metrics:
                self.batches.rows.notes["export_rows_replaced_by_newer"] += 1
            if key not in metrics or row[5] >= metrics[key][5]:
                metrics[key] = row
        for row in metrics.values():
            found = held["deliveries"].get(row[0])
            self._metric(row, found, held["delivery_contents"].get(row[0]), known)
            yield from self.batches.full()

    def _metric(
        self, row: tuple[Any, ...], delivery: tuple[Any, ...] | None, content: tuple[Any, ...] | None, known: Lookups
    ) -> None:
        send, event, metric, link, place, _, t, *flags = row
        rows, told = self.batches.rows, dict(zip(_FLAGS, flags, strict=True))
        data = {"href": link} | {name: bool(v) for name, v in told.items() if v >= 0}
        whole = {"delivery_id": send, "event_id": event, "metric": metric, "created_at": t} | data
        try:
            if delivery is None:
                if metric == "sent":
                    raise ElementError("missing_delivery", f"deliveries: found no {shown(send)}, expected its row")
                f.append(f.Message("", metric, t, event, "", send, "", {}, data), self.reading, rows, MISSING)
                return
            _, internal, subject, kind, template, content_id, own, _, _, created = delivery
            whole |= {"internal_customer_id": internal, "delivery_type": kind, "template": template}
            if metric == "sent" and not internal and kind not in self.reading.not_messages:
                rows.skipped[f"anonymised: {kind} sent"] += 1  # the person was deleted before the first export
                return
            user = known.user(internal) or f.person("", "", internal)
            carriers: dict[str, str] = {}
            if metric == "sent":
                arm = known.arm(send, subject, created)
                carriers = {"split": f"split:{arm}" if arm else "", "content_id": content_id, "message": own}
                if content:
                    carriers |= {"header": content[1], "comment": content[2]}
            message = f.Message(kind, metric, t, event, user, send, template, carriers, data)
            f.append(message, self.reading, rows, MISSING)
        except ElementError as bad:
            rows.reject(place, bad.reason, bad.message, raw(whole))


class _Guard:
    """A bad row becomes a reject and loses no other."""

    def __init__(self, rows: Rows, place: str, row: Element) -> None:
        self.rows, self.place, self.row = rows, place, row

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, ElementError):
            self.rows.reject(self.place, error.reason, error.message, raw(self.row))
            return True
        return False


def _arrow_zone(zone: tzinfo | None) -> str:
    """A zone's name in Arrow; a fixed offset is written +HH:MM."""
    if zone is None or isinstance(zone, ZoneInfo):
        return zone.key if zone else "UTC"
    return datetime(2000, 1, 1, tzinfo=zone).isoformat()[-6:]


def _needed(row: Element, field: str) -> str:
    if found := first_ident(row, (field,)):
        return found
    raise ElementError("missing_field", f"{field}: found {shown(row.get(field))}, expected an id or a word")


def _seq(row: Element) -> int:
    value = row.get("seq_num")
    try:
        return max(-_LARGEST, min(_LARGEST, int(value))) if value is not None else 0
    except (TypeError, ValueError, OverflowError):
        return 0


def _length(file: Path) -> int:
    try:
        with pq.ParquetFile(file) as source:
            return int(source.metadata.num_rows)
    except parquet.UNREADABLE:
        return 0  # told of when its rows are read

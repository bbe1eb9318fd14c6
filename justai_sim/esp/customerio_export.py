"""Customer.io's Parquet export: its tables joined by delivery, in DuckDB, so that memory stays bounded.

Each file holds what changed since the one before it, so a row may come many times: the one with the largest `seq_num`
counts. A metric is joined with its delivery, that with the person, the contents and the arm of a split that led to it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from datetime import tzinfo
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from justai_sim.clock import EARLIEST, LATEST, MISSING
from justai_sim.errors import DataError
from justai_sim.esp import customerio_fields as f
from justai_sim.esp.jsonbytes import Batches, Element, ElementError, first_ident, raw, shown
from justai_sim.esp.rows import Rows
from justai_sim.esp.segment_fields import instant

MEMORY = "512MB"
"""What DuckDB may take; beyond it goes to temporary files."""
_READ = 20_000
_TABLE = re.compile(r"delivery_contents|deliveries|metrics|outputs|people|subjects|attributes|campaigns|broadcasts")
_FLAGS = ("proxied", "prefetched", "machine", "synthetic")
_IDS = ("campaign_id", "action_id", "newsletter_id", "content_id", "broadcast_id", "transactional_message_id")
_COLUMNS = {
    "people": ("internal_customer_id", "customer_id", "email_addr"),
    "outputs": ("output_id", "delivery_id", "split_test_index"),
    "deliveries": ("delivery_id", "internal_customer_id", "delivery_type", *_IDS),
    "delivery_contents": ("delivery_id", "headers", "body"),
    "metrics": ("delivery_id", "event_id", "metric", "link_id", "link_url", *_FLAGS, "created_at"),
}
_KEYS = {
    "people": "internal_customer_id", "outputs": "output_id", "deliveries": "delivery_id",
    "delivery_contents": "delivery_id", "metrics": "event_id",
}  # fmt: skip
_JOINED = """
    SELECT m.*, d.* EXCLUDE (delivery_id), d.delivery_id IS NOT NULL AS known, p.customer_id, p.email_addr,
           c.headers, c.body, o.split_test_index
    FROM metrics m
    LEFT JOIN deliveries d USING (delivery_id)
    LEFT JOIN people p USING (internal_customer_id)
    LEFT JOIN delivery_contents c ON c.delivery_id = m.delivery_id AND lower(m.metric) = 'sent'
    LEFT JOIN (SELECT delivery_id, min(split_test_index) AS split_test_index FROM outputs
               WHERE delivery_id IS NOT NULL AND split_test_index IS NOT NULL GROUP BY delivery_id) o
      ON o.delivery_id = m.delivery_id AND lower(m.metric) = 'sent'
"""


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
    """The files of an export, taken in one by one and read together."""

    def __init__(self, reading: f.Reading, batches: Batches, where: tzinfo | None) -> None:
        self.reading, self.batches, self.where = reading, batches, where
        self.files: dict[str, dict[pa.Schema, list[str]]] = {}
        """Files by table and schema: files of one schema are read together."""

    def add(self, table: str, file: Path, place: str) -> None:
        """Note a file; one that cannot be read is a reject, one of a table that is not needed is counted."""
        if table not in _COLUMNS:
            self.batches.rows.skipped[f"table: {table}"] += 1
            return
        try:
            schema = pq.read_schema(file).remove_metadata()
        except (pa.ArrowException, OSError) as e:
            self.batches.rows.reject(place, "unreadable", f"not a Parquet file: {str(e).splitlines()[0][:200]}", "")
            return
        if _KEYS[table] not in schema.names and not (table == "metrics" and "delivery_id" in schema.names):
            message = f"column {_KEYS[table]}: found {', '.join(schema.names)[:200]}"
            self.batches.rows.reject(place, "missing_field", message, "")
            return
        key = pa.schema([pa.field(x.name, x.type) for x in schema])
        self.files.setdefault(table, {}).setdefault(key, []).append(str(file))

    def read(self) -> Iterator[Rows]:
        """The rows of all files, in batches."""
        if not self.files:
            return
        for table in ("metrics", "deliveries"):
            if table not in self.files:
                self.batches.rows.notes[f"no_{table}"] += 1
        try:
            import duckdb
        except ImportError:
            raise DataError("Customer.io's export needs DuckDB: pip install 'justai-sim[data]'") from None
        with tempfile.TemporaryDirectory() as folder, duckdb.connect() as db:
            db.execute("SET memory_limit = ?", [MEMORY])
            db.execute("SET temp_directory = ?", [folder])
            db.execute("SET preserve_insertion_order = false")
            try:
                for table in _COLUMNS:
                    self._newest(db, table)
                reader = db.sql(_JOINED).to_arrow_reader(_READ)
                for batch in reader:
                    for row in batch.to_pylist():
                        self._append(row)
                    yield from self.batches.full()
            except duckdb.Error as e:
                raise DataError(f"the export cannot be read: {str(e).splitlines()[0][:300]}") from None

    def _newest(self, db: Any, table: str) -> None:
        """The table, of every key the row with the largest `seq_num`; rows without the key stay as they are."""
        names = [*_COLUMNS[table], *(["t"] if table == "metrics" else []), "seq_num"]
        parts, files = [], []
        for schema, paths in self.files.get(table, {}).items():
            parts.append(f"SELECT {', '.join(_column(schema, n) for n in names)} FROM read_parquet(?)")
            files.append(paths)
        source = (
            " UNION ALL ".join(parts) or f"SELECT {', '.join(_column(pa.schema([]), n) for n in names)} WHERE false"
        )
        key = _KEYS[table]
        db.execute(
            f"CREATE TEMP TABLE {table} AS SELECT DISTINCT * EXCLUDE (seq_num) FROM ({source}) "
            f"QUALIFY {key} IS NULL OR row_number() OVER (PARTITION BY {key} ORDER BY seq_num DESC NULLS LAST) = 1",
            files,
        )

    def _append(self, row: Element) -> None:
        rows = self.batches.rows
        place = f"metrics: event {row['event_id'] or '(no id)'}"
        try:
            f.append(self._message(row, rows), self.reading, rows, MISSING)
        except ElementError as bad:
            rows.reject(place, bad.reason, bad.message, raw(row))

    def _message(self, row: Element, rows: Rows) -> f.Message:
        metric = (row["metric"] or "").strip().lower()
        if not metric:
            raise ElementError("missing_field", "metric: found nothing, expected a word such as sent or opened")
        carriers: dict[str, str] = {}
        if metric == "sent":
            if not row["known"]:
                raise ElementError("missing_field", "deliveries: found no row of this delivery, expected who got it")
            split = row["split_test_index"]
            carriers = {
                "header": f.header(row["headers"], self.reading.header),
                "comment": f.comment(row["body"], self.reading.comment),
                "split": f"split:{split}" if split else "",
                "content_id": first_ident(row, ("content_id",)),
                "message": first_ident(row, f.OWN_ID),
            }
        user = f.person(first_ident(row, ("customer_id",)), row["email_addr"], row["internal_customer_id"])
        data = {name: row[name] for name in _FLAGS} | {"href": row["link_url"], "link_id": row["link_id"]}
        return f.Message(
            (row["delivery_type"] or "").lower(), metric, self._time(row, rows), row["event_id"] or "", user,
            row["delivery_id"] or "", first_ident(row, self.reading.template_from), carriers, data,
        )  # fmt: skip

    def _time(self, row: Element, rows: Rows) -> int:
        t = row["t"]
        if t is None and row["created_at"]:
            try:
                t = instant(row["created_at"], self.where, rows)
            except (ValueError, OverflowError):
                t = None
        if t is None or not EARLIEST <= t < LATEST:
            raise ElementError("bad_time", f"created_at: found {shown(row['created_at'])}, expected an instant")
        return int(t)


def _column(schema: pa.Schema, name: str) -> str:
    """A column as text in SQL, NULL where the file has none; `t`: `created_at` in microseconds where it is a time."""
    at = schema.get_field_index("created_at" if name == "t" else name)
    kind = schema.field(at).type if at >= 0 else None
    column = f'"{schema.names[at]}"' if at >= 0 else "NULL"
    if name == "t":
        timed = kind is not None and pa.types.is_timestamp(kind)
        zoned = timed and kind is not None and kind.tz is not None
        return f"epoch_us({column}{'' if zoned else '::TIMESTAMP'}) AS t" if timed else "NULL::BIGINT AS t"
    if name == "seq_num":
        return f"TRY_CAST({column} AS BIGINT) AS seq_num"
    nested = kind is not None and pa.types.is_nested(kind)
    return f"{f'to_json({column})' if nested else column}::VARCHAR AS {name}"

"""What Customer.io's export is joined with, on the disk, so that memory does not grow with its deliveries.

The arms of splits are looked up in a file of SQLite; deliveries, their contents and their metrics lie in one file a
table, cut by a hash of the delivery, so that each part can be joined by itself. People are in memory, as SQLite packs
them: ids of users are not on the disk before they are hashed.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.ipc as ipc

from justai_sim.clock import MISSING
from justai_sim.esp.values import ElementError

SPREAD = {"deliveries": (8, 2), "delivery_contents": (4, 1), "metrics": (5, 6)}
"""Texts (delivery first, place last) and integers (`seq_num` first) of a spread row."""
WAITING = 50_000
"""Rows of a table held in memory before they go to disk."""
_CACHE = "-32000"
"""Kilobytes of SQLite's pages in memory."""
_LAST = (1 << 63) - 1
_PEOPLE = "CREATE TABLE people (key TEXT PRIMARY KEY, seq INTEGER, at INTEGER, user TEXT) WITHOUT ROWID"
_TABLES = """
CREATE TABLE outputs (
    key TEXT UNIQUE, seq INTEGER, arm TEXT, delivery TEXT, subject TEXT, at INTEGER, wrong TEXT, place TEXT, raw TEXT
);
CREATE TABLE arms (delivery TEXT PRIMARY KEY, arm TEXT) WITHOUT ROWID;
CREATE TABLE splits (subject TEXT, at INTEGER, arm TEXT);
"""
_PERSON = """
INSERT INTO people VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
SET seq = excluded.seq, at = excluded.at, user = excluded.user WHERE (excluded.seq, excluded.at) >= (seq, at)
"""
_OUTPUT = """
INSERT INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
SET seq = excluded.seq, arm = excluded.arm, delivery = excluded.delivery, subject = excluded.subject, at = excluded.at,
    wrong = excluded.wrong, place = excluded.place, raw = excluded.raw
WHERE excluded.seq >= seq
"""


class Output(NamedTuple):
    """A row of `outputs`: the arm of a split that a delivery, or a subject at a time, got; or what is wrong with it."""

    key: str
    seq: int
    arm: str = ""
    delivery: str = ""
    subject: str = ""
    at: int = 0
    wrong: str = ""
    place: str = ""
    raw: str = ""


class Lookups:
    """People, and the arms of splits by delivery and by subject (one pass of a person): of each the newest row."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "lookups.sqlite", isolation_level=None)
        for setting in (
            "journal_mode = OFF",
            "synchronous = OFF",
            f"cache_size = {_CACHE}",
            "locking_mode = EXCLUSIVE",
        ):
            self._db.execute(f"PRAGMA {setting}")
        self._db.executescript(_TABLES)
        self._people = sqlite3.connect(":memory:", isolation_level=None)
        self._people.execute("PRAGMA journal_mode = OFF")
        self._people.execute(_PEOPLE)
        for db in (self._db, self._people):
            db.execute("BEGIN")

    def __enter__(self) -> Lookups:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._people.close()

    def person(self, key: str, seq: int, at: int, user: str) -> None:
        self._people.execute(_PERSON, (key, seq, at, user))

    def output(self, row: Output) -> None:
        """Note an output. One without an arm matters only where it replaces one that had an arm."""
        if row.arm or row.wrong or self._db.execute("SELECT 1 FROM outputs WHERE key = ?", (row.key,)).fetchone():
            self._db.execute(_OUTPUT, row)

    def settle(self) -> Iterator[Output]:
        """Take the newest outputs for the arms that are looked up; those that are wrong are given back."""
        columns = "key, seq, arm, delivery, subject, at, wrong, place, raw"
        for found in self._db.execute(f"SELECT {columns} FROM outputs WHERE wrong != '' ORDER BY rowid"):
            yield Output(*found)
        told = "FROM outputs WHERE wrong = '' AND arm != ''"
        self._db.execute(
            f"INSERT INTO arms SELECT delivery, arm {told} AND delivery != '' ORDER BY rowid "
            "ON CONFLICT (delivery) DO UPDATE SET arm = excluded.arm"
        )
        self._db.execute(f"INSERT INTO splits SELECT subject, at, arm {told} AND subject != ''")
        self._db.execute("CREATE INDEX by_subject ON splits (subject, at, arm)")
        self._db.execute("DROP TABLE outputs")

    def user(self, key: str) -> str:
        """The user of a person; '' if there is none."""
        return _one(self._people, "SELECT user FROM people WHERE key = ?", key)

    def arm(self, delivery: str, subject: str, made: int) -> str:
        """The arm of the delivery, else of the last split that the subject passed before the message was made."""
        by_subject = "SELECT arm FROM splits WHERE subject = ? AND at <= ? ORDER BY at DESC, arm DESC LIMIT 1"
        last = _LAST if made == MISSING else made
        found = _one(self._db, "SELECT arm FROM arms WHERE delivery = ?", delivery)
        return found or _one(self._db, by_subject, subject, last)


def _one(db: sqlite3.Connection, query: str, *of: Any) -> str:
    found = db.execute(query, of).fetchone()
    return str(found[0]) if found else ""


class Spread:
    """Rows by part, a hash of their delivery: one file a table, in rounds of one record batch a part."""

    def __init__(self, folder: Path, parts: int) -> None:
        self.folder, self.parts, self._open = folder, parts, ExitStack()
        self._writers: dict[str, Any] = {}
        self._waiting: dict[str, list[tuple[Any, ...]]] = {}

    def __enter__(self) -> Spread:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            for table in list(self._waiting) if kind is None else ():
                self._flush(table)

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        waiting = self._waiting.setdefault(table, [])
        waiting.append(row)
        if len(waiting) >= WAITING:
            self._flush(table)

    def _flush(self, table: str) -> None:
        if not self._waiting[table]:
            return
        schema = _schema(table)
        if table not in self._writers:
            file = ipc.new_file(str(self.folder / f"{table}.arrow"), schema)
            self._writers[table] = self._open.enter_context(file)
        by_part: list[list[tuple[Any, ...]]] = [[] for _ in range(self.parts)]
        for row in self._waiting[table]:
            by_part[zlib.crc32(row[0].encode("utf-8", "replace")) % self.parts].append(row)
        self._waiting[table] = []
        for rows in by_part:
            columns = zip(*rows, strict=True) if rows else [()] * len(schema)
            arrays = [pa.array(c, kind) for c, kind in zip(columns, schema.types, strict=True)]
            self._writers[table].write_batch(pa.record_batch(arrays, schema=schema))

    def rows(self, table: str, part: int) -> Iterator[tuple[Any, ...]]:
        """The rows of a part, in the order in which they were added."""
        path = self.folder / f"{table}.arrow"
        if not path.exists():
            return
        with pa.OSFile(str(path)) as source:  # not mapped: its pages would count as this process's memory
            reader = ipc.open_file(source)
            for i in range(part, reader.num_record_batches, self.parts):
                yield from zip(*(c.to_pylist() for c in reader.get_batch(i).columns), strict=True)


def _schema(table: str) -> pa.Schema:
    texts, numbers = SPREAD[table]
    return pa.schema([(f"t{i}", pa.string()) for i in range(texts)] + [(f"n{i}", pa.int64()) for i in range(numbers)])


def wrong(e: ElementError) -> str:
    """An error in one text, for `Output.wrong`."""
    return f"{e.reason}\n{e.message}"

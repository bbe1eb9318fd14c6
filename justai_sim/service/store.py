"""The embedded store: the arrival journal and the decisions, durable before a caller is answered."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from justai_sim.errors import DataError, JustaiError

VERSION = 1
"""Of the tables below, kept in `user_version`."""
BUSY_MS = 10_000
_TABLES = """
CREATE TABLE arrivals (
  serial INTEGER PRIMARY KEY, received_at INTEGER NOT NULL, org TEXT NOT NULL, esp TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX arrivals_of ON arrivals (org, serial);
CREATE TABLE decisions (
  serial INTEGER PRIMARY KEY, decision_id TEXT NOT NULL, tracking_id TEXT NOT NULL, org TEXT NOT NULL,
  user TEXT NOT NULL, template TEXT NOT NULL, variant TEXT NOT NULL, segment TEXT NOT NULL,
  decided_at INTEGER NOT NULL, propensity REAL, mode TEXT NOT NULL
);
CREATE INDEX decisions_of ON decisions (org, serial);
CREATE INDEX decisions_of_user ON decisions (org, user, template, serial);
CREATE INDEX decisions_tracked ON decisions (org, tracking_id);
"""
_DECISION = "decision_id, tracking_id, org, user, template, variant, segment, decided_at, propensity, mode"


class StoreError(JustaiError):
    """The store could not write or read: nothing was answered as kept."""


class Arrival(NamedTuple):
    """One webhook body as it came."""

    serial: int
    received_at: int
    org: str
    esp: str
    body: bytes


class Decision(NamedTuple):
    """One choice. `propensity` is NaN where nothing was drawn; `tracking_id` is the decision's if none was given."""

    decision_id: str
    tracking_id: str
    org: str
    user_id: str
    template_id: str
    variant_id: str
    segment: str
    decided_at: int
    propensity: float
    mode: str


@dataclass
class _Write:
    """One row on its way to the disk; `values(now)` is called inside the commit that holds it."""

    sql: str
    values: Callable[[int], tuple[Any, ...]]
    clock: Callable[[], int]
    serial: int = 0
    stamp: int = 0
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Store:
    """SQLite in WAL mode with `synchronous=FULL`: what an `append_` returned for survives `kill -9`.

    Rows are stamped inside their commit with a clock that never steps back, so the journal is in the order
    of its receipt times. One connection writes; what waits for it meanwhile shares the next commit.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._pending: list[_Write] = []
        self._queue, self._writing, self._time = threading.Lock(), threading.Lock(), threading.Lock()
        self._reading = threading.Lock()
        try:
            self._writer = self._connect()
            self._open()
            self._reader, self._scanner = self._connect(), self._connect()
            rows = self._rows("SELECT max(t) FROM (SELECT max(received_at) t FROM arrivals UNION ALL "
                              "SELECT max(decided_at) FROM decisions)")  # fmt: skip
        except apsw.Error as e:
            raise DataError(f"{self.path}: cannot be opened as a store ({e})") from None
        self.last: int = rows[0][0] or 0
        """The largest time given so far, microseconds."""

    def _connect(self) -> Any:
        c = apsw.Connection(str(self.path))
        c.set_busy_timeout(BUSY_MS)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF"):
            c.execute(f"PRAGMA {pragma}").fetchall()
        return c

    def _open(self) -> None:
        """Create the tables of a new file; refuse one of a later version or of somebody else."""
        version = self._writer.execute("PRAGMA user_version").fetchall()[0][0]
        if version > VERSION:
            raise DataError(
                f"{self.path}: written by a newer version (store version {version}, expected at most {VERSION}); "
                "upgrade justai-sim"
            )
        if version == VERSION:
            return
        if self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]:
            raise DataError(f"{self.path}: an SQLite file that is not a store; name another folder")
        self._writer.execute(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={VERSION}; COMMIT")

    def close(self) -> None:
        for c in (self._scanner, self._reader, self._writer):
            c.close()

    def now(self, clock: Callable[[], int]) -> int:
        """The clock's time, or the largest given so far if the clock stepped back."""
        with self._time:
            self.last = max(self.last, clock())
            return self.last

    # -- writing -------------------------------------------------------------------------------------

    def append_arrival(self, org: str, esp: str, body: bytes, clock: Callable[[], int]) -> Arrival:
        """Keep a webhook body with the time of its receipt; returns once it is on disk."""
        sql = "INSERT INTO arrivals (received_at, org, esp, body) VALUES (?, ?, ?, ?)"
        write = self._append(_Write(sql, lambda now: (now, org, esp, body), clock))
        return Arrival(write.serial, write.stamp, org, esp, body)

    def append_decision(self, decision: Decision) -> int:
        """Keep a decision; returns its serial once it is on disk."""
        sql = f"INSERT INTO decisions ({_DECISION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # NaN is stored as NULL
        at = decision.decided_at
        return self._append(_Write(sql, lambda _: tuple(decision), lambda: at)).serial

    def _append(self, write: _Write) -> _Write:
        with self._queue:
            self._pending.append(write)
        with self._writing:
            if not write.done.is_set():
                with self._queue:
                    batch, self._pending = self._pending, []
                self._commit(batch)
        if write.error is not None:
            raise StoreError(f"{self.path}: could not be written ({write.error})") from write.error
        return write

    def _commit(self, batch: list[_Write]) -> None:
        """All in one transaction; if that fails, each by itself, so that one bad row hurts nobody else."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for w in batch:
                w.stamp = self.now(w.clock)
                self._writer.execute(w.sql, w.values(w.stamp))
                w.serial = self._writer.last_insert_rowid()
            self._writer.execute("COMMIT")
        except Exception as e:
            if not self._writer.get_autocommit():
                with contextlib.suppress(apsw.Error):
                    self._writer.execute("ROLLBACK")
            if len(batch) > 1:
                for w in batch:
                    self._commit([w])
                return
            batch[0].error = e
        for w in batch:
            w.done.set()

    # -- reading -------------------------------------------------------------------------------------

    def settled(self) -> None:
        """Returns when no commit is under way: rows stamped before the call can then be read."""
        with self._writing:
            pass

    def arrivals(self, org: str, after: int = 0) -> Iterator[Arrival]:
        """The journal of an organisation behind a serial, in order. One scan at a time."""
        sql = "SELECT serial, received_at, org, esp, body FROM arrivals WHERE org = ? AND serial > ? ORDER BY serial"
        for row in self._scanner.execute(sql, (org, after)):
            yield Arrival(*row)

    def decisions(self, org: str, after: int = 0) -> Iterator[tuple[int, Decision]]:
        """(serial, decision) of an organisation behind a serial, in order. One scan at a time."""
        sql = f"SELECT serial, {_DECISION} FROM decisions WHERE org = ? AND serial > ? ORDER BY serial"
        for serial, *row in self._scanner.execute(sql, (org, after)):
            yield serial, _decision(row)

    def tracked(self, org: str, user: str, template: str, tracking_id: str) -> Decision | None:
        """The latest decision with this tracking id, for the same user and template."""
        sql = (
            f"SELECT {_DECISION} FROM decisions WHERE org = ? AND tracking_id = ? AND user = ? AND template = ? "
            "ORDER BY serial DESC LIMIT 1"
        )
        rows = self._rows(sql, (org, tracking_id, user, template))
        return _decision(rows[0]) if rows else None

    def latest(self, org: str, user: str, template: str) -> tuple[int, Decision] | None:
        """(serial, decision): the last one for this user and template."""
        sql = (
            f"SELECT serial, {_DECISION} FROM decisions WHERE org = ? AND user = ? AND template = ? "
            "ORDER BY serial DESC LIMIT 1"
        )
        rows = self._rows(sql, (org, user, template))
        return (rows[0][0], _decision(rows[0][1:])) if rows else None

    def chosen(self, org: str, user: str, template: str) -> Decision | None:
        """The last decision for this user and template that was the policy's."""
        sql = (
            f"SELECT {_DECISION} FROM decisions WHERE org = ? AND user = ? AND template = ? "
            "AND mode IN ('policy', 'sticky') ORDER BY serial DESC LIMIT 1"
        )
        rows = self._rows(sql, (org, user, template))
        return _decision(rows[0]) if rows else None

    def orgs(self) -> list[str]:
        """Organisations with anything stored."""
        return [r[0] for r in self._rows("SELECT org FROM arrivals UNION SELECT org FROM decisions ORDER BY org")]

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        # Read to the end under a lock: an unfinished statement would pin an old snapshot for the next one.
        with self._reading:
            found: list[Any] = self._reader.execute(sql, values).fetchall()
            return found


def _decision(row: Any) -> Decision:
    values = list(row)
    if values[8] is None:
        values[8] = float("nan")
    return Decision(*values)

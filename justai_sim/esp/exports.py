"""A log as the bulk export that a provider would have made of it: the door, and what the writers share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from justai_sim.clock import MISSING
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.base import adapter
from justai_sim.esp.coding import OWN_TIME
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.rows import EventRow
from justai_sim.tables import I8, NONE, Array, Decisions, Log, Sends

PIECE = 20_000
"""Rows written at a time."""
NAMELESS = "conversion"
"""The name of a conversion without one, where a format needs one."""
NOBODY = "events of nobody (no user, no send of the log)"
"""What is left out where a format needs to know who it was."""
NOT_OF_SENDS = (
    "sends.delivered_at", "sends.status_known_at", "sends.decided_at", "sends.propensity", "sends.segment",
    "sends.status (a held-out user's ghost send is told of as such, and not read)", "decisions",
)  # fmt: skip
"""What no provider's export has a place for."""
NO_NAME = f"events.name of conversions without one (it is {NAMELESS})"
OF_CONVERSIONS = "events.name, value, currency and order_id of other kinds than conversion"
OF_MACHINES = "events.machine of other kinds than open and click"


def export(log: Log, esp: str, folder: Path, options: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Write `log` as a bulk export of `esp` into `folder`, which is new or empty: whole or not at all.

    Reading it gives the rows back but for what `export_cannot_carry` of the adapter lists. What was left out,
    by reason, is returned. Besides the log and its order of arrival (8 bytes a row) memory holds a piece of
    `PIECE` rows. UsageError if there is something in the folder, DataError if there is nothing in the log.
    """
    made = adapter(esp, options)
    check_new(folder)
    if not len(log.sends) and not len(log.events):
        raise DataError(f"{folder}: found neither sends nor events to export, expected a log with some")
    work = folder.absolute().parent / f".{folder.name}.{uuid4().hex[:8]}.unfinished"
    work.mkdir(parents=True)
    try:
        left = made.export(log, work)
        if folder.exists():
            folder.rmdir()
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return dict(left)


def check_new(folder: Path) -> None:
    """UsageError unless the folder is not there, or is empty."""
    if folder.exists() and (not folder.is_dir() or next(folder.iterdir(), None) is not None):
        raise UsageError(f"{folder} is there already; remove it, or choose another folder for the export")


def arrival(log: Log, table: str) -> I8:
    """When each row was heard of; its own time where that is missing."""
    own, got = getattr(getattr(log, table), OWN_TIME[table]), getattr(log, table).received_at
    return np.where(got == MISSING, own, got)


def pieces(log: Log, sends: Array | None = None, events: Array | None = None) -> Iterator[Log]:
    """Sends and events in the order of arrival (sends first), in logs of `PIECE` rows on the same codes.

    Only the rows of the masks `sends` and `events`, if either is given: nothing of a table without one.
    """
    n, at = len(log.sends), np.concatenate([arrival(log, "sends"), arrival(log, "events")])
    if sends is None and events is None:
        order = np.argsort(at, kind="stable")
    else:
        parts = [] if sends is None else [np.flatnonzero(sends)]
        rows = np.concatenate(parts + ([] if events is None else [n + np.flatnonzero(events)]))
        order = rows[np.argsort(at[rows], kind="stable")]
    del at
    for first in range(0, len(order), PIECE):
        rows = order[first : first + PIECE]
        of_sends, of_events = log.sends.take(rows[rows < n]), log.events.take(rows[rows >= n] - n)
        yield replace(log, sends=of_sends, events=of_events, decisions=Decisions.empty())


def last_arrival(log: Log) -> int:
    """The last receipt of a log, which is when its export was made; 0 of an empty one."""
    return int(max((arrival(log, t).max() for t in ("sends", "events") if len(getattr(log, t))), default=0))


class SendRows:
    """The rows of sends by the codes of their ids; of several of one id the first."""

    def __init__(self, sends: Sends) -> None:
        self.order = np.argsort(sends.send, kind="stable")
        self.codes = sends.send[self.order]

    def of(self, codes: I8) -> I8:
        """The row of each code, -1 where there is none."""
        if not len(self.codes):
            return np.full(len(codes), NONE, np.int64)
        at = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where((codes >= 0) & (self.codes[at] == codes), self.order[at], NONE)


def named(log: Log) -> I8:
    """The row of the send that each event names, -1 where the log has none."""
    return SendRows(log.sends).of(log.events.send)


def plain_line(columns: dict[str, list[Any]], row: int, send_id: str = "") -> bytes:
    """An event as a line of the plain log, as the customer's backend writes it; what is missing is left out.

    `send_id` replaces the event's own. Amounts are texts: a number of JSON would be read as a float.
    """
    r = EventRow(*(columns[c][row] for c in EventRow._fields))
    r = r._replace(send_id=send_id or r.send_id)
    found: dict[str, Any] = {k: v for k, v in r._asdict().items() if v not in ("", MISSING)}
    found.pop("machine")
    if r.machine >= 0:
        found["machine"] = r.machine == 1
    if r.value != MISSING:
        found["value"] = format(Decimal(r.value).scaleb(-6), "f")
    return encode({"table": "events"} | found) + b"\n"

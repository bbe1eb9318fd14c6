"""The tables of an extract or of exported data views: columns by name, the send log, a row a send or event."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import NamedTuple

import numpy as np

from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.esp import sfmc_fields as f
from justai_sim.esp.csvlines import header_names, records
from justai_sim.esp.rows import Batches, EventRow, Rows, SendRow
from justai_sim.esp.sfmc_files import Source, TextLines
from justai_sim.esp.values import ElementError, decimal, micro, shown

_COLUMNS = {
    "job": ("sendid", "jobid"),
    "batch": ("batchid",),
    "subscriber": ("subscriberid", "subid"),
    "user": ("subscriberkey", "subkey"),
    "when": ("eventdate",),
    "type": ("eventtype",),
    "key": ("triggeredsendexternalkey", "triggeredsendcustomerkey"),
    "link": ("sendurlid",),
    "event": ("eventid",),
    "url": ("url",),
    "category": ("bouncecategory",),
}
_NO_NAME = re.compile(r"[^a-z0-9]")


def plain_name(header: str) -> str:
    """A column's name without capitals, spaces and underscores: exports change all three."""
    return _NO_NAME.sub("", header.lower())


@dataclass
class SendLog:
    """The copy id of each send that a send log holds: a hash and a number a row (12 bytes), searched by bisection."""

    _keys: array[int] = field(default_factory=lambda: array("q"))
    _codes: array[int] = field(default_factory=lambda: array("i"))
    _names: dict[str, int] = field(default_factory=dict)
    _sorted: tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[int], list[str]] | None = None

    def add(self, job: str, batch: str, subscriber: str, copy: str) -> None:
        self._keys.append(_hash(job, batch, subscriber))
        self._codes.append(self._names.setdefault(copy, len(self._names)))
        self._sorted = None

    def find(self, job: str, batch: str, subscriber: str) -> str:
        """The copy id of a send ('' if the log has none); of several rows of one send the first counts."""
        if not self._keys:
            return ""
        if self._sorted is None:
            keys = np.array(self._keys, np.int64)
            order = np.argsort(keys, kind="stable")
            self._sorted = keys[order], np.array(self._codes)[order].tolist(), list(self._names)
        keys, codes, names = self._sorted
        for b in (batch or "0", ""):  # a log without batches is keyed by '' as the batch
            wanted = _hash(job, b, subscriber)
            at = int(np.searchsorted(keys, wanted))
            if at < len(keys) and keys[at] == wanted:
                return names[codes[at]]
        return ""

    def __len__(self) -> int:
        return len(self._keys)


def _hash(job: str, batch: str, subscriber: str) -> int:
    data = f"{job}\0{batch}\0{subscriber}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


class Table(NamedTuple):
    """What a file holds by its name and its first line."""

    kind: str
    """A kind of row, 'by type', 'send log', 'damaged', 'other', or '' for a file that is none of ours."""
    names: list[str]
    delimiter: str
    at: dict[str, int]
    """Our name of a column -> where it stands."""
    wrong: str = ""
    """Why its header cannot be read."""


class Setting(NamedTuple):
    """How the rows of tables are read."""

    zone: tzinfo
    day_first: bool
    copy_columns: tuple[str, ...]
    amount: str
    administrative: bool
    soft_bounces: bool
    variant_from: tuple[str, ...]


def table_of(source: Source, header: str, s: Setting) -> Table:
    delimiter = max(",\t|;", key=header.count)
    try:
        names = [plain_name(h) for h in header_names(header, delimiter, source.place)]
    except DataError as e:
        return Table("damaged", [], delimiter, {}, str(e))
    at = {ours: i for ours, theirs in _COLUMNS.items() for t in theirs for i, n in enumerate(names) if n == t}
    for ours, theirs in (("copy", s.copy_columns), ("amount", (s.amount,))):
        found = [names.index(plain_name(t)) for t in theirs if t and plain_name(t) in names]
        at |= {ours: found[0]} if found else {}
    kind = f.file_kind(source.name)
    if not kind and "copy" in at and "when" not in at and {"job", "subscriber"} <= set(at):
        kind = "send log"
    elif not kind and {"when", "type"} <= set(at):
        kind = "by type"
    elif kind not in ("", "other") and "when" not in at:
        kind = "send log" if kind == f.SEND and {"job", "subscriber", "copy"} <= set(at) else ""
    return Table(kind, names, delimiter, at)


def header_of(source: Source, s: Setting) -> Table:
    """The table of a source by its first line that is not blank."""
    with TextLines(source) as lines:
        header = next((line for line in lines if line.strip()), "")
        # A damaged file, or one with lines beyond the bound, is read again, to be told of; an empty one holds nothing.
        if lines.passed:
            return Table("damaged", [], ",", {})
        if header:
            return table_of(source, header, s)
        return Table("damaged" if lines.broken else "other" if f.file_kind(source.name) else "", [], ",", {})


def read_send_log(source: Source, s: Setting, log: SendLog, batches: Batches) -> Iterator[Rows]:
    """Fill the log; batches are handed out only for their rejects."""
    with TextLines(source) as lines:
        for at, table, fields, text in _fields(lines, source, s, batches):
            yield from batches.full()
            if not fields:
                continue
            job, sub, copy = (_at(fields, table, n) for n in ("job", "subscriber", "copy"))
            if not f.send_key(job, "", sub) or not copy:
                missing = "copy id" if f.send_key(job, "", sub) else "job and subscriber"
                batches.rows.reject(at, "missing_field", f"send log: found no {missing}, expected both", text)
                continue
            batch = (_at(fields, table, "batch") or "0") if "batch" in table.at else ""
            log.add(job, batch, sub, copy)
            batches.rows.notes["send log: rows with a copy id"] += 1


def read_table(source: Source, s: Setting, log: SendLog, batches: Batches) -> Iterator[Rows]:
    """The rows of a file of events, in batches."""
    with TextLines(source) as lines:
        for at, table, fields, text in _fields(lines, source, s, batches):
            kind, rows = table.kind if fields else "", batches.rows
            if kind == "by type":
                word = _at(fields, table, "type")
                kind = f.WORDS.get(plain_name(word), "")
                if not kind:
                    rows.skipped[f"EventType {word[:40]}"] += 1
            try:
                if kind:
                    _append(kind, table, fields, s, log, rows)
            except ElementError as e:
                rows.reject(at, e.reason, e.message, text)
            yield from batches.full()


def _fields(
    lines: TextLines, source: Source, s: Setting, batches: Batches
) -> Iterator[tuple[str, Table, list[str], str]]:
    """(place, table, fields, raw text) of each row; what is no row is a reject, and has no fields."""
    header = next((line for line in lines if line.strip()), "")
    if lines.passed:  # the header itself is beyond the bound
        lines.report(batches.rows)
        return
    table = table_of(source, header, s)
    if table.wrong:
        batches.rows.reject(source.place, "bad_header", table.wrong, header[:1000])
        return
    for number, found, text in records(lines, table.delimiter, len(table.names)):
        lines.report(batches.rows)
        place, raw = f"{source.place}:{number}", text.rstrip("\r\n")
        if isinstance(found, str):
            batches.rows.reject(place, "field_count", found, raw)
            found = []
        yield place, table, found, raw
    lines.report(batches.rows)


def _at(fields: list[str], table: Table, name: str) -> str:
    i = table.at.get(name)
    return "" if i is None else fields[i].strip()


def _append(kind: str, table: Table, fields: list[str], s: Setting, log: SendLog, rows: Rows) -> None:
    if kind == "notsent":
        rows.skipped["NotSent"] += 1
        return
    job, batch, sub, user = (_at(fields, table, n) for n in ("job", "batch", "subscriber", "user"))
    if kind == "unsubscribe" and not f.no_zero(job) and not s.administrative:
        rows.skipped["administrative unsubscribe"] += 1
        return
    if kind == "bounce" and not s.soft_bounces:
        told = _at(fields, table, "category"), _at(fields, table, "type")
        if any(map(f.soft, told)):
            rows.skipped[f.SOFT] += 1
            return
    text = _at(fields, table, "when")
    try:
        t = f.when(text, s.zone, s.day_first)
    except (ValueError, OverflowError):
        form = "D/M/YYYY" if s.day_first else "M/D/YYYY"
        expected = f"expected {form} h:mm:ss AM/PM (the other order of day and month is a switch)"
        raise ElementError("bad_time", f"EventDate: found {shown(text)}, {expected}") from None
    send = f.send_key(job, batch, sub or user)  # an export without subscriber ids joins by the key
    if not user and f.no_zero(sub):
        user = f"sub:{sub}"
    if kind == f.SEND:
        rows.sends.append(_send_row(send, (job, batch, sub), user, t, table, fields, s, log, rows))
        return
    if not send and not user:
        raise ElementError("missing_field", "SendID, SubscriberKey: found neither, expected who it was")
    link = value = None
    if kind == "click":
        link = f.link_key(_at(fields, table, "link"), _at(fields, table, "url"))
    elif kind == "conversion":
        value = _amount(_at(fields, table, "amount"))
        link = None if value is None else str(value)
    rows.events.append(
        EventRow(
            _at(fields, table, "event") or f.event_key(send or user, kind, t, link or ""), user, kind, t, send_id=send,
            name="conversion" if kind == "conversion" else "", value=MISSING if value is None else value,
            variant_id=f.copy_in_url(_at(fields, table, "url")) if kind == "click" else "",
        )
    )  # fmt: skip


def _amount(text: str) -> int | None:
    if not text:
        return None
    found = decimal(text)
    if found is None:
        raise ElementError("bad_number", f"amount: found {shown(text)}, expected a number such as 19.99")
    return micro(found)


def _send_row(
    send: str, ids: tuple[str, str, str], user: str, t: int, table: Table, fields: list[str], s: Setting,
    log: SendLog, rows: Rows,
) -> SendRow:  # fmt: skip
    if not send:
        raise ElementError("missing_field", "SendID, SubscriberID: found not both, expected what was sent to whom")
    if not user:
        raise ElementError("missing_field", "SubscriberKey, SubscriberID: found neither, expected to whom it was sent")
    key = _at(fields, table, "key")
    known = _at(fields, table, "copy") or log.find(*ids)
    variant = pick_variant({"send_log": known, "key": key, "job": ids[0]}, s.variant_from, rows)
    return SendRow(send, user, key or ids[0], variant, t)


def pick_variant(found: dict[str, str], order: tuple[str, ...], rows: Rows) -> str:
    """The variant by the first of `order` that there is, which is noted; an error if there is none."""
    for source in order:
        if found.get(source):
            rows.notes[f"variant_from_{source}"] += 1
            return found[source]
    raise ElementError("missing_field", f"variant: found none in {', '.join(order)}, expected one of them")

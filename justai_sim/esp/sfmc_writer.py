"""Marketing Cloud's bulk export: a Tracking Extract, a send log, the view of complaints, and the shop's own events.

One pass over the log a table: a zip takes one member at a time.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import numpy as np

from justai_sim.clock import DAY, HOUR, MINUTE, SECOND
from justai_sim.esp import sfmc_fields as f
from justai_sim.esp.coding import public_columns
from justai_sim.esp.exports import SendRows, last_arrival, pieces, plain_line
from justai_sim.tables import BOUNCE, CLICK, HELD_OUT, OPEN, SPAM, UNSUBSCRIBE, Array, Log

MID = "1"
OWN_EVENTS = "own_events.ndjson"
_JOB = "1"
_ADDRESS, _SHOP = "user@example.com", "https://www.example.com/"
_FACTS = "ClientID SendID SubscriberKey EmailAddress SubscriberID ListID EventDate EventType BatchID"
_EXTRACT = f"{_FACTS} TriggeredSendExternalKey {{}} EventID"
_VIEW = "AccountID OYBAccountID JobID ListID BatchID SubscriberID SubscriberKey EventDate IsUnique Domain EventID"


class _Table(NamedTuple):
    """A table of events: its file, its word in `EventType`, its own columns with their values."""

    file: str
    word: str
    kind: int
    own: dict[str, str]


TABLES = (
    _Table("Opens.csv", "Open", OPEN, {}),
    _Table("Clicks.csv", "Click", CLICK, {"SendURLID": "1", "URLID": "1", "URL": "", "Alias": ""}),
    _Table("Bounces.csv", "Bounce", BOUNCE, {"BounceCategory": "Hard bounce", "SMTPCode": "550",
                                             "BounceReason": "550 no such mailbox"}),
    _Table("Unsubs.csv", "Unsubscribe", UNSUBSCRIBE, {}),
)  # fmt: skip
_IN_TABLES = (OPEN, CLICK, BOUNCE, UNSUBSCRIBE, SPAM)


def write(log: Log, folder: Path, encoding: str, *, day_first: bool, number: Callable[[str], str]) -> None:
    """The extract of a log (`encoding` of its tables: utf-16 or utf-8), with what lies beside it in UTF-8.

    `number` is the subscriber id of a user. The id of an event is in an extra column `EventID`, but where it is
    the one that a reader makes of the row itself.
    """
    writer = _Writer(log, encoding, day_first, number)
    made = datetime.fromtimestamp(last_arrival(log) // SECOND, UTC)
    with zipfile.ZipFile(folder / f"tracking{made:%m%d}.zip", "x", zipfile.ZIP_DEFLATED) as archive:
        for file, held in (("Sent.csv", False), ("NotSent.csv", True)):
            if (writer.held == held).any():
                with writer.member(archive, file) as table:
                    writer.sends(table, held)
        for t in TABLES:
            if writer.chosen(t.kind).any():
                with writer.member(archive, t.file) as table:
                    writer.events(table, t)
    with (folder / "SendLog.csv").open("x", encoding="utf-8", newline="") as file_:
        writer.send_log(csv.writer(file_))
    if writer.chosen(SPAM).any():
        with (folder / "_Complaint.csv").open("x", encoding="utf-8", newline="") as file_:
            writer.complaints(csv.writer(file_))
    with (folder / OWN_EVENTS).open("xb") as own:
        writer.plain(own)


class _Writer:
    """The tables of one log."""

    def __init__(self, log: Log, encoding: str, day_first: bool, number: Callable[[str], str]) -> None:
        self.encoding, self.day_first, self.number = encoding, day_first, number
        self.rows_of = SendRows(log.sends)
        e, at = log.events, self.rows_of.of(log.events.send)
        self.tabled = (e.send >= 0) & np.isin(e.kind, _IN_TABLES)
        user, template, known = e.user, e.template, self.tabled & (at >= 0)
        if known.any():  # what an event leaves open is its send's
            user = np.where((user < 0) & known, log.sends.user[at], user)
            template = np.where(known, log.sends.template[at], template)
        self.log = replace(log, events=e.with_(user=user, template=template))
        self.held = log.sends.status == HELD_OUT

    @contextmanager
    def member(self, archive: zipfile.ZipFile, name: str) -> Iterator[Any]:
        """A table of the archive, with the bytes that UTF-16 of Windows begins with."""
        info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as raw:
            encoding = "utf-16-le" if self.encoding == "utf-16" else "utf-8"
            with io.TextIOWrapper(raw, encoding, newline="") as text:
                if encoding == "utf-16-le":
                    text.write("\ufeff")
                yield csv.writer(text)

    def chosen(self, kind: int) -> Array:
        return self.tabled & (self.log.events.kind == kind)

    def _rows(self, table: str, chosen: Array) -> Iterator[tuple[dict[str, list[Any]], int, tuple[str, str, str]]]:
        """(columns, row, its send's job, batch and subscriber) of the chosen rows in the order of arrival."""
        for piece in pieces(self.log, **{table: chosen}):
            columns, found = public_columns(piece, table), getattr(piece, table)
            at = self.rows_of.of(found.send)
            user = np.where(at >= 0, self.log.sends.user[at], found.user) if len(self.log.sends) else found.user
            owners = self.log.text("user", user)
            for row, code in enumerate(found.send.tolist()):
                yield columns, row, self._ids(columns["send_id"][row], owners[row], code)

    def sends(self, table: Any, held: bool) -> None:
        names = _EXTRACT.format("Reason" if held else "CampaignID").split()[:-1]
        table.writerow(names)
        for c, row, (job, batch, subscriber) in self._rows("sends", self.held == held):
            fact = [MID, job, c["user_id"][row], _ADDRESS, subscriber, "1", self._date(c["sent_at"][row])]
            fact.append("NotSent" if held else "Sent")
            table.writerow([*fact, batch, c["template_id"][row], "Held out" if held else ""])

    def send_log(self, table: Any) -> None:
        table.writerow(["JobID", "ListID", "BatchID", "SubID", "copy_id"])
        for c, row, (job, batch, subscriber) in self._rows("sends", ~self.held):
            table.writerow([job, "1", batch, subscriber, c["variant_id"][row]])

    def events(self, table: Any, t: _Table) -> None:
        names = _EXTRACT.format(" ".join(t.own)).split()
        table.writerow(names)
        for c, row, (job, batch, subscriber) in self._rows("events", self.chosen(t.kind)):
            own, link = list(t.own.values()), ""
            if t.kind == CLICK:
                copy = c["variant_id"][row]
                own[2], link = f"https://www.example.com/?copy_id={quote(copy, safe='')}" if copy else _SHOP, own[0]
            fact = [MID, job, c["user_id"][row], _ADDRESS, subscriber, "1", self._date(c["occurred_at"][row])]
            event = self._event_id(c, row, f.send_key(job, batch, subscriber), link)
            table.writerow([*fact, t.word, batch, c["template_id"][row], *own, event])

    def complaints(self, table: Any) -> None:
        table.writerow(_VIEW.split())
        for c, row, (job, batch, subscriber) in self._rows("events", self.chosen(SPAM)):
            when, event = self._date(c["occurred_at"][row]), self._event_id(c, row, f.send_key(job, batch, subscriber))
            table.writerow(
                [MID, MID, job, "1", batch, subscriber, c["user_id"][row], when, "True", "example.com", event]
            )

    def plain(self, own: IO[bytes]) -> None:
        for c, row, ids in self._rows("events", ~self.tabled):
            own.write(plain_line(c, row, send_id=f.send_key(*ids) if c["send_id"][row] else ""))

    def _event_id(self, c: dict[str, list[Any]], row: int, send: str, link: str = "") -> str:
        made = f.event_key(send, c["kind"][row], c["occurred_at"][row], link)
        return "" if c["event_id"][row] == made else c["event_id"][row]

    def _ids(self, send: str, user: str, code: int) -> tuple[str, str, str]:
        """Job, batch and subscriber of a send id that is made of them; of another a batch of its own."""
        if send.count(".") >= 2:
            job, rest = send.split(".", 1)
            batch, subscriber = rest.rsplit(".", 1)
            if f.send_key(job, batch, subscriber) == send:
                return job, batch, subscriber
        return _JOB, str(code + 1), self.number(user)

    def _date(self, t: int) -> str:
        """M/D/YYYY h:mm:ss AM, six hours behind UTC."""
        day, rest = divmod(t - 6 * HOUR, DAY)
        hour = rest // HOUR
        clock = f"{(hour + 11) % 12 + 1}:{rest // MINUTE % 60:02d}:{rest // SECOND % 60:02d}"
        return f"{_day(day, self.day_first)} {clock} {'PM' if hour >= 12 else 'AM'}"


@lru_cache(maxsize=4096)
def _day(day: int, day_first: bool) -> str:
    d = datetime(1970, 1, 1) + timedelta(days=day)
    return f"{d.day}/{d.month}/{d.year}" if day_first else f"{d.month}/{d.day}/{d.year}"

"""Salesforce Marketing Cloud (Engagement): Event Notification Service bodies, tracking extracts, data views."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from string import ascii_letters

from justai_sim.clock import MISSING, zone
from justai_sim.errors import UsageError
from justai_sim.esp import plain_one, sfmc_lane, sfmc_render, sfmc_writer
from justai_sim.esp import sfmc_fields as f
from justai_sim.esp.documents import documents, json_like
from justai_sim.esp.exports import NOT_OF_SENDS
from justai_sim.esp.generic import ADAPTER as PLAIN
from justai_sim.esp.jsonbytes import elements, lone
from justai_sim.esp.origin import Origin, as_received
from justai_sim.esp.parts import ALL, Asked, Files, files, nothing_readable
from justai_sim.esp.rows import Batches, EventRow, Rows, SendRow
from justai_sim.esp.sfmc_extract import SendLog, Setting, Table, header_of, pick_variant, read_send_log, read_table
from justai_sim.esp.sfmc_files import Source, sources
from justai_sim.esp.values import Element, ElementError, first_ident, shown
from justai_sim.tables import Log

MACHINE = ("Mozilla/5.0",)
"""User agents that are a machine's: the bare one is what a mail client's prefetch shows."""
VARIANT_FROM = ("message_key", "send_log", "key", "job")
COPY_COLUMNS = ("copy_id", "variant_id", "tracking_id")
_JOB = "1"


class Sfmc:
    """The adapter of Marketing Cloud.

    A send is `job.batch.subscriber`. Opens, clicks and unsubscribes of the Event Notification Service name
    their send but not their user, who is then the send's. The service tells of sends and bounces of the
    Transactional Messaging API alone: those of journeys come from an extract or from `_Sent`.

    The template is the definition key (extract: the triggered send's key), else the job. The variant is the
    first that there is of `variant_from`:

    - "message_key": what `copy_pattern` finds in the message key of the caller, such as `...|copy_id=A`
    - "send_log": a table of `read` with JobID, BatchID, SubscriberID and one of `copy_columns`
    - "key": the definition or triggered-send key
    - "job": the number of the job

    A `copy_id` in a link is kept with its click only: a send that nobody clicked has none, so it would
    choose sends by their outcome. `date_format` is "MDY" or "DMY". `amount_column` is a column of
    Conversions with their values. `administrative` keeps unsubscribes that belong to no message. A soft bounce is a
    bounce, since the vendor tells of it when it has given up; without `soft_bounces` those that say so are counted
    alone (BounceCategory, or EventType; bounceCode of the service). `encoding` is that
    of an extract that is written: "utf-16", as it classically is, or "utf-8"; what is read tells its own.
    """

    name = "sfmc"
    time_grid = 1_000_000
    money_grid = 10_000
    cannot_carry: tuple[str, ...] = (
        "sends.delivered_at", "sends.status", "sends.status_known_at", "sends.received_at", "sends.decided_at",
        "sends.propensity", "sends.segment", "decisions",
        "of events that the service has (open, click, unsubscribe, bounce of a known send): events.received_at, "
        "events.template_id, events.variant_id of other kinds than click, events.machine 0, "
        "events.user_id of other kinds than bounce",
    )  # fmt: skip
    export_cannot_carry = (
        *NOT_OF_SENDS,
        "sends.received_at",
        "sends.send_id not made of job, batch and subscriber (it becomes that)",
        "conversions, deliveries, drops, and events without a send_id, in the vendor's tables (they are plain rows, "
        "and whole)",
        "of events in its tables: events.received_at, template_id, machine, name, value, currency, order_id, "
        "events.variant_id of other kinds than click, a user_id that is empty (it is the send's)",
    )

    def __init__(
        self,
        *,
        variant_from: tuple[str, ...] = VARIANT_FROM,
        copy_pattern: str = f.COPY_PATTERN,
        copy_columns: tuple[str, ...] = COPY_COLUMNS,
        date_format: str = "MDY",
        amount_column: str = "Amount",
        administrative: bool = False,
        soft_bounces: bool = True,
        encoding: str = "utf-16",
    ) -> None:
        if date_format not in ("MDY", "DMY"):
            raise UsageError(f"date_format is {date_format!r}; expected 'MDY' or 'DMY'")
        if encoding not in ("utf-16", "utf-8"):
            raise UsageError(f"encoding is {encoding!r}; expected 'utf-16' or 'utf-8'")
        self.encoding = encoding
        unknown = [v for v in variant_from if v not in VARIANT_FROM]
        if unknown or not variant_from:
            raise UsageError(f"variant_from is {variant_from!r}; expected some of {', '.join(VARIANT_FROM)}")
        try:
            self.copy_pattern = re.compile(copy_pattern)
        except re.error as e:
            raise UsageError(f"copy_pattern is {copy_pattern!r}, which is no regular expression ({e})") from None
        if not self.copy_pattern.groups:
            raise UsageError(f"copy_pattern is {copy_pattern!r}; expected one with the copy id in brackets: copy=(.+)")
        self._usual_copy = self.copy_pattern if variant_from[0] == "message_key" else None
        self.setting = Setting(
            f.DEFAULT_ZONE, date_format == "DMY", copy_columns, amount_column, administrative, soft_bounces,
            variant_from,
        )  # fmt: skip

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:  # noqa: ARG002
        """`serial` without letters in front is the batch, a number; the order is kept among those of equal length."""
        return f"{_JOB}.{serial.lstrip(ascii_letters) or serial}.{_number(user)}"

    def event_id(self, serial: str, kind: str, name: str) -> str:  # noqa: ARG002
        return serial

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """Bodies of one event each; an event that the service has no category for is a row of the plain log.

        Those are conversions (of a webhook of the shop, say), and whatever names no send or is a delivery,
        drop or complaint. The event id of ours goes along as `info.eventId`, since the vendor has none. A
        held-out user's ghost send is an EmailNotSent.
        """
        return sfmc_render.bodies(log, MACHINE[0])

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """A Tracking Extract with its send log; what the vendor has no table of is a plain row (see `sfmc_writer`)."""
        sfmc_writer.write(log, folder, self.encoding, day_first=self.setting.day_first, number=_number)
        return Counter()

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """A body of the service: an array of events or one event; rows of the plain log may be among them.

        The unsigned POST that verifies a callback gives no rows and is counted.
        """
        if self._usual(body, rows, received_at):
            return
        if not body.strip():
            return
        for where, element, origin in elements(body, place, "events", lambda: rows):
            self._append(element, rows, where, received_at, None, origin)

    def parts(self, path: Path) -> list[Files]:
        """One part: a send log anywhere in an export tells of the sends in all of it."""
        return [files(path)]

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:
        """Tracking extracts (zips, folders of their tables), exported data views, files of bodies.

        `timezone`: the zone of the dates, a name or an offset such as 'UTC-7'; without it UTC-6 in winter
        and summer. A send log is read before everything else and is held in memory (12 bytes a row).
        """
        s = self.setting._replace(zone=zone(timezone)) if timezone else self.setting
        batches, log, found, tables = Batches(), SendLog(), False, list[tuple[Source, Table | None]]()
        all_sources = sources(only or files(path), batches.rows)
        for source in all_sources:
            table = None if source.archive is None and json_like(source.path) else header_of(source, s)
            if table is not None and table.kind == "send log":
                yield from read_send_log(source, s, log, batches)
                found = True
            else:
                tables.append((source, table))
        for source, table in tables:
            if table is None:
                found = True
                yield from self._bodies(source, log, batches, timezone)
            elif not table.kind and table.at and f.file_kind(source.name):
                message = f"found {shown(', '.join(table.names))}, expected a column EventDate"
                batches.rows.reject(source.place, "missing_column", message)
            elif table.kind in ("", "other"):
                found = found or table.kind == "other"
                batches.rows.skipped[f"file: {Path(source.name).name}"] += 1
            elif not asked.wants(table.kind):
                found = True
                batches.rows.skipped[f"file not asked for: {table.kind}"] += 1
            else:
                found = True
                yield from read_table(source, s, log, batches)
        if not found and not batches.rows.rejects:
            expected = "an extract (*.zip, Sent.csv, Opens.csv, ...), data views (_Sent.csv, ...) or bodies (*.json)"
            raise nothing_readable(path, [source.place for source in all_sources], expected)
        yield batches.take()

    def _bodies(self, source: Source, log: SendLog, batches: Batches, timezone: str | None) -> Iterator[Rows]:
        for at, document in documents(source.path, source.place, batches.current):
            if self._usual(document, batches.rows, MISSING):
                yield from batches.full()
                continue
            for which, element, origin in elements(document, at, "events", batches.current):
                self._append(element, batches.rows, which, MISSING, log, origin, timezone)
                yield from batches.full()

    def _usual(self, body: bytes, rows: Rows, received_at: int) -> bool:
        """Append the row of one event in its usual shape; False (and nothing is changed) if it is none."""
        e = lone(body, "events")
        if e is None:
            return False
        read = sfmc_lane.append(e, self._usual_copy, MACHINE, rows, received_at)
        return read or (_is_plain(e) and plain_one.append(e, rows, received_at))

    def _append(
        self,
        e: Element,
        rows: Rows,
        place: str,
        received_at: int,
        log: SendLog | None,
        origin: Origin,
        timezone: str | None = None,
    ) -> None:
        category = e.get("eventCategoryType")
        if category is None and "callbackId" in e and "verificationKey" in e:
            rows.skipped["verification"] += 1
        elif _is_plain(e):
            PLAIN.append(e, origin, rows, place, received_at, timezone)
        elif not isinstance(category, str) or not category:
            reason = "bad_value" if category else "missing_field"
            message = f"eventCategoryType: found {shown(category)}, expected a name such as EngagementEvents.EmailOpen"
            rows.reject(place, reason, message, as_received(origin))
        elif category not in f.MEANING:
            rows.skipped[category[:80]] += 1
        else:
            try:
                self._event(f.MEANING[category], e, rows, received_at, log)
            except ElementError as bad:
                rows.reject(place, bad.reason, bad.message, as_received(origin))

    def _event(self, kind: str, e: Element, rows: Rows, received_at: int, log: SendLog | None) -> None:
        info = e.get("info")
        if info is None:
            info = {}
        elif not isinstance(info, dict):
            raise ElementError("bad_value", f"info: found {shown(info)}, expected a JSON object")
        ids = f.composite(e)
        send, user, t = f.send_key(*ids), first_ident(info, ("subscriberKey",)), f.milliseconds(e)
        if kind == f.SEND:
            rows.sends.append(self._send_row(e, info, send, ids, user, t, rows, received_at, log))
            return
        if not f.no_zero(ids[0]) and kind == "unsubscribe" and not self.setting.administrative:
            rows.skipped["administrative unsubscribe"] += 1
            return
        if kind == "bounce" and not self.setting.soft_bounces and f.soft(first_ident(info, ("bounceCode",))):
            rows.skipped[f.SOFT] += 1
            return
        if not send and not user:
            user = f"sub:{ids[2]}" if f.no_zero(ids[2]) else ""
            if not user:
                message = f"composite: found {shown(e.get('composite'))}, expected jobId and subscriberId"
                raise ElementError("missing_field", message)
        link, copy = "", ""
        if kind == "click":
            url = info.get("contentLink")
            link = f.link_key(first_ident(info, ("jobUrlId",)), url if isinstance(url, str) else "")
            copy = f.copy_in_url(url)
        agent = info.get("userAgent")
        machine = kind in ("open", "click") and isinstance(agent, str) and agent.strip() in MACHINE
        event = first_ident(info, ("eventId",)) or f.event_key(send or user, kind, t, link)
        rows.events.append(
            EventRow(event, user, kind, t, "", received_at, send_id=send, variant_id=copy, machine=1 if machine else -1)
        )

    def _send_row(
        self, e: Element, info: Element, send: str, ids: tuple[str, str, str], user: str, t: int, rows: Rows,
        received_at: int, log: SendLog | None,
    ) -> SendRow:  # fmt: skip
        if not send:
            message = f"composite: found {shown(e.get('composite'))}, expected jobId and subscriberId"
            raise ElementError("missing_field", message)
        key = first_ident(e, ("definitionKey",))
        key = "" if key in f.NO_KEY else key
        found = {
            "message_key": f.copy_in_text(first_ident(info, ("messageKey",)), self.copy_pattern),
            "send_log": log.find(*ids) if log else "", "key": key, "job": ids[0],
        }  # fmt: skip
        variant = pick_variant(found, self.setting.variant_from, rows)
        return SendRow(send, user or f"sub:{ids[2]}", key or ids[0], variant, t, received_at=received_at)


ADAPTER = Sfmc()
DAY_FIRST = Sfmc(date_format="DMY")
"""For accounts whose extracts write the day before the month."""


def _is_plain(e: Element) -> bool:
    """Whether it is a row of the plain log."""
    return e.get("eventCategoryType") is None and ("table" in e or ("kind" in e and "occurred_at" in e))


@lru_cache(1 << 16)
def _number(user: str) -> str:
    """A subscriber id for a user: a number, as the vendor's."""
    return str(int.from_bytes(hashlib.blake2b(user.encode(), digest_size=6).digest(), "big") + 1)

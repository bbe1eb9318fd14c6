"""Iterable: system webhooks, webhooks of journeys, and exports (data.json, data.csv, userEvents)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from justai_sim.clock import MISSING
from justai_sim.errors import DataError, UsageError, nearest
from justai_sim.esp import iterable_fields as f
from justai_sim.esp import iterable_lane, iterable_render, iterable_writer
from justai_sim.esp.csvlines import Lines, header_names, records
from justai_sim.esp.documents import documents, json_like
from justai_sim.esp.exports import (
    NO_NAME,
    NOBODY,
    NOT_OF_SENDS,
    OF_CONVERSIONS,
    OF_MACHINES,
    last_arrival,
    named,
    pieces,
)
from justai_sim.esp.jsonbytes import decode, elements, lone
from justai_sim.esp.origin import as_received
from justai_sim.esp.parts import ALL, Asked, Files, files, in_parts, nothing_readable
from justai_sim.esp.rows import Batches, EventRow, Rows, SendRow
from justai_sim.esp.values import Element, ElementError, first_ident, shown
from justai_sim.tables import CONVERSION, Log

CONNECTOR = "file of a warehouse connector (export from Iterable itself)"
CONNECTOR_ROW = CONNECTOR.replace("file", "row")
UNTYPED = "file without a data type in its name"
UNTYPED_ROW = "row without a data type, its own or its file's"
ATTRIBUTED = "conversions with a campaign of Iterable's own attribution, which is not used"
VARIANT_FROM = ("transactionalData", "dataFields", "url", "templateId")
TEMPLATE_FROM = ("campaignId", "templateId")
_ENVELOPE = ""  # one event a body: no key holds an array of events


class IterableEsp:
    """The adapter of Iterable.

    A template is a campaign, and its variants are told apart by the first of `variant_from` that a send
    has: `transactionalData` (object or JSON string) and `dataFields` at one of `copy_keys`, a query
    parameter of that name in `url`, else `templateId`, by which treatment and control differ.
    `template_from` is (`campaignId`, `templateId`): the first that is there.

    Left out by default, and counted: with `all_unsubscribes` those that nobody clicked (`unsubSource`
    HardBounce, SoftBounce, Complaint, Import or of the API) are unsubscribes too; with `soft_bounces` a
    soft bounce is a bounce. `campaignId` of a conversion is Iterable's own attribution: only with
    `attributed` does it restrict the sends that can earn it.
    """

    name = "iterable"
    time_grid = 1_000_000
    money_grid = 10_000
    cannot_carry: tuple[str, ...] = (
        "sends.delivered_at", "sends.status", "sends.status_known_at", "sends.received_at", "sends.decided_at",
        "sends.propensity", "sends.segment", "events.received_at", "events.variant_id", "decisions",
        "events.send_id of conversions", "events.template_id of conversions", "events without user_id",
        "events.template_id of events with a send_id", "events.machine of other kinds than open and click",
        "events of kind drop",
    )  # fmt: skip
    export_cannot_carry = (
        *NOT_OF_SENDS, "sends.received_at and events.received_at below the second", "events.variant_id",
        "events.user_id of conversions without one (it is their send's)", "events of nobody", "events of kind drop",
        "events.send_id and template_id of conversions", "events.template_id of events that name a send",
        OF_CONVERSIONS, NO_NAME, OF_MACHINES,
    )  # fmt: skip

    def __init__(
        self,
        *,
        variant_from: tuple[str, ...] = VARIANT_FROM,
        copy_keys: tuple[str, ...] = ("copy_id", "copyId"),
        template_from: tuple[str, ...] = TEMPLATE_FROM,
        all_unsubscribes: bool = False,
        soft_bounces: bool = False,
        attributed: bool = False,
    ) -> None:
        for option, given, known in (
            ("variant_from", variant_from, VARIANT_FROM),
            ("template_from", template_from, TEMPLATE_FROM),
        ):
            for name in given:
                if name not in known:
                    raise UsageError(f"{option}: {name!r} is not known; {nearest(name, known)}")
        self.reading = f.Reading(variant_from, copy_keys, template_from, all_unsubscribes, soft_bounces, attributed)

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:  # noqa: ARG002
        return serial

    def event_id(self, serial: str, kind: str, name: str) -> str:  # noqa: ARG002
        return serial

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """One webhook body a row: system webhooks, and conversions as a journey's webhook would send them."""
        return iterable_render.bodies(log)

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """`data.csv` of each type of message event, `data.json` of purchases and custom events (`iterable_writer`)."""
        e, at = log.events, named(log)
        bought = (e.kind == CONVERSION) & (e.user < 0) & (at >= 0)
        user = np.where(bought, log.sends.user[at], e.user) if bought.any() else e.user
        known = (user >= 0) | ((e.kind != CONVERSION) & (e.send >= 0))
        full, sends = replace(log, events=e.with_(user=user)), np.ones(len(log.sends), bool)
        bodies = (told for piece in pieces(full, sends, known) for told in iterable_render.bodies(piece))
        iterable_writer.write(((at, decode(body)) for at, body in bodies), folder, last_arrival(log))
        return Counter({NOBODY: int((~known).sum())} if not known.all() else {})

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """A webhook body; an array of them is read too."""
        if self._usual(body, rows, received_at):
            return
        if not body.strip():
            return
        for where, element, origin in elements(body, place, _ENVELOPE, lambda: rows):
            self._append(element, "", rows, where, received_at, partial(as_received, origin))

    def parts(self, path: Path) -> list[Files]:
        """The files in parts: each tells its own events."""
        return in_parts(files(path))

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:  # noqa: ARG002 - Iterable writes offsets
        """Exports (JSON lines or CSV, the data type in the name of file or folder) and dumps of webhooks."""
        batches, found, passed = Batches(), False, list[str]()
        root = path if path.is_dir() else path.absolute().parent
        for file, place in files(path) if only is None else only:
            kind = f.data_type(f"{root.absolute().name}/{place}")
            table = file.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))
            if table or json_like(file):
                found = True
                if kind and not asked.wants(f.meaning(kind)) and not _own_types(file, place, table):
                    batches.rows.skipped[f"file not asked for: {kind}"] += 1
                else:
                    yield from (self._csv if table else self._json)(file, place, kind, batches)
            else:
                passed.append(place)
                batches.rows.skipped[f"file: *{file.suffix or file.name}"] += 1
        if not found:
            raise nothing_readable(path, passed, "exports such as emailSend_20260101000000.csv, or JSON lines")
        yield batches.take()

    def _json(self, file: Path, place: str, kind: str, batches: Batches) -> Iterator[Rows]:
        for at, document in documents(file, place, batches.current):
            if self._usual(document, batches.rows, MISSING):
                yield from batches.full()
                continue
            for which, element, origin in elements(document, at, _ENVELOPE, batches.current):
                if not kind and not _typed(element):
                    batches.rows.skipped[CONNECTOR_ROW if f.connector(element) else UNTYPED_ROW] += 1
                else:
                    self._append(element, kind, batches.rows, which, MISSING, partial(as_received, origin))
                yield from batches.full()

    def _csv(self, file: Path, place: str, kind: str, batches: Batches) -> Iterator[Rows]:
        with Lines(file, place) as lines:
            header = next(lines, "")
            delimiter = max(",;\t", key=header.count)
            try:
                names = header_names(header, delimiter, place)
            except DataError as e:
                batches.rows.reject(place, "bad_header", str(e), header[:1000])
                return
            if f.connector(names) or not (kind or _typed(names)):
                if not lines.broken:
                    batches.rows.skipped[CONNECTOR if f.connector(names) else UNTYPED] += 1
                lines.report(batches.rows)
                return
            for number, found, text in records(lines, delimiter, len(names)):
                lines.report(batches.rows)
                where = f"{place}:{number}"
                if isinstance(found, str):
                    batches.rows.reject(where, "field_count", found, _readable(text))
                elif text.rstrip("\r\n") != _readable(text):
                    message = f"found {shown(text.encode('utf-8', 'surrogateescape'))}, expected UTF-8"
                    batches.rows.reject(where, "bad_encoding", message, _readable(text))
                else:
                    element = {k: v for k, v in zip(names, found, strict=True) if v}
                    self._append(element, kind, batches.rows, where, MISSING, partial(_readable, text))
                yield from batches.full()
            lines.report(batches.rows)

    def _usual(self, body: bytes, rows: Rows, received_at: int) -> bool:
        """Append the row of one webhook in its usual shape; False (and nothing is changed) if it is none."""
        e = lone(body, _ENVELOPE)
        return e is not None and iterable_lane.append(e, self.reading, rows, received_at)

    def _append(self, e: Element, kind: str, rows: Rows, place: str, received_at: int, text: Callable[[], str]) -> None:
        """One event. `kind` is the data type of the file, for rows that do not name their own."""
        try:
            name, d = _shape(e, kind)
            meaning = f.meaning(name)
            if meaning == f.CONVERSION:
                rows.events.append(self._conversion(name, e, d, rows, received_at))
            elif meaning in ("", f.SKIP):
                rows.skipped[name[:60]] += 1
            else:
                self._message(name, meaning, e, d, rows, received_at)
        except ElementError as bad:
            rows.reject(place, bad.reason, bad.message, text())

    def _message(self, name: str, meaning: str, e: Element, d: Element, rows: Rows, received_at: int) -> None:
        source = f.administrative(d) if meaning == "unsubscribe" else ""
        if source and not self.reading.all_unsubscribes:
            rows.skipped[f"{name}: {source}"] += 1
            return
        soft = meaning == "bounce" and d.get("recipientState") == "SoftBounce"
        if soft and not self.reading.soft_bounces:
            rows.skipped[f"transient: {name} SoftBounce"] += 1
            return
        t, received = f.happened(e, d, rows, received_at)
        user = f.user(e, d, rows)
        if meaning == f.SEND:
            rows.sends.append(self._send_row(name, d, user, t, received, rows))
            return
        send = first_ident(d, ("messageId",))
        if not user and not send:
            raise ElementError("missing_field", "userId, email, messageId: found none, expected one of them")
        event = first_ident(d, ("esDocumentId",)) or f.event_key(name, user, t, d)
        # Without the message's id its campaign restricts the sends that the event can belong to.
        template = "" if send else f.template(d, self.reading)
        machine = f.machine(meaning, d) if meaning in ("open", "click") else -1
        rows.events.append(
            EventRow(event, user, meaning, t, "", received, send_id=send, template_id=template, machine=machine)
        )

    def _send_row(self, name: str, d: Element, user: str, t: int, received: int, rows: Rows) -> SendRow:
        template, variant = f.template(d, self.reading), f.variant(d, self.reading)
        if not user:
            raise ElementError("missing_field", "userId, email: found neither, expected one of them")
        if not template:
            raise ElementError("missing_field", "campaignId, templateId: found neither, expected one of them")
        if not variant:
            names = ", ".join(self.reading.variant_from)
            raise ElementError("missing_field", f"{names}: none of them names a variant, expected one that does")
        if not first_ident(d, ("messageId",)):
            rows.notes["sends_without_messageId"] += 1
        return SendRow(f.send_key(name, user, t, d), user, template, variant, t, received_at=received)

    def _conversion(self, name: str, e: Element, d: Element, rows: Rows, received_at: int) -> EventRow:
        bought = name == f.PURCHASE
        if name == f.CUSTOM:
            name = f.event_name(d.get("eventName"), "eventName")
        t, received = f.happened(e, d, rows, received_at)
        user = f.user(e, d, rows)
        if not user:
            raise ElementError("missing_field", "userId, email: found neither, expected one of them")
        order = first_ident(d, ("id",) if bought else ("orderId", "order_id"))
        value = f.purchase_value(d, rows) if bought else f.custom_value(d)
        event = first_ident(d, ("esDocumentId",)) or (f"{name}/{order}" if bought and order else "")
        event = event or f.event_key(f"{name}:{value}", user, t, d)
        campaign = f.template(d, self.reading)
        if campaign and not self.reading.attributed:
            rows.notes[ATTRIBUTED] += 1
            campaign = ""
        return EventRow(
            event, user, f.CONVERSION, t, name, received, value, f.currency(d), order_id=order, template_id=campaign
        )


ADAPTER = IterableEsp()


def _typed(names: Collection[str]) -> bool:
    """Whether rows with these fields name their own type."""
    return "_type" in names or "eventName" in names or "dataFields" in names


def _own_types(file: Path, place: str, table: bool) -> bool:
    """Whether the rows of a file name their own types, by the first of them: its name does not tell what it holds."""
    rows = Rows()
    if table:
        with Lines(file, place) as lines:
            header = next(lines, "")
        names: Collection[str] = [name.strip(' "\r\n') for name in header.split(max(",;\t", key=header.count))]
    else:
        parts = (
            (at, e) for at, d in documents(file, place, lambda: rows) for at, e, _ in elements(d, at, "", lambda: rows)
        )
        names = next((e for _, e in parts), {})
    return "_type" in names or "dataFields" in names


def _readable(text: str) -> str:
    """A line without its end, and bytes that are not UTF-8 replaced."""
    text = text.rstrip("\r\n")
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _shape(e: Element, kind: str) -> tuple[str, Element]:
    """(event name, its fields): a row of userEvents, a webhook's body, or a flat row of a known data type.

    A body that a marketer wrote may be flat; a system webhook never is.
    """
    key, inner = ("_type", "data") if "_type" in e else ("eventName", "dataFields")
    if key == "eventName" and kind and "dataFields" not in e:
        return kind, e
    name, d = f.event_name(e.get(key), key), e.get(inner)
    if d is None and (key == "_type" or f.meaning(name) == f.CONVERSION):
        return name, e
    if d is None:
        raise ElementError("missing_field", f"{inner}: found nothing, expected a JSON object")
    d = f.nested(d) if isinstance(d, str) else d
    if not isinstance(d, dict):
        raise ElementError("bad_value", f"{inner}: found {shown(d)}, expected a JSON object")
    return name, d

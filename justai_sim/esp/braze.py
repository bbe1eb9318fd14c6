"""Braze: Currents as webhooks (Custom HTTP batches) and as bulk exports (Avro folders).

A Purchase, a CustomEvent and the engagement of messages become events; `campaigns.Conversion` and its
like tell the same again: they are counted, not loaded, unless a switch says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from justai_sim.clock import MISSING
from justai_sim.errors import UsageError
from justai_sim.esp import avro, avro_columns, braze_http, braze_lane, braze_people, braze_render, braze_writer
from justai_sim.esp import braze_fields as f
from justai_sim.esp.documents import documents, json_like
from justai_sim.esp.exports import NO_NAME, NOBODY, NOT_OF_SENDS, OF_CONVERSIONS, OF_MACHINES, named, pieces
from justai_sim.esp.jsonbytes import decode, elements, lone, raw
from justai_sim.esp.origin import Origin, as_received
from justai_sim.esp.parts import ALL, Asked, Files, files, in_parts, nothing_readable
from justai_sim.esp.rows import Batches, EventRow, Rows, SendRow
from justai_sim.esp.values import Element, ElementError, first_ident, message_key, short, shown
from justai_sim.tables import Log

COPY = "copy_id"


class Braze:
    """The adapter of Braze. Templates are rendered as the steps of one Canvas, variants as `copy_id`.

    Canvas steps and not campaigns, because the id of a send then depends on its dispatch, user and
    template alone: who opens need not know the variant.

    `variant_key`: the key of `message_extras` that holds the variant; sends without it (the control's, other mail) have
    the variation that Braze chose.
    `restated`: keep Braze's own conversion events as conversions named 'campaigns.Conversion' and so on, with their
    template and without amount. `soft_bounces`: a SoftBounce is a bounce. `state_changes`: a change of a subscription
    (or of that to a group) to Unsubscribed is an unsubscribe, beside the Unsubscribe of a message.
    `join_profiles`: in an export a row without `external_user_id` is that of the user whom other rows name beside the
    same profile, or beside the one that it was merged into (`braze_people`). Else, and in webhooks, its user is
    'braze:' and the profile.
    """

    name = "braze"
    time_grid = 1_000_000
    money_grid = 10_000
    cannot_carry: tuple[str, ...] = (
        "sends.delivered_at", "sends.status", "sends.status_known_at", "sends.received_at", "sends.decided_at",
        "sends.propensity", "sends.segment", "events.received_at", "events.variant_id", "decisions",
        "events.send_id of conversions", "events.template_id of conversions",
        "events.order_id and events.value of conversions other than purchase and ecommerce.order_placed",
        "events.order_id of purchases", "events without user_id", "events.machine of opens since 2026-02 if unknown",
    )  # fmt: skip
    export_cannot_carry = (
        *NOT_OF_SENDS, "sends.received_at", "events.received_at", "events.variant_id",
        "sends.send_id not made of dispatch, user and step (it becomes that)",
        "events.user_id of events that name a send (it is the send's)", "events of nobody",
        "events.send_id and template_id of conversions", "events.template_id of events that name a send",
        OF_CONVERSIONS, "events.value, currency and order_id of conversions that are neither purchase nor "
        "ecommerce.order_placed", "events.order_id of purchases",
        "events.value of purchases without one (it is 0); cents above 131,000 (prices are floats of 32 bits)", NO_NAME,
        OF_MACHINES, "events.machine of opens since 2026-02 if unknown (it is 0)",
    )  # fmt: skip

    def __init__(
        self,
        *,
        variant_key: str = COPY,
        restated: bool = False,
        soft_bounces: bool = False,
        state_changes: bool = False,
        join_profiles: bool = True,
    ) -> None:
        if not variant_key.strip():
            raise UsageError(f"variant_key is {variant_key!r}; expected a key of message_extras such as {COPY!r}")
        self.how = f.reading(variant_key, restated, soft_bounces, state_changes)
        self.join_profiles, self._known, self._known_of = join_profiles, dict[str, str](), Path()

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:  # noqa: ARG002
        """`serial` is the dispatch id; the order is kept among serials of equal length."""
        return message_key(serial, user, template)

    def event_id(self, serial: str, kind: str, name: str) -> str:
        return f"{serial}/{braze_render.type_of(kind, name)}"

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """Custom HTTP bodies of one event each; a held-out user's ghost send is an enrolment in control."""
        return braze_render.bodies(log)

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """A Currents bucket (Avro, see `braze_writer`); its folders are the hours of receipt.

        An event has its send's user and step, since the id of a send is made of both.
        """
        e, at = log.events, named(log)
        user = np.where(at >= 0, log.sends.user[at], e.user) if len(log.sends) else e.user
        step = np.where(at >= 0, log.sends.template[at], e.template) if len(log.sends) else e.template
        known = user >= 0
        full, sends = replace(log, events=e.with_(user=user, template=step)), np.ones(len(log.sends), bool)
        braze_writer.write((list(_written(piece)) for piece in pieces(full, sends, known)), folder)
        return Counter({NOBODY: int((~known).sum())} if not known.all() else {})

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """A Custom HTTP body. An empty body or one without events is a probe of the credentials: nothing."""
        if not _usual(body, rows, received_at, self.how) and body.strip():
            for where, found, origin in elements(body, place, "events", lambda: rows):
                _append_http(found, rows, where, received_at, self.how, origin)

    def parts(self, path: Path) -> list[Files]:
        """The files in parts: each tells its own events."""
        self._known_of = Path()
        return in_parts(files(path))

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:  # noqa: ARG002 - Braze writes epochs
        """Avro files (any folder layout), and files of Custom HTTP bodies (JSON, NDJSON, gzip)."""
        batches, found, passed = Batches(), False, list[str]()
        how = self._reading(path, alone=only is None)
        for file, place in files(path) if only is None else only:
            avro = file.name.lower().endswith(".avro")
            if avro or json_like(file):
                found = True
                read = _avro(file, place, batches, how, asked) if avro else _json(file, place, batches, how)
                yield from read
            else:
                passed.append(place)
                batches.rows.skipped[f"file: *{file.suffix or file.name}"] += 1
        if not found:
            raise nothing_readable(path, passed, "Currents files (*.avro) or Custom HTTP bodies (*.json, *.ndjson.gz)")
        yield batches.take()

    def _reading(self, path: Path, *, alone: bool) -> f.Reading:
        """With whom its rows without an external id belong to: looked for once for all `parts`."""
        if not self.join_profiles:
            return self.how
        if alone or self._known_of != path:
            known = braze_people.known_as(files(path), self.how.meaning.__contains__)
            self._known, self._known_of = known, path
        return self.how._replace(known=self._known)


ADAPTER = Braze()


def _json(file: Path, place: str, batches: Batches, how: f.Reading) -> Iterator[Rows]:
    for where, document in documents(file, place, batches.current):
        if _usual(document, batches.rows, MISSING, how):
            yield from batches.full()
            continue
        for which, element, origin in elements(document, where, "events", batches.current):
            _append_http(element, batches.rows, which, MISSING, how, origin)
            yield from batches.full()


def _avro(file: Path, place: str, batches: Batches, how: f.Reading, asked: Asked) -> Iterator[Rows]:
    if find_spec("fastavro") is None:
        raise UsageError(f"{place} is an Avro file; reading it needs: pip install 'justai-sim[data]'")

    def passed(block: int, why: str) -> None:
        batches.rows.reject(f"{place}:block {block}", "avro_too_large", f"found {why}; the other blocks are read")

    with file.open("rb") as stream:
        # A damaged file can make the decoder raise anything: it ends the file, not the load.
        try:
            source = avro.Avro(stream, passed)
            schema = source.schema
            kind = f.event_type(str(schema.get("name", "")) if isinstance(schema, dict) else "", place)
        except Exception as e:
            why = f"found a file that is not Avro ({type(e).__name__}: {e}), expected a Currents file"
            batches.rows.reject(place, "bad_avro", why)
            return
        if not asked.wants(how.meaning.get(kind, "")):
            batches.rows.skipped[f"file not asked for: {kind}"] += 1
            return
        yield from _records(source, kind, place, batches, how)


def _records(source: avro.Avro, kind: str, place: str, batches: Batches, how: f.Reading) -> Iterator[Rows]:
    """Groups of blocks in columns; the records that are left of them (of others all) one by one."""
    flat = avro_columns.Flat.of(source.schema, braze_lane.FIELDS) if kind in f.MEANING else None
    first, failure = 1, list[Exception]()
    for group in _until_damage(avro_columns.groups(source.blocks(), batches.most), failure):
        size, columns = sum(block.records for block in group), flat.read(group) if flat else None
        odd = None
        if columns is not None:
            if size > batches.room:
                yield batches.take()
            odd = braze_lane.append(kind, columns, size, batches.rows, how)
            yield from batches.full()
        if odd is None or odd.any():
            number = first
            for number, record in enumerate(_until_damage(source.records(group), failure), first):
                if isinstance(record, dict) and (odd is None or odd[number - first]):
                    at = f"{place}:record {number}"
                    _append(kind, record, record, record.get("properties"), batches.rows, at, MISSING, how)
                    yield from batches.full()
            if failure:
                size = number + 1 - first
        first += size
        if failure:
            break
    for wrong in failure:
        why = f"found a damaged or truncated file ({type(wrong).__name__}: {wrong})"
        why += f"; the {first - 1} records before are kept"
        batches.rows.reject(f"{place}:record {first}", "truncated_avro", why)


def _until_damage(records: Iterator[Any], failure: list[Exception]) -> Iterator[Any]:
    """The records of a file; what the decoder raises goes to `failure` and ends them."""
    try:
        yield from records
    except Exception as e:  # a damaged file can make it raise anything
        failure.append(e)


def _usual(body: bytes, rows: Rows, received_at: int, how: f.Reading) -> bool:
    """Append the row of one event in its usual shape; False (and nothing is changed) if it is none."""
    e = lone(body, "events") if how.key == COPY else None  # the lane knows the usual key only
    return e is not None and braze_http.append(how.meaning, e, rows, received_at)


def _append_http(element: Element, rows: Rows, place: str, received_at: int, how: f.Reading, origin: Origin) -> None:
    """One Custom HTTP event: the user and the rest in objects of their own."""
    if how.key == COPY and braze_http.append(how.meaning, element, rows, received_at):
        return
    kind, user, properties = element.get("event_type"), element.get("user"), element.get("properties")
    if not isinstance(kind, str) or not kind:
        reason = "missing_field" if not kind else "bad_value"
        message = f"event_type: found {shown(kind)}, expected a name such as {f.CUSTOM}"
        rows.reject(place, reason, message, as_received(origin))
    elif kind not in how.meaning:
        rows.skipped[f.skipped(kind[:80])] += 1
    elif (user is not None and not isinstance(user, dict)) or not isinstance(properties, dict | None):
        bad = "properties" if isinstance(user, dict | None) else "user"
        message = f"{bad}: found {shown(element[bad])}, expected a JSON object"
        rows.reject(place, "bad_value", message, as_received(origin))
    else:
        p = properties or {}
        fields = {**(user or {}), "id": element.get("id"), "time": element.get("time")}
        custom = p.get("custom_properties")
        _append(kind, fields, p, custom, rows, place, received_at, how, origin)


def _append(
    kind: str, fields: Element, p: Element, custom: Any, rows: Rows, place: str, received_at: int, how: f.Reading,
    origin: Origin | None = None,
) -> None:  # fmt: skip
    """One event: `fields` hold id, time and user, `p` the rest. In Avro both are the flat record."""
    meaning = how.meaning.get(kind)
    if meaning is None:
        rows.skipped[f.skipped(kind[:80])] += 1
        return
    if kind in f.STATE_CHANGES and not f.unsubscribes(p):
        rows.skipped[f.skipped(kind)] += 1
        return
    try:
        t = f.happened(fields, rows, received_at)
        user = f.user(fields, how.known)
        if meaning == f.SEND:
            rows.sends.append(_send_row(p, user, t, rows, received_at, how.key))
        else:
            rows.events.append(_event_row(kind, meaning, fields, p, custom, user, t, rows, received_at, origin is None))
        if not first_ident(fields, ("external_user_id",)):
            rows.notes[f.UNIDENTIFIED if user.startswith(f.PROFILE) else f.JOINED] += 1
    except ElementError as e:
        rows.reject(place, e.reason, e.message, as_received(origin) if origin else raw(fields))


def _send_row(p: Element, user: str, t: int, rows: Rows, received_at: int, key: str) -> SendRow:
    send, _ = f.message(p, user)
    template, canvas = f.template(p)
    if canvas and not template:
        template = first_ident(p, ("canvas_api_id", "canvas_id"))  # a Canvas that names no step
    if not send:
        raise ElementError("missing_field", "dispatch_id: found nothing, expected the id of the dispatch")
    if not template:
        raise ElementError("missing_field", "campaign_id, canvas_step_id: found neither, expected one of them")
    variant = f.variant(p, canvas, rows, key)
    if not variant:
        other = "canvas_variation_id" if canvas else "message_variation_id"
        raise ElementError("missing_field", f"message_extras.{key}, {other}: found neither, expected the variant")
    return SendRow(send, user, template, variant, t, received_at=received_at)


def _event_row(
    kind: str, meaning: str, fields: Element, p: Element, custom: Any, user: str, t: int, rows: Rows,
    received_at: int, flat: bool,
) -> EventRow:  # fmt: skip
    serial = first_ident(fields, ("id",))
    event = f"{serial}/{kind}" if serial else ""
    if not serial:
        rows.notes["events_without_id"] += 1
    if kind in f.CONVERSIONS:
        template, _ = f.template(p)
        return EventRow(event, user, meaning, t, kind.removeprefix("users."), received_at, template_id=template)
    if meaning == "conversion":
        if kind == f.PURCHASE:
            value, currency = f.purchase_value(p, rows)
            return EventRow(event, user, meaning, t, "purchase", received_at, value, currency)
        name = p.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ElementError("missing_field", f"name: found {shown(name)}, expected the name of the custom event")
        name, value, currency, order = f.order(short(name.strip()), custom, rows)
        return EventRow(event, user, meaning, t, name, received_at, value, currency, order_id=order)
    send, template = f.message(p, user)
    machine = -1
    if meaning == "open":
        # In JSON an absent key is a null; in Avro an absent column is an old schema.
        machine = f.machine_open(p, t, column=not flat or "machine_open" in p)
    elif meaning == "click":
        machine = f.bot_click(p)
    elif meaning == "bounce" and p.get("is_drop") is True:
        meaning = "drop"
    return EventRow(event, user, meaning, t, "", received_at, send_id=send, template_id=template, machine=machine)


def _written(log: Log) -> Iterator[tuple[int, Element]]:
    """(received, Custom HTTP event) of each row in the order of arrival."""
    for at, body in braze_render.bodies(log):
        yield at, decode(body)["events"][0]

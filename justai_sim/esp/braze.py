"""Braze: Currents as webhooks (Custom HTTP batches) and as bulk exports (Avro folders).

A Purchase, a CustomEvent and the engagement of messages become events; `campaigns.Conversion` and its
like tell the same again: they are counted, not loaded, unless a switch says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from justai_sim.clock import MISSING
from justai_sim.errors import UsageError
from justai_sim.esp import avro, avro_columns, braze_lane, braze_writer
from justai_sim.esp import braze_fields as f
from justai_sim.esp.coding import public_columns
from justai_sim.esp.exports import NO_NAME, NOBODY, NOT_OF_SENDS, OF_CONVERSIONS, OF_MACHINES, named, pieces
from justai_sim.esp.jsonbytes import (
    Batches,
    Element,
    ElementError,
    documents,
    elements,
    encode,
    files,
    first_ident,
    json_like,
    message_key,
    nothing_readable,
    raw,
    send_order,
    short,
    shown,
)
from justai_sim.esp.parts import ALL, Asked, Files, in_parts
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.tables import Log

_RENDERED = {
    "open": "users.messages.email.Open",
    "click": "users.messages.email.Click",
    "unsubscribe": "users.messages.email.Unsubscribe",
    "bounce": "users.messages.email.Bounce",
    "drop": "users.messages.email.Bounce",
    "spam": "users.messages.email.MarkAsSpam",
    "delivery": "users.messages.email.Delivery",
}
COPY = "copy_id"
_COMMON = {"app_group_id": "workspace", "canvas_id": "flow", "canvas_name": "Flow"}


class Braze:
    """The adapter of Braze. Templates are rendered as the steps of one Canvas, variants as `copy_id`.

    Canvas steps and not campaigns, because the id of a send then depends on its dispatch, user and
    template alone: who opens need not know the variant.

    `variant_key`: the key of `message_extras` that holds the variant; sends without it (the control's, other mail) have
    the variation that Braze chose.
    `restated`: keep Braze's own conversion events as conversions named 'campaigns.Conversion' and so on, with their
    template and without amount. `soft_bounces`: a SoftBounce is a bounce. `state_changes`: a change of a subscription
    (or of that to a group) to Unsubscribed is an unsubscribe, beside the Unsubscribe of a message.
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
    ) -> None:
        self.how = f.reading(variant_key, restated, soft_bounces, state_changes)

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:  # noqa: ARG002
        """`serial` is the dispatch id; the order is kept among serials of equal length."""
        return message_key(serial, user, template)

    def event_id(self, serial: str, kind: str, name: str) -> str:
        return f"{serial}/{_type_of(kind, name)}"

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """Custom HTTP bodies of one event each; a held-out user's ghost send is an enrolment in control."""
        for at, made in _elements(log):
            yield at, encode({"events": [made]})

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """A Currents bucket (Avro, see `braze_writer`); its folders are the hours of receipt.

        An event has its send's user and step, since the id of a send is made of both.
        """
        e, at = log.events, named(log)
        user = np.where(at >= 0, log.sends.user[at], e.user) if len(log.sends) else e.user
        step = np.where(at >= 0, log.sends.template[at], e.template) if len(log.sends) else e.template
        known = user >= 0
        full, sends = replace(log, events=e.with_(user=user, template=step)), np.ones(len(log.sends), bool)
        braze_writer.write((list(_elements(piece)) for piece in pieces(full, sends, known)), folder)
        return Counter({NOBODY: int((~known).sum())} if not known.all() else {})

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """A Custom HTTP body. An empty body or one without events is a probe of the credentials: nothing."""
        if not body.strip():
            return
        for where, element in elements(body, place, "events", lambda: rows):
            _append_http(element, rows, where, received_at, self.how)

    def parts(self, path: Path) -> list[Files]:
        """The files in parts: each tells its own events."""
        return in_parts(files(path))

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:  # noqa: ARG002 - Braze writes epochs
        """Avro files (any folder layout), and files of Custom HTTP bodies (JSON, NDJSON, gzip)."""
        batches, found, passed = Batches(), False, list[str]()
        for file, place in files(path) if only is None else only:
            avro = file.name.lower().endswith(".avro")
            if avro or json_like(file):
                found = True
                read = _avro(file, place, batches, self.how, asked) if avro else _json(file, place, batches, self.how)
                yield from read
            else:
                passed.append(place)
                batches.rows.skipped[f"file: *{file.suffix or file.name}"] += 1
        if not found:
            raise nothing_readable(path, passed, "Currents files (*.avro) or Custom HTTP bodies (*.json, *.ndjson.gz)")
        yield batches.take()


ADAPTER = Braze()


def _json(file: Path, place: str, batches: Batches, how: f.Reading) -> Iterator[Rows]:
    for where, document in documents(file, place, batches.current):
        for which, element in elements(document, where, "events", batches.current):
            _append_http(element, batches.rows, which, MISSING, how)
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
            odd = braze_lane.append(kind, columns, size, batches.rows, how.key)
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


def _append_http(element: Element, rows: Rows, place: str, received_at: int, how: f.Reading) -> None:
    """One Custom HTTP event: the user and the rest in objects of their own."""
    kind, user, properties = element.get("event_type"), element.get("user"), element.get("properties")
    if not isinstance(kind, str) or not kind:
        reason = "missing_field" if not kind else "bad_value"
        rows.reject(place, reason, f"event_type: found {shown(kind)}, expected a name such as {f.CUSTOM}", raw(element))
    elif kind not in how.meaning:
        rows.skipped[f.skipped(kind[:80])] += 1
    elif (user is not None and not isinstance(user, dict)) or not isinstance(properties, dict | None):
        bad = "properties" if isinstance(user, dict | None) else "user"
        message = f"{bad}: found {shown(element[bad])}, expected a JSON object"
        rows.reject(place, "bad_value", message, raw(element))
    else:
        p = properties or {}
        fields = {**(user or {}), "id": element.get("id"), "time": element.get("time")}
        custom = p.get("custom_properties")
        _append(kind, fields, p, custom, rows, place, received_at, how, whole=element)


def _append(
    kind: str, fields: Element, p: Element, custom: Any, rows: Rows, place: str, received_at: int, how: f.Reading,
    whole: Element | None = None,
) -> None:  # fmt: skip
    """One event: `fields` hold id, time and user, `p` the rest. In Avro both are the flat record."""
    meaning = how.meaning.get(kind)
    if meaning is None:
        rows.skipped[f.skipped(kind[:80])] += 1
        return
    if kind in f.STATE_CHANGES and p.get("subscription_status") != "Unsubscribed":
        rows.skipped[f.skipped(kind)] += 1
        return
    try:
        t = f.happened(fields, rows, received_at)
        user = f.user(fields)
        if meaning == f.SEND:
            rows.sends.append(_send_row(p, user, t, rows, received_at, how.key))
        else:
            rows.events.append(_event_row(kind, meaning, fields, p, custom, user, t, rows, received_at, whole is None))
    except ElementError as e:
        rows.reject(place, e.reason, e.message, raw(whole or fields))


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


# -------------------------------------------------------------------------------------------- render


def _elements(log: Log) -> Iterator[tuple[int, Element]]:
    """(received, Custom HTTP event) of each row in the order of arrival."""
    sends, events = public_columns(log, "sends"), public_columns(log, "events")
    for at, table, row in send_order(log):
        yield at, _send_event(sends, row) if table == "sends" else _event(events, row)


def _type_of(kind: str, name: str) -> str:
    if kind == "conversion":
        return f.PURCHASE if name == "purchase" else f.CUSTOM
    return _RENDERED[kind]


def _envelope(kind: str, serial: str, user: str, t: int, properties: Element) -> Element:
    external = None if user.startswith("braze:") else user
    digest = hashlib.blake2b(user.encode(), digest_size=12).hexdigest()
    who = {"user_id": digest if external else user.removeprefix("braze:"), "external_user_id": external}
    body = {"event_type": kind, "id": serial, "time": t // 1_000_000, "user": who | {"timezone": "Etc/UTC"}}
    return body | {"properties": properties}


def _send_event(columns: dict[str, list[Any]], row: int) -> Element:
    user, template, variant = (columns[c][row] for c in ("user_id", "template_id", "variant_id"))
    text, t = columns["send_id"][row], columns["sent_at"][row]
    dispatch = text.removesuffix(f":{user}:{template}")
    if columns["status"][row] == "held_out":
        control = {"app_group_id": "workspace", "campaign_id": template, "campaign_name": template}
        return _envelope("users.campaigns.EnrollInControl", dispatch, user, t, control)
    copied = variant != f.CONTROL
    return _envelope("users.messages.email.Send", text, user, t, {
        **_COMMON, "canvas_step_id": template, "canvas_step_name": template, "dispatch_id": dispatch,
        "canvas_variation_id": "copy" if copied else variant, "canvas_variation_name": "Copy" if copied else variant,
        "email_address": "user@example.com", "from_domain": "example.com",
        "message_extras": encode({"copy_id": variant}).decode() if copied else None,
    })  # fmt: skip


def _event(columns: dict[str, list[Any]], row: int) -> Element:
    user, kind, name = (columns[c][row] for c in ("user_id", "kind", "name"))
    which = _type_of(kind, name)
    serial, t = columns["event_id"][row].removesuffix(f"/{which}"), columns["occurred_at"][row]
    if kind == "conversion":
        return _envelope(which, serial, user, t, _conversion(columns, row, name))
    dispatch, _, step = columns["send_id"][row].partition(f":{user}:")
    step = step or columns["template_id"][row] or None
    p = {**_COMMON, "canvas_step_id": step, "canvas_step_name": step, "dispatch_id": dispatch or None}
    p |= {"email_address": "user@example.com", "sending_ip": None, "esp": "SendGrid", "from_domain": "example.com"}
    machine = columns["machine"][row]
    if kind == "open":
        told = "true" if machine == 1 else "false" if machine == 0 and t < f.MACHINE_OPENS_SINCE else None
        p |= {"machine_open": told, "is_amp": False, "user_agent": "Mozilla/5.0"}
    elif kind == "click":
        p |= {"url": "https://www.example.com/", "user_agent": "Mozilla/5.0"}
        p |= {"is_suspected_bot_click": None if machine < 0 else machine == 1}
        p |= {"suspected_bot_click_reason": None if machine < 0 else ["user_agent"] if machine else []}
    elif kind in ("bounce", "drop"):
        p |= {"bounce_reason": "550 no such mailbox", "is_drop": kind == "drop"}
    return _envelope(which, serial, user, t, p)


def _conversion(columns: dict[str, list[Any]], row: int, name: str) -> Element:
    value, currency = columns["value"][row], columns["currency"][row] or None
    amount = None if value == MISSING else value / 1e6
    app = {"app_group_id": "workspace", "app_id": "shop", "platform": "web"}
    if name == "purchase":
        return app | {"product_id": "item", "price": amount, "currency": currency, "purchase_properties": {}}
    custom: Element = {}
    if name == f.ORDER_PLACED:
        name = f.ORDER_REFUNDED if amount is not None and amount < 0 else name
        custom = {"order_id": columns["order_id"][row] or None, "currency": currency, "products": []}
        custom["total_value"] = None if amount is None else abs(amount)
    return app | {"name": name, "custom_properties": custom}

"""The fast lane of Iterable's webhooks: bodies with `userId` and the ids of the message, times as Iterable writes them.

What is not quite as usual is left to the reader of any element: the lane only ever gives the rows that it would give.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from justai_sim.clock import EARLIEST, LATEST, MISSING
from justai_sim.esp import iterable_fields as f
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.values import Element, ElementError, first_ident, micro_of

_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
_ZONE = " +00:00"
_STORED = ("itblInternal", "itblInternal.documentCreatedAt")
"""Where a row of an export says when Iterable heard of it."""
_NAN = SendRow._field_defaults["propensity"]
_row: Callable[[Any, tuple[Any, ...]], Any] = tuple.__new__  # half the time of the rows' own constructor


def append(e: Element, reading: f.Reading, rows: Rows, received_at: int) -> bool:
    """Append the row of a webhook none of whose texts is too long; False (and nothing is
    changed) if it is not for the lane."""
    name, user, d = e.get("eventName"), e.get("userId"), e.get("dataFields")
    if type(name) is not str or not _is_id(user) or type(d) is not dict or "_type" in e:
        return False
    if received_at == MISSING and any(key in source for source in (e, d) for key in _STORED):
        return False
    kind, t = f.MEANING.get(name), _instant(d.get("createdAt"))
    if kind is None or kind == f.SKIP or t == MISSING:
        return False
    if kind == f.CONVERSION:
        return _conversion(name, d, user, t, rows, received_at)
    send, event = d.get("messageId"), d.get("esDocumentId")
    if not _is_id(send):
        return False
    if kind == f.SEND:
        template, variant = d.get(reading.template_from[0]), _variant(d, reading)
        if not variant or not _is_id(template):
            return False
        sent = (send, user, template, variant, t, MISSING, "sent", MISSING, received_at, MISSING, _NAN, "")
        rows.sends.append(_row(SendRow, sent))
        return True
    if not _is_id(event) or (kind in ("unsubscribe", "bounce") and not _plain(kind, d)):
        return False
    machine = f.machine(kind, d) if kind in ("open", "click") else -1
    row = (event, user, kind, t, "", received_at, MISSING, "", send, "", "", "", machine)
    rows.events.append(_row(EventRow, row))
    return True


def _plain(kind: str, d: Element) -> bool:
    """Whether it is one that all readings take."""
    return not f.administrative(d) if kind == "unsubscribe" else d.get("recipientState") != "SoftBounce"


def _is_id(value: object) -> bool:
    return type(value) is str and value != "" and not value.isspace()


def _instant(text: object) -> int:
    """Microseconds of 2026-01-05 09:30:00 +00:00; `MISSING` for anything else."""
    if type(text) is not str or len(text) != 26 or text[19:] != _ZONE:
        return MISSING
    try:
        found = datetime.fromisoformat(text[:19])
    except ValueError:
        return MISSING
    t = (found - _EPOCH) // _MICROSECOND if found.tzinfo is None else MISSING
    return t if EARLIEST <= t < LATEST else MISSING


def _variant(d: Element, reading: f.Reading) -> str:
    data = d.get("transactionalData")
    if reading.variant_from[0] != "transactionalData" or type(data) is not dict:
        return ""
    return first_ident(data, reading.copy_keys)


def _conversion(name: str, d: Element, user: Any, t: int, rows: Rows, received_at: int) -> bool:
    """A purchase with a total, or a custom event with an amount or none, of no campaign of Iterable's own."""
    event, bought = d.get("esDocumentId"), name == f.PURCHASE
    order = d.get("id") if bought else d.get("orderId")
    if (
        not _is_id(event) or not (_is_id(order) or (order is None and (bought or "order_id" not in d)))
        or any(d.get(key) is not None for key in ("campaignId", "templateId", "emailId"))
    ):  # fmt: skip
        return False
    value = micro_of(d.get("total"))
    try:
        if bought and value is None:
            return False
        if not bought:
            name = f.event_name(d.get("eventName"), "eventName")
            found = (micro_of(d.get(key)) for key in ("total", "revenue", "value"))
            value = next((v for v in found if v is not None), MISSING)
    except ElementError:
        return False
    row = (event, user, f.CONVERSION, t, name, received_at, value, f.currency(d), "", order or "", "", "", -1)
    rows.events.append(_row(EventRow, row))
    return True

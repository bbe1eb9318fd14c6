"""What Customer.io's fields mean: metrics, times, people, where a variant's id travels, machine flags."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from justai_sim.errors import UsageError, nearest
from justai_sim.esp.jsonbytes import decode, encode
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.segment_fields import flag, instant
from justai_sim.esp.values import Element, ElementError, first_ident, shown

MEANING = {
    "sent": "send",
    "delivered": "delivery",
    "opened": "open",
    "clicked": "click",
    "converted": "conversion",
    "unsubscribed": "unsubscribe",
    "bounced": "bounce",
    "dropped": "drop",
    "spammed": "spam",
}
"""Metric -> what it becomes; any other metric (drafted, failed, replied, subscribed, new ones) is counted."""
TRANSIENT = ("attempted", "deferred")
"""Metrics of a message that will be tried again."""

TEMPLATE = ("campaign_id", "broadcast_id", "newsletter_id", "transactional_message_id")
OWN_ID = ("action_id", "newsletter_id", "transactional_message_id")
"""The message itself: the block of a workflow, or the thing that is but one message."""
CARRIERS = ("header", "comment", "split", "content_id", "message")
FLAGS = ("prefetched", "machine", "synthetic")


TEMPLATE_FROM = (*TEMPLATE, "action_id", "content_id")
MACHINE_FLAGS = (*FLAGS, "proxied")


@dataclass(frozen=True)
class Reading:
    """How Customer.io's messages are read.

    `header`, `comment`: the custom header, and the name in an HTML comment of the body
    (`<!-- JW_COPY_ID: cp_1 -->`), that hold the variant's id. Both travel with `sent` only, if the webhook
    sends the body's content.
    `variant_from`: where the variant is looked for, first found wins. 'split' is the arm of a split that the
    export's outputs tell ('split:1'), 'content_id' the newsletter's variant, 'message' the message's own id
    (`action_id`: a control message and a treatment message are two actions of one campaign).
    `template_from`: the field that is the template. The campaign and not the action, so that the messages
    that are compared share it; ('action_id', ...) suits a campaign of several messages with a header each.
    `machine_flags`: an open or click is a machine's if one of these flags is true, a person's if none is and
    one is false, unknown if all are absent. 'proxied' is not among them: Gmail fetches a person's open
    through its proxy too. 'synthetic' is: no one saw that open, it was inferred from a click, which comes
    with its own flag.
    `not_messages`: objects that look like messages but go to no person.
    `person_unsubscribes`: keep unsubscribes that name no delivery. They mostly repeat one that does.
    `restated`: keep `converted`, Customer.io's own reading of its own goal, as conversions named 'converted'.
    """

    header: str = "X-JW-Copy-Id"
    comment: str = "JW_COPY_ID"
    variant_from: tuple[str, ...] = CARRIERS
    template_from: tuple[str, ...] = TEMPLATE
    machine_flags: tuple[str, ...] = FLAGS
    not_messages: tuple[str, ...] = ("webhook", "slack")
    person_unsubscribes: bool = False
    restated: bool = False

    def __post_init__(self) -> None:
        for option, known in (
            ("variant_from", CARRIERS), ("template_from", TEMPLATE_FROM), ("machine_flags", MACHINE_FLAGS),
        ):  # fmt: skip
            for name in getattr(self, option):
                if name not in known:
                    raise UsageError(f"{option}: {name!r} is not known; {nearest(name, known)}")


class Message(NamedTuple):
    """One metric of one message, from a webhook or from an export."""

    object_type: str
    metric: str
    t: int
    event_id: str
    user: str
    send_id: str
    template: str
    carriers: Mapping[str, str]
    """Carrier (see `Reading.variant_from`) -> the variant that it tells."""
    data: Mapping[str, Any]
    """Holds the flags and the link."""


def append(m: Message, reading: Reading, rows: Rows, received_at: int) -> None:
    """One message as a send, an event, or a count of what is passed over; ElementError if it is bad."""
    label = f"{m.object_type} {m.metric}".strip()[:80]
    kind = MEANING.get(m.metric)
    if kind is None or m.object_type in reading.not_messages:
        rows.skipped[f"transient: {label}" if m.metric in TRANSIENT else label] += 1
        return
    alone = kind == "unsubscribe" and not m.send_id
    if (alone and not reading.person_unsubscribes) or (kind == "conversion" and not reading.restated):
        rows.skipped[f"restated: {label}" + " (person)" * alone] += 1
        return
    if kind == "send":
        rows.sends.append(_send(m, reading, rows, received_at))
        return
    if not m.user:
        rows.notes["events_without_user"] += 1
    machine = -1
    if kind in ("open", "click"):
        told = [flag(m.data.get(name)) for name in reading.machine_flags]
        machine = max(told, default=-1)
    # Without the message's id its template restricts the sends that the event can belong to.
    rows.events.append(
        EventRow(
            _event_id(m, rows), m.user, kind, m.t, "converted" if kind == "conversion" else "", received_at,
            send_id=m.send_id, template_id="" if m.send_id or kind == "conversion" else m.template, machine=machine,
        )
    )  # fmt: skip


def _send(m: Message, reading: Reading, rows: Rows, received_at: int) -> SendRow:
    if not m.user:
        raise ElementError("missing_field", "identifiers: found no id, email or cio_id, expected one of them")
    if not m.send_id:
        raise ElementError("missing_field", "delivery_id: found nothing, expected the id of the message")
    if not m.template:
        names = ", ".join(reading.template_from)
        raise ElementError("missing_field", f"data: found none of {names}, expected the id of the template")
    for name in reading.variant_from:
        if variant := m.carriers.get(name, ""):
            rows.notes[f"variant_from_{name}"] += 1
            return SendRow(m.send_id, m.user, m.template, variant, m.t, received_at=received_at)
    raise ElementError("missing_field", f"data: found no variant in {', '.join(reading.variant_from)}, expected one")


def _event_id(m: Message, rows: Rows) -> str:
    """Customer.io's id; in a dump without ids what tells events apart: message, metric, time and link."""
    if m.event_id:
        return m.event_id
    rows.notes["events_without_id"] += 1
    if not m.send_id:
        return ""  # hashed from the columns of the row
    link = first_ident(dict(m.data), ("href", "link_id"))
    return "auto:" + hashlib.blake2b(encode([m.send_id, m.metric, m.t, link]), digest_size=10).hexdigest()


# ------------------------------------------------------------------------------------------- webhooks


def message(e: Element, reading: Reading, rows: Rows) -> Message:
    """A webhook's object."""
    data = e.get("data")
    if not isinstance(data, dict | None):
        raise ElementError("bad_value", f"data: found {shown(data)}, expected a JSON object")
    d = data or {}
    metric, kind = _word(e, "metric"), _word(e, "object_type") or _word(e, "object_type_type")
    if not metric:
        raise ElementError("missing_field", "metric: found nothing, expected a word such as sent or opened")
    carriers: dict[str, str] = {}
    if metric == "sent":
        carriers = {
            "header": header(d.get("headers"), reading.header),
            "comment": comment(d.get("content"), reading.comment),
            "content_id": first_ident(d, ("content_id",)),
            "message": first_ident(d, OWN_ID),
        }
    return Message(
        kind, metric, happened(e, rows), first_ident(e, ("event_id",)), user(d), first_ident(d, ("delivery_id",)),
        first_ident(d, reading.template_from), carriers, d,
    )  # fmt: skip


def _word(e: Element, field: str) -> str:
    value = e.get(field)
    if not isinstance(value, str | None):
        raise ElementError("bad_value", f"{field}: found {shown(value)}, expected a word")
    return (value or "").strip().lower()


def happened(e: Element, rows: Rows) -> int:
    """`timestamp`: Unix seconds, a number or its digits. Arrival may be days late and is never used instead."""
    value = e.get("timestamp")
    if not isinstance(value, str) or (value.strip().isascii() and value.strip().isdigit()):
        try:
            return instant(value, None, rows)
        except (ValueError, OverflowError):
            pass
    what = "nothing" if value is None else shown(value)
    raise ElementError("bad_time", f"timestamp: found {what}, expected Unix seconds such as 1767605400")


def user(d: Element) -> str:
    """The workspace's own id, else the e-mail address, else 'cio:' and Customer.io's id, else ''.

    `customer_id` is the old name of `identifiers.id`; it is an empty text for a person who was deleted.
    """
    who = d.get("identifiers")
    if not isinstance(who, dict | None):
        raise ElementError("bad_value", f"identifiers: found {shown(who)}, expected a JSON object")
    who = who or {}
    return person(first_ident(who, ("id",)) or first_ident(d, ("customer_id",)), who.get("email"), who.get("cio_id"))


def person(own: str, email: Any, internal: Any) -> str:
    if own:
        return own
    if found := first_ident({"email": email}, ("email",)):
        return found
    found = first_ident({"id": internal}, ("id",))
    return f"cio:{found}" if found else ""


# ------------------------------------------------------------------------------------ what was sent


def header(headers: Any, name: str) -> str:
    """A header's value by its name in any case, of an object, a list of pairs, or either as JSON; '' if none.

    >>> header({"x-jw-copy-id": ["cp_1"]}, "X-JW-Copy-Id"), header('[{"name": "a", "value": "b"}]', "A")
    ('cp_1', 'b')
    """
    if isinstance(headers, str):
        try:
            headers = decode(headers)
        except ValueError:
            return ""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(headers, dict):
        pairs = list(headers.items())
    elif isinstance(headers, list):
        for item in headers:
            if isinstance(item, dict):
                pairs.append((item.get("name"), item.get("value")))
            elif isinstance(item, list | tuple) and len(item) == 2:
                pairs.append((item[0], item[1]))
    for key, value in pairs:
        if isinstance(key, str) and key.strip().lower() == name.lower():
            first = value[0] if isinstance(value, list) and value else value
            if found := first_ident({"value": first}, ("value",)):
                return found.strip()
    return ""


def comment(body: Any, name: str) -> str:
    """The id in the first HTML comment `<!-- name: id -->` of a body; '' if there is none.

    >>> comment("<p>Hi</p><!-- JW_COPY_ID: cp 1 -->", "JW_COPY_ID")
    'cp 1'
    """
    if not isinstance(body, str) or name not in body:
        return ""
    # Every repetition is bounded: linear on any body.
    m = re.search(rf"<!--\s{{0,9}}{re.escape(name)}\s{{0,9}}:\s{{0,9}}([^<>]{{1,200}}?)\s{{0,9}}-->", body)
    return m[1].strip() if m else ""

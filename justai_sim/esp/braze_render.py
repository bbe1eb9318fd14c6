"""Custom HTTP bodies of Braze as they would come: one event each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache, lru_cache

import numpy as np

from justai_sim.clock import MISSING, SECOND
from justai_sim.esp import braze_fields as f
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.payloads import Part, Payload, hole, in_order, nullable, numbers, quoted, split
from justai_sim.esp.values import Element
from justai_sim.tables import CONVERSION, HELD_OUT, KINDS, Log

_TYPES = {
    "open": "users.messages.email.Open",
    "click": "users.messages.email.Click",
    "unsubscribe": "users.messages.email.Unsubscribe",
    "bounce": "users.messages.email.Bounce",
    "drop": "users.messages.email.Bounce",
    "spam": "users.messages.email.MarkAsSpam",
    "delivery": "users.messages.email.Delivery",
}
_COMMON = {"app_group_id": "workspace", "canvas_id": "flow", "canvas_name": "Flow"}
_APP = {"app_group_id": "workspace", "app_id": "shop", "platform": "web"}
_MACHINE_OPEN = ('"false"', '"true"', "null")
_BOT, _REASON = ("false", "true", "null"), ("[]", '["user_agent"]', "null")
"""JSON by the flag, of which -1 (unknown) is the last."""
Made = tuple[Part, list[bytes]]


def type_of(kind: str, name: str) -> str:
    """The event type of a kind; of a conversion by its name."""
    if kind == "conversion":
        return f.PURCHASE if name == "purchase" else f.CUSTOM
    return _TYPES[kind]


def bodies(log: Log) -> Iterator[tuple[int, bytes]]:
    """(received_at, body) of each row in the order of arrival."""
    return in_order(log, _groups(log))


def _groups(log: Log) -> Iterator[Made]:
    for enrolled, part in split(log, "sends", log.sends.status == HELD_OUT):
        yield _sends(part, bool(enrolled))
    e, names = log.events, log.names("name")
    for key, part in split(log, "events", np.where(e.kind == CONVERSION, e.name, len(names) + e.kind.astype(np.int64))):
        if key < len(names):
            yield _conversions(part, names[key] if key >= 0 else "")
        else:
            yield _messages(part, KINDS[key - len(names)])


def _body(kind: str, properties: Element) -> Payload:
    event = {"event_type": kind, "id": hole("id"), "time": hole("time"), "user": hole("user"), "properties": properties}
    return Payload(encode({"events": [event]}))


@lru_cache(maxsize=1 << 16)
def _user(user: str) -> str:
    external = None if user.startswith("braze:") else user
    digest = hashlib.blake2b(user.encode(), digest_size=12).hexdigest()
    who = {"user_id": digest if external else user.removeprefix("braze:"), "external_user_id": external}
    return encode(who | {"timezone": "Etc/UTC"}).decode()


# ---------------------------------------------------------------------------------------------- sends


@cache
def _send(enrolled: bool) -> Payload:
    if enrolled:
        control = {"app_group_id": "workspace", "campaign_id": hole("step"), "campaign_name": hole("step")}
        return _body("users.campaigns.EnrollInControl", control)
    return _body("users.messages.email.Send", {
        **_COMMON, "canvas_step_id": hole("step"), "canvas_step_name": hole("step"), "dispatch_id": hole("dispatch"),
        "canvas_variation_id": hole("variation"), "canvas_variation_name": hole("name"),
        "email_address": "user@example.com", "from_domain": "example.com", "message_extras": hole("extras"),
    })  # fmt: skip


def _sends(part: Part, enrolled: bool) -> Made:
    send, user, step = (part.texts(c) for c in ("send_id", "user_id", "template_id"))
    dispatch = quoted([s.removesuffix(f":{u}:{t}") for s, u, t in zip(send, user, step, strict=True)])
    columns: dict[str, list[str]] = {
        "id": dispatch if enrolled else quoted(send), "time": _seconds(part, "sent_at"), "user": [*map(_user, user)],
        "dispatch": dispatch, "step": part.json("template_id"),
        "variation": part.json("variant_id", to_json=lambda v: _variations(v, "copy")),
        "name": part.json("variant_id", to_json=lambda v: _variations(v, "Copy")),
        "extras": part.json("variant_id", to_json=_extras),
    }  # fmt: skip
    return part, _send(enrolled).fill(columns)


def _variations(variants: list[str], copied: str) -> list[str]:
    return quoted([v if v == f.CONTROL else copied for v in variants])


def _extras(variants: list[str]) -> list[str]:
    """The key-values of a message, as the text of a JSON object that they are; the control has none."""
    return ["null" if v == f.CONTROL else encode(encode({"copy_id": v}).decode()).decode() for v in variants]


def _seconds(part: Part, name: str) -> list[str]:
    return [*map(str, (part.values(name) // SECOND).tolist())]


# --------------------------------------------------------------------------------------------- events


@cache
def _message(kind: str) -> Payload:
    p: Element = {**_COMMON, "canvas_step_id": hole("step"), "canvas_step_name": hole("step")}
    p |= {"dispatch_id": hole("dispatch"), "email_address": "user@example.com", "sending_ip": None}
    p |= {"esp": "SendGrid", "from_domain": "example.com"}
    if kind == "open":
        p |= {"machine_open": hole("machine"), "is_amp": False, "user_agent": "Mozilla/5.0"}
    elif kind == "click":
        p |= {"url": "https://www.example.com/", "user_agent": "Mozilla/5.0"}
        p |= {"is_suspected_bot_click": hole("machine"), "suspected_bot_click_reason": hole("reason")}
    elif kind in ("bounce", "drop"):
        p |= {"bounce_reason": "550 no such mailbox", "is_drop": kind == "drop"}
    return _body(_TYPES[kind], p)


def _messages(part: Part, kind: str) -> Made:
    user, send, template = (part.texts(c) for c in ("user_id", "send_id", "template_id"))
    dispatch, step = [], []
    for s, u, t in zip(send, user, template, strict=True):
        first, _, rest = s.partition(f":{u}:")
        dispatch.append(first)
        step.append(rest or t)
    columns = _of_event(part, _TYPES[kind], user)
    columns |= {"dispatch": nullable(dispatch), "step": nullable(step)}
    machine = part.values("machine")
    if kind == "open":  # since then no value says that it was a person
        machine = np.where((machine == 0) & (part.values("occurred_at") >= f.MACHINE_OPENS_SINCE), -1, machine)
    flags, known = machine.tolist(), _MACHINE_OPEN if kind == "open" else _BOT
    columns |= {"machine": [known[m] for m in flags], "reason": [_REASON[m] for m in flags]}
    return part, _message(kind).fill(columns)


def _of_event(part: Part, kind: str, user: list[str]) -> dict[str, list[str]]:
    end = f"/{kind}"
    serial = quoted([e.removesuffix(end) for e in part.texts("event_id")])
    return {"id": serial, "time": _seconds(part, "occurred_at"), "user": [*map(_user, user)]}


@cache
def _conversion(kind: str) -> Payload:
    if kind == f.PURCHASE:
        amount = {"price": hole("amount"), "currency": hole("currency")}
        return _body(kind, _APP | {"product_id": "item", **amount, "purchase_properties": {}})
    return _body(f.CUSTOM, _APP | {"name": hole("name"), "custom_properties": hole("custom")})


@cache
def _order() -> Payload:
    custom = {"order_id": hole("order"), "currency": hole("currency"), "products": [], "total_value": hole("total")}
    return Payload(encode(custom))


def _conversions(part: Part, name: str) -> Made:
    """Conversions of one name."""
    kind, value = type_of("conversion", name), part.values("value")
    columns = _of_event(part, kind, part.texts("user_id"))
    columns |= {"amount": numbers(value), "currency": part.json("currency"), "name": quoted([name]) * len(part)}
    if name == f.ORDER_PLACED:
        refund = (value < 0) & (value != MISSING)
        total = {"order": part.json("order_id"), "total": numbers(np.where(refund, -value, value)), **columns}
        columns |= {"name": quoted([f.ORDER_REFUNDED if r else name for r in refund.tolist()])}
        columns["custom"] = [c.decode() for c in _order().fill(total)]
    else:
        columns["custom"] = ["{}"] * len(part)
    return part, _conversion(kind).fill(columns)

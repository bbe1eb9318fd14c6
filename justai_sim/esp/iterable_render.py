"""Webhooks of Iterable as they would come: those of the system, and a journey's for conversions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from justai_sim.esp import iterable_fields as f
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.payloads import Part, Payload, hole, in_order, nullable, numbers, split
from justai_sim.esp.values import Element
from justai_sim.tables import CONVERSION, HELD_OUT, KINDS, Log

_NAMES = {
    "open": "emailOpen",
    "click": "emailClick",
    "unsubscribe": f.UNSUBSCRIBE,
    "bounce": "emailBounce",
    "spam": "emailComplaint",
    "delivery": "inAppDelivery",
    "drop": "emailSendSkip",
}
_BOOLS = ("false", "true", "null")
Made = tuple[Part, list[bytes]]


def bodies(log: Log) -> Iterator[tuple[int, bytes]]:
    """(received_at, body) of each row in the order of arrival."""
    return in_order(log, _groups(log))


def _groups(log: Log) -> Iterator[Made]:
    for held, part in split(log, "sends", log.sends.status == HELD_OUT):
        yield _sends(part, bool(held))
    e, names = log.events, log.names("name")
    purchase = names.index(f.PURCHASE) if f.PURCHASE in names else len(names)
    bought = (e.kind == CONVERSION) & (e.name == purchase)
    for key, part in split(log, "events", 2 * e.kind + bought):
        if key // 2 == CONVERSION:
            yield _conversions(part, bool(key % 2))
        else:
            yield _messages(part, KINDS[key // 2])


def _body(name: str, fields: Element) -> Payload:
    who = {"email": hole("email"), "userId": hole("user")}
    return Payload(encode({**who, "eventName": name, "dataFields": {**who, "createdAt": hole("time"), **fields}}))


def _common(part: Part, time: str) -> dict[str, list[str]]:
    users = part.texts("user_id")
    own, emails = users, ["null"] * len(users)
    if any("@" in u for u in users):
        by_address = ["@" in u and u == f.address(u) for u in users]
        emails = nullable([u if a else "" for u, a in zip(users, by_address, strict=True)])
        own = ["" if a else u for u, a in zip(users, by_address, strict=True)]
    return {"user": nullable(own), "email": emails, "time": part.times(time, "s", " ", " +00:00")}


_MESSAGE: Element = {"campaignId": hole("campaign"), "campaignName": hole("campaign"), "messageId": hole("send")}


@cache
def _send(held: bool) -> Payload:
    if held:
        return _body("emailSendSkip", _MESSAGE | {"reason": "HeldOut"})
    more = {"templateId": hole("variant"), "templateName": hole("variant")}
    return _body("emailSend", _MESSAGE | more | {"transactionalData": {"copy_id": hole("variant")}})


def _sends(part: Part, held: bool) -> Made:
    columns = _common(part, "sent_at")
    columns |= {"send": part.json("send_id"), "campaign": part.json("template_id"), "variant": part.json("variant_id")}
    return part, _send(held).fill(columns)


@cache
def _message(kind: str) -> Payload:
    fields = {"esDocumentId": hole("event"), **_MESSAGE}
    if kind in ("open", "click"):
        fields |= {"isBot": hole("machine")}
    if kind == "click":
        fields |= {"url": "https://www.example.com/", "hrefIndex": 0}
    elif kind == "unsubscribe":
        fields |= {"unsubSource": "EmailLink"}
    elif kind == "bounce":
        fields |= {"recipientState": "HardBounce", "status": "5.1.1"}
    elif kind == "drop":
        fields |= {"reason": "Dropped"}
    return _body(_NAMES[kind], fields)


def _messages(part: Part, kind: str) -> Made:
    named, template = (part.values("send_id") >= 0).tolist(), part.json("template_id")
    columns = _common(part, "occurred_at") | {
        "event": part.json("event_id", missing='""'), "send": part.json("send_id"),
        "campaign": ["null" if n else t for n, t in zip(named, template, strict=True)],
        "machine": [_BOOLS[m] for m in part.values("machine").tolist()],
    }  # fmt: skip
    return part, _message(kind).fill(columns)


@cache
def _conversion(bought: bool) -> Payload:
    fields: Element = {"esDocumentId": hole("event"), "currency": hole("currency")}
    if bought:
        return _body(f.PURCHASE, fields | {"id": hole("order"), "total": hole("amount")})
    return _body(f.CUSTOM, fields | {"eventName": hole("name"), "orderId": hole("order"), "value": hole("amount")})


def _conversions(part: Part, bought: bool) -> Made:
    columns = _common(part, "occurred_at") | {
        "event": part.json("event_id", missing='""'), "currency": part.json("currency"), "order": part.json("order_id"),
        "amount": numbers(part.values("value")), "name": part.json("name", missing='""'),
    }  # fmt: skip
    return part, _conversion(bought).fill(columns)

"""Track calls of Segment as they would come: webhook bodies of one event each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from justai_sim.clock import MISSING
from justai_sim.esp import segment_fields as f
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.payloads import Part, Payload, hole, in_order, numbers, quoted, split
from justai_sim.esp.values import Element
from justai_sim.tables import CONVERSION, HELD_OUT, KINDS, Log

_NAMES = {
    "open": "Email Opened",
    "click": "Email Link Clicked",
    "unsubscribe": "Unsubscribed",
    "bounce": "Email Bounced",
    "drop": "Email Dropped",
    "spam": "Email Marked as Spam",
    "delivery": "Email Delivered",
}
_LIBRARY = {"library": {"name": "esp", "version": "1.0.0"}}
_MACHINE = ('"false"', '"true"', "null")
"""JSON by the flag, of which -1 (unknown) is the last."""
Made = tuple[Part, list[bytes]]


def bodies(log: Log, nameless: str = "") -> Iterator[tuple[int, bytes]]:
    """(received_at, body) of each row in the order of arrival; `nameless`: the name of a conversion without one."""
    return in_order(log, _groups(log, nameless))


def _groups(log: Log, nameless: str) -> Iterator[Made]:
    for entered, part in split(log, "sends", log.sends.status == HELD_OUT):
        yield _sends(part, bool(entered))
    e = log.events
    for key, part in split(log, "events", 2 * e.kind + ((e.kind == CONVERSION) & (e.value != MISSING))):
        if key // 2 == CONVERSION:
            yield _conversions(part, bool(key % 2), nameless)
        else:
            yield _messages(part, KINDS[key // 2])


def _track(properties: Element) -> Payload:
    # sentAt = receivedAt: the skew formula then gives the timestamp that is written.
    return Payload(encode({
        "type": "track", "event": hole("event"), "messageId": hole("id"), "anonymousId": hole("anonymous"),
        "userId": hole("user"), "context": _LIBRARY, "integrations": {}, "originalTimestamp": hole("happened"),
        "sentAt": hole("heard"), "receivedAt": hole("heard"), "timestamp": hole("happened"), "properties": properties,
        "version": 2,
    }))  # fmt: skip


def _common(part: Part, time: str) -> dict[str, list[str]]:
    """Who it was, and when it happened and was heard of."""
    users, anonymous = part.json("user_id"), ["null"] * len(part)
    if any(u.startswith(f'"{f.ANONYMOUS}') for u in users):
        texts = part.texts("user_id")
        hidden = [t.startswith(f.ANONYMOUS) and t != f.ANONYMOUS for t in texts]
        anonymous = quoted([t.removeprefix(f.ANONYMOUS) for t in texts])
        anonymous = [a if t.startswith(f.ANONYMOUS) else "null" for a, t in zip(anonymous, texts, strict=True)]
        users = ["null" if h else u for u, h in zip(users, hidden, strict=True)]
    happened, heard = (part.times(name, "ms", "T", "Z") for name in (time, "received_at"))
    return {"user": users, "anonymous": anonymous, "happened": happened, "heard": heard}


# ---------------------------------------------------------------------------------------------- sends


@cache
def _send(entered: bool) -> Payload:
    if entered:
        return _track({"campaign_id": hole("template")})
    told = {"message_id": hole("send"), "template_id": hole("template"), "copy_id": hole("variant")}
    return _track(told | {"campaign_name": hole("template")})


def _sends(part: Part, entered: bool) -> Made:
    name, before = (f.CONTROL_ENTERED, "held") if entered else ("Email Sent", "sent")
    send = part.texts("send_id")
    columns = _common(part, "sent_at") | {
        "event": quoted([name]) * len(part), "id": quoted([f"{before}-{s}" for s in send]), "send": quoted(send),
        "template": part.json("template_id"), "variant": part.json("variant_id"),
    }  # fmt: skip
    return part, _send(entered).fill(columns)


# --------------------------------------------------------------------------------------------- events


@cache
def _message(kind: str) -> Payload:
    p: Element = {"message_id": hole("send"), "template_id": hole("template")}
    if kind == "open":
        p |= {"machine_open": hole("machine")}
    elif kind == "click":
        p |= {"link_url": "https://www.example.com/", "is_suspected_bot_click": hole("machine")}
    return _track(p)


def _messages(part: Part, kind: str) -> Made:
    named = part.values("send_id") >= 0
    template = part.json("template_id")
    columns = _common(part, "occurred_at") | {
        "event": quoted([_NAMES[kind]]) * len(part), "id": part.json("event_id", missing='""'),
        "send": part.json("send_id"), "machine": [_MACHINE[m] for m in part.values("machine").tolist()],
        "template": ["null" if n else t for n, t in zip(named.tolist(), template, strict=True)],
    }  # fmt: skip
    return part, _message(kind).fill(columns)


@cache
def _conversion(amount: str) -> Payload:
    """Without an amount, or with one of that name."""
    told: Element = {"message_id": hole("send"), "order_id": hole("order"), "currency": hole("currency")}
    return _track(told | ({amount: hole("amount")} if amount else {}))


def _conversions(part: Part, valued: bool, nameless: str) -> Made:
    names, value = part.texts("name"), part.values("value")
    columns = _common(part, "occurred_at") | {
        "event": quoted([n or nameless for n in names]), "id": part.json("event_id", missing='""'),
        "send": part.json("send_id"), "order": part.json("order_id"), "currency": part.json("currency"),
        "amount": numbers(value),
    }  # fmt: skip
    made = _conversion("revenue" if valued else "").fill(columns)
    order = f.refunded("Order Refunded")
    refunds = [i for i, (n, v) in enumerate(zip(names, value.tolist(), strict=True)) if MISSING < v < 0 and n == order]
    if refunds:
        columns |= {"event": quoted(["Order Refunded"]) * len(part), "amount": numbers(-value)}
        refunded = _conversion("total").fill(columns)
        for i in refunds:
            made[i] = refunded[i]
    return part, made

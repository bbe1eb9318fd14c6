"""Reporting webhooks of Customer.io as they would come, and plain rows for the customer's own events."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from justai_sim.clock import SECOND
from justai_sim.esp import customerio_fields as f
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.payloads import Part, Payload, hole, in_order, nullable, quoted, split
from justai_sim.esp.plain_render import objects
from justai_sim.esp.values import Element
from justai_sim.tables import CONVERSION, HELD_OUT, KINDS, UNSUBSCRIBE, Log

_METRICS = {kind: metric for metric, kind in f.MEANING.items()}
_INTERNAL = "cio:"
_BOOLS = ("false", "true", "null")
Made = tuple[Part, list[bytes]]


def bodies(log: Log, header: str) -> Iterator[tuple[int, bytes]]:
    """(received_at, body) of each row in the order of arrival; `header`: the one that holds the variant."""
    return in_order(log, _groups(log, header))


def _groups(log: Log, header: str) -> Iterator[Made]:
    for held, part in split(log, "sends", log.sends.status == HELD_OUT):
        yield _sends(part, bool(held), header)
    e = log.events
    sent, own = e.send >= 0, (e.kind == CONVERSION) | ((e.kind == UNSUBSCRIBE) & (e.send < 0))
    about = np.where(sent, 2, e.template >= 0)
    for key, part in split(
        log, "events", np.where(own, -1, 6 * e.kind.astype(np.int64) + 2 * about + (e.machine >= 0))
    ):
        if key < 0:
            yield part, objects(part, without=("machine", "received_at"), quote='"')
        else:
            yield _messages(part, KINDS[key // 6], ("", "template", "send")[key % 6 // 2], bool(key % 2))


def _webhook(metric: str, about: Element, more: Element) -> Payload:
    who = {"id": hole("person"), "email": None, "cio_id": hole("internal")}
    data = {"customer_id": hole("customer"), "identifiers": who, **about, "recipient": "user@example.com", **more}
    return Payload(encode({
        "event_id": hole("id"), "object_type": "email", "metric": metric, "timestamp": hole("time"), "data": data,
    }))  # fmt: skip


def _common(part: Part, time: str) -> dict[str, list[str]]:
    users = part.texts("user_id")
    own, internal = users, ["null"] * len(users)
    if any(u.startswith(_INTERNAL) for u in users):
        own = ["" if u.startswith(_INTERNAL) else u for u in users]
        kept = zip(users, quoted([u.removeprefix(_INTERNAL) for u in users]), strict=True)
        internal = [j if u.startswith(_INTERNAL) else "null" for u, j in kept]
    at = [*map(str, (part.values(time) // SECOND).tolist())]
    return {"person": nullable(own), "customer": quoted(own), "internal": internal, "time": at}


@cache
def _about(kind: str) -> Element:
    """What says which message it was."""
    delivery, campaign = {"delivery_id": hole("send")}, {"campaign_id": hole("template"), "action_id": hole("template")}
    return {"": {}, "template": campaign, "send": delivery, "both": delivery | campaign}[kind]


@cache
def _send(held: bool, header: str) -> Payload:
    if held:
        return _webhook("drafted", _about("both"), {})
    more = {"subject": "Hello", "content": "<p>Hello</p>", "headers": {header: [hole("variant")]}}
    return _webhook("sent", _about("both"), more)


def _sends(part: Part, held: bool, header: str) -> Made:
    send, metric = part.texts("send_id"), "drafted" if held else "sent"
    columns = _common(part, "sent_at") | {
        "id": quoted([f"{metric}-{s}" for s in send]), "send": quoted(send), "template": part.json("template_id"),
        "variant": part.json("variant_id"),
    }  # fmt: skip
    return part, _send(held, header).fill(columns)


@cache
def _message(kind: str, about: str, known: bool) -> Payload:
    more: Element = {}
    if kind == "open" and known:
        more = {"proxied": hole("machine"), "prefetched": hole("machine")}
    elif kind == "click":
        more = {"href": "https://www.example.com/", "link_id": 1} | ({"machine": hole("machine")} if known else {})
    elif kind in ("bounce", "drop"):
        more = {"failure_message": "550 no such mailbox" if kind == "bounce" else "suppressed"}
    return _webhook(_METRICS[kind], _about(about), more)


def _messages(part: Part, kind: str, about: str, known: bool) -> Made:
    columns = _common(part, "occurred_at") | {
        "id": part.json("event_id", missing='""'), "send": part.json("send_id"), "template": part.json("template_id"),
        "machine": [_BOOLS[m] for m in part.values("machine").tolist()],
    }  # fmt: skip
    return part, _message(kind, about, known).fill(columns)

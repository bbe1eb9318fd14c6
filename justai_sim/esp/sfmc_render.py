"""Bodies of Marketing Cloud's Event Notification Service as they would come: one event each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from urllib.parse import quote

import numpy as np

from justai_sim.esp import sfmc_fields as f
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.payloads import Part, Payload, hole, in_order, quoted, split
from justai_sim.esp.plain_render import objects
from justai_sim.esp.values import Element
from justai_sim.tables import HELD_OUT, KINDS, Log

_CATEGORIES = {kind: name for name, kind in f.MEANING.items()}
_PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)"
Made = tuple[Part, list[bytes]]


def bodies(log: Log, machine: str) -> Iterator[tuple[int, bytes]]:
    """(received_at, body) of each row in the order of arrival; `machine`: the user agent of one.

    An event that the service has no category for, or that names no send of its own, is a row of the plain log.
    """
    return in_order(log, _groups(log, machine))


def _groups(log: Log, machine: str) -> Iterator[Made]:
    for held, part in split(log, "sends", log.sends.status == HELD_OUT):
        yield _sends(part, bool(held))
    for key, part in split(log, "events", log.events.kind):
        kind = KINDS[key]
        made_of = [kind in _CATEGORIES and s.count(".") >= 2 for s in part.texts("send_id")]
        theirs = np.array(made_of, bool)
        if theirs.any():
            yield _events(part.where(theirs), kind, machine)
        if not theirs.all():
            own = part.where(~theirs)
            yield own, objects(own)


def _envelope(category: str, info: Element, key: object = "NA") -> Payload:
    engagement = category.startswith("Engagement")
    ids: Element = {"jobId": hole("job"), "batchId": hole("batch"), "listId": "1", "subscriberId": hole("subscriber")}
    e: Element = {
        "eventCategoryType": category, "timestampUTC": hole("time"),
        "composite": ids | ({} if engagement else {"emailId": "1"}), "definitionKey": key, "definitionId": "NA",
        "mid": 1, "eid": 1, "info": info,
    }  # fmt: skip
    e |= {"channel": "email"} if engagement else {"sendClassificationType": "Marketing"}
    return Payload(encode([e]))


def _common(part: Part, time: str) -> dict[str, list[str]]:
    jobs, batches, subscribers = list[str](), list[str](), list[str]()
    for send in part.texts("send_id"):
        job, _, rest = send.partition(".")
        batch, _, subscriber = rest.rpartition(".")
        jobs.append(job)
        batches.append(batch)
        subscribers.append(subscriber)
    at = [*map(str, (part.values(time) // 1000).tolist())]
    return {"job": quoted(jobs), "batch": quoted(batches), "subscriber": quoted(subscribers), "time": at}


@cache
def _send(held: bool) -> Payload:
    info: Element = {"to": "user@example.com", "subscriberKey": hole("user"), "messageKey": hole("key")}
    if held:
        told: Element = {"reason": "held out", "statusCode": "1", "statusMessage": "Held out"}
        return _envelope("TransactionalSendEvents.EmailNotSent", info | told, hole("template"))
    told = {"status": "Sent", "renderedSubject": hole("template")}
    return _envelope(_CATEGORIES[f.SEND], info | told, hole("template"))


def _sends(part: Part, held: bool) -> Made:
    variants = part.json("variant_id", missing="", to_json=_percent)
    keys = [f"{s}|copy_id={v}" for s, v in zip(part.texts("send_id"), variants, strict=True)]
    columns = _common(part, "sent_at") | {
        "user": part.json("user_id"), "key": quoted(keys), "template": part.json("template_id"),
    }  # fmt: skip
    return part, _send(held).fill(columns)


def _percent(texts: list[str]) -> list[str]:
    return [quote(t, safe="") for t in texts]


@cache
def _event(kind: str) -> Payload:
    info: Element = {"eventId": hole("event")}
    if kind == "bounce":
        info |= {"to": "user@example.com", "subscriberKey": hole("user"), "bounceCode": "HARD"}
        info |= {"bounceMessage": "550 no such mailbox", "smtpReason": "550"}
    elif kind == "unsubscribe":
        info |= {"to": "user@example.com", "domain": "example.com", "unsubscribeMethod": "Click"}
    else:
        info |= {"ipAddress": "192.0.2.1", "userAgent": hole("agent"), "location": {}}
        info |= {"jobUrlId": "1", "contentLink": hole("link")} if kind == "click" else {}
    return _envelope(_CATEGORIES[kind], info)


def _events(part: Part, kind: str, machine: str) -> Made:
    agents = quoted([_PHONE, machine])
    columns = _common(part, "occurred_at") | {
        "event": part.json("event_id", missing='""'), "user": part.json("user_id"),
        "agent": [agents[m == 1] for m in part.values("machine").tolist()],
    }  # fmt: skip
    if kind == "click":
        columns["link"] = part.json("variant_id", '"https://www.example.com/"', _links)
    return part, _event(kind).fill(columns)


def _links(variants: list[str]) -> list[str]:
    return quoted([f"https://www.example.com/?copy_id={v}" for v in _percent(variants)])

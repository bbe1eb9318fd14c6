"""The fast lane of the Event Notification Service: events with their composite, and ids that are texts.

What is not quite as usual is left to the reader of any element: the lane only ever gives the rows that it would give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from justai_sim.clock import LATEST, MISSING
from justai_sim.esp import sfmc_fields as f
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.values import Element

_FIRST, _END = 10**11, LATEST // 1000
_ZEROS = ("", "0", "0.0")
_NAN = SendRow._field_defaults["propensity"]
_row: Callable[[Any, tuple[Any, ...]], Any] = tuple.__new__  # half the time of the rows' own constructor


def append(
    e: Element, copy_pattern: re.Pattern[str] | None, machines: Collection[str], rows: Rows, received_at: int
) -> bool:
    """Append the row of an event none of whose texts is too long; False (and nothing is changed) if it is not for the
    lane. `copy_pattern` finds the variant of a send in its message key; without it sends are not for the lane."""
    category, parts, info, t = e.get("eventCategoryType"), e.get("composite"), e.get("info"), e.get("timestampUTC")
    if type(category) is not str or type(parts) is not dict or type(info) is not dict or type(t) is not int:
        return False
    kind, send = f.MEANING.get(category), _send_id(parts)
    if kind is None or not send or not _FIRST <= t < _END:
        return False
    t *= 1000
    user = info.get("subscriberKey")
    if user is None:
        user = ""
    elif not _is_id(user):
        return False
    if kind == f.SEND:
        key, message = e.get("definitionKey"), info.get("messageKey")
        if not user or copy_pattern is None or not _is_id(key) or key in f.NO_KEY or type(message) is not str:
            return False
        variant = f.copy_in_text(message, copy_pattern)
        if not variant or message.isspace():
            return False
        rows.notes["variant_from_message_key"] += 1
        sent = (send, user, key, variant, t, MISSING, "sent", MISSING, received_at, MISSING, _NAN, "")
        rows.sends.append(_row(SendRow, sent))
        return True
    event, agent = info.get("eventId"), info.get("userAgent")
    if not _is_id(event) or (kind == "bounce" and f.soft(str(info.get("bounceCode")))):
        return False
    copy = f.copy_in_url(info.get("contentLink")) if kind == "click" else ""
    machine = kind in ("open", "click") and type(agent) is str and agent.strip() in machines
    row = (event, user, kind, t, "", received_at, MISSING, "", send, "", "", copy, 1 if machine else -1)
    rows.events.append(_row(EventRow, row))
    return True


def _send_id(parts: Element) -> str:
    """Job, batch and subscriber of texts; '' of others."""
    job, batch, subscriber = parts.get("jobId"), parts.get("batchId"), parts.get("subscriberId")
    if (
        type(job) is str and job not in _ZEROS and not job.isspace()
        and type(subscriber) is str and subscriber not in _ZEROS and not subscriber.isspace()
        and type(batch) is str and batch and not batch.isspace()
    ):  # fmt: skip
        return f"{job}.{batch}.{subscriber}"
    return ""


def _is_id(value: object) -> bool:
    return type(value) is str and value != "" and not value.isspace()

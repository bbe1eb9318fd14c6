"""The fast lane of Customer.io's webhooks: messages that name their delivery and a person by the workspace's own id.

What is not quite as usual is left to the reader of any element: the lane only ever gives the rows that it would give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from justai_sim.clock import LATEST, MISSING, SECOND
from justai_sim.esp import customerio_fields as f
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.segment_fields import flag
from justai_sim.esp.values import Element

_FIRST, _END = 10**8, LATEST // SECOND
_NAN = SendRow._field_defaults["propensity"]
_LEFT = ("conversion",)
_row: Callable[[Any, tuple[Any, ...]], Any] = tuple.__new__  # half the time of the rows' own constructor


def append(e: Element, reading: f.Reading, rows: Rows, received_at: int) -> bool:
    """Append the row of a webhook none of whose texts is too long; False (and nothing is changed) if it is not for the
    lane."""
    metric, d, t, event = e.get("metric"), e.get("data"), e.get("timestamp"), e.get("event_id")
    if type(metric) is not str or type(d) is not dict or type(t) is not int or e.get("object_type") != "email":
        return False
    kind, who, send = f.MEANING.get(metric), d.get("identifiers"), d.get("delivery_id")
    if kind is None or kind in _LEFT or type(who) is not dict or not _FIRST <= t < _END:
        return False
    user = who.get("id")
    if (
        type(user) is not str or not user or user.isspace() or type(send) is not str or not send or send.isspace()
        or type(event) is not str or not event or event.isspace() or "email" in reading.not_messages
    ):  # fmt: skip
        return False
    t *= SECOND
    if kind == "send":
        template, variant = d.get(reading.template_from[0]), _variant(d, reading)
        if not variant or type(template) is not str or not template or template.isspace():
            return False
        rows.notes["variant_from_header"] += 1
        sent = (send, user, template, variant, t, MISSING, "sent", MISSING, received_at, MISSING, _NAN, "")
        rows.sends.append(_row(SendRow, sent))
        return True
    machine = -1
    if kind in ("open", "click"):
        machine = max([flag(d.get(name)) for name in reading.machine_flags], default=-1)
    row = (event, user, kind, t, "", received_at, MISSING, "", send, "", "", "", machine)
    rows.events.append(_row(EventRow, row))
    return True


def _variant(d: Element, reading: f.Reading) -> str:
    """The one header, where it holds the variant."""
    headers = d.get("headers")
    if reading.variant_from[0] != "header" or type(headers) is not dict or len(headers) != 1:
        return ""
    found = headers.get(reading.header)
    value = found[0] if type(found) is list and found else found
    return value.strip() if type(value) is str else ""

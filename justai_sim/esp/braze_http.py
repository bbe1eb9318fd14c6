"""The fast lane of Braze's Custom HTTP events: ids that are texts and a time in seconds, without a second look.

What is not quite as usual is left to the reader of any element: the lane only ever gives the rows that it
would give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from justai_sim.clock import EARLIEST, LATEST, MISSING
from justai_sim.esp import braze_fields as f
from justai_sim.esp import limits
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.values import Element


class _Extras(msgspec.Struct):
    copy_id: str = ""


_EXTRAS = msgspec.json.Decoder(_Extras).decode
_FIRST, _END = EARLIEST // 1_000_000, LATEST // 1_000_000
_SHORT = 200
_NAN = SendRow._field_defaults["propensity"]
_row: Callable[[Any, tuple[Any, ...]], Any] = tuple.__new__  # half the time of the rows' own constructor


def append(meaning: Mapping[str, str], e: Element, rows: Rows, received_at: int) -> bool:
    """Append the row of an event, `meaning` of its type; False (and nothing is changed) if it is not for the lane."""
    kind, who, p, t, serial = e.get("event_type"), e.get("user"), e.get("properties"), e.get("time"), e.get("id")
    if type(kind) is not str or type(who) is not dict or type(p) is not dict or type(t) is not int:
        return False
    what, user = meaning.get(kind), who.get("external_user_id")
    if (
        what is None or not _FIRST <= t < _END
        or type(user) is not str or not user or user.isspace()
        or type(serial) is not str or not serial or serial.isspace() or len(serial) > limits.TEXT
    ):  # fmt: skip
        return False
    t *= 1_000_000
    event = f"{serial}/{kind}"
    if what == "conversion":
        return _conversion(kind, event, user, t, p, rows, received_at)
    send, template, canvas = _message(p, user)
    if not send or kind in f.STATE_CHANGES:
        return False
    if what == f.SEND:
        extras = p.get("message_extras")
        variant = _copy(extras) if extras else _variation(p, canvas)
        if not _is_id(variant):
            return False
        sent = (send, user, template, variant, t, MISSING, "sent", MISSING, received_at, MISSING, _NAN, "")
        rows.sends.append(_row(SendRow, sent))
        return True
    machine = -1
    if what == "open":
        machine = f.machine_open(p, t, column=True)
    elif what == "click":
        machine = f.bot_click(p)
    elif what == "bounce" and p.get("is_drop") is True:
        what = "drop"
    row = (event, user, what, t, "", received_at, MISSING, "", send, "", "", "", machine)
    rows.events.append(_row(EventRow, row))
    return True


def _message(p: Element, user: str) -> tuple[str, Any, bool]:
    """(send id, template, whether it is a step of a Canvas) of a message; ('', '', False) if one is not as usual."""
    get = p.get
    dispatch, template, canvas = get("dispatch_id"), get("campaign_api_id"), False
    if template is None:
        template = get("campaign_id")
    if template is None:
        template, canvas = get("canvas_step_api_id"), True
        if template is None:
            template = get("canvas_step_id")
        part = template
    else:
        part = _either(p, "message_variation_api_id", "message_variation_id")
    if (
        type(dispatch) is str and dispatch and not dispatch.isspace()
        and type(part) is str and part and not part.isspace() and (canvas or _is_id(template))
    ):  # fmt: skip
        send = f"{dispatch}:{user}:{part}"
        if len(send) <= limits.TEXT:  # so all that it is made of is
            return send, template, canvas
    return "", "", False


def _copy(extras: object) -> str | None:
    """The copy of the JSON text that it usually is."""
    if type(extras) is not str:
        return None
    return _copy_of(extras) if len(extras) < _SHORT else _copy_of.__wrapped__(extras)


@lru_cache(1 << 12)
def _copy_of(extras: str) -> str | None:
    try:
        return _EXTRAS(extras).copy_id
    except (msgspec.DecodeError, RecursionError):
        return None


def _variation(p: Element, canvas: bool) -> Any:
    name = "canvas_variation" if canvas else "message_variation"
    return _either(p, f"{name}_api_id", f"{name}_id")


def _conversion(kind: str, event: str, user: str, t: int, p: Element, rows: Rows, received_at: int) -> bool:
    name, amount, code = p.get("name"), MISSING, ""
    if len(user) > limits.TEXT or kind in f.CONVERSIONS:
        return False
    if kind == f.PURCHASE:
        price, currency = p.get("price"), p.get("currency")
        if type(price) is not float or not _is_id(currency):
            return False
        found = f.price(price, str(currency))
        if found is None:
            return False
        name, amount, code = "purchase", found, str(currency).strip().upper()
    elif not _is_id(name) or (name := str(name).strip()) in (f.ORDER_PLACED, f.ORDER_REFUNDED):
        return False
    row = (event, user, "conversion", t, name, received_at, amount, code, "", "", "", "", -1)
    rows.events.append(_row(EventRow, row))
    return True


def _is_id(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= limits.TEXT and not value.isspace()


def _either(p: Element, name: str, other: str) -> Any:
    found = p.get(name)
    return p.get(other) if found is None else found

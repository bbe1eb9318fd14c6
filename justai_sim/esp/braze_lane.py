"""The fast lane of Braze's Avro records: ids that are texts and a time in seconds, without a second look.

What is not quite as usual is left to the reader of any element: the lane only ever gives the rows that it
would give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from justai_sim.clock import EARLIEST, LATEST, MISSING
from justai_sim.esp import braze_fields as f
from justai_sim.esp import limits
from justai_sim.esp.jsonbytes import Element
from justai_sim.esp.rows import EventRow, Rows, SendRow


class _Extras(msgspec.Struct):
    copy_id: str = ""


_EXTRAS = msgspec.json.Decoder(_Extras).decode
_FIRST, _END = EARLIEST // 1_000_000, LATEST // 1_000_000
_NAN = SendRow._field_defaults["propensity"]
_row: Callable[[Any, tuple[Any, ...]], Any] = tuple.__new__  # half the time of the rows' own constructor


def append(kind: str, meaning: str, e: Element, rows: Rows) -> bool:
    """Append the row of a flat record; False (and nothing is changed) if it is not for the lane."""
    get, most = e.get, limits.TEXT
    t, user, serial = get("time"), get("external_user_id"), get("id")
    if (
        type(t) is not int or not _FIRST <= t < _END
        or type(user) is not str or not 0 < len(user) <= most or user.isspace()
        or type(serial) is not str or not 0 < len(serial) <= most or serial.isspace()
    ):  # fmt: skip
        return False
    t *= 1_000_000
    event = f"{serial}/{kind}"
    if meaning == "conversion":
        return _conversion(kind, event, user, t, e, rows)
    dispatch, template, canvas = get("dispatch_id"), get("campaign_api_id"), False
    if template is None:
        template = get("campaign_id")
    if template is None:
        template, canvas = get("canvas_step_api_id"), True
        if template is None:
            template = get("canvas_step_id")
    part = template if canvas else _either(e, "message_variation_api_id", "message_variation_id")
    if (
        type(dispatch) is not str or not 0 < len(dispatch) <= most or dispatch.isspace()
        or type(part) is not str or not 0 < len(part) <= most or part.isspace()
        or not (canvas or _is_id(template))
    ):  # fmt: skip
        return False
    send = f"{dispatch}:{user}:{part}"
    if meaning == f.SEND:
        variant = _copy(get("message_extras")) or (None if get("message_extras") else _variation(e, canvas))
        if not _is_id(variant):
            return False
        row = (send, user, template, variant, t, MISSING, "sent", MISSING, MISSING, MISSING, _NAN, "")
        rows.sends.append(_row(SendRow, row))
        return True
    machine = -1
    if meaning == "open":
        machine = f.machine_open(e, t, column="machine_open" in e)
    elif meaning == "click":
        machine = f.bot_click(e)
    elif meaning == "bounce" and e.get("is_drop") is True:
        meaning = "drop"
    rows.events.append(_row(EventRow, (event, user, meaning, t, "", MISSING, MISSING, "", send, "", "", "", machine)))
    return True


def _copy(extras: Any) -> Any:
    """The copy of the JSON text that it usually is."""
    if type(extras) is not str:
        return None
    try:
        return _EXTRAS(extras).copy_id
    except (msgspec.DecodeError, RecursionError):
        return None


def _variation(e: Element, canvas: bool) -> Any:
    name = "canvas_variation" if canvas else "message_variation"
    return _either(e, f"{name}_api_id", f"{name}_id")


def _conversion(kind: str, event: str, user: str, t: int, e: Element, rows: Rows) -> bool:
    if kind == f.PURCHASE:
        value, currency = e.get("price"), e.get("currency")
        if type(value) is not float or not _is_id(currency):
            return False
        amount = f.price(value, str(currency))
        if amount is None:
            return False
        code = str(currency).strip().upper()
        row = (event, user, "conversion", t, "purchase", MISSING, amount, code, "", "", "", "", -1)
        rows.events.append(_row(EventRow, row))
        return True
    name = e.get("name")
    if not _is_id(name) or (name := str(name).strip()) in (f.ORDER_PLACED, f.ORDER_REFUNDED):
        return False
    rows.events.append(_row(EventRow, (event, user, "conversion", t, name, MISSING, MISSING, "", "", "", "", "", -1)))
    return True


def _is_id(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= limits.TEXT and not value.isspace()


def _either(e: Element, name: str, other: str) -> Any:
    found = e.get(name)
    return e.get(other) if found is None else found

"""One row of the plain log, of a body in its usual shape: texts, whole microseconds, exact amounts.

What is not quite as usual is left to the reader of columns: this one only ever gives the rows that it would give.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from justai_sim.clock import EARLIEST, LATEST, MISSING
from justai_sim.esp import limits
from justai_sim.esp.plain import SUSPECT, note
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.values import Element
from justai_sim.tables import KINDS, STATUSES

_FLAGS = {None: -1, False: 0, True: 1}
_NAN = SendRow._field_defaults["propensity"]
_row: Callable[[Any, tuple[Any, ...]], Any] = tuple.__new__  # half the time of the rows' own constructor


class _OddError(Exception):
    """A value that is not as usual."""


def append(e: Element, rows: Rows, received_at: int) -> bool:
    """Append the row of an object that was received then; False (and nothing is changed) if it is not as usual."""
    table = e.get("table", "events")
    row: EventRow | SendRow
    try:
        if table == "events":
            row = _event(e, received_at)
            rows.events.append(row)
        elif table == "sends":
            row = _send(e, received_at)
            rows.sends.append(row)
        else:
            return False
    except _OddError:
        return False
    if row.received_at == MISSING:
        note(rows, table, 0, 1)
    return True


def _event(e: Element, received_at: int) -> EventRow:
    get, text = e.get, _text
    kind, event = get("kind"), text(get("event_id"))
    if type(kind) is not str or kind not in KINDS or not event:
        raise _OddError
    row = (
        event, text(get("user_id")), kind, _own_time(get("occurred_at")), text(get("name")),
        _receipt(get("received_at"), received_at), _money(get("value")), text(get("currency")), text(get("send_id")),
        text(get("order_id")), text(get("template_id")), text(get("variant_id")), _flag(get("machine")),
    )  # fmt: skip
    found: EventRow = _row(EventRow, row)
    return found


def _send(e: Element, received_at: int) -> SendRow:
    get, text, time = e.get, _text, _time
    send, user, status = text(get("send_id")), text(get("user_id")), get("status", "sent")
    template, variant, propensity = text(get("template_id")), text(get("variant_id")), get("propensity")
    if not (send and user and template and variant) or type(status) is not str or status not in STATUSES:
        raise _OddError
    if propensity is None:
        propensity = _NAN
    elif type(propensity) is Decimal and 0 <= propensity <= 1:
        propensity = float(propensity)
    else:
        raise _OddError
    row = (
        send, user, template, variant, _own_time(get("sent_at")), time(get("delivered_at")), status,
        time(get("status_known_at")), _receipt(get("received_at"), received_at), time(get("decided_at")), propensity,
        text(get("segment")),
    )  # fmt: skip
    found: SendRow = _row(SendRow, row)
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is not str or len(value) > limits.TEXT:
        raise _OddError
    return value


def _time(value: Any) -> int:
    if value is None:
        return MISSING
    if type(value) is not int or not EARLIEST <= value < LATEST:
        raise _OddError
    return value


def _own_time(value: Any) -> int:
    if type(value) is not int or not SUSPECT <= value < LATEST:
        raise _OddError
    return value


def _receipt(value: Any, received_at: int) -> int:
    return received_at if value is None else _time(value)


def _money(value: Any) -> int:
    """Micro-units of an amount that has no more than six places."""
    if value is None:
        return MISSING
    if type(value) is float:
        value = Decimal(repr(value))
    elif type(value) is str and len(value) <= 20 and value.isascii() and value.replace(".", "").lstrip("-").isdigit():
        try:
            value = Decimal(value)
        except ArithmeticError:
            raise _OddError from None
    if type(value) is not Decimal or not -1e12 < value < 1e12:
        raise _OddError
    micro = value.scaleb(6)
    found = int(micro)
    if found != micro:
        raise _OddError
    return found


def _flag(value: Any) -> int:
    if value is not None and type(value) is not bool:
        raise _OddError
    return _FLAGS[value]

"""The fast lane of Braze's Avro records: whole columns to text tables.

What is not quite as usual is left to the reader of single records: the lane only ever gives the rows that it
would give, and tells which records are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.clock import EARLIEST, LATEST
from justai_sim.esp import braze_fields as f
from justai_sim.esp import limits
from justai_sim.esp.coding import text_schema
from justai_sim.esp.jsonbytes import decode
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import copy_text

Mask = npt.NDArray[np.bool_]
_MESSAGE = ("campaign", "canvas_step", "canvas_variation", "message_variation")
FIELDS = frozenset([
    "id", "time", "user_id", "external_user_id", "dispatch_id", "message_extras", "machine_open", "is_drop", "name",
    "is_suspected_bot_click", "suspected_bot_click_reason", "price", "currency",
    *(f"{name}_{which}" for name in _MESSAGE for which in ("api_id", "id")),
])  # fmt: skip
"""The columns that the lane looks at."""
_FIRST, _END = EARLIEST // 1_000_000, LATEST // 1_000_000


def append(kind: str, columns: Mapping[str, pa.Array], n: int, rows: Rows, how: f.Reading) -> Mask:
    """Append the rows of `n` records; which of them are left, shape (n,)."""
    meaning, lane = f.MEANING[kind], _Lane(columns, n, how.known)
    time = columns.get("time", pa.nulls(n))
    if not pa.types.is_int64(time.type):
        return np.ones(n, bool)
    inside = pc.and_(pc.greater_equal(time, _FIRST), pc.less(time, _END))
    lane.need(inside)
    time = pc.multiply(pc.if_else(inside, time, 0), 1_000_000)
    if meaning == f.SEND:
        table, found = "sends", _send(lane, how.key) | {"sent_at": time}
    else:
        found = {"event_id": _joined(lane.needed("id"), kind, "/"), "user_id": lane.user(), "occurred_at": time}
        table, found = "events", found | _event(lane, kind, meaning, time)
    schema = text_schema(table)
    arrays = [found[c.name] if c.name in found else pa.nulls(n, c.type) for c in schema]
    whole = pa.Table.from_arrays(arrays, schema=schema)
    rows.tables.setdefault(table, []).append(whole.filter(pa.array(~lane.odd)) if lane.odd.any() else whole)
    lane.note(rows, found["user_id"])
    return lane.odd


class _Lane:
    """The columns of some records, and which of these are `odd`."""

    def __init__(self, columns: Mapping[str, pa.Array], n: int, known: Mapping[str, str]) -> None:
        self.known, self.columns, self.n, self.odd = known, columns, n, np.zeros(n, bool)

    def need(self, good: pa.Array) -> None:
        """Where it is not true, the record is odd."""
        self.odd |= ~np.asarray(pc.fill_null(good, False))

    def text(self, name: str) -> pa.Array:
        """A column of ids or names, null where it is missing or empty."""
        given = self.columns.get(name)
        if given is None:
            return pa.nulls(self.n, pa.string())
        if not pa.types.is_string(given.type):
            self.need(pc.is_null(given))
            return pa.nulls(self.n, pa.string())
        size = pc.binary_length(given)
        if (pc.max(size).as_py() or 0) > limits.TEXT:
            self.need(pc.fill_null(pc.less_equal(size, limits.TEXT), True))
        blank = pc.utf8_is_space(given)
        if pc.any(blank).as_py():
            self.need(pc.fill_null(pc.invert(blank), True))
        return pc.if_else(pc.equal(size, 0), None, given) if pc.min(size).as_py() == 0 else given

    def either(self, name: str) -> pa.Array:
        """`X_api_id`, else `X_id`."""
        first, second = self.text(f"{name}_api_id"), self.text(f"{name}_id")
        return second if first.null_count == self.n else pc.coalesce(first, second)

    def needed(self, name: str) -> pa.Array:
        found = self.text(name)
        self.need(pc.is_valid(found))
        return found

    def user(self) -> pa.Array:
        own = self.text("external_user_id")
        if own.null_count:
            profile = self.text("user_id")
            if self.known:
                own = pc.coalesce(own, self.by_value(profile, self.known.get, pa.string()))
            own = pc.coalesce(own, _joined(pa.repeat(pa.scalar("braze"), self.n), profile, ":"))
            self.need(pc.is_valid(own))
        return own

    def note(self, rows: Rows, user: pa.Array) -> None:
        """Count the rows without an external id."""
        own = self.columns.get("external_user_id", pa.nulls(self.n, pa.string()))
        lacking = pc.fill_null(pc.equal(own, ""), True) if pa.types.is_string(own.type) else pc.is_null(own)
        if pc.any(lacking).as_py():
            lacking = pc.and_(lacking, pa.array(~self.odd))
            profile = pc.and_(lacking, pc.fill_null(pc.starts_with(user, f.PROFILE), False))
            left = pc.sum(profile).as_py() or 0
            joined = (pc.sum(lacking).as_py() or 0) - left
            rows.notes.update({f.UNIDENTIFIED: left} if left else {})
            rows.notes.update({f.JOINED: joined} if joined else {})

    def by_value(self, column: pa.Array, read: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
        """A column each of whose distinct values is read once; what raises a ValueError is odd, a null stays."""
        coded = column.dictionary_encode()
        made, failed = list[Any](), list[int]()
        for i, value in enumerate(coded.dictionary.to_pylist()):
            try:
                made.append(read(value))
            except ValueError:
                made.append(None)
                failed.append(i)
        if failed:
            self.need(pc.invert(pc.is_in(coded.indices, pa.array(failed, coded.indices.type))))
        return pa.array(made, kind).take(coded.indices)


def _joined(first: pa.Array, second: pa.Array | str, between: str) -> pa.Array:
    return pc.binary_join_element_wise(first, second, between)


def _message(lane: _Lane) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
    """(send id, user, template, whether it is a step of a Canvas)."""
    user, template = lane.user(), lane.either("campaign")
    canvas = pc.is_null(template)
    part = template = pc.coalesce(template, lane.either("canvas_step"))
    if pc.any(pc.invert(canvas)).as_py():
        part = pc.if_else(canvas, template, lane.either("message_variation"))
    send = pc.binary_join_element_wise(lane.needed("dispatch_id"), user, part, ":")
    lane.need(pc.is_valid(send))
    return send, user, template, canvas


def _send(lane: _Lane, key: str) -> dict[str, pa.Array]:
    send, user, template, canvas = _message(lane)
    variant = pc.if_else(canvas, lane.either("canvas_variation"), lane.either("message_variation"))
    copy = lane.by_value(lane.text("message_extras"), lambda text: _copy(text, key), pa.string())
    variant = pc.coalesce(copy, variant)
    lane.need(pc.is_valid(variant))
    status = pa.repeat(pa.scalar("sent"), lane.n)
    return {"send_id": send, "user_id": user, "template_id": template, "variant_id": variant, "status": status}


def _copy(extras: str, key: str) -> str | None:
    """The copy of the JSON text that extras usually are; ValueError for others, None without one."""
    found = decode(extras)
    if not isinstance(found, dict):
        raise ValueError(extras)
    return copy_text(found, key) or None


def _event(lane: _Lane, kind: str, meaning: str, time: pa.Array) -> dict[str, pa.Array]:
    if kind == f.PURCHASE:
        return _purchase(lane)
    if meaning == "conversion":
        return _custom(lane)
    meanings = pa.repeat(pa.scalar(meaning), lane.n)
    if meaning == "bounce" and "is_drop" in lane.columns:
        drop = lane.columns["is_drop"]
        if pa.types.is_boolean(drop.type):
            meanings = pc.if_else(pc.fill_null(drop, False), "drop", meanings)
        else:
            lane.need(pc.is_null(drop))
    found = {"kind": meanings, "send_id": _message(lane)[0]}
    if meaning == "open" and "machine_open" in lane.columns:
        found["machine"] = _machine_open(lane, time)
    elif meaning == "click":
        found["machine"] = _bot_click(lane)
    return found


def _machine_open(lane: _Lane, time: pa.Array) -> pa.Array:
    read = lane.by_value(
        lane.columns["machine_open"], lambda v: f.machine_open({"machine_open": v}, 0, column=True), pa.int8()
    )
    after = pc.greater_equal(time, f.MACHINE_OPENS_SINCE)
    untold = pc.if_else(after, pa.scalar(0, pa.int8()), pa.scalar(None, pa.int8()))
    return pc.if_else(pc.is_null(lane.columns["machine_open"]), untold, read)


def _bot_click(lane: _Lane) -> pa.Array:
    def told(name: str) -> pa.Array:
        if name not in lane.columns:
            return pa.nulls(lane.n, pa.int8())
        return lane.by_value(lane.columns[name], lambda value: _known(f.bot_click({name: value})), pa.int8())

    return pc.coalesce(told("is_suspected_bot_click"), told("suspected_bot_click_reason"))


def _known(flag: int) -> int | None:
    return None if flag < 0 else flag


def _custom(lane: _Lane) -> dict[str, pa.Array]:
    def stripped(text: str) -> str:
        found = text.strip()
        if found in (f.ORDER_PLACED, f.ORDER_REFUNDED):
            raise ValueError(found)  # its amount is in its properties
        return found

    name = lane.by_value(lane.needed("name"), stripped, pa.string())
    return {"kind": pa.repeat(pa.scalar("conversion"), lane.n), "name": name}


def _purchase(lane: _Lane) -> dict[str, pa.Array]:
    currency, price = lane.needed("currency"), lane.columns.get("price", pa.nulls(lane.n))
    if not pa.types.is_floating(price.type):
        price = pa.nulls(lane.n, pa.float64())
    codes, prices = currency.dictionary_encode(), price.cast(pa.float64()).dictionary_encode()
    texts, amounts = codes.dictionary.to_pylist(), prices.dictionary.to_pylist()
    # Each distinct pair once.
    pair = pc.add(pc.multiply(codes.indices.cast(pa.int64()), len(amounts)), prices.indices)
    value = lane.by_value(pair, lambda i: f.price(amounts[i % len(amounts)], texts[i // len(amounts)]), pa.int64())
    lane.need(pc.is_valid(value))
    return {
        "kind": pa.repeat(pa.scalar("conversion"), lane.n),
        "name": pa.repeat(pa.scalar("purchase"), lane.n),
        "value": value,
        "currency": pa.array([t.strip().upper() for t in texts], pa.string()).take(codes.indices),
    }

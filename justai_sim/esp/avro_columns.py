"""Flat records of Avro as Arrow columns: only those that are asked for, several times as fast as one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from justai_sim.esp.avro import Block

BYTES = 4 << 20
"""Bytes of blocks that are read at a time; a larger block is not for columns, nor are more records than `RECORDS`."""
RECORDS = 20_000
FEW = 30
"""Records that are read faster one by one."""
_TYPES = ("null", "boolean", "long", "float", "double", "string", "array")
"""Names of the kernel's kinds, in its order."""
_ARROW = {"boolean": pa.bool_(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64()}
_Kind = tuple[str, int, str, int]
"""A field's type, its branch of null, and of an array the same of its items."""


class Flat:
    """The columns `wanted` of a record's schema, as far as it has them.

    Texts, numbers and flags have their Arrow type; of an array it is told whether it has items.
    """

    def __init__(self, kinds: dict[str, _Kind], wanted: frozenset[str]) -> None:
        self._columns = [(name, kind[0]) for name, kind in kinds.items() if name in wanted]
        place = {name: i for i, (name, _) in enumerate(self._columns)}
        fields = [
            (_TYPES.index(kind), null, place.get(name, -1), _TYPES.index(item), of_item)
            for name, (kind, null, item, of_item) in kinds.items()
        ]
        self._fields = np.array(fields, np.int64)

    @classmethod
    def of(cls, schema: Any, wanted: frozenset[str]) -> Flat | None:
        """None for a schema that has other fields than primitive types, arrays of these, or either of them or null."""
        fields = schema["fields"] if isinstance(schema, dict) and schema.get("type") == "record" else []
        kinds = {f.get("name"): _kind(f.get("type")) for f in fields}
        if not kinds or None in kinds.values() or len(kinds) < len(fields):
            return None
        return cls({str(name): kind for name, kind in kinds.items() if kind}, wanted)

    def read(self, blocks: Sequence[Block]) -> dict[str, pa.Array] | None:
        """The columns of some blocks; None where they should be read one by one (few, many, or not whole)."""
        n, size = sum(b.records for b in blocks), sum(len(b.data) for b in blocks)
        if not FEW <= n <= RECORDS or size > BYTES:
            return None
        from justai_sim.esp import avro_kernel as kernel

        data = np.frombuffer(b"".join(b.data for b in blocks), np.uint8)
        ends = np.array(list(accumulate(len(b.data) for b in blocks)), np.int64)
        counts = np.array([b.records for b in blocks], np.int64)
        values, lengths = np.empty((2, len(self._columns), n), np.int64)
        if not kernel.columns(data, ends, counts, self._fields, values, lengths):
            return None
        try:
            return {
                name: _array(kind, values[i], lengths[i], data, kernel) for i, (name, kind) in enumerate(self._columns)
            }
        except pa.ArrowInvalid:  # a text that is not UTF-8
            return None


def groups(blocks: Iterator[Block], room: int) -> Iterator[list[Block]]:
    """Blocks to be read together: up to `room` records and `BYTES`, or one that is larger.

    What `blocks` raises comes after the last group.
    """
    held, rows, size, wrong = list[Block](), 0, 0, list[Exception]()
    for block in _until_wrong(blocks, wrong):
        if held and (rows + block.records > room or size + len(block.data) > BYTES):
            yield held
            held, rows, size = [], 0, 0
        held.append(block)
        rows, size = rows + block.records, size + len(block.data)
    if held:
        yield held
    if wrong:
        raise wrong[0]


def _until_wrong(blocks: Iterator[Block], wrong: list[Exception]) -> Iterator[Block]:
    try:
        yield from blocks
    except Exception as e:  # damaged bytes can make it anything; nothing is lost, it is raised again
        wrong.append(e)


def _kind(schema: Any) -> _Kind | None:
    schema, null = _filled(schema)
    if isinstance(schema, dict) and schema.get("type") == "array":
        items, of_item = _filled(schema.get("items"))
        name = _primitive(items)
        return ("array", null, name, of_item) if name else None
    name = _primitive(schema)
    return (name, null, "null", -1) if name else None


def _filled(schema: Any) -> tuple[Any, int]:
    """(type, branch of null) of a type that may be null, -1 for one that may not."""
    if isinstance(schema, list) and len(schema) == 2 and "null" in schema:
        null = schema.index("null")
        return schema[1 - null], null
    return schema, -1


def _primitive(schema: Any) -> str:
    name = schema.get("type") if isinstance(schema, dict) else schema
    name = {"int": "long"}.get(name, name) if isinstance(name, str) else ""
    return name if name in _TYPES[:-1] else ""


def _array(kind: str, values: npt.NDArray[Any], lengths: npt.NDArray[Any], data: Any, kernel: Any) -> pa.Array:
    null = lengths < 0
    if kind == "null":
        return pa.nulls(len(values), pa.string())
    if kind == "array":
        return pa.array(values > 0, pa.bool_(), mask=null)
    if kind != "string":
        bits = values.astype(np.int32).view(np.float32) if kind == "float" else values
        found = {"boolean": bits == 1, "double": bits.view(np.float64)}.get(kind, bits)
        return pa.array(found, _ARROW[kind], mask=null)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.maximum(lengths, 0), out=offsets[1:])
    out = np.empty(offsets[-1], np.uint8)
    kernel.gather(data, values, offsets, out)
    there = None if not null.any() else pa.py_buffer(np.packbits(~null, bitorder="little"))
    array = pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(out), there)
    array.validate(full=True)
    return array

"""Columns of the plain log, a whole column at a time: Arrow arrays to text tables.

What is in its usual shape is read here; the few rows that are not go to `plain`, which tells what is wrong with them.
A test holds both to the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timezone as fixed
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.clock import EARLIEST, LATEST, SECOND, zone
from justai_sim.esp import limits, plain
from justai_sim.esp.coding import COLUMNS, OWN_TIME, arrow_type, text_schema, text_tables
from justai_sim.esp.rows import Rows
from justai_sim.tables import Column

Mask = npt.NDArray[np.bool_]
Made = tuple[pa.Array, Mask | None]
"""A column of a text table, and which of its rows are not in the usual shape (None: they all are)."""
Values = Callable[[str, pa.Array], list[Any]]
"""The values of (field, row numbers) as `plain.append` takes them."""

_ISO = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)$"
_AMOUNT = r"^-?\d{1,12}(\.\d{1,6})?$"


def append(
    rows: Rows,
    table: str,
    columns: Mapping[str, pa.Array],
    n: int,
    where: plain.Where,
    values: Values,
    micro: frozenset[str] = frozenset(),
) -> int:
    """As `plain.append`, of Arrow arrays and into `rows.tables`; amounts of `micro` are micro-units already."""
    made, odd = list[pa.Array](), np.zeros(n, bool)
    for field in text_schema(table):
        c, given = COLUMNS[table][field.name], columns.get(field.name)
        if given is None or given.null_count == n:
            array, strange = _absent(c, n), None
        else:
            array, strange = _read(given, c, where.timezone, field.name in micro)
        made.append(array)
        odd |= False if strange is None else strange
        if plain.must_be_filled(table, field.name) and array.null_count:
            odd |= _nulls(array)
    whole = pa.Table.from_arrays(made, schema=text_schema(table))
    if odd.any():
        whole = _with_odd(rows, table, whole, columns, odd, where, values)
    _note(rows, table, whole)
    rows.tables.setdefault(table, []).append(whole)
    return int(whole.num_rows)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece without a dictionary. ArrowInvalid if its texts are not UTF-8."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    array.validate(full=True)
    return array


def _with_odd(
    rows: Rows,
    table: str,
    whole: pa.Table,
    columns: Mapping[str, pa.Array],
    odd: Mask,
    where: plain.Where,
    values: Values,
) -> pa.Table:
    """The table in which the odd rows are read one by one; those that cannot be are rejected."""
    at, apart = np.flatnonzero(odd), Rows()
    picked = {name: values(name, pa.array(at)) for name in columns}
    there = plain.Where(
        lambda i: where.place(int(at[i])), lambda i: where.raw(int(at[i])), where.timezone, where.option
    )
    good = plain.append(apart, table, picked, len(at), there)
    for r in apart.rejects:
        rows.reject(*r)
    usual = whole.filter(pa.array(~odd))
    if not len(good):
        return usual
    order = np.argsort(np.concatenate([np.flatnonzero(~odd), at[good]]), kind="stable")
    return pa.concat_tables([usual, text_tables(apart)[table]]).take(pa.array(order))


def _note(rows: Rows, table: str, whole: pa.Table) -> None:
    early = pc.sum(pc.less(whole[OWN_TIME[table]], plain.SUSPECT)).as_py() or 0
    unheard = whole["received_at"].null_count if table != "decisions" else 0
    plain.note(rows, table, early, unheard)


def _absent(c: Column, n: int) -> pa.Array:
    if isinstance(c.text, tuple):
        return pa.repeat(pa.scalar(plain.default(c), pa.string()), n)
    return pa.nulls(n, arrow_type(c))


def _read(given: pa.Array, c: Column, timezone: str | None, micro: bool) -> Made:
    if pa.types.is_large_string(given.type) or pa.types.is_string_view(given.type):
        given = given.cast(pa.string())
    if pa.types.is_string(given.type) and _lengths(given)[0] == 0:
        given = pc.if_else(pc.equal(given, ""), None, given)
    if isinstance(c.text, tuple):
        return _names(given, c)
    if c.text == "time":
        return _times(given, timezone)
    if c.text == "money" and micro:
        return _micro(given)
    return {"id": _ids, "money": _amounts, "number": _numbers, "flag": _flags}[c.text](given)


def _nulls(array: pa.Array) -> Mask:
    return np.asarray(pc.is_null(array)) if array.null_count else np.zeros(len(array), bool)


def _strange(given: pa.Array, kind: pa.DataType) -> Made:
    """Nothing is in its usual shape, but for what is missing."""
    return pa.nulls(len(given), kind), ~_nulls(given)


def _mask(found: Any) -> Mask:
    """A boolean Arrow array, false where it is null."""
    return np.asarray(pc.fill_null(found, False))


def _cast(texts: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        return None


def _usual(texts: pa.Array, pattern: str, kind: pa.DataType) -> Made:
    """The texts that match the pattern in another type."""
    fits = pc.match_substring_regex(texts, pattern)
    found = _cast(pc.if_else(fits, texts, None), kind)
    if found is None:
        return _strange(texts, kind)
    return found, ~_nulls(texts) & ~_mask(fits)


def _lengths(texts: pa.Array) -> tuple[int, int]:
    """(least, most) bytes of a text; 0 and 0 of none."""
    found = pc.min_max(pc.binary_length(texts)).as_py()
    return found["min"] or 0, found["max"] or 0


def _ids(given: pa.Array) -> Made:
    if pa.types.is_integer(given.type):
        return given.cast(pa.string()), None
    if not pa.types.is_string(given.type):
        return _strange(given, pa.string())
    lengths = pc.binary_length(given)
    if (pc.max(lengths).as_py() or 0) <= limits.TEXT:
        return given, None
    return given, _mask(pc.greater(lengths, limits.TEXT))


def _by_text(given: pa.Array, kind: pa.DataType, read: Callable[[str], Any]) -> Made:
    """A column of few distinct texts, each read once; None is a strange one."""
    coded = given.dictionary_encode()
    found = pa.array([read(t) for t in coded.dictionary.to_pylist()], kind)
    out = found.take(coded.indices)
    return out, _nulls(out) & ~_nulls(given)


def _names(given: pa.Array, c: Column) -> Made:
    known = {str(n): str(n) for n in c.text}
    out, strange = given, None
    if pa.types.is_string(given.type):
        if not pc.all(pc.is_in(given, pa.array([*known, None]))).as_py():
            out, strange = _by_text(given, pa.string(), lambda t: known.get(t) or known.get(t.strip().lower()))
    else:
        out, strange = _strange(given, pa.string())
    return (out if c.missing is None else out.fill_null(plain.default(c))), strange


def _flags(given: pa.Array) -> Made:
    if pa.types.is_boolean(given.type):
        return given.cast(pa.int8()), None
    if not pa.types.is_string(given.type):
        return _strange(given, pa.int8())
    known = {"true": 1, "1": 1, "false": 0, "0": 0}
    return _by_text(given, pa.int8(), lambda t: known.get(t.lower()))


def _times(given: pa.Array, timezone: str | None) -> Made:
    kind = given.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return _in_range(given.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()))
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return _in_range(given.cast(pa.int64()))
    if not pa.types.is_string(kind):
        return _strange(given, pa.int64())
    found = _cast(given, pa.timestamp("us", "UTC"))
    if found is None and timezone is not None:
        found = _local(given, timezone)
    if found is None:
        found = _digits(given)
    if found is not None:
        return _in_range(found.cast(pa.int64()))
    found, strange = _usual(given, _ISO, pa.timestamp("us", "UTC"))
    times, beyond = _in_range(found.cast(pa.int64()))
    return times, _either(strange, beyond)


def _either(a: Mask | None, b: Mask | None) -> Mask | None:
    return b if a is None else a if b is None else a | b


def _in_range(times: pa.Array) -> Made:
    found = pc.min_max(times).as_py()
    if found["min"] is None or (found["min"] >= EARLIEST and found["max"] < LATEST):
        return times, None
    return times, _mask(pc.or_(pc.less(times, EARLIEST), pc.greater_equal(times, LATEST)))


def _digits(texts: pa.Array) -> pa.Array | None:
    if (pc.max(pc.binary_length(texts)).as_py() or 0) > 19 or _any(texts, "x"):
        return None  # a cast would read 0x10 as well
    return _cast(texts, pa.int64())


def _any(texts: pa.Array, part: str) -> bool:
    return any(pc.any(pc.match_substring(texts, p)).as_py() for p in (part, part.upper()))


def _local(texts: pa.Array, timezone: str) -> pa.Array | None:
    """Times without offsets in a zone; None if one has an offset, or lies where the clock is turned."""
    naive = _cast(texts, pa.timestamp("us"))
    if naive is None:
        return None
    where = zone(timezone)
    if isinstance(where, fixed):
        offset = where.utcoffset(None)
        return pc.subtract(naive.cast(pa.int64()), int(offset.total_seconds()) * SECOND)
    try:
        return pc.assume_timezone(naive, timezone, ambiguous="raise", nonexistent="raise")
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None


def _micro(given: pa.Array) -> Made:
    if given.type != pa.int64():
        return _strange(given, pa.int64())
    return given, _mask(pc.or_(pc.greater_equal(given, 1 << 62), pc.less_equal(given, -(1 << 62))))


def _amounts(given: pa.Array) -> Made:
    """Amounts in units to micro-units, through decimals with six places; more places are strange."""
    kind = given.type
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_float64(kind):
        given = given.cast(pa.string())  # of a float the shortest text that is it
    if not pa.types.is_string(given.type):
        return _strange(given, pa.int64())
    exact = pa.decimal128(38, 6)
    plain_texts = (pc.max(pc.binary_length(given)).as_py() or 0) <= 24 and not _any(given, "e")
    found, strange = _cast(given, exact) if plain_texts else None, None
    if found is None:
        found, strange = _usual(given, _AMOUNT, exact)
    low, high = np.frombuffer(found.buffers()[1], np.int64)[2 * found.offset :][: 2 * len(found)].reshape(-1, 2).T
    far = (high != low >> 63) | (low >= 1 << 62) | (low <= -(1 << 62))  # the two halves of 128 bits
    missing = _nulls(found)
    return pa.array(low, pa.int64(), mask=missing), _either(strange, far & ~missing)


def _numbers(given: pa.Array) -> Made:
    if pa.types.is_string(given.type):
        found = None if _any(given, "e") else _cast(given, pa.float64())
    elif pa.types.is_float64(given.type):
        found = given
    else:
        found = None
    if found is None:
        return _strange(given, pa.float64())
    fits = pc.and_(pc.greater_equal(found, 0.0), pc.less_equal(found, 1.0))
    return found, ~_mask(fits) & ~_nulls(found)

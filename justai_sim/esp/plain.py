"""The values of the plain log: columns of text, numbers or times as they come, to rows or rejects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from difflib import get_close_matches
from itertools import repeat
from typing import Any

import pyarrow as pa

from justai_sim import clock
from justai_sim.clock import EARLIEST, LATEST, MISSING
from justai_sim.errors import DataError, nearest
from justai_sim.esp import limits
from justai_sim.esp.coding import COLUMNS, OWN_TIME, ROWS, auto_id
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import shown
from justai_sim.tables import Column

REQUIRED = {
    "sends": ("send_id", "user_id", "template_id", "variant_id", "sent_at"),
    "events": ("event_id", "user_id", "kind", "occurred_at"),
    "decisions": ("decision_id", "user_id", "template_id", "variant_id", "decided_at"),
}
"""The columns that a file must have. `event_id` may be empty, and `user_id` of an event: its send tells it, or nobody
is credited (`no_send`)."""

_MAY_BE_EMPTY = {("events", "event_id"), ("events", "user_id")}
_DIGITS = re.compile(r"[+-]?\d{1,25}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_FLAGS = {"true": 1, "1": 1, "false": 0, "0": 0, "": -1}
_MICROS = Context(prec=400, rounding=ROUND_HALF_EVEN)
SUSPECT = 366 * clock.DAY
_EXPECTED_TIME = "ISO-8601 with an offset (2026-01-05T09:30:00Z) or integer microseconds"


@dataclass(frozen=True)
class Where:
    """Where a batch comes from: how to name row i, its raw text, and the option that names a zone."""

    place: Callable[[int], str]
    raw: Callable[[int], str]
    timezone: str | None = None
    option: str = "--timezone"


class _Bad(dict[int, tuple[str, str]]):
    """Row -> (reason, message); the first finding of a row stays."""

    def __call__(self, row: int, reason: str, field: str, found: Any, expected: str) -> None:
        if isinstance(found, str):
            found = found if len(found) <= 80 else found[:77] + "..."
        self.setdefault(row, (reason, f"{field}: found {shown(found)}, expected {expected}"))


def append(rows: Rows, table: str, columns: Mapping[str, list[Any]], n: int, where: Where) -> list[int]:
    """Append `n` rows given by columns (absent: all missing) to `rows`; which of them were good.

    Bad rows become rejects with a reason, in order; their neighbours stay.
    """
    bad = _Bad()
    made: list[Iterable[Any]] = []
    for field in ROWS[table]._fields:
        column = COLUMNS[table][field]
        values = columns.get(field)
        must = must_be_filled(table, field)
        if values is None:
            made.append(repeat(default(column), n))
        else:
            made.append(_converted(values, column, field, must, bad, where))
    out = list(map(ROWS[table]._make, zip(*made, strict=True)))
    if table == "events":
        for i, r in enumerate(out):
            if not r.event_id and i not in bad:
                out[i] = r._replace(event_id=auto_id(r))
    for i in sorted(bad):
        rows.reject(where.place(i), *bad[i], where.raw(i))
    at = [i for i in range(n) if i not in bad]
    good = [out[i] for i in at] if bad else out
    getattr(rows, table).extend(good)
    early = sum(getattr(r, OWN_TIME[table]) < SUSPECT for r in good)
    note(rows, table, early, sum(r.received_at == MISSING for r in good) if table != "decisions" else 0)
    return at


def must_be_filled(table: str, field: str) -> bool:
    """Whether a row without a value there is refused."""
    return field in REQUIRED[table] and (table, field) not in _MAY_BE_EMPTY


def note(rows: Rows, table: str, early: int, unheard: int) -> None:
    """Note rows whose own time looks like seconds, and rows that do not say when they were heard of."""
    own = OWN_TIME[table]
    if early:
        rows.notes[f"{table} with {own} before 1971 (integers are microseconds; were seconds meant?)"] += early
    if unheard:
        rows.notes[f"{table} without received_at ({own} is used)"] += unheard


def check_columns(table: str, found: list[str], place: str, rows: Rows) -> list[str]:
    """Refuse a missing required column; note and return names that are nearly one that is read."""
    said = list[str]()
    for name in REQUIRED[table]:
        if name in found:
            continue
        free = [f for f in found if f not in COLUMNS[table]]
        close = get_close_matches(name, free, n=1, cutoff=0.6)
        hint = f"; is {close[0]!r} meant for it?" if close else ""
        shown = ", ".join(found) or "no column"
        raise DataError(f"{place}: column {name!r} of {table} is missing; found {shown}{hint}")
    for extra in found:
        absent = [c for c in COLUMNS[table] if c not in found]
        close = get_close_matches(extra, absent, n=1, cutoff=0.8) if extra not in COLUMNS[table] else []
        if close:
            said.append(f"{place}: column {extra!r} is not read; is it {close[0]!r}?")
    rows.notes.update(said)
    return said


def default(c: Column) -> Any:
    """What a row holds where the column is missing."""
    if isinstance(c.text, tuple):
        return c.text[int(c.missing or 0)]
    return {"id": "", "time": MISSING, "money": MISSING, "number": float("nan"), "flag": -1}[c.text]


def _converted(values: list[Any], c: Column, field: str, must: bool, bad: _Bad, where: Where) -> list[Any]:
    if isinstance(c.text, tuple):
        return _names(values, field, c, must, bad)
    if c.text == "time":
        return _times(values, field, must, bad, where)
    if c.text == "id":
        return _ids(values, field, must, bad)
    each: Callable[[Any], Any] = {"money": _money, "number": _number, "flag": _flag}[c.text]
    reason, expected = {
        "money": ("bad_number", "an amount such as 19.99, below 4.6e12"),
        "number": ("bad_number", "a number from 0 to 1"),
        "flag": ("bad_flag", "true, false, 1, 0 or nothing"),
    }[c.text]
    return _each(values, field, each, default(c), reason, expected, bad)


def _each(
    values: list[Any], field: str, convert: Callable[[Any], Any], hole: Any, reason: str, expected: str, bad: _Bad
) -> list[Any]:
    """Convert one by one; equal texts once. ValueError from `convert` is a finding."""
    seen: dict[Any, Any] = {None: hole, "": hole}
    out = []
    for i, v in enumerate(values):
        key = v if isinstance(v, str) or v is None else (type(v), str(v))
        if key not in seen:
            try:
                seen[key] = convert(v)
            except ValueError:
                bad(i, reason, field, v, expected)
                out.append(hole)
                continue
        out.append(seen[key])
    return out


def _ids(values: list[Any], field: str, must: bool, bad: _Bad) -> list[str]:
    out = values
    if not set(map(type, values)) <= {str}:
        out = []
        for i, v in enumerate(values):
            if isinstance(v, float) and v.is_integer():
                v = int(v)  # a frame makes whole numbers with gaps floats
            if v is None or v != v:
                out.append("")
            elif isinstance(v, str) or (isinstance(v, int) and not isinstance(v, bool)):
                out.append(str(v))
            else:
                bad(i, "bad_id", field, v, "a text or a whole number")
                out.append("?")
    try:
        "".join(out).encode()
    except UnicodeEncodeError:
        for i, v in enumerate(out):
            if not _is_text(v):
                bad(i, "bad_encoding", field, v.encode("utf-8", "surrogateescape"), "UTF-8")
    if max(map(len, out), default=0) > limits.TEXT:
        for i, v in enumerate(out):
            if len(v) > limits.TEXT:
                bad(i, "text_too_long", field, v[:80], f"at most {limits.TEXT:,} characters, not {len(v):,}")
    if must and not all(out):
        for i, v in enumerate(out):
            if not v:
                bad(i, "missing_value", field, v, "an id")
    return out


def _is_text(v: str) -> bool:
    try:
        v.encode()
    except UnicodeEncodeError:
        return False
    return True


def _names(values: list[Any], field: str, c: Column, must: bool, bad: _Bad) -> list[str]:
    assert isinstance(c.text, tuple)
    known: dict[Any, str] = {n: n for n in c.text}
    if not must:
        known |= {"": default(c), None: default(c)}
    out = []
    for i, v in enumerate(values):
        name = known.get(v) if isinstance(v, str) or v is None else None
        if name is None:
            text = v.strip().lower() if isinstance(v, str) else "" if v != v else None  # a frame's hole is a NaN
            if text in known:
                name = known[text]
                if isinstance(v, str):
                    known[v] = name
            elif must and v in (None, ""):
                bad(i, "missing_value", field, v or "", f"one of {', '.join(c.text)}")
            else:
                close = nearest(str(v)[:80], c.text)
                bad(i, f"unknown_{field}", field, v, f"one of {', '.join(c.text)}; {close}")
        out.append(name or c.text[0])
    return out


def _times(values: list[Any], field: str, must: bool, bad: _Bad, where: Where) -> list[int]:
    fast = _fast_times(values)
    if fast is None:
        fast = [_time(i, v, field, bad, where) for i, v in enumerate(values)]
    if must:
        for i, t in enumerate(fast):
            if t == MISSING:
                bad(i, "missing_value", field, "", "a time such as 2026-01-05T09:30:00Z")
    return fast


def _fast_times(values: list[Any]) -> list[int] | None:
    """All values at once, if they are plain integers or plain ISO texts with offsets; else None."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int}:
        out = [MISSING if v is None else v for v in values]
        return out if _in_range([v for v in values if v is not None]) else None
    if kinds != {str}:
        return None
    try:
        texts = pa.array([v or None for v in values], pa.string())
        stamps = texts.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return None
    if not _in_range(stamps.drop_null().to_pylist()):
        return None
    return list(stamps.fill_null(MISSING).to_pylist())


def _in_range(times: list[int]) -> bool:
    return not times or (min(times) >= EARLIEST and max(times) < LATEST)


def _time(i: int, v: Any, field: str, bad: _Bad, where: Where) -> int:
    if v is None or v == "" or v != v:
        return MISSING
    if isinstance(v, float) and v.is_integer():
        v = int(v)
    if isinstance(v, str) and _DIGITS.fullmatch(v.strip()):
        v = int(v)
    if isinstance(v, int) and not isinstance(v, bool):
        if EARLIEST <= v < LATEST:
            return v
        bad(i, "time_range", field, v, "microseconds since the epoch within 1970..2100")
        return MISSING
    if isinstance(v, datetime) and v.tzinfo is not None:
        v = v.astimezone(UTC)
    text = v.isoformat() if isinstance(v, date) else v
    if not isinstance(text, str):
        bad(i, "bad_time", field, text, _EXPECTED_TIME)
        return MISSING
    try:
        return clock.parse(text, where.timezone)
    except DataError:
        bad(i, *_fault(text, field, where))
        return MISSING


def _fault(text: str, field: str, where: Where) -> tuple[str, str, str, str]:
    """Why a time could not be read: its reason, field, text and what was expected."""
    try:
        clock.parse(text, where.timezone or "UTC")
    except DataError:
        if _readable(text):
            return "time_range", field, text, "a time within 1970..2100"
        return "bad_time", field, text, _EXPECTED_TIME
    return "naive_time", field, text, f"an offset (Z, +02:00), or the zone named with {where.option}"


def _readable(text: str) -> bool:
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return True


def _money(v: Any) -> int:
    """A decimal amount in units to micro-units, exactly, half to even. ValueError if it is none."""
    if isinstance(v, bool) or not isinstance(v, int | float | Decimal | str):
        raise ValueError
    if isinstance(v, float):
        if v != v:
            return MISSING
        v = repr(v)  # the shortest decimal that is this float: 19.99, not 19.989999...
    text = str(v).strip()
    if len(text) > 64 or not _DECIMAL.fullmatch(text):
        raise ValueError
    try:
        micro = int(_MICROS.scaleb(Decimal(text), 6).to_integral_value(ROUND_HALF_EVEN, _MICROS))
    except InvalidOperation:
        raise ValueError from None
    if abs(micro) >= 1 << 62:
        raise ValueError
    return micro


def _number(v: Any) -> float:
    if isinstance(v, bool) or not isinstance(v, int | float | Decimal | str):
        raise ValueError
    if isinstance(v, str) and not _DECIMAL.fullmatch(v.strip()):
        raise ValueError
    x = float(v)
    if x != x:
        return x
    if not 0 <= x <= 1:
        raise ValueError
    return x


def _flag(v: Any) -> int:
    if isinstance(v, float) and v != v:
        return -1
    text = str(v).strip().lower()
    text = {"1.0": "1", "0.0": "0"}.get(text, text)
    if text not in _FLAGS:
        raise ValueError
    return _FLAGS[text]


def values_of(column: Any, place: str, field: str, where: Where) -> list[Any]:
    """An Arrow column as Python values: aware timestamps as microseconds, decimals kept exact.

    A naive timestamp column is refused unless the zone is named; micro-unit money (our own files) is
    turned back into units.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
        return list(column.to_pylist())
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return list(column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()).to_pylist())
    if where.timezone is None:
        raise DataError(
            f"{place}: {field} is a {kind} column without a time zone; write one with a zone, "
            f"or name the zone with {where.option}"
        )
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us"), safe=False)
    return [None if v is None else v.isoformat() for v in column.to_pylist()]


def micro_to_units(values: list[int | None]) -> list[Decimal | None]:
    """Exact decimal units of micro-units."""
    return [None if v is None else Decimal(v).scaleb(-6) for v in values]

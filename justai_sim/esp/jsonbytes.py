"""What the adapters of JSON providers share: elements of a body, documents of a file, ids and amounts."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.esp.coding import OWN_TIME
from justai_sim.esp.rows import Rows
from justai_sim.tables import Log

BATCH = 20_000
"""Rows (or rejects) of one batch of `read`."""
Element = dict[str, Any]
Found = Iterator[tuple[str, Element]]
Into = Callable[[], Rows]
"""Gives the batch that rejects go to at that moment."""

_DECODE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder()
_GZIP = b"\x1f\x8b"
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
# Possessive, and an open string runs to the end: linear on any input.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
_LIMIT = Decimal(1 << 62)


class ElementError(ValueError):
    """An element that cannot become a row: a typed reason and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


def encode(value: Any) -> bytes:
    return _ENCODE.encode(value)


def decode(body: bytes | str) -> Any:
    """Untyped JSON; ValueError with the reason if it is none (or nested too deep to read)."""
    try:
        return _DECODE.decode(body)
    except msgspec.DecodeError as e:
        raise ValueError(str(e)) from None
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None


def shown(value: Any) -> str:
    """A value for a message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def raw(element: Any) -> str:
    """An element (or bytes) as text for a reject."""
    try:
        data = element if isinstance(element, bytes) else _ENCODE.encode(element)
    except (TypeError, ValueError, RecursionError):
        return repr(element)  # an Avro record may hold bytes or dates
    return data.decode("utf-8", "replace")


def elements(body: bytes, place: str, key: str, rows: Into, inherit: tuple[str, ...] = ()) -> Found:
    """(place, object) of each event in a body: one event, an array, or an object with an array at `key`.

    Fields named by `inherit` pass from the enclosing object to its events. A bad element is a reject
    (`bad_json`, `bad_value`); its neighbours are kept even if the body as a whole is not JSON.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        found = decode(body)
    except ValueError as e:
        parts = _split(body, key)
        if not parts:
            rows().reject(place, "bad_json", f"found {shown(_text(body))} ({e}), expected JSON", _text(body))
        for where, part in parts:
            try:
                yield from _walk(decode(part), place, where, key, rows, inherit)
            except ValueError as wrong:
                message = f"found {shown(_text(part))} ({wrong}), expected a JSON object"
                rows().reject(f"{place}: {where}", "bad_json", message, _text(part))
        return
    yield from _walk(found, place, "", key, rows, inherit)


def _walk(found: Any, place: str, where: str, key: str, rows: Into, inherit: tuple[str, ...]) -> Found:
    """The objects of a document; an array may hold batches, nothing goes deeper than that."""
    if isinstance(found, dict) and key in found:
        inner, items = f"{where}.{key}" if where else key, found[key]
        if not isinstance(items, list):
            message = f"{key}: found {shown(items)}, expected an array of events"
            rows().reject(f"{place}: {where}" if where else place, "bad_value", message, raw(found))
            return
        shared = {k: found[k] for k in inherit if found.get(k)}
        for i, item in enumerate(items):
            if isinstance(item, dict):
                yield f"{place}: {inner}[{i}]", _inherited(item, shared) if shared else item
            else:
                _not_an_object(item, f"{place}: {inner}[{i}]", rows)
    elif isinstance(found, list) and not where:
        for i, item in enumerate(found):
            yield from _walk(item, place, f"[{i}]", key, rows, inherit)
    elif isinstance(found, dict):
        yield f"{place}: {where}" if where else place, found
    else:
        _not_an_object(found, f"{place}: {where}" if where else place, rows)


def _not_an_object(item: Any, place: str, rows: Into) -> None:
    rows().reject(place, "bad_value", f"event: found {shown(item)}, expected a JSON object", raw(item))


def _inherited(item: Element, shared: Element) -> Element:
    out = dict(item)
    for k, v in shared.items():
        own = item.get(k)
        out[k] = {**v, **own} if isinstance(v, dict) and isinstance(own, dict) else v if own is None else own
    return out


def _split(body: bytes, key: str) -> list[tuple[str, bytes]]:
    """The pieces of the array in a body that does not decode as a whole, by its brackets alone."""
    depth, base, start, name = 0, -1, 0, b""
    out: list[bytes] = []
    for token in _TOKEN.finditer(body):
        t = token.group()
        if base < 0:
            if t == b"[" and (depth == 0 or (depth == 1 and name == b'"%s"' % key.encode())):
                base, start = depth, token.end()
            name = t if t[:1] == b'"' else name if t in b"[{" else b""
        elif depth == base + 1 and t in (b",", b"]"):
            out.append(body[start : token.start()].strip())
            start = token.end()
        if t in (b"[", b"{"):
            depth += 1
        elif t in (b"]", b"}"):
            depth -= 1
            if depth == base:
                break
    else:
        if base >= 0:
            out.append(body[start:].strip())
    prefix = key if base == 1 else ""
    return [(f"{prefix}[{i}]", part) for i, part in enumerate(out) if part]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# ---------------------------------------------------------------------------------------------- files


def files(path: Path) -> list[tuple[Path, str]]:
    """All files under a folder (or the file itself) in a fixed order, each with its name for messages."""
    if path.is_file():
        return [(path, path.name)]
    return [(f, f.relative_to(path).as_posix()) for f in sorted(path.rglob("*")) if f.is_file()]


def json_like(file: Path) -> bool:
    """Whether a file is JSON by its ending, or (gzip or without a telling ending) by its first byte."""
    name = file.name.lower().removesuffix(".gz")
    if name.endswith((".json", ".jsonl", ".ndjson")):
        return True
    if "." in name and not file.name.lower().endswith(".gz"):
        return False
    try:
        with _open(file) as stream:
            head = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (*_BROKEN, OSError):
        return file.name.lower().endswith(".gz")  # damaged: to be told of, not skipped
    return head[:1] in (b"{", b"[")


def _open(file: Path) -> IO[bytes]:
    """A file's bytes, unpacked if it is gzip by its content or its ending."""
    with file.open("rb") as f:
        packed = f.read(2) == _GZIP or file.suffix == ".gz"
    opened: Any = gzip.open if packed else Path.open
    stream: IO[bytes] = opened(file, "rb")
    return stream


def documents(file: Path, place: str, rows: Into) -> Iterator[tuple[str, bytes]]:
    """(place, bytes) of each document of a file: a line each, or the whole file if it is one document.

    A damaged gzip stream ends the file with one reject; the lines before it are kept.
    """
    with _open(file) as stream:
        lines = _lines(stream, place, rows)
        number, line = next((found for found in lines if found[1].strip()), (0, b""))
        if not number:
            return
        try:
            decode(line)
        except ValueError:
            rest = [line, *(b for _, b in lines)]
            yield from _whole_or_lines(rest, number, place)
            return
        yield f"{place}:{number}", line
        for number, line in lines:
            if line.strip():
                yield f"{place}:{number}", line


def _whole_or_lines(lines: list[bytes], first: int, place: str) -> Iterator[tuple[str, bytes]]:
    """A file whose first line is not JSON: a document over many lines, or lines of which the first is bad."""
    whole = b"".join(lines)
    # Lines of a printed document are not objects of their own at the left margin, at most the first opens one.
    objects = [line for line in lines if line[:2] == b'{"']
    many = len(objects) > 1 and whole.lstrip()[:1] == b"{"
    if not _is_json(whole) and (many or any(_is_json(line) for line in objects)):
        for i, line in enumerate(lines):
            if line.strip():
                yield f"{place}:{first + i}", line
        return
    yield place, whole


def _is_json(data: bytes) -> bool:
    try:
        decode(data)
    except ValueError:
        return False
    return True


def _lines(stream: IO[bytes], place: str, rows: Into) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        try:
            line = stream.readline()
        except _BROKEN as e:
            message = f"found a damaged gzip file ({e}), expected more lines; those before are kept"
            rows().reject(f"{place}:{number + 1}", "truncated_gzip", message)
            return
        if not line:
            return
        number += 1
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


class Batches:
    """The batch being filled; `full` hands out what is to be yielded."""

    def __init__(self) -> None:
        self.rows = Rows()

    def current(self) -> Rows:
        return self.rows

    def full(self) -> Iterator[Rows]:
        if len(self.rows) >= BATCH or len(self.rows.rejects) >= BATCH:
            yield self.take()

    def take(self) -> Rows:
        rows, self.rows = self.rows, Rows()
        return rows


class NothingReadableError(DataError):
    """A source with no file that its provider could have written."""

    def __init__(self, path: Path, found: Iterable[str], expected: str) -> None:
        self.found, self.expected = list(found), expected
        rest = len(self.found) - 8
        what = ", ".join(self.found[:8]) + (f" and {rest:,} more" if rest > 0 else "") or "nothing"
        super().__init__(f"{path}: found {what}; expected {expected}")


nothing_readable = NothingReadableError


# --------------------------------------------------------------------------------------------- values


def ident(value: Any) -> str:
    """An id as text: a text, or a whole number written out; '' for nothing, ValueError for anything else.

    >>> ident("u1"), ident(42), ident(42.0), ident("  "), ident(None)
    ('u1', '42', '42', '', '')
    """
    if type(value) is str:
        return value if value and not value.isspace() else ""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return str(int(value)) if value == value and abs(value) < 1e15 and int(value) == value else str(value)


def first_ident(source: Element, keys: Iterable[str]) -> str:
    """The first of `keys` that holds an id; what is no id (an object, a flag) is passed over."""
    for key in keys:
        value = source.get(key)
        if value is not None:
            try:
                found = ident(value)
            except ValueError:
                continue
            if found:
                return found
    return ""


def decimal(value: Any) -> Decimal | None:
    """A number, or a text such as '39.95', '$1,055.34' or '55,34 €', as a decimal; None if it is none.

    >>> decimal(0.1), decimal("$1,055.34"), decimal("55,34 €"), decimal("1,000"), decimal("free"), decimal(True)
    (Decimal('0.1'), Decimal('1055.34'), Decimal('55.34'), Decimal('1000'), None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    text = str(value)
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 40:
            return None
        if not _NUMBER.fullmatch(text):
            text = _plain(text)
            if not _NUMBER.fullmatch(text):
                return None
    found = Decimal(text)
    return found if found.is_finite() and abs(found.scaleb(6)) < _LIMIT else None


def _plain(text: str) -> str:
    """A written amount without symbol and thousands marks; a comma is decimal unless three digits follow."""
    core = text.strip(" $€£¥₹\u00a0").removesuffix(".-")
    if len(core) > 4 and core[:3].isalpha():
        core = core[3:].strip()
    elif len(core) > 4 and core[-3:].isalpha():
        core = core[:-3].strip()
    core = core.replace("-$", "-").replace(" ", "").replace("\u00a0", "")
    comma, dot = core.rfind(","), core.rfind(".")
    if comma > dot and len(core) - comma - 1 != 3:
        return core.replace(".", "").replace(",", ".")
    return core.replace(",", "")


def micro(amount: Decimal) -> int:
    """Micro-units, half to even."""
    return int(amount.scaleb(6).to_integral_value(ROUND_HALF_EVEN))


def copy_text(extras: Any) -> str:
    """The `copy_id` of a set of key-values ('' if there is none)."""
    return first_ident(extras, ("copy_id", "copyId")) if isinstance(extras, dict) else ""


def message_key(dispatch: str, user: str, part: str) -> str:
    """The id of one message to one user where a dispatch id is shared by all recipients."""
    return f"{dispatch}:{user}:{part}" if part else f"{dispatch}:{user}"


def send_order(log: Log) -> Iterator[tuple[int, str, int]]:
    """(received_at, table, row) of a log in the order of arrival: sends first, then the order of rows."""
    times, kinds, numbers = [], [], []
    for kind, name in enumerate(("sends", "events")):
        table = getattr(log, name)
        own = getattr(table, OWN_TIME[name])
        times.append(np.where(table.received_at == MISSING, own, table.received_at))
        kinds.append(np.full(len(table), kind))
        numbers.append(np.arange(len(table)))
    t, k, n = np.concatenate(times), np.concatenate(kinds), np.concatenate(numbers)
    order = np.lexsort((n, k, t))
    for at, kind, row in zip(t[order].tolist(), k[order].tolist(), n[order].tolist(), strict=True):
        yield at, "events" if kind else "sends", row

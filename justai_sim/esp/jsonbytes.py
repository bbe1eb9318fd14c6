"""What the adapters of JSON providers share: elements of a body, documents of a file, ids and amounts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np

from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.esp import limits
from justai_sim.esp.bytelines import BROKEN, ByteLines
from justai_sim.esp.coding import OWN_TIME
from justai_sim.esp.origin import Document, Origin, as_received
from justai_sim.esp.rows import Rows
from justai_sim.tables import SIMULATED, Log

BATCH = 20_000
"""Rows (or rejects) of one batch of `read`."""
Element = dict[str, Any]
T = TypeVar("T")
Found = Iterator[tuple[str, T]]
"""Each with its place."""
Into = Callable[[], Rows]
"""Gives the batch that rejects go to at that moment."""

_DECODE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder()
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
# Possessive, and an open string runs to the end: linear on any input.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
_KEPT = 1_000
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_HEAD = 1 << 16
_RUN = 2_000
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
    text = repr(value[:80] if isinstance(value, str | bytes | list) else value)
    whole = not isinstance(value, str | bytes | list) or len(value) <= 80
    return text if whole and len(text) <= 80 else text[:77] + "..."


def raw(record: Any) -> str:
    """A record of Avro or Parquet, which has no text of its own, as JSON for a reject."""
    try:
        return _ENCODE.encode(record).decode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError):
        return repr(record)  # an Avro record may hold bytes or dates


class _Bad(NamedTuple):
    """What stands where an event should."""

    reason: str
    message: str
    raw: str


_Item: TypeAlias = tuple[str, Any, Origin]
"""Where it is in its body, what it is, and its bytes."""


def lone(body: bytes, key: str | None = None, decode: Callable[[bytes], Any] = _DECODE.decode) -> Element | None:
    """The event of a body that holds one: an object, an array of one, or an object with an array of one at `key`.

    None of any other body, and where a text may be longer than any id.
    """
    if len(body) > limits.TEXT:
        return None
    try:
        found = decode(body)
        if type(found) is list:
            (found,) = found
        if key in found:
            (found,) = found[key]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if type(found) is dict else None


def elements(
    body: bytes, place: str, key: str, rows: Into, inherit: tuple[str, ...] = ()
) -> Iterator[tuple[str, Element, Origin]]:
    """(place, object, its bytes) of each event in a body: one event, an array, or an object with an array at `key`.

    Fields named by `inherit` pass from the enclosing object to its events. A bad element is a reject
    (`bad_json`, `bad_value`); its neighbours are kept even if the body as a whole is not JSON. What is more
    than `limits.ELEMENTS` events is one reject.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    for i, (where, item, origin) in enumerate(_parts(body, key, rows, inherit)):
        at = f"{place}: {where}" if where else place
        if i == limits.ELEMENTS:
            message = f"found more than {limits.ELEMENTS:,} events in one body, expected less; those before are kept"
            rows().reject(at, "too_many_events", message)
            return
        if isinstance(item, dict):
            yield at, item, origin
        elif isinstance(item, _Bad):
            rows().reject(at, *item)
        else:
            message = f"event: found {shown(item)}, expected a JSON object"
            rows().reject(at, "bad_value", message, as_received(origin))


def _parts(body: bytes, key: str, rows: Into, inherit: tuple[str, ...]) -> Iterator[_Item]:
    """(where, element, its bytes) of a body: decoded whole, else (if it is not JSON, or large) cut by its brackets."""
    reason, why = "document_too_long", f"more than {limits.LINE:,} bytes without events in an array"
    if len(body) <= limits.LINE:
        try:
            found = decode(body)
        except ValueError as e:
            reason, why = "bad_json", str(e)
        else:
            yield from _walk(found, "", key, rows, inherit, Document(body))
            return
    whole = True
    for where, part in _split(body, key):
        whole = False
        piece = Document(part)
        if len(part) > limits.LINE:
            message = f"found an event of {len(part):,} bytes, expected at most {limits.LINE:,}; its start is kept"
            yield where, _Bad("event_too_long", message, _text(part[:_KEPT])), (piece, None)
            continue
        try:
            found = decode(part)
        except ValueError as wrong:
            message = f"found {shown(_text(part[:_KEPT]))} ({wrong}), expected a JSON object"
            yield where, _Bad("bad_json", message, _text(part)), (piece, None)
        else:
            yield from _walk(found, where, key, rows, inherit, piece)
    if whole:
        message = f"found {shown(_text(body[:_KEPT]))} ({why}), expected JSON: a document or one event a line"
        yield "", _Bad(reason, message, _text(body[: limits.LINE])), (Document(body), None)


def _walk(
    found: Any, where: str, key: str, rows: Into, inherit: tuple[str, ...], document: Document
) -> Iterator[_Item]:
    """The elements of a document; an array may hold batches, nothing goes deeper than that."""
    if isinstance(found, dict) and key in found:
        inner, items = f"{where}.{key}" if where else key, found[key]
        if not isinstance(items, list):
            message = f"{key}: found {shown(items)}, expected an array of events"
            yield where, _Bad("bad_value", message, as_received((document, None))), (document, None)
            return
        shared = {k: found[k] for k in inherit if found.get(k)}
        if shared and len(raw(shared)) > limits.INHERITED:  # else each event would carry it
            rows().notes[f"{', '.join(shared)} of a batch: more than {limits.INHERITED:,} bytes, not used"] += 1
            shared = {}
        array = Document(document, key)
        for i, item in enumerate(items):
            whole = _inherited(item, shared) if shared and isinstance(item, dict) else item
            yield f"{inner}[{i}]", whole, (array, i)
    elif isinstance(found, list) and not where:
        for i, item in enumerate(found):
            if isinstance(item, dict) and key in item:
                yield from _walk(item, f"[{i}]", key, rows, inherit, Document(document, i))
            else:
                yield f"[{i}]", item, (document, i)
    else:
        yield where, found, (document, None)


def _inherited(item: Element, shared: Element) -> Element:
    out = dict(item)
    for k, v in shared.items():
        own = item.get(k)
        out[k] = {**v, **own} if isinstance(v, dict) and isinstance(own, dict) else v if own is None else own
    return out


def _split(body: bytes, key: str) -> Iterator[tuple[str, bytes]]:
    """The pieces of the array in a body that is not decoded as a whole, by its brackets alone."""
    depth, base, start, name, number = 0, -1, 0, b"", 0
    for token in _TOKEN.finditer(body):
        t, part = token.group(), b""
        if base < 0:
            if t == b"[" and (depth == 0 or (depth == 1 and name == b'"%s"' % key.encode())):
                base, start = depth, token.end()
            name = t if t[:1] == b'"' else name if t in b"[{" else b""
        elif depth == base + 1 and t in (b",", b"]"):
            part, start = body[start : token.start()].strip(), token.end()
            if part:
                yield f"{key if base == 1 else ''}[{number}]", part
            number += 1
        if t in (b"[", b"{"):
            depth += 1
        elif t in (b"]", b"}"):
            depth -= 1
            if depth == base:
                return
    if base >= 0 and (part := body[start:].strip()):
        yield f"{key if base == 1 else ''}[{number}]", part


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# ---------------------------------------------------------------------------------------------- files


def files(path: Path) -> list[tuple[Path, str]]:
    """All files under a folder (or the file itself) in a fixed order, each with its name for messages.

    But for the mark of a simulated world, which is ours and no provider's.
    """
    if path.is_file():
        return [(path, path.name)]
    found = (f for f in sorted(path.rglob("*")) if f.is_file() and f != path / SIMULATED)
    return [(f, f.relative_to(path).as_posix()) for f in found]


def json_like(file: Path) -> bool:
    """Whether a file is JSON: by its ending, or (packed, or without an ending that tells) by how it begins."""
    name = file.name.lower()
    packed = name.endswith(".gz")
    name = name.removesuffix(".gz")
    if name.endswith((".json", ".jsonl", ".ndjson")):
        return True
    if "." in name and not packed:
        return False
    try:
        with ByteLines(file, "", 64) as lines:
            head = lines.start()
        if head.removeprefix(_BOM).lstrip()[:1] in (b"{", b"["):
            return True
        with ByteLines(file, "", _HEAD) as lines:
            return _begins_as_json(lines.start(), packed)
    except BROKEN:
        return packed  # damaged: to be told of, not skipped


def _begins_as_json(head: bytes, packed: bool) -> bool:
    """By the first `_HEAD` bytes: a damaged first line costs no file, nor do blank ones.

    A packed file may be one line or a whole window of blanks too: its reader tells what is wrong with it.
    """
    lines = head.removeprefix(_BOM).split(b"\n")
    if any(line.lstrip()[:2] in (b'{"', b"[{") for line in lines):
        return True
    if not packed:
        return False
    return head[:2] in _UTF16 or b'{"' in lines[0] or (len(head) == _HEAD and not head.strip())


class Group(NamedTuple):
    """Documents of a file that follow each other: lines from number `first` on, or (0) the whole file as one."""

    place: str
    first: int
    documents: list[bytes]

    def place_of(self, i: int) -> str:
        return f"{self.place}:{self.first + i}" if self.first else self.place

    def parts(self, room: Callable[[], int]) -> Iterator[Group]:
        """The group cut so that no part has more documents than there is room for at that moment."""
        at = 0
        while at < len(self.documents):
            end = at + room()
            yield Group(self.place, self.first and self.first + at, self.documents[at:end])
            at = end


def documents(file: Path, place: str, rows: Into) -> Found[bytes]:
    """(place, bytes) of each document of a file: a line each, or the whole file if it is one document.

    A damaged gzip stream ends the file with one reject; the lines before it are kept. So does a stream that
    unpacks to more than it may; a document over the bound is a reject.
    """
    for group in groups(file, place, rows):
        for i, document in enumerate(group.documents):
            if document and not document.isspace():
                yield group.place_of(i), document


def groups(file: Path, place: str, rows: Into) -> Iterator[Group]:
    """As `documents`, many at once; blank lines are still there."""
    with ByteLines(file, place, limits.DOCUMENT) as source:
        lines = _lines(source, rows)
        number, line = next((found for found in lines if found[1].strip()), (0, b""))
        if line[:2] in _UTF16:
            rows().reject(place, "bad_encoding", "found text in UTF-16, expected UTF-8", _text(line[:_KEPT]))
            return
        if number and not _is_json(line):
            yield from _whole_or_lines(number, line, lines, source, rows)
        elif number:
            yield Group(place, number, [line])
        while found := source.some():
            source.report(rows())
            rows().held += sum(map(len, found))
            yield Group(place, source.number - len(found) + 1, found)
        source.report(rows())


def _lines(source: ByteLines, rows: Into) -> Iterator[tuple[int, bytes]]:
    while line := source.read():
        source.report(rows())
        yield source.number, line.removeprefix(b"\xef\xbb\xbf") if source.number == 1 else line
    source.report(rows())


def _whole_or_lines(
    first: int, line: bytes, more: Iterator[tuple[int, bytes]], source: ByteLines, rows: Into
) -> Iterator[Group]:
    """A file whose first line is not JSON: a document over many lines, or lines of which the first is bad.

    What goes beyond a document's bound is left in `more`: it is lines, or (when it is none) refused.
    """
    held, size = [(first, line)], len(line)
    for found in more:
        held.append(found)
        size += len(found[1])
        if size > limits.DOCUMENT:
            break
    # Lines of a printed document are no whole objects or arrays at the left margin, but for one without a comma behind.
    objects = [line for _, line in held if line[:2] == b'{"' or _like_json(line)]
    if size > limits.DOCUMENT:
        if any(_is_json(line) for line in objects):
            yield from _runs(source.place, held)
            return
        for _ in more:
            pass
        message = f"found a JSON document of more than {limits.DOCUMENT:,} bytes, expected less, or one event a line"
        rows().reject(source.place, "document_too_long", message, _text(line[:_KEPT]))
        return
    whole = b"".join(line for _, line in held)
    many = len(objects) > 1 and whole.lstrip()[:1] in (b"{", b"[")
    if not _is_json(whole) and (many or any(_is_json(line) for line in objects)):
        yield from _runs(source.place, held)
        return
    printed = [] if _is_json(whole) else _printed(held)
    held.clear()
    objects.clear()
    if len(printed) > 1:
        yield from (Group(source.place, number, [document]) for number, document in printed)
    else:
        yield Group(source.place, 0, [whole])


def _printed(numbered: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Printed documents one after the other: each ends with a bracket that stands alone at the left margin."""
    out, lines = list[tuple[int, bytes]](), list[tuple[int, bytes]]()
    for found in numbered:
        if lines or found[1].strip():
            lines.append(found)
        if found[1].rstrip() in (b"}", b"]"):
            out.append((lines[0][0], b"".join(line for _, line in lines)))
            lines = []
    if lines:
        out.append((lines[0][0], b"".join(line for _, line in lines)))
    return out


def _like_json(line: bytes) -> bool:
    end = line.rstrip()[-1:]
    return (line[:1] == b"{" and end == b"}") or (line[:1] == b"[" and end == b"]")


def _runs(place: str, numbered: list[tuple[int, bytes]]) -> Iterator[Group]:
    """Lines as groups: the numbers of a group follow each other."""
    at = 0
    while at < len(numbered):
        first, lines = numbered[at][0], list[bytes]()
        for number, line in numbered[at : at + _RUN]:
            if number != first + len(lines):
                break
            lines.append(line)
        yield Group(place, first, lines)
        at += len(lines)


def _is_json(data: bytes) -> bool:
    """Whether it is one JSON document; what is too long to be decoded at once is looked at where it begins."""
    if len(data) > limits.LINE:
        return data.lstrip()[:1] in (b"{", b"[") and data.rstrip()[-1:] in (b"}", b"]")
    try:
        decode(data)
    except ValueError:
        return False
    return True


class Batches:
    """The batch being filled; `full` hands out what is to be yielded."""

    def __init__(self) -> None:
        self.rows = Rows()

    def current(self) -> Rows:
        return self.rows

    def full(self) -> Iterator[Rows]:
        rows = self.rows
        if len(rows) >= BATCH or len(rows.rejects) >= BATCH or rows.held >= limits.HELD:
            yield self.take()

    @property
    def most(self) -> int:
        """Rows of a batch."""
        return BATCH

    @property
    def room(self) -> int:
        """Rows until the batch is full, at least one."""
        return max(1, BATCH - len(self.rows))

    def take(self) -> Rows:
        rows, self.rows = self.rows, Rows()
        return rows


class NothingReadableError(DataError):
    """A source with no file that its provider could have written."""

    def __init__(self, path: Path, found: Iterable[str], expected: str) -> None:
        self.found, self.expected = list(found), expected
        rest = len(self.found) - 8
        what = ", ".join(self.found[:8]) + (f" and {rest:,} more" if rest > 0 else "") or "nothing"
        packed = "; a packed file (.gz) must hold JSON" if any(n.lower().endswith(".gz") for n in self.found) else ""
        super().__init__(f"{path}: found {what}; expected {expected}{packed}")


nothing_readable = NothingReadableError


# --------------------------------------------------------------------------------------------- values


def ident(value: Any) -> str:
    """An id as text: a text, or a whole number written out; '' for nothing, ValueError for anything else.

    >>> ident("u1"), ident(42), ident(42.0), ident("  "), ident(None)
    ('u1', '42', '42', '', '')
    """
    if type(value) is str:
        return short(value) if value and not value.isspace() else ""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return str(int(value)) if value == value and abs(value) < 1e15 and int(value) == value else str(value)


def short(text: str) -> str:
    """The text; an ElementError if it is longer than any id or name."""
    if len(text) <= limits.TEXT:
        return text
    found = f"found a text of {len(text):,} characters ({text[:40]!r}...)"
    raise ElementError("text_too_long", f"{found}, expected an id or a name of at most {limits.TEXT:,}")


def first_ident(source: Element, keys: Iterable[str]) -> str:
    """The first of `keys` that holds an id; what is no id (an object, a flag) is passed over."""
    for key in keys:
        value = source.get(key)
        if value is not None:
            if type(value) is str and 0 < len(value) <= limits.TEXT and not value.isspace():
                return value
            try:
                found = ident(value)
            except ElementError:
                raise
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


def micro_of(value: Any) -> int | None:
    """Micro-units of a number or a written amount; None if it is none. Numbers are remembered: prices repeat.

    >>> micro_of(19.99), micro_of("$1,055.34"), micro_of(True), micro_of("free")
    (19990000, 1055340000, None, None)
    """
    if type(value) is float or type(value) is int:
        return _micro_of_number(value)
    amount = decimal(value)
    return None if amount is None else micro(amount)


@lru_cache(1 << 14)
def _micro_of_number(value: float) -> int | None:
    amount = decimal(value)
    return None if amount is None else micro(amount)


def copy_text(extras: Any, key: str = "copy_id") -> str:
    """The `copy_id` of a set of key-values, or what another key holds ('' if there is none)."""
    names = ("copy_id", "copyId") if key == "copy_id" else (key,)
    return first_ident(extras, names) if isinstance(extras, dict) else ""


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

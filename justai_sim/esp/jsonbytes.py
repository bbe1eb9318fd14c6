"""The events of a JSON body: one, an array, or what an object holds; whatever is wrong with one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from justai_sim.esp import limits
from justai_sim.esp.origin import Document, Origin, as_received
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import Element, shown

T = TypeVar("T")
Found = Iterator[tuple[str, T]]
"""Each with its place."""
Into = Callable[[], Rows]
"""Gives the batch that rejects go to at that moment."""
KEPT = 1_000
"""Bytes of what is refused that its reject shows."""

_DECODE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder()
# Possessive, and an open string runs to the end: linear on any input.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)


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
            yield where, _Bad("event_too_long", message, as_text(part[:KEPT])), (piece, None)
            continue
        try:
            found = decode(part)
        except ValueError as wrong:
            message = f"found {shown(as_text(part[:KEPT]))} ({wrong}), expected a JSON object"
            yield where, _Bad("bad_json", message, as_text(part)), (piece, None)
        else:
            yield from _walk(found, where, key, rows, inherit, piece)
    if whole:
        message = f"found {shown(as_text(body[:KEPT]))} ({why}), expected JSON: a document or one event a line"
        yield "", _Bad(reason, message, as_text(body[: limits.LINE])), (Document(body), None)


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


def as_text(data: bytes) -> str:
    """Bytes as text that can be written."""
    return data.decode("utf-8", "replace")

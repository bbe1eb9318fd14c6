"""Where an event stands in the bytes of its document: what a reject shows, as it was received."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from justai_sim.esp import limits

_PIECES: dict[type, msgspec.json.Decoder[Any]] = {
    int: msgspec.json.Decoder(list[msgspec.Raw]),
    str: msgspec.json.Decoder(dict[str, msgspec.Raw]),
}


class Document:
    """JSON in bytes, or the part of another document at a key or an index."""

    __slots__ = ("_inner", "_pieces", "_step")

    def __init__(self, inner: bytes | Document, step: int | str | None = None) -> None:
        self._inner, self._step = inner, step
        self._pieces: Any = None

    def bytes(self, step: int | str | None = None) -> bytes:
        """As they were received, without blanks around them: all of it, or what is at a key or an index."""
        if step is None:
            return self._inner.strip() if isinstance(self._inner, bytes) else self._inner.bytes(self._step)
        if self._pieces is None:  # once: each of many events of a body may be refused
            try:
                self._pieces = _PIECES[type(step)].decode(self.bytes())
            except (msgspec.DecodeError, RecursionError):  # so deep that it could just be read
                return self.bytes()[: limits.LINE]
        return bytes(self._pieces[step])


Origin: TypeAlias = tuple[Document, int | str | None]
"""A document and the key or index of an event in it (None: all of it). No more than that is made for a good event."""


def as_received(origin: Origin) -> str:
    """The bytes of an event as text.

    >>> as_received((Document(Document(b'{"batch": [1, {"b":  2.50}]}'), "batch"), 1))
    '{"b":  2.50}'
    """
    document, step = origin
    return document.bytes(step).decode("utf-8", "replace")

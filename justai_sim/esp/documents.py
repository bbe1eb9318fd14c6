"""The JSON documents of a file: a line each, printed ones one after the other, or the whole file as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from justai_sim.esp import limits
from justai_sim.esp.bytelines import BROKEN, ByteLines
from justai_sim.esp.jsonbytes import KEPT, Found, Into, as_text, decode

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_HEAD = 1 << 16
_RUN = 2_000


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
            rows().reject(place, "bad_encoding", "found text in UTF-16, expected UTF-8", as_text(line[:KEPT]))
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
        rows().reject(source.place, "document_too_long", message, as_text(line[:KEPT]))
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

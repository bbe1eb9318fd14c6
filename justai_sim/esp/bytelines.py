"""The lines of a file, packed or not, with a bound on each and on the whole: memory does not follow the file."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from justai_sim.esp import limits
from justai_sim.esp.rows import Rows

_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)
_PIECE = 1 << 18
_KEPT = 1_000
"""Bytes of a line over the bound that its reject shows."""


class ByteLines:
    """The lines of a file as bytes, `read` one by one; `number` is that of the last.

    A line of more than `most` bytes is passed over; one that breaks the gzip stream, or with which the file
    unpacks to more than it may, ends it. `report` tells of both. `text`: a file in UTF-16, by its byte order mark, is
    read as UTF-8; what is no character in it becomes U+FFFD.
    """

    def __init__(self, file: Path, place: str, most: int, *, text: bool = False) -> None:
        self.place, self.most, self.number, self.broken = place, most, 0, ""
        self._reason, self._told, self._long = "", False, list[tuple[int, bytes]]()
        self._rest, self._stream_ended = b"", False
        with file.open("rb") as f:
            packed = f.read(2) == _GZIP or file.suffix == ".gz"
        opened: Any = gzip.open if packed else open
        self._stream: Any = opened(file, "rb")
        if text and _start(opened, file) in _UTF16:
            self._stream = io.BufferedReader(_Utf8(self._stream), _PIECE)
        self._left = limits.may_unpack(file.stat().st_size) if packed else None

    def __enter__(self) -> ByteLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

    def read(self) -> bytes:
        """The next line that is not too long; b"" at the end."""
        while not self.broken:
            line = self._line(self.most + 1)
            if not line:
                break
            self.number += 1
            if len(line) <= self.most:
                return line
            self._long.append((self.number, line[:_KEPT]))
            while line and not line.endswith(b"\n"):
                line = self._line(1 << 16)
        return b""

    def some(self) -> list[bytes]:
        """The next lines in one piece, without their ends, all of them within the bound; [] at the end.

        `number` is that of the last. Several times as fast as `read`, with which it can be mixed.
        """
        data = self.block(_PIECE)
        if data:
            return data.removesuffix(b"\n").split(b"\n")
        line = self.read()  # longer than a piece
        return [line.removesuffix(b"\n")] if line else []

    def block(self, size: int) -> bytes:
        """The next whole lines in one piece of about `size` bytes; `number` is that of the last.

        b"" at the end, and before a line that is longer than a piece: `read` takes it.
        """
        if self.broken:
            return b""
        data = self._piece(size)
        whole = self._stream_ended and not self.broken
        cut = len(data) if whole else data.rfind(b"\n") + 1
        self._rest = data[cut:]
        if cut:
            newlines = np.count_nonzero(
                np.frombuffer(data, np.uint8, cut) == 10
            )  # `bytes.count` takes four times as long
            self.number += int(newlines) + (data[cut - 1] != 10)
        return data[:cut]

    def _piece(self, least: int) -> bytes:
        """What is left over and what comes next, to about `least` bytes."""
        parts, size = [self._rest], len(self._rest)
        self._rest = b""
        while size < least and not self.broken:
            part = self._guarded(self._stream.read1, least)
            if not part:
                self._stream_ended = True
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def start(self) -> bytes:
        """The first bytes of the file, unpacked."""
        return self._stream.read(self.most)

    def _line(self, most: int) -> bytes:
        """Up to `most` bytes of the next line."""
        rest = self._rest
        if not rest:
            return self._guarded(self._stream.readline, most)
        end = rest.find(b"\n") + 1
        cut = min(end or len(rest), most)
        line, self._rest = rest[:cut], rest[cut:]
        return line if end or cut == most else line + self._guarded(self._stream.readline, most - cut)

    def _guarded(self, read: Callable[[int], bytes], most: int) -> bytes:
        try:
            data = read(most)
        except BROKEN as e:
            self._break("truncated_gzip", f"found a damaged gzip file ({e}), expected more lines")
            return b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                size = f"{limits.RATIO} times its size and {limits.FLOOR:,} bytes"
                self._break("gzip_too_large", f"found a gzip file that unpacks to more than {size}, expected less")
                return b""
        return data

    def _break(self, reason: str, message: str) -> None:
        self._reason, self.broken = reason, message

    def report(self, rows: Rows) -> None:
        """Rejects for what has been passed over since the last report, and for the end of a broken file."""
        for number, start in self._long:
            message = f"found a line of more than {self.most:,} bytes, expected less; its start is kept"
            rows.reject(f"{self.place}:{number}", "line_too_long", message, start.decode("utf-8", "replace"))
        self._long.clear()
        if self.broken and not self._told:
            self._told = True
            rows.reject(f"{self.place}:{self.number + 1}", self._reason, f"{self.broken}; those before are kept")


def _start(opened: Any, file: Path) -> bytes:
    with opened(file, "rb") as stream:
        try:
            return bytes(stream.read(2))
        except BROKEN:  # told of when it is read
            return b""


class _Utf8(io.RawIOBase):
    """A stream of UTF-16 as UTF-8."""

    def __init__(self, stream: Any) -> None:
        self._text = io.TextIOWrapper(stream, "utf-16", "replace", newline="")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or self._text.read(_PIECE // 4).encode("utf-8", "replace")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._text.close()
        super().close()

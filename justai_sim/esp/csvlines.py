"""The records of CSV, line by line: every one that is whole is kept, whatever is wrong beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from justai_sim.errors import DataError
from justai_sim.esp import limits
from justai_sim.esp.bytelines import ByteLines
from justai_sim.esp.rows import Rows


class Lines:
    """The lines of a file (UTF-8, or marked UTF-16), numbered from 1, to its end or its break (see `ByteLines`)."""

    def __init__(self, file: Path, place: str) -> None:
        self.place, self.number = place, 0
        self.record: list[str] = []
        self.size = 0
        self._back: list[str] = []
        self._reread = 0
        self._bytes = ByteLines(file, place, limits.LINE, text=True)

    @property
    def broken(self) -> str:
        """Why the file could not be read to its end, '' if it was."""
        return self._bytes.broken

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.close()

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        if self.size > limits.LINE:
            raise csv.Error(f"a record of more than {limits.LINE:,} bytes")
        if self._back:
            line = self._back.pop()
            self.number += 1
        else:
            line = self._read()
        self.size += len(line)
        self.record.append(line)
        return line

    def _read(self) -> str:
        raw = self._bytes.read()
        if not raw:
            raise StopIteration
        self.number = self._bytes.number
        return raw.decode("utf-8-sig" if self.number == 1 else "utf-8", "surrogateescape")

    def start(self) -> list[str]:
        """Begin a record: its lines will be in the list."""
        self.record, self.size = [], 0
        return self.record

    def push_back(self, lines: list[str]) -> bool:
        """Have lines read again; False if that was asked too often, and they are not."""
        self._reread += len(lines)
        if self._reread > limits.REREAD + 4 * self.number:
            return False
        self._back.extend(reversed(lines))
        self.number -= len(lines)
        return True

    def block(self, size: int) -> bytes:
        """The next whole lines in one piece of about `size` bytes, if no line waits to be read again.

        b"" at the end of the file and before a line that is longer than a piece: it is left to be read.
        """
        if self._back:
            return b""
        data = self._bytes.block(size)
        self.number = self._bytes.number
        return data

    def unread(self, block: bytes) -> None:
        """Have the lines of the last block read one by one."""
        lines = io.BytesIO(block).readlines()
        self._back.extend(line.decode("utf-8", "surrogateescape") for line in reversed(lines))
        self.number -= len(lines)

    @property
    def waiting(self) -> bool:
        """Whether lines are to be read again."""
        return bool(self._back)

    def report(self, rows: Rows) -> None:
        """Rejects for lines that were passed over, and for the rest of a file that ended early."""
        self._bytes.report(rows)


def records(lines: Lines, delimiter: str, width: int) -> Iterator[tuple[int, list[str] | str, str]]:
    """(first line, fields or what is wrong, raw text) of each CSV record; blank lines are passed over.

    A stray quote swallows the lines after it: such a record loses its first line only, the rest is
    read again.
    """
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        raw = lines.start()
        number = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            reader = csv.reader(lines, delimiter=delimiter)  # the old one is still within the quotes
            fields, wrong = [], f"found a line that is not CSV ({e}), expected {width} fields"
        else:
            wrong = f"found {len(fields)} fields, expected {width}"
            if len(fields) == width:
                yield number, fields, raw[0] if len(raw) == 1 else "".join(raw)
                continue
            if len(fields) <= 1 and not "".join(fields).strip():
                continue
        if len(raw) > 1:
            wrong = "found a quote that is never closed in its record, expected a closing quote"
            if not lines.push_back(raw[1:]):
                wrong += f"; the {len(raw) - 1:,} lines after it are refused with it, there were too many of its kind"
        yield number, wrong, raw[0] if raw else ""


def header_names(header: str, delimiter: str, place: str) -> list[str]:
    """The columns of a CSV header; DataError if there are more than any export has."""
    if header.count(delimiter) >= limits.COLUMNS:
        raise DataError(f"{place}: found {header.count(delimiter) + 1:,} columns, expected at most {limits.COLUMNS:,}")
    try:
        return [h.strip() for h in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error as e:
        raise DataError(f"{place}: the header is not CSV ({e}); expected names of columns") from None


def text_of(raw: str | bytes) -> str:
    """Bytes of a file, or a line of `Lines`, as text that can be written."""
    data = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw
    return data.decode("utf-8", "replace")

"""Blocks of CSV as Arrow reads them, where nothing in them is odd."""

from __future__ import annotations

import codecs
import csv
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as arrow_csv

from justai_sim.esp.csvlines import Lines

I8 = npt.NDArray[np.int64]
BLOCK = 4 << 20
"""Bytes of a block."""
AHEAD = 2
"""Blocks that are split at the same time as the one before is worked on."""
_LONGEST = 1 << 16
"""Bytes of a line: Python's reader, which has the last word, refuses fields of twice as many."""
_NEWLINE, _QUOTE, _RETURN = 10, 34, 13


@dataclass(frozen=True)
class Form:
    """What is known of a file of CSV: its columns, what parts them, and those that are wanted."""

    names: list[str]
    delimiter: str
    wanted: frozenset[str]


@dataclass(frozen=True)
class Block:
    """The records of a block, a line each."""

    columns: dict[str, pa.Array]
    """The wanted columns as text, null where they are empty."""
    line: I8
    """The line of each record within the block, from 0."""
    first: int
    """The number of its first line in the file."""
    wrong: list[tuple[int, str]]
    """Lines with another number of fields, and what to say of them."""
    data: bytes
    edges: I8

    def raw(self, line: int) -> bytes:
        """A line without its end."""
        return self.data[int(self.edges[line]) : int(self.edges[line + 1])].rstrip(b"\r\n")


class Ahead:
    """The blocks of a file, the next ones split while the caller is at work on the one before."""

    def __init__(self, lines: Lines, form: Form) -> None:
        self._lines, self._form, self._pool = lines, form, ThreadPoolExecutor(AHEAD)
        self._taken = deque[tuple[bytes, Future[Block | None]]]()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def next(self) -> Block | None:
        """The next block; None where the lines, which are given back, should be read one by one, and at the end."""
        while len(self._taken) <= AHEAD:
            first, data = self._lines.number + 1, self._lines.block(BLOCK)
            if not data:
                break
            self._taken.append((data, self._pool.submit(split, data, self._form, first)))
        found = self._taken[0][1].result() if self._taken else None
        if found is None:
            while self._taken:
                self._lines.unread(self._taken.pop()[0])
        else:
            self._taken.popleft()
        return found


def split(data: bytes, form: Form, first: int = 1) -> Block | None:
    """The records of whole lines, the first of which has the number `first` in its file.

    None where they should be read one by one: quotes that are not around whole fields, records over several lines,
    carriage returns within lines, long lines, bytes that are not UTF-8.
    """
    found = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(found == _NEWLINE) + 1
    edges = np.concatenate([[0], ends, [len(data)] if data[-1] != _NEWLINE else []]).astype(np.int64)
    lines = len(edges) - 1
    if np.diff(edges).max() > _LONGEST or b"\0" in data or data.startswith(codecs.BOM_UTF8):
        return None
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return None
    quoted = b'"' in data
    if quoted and not _quotes_are_plain(found, ends - 1, ord(form.delimiter)):
        return None
    uneven = list[int]()
    table = _arrow(data, form, quoted, uneven)
    if table is None or table.num_rows + len(uneven) != lines:
        return None
    line = np.delete(np.arange(lines), uneven)
    blank = _blank(found, edges)[line]
    if blank.any():
        table, line = table.filter(pa.array(~blank)), line[~blank]
    columns = {form.names[int(i)]: table[i].combine_chunks() for i in table.column_names}
    block = Block(columns, line, first, [], data, edges)
    for i in uneven:
        fields = next(csv.reader([block.raw(i).decode("utf-8", "surrogateescape")], delimiter=form.delimiter), [])
        if len(fields) > 1 or "".join(fields).strip():
            block.wrong.append((i, f"found {len(fields)} fields, expected {len(form.names)}"))
    return block


def _arrow(data: bytes, form: Form, quoted: bool, uneven: list[int]) -> pa.Table | None:
    """The wanted columns by their number; `uneven` gets the lines with another number of fields. None if it fails."""

    def skip(row: arrow_csv.InvalidRow) -> str:
        uneven.append(row.number - 1)
        return "skip"

    wanted = [str(i) for i, name in enumerate(form.names) if name in form.wanted]
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            # One thread: the numbers of uneven rows are not known otherwise.
            arrow_csv.ReadOptions(
                column_names=[str(i) for i in range(len(form.names))], block_size=len(data) + 1, use_threads=False
            ),
            arrow_csv.ParseOptions(
                delimiter=form.delimiter,
                quote_char='"' if quoted else False,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None


def _blank(found: npt.NDArray[np.uint8], edges: I8) -> npt.NDArray[np.bool_]:
    """Which lines hold nothing, shape (lines,)."""
    length = np.diff(edges)
    if length.min() > 2:
        return np.zeros(len(length), bool)
    return (length == 1) | ((length == 2) & (found[edges[:-1]] == _RETURN))


def _quotes_are_plain(found: npt.NDArray[np.uint8], newlines: I8, delimiter: int) -> bool:
    """Whether every quote opens or closes a whole field, or is one of a pair within; and none spans lines."""
    at = np.flatnonzero(found == _QUOTE)
    if len(at) % 2 or (np.searchsorted(at, newlines) % 2).any():
        return False
    opening, closing = at[::2], at[1::2]
    before = np.where(opening > 0, found[opening - 1], _NEWLINE)
    after = np.where(closing + 1 < len(found), found[np.minimum(closing + 1, len(found) - 1)], _NEWLINE)
    edge = (delimiter, _NEWLINE, _QUOTE)
    return bool(np.isin(before, edge).all() and np.isin(after, (*edge, _RETURN)).all())

"""Parquet within bounds: pages are measured before they are unpacked, and equal texts are held once.

A page says itself how large it gets, in a header that the reader believes; a dictionary of one long text can
stand for any number of rows. So the headers of the pages are read here first, batches are streamed with
their dictionaries, and are cut until they fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from justai_sim.esp import limits

_BUFFER = 1 << 20
_SHORT, _HEADER = 256, 1 << 16
"""Bytes that the header of a page may take (it holds the page's smallest and largest value)."""
UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What a damaged or hostile file can raise."""


class ParquetError(ValueError):
    """A file beyond the bounds."""


def batches(file: Path, wanted: tuple[str, ...], rows: int) -> Iterator[pa.Table]:
    """The wanted columns that the file has, as tables of at most `rows` rows; texts come as plain strings.

    Columns of lists and other nested values are left out.
    """
    with pq.ParquetFile(file) as source:
        schema, meta = source.schema_arrow, source.metadata
        names = [n for n in wanted if schema.get_field_index(n) >= 0 and not pa.types.is_nested(schema.field(n).type)]
        most = limits.PARQUET_ROWS * max(file.stat().st_size, 10_000)
        if meta.num_rows > most:
            raise ParquetError(f"{meta.num_rows:,} rows claimed, expected at most {most:,} in a file of this size")
        with file.open("rb") as stream:
            _check_pages(stream, meta, set(names))
    texts = [n for n in names if pa.types.is_string(schema.field(n).type) or pa.types.is_binary(schema.field(n).type)]
    # Buffered ahead, all groups that were read would stay in memory until the end of the file.
    with pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False, read_dictionary=texts) as source:
        for batch in source.iter_batches(rows, columns=names):
            yield from _plain(pa.Table.from_batches([batch]))


def schema_of(file: Path) -> pa.Schema:
    with pq.ParquetFile(file) as source:
        return source.schema_arrow


def _plain(table: pa.Table) -> Iterator[pa.Table]:
    """A table without dictionaries, in pieces whose texts are not too large together."""
    if len(table) > 1 and sum(map(_size, table.columns)) > limits.PARQUET_PAGE:
        half = len(table) // 2
        yield from _plain(table.slice(0, half))
        yield from _plain(table.slice(half))
        return
    for i, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            kind = column.type.value_type
            table = table.set_column(i, table.field(i).with_type(kind), column.cast(kind))
    yield table


def _size(column: pa.ChunkedArray) -> int:
    """Bytes of the texts of a column once they are written out."""
    total = 0
    for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
        lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
        total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _check_pages(stream: IO[bytes], meta: Any, wanted: set[str]) -> None:
    """ParquetError if a page of the wanted columns says that it unpacks to more than it may."""
    for group in range(meta.num_row_groups):
        for i in range(meta.num_columns):
            column = meta.row_group(group).column(i)
            if column.path_in_schema not in wanted:
                continue
            begin, left = column.data_page_offset, column.total_compressed_size
            if column.has_dictionary_page and column.dictionary_page_offset is not None:
                begin = min(begin, column.dictionary_page_offset)
            while left > 0:
                if begin < 0:
                    raise ParquetError("a page before the beginning of the file")
                length, unpacked, packed = _page(stream, begin)
                if not (0 <= unpacked <= limits.PARQUET_PAGE and packed >= 0):
                    what = f"a page of {unpacked:,} bytes in {column.path_in_schema}"
                    raise ParquetError(f"{what}, expected at most {limits.PARQUET_PAGE:,}")
                begin, left = begin + length + packed, left - length - packed


def _page(stream: IO[bytes], begin: int) -> tuple[int, int, int]:
    """Bytes of the header at `begin`, and of the page unpacked and packed."""
    for most in (_SHORT, _HEADER):
        stream.seek(begin)
        header = _Header(stream.read(most))
        try:
            sizes = header.sizes()
            return header.at, *sizes
        except IndexError:
            continue
    raise ParquetError(f"a page whose header is damaged or over {_HEADER:,} bytes")


class _Header:
    """The header of a page: Thrift's compact encoding, of which only fields 2 and 3 are wanted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def sizes(self) -> tuple[int, int]:
        """Bytes of the page unpacked and packed; the header ends at `at`. IndexError if it goes on."""
        found = {2: -1, 3: -1}
        self._struct(found, 0)
        return found[2], found[3]

    def _struct(self, found: dict[int, int], depth: int) -> None:
        if depth > 8:
            raise ParquetError("a page whose header is nested too deep")
        field = 0
        while byte := self._byte():
            field = field + (byte >> 4) if byte >> 4 else self._int()
            value = self._value(byte & 15, depth)
            if depth == 0 and field in found:
                found[field] = value

    def _value(self, kind: int, depth: int) -> int:
        if kind in (4, 5, 6):
            return self._int()
        if kind == 3:
            self._byte()
        elif kind == 7:
            self._pass(8)
        elif kind == 8:
            self._pass(self._varint())
        elif kind == 12:
            self._struct({}, depth + 1)
        elif kind not in (1, 2):
            raise ParquetError("a page whose header is not one")
        return 0

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _pass(self, n: int) -> None:
        self.at += n
        if self.at > len(self.data):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ParquetError("a page whose header is not one")

    def _int(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

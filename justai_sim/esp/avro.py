"""Avro files within bounds: fastavro decodes records, but only from blocks that have been measured.

A file claims how many records a block has and how long everything is, and a packed block may unpack to any
size. So the container is read here: each block is unpacked up to a bound that its schema allows, and what
fastavro gets is the same file without compression (`avro_columns` reads most blocks without it). A block over
the bounds is passed over and told of.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO, Any, NamedTuple

import pyarrow as pa

from justai_sim.esp import limits

_MAGIC = b"Obj\x01"
_DEPTH = 32
_BYTES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
"""The fewest bytes of each primitive type."""
_FLAT, _DICT, _LIST = 20, 200, 64
"""Memory of a value by the byte (a long of two bytes takes 36), of a record and of an array, at worst."""


class AvroError(ValueError):
    """A file that is no Avro, or has a schema or header beyond the bounds."""


class TooLargeError(AvroError):
    """A block beyond the bounds."""


class _Size(NamedTuple):
    """What a type takes: fewest bytes in the file, memory at that size, values, and memory by the byte of arrays."""

    least: int
    memory: int
    values: int
    gain: float


class Block(NamedTuple):
    """Records in one piece, unpacked."""

    records: int
    data: bytes


class Avro:
    """An Avro file: its `schema` without logical types, and its blocks. AvroError if it is none.

    `told` hears of blocks that are passed over: (number, why).
    """

    def __init__(self, stream: IO[bytes], told: Callable[[int, str], None]) -> None:
        import fastavro

        self._stream, self._told = stream, told
        header = _header(stream)
        try:
            found = json.loads(header.get("avro.schema", b""))
        except (ValueError, RecursionError) as e:
            raise AvroError(f"a schema that is not JSON: {e}") from None
        self.schema = _plain(found, 0)
        self._codec = _unpacker(header.get("avro.codec", b"null"))
        size = _measure(self.schema, {}, 0)
        if size.values > limits.AVRO_NODES:
            raise AvroError(f"a schema of {size.values:,} values, expected at most {limits.AVRO_NODES:,}")
        self._least = size.least
        self._most = min(limits.AVRO_BLOCK, int(limits.AVRO_VALUES / max(size.gain, 1)))
        self._sync = _exactly(stream, 16)
        head = _MAGIC + _long(1) + _text(b"avro.schema") + _text(json.dumps(self.schema).encode())
        self._feed = _Feed(head + _long(0) + self._sync)
        reader: Any = fastavro.reader(self._feed)
        self._records = iter(reader)

    def records(self, blocks: Iterable[Block]) -> Iterator[Any]:
        """The records of some blocks by fastavro, which may raise anything on damaged bytes."""
        for block in blocks:
            self._feed.add(_long(block.records) + _long(len(block.data)), block.data, self._sync)
            yield from islice(self._records, block.records)  # and no further: there the stream would seem to end

    def blocks(self) -> Iterator[Block]:
        """The blocks within the bounds, those without records left out. AvroError where the file is damaged."""
        number = 0
        while head := self._stream.read(1):
            number += 1
            count, size = _read_long(self._stream, head), _read_long(self._stream)
            if count < 0 or size < 0:
                raise AvroError(f"a block of {count} records in {size} bytes")
            try:
                data = self._block(count, size)
            except TooLargeError as e:
                self._told(number, str(e))
                data = b""
            if _exactly(self._stream, 16) != self._sync:
                raise AvroError("a block that does not end with the mark of the file")
            if data:
                yield Block(count, data)

    def _block(self, count: int, size: int) -> bytes:
        if size > self._most:
            self._skip(size)
            raise TooLargeError(f"a block of {size:,} bytes, expected at most {self._most:,}")
        data = self._codec(_exactly(self._stream, size), self._most)
        if len(data) > self._most:
            raise TooLargeError(f"a block that unpacks to more than {self._most:,} bytes")
        if count and (not data or count > len(data) // max(self._least, 1)):
            raise TooLargeError(f"{count:,} records claimed in a block of {len(data):,} bytes")
        return data if count else b""

    def _skip(self, size: int) -> None:
        if self._stream.seekable():
            here = self._stream.tell()
            if size > self._stream.seek(0, io.SEEK_END) - here:
                raise AvroError(f"a block of {size:,} bytes, more than the file has")
            self._stream.seek(here + size)
            return
        while size:
            size -= len(_exactly(self._stream, min(size, limits.MIB)))


class _Feed:
    """The stream that fastavro reads: a header without a codec, then blocks as they are added."""

    def __init__(self, head: bytes) -> None:
        self._chunk, self._at, self._more = head, 0, deque[bytes]()

    def add(self, *chunks: bytes) -> None:
        self._more.extend(chunks)

    def read(self, n: int) -> bytes:
        """Up to the end of the present piece: a block is one piece, and is read at once."""
        if self._at == len(self._chunk):
            self._chunk, self._at = self._more.popleft() if self._more else b"", 0
        if self._at == 0 and n == len(self._chunk):
            self._at = n
            return self._chunk
        out = self._chunk[self._at : self._at + n]
        self._at += len(out)
        return out


# ---------------------------------------------------------------------------------------- the schema


def _plain(schema: Any, depth: int) -> Any:
    """The schema without logical types: values come as they are stored (a decimal of a megabyte is no number)."""
    if depth > 2 * _DEPTH:
        raise AvroError("a schema that is nested too deep")
    if isinstance(schema, list):
        return [_plain(s, depth + 1) for s in schema]
    if not isinstance(schema, dict):
        return schema
    inner = ("type", "items", "values", "fields")
    return {k: _plain(v, depth + 1) if k in inner else v for k, v in schema.items() if k != "logicalType"}


def _measure(schema: Any, names: dict[str, _Size | None], depth: int) -> _Size:
    """What a type takes; AvroError for a schema that has no bound (recursive, arrays of nothing) or is none."""
    if depth > _DEPTH:
        raise AvroError("a schema that is nested too deep")
    if isinstance(schema, list):
        sizes = [_measure(s, names, depth + 1) for s in schema]
        if not sizes:
            raise AvroError("an empty union")
        return _Size(1 + min(s.least for s in sizes), *(max(c) for c in list(zip(*sizes, strict=True))[1:]))
    if isinstance(schema, str):
        if schema in _BYTES:
            return _Size(_BYTES[schema], _FLAT * max(1, _BYTES[schema]), 1, 0)
        found = names.get(schema, names.get(schema.rpartition(".")[2]))
        if found is None:
            raise AvroError(f"a schema with the type {schema[:80]!r}, which is not known or contains itself")
        return found
    if not isinstance(schema, dict):
        raise AvroError("a schema that is none")
    return _named(schema, names, depth)


def _named(schema: dict[str, Any], names: dict[str, _Size | None], depth: int) -> _Size:
    kind, name = schema.get("type"), str(schema.get("name", "")).rpartition(".")[2]
    if kind in ("array", "map"):
        item = _measure(schema.get("items" if kind == "array" else "values"), names, depth + 1)
        least = item.least + (kind == "map")
        if not least:
            raise AvroError("a schema with an array of values without bytes, which has no bound")
        memory = item.memory + (2 * _LIST if kind == "map" else 0)
        return _Size(1, _LIST, 1, max(item.gain, memory / least))
    if kind == "enum":
        size = _Size(1, _FLAT, 1, 0)
    elif kind == "fixed":
        length = schema.get("size")
        if not isinstance(length, int) or not 0 <= length <= limits.LINE:
            raise AvroError(f"a schema with a fixed of {length!r} bytes")
        size = _Size(length, _LIST + length, 1, 0)
    elif kind in ("record", "error"):
        names[name] = None  # until it is known, it must not be met again
        fields = schema.get("fields")
        if not isinstance(fields, list) or not all(isinstance(f, dict) for f in fields):
            raise AvroError("a record without fields")
        sizes = [_measure(f.get("type"), names, depth + 1) for f in fields]
        size = _Size(
            sum(s.least for s in sizes), _DICT + sum(2 * _LIST + s.memory for s in sizes),
            1 + sum(s.values for s in sizes), max([s.gain for s in sizes], default=0),
        )  # fmt: skip
    else:
        return _measure(kind, names, depth + 1)
    names[name] = size
    return size


# --------------------------------------------------------------------------------------- the container


def _header(stream: IO[bytes]) -> dict[str, bytes]:
    if _exactly(stream, 4) != _MAGIC:
        raise AvroError("a file that does not begin as Avro does")
    out, left = dict[str, bytes](), limits.AVRO_HEADER
    while count := _read_long(stream):
        if count < 0:
            count = -count
            _read_long(stream)
        for _ in range(min(count, left + 1)):
            parts = []
            for _part in range(2):
                size = _read_long(stream)
                left -= size + 1
                if size < 0 or left < 0:
                    raise AvroError(f"a header of more than {limits.AVRO_HEADER:,} bytes")
                parts.append(_exactly(stream, size))
            out[parts[0].decode("utf-8", "replace")] = parts[1]
    return out


def _exactly(stream: IO[bytes], n: int) -> bytes:
    data = stream.read(n)
    if len(data) < n:  # no EOFError: fastavro would take it for a good end
        raise AvroError(f"the file ends {n - len(data):,} bytes before what it claims")
    return data


def _read_long(stream: IO[bytes], first: bytes = b"") -> int:
    value = shift = 0
    byte = first or _exactly(stream, 1)
    while True:
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
        if shift > 63:
            raise AvroError("a number of more than 64 bits")
        byte = _exactly(stream, 1)


def _long(n: int) -> bytes:
    n, out = n << 1, bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def _text(data: bytes) -> bytes:
    return _long(len(data)) + data


# ------------------------------------------------------------------------------------------- the codecs
# Each gives at most `most` + 1 bytes.


def _unpacker(codec: bytes) -> Callable[[bytes, int], bytes]:
    known: dict[bytes, Callable[[bytes, int], bytes]] = {
        b"null": lambda data, _: data,
        b"deflate": lambda data, most: zlib.decompressobj(-15).decompress(data, most + 1),
        b"bzip2": lambda data, most: bz2.BZ2Decompressor().decompress(data, most + 1),
        b"xz": lambda data, most: lzma.LZMADecompressor(memlimit=1 << 28).decompress(data, most + 1),
        b"snappy": _snappy, b"zstandard": _zstandard, b"lz4": _lz4,
    }  # fmt: skip
    if codec not in known:
        raise AvroError(f"the codec {codec[:40]!r}, expected one of {', '.join(k.decode() for k in known)}")
    return known[codec]


def _snappy(data: bytes, most: int) -> bytes:
    size, body = 0, data[:-4]
    for i, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            break
    found = _arrow("snappy", body, size, most)
    if zlib.crc32(found).to_bytes(4, "big") != data[-4:]:
        raise AvroError("a block whose check sum is wrong")
    return found


def _lz4(data: bytes, most: int) -> bytes:
    return _arrow("lz4_raw", data[4:], int.from_bytes(data[:4], "little"), most)


def _arrow(codec: str, body: bytes, size: int, most: int) -> bytes:
    if size > most:
        raise TooLargeError(f"a block that unpacks to {size:,} bytes, expected at most {most:,}")
    return bytes(pa.decompress(body, decompressed_size=size, codec=codec, asbytes=True))


def _zstandard(data: bytes, most: int) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read(most + 1))

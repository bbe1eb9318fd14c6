"""A ledger as bytes: a header in JSON, the arrays as they are, a checksum. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from justai_sim.attribution.events import Bound
from justai_sim.errors import DataError, UsageError
from justai_sim.tables import Array

MAGIC = b"justai-sim ledger\n"
VERSION = 1


def pack(header: dict[str, Any], bound: Bound, arrays: dict[str, Array]) -> bytes:
    """The same bytes for the same content, on every machine of the same byte order (little endian is written)."""
    columns, parts = [], []
    for name, a in arrays.items():
        data = np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes()
        columns.append([name, a.dtype.name, len(a)])
        parts.append(data)
    about = {"version": VERSION, "bound": described(bound), "columns": columns}
    head = msgspec.json.encode(about | header, order="sorted")
    body = b"".join([MAGIC, len(head).to_bytes(8, "little"), head, *parts])
    return body + hashlib.sha256(body).digest()


def unpack(source: bytes | Path | str, bound: Bound) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays; see `Ledger.load` for what is refused."""
    where, data = ("bytes", source) if isinstance(source, bytes) else (str(source), _read(Path(source)))
    start = len(MAGIC) + 8
    if data[: len(MAGIC)] != MAGIC or len(data) < start + 32:
        raise DataError(f"{where}: this is not a saved ledger; expected a file that Ledger.save wrote")
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise DataError(f"{where}: the saved ledger is cut short or was changed (its checksum is wrong)")
    at = start + int.from_bytes(data[len(MAGIC) : start], "little")
    header = msgspec.json.decode(data[start:at])
    if header["version"] != VERSION:
        raise UsageError(f"{where}: saved as version {header['version']}; this program reads version {VERSION}")
    _same(where, header["bound"], described(bound))
    arrays = {}
    for name, dtype, n in header["columns"]:
        kind = np.dtype(dtype).newbyteorder("<")
        arrays[name] = np.frombuffer(data, kind, n, at).astype(dtype)
        at += n * kind.itemsize
    return header, arrays


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise UsageError(f"{path}: cannot read the saved ledger: {e.strerror}") from None


def write(path: Path, data: bytes) -> None:
    """All or nothing: a crash leaves the file that was there."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with fresh.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        fresh.replace(path)
    except OSError as e:
        fresh.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot write the ledger: {e.strerror}") from None


def described(bound: Bound) -> dict[str, Any]:
    """A bound rule as plain JSON data."""
    shape = bound.goal.shape
    return {
        "rule": msgspec.json.decode(msgspec.json.encode(bound.rule)),
        "goals": [list(shape), np.packbits(bound.goal).tobytes().hex()],
        "wanted": np.packbits(bound.wanted).tobytes().hex(),
        "rates": [None if r is None else str(r) for r in bound.rate],
        "scopes": bound.scope.tolist(),
    }


def _same(where: str, saved: dict[str, Any], given: dict[str, Any]) -> None:
    """UsageError that names the first difference."""
    for name, value in saved["rule"].items():
        if given["rule"].get(name) != value:
            raise UsageError(
                f"{where}: the ledger was kept under {name}={value!r}, the rule given has "
                f"{given['rule'].get(name)!r}; attribute the log anew under the other rule"
            )
    for name in ("goals", "wanted", "rates", "scopes"):
        if saved[name] != given[name]:
            raise UsageError(f"{where}: the ledger was bound to other {name} than the rule given")

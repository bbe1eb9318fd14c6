"""The log on disk: a folder of Parquet files partitioned by user, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from justai_sim.errors import DataError, UsageError
from justai_sim.esp.coding import ROWS, text_schema
from justai_sim.esp.rows import Reject

SCHEMA_VERSION = 1
CONTENT = "justai_sim log"
FLUSH = 200_000
"""Rows held in memory before each partition gets one more row group."""

_ADDRESS = re.compile(r"[^\s\"'<>(),;:=\[\]]+@[^\s\"'<>(),;:=\[\]]+")
_MASKED = {
    "sends": ("user_id", "send_id"),
    "events": ("user_id", "send_id", "event_id", "order_id"),
    "decisions": ("user_id", "decision_id"),
}


def mask_text(text: str) -> str:
    """The text with every e-mail address replaced.

    >>> mask_text('{"user_id": "Ann@x.org"}')
    '{"user_id": "***@***"}'
    """
    return _ADDRESS.sub("***@***", text)


def mask_id(text: str, fold: bool = True) -> str:
    """An id that looks like an e-mail address as a stable hash; any other id as it is.

    `fold` compares without regard to case, as addresses are; other ids keep theirs.

    >>> mask_id("Ann@x.org") == mask_id("ann@x.org"), mask_id("u1")
    (True, 'u1')
    """
    if "@" not in text:
        return text
    body = (text.lower() if fold else text).encode()
    return "email:" + hashlib.blake2b(body, digest_size=8).hexdigest()


def mask_emails(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Text tables with the ids of users, sends, events, orders and decisions masked where they need it."""
    out = dict(tables)
    for name, columns in _MASKED.items():
        for column in columns:
            at = out[name].schema.get_field_index(column)
            ids = out[name].column(at)
            if not pc.any(pc.match_substring(ids, "@")).as_py():
                continue
            coded = ids.combine_chunks().dictionary_encode()
            masked = [mask_id(t, column == "user_id") for t in coded.dictionary.to_pylist()]
            texts = pa.array(masked, pa.string()).take(coded.indices)
            out[name] = out[name].set_column(at, out[name].schema.field(at), texts)
    return out


def write_rejects(folder: Path, rejects: Iterable[Reject], raw: bool = False) -> Path:
    """Write `rejects.ndjson` (place, reason, message, raw); e-mail addresses masked unless `raw`."""
    with RejectFile(folder, raw) as f:
        f.write(rejects)
    return f.path


class RejectFile:
    """Rejects appended to `folder/rejects.ndjson` as they come."""

    def __init__(self, folder: Path | None, raw: bool) -> None:
        self.raw = raw
        self._file: Any = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / "rejects.ndjson"
            self._file = self.path.open("w", encoding="utf-8")

    def write(self, rejects: Iterable[Reject]) -> None:
        for r in rejects if self._file else ():
            shown = r if self.raw else Reject(*(mask_text(t) for t in r))
            text = json.dumps(shown._asdict(), ensure_ascii=False)
            self._file.write(text.encode("utf-8", "replace").decode() + "\n")

    def __enter__(self) -> RejectFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()


class Writer:
    """Text tables into `out`, one Parquet file a table and partition; nothing stays if it fails.

    Everything is written to a hidden sibling folder that takes the place of `out` at the end.
    """

    def __init__(self, out: Path, partitions: int) -> None:
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file; expected a folder to write the log into")
        if out.is_dir() and any(out.iterdir()) and not is_log(out):
            raise UsageError(f"{out} is not empty and not a log; expected a new folder, or a log to replace")
        if not 1 <= partitions <= 4096:
            raise UsageError(f"partitions is {partitions}; expected a whole number from 1 to 4096")
        self.out, self.partitions = out, partitions
        self.part = out.absolute().with_name(f".{out.absolute().name}.loading")
        self.rows: Counter[str] = Counter()
        self._held: dict[str, list[pa.Table]] = {n: [] for n in ROWS}
        self._files: dict[tuple[str, int], pq.ParquetWriter] = {}

    def __enter__(self) -> Writer:
        shutil.rmtree(self.part, ignore_errors=True)
        for name in ROWS:
            (self.part / name).mkdir(parents=True)
        return self

    def write(self, tables: dict[str, pa.Table]) -> None:
        for name, table in tables.items():
            self._held[name].append(table)
            self.rows[name] += table.num_rows
            if sum(t.num_rows for t in self._held[name]) >= FLUSH:
                self._flush(name)

    def _flush(self, name: str) -> None:
        table = pa.concat_tables([text_schema(name).empty_table(), *self._held[name]]).combine_chunks()
        self._held[name] = []
        part = partition_of(table["user_id"], self.partitions)
        order = np.argsort(part, kind="stable")
        sorted_rows = table.take(pa.array(order))
        edges = np.searchsorted(part[order], np.arange(self.partitions + 1))
        for p in range(self.partitions):
            if edges[p] == edges[p + 1]:
                continue
            if (name, p) not in self._files:
                path = self.part / name / f"part-{p:02d}.parquet"
                self._files[name, p] = pq.ParquetWriter(path, text_schema(name), compression="zstd")
            self._files[name, p].write_table(sorted_rows.slice(edges[p], edges[p + 1] - edges[p]))

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the rest and the manifest, and put the folder in its place."""
        for name in ROWS:
            self._flush(name)
        self._close()
        body = {"schema_version": SCHEMA_VERSION, "content": CONTENT, "partitions": self.partitions}
        body |= {"rows": {n: self.rows[n] for n in ROWS}} | manifest
        text = json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True)
        (self.part / "manifest.json").write_text(text + "\n", encoding="utf-8")
        old = self.part.with_name(self.part.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.out.exists():
            self.out.rename(old)
        self.part.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)

    def _close(self) -> None:
        for f in self._files.values():
            f.close()
        self._files = {}

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._close()
        shutil.rmtree(self.part, ignore_errors=True)


def partition_of(users: pa.ChunkedArray, partitions: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The partition of each user id, shape (n,): CRC-32 of its UTF-8 bytes, so the same everywhere."""
    coded = users.combine_chunks().fill_null("").dictionary_encode()
    crc = np.array([zlib.crc32(t.encode()) % partitions for t in coded.dictionary.to_pylist()], np.int64)
    return crc[coded.indices.to_numpy()] if len(crc) else np.zeros(0, np.int64)


def is_log(path: Path) -> bool:
    """Whether the folder is a loaded log."""
    return manifest_of(path) is not None


def manifest_of(path: Path) -> dict[str, Any] | None:
    """The manifest of a loaded log; None if the folder is none."""
    try:
        found = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("content") == CONTENT else None


def read_tables(path: Path, manifest: dict[str, Any]) -> dict[str, pa.Table]:
    """The text tables of a loaded log. DataError if it is newer than we are, or incomplete."""
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: found a log of version {version}, expected {SCHEMA_VERSION}; load the export again")
    out = {}
    for name in ROWS:
        parts = [text_schema(name).empty_table()]
        for file in sorted((path / name).glob("part-*.parquet")):
            try:
                with pq.ParquetFile(file) as f:
                    parts.append(f.read().cast(text_schema(name)))
            except (pa.ArrowException, OSError, ValueError) as e:
                raise DataError(f"{file}: cannot be read ({e}); load the export again") from None
        out[name] = pa.concat_tables(parts)
        expected = manifest.get("rows", {}).get(name)
        if out[name].num_rows != expected:
            raise DataError(f"{path}: found {out[name].num_rows} {name}, the manifest says {expected}; load it again")
    return out

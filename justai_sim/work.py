"""The folder of an unfinished load: a few files a part of the source, so that it can go on where it was stopped.

A part is finished when its `NNNNN.json` is there; what else there is of it is then whole. Rows wait in
Arrow files, cut by user, and are merged into the log's Parquet at the end. The merged bytes are a function
of the rows and their order alone, not of interruptions, batches or parts.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from justai_sim import durable
from justai_sim.errors import JustaiError, UsageError, several
from justai_sim.esp.coding import ROWS, let_go, text_schema
from justai_sim.esp.rows import Reject

FLUSH = 50_000
"""Rows of a table held in memory before they go to disk."""
GROUP = 50_000
"""Rows of a row group of the log."""


def partition_of(users: pa.ChunkedArray, partitions: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The partition of each user id, shape (n,): CRC-32 of its UTF-8 bytes, so the same everywhere."""
    coded = users.combine_chunks().fill_null("").dictionary_encode()
    crc = np.array([zlib.crc32(t.encode()) % partitions for t in coded.dictionary.to_pylist()], np.int64)
    return crc[coded.indices.to_numpy()] if len(crc) else np.zeros(0, np.int64)


class Work:
    """A work folder; `identity` is what a load must have in common with an unfinished one to go on with it."""

    def __init__(self, folder: Path, identity: Mapping[str, str], partitions: int) -> None:
        self.folder, self.identity, self.partitions = folder, dict(identity), partitions
        self.rows = dict.fromkeys(ROWS, 0)
        self.said: list[str] = []
        """What there is to tell of an earlier load."""

    def __enter__(self) -> Work:
        """Make the folder, or keep that of the same load. UsageError while another load is at work in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        before = _read_json(self.folder / "load.json")
        other = [k for k in self.identity if (before or {}).get(k) != self.identity[k]]
        if before is not None and not other:
            finished = len(list(self.folder.glob("[0-9]*.json")))
            self.said.append(f"an unfinished load goes on: {several(finished, 'part')} of it kept")
            return self
        if before is not None:
            self.said.append(f"an unfinished load had other {' and '.join(other)}: it starts again")
        for old in self.folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        _write_json(self.folder / "load.json", self.identity)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What was interrupted stays for the next load; what failed for its input would fail again."""
        if kind is None or issubclass(kind, JustaiError):
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def finished(self, part: int) -> dict[str, Any] | None:
        """What was told of a finished part; None for another, of which nothing is left."""
        told = _read_json(self._path(part, "json"))
        if told is None:
            for stray in self.folder.glob(f"{part:05d}.*"):
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
            return None
        self._count(told)
        return told

    def part(self, number: int) -> Part:
        return Part(self, number)

    def finish(self, part: Part, told: Mapping[str, Any]) -> dict[str, Any]:
        """The part is whole; `told` is kept with it."""
        found = {**told, "stored": part.rows}
        _write_json(self._path(part.number, "json"), found)
        self._count(found)
        return found

    def _count(self, told: Mapping[str, Any]) -> None:
        for name in ROWS:
            self.rows[name] += told["stored"][name]

    def _path(self, part: int, ending: str) -> Path:
        return self.folder / f"{part:05d}.{ending}"

    def rejects(self, parts: int, out: Path) -> None:
        """The rejects of all parts as one file in `out`."""
        out.mkdir(parents=True, exist_ok=True)
        with (out / "rejects.ndjson").open("wb") as into:
            for part in range(parts):
                if (path := self._path(part, "rejects")).exists():
                    with path.open("rb") as source:
                        shutil.copyfileobj(source, into)

    def merged(self, parts: int) -> Path:
        """A folder with the log's tables, one Parquet file a table and partition; those already there are kept."""
        out = self.folder / "log"
        for name in ROWS:
            (out / name).mkdir(parents=True, exist_ok=True)
            spilled = [f for i in range(parts) if (f := self._path(i, f"{name}.arrow")).exists()]
            for p in range(self.partitions):
                path = out / name / f"part-{p:02d}.parquet"
                if not path.exists():
                    self._merge_one(name, p, spilled, path)
        return out

    def _merge_one(self, name: str, p: int, spilled: list[Path], path: Path) -> None:
        writer, unfinished = None, path.with_suffix(".unfinished")
        try:
            for table in _groups(self._batches(p, spilled), name):
                writer = writer or pq.ParquetWriter(unfinished, text_schema(name), compression="zstd")
                writer.write_table(table, row_group_size=GROUP)
        finally:
            if writer is not None:
                writer.close()
        if writer is not None:
            durable.rename(unfinished, path)

    def _batches(self, p: int, spilled: list[Path]) -> Iterator[pa.RecordBatch]:
        for file in spilled:
            with pa.OSFile(str(file)) as source:  # not mapped: its pages would count as this process's memory
                reader = ipc.open_file(source)
                for i in range(p, reader.num_record_batches, self.partitions):
                    yield reader.get_batch(i)


def _groups(batches: Iterable[pa.RecordBatch], name: str) -> Iterator[pa.Table]:
    """The rows of batches in tables of `GROUP` rows, each in one piece."""
    held, rows, schema = list[pa.RecordBatch](), 0, text_schema(name)
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        if rows >= GROUP:
            whole = pa.Table.from_batches(held, schema)
            for start in range(0, rows - GROUP + 1, GROUP):
                yield whole.slice(start, GROUP).combine_chunks()
            rest = rows % GROUP
            held = whole.slice(whole.num_rows - rest).to_batches() if rest else []
            rows = rest
    if rows:
        yield pa.Table.from_batches(held, schema).combine_chunks()


class Part:
    """The rows and rejects of one part on their way to the disk."""

    def __init__(self, work: Work, number: int) -> None:
        self.work, self.number = work, number
        self.rows = dict.fromkeys(ROWS, 0)
        self._held: dict[str, list[pa.Table]] = {n: [] for n in ROWS}
        self._spill: dict[str, tuple[IO[bytes], Any]] = {}
        self._rejects: IO[str] | None = None

    def scratch(self) -> Path:
        """A folder for temporary files; a load that goes on with a part of another clears what was left there."""
        folder = self.work._path(self.number, "scratch")
        folder.mkdir(exist_ok=True)
        return folder

    def write(self, tables: dict[str, pa.Table]) -> None:
        """Append text tables."""
        for name, table in tables.items():
            self._held[name].append(table)
            self.rows[name] += table.num_rows
            if sum(t.num_rows for t in self._held[name]) >= FLUSH:
                self._flush(name)

    def refuse(self, rejects: Iterable[Reject]) -> None:
        """Append rejects, a line each."""
        if self._rejects is None:
            self._rejects = self.work._path(self.number, "rejects").open("w", encoding="utf-8")
        for r in rejects:
            self._rejects.write(reject_line(r))

    def _flush(self, name: str) -> None:
        """One record batch a partition, so that the merge finds each by its number."""
        schema, held, partitions = text_schema(name), self._held[name], self.work.partitions
        self._held[name] = []
        table = pa.concat_tables(held).combine_chunks()
        part = partition_of(table["user_id"], partitions)
        order = np.argsort(part, kind="stable")
        edges = np.searchsorted(part[order], np.arange(partitions + 1))
        if name not in self._spill:
            file = self.work._path(self.number, f"{name}.arrow").open("wb")
            options = ipc.IpcWriteOptions(compression="lz4", use_threads=False)
            self._spill[name] = file, ipc.new_file(file, schema, options=options)
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            # Rows of one partition at a time: a sorted copy of all of them would double what is held.
            batch = table.take(pa.array(order[a:b])).combine_chunks().to_batches()
            self._spill[name][1].write_batch(batch[0] if batch else pa.RecordBatch.from_pylist([], schema))
        let_go()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for name in ROWS if kind is None else ():
                if any(t.num_rows for t in self._held[name]):
                    self._flush(name)
        finally:
            for file, writer in self._spill.values():
                writer.close()
                _close(file)
            if self._rejects is not None:
                _close(self._rejects)
            shutil.rmtree(self.work._path(self.number, "scratch"), ignore_errors=True)


def _locked(folder: Path) -> int | None:
    """As `durable.lock`; UsageError while another load is at work in the folder."""
    try:
        return durable.lock(folder)
    except OSError:
        raise UsageError(f"{folder}: another load is at work in it; wait for it, or choose another --out") from None


def reject_line(r: Reject) -> str:
    text = json.dumps(r._asdict(), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode() + "\n"


def _close(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as f:
        json.dump(found, f, ensure_ascii=True)
    durable.rename(unfinished, path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found

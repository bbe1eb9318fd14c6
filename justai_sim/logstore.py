"""The log on disk: a folder of Parquet files partitioned by user, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from justai_sim import durable
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.coding import ROWS, packed, text_schema

SCHEMA_VERSION = 1
CONTENT = "justai_sim log"
MOST_PARTITIONS = 4096


def check_out(out: Path, partitions: int) -> None:
    """UsageError where no log can be written to, or with a number of partitions that is none."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; expected a folder to write the log into")
    if out.is_dir() and any(out.iterdir()) and not is_log(out):
        raise UsageError(f"{out} is not empty and not a log; expected a new folder, or a log to replace")
    if not 1 <= partitions <= MOST_PARTITIONS:
        raise UsageError(f"partitions is {partitions}; expected a whole number from 1 to {MOST_PARTITIONS}")


def work_folder(out: Path) -> Path:
    """The hidden folder beside a log in which it is made."""
    return out.absolute().with_name(f".{out.absolute().name}.loading")


def put(made: Path, out: Path, partitions: int, rows: Mapping[str, int], manifest: Mapping[str, Any]) -> None:
    """Write the manifest into the tables' folder and put it in the place of `out`."""
    body = {"schema_version": SCHEMA_VERSION, "content": CONTENT, "partitions": partitions}
    body |= {"rows": {n: rows[n] for n in ROWS}, **manifest}
    text = json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True)
    (made / "manifest.json").write_text(text + "\n", encoding="utf-8")
    durable.sync(made / "manifest.json")
    old = work_folder(out).with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    durable.rename(made, out)
    shutil.rmtree(old, ignore_errors=True)


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


class Stored:
    """The columns of a loaded log, each read from the files when it is taken.

    DataError if the log is newer than we are, damaged or incomplete.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        version = manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path}: found a log of version {version}, expected {SCHEMA_VERSION}; load the export again"
            )
        self.files = {n: sorted((path / n).glob("part-*.parquet")) for n in ROWS}
        self.rows = {n: sum(_opened(f, (), lambda p: p.metadata.num_rows) for f in self.files[n]) for n in ROWS}
        for name, found in self.rows.items():
            expected = manifest.get("rows", {}).get(name)
            if found != expected:
                raise DataError(f"{path}: found {found} {name}, the manifest says {expected}; load it again")

    def take(self, table: str, column: str) -> pa.ChunkedArray:
        field = text_schema(table).field(column)
        empty = packed(pa.schema([field]).empty_table())
        texts = (column,) if field.type == pa.string() else ()
        # Texts come as dictionaries, never whole; one thread, since each keeps memory of its own.
        parts = [
            _opened(f, texts, lambda p: p.read(columns=[column], use_threads=False).cast(empty.schema))
            for f in self.files[table]
        ]
        return pa.concat_tables([empty, *parts])[column]


def _opened(file: Path, texts: Sequence[str], read: Callable[[Any], Any]) -> Any:
    try:
        with pq.ParquetFile(file, read_dictionary=list(texts)) as f:
            return read(f)
    except (pa.ArrowException, OSError, ValueError) as e:
        raise DataError(f"{file}: cannot be read ({e}); load the export again") from None

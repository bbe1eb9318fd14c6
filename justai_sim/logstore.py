"""The log on disk: a folder of Parquet files partitioned by user, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
    old = work_folder(out).with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    made.rename(out)
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


def read_tables(path: Path, manifest: dict[str, Any]) -> dict[str, pa.Table]:
    """The text tables of a loaded log, packed. DataError if it is newer than we are, or incomplete."""
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: found a log of version {version}, expected {SCHEMA_VERSION}; load the export again")
    out = {}
    for name in ROWS:
        parts = [packed(text_schema(name).empty_table())]
        texts = [f.name for f in text_schema(name) if f.type == pa.string()]
        for file in sorted((path / name).glob("part-*.parquet")):
            try:
                # Texts come as dictionaries, never whole; one thread, since each keeps memory of its own.
                with pq.ParquetFile(file, read_dictionary=texts) as f:
                    parts.append(f.read(use_threads=False).cast(parts[0].schema))
            except (pa.ArrowException, OSError, ValueError) as e:
                raise DataError(f"{file}: cannot be read ({e}); load the export again") from None
        pa.default_memory_pool().release_unused()
        out[name] = pa.concat_tables(parts)
        expected = manifest.get("rows", {}).get(name)
        if out[name].num_rows != expected:
            raise DataError(f"{path}: found {out[name].num_rows} {name}, the manifest says {expected}; load it again")
    return out

"""Logs: load an export once into our own Parquet folder, read a folder or an export, name what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.errors import DataError, UsageError, several
from justai_sim.esp.base import adapter
from justai_sim.esp.coding import ROWS, build, note_texts, text_schema, text_tables
from justai_sim.esp.generic import plain_files
from justai_sim.esp.rows import Reject, Rows
from justai_sim.logstore import (
    RejectFile,
    Writer,
    is_log,
    manifest_of,
    mask_emails,
    mask_text,
    read_tables,
    write_rejects,
)
from justai_sim.tables import CONVERSION, Log

__all__ = [
    "NameCount",
    "Summary",
    "build",
    "conversion_names",
    "is_log",
    "load",
    "read_log",
    "read_log_with_rejects",
    "write_rejects",
]

Progress = Callable[[int], None]
"""Called with the number of rows of each batch."""
SHOWN = 3


@dataclass
class Summary:
    """What a load found: rows by table, events by kind, conversions by name, and what was left out."""

    esp: str
    out: Path | None = None
    rows: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    first_rejects: list[Reject] = field(default_factory=list)
    """The first three, with e-mail addresses masked, for display."""

    def add(self, batch: Rows, tables: dict[str, pa.Table]) -> None:
        self.rows.update({n: t.num_rows for n, t in tables.items()})
        events = tables["events"]
        self.kinds.update(_counted(events["kind"]))
        self.names.update(_counted(events.filter(pc.equal(events["kind"], "conversion"))["name"]))
        self.rejects.update(r.reason for r in batch.rejects)
        self.skipped.update(batch.skipped)
        self.notes.update(batch.notes)
        for r in batch.rejects[: SHOWN - len(self.first_rejects)]:
            self.first_rejects.append(Reject(*(mask_text(t) for t in r)))

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and `--json`: plain, ordered, without times or paths."""
        counters = ("kinds", "names", "rejects", "skipped", "notes")
        return {"esp": self.esp, "rows": {n: self.rows[n] for n in ROWS}} | {
            c: dict(sorted(getattr(self, c).items())) for c in counters
        }

    def require_rows(self, src: Path) -> None:
        """DataError with the first rejects if nothing at all could be read."""
        if sum(self.rows.values()):
            return
        said = "".join(f"\n  {r.place}: {r.message}" for r in self.first_rejects)
        count = sum(self.rejects.values())
        why = f"; {several(count, 'row')} refused, the first:{said}" if count else "; it holds no rows"
        raise DataError(f"{src}: nothing could be read{why}")


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {v["values"] or "": v["counts"] for v in pc.value_counts(column).to_pylist()}


def load(
    src: Path | str,
    esp: str,
    out: Path | str,
    *,
    timezone: str | None = None,
    partitions: int = 16,
    rejects: Path | None = None,
    raw: bool = False,
    keep_emails: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Load an export of `esp` into a log folder `out`, whole or not at all; memory does not grow with it.

    Only the columns of our tables are stored. An id that looks like an e-mail address becomes a hash
    unless `keep_emails`. `rejects` names a folder for the rows that could not be read (addresses masked
    unless `raw`). UsageError if `out` holds something else; DataError if nothing could be read.
    """
    src, out = _existing(Path(src)), Path(out)
    if rejects is not None and rejects.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{rejects} lies inside {out}; expected another folder for the rejects")
    summary = Summary(esp, out)
    batches = adapter(esp).read(src, timezone)
    with Writer(out, partitions) as writer, RejectFile(rejects, raw) as refused:
        for batch, tables in _batches(batches, keep_emails):
            refused.write(batch.rejects)
            summary.add(batch, tables)
            writer.write(tables)
            if progress:
                progress(sum(t.num_rows for t in tables.values()))
        summary.require_rows(src)
        writer.finish(summary.as_dict())
    return summary


def _batches(batches: Iterator[Rows], keep_emails: bool) -> Iterator[tuple[Rows, dict[str, pa.Table]]]:
    for batch in batches:
        tables = text_tables(batch)
        yield batch, tables if keep_emails else mask_emails(tables)


def read_log(
    path: Path | str, esp: str | None = None, timezone: str | None = None, *, keep_emails: bool = False
) -> Log:
    """A loaded log; or an export of `esp`; or, without `esp`, a folder that holds a plain log."""
    return read_log_with_rejects(path, esp, timezone, keep_emails=keep_emails)[0]


def read_log_with_rejects(
    path: Path | str, esp: str | None = None, timezone: str | None = None, *, keep_emails: bool = False
) -> tuple[Log, list[Reject]]:
    """As `read_log`, and the rows that could not be read (a loaded log only knows how many there were)."""
    path = _existing(Path(path))
    manifest = manifest_of(path)
    if manifest is not None:
        notes = note_texts(manifest.get("notes", {}))
        counts = {c: manifest.get(c, {}) for c in ("rejects", "skipped")}
        return build(read_tables(path, manifest), str(path), notes, **counts), []
    if esp is None:
        if not plain_files(path):
            raise DataError(f"{path} is neither a loaded log nor a plain one (sends.*, events.*); name its --esp")
        esp = "generic"
    summary, refused = Summary(esp), list[Reject]()
    parts: dict[str, list[pa.Table]] = {n: [text_schema(n).empty_table()] for n in ROWS}
    for batch, tables in _batches(adapter(esp).read(path, timezone), keep_emails):
        summary.add(batch, tables)
        refused += batch.rejects
        for n, t in tables.items():
            parts[n].append(t)
    summary.require_rows(path)
    log = build(
        {n: pa.concat_tables(t) for n, t in parts.items()},
        str(path),
        note_texts(summary.notes),
        rejects=summary.rejects,
        skipped=summary.skipped,
    )
    return log, refused


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    parent = path.absolute().parent
    if not parent.is_dir():
        raise DataError(f"{path} does not exist, nor does {parent}")
    close = get_close_matches(path.name, [p.name for p in parent.iterdir()], n=1)
    raise DataError(f"{path} does not exist" + (f"; did you mean {parent / close[0]}?" if close else ""))


class NameCount(NamedTuple):
    """A conversion name, its distinct events, and events per user who got a send."""

    name: str
    events: int
    per_user: float


def conversion_names(log: Log) -> list[NameCount]:
    """The conversion names of a log, most frequent first; '' stands for events without a name.

    Copies of an event count once. The rate is per user with a send (per user at all if there is none).
    """
    e = log.events
    rows = np.flatnonzero(e.kind == CONVERSION)
    keys = np.unique(np.stack([e.name[rows], e.user[rows], e.event[rows]]), axis=1)
    codes, counts = np.unique(keys[0], return_counts=True)
    users = len(np.unique(log.sends.user)) or len(np.unique(e.user[e.user >= 0])) or 1
    found = [NameCount(name, n, n / users) for name, n in zip(log.text("name", codes), counts.tolist(), strict=True)]
    return sorted(found, key=lambda f: (-f.events, f.name))

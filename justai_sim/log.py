"""Logs: load an export once into our own Parquet folder, read a folder or an export, name what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.clock import zone
from justai_sim.errors import DataError, UsageError, nearest
from justai_sim.esp.base import adapter
from justai_sim.esp.coding import ROWS, build, coded, note_texts, packed, text_schema, text_tables
from justai_sim.esp.generic import plain_files
from justai_sim.esp.parts import Asked, Files, NothingReadableError
from justai_sim.esp.rows import Reject, Rows
from justai_sim.logstore import Stored, check_out, is_log, manifest_of, put, work_folder
from justai_sim.meter import Meter, Progress
from justai_sim.privacy import Guard, Hashes, Masks
from justai_sim.summary import Summary, counted
from justai_sim.tables import CONVERSION, KINDS, SIMULATED, Log
from justai_sim.version import __version__
from justai_sim.work import Part, Work, reject_line

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
    events: Collection[str] | None = None,
    hash_key: bytes | None = None,
    esp_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Load an export of `esp` into a log folder `out`, whole or not at all; memory does not grow with it.

    Only the columns of our tables are stored. An id that looks like an e-mail address becomes a hash
    unless `keep_emails`; with `hash_key` every id becomes a hash under that key. `events` are the kinds of
    events to keep (None: all); sends and decisions are always kept. `rejects` names a folder for the rows
    that could not be read (addresses masked unless `raw`; under `hash_key` without what was found in them).
    `esp_options` are switches of the provider's adapter. A load that was interrupted goes on where it was
    when the same load is asked for again; parts of its source that were finished are not read again.
    UsageError if `out` holds something else; DataError if nothing could be read.
    """
    src, out = existing(Path(src)), Path(out)
    for what, written, home in (("the rejects", rejects, out), ("the rejects", rejects, src), ("the log", out, src)):
        # What is written into the source would be read as its part the next time.
        if written is not None and written.resolve().is_relative_to(home.resolve()):
            raise UsageError(f"{written} lies inside {home}; expected another folder for {what}")
    check_out(out, partitions)
    if timezone is not None:
        zone(timezone)
    keep = _Keep(_kinds(events), _guard(raw, keep_emails, hash_key), rejects is not None)
    reader = adapter(esp, esp_options)
    parts = reader.parts(src) or [[]]
    identity = {
        "files": _fingerprint(parts), "options": json.dumps([esp, timezone, partitions, keep.identity(), raw]),
        "provider options": json.dumps({k: str(v) for k, v in sorted((esp_options or {}).items())}),
        "version": __version__,
    }  # fmt: skip
    with Work(work_folder(out), identity, partitions) as work:
        summary = Summary(esp, out, keep.guard, said=work.said)
        meter, unreadable = Meter(parts, progress), list[NothingReadableError]()
        for number, files in enumerate(parts):
            told = work.finished(number)
            if told is None:
                found = Summary(esp, out, keep.guard)
                with work.part(number) as part:
                    try:
                        for batch in reader.read(src, timezone, files, Asked(keep.kinds, part.scratch())):
                            keep.store(batch, part, found)
                            meter.at(number)
                    except NothingReadableError as e:
                        unreadable.append(e)
                        found.passed(f"file: *{Path(n).suffix or Path(n).name}" for n in e.found)
                told = work.finish(part, found.told())
            summary.merge(told)
            meter.at(number + 1)
        if rejects is not None:
            work.rejects(len(parts), rejects)
        if len(unreadable) == len(parts):
            raise NothingReadableError(src, [n for e in unreadable for n in e.found], unreadable[0].expected)
        summary.close()
        summary.require_rows(src)
        put(work.merged(len(parts)), out, partitions, work.rows, summary.as_dict() | {"ids": keep.guard.name})
        if (src / SIMULATED).is_file():
            (out / SIMULATED).write_bytes((src / SIMULATED).read_bytes())
    return summary


def _kinds(events: Collection[str] | None) -> frozenset[str] | None:
    for name in events or ():
        if name not in KINDS:
            raise UsageError(f"events: {name!r} is not a kind of event; {nearest(name, KINDS)}")
    return None if events is None else frozenset(events)


def _guard(raw: bool, keep_emails: bool, hash_key: bytes | None) -> Guard:
    """How ids and rejects are kept; UsageError where hashing is asked for together with what undoes it."""
    if hash_key is not None:
        if raw or keep_emails:
            undone = "raw" if raw else "keep_emails"
            raise UsageError(f"{undone} keeps what hashing takes away; use one of the two")
        return Hashes(hash_key)
    return Masks(ids=not keep_emails, rejects=not raw)


@dataclass(frozen=True)
class _Keep:
    """What of a source is kept, and in which form."""

    kinds: frozenset[str] | None
    guard: Guard
    rejects: bool

    def identity(self) -> list[str]:
        """What makes the stored bytes other ones."""
        kinds = "all" if self.kinds is None else ",".join(sorted(self.kinds))
        return [kinds, self.guard.name, self.guard.fingerprint, str(self.rejects)]

    def store(self, batch: Rows, part: Part, found: Summary) -> None:
        """One batch to the disk; ids are hashed before anything of it gets there."""
        tables = text_tables(batch)
        if self.kinds is not None:
            tables["events"] = self._asked_for(tables["events"], batch)
        tables = self.guard.tables(tables)
        if self.rejects:
            part.refuse(map(self.guard.reject, batch.rejects))
        found.add(batch, tables)
        part.write(tables)

    def _asked_for(self, events: pa.Table, batch: Rows) -> pa.Table:
        asked = pc.is_in(events["kind"], pa.array(sorted(self.kinds or ()), pa.string()))
        for kind, n in counted(events["kind"].filter(pc.invert(asked))).items():
            batch.skipped[f"not asked for: {kind}"] += n
        return events.filter(asked)


def _fingerprint(parts: Iterable[Files]) -> str:
    """Of the files of a source: their names, sizes and times of change."""
    digest = hashlib.blake2b(digest_size=16)
    for files in parts:
        for file, place in files:
            at = file.stat()
            digest.update(f"{place}\0{at.st_size}\0{at.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write_rejects(folder: Path, rejects: Iterable[Reject], raw: bool = False) -> Path:
    """Write `rejects.ndjson` (place, reason, message, raw); e-mail addresses masked unless `raw`."""
    guard = Masks(rejects=not raw)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rejects.ndjson"
    with path.open("w", encoding="utf-8") as f:
        f.writelines(reject_line(guard.reject(r)) for r in rejects)
    return path


def read_log(
    path: Path | str,
    esp: str | None = None,
    timezone: str | None = None,
    *,
    keep_emails: bool = False,
    esp_options: Mapping[str, Any] | None = None,
) -> Log:
    """A loaded log; or an export of `esp`; or, without `esp`, a folder that holds a plain log."""
    return read_log_with_rejects(path, esp, timezone, keep_emails=keep_emails, esp_options=esp_options)[0]


def read_log_with_rejects(
    path: Path | str,
    esp: str | None = None,
    timezone: str | None = None,
    *,
    keep_emails: bool = False,
    esp_options: Mapping[str, Any] | None = None,
) -> tuple[Log, list[Reject]]:
    """As `read_log`, and the rows that could not be read (a loaded log only knows how many there were)."""
    path = existing(Path(path))
    manifest = manifest_of(path)
    if manifest is not None:
        if esp_options:
            raise UsageError(f"{path} is a loaded log: a provider's options belong to the load that made it")
        notes = tuple(note_texts(manifest.get("notes", {})))
        counts = {c: manifest.get(c, {}) for c in ("rejects", "skipped")}
        return coded(Stored(path, manifest), source=_source(path), notes=notes, **counts), []
    if esp is None:
        if not plain_files(path):
            raise DataError(f"{path} is neither a loaded log nor a plain one (sends.*, events.*); name its --esp")
        esp = "generic"
    guard = Masks(ids=not keep_emails)
    summary, refused = Summary(esp), list[Reject]()
    parts: dict[str, list[pa.Table]] = {n: [packed(text_schema(n).empty_table())] for n in ROWS}
    for batch in adapter(esp, esp_options).read(path, timezone):
        tables = guard.tables(text_tables(batch))
        summary.add(batch, tables)
        refused += batch.rejects
        for n, t in tables.items():
            parts[n].append(packed(t))
    summary.close()
    summary.require_rows(path)
    log = build(
        {n: pa.concat_tables(t) for n, t in parts.items()},
        _source(path),
        note_texts(summary.notes),
        rejects=summary.rejects,
        skipped=summary.skipped,
    )
    return log, refused


def _source(path: Path) -> str:
    return f"simulated: {path}" if (path / SIMULATED).is_file() else str(path)


def existing(path: Path) -> Path:
    """The path; DataError with the nearest name if there is none."""
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

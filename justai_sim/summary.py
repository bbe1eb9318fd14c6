"""What a load or a read found: counts of rows, kinds, names, and of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.errors import DataError, several
from justai_sim.esp.coding import ROWS
from justai_sim.esp.rows import NO_SENDS, Counts, Reject, Rows
from justai_sim.privacy import Guard, Masks

SHOWN = 3
_COUNTERS = ("rows", "kinds", "names", "rejects", "skipped", "notes")


@dataclass
class Summary:
    """What a load found: rows by table, events by kind, conversions by name, and what was left out."""

    esp: str
    out: Path | None = None
    guard: Guard = field(default_factory=Masks)
    said: list[str] = field(default_factory=list)
    """What there is to tell of the load itself: that it went on with another, where the key is."""
    rows: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counts)
    notes: Counter[str] = field(default_factory=Counts)
    first_rejects: list[Reject] = field(default_factory=list)
    """The first three as they may be shown."""

    def add(self, batch: Rows, tables: dict[str, pa.Table]) -> None:
        self.rows.update({n: t.num_rows for n, t in tables.items()})
        events = tables["events"]
        self.kinds.update(counted(events["kind"]))
        self.names.update(counted(events.filter(pc.equal(events["kind"], "conversion"))["name"]))
        self.rejects.update(r.reason for r in batch.rejects)
        for mine, theirs in ((self.skipped, batch.skipped), (self.notes, batch.notes)):
            for name, n in theirs.items():
                mine[_plain(name)] += n
        for r in batch.rejects[: SHOWN - len(self.first_rejects)]:
            self.first_rejects.append(_shown(r, self.guard))

    def passed(self, names: Iterable[str]) -> None:
        """Count what was passed over."""
        for name in names:
            self.skipped[_plain(name)] += 1

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what `told` gave of another."""
        for name in _COUNTERS:
            for key, n in other[name].items():
                getattr(self, name)[key] += n
        for r in other["first_rejects"][: SHOWN - len(self.first_rejects)]:
            self.first_rejects.append(Reject(*r))

    def told(self) -> dict[str, Any]:
        """For `merge`: plain values that JSON can hold."""
        return {name: dict(getattr(self, name)) for name in _COUNTERS} | {"first_rejects": self.first_rejects}

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and `--json`: plain, ordered, without times or paths."""
        return {"esp": self.esp, "rows": {n: self.rows[n] for n in ROWS}} | {
            c: dict(sorted(getattr(self, c).items())) for c in _COUNTERS if c != "rows"
        }

    def close(self) -> None:
        """Take back notes that hold only for a log without sends: one part of an export cannot know of the others."""
        if self.rows["sends"]:
            self.notes.pop(NO_SENDS, None)

    def require_rows(self, src: Path) -> None:
        """DataError with the first rejects if nothing at all could be read."""
        if sum(self.rows.values()):
            return
        said = "".join(f"\n  {r.place}: {r.message}" for r in self.first_rejects)
        count = sum(self.rejects.values())
        why = f"; {several(count, 'row')} refused, the first:{said}" if count else "; it holds no rows"
        raise DataError(f"{src}: nothing could be read{why}")


def _shown(r: Reject, guard: Guard) -> Reject:
    """A reject for the terminal: addresses are never shown there, and raw rows are not."""
    return Reject(*map(_plain, Masks().reject(guard.reject(r)._replace(raw=""))))


def _plain(text: str) -> str:
    """A text that can be written: names of files may hold bytes that are none."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each text is there; '' for none."""
    return {v["values"] or "": v["counts"] for v in pc.value_counts(column).to_pylist()}

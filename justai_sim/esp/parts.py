"""An export in parts that can be read alone, in a fixed order: what a load does one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from justai_sim.errors import DataError
from justai_sim.tables import KINDS, SIMULATED

Files: TypeAlias = list[tuple[Path, str]]
"""Files, each with its name for messages."""


class Asked(NamedTuple):
    """What is asked of a reader: kinds of events (None: all), and a folder for temporary files (None: the system's).

    A reader may leave out events of other kinds, and counts what it leaves out; sends and decisions always come.
    """

    kinds: frozenset[str] | None = None
    scratch: Path | None = None

    def wants(self, kind: str) -> bool:
        """Whether rows of a kind are wanted; a bounce may turn out to be a drop."""
        drop = kind == "bounce" and "drop" in (self.kinds or ())
        return self.kinds is None or kind in self.kinds or kind not in KINDS or drop


ALL = Asked()
BYTES = 256 << 20
FILES = 5_000
"""A part ends with the file that reaches one of these."""


def files(path: Path) -> list[tuple[Path, str]]:
    """All files under a folder (or the file itself) in a fixed order, each with its name for messages.

    Links are followed, to folders too, each folder once. But for the mark of a simulated world, which is ours and no
    provider's.
    """
    if path.is_file():
        return [(path, path.name)]
    found = (f for f in sorted(_below(path)) if f.is_file() and f != path / SIMULATED)
    return [(f, f.relative_to(path).as_posix()) for f in found]


def _below(path: Path) -> Iterator[Path]:
    seen = set[str]()
    for folder, folders, names in os.walk(path, onerror=_fail, followlinks=True):
        folders.sort()  # which of two links to one folder is followed must not depend on the disk
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in names)


def _fail(e: OSError) -> None:
    raise e


def in_parts(files: Files) -> list[Files]:
    """The files in parts of about `BYTES`, in their order: a function of names and sizes alone."""
    out, size = list[Files](), BYTES
    for file, place in files:
        if size >= BYTES or len(out[-1]) >= FILES:
            out.append([])
            size = 0
        out[-1].append((file, place))
        size += file.stat().st_size
    return out


class NothingReadableError(DataError):
    """A source with no file that its provider could have written."""

    def __init__(self, path: Path, found: Iterable[str], expected: str) -> None:
        self.found, self.expected = list(found), expected
        rest = len(self.found) - 8
        what = ", ".join(self.found[:8]) + (f" and {rest:,} more" if rest > 0 else "") or "nothing"
        packed = "; a packed file (.gz) must hold JSON" if any(n.lower().endswith(".gz") for n in self.found) else ""
        super().__init__(f"{path}: found {what}; expected {expected}{packed}")


nothing_readable = NothingReadableError

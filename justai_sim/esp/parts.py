"""An export in parts that can be read alone, in a fixed order: what a load does one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

Files: TypeAlias = list[tuple[Path, str]]
"""Files, each with its name for messages."""

BYTES = 256 << 20
FILES = 5_000
"""A part ends with the file that reaches one of these."""


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

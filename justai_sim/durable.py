"""Files that are whole after a loss of power: on the disk before they have their name."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such call
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(made: Path, path: Path) -> None:
    """Give a finished file or folder its name."""
    sync(made)
    made.rename(path)
    sync(path.parent)

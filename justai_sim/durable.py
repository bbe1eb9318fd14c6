"""Files that are whole after a loss of power, and folders that do not outlive who is at work in them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCRATCH = "justai-sim-"
_YOUNG = 60.0
"""Seconds in which a folder of another process may not yet have its lock."""


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


def lock(folder: Path) -> int | None:
    """A descriptor that keeps others out of the folder until it is closed, or the process ends; None on Windows.

    BlockingIOError while another has it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held


@contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """A new folder for temporary files in `parent`, else where the system has them (`TMPDIR`); gone at the end.

    What a killed process left there is removed first.
    """
    home = Path(tempfile.gettempdir()) if parent is None else parent
    for left in home.glob(f"{_SCRATCH}*"):
        _remove_left(left)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=home, ignore_cleanup_errors=True) as name:
        held = lock(Path(name))
        try:
            yield Path(name)
        finally:
            if held is not None:
                os.close(held)


def _remove_left(folder: Path) -> None:
    try:
        if time.time() - folder.stat().st_mtime < _YOUNG or folder.stat().st_uid != os.getuid():
            return
        held = lock(folder)
    except (OSError, AttributeError):  # someone is at work in it, or it is gone; Windows has no owners
        return
    if held is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)

"""How many bytes of a source have been read, asked of the system: no reader has to count."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from justai_sim.esp.parts import Files

Progress = Callable[[int, int], None]
"""Called with the bytes of the source that are done, and with all of them."""


class Meter:
    """Bytes of the source that are read: whole parts, and of the part at work the file that is open."""

    def __init__(self, parts: Sequence[Files], progress: Progress | None) -> None:
        self.progress = progress
        self.parts: list[dict[str, int]] = []
        self.before, self.last = [0], 0
        for files in parts if progress else ():
            sizes = {os.path.realpath(file): file.stat().st_size for file, _ in files}
            self.parts.append(sizes)
            self.before.append(self.before[-1] + sum(sizes.values()))

    def at(self, part: int) -> None:
        """Report: parts before `part` are whole."""
        if self.progress:
            inside = _read_of(self.parts[part]) if part < len(self.parts) else 0
            self.last = max(self.last, self.before[part] + inside)  # between two files none is open
            self.progress(self.last, self.before[-1])


def _read_of(sizes: Mapping[str, int]) -> int:
    """Bytes of files, read in their order, up to where the last one that is open stands; 0 where none is known.

    The system is asked, so that no reader has to count; without /proc a part counts when it is finished.
    """
    found = 0
    if not sys.platform.startswith("linux"):
        return 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
            if name in sizes:
                before = 0
                for file, size in sizes.items():
                    if file == name:
                        break
                    before += size
                found = max(found, before + min(sizes[name], os.lseek(int(fd), 0, os.SEEK_CUR)))
        except OSError:
            continue
    return found

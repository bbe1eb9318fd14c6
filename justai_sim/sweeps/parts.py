"""The parts of a sweep on disk: one file a point and block, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from justai_sim.errors import DataError
from justai_sim.scenario import Scenario
from justai_sim.sim.cost import WORLDS_TOGETHER, together
from justai_sim.sim.record import Columns

Tables = dict[str, Columns]


def fingerprint(scenario: Scenario, wire: bool = False) -> str:
    """What a part depends on: the whole scenario, the version of the numbers, and whether they went over the wire."""
    from justai_sim.version import NUMBERS

    what = {"numbers": NUMBERS, "scenario": msgspec.to_builtins(scenario)} | ({"wire": True} if wire else {})
    text = msgspec.json.encode(what)
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def part_path(folder: Path, point: int, reps: range) -> Path:
    return folder / f"point{point:03d}-rep{reps.start:05d}-{reps.stop:05d}.npz"


def write_part(path: Path, tables: Tables) -> None:
    """Write to a neighbour and rename, so that a killed sweep leaves no half part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as f:
        columns: dict[str, Any] = {f"{t}/{c}": a for t, columns in tables.items() for c, a in columns.items()}
        np.savez(f, **columns)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)


def read_part(path: Path) -> Tables:
    """A part from its file. DataError for a file that is damaged."""
    out: Tables = {}
    try:
        with path.open("rb") as f, np.load(f) as data:
            for key in data.files:
                table, _, column = key.partition("/")
                out.setdefault(table, {})[column] = data[key]
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path}: is damaged: {e}") from None
    return out


def blocks(scenario: Scenario, most: int = WORLDS_TOGETHER) -> list[range]:
    """Replications in blocks that fit in memory. Results do not depend on how they are cut."""
    n, size = scenario.replications, together(scenario, most)
    return [range(i, min(n, i + size)) for i in range(0, n, size)]

"""A sweep: every point of a scenario over the same worlds, on all cores or a cluster, resumable."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from justai_sim.errors import DataError, StoppedError, UsageError, several
from justai_sim.esp.generic import plain_files
from justai_sim.executor import Executor, WorkerError, executor
from justai_sim.logstore import is_log
from justai_sim.scenario import Point, Scenario, points
from justai_sim.sim.cost import affordable
from justai_sim.sim.engine import simulate_block
from justai_sim.sim.record import record
from justai_sim.sweeps.data import Raced, figures_of
from justai_sim.sweeps.parts import Tables, blocks, fingerprint, part_path, read_part, write_part
from justai_sim.sweeps.race import FIRST_LOOK, Racing, looks

AGAIN = "the same command with --resume"
"""What to do after a sweep has ended early."""
Progress = Callable[[int, int], None]
"""Called with (units done, units in all)."""
Notice = Callable[[str], None]


class Unit(msgspec.Struct, frozen=True):
    """A point and a block of worlds: what one worker does at a time."""

    point: int
    scenario: Scenario
    start: int
    stop: int
    full: bool
    wire: bool = False


def run_unit(unit: Unit) -> Tables:
    """Simulate and record: a pure function, run in a worker."""
    return record(simulate_block(unit.scenario, range(unit.start, unit.stop), wire=unit.wire), unit.full)


def sweep(
    scenario: Scenario,
    out: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    wire: bool = False,
    race: str | None = None,
    progress: Progress | None = None,
    again: str = AGAIN,
    notice: Notice = warnings.warn,
) -> tuple[list[Point], list[list[Tables]], Raced | None]:
    """Run every point; returns the points, for each its parts in the order of the replications, and how a race went.

    Parts lie in `out/parts`; with `resume` those of the same scenario are kept, and what is damaged is done again;
    without it all are redone. `notice` is told of what is replaced. UsageError if `out` holds another's sweep.
    Units run on `workers` processes or on the Dask cluster at `scheduler`; their files are written here. `race`:
    the criterion by which points that are clearly worse stop early. `again`: what is said to do after an
    interruption. The numbers depend neither on workers nor on interruptions.
    """
    if is_log(out) or plain_files(out):
        raise UsageError(f"{out} holds a log; choose another folder for the report")
    all_points = points(scenario)
    for p in all_points:
        affordable(p.scenario)
    cut = blocks(scenario) if race is None else blocks(scenario, most=FIRST_LOOK)
    stops = [scenario.replications] if race is None else looks(cut)
    racing = None if race is None else Racing(scenario, all_points, race, stops)
    folder = out / "parts"
    _prepare(folder, fingerprint(scenario, wire), scenario.name, resume, notice)
    job = _Job(all_points, cut, folder, wire, progress, notice)
    try:
        with executor(workers, scheduler, partial(_compile, scenario)) as on:
            for stop in stops:
                job.until(stop, on, [] if racing is None else racing.out)
                if racing is not None:
                    racing.look([job.parts(i, stop) for i in range(len(all_points))], stop)
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; {kept(out, again)}") from None
    except WorkerError as e:
        raise WorkerError(f"{e}; {kept(out, again)}") from None
    ends = [scenario.replications] * len(all_points) if racing is None else racing.ends
    return all_points, [job.parts(i, n) for i, n in enumerate(ends)], racing.raced if racing else None


def kept(out: Path, again: str = AGAIN) -> str:
    """What a sweep that ended early has left, and how to go on; without `again` nothing is left."""
    if not again:
        return "nothing is kept without a folder (out)"
    if not any((out / "parts").glob("*.npz")):
        return f"no part was finished yet: {again.partition(' with ')[0]} starts again"
    return f"finished parts are kept in {out / 'parts'}: {again} goes on"


class _Job:
    """The parts of a sweep, done and to do."""

    def __init__(
        self, all_points: list[Point], cut: list[range], folder: Path, wire: bool, progress: Progress | None,
        notice: Notice,
    ) -> None:  # fmt: skip
        self.points, self.cut, self.folder, self.wire, self.progress = all_points, cut, folder, wire, progress
        self.notice = notice
        self.figures = figures_of(all_points)
        self.read: dict[Path, Tables] = {}

    def until(self, stop: int, on: Executor, out: Sequence[int]) -> None:
        """Simulate what is not there of the worlds before `stop`, for all points but those that are `out`."""
        still = [i for i in range(len(self.points)) if i not in set(out)]
        wanted = [(i, b) for b in self.cut if b.stop <= stop for i in still]
        left = [(i, b) for i, b in wanted if not self.sound(part_path(self.folder, i, b))]
        gone = sum(part_path(self.folder, i, b).exists() for i in out for b in self.cut)
        done = gone + len(wanted) - len(left)
        total = gone + len(still) * len(self.cut)
        self.tell(done, total)
        units = [Unit(i, self.points[i].scenario, b.start, b.stop, i == self.figures, self.wire) for i, b in left]
        for n, (k, tables) in enumerate(on.map(run_unit, units), 1):
            write_part(part_path(self.folder, *left[k]), tables)
            self.tell(done + n, total)

    def sound(self, path: Path) -> bool:
        """Whether a part is there and can be read; a damaged one is removed, to be done again."""
        if path in self.read or not path.exists():
            return path in self.read
        try:
            self.read[path] = read_part(path)
        except DataError as e:
            self.notice(f"{e}; it is done again")
            path.unlink()
        return path in self.read

    def tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def parts(self, point: int, stop: int) -> list[Tables]:
        """The parts of a point's worlds before `stop`, those that are there."""
        paths = [part_path(self.folder, point, b) for b in self.cut if b.stop <= stop]
        return [self.read[p] if p in self.read else self.read.setdefault(p, read_part(p)) for p in paths if p.exists()]


def _prepare(folder: Path, mark: str, name: str, resume: bool, notice: Notice) -> None:
    stamp = folder / "scenario"
    if folder.exists():
        found, _, other = stamp.read_text(encoding="utf-8").partition("\n") if stamp.exists() else ("", "", "")
        parts = sum(1 for _ in folder.glob("*.npz"))
        if resume and found != mark and parts:
            raise UsageError(
                f"{folder}: these parts belong to another scenario or version; use another --out, or leave out --resume"
            )
        if not resume:
            if not stamp.exists() and any(folder.iterdir()):
                raise UsageError(f"{folder}: is not a sweep's folder; expected an empty or a new one")
            if parts and other and other != name:
                raise UsageError(
                    f"{folder.parent} holds the sweep of another scenario, {other}; choose another folder, or remove it"
                )
            if parts:
                kept = "; --resume would have kept them" if found == mark else ""
                notice(f"{folder.parent}: {several(parts, 'part')} of an earlier sweep are replaced{kept}")
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for half in folder.glob(".point*"):  # left by a kill in the middle of a write
        half.unlink()
    stamp.write_text(f"{mark}\n{name}", encoding="utf-8")


def _compile(scenario: Scenario) -> None:
    """Fill the compiler's cache on disk once, so that the workers need not all compile at the same time."""
    world = msgspec.structs.replace(scenario.world, signups_per_day=20, initial_users=0)
    small = msgspec.structs.replace(scenario, world=world, days=2, replications=1, sweep={})
    record(simulate_block(small, range(1)), True)

"""A sweep: every point of a scenario over the same worlds, on all cores, resumable."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import msgspec

from justai_sim.errors import JustaiError, UsageError
from justai_sim.esp.generic import plain_files
from justai_sim.logstore import is_log
from justai_sim.scenario import Point, Scenario, points
from justai_sim.sim.cost import affordable
from justai_sim.sim.engine import simulate_block
from justai_sim.sim.record import record
from justai_sim.sweeps.data import figures_of
from justai_sim.sweeps.parts import Tables, blocks, fingerprint, part_path, read_part, write_part

Progress = Callable[[int, int], None]
"""Called with (units done, units in all)."""


class StoppedError(JustaiError):
    """The user stopped the sweep; what is finished is kept."""

    exit_code = 130


class Unit(msgspec.Struct, frozen=True):
    """A point and a block of worlds: what one worker does at a time."""

    point: int
    scenario: Scenario
    start: int
    stop: int
    full: bool
    path: str
    wire: bool = False


def run_unit(unit: Unit) -> str:
    """Simulate, record, write. Runs in a worker."""
    block = simulate_block(unit.scenario, range(unit.start, unit.stop), wire=unit.wire)
    write_part(Path(unit.path), record(block, unit.full))
    return unit.path


def sweep(
    scenario: Scenario,
    out: Path,
    *,
    workers: int | None = None,
    resume: bool = False,
    wire: bool = False,
    progress: Progress | None = None,
) -> tuple[list[Point], list[list[Tables]]]:
    """Run every point; returns the points and, for each, its parts in the order of the replications.

    Parts lie in `out/parts`; with `resume` those of the same scenario are kept, without it they are redone.
    """
    if is_log(out) or plain_files(out):
        raise UsageError(f"{out} holds a log; choose another folder for the report")
    all_points = points(scenario)
    for p in all_points:
        affordable(p.scenario)
    folder = out / "parts"
    _prepare(folder, fingerprint(scenario), resume)
    cut = blocks(scenario)
    figures = figures_of(all_points)
    units = [
        Unit(i, p.scenario, b.start, b.stop, i == figures, str(part_path(folder, i, b)), wire)
        for b in cut
        for i, p in enumerate(all_points)
    ]
    left = [u for u in units if not Path(u.path).exists()]
    done = len(units) - len(left)
    if progress is not None:
        progress(done, len(units))
    for finished, _ in enumerate(_run(left, workers or os.cpu_count() or 1, out), 1):
        if progress is not None:
            progress(done + finished, len(units))
    return all_points, [[read_part(part_path(folder, i, b)) for b in cut] for i in range(len(all_points))]


def _prepare(folder: Path, mark: str, resume: bool) -> None:
    stamp = folder / "scenario"
    if folder.exists():
        same = stamp.exists() and stamp.read_text() == mark
        if resume and not same and any(folder.glob("*.npz")):
            raise UsageError(
                f"{folder}: these parts belong to another scenario or version; use another --out, or leave out --resume"
            )
        if not resume:
            if not stamp.exists() and any(folder.iterdir()):
                raise UsageError(f"{folder}: is not a sweep's folder; expected an empty or a new one")
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for half in folder.glob(".point*"):  # left by a kill in the middle of a write
        half.unlink()
    stamp.write_text(mark)


def _run(units: list[Unit], workers: int, out: Path) -> Iterator[str]:
    if not units:
        return
    try:
        if workers > 1 and _unguarded_script():
            warnings.warn("a script without `if __name__ == '__main__':` runs on one process", stacklevel=4)
            workers = 1
        if workers == 1 or len(units) == 1:
            for u in units:
                yield run_unit(u)
            return
        _compile(units[0])
        yield from _pool(units, min(workers, len(units)))
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; finished parts are kept in {out / 'parts'}: go on with --resume") from None


def _compile(unit: Unit) -> None:
    """Fill the compiler's cache on disk once, so that the workers need not all compile at the same time."""
    world = msgspec.structs.replace(unit.scenario.world, signups_per_day=20)
    small = msgspec.structs.replace(unit.scenario, world=world, days=2, replications=1, sweep={})
    record(simulate_block(small, range(1)), True)


def _pool(units: list[Unit], workers: int) -> Iterator[str]:
    # Spawned, not forked: the parent may hold threads (a progress bar, a notebook).
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet, initargs=(os.getpid(),)) as pool:
        futures: list[Future[str]] = [pool.submit(run_unit, u) for u in units]
        try:
            for f in as_completed(futures):
                yield f.result()
        except BrokenProcessPool:
            raise JustaiError(
                "a worker ended unexpectedly (out of memory?); finished parts are kept: go on with --resume, "
                "perhaps with fewer --workers"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _quiet(parent: int) -> None:
    """Ctrl-C is the parent's to handle; a worker whose parent was killed ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _unguarded_script() -> bool:
    """Whether the program is a plain script without the guard that spawned workers need."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return path is not None and "__main__" not in Path(path).read_text(encoding="utf-8", errors="ignore")
    except OSError:
        return False

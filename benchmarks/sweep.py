"""What the machinery of a sweep costs besides the simulation, and what a second worker brings.

python benchmarks/sweep.py [replications] [pairs]

The welcome flow with its eight points. "simulation" is the same units one after the other, nothing kept; a sweep also
hands them out, writes and reads its parts, makes the frames and writes the tables. What that costs is told in two ways:
within a sweep, by the time that passes outside of its units, so that whatever slows the machine down slows both; and
between a sweep and the simulation alone, in pairs that take turns in going first (medians). Seconds of the processor
hide what else the machine does; seconds by the clock hold the waiting for the disk as well.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Time(NamedTuple):
    """Seconds by the clock, and of the processor in all processes of this program that have ended and this one."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Time:
        used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return cls(time.perf_counter(), sum(r.ru_utime + r.ru_stime for r in used))

    def since(self, start: Time) -> Time:
        return Time(self.wall - start.wall, self.cpu - start.cpu)


def timed(work: Callable[[], object]) -> Time:
    start = Time.now()
    work()
    return Time.now().since(start)


def simulation(scenario: Any) -> None:
    from justai_sim.scenario import points
    from justai_sim.sweeps.data import figures_of
    from justai_sim.sweeps.parts import blocks
    from justai_sim.sweeps.run import Unit, run_unit

    found = points(scenario)
    for b in blocks(scenario):
        for i, p in enumerate(found):
            run_unit(Unit(i, p.scenario, b.start, b.stop, i == figures_of(found)))


def sweep_of(scenario: Any, out: Path) -> tuple[Time, Time]:
    """A sweep on one worker: all of it, and what of it its units took."""
    from justai_sim import api
    from justai_sim.sweeps import run

    inside, unit = [], run.run_unit

    def run_unit(u: Any) -> Any:
        start = Time.now()
        tables = unit(u)
        inside.append(Time.now().since(start))
        return tables

    run.run_unit = run_unit
    try:
        whole = timed(lambda: api.run_sweep(scenario, out, workers=1))
    finally:
        run.run_unit = unit
    return whole, Time(sum(t.wall for t in inside), sum(t.cpu for t in inside))


def main() -> None:
    # Workers import this file: as with the command, what they do not need is imported here.
    import msgspec

    from justai_sim import api
    from justai_sim.scenario import points, read
    from justai_sim.sim.cost import expected_sends

    replications, pairs = (int(a) for a in [*sys.argv[1:], *("20", "3")[len(sys.argv) - 1 :]])
    scenario = msgspec.structs.replace(read("welcome"), replications=replications)
    sends = expected_sends(scenario) * replications * len(points(scenario))
    out = Path(tempfile.mkdtemp())
    sweep_of(msgspec.structs.replace(scenario, replications=1), out / "first")  # compiles, and imports what is needed
    print(f"{sends / 1e6:.1f} million sends, load average {os.getloadavg()[0]:.1f} at the start")
    alone, whole, inside = [], [], []
    for k in range(pairs):
        for simulated in (True, False) if k % 2 else (False, True):
            if simulated:
                alone.append(timed(lambda: simulation(scenario)))
            else:
                got = sweep_of(scenario, out / f"one{k}")
                whole.append(got[0])
                inside.append(got[1])
    two = timed(lambda: api.run_sweep(scenario, out / "two", workers=2))

    def told(name: str, times: Sequence[Time]) -> float:
        wall, used = (statistics.median(t) for t in zip(*times, strict=True))
        print(f"{name:22} {wall:7.1f} s   CPU {used:7.1f} s   {1e6 * used / sends:.2f} us a send")
        return wall

    told("simulation alone", alone)
    one = told("sweep, 1 worker", whole)
    told("  of it in its units", inside)
    told("sweep, 2 workers", [two])
    for name, of in (("within a sweep", inside), ("against the simulation", alone)):
        wall, used = (statistics.median(a[i] / b[i] - 1 for a, b in zip(whole, of, strict=True)) for i in (0, 1))
        print(f"machinery, {name}: {used:+.1%} of CPU time, {wall:+.1%} by the clock")
    print(f"2 workers: {one / two.wall:.2f} times as fast as 1; load average {os.getloadavg()[0]:.1f} at the end")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()

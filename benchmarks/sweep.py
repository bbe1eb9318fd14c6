"""What the machinery of a sweep costs besides the simulation, and what a second worker brings.

python benchmarks/sweep.py [replications]

The welcome flow with its eight points. "simulation" is the same units one after the other, nothing kept; a sweep also
hands them out, writes and reads its parts, makes the frames and writes the tables. CPU seconds count all processes and
say what a busy machine hides.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def cpu() -> float:
    return sum(
        r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, used = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - wall, cpu() - used


def simulation(scenario: Any) -> None:
    from justai_sim.scenario import points
    from justai_sim.sweeps.data import figures_of
    from justai_sim.sweeps.parts import blocks
    from justai_sim.sweeps.run import Unit, run_unit

    found = points(scenario)
    for b in blocks(scenario):
        for i, p in enumerate(found):
            run_unit(Unit(i, p.scenario, b.start, b.stop, i == figures_of(found)))


def main() -> None:
    # Workers import this file: as with the command, what they do not need is imported here.
    import msgspec

    from justai_sim import api
    from justai_sim.scenario import points, read
    from justai_sim.sweeps.parts import expected_sends

    replications = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    scenario = msgspec.structs.replace(read("welcome"), replications=replications)
    sends = expected_sends(scenario) * replications * len(points(scenario))
    simulation(msgspec.structs.replace(scenario, replications=1))  # compiles
    out = Path(tempfile.mkdtemp())
    print(f"{sends / 1e6:.1f} million sends, load average {os.getloadavg()[0]:.1f} at the start")
    rows = {"simulation": timed(lambda: simulation(scenario))}
    for n in (1, 2):
        rows[f"sweep, {n} worker{'s' * (n > 1)}"] = timed(lambda n=n: api.run_sweep(scenario, out / str(n), workers=n))
    for name, (wall, used) in rows.items():
        print(f"{name:18} {wall:7.1f} s   CPU {used:7.1f} s   {1e6 * used / sends:.2f} us a send")
    (base, base_cpu), (one, one_cpu), (two, _) = rows.values()
    print(f"machinery: {one / base - 1:+.1%} of the simulation by the clock, {one_cpu / base_cpu - 1:+.1%} in CPU time")
    print(f"2 workers: {one / two:.2f} times as fast as 1; load average {os.getloadavg()[0]:.1f} at the end")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()

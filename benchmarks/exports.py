"""Writers of exports: rows a second, files, and memory beyond the log.

python benchmarks/exports.py [rows [provider ...]]

The log of `benchmarks/esp.py` (a send, two opens and a purchase in every four rows, over 30 days), its texts in
memory. Each provider runs in a process of its own, so that peaks do not add up; Linux only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

from esp import log, read

from justai_sim.esp.base import adapter
from justai_sim.esp.exports import export

PROVIDERS = ("braze", "customerio", "iterable", "segment", "sfmc", "generic")


def memory(name: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measured(name: str, n: int) -> str:
    esp = adapter(name)
    made = log(n, esp)
    small = log(400, esp)
    with tempfile.TemporaryDirectory() as folder:
        export(small, name, Path(folder) / "warm")  # what is loaded at the first time is not the export's
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before, start = memory("VmRSS"), time.perf_counter()
        export(made, name, Path(folder) / "out")
        taken, peak = time.perf_counter() - start, memory("VmHWM") - before
        files = [p for p in (Path(folder) / "out").rglob("*") if p.is_file()]
        start = time.perf_counter()
        found = read(esp, Path(folder) / "out")
        again = time.perf_counter() - start
        assert found == n
        size = sum(f.stat().st_size for f in files) / 1e6
    rows = f"{n / taken:,.0f} | {n / again:,.0f} | {size:.1f} | {len(files):,} | {peak / 2**20:.0f}"
    return f"| {name} | {rows} |"


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    print(f"{n:,} rows\n\n| provider | written, rows/s | read, rows/s | MB | files | peak beyond the log, MiB |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[2:] or PROVIDERS:
        with get_context("spawn").Pool(1) as pool:
            print(pool.apply(measured, (name, n)), flush=True)


if __name__ == "__main__":
    main()

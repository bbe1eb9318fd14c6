"""What a load costs: GB a minute, peak memory, bytes a row of the tables, files a second, a resumption.

python benchmarks/load.py [lines]           one NDJSON file of Segment events; 1,000,000 by default
python benchmarks/load.py --files [files]   the same events in many small gzip files; 100,000 by default

Each step runs in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

START = 1_767_225_600
NAMES = ("Email Sent", "Email Opened", "Email Link Clicked", "Order Completed")
SMALL = 25
"""Lines of a small file."""


def line(i: int) -> str:
    """One event as Segment writes it; every fourth is a send. Ids have 10 to 36 characters, 250,000 users at most."""
    kind, user, send = i % 4, i * 2654435761 % 1_000_003 * 7 // 20, i - i % 4
    t = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START + send // 20 + kind * 900))
    p: dict[str, Any] = {"message_id": f"m{send:021d}"} if kind < 3 else {"order_id": f"o{send:09d}"}
    if kind == 0:
        p |= {"template_id": f"template-{send // 4 % 5}", "copy_id": f"copy-{send // 4 % 20}"}
    if kind == 3:
        p |= {"revenue": i % 9000 / 100, "currency": "USD"}
    return json.dumps({
        "type": "track", "event": NAMES[kind], "messageId": f"{i:08x}-7d3c-4d6e-9c4a-{i * 7:012x}",
        "userId": f"user-{user % 250_000:017d}", "anonymousId": None, "timestamp": f"{t}.{i % 1000:03d}Z",
        "receivedAt": f"{t}.{i % 1000:03d}Z", "properties": p,
        "context": {"library": {"name": "esp", "version": "1.0.0"}, "ip": "192.0.2.1", "locale": "en-US"},
    })  # fmt: skip


def write(folder: Path, lines: int) -> None:
    with (folder / "events.ndjson").open("w") as f:
        for i in range(lines):
            f.write(line(i) + "\n")


def write_small(folder: Path, files: int) -> None:
    for i in range(files):
        if i % 1000 == 0:
            (folder / f"{i // 1000:04d}").mkdir()
        body = "\n".join(line(j) for j in range(i * SMALL, (i + 1) * SMALL)).encode()
        (folder / f"{i // 1000:04d}" / f"{i:06d}.gz").write_bytes(gzip.compress(body, 1, mtime=0))


def peak() -> float:
    """The most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(src: str, out: str) -> None:
    from justai_sim.log import load as run

    before, start = peak(), time.perf_counter()
    found = run(src, "segment", out)
    told = {"seconds": time.perf_counter() - start, "before": before, "peak": peak()}
    print(json.dumps(told | {"rows": sum(found.rows.values())}))


def read(src: str) -> None:
    from justai_sim.log import read_log

    before, start = peak(), time.perf_counter()
    log = read_log(src)
    seconds, parts = time.perf_counter() - start, [log.sends, log.events, log.decisions]
    columns = sum(getattr(t, c.name).nbytes for t in parts for c in t.SCHEMA)
    texts = sum(getattr(getattr(c, "values", None), "nbytes", 0) for c in log.codes.values())
    rows = sum(map(len, parts))
    told = {"seconds": seconds, "before": before, "peak": peak(), "rows": rows, "columns": columns, "texts": texts}
    print(json.dumps(told))


def step(*argv: str) -> dict[str, Any]:
    env = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # as the command line does
    done = subprocess.run([sys.executable, __file__, *argv], capture_output=True, text=True, check=True, env=env)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    small = "--files" in sys.argv
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    n = numbers[0] if numbers else 100_000 if small else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        src, out = Path(folder) / "export", Path(folder) / "log"
        src.mkdir()
        (write_small if small else write)(src, n)
        size = sum(f.stat().st_size for f in src.rglob("*") if f.is_file())
        got = step("load", str(src), str(out))
        stored = sum(f.stat().st_size for f in out.rglob("*.parquet"))
        print(f"load: {got['rows']:,} rows of {size / 1e9:.2f} GB in {got['seconds']:.0f} s: "
              f"{60 * size / 1e9 / got['seconds']:.2f} GB a minute, {1e6 * got['seconds'] / got['rows']:.1f} us a row; "
              f"peak {got['peak']:.0f} MiB, of them {got['peak'] - got['before']:.0f} above the imports; "
              f"{stored / got['rows']:.0f} bytes a row on disk")  # fmt: skip
        if small:
            print(f"files: {n / got['seconds']:,.0f} a second")
        got = step("read", str(out))
        per = (got["columns"] + got["texts"]) / got["rows"]
        print(f"read_log: {got['seconds']:.1f} s; {per:.0f} bytes a row in memory "
              f"({got['columns'] / got['rows']:.0f} columns, {got['texts'] / got['rows']:.0f} texts of ids); "
              f"peak {got['peak'] - got['before']:.0f} MiB above the imports, "
              f"the tables are {(got['columns'] + got['texts']) / 2**20:.0f}")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        load(*sys.argv[2:])
    elif sys.argv[1:2] == ["read"]:
        read(*sys.argv[2:])
    else:
        main()

"""The streaming ledger: rows in batches of 1,000 in the order of arrival; throughput by the age of the ledger.

python benchmarks/ledger.py [rows] [users] [days]

One line a fifth of the stream: flat means that the last is as fast as the first. At the end the sum of all changes is
compared with the batch answer on the same rows.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np

from justai_sim.attribution import Rule, attribute, bind
from justai_sim.attribution.ledger import Ledger, open_ledger
from justai_sim.clock import DAY
from justai_sim.tables import CONVERSION, Events, Sends

BATCH = 1_000
START = 1_767_225_600_000_000


def stream(rows: int, users: int, days: int) -> tuple[Sends, Events]:
    """Five sends to one purchase, uniform over days and users; purchases are heard of up to two days late."""
    rng = np.random.default_rng(1)
    n, m = rows * 5 // 6, rows - rows * 5 // 6
    sent = np.sort(rng.integers(0, days * DAY, n)) + START
    bought = rng.integers(0, days * DAY, m) + START
    heard = bought + (rng.integers(0, 2 * DAY, m) if m else 0)
    order = np.argsort(heard)
    sends = Sends.build(
        n, send=np.arange(n), user=rng.integers(0, users, n), template=0, variant=rng.integers(0, 8, n), sent_at=sent,
        received_at=sent,
    )  # fmt: skip
    events = Events.build(
        m, event=np.arange(m), user=rng.integers(0, users, m), kind=CONVERSION, occurred_at=bought[order],
        received_at=heard[order], value=20_000_000, order=np.arange(m),
    )  # fmt: skip
    return sends, events


def batches(sends: Sends, events: Events) -> list[tuple[Sends, Events, int]]:
    """Cuts of 1,000 rows by receipt, with the instant of the last."""
    when = np.concatenate([sends.received_at, events.received_at])
    ends = np.sort(when)[BATCH - 1 :: BATCH]
    ends = np.append(ends, when.max())
    s, e = (np.searchsorted(t.received_at, ends, side="right") for t in (sends, events))
    cuts = zip(np.append(0, s[:-1]), s, np.append(0, e[:-1]), e, ends, strict=True)
    return [(sends.take(slice(a, b)), events.take(slice(c, d)), int(t)) for a, b, c, d, t in cuts]


def run(ledger: Ledger, parts: list[tuple[Sends, Events, int]], every: int | None) -> tuple[list[float], list[object]]:
    """Feed the parts; settle once a day of the stream (`every` None), else after so many parts."""
    times, found, count, day = [time.perf_counter()], [], 0, 0
    step = -(-len(parts) // 5)
    for i, (sends, events, now) in enumerate(parts):
        ledger.ingest(sends, events)
        count += 1
        today = now // DAY
        if (today > day) if every is None else (count >= every):
            found.append(ledger.settle(now).changes)
            count, day = 0, today
        if (i + 1) % step == 0:
            times.append(time.perf_counter())
    found.append(ledger.settle(parts[-1][2]).changes)
    times.append(time.perf_counter())
    return times, found


def touched(gigabytes: int) -> None:
    """Use memory in a process of its own and give it back. On a virtual machine the first use of a page makes the
    host find one, which can cost more than everything else here (2 s a GB) and says nothing of the ledger."""
    subprocess.run([sys.executable, "-c", f"import numpy; numpy.ones({gigabytes} << 27)"], check=True)


def main() -> None:
    rows, users, days = (int(a) for a in [*sys.argv[1:], *("6000000", "1000000", "120")[len(sys.argv) - 1 :]])
    bound = bind(Rule(), templates=["t"], names=[])
    brief = bind(Rule(refund_horizon_days=30), templates=["t"], names=[])
    warm = batches(*stream(20_000, 2_000, 40))
    run(open_ledger(bound), warm, None)
    sends, events = stream(rows, users, days)
    parts = batches(sends, events)
    start = time.perf_counter()
    expected = attribute(bound, sends, events)
    whole = time.perf_counter() - start
    answer = np.zeros(len(events), np.int64) - 1
    answer[expected.credits.event_row] = sends.send[expected.credits.send_row]
    print(f"{len(sends):,} sends, {len(events):,} purchases, {users:,} users, {days} days, batches of {BATCH:,}")
    print(f"batch attribution of all of it: {whole:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, every, rule in (
        ("a settle a day", None, bound),
        ("a settle every 10 batches", 10, bound),
        ("a settle every 10 batches, 30 days of memory", 10, brief),
    ):
        ledger = open_ledger(rule)
        touched(4)
        times, found = run(ledger, parts, every)
        fifths = np.diff(times[:5] + times[-1:])
        per = len(parts) * BATCH / 5 / fifths / 1e6
        got = np.zeros(len(events), np.int64) - 1
        total = np.zeros(len(events), np.int64)
        for c in found:
            got[c.event[c.weight > 0]] = c.send[c.weight > 0]
            np.add.at(total, c.event, c.weight)
        equal = np.array_equal(got, answer) and np.array_equal(total > 0, answer >= 0)
        print(
            f"{name}: {rows / (times[-1] - times[0]) / 1e6:.2f} M rows/s; by fifth of the stream "
            f"{' '.join(f'{p:.2f}' for p in per)}; {len(found)} settles; answer {'equal' if equal else 'DIFFERENT'}"
        )
        print(f"   {ledger.memory()}")
        now_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"   peak memory {now_peak / 1e6:.2f} GB ({(now_peak - peak) / 1e6:.2f} GB above the input)")


if __name__ == "__main__":
    main()

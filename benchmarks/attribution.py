"""Batch attribution and window surface beside the as-of joins that people write by hand: same arrays, same answer.

python benchmarks/attribution.py [sends] [conversions] [users]     the table with ratios, medians of 5
python benchmarks/attribution.py --shapes                          every credit rule, heavy users, unsorted, growth
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import pandas as pd

from justai_sim.attribution import Rule, attribute, bind
from justai_sim.attribution.rule import CreditRule
from justai_sim.clock import DAY
from justai_sim.estimate.windows import window_counts
from justai_sim.tables import CONVERSION, Events, Sends

RUNS = 5
SPAN = 90 * DAY
START = 1_767_225_600_000_000


def tables(n: int, m: int, users: int, *, ordered: bool = True, rng: Any = None) -> tuple[Sends, Events]:
    """Sends and conversions, uniform over 90 days and the users, 8 variants, one template; in time order if asked."""
    rng = rng or np.random.default_rng(1)
    sent, bought = (rng.integers(0, SPAN, size) + START for size in (n, m))
    if ordered:
        sent.sort()
        bought.sort()
    sends = Sends.build(
        n, send=np.arange(n), user=rng.integers(0, users, n), template=0, variant=rng.integers(0, 8, n), sent_at=sent,
        received_at=sent,
    )  # fmt: skip
    events = Events.build(
        m, event=np.arange(m), user=rng.integers(0, users, m), kind=CONVERSION, occurred_at=bought, received_at=bought,
        value=20_000_000,
    )  # fmt: skip
    return sends, events


def frames(sends: Sends, events: Events) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the joins get: conversions moved back by the offset, so that the last send before is the last in window."""
    left = pd.DataFrame({"user": events.user, "t": events.occurred_at - 3 * DAY, "event": events.event})
    right = pd.DataFrame({"user": sends.user, "t": sends.sent_at, "send": sends.send})
    return left, right


def credited(sends: Sends, events: Events, **rule: Any) -> Any:
    """The credits as a table, from all columns of sends and events."""
    return attribute(bind(Rule(**rule), templates=["t"], names=[]), sends, events).credits


def ours(sends: Sends, events: Events) -> Any:
    found = credited(sends, events)
    out = np.full(len(events), -1, np.int64)
    out[found.event_row] = sends.send[found.send_row]
    return out


def surface(sends: Sends, events: Events) -> Any:
    """10 offsets x 30 lookbacks, by variant and 100 random groups of users."""
    bound = bind(Rule(), templates=["t"], names=[])
    as_of = START + SPAN + 40 * DAY
    return window_counts(
        bound, sends, events, as_of, range(10), range(1, 31), sends.user % 100, sends.variant, 100, 8
    )  # fmt: skip


def by_pandas(left: pd.DataFrame, right: pd.DataFrame) -> Any:
    joined = pd.merge_asof(left, right, on="t", by="user", tolerance=11 * DAY - 1)
    return joined["send"].fillna(-1).to_numpy(np.int64)


def by_polars(left: Any, right: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot check the order by group
        joined = left.join_asof(right, on="t", by="user", strategy="backward", tolerance=11 * DAY - 1)
    return joined["send"].fill_null(-1).to_numpy()


def by_duckdb(left: pd.DataFrame, right: pd.DataFrame) -> Any:
    import duckdb

    assert len(left)
    assert len(right)
    query = f"""SELECT CASE WHEN l.t - r.t < {11 * DAY} THEN r.send ELSE -1 END AS send
                FROM bought l ASOF LEFT JOIN sent r ON l.user = r.user AND l.t >= r.t ORDER BY l.event"""
    with duckdb.connect() as connection:
        connection.register("bought", left)
        connection.register("sent", right)
        found = connection.execute(query).fetchnumpy()["send"]
    return np.asarray(np.ma.filled(found, -1), np.int64)


def timed(f: Callable[[], Any], runs: int = RUNS) -> tuple[float, Any]:
    f()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        out = f()
        times.append(time.perf_counter() - start)
    return statistics.median(times), out


def beside(n: int, m: int, users: int) -> None:
    import polars as pl

    sends, events = tables(n, m, users)
    left, right = frames(sends, events)
    pl_left, pl_right = pl.from_pandas(left), pl.from_pandas(right)
    columns = [getattr(t, f.name) for t in (sends, events) for f in fields(t)]
    size = sum(c.nbytes for c in columns)
    runs: dict[str, Callable[[], Any]] = {
        "copy of the input columns": lambda: [c.copy() for c in columns],
        "justai_sim attribute": lambda: ours(sends, events),
        "pandas merge_asof": lambda: by_pandas(left, right),
        "polars join_asof": lambda: by_polars(pl_left, pl_right),
        "duckdb ASOF JOIN": lambda: by_duckdb(left, right),
        "justai_sim surface 10 x 30": lambda: surface(sends, events),
    }
    found = {name: timed(f) for name, f in runs.items()}
    base, answer = found["justai_sim attribute"]
    print(f"{n:,} sends, {m:,} conversions, {users:,} users, 8 variants, in time order; medians of {RUNS}\n")
    print("| what | seconds | x attribute | answer |\n|---|---|---|---|")
    for name, (seconds, out) in found.items():
        said = "" if "copy" in name else ("equal" if _same(sends, events, out, answer) else "DIFFERENT")
        print(f"| {name} | {seconds:.3f} | {seconds / base:.2f} | {said} |")
    extra = memory(n, m, users)
    print(f"\ninput {size / 1e6:,.0f} MB; peak extra memory of one attribution {extra / 1e6:,.0f} MB")


def _same(sends: Sends, events: Events, out: Any, answer: Any) -> bool:
    if isinstance(out, np.ndarray):
        return np.array_equal(out, answer)
    as_of = START + SPAN + 40 * DAY
    checks = []
    for offset, lookback in ((0, 1), (0, 30), (3, 14), (9, 12), (9, 30)):
        rule = bind(Rule(offset_days=offset, lookback_days=lookback), templates=["t"], names=[])
        got = attribute(rule, sends, events, as_of).outcomes
        by_variant = np.bincount(sends.variant[got.send_row], got.weight / 1e9, 8)
        converted = np.bincount(sends.variant[got.send_row], got.weight > 0, 8)
        checks.append(np.array_equal(out.conversion_count[offset, lookback - 1].sum(0), by_variant))
        checks.append(np.array_equal(out.converted[offset, lookback - 1].sum(0), converted))
    return all(checks)


def memory(n: int, m: int, users: int) -> int:
    """Bytes by which the peak of a process grows in one attribution (compiled beforehand)."""
    code = (
        "import sys; sys.path[:0] = ['.', 'benchmarks']; import attribution as b\n"
        "small = b.tables(1000, 1000, 100); b.credited(*small)\n"
        f"big = b.tables({n}, {m}, {users})\n"
        "with open('/proc/self/clear_refs', 'w') as f:\n  f.write('5')\n"
        "hwm = lambda: int([x for x in open('/proc/self/status') if x.startswith('VmHWM')][0].split()[1]) * 1024\n"
        "before = hwm(); b.credited(*big); print(hwm() - before)"
    )
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def shapes() -> None:
    """Cliffs: seconds per million rows should stay within a small factor."""
    print("| log | rule | rows | seconds | us a row |\n|---|---|---|---|---|")

    def show(name: str, rule: str, sends: Sends, events: Events, runs: int = 3) -> None:
        seconds, _ = timed(lambda: credited(sends, events, credit=rule), runs)
        rows = len(sends) + len(events)
        print(f"| {name} | {rule} | {rows:,} | {seconds:.3f} | {seconds / rows * 1e6:.3f} |", flush=True)

    usual = tables(2_000_000, 400_000, 200_000)
    for rule in get_args(CreditRule):
        show("10 sends a user", rule, *usual)
    heavy = tables(2_000_000, 400_000, 4_000)
    for rule in ("last_qualifying", "last_then_check", "first_qualifying"):
        show("500 sends a user", rule, *heavy)
    few = tables(2_000_000, 20_000, 4_000)
    for rule in ("all", "all_variants", "linear", "time_decay", "position"):
        show("500 sends a user, 5 purchases", rule, *few)
    one = tables(1_000_000, 200_000, 1)
    for rule in ("last_qualifying", "last_then_check", "first_qualifying"):
        show("one user with 1 M sends", rule, *one)
    mixed = tables(2_000_000, 400_000, 200_000, ordered=False)
    for rule in ("last_qualifying", "linear"):
        show("unsorted", rule, *mixed)
    for n in (1, 2, 5, 10, 20, 50):
        sends, events = tables(n * 1_000_000 * 5 // 6, n * 1_000_000 // 6, n * 100_000)
        for rule in ("last_qualifying", "linear"):
            show(f"{n} M rows", rule, sends, events, 2)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("numbers", nargs="*", type=int, metavar="N", help="sends, conversions, users")
    p.add_argument("--shapes", action="store_true")
    given = p.parse_args()
    if given.shapes:
        return shapes()
    usual = (10_000_000, 2_000_000, 1_000_000)
    beside(*(given.numbers + list(usual[len(given.numbers) :])))
    return None


if __name__ == "__main__":
    main()

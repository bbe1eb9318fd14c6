"""Batch attribution beside the as-of joins that people write by hand: same arrays, same answer, ratios.

python benchmarks/attribution.py [sends] [conversions] [users]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.attribution import Rule, attribute, bind
from justai_sim.clock import DAY
from justai_sim.tables import CONVERSION, Events, Sends

RUNS = 5


def tables(n: int, m: int, users: int) -> tuple[Sends, Events]:
    """Sends and conversions in time order, uniform over 90 days and the users, 8 variants, one template."""
    rng = np.random.default_rng(1)
    start = 1_767_225_600_000_000
    sent = np.sort(rng.integers(0, 90 * DAY, n)) + start
    bought = np.sort(rng.integers(0, 90 * DAY, m)) + start
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


def ours(sends: Sends, events: Events) -> Any:
    bound = bind(Rule(), templates=["t"], names=[])
    got = attribute(bound, sends, events)
    out = np.full(len(events), -1, np.int64)
    out[got.credits.event_row] = sends.send[got.credits.send_row]
    return out


def by_pandas(left: pd.DataFrame, right: pd.DataFrame) -> Any:
    joined = pd.merge_asof(left, right, on="t", by="user", tolerance=11 * DAY - 1)
    return joined["send"].fillna(-1).to_numpy(np.int64)


def by_polars(left: Any, right: Any) -> Any:
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


def timed(f: Callable[[], Any]) -> tuple[float, Any]:
    f()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        out = f()
        times.append(time.perf_counter() - start)
    return statistics.median(times), out


def main() -> None:
    n, m, users = (int(a) for a in [*sys.argv[1:], *("10000000", "2000000", "1000000")[len(sys.argv) - 1 :]])
    sends, events = tables(n, m, users)
    left, right = frames(sends, events)
    runs: dict[str, Callable[[], Any]] = {
        "copy of the columns": lambda: [c.copy() for t in (left, right) for c in (t[k].to_numpy() for k in t)],
        "justai_sim": lambda: ours(sends, events),
        "pandas merge_asof": lambda: by_pandas(left, right),
        "duckdb ASOF JOIN": lambda: by_duckdb(left, right),
    }
    try:
        import polars as pl

        pl_left, pl_right = pl.from_pandas(left), pl.from_pandas(right)
        runs["polars join_asof"] = lambda: by_polars(pl_left, pl_right)
    except ModuleNotFoundError:
        print("polars is not installed: left out")
    found = {name: timed(f) for name, f in runs.items()}
    base, answer = found["justai_sim"]
    print(f"{n:,} sends, {m:,} conversions, {users:,} users; medians of {RUNS}")
    for name, (seconds, out) in found.items():
        equal = "" if name.startswith("copy") else ("equal" if np.array_equal(out, answer) else "DIFFERENT")
        print(f"{name:22} {seconds:8.3f} s  {seconds / base:7.2f}x of justai_sim  {equal}")


if __name__ == "__main__":
    main()

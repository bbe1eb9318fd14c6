"""A counter-example made as small as it goes: fewer rows, then plainer ones, then rounder and nearer times.

Hypothesis shrinks what it rolled; this works on the rows themselves and also finds what takes two changes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

from justai_sim.clock import DAY, HOUR, MINUTE, SECOND
from justai_sim.testing.rows import Row, SmallLog

TIMES = ("sent_at", "occurred_at", "received_at", "delivered_at", "status_known_at")
PLAIN: Row = {
    "received_at": None, "status_known_at": None, "delivered_at": None, "status": "sent", "value": None,
    "currency": "", "send_id": "", "order_id": "", "template_id": "", "variant_id": "", "machine": -1,
}  # fmt: skip
MOST = 2_000
"""Trials at most: a safeguard against functions that take long."""


def smallest(small: SmallLog, broken: Callable[[SmallLog], bool], start: int) -> SmallLog:
    """The smallest log reached from `small` by single steps for which `broken` still holds.

    `start`: the instant that counts as round and early.
    """
    left = MOST
    going = True
    while going:
        going = False
        now = size(small, start)
        for other in _steps(small, start):
            if size(other, start) >= now:
                continue
            left -= 1
            if left < 0:
                return small
            if broken(other):
                small, going = other, True
                break
    ordered = SmallLog(sorted(small.send_rows, key=_own), sorted(small.event_rows, key=_own))
    return _relabelled(ordered if broken(ordered) else small, broken)


def size(small: SmallLog, start: int) -> tuple[int, int, int, int]:
    """Rows; columns that say something; times off a whole day, finer ones counting more; how far they reach."""
    rows = [*small.send_rows, *small.event_rows]
    said = sum(_says(row) for row in rows) + len({(r.get("template_id")) for r in small.send_rows})
    times = [row[k] for row in rows for k in TIMES if row.get(k) is not None]
    rough = sum(sum(t % unit != 0 for unit in (DAY, HOUR, MINUTE, SECOND)) for t in times)
    first = min(times, default=start)
    return len(rows), said, rough, sum(t - first for t in times) + abs(first - start)


def _says(row: Row) -> int:
    fields = ["received_at", "value", "currency", "machine", "status", "status_known_at", "delivered_at"]
    if "event_id" in row:
        fields += ["send_id", "order_id", "template_id", "variant_id"]
    more = int(row["value"] not in (None, 20_000_000)) if "event_id" in row else int(row["variant_id"] != "A")
    return more + sum(k in row and row[k] != PLAIN[k] for k in fields) + int(row["user_id"] != "u1")


def _steps(small: SmallLog, start: int) -> Iterator[SmallLog]:
    rows = [*small.send_rows, *small.event_rows]
    n = len(small.send_rows)

    def log(changed: list[Row | None]) -> SmallLog:
        return SmallLog([r for r in changed[:n] if r is not None], [r for r in changed[n:] if r is not None])

    for some in [*((i,) for i in range(len(rows))), *combinations(range(len(rows)), 2)]:
        yield log([None if i in some else row for i, row in enumerate(rows)])
    first = min((_own(row) for row in rows), default=start)
    yield log([_moved(row, start - first) for row in rows])
    users = sorted({str(row["user_id"]) for row in rows} - {"u1"})
    for user in users:
        yield log([row | {"user_id": "u1"} if row["user_id"] == user else row for row in rows])
    for i, row in enumerate(rows):
        for change in _plainer(row, start):
            yield log([row | change if j == i else other for j, other in enumerate(rows)])
    for i, j in combinations(range(len(rows)), 2):
        for step in (-7 * DAY, -DAY):
            yield log([_moved(r, step) if k in (i, j) else r for k, r in enumerate(rows)])


def _own(row: Row) -> int:
    return int(row["sent_at"] if "sent_at" in row else row["occurred_at"])


def _moved(row: Row, by: int) -> Row:
    return row | {k: row[k] + by for k in TIMES if row.get(k) is not None}


def _plainer(row: Row, start: int) -> Iterator[Row]:
    for k, plain in PLAIN.items():
        id_of_send = "sent_at" in row and k in ("send_id", "template_id", "variant_id")
        needed = k == "send_id" and row["user_id"] == ""  # a row that names neither cannot be read
        if k in row and not id_of_send and not needed and row[k] != plain:
            yield {k: plain}
    if "sent_at" in row:
        yield {"variant_id": "A"}
        yield {"template_id": "T1"}
    elif row["value"] is not None:
        yield {"value": 20_000_000}
    for k in TIMES:
        if row.get(k) is None:
            continue
        for unit in (DAY, HOUR, MINUTE, SECOND):
            yield {k: row[k] - (row[k] - start) % unit}
            yield {k: row[k] - (row[k] - start) % unit + unit}
        for step in (7 * DAY, DAY, HOUR):
            yield {k: row[k] - step}
            if k != "received_at" and row.get("received_at") is not None:
                yield _moved(row, -step)


def _relabelled(small: SmallLog, broken: Callable[[SmallLog], bool]) -> SmallLog:
    """Ids counted from 1 in the order of time, where that breaks the law as well."""
    names: dict[str, dict[str, str]] = {"send_id": {}, "event_id": {}}
    for column, prefix, rows in (("send_id", "S", small.send_rows), ("event_id", "e", small.event_rows)):
        for row in sorted(rows, key=_own):
            names[column].setdefault(row[column], f"{prefix}{len(names[column]) + 1}")

    def named(row: Row) -> Row:
        return row | {k: names[k].get(row[k], row[k]) for k in names if k in row}

    other = SmallLog([named(r) for r in small.send_rows], [named(r) for r in small.event_rows])
    return other if broken(other) else small

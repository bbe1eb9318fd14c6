"""The ledger's door: rows are checked when they come, and wait until their time."""

from __future__ import annotations

import numpy as np

from justai_sim import clock
from justai_sim.attribution.events import Bound
from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.tables import B1, I8, KINDS, STATUSES, Array, Column, Events, Sends

Columns = dict[str, Array]

SEND_COLUMNS = (
    "rep", "send", "user", "template", "variant", "sent_at", "delivered_at", "status", "status_known_at", "received_at",
)  # fmt: skip
EVENT_COLUMNS = (
    "rep", "event", "user", "kind", "machine", "name", "currency", "send", "order", "template", "variant",
    "occurred_at", "received_at", "value",
)  # fmt: skip


def heard(received: I8, now: int) -> B1:
    """Which rows are known at `now`."""
    return received <= now


class Inbox:
    """Rows of one table, numbered as they come; `take(now)` hands over those received by then."""

    def __init__(self, schema: tuple[Column, ...], columns: tuple[str, ...], own: str) -> None:
        types = {c.name: c.dtype for c in schema}
        self.types = {c: types[c] for c in columns} | {"serial": "int64"}
        self.own = own
        self.fresh: list[Columns] = []
        self.waiting: Columns = self.empty()
        """By rising `received_at`, then `serial`."""
        self.count = 0

    def empty(self) -> Columns:
        return {c: np.zeros(0, t) for c, t in self.types.items()}

    def __len__(self) -> int:
        return sum(len(c["serial"]) for c in self.fresh) + len(self.waiting["serial"])

    def add(self, table: Sends | Events) -> None:
        n = len(table)
        rows = {c: getattr(table, c).copy() for c in self.types if c != "serial"}
        self.fresh.append(rows | {"serial": np.arange(self.count, self.count + n)})
        self.count += n

    def settled_in(self) -> Columns:
        """All rows that wait, with nothing fresh: times completed, the future clamped (rule 3)."""
        if self.fresh:
            rows = _joined(self.fresh)
            self.fresh = []
            own, received = rows[self.own], rows["received_at"]
            received = np.where(received == MISSING, own, received)
            rows |= {"received_at": received, self.own: np.minimum(own, received)}
            if "status_known_at" in rows:
                known = rows["status_known_at"]
                rows["status_known_at"] = np.where(known == MISSING, received, known)
            return rows
        return self.empty()

    def take(self, now: int) -> Columns:
        """Rows received by `now`, by rising serial."""
        rows = self.settled_in()
        known = heard(rows["received_at"], now)
        if not known.all():
            self._wait({c: a[~known] for c, a in rows.items()})
            rows = {c: a[known] for c, a in rows.items()}
        due = int(heard(self.waiting["received_at"], now).sum()) if len(self.waiting["serial"]) else 0
        if due:
            rows = _joined([{c: a[:due] for c, a in self.waiting.items()}, rows])
            self.waiting = {c: a[due:] for c, a in self.waiting.items()}
            order = np.argsort(rows["serial"])
            rows = {c: a[order] for c, a in rows.items()}
        return rows

    def _wait(self, rows: Columns) -> None:
        rows = _joined([self.waiting, rows])
        order = np.lexsort((rows["serial"], rows["received_at"]))
        self.waiting = {c: a[order] for c, a in rows.items()}

    def arrays(self) -> Columns:
        """Everything, in one order whatever the batches were."""
        if self.fresh:
            self._wait(self.settled_in())
        return self.waiting | {"count": np.array([self.count])}

    def restore(self, arrays: Columns) -> None:
        self.count = int(arrays["count"][0])
        self.waiting = {c: arrays[c] for c in self.types}


def _joined(parts: list[Columns]) -> Columns:
    return parts[0] if len(parts) == 1 else {c: np.concatenate([p[c] for p in parts]) for c in parts[0]}


def sends_inbox() -> Inbox:
    return Inbox(Sends.SCHEMA, SEND_COLUMNS, "sent_at")


def events_inbox() -> Inbox:
    return Inbox(Events.SCHEMA, EVENT_COLUMNS, "occurred_at")


FAR = 1 << 62
NOTHING = (1 << 63) - 1
"""In place of the value that says missing where none does."""
TIMES = (clock.EARLIEST, clock.LATEST)


class Door:
    """What rows may say under a bound rule; called with rows that may not, it raises DataError."""

    def __init__(self, bound: Bound) -> None:
        templates = min(len(bound.goal), len(bound.scope))
        self.sends = _grouped(Sends, {
            "user": (0, FAR, NOTHING), "send": (0, FAR, NOTHING), "template": (0, templates, NOTHING),
            "variant": (-FAR, FAR, NOTHING), "sent_at": (*TIMES, NOTHING), "received_at": (*TIMES, MISSING),
            "delivered_at": (*TIMES, MISSING), "status_known_at": (*TIMES, MISSING),
            "rep": (0, 1 << 28, NOTHING), "status": (0, len(STATUSES), NOTHING),
        })  # fmt: skip
        self.events = _grouped(Events, {
            "user": (-FAR, FAR, NOTHING), "event": (-FAR, FAR, NOTHING), "name": (-1, bound.goal.shape[1] - 1, NOTHING),
            "currency": (-1, len(bound.rate) - 1, NOTHING), "send": (-FAR, FAR, NOTHING),
            "order": (-FAR, FAR, NOTHING), "template": (-(1 << 31), 1 << 31, NOTHING), "variant": (-FAR, FAR, NOTHING),
            "occurred_at": (*TIMES, NOTHING), "received_at": (*TIMES, MISSING),
            "value": (1 - NOTHING, NOTHING, MISSING), "rep": (0, 1 << 28, NOTHING), "kind": (0, len(KINDS), NOTHING),
        })  # fmt: skip

    def __call__(self, sends: Sends, events: Events) -> None:
        from justai_sim.attribution import ledger_kernel as k

        for table, groups in ((sends, self.sends), (events, self.events)):
            for names, low, high, missing in groups if len(table) else ():
                c, row = k.outside(tuple([getattr(table, name) for name in names]), low, high, missing)
                if c >= 0:
                    _refuse(table, names[c], row, int(low[c]), int(high[c]))


Group = tuple[list[str], I8, I8, I8]


def _grouped(table: type[Sends] | type[Events], limits: dict[str, tuple[int, int, int]]) -> list[Group]:
    """(columns, low, high, missing) of the columns of each dtype."""
    out = []
    for dtype in ("int64", "int32", "int8"):
        names = [c.name for c in table.SCHEMA if c.name in limits and c.dtype == dtype]
        low, high, missing = (np.array(x) for x in zip(*(limits[c] for c in names), strict=True))
        out.append((names, low, high, missing))
    return out


def _refuse(table: Sends | Events, column: str, row: int, low: int, high: int) -> None:
    value = int(getattr(table, column)[row])
    where = f"{type(table).__name__.lower()}.{column}, row {row}"
    if column.endswith("_at"):
        raise DataError(f"{where}: time {value} lies outside 1970..2100; expected microseconds since the epoch, UTC")
    raise DataError(f"{where}: found {value}, expected at least {low} and less than {high}")

"""Wire mode: every row goes through its provider's payload and back before production sees it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np

from justai_sim.clock import DAY, MISSING
from justai_sim.errors import JustaiError
from justai_sim.esp.base import Adapter
from justai_sim.esp.payloads import order_of_arrival
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.loop.step import Batch
from justai_sim.tables import (
    CONVERSION,
    HELD_OUT,
    I4,
    I8,
    KINDS,
    NONE,
    STATUSES,
    Array,
    Codes,
    Decisions,
    Events,
    Log,
    Sends,
)
from justai_sim.world.codes import purchase_code
from justai_sim.world.faults import Carried

_NAMED = ("user", "template", "variant")


def carried_by(adapter: Adapter, codes: dict[str, Codes], name: int) -> Carried:
    """What comes back of a purchase of that name when the provider's payload of it is read."""
    probe = Events.build(
        2, event=purchase_code(np.arange(2), 0, 0), user=[0, NONE], kind=CONVERSION, name=name, value=10_000_000,
        currency=0, order=0, occurred_at=DAY, received_at=DAY,
    )  # fmt: skip
    rows = Rows()
    for received, body in adapter.render(Log(Sends.empty(), probe, Decisions.empty(), codes)):
        adapter.parse(body, rows, "probe", received)
    whole = rows.events[0]
    return Carried(whole.value != MISSING, bool(whole.order_id), len(rows.events) == 2)


class Told:
    """Codes that remember the texts that were asked for, so that what comes back is told by its text alone."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        self.known: dict[str, int] = {"": NONE}

    def __len__(self) -> int:
        return len(self.codes)

    def text(self, codes: Array) -> list[str]:
        texts = self.codes.text(codes)
        self.known.update(zip(texts, codes.tolist(), strict=True))
        return texts

    def code(self, texts: Iterable[str]) -> I8:
        """KeyError for a text that never went out."""
        return np.array([*map(self.known.__getitem__, texts)], np.int64)

    def forget(self) -> None:
        self.known = {"": NONE}


class Wire:
    """Carries batches through an adapter and keeps the arrival journal: (received_at, body) per world."""

    def __init__(self, adapter: Adapter, codes: dict[str, Codes], reps: int, keep: bool) -> None:
        self.adapter, self.keep = adapter, keep
        self.told = {space: Told(c) for space, c in codes.items()}
        self.journal: list[list[tuple[int, bytes]]] = [[] for _ in range(reps)]
        self.payloads = 0

    def carry(self, batch: Batch, origin: I8) -> tuple[Batch, I8]:
        """The batch as production reads it from the provider's bytes, and the origins of its events."""
        with _no_collector():
            return self._carried(batch, origin)

    def _carried(self, batch: Batch, origin: I8) -> tuple[Batch, I8]:
        ghost = batch.sends.status == HELD_OUT  # the provider never hears of them: they come from the decision log
        ghosts, sends, events = batch.sends.take(ghost), batch.sends.take(~ghost), batch.events
        if not len(sends) and not len(events):
            return Batch(ghosts, events), origin
        # A body a row, in the order of receipt: so what is read lies in that order too, and we know whose it is.
        _, order = order_of_arrival(Log(sends, events, Decisions.empty(), {}))
        of_sends, of_events = order[order < len(sends)], order[order >= len(sends)] - len(sends)
        sends, events = sends.take(of_sends), events.take(of_events)
        rows = self._through(Log(sends, events, Decisions.empty(), dict(self.told)))
        read = self._sends(rows.sends, sends)
        if len(ghosts):
            read = Sends.concat([read, ghosts])
        found = self._events(rows.events, events.rep)
        for told in self.told.values():
            told.forget()
        return Batch(read, found), origin[of_events]

    def _through(self, log: Log) -> Rows:
        rows, parse = Rows(), self.adapter.parse
        bodies = list(self.adapter.render(log))
        for received, body in bodies:
            parse(body, rows, "a payload", received)
        if rows.rejects or len(rows.sends) != len(log.sends) or len(rows.events) != len(log.events):
            first = rows.rejects[0].message if rows.rejects else f"skipped {dict(rows.skipped)}"
            raise JustaiError(f"{self.adapter.name}: a rendered payload did not come back: {first}")
        self.payloads += len(bodies)
        if self.keep:
            rep = np.concatenate([log.sends.rep, log.events.rep])[order_of_arrival(log)[1]]
            for r, told in zip(rep.tolist(), bodies, strict=True):
                self.journal[r].append(told)
        return rows

    def _sends(self, rows: list[SendRow], sent: Sends) -> Sends:
        c = _columns(rows, SendRow)
        send, rep = self.told["send"].code(c["send_id"]), sent.rep
        # Payloads carry neither propensities, segments nor decision times: they come from the decision log.
        decision: Any = slice(None)
        if not np.array_equal(send, sent.send):
            size = len(self.told["send"])
            known, key = (a + rep.astype(np.int64) * size for a in (sent.send, send))
            order = np.argsort(known, kind="stable")
            decision = order[np.searchsorted(known, key, sorter=order)]
        return Sends.build(
            len(rows), send=send, rep=rep, **{name: self.told[name].code(c[f"{name}_id"]) for name in _NAMED},
            sent_at=c["sent_at"], status=[STATUSES.index(s) for s in c["status"]], received_at=c["received_at"],
            decided_at=sent.decided_at[decision], propensity=sent.propensity[decision], segment=sent.segment[decision],
        )  # fmt: skip

    def _events(self, rows: list[EventRow], rep: I4) -> Events:
        c = _columns(rows, EventRow)
        return Events.build(
            len(rows), rep=rep, kind=[KINDS.index(k) for k in c["kind"]], event=self.told["event"].code(c["event_id"]),
            user=self.told["user"].code(c["user_id"]), name=self.told["name"].code(c["name"]),
            occurred_at=c["occurred_at"], received_at=c["received_at"], value=c["value"], machine=c["machine"],
            currency=self.told["currency"].code(c["currency"]), send=self.told["send"].code(c["send_id"]),
            order=self.told["order"].code(c["order_id"]),
        )  # fmt: skip


def _columns(rows: list[Any], kind: type[Any]) -> dict[str, Sequence[Any]]:
    """Rows by the names of their columns."""
    return dict(zip(kind._fields, zip(*rows, strict=True) if rows else repeat(()), strict=False))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Python's search for circles is off: it would walk all the texts and rows of a tick, which have none."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()

"""Wire mode: every row goes through its provider's payload and back before production sees it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from justai_sim.clock import DAY, MISSING
from justai_sim.errors import JustaiError
from justai_sim.esp.base import Adapter
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.loop.step import Batch
from justai_sim.tables import (
    CONVERSION,
    HELD_OUT,
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


class Wire:
    """Carries batches through an adapter and keeps the arrival journal: (received_at, body) per world."""

    def __init__(self, adapter: Adapter, codes: dict[str, Codes], reps: int, keep: bool) -> None:
        self.adapter, self.codes, self.keep = adapter, codes, keep
        self.journal: list[list[tuple[int, bytes]]] = [[] for _ in range(reps)]
        self.payloads = 0

    def carry(self, batch: Batch, origin: I8) -> tuple[Batch, I8]:
        """The batch as production reads it from the provider's bytes, and the origins of its events."""
        parts = [self._one(batch, rep) for rep in range(len(self.journal))]
        # A body a row, in the order of receipt: so the origins lie in that order too.
        order = np.lexsort((batch.events.received_at, batch.events.rep))
        read = Batch(Sends.concat([p.sends for p in parts]), Events.concat([p.events for p in parts]))
        return read, origin[order]

    def _one(self, batch: Batch, rep: int) -> Batch:
        sends = batch.sends.take(batch.sends.rep == rep)
        ghost = sends.status == HELD_OUT  # the provider never hears of them: they come from the decision log
        ghosts, sends = sends.take(ghost), sends.take(~ghost)
        events = batch.events.take(batch.events.rep == rep)
        if not len(sends) and not len(events):
            return Batch(ghosts, Events.empty())
        log = Log(sends, events, Decisions.empty(), self.codes)
        rows = Rows()
        for received, body in self.adapter.render(log):
            self.payloads += 1
            if self.keep:
                self.journal[rep].append((received, body))
            self.adapter.parse(body, rows, f"payload {self.payloads}", received)
        if rows.rejects or len(rows.sends) != len(sends) or len(rows.events) != len(events):
            first = rows.rejects[0].message if rows.rejects else f"skipped {dict(rows.skipped)}"
            raise JustaiError(f"{self.adapter.name}: a rendered payload did not come back: {first}")
        read = self._sends(rows.sends, sends, rep)
        return Batch(Sends.concat([read, ghosts]) if len(ghosts) else read, self._events(rows.events, events, rep))

    def _interned(self, space: str, codes: Iterable[Array], texts: list[str]) -> Array:
        """Codes of texts that came back, among the codes that went out."""
        out = np.unique(np.concatenate(list(codes)))
        index = dict(zip(self.codes[space].text(out), out.tolist(), strict=True))
        index[""] = NONE
        return np.array([index[t] for t in texts], np.int64)

    def _sends(self, rows: list[SendRow], sent: Sends, rep: int) -> Sends:
        # Payloads carry neither propensities, segments nor decision times: they come from the decision log.
        send = self._interned("send", [sent.send], [r.send_id for r in rows])
        at = np.argsort(sent.send)
        decision = at[np.searchsorted(sent.send[at], send)]
        return Sends.build(
            len(rows), send=send, rep=rep,
            user=self._interned("user", [sent.user], [r.user_id for r in rows]),
            template=self._interned("template", [sent.template], [r.template_id for r in rows]),
            variant=self._interned("variant", [sent.variant], [r.variant_id for r in rows]),
            sent_at=[r.sent_at for r in rows], status=[STATUSES.index(r.status) for r in rows],
            received_at=[r.received_at for r in rows],
            decided_at=sent.decided_at[decision], propensity=sent.propensity[decision], segment=sent.segment[decision],
        )  # fmt: skip

    def _events(self, rows: list[EventRow], told: Events, rep: int) -> Events:
        return Events.build(
            len(rows), rep=rep, kind=[KINDS.index(r.kind) for r in rows],
            event=self._interned("event", [told.event], [r.event_id for r in rows]),
            user=self._interned("user", [told.user], [r.user_id for r in rows]),
            name=self._interned("name", [told.name], [r.name for r in rows]),
            occurred_at=[r.occurred_at for r in rows], received_at=[r.received_at for r in rows],
            value=[r.value for r in rows], machine=[r.machine for r in rows],
            currency=self._interned("currency", [told.currency], [r.currency for r in rows]),
            send=self._interned("send", [told.send], [r.send_id for r in rows]),
            order=self._interned("order", [told.order], [r.order_id for r in rows]),
        )  # fmt: skip

"""What an organisation has told us so far, as one log: a pure function of the journal and the decisions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from justai_sim import clock
from justai_sim.attribution import bind
from justai_sim.clock import MISSING
from justai_sim.esp.base import adapter
from justai_sim.esp.coding import build, note_texts, text_schema, text_tables
from justai_sim.esp.plain import Where
from justai_sim.esp.rows import DecisionRow, Rows
from justai_sim.loop.program import Program
from justai_sim.loop.replay import stepped, with_decisions
from justai_sim.loop.step import Machine, Tick
from justai_sim.service.store import Arrival, Decision, Store
from justai_sim.tables import Log

_ZONE_OPTION = f", or the zone named with {Where.option}"
"""What the adapters of files advise for a time without an offset."""


def read_arrival(arrival: Arrival) -> Rows:
    """The rows of one body, all received when the body was: a body cannot say when we heard of it."""
    rows = Rows()
    try:
        adapter(arrival.esp).parse(arrival.body, rows, f"arrival {arrival.serial}", arrival.received_at)
    except Exception as e:
        # An adapter's bug must cost neither the answer to this body nor the reading of the journal's others.
        rows = Rows()
        rows.reject(f"arrival {arrival.serial}", "unreadable", f"the adapter {arrival.esp} failed on it: {e!r}")
    # A webhook has no command line to name a zone with.
    rows.rejects = [r._replace(message=r.message.replace(_ZONE_OPTION, "; write one")) for r in rows.rejects]
    at = arrival.received_at
    rows.sends = [r._replace(received_at=at) for r in rows.sends]
    rows.events = [r._replace(received_at=at) for r in rows.events]
    return rows


class Book:
    """One organisation's journal and decisions, read as they come. Not thread-safe: the engine locks it."""

    def __init__(self, store: Store, org: str) -> None:
        self.store, self.org = store, org
        self.arrival = self.decision = 0
        """Serials read so far."""
        self.tables = {n: text_schema(n).empty_table() for n in ("sends", "events", "decisions")}
        self.heard: list[int] = []
        """When we knew of each decision, microseconds."""
        self.rejects: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self._log: Log | None = None

    def log(self) -> Log:
        """Everything stored; new rows are read first."""
        seen = (self.arrival, self.decision)
        self._read()
        if self._log is None or seen != (self.arrival, self.decision):
            self._log = build(
                self.tables, f"store of {self.org}", note_texts(self.notes), rejects=self.rejects, skipped=self.skipped
            )
        return self._log

    def _read(self) -> None:
        new, heard, arrival, decision = Rows(), list[int](), self.arrival, self.decision
        for a in self.store.arrivals(self.org, arrival):
            found = read_arrival(a)
            arrival = a.serial
            heard += [a.received_at] * len(found.decisions)
            for name in ("sends", "events", "decisions", "rejects"):
                getattr(new, name).extend(getattr(found, name))
            new.skipped.update(found.skipped)
            new.notes.update(found.notes)
        for serial, d in self.store.decisions(self.org, decision):
            decision = serial
            new.decisions.append(_row(d))
            heard.append(d.decided_at)
        made = text_tables(new) if len(new) else {}
        for name, table in made.items():
            self.tables[name] = pa.concat_tables([self.tables[name], table]).combine_chunks()
        # Only now: a scan that failed half-way is read again.
        self.arrival, self.decision = arrival, decision
        self.heard += heard
        self.rejects.update(r.reason for r in new.rejects)
        self.skipped.update(new.skipped)
        self.notes.update(new.notes)
        assert len(self.heard) == self.tables["decisions"].num_rows, "a decision was refused after it was read"

    def start(self, log: Log, lateness: int, now: int) -> int:
        """t_0: the UTC midnight of the first decision, or of the first send without one; of `now` if there is none.

        A row that comes later than the rule still looks at does not move the grid.
        """
        sends, decisions = with_decisions(log.sends, log.decisions), log.decisions
        sent = np.where(sends.decided_at == MISSING, sends.sent_at, sends.decided_at)
        sent = sent[sends.received_at - sent <= lateness]
        decided = decisions.decided_at[np.array(self.heard, np.int64) - decisions.decided_at <= lateness]
        return clock.midnight(min([now, *(int(t.min()) for t in (sent, decided) if len(t))]))

    def at(self, log: Log, now: int) -> Log:
        """The rows known at `now`, sends joined with the decisions known then."""
        decisions = log.decisions.take(np.array(self.heard, np.int64) <= now)
        sends = with_decisions(log.sends.take(log.sends.received_at <= now), decisions)
        events = log.events.take(log.events.received_at <= now)
        return Log(sends, events, decisions, log.codes, log.notes, log.source, log.rejects, log.skipped)


def _row(d: Decision) -> DecisionRow:
    return DecisionRow(
        d.decision_id, d.user_id, d.template_id, d.variant_id, d.decided_at, d.propensity, d.mode, d.segment
    )


def refresh(program: Program, known: Log, start: int, now: int) -> tuple[Tick, dict[str, int], tuple[str, ...]]:
    """The refresh at `now` from the rows known then, the row of each of the program's templates in it, and the
    segments that it tells apart.

    One step over all rows: a tally is a snapshot of the rows known, so that the shares are those that a
    step at every refresh before would have led to. With `shipping` every refresh is gone through again.
    """
    templates, variants = known.names("template"), known.names("variant")
    # What the log has not seen yet comes behind, so that its codes stay.
    templates += sorted({t.id for t in program.templates} - set(templates))
    variants += sorted({v for t in program.templates for v in t.variants} - set(variants))
    names, currencies = known.names("name"), known.names("currency")
    goals = program.goals or None
    bound = bind(program.rule, templates=templates, names=names, currencies=currencies, goals=goals)
    machine = Machine.of(program, bound, templates, variants, known.names("segment"))
    # What is shipped or archived depends on every refresh before.
    times = np.array([now]) if program.shipping is None else np.arange(start, now + 1, program.refresh)
    tick = stepped(machine, known.sends, known.events, times, start)[1][-1]
    return tick, {t.id: templates.index(t.id) for t in program.templates}, machine.segments

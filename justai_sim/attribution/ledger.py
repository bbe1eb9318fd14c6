"""The streaming door: rows in batches of any size and order, credits out as signed changes.

After any sequence of `ingest` and `settle` the running sum of all changes is `attribute(bound, rows received by now,
as_of=now).credits`, and the last reason told of each event is its reason there: for every rule, to the last part of
1e9. The same `attribute` does the work, on the rows of the users of whom something new was heard.

What it keeps. A row is *open* while a row that arrives in time can still change what became of it: a send until its
windows have closed and the lateness is over, an event until the lateness after it is over (rule 33). After that it is
kept for `memory_days` more, aside, and costs nothing until a row refers to it: a copy of its id or order, a refund, an
event that names it, a status, a row handed over after the settle that should have had it. Then it is *forgotten*.
The law above is exact as long as nothing refers to a forgotten row. Where something does:

* a copy of a forgotten event or order is a new event; a copy of a forgotten send is a new send;
* the refund of a forgotten order is `refund_without_order`, which is what the rule says anyway beyond the refund
  horizon, the least that `memory_days` may be;
* an event that names a forgotten send names an unknown one: a conversion falls back to the join, engagement is
  `unknown_send`;
* credits and reasons of forgotten events stand as they were last told;
* that a user has had sends whose windows are over is never forgotten (8 bytes a user), so `past_lookback` stays
  `past_lookback`; only for an event that names a template or variant without a send it may become `no_send`;
* a send that was told as final stays told, also where a bounce becomes known only after that and takes its credits;
* an event handed over only when it would itself be forgotten already is `too_late`, whenever it was received;
* with `repeat="once_per_user"` a conversion is the first again once those before it are forgotten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from justai_sim import clock
from justai_sim.attribution import ledger_file
from justai_sim.attribution.events import Bound
from justai_sim.attribution.ledger_agenda import Agenda
from justai_sim.attribution.ledger_inbox import Columns, Door, events_inbox, sends_inbox
from justai_sim.attribution.ledger_rows import Goals, Run, attributed, forgotten_at, open_until
from justai_sim.attribution.ledger_store import (
    DEEP,
    DIRTY,
    GHOST,
    NO_ANCHOR,
    PLAIN,
    SEVERAL,
    UNREACHED,
    Store,
    roomy,
)
from justai_sim.attribution.ledger_tables import Changes, Finals, Memory, Reasons, Settlement
from justai_sim.attribution.outcomes import close_of
from justai_sim.attribution.prepare import SKEW
from justai_sim.clock import DAY, MISSING
from justai_sim.errors import DataError, UsageError
from justai_sim.tables import B1, BOUNCED, CONVERSION, I4, I8, PARTS, REASON, SUPPRESSED, Events, Sends

NEVER = -(1 << 62)
"""Before every settle."""


class Ledger:
    """See `open_ledger`. Not safe for use by several threads at once."""

    def __init__(self, bound: Bound, memory_days: float) -> None:
        self.bound, self.memory_days = bound, memory_days
        self._memory = clock.days(memory_days)
        self._store = Store()
        self._door = Door(bound)
        self._in_sends, self._in_events = sends_inbox(), events_inbox()
        self._finals, self._statuses = Agenda(), Agenda()
        self._settled = self._swept = self._next_sweep = NEVER
        rule = bound.rule
        self._lateness = clock.days(rule.lateness_days)
        self._engagement = clock.days(rule.engagement_lookback_days)
        slack = 3 * DAY if rule.day_rule == "calendar" else 0
        self._anchored = rule.anchor in ("opened", "clicked")
        self._span = max(rule.upper, self._engagement) + slack
        self._extra = SKEW + self._engagement + rule.upper + slack if self._anchored else 0
        self._goals = Goals(bound)
        self._broken = False

    # -- in -------------------------------------------------------------------------------------------

    def ingest(self, sends: Sends | None = None, events: Events | None = None) -> None:
        """Take rows; any number, any order, late or again. They are looked at by the next `settle`.

        Rows received after that settle wait for theirs. DataError for times outside 1970..2100 and codes that the
        rule is not bound to: then nothing of the batch is taken.
        """
        sends = Sends.empty() if sends is None else sends
        events = Events.empty() if events is None else events
        self._door(sends, events)
        if len(sends):
            self._in_sends.add(sends)
        if len(events):
            self._in_events.add(events)

    def _check_whole(self) -> None:
        if self._broken:
            raise UsageError("a settle of this ledger failed half-way: load what was last saved")

    # -- out ------------------------------------------------------------------------------------------

    def settle(self, now: int) -> Settlement:
        """Everything received by `now` (microseconds) is taken in. UsageError if `now` lies before the last settle."""
        clock.checked(now)
        if now < self._settled:
            raise UsageError(f"settle({clock.iso(now)}) goes back: the last settle was at {clock.iso(self._settled)}")
        self._check_whole()
        self._broken = True  # until this has gone well
        found = self._settle(now)
        self._broken = False
        return found

    def _settle(self, now: int) -> Settlement:
        from justai_sim.attribution import ledger_kernel as k

        st = self._store
        sends, events = self._in_sends.take(now), self._in_events.take(now)
        st.reserve(len(sends["send"]), len(events["event"]))
        touched = [self._enter_sends(sends, now)]
        nodes, reasons = self._enter_events(events)
        woken = st.ids.account[self._statuses.due(now)]
        due = self._finals.due(now)
        if self.bound.rule.repeat == "once_per_user":
            woken = np.concatenate([woken, st.ids.account[due]])
        k.wake(st.accounts, woken, DEEP | DIRTY)
        roots = k.roots(st.accounts, np.concatenate([*touched, nodes, woken]))
        numerator = st.ids.weight[:0], st.ids.weight[:0]
        changes = Changes.empty()
        if len(roots):
            run = self._run(roots, now)
            numerator = self._learn(run)
            changes, more = self._book(run)
            reasons = Reasons.concat([reasons, more])
        final = self._final(np.concatenate([due, self._finals.due(now)]), now, numerator)
        self._settled = now
        self._sweep(now)
        return Settlement(now, changes, final, reasons.take(np.argsort(reasons.serial, kind="stable")))

    def _enter_sends(self, c: Columns, now: int) -> I4:
        """Store send rows; returns the accounts they touch."""
        from justai_sim.attribution import ledger_kernel as k

        st, rule = self._store, self.bound.rule
        if not len(c["send"]):
            return np.zeros(0, np.int32)
        in_time = c["received_at"] - c["sent_at"] <= self._lateness
        if not in_time.all():  # as if never heard of (rule 33)
            c = {name: a[in_time] for name, a in c.items()}
        sent = c["sent_at"]
        last = sent  # the latest anchor that the send can get without an event that names it
        if rule.anchor == "delivered":
            last = np.maximum(sent, c["delivered_at"])
        elif self._anchored:
            last = sent + self._engagement
        close = close_of(rule, last)
        until = open_until(np.maximum(close, sent + self._engagement), self._lateness)
        final_at = close + self._lateness if rule.anchor == "sent" else np.full(len(sent), MISSING)
        before = int(st.n[2])
        touched = np.empty(len(sent), np.int32)
        k.enter_sends(
            st.accounts, st.ids, st.sends, st.events, st.n, st.account_slot, st.id_slot, self._settled, touched,
            c["rep"], c["send"], c["user"], c["template"], c["variant"], sent, c["delivered_at"], c["status"],
            c["status_known_at"], c["received_at"], until, final_at,
        )  # fmt: skip
        new = np.arange(before, int(st.n[2]))
        ids = st.sends.id[new]
        first = ids[st.ids.row[ids] == new]
        self._finals.add(first.astype(np.int64), st.ids.final_at[first])
        status, known = st.sends.status[new], st.sends.status_known_at[new]
        later = (status >= BOUNCED) & (status <= SUPPRESSED) & (known > now)
        self._statuses.add(ids[later].astype(np.int64), known[later])
        return touched

    def _enter_events(self, c: Columns) -> tuple[I4, Reasons]:
        """Store event rows; returns the accounts they touch, and the reasons of those that need no looking at."""
        from justai_sim.attribution import ledger_kernel as k

        st, rule = self._store, self.bound.rule
        if not len(c["event"]):
            return np.zeros(0, np.int32), Reasons.empty()
        late = c["received_at"] - c["occurred_at"] > self._lateness
        # Handed over when all that it belongs to is forgotten: the stand-ins of closed sends lie later.
        late |= forgotten_at(open_until(c["occurred_at"], self._lateness), self._memory) <= self._settled
        told = [self._plain_reasons(c, late, "too_late")]
        if late.any():
            c = {name: a[~late] for name, a in c.items()}
        until = open_until(c["occurred_at"], self._lateness)
        touched = np.empty(len(until), np.int32)
        k.enter_events(
            st.accounts, st.ids, st.sends, st.events, st.n, st.account_slot, st.id_slot, st.prints,
            self._settled, self._anchored or rule.anchor == "delivered", rule.anchor == "delivered",
            rule.explicit == "ignore", touched, c["serial"], c["rep"], c["event"], c["user"], c["kind"], c["machine"],
            c["name"], c["currency"], c["send"], c["order"], c["template"], c["variant"], c["occurred_at"],
            c["received_at"], c["value"], until,
        )  # fmt: skip
        told.append(self._plain_reasons(c, touched < 0, "duplicate"))
        return touched, Reasons.concat([t for t in told if len(t)])

    @staticmethod
    def _plain_reasons(c: Columns, which: B1, reason: str) -> Reasons:
        rows = np.flatnonzero(which)
        return Reasons.build(
            len(rows), rep=c["rep"][rows], user=np.maximum(c["user"][rows], -1), event=c["event"][rows],
            serial=c["serial"][rows], reason=REASON[reason],
        )  # fmt: skip

    # -- the work -------------------------------------------------------------------------------------

    def _run(self, roots: I4, now: int, whole: bool = False) -> Run:
        """Attribute the accounts as of `now`."""
        horizon = NEVER if self._swept == NEVER else self._swept - self._memory
        base = self._settled if self._swept == NEVER else min(self._settled, horizon)
        # Earlier than any event that may still set an anchor (`extra`), by more than a window.
        before_all = max(0, base - self._lateness - self._extra - self._span)
        return attributed(
            self._store, self.bound, self._goals, roots, now, self._settled, horizon, self._extra, before_all, whole
        )

    def _learn(self, run: Run) -> tuple[I8, I8]:
        """What became of the sends, where it takes more than their own row; numerators by id (`once_per_user`)."""
        st, rule = self._store, self.bound.rule
        rows = run.sends
        ids = st.sends.id[rows].astype(np.int64)
        per_user = rule.repeat == "once_per_user"
        plain = rule.anchor == "sent" and not per_user and not st.sends.status[rows].any()
        if plain and not (st.ids.rows[ids] > 1).any() and not (run.got.reason == REASON["status_event"]).any():
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        out = run.got.outcomes
        mine = out.send_row >= run.old
        lead = rows[out.send_row[mine] - run.old]
        ids = st.sends.id[lead].astype(np.int64)
        anchor, close = out.anchor[mine], out.close_at[mine]
        st.ids.row[ids] = lead
        klass = np.where(anchor == MISSING, NO_ANCHOR, PLAIN)
        klass[out.ghost[mine]] = GHOST
        klass[~out.reached[mine]] = UNREACHED
        st.ids.klass[ids] = klass
        final_at = np.where(close == MISSING, MISSING, close + self._lateness)
        moved = (final_at != st.ids.final_at[ids]) & (st.ids.told[ids] == 0)
        st.ids.final_at[ids] = final_at
        self._finals.add(ids[moved], final_at[moved])
        over = open_until(np.maximum(close, out.engagement_close_at[mine]), self._lateness)
        st.ids.until[ids] = np.maximum(st.ids.until[ids], over)
        st.sends.until[lead] = np.where(st.ids.rows[ids] == 1, st.ids.until[ids], SEVERAL)
        order = np.argsort(ids)
        return ids[order], out.numerator[mine][order]

    def _book(self, run: Run) -> tuple[Changes, Reasons]:
        """Write down what changed."""
        from justai_sim.attribution import ledger_walk as k

        st = self._store
        st.pool = roomy(st.pool, int(st.n[4]) + len(run.id))
        reason = run.got.reason
        changed = run.live & k.differs(st.events, st.pool, run.events, reason, run.start, run.id, run.weight)
        told = run.events[changed & (reason != st.events.reason[run.events])]
        row, ids, weight, over = k.book(
            st.accounts, st.ids, st.events, st.pool, st.n, run.events, run.live, changed, reason, run.start, run.id,
            run.weight, run.amount,
        )  # fmt: skip
        if over:
            raise DataError("the revenue of one send exceeds 9.2e12: check the unit of `value`")
        changes = Changes(**self._keys(row), send=st.ids.code[ids], weight=weight)
        return changes, Reasons(**self._keys(told), reason=st.events.reason[told].astype(np.int64))

    def _keys(self, rows: I8) -> dict[str, I8]:
        e, code = self._store.events, self._store.accounts.code
        user = np.where(e.user[rows] >= 0, code[e.user[rows]], -1)
        return {"rep": e.rep[rows].astype(np.int64), "user": user, "event": e.event[rows], "serial": e.serial[rows]}

    def _final(self, due: I8, now: int, numerator: tuple[I8, I8]) -> Finals:
        """The sends among `due` that are final and were not told yet."""
        ids = self._store.ids
        i = np.sort(due)
        i = i[np.append(True, i[1:] != i[:-1])[: len(i)]]
        i = i[(ids.final_at[i] != MISSING) & (ids.final_at[i] <= now) & (ids.told[i] == 0) & (ids.row[i] >= 0)]
        ids.told[i] = 1
        weight = ids.weight[i]
        counted = weight
        if self.bound.rule.repeat == "once_per_send":
            counted = np.minimum(weight, PARTS)
        elif self.bound.rule.repeat == "once_per_user" and len(i):
            counted = numerator[1][np.searchsorted(numerator[0], i)]
        return Finals(
            rep=ids.rep[i].astype(np.int64), send=ids.code[i], weight=weight, numerator=counted, revenue=ids.revenue[i]
        )

    # -- forgetting -----------------------------------------------------------------------------------

    def _sweep(self, now: int) -> None:
        """Forget what is old, every half of the memory: a row is moved a few times in its life."""
        from justai_sim.attribution import ledger_kernel as kernel
        from justai_sim.attribution import ledger_walk as k

        if now < self._next_sweep:
            return
        first = self._next_sweep == NEVER
        self._next_sweep = now + max(self._memory // 2, DAY)
        if first:
            return
        st = self._store
        s, n = st.sends, st.n
        old_id = forgotten_at(st.ids.until, self._memory) <= now
        old_send = old_id[s.id[: n[2]]]
        old_event = forgotten_at(st.needed_until(self._extra), self._memory) <= now
        if not old_send.any() and not old_event.any():
            return
        self._swept = now
        if not self._goals.many:
            k.retire(st.accounts, st.ids, s, n, old_send, self._goals.kind)
        st.forget(old_send, old_event, now, self._extra, self._goals.kind)
        nodes = st.events.owner[: n[3]][st.fragile() | self._goals.many]
        kernel.wake(st.accounts, nodes, DIRTY)
        roots = kernel.roots(st.accounts, nodes)
        while len(roots):  # what cannot be found out again without the forgotten rows is forgotten with them
            run = self._run(roots, now, whole=True)
            lost = run.live & k.differs(st.events, st.pool, run.events, run.got.reason, run.start, run.id, run.weight)
            if not lost.any():
                self._book(run)
                break
            gone = np.zeros(int(n[3]), bool)
            gone[run.events[lost]] = True
            st.forget(np.zeros(int(n[2]), bool), gone, now, self._extra, self._goals.kind)
        new = st.forget_ids(np.concatenate([a.arrays()["number"] for a in (self._finals, self._statuses)]))
        self._finals.renumber(new)
        self._statuses.renumber(new)
        st.reindex()

    # -- keeping --------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        """Rows remembered and bytes held."""
        st = self._store
        s, e = st.sends, st.events
        order = (e.order[: st.n[3]] >= 0) & (e.kind[: st.n[3]] == CONVERSION)
        waiting = len(self._in_sends) + len(self._in_events)
        return Memory(
            open_sends=int((st.ids.until[s.id[: st.n[2]]] > self._settled).sum()),
            open_events=int((e.until[: st.n[3]] > self._settled).sum()),
            sends=int(st.n[2]), events=int(st.n[3]), orders=int(order.sum()), users=int(st.n[0]), waiting=waiting,
            bytes=st.bytes(),
        )  # fmt: skip

    def save(self, path: Path | str | None = None) -> bytes:
        """Everything as bytes, the same for the same history; also written to `path` where one is given."""
        self._check_whole()
        arrays = {f"{part}.{name}": a for part in _PARTS for name, a in getattr(self, part).arrays().items()}
        header = {name: getattr(self, name) for name in _STATE} | {"memory_days": self.memory_days}
        data = ledger_file.pack(header, self.bound, arrays)
        if path is not None:
            ledger_file.write(Path(path), data)
        return data

    @classmethod
    def load(cls, source: bytes | Path | str, bound: Bound) -> Self:
        """The ledger that `save` wrote; it goes on as if it had never stopped.

        UsageError where it was kept under another rule or by another version; DataError where bytes are missing or
        changed.
        """
        header, arrays = ledger_file.unpack(source, bound)
        out = cls(bound, header["memory_days"])
        for name in _STATE:
            setattr(out, name, header[name])
        for part in _PARTS:
            mine = {name.removeprefix(f"{part}."): a for name, a in arrays.items() if name.startswith(f"{part}.")}
            getattr(out, part).restore(mine)
        return out


_STATE = ("_settled", "_swept", "_next_sweep")
_PARTS = ("_store", "_in_sends", "_in_events", "_finals", "_statuses")
"""What a ledger consists of."""


def open_ledger(bound: Bound, *, memory_days: float | None = None) -> Ledger:
    """An empty ledger under a rule. `memory_days` (default and least: the refund horizon of the rule): how long rows
    are remembered after they are closed; the module text says what that bounds.

    >>> from justai_sim.attribution import Rule, bind
    >>> ledger = open_ledger(bind(Rule(), templates=["t"], names=["purchase"]))
    >>> day0 = clock.parse("2026-01-05T00:00:00Z")
    >>> ledger.ingest(sends=Sends.build(1, send=7, user=1, template=0, variant=0, sent_at=day0))
    >>> ledger.ingest(events=Events.build(1, event=3, user=1, kind=0, name=0, occurred_at=day0 + 5 * DAY))
    >>> len(ledger.settle(day0 + 4 * DAY).changes)
    0
    >>> got = ledger.settle(day0 + 5 * DAY).changes
    >>> got.event, got.send, got.weight
    (array([3]), array([7]), array([1000000000]))
    >>> ledger.settle(day0)
    Traceback (most recent call last):
    justai_sim.errors.UsageError: settle(2026-01-05T00:00:00Z) goes back: the last settle was at 2026-01-10T00:00:00Z
    """
    horizon = bound.rule.refund_horizon_days
    days = horizon if memory_days is None else memory_days
    if not horizon <= days <= 36_500:
        raise UsageError(
            f"memory_days is {days}; expected at least refund_horizon_days ({horizon:g}) and at most 36500: "
            "a refund needs its order"
        )
    return Ledger(bound, days)

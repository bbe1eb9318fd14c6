"""All rows known so far, what they were found to mean, and who has to be looked at again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from justai_sim.attribution import Attribution
from justai_sim.clock import MISSING
from justai_sim.loop.columns import Column, Rows
from justai_sim.loop.lifecycle import Lifecycle
from justai_sim.tables import B1, CONVERSION, I1, I4, I8, NONE, Array, Credits, Events, Sends, Table
from justai_sim.tables import Column as Schema

if TYPE_CHECKING:
    from justai_sim.loop.sums import Moving


@dataclass(frozen=True)
class Earned(Table):
    """What each stored send was found to have earned at the last step, by send row."""

    counted: B1
    ghost: B1
    close_at: I8
    engagement_close_at: I8
    opens: I8
    clicks: I8
    unsubscribes: I8
    numerator: I8
    revenue: I8

    NUMBERS: ClassVar[tuple[str, ...]] = (
        "close_at", "engagement_close_at", "opens", "clicks", "unsubscribes", "numerator", "revenue",
    )  # fmt: skip
    SCHEMA: ClassVar[tuple[Schema, ...]] = (
        Schema("counted", "bool", "flag", "the row stands for its send, which was reached and has an anchor"),
        Schema("ghost", "bool", "flag", "a held-out user's"),
        *(Schema(name, "int64", "number", "as in the outcomes of attribution") for name in NUMBERS),
    )


NO_ROWS = np.zeros(0, np.int64)
PORTION = 1 << 18
"""Rows that are unpacked at a time: their columns stay in the cache."""
ASKED = ("send", "rep", "user", "template", "variant", "sent_at", "delivered_at", "status", "status_known_at",
         "received_at")  # fmt: skip
"""The columns of sends that attribution looks at."""


class State:
    """Everything that `step` carries from one refresh to the next. A step consumes the state it is given.

    Rows are kept as they came; credits, reasons and outcomes are recomputed for every user of whom
    something new is known, so that they are a pure function of the rows known.
    """

    def __init__(self, reps: int, users: int, sends: int, start: int, reserve: int = 0) -> None:
        """`users`, `sends`: one more than the largest code. `reserve`: room for so many sends from the start."""
        self.reps, self.users, self.send_span, self.start = reps, users, sends, start
        self.sends = Rows(Sends, reserve, {"received_at": "sent_at", "decided_at": "sent_at"})
        self.events = Rows(Events, reserve // 2, {"received_at": "occurred_at"})
        sent = self.sends.columns["sent_at"]
        self.earnings = Rows(Earned, reserve, {"close_at": sent, "engagement_close_at": sent})
        self.reason: I1 = np.zeros(0, np.int8)
        self.credited = Credited()
        self.account: I4 = np.arange(reps * users + 1, dtype=np.int32)
        """Users whose rows touch one another (an event that names another user's send) share an account;
        the last place is for events whose user is not known."""
        self.chains = Chain(len(self.account), reserve), Chain(len(self.account), reserve // 2)
        self.open: B1 = np.zeros(len(self.account), np.bool_)
        """Accounts with an event that another send of theirs may change: any but a response that names a send of its
        user."""
        # Kept from step to step: to clear what was written is cheaper than to ask for that much memory again.
        self._mark: B1 = np.zeros(len(self.account), np.bool_)
        self._rank: I4 = np.full(len(self.account), -1, np.int32)
        self.lifecycle: Lifecycle | None = None
        self.moving: Moving | None = None
        self.owner: I4 = np.zeros(reps * sends, np.int32)
        self.waiting: set[tuple[int, int]] = set()

    @property
    def earned(self) -> Earned:
        """What each send row earned, made anew at each call."""
        return self.earnings.table

    @property
    def credits(self) -> Credits:
        """The credits in force, made anew at each call."""
        return self.credited.table()

    @property
    def send_user(self) -> I8:
        """The user of each send row, replications apart."""
        return self._users(self.sends.column("rep"), self.sends.column("user"))

    @property
    def event_user(self) -> I8:
        return self._users(self.events.column("rep"), self.events.column("user"))

    def _users(self, rep: Array, user: I8) -> I8:
        return np.where(user >= 0, rep.astype(np.int64) * self.users + user, self.reps * self.users)

    def add(self, sends: Sends, events: Events, adopt: bool) -> tuple[I8, I8]:
        """Store new rows; send and event rows that must be attributed again, in order. `adopt`: an event of nobody
        belongs to whom the send that it names went to."""
        from justai_sim.loop import kernel

        su = self._users(sends.rep, sends.user)
        key = sends.rep.astype(np.int64) * self.send_span + sends.send
        again = np.empty(len(key), np.int64)
        again = again[: kernel.claim(self.owner, key, su, again)]
        for i in again[self.owner[key[again]] != su[again] + 1].tolist():
            self._union(int(self.owner[key[i]]) - 1, int(su[i]))
        self._arrived()
        eu = self._users(events.rep, events.user)
        self._named(events, eu, adopt)
        self.open[self.account[eu[self._undecided(events, eu)]]] = True
        for chain, user in zip(self.chains, (su, eu), strict=True):
            chain.append(self.account, user)
        first = self.sends.n
        self.store(sends, events)
        return self._stale(first, su, eu, su[again])

    def store(self, sends: Sends, events: Events) -> None:
        """Keep new rows, of which nothing is found yet."""
        self.reason = grown(self.reason, self.events.n, np.zeros(len(events), np.int8))
        self.credited.add(len(events))
        self.sends.append(sends)
        self.events.append(events)
        self.earnings.add(len(sends))

    def _stale(self, first: int, su: I8, eu: I8, again: I8) -> tuple[I8, I8]:
        """All rows of an account; but new sends (from row `first` on) change nothing about the old ones of an account
        that is not open, unless they are the same sends (`again`: users of these)."""
        from justai_sim.loop import kernel

        sends, events = self.chains
        account = self.account[su]
        mark, out = self._mark, np.empty(len(su) + len(eu), np.int32)
        count = kernel.touched(self.account, eu, mark, out, 0)
        lone = ~(self.open[account] | mark[account])
        lone &= ~np.isin(account, self.account[again]) if len(again) else True
        count = kernel.touched(self.account, su[~lone], mark, out, count)
        kernel.unmark(out[:count], mark)
        return sends.rows(out[:count], np.flatnonzero(lone) + first), events.rows(out[:count])

    def taken(self, send_rows: I8, event_rows: I8) -> tuple[Sends, Events]:
        """These rows as one replication, with users numbered from 0: the smaller the codes, the faster attribution is,
        and it asks no more of them than their order within a user."""
        from justai_sim.loop import kernel

        sent = {k: self.sends.column(k, send_rows) for k in ASKED}
        sends, events = Sends.build(len(send_rows), **sent), self.events.take(event_rows)
        su, eu = self._users(sends.rep, sends.user), self._users(events.rep, events.user)
        users, whose = np.empty(len(su), np.int64), np.empty(len(eu), np.int64)
        kernel.ranks(su, eu, self.reps * self.users, self._rank, users, whose)
        codes = {"user": whose}
        if self.reps > 1:
            codes |= {k: _apart(events.rep, getattr(events, k)) for k in ("event", "order")}
            codes["send"] = _apart(events.rep, events.send, self.send_span)
            codes["rep"] = np.zeros(len(events), np.int32)
            sends = sends.with_(rep=np.zeros(len(sends), np.int32), send=_apart(sends.rep, sends.send, self.send_span))
        return sends.with_(user=users), events.with_(**codes)

    def _arrived(self) -> None:
        """Join users whose event waited for a send that is known by now."""
        for pair in [p for p in self.waiting if self.owner[p[0]]]:
            self.waiting.discard(pair)
            self._union(int(self.owner[pair[0]]) - 1, pair[1])

    def _named(self, events: Events, eu: I8, adopt: bool) -> None:
        """Events that name the send of another user join the two; `eu`, their users, is changed for those of nobody."""
        named = np.flatnonzero((events.send >= 0) & (events.send < self.send_span))
        key = events.rep[named].astype(np.int64) * self.send_span + events.send[named]
        owner = self.owner[key].astype(np.int64) - 1
        if adopt:
            orphan = (eu[named] == self.reps * self.users) & (owner >= 0)
            eu[named[orphan]] = owner[orphan]
        for i in np.flatnonzero(owner != eu[named]).tolist():
            if owner[i] < 0:
                self.waiting.add((int(key[i]), int(eu[named[i]])))
            else:
                self._union(int(owner[i]), int(eu[named[i]]))

    def _undecided(self, events: Events, eu: I8) -> B1:
        """Events that a further send of their user may change."""
        named = (events.kind != CONVERSION) & (events.send >= 0) & (events.send < self.send_span)
        key = np.where(named, events.rep.astype(np.int64) * self.send_span + events.send, 0)
        return ~named | (self.owner[key] != eu + 1)

    def _union(self, a: int, b: int) -> None:
        a, b = int(self.account[a]), int(self.account[b])
        self.open[a] = True
        if a != b:
            self.account[self.account == b] = a
            for chain in self.chains:
                chain.join(a, b)

    def write(self, send_rows: I8, event_rows: I8, got: Attribution) -> None:
        """Take in what an attribution of these rows found."""
        o = got.outcomes
        lead = send_rows[o.send_row]
        if len(lead) < len(send_rows):
            self.earnings.columns["counted"].put(send_rows, np.zeros(len(send_rows), np.bool_))
        self.earnings.columns["counted"].put(lead, o.reached & (o.anchor != MISSING))
        self.book(lead, {name: getattr(o, name) for name in ("ghost", *Earned.NUMBERS)})
        self.reason[event_rows] = got.reason
        c = got.credits
        self.recredit(event_rows, Credits(event_rows[c.event_row], send_rows[c.send_row], c.weight))

    def book(self, send_rows: I8, earned: Mapping[str, Array]) -> None:
        """What these sends have earned, by column of `Earned`."""
        sent = self.sends.column("sent_at", send_rows)
        for name, values in earned.items():
            self.earnings.put(name, send_rows, values, sent)

    def recredit(self, event_rows: I8, new: Credits) -> None:
        """Replace the credits of these events."""
        self.credited.replace(event_rows, new)


class Chain:
    """Rows by account: each knows the one before it."""

    def __init__(self, accounts: int, reserve: int) -> None:
        self.newest: I4 = np.full(accounts, -1, np.int32)
        self.size: I4 = np.zeros(accounts, np.int32)
        self.n, self.before = 0, np.empty(reserve, np.int32)

    def append(self, account: I4, user: I8) -> None:
        from justai_sim.loop import kernel

        self.before = grown(self.before, self.n, np.zeros(len(user), np.int32))
        kernel.chain(account, user, self.n, self.newest, self.before, self.size)
        self.n += len(user)

    def rows(self, accounts: I4, more: Array = NO_ROWS) -> I8:
        """All rows of these accounts, and some more, in order."""
        from justai_sim.loop import kernel

        n = int(self.size[accounts].sum())
        out = np.empty(n + len(more), np.int32)
        kernel.walk(accounts, self.newest, self.before, out)
        out[n:] = more
        out.sort()
        return out.astype(np.int64)

    def join(self, a: int, b: int) -> None:
        """The rows of account b become a's."""
        if self.size[b]:
            oldest = self.newest[b]
            while self.before[oldest] >= 0:
                oldest = self.before[oldest]
            self.before[oldest] = self.newest[a]
            self.newest[a], self.newest[b] = self.newest[b], -1
            self.size[a], self.size[b] = self.size[a] + self.size[b], 0


class Credited:
    """The credits in force. Those of an event are replaced by adding the new ones: the old ones carry an older serial
    number than the event, and are cleared away when they may be half of all."""

    def __init__(self) -> None:
        self.kept, self.made = Rows(Credits), Column("int64")
        self.serial, self.clean, self.events = 0, 0, 0
        self.last: I4 = np.zeros(0, np.int32)
        """Serial number of the last credits of each event row."""

    def add(self, m: int) -> None:
        self.last = grown(self.last, self.events, np.zeros(m, np.int32))
        self.events += m

    def replace(self, event_rows: I8, new: Credits) -> None:
        """The events `event_rows` have the credits `new` now."""
        self.serial += 1
        self.last[event_rows] = self.serial
        self.kept.append(new)
        self.made.append(np.full(len(new), self.serial))
        if self.kept.n > 2 * self.clean + 1024:
            there = self._there(self.kept, self.made)
            self.kept, self.made, self.clean = Rows(Credits), Column("int64"), 0
            for some in there:
                self.kept.append(some)
                self.made.append(self.last[some.event_row])
                self.clean += len(some)

    def table(self) -> Credits:
        return Credits.concat(list(self._there(self.kept, self.made)))

    def _there(self, kept: Rows[Credits], made: Column) -> Iterator[Credits]:
        """Those of the credits kept that are in force, some at a time: what is looked at stays in the cache."""
        for start in range(0, kept.n, PORTION):
            p = slice(start, min(start + PORTION, kept.n))
            there = np.flatnonzero(made.take(p) == self.last[kept.column("event_row", p)])
            yield kept.take(there + start)


def _apart(rep: I4, code: I8, span: int = 0) -> I8:
    """Codes of which no two replications share one; `span`: all codes lie below, if given, else they are looked at."""
    span = span or int(code.max(initial=0)) + 1
    return np.where(code >= 0, rep.astype(np.int64) * span + code, NONE)


def grown(a: Array, n: int, new: Array) -> Array:
    """`a` with `new` written at `n`; capacity grows by half, so that appending is cheap on average."""
    if n + len(new) > len(a):
        b = np.empty(max(3 * len(a) // 2, n + len(new), 1024), a.dtype)
        b[:n] = a[:n]
        a = b
    a[n : n + len(new)] = new
    return a


METRIC = {
    "conversion_rate": ("numerator", "close_at", 1e-9),
    "revenue_per_send": ("revenue", "close_at", 1e-6),
    "open_rate": ("opens", "engagement_close_at", 1.0),
    "click_rate": ("clicks", "engagement_close_at", 1.0),
    "unsubscribe_rate": ("unsubscribes", "engagement_close_at", 1.0),
}
"""Of each metric: what a send earned, an integer; when its window closes; the unit of the integer."""

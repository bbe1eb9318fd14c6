"""All rows known so far, what they were found to mean, and who has to be looked at again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from justai_sim.attribution import Attribution
from justai_sim.clock import MISSING
from justai_sim.loop.lifecycle import Lifecycle
from justai_sim.tables import B1, I1, I8, NONE, Array, Credits, Events, Sends, Table

T = TypeVar("T", bound=Table)


class Rows(Generic[T]):
    """A table that grows; `table` is a view of what is there."""

    def __init__(self, kind: type[T], reserve: int = 0) -> None:
        self.kind, self.n = kind, 0
        self.columns: dict[str, Array] = {c.name: np.empty(reserve, c.dtype) for c in kind.SCHEMA}

    def append(self, rows: T) -> None:
        self.columns = {k: grown(a, self.n, getattr(rows, k)) for k, a in self.columns.items()}
        self.n += len(rows)

    @property
    def table(self) -> T:
        return self.kind(**{k: a[: self.n] for k, a in self.columns.items()})

    def take(self, rows: I8) -> T:
        return self.kind(**{k: a[rows] for k, a in self.columns.items()})


def grown(a: Array, n: int, new: Array) -> Array:
    """`a` with `new` written at `n`; capacity doubles, so that appending is cheap on average."""
    if n + len(new) > len(a):
        b = np.empty(max(2 * len(a), n + len(new), 1024), a.dtype)
        b[:n] = a[:n]
        a = b
    a[n : n + len(new)] = new
    return a


@dataclass
class Earned:
    """What each stored send was found to have earned at the last step; capacity arrays by send row."""

    counted: B1
    """The row stands for its send and the send was reached and has an anchor."""
    ghost: B1
    close_at: I8
    engagement_close_at: I8
    opens: I8
    clicks: I8
    unsubscribes: I8
    numerator: I8
    revenue: I8

    @classmethod
    def empty(cls, reserve: int = 0) -> Earned:
        numbers = {k: np.empty(reserve, np.int64) for k in cls.NUMBERS}
        return cls(counted=np.empty(reserve, bool), ghost=np.empty(reserve, bool), **numbers)

    NUMBERS = ("close_at", "engagement_close_at", "opens", "clicks", "unsubscribes", "numerator", "revenue")

    def extend(self, n: int, new: int) -> None:
        for name in ("counted", "ghost", *self.NUMBERS):
            a = getattr(self, name)
            setattr(self, name, grown(a, n, np.zeros(new, a.dtype)))

    def write(self, rows: I8, got: Attribution) -> None:
        """Replace what is held of `rows` (the rows that `got` was computed from)."""
        o = got.outcomes
        self.counted[rows] = False
        lead = rows[o.send_row]
        self.counted[lead] = o.reached & (o.anchor != MISSING)
        self.ghost[lead] = o.ghost
        for name in self.NUMBERS:
            getattr(self, name)[lead] = getattr(o, name)


class State:
    """Everything that `step` carries from one refresh to the next. A step consumes the state it is given.

    Rows are kept as they came; credits, reasons and outcomes are recomputed for every user of whom
    something new is known, so that they are a pure function of the rows known.
    """

    def __init__(self, reps: int, users: int, sends: int, start: int, reserve: int = 0) -> None:
        """`users`, `sends`: one more than the largest code. `reserve`: room for so many sends from the start."""
        self.reps, self.users, self.send_span, self.start = reps, users, sends, start
        self.sends, self.events = Rows(Sends, reserve), Rows(Events, reserve // 2)
        self.earned = Earned.empty(reserve)
        self.reason: I1 = np.zeros(0, np.int8)
        self.credits = Credits.empty()
        self.account: I8 = np.arange(reps * users + 1, dtype=np.int64)
        """Users whose rows touch one another (an event that names another user's send) share an account;
        the last place is for events whose user is not known."""
        self.linked = False
        self.lifecycle: Lifecycle | None = None
        self.owner: I8 = np.full(reps * sends, NONE, np.int64)
        self.waiting: set[tuple[int, int]] = set()
        self.send_user: I8 = np.zeros(0, np.int64)
        self.event_user: I8 = np.zeros(0, np.int64)

    def add(self, sends: Sends, events: Events) -> B1:
        """Store new rows; flags the accounts that must be attributed again."""
        su = sends.rep.astype(np.int64) * self.users + sends.user
        known = events.user >= 0
        eu = np.where(known, events.rep.astype(np.int64) * self.users + events.user, self.reps * self.users)
        key = sends.rep.astype(np.int64) * self.send_span + sends.send
        self.owner[key] = np.where(self.owner[key] == NONE, su, self.owner[key])
        self._link(su, key, self.owner[key])
        named = np.flatnonzero((events.send >= 0) & (events.send < self.send_span))
        named_key = events.rep[named].astype(np.int64) * self.send_span + events.send[named]
        owner = self.owner[named_key]
        for i in np.flatnonzero(owner != eu[named]).tolist():
            if owner[i] == NONE:
                self.waiting.add((int(named_key[i]), int(eu[named[i]])))
            else:
                self._union(int(owner[i]), int(eu[named[i]]))
        self.send_user = grown(self.send_user, self.sends.n, su)
        self.event_user = grown(self.event_user, self.events.n, eu)
        self.store(sends, events)
        flag = np.zeros(len(self.account), bool)
        flag[self.account[su]] = True
        flag[self.account[eu]] = True
        return flag

    def store(self, sends: Sends, events: Events) -> None:
        """Keep new rows, of which nothing is found yet."""
        self.earned.extend(self.sends.n, len(sends))
        self.reason = grown(self.reason, self.events.n, np.zeros(len(events), np.int8))
        self.sends.append(sends)
        self.events.append(events)

    def _link(self, su: I8, key: I8, first_owner: I8) -> None:
        """Join users that share a send id, or whose event waited for a send that came now."""
        for i in np.flatnonzero(first_owner != su).tolist():
            self._union(int(first_owner[i]), int(su[i]))
        if self.waiting:
            arrived = dict(zip(key.tolist(), first_owner.tolist(), strict=True))
            for pair in [p for p in self.waiting if p[0] in arrived]:
                self.waiting.discard(pair)
                self._union(arrived[pair[0]], pair[1])

    def _union(self, a: int, b: int) -> None:
        a, b = int(self.account[a]), int(self.account[b])
        if a != b:
            self.linked = True
            self.account[self.account == b] = a

    def rows_of(self, flag: B1) -> tuple[I8, I8]:
        """Send and event rows of the flagged accounts."""
        if self.linked:
            flag = flag[self.account]
        return (
            np.flatnonzero(flag[self.send_user[: self.sends.n]]),
            np.flatnonzero(flag[self.event_user[: self.events.n]]),
        )

    def write(self, send_rows: I8, event_rows: I8, got: Attribution) -> None:
        """Take in what an attribution of these rows found."""
        self.earned.write(send_rows, got)
        self.reason[event_rows] = got.reason
        new = Credits(
            event_row=event_rows[got.credits.event_row],
            send_row=send_rows[got.credits.send_row],
            weight=got.credits.weight,
        )
        self.recredit(event_rows, new)

    def recredit(self, event_rows: I8, new: Credits) -> None:
        """Replace the credits of these events."""
        stale = np.zeros(self.events.n, bool)
        stale[event_rows] = True
        keep = self.credits.take(~stale[self.credits.event_row])
        self.credits = Credits.concat([keep, new])


def metric_of(earned: Earned, metric: str, n: int) -> tuple[I8, I8, float]:
    """Per send row: the metric as an integer, when its window closes, and the unit of the integer."""
    e: Any = earned
    if metric == "conversion_rate":
        return e.numerator[:n], e.close_at[:n], 1e-9
    if metric == "revenue_per_send":
        return e.revenue[:n], e.close_at[:n], 1e-6
    column = {"open_rate": "opens", "click_rate": "clicks", "unsubscribe_rate": "unsubscribes"}[metric]
    return getattr(e, column)[:n], e.engagement_close_at[:n], 1.0

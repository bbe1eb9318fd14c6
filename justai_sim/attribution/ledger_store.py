"""What a ledger keeps: struct-of-array tables that grow, addressed by position.

An *account* is a set of users whose rows can touch one another (one event names another user's send, two rows of one
send id disagree about the user); nearly always it is one user. Rows hang in linked lists of their account: `hot`
rows may still matter to a row that arrives on time, `cold` ones only to a row that refers to them.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, cast

import numpy as np

from justai_sim.clock import MISSING
from justai_sim.tables import B1, CLICK, CONVERSION, I1, I4, I8, OPEN, REASON, Array

DIRTY, DEEP, ALWAYS, IMPROVABLE, RUN_DEEP, SHOWN = 1, 2, 4, 8, 16, 32
"""Flags of an account: attribute it again; with all its rows; with all its rows for ever; an event there has a reason
that a later send can better; (while it runs) all rows; (while it runs) its old sends are represented."""

USER, STRAY_EVENT, STRAY_ORDER = 0, 1, 2
"""What a node of the account table stands for: a user, or an id of events whose user is not known."""

PLAIN, GHOST, NO_ANCHOR, UNREACHED = range(4)
"""What a closed send can still be the reason for."""

SEVERAL = -1
"""In place of an instant: look at the id."""

MASKED = 15
"""Kinds of goals that one int64 of four bits each can hold."""


class Rows(np.recarray):
    """Records side by side, a field a column: what is read together lies together, so that a row costs one miss of
    the cache and not one a column. The subclasses only say what the columns are; memory comes from `blank`."""


R = TypeVar("R", bound=Rows)


class Accounts(Rows):
    """One row a node: union-find forest; the lists, `flag` and `deep_until` count at the root."""

    parent: I4
    flag: I4
    hot_send: I4
    hot_event: I4
    cold_send: I4
    cold_event: I4
    local: I4
    """Scratch: the number of the user while a run lasts; -1 otherwise."""
    tag: I4
    """kind + 4 x replication"""
    code: I8
    deep_until: I8
    """Until then the account is seen whole."""
    closed: I8
    """Four bits per kind of goal: which classes of closed sends the user has had."""
    forgotten: I8
    """The same of forgotten sends."""


class Ids(Rows):
    """One row a send id that was seen on a send or named by an event."""

    rep: I4
    code: I8
    account: I4
    row: I4
    """The row that says who and when; -1: no send yet."""
    rows: I4
    klass: I1
    told: I1
    """1 when its final value has been given."""
    until: I8
    """On-time rows that arrive after this instant cannot change what it earned, refunds apart."""
    final_at: I8
    weight: I8
    revenue: I8


class SendRows(Rows):
    next: I4
    user: I4
    until: I8
    """Of the id; SEVERAL where it has more rows than this."""
    id: I4
    template: I4
    variant: I8
    sent_at: I8
    delivered_at: I8
    status: I1
    status_known_at: I8
    received_at: I8


class EventRows(Rows):
    next: I4
    owner: I4
    """Node in whose account the row is."""
    until: I8
    serial: I8
    event: I8
    rep: I4
    user: I4
    """Node of the user; -1: missing."""
    kind: I1
    machine: I1
    reason: I1
    name: I4
    currency: I4
    id: I4
    order: I8
    template: I8
    variant: I8
    occurred_at: I8
    received_at: I8
    value: I8
    credit: I4


class Pool(Rows):
    """Credits that stand, as linked lists in the order of the ids."""

    id: I4
    weight: I8
    next: I4


class Prints(Rows):
    """Index of event and order ids by 64 bits of their hash; key 0: free."""

    key: I8
    row: I4


WIDTH = {"I1": "int8", "I4": "int32", "I8": "int64"}


def dtype_of(kind: type[Rows]) -> np.dtype[Any]:
    return np.dtype([(name, WIDTH[str(hint)]) for name, hint in kind.__annotations__.items()], align=True)


def blank(kind: type[R], n: int) -> R:
    """Room for n rows; nothing is written, so that unused room costs nothing."""
    return cast(R, kind.__new__(kind, n, dtype=dtype_of(kind)))


def roomy(table: R, n: int) -> R:
    """The table with room for n rows: twice what is asked for. A fresh block is taken in large pages where the system
    has them, which a block grown in place is not; room that is not used costs nothing."""
    if n <= len(table):
        return table
    out = blank(type(table), max(2 * n, 1024))
    out.view(np.uint8)[: table.nbytes] = table.view(np.uint8)  # bytes: records would be copied field by field
    return out


def slots(n: int) -> int:
    """Size of a hash table for n keys: a power of two, at most half full."""
    return 1 << max(11, (2 * n - 1).bit_length())


def free_prints(n: int) -> Prints:
    out = blank(Prints, n)
    out.key[:], out.row[:] = 0, -1
    return out


class Store:
    """The tables with their lengths and indices."""

    COUNTS = ("accounts", "ids", "sends", "events", "credits", "free", "prints")

    def __init__(self) -> None:
        self.n = np.zeros(len(self.COUNTS), np.int64)
        self.n[5] = -1
        """Rows in use of each table; `free`: the first unused credit of the pool, -1 for none."""
        self.accounts = blank(Accounts, 1024)
        self.ids = blank(Ids, 1024)
        self.sends = blank(SendRows, 1024)
        self.events = blank(EventRows, 1024)
        self.pool = blank(Pool, 1024)
        self.account_slot: I4 = np.zeros(0, np.int32)
        self.id_slot: I4 = np.zeros(0, np.int32)
        self.prints = free_prints(0)
        self.reindex()

    TABLES: ClassVar[dict[str, type[Rows]]] = {
        "accounts": Accounts, "ids": Ids, "sends": SendRows, "events": EventRows, "pool": Pool,
    }  # fmt: skip

    def used(self, name: str) -> int:
        return int(self.n[list(self.TABLES).index(name)])

    def reserve(self, sends: int, events: int) -> None:
        """Room for so many new rows, whatever they refer to."""
        from justai_sim.attribution import ledger_kernel as k

        new = (sends + 2 * events, sends + events, sends, events)
        for name, more in zip(self.TABLES, new, strict=False):
            setattr(self, name, roomy(getattr(self, name), self.used(name) + more))
        if slots(int(self.n[0]) + new[0]) > len(self.account_slot):
            self.account_slot = k.index(self.accounts.tag, self.accounts.code, self.n[0], slots(2 * len(self.accounts)))
        if slots(int(self.n[1]) + new[1]) > len(self.id_slot):
            self.id_slot = k.index(self.ids.rep, self.ids.code, self.n[1], slots(2 * len(self.ids)))
        if slots(int(self.n[6]) + 2 * events) > len(self.prints):
            self.prints = free_prints(slots(4 * (int(self.n[6]) + 2 * events)))
            k.print_all(self.events, self.n, self.prints)

    def reindex(self) -> None:
        """Build the indices anew, after loading or forgetting."""
        from justai_sim.attribution import ledger_kernel as k

        self.account_slot = k.index(self.accounts.tag, self.accounts.code, self.n[0], slots(int(self.n[0])))
        self.id_slot = k.index(self.ids.rep, self.ids.code, self.n[1], slots(int(self.n[1])))
        self.prints = free_prints(slots(2 * int(self.n[3])))
        k.print_all(self.events, self.n, self.prints)

    def needed_until(self, extra: int) -> I8:
        """Until when each event row is open, or a send that it tells of; `extra` for opens and clicks.

        A row that is kept for its send alone is no longer judged itself.
        """
        e, n = self.events, int(self.n[3])
        setter = (e.kind[:n] == OPEN) | (e.kind[:n] == CLICK)
        until = e.until[:n] + np.where(setter, extra, 0)
        named = np.flatnonzero((e.id[:n] >= 0) & (e.kind[:n] != CONVERSION))
        until[named] = np.maximum(until[named], self.ids.until[e.id[named]])
        return until

    def fragile(self) -> B1:
        """Event rows that forgetting others can change; the rest follows from rows that live as long as they do.

        A copy has its first row, a refund its order, an event may name a send that is closed, or a template.
        """
        e, n, until = self.events, int(self.n[3]), self.ids.until
        reason = e.reason[:n]
        out = (
            (reason == REASON["duplicate"])
            | (reason == REASON["refund"])
            | (e.template[:n] >= 0)
            | (e.variant[:n] >= 0)
        )
        named = np.flatnonzero(e.id[:n] >= 0)
        closed = until[e.id[named]]
        out[named] |= (closed != MISSING) & (closed < e.until[named])
        return out

    def forget(self, sends: B1, events: B1, settled: int, extra: int, kind: I8) -> None:
        """Leave out rows; everything that stays is hung up anew, as open or closed at `settled`."""
        from justai_sim.attribution import ledger_walk as k

        keep_s, keep_e = np.flatnonzero(~sends), np.flatnonzero(~events)
        place = np.full(len(sends) + 1, -1, np.int32)
        place[keep_s] = np.arange(len(keep_s))
        lead = self.ids.row[: self.n[1]]
        self.ids.row[: self.n[1]] = place[lead]
        gone = np.flatnonzero((lead >= 0) & (place[lead] < 0))
        self.ids.rows[gone] = 0
        k.close_up(self.sends, keep_s)
        k.close_up(self.events, keep_e)
        self.n[2], self.n[3] = len(keep_s), len(keep_e)
        self.pool = k.repool(self.events, self.pool, self.n, blank(Pool, max(1024, int(self.n[4]))))
        k.relink(self.accounts, self.ids, self.sends, self.events, self.n, settled, extra, kind)

    def forget_ids(self, wanted: I8) -> I4:
        """Leave out send ids that nothing speaks of; returns the new place of each, -1 where it is gone."""
        from justai_sim.attribution import ledger_walk as k

        n = int(self.n[1])
        keep = np.zeros(n, bool)
        keep[wanted] = True
        keep[self.sends.id[: self.n[2]]] = True
        named = self.events.id[: self.n[3]]
        keep[named[named >= 0]] = True
        keep[self.pool.id[: self.n[4]]] = True
        rows = np.flatnonzero(keep)
        place = np.full(n + 1, -1, np.int32)
        place[rows] = np.arange(len(rows))
        k.close_up(self.ids, rows)
        self.n[1] = len(rows)
        self.sends.id[: self.n[2]] = place[self.sends.id[: self.n[2]]]
        self.events.id[: self.n[3]] = place[named]
        self.pool.id[: self.n[4]] = place[self.pool.id[: self.n[4]]]
        return place

    def arrays(self) -> dict[str, Array]:
        """Everything that must be saved; the indices are made from it."""
        out: dict[str, Array] = {"n": self.n}
        for name in self.TABLES:
            table = getattr(self, name)[: self.used(name)]
            out |= {f"{name}.{c}": table[c] for c in table.dtype.names}
        return out

    def restore(self, arrays: dict[str, Array]) -> None:
        self.n = arrays["n"]
        for name, kind in self.TABLES.items():
            table = blank(kind, max(1024, self.used(name)))
            for c in kind.__annotations__:
                table[c][: self.used(name)] = arrays[f"{name}.{c}"]
            setattr(self, name, table)
        self.reindex()

    def bytes(self) -> int:
        """Memory held, room for growth included."""
        parts = [*(getattr(self, name) for name in self.TABLES), self.account_slot, self.id_slot, self.prints]
        return sum(a.nbytes for a in parts)

"""From what happened to what we are told: machines, losses, delays, copies, wrong contents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from justai_sim.clock import DAY, HOUR, MINUTE, MISSING
from justai_sim.tables import B1, CLICK, CONVERSION, I4, I8, MICRO, NONE, OPEN, Events, Sends
from justai_sim.world import laws
from justai_sim.world.codes import (
    LATENCY,
    MACHINE_OPEN,
    MISNAMED,
    ORGANIC,
    RECODED,
    SCANNER_CLICK,
    SHARED_ID,
    TESTED,
    event_code,
    purchase_code,
)
from justai_sim.world.people import Draws, Users
from justai_sim.world.telemetry import Telemetry
from justai_sim.world.world import Grid

RETRIES = {
    "braze": (1, 2, 24 * 60), "segment": (1, 2, 4 * 60), "customerio": (60, 2, 7 * 24 * 60),
    "iterable": (1, 2, 8), "sfmc": (10, 1, 7 * 24 * 60), "generic": (1, 2, 24 * 60),
}  # fmt: skip
"""First wait in minutes, factor of each further wait, and how long a provider tries. Documented: Segment's four hours,
Customer.io's hour before the first retry and seven days, Marketing Cloud's ten minutes and seven days. Braze tells of
back-off without an end (an older page: a day), Iterable of retries without a schedule: ours."""


TEST_AMOUNT = 40 * MICRO


def attempts(esp: str) -> I8:
    """Microseconds after the first try at which a provider tries again."""
    first, factor, last = RETRIES[esp.partition("-")[0]]
    waits: list[float] = []
    while sum(waits) + first * factor ** len(waits) <= last:
        waits.append(first * factor ** len(waits))
    return np.cumsum(np.array(waits) * MINUTE).astype(np.int64)


class Carried(NamedTuple):
    """What a provider has a place for in a purchase of some name. `anonymous`: it takes one without a user."""

    value: bool
    order: bool
    anonymous: bool


class Faults:
    """`carried`: of the names that purchases should have and, if misnamed, do have: their codes are 0 and 1."""

    def __init__(
        self, telemetry: Telemetry, u: Draws, users: Users, start: int, end: int, grid: Grid, esp: str,
        carried: tuple[Carried, Carried],
    ) -> None:  # fmt: skip
        self.t, self.u, self.users, self.start, self.end, self.grid = telemetry.faults, u, users, start, end, grid
        self.carried = carried
        self.attempts = attempts(esp)
        # Who has such a mail client, or such a gateway, has it for good.
        self.machine = u("machine client", users.rep, users.user) < self.t.machine_open_share
        self.scanner = u("scanner", users.rep, users.user) < self.t.scanner_share

    def sends(self, sends: Sends, place: I8) -> tuple[Sends, Sends]:
        """Sends with the receipt of their webhook, copies included; and those of which no webhook ever comes."""
        code = event_code(sends.user, place, LATENCY)
        received, lost = self.arrival(sends.rep, code, sends.sent_at, 0)
        told = sends.with_(received_at=received)
        heard = [told.take(~lost) if lost.any() else told]
        if self.t.duplicate_share:
            i = np.flatnonzero(self.u("duplicate", sends.rep, code) < self.t.duplicate_share)
            again, gone = self.arrival(sends.rep[i], code[i], sends.sent_at[i], 1)
            heard.append(sends.take(i).with_(received_at=again).take(~gone))
            lost[i] &= gone
        never = told.take(np.flatnonzero(lost))
        return Sends.concat(heard), never.with_(received_at=np.full(len(never), MISSING))

    def events(self, true: Events) -> Iterator[tuple[Events, I8]]:
        """What we are told of events that happened, each with its origin."""
        told = self.garbled(true)
        yield self.copy(true, told, 0)
        for k, share, purpose in ((1, self.t.duplicate_share, "duplicate"), (2, self.t.recoded_share, "recoded")):
            if share:
                i = np.flatnonzero(self.u(purpose, true.rep, true.event) < share)
                yield self.copy(true.take(i), told.take(i), k)

    def copy(self, true: Events, told: Events, k: int) -> tuple[Events, I8]:
        """The k-th copy of each event: its delays run from when it happened, whatever the stamp says."""
        received, lost = self.arrival(true.rep, true.event, true.occurred_at, k)
        if not self.carried[0].anonymous:
            lost = lost | (told.user == NONE)
        if not all(c.value for c in self.carried):  # a refund without its amount would be a purchase
            lost = lost | ((true.value < 0) & (true.value != MISSING) & (told.value == MISSING))
        event = told.event + RECODED if k == 2 else told.event
        heard = told.with_(received_at=received, event=event)
        return (heard.take(~lost), true.event[~lost]) if lost.any() else (heard, true.event)

    def garbled(self, true: Events) -> Events:
        """The contents that purchases arrive with."""
        t, u, rep, code = self.t, self.u, true.rep, true.event
        paid = true.kind == CONVERSION
        out: dict[str, I8] = {}
        if t.wrong_name_share or t.renamed_from_day is not None:
            wrong = u("wrong name", rep, code) < t.wrong_name_share
            if t.renamed_from_day is not None:
                wrong |= true.occurred_at >= self.start + round(t.renamed_from_day * DAY)
            out["name"] = np.where(paid & wrong, 1, true.name)
            out["event"] = np.where(paid & wrong, code + MISNAMED, code)
        if t.missing_user_share:
            out["user"] = np.where(paid & (u("missing user", rep, code) < t.missing_user_share), NONE, true.user)
        if t.reused_id_share:
            reused = paid & (u("reused id", rep, code) < t.reused_id_share)
            same = purchase_code(true.user, ORGANIC, SHARED_ID)
            out["event"] = np.where(reused, same + out.get("event", code) - code, out.get("event", code))
        bare = [n for n, c in enumerate(self.carried) if not c.value and (n == 0 or "name" in out)]
        if bare:
            without = paid & np.isin(out.get("name", true.name), bare)
            out["value"] = np.where(without, MISSING, true.value)
            out["currency"] = np.where(without, NONE, true.currency)
        stamp = true.occurred_at
        if t.clock_skew_seconds:
            from scipy import special

            skew = t.clock_skew_seconds * special.ndtri(u("clock skew", rep, code)) * 1e6
            stamp = np.where(paid, self.grid.floor(stamp + np.rint(skew).astype(np.int64)), stamp)
        if t.zone_error_share:
            off = paid & (u("zone error", rep, code) < t.zone_error_share)
            stamp = np.where(off, stamp + t.zone_error_hours * HOUR, stamp)
        return true.with_(occurred_at=stamp, **out)

    def machines(self, sends: Sends, place: I8, there: B1) -> Iterator[tuple[Events, I8]]:
        """Opens and clicks of the sends that are `there` (n,), delivered, that no person made."""
        row = self.users.row(sends.rep, sends.user)
        for who, kind, what, after in (
            (self.machine, OPEN, MACHINE_OPEN, MINUTE), (self.scanner, CLICK, SCANNER_CLICK, MINUTE // 3),
        ):  # fmt: skip
            i = np.flatnonzero(who[row] & there)
            if not len(i):
                continue
            rep, user, code = sends.rep[i], sends.user[i], event_code(sends.user[i], place[i], what)
            at = sends.sent_at[i] + laws.exponential(after, self.u("machine delay", rep, code))
            flagged = self.u("machine flagged", rep, code) < self.t.machine_flagged
            made = Events.build(len(i), event=code, rep=rep, user=user, kind=kind, occurred_at=self.grid.floor(at),
                                send=sends.send[i], machine=flagged.astype(np.int8))  # fmt: skip
            for told, _ in self.events(made):
                yield told, np.full(len(told), NONE, np.int64)

    def tests(self) -> Iterator[tuple[Events, I8]]:
        """Purchases that nobody made: a Poisson process a user."""
        rate = self.t.test_purchases_per_user_day
        rep, user, t = self.users.rep, self.users.user, self.users.signed_up
        for k in range(SHARED_ID if rate else 0):
            wait = laws.exponential(DAY / rate, self.u("test purchase", rep, user, 0, k))
            alive = t < self.end - wait
            rep, user, t = rep[alive], user[alive], (t + wait)[alive]
            if not len(t):
                return
            code, at = purchase_code(user, TESTED, k), self.grid.floor(t)
            made = Events.build(len(t), event=code, rep=rep, user=user, kind=CONVERSION, name=0, currency=0,
                                occurred_at=at, value=TEST_AMOUNT)  # fmt: skip
            for told, _ in self.events(made):
                yield told, np.full(len(told), NONE, np.int64)

    def arrival(self, rep: I4, code: I8, t: I8, k: int) -> tuple[I8, B1]:
        """When the k-th copy of a webhook about something at `t` is heard (never at that instant), and whether it is
        lost. A provider goes on with its schedule through all outages."""
        f, u = self.t, self.u
        at = t + laws.exponential(f.webhook_delay_minutes * MINUTE, u("webhook delay", rep, code, 0, k))
        if k:
            at = at + laws.exponential(6 * HOUR, u("copy delay", rep, code, 0, k))
        if f.late_share:
            late = u("late", rep, code, 0, k) < f.late_share
            at = at + np.where(late, laws.exponential(f.late_hours * HOUR, u("late by", rep, code, 0, k)), 0)
        at = np.maximum(at, t + 1)
        lost = u("lost", rep, code, 0, k) < f.lost_share if f.lost_share else np.zeros(len(at), bool)
        first = at
        for o in sorted(f.outages, key=lambda o: o.day):
            low = self.start + round(o.day * DAY)
            high = low + round(o.hours * HOUR)
            down = (at >= low) & (at < high)
            tries = np.searchsorted(self.attempts, high - first, side="left")
            heard = down & (tries < len(self.attempts)) & o.backlog
            at = np.where(heard, first + self.attempts[np.minimum(tries, len(self.attempts) - 1)], at)
            lost = lost | (down & ~heard)
        return at, lost

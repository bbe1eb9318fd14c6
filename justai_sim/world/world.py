"""The world: how users respond to a send. Every draw is hashed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from justai_sim.clock import DAY, HOUR, MINUTE
from justai_sim.tables import (
    B1,
    BOUNCE,
    CLICK,
    CONVERSION,
    F8,
    I4,
    I8,
    NONE,
    OPEN,
    UNSUBSCRIBE,
    Events,
    Sends,
)
from justai_sim.truth import Truth
from justai_sim.world import laws
from justai_sim.world.activity import Activity
from justai_sim.world.codes import AGAIN, MACHINE_OPEN, ORGANIC, REFUND, event_code, purchase_code
from justai_sim.world.people import Draws, Users, cell_factors, organic
from justai_sim.world.spec import Delay, Value, Variant, World

NEVER_BEFORE, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
MONTH = 30 * DAY
BOUNCED_AFTER = MINUTE // 2
MOST_AGAIN = MACHINE_OPEN - AGAIN

L = TypeVar("L", Delay, Value)


@dataclass(frozen=True)
class Grid:
    """What the provider can write: the resolution of times (microseconds) and amounts (micro-units), and whether
    purchases carry the id of their order."""

    time: int
    money: int
    orders: bool

    def floor(self, t: I8) -> I8:
        """The instant as the provider writes it."""
        return t - t % self.time


@dataclass(frozen=True)
class Happened:
    """What really happened: events whose receipt is not known yet, and the truth of the purchases among them."""

    events: Events
    truth: Truth

    def since(self, start: int) -> Happened:
        """What happens from `start` on."""
        e, t = self.events, self.truth
        return Happened(e.take(e.occurred_at >= start), t.take(t.occurred_at >= start))

    @classmethod
    def all(cls, parts: Sequence[Happened]) -> Happened:
        return cls(Events.concat([p.events for p in parts]), Truth.concat([p.truth for p in parts]))


class Responder:
    """Draws what users do. `variants`: by template code, the control first."""

    def __init__(
        self, world: World, variants: Sequence[Sequence[Variant]], u: Draws, users: Users, start: int, end: int,
        grid: Grid,
    ) -> None:  # fmt: skip
        self.world, self.u, self.users, self.start, self.end, self.grid = world, u, users, start, end, grid
        self.arms = arms = max(len(v) for v in variants)

        def table(of: Callable[[Variant], float]) -> F8:
            """By cell: template x arms + arm."""
            return np.array([x for row in variants for x in [of(v) for v in row] + [0.0] * (arms - len(row))])

        self.rate = {
            "open": table(lambda v: v.open_rate), "click": table(lambda v: v.click_rate),
            "unsubscribe": table(lambda v: v.unsubscribe_rate), "conversion": table(lambda v: v.conversion_rate),
        }  # fmt: skip
        self.trend = [table(lambda v: v.drift), table(lambda v: v.novelty), table(lambda v: v.novelty_days * DAY),
                      table(lambda v: start + v.from_day * DAY)]  # fmt: skip
        self.delays = by_law([[v.delay or world.delay for v in row] for row in variants], arms)
        self.values = by_law([[v.value or world.value for v in row] for row in variants], arms)
        self.segmented: F8 | None = None
        if any(v.segments for row in variants for v in row):
            blank = np.ones(len(cell_factors(world, {})))
            rows = [[cell_factors(world, v.segments) for v in row] + [blank] * (arms - len(row)) for row in variants]
            self.segmented = np.array(rows).reshape(-1, len(blank))
        self.activity = Activity(world, start, end)
        self.own = {
            kind: laws.gamma_factor(spread, u(f"{kind} spread", users.rep, users.user)) if spread else None
            for kind, spread in (("conversion", world.conversion_spread), ("engagement", world.engagement_spread))
        }
        n = len(users.rep)
        self.load: F8 = np.zeros(n if world.fatigue or world.fatigue_unsubscribe else 0)
        self.loaded_at: I8 = np.full(len(self.load), start, np.int64)
        self.carried: F8 = np.zeros(n if world.carry_over else 0)

    def organic(self) -> Happened:
        """Purchases that happen anyway, from before sign-up to the end."""
        row, k, t = organic(self.world, self.u, self.users, self.start, self.end)
        rep, user = self.users.rep[row], self.users.user[row]
        amount = self.amounts([(self.world.value, None)], rep, purchase_code(user, ORGANIC, k))
        return self.purchases(rep, user, purchase_code(user, ORGANIC, k), t, amount, NONE)

    def respond(self, sends: Sends, place: I8, arm: I8) -> tuple[Happened, B1, I8]:
        """What comes of these sends, at most one a user: events and truth; which of them arrived; and when each user
        stops being mailed (an unsubscribe or a bounce; the far future otherwise)."""
        rep, user, t, template = sends.rep, sends.user, sends.sent_at, sends.template
        row = self.users.row(rep, user)

        def below(purpose: str, chance: F8 | float) -> B1:
            if not np.any(chance):
                return np.zeros(len(t), np.bool_)
            return self.u(purpose, rep, user, place) < chance

        cell = template * self.arms + arm
        there = ~below("bounce", self.world.bounce_rate)
        tired = self.tired(row, t, there)
        opens, leaves = self.chances(cell, row, tired)
        opened = there & below("open", opens)
        o = np.flatnonzero(opened)
        clicked = np.zeros(len(t), np.bool_)
        clicked[o] = self.u("click", rep[o], user[o], place[o]) < self.rate["click"][cell[o]]
        left = there & below("unsubscribe", leaves)
        buying = self.buying(cell, row, t, tired) * self.lifted(opens, cell, opened, clicked)
        bought = there & below("conversion", buying)
        c, x, b = (np.flatnonzero(which) for which in (clicked, left, ~there))
        open_at = self.after(sends, place, o, self.world.open_delay_hours * HOUR, "open delay")
        read_at = np.zeros(len(t), np.int64)
        read_at[o] = open_at
        click = laws.exponential(
            self.world.click_delay_minutes * MINUTE, self.u("click delay", rep[c], user[c], place[c])
        )
        leave_at = self.after(sends, place, x, self.world.unsubscribe_delay_hours * HOUR, "unsubscribe delay")
        told = [(OPEN, o, open_at), (CLICK, c, read_at[c] + click), (UNSUBSCRIBE, x, leave_at),
                (BOUNCE, b, t[b] + BOUNCED_AFTER)]  # fmt: skip
        parts = [
            self.events(
                kind, rep[i], user[i], event_code(user[i], place[i], kind), when, send=sends.send[i],
                machine=0 if kind in (OPEN, CLICK) else -1,
            )
            for kind, i, when in told
        ]  # fmt: skip
        paid = self.caused(sends, place, cell, np.flatnonzero(bought))
        stop = np.full(len(t), NEVER)
        stop[x], stop[b] = leave_at, t[b]
        return Happened(Events.concat([*parts, paid.events]), paid.truth), there, stop

    def after(self, sends: Sends, place: I8, i: I8, mean: float, purpose: str) -> I8:
        """Instants some active time after the sends `i`, exponential with this mean (microseconds)."""
        rep, user, t = sends.rep[i], sends.user[i], sends.sent_at[i]
        wait = laws.exponential(mean, self.u(purpose, rep, user, place[i]))
        return (
            t + wait if self.activity.flat else self.activity.later(self.users.zone[self.users.row(rep, user)], t, wait)
        )

    def chances(self, cell: I8, row: I8, tired: F8 | None) -> tuple[F8, F8]:
        """Probabilities of opening and of leaving."""
        opens, leaves = self.rate["open"][cell], self.rate["unsubscribe"][cell]
        own = self.own["engagement"]
        if own is not None:
            opens = np.minimum(opens * own[row], 1.0)
        if tired is not None:
            opens = opens * np.exp(-self.world.fatigue * tired)
            leaves = np.minimum(leaves * np.exp(self.world.fatigue_unsubscribe * tired), 1.0)
        return opens, leaves

    def buying(self, cell: I8, row: I8, t: I8, tired: F8 | None) -> F8:
        """Probability that a send causes a conversion, before what opening and clicking change."""
        p = self.rate["conversion"][cell]
        if self.segmented is not None:
            p = p * self.segmented[cell, self.users.cell[row]]
        drift, novelty, fades, since = self.trend
        if drift.any():
            p = p * np.exp(drift[cell] * (t - self.start) / MONTH)
        if novelty.any():
            p = p * (1 + novelty[cell] * np.exp(-np.maximum(t - since[cell], 0) / fades[cell]))
        own = self.own["conversion"]
        if own is not None:
            p = p * own[row]
        for s in self.world.shocks:
            on = (t >= self.start + s.day * DAY) & (t < self.start + (s.day + s.days) * DAY)
            p = np.where(on, p * s.conversion, p)
        if tired is not None:
            p = p * np.exp(-self.world.fatigue * tired)
        if len(self.carried):
            p = p + self.world.carry_over * self.carried[row]
            self.carried[row] = self.rate["conversion"][cell]
        return np.minimum(p, 1.0)

    def lifted(self, opens: F8, cell: I8, opened: B1, clicked: B1) -> F8 | float:
        """The factor of those who opened or clicked, such that its mean is 1."""
        a, b = self.world.open_effect, self.world.click_effect
        if a == b == 1:
            return 1.0
        clicks = self.rate["click"][cell]
        mean = 1 - opens + opens * ((1 - clicks) * a + clicks * b)
        return np.divide(np.where(clicked, b, np.where(opened, a, 1.0)), mean, out=np.zeros(len(mean)), where=mean > 0)

    def tired(self, row: I8, t: I8, there: B1) -> F8 | None:
        """Messages of late, each counting half as much after `fatigue_days`; the new ones are added."""
        if not len(self.load):
            return None
        faded = np.exp(-math.log(2) * (t - self.loaded_at[row]) / (self.world.fatigue_days * DAY))
        load = self.load[row] * faded
        self.load[row], self.loaded_at[row] = load + there, t
        return load

    def caused(self, sends: Sends, place: I8, cells: I8, bought: I8) -> Happened:
        """The purchases that the sends `bought` cause: one each, and perhaps more, each some time after the last."""
        i, t = bought, sends.sent_at[bought]
        parts = []
        for j in range(MOST_AGAIN + 1):
            if not len(i):
                break
            rep, user, at = sends.rep[i], sends.user[i], place[i]
            u = self.u("conversion delay", rep, user, at, j)
            cell = cells[i]
            wait = drawn(self.delays, cell, partial(_delay, u))
            t = self.activity.later(self.users.zone[self.users.row(rep, user)], t, wait)
            code = event_code(user, at, CONVERSION if j == 0 else AGAIN + j - 1)
            parts.append(self.purchases(rep, user, code, t, self.amounts(self.values, rep, code, cell), sends.send[i]))
            more = self.u("again", rep, user, at, j) < self.world.repeat_rate
            i, t = i[more], t[more]
        return Happened.all(parts)

    def amounts(self, by: list[tuple[Value, I8 | None]], rep: I4, code: I8, cell: I8 | None = None) -> I8:
        u = self.u("value", rep, code)
        cell = np.zeros(len(u), np.int64) if cell is None else cell
        return drawn(by, cell, partial(_amount, u, self.grid.money))

    def purchases(self, rep: I4, user: I8, code: I8, t: I8, amount: I8, cause: I8 | int) -> Happened:
        """Purchases and the refunds of some of them, with their truth."""
        order = code if self.grid.orders and self.world.refund_rate else NONE
        bought = self.events(CONVERSION, rep, user, code, t, value=amount, name=0, currency=0, order=order)
        happened = Happened(bought, truth_of(bought, cause))
        if not self.world.refund_rate:
            return happened
        back = np.flatnonzero((self.u("refund", rep, code) < self.world.refund_rate) & (amount > 0))
        wait = laws.exponential(self.world.refund_delay_days * DAY, self.u("refund delay", rep[back], code[back]))
        refunds = bought.take(back).with_(
            event=code[back] + REFUND, occurred_at=self.grid.floor(t[back] + wait), value=-amount[back]
        )
        cause = cause[back] if isinstance(cause, np.ndarray) else cause
        return Happened.all([happened, Happened(refunds, truth_of(refunds, cause))])

    def events(self, kind: int, rep: I4, user: I8, event: I8, t: I8, **columns: object) -> Events:
        """Events as the provider stamps them; their receipt is not known yet."""
        return Events.build(
            len(t), event=event, rep=rep, user=user, kind=kind, occurred_at=self.grid.floor(t), **columns
        )


def _delay(u: F8, law: Delay, which: slice | I8) -> I8:
    return laws.delay(law, u[which])


def _amount(u: F8, grid: int, law: Value, which: slice | I8) -> I8:
    return laws.amount(law, u[which], grid)


def truth_of(events: Events, cause: I8 | int) -> Truth:
    return Truth.build(len(events), event=events.event, rep=events.rep, cause=cause, occurred_at=events.occurred_at,
                       value=events.value)  # fmt: skip


def by_law(laws_of: Sequence[Sequence[L]], arms: int) -> list[tuple[L, I8 | None]]:
    """Each law with the cells (template x arms + arm) that follow it; None where all follow one."""
    found: list[tuple[L, list[int]]] = []
    for t, row in enumerate(laws_of):
        for a, law in enumerate(row):
            mine = next((cells for known, cells in found if known == law), None)
            if mine is None:
                found.append((law, mine := []))
            mine.append(t * arms + a)
    return [(law, None if len(found) == 1 else np.array(cells)) for law, cells in found]


def drawn(by: list[tuple[L, I8 | None]], cell: I8, draw: Callable[[L, slice | I8], I8]) -> I8:
    """What each law draws for its own cells."""
    if by[0][1] is None:
        return draw(by[0][0], slice(None))
    out = np.zeros(len(cell), np.int64)
    for law, cells in by:
        which = np.flatnonzero(np.isin(cell, NONE if cells is None else cells))
        out[which] = draw(law, which)
    return out

"""The world: who signs up, what they buy anyway, and how they respond to a send. Every draw is hashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from justai_sim.clock import DAY, HOUR, MINUTE
from justai_sim.streams import uniform
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
from justai_sim.world.spec import Delay, Variant, World

TEMPLATES = 64
ORGANIC = 1024
SLOTS = 128


def send_code(user: I8, template: I8, templates: int) -> I8:
    """Each user gets each of the flow's `templates` once."""
    return user * templates + template


def event_code(user: I8, slot: I8 | int, k: I8 | int) -> I8:
    """Codes grow with (user, slot, k): slot is the template, or `TEMPLATES` for organic purchases."""
    return (user * SLOTS + slot) * ORGANIC + k


def user_of_event(event: I8) -> I8:
    return event // (SLOTS * ORGANIC)


@dataclass(frozen=True)
class Users:
    """Sign-ups of a block of worlds: replication, number within it, instant; shape (n,)."""

    rep: I4
    user: I8
    signed_up: I8


class Responder:
    """Draws what users do. `start`, `end` in microseconds; grids are the provider's resolution."""

    def __init__(
        self, world: World, variants: Sequence[Sequence[Variant]], seed: int, start: int, end: int,
        time_grid: int, money_grid: int, name: int, currency: int, first_rep: int = 0,
    ) -> None:  # fmt: skip
        self.world, self.seed, self.start, self.end, self.first_rep = world, seed, start, end, first_rep
        self.time_grid, self.money_grid = time_grid, money_grid
        self.name, self.currency = name, currency
        arms = max(len(v) for v in variants)
        self.rate = {
            field: np.array([[getattr(v, field) for v in row] + [0.0] * (arms - len(row)) for row in variants])
            for field in ("conversion_rate", "open_rate", "click_rate", "unsubscribe_rate")
        }
        self.delays = [[v.delay or world.delay for v in row] for row in variants]

    def u(self, purpose: str, rep: I4, user: I8, place: I8 | int = 0, k: int = 0) -> F8:
        """Uniforms of a purpose; tables count replications within the block, draws count them all."""
        return uniform(self.seed, purpose, rep.astype(np.int64) + self.first_rep, user, place, k)

    def floor(self, t: I8) -> I8:
        """The instant as the provider writes it."""
        return t - t % self.time_grid

    def users(self, reps: int, days: int) -> Users:
        """Poisson sign-ups a day, at uniform instants."""
        rep = np.repeat(np.arange(reps, dtype=np.int32), days)
        day = np.tile(np.arange(days, dtype=np.int64), reps)
        count = laws.poisson(self.world.signups_per_day, self.u("signups", rep, day))
        rep_of, day_of = np.repeat(rep, count), np.repeat(day, count)
        first = np.searchsorted(rep_of, rep_of, side="left")
        user = np.arange(len(rep_of)) - first
        within = (self.u("signup time", rep_of, user) * DAY).astype(np.int64)
        return Users(rep_of, user, self.floor(self.start + day_of * DAY + within))

    def organic(self, users: Users) -> Events:
        """Purchases that happen anyway: a Poisson process per user, from before sign-up to the end."""
        rate = self.world.organic_per_user_day
        parts: list[Events] = []
        t = users.signed_up - round(self.world.history_days * DAY)
        rep, user = users.rep, users.user
        for k in range(ORGANIC):
            if rate == 0 or not len(t):
                break
            t = t + laws.exponential(DAY / rate, self.u("organic", rep, user, 0, k))
            alive = t < self.end
            t, rep, user = t[alive], rep[alive], user[alive]
            parts.append(self.purchases(rep, user, event_code(user, TEMPLATES, k), t))
        return Events.concat(parts)

    def purchases(self, rep: I4, user: I8, event: I8, t: I8) -> Events:
        amount = laws.amount(self.world.value, self.u("value", rep, event), self.money_grid)
        return self.events(CONVERSION, rep, user, event, t, value=amount, name=self.name, currency=self.currency)

    def events(self, kind: int, rep: I4, user: I8, event: I8, t: I8, **columns: object) -> Events:
        """Events as the provider tells of them, with our receipt some minutes later."""
        happened = self.floor(t)
        return Events.build(
            len(t), event=event, rep=rep, user=user, kind=kind, occurred_at=happened,
            received_at=happened + self.latency(rep, event), **columns,
        )  # fmt: skip

    def latency(self, rep: I4, code: I8, what: str = "webhook delay") -> I8:
        return laws.exponential(self.world.webhook_delay_minutes * MINUTE, self.u(what, rep, code))

    def respond(self, sends: Sends, arm: I8) -> tuple[Events, Truth, I8]:
        """What comes of these sends: events, the truth of the conversions, and when each user stops
        being mailed (an unsubscribe or a bounce; the far future otherwise)."""
        rep, user, place, t = sends.rep, sends.user, sends.template, sends.sent_at

        def draw(purpose: str) -> F8:
            return self.u(purpose, rep, user, place)

        def happens(purpose: str) -> B1:
            return draw(purpose) < self.rate[f"{purpose}_rate"][place, arm]

        bounced = draw("bounce") < self.world.bounce_rate
        there = ~bounced
        opened = there & happens("open")
        clicked = opened & happens("click")
        left = there & happens("unsubscribe")
        bought = there & happens("conversion")
        open_at = t + laws.exponential(self.world.open_delay_hours * HOUR, draw("open delay"))
        click_at = open_at + laws.exponential(self.world.click_delay_minutes * MINUTE, draw("click delay"))
        leave_at = t + laws.exponential(self.world.unsubscribe_delay_hours * HOUR, draw("unsubscribe delay"))
        stop = np.where(left, leave_at, np.iinfo(np.int64).max)
        stop = np.where(bounced, t, stop)
        told = [(OPEN, opened, open_at), (CLICK, clicked, click_at), (UNSUBSCRIBE, left, leave_at),
                (BOUNCE, bounced, t + 30_000_000)]  # fmt: skip
        parts = [
            self.events(
                kind, rep[i], user[i], event_code(user[i], place[i], kind), when[i],
                send=sends.send[i], machine=0 if kind in (OPEN, CLICK) else -1,
            )
            for kind, which, when in told
            for i in [np.flatnonzero(which)]
        ]  # fmt: skip
        i = np.flatnonzero(bought)
        delay = self.conversion_delay(place[i], arm[i], self.u("conversion delay", rep[i], user[i], place[i]))
        code = event_code(user[i], place[i], CONVERSION)
        bought_rows = self.purchases(rep[i], user[i], code, t[i] + delay)
        parts.append(bought_rows)
        truth = Truth(event=code, rep=rep[i], cause=sends.send[i], occurred_at=bought_rows.occurred_at,
                      value=bought_rows.value)  # fmt: skip
        return Events.concat(parts), truth, stop

    def conversion_delay(self, template: I8, arm: I8, u: F8) -> I8:
        out = np.zeros(len(u), np.int64)
        for law, cells in self.by_law().items():
            which = np.isin(template * 1000 + arm, cells)
            out[which] = laws.delay(law, u[which])
        return out

    def by_law(self) -> dict[Delay, list[int]]:
        """The cells (template, arm) that share a delay law."""
        found: dict[Delay, list[int]] = {}
        for t, row in enumerate(self.delays):
            for a, law in enumerate(row):
                found.setdefault(law, []).append(t * 1000 + a)
        return found

    def twice(self, events: Events) -> Events:
        """The copies that the provider delivers once more, hours later."""
        again = self.u("duplicate", events.rep, events.event) < self.world.duplicate_share
        copies = events.take(again)
        later = laws.exponential(6 * HOUR, self.u("duplicate delay", copies.rep, copies.event))
        return copies.with_(received_at=copies.received_at + later)


def organic_truth(events: Events) -> Truth:
    return Truth(
        event=events.event, rep=events.rep, cause=np.full(len(events), NONE, np.int64), occurred_at=events.occurred_at,
        value=events.value,
    )  # fmt: skip

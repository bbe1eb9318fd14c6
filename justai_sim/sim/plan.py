"""All planned messages of a block of worlds: flows from sign-up, blasts by the calendar, triggered ones at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from justai_sim.clock import DAY, HOUR
from justai_sim.scenario import Blast, Scenario, Step, Touch, Trigger
from justai_sim.tables import I4, I8, Array
from justai_sim.world import laws
from justai_sim.world.activity import offsets
from justai_sim.world.codes import TEMPLATES
from justai_sim.world.people import Draws, Users
from justai_sim.world.world import Grid


@dataclass(frozen=True)
class Plan:
    """Planned messages in time order; `user` is the row of the user, `place` template + 64 n for the n-th of a
    template."""

    at: I8
    user: I4
    place: I4

    def within(self, start: int, stop: int) -> tuple[I8, I8, I8]:
        """Instant, user row and place of the messages of [start, stop)."""
        lo, hi = np.searchsorted(self.at, [start, stop])
        return self.at[lo:hi], self.user[lo:hi].astype(np.int64), self.place[lo:hi].astype(np.int64)


def by_code(scenario: Scenario) -> list[Touch]:
    """The touchpoints in the order of their template codes."""
    return sorted(scenario.touches, key=lambda t: t.id.encode())


def plan(scenario: Scenario, users: Users, u: Draws, grid: Grid) -> Plan:
    parts = [(0, np.zeros(0, np.int64), np.zeros(0, np.int32))]
    for code, touch in enumerate(by_code(scenario)):
        for n, (t, chosen) in enumerate(_rounds(touch, code, scenario, users, u)):
            t = grid.floor(t)
            keep = (t >= scenario.start_us) & (t < scenario.end_us)
            parts.append((code + TEMPLATES * n, t[keep], chosen[keep].astype(np.int32)))
    parts.sort(key=lambda part: part[0])  # a user's messages of one instant are served in this order
    when = np.concatenate([at for _, at, _ in parts])
    order = in_time((when - scenario.start_us) // grid.time)
    who = np.concatenate([user for *_, user in parts])[order]
    return Plan(when[order], who, np.repeat(np.array([place for place, *_ in parts], np.int32),
                                            [len(at) for _, at, _ in parts])[order])  # fmt: skip


def in_time(t: I8) -> I8:
    """The order of instants >= 0, shape (n,), that of the rows where they are equal.

    The highest bits of an instant and the row are sorted as one integer, several times as fast as rows by instants.
    """
    bits = len(t).bit_length()
    beyond = max(int(t.max(initial=0)).bit_length() + bits - 63, 0)
    packed = (t >> beyond << bits) | np.arange(len(t))
    packed.sort()
    order = packed & ((1 << bits) - 1)
    if beyond:
        packed >>= bits
        tied = np.zeros(len(t) + 1, bool)
        tied[1:-1] = packed[1:] == packed[:-1]
        at = np.flatnonzero(tied[1:] | tied[:-1])
        rows = order[at]
        order[at] = rows[np.lexsort((rows, t[rows]))]
    return order


def most_times(touch: Touch, days: int) -> int:
    """The most messages of a touchpoint that a user can get in a run (of a triggered one, that but one user in 10^12
    gets), at least 1. It must not depend on the users drawn: the ids of sends are made with it."""
    if isinstance(touch, Trigger):
        mean = touch.per_user_day * days
        most = int(np.ceil(special.pdtrik(1 - 1e-12, mean)))
    elif isinstance(touch, Step | Blast):
        most = int((days - touch.day) // touch.every_days) + 1
    else:
        most = 1
    return max(min(most, getattr(touch, "times", 1)), 1)


def _rounds(touch: Touch, code: int, scenario: Scenario, users: Users, u: Draws) -> list[tuple[I8, I8]]:
    """The n-th messages of a touchpoint, n = 0, 1, ...: instants and user rows."""
    everybody = np.arange(len(users.rep))
    zones = list(scenario.world.time_zones) or ["UTC"]
    out: list[tuple[I8, I8]] = []
    if isinstance(touch, Step):
        who = everybody[users.fresh]
        for n in range(most_times(touch, scenario.days)):
            base = users.signed_up[who] + round((touch.day + n * touch.every_days) * DAY)
            out.append((_local(base, touch.hour, users.zone[who], zones), who))
    elif isinstance(touch, Blast):
        for n in range(most_times(touch, scenario.days)):
            day = scenario.start_us + round((touch.day + n * touch.every_days) * DAY)
            spread = u("blast time", users.rep, users.user, code, n) * touch.spread_hours * HOUR
            t = _local(np.full(len(everybody), day), touch.hour, users.zone, zones) + spread.astype(np.int64)
            chosen = u("blast share", users.rep, users.user, code, n) < touch.share
            who = everybody[(users.signed_up <= t) & chosen]
            out.append((t[who], who))
    elif isinstance(touch, Trigger):
        who, t = everybody, users.signed_up.copy()
        for n in range(most_times(touch, scenario.days)):
            t = t + laws.exponential(DAY / touch.per_user_day, u("trigger", users.rep[who], users.user[who], code, n))
            there = t < scenario.end_us
            who, t = who[there], t[there]
            out.append((t, who))
    return out


def _local(base: I8, hour: float | None, zone: I8, zones: list[str]) -> I8:
    """The next instant at or after `base` at which it is `hour` at the user's place; `base` where no hour is set."""
    if hour is None or not len(base):
        return base
    local: Array = base + _shift(base, zone, zones)
    at = local - local % DAY + round(hour * HOUR)
    at = np.where(at < local, at + DAY, at)
    guess = at - _shift(base, zone, zones)
    # Where the clocks change in between, with the offset that holds then.
    better = at - _shift(guess, zone, zones)
    return np.where(_shift(better, zone, zones) == _shift(guess, zone, zones), better, guess)


def _shift(at: I8, zone: I8, zones: list[str]) -> I8:
    """Local time less UTC."""
    out = np.zeros(len(at), np.int64)
    for z, name in enumerate(zones):
        mine = zone == z
        out[mine] = offsets(name, at[mine].astype(float))
    return out

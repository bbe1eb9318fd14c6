"""All planned messages of a block of worlds: flows from sign-up, blasts by the calendar, triggered ones at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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


class Round(NamedTuple):
    """The n-th messages of a template in time order: instants, and rows of the users. `place` = template + 64 n."""

    place: int
    at: I8
    user: I4


@dataclass(frozen=True)
class Plan:
    """Planned messages, by round."""

    rounds: list[Round]

    def __len__(self) -> int:
        return sum(len(r.at) for r in self.rounds)

    def within(self, start: int, stop: int) -> tuple[I8, I8, I8]:
        """Instant, user row and place of the messages of [start, stop) in time order; those of one instant by place."""
        none = np.zeros(0, np.int64)
        at, user, place = [none], [none], [none]
        for r in self.rounds:
            lo, hi = np.searchsorted(r.at, [start, stop])
            at.append(r.at[lo:hi])
            user.append(r.user[lo:hi].astype(np.int64))
            place.append(np.full(hi - lo, r.place))
        when = np.concatenate(at)
        order = in_time(when - start)
        return when[order], np.concatenate(user)[order], np.concatenate(place)[order]


def plan(scenario: Scenario, users: Users, u: Draws, grid: Grid) -> Plan:
    rounds = []
    for code, touch in enumerate(by_code(scenario)):
        for n, (t, chosen) in enumerate(_rounds(touch, code, scenario, users, u)):
            t = grid.floor(t)
            keep = (t >= scenario.start_us) & (t < scenario.end_us)
            t, chosen = t[keep], chosen[keep]
            order = in_time(t - scenario.start_us)
            rounds.append(Round(code + TEMPLATES * n, t[order], chosen[order].astype(np.int32)))
    return Plan(sorted(rounds, key=lambda r: r.place))


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


def by_code(scenario: Scenario) -> list[Touch]:
    """The touchpoints in the order of their template codes."""
    return sorted(scenario.touches, key=lambda t: t.id.encode())


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


def _rounds(touch: Touch, code: int, scenario: Scenario, users: Users, u: Draws) -> Iterator[tuple[I8, I8]]:
    """The n-th messages of a touchpoint, n = 0, 1, ...: instants and user rows."""
    everybody = np.arange(len(users.rep))
    zones = list(scenario.world.time_zones) or ["UTC"]
    if isinstance(touch, Step):
        who = everybody[users.fresh]
        for n in range(most_times(touch, scenario.days)):
            base = users.signed_up[who] + round((touch.day + n * touch.every_days) * DAY)
            yield _local(base, touch.hour, users.zone[who], zones), who
    elif isinstance(touch, Blast):
        for n in range(most_times(touch, scenario.days)):
            day = scenario.start_us + round((touch.day + n * touch.every_days) * DAY)
            spread = u("blast time", users.rep, users.user, code, n) * touch.spread_hours * HOUR
            t = _local(np.full(len(everybody), day), touch.hour, users.zone, zones) + spread.astype(np.int64)
            chosen = u("blast share", users.rep, users.user, code, n) < touch.share
            who = everybody[(users.signed_up <= t) & chosen]
            yield t[who], who
    elif isinstance(touch, Trigger):
        who, t = everybody, users.signed_up.copy()
        for n in range(most_times(touch, scenario.days)):
            t = t + laws.exponential(DAY / touch.per_user_day, u("trigger", users.rep[who], users.user[who], code, n))
            there = t < scenario.end_us
            who, t = who[there], t[there]
            yield t, who


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

"""The users of a block of worlds: when they come, who they are, what they buy anyway."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from justai_sim.clock import DAY
from justai_sim.errors import UsageError
from justai_sim.streams import uniform
from justai_sim.tables import F8, I4, I8
from justai_sim.world import laws
from justai_sim.world.activity import Activity
from justai_sim.world.codes import SHARED_ID
from justai_sim.world.spec import World


@dataclass(frozen=True)
class Draws:
    """Uniforms by purpose. Tables count replications within the block, draws count them all."""

    seed: int
    first_rep: int

    def __call__(self, purpose: str, rep: I4, user: I8, place: I8 | int = 0, k: int = 0) -> F8:
        return uniform(self.seed, purpose, rep.astype(np.int64) + self.first_rep, user, place, k)


@dataclass(frozen=True)
class Users:
    """One row a user, by replication and number within it. `fresh`: signed up during the run; `cell`: the combination
    of attributes (see `cells`); `zone`: index of the time zone."""

    rep: I4
    user: I8
    signed_up: I8
    fresh: np.ndarray[tuple[int], np.dtype[np.bool_]]
    cell: I8
    zone: I8
    first: I8
    """Row of each replication's user 0."""

    def row(self, rep: I4, user: I8) -> I8:
        return self.first[rep] + user


def users_of(world: World, u: Draws, reps: int, days: int, start: int, grid: int) -> Users:
    """The initial users, then Poisson sign-ups a day at uniform instants."""
    rep = np.repeat(np.arange(reps, dtype=np.int32), days)
    day = np.tile(np.arange(days, dtype=np.int64), reps)
    came = laws.poisson(world.signups_per_day, u("signups", rep, day))
    there = np.full((reps, 1), world.initial_users)
    count = np.hstack([there, came.reshape(reps, days)]).ravel()
    rep_of = np.repeat(np.repeat(np.arange(reps, dtype=np.int32), days + 1), count)
    day_of = np.repeat(np.tile(np.arange(-1, days, dtype=np.int64), reps), count)
    first = np.searchsorted(rep_of, np.arange(reps), side="left")
    user = np.arange(len(rep_of)) - first[rep_of]
    fresh = day_of >= 0
    within = (u("signup time", rep_of, user) * DAY).astype(np.int64)
    at = start + np.where(fresh, day_of * DAY + within, 0)
    return Users(rep_of, user, at - at % grid, fresh, cell_of(world, u, rep_of, user), zone_of(world, u, rep_of, user),
                 first)  # fmt: skip


def cell_of(world: World, u: Draws, rep: I4, user: I8) -> I8:
    """Attributes are independent of one another."""
    cell = np.zeros(len(user), np.int64)
    for name, values in world.attributes.items():
        cell = cell * len(values) + pick(u(f"attribute {name}", rep, user), list(values.values()))
    return cell


def zone_of(world: World, u: Draws, rep: I4, user: I8) -> I8:
    if len(world.time_zones) < 2:
        return np.zeros(len(user), np.int64)
    return pick(u("time zone", rep, user), list(world.time_zones.values()))


def pick(u: F8, weights: list[float]) -> I8:
    """Which part of (0, 1), cut by the weights, each uniform lies in."""
    edges = np.cumsum(weights) / np.sum(weights)
    return np.minimum(np.searchsorted(edges, u, side="right"), len(weights) - 1)


def cells(world: World) -> list[dict[str, str]]:
    """The combinations of attributes, by cell."""
    names = list(world.attributes)
    return [dict(zip(names, v, strict=True)) for v in itertools.product(*world.attributes.values())]


def cell_shares(world: World) -> F8:
    """Share of the users in each cell."""
    out = np.ones(1)
    for values in world.attributes.values():
        share = np.array(list(values.values()))
        out = np.outer(out, share / share.sum()).ravel()
    return out


def cell_factors(world: World, factors: dict[str, float]) -> F8:
    """The product of the factors of a user's attributes, by cell."""
    told = [[f"{a}={v}" for a, v in cell.items()] for cell in cells(world)]
    return np.array([np.prod([factors.get(k, 1.0) for k in keys]) for keys in told])


def organic(world: World, u: Draws, users: Users, start: int, end: int) -> tuple[I8, I8, I8]:
    """Purchases that happen anyway, a Poisson process a user from before sign-up to `end`: row of the user, number,
    instant."""
    clock = Activity(world, start - round(world.history_days * DAY), end, world.shocks, start)
    rate = world.organic_per_user_day * cell_factors(world, world.organic_by)[users.cell]
    if world.organic_spread:
        rate = rate * laws.gamma_factor(world.organic_spread, u("organic spread", users.rep, users.user))
    t = users.signed_up - round(world.history_days * DAY)
    rows = np.flatnonzero(rate > 0)
    t, rate = t[rows], rate[rows]
    out: list[tuple[I8, I8, I8]] = []
    for k in range(SHARED_ID):
        if not len(rows):
            break
        wait = -np.log1p(-u("organic", users.rep[rows], users.user[rows], 0, k)) * (DAY / rate)
        t = clock.later(users.zone[rows], t, np.minimum(wait, laws.CENTURY * DAY).astype(np.int64))
        alive = t < end
        rows, t, rate = rows[alive], t[alive], rate[alive]
        out.append((rows, np.full(len(rows), k), t))
    if len(rows):
        rate_set = f"organic_per_user_day is {world.organic_per_user_day:g}"
        raise UsageError(f"{rate_set}: a user would buy more than {SHARED_ID:,} times in this run; expected less")
    none = np.zeros(0, np.int64)
    row, number, at = (np.concatenate([none, *(o[i] for o in out)]) for i in range(3))
    return row, number, at

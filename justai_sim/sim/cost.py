"""What a scenario will cost, before anything runs."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from justai_sim.errors import UsageError
from justai_sim.scenario import Blast, Scenario, Step, Trigger

SECONDS_PER_SEND = 2e-6
"""One send through choice, response, attribution and learning on one core of a laptop, roughly."""
SECONDS_PER_REFRESH = 2e-3
"""One refresh of all worlds that are simulated together, whatever happened since the last."""
SECONDS_PER_ALLOCATION = 15e-6
"""New shares for one template of one world, at every refresh: measured for every policy, daily and 6-hourly."""
SLOW_POLICIES = {"gamma_poisson": 120e-6, "nig_thompson": 160e-6}
"""The same of those whose shares are integrals that have to be computed anew each time."""
WORLDS_TOGETHER, SENDS_TOGETHER = 50, 500_000
"""At most so many worlds, or worlds with so many sends, are simulated together."""
BYTES_PER_SEND = 220
"""Row, outcome, plan, and the events that come back, machine opens among them; measured in `benchmarks/simulate.py`."""
BYTES_PER_USER = 100
BYTES_AT_LEAST = 300e6
"""The interpreter with what it has loaded."""


@dataclass(frozen=True)
class Cost:
    """Of one world: users, messages before anybody unsubscribes, purchases that happen anyway, seconds on one core that
    its refreshes take; seconds in all, bytes of memory."""

    users: float
    sends: float
    organic: float
    refreshing: float = 0.0

    @property
    def seconds(self) -> float:
        return (self.sends + self.organic) * SECONDS_PER_SEND + self.refreshing

    @property
    def bytes(self) -> float:
        return (self.sends + self.organic) * BYTES_PER_SEND + self.users * BYTES_PER_USER

    def __str__(self) -> str:
        return (
            f"{self.users:,.0f} users, {self.sends:,.0f} sends and {self.organic:,.0f} purchases that happen anyway: "
            f"about {self.bytes / 1e9:,.1f} GB and {self.seconds:,.0f} seconds a world"
        )


def cost(scenario: Scenario) -> Cost:
    world, days = scenario.world, scenario.days
    users = world.initial_users + world.signups_per_day * days
    user_days = world.initial_users * days + world.signups_per_day * days**2 / 2 + users * world.history_days
    return Cost(users, expected_sends(scenario), user_days * world.organic_per_user_day, refreshing(scenario))


def refreshing(scenario: Scenario) -> float:
    """Seconds that the refreshes of one world take: its part of what all worlds together cost, and new shares for each
    template, and for each segment that a policy knows."""
    program, world = scenario.program, scenario.world
    rows = 1 + math.prod(len(world.attributes[name]) for name in program.segments) if program.segments else 1
    each = SLOW_POLICIES.get(program.policy.name, SECONDS_PER_ALLOCATION) * len(scenario.touches) * rows
    return scenario.days * 24 / program.refresh_hours * (SECONDS_PER_REFRESH / together(scenario) + each)


def together(scenario: Scenario, most: int = WORLDS_TOGETHER) -> int:
    """How many worlds are simulated together."""
    fit = int(SENDS_TOGETHER // max(1.0, expected_sends(scenario)))
    return max(1, min(most, scenario.replications, fit))


def affordable(scenario: Scenario) -> None:
    """UsageError, with the estimate, if a world does not fit in the memory that is free, or sends nothing."""
    found, free = cost(scenario), free_memory()
    if found.users > 1e8:
        raise UsageError(f"{scenario.name}: {found}; at most 100,000,000 users can be told apart")
    if not found.sends:
        raise UsageError(
            f"{scenario.name}: no message would be sent in {scenario.days} days; expected users (steps of the flow "
            "go to those who sign up, signups_per_day) and a day of a flow or blast before the end"
        )
    need = found.bytes + BYTES_AT_LEAST
    if need > free:
        raise UsageError(
            f"{scenario.name} does not fit in memory: {found}; {free / 1e9:,.1f} GB are free. Lower signups_per_day, "
            "initial_users, days or the number of messages"
        )


def free_memory() -> float:
    """Bytes that a program can still get."""
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return float(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: what the machine has
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 8e9


def expected_sends(scenario: Scenario) -> float:
    """Messages of one world before anybody unsubscribes."""
    world, days = scenario.world, scenario.days
    total = 0.0
    for touch in scenario.touches:
        if isinstance(touch, Step | Blast):
            starts = [touch.day + n * touch.every_days for n in range(touch.times)]
            if isinstance(touch, Step):
                total += sum(world.signups_per_day * max(0.0, days - d) for d in starts)
            else:
                total += touch.share * sum(world.initial_users + world.signups_per_day * d for d in starts if d < days)
        elif isinstance(touch, Trigger):
            user_days = world.initial_users * days + world.signups_per_day * days**2 / 2
            most = touch.times * (world.initial_users + world.signups_per_day * days)
            total += min(touch.per_user_day * user_days, most)
    return total

"""What a scenario will cost, before anything runs."""

from __future__ import annotations

from justai_sim.scenario import Blast, Scenario, Step, Trigger


def expected_sends(scenario: Scenario) -> float:
    """Messages of one world before anybody unsubscribes."""
    world, days = scenario.world, scenario.days
    total = 0.0
    for touch in scenario.touches:
        if isinstance(touch, Step):
            starts = (touch.day + n * touch.every_days for n in range(touch.times))
            total += sum(world.signups_per_day * max(0.0, days - d) for d in starts)
        elif isinstance(touch, Blast):
            starts = (touch.day + n * touch.every_days for n in range(touch.times))
            there = (world.initial_users + world.signups_per_day * d for d in starts if d < days)
            total += touch.share * sum(there)
        elif isinstance(touch, Trigger):
            user_days = world.initial_users * days + world.signups_per_day * days**2 / 2
            most = touch.times * (world.initial_users + world.signups_per_day * days)
            total += min(touch.per_user_day * user_days, most)
    return total

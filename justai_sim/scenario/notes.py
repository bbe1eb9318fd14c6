"""What a scenario says that is allowed, and perhaps not meant."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scipy import special

from justai_sim.scenario.model import Scenario, Touch, effects
from justai_sim.world.people import cell_factors
from justai_sim.world.spec import Variant
from justai_sim.world.telemetry import misnamed

LUCKY = 0.999
"""Of users who differ, the quantile that is looked at."""


def notes(scenario: Scenario) -> list[str]:
    """Sentences: variants that are never there together, chances beyond certainty, wrong names that are goals."""
    return [*_apart(scenario), *_certain(scenario), *_renamed(scenario)]


def _apart(scenario: Scenario) -> Iterator[str]:
    for t in scenario.touches:
        variants = scenario.variants_of(t)
        late = max(variants, key=lambda v: v.from_day)
        gone = min(variants, key=lambda v: _end(v, scenario))
        if late.from_day >= _end(gone, scenario):
            yield (
                f"template {t.id!r}: {gone.id!r} is archived on day {_end(gone, scenario):g}, {late.id!r} is added on "
                f"day {late.from_day:g}: on no day are all variants there; true rates are means over the whole run"
            )


def _end(v: Variant, scenario: Scenario) -> float:
    return float(scenario.days if v.until_day is None else min(v.until_day, scenario.days))


def _certain(scenario: Scenario) -> Iterator[str]:
    told: set[str] = set()
    for t in scenario.touches:
        for v in scenario.variants_of(t):
            for what, chance in (("convert", likeliest(scenario, t, v)), ("open", _open(scenario, v))):
                said = (
                    f"variant {v.id!r}: some would {what} with probability {chance:.3g}; it is cut at 1, so that fewer "
                )
                said += f"{what} than {'conversion' if what == 'convert' else what}_rate says"
                if chance > 1 + 1e-9 and said not in told:
                    told.add(said)
                    yield said


def likeliest(scenario: Scenario, touch: Touch, v: Variant) -> float:
    """The greatest chance that one message causes a conversion: on the best day, for the segment that is likeliest, the
    luckiest 1 of 1,000 users, and who opens or clicks, before it is cut at 1."""
    world = scenario.world
    days = (v.from_day, _end(v, scenario))
    trend = max(math.exp(v.drift * d / 30) for d in days) * (1 + max(v.novelty, 0.0))
    shock = max([1.0, *(s.conversion for s in world.shocks if s.day < scenario.days)])
    p = (
        v.conversion_rate
        * float(cell_factors(world, v.segments).max())
        * trend
        * shock
        * _lucky(world.conversion_spread)
    )
    p += world.carry_over * max(o.conversion_rate for o in scenario.variants_of(touch))
    each = effects(v, world)
    mean = sum(share * effect for share, effect in each)
    top = max((effect for share, effect in each if share > 0), default=1.0)
    return min(p, 1.0) * top / mean if mean and top > mean else p


def _open(scenario: Scenario, v: Variant) -> float:
    return v.open_rate * _lucky(scenario.world.engagement_spread)


def _lucky(spread: float) -> float:
    """The quantile of a gamma factor of mean 1 with this coefficient of variation."""
    if not spread:
        return 1.0
    shape = 1 / spread**2
    return float(special.gammaincinv(shape, LUCKY)) / shape


def _renamed(scenario: Scenario) -> Iterator[str]:
    goals, faults = scenario.program.goals, scenario.telemetry.faults
    wrong = misnamed(goals[0]) if goals else ""
    if not (faults.wrong_name_share or faults.renamed_from_day is not None):
        return
    if wrong in goals:
        yield f"purchases under a wrong name count all the same: {wrong!r} is among the goals"
    elif not goals:
        yield "purchases under a wrong name count all the same: without goals every name counts"

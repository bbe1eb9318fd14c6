"""The engine equals a slow simulator that has one process a message: every row, receipt and cause, at every refresh."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from justai_sim.scenario import Scenario, parse, with_settings
from justai_sim.sim.engine import Block, simulate_block
from justai_sim.tables import Table
from tests.slow_twin import Twin, table

BASE = """
name = "twin"
days = 12
replications = 2
seed = 11
esp = "braze"
start = "2026-01-05T00:00:00Z"
[program]
goals = ["purchase"]
[program.policy]
name = "weighted_thompson"
[program.rule]
offset_days = 0
lookback_days = 3
[world]
signups_per_day = 8
initial_users = 12
organic_per_user_day = 0.05
bounce_rate = 0.0
delay = { law = "exponential", mean_days = 1.5 }
[telemetry]
clean = true
[[variants]]
id = "control"
conversion_rate = 0.3
open_rate = 0.5
click_rate = 0.4
[[variants]]
id = "b"
conversion_rate = 0.5
open_rate = 0.6
click_rate = 0.3
unsubscribe_rate = 0.05
[[variants]]
id = "a"
conversion_rate = 0.2
[[flow]]
id = "one"
day = 0
[[flow]]
id = "two"
day = 1.5
[[flow]]
id = "also"
day = 1.5
"""

PLAIN: dict[str, Any] = {}
RESPONSES = {
    "world.fatigue": 0.4, "world.fatigue_unsubscribe": 0.5, "world.fatigue_days": 3.0, "world.carry_over": 0.3,
    "world.bounce_rate": 0.05, "world.suppressed_rate": 0.1, "world.open_effect": 1.5, "world.click_effect": 2.5,
    "world.conversion_spread": 0.7, "world.engagement_spread": 0.5, "world.organic_spread": 1.2,
    "world.repeat_rate": 0.5, "world.refund_rate": 0.3, "variants.1.unsubscribe_rate": 0.2,
    "world.unsubscribe_delay_hours": 20.0, "program.holdout_share": 0.15,
}  # fmt: skip
"""All that people do, on one provider's second and another's millisecond with orders."""
TRENDS = {
    "world.attributes": {"plan": {"free": 3, "paid": 1}, "size": {"s": 1, "m": 1, "l": 2}},
    "world.organic_by": {"plan=paid": 3.0, "size=l": 0.5},
    "variants.1.segments": {"plan=paid": 1.8, "size=s": 0.4}, "variants.0.drift": 0.8, "variants.2.drift": -2.0,
    "variants.1.novelty": 0.9, "variants.1.novelty_days": 2.0, "variants.1.from_day": 2.5,
    "variants.2.until_day": 8.25, "world.shocks": [{"day": 4.3, "days": 1.5, "organic": 5, "conversion": 1.7}],
    "program.segments": {"plan": ["paid", "free"]}, "program.policy.name": "logistic_thompson",
}  # fmt: skip
CLOCKS = {
    "start": "2026-03-02T00:00:00Z", "days": 32,  # clocks change on 8 March in New York, on the 29th in Berlin
    "world.signups_per_day": 3,
    "world.time_zones": {"America/New_York": 2, "Europe/Berlin": 1},
    "world.hours": [0, 0, 0, 0, 0, 0.2, 1, 2, 3, 3, 2, 2, 3, 2, 2, 2, 2, 3, 4, 5, 5, 4, 2, 1],
    "world.weekdays": [1, 1, 1.2, 1, 1, 2, 1.5], "world.initial_users": 20,
    "world.shocks": [{"day": 5.27, "days": 2.1, "organic": 3}],
    "flow.1.hour": 9.25, "flow.1.times": 4, "flow.1.every_days": 2.5,
    "blasts": [
        {"id": "news", "day": 4, "hour": 20, "share": 0.7, "spread_hours": 2.5, "times": 4, "every_days": 7},
        {"id": "sale", "day": 6, "spread_hours": 0},
    ],
    "triggered": [{"id": "cart", "per_user_day": 0.2, "times": 4}],
}  # fmt: skip
FAULTS = {
    "telemetry.clean": False, "telemetry.lost_share": 0.05, "telemetry.late_share": 0.1, "telemetry.late_hours": 30,
    "telemetry.duplicate_share": 0.15, "telemetry.recoded_share": 0.1, "telemetry.reused_id_share": 0.1,
    "telemetry.machine_open_share": 0.4, "telemetry.scanner_share": 0.2, "telemetry.machine_flagged": 0.6,
    "telemetry.wrong_name_share": 0.1, "telemetry.renamed_from_day": 9.5, "telemetry.missing_user_share": 0.1,
    "telemetry.clock_skew_seconds": 90, "telemetry.zone_error_share": 0.1,
    "telemetry.test_purchases_per_user_day": 0.05,
    "world.refund_rate": 0.3, "world.repeat_rate": 0.3, "world.bounce_rate": 0.05,
    "telemetry.outages": [
        {"day": 4.1, "hours": 5}, {"day": 7.1, "hours": 9, "backlog": False}, {"day": 3.2, "hours": 20},
    ],
}  # fmt: skip
LAWS = {
    "variants.0.delay": {"law": "weibull", "shape": 0.7, "scale_days": 2.0},
    "variants.1.delay": {"law": "mixture", "weights": [2, 1], "parts": [
        {"law": "lognormal", "median_days": 0.2, "sigma": 1.1}, {"law": "gamma", "shape": 2.3, "scale_days": 1.0}]},
    "variants.2.delay": {"law": "empirical", "days": [0.1, 4.0, 0.5, 2.0]},
    "variants.0.value": {"law": "fixed", "mean": 12.345},
    "variants.1.value": {"law": "pareto", "mean": 30, "tail": 1.8, "zero_share": 0.2},
    "world.value": {"law": "lognormal", "mean": 25, "sigma": 1.0, "zero_share": 0.1}, "world.refund_rate": 0.2,
    "program.key_metric": "revenue_per_send", "program.policy.name": "uniform",
}  # fmt: skip
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "responses": RESPONSES,
    "responses, orders": RESPONSES | {"esp": "segment", "program.sticky": "variant"},
    "trends": TRENDS | {"esp": "segment"},
    "clocks": CLOCKS,
    "clocks and responses": CLOCKS | RESPONSES | {"seed": 3, "esp": "iterable", "program.sticky": "arm"},
    "clocks of Nepal": CLOCKS | {"world.time_zones": {"Asia/Kathmandu": 1, "UTC-3:30": 1}, "days": 14, "blasts": []},
    "faults": FAULTS,
    "faults, orders": FAULTS | RESPONSES | {"esp": "segment", "seed": 5},
    "a goal without amounts": FAULTS | {"program.goals": ["signup"], "seed": 6},
    "retries of seven days": FAULTS | {"esp": "sfmc", "program.refresh_hours": 7.0},
    "laws": LAWS | {"esp": "segment"},
    "laws, to the microsecond": LAWS | {"esp": "generic"},
    "organic purchases that come earlier": RESPONSES | {
        "world.replaces_organic": 0.6, "world.organic_per_user_day": 0.3,
    },
    "external split": RESPONSES | {
        "program.split": "external", "variants.1.from_day": 3.0, "variants.2.until_day": 7.0,
    },
    "at the refresh": {
        "flow": [], "blasts": [{"id": "all", "day": 2, "spread_hours": 0, "times": 9, "every_days": 0.5}],
        "program.holdout_share": 0.3, "telemetry.webhook_delay_minutes": 0.0,
    },
    "everything": CLOCKS | TRENDS | RESPONSES | FAULTS | {
        "world.shocks": [{"day": 5.27, "days": 2.1, "organic": 3, "conversion": 2}], "start": "2026-03-02T00:00:00Z",
        "days": 32, "program.sticky": "variant", "esp": "customerio",
    },
}  # fmt: skip


def scenario(settings: dict[str, Any]) -> Scenario:
    return with_settings(parse(BASE, "twin"), settings)


def rows(t: Table, origin: Any = None) -> list[tuple[Any, ...]]:
    """The rows of a table in an order of their own; NaN is None."""
    columns = [getattr(t, c.name).tolist() for c in t.SCHEMA] + ([] if origin is None else [list(origin)])
    plain = [
        tuple(None if isinstance(x, float) and math.isnan(x) else x for x in r) for r in zip(*columns, strict=True)
    ]
    return sorted(plain, key=repr)


def told(kind: type[Table], found: list[dict[str, Any]], origin: bool = False) -> list[tuple[Any, ...]]:
    return rows(table(kind, found), [r["origin"] for r in found] if origin else None)


def test_all_scenarios_name_settings_that_exist() -> None:
    for settings in SCENARIOS.values():
        scenario(settings)


def differing(block: Block, twin: Twin) -> str:
    """Where the two differ first; '' if nowhere."""
    sends, events, origin = block.state.sends.table, block.state.events.table, block.origin
    s = e = 0
    for k, (tick, mine) in enumerate(zip(block.ticks, twin.ticks, strict=True)):
        more_sends, more_events = twin.batches[k]
        if rows(sends.take(slice(s, s + len(more_sends)))) != told(type(sends), more_sends):
            return f"sends at refresh {k}"
        now = slice(e, e + len(more_events))
        if rows(events.take(now), origin[now].tolist()) != told(type(events), more_events, True):
            return f"events at refresh {k}"
        s, e = s + len(more_sends), e + len(more_events)
        for name in ("n", "shares", "live"):
            if not np.array_equal(getattr(tick, name), getattr(mine, name)):
                return f"{name} at refresh {k}"
        if not np.allclose(tick.y, mine.y, rtol=1e-12, atol=0):  # sums of money, in the order of the rows
            return f"y at refresh {k}"
    checks = {
        "number of sends": (len(sends), s),
        "number of events": (len(events), e),
        "truth": (rows(block.truth), told(type(block.truth), twin.truth)),
        "suppressed": (rows(block.suppressed), told(type(sends), twin.suppressed)),
        "unheard sends": (rows(block.unheard.sends), told(type(sends), twin.unheard_sends)),
        "unheard events": (
            rows(block.unheard.events, block.unheard.origin.tolist()), told(type(events), twin.unheard_events, True),
        ),
    }  # fmt: skip
    return next((name for name, (a, b) in checks.items() if a != b), "")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_engine_equals_the_slow_twin(name: str) -> None:
    s = scenario(SCENARIOS[name])
    block, twin = simulate_block(s, range(2)), Twin(s, 2).run()
    assert differing(block, twin) == ""
    assert len(twin.truth) > 40


CHOICES: dict[str, list[Any]] = {
    "program.sticky": ["none", "arm", "variant"], "program.split": ["internal", "internal", "external"],
    "program.refresh_hours": [24, 7, 31], "program.feedback": ["all", "mature"], "program.rule.offset_days": [0, 1],
    "program.policy.name": ["uniform", "weighted_thompson", "ucb1", "exp3", "logistic_thompson"],
    "program.rule.credit": ["last_qualifying", "all"], "program.rule.scope": ["template", "org"],
    "esp": ["braze", "segment", "customerio", "iterable", "sfmc"], "world.replaces_organic": [0.0, 0.4],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_any_mixture_of_settings(seed: int) -> None:
    """Every setting of the scenarios above by the toss of a coin."""
    toss = random.Random(seed)
    pool = RESPONSES | TRENDS | CLOCKS | FAULTS | LAWS | {"days": 14, "world.attributes": TRENDS["world.attributes"]}
    settings = {"world.attributes": pool["world.attributes"], "seed": seed}
    settings |= {k: v for k, v in pool.items() if toss.random() < 0.45}
    settings |= {k: toss.choice(v) for k, v in CHOICES.items()} | {"program.key_metric": "conversion_rate"}
    s = scenario(settings)
    assert differing(simulate_block(s, range(2)), Twin(s, 2).run()) == ""

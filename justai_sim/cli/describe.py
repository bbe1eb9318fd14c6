"""check and schema: what a scenario means and costs, and what can be written."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from justai_sim import stats
from justai_sim.attribution import PRESETS, Rule, TrainingWindow
from justai_sim.attribution.presets import differences
from justai_sim.bandit.lift import sees
from justai_sim.bandit.policy import COMMON, PolicySpec
from justai_sim.bandit.registry import POLICIES
from justai_sim.bandit.stopping import READY_SENDS
from justai_sim.cli.output import emit_json, tell
from justai_sim.esp.base import PRESETS as ESP_PRESETS
from justai_sim.esp.base import PROVIDERS, adapter, switches
from justai_sim.loop.program import Program
from justai_sim.pages.table import number
from justai_sim.scenario import Blast, Scenario, Step, Touch, Trigger, notes, points, read
from justai_sim.sim.cost import BYTES_AT_LEAST, cost, expected_sends, together
from justai_sim.tables import TABLES
from justai_sim.world import laws
from justai_sim.world.spec import Delay, Shock, Value, Variant, World
from justai_sim.world.telemetry import Outage, Telemetry


def check(source: str, json: bool) -> None:
    scenario = read(source)
    found = describe(scenario)
    if json:
        emit_json(**found)
        return
    for key, value in found.items():
        if key != "notes":
            tell(f"{key.replace('_', ' '):44} {number(value) if not isinstance(value, str) else value}")
    for note in found["notes"]:
        tell(f"note: {note}")


def describe(scenario: Scenario) -> dict[str, Any]:
    """Size, sensitivity and cost of a scenario. Rates are those of the first template's control."""
    rule, world = scenario.program.rule, scenario.world
    sends = expected_sends(scenario)
    first = scenario.touches[0]
    variants = scenario.variants_of(first)
    base = variants[0]
    edges = laws.delay_cdf(base.delay or world.delay, np.array([rule.upper_days, rule.offset_days]))
    capture = float(edges[0] - edges[1])
    width = rule.upper_days - rule.offset_days
    observed = 1 - (1 - base.conversion_rate * capture) * math.exp(-world.organic_per_user_day * width)
    n = expected_sends(one_touch(scenario, first))
    treated = max(1, len(variants) - 1)
    control, each = n * scenario.program.control_share, n * (1 - scenario.program.control_share) / treated
    lift = stats.min_detectable_lift(observed, control, each, variance="solved") if min(control, each) > 1 else math.nan
    between = stats.min_detectable_lift(observed, each, each, variance="solved") if each > 1 else math.nan
    ready = sees(observed, READY_SENDS * control / each) if min(control, each) > 1 else "nothing is sent"
    shares = [scenario.program.control_share] + [(1 - scenario.program.control_share) / treated] * treated
    mean = sum(v.conversion_rate * s for v, s in zip(variants, shares, strict=False))
    caused = sends * (1 - world.bounce_rate) * mean
    each_world = cost(scenario)
    swept = points(scenario)
    return {
        "scenario": scenario.name,
        "points_in_sweep": len(swept),
        "worlds": scenario.replications,
        "users_per_world": each_world.users,
        "sends_per_world": sends,
        "expected_caused_conversions_per_world": caused,
        "expected_organic_conversions_per_world": each_world.organic,
        "share_of_the_effect_that_the_window_sees": capture,
        "expected_rate_shown_for_the_control": observed,
        "smallest_visible_lift_against_control": f"{lift:+.0%} (80 % power, 5 % two-sided, one template, even split)",
        "smallest_visible_lift_between_two_variants": f"{between:+.0%}",
        "smallest_visible_lift_at_1_000_sends": ready,
        "seconds_on_one_core": scenario.replications * sum(cost(p.scenario).seconds for p in swept),
        "megabytes_per_worker": (BYTES_AT_LEAST + together(scenario) * each_world.bytes) / 1e6,
        "notes": notes(scenario),
    }


def one_touch(scenario: Scenario, touch: Touch) -> Scenario:
    """The scenario with one of its templates only."""
    kept = {k: [t for t in getattr(scenario, k) if t is touch] for k in ("flow", "blasts", "triggered")}
    return msgspec.structs.replace(scenario, sweep={}, **kept)


def schema(json: bool) -> None:
    parts: dict[str, type[msgspec.Struct]] = {
        "scenario": Scenario, "program": Program, "program.policy": PolicySpec, "program.rule": Rule,
        "program.training": TrainingWindow,
        "world": World,
        "world.delay": Delay, "world.value": Value, "world.shocks": Shock, "telemetry": Telemetry,
        "telemetry.outages": Outage, "variants": Variant, "flow": Step, "blasts": Blast, "triggered": Trigger,
    }  # fmt: skip
    fields = {name: _fields(part) for name, part in parts.items()}
    tables = {
        name: [
            {"column": c.public, "type": "/".join(c.text) if isinstance(c.text, tuple) else c.text,
             "required": c.missing is None, "meaning": c.meaning}
            for c in kind.SCHEMA if c.name != "rep"
        ]
        for name, kind in TABLES.items()
    }  # fmt: skip
    if json:
        emit_json(scenario=fields, tables=tables, policies=_policies(), presets=_presets(), esp_options=_switches())
        return
    for name, rows in fields.items():
        tell(f"[{name}]")
        for r in rows:
            tell(f"  {r['field']:26} {r['type']:60} {r['default']}")
    for name, columns in tables.items():
        tell(f"\n{name} (a table of a log)")
        for c in columns:
            tell(f"  {c['column']:18} {c['type']:14} {'required' if c['required'] else 'optional':9} {c['meaning']}")
    tell("\npolicies (all have: " + ", ".join(COMMON[1:]) + ")")
    for name, row in _policies().items():
        tell(f"  {name:20} {row['shelf']:9} {row['said']}" + (f"; settings: {', '.join(row['settings'])}" if
              row["settings"] else "") + (f"; {row['approximate']}" if row["approximate"] else "")
              + ("; deterministic" if row["deterministic"] else ""))  # fmt: skip
    tell("\nproviders (--esp NAME --esp-option KEY=VALUE)")
    for esp, known in _switches().items():
        tell(f"  {esp}")
        for key, value in known.items():
            tell(f"      {key}={_written(value)}")
    tell("\npresets (--preset NAME)")
    for name, p in _presets().items():
        tell(f"  {name}: {p['follows']}")
        for what in ("options", "source", "lacks", "yours"):
            if p[what]:
                text = ", ".join(f"{k}={v}" for k, v in p[what].items()) if what == "options" else p[what]
                tell(f"      {SAID[what]}: {text}")


def _switches() -> dict[str, dict[str, Any]]:
    """The options of each provider that has some, with their defaults."""
    made = {name: switches(adapter(name)) | ESP_PRESETS.get(name, {}) for name in PROVIDERS}
    return {name: found for name, found in made.items() if found}


def _written(value: Any) -> str:
    """A switch's value as --esp-option takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, tuple) else str(value)


SAID = {"options": "--set", "source": "documented in", "lacks": "cannot express", "yours": "set to your own"}


def _presets() -> dict[str, dict[str, Any]]:
    """What each preset follows, its options that are not the default's, and what it cannot express."""
    return {
        name: {
            "follows": p.follows, "options": differences(p.rule), "feedback": p.feedback,
            "training": msgspec.to_builtins(p.training), "source": p.source, "lacks": p.lacks,
            "yours": ", ".join(p.yours),
        }
        for name, p in PRESETS.items()
    }  # fmt: skip


def _fields(part: type[msgspec.Struct]) -> list[dict[str, Any]]:
    out = []
    for f in msgspec.structs.fields(part):
        if f.default is not msgspec.NODEFAULT:
            default: Any = f.default
        elif f.default_factory is not msgspec.NODEFAULT:
            default = f.default_factory()
        else:
            default = "(required)"
        if isinstance(default, msgspec.Struct):
            default = "(its own defaults)"
        kind = str(f.type).replace("typing.", "").replace("justai_sim.", "").replace("<class '", "").replace("'>", "")
        out.append({"field": f.name, "type": kind, "default": default})
    return out


def _policies() -> dict[str, dict[str, Any]]:
    return {
        name: {"shelf": p.shelf, "said": p.said, "settings": [*p.settings, *(["top_two"] if p.chances else [])],
               "metrics": list(p.metrics), "deterministic": p.deterministic, "approximate": p.approximate}
        for name, p in POLICIES.items()
    }  # fmt: skip

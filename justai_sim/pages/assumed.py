"""What a simulation takes for granted, in words."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from justai_sim.loop.program import Program
from justai_sim.pages.table import Column, Part, write
from justai_sim.scenario import Blast, Scenario, Step, Touch, Trigger
from justai_sim.world.spec import Delay, Spec, Variant, World
from justai_sim.world.telemetry import without_faults

PLAIN_VARIANT = Variant(id="", conversion_rate=0)
SHOWN = ("id", "conversion_rate", "delay")
WORLD_SHOWN = ("signups_per_day", "initial_users", "delay", "organic_per_user_day")
NOT_YOURS = "This is a simulation, not your data."


def delay_words(delay: Delay) -> str:
    """A delay law with its numbers."""
    if delay.law == "exponential":
        return f"exponential, {delay.mean_days:g} days on average"
    if delay.law in ("weibull", "gamma"):
        return f"{delay.law.capitalize()}, shape {delay.shape:g}, scale {delay.scale_days:g} days"
    if delay.law == "empirical":
        return f"as in {len(delay.days)} observed delays"
    if delay.law == "mixture":
        total = sum(delay.weights)
        parts = zip(delay.weights, delay.parts, strict=True)
        return "; ".join(f"{write(w / total, 'percent')} {delay_words(part)}" for w, part in parts)
    return f"log-normal, median {delay.median_days:g} days, sigma {delay.sigma:g}"


def touch_words(touch: Touch) -> str:
    """When a template's messages go out."""
    if isinstance(touch, Trigger):
        return f"{touch.id} {touch.per_user_day:g} times a user and day"
    if isinstance(touch, (Step, Blast)):
        times = f", {touch.times} times {touch.every_days:g} days apart" if touch.times > 1 else ""
        whom = f" to {write(touch.share, 'percent')} of all users" if isinstance(touch, Blast) else ""
        return f"{touch.id} on day {touch.day:g}{' of the run' if isinstance(touch, Blast) else ''}{whom}{times}"
    return touch.id


def others(part: Spec, plain: Spec, known: Collection[str] = ()) -> str:
    """The settings of a part that are not `plain`'s, in words."""

    def told(v: object) -> str:
        return ", ".join(f"{k} {told(x)}" for k, x in v.items()) if isinstance(v, dict) else str(v)

    found = {f: getattr(part, f) for f in part.__struct_fields__ if f not in known}
    return "; ".join(
        f"{k.replace('_', ' ')} {told(msgspec.to_builtins(v))}" for k, v in found.items() if v != getattr(plain, k)
    )


def assumptions(s: Scenario) -> Part:
    """The scenario's settings as a table of what and how much."""
    w, p = s.world, s.program
    touches = s.touches
    rates = {", ".join(f"{v.id} {write(v.conversion_rate, 'percent2')}" for v in s.variants_of(t)) for t in touches}
    conversions = rates.pop() if len(rates) == 1 else "differ by step (see the scenario file)"
    own = sorted({f"{v.id}: {delay_words(v.delay)}" for t in touches for v in s.variants_of(t) if v.delay is not None})
    policy = f"{p.policy.name}, prior Beta({p.policy.prior_alpha:g}, {p.policy.prior_beta:g})"
    policy += f", epsilon {p.policy.epsilon:g}, floor {p.policy.floor:g}"
    there = f"{w.initial_users:,} users at the start, " if w.initial_users else ""
    faults = "none" if s.telemetry.clean else others(s.telemetry, without_faults(s.telemetry.webhook_delay_minutes))
    more = {f"{v.id}: {said}" for t in touches for v in s.variants_of(t) if (said := others(v, PLAIN_VARIANT, SHOWN))}
    axes = "; ".join(f"{axis}: {axis_words(v)}" for axis, v in s.sweep.items())
    pairs = [
        ("purchases caused per delivered send", conversions),
        ("delay from send to purchase", "; ".join([delay_words(w.delay), *own])),
        ("purchases without a cause", f"{w.organic_per_user_day * 1000:g} per 1,000 user-days"),
        ("users", f"{there}{w.signups_per_day:g} sign-ups a day for {s.days} days"),
        ("sends", ", ".join(map(touch_words, touches))),
        ("more about the users", others(w, World(), WORLD_SHOWN)),
        ("more about the variants", "; ".join(sorted(more))),
        ("faults on the way to us", faults),
        ("control share", write(p.control_share, "percent")),
        ("refresh of the shares", f"every {p.refresh_hours:g} h"),
        ("policy in use", policy),
        ("what it learns from", learns_from(p)),
        ("window in use", f"counts until day {p.rule.upper_days:g}, ignored first {p.rule.offset_days:g} days"),
        ("credit", p.rule.credit.replace("_", " ")),
        ("compared", axes or "nothing"),
    ]
    rows: list[dict[str, object]] = [{"what": k, "value": v} for k, v in pairs if v]
    return Part("What is assumed", NOT_YOURS, rows, (Column("what", "what"), Column("value", "value")))


def axis_words(values: Any) -> str:
    """What an entry of `[sweep]` says: its labels, a range, or the design.

    >>> axis_words([7, 14]), axis_words({"low": 1, "high": 9, "scale": "log"})
    ('7, 14', '1 to 9, log scale')
    """
    if isinstance(values, dict) and "low" in values:
        kinds = ["log scale"] * (values.get("scale") == "log") + ["whole numbers"] * bool(values.get("integer"))
        return ", ".join([f"{values['low']:g} to {values['high']:g}", *kinds])
    if isinstance(values, dict) and "points" in values:
        return f"{values['points']} points, {values['kind'].replace('_', ' ')}"
    return ", ".join(map(str, values))


def learns_from(p: Program) -> str:
    """
    >>> from justai_sim.attribution import TrainingWindow
    >>> learns_from(Program(training=TrainingWindow(lookback_days=14, offset_days=3)))
    'sends that are 3 to 17 days old'
    """
    which = {"all": "all sends so far", "mature": "mature sends only",
             "weighted": "sends so far, each as much of a trial as has come by now"}[p.feedback]  # fmt: skip
    if p.training is None:
        return which
    return p.training.words() if p.feedback == "all" else f"{which}, of {p.training.words()}"

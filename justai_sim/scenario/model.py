"""What a scenario says: a program, the world it meets, how long, how many worlds, and what is swept."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from justai_sim import clock
from justai_sim.errors import UsageError, nearest
from justai_sim.esp.base import PROVIDERS
from justai_sim.loop.program import Program, Template
from justai_sim.world.codes import TEMPLATES, TIMES
from justai_sim.world.spec import Spec, Variant, World, between, factors, readable
from justai_sim.world.telemetry import Telemetry

MOST_REFRESHES = 100_000
"""Of one run: an hour's are 87,600 in ten years."""


class Touch(Spec, frozen=True, kw_only=True):
    """A template; `variants` replace the scenario's."""

    id: str
    variants: list[Variant] | None = None


class Step(Touch, frozen=True, kw_only=True):
    """One step of the flow, sent `day` days after sign-up (at the next `hour` of local time, if set), `times` times,
    `every_days` apart."""

    day: float
    hour: float | None = None
    times: int = 1
    every_days: float = 1

    def __post_init__(self) -> None:
        repeated(self, "flow step")


class Blast(Touch, frozen=True, kw_only=True):
    """A message to a `share` of all users who are there on `day` of the run (from the next `hour` of local time on, if
    set), spread evenly over `spread_hours`; `times` times with `every_days` between."""

    day: float
    hour: float | None = None
    share: float = 1.0
    spread_hours: float = 1.0
    times: int = 1
    every_days: float = 7

    def __post_init__(self) -> None:
        repeated(self, "blast")
        between(self, 0, 1, "share", of=f" of blast {self.id!r}")
        between(self, 0, 24 * 30, "spread_hours", of=f" of blast {self.id!r}")


class Trigger(Touch, frozen=True, kw_only=True):
    """A message that something the user does sets off, `per_user_day` times a day on average (Poisson), at most `times`
    a user."""

    per_user_day: float
    times: int = TIMES

    def __post_init__(self) -> None:
        between(self, 1e-6, 100, "per_user_day", of=f" of trigger {self.id!r}")
        between(self, 1, TIMES, "times", of=f" of trigger {self.id!r}")


def repeated(touch: Step | Blast, what: str) -> None:
    """UsageError for days, hours or repetitions that cannot be."""
    of = f" of {what} {touch.id!r}"
    between(touch, 0, 3650, "day", of=of)
    between(touch, 1, TIMES, "times", of=of)
    between(touch, 0.01, 3650, "every_days", of=of)
    if touch.hour is not None:
        between(touch, 0, 23.999, "hour", of=of)


def effects(v: Variant, world: World) -> list[tuple[float, float]]:
    """Share and factor of those who do not open, who only open, and who click."""
    opens, clicks = v.open_rate, v.click_rate
    return [(1 - opens, 1.0), (opens * (1 - clicks), world.open_effect), (opens * clicks, world.click_effect)]


def fits_effects(v: Variant, world: World) -> None:
    """UsageError where openers or clickers would have to convert with more than certainty, so that the variant's rate
    could not be the mean."""
    each = effects(v, world)
    mean = sum(share * effect for share, effect in each)
    top = max(effect for share, effect in each if share > 0)
    of = f"conversion_rate of variant {v.id!r} is {v.conversion_rate:g}: with open_effect {world.open_effect:g} and "
    of += f"click_effect {world.click_effect:g}"
    if v.conversion_rate and not mean:
        raise UsageError(f"{of} nobody would convert, since all open; expected a larger effect")
    if v.conversion_rate * top > mean * (1 + 1e-9):
        likely = v.conversion_rate * top / mean
        raise UsageError(f"{of} the likeliest would convert with probability {likely:.3g}; expected at most 1")


class Scenario(Spec, frozen=True, kw_only=True):
    """A whole scenario file. `variants` hold for every touchpoint without its own; control first. Touchpoints: steps of
    the `flow`, `blasts`, `triggered` messages."""

    schema_version: Literal[1] = 1
    name: str
    question: str = ""
    answer: str = ""
    start: str = "2026-01-05T00:00:00Z"
    days: int = 56
    replications: int = 100
    seed: int = 1
    esp: str = "braze"
    program: Program = Program()
    world: World = World()
    telemetry: Telemetry = Telemetry()
    variants: list[Variant] = []
    flow: list[Step] = []
    blasts: list[Blast] = []
    triggered: list[Trigger] = []
    sweep: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.touches:
            raise UsageError("flow is empty; expected a [[flow]] with id and day, or [[blasts]] or [[triggered]]")
        if len(self.touches) > TEMPLATES:
            raise UsageError(f"flow has {len(self.touches)} templates; at most {TEMPLATES} can be simulated")
        if self.program.templates:
            raise UsageError("program.templates is set by [[flow]]; leave it out")
        for name, low, high in (("days", 1, 3650), ("replications", 1, 100_000), ("seed", 0, 2**62)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if self.esp not in PROVIDERS:
            raise UsageError(f"esp {self.esp!r} is not known; {nearest(self.esp, PROVIDERS)}")
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", self.name):
            raise UsageError(
                f"name is {self.name!r}; expected letters, digits, '.', '_', '-', no '.' first (it names a folder)"
            )
        if clock.parse(self.start) % clock.DAY:
            raise UsageError(f"start is {self.start!r}; expected a UTC midnight")
        if (n := self.days * 24 / self.program.refresh_hours) > MOST_REFRESHES:
            hours = f"refresh_hours is {self.program.refresh_hours:g}"
            raise UsageError(f"{hours}: {n:,.0f} refreshes in a run; expected at most {MOST_REFRESHES:,}")
        for goal in self.program.goals:
            readable(goal, "goal (program.goals)")
        for t in self.touches:
            readable(t.id, "template")
            variants = self.variants_of(t)
            if not variants:
                raise UsageError(f"template {t.id!r} has no variants; add [[variants]], the control first")
            if variants[0].from_day or variants[0].until_day is not None:
                raise UsageError(f"from_day, until_day: {variants[0].id!r} is the control, which is always there")
            for v in variants:
                readable(v.id, "variant")
                fits_effects(v, self.world)
                here = self.world.value.currency
                if v.value is not None and v.value.currency not in ("USD", here):
                    told = v.value.currency
                    raise UsageError(f"currency of variant {v.id!r} is {told!r}; expected that of the world, {here!r}")
                factors(v.segments, f"segments of variant {v.id!r}", self.world.attributes)
                if v.from_day >= self.days:
                    raise UsageError(f"from_day of variant {v.id!r} is {v.from_day:g}; the run has {self.days} days")
        known = self.world.attributes
        for name, values in self.program.segments.items():
            if name not in known:
                raise UsageError(f"segments.{name} is no attribute of the world; {nearest(name, known)}")
            there = [v.lower() for v in known[name]]
            for value in values:
                if isinstance(value, str) and value.lower() not in there:
                    raise UsageError(
                        f"segments.{name}: no user of the world has {value!r}; {nearest(value, known[name])}"
                    )
        ids = [t.id for t in self.touches]
        for name in self.program.rule.groups:
            if name not in ids:
                raise UsageError(f"groups names {name!r}, no template of the scenario; {nearest(name, ids)}")
        self.full_program()  # duplicates are found here

    @property
    def touches(self) -> list[Touch]:
        return [*self.flow, *self.blasts, *self.triggered]

    def variants_of(self, touch: Touch) -> list[Variant]:
        return touch.variants if touch.variants is not None else self.variants

    def full_program(self) -> Program:
        """The program with its templates, and when their variants come and go."""
        templates = []
        for t in self.touches:
            variants = self.variants_of(t)
            added = {v.id: self.on_day(v.from_day) for v in variants if v.from_day}
            archived = {v.id: self.on_day(v.until_day) for v in variants if v.until_day is not None}
            templates.append(Template(id=t.id, variants=[v.id for v in variants], added=added, archived=archived))
        return msgspec.structs.replace(self.program, templates=templates)

    def on_day(self, day: float) -> int:
        """The instant of a day of the run, microseconds."""
        return self.start_us + round(day * clock.DAY)

    @property
    def start_us(self) -> int:
        return clock.parse(self.start)

    @property
    def end_us(self) -> int:
        return self.start_us + self.days * clock.DAY

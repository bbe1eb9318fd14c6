"""A scenario: a program, the world it meets, how long, how many worlds, and what is swept."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from justai_sim import clock
from justai_sim.designs import MAX_POINTS, Key, SweepError, axes_of
from justai_sim.errors import DataError, JustaiError, UsageError, nearest
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


def fits_effects(v: Variant, world: World) -> None:
    """UsageError where openers or clickers would have to convert with more than certainty, so that the variant's rate
    could not be the mean."""
    opens, clicks = v.open_rate, v.click_rate
    each = ((1 - opens, 1.0), (opens * (1 - clicks), world.open_effect), (opens * clicks, world.click_effect))
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


def read(source: str | Path) -> Scenario:
    """A scenario from a TOML file, or by the name of a packaged one. DataError says file, line and field."""
    path = find(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    return parse(text, str(path))


def parse(text: str, place: str) -> Scenario:
    """A scenario from TOML text, every point of its sweep checked. DataError says place, line and field."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise DataError(f"{place}: not TOML: {e}") from None
    try:
        scenario = msgspec.convert(raw, Scenario)
        points(scenario)
    except msgspec.ValidationError as e:
        what, path = _explain(str(e))
    except SweepError as e:
        what, path = str(e), e.path
    except JustaiError as e:
        what, path = str(e), _blamed(raw, str(e), Lines(text).of)
    else:
        return scenario
    line = Lines(text).nearest(path)
    raise DataError(f"{place}:{line}: {what}" if line else f"{place}: {what}")


def packaged() -> Path:
    """The folder of the scenarios that come with the package (or lie beside it in a checkout)."""
    inside = Path(str(resources.files("justai_sim"))) / "scenarios"
    return inside if inside.is_dir() else inside.parent.parent / "scenarios"


def find(source: str | Path) -> Path:
    """The file of a path or of a packaged scenario's name."""
    path = Path(source)
    if path.is_file():
        return path
    inside = packaged() / f"{source}.toml"
    if inside.is_file():
        return inside
    beside = packaged() / path.name
    if path.parts[:-1] == ("scenarios",) and beside.is_file():
        return beside
    names = sorted(p.stem for p in packaged().glob("*.toml"))
    raise DataError(f"scenario {str(source)!r}: no such file; among the packaged scenarios {nearest(path.stem, names)}")


def _explain(message: str) -> tuple[str, Key]:
    """msgspec's message with its field and the nearest valid name; and the key that it is about."""
    what, _, shown = message.partition(" - at `$")
    shown = shown.rstrip("`").removeprefix(".")
    path: Key = tuple(int(n) if n else name for name, n in re.findall(r"([^.\[\]]+|\.{3})|\[(\d+)\]", shown))
    kind = _type_at(path)
    hint = ""
    if m := re.search(r"unknown field `(.+)`", what):
        hint = f"; {nearest(m[1], getattr(kind, '__struct_fields__', ()))}"
        path = (*path, m[1])
    elif m := re.fullmatch(r"Invalid enum value '?(.*?)'?", what):
        hint = f"; {nearest(m[1], map(str, get_args(kind)))}"
    return (f"field {shown!r}: {what}{hint}" if shown else f"{what}{hint}"), path


def _type_at(path: Key) -> Any:
    """The declared type of a part of a scenario, without None; Any where none is declared."""
    kind: Any = Scenario
    for part in path:
        if isinstance(part, int):
            kind = next(iter(get_args(kind)), Any)
        else:
            kind = get_type_hints(kind).get(part, Any) if hasattr(kind, "__struct_fields__") else Any
        if type(None) in get_args(kind):
            kind = next(k for k in get_args(kind) if k is not type(None))
    return kind


def _blamed(raw: dict[str, Any], message: str, lines: Mapping[Key, int]) -> Key:
    """The key that the message of a part's own check is about: the first that it names within that part."""
    part = _refusing(raw, Scenario, ()) or ()
    if not part and (m := re.search(r"template '(.*?)'", message)):
        tables = [(k, i) for k in ("flow", "blasts", "triggered") for i in range(len(raw.get(k, [])))]
        part = next(((k, i) for k, i in reversed(tables) if raw[k][i]["id"] == m[1]), ())
    for word in re.findall(r"\w+(?:\.\w+)*", message):
        names = tuple(word.split("."))
        for i in range(len(names)):  # the part may be named too: policy.name of [program.policy]
            for within in (part, ("program",)):  # a setting of the program may not go with the flow
                if (*within, *names[i:]) in lines:
                    return (*within, *names[i:])
    return part


def _refusing(value: Any, kind: Any, path: Key) -> Key | None:
    """The innermost part that refuses its values; None if none does. Goes in the order in which msgspec reads."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        inner = (*path, key)
        if isinstance(child, dict | list) and (found := _refusing(child, _type_at(inner), inner)) is not None:
            return found
    if hasattr(kind, "__struct_fields__"):
        try:
            msgspec.convert(value, kind)
        except JustaiError:
            return path
        except msgspec.ValidationError:
            return None
    return None


_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''''  # strings
    r"""|\#[^\n]*|\n|[\[\]{},=.]|[^\s\[\]{},=.\#"\']+""",
    re.DOTALL,
)


class Lines:
    """`of`: the line, from 1, of every table, key and array element of valid TOML text; tomllib does not tell.

    >>> Lines("[a]\\nb = [{c = 1},\\n {c = 2}]").of[("a", "b", 1, "c")]
    3
    """

    def __init__(self, text: str) -> None:
        self.of: dict[Key, int] = {}
        self._tokens: list[tuple[str, int]] = []
        self._at = 0
        self._tables: dict[Key, int] = {}
        """Elements so far of each array of tables."""
        line = 1
        table: Key = ()
        for m in _TOKEN.finditer(text):
            if not m[0].startswith("#"):
                self._tokens.append((m[0], line))
            line += m[0].count("\n")
        while self._next:
            if self._next == "\n":
                self._at += 1
            elif self._next == "[":
                table = self._header()
            else:
                self._pair(table)

    def nearest(self, path: Key) -> int:
        """The line of a key, else of the innermost table around it that is written; 0 if there is none."""
        while path and path not in self.of:
            path = path[:-1]
        return self.of.get(path, 0)

    @property
    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _header(self) -> Key:
        """Reads [a.b] or [[a.b]]: the path of the table that it opens."""
        line = self._tokens[self._at][1]
        self._at += 1
        many = self._next == "["
        self._at += many
        path: Key = ()
        names = self._names()
        for i, name in enumerate(names):
            path = (*path, name)
            self.of.setdefault(path, line)
            if many and i == len(names) - 1:
                self._tables[path] = self._tables.get(path, 0) + 1
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
                self.of.setdefault(path, line)
        self._at += 1 + many
        return path

    def _names(self) -> list[str]:
        names: list[str] = []
        while not names or self._next == ".":
            self._at += bool(names)
            name = self._next
            names.append(str(tomllib.loads(f"k = {name}")["k"]) if name[0] in "\"'" else name)
            self._at += 1
        return names

    def _pair(self, path: Key) -> None:
        line = self._tokens[self._at][1]
        for name in self._names():
            path = (*path, name)
            self.of.setdefault(path, line)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: Key) -> None:
        opened = self._next
        self._at += 1
        if opened not in ("{", "["):
            while self._next not in ("", "\n", ",", "]", "}"):
                self._at += 1
            return
        n = 0
        while self._next not in ("", "}", "]"):
            if self._next in (",", "\n"):
                self._at += 1
            elif opened == "{":
                self._pair(path)
            else:
                self.of[(*path, n)] = self._tokens[self._at][1]
                self._value((*path, n))
                n += 1
        self._at += 1


class Point(msgspec.Struct, frozen=True):
    """One point of a sweep: its labels per axis, and the scenario that it stands for."""

    labels: dict[str, str]
    scenario: Scenario

    @property
    def name(self) -> str:
        return " · ".join(self.labels.values()) or "as given"


def points(scenario: Scenario) -> list[Point]:
    """Every point of the `[sweep]` table (`designs.axes_of`): the product of its axes, in the order written.

    SweepError if one of them is no scenario.
    """
    axes = [axis.options for axis in axes_of(scenario.sweep, scenario.seed)]
    if (n := math.prod(map(len, axes))) > MAX_POINTS:
        raise SweepError(f"sweep has {n:,} points; expected at most {MAX_POINTS:,}", ("sweep",))
    out = []
    for combination in itertools.product(*axes):
        labels: dict[str, str] = {}
        settings: dict[str, Any] = {}
        for o in combination:
            labels |= o.labels
            settings |= o.settings
        try:
            found = with_settings(scenario, settings)
        except DataError as e:
            wrong = next((o for o in combination if not _works(scenario, o.settings)), combination[-1])
            raise SweepError(str(e), wrong.path) from None
        out.append(Point(labels, found))
    return out


def _works(scenario: Scenario, settings: dict[str, Any]) -> bool:
    """Whether settings are fine by themselves."""
    try:
        with_settings(scenario, settings)
    except DataError:
        return False
    return True


def with_settings(scenario: Scenario, settings: dict[str, Any]) -> Scenario:
    """The scenario with dotted keys replaced, such as `program.rule.lookback_days`."""
    raw = msgspec.to_builtins(scenario)
    raw["sweep"] = {}
    for key, value in settings.items():
        here: Any = raw
        *path, last = key.split(".")
        try:
            for part in path:
                here = here[int(part)] if isinstance(here, list) else here[part]
        except (KeyError, IndexError, ValueError):
            raise DataError(f"sweep key {key!r}: the scenario has no {part!r}; {nearest(part, here)}") from None
        if isinstance(here, list):
            last_index = int(last) if last.isdigit() else -1
            if not 0 <= last_index < len(here):
                raise DataError(f"sweep key {key!r}: expected an index below {len(here)}, found {last!r}")
            here[last_index] = value
        elif last in here:
            here[last] = value
        else:
            raise DataError(f"sweep key {key!r}: {nearest(last, here)}")
    try:
        return msgspec.convert(raw, Scenario)
    except (msgspec.ValidationError, JustaiError) as e:
        raise DataError(f"sweep settings {settings}: {_explain(str(e))[0]}") from None

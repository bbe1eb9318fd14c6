"""A scenario: a program, the world it meets, how long, how many worlds, and what is swept."""

from __future__ import annotations

import itertools
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from justai_sim import clock
from justai_sim.errors import DataError, JustaiError, UsageError, nearest
from justai_sim.loop.program import Program, Template
from justai_sim.world.spec import Delay, Spec, Value, Variant, World


class Step(Spec, frozen=True, kw_only=True):
    """One template of the flow, sent `day` days after sign-up; `variants` replace the scenario's."""

    id: str
    day: float
    variants: list[Variant] | None = None


class Scenario(Spec, frozen=True, kw_only=True):
    """A whole scenario file. `variants` hold for every step of the flow without its own; control first."""

    schema_version: Literal[1] = 1
    name: str
    question: str = ""
    start: str = "2026-01-05T00:00:00Z"
    days: int = 56
    replications: int = 100
    seed: int = 1
    esp: str = "braze"
    program: Program = Program()
    world: World = World()
    variants: list[Variant] = []
    flow: list[Step]
    sweep: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.flow:
            raise UsageError("flow is empty; expected at least one [[flow]] with id and day")
        if self.program.templates:
            raise UsageError("program.templates is set by [[flow]]; leave it out")
        for name, low, high in (("days", 1, 3650), ("replications", 1, 100_000), ("seed", 0, 2**62)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise UsageError(f"name is {self.name!r}; expected letters, digits, '.', '_', '-' (it names a folder)")
        if clock.parse(self.start) % clock.DAY:
            raise UsageError(f"start is {self.start!r}; expected a UTC midnight")
        for s in self.flow:
            if not 0 <= s.day <= 3650:
                raise UsageError(f"day of flow step {s.id!r} is {s.day}; expected 0 to 3650")
            if not self.variants_of(s):
                raise UsageError(f"flow step {s.id!r} has no variants; add [[variants]], the control first")
        self.full_program()  # duplicates are found here

    def variants_of(self, step: Step) -> list[Variant]:
        return step.variants if step.variants is not None else self.variants

    def full_program(self) -> Program:
        """The program with the flow's templates."""
        templates = [Template(id=s.id, variants=[v.id for v in self.variants_of(s)]) for s in self.flow]
        return msgspec.structs.replace(self.program, templates=templates)

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
    """A scenario from TOML text."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise DataError(f"{place}: not TOML: {e}") from None
    try:
        return msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as e:
        raise DataError(_explain(str(e), text, place)) from None
    except JustaiError as e:
        word = next((w for w in re.findall(r"\w+", str(e)) if _line(text, w, "")), "")
        at = _line(text, word, "") if word else 0
        raise DataError(f"{place}:{at}: {e}" if at else f"{place}: {e}") from None


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
    raise DataError(f"scenario {str(source)!r}: no such file; packaged scenarios: {nearest(path.stem, names)}")


def _explain(message: str, text: str, place: str) -> str:
    """msgspec's message with the line of the field and the nearest valid name."""
    path = m.group(1) if (m := re.search(r" - at `\$\.?(.*)`$", message)) else ""
    what = message.split(" - at `")[0]
    field = m.group(1) if (m := re.search(r"field `(\w+)`", what)) else path.split(".")[-1].split("[")[0]
    section = path if "field `" in what else path.rpartition(".")[0]
    line = _line(text, field, section) or _line(text, "", section)
    where = f"{place}:{line}" if line else place
    shown = f"field {path!r}: " if path else ""
    if "unknown field" in what:
        return f"{where}: {shown}{what}; {nearest(field, _fields_at(path))}"
    return f"{where}: {shown}{what}"


def _fields_at(path: str) -> list[str]:
    """Valid fields of the part of a scenario at a msgspec path such as `program.rule` or `flow[...]`."""
    parts: dict[str, Any] = {
        "": Scenario, "program": Program, "rule": type(Program().rule), "policy": type(Program().policy),
        "world": World, "delay": Delay, "value": Value, "variants": Variant, "flow": Step,
    }  # fmt: skip
    last = path.split(".")[-1].split("[")[0]
    return list(parts.get(last, Scenario).__struct_fields__)


def _line(text: str, key: str, section: str) -> int:
    """The line of `key` (or of the section's header if key is ''), 1-based; 0 if it is not found."""
    want = re.sub(r"\[.*?\]", "", section)
    number = int(m.group(1)) if (m := re.search(r"\[(\d+)\]", section)) else 0
    starts = re.compile(rf"\s*\"?{re.escape(key)}\"?\s*=")
    inline = re.compile(rf"[{{,]\s*\"?{re.escape(key)}\"?\s*=")
    seen, here = -1, ""
    for i, line in enumerate(text.splitlines(), 1):
        if m := re.match(r"\s*\[+\s*([\w.\"-]+)\s*\]+", line):
            here = m.group(1)
            seen += here == want
            if not key and here == want and seen >= number:
                return i
            continue
        here_too = starts.match(line) and (not want or (here == want and seen >= number))
        if key and (here_too or inline.search(line)):
            return i
    return _line(text, key, "") if key and want else 0


class Point(msgspec.Struct, frozen=True):
    """One point of a sweep: its labels per axis, and the scenario that it stands for."""

    labels: dict[str, str]
    scenario: Scenario

    @property
    def name(self) -> str:
        return " · ".join(self.labels.values()) or "as given"


def points(scenario: Scenario) -> list[Point]:
    """Every point of the `[sweep]` table: the product of its axes, in the order written.

    An axis is a dotted key with a list of values, or a name with a table of labels, each of which sets
    several keys together.
    """
    axes = []
    for axis, values in scenario.sweep.items():
        if isinstance(values, list):
            axes.append(
                [
                    (axis.rpartition(".")[2] if axis != "program.policy.name" else "policy", str(v), {axis: v})
                    for v in values
                ]
            )
        elif isinstance(values, dict) and all(isinstance(v, dict) for v in values.values()):
            axes.append([(axis, label, settings) for label, settings in values.items()])
        else:
            raise DataError(f"sweep axis {axis!r}: expected a list of values or a table of labelled settings")
        if not axes[-1]:
            raise DataError(f"sweep axis {axis!r} has no values")
    out = []
    for combination in itertools.product(*axes):
        labels = {axis: label for axis, label, _ in combination}
        settings: dict[str, Any] = {}
        for _, _, s in combination:
            settings |= s
        out.append(Point(labels, with_settings(scenario, settings)))
    return out


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
        raise DataError(f"sweep settings {settings}: {e}") from None

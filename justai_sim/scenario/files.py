"""Scenarios from TOML files."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import msgspec

from justai_sim.designs import SweepError
from justai_sim.errors import DataError, JustaiError, nearest
from justai_sim.scenario.explain import blamed, explain
from justai_sim.scenario.grid import points
from justai_sim.scenario.lines import Lines
from justai_sim.scenario.model import Scenario


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
        what, path = explain(str(e))
    except SweepError as e:
        what, path = str(e), e.path
    except JustaiError as e:
        what, path = str(e), blamed(raw, str(e), Lines(text).of)
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

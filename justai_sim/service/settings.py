"""The program of a service: a TOML file in its data folder, and where the first one comes from."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from justai_sim.attribution import Rule
from justai_sim.bandit.policy import PolicySpec
from justai_sim.errors import DataError, JustaiError, nearest
from justai_sim.loop.program import Program, Template

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = """\
# The program that this service runs: what is counted, how it is chosen, which variants there are.
# Edit it and start the service again. The first variant of a template is its control.
"""


def read_program(path: Path) -> Program:
    """The program of a TOML file: a program, or a scenario's. DataError says file and field."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    except tomllib.TOMLDecodeError as e:
        raise DataError(f"{path}: not TOML: {e}") from None
    try:
        program = msgspec.convert(_of_scenario(raw) if "flow" in raw else raw, Program)
    except msgspec.ValidationError as e:
        raise DataError(f"{path}: {_explained(str(e))}") from None
    except JustaiError as e:
        raise DataError(f"{path}: {e}") from None
    if not program.templates:
        raise DataError(f"{path}: templates: found none, expected at least one [[templates]] with id and variants")
    return program


def _of_scenario(raw: dict[str, Any]) -> dict[str, Any]:
    """A scenario's program with the templates of its flow; nothing else of it concerns production."""

    def names(variants: Any) -> Any:
        return [v.get("id") if isinstance(v, dict) else v for v in variants] if isinstance(variants, list) else variants

    common, flow = names(raw.get("variants", [])), raw["flow"]
    if not isinstance(flow, list) or not all(isinstance(s, dict) for s in flow):
        raise DataError("flow: expected [[flow]] tables with id and day")
    templates = [{"id": s.get("id"), "variants": names(s["variants"]) if "variants" in s else common} for s in flow]
    program = raw.get("program", {})
    return program | {"templates": templates} if isinstance(program, dict) else program


def _explained(message: str) -> str:
    """msgspec's message with the field first and the nearest valid name."""
    what, _, path = message.partition(" - at `$")
    path = path.strip("`.")
    structs: dict[str, Any] = {"policy": PolicySpec, "rule": Rule, "templates[...]": Template}
    shown = f"{path}: {what}" if path else what
    unknown = re.search(r"unknown field `(.+?)`", what)
    return f"{shown}; {nearest(unknown[1], structs.get(path, Program).__struct_fields__)}" if unknown else shown


def find_source(source: str | Path) -> Path:
    """A TOML file, or a packaged scenario by its name."""
    path = Path(source)
    if path.is_file():
        return path
    inside = Path(str(resources.files("justai_sim"))) / "scenarios"
    packaged = inside if inside.is_dir() else inside.parent.parent / "scenarios"
    if (packaged / f"{source}.toml").is_file():
        return packaged / f"{source}.toml"
    names = [p.stem for p in packaged.glob("*.toml")]
    raise DataError(f"program {str(source)!r}: no such file or packaged scenario; {nearest(path.stem, names)}")


def program_toml(program: Program) -> str:
    """A program as TOML that `read_program` reads back as equal; options without a value are left out."""
    raw = msgspec.to_builtins(program)
    templates = raw.pop("templates")
    tables = {k: raw.pop(k) for k in list(raw) if isinstance(raw[k], dict)}
    parts = [_HEADER + _lines(raw)]
    parts += [f"[{name}]\n{_lines(t)}" for name, t in tables.items()]
    parts += [f"[[templates]]\n{_lines(t)}" for t in templates]
    return "\n".join(parts)


def _lines(table: dict[str, Any]) -> str:
    return "".join(f"{_key(k)} = {_value(v)}\n" for k, v in table.items() if v is not None)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):  # a JSON string is a TOML string, but for the delete character
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    return repr(value).lower() if isinstance(value, bool) else repr(value)

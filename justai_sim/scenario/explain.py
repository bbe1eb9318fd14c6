"""What is wrong with a scenario: the field, the nearest valid name, and the key that it is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import msgspec

from justai_sim.designs import Key
from justai_sim.errors import JustaiError, nearest
from justai_sim.scenario.model import Scenario


def explain(message: str) -> tuple[str, Key]:
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


def blamed(raw: dict[str, Any], message: str, lines: Mapping[Key, int]) -> Key:
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

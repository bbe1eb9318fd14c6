"""A policy's settings from texts, as a command line has them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from justai_sim.bandit.policy import PolicySpec
from justai_sim.errors import UsageError, nearest

KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "array": "sends,outcomes"}


def with_policy_settings(name: str, settings: dict[str, str]) -> PolicySpec:
    """A spec from texts; a key of a table has a dot. UsageError with the nearest name for what is no setting.

    >>> with_policy_settings("fixed", {"shares.b": "3", "shares.c": "1", "floor": "0.05"}).shares
    {'b': 3.0, 'c': 1.0}
    """
    given: dict[str, Any] = {"name": name}
    tables = {f for f in PolicySpec.__struct_fields__ if isinstance(getattr(PolicySpec(), f), dict)}
    for key, text in settings.items():
        field, dot, part = key.partition(".")
        if field not in PolicySpec.__struct_fields__ or bool(dot) != (field in tables):
            names = [f"{f}.NAME" if f in tables else f for f in PolicySpec.__struct_fields__ if f != "name"]
            raise UsageError(f"policy.{key} is no setting; {nearest(key, names)}")
        if dot:
            value = [x.strip() for x in text.split(",")] if field == "warm_start" else text
            given.setdefault(field, {})[part] = value
        else:
            given[field] = text
    try:
        return msgspec.convert(given, PolicySpec, strict=False)
    except msgspec.ValidationError as e:
        raise UsageError(_explained(str(e), settings)) from None


def _explained(message: str, settings: dict[str, str]) -> str:
    """msgspec's message with the setting as it was written, and what is expected in plain words."""
    what, _, at = message.partition(" - at `$.")
    field, kind = re.split(r"[\[.`]", at)[0], re.search("`([a-z]+)`", what)
    found = {k: v for k, v in settings.items() if k.partition(".")[0] == field}
    if not found or kind is None:
        return f"policy: {message}"
    expected = KINDS["array" if field == "warm_start" else kind[1]]
    return "; ".join(f"policy.{k} is {v!r}" for k, v in found.items()) + f"; expected {expected}"

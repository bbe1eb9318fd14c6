"""Rows of the plain log as JSON objects; what is missing is left out."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from justai_sim.clock import MISSING
from justai_sim.esp.coding import COLUMNS
from justai_sim.esp.payloads import Part, Payload
from justai_sim.tables import Array, Column


def objects(part: Part, *, without: Collection[str] = (), quote: str = "") -> list[bytes]:
    """An object a row, with `table`; `quote`: a quotation mark if amounts are to be texts."""
    form, columns = f'{{"table":"{part.table}"', dict[str, list[str]]()
    for name, c in COLUMNS[part.table].items():
        if name in without:
            continue
        there = _there(part.values(name), c)
        if not there.any():
            continue
        made = _json(part, name, c, quote)
        if there.all():
            form += f',"{name}":\0{name}\0'
        else:
            key = f',"{name}":'
            made = [key + j if t else "" for j, t in zip(made, there.tolist(), strict=True)]
            form += f"\0{name}\0"
        columns[name] = made
    return Payload(f"{form}}}".encode()).fill(columns)


def _there(values: Array, c: Column) -> Array:
    if isinstance(c.text, tuple):
        return np.ones(len(values), bool)
    if c.text == "number":
        return ~np.isnan(values)
    return np.asarray(values != (MISSING if c.text == "time" else c.missing)) if c.text != "id" else values >= 0


def _json(part: Part, name: str, c: Column, quote: str) -> list[str]:
    if c.text == "id":
        return part.json(name)
    values = part.values(name)
    if isinstance(c.text, tuple):
        known = [f'"{text}"' for text in c.text]
        return [known[v] for v in values.tolist()]
    if c.text == "flag":
        return ["true" if v else "false" for v in values.tolist()]
    if c.text == "money":
        return [f"{quote}{_units(v)}{quote}" for v in values.tolist()]
    return [*map(repr, values.tolist())]


def _units(micro: int) -> str:
    """Exact decimal units of micro-units.

    >>> _units(19_990_000), _units(-5), _units(0)
    ('19.990000', '-0.000005', '0.000000')
    """
    whole, part = divmod(abs(micro), 1_000_000)
    return f"{'-' if micro < 0 else ''}{whole}.{part:06d}"

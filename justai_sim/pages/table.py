"""Tables of a page: rows of plain numbers, and how each column is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Form = Literal["text", "int", "percent", "percent2", "points", "lift", "one", "money", "number"]
MISSING = "–"
SHORT = 24
"""Texts up to this long stay on one line."""


@dataclass(frozen=True)
class Column:
    """One column: the key of its number in a row, its header, how it is written.

    With `interval`, `KEY_low` and `KEY_high` follow in brackets; `over` names the keys of a numerator and a
    denominator that are shown below.
    """

    key: str
    header: str
    form: Form = "text"
    interval: bool = False
    over: tuple[str, str] | None = None

    @property
    def numeric(self) -> bool:
        return self.form != "text"

    def cell(self, row: dict[str, Any]) -> Cell:
        text = write(row.get(self.key), self.form)
        low, high = row.get(f"{self.key}_low"), row.get(f"{self.key}_high")
        between = ""
        if self.interval and not _missing(low) and not _missing(high):
            between = f"{write(low, self.form, unit=False)} to {write(high, self.form, unit=False)}"
        below = ""
        if self.over is not None and not _missing(row.get(self.over[1])):
            below = f"{write(row.get(self.over[0]), 'number')} / {write(row.get(self.over[1]), 'int')}"
        elif self.over is not None and not _missing(row.get(self.over[0])):
            below = write(row.get(self.over[0]), "number")
        return Cell(text, between, below)


@dataclass(frozen=True)
class Cell:
    """A number, its interval ('' for none), and the counts behind it ('' for none)."""

    text: str
    between: str = ""
    below: str = ""


@dataclass(frozen=True)
class Part:
    """A titled sentence with the rows behind it; `note` says how the numbers were made."""

    title: str
    text: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: Sequence[Column] = ()
    note: str = ""

    def cells(self) -> list[list[Cell]]:
        return [[c.cell(row) for c in self.columns] for row in self.rows]

    @property
    def held(self) -> int:
        """The column that stays in sight where the table is wider than the screen: the last of those that name the
        rows, or the first where names are long. -1 for a table that has nothing to scroll to."""
        names = next((i for i, c in enumerate(self.columns) if c.numeric), 0)
        if not names or len(self.columns) < 3:
            return -1
        texts = (c.text for row in self.cells() for c in row[:names])
        return names - 1 if all(len(text) <= SHORT for text in texts) else 0


def _missing(value: Any) -> bool:
    if value is None or value != value or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float) and math.isinf(value)


def write(value: Any, form: Form, *, unit: bool = True) -> str:
    """A value as people read it.

    >>> write(0.0213, "percent2"), write(-0.071, "points"), write(0.4, "lift"), write(1234567, "int")
    ('2.13 %', '−7.1', '+40 %', '1,234,567')
    """
    if form == "text":
        return MISSING if value is None or value == "" or value != value else str(value)
    if _missing(value):
        return MISSING
    x = float(value)
    sign = "−" if x < 0 else ""
    end = " %" if unit else ""
    if form == "percent":
        return percent(x, unit=unit)
    if form == "percent2":
        return f"{sign}{_digits(abs(100 * x), 2)}{end}"
    if form == "points":
        return f"{sign or '+'}{abs(100 * x):.1f}" if round(1000 * x) else "0.0"
    if form == "lift":
        return f"{sign or '+'}{abs(100 * x):.0f}{end}" if round(100 * x) else f"0{end}"
    if form == "int":
        return f"{sign}{abs(x):,.0f}"
    if form == "one":
        return f"{sign}{abs(x):,.1f}" if round(10 * x) else "0.0"
    if form == "money":
        return f"{sign}{abs(x):,.2f}" if abs(x) >= 0.1 or x == 0 else f"{sign}{abs(x):.4f}"
    return f"{sign}{abs(x):,.0f}" if x == int(x) else f"{sign}{abs(x):,.2f}"


def number(x: Any) -> str:
    """A number of any size in a sentence or a printed table, with four digits."""
    if x is None or x != x:
        return "-"
    if isinstance(x, float) and not x.is_integer():
        return f"{x:.4g}" if abs(x) < 1000 else f"{x:,.0f}"
    return f"{int(x):,}" if isinstance(x, (int, float)) else str(x)


def _digits(x: float, places: int) -> str:
    return f"{x:.{places}f}" if x >= 0.1 or x == 0 else f"{x:.{places + 1}f}"


def percent(share: float, *, unit: bool = True) -> str:
    """A share in whole per cent; never 0 or 100 unless it is.

    >>> percent(0.714), percent(0.9996), percent(0.0), percent(-0.062)
    ('71 %', '99.96 %', '0 %', '−6 %')
    """
    if share < 0:
        return f"−{percent(-share, unit=unit)}"
    x = 100 * share
    text = f"{x:.0f}"
    if (text == "100" and x < 100) or (text == "0" and x > 0):
        text = f"{x:.2f}".rstrip("0").rstrip(".")
        text = {"100": "> 99.99", "0": "< 0.01"}.get(text, text)
    return f"{text} %" if unit else text

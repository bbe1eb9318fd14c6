"""CSV files that people open in a spreadsheet: text from a log must not become a formula there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_QUOTED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")


def quoted(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like it gets an apostrophe in front.

    Texts that look as if they had one already get another, so that `unquoted` always gives the text back.

    >>> quoted("=1+1"), quoted("copy-7"), quoted("'=1"), unquoted(quoted("'=1"))
    ("'=1+1", 'copy-7', "''=1", "'=1")
    """
    return "'" + text if _FORMULA.match(text) else text


def unquoted(text: str) -> str:
    """The text that `quoted` was given."""
    return text[1:] if _QUOTED.match(text) else text


def write_csv(frame: pd.DataFrame, path: Path, float_format: str | None = None) -> None:
    """A frame as CSV without its index: texts (and headers) quoted, numbers as they are."""

    def cell(value: Any) -> Any:
        return quoted(value) if isinstance(value, str) else value

    safe = frame.copy(deep=False)
    for name in frame.columns:
        column = frame[name]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
            safe[name] = pd.Series(_each(cell, column), index=column.index, dtype=object)
    safe.columns = pd.Index([cell(c) for c in frame.columns])
    safe.to_csv(path, index=False, float_format=float_format)


def _each(cell: Callable[[Any], Any], column: pd.Series[Any]) -> Any:
    """`cell` of each value; of long columns of texts, which repeat, once for each text."""
    if not pd.api.types.is_string_dtype(column):
        return [cell(v) for v in column]
    code, texts = pd.factorize(column)
    return np.array([*map(cell, texts), None], dtype=object)[code]  # the code of a missing text is -1

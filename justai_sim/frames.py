"""Tables as pandas DataFrames and back: texts for ids, UTC times, money in units. Only here is pandas imported."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from justai_sim.clock import MISSING
from justai_sim.errors import DataError, UsageError, nearest, several
from justai_sim.esp.coding import COLUMNS, ROWS, build
from justai_sim.esp.generic import append_arrow
from justai_sim.esp.plain import check_columns
from justai_sim.esp.rows import Rows
from justai_sim.tables import MICRO, Array, Column, Log


def to_frame(log: Log, table: str) -> pd.DataFrame:
    """The `sends`, `events` or `decisions` of a log as a DataFrame with the plain log's columns.

    Ids are strings (missing: NA), times `datetime64[us, UTC]`, `value` float units of money,
    enumerations categoricals, `machine` a nullable boolean. `rep` appears only if there are several.
    """
    if table not in COLUMNS:
        raise UsageError(f"table {table!r} is not known; {nearest(table, COLUMNS)}")
    found = getattr(log, table)
    schema = {name: COLUMNS[table][name] for name in ROWS[table]._fields}
    columns = {name: _values(log, getattr(found, c.name), c) for name, c in schema.items()}
    if found.rep.any():
        columns = {"rep": found.rep} | columns
    frame = pd.DataFrame(columns)
    frame.attrs["source"] = log.source  # so that what comes back is known to be simulated
    return frame


def _values(log: Log, values: Array, c: Column) -> Any:
    """A column's values as the array of a DataFrame (a Series each would cost more than the rest)."""
    if isinstance(c.text, tuple):
        return pd.Categorical.from_codes(values, dtype=_enumeration(c.text))
    if c.text == "id":
        return pd.array([t or None for t in log.text(c.codes, values)], dtype="string")
    if c.text == "time":
        return pd.array(values.view("datetime64[us]"), dtype=pd.DatetimeTZDtype("us", "UTC"))
    if c.text == "money":
        return np.where(values == MISSING, np.nan, values / MICRO)
    if c.text == "flag":
        return pd.arrays.BooleanArray(values == 1, values < 0)
    return values


@cache
def _enumeration(names: tuple[str, ...]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(list(names))


def from_frames(sends: Any, events: Any, decisions: Any = None, timezone: str | None = None) -> Log:
    """A log of DataFrames (or Arrow or polars tables) with the plain log's columns.

    Times are aware datetimes, ISO texts with an offset or integer microseconds; naive ones need
    `timezone`. Amounts are in units of money, exact below 2^33. Rows that cannot be read are counted in
    `log.rejects`, and a UserWarning names the first (not a note: reports hold no user-level data). So does one name a
    column that is nearly one of the plain log's.
    DataError if a column is missing or no row of a table could be read.
    """
    rows = Rows()
    for table, frame in (("decisions", decisions), ("sends", sends), ("events", events)):
        if frame is None:
            continue
        found = _arrow(frame, table)
        for said in check_columns(table, found.column_names, table, rows):
            warnings.warn(said, stacklevel=2)
        before = len(rows.rejects)
        append_arrow(rows, table, found, table, timezone, option="timezone=", first=0)
        refused = rows.rejects[before:]
        if refused and len(refused) == len(found):
            raise DataError(f"none of {several(len(found), 'row')} of {table} could be read; {refused[0].place}: "
                            f"{refused[0].message}")  # fmt: skip
    if rows.rejects:
        first = rows.rejects[0]
        text = f"{several(len(rows.rejects), 'row')} refused; the first is {first.place}: {first.message}"
        warnings.warn(text, stacklevel=2)
    source = str(getattr(sends, "attrs", {}).get("source", ""))
    return build([rows], "simulated: frames" if source.startswith("simulated") else "frames")


def as_pandas(frame: Any, what: str) -> pd.DataFrame:
    """A pandas, polars or Arrow table as a pandas one of numpy's columns. UsageError for anything else."""
    if isinstance(frame, pd.DataFrame) and not any(isinstance(t, pd.ArrowDtype) for t in frame.dtypes):
        return frame
    return _arrow(frame, what).to_pandas()


def need(frame: pd.DataFrame, columns: str, what: str, source: str) -> None:
    """UsageError where one of the columns (their names, with spaces) is not there; `source` says what has them."""
    for name in columns.split():
        if name not in frame:
            raise UsageError(f"{what}'s frame has no column {name!r}; expected {source}")


def _arrow(frame: Any, table: str) -> pa.Table:
    """Any table as Arrow; a column of mixed Python objects becomes text."""
    if isinstance(frame, pd.DataFrame):
        names = [str(n) for n in frame.columns]
        if len(set(names)) < len(names):
            raise DataError(f"{table}: a column is there twice: {', '.join(names)}")
        return pa.table([_column(frame.iloc[:, i]) for i in range(len(names))], names=names)
    try:
        found = pa.table(frame)
        return pa.table([_values_of(c) for c in found.columns], names=found.column_names)
    except (TypeError, ValueError) as e:
        raise UsageError(f"{table}: found {type(frame).__name__}, expected a DataFrame or an Arrow table") from e


def _values_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as Arrow can sort them, and a dictionary (a categorical, an enum) as its values: polars has some that Arrow
    cannot cast."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if not pa.types.is_dictionary(column.type):
        return column
    kind = column.type.value_type
    kind = pa.large_string() if pa.types.is_string_view(kind) else kind
    parts = [pa.DictionaryArray.from_arrays(c.indices, c.dictionary.cast(kind)) for c in column.chunks]
    return pa.chunked_array([p.dictionary_decode() for p in parts], kind)


def _column(series: pd.Series) -> pa.Array:
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        texts = [None if v is None or v is pd.NA or v != v else str(v) for v in series.tolist()]
        return pa.array(texts, pa.string())

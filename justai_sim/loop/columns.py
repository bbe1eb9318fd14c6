"""Tables that grow, each column in as few bytes as its values need: what a run holds of every send and event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from justai_sim.tables import I8, Array, Table

T = TypeVar("T", bound=Table)
WIDTHS = tuple(np.dtype(d) for d in ("int8", "int16", "int32", "int64"))


class Column:
    """A growing column of integers, flags or floats (kept as their bits): one number while all rows are equal, else 1,
    2, 4 or 8 bytes a row. Rows that were added without a value have that of the equal ones."""

    def __init__(self, dtype: str, reserve: int = 0) -> None:
        """`dtype`: of what `take` returns; `reserve`: room for so many rows as soon as any is needed."""
        self.dtype, self.reserve, self.n = np.dtype(dtype), reserve, 0
        self.one: int | None = None
        self.data: Array | None = None

    def append(self, values: Array) -> None:
        n = self.n
        self.n += len(values)
        values = self._integers(values)
        if self._fit(values):
            self._write(n, values)

    def add(self, m: int) -> None:
        """`m` rows whose values are not known yet."""
        n = self.n
        self.n += m
        if self.data is not None:
            self._write(n, self.one)

    def _write(self, start: int, values: Any) -> None:
        assert self.data is not None
        if self.n > len(self.data):  # capacity grows by half, so that appending is cheap on average
            self._move(max(3 * len(self.data) // 2, self.n, 1024), self.data.dtype, start)
        self.data[start : self.n] = values

    def _move(self, size: int, dtype: np.dtype[Any], used: int) -> None:
        assert self.data is not None
        old, self.data = self.data, np.empty(size, dtype)
        self.data[:used] = old[:used]

    def put(self, rows: I8, values: Array) -> None:
        values = self._integers(values)
        if self._fit(values):
            assert self.data is not None
            self.data[rows] = values

    def take(self, rows: Array | slice) -> Array:
        dtype = np.dtype(np.int64) if self.dtype.kind == "f" else self.dtype
        if self.data is None:
            m = len(range(*rows.indices(self.n))) if isinstance(rows, slice) else len(rows)
            found = np.full(m, self.one or 0, dtype)
        elif isinstance(rows, slice):
            found = self.data[: self.n][rows].astype(dtype)
        else:
            found = gathered(self.data, rows, dtype)
        return found.view(self.dtype) if self.dtype.kind == "f" else found

    def _integers(self, values: Array) -> Array:
        if self.dtype.kind == "f":
            return np.ascontiguousarray(values, self.dtype).view(np.int64)
        return values.view(np.int8) if values.dtype == bool else values

    def _fit(self, values: Array) -> bool:
        """Make the column able to hold the values; False where it does without storage."""
        if not len(values):
            return False
        low, high = int(values.min()), int(values.max())
        if self.one is None:
            self.one = low
        if self.data is None and low == high == self.one:
            return False
        low, high = min(low, self.one), max(high, self.one)
        dtype = next(w for w in WIDTHS if np.iinfo(w).min <= low and high <= np.iinfo(w).max)
        if self.data is None:
            self.data = np.empty(max(self.reserve, self.n), dtype)
            self.data[: self.n] = self.one
        elif dtype.itemsize > self.data.itemsize:
            self._move(len(self.data), dtype, min(self.n, len(self.data)))
        return True


def gathered(data: Array, rows: Array, dtype: np.dtype[Any]) -> Array:
    """data[rows] as another type of integers, in one pass."""
    if rows.dtype != np.int64 or data.dtype == dtype:
        return data[rows].astype(dtype, copy=False)
    from justai_sim.loop import kernel

    out = np.empty(len(rows), np.int8 if dtype.kind == "b" else dtype)
    kernel.gather(data, rows, out)
    return out.view(dtype)


class Rows(Generic[T]):
    """A table that grows. `since`: columns that are kept as what they exceed another column by (times that follow each
    other fit into 4 bytes); a difference beyond int64 wraps round and comes back as it was."""

    def __init__(self, kind: type[T], reserve: int = 0, since: Mapping[str, str | Column] | None = None) -> None:
        self.kind, self.n = kind, 0
        self.columns = {c.name: Column(c.dtype, reserve) for c in kind.SCHEMA}
        self.since = {k: self.columns[b] if isinstance(b, str) else b for k, b in (since or {}).items()}

    def append(self, rows: T) -> None:
        new = slice(self.n, self.n + len(rows))
        for k, column in self.columns.items():
            values = getattr(rows, k)
            column.append(values - self.since[k].take(new) if k in self.since else values)
        self.n += len(rows)

    def add(self, m: int) -> None:
        """`m` rows whose values `put` brings."""
        for column in self.columns.values():
            column.add(m)
        self.n += m

    def put(self, name: str, rows: I8, values: Array, since: Array) -> None:
        """`since`: what the column that this one may be kept relative to holds in these rows."""
        self.columns[name].put(rows, values - since if name in self.since else values)

    def column(self, name: str, rows: Array | slice = slice(None)) -> Array:
        found = self.columns[name].take(rows)
        return found + self.since[name].take(rows) if name in self.since else found

    def take(self, rows: Array | slice) -> T:
        return self.kind(**{k: self.column(k, rows) for k in self.columns})

    @property
    def table(self) -> T:
        """The whole table, made anew at each call."""
        return self.take(slice(None))

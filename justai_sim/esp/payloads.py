"""Payloads written many at once: the JSON of one of them with holes, and a column of JSON texts for each hole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from justai_sim.clock import DAY, MISSING, SECOND
from justai_sim.esp.coding import COLUMNS, OWN_TIME
from justai_sim.esp.jsonbytes import encode
from justai_sim.tables import I8, Array, Log

Columns = Mapping[str, Sequence[str]]
_EPOCH = datetime(1970, 1, 1)


def hole(name: str) -> msgspec.Raw:
    """Stands in a payload where the JSON text of the column `name` goes."""
    return msgspec.Raw(b"\0%s\0" % name.encode())


class Payload:
    """A payload with holes, given as JSON (no other zero bytes: JSON escapes them).

    >>> Payload(encode({"a": 1, "b": hole("x")})).fill({"x": ['"p"', "null"]})
    [b'{"a":1,"b":"p"}', b'{"a":1,"b":null}']
    """

    def __init__(self, json: bytes) -> None:
        parts = json.decode().split("\0")
        self.texts, self.holes = parts[::2], parts[1::2]

    def fill(self, columns: Columns) -> list[bytes]:
        """A payload for each row of the columns, of which there may be more than holes."""
        first, *others = self.texts
        between = [repeat(first)]
        for name, text in zip(self.holes, others, strict=True):
            between += [columns[name], repeat(text)]  # type: ignore[list-item]
        return [text.encode() for text in map("".join, zip(*between, strict=False))]


class Part:
    """Some rows of a table of a log, by public column: as texts, or as the JSON of texts."""

    def __init__(self, log: Log, table: str, rows: Array) -> None:
        self.log, self.table, self.rows = log, table, rows
        self._table = getattr(log, table)

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, name: str) -> Array:
        """A column as it is in memory."""
        found: Array = getattr(self._table, COLUMNS[self.table][name].name)[self.rows]
        return found

    def texts(self, name: str) -> list[str]:
        """A column of ids, '' where one is missing."""
        return self.log.text(COLUMNS[self.table][name].codes, self.values(name))

    def json(self, name: str, missing: str = "null", to_json: Callable[[list[str]], list[str]] | None = None) -> Any:
        """A column of ids as JSON, `missing` where one is; `to_json` is `quoted`, or what makes it of other texts."""
        make, codes, space = to_json or quoted, self.values(name), self.log.codes[COLUMNS[self.table][name].codes]
        if len(space) > len(codes):
            texts = space.text(codes)
            made = make(texts)
            return [j if t else missing for j, t in zip(made, texts, strict=True)] if (codes < 0).any() else made
        few = [*make(space.text(np.arange(len(space)))), missing]  # the code of a missing one is -1: the last
        return [few[c] for c in codes.tolist()]


def quoted(texts: list[str]) -> list[str]:
    """Each text as JSON."""
    whole = "".join(texts)
    if whole.isprintable() and '"' not in whole and "\\" not in whole:
        return [f'"{t}"' for t in texts]
    return [encode(t).decode() for t in texts]


def numbers(values: Array, missing: str = "null") -> list[str]:
    """Amounts in micro-units as JSON numbers of units."""
    return [missing if v == MISSING else repr(v / 1e6) for v in values.tolist()]


def texts_of_times(times: I8, date: str, clock: str, unit: int) -> list[str]:
    """Times as JSON texts, cut to `unit` microseconds: `date` is a form of `strftime`, `clock` one of hours, minutes,
    seconds and units.

    >>> texts_of_times(np.array([1767605400250000]), "%Y-%m-%dT", "%02d:%02d:%02d.%03dZ", 1000)
    ['"2026-01-05T09:30:00.250Z"']
    """
    day, rest = np.divmod(times, DAY)
    second, less = np.divmod(rest, SECOND)
    parts = [second // 3600, second // 60 % 60, second % 60]
    form = f'"%s{clock}"'
    columns = [a.tolist() for a in ([*parts, less // unit] if unit < SECOND else parts)]
    days = [_day(d, date) for d in day.tolist()]
    return [form % row for row in zip(days, *columns, strict=True)]


@lru_cache(maxsize=4096)
def _day(day: int, date: str) -> str:
    return (_EPOCH + timedelta(days=day)).strftime(date)


def order_of_arrival(log: Log) -> tuple[I8, I8]:
    """(received_at, row) of sends and events together in the order of arrival: sends first, then the order of rows. The
    rows of events follow those of sends."""
    times = []
    for name in ("sends", "events"):
        table = getattr(log, name)
        own = getattr(table, OWN_TIME[name])
        times.append(np.where(table.received_at == MISSING, own, table.received_at))
    t = np.concatenate(times)
    order = np.argsort(t, kind="stable")
    return t[order], order


def in_order(log: Log, groups: Iterable[tuple[Part, list[bytes]]]) -> Iterator[tuple[int, bytes]]:
    """(received_at, payload) of each row of sends and events in the order of arrival, of payloads made in groups."""
    out = np.empty(len(log.sends) + len(log.events), object)
    for part, bodies in groups:
        out[part.rows + (len(log.sends) if part.table == "events" else 0)] = bodies
    at, order = order_of_arrival(log)
    return zip(at.tolist(), out[order].tolist(), strict=True)


def by_kind(log: Log) -> Iterator[tuple[int, Part]]:
    """The events of each kind that there is."""
    kinds = log.events.kind
    for kind in np.unique(kinds).tolist():
        yield kind, Part(log, "events", np.flatnonzero(kinds == kind))

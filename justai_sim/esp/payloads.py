"""Payloads written many at once: the JSON of one of them with holes, and a column of JSON texts for each hole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.clock import MISSING
from justai_sim.esp.coding import COLUMNS, OWN_TIME
from justai_sim.esp.jsonbytes import encode
from justai_sim.tables import I8, Array, Log

Columns = Mapping[str, Sequence[str]]


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
    """Some rows of a table of a log, by public column. The parts of one `split` make each column once, together."""

    def __init__(self, log: Log, table: str, order: I8, cut: slice, made: dict[Any, Any]) -> None:
        self.log, self.table, self.order, self.cut, self.made = log, table, order, cut, made
        self.rows = order[cut]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, chosen: Array) -> Part:
        """The rows of a mask; its columns are made anew if they are not all."""
        return self if chosen.all() else Part(self.log, self.table, self.rows[chosen], slice(None), {})

    def _cut(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key][self.cut]

    def _all(self, name: str) -> Array:
        found: Array = getattr(getattr(self.log, self.table), COLUMNS[self.table][name].name)[self.order]
        return found

    def values(self, name: str) -> Array:
        """A column as it is in memory."""
        found: Array = self._cut(name, lambda: self._all(name))
        return found

    def texts(self, name: str) -> list[str]:
        """A column of ids, '' where one is missing."""
        space = COLUMNS[self.table][name].codes
        found: list[str] = self._cut(("text", name), lambda: self.log.text(space, self._all(name)))
        return found

    def json(
        self, name: str, missing: str = "null", to_json: Callable[[list[str]], list[str]] | None = None
    ) -> list[str]:
        """A column of ids as JSON, `missing` where one is; `to_json` is `quoted`, or what makes it of other texts."""
        found: list[str] = self._cut((name, missing, to_json), lambda: self._json(name, missing, to_json or quoted))
        return found

    def _json(self, name: str, missing: str, to_json: Callable[[list[str]], list[str]]) -> list[str]:
        codes, space = self._all(name), self.log.codes[COLUMNS[self.table][name].codes]
        if len(space) <= len(codes):
            few = [*to_json(space.text(np.arange(len(space)))), missing]  # the code of a missing one is -1: the last
            return [few[c] for c in codes.tolist()]
        texts = space.text(codes)
        made = to_json(texts)
        return [j if t else missing for j, t in zip(made, texts, strict=True)] if (codes < 0).any() else made

    def times(self, name: str, unit: str, between: str, end: str) -> list[str]:
        """A column of times as JSON (see `times_as_json`); of receipts that are missing the row's own time."""

        def make() -> list[str]:
            own, times = self._all(OWN_TIME[self.table]), self._all(name)
            return times_as_json(np.where(times == MISSING, own, times), unit, between, end)

        found: list[str] = self._cut((name, unit, between, end), make)
        return found


def split(log: Log, table: str, key: Array) -> Iterator[tuple[int, Part]]:
    """The rows of a table that share a key, shape (rows,), of which there are few."""
    order, made = np.argsort(key, kind="stable"), dict[Any, Any]()
    keys, starts = np.unique(key[order], return_index=True)
    cuts = [*starts.tolist(), len(key)]
    for k, start, stop in zip(keys.tolist(), cuts, cuts[1:], strict=False):
        yield k, Part(log, table, order, slice(start, stop), made)


def quoted(texts: list[str]) -> list[str]:
    """Each text as JSON."""
    whole = "".join(texts)
    if whole.isprintable() and '"' not in whole and "\\" not in whole:
        return [f'"{t}"' for t in texts]
    return [encode(t).decode() for t in texts]


def nullable(texts: list[str]) -> list[str]:
    """As `quoted`, null for an empty text."""
    return [j if t else "null" for j, t in zip(quoted(texts), texts, strict=True)]


def numbers(values: Array, missing: str = "null") -> list[str]:
    """Amounts in micro-units as JSON numbers of units."""
    return [missing if v == MISSING else repr(v / 1e6) for v in values.tolist()]


def times_as_json(times: I8, unit: str, between: str, end: str) -> list[str]:
    """Times cut to a unit ('s', 'ms'), with texts between date and clock and at the end.

    >>> times_as_json(np.array([1767605400250999]), "ms", "T", "Z")
    ['"2026-01-05T09:30:00.250Z"']
    """
    told = pa.array(times, pa.timestamp("us")).cast(pa.timestamp(unit), safe=False).cast(pa.string())
    told = pc.utf8_replace_slice(told, 10, 11, between)
    found: list[str] = pc.binary_join_element_wise('"', told, f'{end}"', "").to_numpy(zero_copy_only=False).tolist()
    return found


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

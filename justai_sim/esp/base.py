"""The few names that every provider's module has, and the registry of providers."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from justai_sim.errors import UsageError, nearest
from justai_sim.esp.parts import ALL, Asked, Files
from justai_sim.esp.rows import Rows
from justai_sim.tables import Log


class Adapter(Protocol):
    """One provider. Adding one: a module with an `ADAPTER`, a line in `PROVIDERS`, a test class."""

    name: str
    time_grid: int
    """Microseconds: the resolution of the provider's event times (Braze 1 s, Segment 1 ms)."""
    money_grid: int
    """Micro-units: the resolution of the provider's amounts (10_000 is a cent)."""
    cannot_carry: tuple[str, ...]
    """Columns of our tables (such as 'sends.propensity') that the provider's payloads have no place for."""
    export_cannot_carry: tuple[str, ...]
    """As `cannot_carry`, of the bulk export."""

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:
        """The id that `parse` gives to a rendered send; keeps the order of `serial`."""
        ...

    def event_id(self, serial: str, kind: str, name: str) -> str:
        """The id that `parse` gives to a rendered event; keeps the order of `serial`."""
        ...

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """One webhook body a row: (received_at, body), in the order of (received_at, sends first, row)."""
        ...

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """Append what a webhook body holds. A bad element is a reject; only unreadable bytes reject the whole."""
        ...

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """Write a bulk export into an empty folder, in pieces (see `esp.exports`); counts what had to be left out."""
        ...

    def parts(self, path: Path) -> list[Files]:
        """The files of a bulk export (file or folder) in groups that `read` can take alone, in a fixed order."""
        ...

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:
        """Stream a bulk export, or the files of one of its parts, in batches of rows."""
        ...


# Name -> module, or module:name where a module has several adapters.
PROVIDERS = {
    "braze": "justai_sim.esp.braze",
    "segment": "justai_sim.esp.segment",
    "segment-deliveries": "justai_sim.esp.segment:DELIVERIES",
    "customerio": "justai_sim.esp.customerio",
    "iterable": "justai_sim.esp.iterable",
    "sfmc": "justai_sim.esp.sfmc",
    "sfmc-dmy": "justai_sim.esp.sfmc:DAY_FIRST",
    "generic": "justai_sim.esp.generic",
}


PRESETS: dict[str, dict[str, Any]] = {
    "segment-deliveries": {"deliveries_as_sends": True},
    "sfmc-dmy": {"date_format": "DMY"},
}
"""The switches that stand behind a second name of a provider."""


def adapter(name: str, options: Mapping[str, Any] | None = None) -> Adapter:
    """The adapter of a provider, with other switches than the default's if any are given (values or texts).

    >>> adapter("braz")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: esp 'braz' is not known; did you mean 'braze'?
    >>> adapter("segment", {"delivery_as_sends": "yes"})
    Traceback (most recent call last):
    justai_sim.errors.UsageError: segment has no option 'delivery_as_sends'; did you mean 'deliveries_as_sends'?
    """
    if name not in PROVIDERS:
        raise UsageError(f"esp {name!r} is not known; {nearest(name, PROVIDERS)}")
    module, _, attribute = PROVIDERS[name].partition(":")
    found: Adapter = getattr(importlib.import_module(module), attribute or "ADAPTER")
    if not options:
        return found
    known, given = switches(found), dict(PRESETS.get(name, {}))
    for key, value in options.items():
        if key not in known:
            raise UsageError(f"{name} has no option {key!r}; {nearest(key, known)}")
        given[key] = switched(f"option {key} of {name}", value, known[key])
    return type(found)(**given)


def switches(made: Adapter) -> dict[str, Any]:
    """The switches of an adapter's constructor with their defaults: flags, texts, or lists of texts.

    >>> switches(adapter("segment"))["deliveries_as_sends"]
    False
    """
    own = inspect.signature(type(made)).parameters
    if "reading" in own:  # the switches of a provider may be a class of their own
        own = inspect.signature(type(made.reading)).parameters  # type: ignore[attr-defined]
    return {name: p.default for name, p in own.items()}


def switched(where: str, value: Any, default: Any) -> Any:
    """A switch's value in the type of its default; texts are read: yes or no, a,b,c.

    >>> switched("x", "yes", False), switched("x", "a, b", ("c",)), switched("x", ["a"], ("c",))
    (True, ('a', 'b'), ('a',))
    """
    if isinstance(default, bool):
        found = value if isinstance(value, bool) else _FLAGS.get(str(value).strip().lower())
        if found is None:
            raise UsageError(f"{where}: found {value!r}, expected yes or no")
        return found
    if isinstance(default, tuple):
        items = tuple(v.strip() for v in value.split(",")) if isinstance(value, str) else tuple(value)
        if not items or not all(isinstance(v, str) and v for v in items):
            raise UsageError(f"{where}: found {value!r}, expected names with commas, such as {','.join(default)}")
        return items
    if not isinstance(value, str):
        raise UsageError(f"{where}: found {value!r}, expected a text such as {default!r}")
    return value


_FLAGS = {"yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False, "off": False}

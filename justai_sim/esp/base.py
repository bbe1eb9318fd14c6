"""The few names that every provider's module has, and the registry of providers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from justai_sim.errors import UsageError, nearest
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

    def read(self, path: Path, timezone: str | None) -> Iterator[Rows]:
        """Stream a bulk export (file or folder) in batches of rows."""
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


def adapter(name: str) -> Adapter:
    """The adapter of a provider.

    >>> adapter("braz")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: esp 'braz' is not known; did you mean 'braze'?
    """
    if name not in PROVIDERS:
        raise UsageError(f"esp {name!r} is not known; {nearest(name, PROVIDERS)}")
    module, _, attribute = PROVIDERS[name].partition(":")
    found: Adapter = getattr(importlib.import_module(module), attribute or "ADAPTER")
    return found

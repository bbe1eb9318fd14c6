"""Customer.io: reporting webhooks, files of them, and the Parquet export of a workspace.

A purchase is in no message event. It comes from the customer's own events, which are joined on the user:
rows of the plain log, as the backend would post them. `parse` takes such a row (an object with `kind` and
no `metric`) next to the webhooks, and `render` writes conversions so. Customer.io's own `converted` has
no amount and tells again what those events say: it is counted, not loaded (see `Reading`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from justai_sim.clock import MISSING, zone
from justai_sim.esp import customerio_fields as f
from justai_sim.esp import customerio_lane, customerio_render, customerio_writer, plain_one
from justai_sim.esp.customerio_export import Export, table_of
from justai_sim.esp.customerio_fields import Reading
from justai_sim.esp.documents import documents, json_like
from justai_sim.esp.exports import NOT_OF_SENDS
from justai_sim.esp.generic import ADAPTER as PLAIN
from justai_sim.esp.jsonbytes import decode, elements, lone
from justai_sim.esp.origin import Origin, as_received
from justai_sim.esp.parts import ALL, Asked, Files, files, in_parts, nothing_readable
from justai_sim.esp.rows import Batches, Rows
from justai_sim.esp.values import Element, ElementError
from justai_sim.tables import Log

_KEY = "events"


class CustomerIo:
    """The adapter of Customer.io. A send is one delivery; its id is what opens and clicks name it by."""

    name = "customerio"
    time_grid = 1_000_000
    money_grid = 1
    cannot_carry: tuple[str, ...] = (
        "sends.delivered_at", "sends.status", "sends.status_known_at", "sends.received_at", "sends.decided_at",
        "sends.propensity", "sends.segment", "events.received_at", "decisions",
        "conversions and unsubscribes without send_id in Customer.io's own events (they are plain rows)",
        "events.variant_id of other kinds than conversion",
        "events.template_id of events with a send_id other than conversions",
        "events.machine of other kinds than open and click",
    )  # fmt: skip
    export_cannot_carry = (
        *NOT_OF_SENDS,
        "sends.received_at",
        "conversions, and events without a send_id, in Customer.io's own tables (they are plain rows, and whole)",
        "of events in its tables: events.received_at, template_id, variant_id, name, value, currency, order_id, "
        "events.machine of other kinds than open and click, a user_id that is not the send's",
        "copies of a send, and of an event in its tables (the last one heard of is left)",
    )

    def __init__(self, reading: Reading | None = None, **switches: Any) -> None:
        """`switches` are those of `Reading`."""
        self.reading = reading or Reading(**switches)

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:  # noqa: ARG002
        return serial

    def event_id(self, serial: str, kind: str, name: str) -> str:  # noqa: ARG002
        return serial

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """Reporting webhooks, and plain rows for the customer's own events.

        The variant is a header of `sent`, the template the campaign. A held-out user's ghost send is a
        message that was drafted and never sent.
        """
        return customerio_render.bodies(log, self.reading.header)

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """The Parquet export, and beside it the customer's own events as plain rows (see `customerio_writer`)."""
        customerio_writer.write(log, folder, self.reading.header)
        return Counter()

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """A webhook body: one object; an array of objects or an object a line are taken too."""
        if self._usual(body, rows, received_at):
            return
        for where, document in _lines(body, place):
            for which, element, origin in elements(document, where, _KEY, lambda: rows):
                self._append(element, rows, which, received_at, origin)

    def parts(self, path: Path) -> list[Files]:
        """Files of webhooks in parts; the tables of the export are joined, so they are one part."""
        joined, alone = list[tuple[Path, str]](), list[tuple[Path, str]]()
        for file, place in files(path):
            (joined if _table(path, file, place) else alone).append((file, place))
        return in_parts(alone) + ([joined] if joined else [])

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:
        """The Parquet export (any folder layout and version), and files of webhook bodies (JSON, NDJSON, gzip)."""
        batches, passed, found = Batches(), list[str](), False
        export = Export(self.reading, batches, zone(timezone) if timezone else None, asked)
        for file, place in files(path) if only is None else only:
            table = _table(path, file, place)
            if table:
                found = True
                export.add(table, file, place)
            elif json_like(file):
                found = True
                for at, document in documents(file, place, batches.current):
                    if self._usual(document, batches.rows, MISSING):
                        yield from batches.full()
                        continue
                    for which, element, origin in elements(document, at, _KEY, batches.current):
                        self._append(element, batches.rows, which, MISSING, origin, timezone)
                        yield from batches.full()
            else:
                passed.append(place)
                batches.rows.skipped[f"file: *{file.suffix or file.name}"] += 1
        if not found:
            expected = "Parquet files of the export (deliveries_v4_*.parquet) or webhook bodies (*.json, *.ndjson.gz)"
            raise nothing_readable(path, passed, expected)
        yield from export.read()
        yield batches.take()

    def _usual(self, body: bytes, rows: Rows, received_at: int) -> bool:
        """Append the row of one event in its usual shape; False (and nothing is changed) if it is none."""
        e = lone(body, _KEY)
        if e is None:
            return False
        read = customerio_lane.append(e, self.reading, rows, received_at)
        return read or (_is_plain(e) and plain_one.append(e, rows, received_at))

    def _append(
        self, e: Element, rows: Rows, place: str, received_at: int, origin: Origin, timezone: str | None = None
    ) -> None:
        if _is_plain(e):
            PLAIN.append(e, origin, rows, place, received_at, timezone)
            return
        try:
            f.append(f.message(e, self.reading, rows), self.reading, rows, received_at)
        except ElementError as bad:
            rows.reject(place, bad.reason, bad.message, as_received(origin))


ADAPTER = CustomerIo()


def _is_plain(e: Element) -> bool:
    """Whether it is a row of the plain log."""
    return "metric" not in e and "kind" in e


def _table(path: Path, file: Path, place: str) -> str:
    return table_of(place if path.is_dir() else file.name)


def _lines(body: bytes, place: str) -> Iterator[tuple[str, bytes]]:
    """A body as it is, or each of its lines if the first one is JSON by itself."""
    lines = [(i, line) for i, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if line.strip()]
    if len(lines) > 1:
        try:
            decode(lines[0][1])
        except ValueError:
            pass
        else:
            yield from ((f"{place}:{i}", line) for i, line in lines)
            return
    if lines:
        yield place, body

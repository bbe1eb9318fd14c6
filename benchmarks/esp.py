"""Readers of providers' JSON beside a bare typed decode of the same bytes: seconds a million lines, and the ratio.

python benchmarks/esp.py [lines]

The decode knows a dozen fields and keeps nothing; the reader checks every element, joins ids and fills tables.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from justai_sim.clock import DAY, SECOND
from justai_sim.esp.base import Adapter, adapter
from justai_sim.tables import CONVERSION, OPEN, Decisions, Events, Log, Sends, TextCodes

START = 1_767_225_600 * SECOND
RUNS = 3
VARIANTS = ("A", "B", "control")


class Common(msgspec.Struct):
    """Fields that most elements have, of any provider; the rest is skipped."""

    event: str | None = None
    type: str | None = None
    messageId: str | None = None  # noqa: N815
    userId: str | None = None  # noqa: N815
    properties: dict[str, Any] | None = None
    timestamp: str | int | None = None
    event_id: str | None = None
    metric: str | None = None
    data: dict[str, Any] | None = None
    eventName: str | None = None  # noqa: N815
    dataFields: dict[str, Any] | None = None  # noqa: N815
    events: list[dict[str, Any]] | None = None


def log(n: int, esp: Adapter) -> Log:
    """A send, two opens and a purchase in every four rows, with ids as the provider has them."""
    rng, rows = np.random.default_rng(1), n // 4
    sent = np.sort(rng.integers(0, 30 * DAY, rows) // SECOND * SECOND) + START
    user, variant = rng.integers(0, rows, rows), rng.integers(0, 3, rows)
    serial = zip(range(rows), user.tolist(), variant.tolist(), strict=True)
    ids = [esp.send_id(f"s{i:07d}", f"u{u:07d}", "welcome", VARIANTS[v]) for i, u, v in serial]
    texts = {
        "user": TextCodes.of([f"u{i:07d}" for i in range(rows)]),
        "send": TextCodes.of(ids),
        "event": TextCodes.of([f"e{i:07d}" for i in range(3 * rows)]), "template": TextCodes.of(["welcome"]),
        "variant": TextCodes.of(list(VARIANTS)), "name": TextCodes.of(["purchase"]),
        "currency": TextCodes.of(["USD"]), "order": TextCodes.of([f"o{i:07d}" for i in range(rows)]),
        "segment": TextCodes.of([]), "decision": TextCodes.of([]),
    }  # fmt: skip
    at, who = np.arange(rows), np.concatenate([user, user, user])
    kind = np.repeat([OPEN, OPEN, CONVERSION], rows)
    bought = kind == CONVERSION
    when = np.concatenate([sent + 60 * SECOND, sent + 90 * SECOND, sent + 5 * DAY])
    sends = Sends.build(rows, send=at, user=user, template=0, variant=variant, sent_at=sent,
                        received_at=sent)  # fmt: skip
    events = Events.build(
        3 * rows, event=np.arange(3 * rows), user=who, kind=kind, occurred_at=when, received_at=when,
        name=np.where(bought, 0, -1), send=np.where(bought, -1, np.tile(at, 3)),
        order=np.where(bought, np.tile(at, 3), -1),
        value=np.where(bought, 20_000_000, np.iinfo(np.int64).min), currency=np.where(bought, 0, -1),
    )  # fmt: skip
    return Log(sends=sends, events=events, decisions=Decisions.empty(), codes=texts)


def timed(work: Callable[[], object]) -> float:
    """The median of RUNS, seconds."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[RUNS // 2]


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print("| provider | MB | typed decode, s | reader, s | decode / reader | rows |\n|---|---|---|---|---|---|")
    for name in ("braze", "customerio", "iterable", "segment", "sfmc"):
        esp = adapter(name)
        rows = log(n, esp)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "events.ndjson"
            file.write_bytes(b"\n".join(body for _, body in esp.render(rows)))
            decoder, lines = msgspec.json.Decoder(Common | list[dict[str, Any]]), file.read_bytes().split(b"\n")
            bare = timed(lambda decoder=decoder, lines=lines: [decoder.decode(line) for line in lines] and None)
            whole = timed(lambda esp=esp, file=file: [None for _ in esp.read(file, None)])
            found = sum(len(r) for r in esp.read(file, None))
            size = file.stat().st_size / 1e6
        print(f"| {name} | {size:.0f} | {bare:.2f} | {whole:.2f} | {bare / whole:.2f} | {found:,} |", flush=True)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB, the tables made included")


if __name__ == "__main__":
    main()

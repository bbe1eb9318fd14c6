"""Readers of providers beside a bare decode of the same bytes, and the ratio.

python benchmarks/esp.py [lines]

JSON: a msgspec decode that knows a dozen fields and keeps nothing. Avro: fastavro, nothing kept. CSV: pyarrow's
reader, which gives columns of text. Ours check every element, join ids and fill rows; that they find the same
is checked. The two are timed in turns, and the ratio is the median of those of the turns. CSV has ten times as many
rows, since its runs are short.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from justai_sim.clock import DAY, SECOND
from justai_sim.esp.base import Adapter, adapter
from justai_sim.esp.coding import rows_of, text_tables
from justai_sim.tables import CONVERSION, OPEN, Decisions, Events, Log, Sends, TextCodes

START = 1_767_225_600 * SECOND
RUNS = 7
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


def timed(*works: Callable[[], object]) -> list[list[float]]:
    """Seconds of each in each of RUNS turns; in turns, so that a busy machine is busy for all of them."""
    times: list[list[float]] = []
    for _ in range(RUNS):
        times.append([])
        for work in works:
            start = time.perf_counter()
            work()
            times[-1].append(time.perf_counter() - start)
    return times


def avro(folder: Path, bodies: list[bytes]) -> None:
    """Braze's events as flat Avro, a file for each type, as Currents writes them."""
    types = {str: "string", int: "long", float: "double", bool: "boolean", list: {"type": "array", "items": "string"}}
    files: dict[str, list[dict[str, Any]]] = {}
    for body in bodies:
        e = msgspec.json.decode(body)["events"][0]
        flat = {"id": e["id"], "time": e["time"], **e["user"], **e["properties"]}
        texts = {k: msgspec.json.encode(v).decode() if isinstance(v, dict) else v for k, v in flat.items()}
        files.setdefault(e["event_type"], []).append(texts)
    for name, rows in files.items():
        found = {k: next((types[type(r[k])] for r in rows if r.get(k) is not None), "string") for k in rows[0]}
        fields = [{"name": k, "type": ["null", v]} for k, v in found.items()]
        schema = fastavro.parse_schema({"type": "record", "name": name, "fields": fields})
        with (folder / f"{name}.avro").open("wb") as out:
            fastavro.writer(out, schema, rows, codec="deflate", sync_interval=64_000)


def bare_avro(folder: Path) -> int:
    n = 0
    for file in folder.glob("*.avro"):
        with file.open("rb") as stream:
            for _ in fastavro.reader(stream):
                n += 1
    return n


def read(esp: Adapter, path: Path) -> int:
    return sum(len(rows) for rows in esp.read(path, None))


def line(name: str, size: float, times: list[list[float]], found: int) -> None:
    bare, whole = (statistics.median(t) for t in zip(*times, strict=True))
    ratio = statistics.median(t[0] / t[1] for t in times)
    print(f"| {name} | {size / 1e6:.0f} | {bare:.2f} | {whole:.2f} | {ratio:.2f} | {found:,} |", flush=True)


def json_line(name: str, n: int, folder: Path) -> None:
    esp, file = adapter(name), folder / "events.ndjson"
    file.write_bytes(b"\n".join(body for _, body in esp.render(log(n, esp))))
    decoder, lines = msgspec.json.Decoder(Common | list[dict[str, Any]]), file.read_bytes().split(b"\n")
    times = timed(lambda: [decoder.decode(line) for line in lines] and None, lambda: read(esp, file))
    assert read(esp, file) == len(lines)
    line(f"{name} JSON", file.stat().st_size, times, len(lines))


def avro_line(n: int, folder: Path) -> None:
    esp = adapter("braze")
    avro(folder, [body for _, body in esp.render(log(n, esp))])
    assert read(esp, folder) == bare_avro(folder) == n
    size = sum(f.stat().st_size for f in folder.iterdir())
    line("braze Avro", size, timed(lambda: bare_avro(folder), lambda: read(esp, folder)), n)


def csv_line(n: int, folder: Path) -> None:
    esp = adapter("generic")
    tables = {name: text_tables(rows_of(log(n, esp)))[name] for name in ("sends", "events")}
    for name, table in tables.items():
        for column in ("received_at", "sent_at", "occurred_at", "delivered_at", "status_known_at", "decided_at"):
            at = table.schema.get_field_index(column)
            if at >= 0:  # as people write them
                times = pc.strftime(table[column].cast(pa.timestamp("us")), "%Y-%m-%dT%H:%M:%SZ")
                table = table.set_column(at, column, times)
        arrow_csv.write_csv(table, folder / f"{name}.csv", arrow_csv.WriteOptions(quoting_style="none"))
    files = [folder / f"{name}.csv" for name in tables]
    ids = [i for rows in esp.read(folder, None) for i in text_tables(rows)["events"]["event_id"].to_pylist()]
    assert ids == arrow_csv.read_csv(files[1])["event_id"].to_pylist()
    times = timed(lambda: [arrow_csv.read_csv(f) for f in files] and None, lambda: read(esp, folder))
    line("plain CSV", sum(f.stat().st_size for f in files), times, n)


def export_csv_line(name: str, n: int, folder: Path) -> None:
    """The CSV files of a provider's own export, as it is written here; of Marketing Cloud's in UTF-8 and unpacked."""
    esp = adapter(name, {"encoding": "utf-8"} if name == "sfmc" else {})
    esp.export(log(n, esp), folder)
    for packed in folder.glob("*.zip"):
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(folder)
    for other in folder.iterdir():
        if other.suffix != ".csv":
            other.unlink()
    files = sorted(folder.iterdir())
    times = timed(lambda: [arrow_csv.read_csv(f) for f in files] and None, lambda: read(esp, folder))
    line(f"{name} CSV", sum(f.stat().st_size for f in files), times, read(esp, folder))


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print("| what | MB | bare decode, s | reader, s | decode / reader | rows |\n|---|---|---|---|---|---|")
    for name in ("braze", "customerio", "iterable", "segment", "sfmc"):
        with tempfile.TemporaryDirectory() as folder:
            json_line(name, n, Path(folder))
    for work, rows in ((avro_line, n), (csv_line, 10 * n)):
        with tempfile.TemporaryDirectory() as folder:
            work(rows, Path(folder))
    for name in ("iterable", "sfmc"):
        with tempfile.TemporaryDirectory() as folder:
            export_csv_line(name, n, Path(folder))
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB, the tables made included")


if __name__ == "__main__":
    main()

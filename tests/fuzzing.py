"""Coverage-guided fuzzing of the readers: python tests/fuzzing.py PROVIDER [SECONDS]

An input is a byte that picks a format, and what a file (or a body) of it holds. Only typed errors may come
out, and rows that our tables can hold. Seeds are made by the adapters' own `render`.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MAX = 20_000
"""Bytes of an input."""
RECEIVED = 1_772_668_800_000_000
START = 1_772_500_000_000_000
_REASON = re.compile(r"[a-z0-9_]+")
PROVIDERS = ("braze", "segment", "iterable", "customerio", "sfmc", "generic")
_HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 10**30, 0.1, -0.0, 1e15, 1e300, 1e-300, "", " ",
    "0", "x", "x" * 5_000, "1e400", "NaN", "-", "é\u00a0", "\ud800", "\0", "\u2028", "2026-02-30T00:00:00Z",
    "2026-03-01T00:00:00+23:59", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-03-01", "1.2.3", "٣",
    "12/31/2026 11:59:59 PM", "0/0/0", "true", "{}", '{"a":1}', "[", [], {}, [[]], [{}], {"": None}, "USD",
    "https://[x/?copy_id=%zz", "a|copy_id=b", "\ufeff", "1" * 4_400, "refund", 1_772_668_800, "=1+1",
)  # fmt: skip


class Format(NamedTuple):
    """How an input reaches an adapter: as a body (no name), or as a file made from it."""

    name: str
    make: Callable[[bytes], bytes] = bytes


def _parquet(data: bytes) -> bytes:
    """Rows in JSON as Parquet; what Arrow cannot take is a file of the bytes themselves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist([json.loads(line) for line in data.splitlines()]), out)
    except Exception:
        return data
    return out.getvalue()


def _avro(data: bytes) -> bytes:
    """Rows in JSON as Avro, each field of the types that it has in them."""
    import fastavro

    types = {str: "string", int: "long", float: "double", bool: "boolean", type(None): "null"}
    out = io.BytesIO()
    try:
        rows = [json.loads(line) for line in data.splitlines()]
        fields: dict[str, list[Any]] = {}
        for row in rows:
            for key, value in row.items():
                kind = types.get(type(value)) or {"type": "array", "items": "string"}
                fields.setdefault(key, ["null"]).append(kind) if kind not in fields.get(key, ["null"]) else None
        made = [{"name": k, "type": v, "default": None} for k, v in fields.items()]
        name = str(rows[0].get("event_type", "users.behaviors.CustomEvent"))
        fastavro.writer(out, fastavro.parse_schema({"type": "record", "name": name, "fields": made}), rows)
    except Exception:
        return data
    return out.getvalue()


def _zip(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("Clicks.csv", data)
    return out.getvalue()


FORMATS: dict[str, list[Format]] = {
    "braze": [Format(""), Format("a.ndjson"), Format("a.avro"), Format("a.avro", _avro)],
    "segment": [Format(""), Format("a.ndjson"), Format("a.gz")],
    "iterable": [Format(""), Format("data.json"), Format("emailClick.csv"), Format("purchase.csv")],
    "customerio": [Format(""), Format("a.ndjson"), Format("metrics.parquet"),
                   *(Format(f"{t}.parquet", _parquet) for t in ("deliveries", "metrics", "outputs", "people"))],
    "sfmc": [Format(""), Format("a.json"), Format("Clicks.csv"), Format("Sent.csv"), Format("Conversions.csv"),
             Format("a.zip"), Format("a.zip", _zip)],
    "generic": [Format(""), Format("events.csv"), Format("events.ndjson"), Format("events.parquet"),
                Format("events.parquet", _parquet), Format("sends.csv"), Format("decisions.csv")],
}  # fmt: skip


def one_input(provider: str, data: bytes, folder: Path) -> None:
    """Read one input; anything but a typed error or rows fit for our tables is an AssertionError."""
    from justai_sim.errors import JustaiError
    from justai_sim.esp.base import adapter
    from justai_sim.esp.coding import text_tables
    from justai_sim.esp.rows import Rows

    if not data:
        return
    kinds = FORMATS[provider]
    form, esp, found = kinds[data[0] % len(kinds)], adapter(provider), []
    if not form.name:
        rows = Rows()
        esp.parse(data[1:], rows, "body", RECEIVED)
        found = [rows]
    else:
        if provider == "generic":
            for other in ("sends", "events"):
                (folder / f"{other}.ndjson").write_bytes(b"")
            if form.name.startswith(("sends", "events")):
                (folder / form.name).with_suffix(".ndjson").unlink()
        (folder / form.name).write_bytes(form.make(data[1:]))
        try:
            found = list(esp.read(folder, None))
        except JustaiError:
            found = []
        for file in folder.iterdir():
            file.unlink()
    for rows in found:
        text_tables(rows)
        for r in rows.rejects:
            assert r.place, r
            assert r.message, r
            assert _REASON.fullmatch(r.reason), r
            assert isinstance(r.raw, str), r


# ------------------------------------------------------------------------------------------------- seeds


def seeds(provider: str) -> list[bytes]:
    """Inputs for every format: rendered bodies, and tables of rows made from their fields."""
    bodies = _bodies(provider)
    out = []
    for i, form in enumerate(FORMATS[provider]):
        kind = bytes([i])
        if not form.name:
            out += [kind + body for body in bodies]
        elif form.name.endswith((".ndjson", ".json", ".gz")):
            out += [kind + b"\n".join(bodies[at : at + 4]) for at in range(0, len(bodies), 4)]
        elif form.name.endswith((".csv", ".zip")) or form.make is _parquet or form.make is _avro:
            rows = _rows(provider, form.name.partition(".")[0], bodies)
            lines = b"\n".join(json.dumps(r).encode() for r in rows)
            tables = form.make in (_parquet, _avro)
            out += [
                kind
                + (
                    lines
                    if tables
                    else _csv(rows)
                    if form.name.endswith(".csv") or form.make is _zip
                    else _zip(_csv(rows))
                )
            ]
        else:
            rows = _rows(provider, form.name.partition(".")[0], bodies)
            lines = b"\n".join(json.dumps(r).encode() for r in rows)
            out += [kind + (_avro if form.name.endswith(".avro") else _parquet)(lines)]
    return out


def _bodies(provider: str) -> list[bytes]:
    from justai_sim.esp.base import adapter
    from justai_sim.esp.rows import EventRow, Rows, SendRow
    from tests.esp_rows import text_log

    esp, rows = adapter(provider), Rows()
    send = esp.send_id("d1", "u1", "T1", "A")
    at = START // esp.time_grid * esp.time_grid
    rows.sends = [
        SendRow(send, "u1", "T1", "A", at),
        SendRow(esp.send_id("d2", "u2", "T2", "B"), "u2", "T2", "B", at, status="held_out"),
    ]
    kinds = ("open", "click", "unsubscribe", "bounce", "drop", "spam", "delivery")
    for i, kind in enumerate(kinds):
        machine = i % 2 if kind in ("open", "click") else -1
        rows.events.append(EventRow(esp.event_id(f"e{i}", kind, ""), "u1", kind, at + i, send_id=send, machine=machine))
    for i, name in enumerate(("purchase", "Order Completed", "ecommerce.order_placed", "Signed Up")):
        event, value = esp.event_id(f"c{i}", "conversion", name), (-1) ** i * 19_990_000
        rows.events.append(EventRow(event, "u1", "conversion", at, name, value=value, currency="USD", order_id=f"o{i}"))
    return [body for _, body in esp.render(text_log(rows))]


def _rows(provider: str, table: str, bodies: list[bytes]) -> list[dict[str, Any]]:
    """Rows of a table of an export."""
    when = "3/5/2026 9:30:00 AM"
    if provider == "braze":
        found = [json.loads(b)["events"][0] for b in bodies]
        flat = [
            {"event_type": e["event_type"], "id": e["id"], "time": e["time"], **e["user"], **e["properties"]}
            for e in found
        ]
        return [{k: v if not isinstance(v, dict) else json.dumps(v) for k, v in e.items()} for e in flat]
    if provider == "iterable":
        found = [json.loads(b) for b in bodies]
        return [
            {"eventName": "", **e["dataFields"]}
            for e in found
            if e["eventName"] == ("purchase" if table == "purchase" else "emailClick")
        ]
    if provider == "sfmc":
        row = {
            "SendID": 1,
            "BatchID": 2,
            "SubscriberID": 3,
            "SubscriberKey": "u1",
            "EventDate": when,
            "EventType": "Click",
        }
        return [
            row
            | {
                "URL": "https://www.example.com/?copy_id=A",
                "SendURLID": 7,
                "TriggeredSendExternalKey": "k",
                "Amount": "19.99",
            }
        ] * 3
    if provider == "customerio":
        ids = {"delivery_id": "d1", "internal_customer_id": "c1", "seq_num": 1, "created_at": START}
        more = {
            "subject_id": "s1",
            "subject_name": "s1",
            "delivery_type": "email",
            "campaign_id": 1,
            "content_id": 2,
            "customer_id": "u1",
        }
        told = {
            "event_id": "e1",
            "metric": "sent",
            "link_url": "x",
            "proxied": True,
            "output_id": "o1",
            "split_test_index": 1,
            "updated_at": START,
        }
        return [ids | more | told, ids | more | told | {"metric": "opened", "event_id": "e2", "seq_num": 2}]
    rows = [json.loads(b) for b in bodies]
    return [r for r in rows if r.pop("table") == ("sends" if table == "sends" else "events")]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(k for r in rows for k in r))
    out = io.StringIO()
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


# ---------------------------------------------------------------------------------------------- mutation


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A line of the input changed in its structure: a value of its JSON, or a cell; as it is if there is none."""
    kind, lines = data[:1], data[1:].split(b"\n")
    at = rng.randrange(len(lines))
    try:
        found = json.loads(lines[at])
    except (ValueError, RecursionError):
        cells = lines[at].split(b",")
        cells[rng.randrange(len(cells))] = json.dumps(rng.choice(_HOSTILE)).strip('"').encode()
        lines[at] = b",".join(cells)
    else:
        for _ in range(rng.randint(1, 3)):
            found = _changed(found, rng)
        lines[at] = json.dumps(found, ensure_ascii=rng.random() < 0.9).encode("utf-8", "replace")
    if rng.random() < 0.1:
        lines.insert(at, lines[rng.randrange(len(lines))])
    return kind + b"\n".join(lines)


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts replaced, removed, added or nested."""
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or rng.random() < 0.1:
        return rng.choice(_HOSTILE)
    value, key = value.copy(), rng.choice(inner)
    what = rng.random()
    if what < 0.5 and isinstance(value[key], dict | list):
        value[key] = _changed(value[key], rng)
    elif what < 0.7:
        value[key] = rng.choice(_HOSTILE)
    elif what < 0.8:
        value[key] = value[rng.choice(inner)]
    elif what < 0.9:
        del value[key]
    elif isinstance(value, dict):
        value[str(key) + rng.choice(("", "Id", "_id", " "))] = rng.choice((json.dumps(value[key]), [value[key]]))
    return value


def main() -> None:
    provider, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    import atheris

    with atheris.instrument_imports(include=["justai_sim.esp"]):
        from justai_sim.esp.base import adapter

        adapter(provider)

    def custom(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if data and rng.random() < 0.6:
            changed = mutated(data, rng)
            if len(changed) <= most:
                return changed
        return bytes(atheris.Mutate(data, most))

    with tempfile.TemporaryDirectory() as work:
        corpus, files = Path(work) / "corpus", Path(work) / "files"
        corpus.mkdir()
        files.mkdir()
        for i, seed in enumerate(seeds(provider)):
            (corpus / f"seed-{i}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX}",
            "-timeout=30",
            "-rss_limit_mb=3000",
            "-print_final_stats=1",
        ]
        options += [f"-artifact_prefix={tempfile.gettempdir()}/fuzz-{provider}-", "-verbosity=1"]
        atheris.Setup(
            [sys.argv[0], *options, str(corpus)], lambda data: one_input(provider, data, files), custom_mutator=custom
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()

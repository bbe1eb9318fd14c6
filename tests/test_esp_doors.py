"""The same events by webhook, by a retry and in an export, in any order: each counts once, for every provider."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justai_sim import clock
from justai_sim.errors import UsageError
from justai_sim.esp.base import PROVIDERS, adapter
from justai_sim.esp.coding import build, listed
from justai_sim.esp.parts import Asked
from justai_sim.esp.rows import Rows
from justai_sim.log import load
from justai_sim.replays import replay

N = 24
T0 = clock.parse("2026-03-02T09:00:00Z")
SECOND, DAY = 1_000_000, clock.DAY
Doors = tuple[list[Any], Callable[[Path], None]]
"""Webhook bodies, and what writes the export of the same events."""


def sent(i: int) -> int:
    return T0 + i * 60 * SECOND


def opened(i: int) -> int:
    return sent(i) + 30 * SECOND


def clicked(i: int) -> int:
    return sent(i) + 40 * SECOND


def bought(i: int) -> int:
    return sent(i) + 5 * DAY


def text(t: int) -> str:
    return datetime.fromtimestamp(t // SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S +00:00")


def ndjson(folder: Path, name: str, rows: list[Any]) -> None:
    (folder / f"{name}.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def segment() -> Doors:
    bodies = []
    for i in range(N):
        for k, (name, t, p) in enumerate((
            ("Email Sent", sent(i), {"message_id": f"m{i}", "template_id": "t", "copy_id": "AB"[i % 2]}),
            ("Email Opened", opened(i), {"message_id": f"m{i}"}),
            ("Email Link Clicked", clicked(i), {"message_id": f"m{i}", "link_url": "https://x.com"}),
            ("Order Completed", bought(i), {"order_id": f"o{i}", "revenue": 9.5, "currency": "USD"}),
        )):  # fmt: skip
            bodies.append({"type": "track", "event": name, "messageId": f"e{i}-{k}", "userId": f"u{i}",
                           "timestamp": clock.iso(t), "properties": p})  # fmt: skip
    return bodies, lambda folder: ndjson(folder, "1234.log", bodies)


def braze() -> Doors:
    bodies, files = [], dict[str, list[dict[str, Any]]]()
    for i in range(N):
        step = {"canvas_id": "c", "canvas_step_id": "t", "dispatch_id": f"d{i:02d}"}
        for name, t, p in (
            ("users.messages.email.Send", sent(i), {**step, "message_extras": json.dumps({"copy_id": "AB"[i % 2]})}),
            ("users.messages.email.Open", opened(i), {**step, "machine_open": None}),
            ("users.messages.email.Click", clicked(i), {**step, "url": "https://x.com"}),
            ("users.behaviors.Purchase", bought(i), {"product_id": "p", "price": 9.5, "currency": "USD"}),
        ):
            serial, user = f"{name[-3:]}{i}", {"user_id": f"b{i}", "external_user_id": f"u{i}"}
            one = {"event_type": name, "id": serial, "time": t // SECOND, "user": user, "properties": p}
            bodies.append({"events": [one]})
            files.setdefault(name, []).append({**user, **p, "id": serial, "time": t // SECOND})

    def export(folder: Path) -> None:
        for name, rows in files.items():
            fields: list[dict[str, Any]] = [{"name": "id", "type": "string"}, {"name": "time", "type": "int"}]
            for c in (c for c in rows[0] if c not in ("id", "time")):
                kind = "double" if c == "price" else "string"
                fields.append({"name": c, "type": ["null", kind], "default": None})
            schema = fastavro.parse_schema({"type": "record", "name": name, "fields": fields})
            with (folder / f"{name}.avro").open("wb") as f:
                fastavro.writer(f, schema, rows)

    return bodies, export


def customerio() -> Doors:
    bodies, plain = [], []
    tables: dict[str, list[dict[str, Any]]] = {"people": [], "deliveries": [], "metrics": [], "delivery_contents": []}
    for i in range(N):
        copy = "AB"[i % 2]
        for metric, t in (("sent", sent(i)), ("opened", opened(i)), ("clicked", clicked(i))):
            data = {"customer_id": f"u{i}", "identifiers": {"id": f"u{i}"}, "delivery_id": f"d{i}", "campaign_id": 5}
            data |= {"headers": {"X-JW-Copy-Id": [copy]}} if metric == "sent" else {}
            data |= {"href": "https://x.com", "link_id": 3} if metric == "clicked" else {}
            bodies.append({"event_id": f"{metric}{i}", "object_type": "email", "metric": metric,
                           "timestamp": t // SECOND, "data": data})  # fmt: skip
            at = datetime.fromtimestamp(t // SECOND, UTC)
            link = "https://x.com" if metric == "clicked" else None
            tables["metrics"].append({"event_id": f"{metric}{i}", "delivery_id": f"d{i}", "metric": metric,
                                      "created_at": at, "link_url": link, "seq_num": 1})  # fmt: skip
        created = datetime.fromtimestamp(sent(i) // SECOND - 5, UTC)
        tables["people"].append({"internal_customer_id": f"c{i}", "customer_id": f"u{i}", "updated_at": created})
        tables["deliveries"].append({"delivery_id": f"d{i}", "internal_customer_id": f"c{i}", "campaign_id": 5,
                                     "delivery_type": "email", "created_at": created, "seq_num": 1})  # fmt: skip
        tables["delivery_contents"].append({"delivery_id": f"d{i}", "headers": json.dumps({"X-JW-Copy-Id": [copy]}),
                                            "body": "", "seq_num": 1})  # fmt: skip
        plain.append({"table": "events", "event_id": f"o{i}", "user_id": f"u{i}", "kind": "conversion", "name": "buy",
                      "occurred_at": bought(i), "value": 9.5, "currency": "USD"})  # fmt: skip

    def export(folder: Path) -> None:
        for name, rows in tables.items():
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}_v4_1_0001.parquet")
        ndjson(folder, "orders.ndjson", plain)

    return bodies + plain, export


def iterable() -> Doors:
    """The webhook knows the user by `userId` and tells links thrice, the export knows the address and `url`."""
    bodies, files = [], dict[str, list[dict[str, Any]]]()
    for i in range(N):
        both = {"messageId": f"m{i}", "campaignId": 5, "templateId": 7}
        machine = {"ip": "192.0.2.1", "userAgent": "Mozilla/5.0"}
        for name, t, p, extra in (
            ("emailSend", sent(i), {**both, "transactionalData": json.dumps({"copy_id": "AB"[i % 2]})}, {}),
            ("emailOpen", opened(i), {**both, **machine}, {"labels": []}),
            ("emailClick", clicked(i), {**both, **machine, "url": "https://x.com", "hrefIndex": 1},
             {"linkUrl": "https://x.com", "linkId": "l1"}),
            ("purchase", bought(i), {"id": f"o{i}", "total": 9.5}, {}),
        ):  # fmt: skip
            who = {"email": f"ann{i}@x.org", "userId": f"u{i}"}
            fields = {**who, "createdAt": text(t), **p, **extra}
            bodies.append({**who, "eventName": name, "dataFields": fields})
            known = who if name in ("emailSend", "purchase") else {"email": who["email"]}
            files.setdefault(name, []).append({"createdAt": text(t), **known, **p})

    def export(folder: Path) -> None:
        for name, rows in files.items():
            if name == "emailClick":
                lines = [",".join(rows[0]), *(",".join(map(str, r.values())) for r in rows)]
                (folder / f"{name}_20260401000000.csv").write_text("\n".join(lines))
            else:
                ndjson(folder, f"{name}_20260401000000.json", rows)

    return bodies, export


def sfmc() -> Doors:
    bodies, plain, files = [], [], dict[str, list[str]]()
    for i in range(N):
        ids = {"jobId": "31", "batchId": "7", "listId": "1", "subscriberId": f"{900 + i}"}
        for name, category, t in (
            ("Sent", "TransactionalSendEvents.EmailSent", sent(i)),
            ("Opens", "EngagementEvents.EmailOpen", opened(i)),
            ("Clicks", "EngagementEvents.EmailClick", clicked(i)),
        ):
            info: dict[str, Any] = {"subscriberKey": f"u{i}"}
            info |= {"jobUrlId": "55", "contentLink": "https://x.com"} if name == "Clicks" else {}
            key = "AB"[i % 2] if name == "Sent" else "NA"
            bodies.append([{"eventCategoryType": category, "timestampUTC": t // 1000, "composite": ids,
                            "definitionKey": key, "info": info}])  # fmt: skip
            # An extract writes UTC-6.
            at = datetime.fromtimestamp(t // SECOND - 6 * 3600, UTC).strftime("%m/%d/%Y %I:%M:%S %p")
            files.setdefault(name, []).append(f"1,31,u{i},{900 + i},{at},7,{'AB'[i % 2]},55,https://x.com")
        plain.append({"table": "events", "event_id": f"o{i}", "user_id": f"u{i}", "kind": "conversion", "name": "buy",
                      "occurred_at": bought(i), "value": 9.5, "currency": "USD"})  # fmt: skip

    def export(folder: Path) -> None:
        head = "ClientID,SendID,SubscriberKey,SubscriberID,EventDate,BatchID,TriggeredSendExternalKey,SendURLID,URL"
        for name, lines in files.items():
            (folder / f"{name}.csv").write_text("\r\n".join([head, *lines]) + "\r\n")
        ndjson(folder, "orders.json", plain)

    return bodies + plain, export


def generic() -> Doors:
    sends = [{"table": "sends", "send_id": f"s{i}", "user_id": f"u{i}", "template_id": "t", "variant_id": "AB"[i % 2],
              "sent_at": clock.iso(sent(i))} for i in range(N)]  # fmt: skip
    kinds = (("open", opened), ("click", clicked), ("conversion", bought))
    events = [{"table": "events", "event_id": f"{kind}{i}", "user_id": f"u{i}", "kind": kind, "occurred_at": t(i)}
              for i in range(N) for kind, t in kinds]  # fmt: skip

    def export(folder: Path) -> None:
        ndjson(folder, "sends.ndjson", sends)
        ndjson(folder, "events.ndjson", events)

    return [*sends, *events], export


DOORS = {"segment": segment, "braze": braze, "customerio": customerio, "iterable": iterable, "sfmc": sfmc,
         "generic": generic}  # fmt: skip


def test_every_provider_is_here() -> None:
    assert set(DOORS) == {name.partition("-")[0] for name in PROVIDERS}


@pytest.mark.parametrize("esp", DOORS)
@pytest.mark.parametrize("seed", range(3))
def test_one_count(esp: str, seed: int, tmp_path: Path) -> None:
    bodies, export = DOORS[esp]()
    export(tmp_path)
    reader, drawn = adapter(esp), random.Random(seed)
    by_hook = Rows()
    for i, body in enumerate(bodies):
        reader.parse(json.dumps(body).encode(), by_hook, f"body {i}", bought(N))
    exported = list(map(listed, reader.read(tmp_path, None)))
    assert not by_hook.rejects
    assert not [r for rows in exported for r in rows.rejects]
    assert len(by_hook.sends) == N
    assert len(by_hook.events) == 3 * N
    retried = Rows()
    for i in drawn.sample(range(len(bodies)), len(bodies) // 2):
        reader.parse(json.dumps(bodies[i]).encode(), retried, f"retry {i}", bought(N) + DAY)
    doors = [by_hook, retried, *exported]
    for rows in doors:
        drawn.shuffle(rows.sends)
        drawn.shuffle(rows.events)
    drawn.shuffle(doors)
    everything = build(doors)
    for column, space in (("sends", "send"), ("events", "event")):
        table = getattr(everything, column)
        seen = set(everything.text(space, getattr(table, space)))
        assert len(seen) == N * (1 if column == "sends" else 3), (esp, column, sorted(seen)[:6])
    once, many = (replay(log, as_of=bought(N) + 30 * DAY) for log in (build([by_hook]), everything))
    columns = ["variant_id", "sends", "opens", "clicks", "conversions", "revenue"]
    assert once.metrics[columns].values.tolist() == many.metrics[columns].values.tolist()
    total = many.metrics.iloc[-1]
    assert [total[c] for c in ("sends", "opens", "clicks", "conversions")] == [N] * 4


NOT_READ = {
    "braze": {f"file not asked for: users.{n}": 1 for n in ("messages.email.Open", "behaviors.Purchase")},
    "iterable": {"file not asked for: emailOpen": 1, "file not asked for: purchase": 1},
    "sfmc": {"file not asked for: open": 1, "not asked for: conversion": N},
    "customerio": {"not asked for: open": N, "not asked for: conversion": N},
    "segment": {"not asked for: open": N, "not asked for: conversion": N},
    "generic": {"not asked for: open": N, "not asked for: conversion": N},
}


@pytest.mark.parametrize("esp", DOORS)
def test_what_is_not_asked_for_is_not_read(esp: str, tmp_path: Path) -> None:
    """Files that hold only other kinds are passed over, rows of others dropped as soon as their kind is known."""
    (tmp_path / "export").mkdir()
    DOORS[esp]()[1](tmp_path / "export")
    summary = load(tmp_path / "export", esp, tmp_path / "log", events=["click"])
    assert summary.kinds == {"click": N}
    assert summary.rows["sends"] == N
    assert summary.skipped == NOT_READ[esp]
    if esp == "generic":
        return  # its tables hold all kinds
    asked = Asked(frozenset({"click"}))
    kinds = {e.kind for rows in adapter(esp).read(tmp_path / "export", None, asked=asked) for e in rows.events}
    assert kinds - {"conversion"} == {"click"}, "conversions of some come as plain rows"


@pytest.mark.parametrize("name", ["emailSend.jsonl", "emailSend.csv"])
def test_a_file_of_iterable_may_hold_other_types_than_its_name_says(name: str, tmp_path: Path) -> None:
    (folder := tmp_path / "export").mkdir()
    fields = {
        "createdAt": "2026-01-05 09:30:00 +00:00",
        "userId": "u",
        "messageId": "m",
        "campaignId": 1,
        "templateId": 2,
    }
    rows = [{"_type": kind, **fields} for kind in ("emailSend", "emailOpen", "emailClick")]
    if name.endswith("csv"):
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    for kind in ("emailSend", "emailOpen"):
        (folder / name.replace("emailSend", kind)).write_text("\n".join(lines))
    summary = load(folder, "iterable", tmp_path / "log", events=["click"])
    assert (summary.kinds, summary.rows["sends"]) == ({"click": 2}, 2)


def test_drops_are_among_the_bounces(tmp_path: Path) -> None:
    fields = [{"name": n, "type": ["null", "string", "int", "boolean"]} for n in ("id", "time", "external_user_id",
              "dispatch_id", "canvas_step_id", "is_drop")]  # fmt: skip
    schema = fastavro.parse_schema({"type": "record", "name": "users.messages.email.Bounce", "fields": fields})
    rows = [{"id": f"e{i}", "time": T0 // SECOND, "external_user_id": "u", "dispatch_id": "d", "canvas_step_id": "t",
             "is_drop": bool(i)} for i in range(2)]  # fmt: skip
    (tmp_path / "export").mkdir()
    with (tmp_path / "export" / "x.avro").open("wb") as out:
        fastavro.writer(out, schema, rows)
    summary = load(tmp_path / "export", "braze", tmp_path / "log", events=["drop"])
    assert (summary.kinds, summary.skipped) == ({"drop": 1}, {"not asked for: bounce": 1})


def test_a_click_of_marketing_cloud_by_three_doors(tmp_path: Path) -> None:
    """The service numbers a link, so does the extract; the view `_Click` knows its address alone, and cuts it."""
    link, t = "https://X.com/a%20b/?utm=1#top", T0
    ids = {"jobId": "31", "batchId": "7", "listId": "1", "subscriberId": "900"}
    at = datetime.fromtimestamp(t // SECOND - 6 * 3600, UTC).strftime("%m/%d/%Y %I:%M:%S %p")

    def bodies(url: str, number: str) -> list[Any]:
        info = {"jobUrlId": number, "contentLink": url}
        return [{"eventCategoryType": "EngagementEvents.EmailClick", "timestampUTC": t // 1000 + 400, "composite": ids,
                 "info": info}]  # fmt: skip

    (tmp_path / "live.json").write_text(json.dumps(bodies(link, "55")))
    head, row = "SendID,SubscriberKey,SubscriberID,EventDate,BatchID,SendURLID,URL", f"31,u,900,{at},7"
    (tmp_path / "Clicks.csv").write_text(f"{head}\n{row},55,{link}\n")
    (tmp_path / "_Click.csv").write_text(
        "JobID,BatchID,SubscriberID,SubscriberKey,EventDate,IsUnique,URL,LinkName\n"
        f"31,7,900,u,{at},True,https://x.com/a b?utm=2,offer\n"
    )
    events = [e for rows in adapter("sfmc").read(tmp_path, None) for e in rows.events]
    assert len(events) == 3
    assert len({e.event_id for e in events}) == 1
    # Another page in the same second is another click; another query of the same page is not told apart.
    for url, number, same in (("https://x.com/other", "55", False), (link + "2", "56", True), ("", "55", False)):
        (tmp_path / "live.json").write_text(json.dumps(bodies(url, number)))
        events = [e for rows in adapter("sfmc").read(tmp_path, None) for e in rows.events]
        assert (len({e.event_id for e in events}) == 1) is same, url


@pytest.mark.parametrize(
    ("esp", "options", "message"),
    [
        ("customerio", {"machine_flags": "prefetchd"}, "did you mean 'prefetched'"),
        ("customerio", {"template_from": "bogus"}, "template_from: 'bogus' is not known"),
        ("braze", {"variant_key": ""}, "expected a key of message_extras"),
        ("segment", {"variant_path": "..x"}, "expected keys with dots"),
    ],
)
def test_mistyped_values_of_options_are_refused(esp: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        adapter(esp, options)


@pytest.mark.parametrize(
    ("esp", "name"), [("customerio", "deliveries_v4_1.parquet"), ("sfmc", "Sent.csv"), ("sfmc", "tracking.zip")]
)
def test_a_file_that_may_not_be_read_is_an_error(
    esp: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no damaged file, whose load would go on."""
    (tmp_path / name).write_bytes(b"x")

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
    monkeypatch.setattr("zipfile.ZipFile", refuse)
    with pytest.raises(PermissionError):
        list(adapter(esp).read(tmp_path, None))

"""A reject holds the bytes of its row as they were received, by webhook and in files, and no other row's."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from justai_sim import clock
from justai_sim.clock import MISSING
from justai_sim.esp.base import adapter
from justai_sim.esp.rows import Rows
from tests.esp_rows import read_all

HEARD = clock.parse("2026-03-02T09:00:00Z")
BAD = {
    "braze": b'{"event_type": "users.behaviors.Purchase",  "id":"e1","time":"never", "user":{"user_id":"\\u0075"}'
    b',"properties":{"price":22.50}}',
    "segment": b'{"type":"track",  "event":"Order Completed","messageId":"m","userId":"\\u0075",'
    b'"timestamp":"2026-03-01T00:00:00Z","value":1.50,"properties":"never"}',
    "customerio": b'{"metric": "opened",  "object_type":"email","event_id":"e","timestamp":1.50e300,'
    b'"data":{"delivery_id":"d","identifiers":{"id":"\\u0075"}}}',
    "iterable": b'{"eventName": "emailOpen",  "dataFields":{"createdAt":"never","messageId":"\\u006d","total":1.50}}',
    "sfmc": b'{"eventCategoryType": "EngagementEvents.EmailOpen",  "timestampUTC":"never","composite":{"jobId":1.50}}',
    "generic": b'{"event_id": "e",  "user_id":"\\u0075","kind":"open","occurred_at":"never","value":1.50}',
}
KEY = {"braze": b"events", "segment": b"batch", "customerio": b"events", "sfmc": b"events"}


def refused(esp: str, body: bytes) -> list[str]:
    rows = Rows()
    adapter(esp).parse(body, rows, "body", HEARD)
    assert not len(rows)
    return [r.raw for r in rows.rejects]


@pytest.mark.parametrize("esp", BAD)
def test_bodies(esp: str) -> None:
    bad = BAD[esp]
    bodies = [bad, b" " + bad + b"\n", b"[" + bad + b"]"]
    if esp in KEY:
        bodies.append(b'{"%s": [%s ]}' % (KEY[esp], bad))
    for body in bodies:
        assert refused(esp, body) == [bad.decode()], body
    many = b"[" + bad + b",  " + bad.replace(b"never", b"soon").replace(b"1.50", b"2.50") + b", 7]"
    first, second, third = refused(esp, many)
    assert first == bad.decode()
    assert second != first
    assert third == "7"


@pytest.mark.parametrize("esp", [esp for esp in BAD if esp != "generic"])
def test_files(esp: str, tmp_path: Path) -> None:
    """Lines, packed lines, a document printed over several lines, and one that is cut by its brackets."""
    bad = BAD[esp].decode()
    printed = bad.replace("  ", "\n    ")
    (tmp_path / "a.ndjson").write_text(f"{bad}\n{bad}\r\n")
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(bad.encode()))
    (tmp_path / "c.json").write_text(printed + "\n")
    (tmp_path / "d.json").write_text(f"[\n  {printed},\n  broken\n]")
    raws = {r.place: r.raw for r in read_all(adapter(esp), tmp_path).rejects}
    assert raws == {
        "a.ndjson:1": bad, "a.ndjson:2": bad, "b.ndjson.gz:1": bad, "c.json": printed, "d.json: [0]": printed,
        "d.json: [1]": "broken",
    }  # fmt: skip


def test_a_row_of_csv(tmp_path: Path) -> None:
    lines = ['"m 1",u,never,  22.50', '"m\n2",u,never,"1,5"']
    (tmp_path / "emailOpen_1.csv").write_text("messageId,userId,createdAt,total\n" + "\n".join(lines) + "\n")
    assert [r.raw for r in read_all(adapter("iterable"), tmp_path).rejects] == lines


@pytest.mark.parametrize("esp", ["sfmc", "customerio"])
def test_plain_rows_beside_an_export(esp: str, tmp_path: Path) -> None:
    """They keep their text too, and `--timezone` is that of times without one, as the reject says."""
    line = '{"event_id": "e1",  "user_id":"u","kind":"conversion","occurred_at":"2026-03-02 09:00:00","value":1.50}'
    (tmp_path / "orders.json").write_text(line)
    (reject,) = read_all(adapter(esp), tmp_path).rejects
    assert (reject.reason, reject.raw) == ("naive_time", line)
    (rows,) = (r for r in adapter(esp).read(tmp_path, "+02:00") if len(r))
    assert rows.events[0].occurred_at == clock.parse("2026-03-02T07:00:00Z")
    assert rows.events[0].value == 1_500_000


def test_many_rejects_of_one_body_take_linear_time() -> None:
    bad = BAD["segment"]
    body, rows = b"[" + b",".join([bad] * 20_000) + b"]", Rows()
    start = time.process_time()
    adapter("segment").parse(body, rows, "body", MISSING)
    assert [r.raw for r in rows.rejects] == [bad.decode()] * 20_000
    assert time.process_time() - start < 20  # it took minutes, were each to look through all of it

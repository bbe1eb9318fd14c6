"""Segment: published shapes, documented quirks, and the way through render and parse."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.clock import MISSING, parse
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.base import adapter
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.segment import ADAPTER, NO_SENDS, Segment
from tests.esp_rows import JSON, carried, in_order, parsed, read_all, text_log
from tests.samples import samples

WHEN = "2026-03-01T00:00:00.250Z"
START = parse(WHEN)
HEARD = START + 90_000_001


def track(name: str, properties: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    e: dict[str, Any] = {"type": "track", "event": name, "messageId": "m1", "userId": "u1", "timestamp": WHEN}
    return e | {"properties": properties or {}} | fields


def one(name: str, properties: dict[str, Any] | None = None, adapter: Segment = ADAPTER, **fields: Any) -> Rows:
    rows = parsed(adapter, json.dumps(track(name, properties, **fields)).encode(), HEARD)
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == 1
    return rows


def test_the_registry_knows_it() -> None:
    assert adapter("segment") is ADAPTER
    assert ADAPTER.send_id("d1", "u", "t", "v") == ADAPTER.event_id("d1", "open", "") == "d1"


# ------------------------------------------------------------------------------------------- samples


def test_samples_as_webhooks() -> None:
    found: dict[str, list[tuple[str, str, str, int, str]]] = {}
    skipped: Counter[str] = Counter()
    for path in sorted(samples("segment").rglob("*.json")):
        rows = parsed(ADAPTER, path.read_bytes(), HEARD)
        assert not rows.rejects, path
        assert not rows.sends
        assert not any("@" in str(row) for row in rows.events), "no addresses in rows"
        skipped.update(rows.skipped)
        found[path.stem] = [(e.kind, e.name, e.user_id, e.value, e.currency) for e in rows.events]
    assert skipped == {"identify": 4, "delete": 1}
    none = (MISSING, "")
    spec, order = "019mr8mf4r", "Order Completed"
    song = "Song Played"
    assert {name: rows for name, rows in found.items() if rows} == {
        "batch_request": [("conversion", song, spec, *none), ("conversion", song, "971mj8mk7p", *none)],
        "context_integration_and_campaign_id": [
            ("conversion", "Submitted Preferences", "75720996-3c82-4cc4-b0e5-67bd441fa9f3", *none)
        ],
        "course_clicked_all_four_timestamps": [("conversion", "Course Clicked", "AiUGstSDIg", *none)],
        "email_delivered": [("delivery", "", spec, *none)],
        "email_link_clicked": [("click", "", spec, *none)],
        "email_opened": [("open", "", spec, *none)],
        "email_opened_with_campaign_and_link": [("open", "", "", *none)],
        "engage_journey_event": [("conversion", "<<YOUR CUSTOM EVENT NAME>>", "test-user-67", *none)],
        "function_batch_array": [("conversion", song, spec, *none), ("conversion", song, "971mj8mk7p", *none)],
        "insider_email_open": [("open", "", "anon:c1da3de8-b4b7-4cf2-b496-6a271890ff40", *none)],
        "item_purchased_http_api": [("conversion", "Item Purchased", spec, 14_990_000, "USD")],
        "order_completed_empty_user_id": [
            ("conversion", order, "anon:e6ab2c5e-2cda-44a9-a962-e2f67df78bca", 25_000_000, "USD")
        ],
        "order_completed_epoch_seconds_timestamp": [("conversion", order, "abc123", 12_120_000, "USD")],
        "order_completed_eur_revenue_and_total_disagree": [("conversion", order, "abc123", 5_990_000, "EUR")],
        "order_completed_offset_timestamps_gbp": [("conversion", order, "ruchu123", 31_980_000, "GBP")],
        "order_completed_total_only": [("conversion", order, "user123", 19_000_000, "USD")],
        "order_completed_v1_camel_case": [("conversion", order, spec, 25_000_000, "USD")],
        "order_completed_v2_properties": [("conversion", order, "", 22_500_000, "USD")],
        "order_refunded_v2_properties": [("conversion", order, "", -30_000_000, "USD")],
        "pixel_email_opened_payload": [("open", "", "user_123", *none)],
        "push_notification_bounced": [("bounce", "", spec, *none)],
        "push_notification_received": [("delivery", "", spec, *none)],
        "push_notification_tapped": [("click", "", spec, *none)],
        "raw_log_shape_registered": [("conversion", "Registered", "97980cfea0067", *none)],
        "track_single": [("conversion", "Purchased an Item", spec, 39_950_000, "USD")],
        "unsubscribed": [("unsubscribe", "", spec, *none)],
    }


def test_samples_as_a_folder() -> None:
    """Without a receipt of ours, the examples that were published without any time have to be refused."""
    folder = samples("segment")
    rows = read_all(ADAPTER, folder)
    assert rows.skipped == {"identify": 4, "delete": 1, "file: *.md": 1, "file: *.csv": 1}
    assert Counter(r.reason for r in rows.rejects) == {"bad_time": 16}
    timeless = {p.relative_to(folder).as_posix() for p in folder.rglob("*.json") if b"imestamp" not in p.read_bytes()}
    timeless -= {"webhook/identify_single.json"}
    assert {r.place.partition(":")[0] for r in rows.rejects} == timeless
    assert len(rows.events) == 12
    (offset,) = (e for e in rows.events if e.user_id.startswith("anon:e6ab"))
    assert offset.occurred_at == parse("2020-01-24T06:29:02.402Z")
    assert offset.received_at == parse("2020-01-24T06:29:02.403Z")
    assert offset.event_id == "aa5f5e44-8756-40ad-ad1e-b0d3b9fa710a"
    assert offset.order_id == "50314b8e9bcf000000000000"


# --------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Email Delivered", "delivery"), ("email open ", "open"), ("EMAIL OPENED", "open"), ("Push Opened", "click"),
        ("Email Clicked", "click"), ("Email Group Unsubscribed", "unsubscribe"), ("Email Bounced", "bounce"),
        ("Email Dropped", "drop"), ("Email Marked As Spam", "spam"), ("Email Reported as Spam", "spam"),
        ("Signed Up", "conversion"), ("Completed Order", "conversion"),
    ],
)  # fmt: skip
def test_event_names(name: str, kind: str) -> None:
    (e,) = one(name).events
    assert (e.kind, e.name) == (kind, name.strip() if kind == "conversion" else "")


def test_what_is_passed_over() -> None:
    assert one("Campaign Converted").skipped == {"restated: Campaign Converted": 1}
    assert one("Email Soft Bounced").skipped == {"transient: Email Soft Bounced": 1}
    assert one("Experiment Viewed").skipped == {"Experiment Viewed": 1}
    assert one("x", type="page").skipped == {"page": 1}
    assert one("x", type="audience").skipped == {"type audience": 1}


@pytest.mark.parametrize(
    ("name", "properties", "machine"),
    [
        ("Email Opened", {}, -1), ("Email Opened", {"machine_open": "true"}, 1), ("Email Machine Opened", {}, 1),
        ("Email Opened", {"machine_open": None}, -1), ("Email Opened", {"machine_open": "false"}, 0),
        ("Email Link Clicked", {"is_suspected_bot_click": True}, 1), ("Email Link Clicked", {}, -1),
    ],
)  # fmt: skip
def test_machine_flags(name: str, properties: dict[str, Any], machine: int) -> None:
    assert one(name, properties).events[0].machine == machine


# ------------------------------------------------------------------------------------ sends and users


def test_sends_and_what_names_them() -> None:
    p = {"message_id": "s1", "template_id": "T", "copy_id": "A", "campaign_id": "c"}
    assert one("Email Sent", p).sends == [SendRow("s1", "u1", "T", "A", START, received_at=HEARD)]
    (e,) = one("Email Opened", p).events
    assert (e.send_id, e.template_id, e.variant_id, e.event_id) == ("s1", "", "", "m1")
    assert one("Email Sent", {"tracking_id": 7, "campaign_id": "c", "variation_id": "B"}).sends[0][:4] == (
        "7", "u1", "c", "B",
    )  # fmt: skip
    (send,) = one("Email Sent", {"email_id": "e9", "variantId": "B"}).sends
    assert (send.send_id, send.template_id) == ("m1", "e9")
    (e,) = one("Email Opened", {"email_id": "e9"}).events
    assert (e.send_id, e.template_id) == ("", "e9"), "joined by user and template"


def test_a_shared_dispatch_id_gets_the_user() -> None:
    p = {"dispatch_id": "d", "campaign_id": "c", "message_variation_id": "v", "canvas_step_id": None}
    (send,) = one("Email Sent", p).sends
    assert send[:4] == ("d:u1:v", "u1", "c", "v")
    assert one("Email Opened", p).events[0].send_id == send.send_id
    canvas = {"dispatch_id": "d", "canvas_id": "cv", "canvas_step_id": "s", "canvas_variation_id": "arm"}
    assert one("Email Sent", canvas).sends[0][:4] == ("d:u1:s", "u1", "s", "arm")


@pytest.mark.parametrize(
    ("properties", "context", "variant"),
    [
        ({"copy_id": "A", "variant_id": "B"}, {}, "A"), ({"variation_id": 5}, {}, "5"),
        ({"canvas_variation_id": "arm"}, {"campaign": {"content": "C"}}, "arm"),
        ({}, {"campaign": {"content": "C"}}, "C"), ({"link_url": "https://x.com/?a=1&utm_content=D"}, {}, "D"),
        ({}, {}, ""), ({"copy_id": {}}, [], ""), ({"link_url": "http://[bad?utm_content=x"}, {}, ""),
    ],
)  # fmt: skip
def test_where_the_variant_is(properties: dict[str, Any], context: Any, variant: str) -> None:
    rows = one("Email Sent", {"template_id": "T"} | properties, context=context)
    assert [s.variant_id for s in rows.sends] == [variant] * bool(variant)
    assert [r.reason for r in rows.rejects] == ["missing_field"] * (not variant)


def test_the_variant_may_lie_elsewhere(tmp_path: Path) -> None:
    """`variant_path` looks there first; what has nothing there is looked at in the usual places."""
    esp = adapter("segment", {"variant_path": "properties.experiment.arm"})
    lines = [
        {"type": "track", "event": "Email Sent", "messageId": f"m{i}", "userId": "u1",
         "timestamp": "2026-01-05T00:00:00Z", "receivedAt": "2026-01-05T00:00:01Z",
         "properties": {"template_id": "T", "copy_id": "A", **more}}
        for i, more in enumerate(({"experiment": {"arm": "b"}}, {"experiment": 5}, {}))
    ]  # fmt: skip
    rows = Rows()
    for line in lines:
        esp.parse(json.dumps(line).encode(), rows, "p", HEARD)
    assert [s.variant_id for s in rows.sends] == ["b", "A", "A"]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, lines)))
    assert [s.variant_id for s in read_all(esp, tmp_path).sends] == ["b", "A", "A"]


def test_users() -> None:
    assert one("x", userId=12).events[0].user_id == "12"
    assert one("x", userId="", anonymousId="a1").events[0].user_id == "anon:a1"
    assert one("x", userId=None, user_id="old").events[0].user_id == "old"
    rows = one("x", userId="  ")
    assert rows.events[0].user_id == ""
    assert rows.notes["events_without_user"] == 1
    assert [r.reason for r in one("x", userId=["u"]).rejects] == ["bad_value"]
    assert [r.reason for r in one("Email Sent", {"template_id": "T", "copy_id": "A"}, userId="").rejects] == [
        "missing_field"
    ]


def test_deliveries_as_sends(tmp_path: Path) -> None:
    p = {"message_id": "s1", "template_id": "T", "copy_id": "A"}
    (e,) = one("Email Delivered", p).events
    assert (e.kind, e.send_id) == ("delivery", "s1")
    made = one("Email Delivered", p, Segment(deliveries_as_sends=True))
    assert made.sends == [SendRow("s1", "u1", "T", "A", START, START, received_at=HEARD)]
    (tmp_path / "a.ndjson").write_text("\n".join(json.dumps(track("Email Delivered", p)) for _ in range(3)))
    assert read_all(ADAPTER, tmp_path).notes[NO_SENDS] == 3
    (tmp_path / "b.json").write_text(json.dumps(track("Email Sent", p)))
    assert NO_SENDS not in read_all(ADAPTER, tmp_path).notes
    both = read_all(Segment(deliveries_as_sends=True), tmp_path)
    assert len(both.sends) == 4
    assert not both.events


# ---------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2015-2-02T00:30:12.984Z", "2015-02-02T00:30:12.984Z"),
        ("2024-09-10T14:38:57.524122374Z[GMT]", "2024-09-10T14:38:57.524122Z"),
        ("2024-09-10T14:38:57[Europe/Berlin]", "2024-09-10T12:38:57Z"),
        ("2020-01-24T11:59:02.403+05:30", "2020-01-24T06:29:02.403Z"),
        ("2020-1-4 11:59:02+0530", "2020-01-04T06:29:02Z"),
        ("1631210063", "2021-09-09T17:54:23Z"), (1631210063, "2021-09-09T17:54:23Z"),
        (1631210063.5, "2021-09-09T17:54:23.5Z"), (1631210063123, "2021-09-09T17:54:23.123Z"),
        ("2020-01-24", "2020-01-24T00:00:00Z"), ("2020-01-24T10:00", "2020-01-24T10:00:00Z"),
    ],
)  # fmt: skip
def test_time_formats(written: Any, instant: str) -> None:
    assert one("x", timestamp=written).events[0].occurred_at == parse(instant)


@pytest.mark.parametrize("bad", ["soon", "2015", True, [], {}, "9999-99-99", 1e300, -5, "99999999999999999999999", 12])
def test_an_unreadable_time_falls_back(bad: Any) -> None:
    rows = one("x", timestamp=bad, originalTimestamp=WHEN)
    assert rows.events[0].occurred_at == START
    assert rows.notes["time_unreadable"] == rows.notes["time_from_originalTimestamp"] == 1
    body = json.dumps(track("x", timestamp=bad)).encode()
    (reject,) = parsed(ADAPTER, body).rejects
    assert reject.reason == "bad_time"
    assert parsed(ADAPTER, body, HEARD).notes["time_from_receipt"] == 1


def test_fallbacks_in_their_order() -> None:
    sent, got = "2026-03-01T00:00:05.000Z", "2026-03-01T00:00:09.500Z"
    all_four = {"timestamp": None, "originalTimestamp": WHEN, "sentAt": sent, "receivedAt": got}
    rows = one("x", **all_four)
    assert rows.events[0].occurred_at == parse(got) - (parse(sent) - START)
    assert rows.notes["time_from_formula"] == 1
    order = [("originalTimestamp", START), ("sentAt", parse(sent)), ("receivedAt", parse(got))]
    for i, (name, instant) in enumerate(order):
        rows = one("x", **{**all_four, **{k: None for k, _ in order[:i]}} | ({"receivedAt": None} if i == 0 else {}))
        assert (rows.events[0].occurred_at, rows.notes[f"time_from_{name}"]) == (instant, 1)
    export = parsed(ADAPTER, json.dumps(track("x", receivedAt=got)).encode())
    assert (export.events[0].occurred_at, export.events[0].received_at) == (START, parse(got))


def test_a_time_without_an_offset(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(track("x", timestamp="2026-03-01T12:00:00")))
    rows = read_all(ADAPTER, tmp_path)
    assert rows.events[0].occurred_at == parse("2026-03-01T12:00:00Z")
    assert rows.notes["time_without_offset_read_as_utc"] == 1
    rows = read_all(ADAPTER, tmp_path, "Asia/Kolkata")
    assert rows.events[0].occurred_at == parse("2026-03-01T06:30:00Z")
    with pytest.raises(UsageError, match="Asia/Delhi"):
        read_all(ADAPTER, tmp_path, "Asia/Delhi")


# --------------------------------------------------------------------------------------------- money


@pytest.mark.parametrize(
    ("properties", "value", "source"),
    [
        ({"revenue": 19.99, "total": 30}, 19_990_000, "revenue"), ({"revenue": "39.95"}, 39_950_000, "revenue"),
        ({"revenue": "$55.34"}, 55_340_000, "revenue"), ({"revenue": "1.055,34 €"}, 1_055_340_000, "revenue"),
        ({"revenue": "n/a", "total": "27.50"}, 27_500_000, "total"), ({"value": 1}, 1_000_000, "value"),
        ({"revenue": 0, "total": 5}, 0, "revenue"), ({"revenue": True, "value": "1e1"}, 10_000_000, "value"),
        ({"products": [{"price": 19.99, "quantity": 3}, {"price": "3"}]}, 62_970_000, "products"),
        ({"products": {"price": 3, "quantity": 2}}, 6_000_000, "products"),
        ({"products": [{"price": 3}, {}]}, MISSING, ""), ({"revenue": 1e300}, MISSING, ""), ({}, MISSING, ""),
    ],
)  # fmt: skip
def test_order_values(properties: dict[str, Any], value: int, source: str) -> None:
    rows = one("Order Completed", properties)
    (e,) = rows.events
    assert (e.value, e.currency) == (value, "" if value == MISSING else "USD")
    assert rows.notes == {f"value_from_{source}" if source else "value_missing": 1}
    (refund,) = one("Order Refunded", properties).events
    assert refund.name == "Order Completed"
    assert refund.value == (MISSING if value == MISSING else -value)


def test_other_amounts_and_orders() -> None:
    (e,) = one("Booked", {"revenue": "12.5", "currency": "eur", "order_number": 17}).events
    assert (e.name, e.value, e.currency, e.order_id) == ("Booked", 12_500_000, "EUR", "17")
    (e,) = one("Rated", {"value": "high", "total": 9}).events
    assert (e.value, e.currency) == (MISSING, "")
    assert one("order refunded", {"orderId": "o", "total": 3}).events[0].name == "order completed"


# ------------------------------------------------------------------------------------- bad elements


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (7, "bad_value"), (None, "bad_value"), ([], "bad_value"), ({}, "missing_field"),
        ({"type": "track"}, "missing_field"), ({"type": ["track"], "event": "x"}, "bad_value"),
        (track(" "), "bad_value"), (track("x", event=5), "bad_value"), (track("x", properties=[1]), "bad_value"),
        (track("Order Completed", {"currency": 5}), "bad_value"), (track("Email Sent"), "missing_field"),
    ],
)  # fmt: skip
def test_a_bad_element_loses_no_other(bad: Any, why: str) -> None:
    good = track("Order Completed", {"revenue": 1})
    for body, prefix in (([good, bad, good], ""), ({"batch": [good, bad, good], "sentAt": WHEN}, "batch")):
        rows = parsed(ADAPTER, json.dumps(body).encode(), HEARD)
        assert len(rows.events) == 2
        (reject,) = rows.rejects
        assert (reject.place, reject.reason) == (f"body 1: {prefix}[1]", why)


def test_a_batch_gives_its_calls_what_they_lack() -> None:
    call = track("Email Sent", {"message_id": "s", "template_id": "T"}, timestamp=None, context={"ip": "1.2.3.4"})
    batch = {"batch": [call], "context": {"campaign": {"content": "A"}}, "sentAt": WHEN}
    rows = parsed(ADAPTER, json.dumps(batch).encode(), HEARD)
    assert (rows.sends[0].variant_id, rows.sends[0].sent_at) == ("A", START)


@pytest.mark.parametrize("bad", [b"{'a': 1}", b'{"a": NaN}', b"[" * 3000 + b"]" * 3000, b'{"event'])
def test_an_unreadable_element_loses_no_other(bad: bytes) -> None:
    good = json.dumps(track('],[{"')).encode()
    rows = parsed(ADAPTER, b"[" + good + b"," + good + b"," + bad, HEARD)
    assert len(rows.events) == 2
    assert [(r.place, r.reason) for r in rows.rejects] == [("body 1: [2]", "bad_json")]


@given(st.data())
def test_nothing_in_a_body_is_fatal(data: st.DataObject) -> None:
    names = ["Email Sent", "Email Opened", "Order Completed", "Order Refunded", "x", "Email Link Clicked"]
    keys = ["message_id", "dispatch_id", "template_id", "copy_id", "revenue", "total", "products", "currency",
            "order_id", "machine_open", "link_url", "campaign_id"]  # fmt: skip
    fields = ["timestamp", "originalTimestamp", "sentAt", "receivedAt", "userId", "anonymousId", "context", "messageId"]
    odd = st.fixed_dictionaries(
        {"event": st.sampled_from(names) | JSON},
        optional={"type": st.just("track") | JSON, "properties": JSON | st.dictionaries(st.sampled_from(keys), JSON)}
        | dict.fromkeys(fields, JSON | st.just(WHEN)),
    )
    items = data.draw(st.lists(odd | st.integers(), max_size=4))
    rows = parsed(ADAPTER, json.dumps(items).encode(), data.draw(st.sampled_from([HEARD, MISSING])))
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == len(items)


@given(st.binary(max_size=40) | st.text('[]{},:"\\1e', max_size=30).map(str.encode))
def test_no_bytes_are_fatal(body: bytes) -> None:
    rows = parsed(ADAPTER, body, HEARD)
    assert not len(rows)


# --------------------------------------------------------------------------------------- bulk exports


def lines(n: int, **fields: Any) -> bytes:
    return b"".join(json.dumps(track("x", messageId=f"m{i}", **fields)).encode() + b"\n" for i in range(n))


def test_the_layout_of_raw_logs(tmp_path: Path) -> None:
    day = tmp_path / "segment-logs" / "VhBYQcAjH5" / "1432684800000"
    day.mkdir(parents=True)
    (day / "a.gz").write_bytes(gzip.compress(lines(3)))
    (day / "b").write_bytes(b"\xef\xbb\xbf\n" + lines(2))
    (day / "c.json").write_text(json.dumps([track("y"), track("z")], indent=2))
    (day / "d.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    (tmp_path / "segment-logs" / "dummy-object.txt").write_text("test")
    rows = read_all(ADAPTER, tmp_path)
    assert Counter(e.name for e in rows.events) == {"x": 5, "y": 1, "z": 1}
    assert not rows.rejects
    assert rows.skipped == {"file: *.txt": 1, "file: *.gz": 1}
    assert len(read_all(ADAPTER, day / "a.gz").events) == 3


def test_a_truncated_gzip_keeps_what_was_before(tmp_path: Path) -> None:
    packed = gzip.compress(lines(5_000, noise="".join(map(str, range(40)))))
    (tmp_path / "a.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.gz").write_bytes(packed[:12])
    rows = read_all(ADAPTER, tmp_path)
    assert 0 < len(rows.events) < 5_000
    first, second = rows.rejects
    assert first.reason == second.reason == "truncated_gzip"
    assert (first.place, second.place) == (f"a.gz:{len(rows.events) + 1}", "b.gz:1")


@pytest.mark.parametrize(
    ("start", "reason"),
    [(b"x", "bad_json"), (b"garbage\n", "bad_json"), (b" " * 100 + b"\n", ""), (b"\n" * 70_000, "")],
)
@pytest.mark.parametrize("name", ["a.gz", "1558476000000.1.0a1b.gz"])
def test_a_bad_start_of_a_packed_file_costs_no_other_line(tmp_path: Path, name: str, start: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(start + lines(20)))
    rows = read_all(ADAPTER, tmp_path)
    assert [r.reason for r in rows.rejects] == [reason] * bool(reason)
    assert len(rows.events) == (19 if start == b"x" else 20)
    assert not rows.skipped


@pytest.mark.parametrize("data", [b'x{"type":"track"}', '{"type":"page"}'.encode("utf-16")])
def test_a_packed_file_that_is_nearly_json_is_told_of(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(data))
    (tmp_path / "b.ndjson").write_bytes(lines(1))
    rows = read_all(ADAPTER, tmp_path)
    assert [r.place for r in rows.rejects] == ["a.gz"]


def test_blanks_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b" " * (1 << 23), 9) * 20)
    (tmp_path / "b.ndjson").write_bytes(lines(1))
    rows = read_all(ADAPTER, tmp_path)
    assert "gzip_too_large" in {r.reason for r in rows.rejects}


def test_bad_lines_name_their_place(tmp_path: Path) -> None:
    good = lines(1)
    (tmp_path / "a.ndjson").write_bytes(good + b"\n{broken\n" + good + b'[{"type":"page"},5]\n' + good[:-9])
    rows = read_all(ADAPTER, tmp_path)
    assert len(rows.events) == 2
    assert [(r.place, r.reason) for r in rows.rejects] == [
        ("a.ndjson:3", "bad_json"), ("a.ndjson:5: [1]", "bad_value"), ("a.ndjson:6", "bad_json"),
    ]  # fmt: skip
    (tmp_path / "a.ndjson").write_bytes(b"{broken\n" + good)
    rows = read_all(ADAPTER, tmp_path)
    assert (len(rows.events), [r.place for r in rows.rejects]) == (1, ["a.ndjson:1"])


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justai_sim.esp.rows.BATCH", 100)
    items = [track("Email Sent", {"template_id": "T", "copy_id": "A"}), 5, track("Email Delivered")] * 150
    (tmp_path / "a.json").write_text(json.dumps(items))
    batches = list(ADAPTER.read(tmp_path, None))
    assert [len(b) for b in batches] == [100, 100, 100, 0]
    assert sum(len(b.rejects) for b in batches) == 150
    assert all(NO_SENDS not in b.notes for b in batches)


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "dummy-object.txt").write_text("test")
    with pytest.raises(DataError, match=r"found dummy-object\.txt; expected raw logs"):
        read_all(ADAPTER, tmp_path)


# ----------------------------------------------------------------------------------------- round trip

USERS = ("u1", "u2", "ü:3", "anon:x")
STEPS = ("T1", "T:2", "welcome 3")


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows with everything that Segment's payloads can carry, on its grids of time and money."""
    pick = st.sampled_from
    times = st.integers(0, 10**9).map(lambda ms: START + ms * 1000)
    late = st.integers(0, 3 * 10**9)
    rows = Rows()
    for i in range(draw(st.integers(0, 4))):
        user, step, variant, t = draw(pick(USERS)), draw(pick(STEPS)), draw(pick(("A", "B:1", "control"))), draw(times)
        send = ADAPTER.send_id(f"d{i:06d}", user, step, variant)
        rows.sends.append(SendRow(send, user, step, variant, t, received_at=draw(pick([MISSING, t + draw(late)]))))
    for i in range(draw(st.integers(0, 6))):
        user, t = draw(pick((*USERS, ""))), draw(times)
        kind = draw(pick(["conversion", "open", "click", "unsubscribe", "bounce", "spam", "delivery", "drop"]))
        e = EventRow(f"e{i:06d}", user, kind, t, received_at=t + draw(late))
        named = f"d{draw(st.integers(0, 9)):06d}"
        if kind == "conversion":
            value = draw(st.integers(-(10**8), 10**8).map(lambda c: c * 10_000) | st.just(MISSING))
            e = e._replace(
                name=draw(pick(["purchase", "Order Completed", "order completed", "Signed Up"])), value=value,
                currency=draw(pick(["USD", "EUR"] if value != MISSING else ["USD", ""])),
                order_id=draw(pick(["", "o1"])), send_id=draw(pick(["", named])),
            )  # fmt: skip
        else:
            e = e._replace(**draw(pick([{"send_id": named}, {"template_id": draw(pick(STEPS))}, {}])))
        if kind in ("open", "click"):
            e = e._replace(machine=draw(pick([1, 0, -1])))
        rows.events.append(e)
    return rows


@given(tables())
def test_render_then_parse(rows: Rows) -> None:
    found, expected = carried(ADAPTER, rows), in_order(rows)
    assert [str(s) for s in found.sends] == [str(s) for s in expected.sends]
    assert found.events == expected.events


def test_rendered_times_obey_the_skew_formula() -> None:
    rows = Rows([SendRow("s", "u", "T", "A", START, received_at=HEARD)])
    ((_, body),) = ADAPTER.render(text_log(rows))
    e = json.loads(body)
    skew = parse(e["sentAt"]) - parse(e["originalTimestamp"])
    assert parse(e["receivedAt"]) - skew == parse(e["timestamp"]) == START


def test_a_ghost_send_is_no_send() -> None:
    rows = Rows([SendRow("s", "u", "T", "held", START, status="held_out")])
    ((_, body),) = ADAPTER.render(text_log(rows))
    assert parsed(ADAPTER, body).skipped == {"Campaign Control Group Entered": 1}


def test_switches_for_what_is_told_again_and_for_soft_bounces(tmp_path: Path) -> None:
    """Counted by default, each by a switch of its own; in bodies and in raw logs."""
    names = ("Campaign Converted", "Canvas Converted", "Email Soft Bounced", "Email Deferred")
    lines = [json.dumps({"type": "track", "event": n, "messageId": n, "userId": "u", "timestamp": WHEN,
                         "receivedAt": WHEN, "properties": {"message_id": "m"}}) for n in names]  # fmt: skip
    (tmp_path / "raw.ndjson").write_text("\n".join(lines))
    expected = {
        "restated": [("conversion", "Campaign Converted"), ("conversion", "Canvas Converted")],
        "soft_bounces": [("bounce", "")],
    }
    for switch in ("", *expected):
        esp = adapter("segment", {switch: "yes"} if switch else {})
        live = Rows()
        for line in lines:
            esp.parse(line.encode(), live, "body", START)
        for rows in (live, read_all(esp, tmp_path)):
            got = [(e.kind, e.name) for e in rows.events]
            assert got == expected.get(switch, [])
            assert sum(rows.skipped.values()) == len(names) - len(got)


def test_anonymous_users_are_joined_where_asked(tmp_path: Path) -> None:
    """A purchase before the log-in belongs to who logs in later, in another file; a shared device to nobody."""

    def call(kind: str, **ids: str) -> dict[str, Any]:
        return {"type": kind, "event": "Bought", "messageId": f"{kind}{ids}", "timestamp": WHEN, "properties": {}} | ids

    calls = [
        [call("track", anonymousId="a1"), call("track", anonymousId="a2"), call("track", anonymousId="a3"),
         call("track", anonymousId="a4"), {"batch": [call("track", anonymousId="a5")]}],
        [call("identify", anonymousId="a1", userId="u1"), call("alias", previousId="a2", userId="u2"),
         call("page", anonymousId="a3", userId="u3"), call("track", anonymousId="a3", userId="u4"),
         {"batch": [call("identify", anonymousId="a5", userId="u5")]}, call("identify", anonymousId="", userId="u6")],
    ]  # fmt: skip
    for i, found in enumerate(calls):
        (tmp_path / f"{i}.ndjson").write_text("\n".join(map(json.dumps, found)))
    users = ["anon:a1", "anon:a2", "anon:a3", "anon:a4", "anon:a5", "u4"]
    for switch, expected in (("no", users), ("yes", ["u1", "u2", "anon:a3", "anon:a4", "u5", "u4"])):
        rows = read_all(adapter("segment", {"join_anonymous": switch}), tmp_path)
        assert [e.user_id for e in rows.events] == expected
        assert rows.notes["events_of_anonymous_users"] == sum(u.startswith("anon:") for u in expected)
        assert rows.notes["anonymous_joined"] == (3 if switch == "yes" else 0)


@pytest.mark.parametrize(
    ("link", "variant"),
    [
        ("https://x.example/?copy_id=warm", "warm"), ("https://x.example/?a=1&variantId=b&utm_content=c", "b"),
        ("https://x.example/?utm_content=c", "c"),
        ("https://x.example/copy_id=warm", ""), ("https://[x/?copy_id=w", ""),
    ],
)  # fmt: skip
def test_the_variant_among_the_parameters_of_the_link(link: str, variant: str) -> None:
    body = track("Email Sent", userId="u", properties={"message_id": "s", "template_id": "t", "link_url": link})
    rows = Rows()
    ADAPTER.parse(json.dumps(body).encode(), rows, "body", MISSING)
    assert [s.variant_id for s in rows.sends] == [variant] * bool(variant)
    assert len(rows.rejects) == (not variant)


def test_a_visit_to_the_preference_page_is_no_conversion() -> None:
    rows = Rows()
    ADAPTER.parse(json.dumps(track("Hosted Unsubscribe Click", userId="u")).encode(), rows, "body", MISSING)
    assert (len(rows), rows.skipped) == (0, {"Hosted Unsubscribe Click": 1})


def test_what_was_looked_for_is_told_where_ids_are_hashed() -> None:
    """The mask of `--hash-users` covers what was found; the names of our fields stand before it."""
    rows = Rows()
    ADAPTER.parse(json.dumps(track("Email Sent", userId="u", properties={"message_id": "s"})).encode(), rows, "b", 1)
    (reject,) = rows.rejects
    assert "template_id" in reject.message.split("found")[0]

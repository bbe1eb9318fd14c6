"""Iterable: webhooks and exports, documented quirks, and the way through render and parse."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.cli import run
from justai_sim.clock import MISSING, parse
from justai_sim.errors import DataError
from justai_sim.esp.base import adapter
from justai_sim.esp.coding import rows_of
from justai_sim.esp.iterable import ADAPTER, ATTRIBUTED, CONNECTOR, CONNECTOR_ROW, UNTYPED, UNTYPED_ROW, IterableEsp
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.log import load, read_log
from tests.esp_rows import JSON, carried, in_order, parsed, read_all
from tests.samples import samples

CREATED = "2026-03-01 00:00:00 +00:00"
START = parse("2026-03-01T00:00:00Z")
HEARD = START + 90_000_001
SENT = {"campaignId": 11, "templateId": 22, "messageId": "m1"}


def hook(name: Any, fields: Any = None, **top: Any) -> dict[str, Any]:
    own = {"createdAt": CREATED} | fields if isinstance(fields, dict) else fields
    return {"userId": "u1", "eventName": name, "dataFields": own} | top


def one(name: str, fields: Any = None, adapter: IterableEsp = ADAPTER, **top: Any) -> Rows:
    rows = parsed(adapter, json.dumps(hook(name, {} if fields is None else fields, **top)).encode(), HEARD)
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == 1
    return rows


def test_the_registry_knows_it() -> None:
    assert adapter("iterable") is ADAPTER
    assert ADAPTER.send_id("d1", "u", "t", "v") == ADAPTER.event_id("d1", "open", "") == "d1"


# ------------------------------------------------------------------------------------------- samples

TYPED = {
    "export_csv_emailSend_20171024184047": {"missing_field": 23},  # exported with onlyFields: neither user nor message
    "export_json_malformed": {"bad_json": 23},
    "webhooks_malformed": {"missing_field": 2},
}
FOUND: dict[str, tuple[int, dict[str, int]]] = {
    "event_data": (0, {}),
    "event_extension_data": (0, {}),
    "export_csv_emailSend_20171024184047": (0, {}),
    "export_csv_emailSend_handwritten": (2, {}),
    "export_json_customEvent_handwritten": (0, {"conversion": 1}),
    "export_json_emailClick": (0, {"click": 4}),
    "export_json_emailSubscribe": (0, {}),
    "export_json_emailUnSubscribe": (0, {}),
    "export_json_malformed": (0, {}),
    "export_json_purchase_handwritten": (0, {"conversion": 2}),
    "user_events_timeline": (1, {"open": 10, "click": 6}),
    "webhooks_handwritten": (1, {"open": 2, "click": 2, "unsubscribe": 1}),
    "webhooks_malformed": (0, {}),
    "webhooks_rudder": (5, {"click": 2, "open": 2, "spam": 1, "unsubscribe": 1, "bounce": 1}),
}


def test_samples_file_by_file() -> None:
    found = {}
    for path in sorted(samples("iterable").rglob("*")):
        if path.suffix not in (".csv", ".jsonl"):
            continue
        rows = read_all(ADAPTER, path)
        assert Counter(r.reason for r in rows.rejects) == TYPED.get(path.stem, {}), path
        lines = len(path.read_bytes().splitlines()) - (path.suffix == ".csv")
        if path.parent.name != "fivetran_layout":
            assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == lines
        found[path.stem] = (len(rows.sends), dict(Counter(e.kind for e in rows.events)))
    assert found == FOUND


def test_samples_as_a_folder(tmp_path: Path) -> None:
    rows = read_all(ADAPTER, samples("iterable"))
    assert rows.skipped[CONNECTOR] == 2
    assert rows.skipped["emailUnSubscribe: Import"] == 3
    assert rows.skipped["emailUnSubscribe: Complaint"] == 1
    late = [e for e in rows.events if e.received_at - e.occurred_at > 300_000_000]
    assert len(late) == 3, "arrival is when Iterable stored the row"
    load(samples("iterable"), "iterable", tmp_path / "log")
    log = rows_of(read_log(tmp_path / "log"))
    assert not any("@" in str(row) for row in (*log.sends, *log.events)), "no addresses in rows"


# --------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("emailOpen", "open"), ("emailClick", "click"), ("emailBounce", "bounce"), ("emailComplaint", "spam"),
        ("emailUnSubscribe", "unsubscribe"), ("emailUnsubscribe", "unsubscribe"), ("inAppDelivery", "delivery"),
        ("smsClick", "click"), ("pushOpen", "open"), ("whatsAppSeen", "open"), ("purchase", "conversion"),
        ("trial_started", "conversion"), ("Emailed us", "conversion"),
    ],
)  # fmt: skip
def test_event_names(name: str, kind: str) -> None:
    (e,) = one(name, {"messageId": "m1"}).events
    assert (e.kind, e.name) == (kind, name if kind == "conversion" else "")
    assert e.send_id == ("" if kind == "conversion" else "m1")


@pytest.mark.parametrize(
    "name", ["emailSendSkip", "hostedUnsubscribeClick", "emailSubscribe", "emailTeleported", "smsUsageInfo"]
)
def test_what_is_counted_and_passed_over(name: str) -> None:
    assert one(name, SENT).skipped == {name: 1}


def test_custom_events_may_have_any_name() -> None:
    for name in ("Signed up", "emailOpen", "customEvent"):
        (e,) = one("customEvent", {"eventName": name, "orderId": 7, "value": "12.5", "currency": "eur"}).events
        assert (e.kind, e.name, e.order_id, e.value, e.currency) == ("conversion", name, "7", 12_500_000, "EUR")
    flat = {"eventName": "Signed up", "email": "Ann@X.org", "createdAt": CREATED, "id": "a product"}
    (e,) = parsed(ADAPTER, json.dumps(flat).encode(), HEARD).events
    assert (e.user_id, e.name, e.occurred_at, e.order_id) == ("ann@x.org", "Signed up", START, "")


@pytest.mark.parametrize(
    ("source", "skipped"),
    [("EmailLink", False), ("OneClick", False), (None, False), ("HardBounce", True), ("Complaint", True),
     ("Import", True), ("ListAPI", True), ("Api", True)],
)  # fmt: skip
def test_unsubscribes_that_nobody_clicked(source: str | None, skipped: bool) -> None:
    fields = {"unsubSource": source, "messageId": "m1"}
    rows = one("emailUnSubscribe", fields)
    assert rows.skipped == ({f"emailUnSubscribe: {source}": 1} if skipped else {})
    assert [e.kind for e in rows.events] == ["unsubscribe"] * (not skipped)
    assert len(one("emailUnSubscribe", fields, IterableEsp(all_unsubscribes=True)).events) == 1


def test_soft_bounces() -> None:
    assert one("emailBounce", {**SENT, "recipientState": "HardBounce"}).events[0].kind == "bounce"
    soft = {**SENT, "recipientState": "SoftBounce"}
    assert one("emailBounce", soft).skipped == {"transient: emailBounce SoftBounce": 1}
    assert one("emailBounce", soft, IterableEsp(soft_bounces=True)).events[0].kind == "bounce"


@pytest.mark.parametrize(
    ("name", "fields", "machine"),
    [
        ("emailOpen", {}, -1), ("emailOpen", {"isBot": True}, 1), ("emailOpen", {"isBot": "false"}, 0),
        ("emailOpen", {"proxySource": "Apple"}, 1), ("emailOpen", {"proxySource": "Apple", "isBot": False}, 1),
        ("emailOpen", {"proxySource": "Gmail"}, -1), ("emailClick", {"isBot": True}, 1), ("emailClick", {}, -1),
        ("emailClick", {"isBot": None, "proxySource": "Apple"}, -1), ("emailUnSubscribe", {"isBot": True}, -1),
    ],
)  # fmt: skip
def test_machine_flags(name: str, fields: dict[str, Any], machine: int) -> None:
    assert one(name, fields | {"messageId": "m"}).events[0].machine == machine


# ------------------------------------------------------------------------------- sends, variants, users


@pytest.mark.parametrize(
    ("fields", "variant"),
    [
        ({"transactionalData": {"copy_id": "A"}, "copy_id": "B"}, "A"),
        ({"transactionalData": '{"copy_id": "A"}'}, "A"), ({"transactionalData": "{broken", "copy_id": "B"}, "B"),
        ({"transactionalData": None, "copyId": 5}, "5"), ({"url": "https://x.com/?a=1&copy_id=C"}, "C"),
        ({"url": "https://x.com/", "linkUrl": "http://[bad?copy_id=x"}, "22"), ({"transactionalData": [1]}, "22"),
        ({"templateId": None, "emailId": "c11:t33:ann@x.org"}, "33"), ({}, "22"),
    ],
)  # fmt: skip
def test_where_the_variant_is(fields: dict[str, Any], variant: str) -> None:
    (send,) = one("emailSend", SENT | fields).sends
    assert send == SendRow("m1", "u1", "11", variant, START, received_at=HEARD)


def test_the_order_of_the_places_can_be_chosen() -> None:
    fields = SENT | {"transactionalData": {"arm": "A"}, "arm": "B"}
    esp = IterableEsp(
        variant_from=("dataFields", "transactionalData"), copy_keys=("arm",), template_from=("templateId",)
    )
    (send,) = one("emailSend", fields, esp).sends
    assert (send.template_id, send.variant_id) == ("22", "B")
    assert [r.reason for r in one("emailSend", SENT, esp).rejects] == ["missing_field"]


def test_users() -> None:
    assert one("emailOpen", {"userId": "d"}, userId="t").events[0].user_id == "t"
    assert one("emailOpen", {"userId": 7, "email": "a@x.org"}, userId=None).events[0].user_id == "7"
    rows = one("emailOpen", {"email": "other@x.org"}, userId="", email=" Ann@X.org")
    assert (rows.events[0].user_id, rows.notes["users_known_by_address"]) == ("ann@x.org", 1)
    assert one("emailOpen", SENT, userId=None).events[0].user_id == ""
    for name, fields in (("emailOpen", {}), ("emailSend", SENT), ("purchase", SENT)):
        assert [r.reason for r in one(name, fields, userId=["u"]).rejects] == ["missing_field"]


def test_messages_without_their_id() -> None:
    (e,) = one("pushOpen", SENT | {"messageId": None}).events
    assert (e.send_id, e.template_id, e.variant_id) == ("", "11", "")
    rows = one("smsSend", SENT | {"messageId": ""})
    assert rows.notes["sends_without_messageId"] == 1
    assert rows.sends[0].send_id == one("smsSend", {"campaignId": "11", "templateId": "22"}).sends[0].send_id != ""
    assert rows.sends[0].send_id != one("smsSend", {"campaignId": "11", "templateId": "2"}).sends[0].send_id


def test_event_ids() -> None:
    assert one("emailOpen", SENT | {"esDocumentId": "doc"}).events[0].event_id == "doc"
    click = SENT | {"url": "https://x.com/", "hrefIndex": 1, "ip": "192.0.2.1"}
    key = one("emailClick", click).events[0].event_id
    assert key.startswith("key:")
    as_iso = click | {"createdAt": "2026-03-01T00:00:00+00:00", "city": "Bonn"}
    assert one("emailClick", as_iso).events[0].event_id == key
    for change in ({"url": "https://x.com/b"}, {"hrefIndex": 2}, {"ip": "192.0.2.2"}, {"messageId": "m2"},
                   {"createdAt": "2026-03-01 00:00:01 +00:00"}, {"userAgent": "x"}):  # fmt: skip
        assert one("emailClick", click | change).events[0].event_id != key


# --------------------------------------------------------------------------------------- time and money


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2016-12-02 20:21:04 +00:00", "2016-12-02T20:21:04Z"), ("2016-12-02T20:21:04+01:00", "2016-12-02T19:21:04Z"),
        ("2016-12-02T20:21:04Z", "2016-12-02T20:21:04Z"), (1480710064, "2016-12-02T20:21:04Z"),
        ("2016-12-02 20:21:04", "2016-12-02T20:21:04Z"),
    ],
)  # fmt: skip
def test_time_formats(written: Any, instant: str) -> None:
    assert one("emailOpen", SENT | {"createdAt": written}).events[0].occurred_at == parse(instant)


def test_times_that_are_missing_or_wrong() -> None:
    for bad in ("soon", [], True, 12, "9999-99-99 00:00:00 +00:00"):
        assert [r.reason for r in one("emailOpen", SENT | {"createdAt": bad}).rejects] == ["bad_time"]
    rows = one("emailOpen", SENT | {"createdAt": None})
    assert (rows.events[0].occurred_at, rows.notes["time_from_receipt"]) == (HEARD, 1)
    body = json.dumps(hook("emailOpen", SENT | {"createdAt": None})).encode()
    assert [r.reason for r in parsed(ADAPTER, body).rejects] == ["bad_time"]


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"total": 54.9}, 54_900_000), ({"total": "-3"}, -3_000_000), ({"total": 0, "shoppingCartItems": []}, 0),
        ({"shoppingCartItems": [{"price": 2.5, "quantity": 2}, {"price": 1}]}, 6_000_000),
        ({"shoppingCartItems": '[{"price": 2.5}]'}, 2_500_000), ({"shoppingCartItems": "[{"}, MISSING),
        ({"shoppingCartItems": [{"price": 2.5}, 7]}, MISSING), ({}, MISSING),
    ],
)  # fmt: skip
def test_purchases(fields: dict[str, Any], value: int) -> None:
    rows = one("purchase", fields | {"id": "o1", "campaignId": 11, "messageId": "m1"})
    (e,) = rows.events
    assert e == EventRow("purchase/o1", "u1", "conversion", START, "purchase", HEARD, value, order_id="o1")
    assert rows.notes[ATTRIBUTED] == 1, "Iterable's own attribution is a hint only"
    assert one("purchase", {"campaignId": 11}, IterableEsp(attributed=True)).events[0].template_id == "11"
    again = one("purchase", {"total": 1}).events[0].event_id
    assert again == one("purchase", {"total": 1}).events[0].event_id != one("purchase", {"total": 2}).events[0].event_id


# ------------------------------------------------------------------------------------- bad elements


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (7, "bad_value"), (None, "bad_value"), ({}, "missing_field"), (hook("emailSendSkip"), "missing_field"),
        (hook(["x"], {}), "bad_value"), (hook(" ", {}), "bad_value"), (hook("x", [1]), "bad_value"),
        (hook("emailOpen", 5), "bad_value"), (hook("customEvent", {}), "missing_field"),
        (hook("emailSend", {"messageId": "m"}), "missing_field"), ({"_type": "emailOpen", "data": 1}, "bad_value"),
    ],
)  # fmt: skip
def test_a_bad_element_loses_no_other(bad: Any, why: str) -> None:
    good = hook("purchase", {"total": 1})
    rows = parsed(ADAPTER, json.dumps([good, bad, good]).encode(), HEARD)
    assert len(rows.events) == 2
    assert [(r.place, r.reason) for r in rows.rejects] == [("body 1: [1]", why)]


@given(st.data())
def test_nothing_in_a_body_is_fatal(data: st.DataObject) -> None:
    names = ["emailSend", "emailOpen", "emailClick", "emailUnSubscribe", "emailBounce", "purchase", "customEvent", "x"]
    keys = ["messageId", "campaignId", "templateId", "emailId", "copy_id", "transactionalData", "url", "total", "id",
            "shoppingCartItems", "currency", "isBot", "proxySource", "unsubSource", "userId", "email", "eventName",
            "createdAt", "esDocumentId", "itblInternal"]  # fmt: skip
    fields = JSON | st.dictionaries(st.sampled_from(keys), JSON | st.just(CREATED))
    tops = dict.fromkeys(["userId", "email", "createdAt", "itblInternal"], JSON | st.just(CREATED))
    odd = st.fixed_dictionaries(
        {"eventName": st.sampled_from(names) | JSON},
        optional={"_type": st.sampled_from(names), "dataFields": fields, "data": fields} | tops,
    )
    items = data.draw(st.lists(odd | st.integers(), max_size=4))
    rows = parsed(ADAPTER, json.dumps(items).encode(), data.draw(st.sampled_from([HEARD, MISSING])))
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == len(items)


@given(st.binary(max_size=40) | st.text('[]{},:"\\1e', max_size=30).map(str.encode))
def test_no_bytes_are_fatal(body: bytes) -> None:
    rows = parsed(ADAPTER, body, HEARD)
    assert not len(rows)


# --------------------------------------------------------------------------------------- bulk exports


def test_exports_by_data_type(tmp_path: Path) -> None:
    """Rows do not name their type: the file's name, a folder, or the request in the name does. Nothing is sorted."""
    row = {
        "createdAt": CREATED,
        "email": "ann@x.org",
        "itblInternal": {"documentCreatedAt": "2026-03-01 00:05:00 +00:00"},
    }
    (tmp_path / "export_json_emailClick.jsonl").write_text(json.dumps(row | SENT | {"url": "https://x.com/"}))
    later = row | {"createdAt": "2026-03-02 00:00:00 +00:00"}
    sends = [later | SENT | {"transactionalData": '{"copy_id": "A"}'}, row | SENT | {"messageId": "m2"}]
    (tmp_path / "emailSend").mkdir()
    (tmp_path / "emailSend" / "file-1.json.gz").write_bytes(
        gzip.compress("\n".join(json.dumps(s) for s in sends).encode())
    )
    (tmp_path / "data.json?dataTypeName=purchase&range=All.json").write_text(json.dumps(row | {"total": 5}))
    (tmp_path / "customEvent_20260301000000.json").write_text(json.dumps(row | {"eventName": "Trial"}))
    (tmp_path / "user_20260301000000.csv").write_text("createdAt,email\n" + CREATED + ",ann@x.org\n")
    timeline = [{"_type": "emailOpen", "createdAt": CREATED, "email": "ann@x.org", "data": SENT}]
    timeline.append({"_type": "Trial", "createdAt": CREATED, "email": "ann@x.org", "data": {}})
    (tmp_path / "user_events.json").write_text("\n".join(json.dumps(t) for t in timeline))
    (tmp_path / "hooks.ndjson").write_text(json.dumps(hook("emailComplaint", SENT)))
    (tmp_path / "notes.txt").write_text("x")
    rows = read_all(ADAPTER, tmp_path)
    assert not rows.rejects
    assert [(s.send_id, s.variant_id, s.sent_at) for s in rows.sends] == [
        ("m1", "A", parse("2026-03-02T00:00:00Z")), ("m2", "22", START),
    ]  # fmt: skip
    names = Counter((e.kind, e.name) for e in rows.events)
    assert names == {
        ("click", ""): 1, ("conversion", "purchase"): 1, ("conversion", "Trial"): 2, ("open", ""): 1, ("spam", ""): 1,
    }  # fmt: skip
    assert {e.received_at for e in rows.events if e.kind == "click"} == {parse("2026-03-01T00:05:00Z")}
    assert rows.skipped == {"user": 1, "file: *.txt": 1}
    for path in (tmp_path / "emailSend", tmp_path / "emailSend" / "file-1.json.gz"):
        assert len(read_all(ADAPTER, path).sends) == 2


def test_csv(tmp_path: Path) -> None:
    header = "createdAt,email,userId,campaignId,templateId,messageId,transactionalData,itblInternal\n"
    stored = '"{""documentCreatedAt"":""2026-03-01 00:00:09 +00:00""}"'
    good = f'"{CREATED}",ann@x.org,,11,22,m1,"{{""copy_id"": ""A""}}",{stored}\n'
    bad = "2026-03-01,short\n" + f"{CREATED},\udcff,u1,11,22,m2,,\n" + "soon,,u1,11,22,m3,,\n"
    text = header + good + bad + f"{CREATED},,u2,11,22,m4,,"
    (tmp_path / "emailSend_20260301000000.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    rows = read_all(ADAPTER, tmp_path)
    assert rows.sends == [
        SendRow("m1", "ann@x.org", "11", "A", START, received_at=parse("2026-03-01T00:00:09Z")),
        SendRow("m4", "u2", "11", "22", START),
    ]
    place = "emailSend_20260301000000.csv"
    assert [(r.place, r.reason) for r in rows.rejects] == [
        (f"{place}:3", "field_count"), (f"{place}:4", "bad_encoding"), (f"{place}:5", "bad_time"),
    ]  # fmt: skip


def test_files_that_are_no_exports(tmp_path: Path) -> None:
    (tmp_path / "file-1.csv").write_text("createdAt,email\n" + CREATED + ",ann@x.org\n")
    own = [{"createdAt": CREATED, "email": "ann@x.org"}, {"_fivetran_id": 1}, hook("emailOpen", SENT)]
    (tmp_path / "file-2.json").write_text("\n".join(json.dumps(o) for o in own))
    (tmp_path / "event.csv").write_text("_fivetran_id,email,event_name\n1,ann@x.org,emailOpen\n")
    (tmp_path / "emailSend.csv.gz").write_bytes(gzip.compress(b"createdAt,userId\n" * 9)[:14])
    rows = read_all(ADAPTER, tmp_path)
    assert rows.skipped == {UNTYPED: 1, CONNECTOR: 1, UNTYPED_ROW: 1, CONNECTOR_ROW: 1}
    assert len(rows.events) == 1
    assert [r.reason for r in rows.rejects] == ["truncated_gzip"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"found a\.txt; expected exports"):
        read_all(ADAPTER, tmp_path / "only")


def test_lines_that_are_not_json_are_told_one_by_one(tmp_path: Path) -> None:
    line = '{"createdAt":"x","a":"{}""b":1}\n'
    (tmp_path / "emailOpen.jsonl").write_text(line * 3)
    rows = read_all(ADAPTER, tmp_path)
    assert [(r.place, r.reason) for r in rows.rejects] == [(f"emailOpen.jsonl:{i}", "bad_json") for i in (1, 2, 3)]
    (tmp_path / "emailOpen.jsonl").write_text(json.dumps(hook("emailOpen", SENT), indent=2))
    assert len(read_all(ADAPTER, tmp_path).events) == 1


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justai_sim.esp.rows.BATCH", 100)
    (tmp_path / "emailOpen.csv").write_text("createdAt,userId,messageId\n" + f"{CREATED},u,m\n" * 250)
    (tmp_path / "purchase.json").write_text((json.dumps({"createdAt": CREATED, "userId": "u"}) + "\n") * 250)
    assert [len(b) for b in ADAPTER.read(tmp_path, None)] == [100, 100, 100, 100, 100, 0]


def test_the_guides_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export").mkdir()
    guide = (Path(__file__).parents[1] / "docs" / "esp" / "iterable.md").read_text()
    for name, text in re.findall(r"cat > (\S+) <<'END'\n(.*?)END\n", guide, re.S):
        (tmp_path / name).write_text(text)
    for command in re.findall(r"^justai-sim (.*)", guide, re.M):
        assert run(shlex.split(command)) == 0
    log = rows_of(read_log(tmp_path / "log"))
    assert {(s.user_id, s.template_id, s.variant_id) for s in log.sends} == {
        ("u-1", "501", "warm"), ("u-2", "501", "plain"),
    }  # fmt: skip
    assert [e.value for e in log.events] == [24_500_000]
    assert not log.rejects


# ----------------------------------------------------------------------------------------- round trip

USERS = ("u1", "ü:3", "Ann@X.org", "ann@x.org", " b@x.org")
CAMPAIGNS = ("T1", "T:2", "welcome 3", "17")


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows with everything that Iterable's payloads can carry, on its grids of time and money."""
    pick = st.sampled_from
    times = st.integers(0, 10**6).map(lambda s: START + s * 1_000_000)
    late = st.integers(0, 3 * 10**9)
    rows = Rows()
    for i in range(draw(st.integers(0, 5))):
        user, campaign, variant, t = (
            draw(pick(USERS)),
            draw(pick(CAMPAIGNS)),
            draw(pick(("A", "B:1", "9"))),
            draw(times),
        )
        send = ADAPTER.send_id(f"d{i:06d}", user, campaign, variant)
        rows.sends.append(SendRow(send, user, campaign, variant, t, received_at=draw(pick([MISSING, t + draw(late)]))))
    for i in range(draw(st.integers(0, 6))):
        kind = draw(pick(["conversion", "open", "click", "unsubscribe", "bounce", "spam", "delivery"]))
        user, t = draw(pick(USERS)), draw(times)
        e = EventRow(f"e{i:06d}", user, kind, t, received_at=t + draw(late))
        named = f"d{draw(st.integers(0, 9)):06d}"
        if kind == "conversion":
            value = draw(st.integers(-(10**8), 10**8).map(lambda c: c * 10_000) | st.just(MISSING))
            e = e._replace(
                name=draw(pick(["purchase", "Signed up", "emailOpen", "customEvent"])), value=value,
                currency=draw(pick(["USD", ""])), order_id=draw(pick(["", "o1"])),
            )  # fmt: skip
        else:
            e = e._replace(**draw(pick([{"send_id": named}, {"send_id": named, "user_id": ""},
                                        {"template_id": draw(pick(CAMPAIGNS))}, {}])))  # fmt: skip
        if kind in ("open", "click"):
            e = e._replace(machine=draw(pick([1, 0, -1])))
        rows.events.append(e)
    return rows


@given(tables())
def test_render_then_parse(rows: Rows) -> None:
    found, expected = carried(ADAPTER, rows), in_order(rows)
    assert [str(s) for s in found.sends] == [str(s) for s in expected.sends]
    assert found.events == expected.events


@given(tables())
def test_control_and_treatment_differ_by_template_too(rows: Rows) -> None:
    """The variant is told twice, so a reader that takes `templateId` reads the same."""
    found = carried(IterableEsp(variant_from=("templateId",)), rows)
    assert [str(s) for s in found.sends] == [str(s) for s in in_order(rows).sends]


def test_what_was_never_sent_is_no_send() -> None:
    from tests.esp_rows import text_log

    held = Rows([SendRow("s", "u", "T", "held", START, status="held_out")], [EventRow("e", "u", "drop", START)])
    for _, body in ADAPTER.render(text_log(held)):
        assert parsed(ADAPTER, body).skipped == {"emailSendSkip": 1}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_in_utf16(tmp_path: Path, encoding: str, packed: bool) -> None:
    """By its byte order mark, as a spreadsheet writes it; what is damaged costs its row, and no other file."""
    lines = [f"m{i},u\u00e9{i},2026-03-01 00:00:00 +00:00" for i in range(30_000)]
    text = "\r\n".join(["messageId,userId,createdAt", *lines, "m,u,never", ""])
    data = ("\ufeff" + text).encode(encoding)
    data = gzip.compress(data) if packed else data
    (tmp_path / ("emailOpen_1.csv" + ".gz" * packed)).write_bytes(data)
    (tmp_path / "emailClick_1.csv").write_text("messageId,userId,createdAt\nm,u,2026-03-01 00:00:00 +00:00\n")
    rows = read_all(ADAPTER, tmp_path)
    assert [e.user_id for e in rows.events if e.kind == "open"] == [f"u\u00e9{i}" for i in range(30_000)]
    assert [e.kind for e in rows.events].count("click") == 1
    (bad,) = rows.rejects
    assert (bad.reason, bad.raw, bad.place.rsplit(":")[-1]) == ("bad_time", "m,u,never", "30002")

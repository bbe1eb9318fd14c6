"""Braze: published shapes, documented quirks, and the way through render and parse."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.clock import MISSING, SECOND, parse
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.base import adapter
from justai_sim.esp.braze import ADAPTER
from justai_sim.esp.rows import EventRow, Rows, SendRow
from tests.esp_rows import JSON, carried, in_order, parsed, read_all, text_log
from tests.samples import samples

START = parse("2026-03-01T00:00:00Z")
HEARD = START + 90 * SECOND + 1


def event(kind: str, properties: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    e: dict[str, Any] = {"event_type": f"users.{kind}", "id": "e1", "time": START // SECOND}
    e |= {"user": {"user_id": "b1", "external_user_id": "u1"}, "properties": properties or {}}
    return e | fields


def body(*events: Any) -> bytes:
    return json.dumps({"events": list(events)}).encode()


def one(kind: str, properties: dict[str, Any] | None = None, **fields: Any) -> Rows:
    rows = parsed(ADAPTER, body(event(kind, properties, **fields)), HEARD)
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == 1
    return rows


def reason(rows: Rows) -> str:
    assert not len(rows)
    (reject,) = rows.rejects
    return reject.reason


CAMPAIGN = {"campaign_id": "c1", "message_variation_id": "v1", "dispatch_id": "d1"}
CANVAS = {"canvas_id": "cv", "canvas_variation_id": "arm", "canvas_step_id": "s1", "dispatch_id": "d1"}


def test_the_registry_knows_it() -> None:
    assert adapter("braze") is ADAPTER
    assert ADAPTER.send_id("d1", "u1", "s1", "any") == "d1:u1:s1"
    assert ADAPTER.event_id("e1", "conversion", "purchase") == "e1/users.behaviors.Purchase"
    assert ADAPTER.event_id("e1", "conversion", "signup") == "e1/users.behaviors.CustomEvent"
    assert ADAPTER.event_id("e1", "drop", "") == "e1/users.messages.email.Bounce"


# ------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("generation", ["2019-08-28", "2020-02-19", "2021-06-17_id_and_api_id", "2023-03-28"])
def test_older_avro_samples(generation: str) -> None:
    folder = samples("braze") / "avro" / generation
    rows = read_all(ADAPTER, folder)
    assert not rows.rejects
    assert len(rows) + sum(rows.skipped.values()) == 6 * len(list(folder.glob("*.avro")))
    assert {s.template_id for s in rows.sends} == {"43b026c48bbf33feff9243a8"}
    variants = {s.variant_id for s in rows.sends if "email" not in s.send_id}
    expected = {f"welcome-v{i}" for i in (1, 2, 3)} if generation == "2023-03-28" else set()
    assert variants == expected or len(variants) == 3
    named = {e.send_id for e in rows.events if e.send_id}
    assert named == {s.send_id for s in rows.sends}
    assert all(key.startswith(("restated: ", "transient: ", "users.")) for key in rows.skipped)


def test_the_newest_avro_samples() -> None:
    rows = read_all(ADAPTER, samples("braze") / "avro" / "2026-06-29")
    assert not rows.rejects
    assert set(rows.notes) == {"rows_of_unidentified_users"}
    assert len(rows.sends) == 5 * 6
    assert {s.variant_id for s in rows.sends} == {"welcome-v1", "welcome-v2", "welcome-v3"}
    assert Counter((e.kind, e.name) for e in rows.events) == {
        ("conversion", "purchase"): 6, ("conversion", "trial_started"): 6,
        ("open", ""): 18, ("click", ""): 30, ("delivery", ""): 12, ("bounce", ""): 24, ("unsubscribe", ""): 6,
        ("spam", ""): 6,
    }  # fmt: skip
    skipped = {
        "restated: users.behaviors.subscription.GlobalStateChange",
        "restated: users.behaviors.subscriptiongroup.StateChange",
        "restated: users.campaigns.Conversion", "restated: users.canvas.Conversion",
        "restated: users.canvas.experimentstep.Conversion",
        "transient: users.messages.email.Abort", "transient: users.messages.email.Deferral",
        "transient: users.messages.email.Retry", "transient: users.messages.email.SoftBounce",
        "users.RandomBucketNumberUpdate", "users.UserDeleteRequest", "users.UserOrphan",
        "users.campaigns.EnrollInControl", "users.canvas.Entry", "users.canvas.exit.MatchedAudience",
        "users.canvas.exit.PerformedEvent", "users.canvas.experimentstep.SplitEntry",
        "users.canvasstep.Progression", "users.messages.sms.InboundReceive", "users.profile.Update",
    }  # fmt: skip
    assert rows.skipped == dict.fromkeys(skipped, 6)
    prices = Counter(e.value for e in rows.events if e.name == "purchase")
    assert prices == {12_340_000: 2, 224_960_000: 2, 9_990_000: 2}, "float32 prices are whole cents again"
    opens = [e for e in rows.events if e.kind == "open" and "email" in e.event_id]
    assert Counter(e.machine for e in opens) == {1: 2, -1: 4}, "before February 2026 null is not a human"
    clicks = [e for e in rows.events if e.kind == "click" and "email" in e.event_id]
    assert Counter(e.machine for e in clicks)[1] >= 1
    assert sum(e.user_id.startswith("braze:") for e in rows.events) == len(rows.events) // 6
    assert not any("@" in str(row) for row in (*rows.sends, *rows.events)), "no addresses in rows"


def test_the_custom_http_sample() -> None:
    path = samples("braze") / "custom_http" / "batch_11_events_mixed_s_and_ms.json"
    rows = parsed(ADAPTER, path.read_bytes(), HEARD)
    assert not rows.rejects
    assert rows.skipped == {"users.behaviors.app.SessionStart": 1}
    assert rows.notes == {"time_in_milliseconds": 1}
    assert len(rows.sends) == 2
    assert len(rows.events) == 8
    assert rows.events[0].occurred_at == 1_607_988_752_551_000
    assert len({e.event_id for e in rows.events}) == 5, "one published id over several event types"
    assert {e.received_at for e in rows.events} == {HEARD}
    (bought,) = (e for e in rows.events if e.name == "purchase")
    assert (bought.value, bought.currency) == (12_340_000, "AED")
    from_file = read_all(ADAPTER, path.parent)
    assert [e._replace(received_at=HEARD) for e in from_file.events] == rows.events


# ------------------------------------------------------------------------------------------ messages


def test_campaign_send_and_its_engagement_share_an_id() -> None:
    extras = {"message_extras": '{"copy_id":"A","x":"1"}'}
    (send,) = one("messages.email.Send", CAMPAIGN | extras).sends
    assert send == SendRow("d1:u1:v1", "u1", "c1", "A", START, received_at=HEARD)
    kinds = {"Open": "open", "Click": "click", "Bounce": "bounce", "Unsubscribe": "unsubscribe", "MarkAsSpam": "spam"}
    for name, kind in kinds.items():
        (e,) = one(f"messages.email.{name}", CAMPAIGN).events
        assert (e.send_id, e.kind, e.template_id, e.variant_id) == (send.send_id, kind, "", "")
        assert e.event_id == f"e1/users.messages.email.{name}"
        assert (e.occurred_at, e.received_at) == (START, HEARD)


def test_another_key_of_the_extras_may_hold_the_variant() -> None:
    esp = adapter("braze", {"variant_key": "arm"})
    extras = {"message_extras": '{"copy_id":"A","arm":"B"}'}
    body = {"event_type": "users.messages.email.Send", "id": "e1", "time": START // 1_000_000,
            "user": {"external_user_id": "u1"}, "properties": CAMPAIGN | extras}  # fmt: skip
    for made, variant in ((esp, "B"), (ADAPTER, "A")):
        rows = Rows()
        made.parse(json.dumps({"events": [body]}).encode(), rows, "p", HEARD)
        assert [s.variant_id for s in rows.sends] == [variant]


def test_canvas_message() -> None:
    (send,) = one("messages.email.Send", CANVAS).sends
    assert (send.send_id, send.template_id, send.variant_id) == ("d1:u1:s1", "s1", "arm")
    (send,) = one("messages.email.Send", CANVAS | CAMPAIGN).sends
    assert (send.template_id, send.variant_id) == ("c1", "v1"), "both sets filled: the campaign"


def test_api_ids_win_over_internal_ones() -> None:
    api = CAMPAIGN | {"campaign_api_id": "C1", "message_variation_api_id": "V1"}
    (send,) = one("messages.email.Send", api).sends
    (opened,) = one("messages.email.Open", api).events
    assert (send.send_id, send.template_id, send.variant_id) == ("d1:u1:V1", "C1", "V1")
    assert opened.send_id == send.send_id


@pytest.mark.parametrize("extras", ["message_extras", "[1]", '{"copy_id":', '"x"'])
def test_unreadable_message_extras_are_no_extras(extras: str) -> None:
    rows = one("messages.email.Send", CAMPAIGN | {"message_extras": extras})
    assert rows.sends[0].variant_id == "v1"
    assert rows.notes == {"message_extras_unreadable": 1}


def test_users_without_their_own_id() -> None:
    rows = one("messages.email.Open", CAMPAIGN, user={"user_id": "b1", "external_user_id": None})
    assert rows.events[0].user_id == "braze:b1"
    assert rows.events[0].send_id == "d1:braze:b1:v1"
    rows = one("messages.email.Open", CAMPAIGN, user={"user_id": "b1", "external_user_id": 77})
    assert rows.events[0].user_id == "77"


def test_click_without_a_dispatch_restricts_by_campaign() -> None:
    (e,) = one("messages.sms.ShortLinkClick", {"campaign_id": "c1", "message_variation_id": "v1"}).events
    assert (e.send_id, e.template_id) == ("", "c1")


def test_order_of_dispatch_ids_is_kept() -> None:
    dispatches = [f"{i:04x}" for i in (1, 9, 10, 16, 255, 4096)]
    made = [one("messages.email.Send", CANVAS | {"dispatch_id": d}).sends[0].send_id for d in dispatches]
    assert made == sorted(made)


# --------------------------------------------------------------------------------- machines and kinds


@pytest.mark.parametrize(
    ("told", "at", "machine"),
    [
        ({"machine_open": "true"}, "2023-01-01", 1),
        ({"machine_open": "apple"}, "2026-03-01", 1),
        ({"machine_open": None}, "2026-01-31", -1),
        ({"machine_open": None}, "2026-02-01", 0),
        ({}, "2026-02-01", 0),
        ({"machine_open": "false"}, "2023-01-01", 0),
    ],
)
def test_machine_opens(told: dict[str, Any], at: str, machine: int) -> None:
    rows = one("messages.email.Open", CAMPAIGN | told, time=parse(at, "UTC") // SECOND)
    assert rows.events[0].machine == machine


@pytest.mark.parametrize(
    ("flag", "reasons", "machine"),
    [
        (True, [], 1), (True, None, 1), (None, ["user_agent"], 1), (False, ["ip_address"], 0),
        (None, [], 0), (None, None, -1), ("true", [], 1),
    ],
)  # fmt: skip
def test_bot_clicks(flag: Any, reasons: Any, machine: int) -> None:
    told = {"is_suspected_bot_click": flag, "suspected_bot_click_reason": reasons}
    assert one("messages.email.Click", CAMPAIGN | told).events[0].machine == machine


def test_drops_and_what_is_passed_over() -> None:
    assert one("messages.email.Bounce", CAMPAIGN | {"is_drop": True}).events[0].kind == "drop"
    for name in ("SoftBounce", "Deferral", "Abort", "Retry"):
        full = f"users.messages.email.{name}"
        assert one(f"messages.email.{name}", CAMPAIGN).skipped == {f"transient: {full}": 1}
    assert one("campaigns.Conversion").skipped == {"restated: users.campaigns.Conversion": 1}
    assert one("something.New").skipped == {"users.something.New": 1}


# ----------------------------------------------------------------------------------- time and money


def test_times() -> None:
    assert one("behaviors.Purchase", time=1_607_988_752_551).notes["time_in_milliseconds"] == 1
    assert one("behaviors.Purchase", time="1607988752").events[0].occurred_at == 1_607_988_752 * SECOND
    rows = one("behaviors.Purchase", time=None)
    assert rows.events[0].occurred_at == HEARD
    assert rows.notes["time_from_receipt"] == 1
    assert reason(parsed(ADAPTER, body(event("behaviors.Purchase", time=None)))) == "bad_time"


@pytest.mark.parametrize("bad", [-5, 5 * 10**14, 10**400, True, "yesterday", [1], 1e300])
def test_bad_times(bad: Any) -> None:
    rows = one("behaviors.Purchase", time=bad)
    assert reason(rows) == "bad_time"
    assert rows.rejects[0].place == "body 1: events[0]"
    assert "time: found" in rows.rejects[0].message


@pytest.mark.parametrize(
    ("price", "currency", "value"),
    [
        (12.34000015258789, "USD", 12_340_000), (224.96000671386719, "eur", 224_960_000), (1200.4, "JPY", 1200 * 10**6),
        (1.2345, "KWD", 1_234_000), (-20, "USD", -20 * 10**6), ("9.99", "USD", 9_990_000), (None, "USD", MISSING),
    ],
)  # fmt: skip
def test_purchases(price: Any, currency: str, value: int) -> None:
    (e,) = one("behaviors.Purchase", {"product_id": "p", "price": price, "currency": currency}).events
    assert (e.kind, e.name, e.value, e.currency, e.order_id) == ("conversion", "purchase", value, currency.upper(), "")


def test_float32_prices_of_an_avro_file(tmp_path: Path) -> None:
    cents = [1, 10, 1234, 22496, 999, 1999, 109_999, 1_000_001]
    write(tmp_path / "a.avro", "users.behaviors.Purchase", [{"price": c / 100} for c in cents], price="float")
    assert [e.value for e in read_all(ADAPTER, tmp_path).events] == [c * 10_000 for c in cents]


def test_ecommerce_orders() -> None:
    custom = {"order_id": "o1", "total_value": 39.95, "currency": "USD", "products": []}
    (e,) = one("behaviors.CustomEvent", {"name": "ecommerce.order_placed", "custom_properties": custom}).events
    assert (e.name, e.value, e.currency, e.order_id) == ("ecommerce.order_placed", 39_950_000, "USD", "o1")
    (e,) = one("behaviors.CustomEvent", {"name": "ecommerce.order_refunded", "custom_properties": custom}).events
    assert (e.name, e.value, e.order_id) == ("ecommerce.order_placed", -39_950_000, "o1")
    (e,) = one("behaviors.CustomEvent", {"name": "signup", "custom_properties": custom}).events
    assert (e.name, e.value, e.currency, e.order_id) == ("signup", MISSING, "", "")
    custom["total_value"] = "many"
    rows = one("behaviors.CustomEvent", {"name": "ecommerce.order_placed", "custom_properties": custom})
    assert reason(rows) == "bad_value"


# ------------------------------------------------------------------------------------- bad elements


@pytest.mark.parametrize("probe", [b"", b" \n", b'{"events":[]}'])
def test_a_probe_is_nothing(probe: bytes) -> None:
    assert parsed(ADAPTER, probe, HEARD) == Rows()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (7, "bad_value"), (None, "bad_value"), ({}, "missing_field"), ({"event_type": 5}, "bad_value"),
        (event("messages.email.Open", user={}), "missing_field"), (event("messages.email.Open", user=[]), "bad_value"),
        (event("messages.email.Open", user={"external_user_id": ["u"]}), "bad_value"),
        (event("messages.email.Send", {"campaign_id": "c"}), "missing_field"),
        (event("messages.email.Send", {"dispatch_id": "d"}), "missing_field"),
        (event("messages.email.Send", {"dispatch_id": "d", "campaign_id": "c"}), "missing_field"),
        (event("behaviors.CustomEvent"), "missing_field"),
        (event("behaviors.Purchase", {"price": "free"}), "bad_value"),
        (event("behaviors.Purchase", {"currency": 1}), "bad_value"),
        (event("behaviors.Purchase", properties=[1]), "bad_value"),
    ],
)  # fmt: skip
def test_a_bad_element_loses_no_other(bad: Any, why: str) -> None:
    good = event("behaviors.Purchase", {"price": 1, "currency": "USD"})
    rows = parsed(ADAPTER, body(good, bad, good), HEARD)
    assert len(rows.events) == 2
    (reject,) = rows.rejects
    assert (reject.place, reject.reason) == ("body 1: events[1]", why)
    assert json.loads(reject.raw) == bad
    assert "expected" in reject.message


@pytest.mark.parametrize(
    "bad", [b"{'a': 1}", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": "\xff"}', b"[" * 3000 + b"]" * 3000, b"{"]
)
def test_an_unreadable_element_loses_no_other(bad: bytes) -> None:
    good = json.dumps(event("behaviors.Purchase", {"product_id": '"],[{'})).encode()
    rows = parsed(ADAPTER, b'{"x":"events","events":[' + good + b"," + good + b"," + bad, HEARD)
    assert len(rows.events) == 2
    (reject,) = rows.rejects
    assert (reject.place, reject.reason) == ("body 1: events[2]", "bad_json")


@pytest.mark.parametrize("bad", [b"nonsense", b"{", b"[" * 5000, b"\xff\xfe", b'"\\'])
def test_an_unreadable_body_is_one_reject(bad: bytes) -> None:
    rows = parsed(ADAPTER, bad, HEARD)
    assert [r.reason for r in rows.rejects] == ["bad_json"]
    assert reason(parsed(ADAPTER, b'{"events": 5}')) == "bad_value"


@given(st.data())
def test_nothing_in_a_body_is_fatal(data: st.DataObject) -> None:
    types = ["messages.email.Send", "messages.email.Click", "behaviors.Purchase", "behaviors.CustomEvent"]
    fields = st.sampled_from(
        ["price", "currency", "name", "custom_properties", "dispatch_id", "campaign_id", "canvas_id", "machine_open",
         "message_extras", "is_suspected_bot_click", "suspected_bot_click_reason", "canvas_step_id"]
    )  # fmt: skip
    users = st.dictionaries(st.sampled_from(["user_id", "external_user_id"]), JSON)
    odd = st.fixed_dictionaries(
        {"event_type": st.sampled_from([f"users.{t}" for t in types]) | JSON},
        optional={
            "id": JSON, "time": JSON, "user": JSON | users,
            "properties": JSON | st.dictionaries(fields, JSON, max_size=6),
        },
    )  # fmt: skip
    items = data.draw(st.lists(odd | JSON, max_size=4))
    rows = parsed(ADAPTER, body(*items), data.draw(st.sampled_from([HEARD, MISSING])))
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == len(items)


# --------------------------------------------------------------------------------------- bulk exports


def write(path: Path, schema_name: str, records: list[dict[str, Any]], **columns: str) -> None:
    """A Currents file with made-up users."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields: list[dict[str, Any]] = [{"name": "id", "type": "string"}, {"name": "user_id", "type": "string"}]
    fields += [{"name": "time", "type": "int"}]
    fields += [{"name": c, "type": ["null", t], "default": None} for c, t in columns.items()]
    rows = [{"id": f"e{i}", "user_id": f"b{i}", "time": START // SECOND + i} | r for i, r in enumerate(records)]
    schema = {"type": "record", "name": schema_name, "fields": fields}
    with path.open("wb") as f:
        fastavro.writer(f, fastavro.parse_schema(schema), rows, codec="deflate", sync_interval=200)


def test_layouts_of_avro_folders(tmp_path: Path) -> None:
    deep = tmp_path / "p" / "event_type%3Dusers.messages.email.Open" / "date=2026-03-01-00" / "1" / "z" / "a%2B0.avro"
    write(deep, "Record", [{"dispatch_id": "d"}], dispatch_id="string")
    write(tmp_path / "b.avro", "dataexport.GCS.inner.users.messages.email.Click", [{}])
    write(tmp_path / "campaigns.Conversion.avro", "campaigns.Conversion", [{}])
    (tmp_path / "http.ndjson.gz").write_bytes(gzip.compress(body(event("behaviors.Purchase")) + b"\n" + body()))
    (tmp_path / "notes.txt").write_text("hello")
    rows = read_all(ADAPTER, tmp_path)
    assert Counter(e.kind for e in rows.events) == {"open": 1, "click": 1, "conversion": 1}
    assert rows.skipped == {"restated: users.campaigns.Conversion": 1, "file: *.txt": 1}
    assert not rows.rejects
    assert all(e.received_at == MISSING for e in rows.events)
    opened = next(e for e in rows.events if e.kind == "open")
    assert opened.machine == -1, "a file without the column is an old schema"


def test_a_truncated_avro_file_keeps_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    write(path, "users.behaviors.CustomEvent", [{"name": f"n{i % 3}"} for i in range(500)], name="string")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    rows = read_all(ADAPTER, tmp_path)
    assert 100 < len(rows.events) < 500
    (reject,) = rows.rejects
    assert (reject.place, reject.reason) == (f"a.avro:record {len(rows.events) + 1}", "truncated_avro")
    path.write_bytes(b"no avro at all")
    assert [r.reason for r in read_all(ADAPTER, tmp_path).rejects] == ["bad_avro"]


def test_a_bad_record_names_its_place(tmp_path: Path) -> None:
    write(tmp_path / "a.avro", "users.behaviors.CustomEvent", [{"name": "a"}, {"name": None}], name="string")
    (reject,) = read_all(ADAPTER, tmp_path).rejects
    assert (reject.place, reject.reason) == ("a.avro:record 2", "missing_field")


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justai_sim.esp.rows.BATCH", 100)
    write(tmp_path / "a.avro", "users.behaviors.CustomEvent", [{"name": "n"}] * 250, name="string")
    (tmp_path / "b.json").write_bytes(body(*[event("behaviors.Purchase"), 5] * 120))
    batches = list(ADAPTER.read(tmp_path, None))
    assert all(80 < len(b) <= 100 for b in batches[:-1])  # blocks of Avro are not cut
    assert sum(map(len, batches)) == 370
    assert sum(len(b.rejects) for b in batches) == 120


def test_nothing_readable_and_no_fastavro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_text("")
    with pytest.raises(DataError, match=r"found x\.parquet; expected Currents files"):
        read_all(ADAPTER, tmp_path)
    write(tmp_path / "a.avro", "users.behaviors.CustomEvent", [])
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(UsageError, match=r"pip install 'justai-sim\[data\]'"):
        read_all(ADAPTER, tmp_path)


# ----------------------------------------------------------------------------------------- round trip

USERS = ("u1", "u2", "ü:3", "braze:0a")
STEPS = ("T1", "T:2", "welcome 3")
VARIANTS = ("A", "B:1", "control", "ß")


PEOPLE = [
    ("s1", "users.messages.email.Send", "b1", None),
    ("s2", "users.messages.email.Send", "b2", None),
    ("s3", "users.messages.email.Send", "b3", None),
    ("s4", "users.messages.email.Send", "b4", None),
    ("k1", "users.messages.email.Click", "b1", "u1"),
    ("k2", "users.messages.email.Click", "b2", "u2"),
    ("p1", "users.behaviors.CustomEvent", "b1", "u1"),
    ("p2", "users.behaviors.CustomEvent", "b2", "other"),
    ("p5", "users.behaviors.CustomEvent", "b5", "u5"),
    ("x1", "users.UserOrphan", "b4", None),
    ("x2", "users.UserOrphan", "b6", None),
    ("x3", "users.SomethingElse", "b3", "u3"),
]
"""b1 was identified after the send, b2 twice, b3 in rows of no use, b4 was merged into b6 and b6 into b5."""


def _person(serial: str, kind: str, profile: str, own: str | None) -> dict[str, Any]:
    into = {"b4": "b6", "b6": "b5"}[profile] if kind.endswith("Orphan") else None
    return {
        "id": serial, "time": 1772323200, "user_id": profile, "external_user_id": own, "dispatch_id": "d",
        "campaign_id": "c", "message_variation_id": "v", "name": "signup", "orphaned_by_id": into,
    }  # fmt: skip


def _people(folder: Path, form: str, copies: int) -> None:
    """The rows above, each as often as asked for: few are read one by one, more in columns."""
    for kind in {kind for _, kind, *_ in PEOPLE}:
        made = [_person(f"{row[0]}.{i}", *row[1:]) for row in PEOPLE if row[1] == kind for i in range(copies)]
        path = folder / f"event_type={kind}"
        path.mkdir()
        if form == "avro":
            columns = [{"name": c, "type": "int" if c == "time" else ["null", "string"]} for c in made[0]]
            schema = fastavro.parse_schema({"type": "record", "name": kind, "fields": columns})
            with (path / "a.avro").open("wb") as out:
                fastavro.writer(out, schema, made)
        else:
            ids = ("user_id", "external_user_id")
            events = [
                {"event_type": kind, "id": m["id"], "time": m["time"], "user": {i: m[i] for i in ids}, "properties": m}
                for m in made
            ]
            (path / "a.json").write_text(json.dumps({"events": events}))


@pytest.mark.parametrize("form", ["avro", "json"])
@pytest.mark.parametrize("copies", [1, 40])
def test_who_was_identified_after_the_send(tmp_path: Path, form: str, copies: int) -> None:
    """Send, click and purchase are one user's, and the click names the send, as `(user_id, dispatch_id)` says."""
    _people(tmp_path, form, copies)
    rows = read_all(ADAPTER, tmp_path)
    assert Counter(s.user_id for s in rows.sends) == dict.fromkeys(("u1", "braze:b2", "braze:b3", "u5"), copies)
    events = {e.event_id.split(".")[0]: e for e in rows.events}
    assert events["k1"].send_id == "d:u1:v"
    assert events["k1"].send_id in {s.send_id for s in rows.sends}
    assert events["p1"].user_id == "u1"
    assert rows.notes == {
        "rows_of_unidentified_users_joined": 2 * copies, "rows_of_unidentified_users": 2 * copies,
    }  # fmt: skip
    (tmp_path / "event_type=users.messages.email.Click" / f"a.{form}").unlink()
    later = read_all(ADAPTER, tmp_path)
    assert {s.user_id for s in later.sends} == {"u1", "other", "braze:b3", "u5"}, (
        "an export that has changed is looked through anew"
    )
    alone = read_all(adapter("braze", {"join_profiles": "no"}), tmp_path)
    assert Counter(s.user_id for s in alone.sends) == {f"braze:b{i}": copies for i in range(1, 5)}


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows with everything that Braze's payloads can carry, on its grids of time and money."""
    pick = st.sampled_from
    base = draw(pick([parse("2025-12-30T00:00:00Z"), START]))
    times = st.integers(0, 80 * 86_400).map(lambda s: base + s * SECOND)
    late = st.integers(0, 3 * 10**9)
    rows = Rows()
    for i in range(draw(st.integers(0, 4))):
        user, step, variant, t = draw(pick(USERS)), draw(pick(STEPS)), draw(pick(VARIANTS)), draw(times)
        send = ADAPTER.send_id(f"d{i:06d}", user, step, draw(pick([variant, ""])))
        rows.sends.append(SendRow(send, user, step, variant, t, received_at=draw(pick([MISSING, t + draw(late)]))))
    for i in range(draw(st.integers(0, 6))):
        user, t = draw(pick(USERS)), draw(times)
        received = t + draw(late)
        kind = draw(pick(["conversion", "open", "click", "unsubscribe", "bounce", "spam", "delivery", "drop"]))
        name = draw(pick(["purchase", "signup", "ecommerce.order_placed"])) if kind == "conversion" else ""
        e = EventRow(ADAPTER.event_id(f"e{i:06d}", kind, name), user, kind, t, name, received)
        if name in ("purchase", "ecommerce.order_placed"):
            value = draw(st.integers(-(10**8), 10**8).map(lambda c: c * 10_000) | st.just(MISSING))
            e = e._replace(value=value, currency=draw(pick(["USD", "EUR", ""])))
        if name == "ecommerce.order_placed":
            e = e._replace(order_id=draw(pick(["", "o1"])))
        if kind != "conversion":
            step = draw(pick(STEPS))
            named = ADAPTER.send_id(f"d{draw(st.integers(0, 9)):06d}", user, step, "")
            e = e._replace(**draw(pick([{"send_id": named}, {"template_id": step}, {}])))
        if kind == "click" or (kind == "open" and t < parse("2026-02-01T00:00:00Z")):
            e = e._replace(machine=draw(pick([1, 0, -1])))
        elif kind == "open":
            e = e._replace(machine=draw(pick([1, 0])))
        rows.events.append(e)
    return rows


@given(tables())
def test_render_then_parse(rows: Rows) -> None:
    found, expected = carried(ADAPTER, rows), in_order(rows)
    assert [str(s) for s in found.sends] == [str(s) for s in expected.sends]
    assert found.events == expected.events


def test_control_travels_without_a_copy() -> None:
    rows = Rows([SendRow(ADAPTER.send_id("d1", "u", "T", v), "u", "T", v, START) for v in ("control", "A")])
    control, copy = (json.loads(b)["events"][0]["properties"] for _, b in ADAPTER.render(text_log(rows)))
    assert (control["message_extras"], control["canvas_variation_id"]) == (None, "control")
    assert json.loads(copy["message_extras"]) == {"copy_id": "A"}


def test_a_ghost_send_is_no_send() -> None:
    rows = Rows([SendRow("d1:u:T", "u", "T", "held", START, status="held_out")])
    ((_, rendered),) = ADAPTER.render(text_log(rows))
    assert parsed(ADAPTER, rendered).skipped == {"users.campaigns.EnrollInControl": 1}


def test_switches_for_what_is_told_again_and_for_soft_bounces(tmp_path: Path) -> None:
    """Counted by default, each by a switch of its own; in bodies and in Avro."""
    found = [
        ("users.campaigns.Conversion", {**CAMPAIGN, "dispatch_id": None, "conversion_behavior_index": 1}),
        ("users.messages.email.SoftBounce", CAMPAIGN),
        ("users.behaviors.subscription.GlobalStateChange", {"subscription_status": "Unsubscribed", "channel": "email"}),
        ("users.behaviors.subscription.GlobalStateChange", {"subscription_status": "Subscribed", "channel": "email"}),
        ("users.behaviors.subscriptiongroup.StateChange", {"subscription_status": "Unsubscribed", "channel": "email"}),
        ("users.behaviors.subscriptiongroup.StateChange", {"subscription_status": "Unsubscribed", "channel": "sms"}),
    ]
    bodies = [{"events": [{"event_type": k, "id": f"e{i}", "time": START // 10**6, "user": {"external_user_id": "u"},
                           "properties": p}]} for i, (k, p) in enumerate(found)]  # fmt: skip
    expected = {
        "restated": [("conversion", "campaigns.Conversion", "e0")],
        "soft_bounces": [("bounce", "", "e1")],
        "state_changes": [("unsubscribe", "", "e2"), ("unsubscribe", "", "e4")],
    }
    for number, (kind, p) in enumerate(found):
        fields = [{"name": n, "type": ["null", "string", "int"]} for n in ("id", "time", "external_user_id", *p)]
        schema = fastavro.parse_schema({"type": "record", "name": kind, "fields": fields})
        with (tmp_path / f"{number}.avro").open("wb") as out:
            row = {"id": f"e{number}", "time": START // 10**6, "external_user_id": "u", **p}
            fastavro.writer(out, schema, [row])
    for switch in ("", *expected):
        esp = adapter("braze", {switch: "yes"} if switch else {})
        live = Rows()
        for body in bodies:
            esp.parse(json.dumps(body).encode(), live, "body", START)
        for rows in (live, read_all(esp, tmp_path)):
            got = [(e.kind, e.name, e.event_id.partition("/")[0]) for e in rows.events]
            assert got == expected.get(switch, []), (switch, rows.skipped)
            assert sum(rows.skipped.values()) == len(found) - len(got)
            assert not rows.rejects


def test_a_restated_conversion_keeps_its_template() -> None:
    rows = Rows()
    body = {"events": [{"event_type": "users.campaigns.Conversion", "id": "e", "time": START // 10**6,
                        "user": {"external_user_id": "u"}, "properties": {"campaign_id": "c"}}]}  # fmt: skip
    adapter("braze", {"restated": "yes"}).parse(json.dumps(body).encode(), rows, "body", START)
    assert (rows.events[0].template_id, rows.events[0].send_id) == ("c", "")


@pytest.mark.parametrize(
    ("status", "channel", "counts"),
    [
        ("Unsubscribed", "email", True), ("unsubscribed", "Email", True), ("UNSUBSCRIBED", None, True),
        ("unsubscribed", "push", False), ("Unsubscribed", "sms", False), ("Subscribed", "email", False),
        ("OptedIn", None, False), (None, None, False),
    ],
)  # fmt: skip
def test_which_changes_of_a_subscription_unsubscribe(status: str | None, channel: str | None, counts: bool) -> None:
    for kind in ("subscription.GlobalStateChange", "subscriptiongroup.StateChange"):
        event = {
            "event_type": f"users.behaviors.{kind}", "id": "e", "time": 1772323200, "user": {"external_user_id": "u"},
            "properties": {"subscription_status": status, "channel": channel},
        }  # fmt: skip
        rows = Rows()
        adapter("braze", {"state_changes": "yes"}).parse(json.dumps({"events": [event]}).encode(), rows, "b", MISSING)
        assert [e.kind for e in rows.events] == ["unsubscribe"] * counts
        assert sum(rows.skipped.values()) == (not counts)

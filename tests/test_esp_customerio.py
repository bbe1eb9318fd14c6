"""Customer.io: documented quirks of webhooks and of the Parquet export, and the way through render and parse."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.clock import MISSING, parse
from justai_sim.errors import DataError, UsageError
from justai_sim.esp import customerio_export as export
from justai_sim.esp.base import adapter
from justai_sim.esp.customerio import ADAPTER, CustomerIo
from justai_sim.esp.customerio_fields import MEANING, Reading, comment, header
from justai_sim.esp.rows import EventRow, Rows, SendRow
from tests.esp_rows import JSON, carried, in_order, parsed, read_all, text_log
from tests.samples import samples

START = parse("2026-03-01T00:00:00Z")
SECONDS = START // 1_000_000
HEARD = START + 90_000_001


def hook(metric: str, data: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    d: dict[str, Any] = {"identifiers": {"id": "u1"}, "delivery_id": "d1", "campaign_id": 5, "action_id": 8}
    e: dict[str, Any] = {"event_id": "e1", "object_type": "email", "metric": metric, "timestamp": SECONDS}
    return e | {"data": {k: v for k, v in (d | (data or {})).items() if v != "absent"}} | fields


def one(metric: str, data: dict[str, Any] | None = None, adapter: CustomerIo = ADAPTER, **fields: Any) -> Rows:
    rows = parsed(adapter, json.dumps(hook(metric, data, **fields)).encode(), HEARD)
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == 1
    return rows


def test_the_registry_knows_it() -> None:
    assert adapter("customerio") is ADAPTER
    assert ADAPTER.send_id("d1", "u", "t", "v") == ADAPTER.event_id("d1", "open", "") == "d1"


# ------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("name", "sends", "kinds", "reasons"),
    [
        ("handwritten", 2, {"open": 5, "click": 3, "delivery": 1, "unsubscribe": 1, "spam": 1, "drop": 1}, []),
        ("openapi_examples", 1, {}, []), ("rudder", 2, {"click": 1}, []), ("malformed", 0, {}, ["bad_time"]),
    ],
)  # fmt: skip
def test_samples_of_webhooks(name: str, sends: int, kinds: dict[str, int], reasons: list[str]) -> None:
    path = samples("customerio") / f"webhooks_{name}.jsonl"
    body = path.read_bytes()
    for rows in (parsed(ADAPTER, body, HEARD), read_all(ADAPTER, path)):
        assert [r.reason for r in rows.rejects] == reasons
        assert (len(rows.sends), Counter(e.kind for e in rows.events)) == (sends, kinds)
        assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == len(body.splitlines())


def test_samples_of_the_export() -> None:
    rows = read_all(ADAPTER, samples("customerio") / "parquet_handwritten")
    assert not rows.rejects
    (send,) = rows.sends
    assert send.variant_id.startswith("split:")
    assert Counter(e.kind for e in rows.events) == {"open": 2, "click": 1, "delivery": 1, "bounce": 1}
    assert sorted(e.machine for e in rows.events if e.kind in ("open", "click")) == [-1, 0, 1]
    assert rows.skipped == {"file: attributes": 1, "file: subjects": 1, "restated: email converted": 1}


# ------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize(("metric", "kind"), [(m, k) for m, k in MEANING.items() if k not in ("send", "conversion")])
def test_metrics(metric: str, kind: str) -> None:
    assert one(metric).events == [EventRow("e1", "u1", kind, START, "", HEARD, send_id="d1")]


def test_what_is_counted() -> None:
    for metric in ("drafted", "failed", "undeliverable", "replied", "subscribed", "quite_new"):
        assert one(metric).skipped == {f"email {metric}": 1}
    for metric in ("attempted", "deferred"):
        assert one(metric).skipped == {f"transient: email {metric}": 1}
    for kind in ("webhook", "slack"):
        assert one("sent", object_type=kind).skipped == {f"{kind} sent": 1}
    assert one("sent", adapter=CustomerIo(Reading(not_messages=("webhook",))), object_type="slack").sends
    odd = hook("cio_subscription_preferences_changed", {"content": '{"topics":{"topic_9":false}}'})
    odd["object_type_type"] = odd.pop("object_type")
    rows = parsed(ADAPTER, json.dumps(odd).encode())
    assert rows.skipped == {"email cio_subscription_preferences_changed": 1}


def test_what_is_told_again() -> None:
    assert one("converted").skipped == {"restated: email converted": 1}
    (e,) = one("converted", adapter=CustomerIo(Reading(restated=True))).events
    assert (e.kind, e.name, e.send_id, e.value) == ("conversion", "converted", "d1", MISSING)
    alone = {"delivery_id": "absent", "campaign_id": "absent", "email_address": "u@example.com"}
    for kind in ("customer", "email"):
        assert one("unsubscribed", alone, object_type=kind).skipped == {f"restated: {kind} unsubscribed (person)": 1}
    (e,) = one("unsubscribed", alone, CustomerIo(Reading(person_unsubscribes=True)), object_type="customer").events
    assert (e.kind, e.user_id, e.send_id) == ("unsubscribe", "u1", "")


@pytest.mark.parametrize(
    ("metric", "flags", "machine"),
    [
        ("opened", {}, -1), ("opened", {"prefetched": True, "proxied": True}, 1), ("opened", {"proxied": True}, -1),
        ("opened", {"prefetched": False, "proxied": True}, 0), ("opened", {"synthetic": True, "prefetched": False}, 1),
        ("clicked", {"machine": True}, 1), ("clicked", {"machine": False}, 0), ("clicked", {"machine": None}, -1),
        ("opened", {"prefetched": "true"}, 1), ("delivered", {"machine": True}, -1),
    ],
)  # fmt: skip
def test_machine_flags(metric: str, flags: dict[str, Any], machine: int) -> None:
    assert one(metric, flags).events[0].machine == machine


def test_other_machine_flags() -> None:
    every = CustomerIo(Reading(machine_flags=("proxied", "prefetched")))
    assert one("opened", {"proxied": True}, every).events[0].machine == 1
    assert one("opened", {"synthetic": True}, every).events[0].machine == -1


# ------------------------------------------------------------------------------------ sends and people


@pytest.mark.parametrize(
    ("data", "variant", "carrier"),
    [
        ({"headers": {"x-jw-COPY-id": ["cp_a"]}, "content": "<!-- JW_COPY_ID: cp_b -->"}, "cp_a", "header"),
        ({"headers": {"Other": ["x"]}, "content": "Hi<!--JW_COPY_ID:cp_b-->", "content_id": 3}, "cp_b", "comment"),
        ({"headers": {"X-JW-Copy-Id": []}, "content": "JW_COPY_ID: no", "content_id": 3}, "3", "content_id"),
        ({}, "8", "message"), ({"action_id": "absent", "transactional_message_id": 2}, "2", "message"),
        ({"headers": 5, "content": {}}, "8", "message"),
    ],
)  # fmt: skip
def test_where_the_variant_is(data: dict[str, Any], variant: str, carrier: str) -> None:
    rows = one("sent", data)
    assert rows.sends == [SendRow("d1", "u1", "5", variant, START, received_at=HEARD)]
    assert rows.notes == {f"variant_from_{carrier}": 1}


def test_other_places_of_variant_and_template() -> None:
    mine = CustomerIo(Reading(header="X-Arm", comment="ARM", variant_from=("comment", "header")))
    sent = {"headers": {"X-Arm": "h"}, "content": "<!-- ARM: c -->"}
    assert one("sent", sent, mine).sends[0].variant_id == "c"
    assert one("sent", {}, mine).rejects[0].reason == "missing_field"
    steps = CustomerIo(Reading(template_from=("action_id", "newsletter_id")))
    assert one("sent", {}, steps).sends[0].template_id == "8"
    with pytest.raises(UsageError, match="'headers' is not known; did you mean 'header'"):
        Reading(variant_from=("headers",))


@pytest.mark.parametrize(
    ("ids", "template"),
    [
        ({"broadcast_id": 9}, "9"), ({"campaign_id": None, "newsletter_id": 7}, "7"),
        ({"transactional_message_id": "receipt"}, "receipt"), ({"campaign_id": 1, "newsletter_id": 7}, "1"),
    ],
)  # fmt: skip
def test_templates(ids: dict[str, Any], template: str) -> None:
    assert one("sent", {"campaign_id": "absent"} | ids).sends[0].template_id == template
    (e,) = one("opened", {"campaign_id": "absent", "delivery_id": "absent"} | ids).events
    assert (e.send_id, e.template_id) == ("", template), "joined by user and template"


@pytest.mark.parametrize(
    ("data", "user"),
    [
        ({"identifiers": {"id": 42, "email": "a@example.com"}}, "42"),
        ({"identifiers": {"id": None, "email": "a@example.com", "cio_id": "c9"}, "customer_id": ""}, "a@example.com"),
        ({"identifiers": {"id": "", "cio_id": "c9"}}, "cio:c9"), ({"identifiers": None, "customer_id": "old"}, "old"),
        ({"identifiers": {}}, ""),
    ],
)  # fmt: skip
def test_people(data: dict[str, Any], user: str) -> None:
    rows = one("opened", data)
    assert rows.events[0].user_id == user
    assert rows.notes["events_without_user"] == (not user)
    assert [r.reason for r in one("sent", data).rejects] == ["missing_field"] * (not user)


def test_events_without_an_id_are_told_apart_by_message_time_and_link() -> None:
    def made(**data: Any) -> str:
        return one("clicked", data, event_id=None).events[0].event_id

    assert made(href="https://a.example.com") == made(href="https://a.example.com")
    assert len({made(href="https://a.example.com"), made(href="https://b.example.com"), made(link_id=3), made()}) == 4
    assert one("opened", {"delivery_id": "absent"}, event_id=None).events[0].event_id == ""


@pytest.mark.parametrize("when", [str(SECONDS), SECONDS, float(SECONDS), f" {SECONDS} "])
def test_times(when: Any) -> None:
    assert one("opened", timestamp=when).events[0].occurred_at == START


@pytest.mark.parametrize("bad", ["soon", "", None, True, [], {}, -5, 12, "2026-03-01T00:00:00Z", "9" * 30, 1e300])
def test_an_unreadable_time_is_a_reject(bad: Any) -> None:
    (reject,) = one("opened", timestamp=bad).rejects
    assert (reject.place, reject.reason) == ("body 1", "bad_time")
    assert json.loads(reject.raw)["metric"] == "opened"


def test_headers_in_other_shapes() -> None:
    for found in ('{"X-JW-Copy-Id": ["a"]}', [["x-jw-copy-id", "a"]], '[{"name": "X-JW-COPY-ID", "value": "a"}]'):
        assert header(found, "X-JW-Copy-Id") == "a"
    odd: list[Any] = [None, "", "no json", "[1, [2]]", 5, {"X-JW-Copy-Id": {}}]
    for none in odd:
        assert header(none, "X-JW-Copy-Id") == ""
    assert comment("<!-- JW_COPY_ID: " + " " * 100_000, "JW_COPY_ID") == ""


# ------------------------------------------------------------------------------------- bad elements


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (7, "bad_value"), ({}, "missing_field"), (hook(""), "missing_field"), ({"metric": ["sent"]}, "bad_value"),
        (hook("opened", object_type=5), "bad_value"), (hook("opened") | {"data": [1]}, "bad_value"),
        (hook("opened", {"identifiers": "u"}), "bad_value"), (hook("sent", {"delivery_id": None}), "missing_field"),
        (hook("sent", {"campaign_id": None}), "missing_field"), ({"kind": "conversion"}, "missing_value"),
    ],
)  # fmt: skip
def test_a_bad_element_loses_no_other(bad: Any, why: str) -> None:
    good = hook("opened")
    rows = parsed(ADAPTER, json.dumps([good, bad, good]).encode(), HEARD)
    assert (len(rows.events), [(r.place, r.reason) for r in rows.rejects]) == (2, [("body 1: [1]", why)])
    lines = b"\n".join(json.dumps(x).encode() for x in (good, bad, good))
    rows = parsed(ADAPTER, lines + b"\n{broken\n", HEARD)
    assert len(rows.events) == 2
    assert [(r.place, r.reason) for r in rows.rejects] == [("body 1:2", why), ("body 1:4", "bad_json")]


@given(st.data())
def test_nothing_in_a_body_is_fatal(data: st.DataObject) -> None:
    keys = ["identifiers", "customer_id", "delivery_id", "campaign_id", "action_id", "headers", "content", "href",
            "prefetched", "machine"]  # fmt: skip
    inner = JSON | st.dictionaries(st.sampled_from(keys), JSON)
    odd = st.fixed_dictionaries(
        {"metric": st.sampled_from([*MEANING, "failed"]) | JSON},
        optional={"data": inner, "timestamp": JSON | st.just(SECONDS), "object_type": JSON | st.just("email")}
        | {"event_id": JSON},
    )
    items = data.draw(st.lists(odd | st.integers(), max_size=4))
    rows = parsed(ADAPTER, json.dumps(items).encode(), data.draw(st.sampled_from([HEARD, MISSING])))
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == len(items)


@given(st.binary(max_size=40) | st.text('[]{},:"\\1e\n', max_size=30).map(str.encode))
def test_no_bytes_are_fatal(body: bytes) -> None:
    assert not len(parsed(ADAPTER, body, HEARD))


# ---------------------------------------------------------------------------------------------- files


def test_files_of_webhooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps(hook("opened", event_id=f"e{i}")).encode() for i in range(9)]
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(b"\n".join([*lines[:3], b"{broken"])))
    (tmp_path / "b.json").write_text(json.dumps([hook("sent"), hook("drafted")], indent=1))
    (tmp_path / "c.txt").write_text("-")
    monkeypatch.setattr("justai_sim.esp.rows.BATCH", 2)
    assert [len(b) for b in ADAPTER.read(tmp_path, None)] == [2, 2, 0]
    rows = read_all(ADAPTER, tmp_path)
    assert (len(rows.events), len(rows.sends)) == (3, 1)
    assert [(r.place, r.reason) for r in rows.rejects] == [("a.ndjson.gz:4", "bad_json")]
    assert rows.skipped == {"file: *.txt": 1, "email drafted": 1}
    with pytest.raises(DataError, match=r"found c\.txt; expected Parquet files of the export"):
        read_all(ADAPTER, tmp_path / "c.txt")


# --------------------------------------------------------------------------------------------- export


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(SECONDS + seconds, UTC)


def write(folder: Path, table: str, rows: list[dict[str, Any]], serial: int = 1) -> None:
    names = list(dict.fromkeys(k for r in rows for k in r))
    columns = {n: [r.get(n) for r in rows] for n in names}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{table}_v9_77_{serial:04d}.parquet")


def delivery(key: str, **fields: Any) -> dict[str, Any]:
    d = {"workspace_id": 77, "delivery_id": key, "internal_customer_id": "c1", "delivery_type": "email"}
    return d | {"campaign_id": 5, "action_id": 8, "created_at": at(-60), "seq_num": 1} | fields


def metric(serial: str, key: str, name: str, seconds: int = 0, **fields: Any) -> dict[str, Any]:
    m = {"event_id": serial, "delivery_id": key, "metric": name, "created_at": at(seconds)}
    return m | {"seq_num": 1} | fields


def small_export(folder: Path) -> None:
    person = {"internal_customer_id": "c1", "customer_id": None, "email_addr": "a@example.com", "updated_at": at(0)}
    named = person | {"customer_id": "u1", "updated_at": at(5)}
    write(folder, "people", [named, person, {"internal_customer_id": "c2", "updated_at": at(0)}])
    write(folder / "x", "deliveries", [
        delivery("d1"), delivery("d2", internal_customer_id="c2"), delivery("d3", subject_id="s1"),
        delivery("d4", action_id=9, content_id=31), delivery("d5", internal_customer_id=None),
        delivery("d6", delivery_type="webhook"), delivery("d4", action_id=8, seq_num=2, content_id=32),
    ])  # fmt: skip
    write(folder, "metrics", [metric(f"s{i}", f"d{i}", "sent", i) for i in range(1, 8)])
    write(folder, "metrics", [
        metric("o1", "d1", "opened", 10, prefetched=True),
        metric("o1", "d1", "opened", 11, seq_num=2, prefetched=False),
        metric("o2", "gone", "opened", 12), metric("k1", "d1", "clicked", 13, link_url="https://a.example.com/"),
    ], 2)  # fmt: skip
    write(folder, "delivery_contents", [
        {"delivery_id": "d1", "headers": '{"X-JW-Copy-Id": ["cp_h"]}', "body": "<p>", "seq_num": 1},
        {"delivery_id": "d2", "headers": None, "body": "<!-- JW_COPY_ID: cp_c -->", "seq_num": 1},
    ])  # fmt: skip
    write(folder, "outputs", [
        {"output_id": "p1", "subject_name": "s1", "split_test_index": 2, "created_at": at(-90), "seq_num": 1},
        {"output_id": "p2", "subject_name": "s1", "split_test_index": 0, "created_at": at(90), "seq_num": 1},
        {"output_id": "p3", "delivery_id": "d3", "created_at": at(-60), "seq_num": 1},
    ])  # fmt: skip
    write(folder, "campaigns", [{"campaign_id": 5}])


@pytest.mark.parametrize(("part", "read"), [(1, 20_000), (3, 4), (1_000_000, 40), (1_000_000, 20_000)])
def test_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, read: int) -> None:
    monkeypatch.setattr(export, "PART", part)
    monkeypatch.setattr(export, "_READ", read)
    small_export(tmp_path)
    rows = read_all(ADAPTER, tmp_path)
    assert sorted((s.send_id, s.user_id, s.template_id, s.variant_id, s.sent_at) for s in rows.sends) == [
        ("d1", "u1", "5", "cp_h", START + 1_000_000), ("d2", "cio:c2", "5", "cp_c", START + 2_000_000),
        ("d3", "u1", "5", "split:2", START + 3_000_000), ("d4", "u1", "5", "32", START + 4_000_000),
    ]  # fmt: skip
    assert sorted((e.event_id, e.user_id, e.kind, e.send_id, e.machine) for e in rows.events) == [
        ("k1", "u1", "click", "d1", -1), ("o1", "u1", "open", "d1", 0), ("o2", "", "open", "gone", -1),
    ]  # fmt: skip
    assert rows.skipped == {"anonymised: email sent": 1, "webhook sent": 1, "file: campaigns": 1}
    (reject,) = rows.rejects
    assert (reject.place, reject.reason) == ("metrics_v9_77_0001.parquet:row 7", "missing_delivery")


def test_bad_rows_and_damaged_files_of_the_export(tmp_path: Path) -> None:
    write(tmp_path, "deliveries", [delivery("d1"), delivery("", action_id=1)])
    write(tmp_path, "metrics", [
        metric("s1", "d1", "sent"), metric("o1", "d1", "opened", created_at=None), metric("o2", "", "opened"),
        metric("o3", "d1", ""), metric("o4", "d1", "quite_new"),
    ])  # fmt: skip
    (tmp_path / "metrics_v9_77_0002.parquet").write_bytes(b"PAR1 and nothing more")
    whole = (tmp_path / "metrics_v9_77_0001.parquet").read_bytes()
    (tmp_path / "metrics_v9_77_0003.parquet").write_bytes(whole[: len(whole) // 2])
    rows = read_all(ADAPTER, tmp_path)
    assert [s.user_id for s in rows.sends] == ["cio:c1"], "without people the person has Customer.io's id"
    assert rows.skipped == {"email quite_new": 1}
    assert Counter((r.place.partition(":")[0][:13], r.reason) for r in rows.rejects) == {
        ("deliveries_v9", "missing_field"): 1, ("metrics_v9_77", "missing_field"): 2,
        ("metrics_v9_77", "bad_time"): 1, ("metrics_v9_77", "bad_parquet"): 2,
    }  # fmt: skip


def test_a_recency_of_any_size(tmp_path: Path) -> None:
    large = Decimal(2**64 - 1)
    write(tmp_path, "deliveries", [delivery("d1", seq_num=large), delivery("d1", action_id=9, seq_num=Decimal(10**17))])
    write(tmp_path, "metrics", [metric("s1", "d1", "sent", seq_num=None)])
    assert [s.variant_id for s in read_all(ADAPTER, tmp_path).sends] == ["8"]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_of_the_export_in_any_unit(tmp_path: Path, unit: str) -> None:
    write(tmp_path, "deliveries", [delivery("d1")])
    row = metric("s1", "d1", "sent")
    naive = pa.array([row.pop("created_at").replace(tzinfo=None)], pa.timestamp(unit))
    table = pa.table({k: [v] for k, v in row.items()} | {"created_at": naive})
    pq.write_table(table, tmp_path / "metrics.parquet")
    assert read_all(ADAPTER, tmp_path).sends[0].sent_at == START
    assert read_all(ADAPTER, tmp_path, "Asia/Kolkata").sends[0].sent_at == START - 330 * 60_000_000


# ----------------------------------------------------------------------------------------- round trip

USERS = ("u1", "42", "ü:3", "cio:c7", "a@example.com")
STEPS = ("T1", "T:2", "17")


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows with everything that the webhooks and the plain rows beside them carry, on whole seconds."""
    pick = st.sampled_from
    times = st.integers(0, 10**6).map(lambda s: START + s * 1_000_000)
    late = st.integers(0, 3 * 10**9)
    rows = Rows()
    for i in range(draw(st.integers(0, 4))):
        user, step, variant, t = draw(pick(USERS)), draw(pick(STEPS)), draw(pick(("A", "B:1", "control"))), draw(times)
        rows.sends.append(SendRow(f"d{i}==", user, step, variant, t, received_at=draw(pick([MISSING, t + draw(late)]))))
    for i in range(draw(st.integers(0, 6))):
        t = draw(times)
        kind = draw(pick(["conversion", "open", "click", "unsubscribe", "bounce", "spam", "delivery", "drop"]))
        e = EventRow(f"e{i}", draw(pick(USERS)), kind, t, received_at=t + draw(late))
        named: dict[str, Any] = {"send_id": f"d{draw(st.integers(0, 9))}=="}
        if kind == "conversion":
            value = draw(st.integers(-(10**16), 10**16) | st.just(MISSING))
            e = e._replace(
                name=draw(pick(["purchase", "Signed Up", ""])), value=value, currency=draw(pick(["USD", ""])),
                order_id=draw(pick(["", "o1"])), template_id=draw(pick(["", "T1"])), **draw(pick([named, {}])),
            )  # fmt: skip
        else:
            e = e._replace(**draw(pick([named, {"template_id": draw(pick(STEPS))}, {}])))
        if kind in ("open", "click"):
            e = e._replace(machine=draw(pick([1, 0, -1])))
        rows.events.append(e)
    return rows


@given(tables())
def test_render_then_parse(rows: Rows) -> None:
    found, expected = carried(ADAPTER, rows), in_order(rows)
    assert [str(s) for s in found.sends] == [str(s) for s in expected.sends]
    assert found.events == expected.events


def test_a_ghost_send_is_no_send() -> None:
    rows = Rows([SendRow("s", "u", "T", "held", START, status="held_out")])
    ((_, body),) = ADAPTER.render(text_log(rows))
    assert parsed(ADAPTER, body).skipped == {"email drafted": 1}


def test_rendered_webhooks_have_the_published_shape() -> None:
    rows = Rows([SendRow("d1", "u", "T", "cp_1", START)], [EventRow("e1", "u", "open", START, send_id="d1", machine=1)])
    sent, opened = (json.loads(body) for _, body in ADAPTER.render(text_log(rows)))
    assert sent["data"]["headers"] == {"X-JW-Copy-Id": ["cp_1"]}
    assert sent["timestamp"] == SECONDS
    assert (opened["object_type"], opened["metric"], opened["data"]["prefetched"]) == ("email", "opened", True)
    assert "campaign_id" not in opened["data"]


def test_an_output_with_an_endless_text_loses_only_itself(tmp_path: Path) -> None:
    small_export(tmp_path)
    usual = read_all(ADAPTER, tmp_path)
    write(tmp_path, "outputs", [
        {"output_id": "p9", "subject_name": "s9", "split_test_index": "1" * 5000, "created_at": at(0), "seq_num": 1},
        {"output_id": "p8", "subject_name": "s" * 5000, "split_test_index": "1", "created_at": at(0), "seq_num": 1},
    ], 2)  # fmt: skip
    rows = read_all(ADAPTER, tmp_path)
    assert (rows.sends, rows.events) == (usual.sends, usual.events)
    reasons = Counter(r.reason for r in rows.rejects) - Counter(r.reason for r in usual.rejects)
    assert reasons == {"text_too_long": 2}

"""Customer.io: webhooks and the Parquet export, documented quirks, and the way through render and parse."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.clock import MISSING, SECOND
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.customerio import ADAPTER, CustomerIo
from justai_sim.esp.customerio_fields import Reading
from justai_sim.esp.rows import EventRow, Rows, SendRow
from tests.esp_rows import JSON, carried, in_order, parsed, read_all
from tests.samples import samples

AT = 1_772_323_200
START = AT * SECOND
HEARD = START + 90_000_001


def hook(metric: str, data: dict[str, Any] | None = None, kind: str = "email", **fields: Any) -> dict[str, Any]:
    base = {"delivery_id": "d1", "campaign_id": 7, "action_id": 70, "identifiers": {"id": "u1", "email": "a@b.test"}}
    e = {"event_id": "e1", "object_type": kind, "metric": metric, "timestamp": AT}
    return e | {"data": base | (data or {})} | fields


def one(
    metric: str, data: dict[str, Any] | None = None, adapter: CustomerIo = ADAPTER, kind: str = "email", **fields: Any
) -> Rows:
    return parsed(adapter, json.dumps(hook(metric, data, kind, **fields)).encode(), HEARD)


# ------------------------------------------------------------------------------------------- webhooks


def test_a_send_carries_its_variant_in_a_header() -> None:
    rows = one("sent", {"headers": {"x-jw-copy-id": ["warm"]}, "content": "<!-- JW_COPY_ID: other -->"})
    assert rows.sends == [SendRow("d1", "u1", "7", "warm", START, received_at=HEARD)]


@pytest.mark.parametrize(
    ("data", "variant", "template"),
    [
        ({"content": "<p>x</p><!--JW_COPY_ID:warm-->"}, "warm", "7"),
        ({"campaign_id": None, "newsletter_id": 5, "content_id": 51}, "51", "5"),
        ({}, "70", "7"),
        ({"campaign_id": None, "broadcast_id": 3}, "70", "3"),
        ({"campaign_id": None, "action_id": None, "transactional_message_id": "welcome"}, "welcome", "welcome"),
    ],
)
def test_other_places_of_the_variant(data: dict[str, Any], variant: str, template: str) -> None:
    (send,) = one("sent", data).sends
    assert (send.variant_id, send.template_id) == (variant, template)


def test_the_place_is_a_setting() -> None:
    reading = Reading(header="X-Mine", variant_from=("header",), template_from=("action_id",))
    (send,) = one("sent", {"headers": [["X-MINE", "warm"]]}, CustomerIo(reading)).sends
    assert (send.variant_id, send.template_id) == ("warm", "70")
    assert one("sent", {}, CustomerIo(reading)).rejects[0].reason == "missing_field"
    with pytest.raises(UsageError, match="did you mean 'header'"):
        Reading(variant_from=("heder",))


@pytest.mark.parametrize(
    ("metric", "kind"),
    [("delivered", "delivery"), ("opened", "open"), ("clicked", "click"), ("bounced", "bounce"), ("dropped", "drop"),
     ("spammed", "spam"), ("unsubscribed", "unsubscribe")],
)  # fmt: skip
def test_what_comes_back_names_the_delivery(metric: str, kind: str) -> None:
    assert one(metric).events == [EventRow("e1", "u1", kind, START, "", HEARD, send_id="d1")]


@pytest.mark.parametrize(
    ("metric", "flags", "machine"),
    [
        ("opened", {}, -1),
        ("opened", {"prefetched": True}, 1),
        ("opened", {"synthetic": True, "prefetched": False}, 1),
        ("opened", {"proxied": True}, -1),
        ("opened", {"proxied": True, "prefetched": False}, 0),
        ("clicked", {"machine": True}, 1),
        ("clicked", {"machine": False}, 0),
    ],
)
def test_machines(metric: str, flags: dict[str, bool], machine: int) -> None:
    assert one(metric, flags).events[0].machine == machine


def test_own_goals_and_unsubscribes_of_the_person_are_counted_unless_asked_for() -> None:
    person = {"delivery_id": None, "campaign_id": None}
    assert one("converted").skipped == {"restated: email converted": 1}
    assert one("unsubscribed", person, kind="customer").skipped == {"restated: customer unsubscribed (person)": 1}
    kept = CustomerIo(Reading(person_unsubscribes=True, restated=True))
    assert one("converted", adapter=kept).events[0].name == "converted"
    assert one("unsubscribed", person, kept).events == [EventRow("e1", "u1", "unsubscribe", START, "", HEARD)]


@pytest.mark.parametrize("metric", ["drafted", "attempted", "failed", "undeliverable", "replied", "subscribed", "new"])
def test_other_metrics_are_counted(metric: str) -> None:
    rows = one(metric)
    assert (len(rows), rows.skipped.total(), rows.rejects) == (0, 1, [])


def test_calls_of_a_workflow_are_no_sends() -> None:
    assert one("sent", kind="webhook").skipped == {"webhook sent": 1}


@pytest.mark.parametrize(
    ("who", "user"),
    [
        ({"identifiers": {"id": None, "email": "a@b.test", "cio_id": "c9"}}, "a@b.test"),
        ({"identifiers": {"cio_id": "c9"}}, "cio:c9"),
        ({"identifiers": {}, "customer_id": "old"}, "old"),
    ],
)
def test_who(who: dict[str, Any], user: str) -> None:
    assert one("opened", who).events[0].user_id == user


def test_bad_elements_are_rejects_and_lose_no_neighbour() -> None:
    bad = [hook("opened", timestamp="abc"), hook(""), {"metric": 3}, hook("sent", {"delivery_id": ""}), 7,
           hook("opened", {"identifiers": 4})]  # fmt: skip
    rows = parsed(ADAPTER, json.dumps([*bad, hook("opened", timestamp=str(AT))]).encode(), HEARD)
    assert len(rows.events) == 1
    assert len(rows.rejects) == len(bad)
    assert {r.reason for r in rows.rejects} <= {"bad_time", "missing_field", "bad_value", "not_an_object"}
    assert all(r.place.startswith("body 1") for r in rows.rejects)


@given(JSON, st.sampled_from(["metric", "timestamp", "data", "object_type", "event_id"]))
def test_any_json_is_a_row_a_count_or_a_reject(value: Any, field: str) -> None:
    for body in (value, hook("opened") | {field: value}, hook("sent", {"headers": value, "content": value})):
        parsed(ADAPTER, json.dumps(body).encode(), HEARD)


# ------------------------------------------------------------------------------------------ round trip


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows with everything that can be carried, on the grid of seconds."""
    pick, late = st.sampled_from, st.integers(0, 3 * 10**9)
    times = st.integers(0, 10**6).map(lambda s: START + s * SECOND)
    users, steps = pick(("u1", "ü:3", "cio:77")), pick(("T1", "T:2"))
    rows = Rows()
    for i in range(draw(st.integers(0, 4))):
        t = draw(times)
        variant = draw(pick(("A", "B:1", "control")))
        rows.sends.append(SendRow(f"s{i}", draw(users), draw(steps), variant, t, received_at=t + draw(late)))
    for i in range(draw(st.integers(0, 5))):
        kind = draw(pick(("conversion", "open", "click", "unsubscribe", "bounce", "drop", "spam", "delivery")))
        t, user = draw(times), draw(users)
        r = EventRow(f"e{i}", user, kind, t, "", t + draw(late), send_id=draw(pick(("", "s0", "s9"))))
        if kind == "conversion":
            value = draw(pick((MISSING, 0, 19_990_000, -5_000_001)))
            currency = draw(pick(("", "EUR"))) if value != MISSING else ""
            r = r._replace(name=draw(pick(("purchase", "ü 1"))), value=value, currency=currency,
                           order_id=draw(pick(("", "o1"))))  # fmt: skip
        elif kind in ("open", "click"):
            r = r._replace(machine=draw(pick((-1, 0, 1))))
        if not r.send_id and kind != "conversion":
            r = r._replace(template_id=draw(pick(("", "T1"))))
        rows.events.append(r)
    return rows


@given(tables())
def test_render_then_parse(rows: Rows) -> None:
    found, expected = carried(ADAPTER, rows), in_order(rows)
    assert [str(s) for s in found.sends] == [str(s) for s in expected.sends]
    assert found.events == expected.events


# ---------------------------------------------------------------------------------------------- export


def write(folder: Path, table: str, rows: list[dict[str, Any]], part: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{table}_v4_9_{part}.parquet")


def when(seconds: int = 0) -> datetime:
    return datetime.fromtimestamp(AT + seconds, UTC)


def delivery(n: int, **more: Any) -> dict[str, Any]:
    base = {"delivery_id": f"d{n}", "internal_customer_id": f"i{n}", "delivery_type": "email", "campaign_id": 7,
            "action_id": 70, "content_id": None, "seq_num": 1}  # fmt: skip
    return base | more


def metric(n: int, word: str, event: str, **more: Any) -> dict[str, Any]:
    return {"delivery_id": f"d{n}", "event_id": event, "metric": word, "created_at": when(), "seq_num": 1} | more


def export(folder: Path) -> None:
    """Three deliveries of one campaign: by header, by the arm of a split, by action; one engagement each."""
    who = ("i1", "u1", "a@b.test"), ("i2", None, "c@d.test")
    write(
        folder,
        "people",
        [dict(zip(("internal_customer_id", "customer_id", "email_addr"), w, strict=True)) for w in who],
    )
    write(folder, "deliveries", [delivery(1), delivery(2), delivery(3, campaign_id=1)])
    write(folder / "later", "deliveries", [delivery(3, seq_num=5)], 2)
    headers = json.dumps([{"name": "X-JW-Copy-Id", "value": "warm"}])
    write(folder, "delivery_contents", [{"delivery_id": "d1", "headers": headers, "body": ""}])
    write(folder, "outputs", [{"output_id": "o1", "delivery_id": "d2", "split_test_index": 1}])
    sent = [metric(n, "sent", f"m{n}") for n in (1, 2, 3)]
    write(folder, "metrics", [*sent, metric(1, "opened", "m4"), metric(2, "converted", "m5")])
    wide = metric(1, "clicked", "m6", link_url="https://e.test/", machine=True, prefetched=None)
    write(folder, "metrics", [wide, metric(1, "sent", "m1", seq_num=0, machine=None)], 2)
    write(folder, "subjects", [{"subject_name": "s"}])


def test_the_export_joins_its_tables(tmp_path: Path) -> None:
    export(tmp_path)
    rows = read_all(ADAPTER, tmp_path)
    sends = sorted(rows.sends)
    assert [(s.send_id, s.user_id, s.template_id, s.variant_id) for s in sends] == [
        ("d1", "u1", "7", "warm"), ("d2", "c@d.test", "7", "split:1"), ("d3", "cio:i3", "7", "70"),
    ]  # fmt: skip
    assert {s.sent_at for s in sends} == {START}
    assert sorted((e.event_id, e.kind, e.user_id, e.machine) for e in rows.events) == [
        ("m4", "open", "u1", -1), ("m6", "click", "u1", 1),
    ]  # fmt: skip
    assert rows.skipped == {"table: subjects": 1, "restated: email converted": 1}
    assert not rows.rejects


def test_times_of_an_export_in_other_types(tmp_path: Path) -> None:
    write(tmp_path, "deliveries", [delivery(1)])
    for i, t in enumerate((when().replace(tzinfo=None), AT, AT * 1000, when().isoformat())):
        write(tmp_path, "metrics", [metric(1, "opened", f"m{i}", created_at=t)], i)
    rows = read_all(ADAPTER, tmp_path)
    assert [e.occurred_at for e in rows.events] == [START] * 4


def test_bad_rows_and_files_of_an_export(tmp_path: Path) -> None:
    export(tmp_path)
    (tmp_path / "metrics_v4_9_8.parquet").write_bytes(b"PAR1 damaged")
    write(tmp_path, "people", [{"name": "x"}], 9)
    bad = metric(9, "sent", "m9"), metric(1, "", "m10"), metric(1, "opened", "m11", created_at=None)
    write(tmp_path, "metrics", list(bad), 7)
    rows = read_all(ADAPTER, tmp_path)
    assert (len(rows.sends), len(rows.events)) == (3, 2)
    assert sorted(r.reason for r in rows.rejects) == sorted(
        ["unreadable", "missing_field", "missing_field", "missing_field", "bad_time"]
    )
    with pytest.raises(DataError, match="Parquet"):
        list(ADAPTER.read(tmp_path / "later" / "nothing", None))


# --------------------------------------------------------------------------------------------- samples


def test_every_sample_is_read() -> None:
    for file in samples("customerio").rglob("*.jsonl"):
        rows = read_all(ADAPTER, file)
        assert len(rows) + rows.skipped.total() > 0
        assert not rows.rejects or "malformed" in file.name
    rows = read_all(ADAPTER, samples("customerio") / "parquet_handwritten")
    assert rows.sends
    assert rows.events
    assert not rows.rejects

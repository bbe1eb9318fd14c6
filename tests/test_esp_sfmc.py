"""Marketing Cloud: published shapes, quirks of bodies and extracts, hostile archives, render and parse."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.clock import MISSING, parse
from justai_sim.errors import DataError, UsageError
from justai_sim.esp import limits, sfmc_files
from justai_sim.esp.base import adapter
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.esp.sfmc import ADAPTER, DAY_FIRST, Sfmc
from tests.esp_rows import JSON, carried, in_order, parsed, read_all, text_log
from tests.samples import samples

START = parse("2026-03-01T00:00:00Z")
HEARD = START + 90_000_001
IDS = {"jobId": "31", "batchId": "7", "listId": "5", "subscriberId": "900"}
OPEN, CLICK, UNSUB, BOUNCE, SENT = (
    "EngagementEvents.EmailOpen", "EngagementEvents.EmailClick", "EngagementEvents.EmailUnsubscribe",
    "TransactionalSendEvents.EmailBounced", "TransactionalSendEvents.EmailSent",
)  # fmt: skip

HARD_ONLY = Sfmc(soft_bounces=False)


def event(category: str, info: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    e = {"eventCategoryType": category, "timestampUTC": START // 1000, "composite": IDS, "definitionKey": "NA"}
    return e | {"info": info or {}} | fields


def one(category: str, info: dict[str, Any] | None = None, esp: Sfmc = ADAPTER, **fields: Any) -> Rows:
    rows = parsed(esp, json.dumps([event(category, info, **fields)]).encode(), HEARD)
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == 1
    return rows


def test_the_registry_knows_it() -> None:
    assert adapter("sfmc") is ADAPTER
    assert adapter("sfmc-dmy") is DAY_FIRST
    ids = [ADAPTER.send_id(f"d{i:03d}", "u", "t", "v") for i in range(12)]
    assert ids == sorted(ids)
    assert ADAPTER.event_id("e1", "open", "") == "e1"


# ------------------------------------------------------------------------------------------- samples


def test_samples_are_read_whole() -> None:
    rows = read_all(ADAPTER, samples("sfmc"))
    assert not rows.rejects
    assert (len(rows.sends), len(rows.events)) == (19, 34)
    assert rows.skipped == {
        "file: SOURCES.md": 1, "file: SendJobs.csv": 3, "file: send_data.csv": 1, "verification": 1,
        "TransactionalSendEvents.EmailNotSent": 1,
    }  # fmt: skip
    folder = samples("sfmc")
    live = read_all(ADAPTER, folder / "ens_handwritten_batch.json")
    bulk = read_all(ADAPTER, folder / "tracking_extract_handwritten" / "tracking_utf8.zip")
    opens, same = ({e.event_id for e in r.events if e.kind == "open"} for r in (live, bulk))
    assert opens
    assert opens < same, "an open has the same id from the service and from an extract"


def test_the_encodings_of_the_sample_extract_are_equal() -> None:
    folder = samples("sfmc") / "tracking_extract_handwritten"
    wide, plain, loose = (
        read_all(ADAPTER, folder / n) for n in ("tracking_utf16le_bom.zip", "tracking_utf8.zip", "utf8")
    )
    assert wide.sends == plain.sends
    assert wide.events == plain.events
    assert set(loose.events) == set(plain.events)
    kinds = Counter(e.kind for e in wide.events)
    assert kinds == {"open": 4, "click": 2, "bounce": 1, "unsubscribe": 1, "conversion": 1}
    assert len({e.event_id for e in wide.events}) == 8
    assert parse("2025-01-01T00:30:00Z") in [s.sent_at for s in wide.sends]


# --------------------------------------------------------------------------------------------- bodies


def test_a_send_and_what_came_of_it() -> None:
    info = {"subscriberKey": "u1", "messageKey": "m-1|copy_id=A%201", "status": "Sent"}
    assert one(SENT, info, definitionKey="welcome").sends == [
        SendRow("31.7.900", "u1", "welcome", "A 1", START, received_at=HEARD)
    ]
    assert one(OPEN).events == [
        EventRow(f"31.7.900/open/{START // 10**6}", "", "open", START, received_at=HEARD, send_id="31.7.900")
    ]
    click = {"jobUrlId": "55", "contentLink": "https://x.example/?copy_id=B"}
    (e,) = one(CLICK, click).events
    page = hashlib.blake2b(b"x.example", digest_size=6).hexdigest()
    assert (e.kind, e.variant_id, e.event_id) == ("click", "B", f"31.7.900/click/{START // 10**6}/{page}")
    links = [one(CLICK, {"contentLink": f"https://x.example/{i}"}).events[0].event_id for i in (1, 2, 1)]
    assert links[0] == links[2] != links[1]
    (e,) = one(BOUNCE, {"subscriberKey": "u1", "bounceCode": "SOFT"}).events
    assert (e.kind, e.user_id, e.send_id) == ("bounce", "u1", "31.7.900")
    for info in ({"bounceCode": "SOFT"}, {"bounceCode": "SOFT", "eventId": "e"}):
        assert one(BOUNCE, info, HARD_ONLY).skipped == {"transient: soft bounce": 1}
    assert len(one(BOUNCE, {"bounceCode": "HARD"}, HARD_ONLY).events) == 1
    (e,) = one(UNSUB, {"unsubscribeDate": START // 1000 - 21_600_000}).events
    assert (e.kind, e.occurred_at) == ("unsubscribe", START)
    assert one(OPEN, {"userAgent": "Mozilla/5.0"}).events[0].machine == 1
    assert one(OPEN, {"userAgent": "Mozilla/5.0 (X11)"}).events[0].machine == -1


@pytest.mark.parametrize(
    ("order", "info", "key", "variant", "template"),
    [
        (None, {"messageKey": "copy_id=A"}, "K", "A", "K"), (None, {"messageKey": "plain-1"}, "K", "K", "K"),
        (None, {}, "NA", "31", "31"), (("job", "key"), {"messageKey": "copy_id:A"}, "K", "31", "K"),
        (None, {"messageKey": "m;copy_id:A;x"}, "NA", "A", "31"), (None, {"messageKey": "mycopy_id=A"}, "K", "K", "K"),
    ],
)  # fmt: skip
def test_where_variant_and_template_are(
    order: Any, info: dict[str, str], key: str, variant: str, template: str
) -> None:
    esp = Sfmc(variant_from=order) if order else ADAPTER
    (send,) = one(SENT, info, esp, definitionKey=key).sends
    assert (send.variant_id, send.template_id, send.user_id) == (variant, template, "sub:900")


def test_a_pattern_of_ones_own() -> None:
    esp = Sfmc(variant_from=("message_key",), copy_pattern=r"^arm-(\w+)-")
    assert one(SENT, {"messageKey": "arm-blue-01"}, esp).sends[0].variant_id == "blue"
    assert one(SENT, {"messageKey": "other"}, esp).rejects[0].reason == "missing_field"


def test_what_is_counted() -> None:
    assert one("TransactionalSendEvents.EmailNotSent").skipped == {"TransactionalSendEvents.EmailNotSent": 1}
    assert one("New.Thing").skipped == {"New.Thing": 1}
    nobody = IDS | {"jobId": "0"}
    assert one(UNSUB, composite=nobody).skipped == {"administrative unsubscribe": 1}
    (e,) = one(UNSUB, None, Sfmc(administrative=True), composite=nobody).events
    assert (e.user_id, e.send_id) == ("sub:900", "")
    rows = parsed(ADAPTER, b'{"callbackId": "c", "verificationKey": "k"}', HEARD)
    assert (rows.skipped, len(rows)) == ({"verification": 1}, 0)
    assert len(parsed(ADAPTER, json.dumps(event(OPEN)).encode())) == 1, "one event without an array"
    assert not parsed(ADAPTER, b" ").rejects


def test_a_row_of_the_plain_log_among_events() -> None:
    order = {"event_id": "o", "user_id": "u", "kind": "conversion", "name": "purchase", "value": 19.99,
             "occurred_at": START}  # fmt: skip
    rows = parsed(ADAPTER, json.dumps([event(OPEN), order, {"table": "events"}]).encode(), HEARD)
    assert rows.events[1] == EventRow("o", "u", "conversion", START, "purchase", HEARD, 19_990_000)
    assert [(r.place, r.reason) for r in rows.rejects] == [("body 1: [2]", "missing_value")]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (7, "bad_value"), ({}, "missing_field"), ({"eventCategoryType": [1]}, "bad_value"),
        (event(OPEN, timestampUTC="soon"), "bad_time"), (event(OPEN, timestampUTC=START // 10**6), "bad_time"),
        (event(OPEN, composite=None), "missing_field"), (event(OPEN, composite=[1]), "bad_value"),
        (event(OPEN, composite={"jobId": "0"}), "missing_field"), (event(SENT, composite={}), "missing_field"),
        (event(OPEN) | {"info": 3}, "bad_value"),
    ],
)  # fmt: skip
def test_a_bad_element_loses_no_other(bad: Any, why: str) -> None:
    rows = parsed(ADAPTER, json.dumps([event(OPEN), bad, event(OPEN)]).encode(), HEARD)
    assert len(rows.events) == 2
    assert [(r.place, r.reason) for r in rows.rejects] == [("body 1: [1]", why)]


@given(st.data())
def test_nothing_in_a_body_is_fatal(data: st.DataObject) -> None:
    keys = ["subscriberKey", "messageKey", "jobUrlId", "contentLink", "userAgent", "eventId"]
    ids = st.dictionaries(st.sampled_from(list(IDS)), JSON | st.sampled_from(["1", "0"]))
    odd = st.fixed_dictionaries(
        {"eventCategoryType": st.sampled_from([OPEN, CLICK, UNSUB, BOUNCE, SENT]) | JSON},
        optional={"timestampUTC": st.just(START // 1000) | JSON, "composite": st.just(IDS) | ids | JSON,
                  "info": st.dictionaries(st.sampled_from(keys), JSON) | JSON, "definitionKey": JSON},
    )  # fmt: skip
    items = data.draw(st.lists(odd | st.integers(), max_size=4))
    rows = parsed(ADAPTER, json.dumps(items).encode(), HEARD)
    assert len(rows) + len(rows.rejects) + sum(rows.skipped.values()) == len(items)


# ------------------------------------------------------------------------------------------- extracts

HEAD = (
    "ClientID,SendID,SubscriberKey,EmailAddress,SubscriberID,ListID,EventDate,EventType,BatchID,"
    "TriggeredSendExternalKey"
)


def line(user: str = "u1", sub: str = "900", at: str = "3/1/2026 9:00:00 AM", job: str = "31", key: str = "K") -> str:
    return f"1,{job},{user},a@x.example,{sub},5,{at},X,7,{key}"


def table(*lines: str, head: str = HEAD) -> str:
    return "\r\n".join([head, *lines]) + "\r\n"


def test_files_and_their_kinds(tmp_path: Path) -> None:
    kinds = {"Sent": "", "Opens": "open", "Clicks": "click", "Bounces": "bounce", "Unsubs": "unsubscribe",
             "Complaints": "spam", "Conversions": "conversion"}  # fmt: skip
    for name in (*kinds, "NotSent", "SendJobs", "Subscribers"):
        (tmp_path / f"{name}.csv").write_text(table(line()))
    rows = read_all(ADAPTER, tmp_path)
    assert not rows.rejects
    assert rows.sends == [SendRow("31.7.900", "u1", "K", "K", parse("2026-03-01T15:00:00Z"))]
    assert sorted(e.kind for e in rows.events) == sorted(k for k in kinds.values() if k)
    assert {(e.user_id, e.send_id) for e in rows.events} == {("u1", "31.7.900")}
    assert rows.skipped == {"NotSent": 1, "file: SendJobs.csv": 1, "file: Subscribers.csv": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", "\t", "|"])
def test_encodings_and_delimiters(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = table(line("Zoë"), line("u2", "901"), line('"a, b"'.replace(",", delimiter), "902"))
    body = text.replace(",", delimiter) if delimiter != "," else text
    (tmp_path / "Sent.csv").write_bytes(body.encode(encoding))
    rows = read_all(ADAPTER, tmp_path)
    assert not rows.rejects
    assert [s.user_id for s in rows.sends] == ["Zoë", "u2", f"a{delimiter} b"]


def test_a_byte_order_mark_of_the_other_order(tmp_path: Path) -> None:
    (tmp_path / "Sent.csv").write_bytes(b"\xfe\xff" + table(line("Zoë")).encode("utf-16-be"))
    assert read_all(ADAPTER, tmp_path).sends[0].user_id == "Zoë"


@pytest.mark.parametrize(
    ("written", "zone", "instant"),
    [
        ("7/15/2026 9:00:00 AM", None, "2026-07-15T15:00:00Z"), ("1/15/2026 12:05:00 AM", None, "2026-01-15T06:05:00Z"),
        ("1/15/2026 12:05:00 PM", None, "2026-01-15T18:05:00Z"),
        ("1/15/2026 9:00:00 PM", "UTC-7", "2026-01-16T04:00:00Z"),
        ("7/15/2026 9:00:00 AM", "Europe/Berlin", "2026-07-15T07:00:00Z"),
        ("1/15/2026 21:00", "+05:30", "2026-01-15T15:30:00Z"),
        ("2026-01-15 09:00:00", None, "2026-01-15T15:00:00Z"), ("2026-01-15T09:00:00Z", None, "2026-01-15T09:00:00Z"),
    ],
)  # fmt: skip
def test_times(tmp_path: Path, written: str, zone: str | None, instant: str) -> None:
    (tmp_path / "Sent.csv").write_text(table(line(at=written)))
    assert read_all(ADAPTER, tmp_path, zone).sends[0].sent_at == parse(instant)


@pytest.mark.parametrize("bad", ["", "31/1/2026 9:00:00 AM", "1/1/2026 13:00:00 PM", "1/1/1926 1:00:00 AM", "soon"])
def test_bad_times(tmp_path: Path, bad: str) -> None:
    (tmp_path / "Sent.csv").write_text(table(line(), line(at=bad), line()))
    rows = read_all(ADAPTER, tmp_path)
    assert len(rows.sends) == 2
    assert [(r.place, r.reason) for r in rows.rejects] == [("Sent.csv:3", "bad_time")]


def test_switches(tmp_path: Path) -> None:
    (tmp_path / "Sent.csv").write_text(table(line(at="31/1/2026 9:00:00 AM")))
    assert read_all(DAY_FIRST, tmp_path).sends[0].sent_at == parse("2026-01-31T15:00:00Z")
    with pytest.raises(UsageError, match="YMD"):
        Sfmc(date_format="YMD")
    with pytest.raises(UsageError, match="colour"):
        Sfmc(variant_from=("colour",))
    for zone in ("Mars/Base", "UTC-99"):
        with pytest.raises(UsageError, match=zone):
            read_all(ADAPTER, tmp_path, zone)
    (tmp_path / "Unsubs.csv").write_text(table(line(job="0")))
    assert read_all(ADAPTER, tmp_path).skipped["administrative unsubscribe"] == 1
    assert read_all(Sfmc(administrative=True), tmp_path).events[0].user_id == "u1"
    bounces = [line() + f",{told}" for told in ("Hard bounce", "Soft bounce", "Block bounce", "")]
    (tmp_path / "Bounces.csv").write_text(table(*bounces, head=HEAD + ",BounceCategory"))
    assert sum(e.kind == "bounce" for e in read_all(ADAPTER, tmp_path).events) == 4
    rows = read_all(HARD_ONLY, tmp_path)
    assert sum(e.kind == "bounce" for e in rows.events) == 3
    assert rows.skipped["transient: soft bounce"] == 1
    (tmp_path / "Bounces.csv").unlink()
    head = HEAD + ",OrderTotal"
    (tmp_path / "Sent.csv").unlink()
    (tmp_path / "Conversions.csv").write_text(table(line() + ",12.50", line() + ",free", head=head))
    rows = read_all(Sfmc(amount_column="OrderTotal"), tmp_path)
    assert [e.value for e in rows.events if e.kind == "conversion"] == [12_500_000]
    assert [r.reason for r in rows.rejects] == ["bad_number"]


def test_data_views_and_clicks(tmp_path: Path) -> None:
    head = "EventDate,JobID,ListID,BatchID,SubscriberID,SubscriberKey,URL,LinkName,TriggeredSendCustomerKey"
    row = '3/1/2026 9:00:00 AM,31,5,7,900,u1,"https://x.example/?a=1,2&copy_id=C",go,K'
    (tmp_path / "_Click.csv").write_text(
        table(row, row, row.replace("a=1", "a=3"), row.replace("example/", "example/b"), head=head)
    )
    (tmp_path / "_Job.csv").write_text("JobID,EmailID\n31,1\n")
    rows = read_all(ADAPTER, tmp_path)
    assert [(e.kind, e.send_id, e.variant_id) for e in rows.events] == [("click", "31.7.900", "C")] * 4
    assert len({e.event_id for e in rows.events}) == 2  # by page, not by query


def test_kinds_by_the_column_where_the_name_tells_nothing(tmp_path: Path) -> None:
    good = [line().replace(",X,", f",{word},") for word in ("Sent", "Open", "Click", "Complaint", "Survey")]
    (tmp_path / "export.csv").write_text(table(*good))
    rows = read_all(ADAPTER, tmp_path)
    assert (len(rows.sends), [e.kind for e in rows.events]) == (1, ["open", "click", "spam"])
    assert rows.skipped == {"EventType Survey": 1}


def test_the_send_log_gives_the_variant_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "Sent.csv").write_text(table(line(), line("u2", "901"), line("u3", "902", key="")))
    (tmp_path / "bodies.json").write_text(json.dumps([event(SENT, {"subscriberKey": "u1"}, definitionKey="K")]))
    (tmp_path / "zz_log.csv").write_text(
        "JobID,ListID,BatchID,SubID,Copy ID\n31,5,7,900,A\n31,5,7,901,B\n31,5,8,902,C\n,,,,\n"
    )
    rows = read_all(ADAPTER, tmp_path)
    assert {(s.user_id, s.variant_id) for s in rows.sends} == {("u1", "A"), ("u2", "B"), ("u3", "31")}
    assert len(rows.sends) == 4
    assert [(r.place, r.reason) for r in rows.rejects] == [("zz_log.csv:5", "missing_field")]
    assert rows.notes["variant_from_send_log"] == 3
    (tmp_path / "zz_log.csv").write_text("JobID,SubscriberID,copy_id\n31,902,D\n")
    assert ("u3", "D") in {(s.user_id, s.variant_id) for s in read_all(ADAPTER, tmp_path).sends}


def test_overlapping_extracts_are_copies(tmp_path: Path) -> None:
    for day in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{day}.zip", "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("Opens.csv", table(line(), line()).encode("utf-16"))
    rows = read_all(ADAPTER, tmp_path)
    assert len(rows.events) == 4
    assert len({e.event_id for e in rows.events}) == 1
    at = rows.events[0].occurred_at // 1000
    body = json.dumps(event(OPEN, timestampUTC=at)).encode()
    assert parsed(ADAPTER, body).events[0].event_id == rows.events[0].event_id, "the same from the service"


def test_bad_rows_lose_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sfmc_files, "LINE", 500)
    bad = [line() + ",more", 'a,"never closed', line("x" * 600), line("", ""), line(job="")]
    (tmp_path / "Sent.csv").write_text(table(line(), *bad, line("u2")))
    rows = read_all(ADAPTER, tmp_path)
    assert [s.user_id for s in rows.sends] == ["u1", "u2"]
    assert sorted((r.place, r.reason) for r in rows.rejects) == [
        ("Sent.csv:3", "field_count"), ("Sent.csv:4", "field_count"), ("Sent.csv:5", "line_too_long"),
        ("Sent.csv:6", "missing_field"), ("Sent.csv:7", "missing_field"),
    ]  # fmt: skip


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justai_sim.esp.rows.BATCH", 100)
    (tmp_path / "Opens.csv").write_text(table(*[line()] * 250))
    assert [len(b) for b in ADAPTER.read(tmp_path, None)] == [100, 100, 50]
    (tmp_path / "Opens.csv").write_text(table(*["a,b"] * 250))
    (tmp_path / "log.csv").write_text("JobID,SubID,copy_id\n" + ",,\n" * 250)
    assert max(len(b.rejects) for b in ADAPTER.read(tmp_path, None)) == 100


def test_a_table_without_dates_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "Sent.csv").write_text("SendID,SubscriberKey\n1,u\n")
    (tmp_path / "Opens.csv").write_text("")
    rows = read_all(ADAPTER, tmp_path)
    assert [(r.place, r.reason) for r in rows.rejects] == [("Sent.csv", "missing_column")]
    assert rows.skipped == {"file: Opens.csv": 1}


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"found notes\.txt; expected an extract"):
        read_all(ADAPTER, tmp_path)


# ----------------------------------------------------------------------------------- hostile archives


def zipped(path: Path, members: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, text in members.items():
            z.writestr(name, text)
    return path


@pytest.mark.parametrize(
    "name", ["../Opens.csv", "/etc/Opens.csv", "a/../../Opens.csv", "..\\Opens.csv", "C:\\Opens.csv"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    rows = read_all(ADAPTER, zipped(tmp_path / "a.zip", {name: table(line()), "Sent.csv": table(line())}))
    assert (len(rows.sends), len(rows.events)) == (1, 0)
    assert [r.reason for r in rows.rejects] == ["zip_unsafe_name"]


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FLOOR", 1 << 17)
    zeros = table(line()) + "\n" * 30_000_000
    rows = read_all(ADAPTER, zipped(tmp_path / "a.zip", {"Opens.csv": zeros}))
    assert len(rows.events) == 1
    assert [r.reason for r in rows.rejects] == ["zip_too_large"]
    monkeypatch.setattr(sfmc_files, "MEMBERS", 3)
    many = zipped(tmp_path / "b.zip", {f"{i}/Opens.csv": "" for i in range(4)})
    assert [r.reason for r in read_all(ADAPTER, many).rejects] == ["zip_too_large"]


def test_archives_in_archives_and_encrypted_members(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "in.zip", {"Opens.csv": table(line())}).read_bytes()
    (tmp_path / "in.zip").unlink()
    path = zipped(tmp_path / "a.zip", {"Sent.csv": table(line()), "in.zip": inner})
    rows = read_all(ADAPTER, path)
    assert rows.skipped == {"file: archive in an archive (in.zip)": 1}
    assert not rows.events
    data = bytearray(zipped(path, {"Opens.csv": table(line())}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    path.write_bytes(data)
    (reject,) = read_all(ADAPTER, path).rejects
    assert reject.reason == "zip_encrypted"


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 no archive")
    assert [r.reason for r in read_all(ADAPTER, path).rejects] == ["bad_zip"]
    noisy = table(*[line(f"u{i * i}", str(i + 1)) for i in range(20_000)])
    data = bytearray(zipped(path, {"Opens.csv": noisy, "Sent.csv": table(line())}).read_bytes())
    data[60_000:60_050] = b"\xff" * 50
    path.write_bytes(data)
    rows = read_all(ADAPTER, path)
    assert len(rows.sends) == 1
    assert "truncated_file" in [r.reason for r in rows.rejects]


@given(st.binary(max_size=60))
def test_no_bytes_in_a_file_are_fatal(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    folder = tmp_path_factory.mktemp("x")
    (folder / "Sent.csv").write_bytes(table(line()).encode() + body)
    assert len(read_all(ADAPTER, folder).sends) >= 1


# ----------------------------------------------------------------------------------------- round trip

USERS = ("u1", "u2", "ü:3", "a.b|c")
STEPS = ("T1", "T:2", "welcome 3")


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows with everything that bodies can carry, on the grids of time and money."""
    pick = st.sampled_from
    times, late = st.integers(0, 10**6).map(lambda s: START + s * 1_000_000), st.integers(0, 3 * 10**9)
    rows = Rows()
    for i in range(draw(st.integers(0, 4))):
        user, step, t = draw(pick(USERS)), draw(pick(STEPS)), draw(times)
        variant = draw(pick(("A", "B:1", "c|d e&f%", "ü")))
        send = ADAPTER.send_id(f"d{i:06d}", user, step, variant)
        rows.sends.append(SendRow(send, user, step, variant, t, received_at=draw(pick([MISSING, t + draw(late)]))))
    for i in range(draw(st.integers(0, 6))):
        user, t = draw(pick(USERS)), draw(times)
        kind = draw(pick(["conversion", "open", "click", "unsubscribe", "bounce", "spam", "delivery", "drop"]))
        named = draw(pick([ADAPTER.send_id(f"d{i:06d}", user, "", ""), ""]))
        e = EventRow(f"e{i:06d}", user, kind, t, received_at=t + draw(late), send_id=named)
        if kind == "conversion":
            value = draw(st.integers(-(10**8), 10**8).map(lambda c: c * 10_000) | st.just(MISSING))
            e = e._replace(name=draw(pick(["purchase", "Signed Up"])), value=value, currency=draw(pick(["EUR", ""])),
                           order_id=draw(pick(["", "o1"])))  # fmt: skip
        elif kind not in ("open", "click", "unsubscribe", "bounce") or not named:
            e = e._replace(template_id=draw(pick(["", *STEPS])), machine=draw(pick([1, 0, -1])))
        elif kind != "bounce":
            e = e._replace(user_id="", machine=-1 if kind == "unsubscribe" else draw(pick([1, -1])),
                           variant_id=draw(pick(["", "B&1"])) if kind == "click" else "")  # fmt: skip
        rows.events.append(e)
    return rows


@given(tables())
def test_render_then_parse(rows: Rows) -> None:
    found, expected = carried(ADAPTER, rows), in_order(rows)
    assert [str(s) for s in found.sends] == [str(s) for s in expected.sends]
    assert found.events == expected.events


def test_a_ghost_send_is_no_send() -> None:
    send = ADAPTER.send_id("d1", "u", "T", "held")
    rows = Rows([SendRow(send, "u", "T", "held", START, status="held_out")])
    ((_, body),) = ADAPTER.render(text_log(rows))
    assert parsed(ADAPTER, body).skipped == {"TransactionalSendEvents.EmailNotSent": 1}

"""The plain log: every column, every format, and every way in which a line can be wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim import clock
from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.esp.base import adapter
from justai_sim.esp.coding import auto_id, build, listed, rows_of
from justai_sim.esp.generic import ADAPTER
from justai_sim.esp.plain import Where, append
from justai_sim.esp.rows import EventRow, Rows, SendRow
from tests.log_rows import all_rows, same, times

T0 = clock.parse("2026-01-05T00:00:00Z")
SENDS = "send_id,user_id,template_id,variant_id,sent_at\ns1,u1,welcome,a,2026-01-05T00:00:00Z\n"
EVENTS = "event_id,user_id,kind,occurred_at,received_at,value\n"
GOOD = "e1,u1,conversion,2026-01-15T00:00:00Z,2026-01-15T00:00:00Z,19.99\n"


def folder(tmp: Path, events: str | bytes = EVENTS + GOOD, sends: str = SENDS, name: str = "events.csv") -> Path:
    (tmp / "sends.csv").write_text(sends)
    data = events.encode() if isinstance(events, str) else events
    (tmp / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return tmp


def read(path: Path, timezone: str | None = None) -> Rows:
    out = Rows()
    for batch in map(listed, ADAPTER.read(path, timezone)):
        for name in ("sends", "events", "decisions", "rejects"):
            getattr(out, name).extend(getattr(batch, name))
        out.notes.update(batch.notes)
    return out


def test_all_columns_of_a_csv(tmp_path: Path) -> None:
    folder(
        tmp_path,
        "event_id,user_id,kind,occurred_at,name,received_at,value,currency,send_id,order_id,template_id,variant_id,machine\n"
        "e1,u1,conversion,1767571200000000,purchase,2026-01-05T01:00:00+01:00,-0.0000005,EUR,s1,o1,t,v,\n"
        "e2,u1,open,2026-01-05T00:00:00.123456789Z,,2026-01-06T00:00:00Z,,,,,,,true\n",
        "send_id,user_id,template_id,variant_id,sent_at,delivered_at,status,status_known_at,received_at,"
        "propensity,segment,decided_at,colour\n"
        "s1,u1,t,v,2026-01-05T00:00:00Z,,Bounced,2026-01-06T00:00:00Z,2026-01-05T00:00:01Z,0.25,west,"
        "2026-01-04T23:59:59Z,red\n",
    )
    (tmp_path / "decisions.csv").write_text(
        "decision_id,user_id,template_id,variant_id,decided_at,mode\nd1,u1,t,v,2026-01-04T23:59:59Z,sticky\n"
    )
    rows = read(tmp_path)
    assert rows.rejects == []
    assert rows.events == [
        EventRow("e1", "u1", "conversion", T0, "purchase", T0, 0, "EUR", "s1", "o1", "t", "v", -1),
        EventRow("e2", "u1", "open", T0 + 123456, received_at=T0 + clock.DAY, machine=1),
    ]
    assert rows.sends == [
        SendRow("s1", "u1", "t", "v", T0, MISSING, "bounced", T0 + clock.DAY, T0 + clock.SECOND,
                T0 - clock.SECOND, 0.25, "west")
    ]  # fmt: skip
    assert rows.decisions[0][:5] == ("d1", "u1", "t", "v", T0 - clock.SECOND)
    assert rows.decisions[0].mode == "sticky"
    assert not rows.notes


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz", "events.ndjson", "events.jsonl.gz", "events.parquet"])
def test_every_format_reads_the_same(tmp_path: Path, name: str) -> None:
    records = [
        {"event_id": f"e{i}", "user_id": "u1", "kind": "click", "occurred_at": t, "value": v}
        for i, (t, v) in enumerate([("2026-01-05T00:00:00Z", "1"), ("2026-01-06T01:00:00+01:00", "2.5")])
    ]
    if "csv" in name:
        text = io.StringIO()
        w = csv.DictWriter(text, list(records[0]))
        w.writeheader()
        w.writerows(records)
        folder(tmp_path, text.getvalue(), name=name)
    elif "parquet" in name:
        folder(tmp_path)
        (tmp_path / "events.csv").unlink()
        pq.write_table(pa.Table.from_pylist(records), tmp_path / name)
    else:
        folder(tmp_path, "".join(json.dumps(r) + "\n" for r in records), name=name)
    rows = read(tmp_path)
    assert [(e.event_id, e.occurred_at, e.value) for e in rows.events] == [
        ("e0", T0, 1_000_000),
        ("e1", T0 + clock.DAY, 2_500_000),
    ]
    assert rows.notes["events without received_at (occurred_at is used)"] == 2


def test_parquet_types(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "events.csv").unlink()
    times = pa.array([T0 * 1000 + 999], pa.timestamp("ns", "Europe/Berlin"))
    table = pa.table(
        {
            "event_id": pa.array([7]),
            "user_id": pa.array(["u"]).dictionary_encode(),
            "kind": ["conversion"],
            "occurred_at": times,
            "received_at": pa.array([T0]),
            "value": pa.array([Decimal("19.99")], pa.decimal128(10, 2)),
            "machine": [False],
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    assert read(tmp_path).events == [EventRow("7", "u", "conversion", T0, "", T0, 19_990_000, machine=0)]
    pq.write_table(table.set_column(5, "value", pa.array([19.99])), tmp_path / "events.parquet")
    assert read(tmp_path).events[0].value == 19_990_000


def test_naive_parquet_needs_a_zone(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "events.csv").unlink()
    table = pa.table(
        {"event_id": ["e"], "user_id": ["u"], "kind": ["open"], "occurred_at": pa.array([T0], pa.timestamp("us"))}
    )
    pq.write_table(table, tmp_path / "events.parquet")
    with pytest.raises(DataError, match=r"events\.parquet: occurred_at .* --timezone"):
        read(tmp_path)
    assert read(tmp_path, "Europe/Berlin").events[0].occurred_at == T0 - clock.HOUR


def test_damaged_parquet(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "events.csv").unlink()
    (tmp_path / "events.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"events\.parquet: not a Parquet file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        ("e,u,conversion,2026-01-15T00:00:00Z", "field_count", "found 4 fields, expected 6"),
        ("e,u,conversion,yesterday,,", "bad_time", "occurred_at: found 'yesterday', expected ISO-8601"),
        ("e,u,conversion,2026-01-15T00:00:00,,", "naive_time", "--timezone"),
        ("e,u,conversion,2101-01-15T00:00:00Z,,", "time_range", "1970..2100"),
        ("e,u,conversion,99999999999999999999,,", "time_range", "1970..2100"),
        ("e,u,conversion,-5,,", "time_range", "1970..2100"),
        ("e,u,conversion,,,", "missing_value", "occurred_at"),
        ("e,u,konversion,2026-01-15T00:00:00Z,,", "unknown_kind", "did you mean 'conversion'?"),
        ("e,u,,2026-01-15T00:00:00Z,,", "missing_value", "kind"),
        ("e,u,conversion,2026-01-15T00:00:00Z,,12 USD", "bad_number", "value: found '12 USD'"),
        ("e,u,conversion,2026-01-15T00:00:00Z,,1_000", "bad_number", "value"),
        ("e,u,conversion,2026-01-15T00:00:00Z,,1e300", "bad_number", "value"),
        ("e,u,conversion,2026-01-15T00:00:00Z,,nan", "bad_number", "value"),
    ],
)
def test_a_bad_line_is_a_reject_and_its_neighbours_stay(tmp_path: Path, line: str, reason: str, said: str) -> None:
    rows = read(folder(tmp_path, EVENTS + GOOD + line + "\n" + GOOD.replace("e1", "e2")))
    assert [e.event_id for e in rows.events] == ["e1", "e2"]
    (r,) = rows.rejects
    assert (r.place, r.reason, r.raw) == ("events.csv:3", reason, line)
    assert said in r.message


@pytest.mark.parametrize(
    ("column", "value", "reason", "said"),
    [
        ("status", "bouncd", "unknown_status", "did you mean 'bounced'?"),
        ("propensity", "1.5", "bad_number", "from 0 to 1"),
        ("delivered_at", "soon", "bad_time", "delivered_at"),
    ],
)
def test_bad_values_of_sends(tmp_path: Path, column: str, value: str, reason: str, said: str) -> None:
    head, first = SENDS.splitlines()
    folder(tmp_path, sends=f"{head},{column}\n{first},\n{first.replace('s1', 's2')},{value}\n")
    rows = read(tmp_path)
    assert [s.send_id for s in rows.sends] == ["s1"]
    assert rows.rejects[0][:2] == ("sends.csv:3", reason)
    assert said in rows.rejects[0].message


def test_bad_flag_and_mode() -> None:
    rows = Rows()
    good = {"user_id": "u", "kind": "open", "occurred_at": T0}
    for machine in (True, "FALSE", 1, "0", "", None, "maybe", 2):
        ADAPTER.parse(json.dumps(good | {"machine": machine}).encode(), rows, "p", T0)
    assert [e.machine for e in rows.events] == [1, 0, 1, 0, -1, -1]
    assert [r.reason for r in rows.rejects] == ["bad_flag"] * 2
    body = {"table": "decisions", "decision_id": "d", "user_id": "u", "template_id": "t", "variant_id": "v"}
    ADAPTER.parse(json.dumps(body | {"decided_at": T0, "mode": "stick"}).encode(), rows, "p", T0)
    assert rows.rejects[-1].reason == "unknown_mode"


def test_line_numbers_survive_quoted_newlines_and_blank_lines(tmp_path: Path) -> None:
    text = EVENTS + '"e\n1",u1,open,2026-01-15T00:00:00Z,,\n\n  \nbad\n' + '"x\ny",u,nope,2026-01-15T00:00:00Z,,\n'
    rows = read(folder(tmp_path, text))
    assert [e.event_id for e in rows.events] == ["e\n1"]
    assert [r.place for r in rows.rejects] == ["events.csv:6", "events.csv:7"]
    assert rows.rejects[1].raw == '"x\ny",u,nope,2026-01-15T00:00:00Z,,'


def test_a_stray_quote_costs_one_line(tmp_path: Path) -> None:
    lines = [GOOD.replace("e1", f"e{i}") for i in range(3000)]
    lines[7] = '"' + lines[7]
    rows = read(folder(tmp_path, EVENTS + "".join(lines)))
    assert len(rows.events) == 2999
    assert [(r.place, r.reason) for r in rows.rejects] == [("events.csv:9", "field_count")]


@pytest.mark.parametrize("line", ["{", "[1]", '"x"', '{"kind": NaN}', "[" * 5000])
def test_a_bad_json_line(tmp_path: Path, line: str) -> None:
    good = '{"event_id": "", "user_id": 5, "kind": "open", "occurred_at": "2026-01-05T00:00:00Z"}'
    rows = read(folder(tmp_path, f"{good}\n\n{line}\n{good}\n", name="events.ndjson"))
    assert [e.user_id for e in rows.events] == ["5", "5"]
    assert [(r.place, r.reason) for r in rows.rejects] == [("events.ndjson:3", "bad_json")]


def test_a_key_absent_from_one_json_line(tmp_path: Path) -> None:
    good = '{"event_id": "e", "user_id": "u", "kind": "open", "occurred_at": "2026-01-05T00:00:00Z"}'
    rows = read(folder(tmp_path, f'{good}\n{{"event_id": "e", "kind": "open", "user_id": "u"}}\n', name="events.json"))
    assert (len(rows.events), rows.rejects[0].reason) == (1, "missing_value")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    rows = read(folder(tmp_path, EVENTS.encode() + b"e,caf\xe9,open,2026-01-15T00:00:00Z,,\n" + GOOD.encode()))
    assert [e.event_id for e in rows.events] == ["e1"]
    assert rows.rejects[0].reason == "bad_encoding"
    rows.rejects[0].raw.encode()


def test_utf16_by_its_byte_order_mark(tmp_path: Path) -> None:
    rows = read(folder(tmp_path, (EVENTS + GOOD).encode("utf-16")))
    assert [e.event_id for e in rows.events] == ["e1"]
    assert not rows.rejects


def test_byte_order_mark_crlf_and_semicolons(tmp_path: Path) -> None:
    text = "\ufeff" + (EVENTS + GOOD).replace(",", ";").replace("\n", "\r\n")
    assert [e.value for e in read(folder(tmp_path, text)).events] == [19_990_000]


def test_a_truncated_gzip_keeps_the_rows_before(tmp_path: Path) -> None:
    lines = [f"e{i},u{i * 7919 % 1000},open,{T0 + i * 1_234_567},{T0 + i * 1_234_567},\n" for i in range(20_000)]
    folder(tmp_path, EVENTS + "".join(lines), name="events.csv.gz")
    whole = (tmp_path / "events.csv.gz").read_bytes()
    (tmp_path / "events.csv.gz").write_bytes(whole[: len(whole) // 2])
    rows = read(tmp_path)
    assert 1000 < len(rows.events) < 20_000
    assert [e.event_id for e in rows.events] == [f"e{i}" for i in range(len(rows.events))]
    assert [r.reason for r in rows.rejects] == ["truncated_gzip"]
    assert rows.rejects[0].place == f"events.csv.gz:{len(rows.events) + 2}"
    (tmp_path / "events.csv.gz").write_bytes(b"event_id,user_id")
    with pytest.raises(DataError, match="damaged gzip"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (EVENTS.replace("occurred_at", "occured_at") + GOOD, r"'occurred_at' of events is missing.*'occured_at' meant"),
        ("", "events.csv: column 'event_id' of events is missing; found no column"),
        ("event_id,user_id,user_id,kind,occurred_at\n", "'user_id' is there twice"),
    ],
)  # fmt: skip
def test_missing_columns(tmp_path: Path, events: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(folder(tmp_path, events))


def test_a_near_miss_of_an_optional_column_is_noted(tmp_path: Path) -> None:
    rows = read(folder(tmp_path, EVENTS.replace("received_at", "recieved_at") + GOOD))
    assert any("'recieved_at' is not read; is it 'received_at'?" in n for n in rows.notes)


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "send.csv").write_text(SENDS)
    with pytest.raises(DataError, match=r"found send\.csv; expected sends\.parquet"):
        read(tmp_path)


def test_only_naive_times_is_one_error(tmp_path: Path) -> None:
    text = EVENTS + GOOD.replace("Z", "") * 100
    with pytest.raises(DataError, match=r"nothing could be read.*events\.csv:2: occurred_at.*--timezone"):
        read(folder(tmp_path, text))
    assert read(tmp_path, "America/New_York").events[0].occurred_at == clock.parse("2026-01-15T05:00:00Z")


def test_several_files_of_a_table(tmp_path: Path) -> None:
    folder(tmp_path, name="events-1.csv")
    (tmp_path / "events-2.csv").write_text(EVENTS + GOOD.replace("e1", "e2"))
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "part.ndjson").write_text(
        '{"event_id": "e3", "user_id": "u", "kind": "open", "occurred_at": 5}\n'
    )
    rows = read(tmp_path)
    assert sorted(e.event_id for e in rows.events) == ["e1", "e2", "e3"]
    assert any("before 1971" in n for n in rows.notes)


def test_an_event_without_id_gets_a_stable_one(tmp_path: Path) -> None:
    text = EVENTS + ",u,open,2026-01-15T00:00:00Z,2026-01-15T00:00:00Z,\n" * 2 + ",u,open,2026-01-15T00:00:01Z,,\n"
    ids = [e.event_id for e in read(folder(tmp_path, text)).events]
    assert ids[0] == ids[1] != ids[2]
    assert all(len(i) == 25 and i.startswith("auto:") for i in ids)
    assert auto_id(EventRow("", "u", "open", T0 + 10 * clock.DAY, received_at=3)) == ids[0]


def test_webhook_bodies() -> None:
    rows = Rows()
    one = {"event_id": "e1", "user_id": "u", "kind": "open", "occurred_at": T0}
    ADAPTER.parse(json.dumps(one).encode(), rows, "7", T0 + 5)
    ADAPTER.parse(json.dumps([one, 3, one | {"received_at": T0 + 9}]).encode(), rows, "8", T0 + 6)
    ADAPTER.parse(b'{"table": "send"}\nnonsense\n' + json.dumps(one).encode(), rows, "9", T0 + 7)
    ADAPTER.parse(b"\xff", rows, "10", T0)
    assert [e.received_at for e in rows.events] == [T0 + 5, T0 + 6, T0 + 9, T0 + 7]
    assert [(r.place, r.reason) for r in rows.rejects] == [
        ("8[1]", "bad_json"),
        ("9:1", "unknown_table"),
        ("9:2", "bad_json"),
        ("10", "bad_json"),
    ]
    assert "did you mean 'sends'?" in rows.rejects[1].message


# --- properties -------------------------------------------------------------------------------------------------


@given(all_rows)
def test_parse_of_render_is_the_log(rows: Rows) -> None:
    log = build([rows])
    back = Rows()
    last = 0
    for received, body in ADAPTER.render(log):
        assert received >= last
        last = received
        ADAPTER.parse(body, back, "x", received)
    assert back.rejects == []
    assert same(back, rows_of(log))
    assert same(rows_of(build([back])), rows_of(log))


@given(st.lists(st.one_of(times.map(clock.iso), times.map(str), st.just("")), max_size=20))
def test_fast_and_slow_times_agree(values: list[str]) -> None:
    def read_as(batch: list[str]) -> list[int]:
        rows = Rows()
        columns = {c: ["x"] * len(batch) for c in ("send_id", "user_id", "template_id", "variant_id")}
        columns |= {"sent_at": [str(T0)] * len(batch), "delivered_at": batch}
        append(rows, "sends", columns, len(batch), Where(str, str))
        return [s.delivered_at for s in rows.sends]

    one_by_one = [read_as([v])[0] for v in values]
    assert read_as(values) == one_by_one
    assert one_by_one == [MISSING if not v else int(v) if v.isdigit() else clock.parse(v) for v in values]


@given(times, st.integers(-14 * 60, 14 * 60), st.sampled_from(["T", " "]))
def test_offsets(t: int, minutes: int, gap: str) -> None:
    local = clock._EPOCH.replace(tzinfo=None) + clock.timedelta(microseconds=t + minutes * clock.MINUTE)
    sign = "+" if minutes >= 0 else "-"
    text = f"{local.isoformat(gap)}{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    rows = Rows()
    good = {"user_id": "u", "kind": "open", "occurred_at": text}
    if local.year >= 1970:
        ADAPTER.parse(json.dumps(good).encode(), rows, "p", t)
        assert rows.events[0].occurred_at == t == clock.parse(text)


@given(st.decimals(-1_000_000, 1_000_000, places=None, allow_nan=False, allow_infinity=False))
def test_money_is_exact_half_even(amount: Decimal) -> None:
    rows = Rows()
    text = format(amount, "f")
    body = f'{{"user_id": "u", "kind": "conversion", "occurred_at": 1, "value": {text}}}'
    ADAPTER.parse(body.encode(), rows, "p", 1)
    if len(text) <= 64:
        expected = (amount * 10**6).to_integral_value(ROUND_HALF_EVEN) if len(text) < 28 else None
        assert expected is None or rows.events[0].value == expected


def test_registered() -> None:
    assert adapter("generic") is ADAPTER
    assert ADAPTER.send_id("0001", "u", "t", "v") == ADAPTER.event_id("0001", "open", "") == "0001"

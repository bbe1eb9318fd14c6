"""What a provider's export gives back when it is read: everything but the losses that its adapter lists."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import justai_sim as js
from justai_sim.api import replay, simulate
from justai_sim.cli import run as cli
from justai_sim.clock import DAY, MISSING, parse
from justai_sim.errors import DataError, UsageError
from justai_sim.esp import braze_writer, customerio_writer, exports, generic
from justai_sim.esp.base import PROVIDERS, Adapter, adapter
from justai_sim.esp.coding import build, rows_of
from justai_sim.esp.rows import DecisionRow, EventRow, Rows, SendRow
from justai_sim.log import load
from justai_sim.scenario import packaged, read, with_settings
from justai_sim.tables import KINDS, STATUSES, Log
from tests.esp_rows import read_all, text_log
from tests.log_rows import same
from tests.samples import samples

NAMES = ("braze", "customerio", "iterable", "segment", "sfmc")
START = parse("2026-01-20T00:00:00Z")
FEBRUARY = parse("2026-02-01T00:00:00Z")
# Cells that would break a table, and some that a spreadsheet would run.
USERS = ("u1", "u2", "ü:3", '=1+1,"x', "a\nb;c\td", "anon:x")
STEPS = ("T1", "T:2", "-w|3", "17")
VARIANTS = ("A", "B:1&c=d", "control", '@SUM(A1)"')
CONVERSIONS = ("Signed up", "purchase", "ecommerce.order_placed", "Order Completed", "")


@st.composite
def logs(draw: st.DrawFn, esp: Adapter) -> Rows:
    """Rows with every column filled or not, on the provider's grids of time and money, with ids as it makes them."""
    pick = st.sampled_from
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(lambda t: t == t.strip())
    users, steps, variants = ((*some, draw(text)) for some in (USERS, STEPS, VARIANTS))
    times = st.integers(0, 30 * 86_400).map(lambda s: START + s * 1_000_000)
    late, rows = st.integers(0, 3 * 10**9), Rows()
    chance = pick([float("nan"), 0.25])
    for i in range(draw(st.integers(1, 4))):
        user, step, variant, t = draw(pick(users)), draw(pick(steps)), draw(pick(variants)), draw(times)
        send = esp.send_id(f"1{i:06d}", user, step, variant)
        status, known, got = draw(pick(STATUSES)), draw(pick([MISSING, t])), draw(pick([MISSING, t + draw(late)]))
        rows.sends.append(
            SendRow(send, user, step, variant, t, known, status, known, got, known, draw(chance), draw(pick(["", "s"])))
        )
        rows.decisions.append(DecisionRow(f"d{i}", user, step, variant, t))
    for i in range(draw(st.integers(0, 7))):
        kind, t = draw(pick(KINDS)), draw(times)
        name = draw(pick(CONVERSIONS)) if kind == "conversion" else draw(pick(["", "x"]))
        sent = draw(pick([*rows.sends, None, None]))
        user = draw(pick([sent.user_id, "", *users] if sent else ["", *users]))
        unknown = esp.send_id(f"9{i:06d}", user, draw(pick(steps)), "A") if user else ""
        got, step, variant = (
            draw(pick([MISSING, t + draw(late)])),
            draw(pick(["", *steps])),
            draw(pick(["", *variants])),
        )
        value = draw(pick([MISSING, 0]) | st.integers(-13_000_000, 13_000_000).map(lambda c: c * 10_000))
        currency, order, machine = draw(pick(["USD", "EUR", ""])), draw(pick(["", "o,1"])), draw(pick([-1, 0, 1]))
        send = sent.send_id if sent else draw(pick(["", unknown]))
        event = esp.event_id(f"e{i:06d}", kind, name or "x")
        rows.events.append(
            EventRow(event, user, kind, t, name, got, value, currency, send, order, step, variant, machine)
        )
    return rows


# ------------------------------------------------------------------------ what each loss does to rows

Sent = dict[str, SendRow]
"""The sends of the log by id, ghosts among them."""
Losing = Callable[[Rows, Sent], None]


def conversion(e: EventRow) -> bool:
    return e.kind == "conversion"


def of_events(change: Callable[[EventRow, Sent], EventRow | None]) -> Losing:
    def losing(r: Rows, sent: Sent) -> None:
        r.events = [new for e in r.events if (new := change(e, sent)) is not None]

    return losing


def changed(when: Callable[[EventRow], Any], **changes: Any) -> Losing:
    return of_events(lambda e, _: e._replace(**changes) if when(e) else e)


def gone(when: Callable[[EventRow, Sent], Any]) -> Losing:
    return of_events(lambda e, sent: None if when(e, sent) else e)


def user_of_the_send(when: Callable[[EventRow], Any]) -> Losing:
    def change(e: EventRow, sent: Sent) -> EventRow:
        return e._replace(user_id=sent[e.send_id].user_id) if when(e) and e.send_id in sent else e

    return of_events(change)


def of_sends(r: Rows, _: Sent) -> None:
    r.decisions = []
    r.sends = [SendRow(*s[:5], received_at=s.received_at) for s in r.sends if s.status != "held_out"]


def unheard(r: Rows, _: Sent) -> None:
    r.sends = [s._replace(received_at=MISSING) for s in r.sends]


def floored(grid: int) -> Losing:
    """Receipts are written on a grid; a missing one is the row's own time."""

    def floor(got: int, own: int) -> int:
        return (own if got == MISSING else got) // grid * grid

    def losing(r: Rows, _: Sent) -> None:
        r.sends = [s._replace(received_at=floor(s.received_at, s.sent_at)) for s in r.sends]
        r.events = [e._replace(received_at=floor(e.received_at, e.occurred_at)) for e in r.events]

    return losing


def in_customerio(e: EventRow, sent: Sent) -> EventRow:
    if conversion(e) or not e.send_id:
        return e
    user = sent[e.send_id].user_id if e.send_id in sent else ""
    machine = e.machine if e.kind in ("open", "click") else -1
    return EventRow(e.event_id, user, e.kind, e.occurred_at, send_id=e.send_id, machine=machine)


def in_sfmc(e: EventRow, sent: Sent) -> EventRow:
    if e.kind not in ("open", "click", "bounce", "unsubscribe", "spam") or not e.send_id:
        return e
    user = e.user_id or (sent[e.send_id].user_id if e.send_id in sent else "")
    variant = e.variant_id if e.kind == "click" else ""
    return EventRow(e.event_id, user, e.kind, e.occurred_at, send_id=e.send_id, variant_id=variant)


def nothing(_: Rows, __: Sent) -> None:
    """A loss with a test of its own."""


LOSSES: dict[str, Losing] = dict.fromkeys(exports.NOT_OF_SENDS, of_sends) | {
    "sends.received_at": unheard,
    "events.received_at": changed(lambda _: True, received_at=MISSING),
    "sends.received_at and events.received_at below the millisecond": floored(1_000),
    "sends.received_at and events.received_at below the second": floored(1_000_000),
    "sends.send_id not made of dispatch, user and step (it becomes that)": nothing,
    "sends.send_id not made of job, batch and subscriber (it becomes that)": nothing,
    "events.user_id of events that name a send (it is the send's)": user_of_the_send(lambda _: True),
    "events.user_id of conversions without one (it is their send's)":
        user_of_the_send(lambda e: conversion(e) and not e.user_id),
    "events of nobody": gone(lambda e, _: not e.user_id and (conversion(e) or not e.send_id)),
    "events of kind drop": gone(lambda e, _: e.kind == "drop"),
    "events.variant_id": changed(lambda _: True, variant_id=""),
    "events.send_id and template_id of conversions": changed(conversion, send_id="", template_id=""),
    "events.template_id of events that name a send": changed(lambda e: e.send_id, template_id=""),
    "events.template_id of conversions, and of events that name a send":
        changed(lambda e: conversion(e) or e.send_id, template_id=""),
    exports.OF_CONVERSIONS: changed(lambda e: not conversion(e), name="", value=MISSING, currency="", order_id=""),
    "events.value, currency and order_id of conversions that are neither purchase nor ecommerce.order_placed":
        changed(lambda e: e.name not in CONVERSIONS[1:3], value=MISSING, currency="", order_id=""),
    "events.order_id of purchases": changed(lambda e: e.name == "purchase", order_id=""),
    "events.value of purchases without one (it is 0); cents above 131,000 (prices are floats of 32 bits)":
        changed(lambda e: e.name == "purchase" and e.value == MISSING, value=0),
    "events.currency of an amount without one (it is USD)":
        changed(lambda e: not e.currency and e.value != MISSING, currency="USD"),
    exports.NO_NAME: changed(lambda e: conversion(e) and not e.name, name=exports.NAMELESS),
    exports.OF_MACHINES: changed(lambda e: e.kind not in ("open", "click"), machine=-1),
    "events.machine of opens since 2026-02 if unknown (it is 0)":
        changed(lambda e: e.kind == "open" and e.machine < 0 and e.occurred_at >= FEBRUARY, machine=0),
    "conversions, and events without a send_id, in Customer.io's own tables (they are plain rows, and whole)": nothing,
    "of events in its tables: events.received_at, template_id, variant_id, name, value, currency, order_id, "
    "events.machine of other kinds than open and click, a user_id that is not the send's": of_events(in_customerio),
    "copies of a send, and of an event in its tables (the last one heard of is left)": nothing,
    "conversions, deliveries, drops, and events without a send_id, in the vendor's tables (they are plain rows, "
    "and whole)": nothing,
    "of events in its tables: events.received_at, template_id, machine, name, value, currency, order_id, "
    "events.variant_id of other kinds than click, a user_id that is empty (it is the send's)": of_events(in_sfmc),
}  # fmt: skip
"""Each loss that an adapter lists -> what it does."""


def carried(rows: Rows, esp: Adapter) -> Rows:
    """The rows after all losses that the adapter lists, in their order."""
    out, sent = Rows(list(rows.sends), list(rows.events), list(rows.decisions)), {s.send_id: s for s in rows.sends}
    for loss in esp.export_cannot_carry:
        LOSSES[loss](out, sent)
    return out


def written(rows: Rows, esp: str, folder: Path, **options: Any) -> Rows:
    """The rows after an export and a read; nothing may be refused."""
    exports.export(text_log(rows), esp, folder, options)
    found = read_all(adapter(esp), folder)
    assert not found.rejects
    return found


@pytest.mark.parametrize("esp", [*NAMES, "generic"])
def test_what_is_exported_is_read_again(esp: str) -> None:
    made = adapter(esp)

    @given(logs(made))
    def check(rows: Rows) -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = written(rows, esp, Path(folder) / "export")
        assert same(found, carried(rows, made)), (found, carried(rows, made))

    check()


def test_every_provider_writes_exports_and_every_loss_is_tested() -> None:
    listed = {loss for esp in PROVIDERS for loss in adapter(esp).export_cannot_carry}
    assert listed == set(LOSSES)
    assert not adapter("generic").export_cannot_carry


# ----------------------------------------------------------------------------- ids, copies, pieces, doors


def small(esp: str, days: int = 10, signups: int = 25) -> Log:
    s = read("welcome")
    return simulate(with_settings(s, {"esp": esp, "world.signups_per_day": signups, "days": days})).log


@pytest.fixture(scope="module")
def worlds() -> dict[str, Log]:
    return {esp: small(esp) for esp in (*NAMES, "generic")}


@pytest.mark.parametrize("esp", NAMES)
def test_a_log_of_another_provider_keeps_its_joins(esp: str, tmp_path: Path) -> None:
    """Ids that this provider would not make: other ones may come, but events name the send that they named."""
    sends = [SendRow(f"m.{i}", f"u{i % 3}", "T", "AB"[i % 2], START + i * DAY) for i in range(6)]
    kinds = {"open": "", "click": "another", "bounce": "", "delivery": "another", "conversion": "another"}
    events = [
        EventRow(f"{kind}{i}", user or s.user_id, kind, s.sent_at + DAY, send_id=s.send_id)
        for i, s in enumerate(sends) for kind, user in kinds.items()
    ]  # fmt: skip
    found = written(Rows(sends, events), esp, tmp_path / "x")
    shown = {s.send_id: (s.user_id, s.template_id, s.variant_id, s.sent_at) for s in found.sends}
    assert sorted(shown.values()) == sorted((s.user_id, s.template_id, s.variant_id, s.sent_at) for s in sends)
    lost = "conversion" if esp in ("braze", "iterable") else ""
    named = [(shown[e.send_id][3], e.kind) for e in found.events if e.kind != lost]
    assert sorted(named) == sorted((s.sent_at, kind) for s in sends for kind in kinds if kind != lost)


def test_customerio_keeps_the_last_copy(tmp_path: Path) -> None:
    send = SendRow("d1", "u", "T", "A", START)
    opens = [EventRow("e1", "u", "open", START + i, received_at=START + DAY * i, send_id="d1") for i in (1, 2)]
    found = written(Rows([send, send], opens), "customerio", tmp_path / "x")
    assert (len(found.sends), [e.occurred_at for e in found.events]) == (1, [START + 2])


@pytest.mark.parametrize("esp", [*NAMES, "generic"])
def test_pieces_make_no_difference_to_what_is_read(
    esp: str, worlds: dict[str, Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports.export(worlds[esp], esp, tmp_path / "whole")
    monkeypatch.setattr(exports, "PIECE", 200)
    monkeypatch.setattr(generic, "BATCH", 200)
    exports.export(worlds[esp], esp, tmp_path / "cut")
    whole, cut = (read_all(adapter(esp), tmp_path / name) for name in ("whole", "cut"))
    assert len(whole.sends) > 600
    assert same(whole, cut)
    exports.export(worlds[esp], esp, tmp_path / "again")
    files = {p.relative_to(tmp_path / "cut"): p.read_bytes() for p in (tmp_path / "cut").rglob("*") if p.is_file()}
    assert files == {
        p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*") if p.is_file()
    }, "the bytes depend on the log alone"


def test_pieces_are_bounded_and_in_the_order_of_arrival(
    worlds: dict[str, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PIECE", 300)
    log, last, rows = worlds["braze"], -1, 0
    for piece in exports.pieces(log):
        times = [exports.arrival(piece, table) for table in ("sends", "events")]
        first, end = min(t.min() for t in times if len(t)), max(t.max() for t in times if len(t))
        assert sum(map(len, times)) <= 300
        assert first >= last
        last, rows = end, rows + sum(map(len, times))
    assert rows == len(log.sends) + len(log.events)
    late = log.sends.sent_at > log.sends.sent_at.mean()
    found = [(piece.sends.send, len(piece.events)) for piece in exports.pieces(log, sends=late)]
    assert sorted(np.concatenate([s for s, _ in found])) == sorted(log.sends.send[late])
    assert sum(n for _, n in found) == 0


@pytest.mark.parametrize("esp", [*NAMES, "generic"])
def test_webhooks_and_the_export_of_one_log_count_once(esp: str, worlds: dict[str, Log], tmp_path: Path) -> None:
    log, made, by_hook = worlds[esp], adapter(esp), Rows()
    for i, (at, body) in enumerate(made.render(log)):
        made.parse(body, by_hook, f"body {i}", at)
    exports.export(log, esp, tmp_path / "export")
    by_export = read_all(made, tmp_path / "export")
    for table, key in (("sends", "send_id"), ("events", "event_id")):
        ids = [{getattr(row, key) for row in getattr(rows, table)} for rows in (by_hook, by_export)]
        assert ids[0] == ids[1]
    as_of = int(exports.last_arrival(log)) + 60 * DAY
    columns = ["variant_id", "sends", "opens", "clicks", "unsubscribes", "conversions", "revenue"]
    tables = [replay(a, goals=["purchase"], offset_days=0, as_of=as_of).metrics[columns].values.tolist()
              for a in (log, build([by_hook]), build([by_export]), build([by_export, by_hook]))]  # fmt: skip
    assert sum(row[5] for row in tables[0]) > 20
    assert tables[0] == tables[1] == tables[2] == tables[3]


# ------------------------------------------------------------------------------------ whole or not at all


def test_a_folder_with_something_in_it_is_left_alone(worlds: dict[str, Log], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        exports.export(worlds["segment"], "segment", tmp_path)
    with pytest.raises(UsageError, match="is there already"):
        exports.export(worlds["segment"], "segment", tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    exports.export(worlds["segment"], "segment", tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 1


@pytest.mark.parametrize("esp", NAMES)
def test_what_fails_leaves_nothing(
    esp: str, worlds: dict[str, Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **more: Any) -> Any:
        yield from itertools.islice(pieces(*arguments, **more), 2)
        raise OSError("disk full")

    pieces = exports.pieces
    monkeypatch.setattr(exports, "PIECE", 200)
    for module in ("braze", "customerio_writer", "iterable", "segment", "sfmc_writer"):
        monkeypatch.setattr(f"justai_sim.esp.{module}.pieces", broken)
    with pytest.raises(OSError, match="disk full"):
        exports.export(worlds[esp], esp, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_the_python_door_takes_a_log_or_its_folder(worlds: dict[str, Log], tmp_path: Path) -> None:
    assert js.export(worlds["sfmc"], "sfmc", tmp_path / "a", esp_options={"encoding": "utf-8"}) == {}
    js.export(worlds["sfmc"], "generic", tmp_path / "plain")
    js.export(tmp_path / "plain", "sfmc", str(tmp_path / "b"))
    one, other = (js.read_log(tmp_path / name, "sfmc") for name in ("a", "b"))
    assert same(rows_of(one), rows_of(other))
    assert len(one.sends) > 600


def test_an_empty_log_and_events_of_nobody(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found neither sends nor events"):
        exports.export(text_log(Rows()), "braze", tmp_path / "x")
    rows = Rows([SendRow("s", "u", "T", "A", START)], [EventRow("e", "", "conversion", START, "purchase")])
    for esp, left in (("braze", {exports.NOBODY: 1}), ("iterable", {exports.NOBODY: 1}), ("segment", {})):
        assert exports.export(text_log(rows), esp, tmp_path / esp) == left


# ----------------------------------------------------------------------------------- the published shapes


def test_currents_are_laid_out_as_published(worlds: dict[str, Log], tmp_path: Path) -> None:
    exports.export(worlds["braze"], "braze", tmp_path / "x")
    files = [p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*.avro")]
    form = re.compile(
        r"(dataexport\.prod-01\.S3\.integration\.[0-9a-f]{24})/event_type=(users\.[\w.]+)/date=\d{4}-\d\d-\d\d-\d\d/\d+/"
        r"prod-01/\1\+0\+\d{10}\.avro"
    )
    found = [form.fullmatch(f) for f in files]
    assert all(found)
    kinds = {m[2].rpartition(".")[2] for m in found if m}
    assert kinds >= {"Send", "Open", "Click", "Bounce", "Purchase"}
    assert len({m.rpartition("/")[2] + f.split("/")[1] for m, f in zip(files, files, strict=True)}) == len(files)


@pytest.mark.parametrize("kind", braze_writer.COLUMNS)
def test_currents_have_the_newest_published_columns(kind: str) -> None:
    file = max(p for p in (samples("braze") / "avro").iterdir()) / f"{kind}.avro"
    with file.open("rb") as stream:
        theirs: Any = fastavro.reader(stream).writer_schema
    ours = braze_writer._schema(kind)
    assert ours["name"] == theirs["name"]
    plain = {f["name"]: json.dumps(f["type"], sort_keys=True) for f in ours["fields"]}
    assert plain == {f["name"]: json.dumps(f["type"], sort_keys=True) for f in theirs["fields"]}


def test_customerios_tables_have_the_published_columns() -> None:
    for name, schema in customerio_writer._schemas(pa.int64()).items():
        files = sorted(samples("customerio").rglob(f"{name}_v4_*.parquet"))
        for file in files[-1:]:  # the widest layout; the contents have no sample
            theirs = pq.read_schema(file)
            assert {f.name: f.type for f in schema} == {f.name: f.type for f in theirs}, name


def test_campaigns_are_whole_numbers_if_all_templates_are(tmp_path: Path) -> None:
    for name, step in (("whole", "17"), ("text", "0x11")):
        exports.export(text_log(Rows([SendRow("d", "u", step, "A", START)])), "customerio", tmp_path / name)
        (file,) = (tmp_path / name).glob("deliveries_v4_1_*.parquet")
        assert pq.read_table(file)["campaign_id"].to_pylist() == [17 if name == "whole" else "0x11"]


@pytest.mark.parametrize("carrier", ["split", "message"])
def test_customerios_variants_are_told_by_split_and_action_too(
    carrier: str, worlds: dict[str, Log], tmp_path: Path
) -> None:
    exports.export(worlds["customerio"], "customerio", tmp_path / "x")
    usual = {s.send_id: s for s in read_all(adapter("customerio"), tmp_path / "x").sends}
    other = read_all(adapter("customerio", {"variant_from": carrier}), tmp_path / "x").sends
    pairs = {(s.template_id, s.variant_id, usual[s.send_id].variant_id) for s in other}
    assert len({p[:2] for p in pairs}) == len(pairs) == len({(t, v) for t, _, v in pairs}) > 4


def test_a_raw_log_lies_in_the_folder_of_its_day_of_receipt(worlds: dict[str, Log], tmp_path: Path) -> None:
    exports.export(worlds["segment"], "segment", tmp_path / "x")
    for file in (tmp_path / "x").rglob("*.gz"):
        day = int(file.parent.name) * 1000
        assert file.parts[-4] == "segment-logs"
        for line in gzip.decompress(file.read_bytes()).splitlines():
            assert day <= parse(json.loads(line)["receivedAt"]) < day + DAY
    with pytest.raises(UsageError, match="expected 'segment'"):
        exports.export(worlds["segment"], "segment-deliveries", tmp_path / "y")


def test_iterables_files_are_named_by_type_and_moment(tmp_path: Path) -> None:
    send = SendRow("m1", '=cmd|" /C calc"!A0', "T", "A", START)
    exports.export(
        text_log(Rows([send], [EventRow("e", "u", "conversion", START, "purchase")])), "iterable", tmp_path / "x"
    )
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "emailSend_20260120000000.csv", "purchase_20260120000000.json"
    ]  # fmt: skip
    with (tmp_path / "x" / "emailSend_20260120000000.csv").open(newline="") as f:
        header, row = csv.reader(f)
    assert header[0] == "createdAt"
    assert len(row) == len(header)
    assert row[header.index("userId")] == send.user_id, "as Iterable would write it"


@pytest.mark.parametrize(("esp", "encoding"), [("sfmc", "utf-16"), ("sfmc", "utf-8"), ("sfmc-dmy", "utf-16")])
def test_an_extract_is_a_zip_of_tables_six_hours_behind(esp: str, encoding: str, tmp_path: Path) -> None:
    summer = parse("2026-07-02T05:30:00Z")
    rows = Rows(
        [SendRow("1.2.3", "ü,1", "T", "A", summer), SendRow("1.2.4", "u2", "T", "A", summer, status="held_out")],
        [EventRow("e1", "ü,1", k, summer + 7 * 3_600_000_000, send_id="1.2.3") for k in ("click", "spam")],
    )
    exports.export(text_log(rows), esp, tmp_path / "x", {"encoding": encoding})
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "SendLog.csv", "_Complaint.csv", "own_events.ndjson", "tracking0702.zip"
    ]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "x" / "tracking0702.zip") as z:
        assert z.namelist() == ["Sent.csv", "NotSent.csv", "Clicks.csv"]
        raw = z.read("Sent.csv")
        clicks = z.read("Clicks.csv").decode(encoding)
    assert raw.startswith(b"\xff\xfe") == (encoding == "utf-16")
    (sent,) = csv.DictReader(io.StringIO(raw.decode(encoding)))
    first, second = ("1/7", "2/7") if esp == "sfmc-dmy" else ("7/1", "7/2")
    assert (sent["EventDate"], sent["SubscriberKey"]) == (f"{first}/2026 11:30:00 PM", "ü,1")
    assert f",{second}/2026 6:30:00 AM,Click," in clicks
    again = read_all(adapter(esp), tmp_path / "x")
    assert [s.sent_at for s in again.sends] == [summer]
    assert again.skipped == {"NotSent": 1}
    with pytest.raises(UsageError, match="expected 'utf-16' or 'utf-8'"):
        adapter("sfmc", {"encoding": "latin-1"})


# -------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("esp", [*NAMES, "generic"])
def test_a_run_is_exported_and_replays_as_its_log_does(
    esp: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("justai_sim.pages.reports.write_sweep_report", lambda _, folder: folder)  # figures take long
    text = (packaged() / "welcome.toml").read_text()
    scenario, out = tmp_path / "mine.toml", tmp_path / "out"
    scenario.write_text(text.replace("signups_per_day = 400", "signups_per_day = 25").replace("days = 56", "days = 14"))
    argv = ["run", scenario, "--replications", 1, "--workers", 1, "--out", out, "--export-as", esp]
    assert cli([str(a) for a in argv]) == 0
    assert f"--esp {esp}" in capsys.readouterr().err
    assert (out / "export" / "SIMULATED").exists(), "else a report on it would not say so"
    assert "SIMULATED" not in str(load(out / "export", esp, tmp_path / "loaded").skipped)
    common = ["--goal", "purchase", "--offset-days", "0", "--as-of", "2026-03-01T00:00:00Z", "--json"]
    tables = []
    for source in ([out / "export", "--esp", esp], [out / "log"]):
        assert cli(["replay", *map(str, source), *common]) == 0
        tables.append(json.loads(capsys.readouterr().out)["metrics"])
    columns = ("template_id", "variant_id", "sends", "opens", "clicks", "unsubscribes", "conversions", "revenue")
    of_export, of_log = ([[row[c] for c in columns] for row in table] for table in tables)
    assert of_export == of_log
    assert sum(row[6] for row in of_log) > 20
    assert cli([str(a) for a in argv]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_run_for_an_unknown_provider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["run", "welcome", "--out", str(tmp_path / "out"), "--export-as", "braz"]) == 2
    assert "did you mean 'braze'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""What a provider's export gives back when it is read: everything but the losses that its adapter lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justai_sim.clock import MISSING, parse
from justai_sim.esp import exports
from justai_sim.esp.base import Adapter, adapter
from justai_sim.esp.rows import DecisionRow, EventRow, Rows, SendRow
from justai_sim.tables import KINDS, STATUSES
from tests.esp_rows import read_all, text_log
from tests.log_rows import same

NAMES = ("braze", "customerio", "iterable", "segment", "sfmc")
START, DAY = parse("2026-01-20T00:00:00Z"), 86_400_000_000
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
    times = st.integers(0, 30 * 86_400).map(lambda s: START + s * 1_000_000)
    late, rows = st.integers(0, 3 * 10**9), Rows()
    chance = pick([float("nan"), 0.25])
    for i in range(draw(st.integers(1, 4))):
        user, step, variant, t = draw(pick(USERS)), draw(pick(STEPS)), draw(pick(VARIANTS)), draw(times)
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
        user = draw(pick([sent.user_id, "", *USERS] if sent else ["", *USERS]))
        unknown = esp.send_id(f"9{i:06d}", user, draw(pick(STEPS)), "A") if user else ""
        got, step, variant = (
            draw(pick([MISSING, t + draw(late)])),
            draw(pick(["", *STEPS])),
            draw(pick(["", *VARIANTS])),
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
    user = e.user_id or (sent[e.send_id].user_id if e.send_id in sent else "")
    if e.kind not in ("open", "click", "bounce", "unsubscribe", "spam") or not e.send_id:
        return e._replace(user_id=user)
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
def test_what_is_exported_is_read_again(esp: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = adapter(esp)

    @given(logs(made))
    @settings(max_examples=60)
    def check(rows: Rows) -> None:
        folder = tmp_path_factory.mktemp(esp)
        found = written(rows, esp, folder / "export")
        assert same(found, carried(rows, made)), (found, carried(rows, made))

    check()

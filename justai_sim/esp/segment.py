"""Segment: track events as webhooks and as raw logs (gzip NDJSON), of whatever tool sent them to Segment."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import tzinfo
from pathlib import Path

from justai_sim.clock import DAY, MISSING, zone
from justai_sim.errors import UsageError
from justai_sim.esp import segment_fields as f
from justai_sim.esp import segment_render
from justai_sim.esp.documents import groups, json_like
from justai_sim.esp.exports import NAMELESS, NO_NAME, NOT_OF_SENDS, OF_CONVERSIONS, OF_MACHINES, pieces
from justai_sim.esp.jsonbytes import elements, lone
from justai_sim.esp.origin import Origin, as_received
from justai_sim.esp.parts import ALL, Asked, Files, files, in_parts, nothing_readable
from justai_sim.esp.rows import NO_SENDS, Batches, EventRow, Rows, SendRow
from justai_sim.esp.segment_lane import Lane
from justai_sim.esp.segment_people import known_as
from justai_sim.esp.values import Element, ElementError, first_ident, short, shown
from justai_sim.tables import Log

_INHERIT = ("context", "sentAt")
_OTHER_CALLS = ("identify", "page", "screen", "group", "alias", "delete")
_SOURCE = "justaiSim1"
"""The id of the source in the folders of an export."""


class Segment:
    """The adapter of Segment.

    `deliveries_as_sends`: most tools send no 'Email Sent' to Segment. With it an 'Email Delivered' is a
    send that left and arrived at its own time; without it (the default) it is a status event, since one
    cannot know while reading whether sends will still come. `read` notes when none came.
    `variant_path`: where a send holds its variant, e.g. "properties.experiment.arm" or "context.campaign.name"; what
    lacks it is looked at in the usual places.
    `restated`: keep Braze's own conversions (Campaign Converted, Canvas Converted) as conversions of that name.
    `soft_bounces`: an Email Soft Bounced is a bounce.
    `join_anonymous`: an event without `userId` belongs to the user whom another call of the export names beside the
    same anonymous id (`segment_people`); the files are then read twice. Else, and in webhooks, its user is 'anon:' and
    that id.
    """

    name = "segment"
    time_grid = 1_000
    money_grid = 10_000
    cannot_carry: tuple[str, ...] = (
        "sends.delivered_at", "sends.status", "sends.status_known_at", "sends.received_at", "sends.decided_at",
        "sends.propensity", "sends.segment", "events.received_at", "events.variant_id", "decisions",
        "events.template_id of conversions", "events.machine of other kinds than open and click",
    )  # fmt: skip
    export_cannot_carry = (
        *NOT_OF_SENDS, "sends.received_at and events.received_at below the millisecond", "events.variant_id",
        "events.template_id of conversions, and of events that name a send", OF_CONVERSIONS,
        "events.currency of an amount without one (it is USD)", NO_NAME, OF_MACHINES,
    )  # fmt: skip

    def __init__(
        self,
        *,
        deliveries_as_sends: bool = False,
        variant_path: str = "",
        restated: bool = False,
        soft_bounces: bool = False,
        join_anonymous: bool = False,
    ) -> None:
        if variant_path and not all(key.strip() for key in variant_path.split(".")):
            expected = "expected keys with dots, such as 'properties.experiment.arm'"
            raise UsageError(f"variant_path is {variant_path!r}; {expected}")
        self.deliveries_as_sends, self.variant_path = deliveries_as_sends, variant_path
        self.join_anonymous, self._known, self._known_of = join_anonymous, dict[str, str](), Path()
        self._meaning = f.MEANING | dict.fromkeys(f.CONVERTED if restated else (), "conversion")
        self._meaning |= {f.SOFT_BOUNCE: "bounce"} if soft_bounces else {}
        self.lane = Lane(sends=not variant_path)

    def send_id(self, serial: str, user: str, template: str, variant: str) -> str:  # noqa: ARG002
        return serial

    def event_id(self, serial: str, kind: str, name: str) -> str:  # noqa: ARG002
        return serial

    def render(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """Webhook bodies of one event each; a held-out user's ghost send enters the control group."""
        return segment_render.bodies(log)

    def export(self, log: Log, folder: Path) -> Counter[str]:
        """Raw logs of one source: gzip, an event a line, in folders of the day of receipt (its first millisecond)."""
        if self.deliveries_as_sends:
            raise UsageError(
                "an export tells sends and deliveries apart; expected 'segment' without deliveries_as_sends"
            )
        number = 0
        for piece in pieces(log):
            days: dict[int, list[bytes]] = defaultdict(list)
            for at, line in segment_render.bodies(piece, NAMELESS):
                days[at // DAY].append(line)
            for day, lines in days.items():
                number += 1
                place = folder / "segment-logs" / _SOURCE / str(day * DAY // 1000)
                place.mkdir(parents=True, exist_ok=True)
                packed = gzip.compress(b"\n".join(lines) + b"\n", compresslevel=6, mtime=0)
                (place / f"{day * DAY // 1000}.{number:08d}.gz").write_bytes(packed)
        return Counter()

    def parse(self, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        """A webhook body: one event, an array of events, or a batch request."""
        element = lone(body)
        if element is not None and self.lane.one(element, rows, place, received_at, body):
            return
        if not body.strip():
            return
        for where, element, origin in elements(body, place, "batch", lambda: rows, _INHERIT):
            self._append(element, rows, where, received_at, None, origin)

    def parts(self, path: Path) -> list[Files]:
        """The files in parts: each tells its own events."""
        self._known_of = Path()
        return in_parts(files(path))

    def read(self, path: Path, timezone: str | None, only: Files | None = None, asked: Asked = ALL) -> Iterator[Rows]:
        """Raw logs: gzip or plain NDJSON, a JSON document or array; other files are counted."""
        where = zone(timezone) if timezone else None
        if self.join_anonymous and (only is None or self._known_of != path):
            self._known, self._known_of = known_as(files(path), _INHERIT), path
        batches, found, passed, sends, delivered = Batches(), False, list[str](), 0, 0
        for file, place in files(path) if only is None else only:
            if not json_like(file):
                passed.append(place)
                batches.rows.skipped[f"file: *{file.suffix or file.name}"] += 1
                continue
            found = True
            for rows in self._file(file, place, batches, where, asked):
                sends, delivered = sends + len(rows.sends), delivered + rows.notes["delivered"]
                yield rows
        if not found:
            raise nothing_readable(path, passed, "raw logs (*.gz, *.ndjson) or JSON files (*.json)")
        rows = batches.take()
        delivered += rows.notes["delivered"]
        if delivered and not sends and not rows.sends:
            rows.notes[NO_SENDS] = delivered
        yield rows

    def _file(self, file: Path, place: str, batches: Batches, where: tzinfo | None, asked: Asked) -> Iterator[Rows]:
        lane = Lane(sends=not self.variant_path, asked=asked)
        for whole in groups(file, place, batches.current):
            for group in whole.parts(lambda: batches.room):
                for at, document in lane.read(group, batches.current):
                    for which, element, origin in elements(document, at, "batch", batches.current, _INHERIT):
                        self._append(element, batches.rows, which, MISSING, where, origin, asked)
                        yield from batches.full()
                yield from batches.full()

    def _append(
        self,
        e: Element,
        rows: Rows,
        place: str,
        received_at: int,
        where: tzinfo | None,
        origin: Origin,
        asked: Asked = ALL,
    ) -> None:
        try:
            name = _name(e, rows)
            if name:
                self._track(name, e, rows, received_at, where, asked)
        except ElementError as bad:
            rows.reject(place, bad.reason, bad.message, as_received(origin))

    def _track(self, name: str, e: Element, rows: Rows, received_at: int, where: tzinfo | None, asked: Asked) -> None:
        meaning = self._meaning.get(name.lower(), "conversion")
        if meaning in (f.SKIP, f.RESTATED, f.TRANSIENT):
            rows.skipped[name if meaning == f.SKIP else f"{meaning}: {name}"] += 1
            return
        kind = f.KIND.get(meaning, meaning)
        if not asked.wants(kind) and not (kind == "delivery" and self.deliveries_as_sends):
            rows.skipped[f"not asked for: {kind}"] += 1
            return
        p = e.get("properties")
        if p is None:
            p = {}
        elif not isinstance(p, dict):
            raise ElementError("bad_value", f"properties: found {shown(p)}, expected a JSON object")
        t, received = f.happened(e, where, rows, received_at)
        user = f.user(e)
        if user.startswith(f.ANONYMOUS):
            joined = self._known.get(user.removeprefix(f.ANONYMOUS), "")
            rows.notes["anonymous_joined" if joined else "events_of_anonymous_users"] += 1
            user = joined or user
        if meaning == "delivery":
            rows.notes["delivered"] += 1
        if meaning == f.SEND or (meaning == "delivery" and self.deliveries_as_sends):
            delivered = t if meaning == "delivery" else MISSING
            rows.sends.append(_send_row(e, p, user, t, delivered, received, self.variant_path))
            return
        if not user:
            rows.notes["events_without_user"] += 1
        rows.events.append(_event_row(name, meaning, e, p, user, t, received, rows))


ADAPTER = Segment()
DELIVERIES = Segment(deliveries_as_sends=True)
"""For sources that tell only of deliveries: each delivery is a send."""


def _name(e: Element, rows: Rows) -> str:
    """The trimmed name of a track event; '' for another call, which is counted."""
    kind = e.get("type")
    if kind is None:
        kind = e.get("action")  # the old name of `type`
    name = e.get("event")
    if kind is not None and kind != "track":
        if not isinstance(kind, str):
            raise ElementError("bad_value", f"type: found {shown(kind)}, expected track or another call")
        rows.skipped[kind if kind in _OTHER_CALLS else f"type {kind[:40]}"] += 1
        return ""
    if name is None or name == "":
        raise ElementError("missing_field", "event: found nothing, expected the name of the event")
    if not isinstance(name, str) or not name.strip():
        raise ElementError("bad_value", f"event: found {shown(name)}, expected the name of the event")
    return short(name.strip())


def _send_row(e: Element, p: Element, user: str, t: int, delivered: int, received: int, path: str) -> SendRow:
    send = f.send_key(p, user) or first_ident(e, ("messageId",))
    template, variant = f.template(p), f.at_path(e, path) or f.variant(p, e.get("context"))
    if not user:
        raise ElementError("missing_field", "userId, anonymousId: found neither, expected one of them")
    if not send:
        raise ElementError("missing_field", "message_id, messageId: found neither, expected the id of the message")
    if not template:
        names = "template_id, campaign_id, email_id"
        raise ElementError("missing_field", f"properties, {names}: found none, expected the id of the template")
    if not variant:
        names = "copy_id, variant_id, variation_id"
        raise ElementError("missing_field", f"properties, {names}: found none, expected the id of the variant")
    return SendRow(send, user, template, variant, t, delivered, received_at=received)


def _event_row(
    name: str, meaning: str, e: Element, p: Element, user: str, t: int, received: int, rows: Rows
) -> EventRow:  # fmt: skip
    event, send = first_ident(e, ("messageId",)), f.send_key(p, user)
    if not event:
        rows.notes["events_without_id"] += 1
    if meaning in ("conversion", f.ORDER, f.REFUND):
        value = f.custom_value(p) if meaning == "conversion" else f.order_value(p, rows)
        if meaning == f.REFUND:
            name, value = f.refunded(name), -abs(value) if value != MISSING else MISSING
        currency, order = f.money_code(p, value), first_ident(p, f.ORDER_ID)
        return EventRow(event, user, "conversion", t, name, received, value, currency, send, order)
    machine = -1
    if meaning == "open":
        machine = 1 if name.lower() == f.MACHINE_OPEN else f.flag(p.get("machine_open"))
    elif meaning == "click":
        machine = f.flag(p.get("is_suspected_bot_click"))
    # Without the message's id its template restricts the sends that the event can belong to.
    template = "" if send else f.template(p)
    return EventRow(event, user, meaning, t, "", received, send_id=send, template_id=template, machine=machine)

"""Iterable's data exports: a CSV file a type of message event, lines of JSON for purchases and custom events."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from justai_sim.esp import iterable_fields as f
from justai_sim.esp.exports import NAMELESS
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.values import Element

_MESSAGE = "createdAt email userId campaignId templateId messageId {} esDocumentId itblInternal.documentCreatedAt"
_LOOKED = "ip userAgent userAgentDevice proxySource city region country contentId isBot"
COLUMNS = {
    "emailSend": _MESSAGE.format("contentId channelId messageTypeId messageBusId espName transactionalData"),
    "emailSendSkip": _MESSAGE.format("reason transactionalData"),
    "emailOpen": _MESSAGE.format(_LOOKED),
    "emailClick": _MESSAGE.format(f"url hrefIndex {_LOOKED}"),
    "emailBounce": _MESSAGE.format("recipientState status"),
    "emailComplaint": _MESSAGE.format("recipientState"),
    f.UNSUBSCRIBE: _MESSAGE.format("unsubSource channelIds emailListIds"),
    "inAppDelivery": _MESSAGE.format("contentId"),
}
"""The columns of each CSV; `createdAt` is always the first."""


def write(bodies: Iterable[tuple[int, Element]], folder: Path, made_at: int) -> None:
    """(received, webhook's body) as exports named by their data type and `made_at`."""
    moment = datetime.fromtimestamp(made_at // 1_000_000, UTC).strftime("%Y%m%d%H%M%S")
    with ExitStack() as opened:
        tables: dict[str, tuple[Any, list[str]]] = {}
        lines: dict[str, IO[bytes]] = {}
        for received, body in bodies:
            kind, d = body["eventName"], body["dataFields"]
            if kind in (f.PURCHASE, f.CUSTOM):
                if kind not in lines:
                    lines[kind] = opened.enter_context((folder / f"{kind}_{moment}.json").open("xb"))
                lines[kind].write(encode(_row(kind, d, received)) + b"\n")
                continue
            if kind not in tables:
                file = (folder / f"{kind}_{moment}.csv").open("x", encoding="utf-8", newline="")
                tables[kind] = csv.writer(_LineFeeds(opened.enter_context(file))), COLUMNS[kind].split()
                tables[kind][0].writerow(tables[kind][1])
            table, names = tables[kind]
            stored = d | {"itblInternal.documentCreatedAt": _time(received)}
            table.writerow([_cell(stored.get(name)) for name in names])


class _LineFeeds:
    """Rows that end with a line feed alone; `csv` quotes a carriage return only where it ends rows with one."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row[:-2] + "\n")


def _row(kind: str, d: Element, received: int) -> Element:
    """A purchase with its items, or a custom event; what is missing is left out."""
    row = {k: v for k, v in d.items() if v is not None}
    if kind == f.CUSTOM:
        row["eventName"] = row["eventName"] or NAMELESS
    elif "total" in row:
        row["shoppingCartItems"] = [{"id": "item", "name": "Item", "price": row["total"], "quantity": 1}]
    return row | {"itblInternal": {"documentCreatedAt": _time(received)}}


def _time(t: int) -> str:
    return datetime.fromtimestamp(t // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S +00:00")


def _cell(value: Any) -> Any:
    """A value as a cell: objects as JSON, flags as JSON writes them."""
    if value is None or isinstance(value, str):
        return value
    return encode(value).decode()

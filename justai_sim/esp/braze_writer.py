"""A Currents bucket as Braze fills it: Avro, a file an event type and hour, the newest published columns."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from justai_sim.errors import UsageError
from justai_sim.esp import braze_fields as f
from justai_sim.esp.exports import NAMELESS
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.values import Element

_EMAIL = (
    "id user_id dispatch_id external_user_id time timezone campaign_id campaign_name message_variation_id "
    "message_variation_name email_address {} canvas_id canvas_name canvas_variation_id canvas_variation_name "
    "canvas_step_id canvas_step_name send_id {} app_group_id"
)
_READER = " device_class device_os device_model browser mailbox_provider"
_BEHAVIOR = "app_id time {} platform os_version device_model device_id {} properties ad_id ad_id_type"
_BEHAVIOR = f"id user_id external_user_id {_BEHAVIOR} ad_tracking_enabled app_group_id"
COLUMNS = {
    "users.messages.email.Send": _EMAIL.format("", "ip_pool message_extras") + " from_domain",
    "users.messages.email.Delivery": _EMAIL.format("", "sending_ip ip_pool esp from_domain"),
    "users.messages.email.Open": _EMAIL.format("", "user_agent ip_pool machine_open esp from_domain is_amp") + _READER,
    "users.messages.email.Click": _EMAIL.format("url", "user_agent ip_pool link_id link_alias esp from_domain is_amp")
    + _READER + " is_suspected_bot_click suspected_bot_click_reason",
    "users.messages.email.Bounce": _EMAIL.format("", "sending_ip ip_pool bounce_reason esp from_domain is_drop"),
    "users.messages.email.MarkAsSpam": _EMAIL.format("", "user_agent ip_pool esp from_domain"),
    "users.messages.email.Unsubscribe": _EMAIL.format("", "ip_pool"),
    f.PURCHASE: _BEHAVIOR.format("", "product_id price currency"),
    f.CUSTOM: _BEHAVIOR.format("timezone", "name"),
    "users.campaigns.EnrollInControl": "id user_id external_user_id app_id time timezone campaign_id campaign_name "
    "message_variation_id message_variation_name send_id app_group_id",
}  # fmt: skip
"""The columns of each event type in the newest published schemas (June 2026)."""
_REQUIRED: dict[str, str] = {
    "id": "string", "user_id": "string", "time": "int", "email_address": "string", "product_id": "string",
    "price": "float", "currency": "string", "properties": "string", "name": "string",
}  # fmt: skip
_FLAGS = ("is_amp", "is_drop", "is_suspected_bot_click", "ad_tracking_enabled")
_INTEGRATION = "dataexport.prod-01.S3.integration.{}"
_SCHEMA_ID = 412
_OBJECT = ("custom_properties", "purchase_properties")


def write(elements: Iterable[list[tuple[int, Element]]], folder: Path) -> None:
    """Pieces of (received, Custom HTTP event) as files of the published layout, in folders of their hour of receipt.

    UsageError without fastavro.
    """
    if find_spec("fastavro") is None:
        raise UsageError("a Braze export is Avro; writing it needs: pip install 'justai-sim[data]'")
    offsets = Counter[str]()
    root = _INTEGRATION.format(hashlib.blake2b(b"justai-sim", digest_size=12).hexdigest())
    for piece in elements:
        files: dict[tuple[str, int], list[Element]] = defaultdict(list)
        for received, element in piece:
            files[element["event_type"], received // 3_600_000_000].append(_record(element))
        for (kind, hour), records in files.items():
            date = datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%d-%H")
            place = folder / root / f"event_type={kind}" / f"date={date}" / str(_SCHEMA_ID) / "prod-01"
            os.makedirs(place, exist_ok=True)  # fewer calls than Path.mkdir, and there are thousands
            _avro(kind, records, place / f"{root}+0+{offsets[kind]:010d}.avro")
            offsets[kind] += len(records)


def _avro(kind: str, records: list[Element], file: Path) -> None:
    import fastavro

    mark = hashlib.blake2b(file.name.encode(), digest_size=16).digest()  # else a random one: bytes would differ
    with file.open("xb") as stream:
        fastavro.writer(stream, _schema(kind), records, codec="deflate", sync_marker=mark)


@lru_cache(maxsize=32)
def _schema(kind: str) -> Any:
    import fastavro

    fields: list[Element] = []
    for name in COLUMNS[kind].split():
        inner: Any = "boolean" if name in _FLAGS else "string"
        inner = {"type": "array", "items": "string"} if name == "suspected_bot_click_reason" else inner
        if name in _REQUIRED or (name == "campaign_id" and "dispatch_id" not in COLUMNS[kind]):
            of: Element = {"type": _REQUIRED.get(name, "string")}
        else:
            of = {"type": ["null", inner], "default": None}
        fields.append({"name": name} | of)
    return fastavro.parse_schema({"type": "record", "name": f"dataexport.S3.inner.{kind}", "fields": fields})


def _record(e: Element) -> Element:
    """An event as a flat record: objects inside it are JSON texts, what Avro requires is filled in."""
    p = e["properties"]
    flat = {"id": e["id"], "time": e["time"], **e["user"], **p}
    for name in _OBJECT:
        if name in p:
            flat["properties"] = encode(p[name]).decode()
    if e["event_type"] == f.PURCHASE:
        flat["price"] = p["price"] or 0.0
        flat["currency"] = p["currency"] or ""
    elif e["event_type"] == f.CUSTOM:
        flat["name"] = p["name"] or NAMELESS
    return flat

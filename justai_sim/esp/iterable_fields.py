"""What Iterable's fields mean: event names, data types in file names, users, ids, variants, amounts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from justai_sim.clock import MISSING
from justai_sim.esp.jsonbytes import decode, encode
from justai_sim.esp.rows import Rows
from justai_sim.esp.segment_fields import instant
from justai_sim.esp.values import Element, ElementError, decimal, first_ident, micro, short, shown

SEND, SKIP, CONVERSION = "send", "skip", "conversion"
PURCHASE, CUSTOM = "purchase", "customEvent"
UNSUBSCRIBE = "emailUnSubscribe"

_CHANNEL_SENDS = "emailSend pushSend smsSend webPushSend inAppSend whatsAppSend embeddedSend rcsSend"
MEANING = {
    name: kind
    for kind, names in {
        SEND: _CHANNEL_SENDS,
        "delivery": "inAppDelivery embeddedReceived",
        "open": "emailOpen pushOpen inAppOpen whatsAppSeen embeddedImpression",
        "click": "emailClick inAppClick smsClick webPushClick embeddedClick whatsAppClick rcsClick",
        "unsubscribe": UNSUBSCRIBE,
        "bounce": "emailBounce pushBounce smsBounce whatsAppBounce",
        "spam": "emailComplaint",
        CONVERSION: f"{PURCHASE} {CUSTOM}",
        # A click on the page of preferences is an intent; a skipped send was never sent.
        SKIP: "hostedUnsubscribeClick emailSubscribe pushUninstall smsReceived whatsAppReceived inAppClose inAppDelete "
        "inAppRecall inboxSession inboxMessageImpression embeddedSession journeyExit anonSession user "
        + " ".join(f"{name}Skip" for name in _CHANNEL_SENDS.split(" ")),
    }.items()
    for name in names.split(" ")
}
"""Event name or export data type -> what it becomes."""

_SYSTEM = re.compile(r"(email|push|sms|inApp|inbox|webPush|whatsApp|embedded|rcs)[A-Z]\w*|\w+UsageInfo", re.ASCII)
_TYPES = {name.lower(): name for name in MEANING if name != "user"}
_EMAIL_ID = re.compile(r"c(\d+):t(\d+):", re.ASCII)
_ALIASES = {"emailUnsubscribe": UNSUBSCRIBE}
_CONNECTORS = ("_fivetran", "_airbyte", "_sdc_")
_ADMINISTRATIVE = ("hardbounce", "softbounce", "complaint", "import")


def event_name(value: Any, key: str) -> str:
    """The name of an event, trimmed and in Iterable's own spelling."""
    if value is None or value == "":
        raise ElementError("missing_field", f"{key}: found nothing, expected the name of the event")
    if not isinstance(value, str) or not value.strip():
        raise ElementError("bad_value", f"{key}: found {shown(value)}, expected the name of the event")
    return _ALIASES.get(value.strip(), short(value.strip()))


def meaning(name: str) -> str:
    """What an event name becomes; '' for a message event that is not known, a conversion for any other name.

    >>> meaning("emailOpen"), meaning("emailTeleported"), meaning("Trial started")
    ('open', '', 'conversion')
    """
    return MEANING.get(name) or ("" if _SYSTEM.fullmatch(name) else CONVERSION)


def data_type(place: str) -> str:
    """The data type that a file or one of its folders is named after (the innermost counts), '' if none.

    >>> data_type("emailSend_20260101000000.csv"), data_type("emailclick/file-1.csv"), data_type("user_events.json")
    ('emailSend', 'emailClick', '')
    >>> data_type("data.csv?dataTypeName=emailOpen&range=All"), data_type("user_20260101000000.csv")
    ('emailOpen', 'user')
    """
    for part in reversed(PurePosixPath(place).parts):
        words = re.findall(r"[A-Za-z]+", part.partition(".")[0]) + re.findall(r"dataTypeName=([A-Za-z]+)", part)
        if words == ["user"]:
            return "user"
        for word in reversed(words):
            if word.lower() in _TYPES:
                return _TYPES[word.lower()]
    return ""


def connector(names: Iterable[str]) -> bool:
    """Whether columns are those of a warehouse connector, which renames and splits Iterable's own."""
    return any(name.strip().lower().startswith(_CONNECTORS) for name in names)


class Reading(NamedTuple):
    """The choices that `iterable.IterableEsp` documents."""

    variant_from: tuple[str, ...]
    copy_keys: tuple[str, ...]
    template_from: tuple[str, ...]
    all_unsubscribes: bool
    soft_bounces: bool
    attributed: bool


def nested(value: Any) -> Element:
    """An object that may be written as a JSON string; {} for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = decode(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


# ------------------------------------------------------------------------------------- times and users


def _instant(value: Any, rows: Rows) -> int:
    if isinstance(value, str) and len(value) > 19:
        value = value[:19] + value[19:].lstrip()  # 2026-01-05 09:30:00 +00:00
    return instant(value, None, rows)


def happened(e: Element, d: Element, rows: Rows, received_at: int) -> tuple[int, int]:
    """(event time, receipt): `createdAt`, else our receipt; without one of ours, when Iterable stored the row."""
    if received_at == MISSING:
        stored = _stored(e) or _stored(d)
        try:
            received_at = _instant(stored, rows) if stored else MISSING
        except (ValueError, OverflowError):
            rows.notes["documentCreatedAt_unreadable"] += 1
    created = next((s["createdAt"] for s in (d, e) if s.get("createdAt") not in (None, "")), None)
    if created is None and received_at != MISSING:
        rows.notes["time_from_receipt"] += 1
        return received_at, received_at
    try:
        return _instant(created, rows), received_at
    except (ValueError, OverflowError):
        found = "nothing" if created is None else shown(created)
        expected = "expected a time such as 2026-01-05 09:30:00 +00:00"
        raise ElementError("bad_time", f"createdAt: found {found}, {expected}") from None


def _stored(source: Element) -> Any:
    found = nested(source.get("itblInternal")).get("documentCreatedAt")
    return found or source.get("itblInternal.documentCreatedAt")


def address(text: str) -> str:
    return text.strip().lower()


def user(e: Element, d: Element, rows: Rows) -> str:
    """`userId` of the body, then of its fields; else the e-mail address in small letters (counted), else ''."""
    own = first_ident(e, ("userId",)) or first_ident(d, ("userId",))
    if own:
        return own
    email = address(first_ident(e, ("email",)) or first_ident(d, ("email",)))
    if email:
        rows.notes["users_known_by_address"] += 1
    return email


# ---------------------------------------------------------------------------------- messages and variants


def _from_email_id(d: Element, part: int) -> str:
    found = _EMAIL_ID.match(str(d.get("emailId") or ""))
    return found[part] if found else ""


def identified(d: Element, name: str) -> str:
    """`campaignId` or `templateId`, from `emailId` (c<campaign>:t<template>:<address>) where it is absent."""
    return first_ident(d, (name,)) or _from_email_id(d, 1 if name == "campaignId" else 2)


def template(d: Element, reading: Reading) -> str:
    return next((found for name in reading.template_from if (found := identified(d, name))), "")


def variant(d: Element, reading: Reading) -> str:
    """The variant from the first of `variant_from` that names one."""
    for place in reading.variant_from:
        if place == "templateId":
            found = identified(d, "templateId")
        elif place == "transactionalData":
            flat = (f"transactionalData.{key}" for key in reading.copy_keys)
            found = first_ident(nested(d.get(place)), reading.copy_keys) or first_ident(d, flat)
        elif place == "url":
            found = _from_url(d, reading.copy_keys)
        else:
            found = first_ident(d, reading.copy_keys)
        if found:
            return found
    return ""


def _from_url(d: Element, keys: tuple[str, ...]) -> str:
    for name in ("url", "linkUrl", "clickedUrl"):
        url = d.get(name)
        if not isinstance(url, str) or "?" not in url:
            continue
        try:
            found = first_ident({k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}, keys)
        except ValueError:
            continue
        if found:
            return found
    return ""


def event_key(name: str, user_id: str, t: int, d: Element) -> str:
    """A stable id for what Iterable gives none: Iterable's times are in seconds, so a twin within one merges.

    Made only of what webhooks and exports both tell, so that one event has one key: not of the user where there
    is a message (an export knows them by address, a webhook by `userId`), and of one link, as `url` if there is one.
    """
    message = first_ident(d, ("messageId",))
    link = first_ident(d, ("url", "linkUrl", "clickedUrl", "linkId"))
    more = (first_ident(d, (p,)) for p in ("hrefIndex", "ip", "userAgent"))
    body = encode([name, message or [user_id], t // 1_000_000, link, *more])
    return "key:" + hashlib.blake2b(body, digest_size=12).hexdigest()


def send_key(name: str, user_id: str, t: int, d: Element) -> str:
    """`messageId`; a send without one (some SMS and push) is known by campaign, template, user and second."""
    own = first_ident(d, ("messageId",))
    if own:
        return own
    both = f"{identified(d, 'campaignId')}:{identified(d, 'templateId')}"
    return event_key(f"{name}:{both}", user_id, t, {})


def machine(kind: str, d: Element) -> int:
    """1 for a bot or a prefetch by Apple's proxy, 0 where Iterable judged it human, -1 unknown.

    Gmail's proxy fetches when somebody looks: it flags nothing.
    """
    value = d.get("isBot")
    told = {"true": 1, "1": 1, "false": 0, "0": 0}.get(str(value).strip().lower(), -1)
    proxy = d.get("proxySource")
    if kind == "open" and isinstance(proxy, str) and proxy.strip().lower() == "apple":
        return 1
    return told


def administrative(d: Element) -> str:
    """The `unsubSource` of an unsubscribe that nobody clicked (a bounce, a complaint, an import, the API), else ''."""
    source = d.get("unsubSource")
    if not isinstance(source, str):
        return ""
    text = source.strip()
    return text[:40] if text.lower() in _ADMINISTRATIVE or "api" in text.lower() else ""


# -------------------------------------------------------------------------------------------- amounts


def purchase_value(d: Element, rows: Rows) -> int:
    """Micro-units of `total`, else of price times quantity over the items."""
    amount = decimal(d.get("total"))
    if amount is not None:
        return micro(amount)
    items = d.get("shoppingCartItems", d.get("items"))
    if isinstance(items, str):
        try:
            items = decode(items)
        except ValueError:
            items = None
    lines = [_line(item) for item in items] if isinstance(items, list) else []
    amount = decimal(sum((a for a in lines if a is not None), Decimal(0)))
    if not lines or None in lines or amount is None:
        rows.notes["value_missing"] += 1
        return MISSING
    rows.notes["value_from_items"] += 1
    return micro(amount)


def _line(item: Any) -> Decimal | None:
    if not isinstance(item, dict):
        return None
    price, count = decimal(item.get("price")), decimal(item.get("quantity", 1))
    return None if price is None or count is None else price * count


def custom_value(d: Element) -> int:
    """Micro-units of a custom event: the first of `total`, `revenue`, `value` that is a number."""
    for name in ("total", "revenue", "value"):
        amount = decimal(d.get(name))
        if amount is not None:
            return micro(amount)
    return MISSING


def currency(d: Element) -> str:
    """A `currency` that the sender added; Iterable itself has none."""
    value = d.get("currency")
    return short(value.strip().upper()) if isinstance(value, str) else ""

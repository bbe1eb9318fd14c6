"""What Segment's fields mean: event names, times in every shape they are seen in, ids, amounts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from justai_sim.clock import EARLIEST, LATEST, MINUTE, MISSING
from justai_sim.esp import limits
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import (
    Element,
    ElementError,
    decimal,
    first_ident,
    ident,
    message_key,
    micro,
    micro_of,
    short,
    shown,
)

SEND, SKIP, RESTATED, TRANSIENT, ORDER, REFUND = "send", "skip", "restated", "transient", "order", "refund"
MACHINE_OPEN = "email machine opened"
ANONYMOUS = "anon:"
"""Before the id of a user whose own is not known."""
KIND = {ORDER: "conversion", REFUND: "conversion"}
SOFT_BOUNCE = "email soft bounced"
CONVERTED = ("campaign converted", "canvas converted")
CONTROL_ENTERED = "Campaign Control Group Entered"

MEANING = {
    name: kind
    for kind, names in {
        SEND: "Email Sent, Email Processed, Push Notification Sent, SMS Sent, WhatsApp Send",
        "delivery": "Email Delivered, SMS Delivered, Push Delivered, Push Notification Received, WhatsApp Delivery",
        "open": "Email Opened, Email Open, Email Machine Opened",
        "click": "Email Link Clicked, Email Clicked, SMS Clicked, SMS Short Link Clicks, Push Notification Tapped, "
        "Push Opened",
        "unsubscribe": "Unsubscribed, Email Unsubscribed, Email Unsubscribe, Unsubscribe, Unsubscribed From Group, "
        "Email Group Unsubscribed",
        "bounce": "Email Bounced, Push Notification Bounced",
        "drop": "Email Dropped",
        "spam": "Email Marked as Spam, Email Complained, Email Reported as Spam",
        TRANSIENT: "Email Soft Bounced, Email Deferred",
        RESTATED: "Campaign Converted, Canvas Converted",
        # A visit to the preference page is no unsubscribe.
        SKIP: f"Experiment Viewed, Canvas Entered, Hosted Unsubscribe Click, {CONTROL_ENTERED}",
        ORDER: "Order Completed, Completed Order",
        REFUND: "Order Refunded",
    }.items()
    for name in names.lower().split(", ")
}
"""Event name in small letters -> what it becomes; any other name is a conversion event of its own."""

MESSAGE = ("message_id", "messageId", "tracking_id", "trackingId")
DISPATCH = ("dispatch_id", "dispatchId")
TEMPLATE = (
    "template_id", "templateId", "campaign_id", "campaignId", "canvas_step_id", "canvas_id", "automation_step_id",
    "automation_id", "journey_id", "email_id", "emailId",
)  # fmt: skip
VARIANT = (
    "copy_id", "copyId", "variant_id", "variantId", "variation_id", "variationId", "message_variation_id",
    "canvas_variation_id",
)  # fmt: skip
ORDER_ID = ("order_id", "orderId", "order_number", "orderNumber")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# 2015-2-02T00:30:12.984Z, 2024-09-10T14:38:57.524122374Z[GMT], 2024-09-10 14:38
_LOOSE = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,30}))?)?)?"
    r"\s*(Z|[+-]\d{2}:?\d{2}|[+-]\d{2})?(?:\[([A-Za-z0-9_/+-]+)\])?",
    re.ASCII | re.IGNORECASE,
)


def instant(value: Any, zone: tzinfo | None, rows: Rows) -> int:
    """A time as written to microseconds; ValueError if it is none or lies outside 1970..2100.

    >>> instant("2015-2-02T00:30:12.984Z", None, Rows()) == instant("1422837012984", None, Rows())
    True
    """
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit():
            value = int(text) if len(text) < 20 else None
        else:
            return _checked((_aware(text, zone, rows) - _EPOCH) // _MICROSECOND)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e8 <= value < 1e14:
        raise ValueError  # a year, a counter, garbage
    return _checked(round(value * (1_000 if value > 1e11 else 1_000_000)))


def _checked(t: int) -> int:
    if not EARLIEST <= t < LATEST:
        raise ValueError
    return t


def _aware(text: str, zone: tzinfo | None, rows: Rows) -> datetime:
    try:
        t = datetime.fromisoformat(text)
    except ValueError:
        t = _loose(text)
    if t.tzinfo is None:
        rows.notes["time_without_offset" if zone else "time_without_offset_read_as_utc"] += 1
        t = t.replace(tzinfo=zone or UTC)
    return t


def _loose(text: str) -> datetime:
    m = _LOOSE.fullmatch(text)
    if m is None:
        raise ValueError
    year, month, day, hour, minute, second = (int(g or 0) for g in m.groups()[:6])
    t = datetime(year, month, day, hour, minute, second, int((m[7] or "0")[:6].ljust(6, "0")))
    if m[8]:
        offset = "+00:00" if m[8] in "Zz" else m[8]
        return t.replace(tzinfo=datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").tzinfo)
    if m[9]:
        try:
            return t.replace(tzinfo=ZoneInfo(m[9]))
        except (OSError, KeyError) as e:
            raise ValueError from e
    return t


def happened(e: Element, zone: tzinfo | None, rows: Rows, received_at: int) -> tuple[int, int]:
    """(event time, receipt): `timestamp`, else the skew formula, `originalTimestamp`, `sentAt`, the receipt."""
    theirs = MISSING
    if received_at == MISSING:
        theirs = received_at = _try(e, "receivedAt", zone, rows)
    t = _try(e, "timestamp", zone, rows)
    if t != MISSING:
        if theirs != MISSING and t > theirs + 5 * MINUTE:
            rows.notes["time_after_receipt"] += 1
        return t, received_at
    original, sent = _try(e, "originalTimestamp", zone, rows), _try(e, "sentAt", zone, rows)
    got = theirs if theirs != MISSING else _try(e, "receivedAt", zone, rows)
    if MISSING not in (original, sent, got) and EARLIEST <= got - (sent - original) < LATEST:
        rows.notes["time_from_formula"] += 1
        return got - (sent - original), received_at
    for name, t in (("originalTimestamp", original), ("sentAt", sent), ("receivedAt", got), ("receipt", received_at)):
        if t != MISSING:
            rows.notes[f"time_from_{name}"] += 1
            return t, received_at
    found = {k: e[k] for k in ("timestamp", "originalTimestamp", "sentAt", "receivedAt") if e.get(k) is not None}
    what = shown(found) if found else "nothing"
    raise ElementError("bad_time", f"timestamp: found {what}, expected a time such as 2026-01-05T09:30:00.000Z")


def _try(e: Element, field: str, zone: tzinfo | None, rows: Rows) -> int:
    """The time at `field`, MISSING if there is none or none that can be read (which is noted)."""
    value = e.get(field)
    if value is None or value == "":
        return MISSING
    try:
        return instant(value, zone, rows)
    except (ValueError, OverflowError):
        rows.notes["time_unreadable"] += 1
        return MISSING


def user(e: Element) -> str:
    """`userId` (or the old `user_id`), else 'anon:' and the anonymous id, else ''."""
    for prefix, names in (("", ("userId", "user_id")), (ANONYMOUS, ("anonymousId", "anonymous_id"))):
        for name in names:
            value = e.get(name)
            if value is not None:
                try:
                    found = ident(value)
                except ElementError:
                    raise
                except ValueError:
                    raise ElementError("bad_value", f"{name}: found {shown(value)}, expected an id") from None
                if found:
                    return prefix + found
    return ""


def send_key(p: Element, user_id: str) -> str:
    """The id of the message that an event names, '' if it names none.

    A dispatch id (Braze) is shared by all recipients of a campaign: the user and the variation or step
    are added, as for Braze itself.
    """
    own = p.get("message_id")
    if type(own) is str and 0 < len(own) <= limits.TEXT and not own.isspace():
        return own
    own = first_ident(p, MESSAGE)
    if own:
        return own
    dispatch = first_ident(p, DISPATCH)
    if not dispatch or not user_id:
        return ""
    part = "message_variation_id" if first_ident(p, ("campaign_id",)) else "canvas_step_id"
    return message_key(dispatch, user_id, first_ident(p, (part,)))


def template(p: Element) -> str:
    return first_ident(p, TEMPLATE)


def at_path(e: Element, path: str) -> str:
    """The id at a path of keys with dots; '' where there is none.

    >>> at_path({"properties": {"experiment": {"arm": "b"}}}, "properties.experiment.arm")
    'b'
    """
    *parents, name = path.split(".")
    found: Any = e
    for key in parents:
        found = found.get(key) if isinstance(found, dict) else None
    return first_ident(found, (name,)) if path and isinstance(found, dict) else ""


def variant(p: Element, context: Any) -> str:
    """The variant by the usual places: properties, then the campaign's `utm_content`, then the link's parameters."""
    found = first_ident(p, VARIANT)
    if found:
        return found
    campaign = context.get("campaign") if isinstance(context, dict) else None
    if isinstance(campaign, dict):
        found = first_ident(campaign, ("content", "utm_content"))
    url = p.get("link_url") or p.get("linkUrl")
    if not found and isinstance(url, str) and "?" in url:
        try:
            query = parse_qs(urlsplit(url).query)
        except ValueError:
            return ""
        found = first_ident({name: values[0] for name, values in query.items()}, (*VARIANT, "utm_content"))
    return found


def order_value(p: Element, rows: Rows) -> int:
    """Micro-units of an order: revenue, else total, else value, else the sum of its lines; which one is noted."""
    for field in ("revenue", "total", "value"):
        found = micro_of(p.get(field))
        if found is not None:
            rows.notes[f"value_from_{field}"] += 1
            return found
    lines = p.get("products")
    amounts = [_line(x) for x in (lines if isinstance(lines, list) else [lines]) if isinstance(x, dict)]
    total = sum((a for a in amounts if a is not None), Decimal(0))
    if not amounts or None in amounts or decimal(total) is None:
        rows.notes["value_missing"] += 1
        return MISSING
    rows.notes["value_from_products"] += 1
    return micro(total)


def _line(product: Element) -> Decimal | None:
    price, count = decimal(product.get("price")), decimal(product.get("quantity", 1))
    return None if price is None or count is None else price * count


def custom_value(p: Element) -> int:
    """Micro-units of another event: `revenue`, else `value`, if it is a number."""
    for field in ("revenue", "value"):
        found = micro_of(p.get(field))
        if found is not None:
            return found
    return MISSING


def money_code(p: Element, value: int) -> str:
    """ISO 4217 in capitals; by Segment's specification an amount without a currency is in USD."""
    currency = p.get("currency")
    if isinstance(currency, str) and currency.strip():
        return short(currency.strip().upper())
    if currency is not None and not isinstance(currency, str):
        raise ElementError("bad_value", f"currency: found {shown(currency)}, expected a code such as USD")
    return "" if value == MISSING else "USD"


def refunded(name: str) -> str:
    """The name of the order's event, so that a refund counts against the goal that the order counted for.

    >>> refunded("Order Refunded"), refunded("order refunded")
    ('Order Completed', 'order completed')
    """
    for old, new in (("Refunded", "Completed"), ("refunded", "completed"), ("REFUNDED", "COMPLETED")):
        name = name.replace(old, new)
    return name


def flag(value: Any) -> int:
    """1 true, 0 false, -1 nothing; a text that is not false is a kind of true ('apple')."""
    if value is None or value == "":
        return -1
    if isinstance(value, str):
        return 0 if value.strip().lower() in ("false", "0", "no") else 1
    return 1 if value else 0

"""What Braze's fields mean: event types, message identity, times, amounts, machine flags."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote

from justai_sim.clock import EARLIEST, LATEST, MISSING, parse
from justai_sim.esp.jsonbytes import decode
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import (
    Element,
    ElementError,
    copy_text,
    decimal,
    first_ident,
    ident,
    message_key,
    micro,
    short,
    shown,
)

SEND = "send"
PURCHASE = "users.behaviors.Purchase"
CUSTOM = "users.behaviors.CustomEvent"
ORDER_PLACED, ORDER_REFUNDED = "ecommerce.order_placed", "ecommerce.order_refunded"
MACHINE_OPENS_SINCE = parse("2026-02-01T00:00:00Z")
"""Before, an open without `machine_open` may still be a machine's: the value was not always generated."""
CONTROL = "control"
PROFILE = "braze:"
JOINED, UNIDENTIFIED = "rows_of_unidentified_users_joined", "rows_of_unidentified_users"
"""Notes on rows without an external id: whether other rows told it."""

MEANING = {
    f"users.messages.{channel}.{event}": kind
    for channel, events in {
        "email": {
            "Send": SEND, "Delivery": "delivery", "Open": "open", "Click": "click", "Bounce": "bounce",
            "Unsubscribe": "unsubscribe", "MarkAsSpam": "spam",
        },
        # A push "open" is a tap on the message: a click. That it was shown is not told.
        "pushnotification": {"Send": SEND, "Open": "click", "Bounce": "bounce"},
        "sms": {
            "Send": SEND, "Delivery": "delivery", "ShortLinkClick": "click", "DeliveryFailure": "bounce",
            "Rejection": "bounce",
        },
        "whatsapp": {"Send": SEND, "Delivery": "delivery", "Read": "open", "Click": "click", "Failure": "bounce"},
        "rcs": {"Send": SEND, "Delivery": "delivery", "Read": "open", "Click": "click", "Rejection": "bounce"},
        "line": {"Send": SEND, "Click": "click"},
        "webhook": {"Send": SEND},
        "inappmessage": {"Impression": "open", "Click": "click"},
        "contentcard": {"Impression": "open", "Click": "click"},
        "banner": {"Impression": "open", "Click": "click"},
        "newsfeedcard": {"Impression": "open", "Click": "click"},
    }.items()
    for event, kind in events.items()
} | {PURCHASE: "conversion", CUSTOM: "conversion"}  # fmt: skip
"""Event type -> the kind of row it becomes."""

CONVERSIONS = ("users.campaigns.Conversion", "users.canvas.Conversion", "users.canvas.experimentstep.Conversion")
STATE_CHANGES = ("users.behaviors.subscription.GlobalStateChange", "users.behaviors.subscriptiongroup.StateChange")
RESTATED = {*CONVERSIONS, *STATE_CHANGES}
"""They tell again what a Purchase, a CustomEvent or an Unsubscribe told."""
SOFT_BOUNCE = "users.messages.email.SoftBounce"
TRANSIENT = (".SoftBounce", ".Deferral", ".Abort", ".Retry")

_ZERO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_DIGITS = dict.fromkeys(_ZERO_DECIMALS.split(" "), 0) | dict.fromkeys(_THREE_DECIMALS.split(" "), 3)
_MINOR = {0: Decimal(1), 2: Decimal("0.01"), 3: Decimal("0.001")}


class Reading(NamedTuple):
    """How Braze is read: the key of the variant in `message_extras`, and event type -> the kind of row it becomes.

    `known`: profile -> external id, of profiles that some rows name without one (see `braze_people`).
    """

    key: str
    meaning: Mapping[str, str]
    known: Mapping[str, str] = MappingProxyType({})


def reading(key: str, restated: bool, soft_bounces: bool, state_changes: bool) -> Reading:
    more = dict.fromkeys(CONVERSIONS if restated else (), "conversion")
    more |= dict.fromkeys(STATE_CHANGES if state_changes else (), "unsubscribe")
    return Reading(key, MEANING | more | ({SOFT_BOUNCE: "bounce"} if soft_bounces else {}))


def unsubscribes(p: Element) -> bool:
    """Whether a change of a subscription is that of e-mail (or of a channel that is not told) to unsubscribed."""
    status, channel = (str(p.get(name) or "").strip().lower() for name in ("subscription_status", "channel"))
    return status == "unsubscribed" and channel in ("", "email")


def skipped(event_type: str) -> str:
    """How an event that becomes no row is counted."""
    if event_type in RESTATED:
        return f"restated: {event_type}"
    if event_type.endswith(TRANSIENT):
        return f"transient: {event_type}"
    return event_type


def event_type(schema_name: str, place: str) -> str:
    """The event type of an Avro file: from its schema's name, else from its (percent-encoded) path.

    >>> event_type("dataexport.S3.inner.users.campaigns.Conversion", "x.avro")
    'users.campaigns.Conversion'
    >>> event_type("Record", "p/event_type%3Dusers.messages.email.Open/date%3D2026-01-01-00/1/x.avro")
    'users.messages.email.Open'
    >>> event_type("campaigns.Conversion", "x.avro"), event_type("Record", "messages.email.Open.avro")
    ('users.campaigns.Conversion', 'users.messages.email.Open')
    """
    parts = unquote(place).split("/")
    stem = parts[-1].removesuffix(".avro")
    for text in (schema_name, *(p.removeprefix("event_type=") for p in parts[:-1]), stem):
        at = text.find("users.")
        if at >= 0 and (at == 0 or text[at - 1] == "."):
            return text[at:]
    for text in (schema_name, stem):
        if f"users.{text}" in MEANING or f"users.{text}" in RESTATED:
            return f"users.{text}"
    return schema_name if "." in schema_name else stem


def happened(fields: Element, rows: Rows, received_at: int) -> int:
    """`time` in microseconds: seconds, or milliseconds above 1e11; our receipt if there is none."""
    value = fields.get("time")
    if value is None:
        if received_at == MISSING:
            raise ElementError("bad_time", "time: found nothing, expected seconds since the epoch")
        rows.notes["time_from_receipt"] += 1
        return received_at
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ElementError("bad_time", f"time: found {shown(value)}, expected seconds since the epoch")
    scale = 1_000_000
    if value > 1e11:
        scale = 1_000
    t = value * scale if isinstance(value, int) else round(value * scale)
    if not EARLIEST <= t < LATEST:
        raise ElementError(
            "bad_time", f"time: found {shown(value)}, expected seconds since the epoch within 1970..2100"
        )
    if scale == 1_000:
        rows.notes["time_in_milliseconds"] += 1
    return t


def user(fields: Element, known: Mapping[str, str]) -> str:
    """`external_user_id`, the customer's own id, of this row or `known` from others; else 'braze:' and the profile."""
    try:
        own = ident(fields.get("external_user_id"))
        if own:
            return own
        braze = ident(fields.get("user_id"))
    except ElementError:
        raise
    except ValueError:
        raise ElementError("bad_value", "user: found an id that is no text, expected a text") from None
    if not braze:
        raise ElementError("missing_field", "user: found neither external_user_id nor user_id, expected one of them")
    return known.get(braze) or f"{PROFILE}{braze}"


def _message(p: Element, name: str) -> str:
    """A message id; `X_api_id`, where it exists, is what today's `X_id` holds."""
    return first_ident(p, (f"{name}_api_id", f"{name}_id"))


def template(p: Element) -> tuple[str, bool]:
    """The template (a campaign, or a step of a Canvas), and whether it is a Canvas step."""
    campaign = first_ident(p, ("campaign_api_id", "campaign_id"))
    return (campaign, False) if campaign else (_message(p, "canvas_step"), True)


def message(p: Element, user_id: str) -> tuple[str, str]:
    """(send id, '') of the message that a record belongs to, or ('', template) where no dispatch is named.

    The id is made of what Send, Open, Click, Bounce... all carry, and keeps the order of dispatch ids
    (of equal length, as Braze's are).
    """
    dispatch = first_ident(p, ("dispatch_id",))
    name, canvas = template(p)
    if not dispatch:
        return "", name
    return message_key(dispatch, user_id, name if canvas else _message(p, "message_variation")), ""


def variant(p: Element, canvas: bool, rows: Rows, key: str = "copy_id") -> str:
    """The JustAI copy in `message_extras`, else (control, other mail) the variation that Braze chose."""
    extras = p.get("message_extras")
    if extras:
        if isinstance(extras, str):
            try:
                extras = decode(extras)
            except ValueError:
                extras = None
        if not isinstance(extras, dict):
            rows.notes["message_extras_unreadable"] += 1
        copy = copy_text(extras, key)
        if copy:
            return copy
    return _message(p, "canvas_variation" if canvas else "message_variation")


def purchase_value(p: Element, rows: Rows) -> tuple[int, str]:
    """(micro-units, currency) of a Purchase; float32 prices are rounded to the currency's minor unit."""
    currency = money_code(p)
    price = p.get("price")
    if price is None:
        rows.notes["purchase_without_price"] += 1
        return MISSING, currency
    amount = decimal(price)
    if amount is None:
        raise ElementError("bad_value", f"price: found {shown(price)}, expected a number")
    return minor(amount, currency), currency


@lru_cache(1 << 14)
def price(value: float, currency: str) -> int | None:
    """`minor` of a number as Avro has them, remembered: prices repeat; None if it is none."""
    amount = decimal(value)
    return None if amount is None else minor(amount, currency.strip().upper())


def minor(amount: Decimal, currency: str) -> int:
    """Micro-units of an amount rounded to the currency's minor unit.

    >>> minor(Decimal("224.9600067"), "USD"), minor(Decimal("1200.4"), "JPY")
    (224960000, 1200000000)
    """
    return micro(amount.quantize(_MINOR[_DIGITS.get(currency, 2)], ROUND_HALF_EVEN))


def money_code(p: Element) -> str:
    """An ISO 4217 code in capitals, '' if there is none."""
    currency = p.get("currency")
    if currency is None:
        return ""
    if not isinstance(currency, str):
        raise ElementError("bad_value", f"currency: found {shown(currency)}, expected a code such as USD")
    return short(currency.strip().upper())


def order(name: str, custom: Any, rows: Rows) -> tuple[str, int, str, str]:
    """(name, value, currency, order id) of an eCommerce event; other custom events have no amount.

    A refund takes the name of the order's event: it counts against the goal that the order counted for.
    """
    if name not in (ORDER_PLACED, ORDER_REFUNDED):
        return name, MISSING, "", ""
    if isinstance(custom, str):
        try:
            custom = decode(custom)
        except ValueError as e:
            raise ElementError("bad_json", f"properties: found {shown(custom)} ({e}), expected an object") from None
    if not isinstance(custom, dict | None):
        raise ElementError("bad_value", f"custom_properties: found {shown(custom)}, expected a JSON object")
    custom = custom or {}
    total, currency, key = custom.get("total_value"), money_code(custom), first_ident(custom, ("order_id",))
    if total is None:
        rows.notes["order_without_total_value"] += 1
        return ORDER_PLACED, MISSING, currency, key
    amount = decimal(total)
    if amount is None:
        raise ElementError("bad_value", f"total_value: found {shown(total)}, expected a number")
    value = minor(amount, currency)
    return ORDER_PLACED, -abs(value) if name == ORDER_REFUNDED else value, currency, key


def machine_open(p: Element, t: int, *, column: bool) -> int:
    """1 a machine's, 0 a person's, -1 unknown: nothing was told before February 2026 (or by old schemas)."""
    value = p.get("machine_open")
    if value is None:
        return 0 if column and t >= MACHINE_OPENS_SINCE else -1
    return 0 if value is False or (isinstance(value, str) and value.strip().lower() in ("", "false")) else 1


def bot_click(p: Element) -> int:
    """1 if flagged, or not judged but with reasons; 0 if judged or looked at without a finding; else -1."""
    flag = p.get("is_suspected_bot_click")
    if isinstance(flag, str):
        flag = {"true": True, "false": False}.get(flag.strip().lower())
    if flag is not None:
        return 1 if flag else 0
    reasons = p.get("suspected_bot_click_reason")
    return -1 if reasons is None else 1 if reasons else 0

"""The worked examples of the attribution rule as data: rule settings, rows, and what must come out.

Rows are in the plain text form of `tests.oracle`. Unless an example says otherwise: sends are of
template T to user u, S1 is variant A on day 0, S2 is variant B; the goal is `purchase`; everything is
known at once; "day 10" is exactly 10 x 24 h after S1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]

HOUR = 3_600_000_000
MINUTE = HOUR // 60
DAY = 24 * HOUR
MICRO = 1_000_000
PARTS = 1_000_000_000
T0 = 1_767_603_600 * MICRO
"""Day 0: Monday 2026-01-05 09:00 UTC."""


@dataclass(frozen=True)
class Example:
    """One row of the table.

    `credits`: event_id -> send_id -> weight (1.0 = the whole event). `reasons`: one per input event row.
    `totals`, where the table gives them: numerator (in whole conversions), conversion_count, revenue (in
    whole units of money), opens, clicks, unsubscribes, and mature_sends, mature_numerator over mature sends.
    `per_send`: send_id -> the same names for one send.
    """

    number: int
    group: str
    title: str
    settings: Row
    sends: list[Row]
    events: list[Row]
    credits: dict[str, dict[str, float]]
    reasons: list[str]
    as_of: int | None = None
    goals: dict[str, set[str]] = field(default_factory=lambda: {"T": {"purchase"}, "T2": {"purchase"}})
    totals: dict[str, float] = field(default_factory=dict)
    per_send: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.number}-{self.group}"


def send(send_id: str = "S1", day: float = 0, variant_id: str = "A", **changes: Any) -> Row:
    """A send row; `day` counts from T0, `at` gives the instant itself."""
    at = changes.pop("at", T0 + round(day * DAY))
    return {
        "send_id": send_id,
        "user_id": "u",
        "template_id": "T",
        "variant_id": variant_id,
        "sent_at": at,
        "delivered_at": None,
        "status": "sent",
        "status_known_at": None,
        "received_at": None,
    } | changes


def event(event_id: str = "e1", day: float = 0, kind: str = "conversion", **changes: Any) -> Row:
    """An event row; conversions are purchases."""
    at = changes.pop("at", T0 + round(day * DAY))
    return {
        "event_id": event_id,
        "user_id": "u",
        "kind": kind,
        "occurred_at": at,
        "name": "purchase" if kind == "conversion" else "",
        "received_at": None,
        "value": None,
        "currency": "",
        "send_id": "",
        "order_id": "",
        "template_id": "",
        "variant_id": "",
        "machine": -1,
    } | changes


def _at(text: str, tz: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp()) * MICRO


S1 = send()
S2_DAY5 = send("S2", 5, "B")
TWO = [S1, S2_DAY5]
WON = ["credited"]
NEW_YORK = "America/New_York"
PURCHASES = [event("e1", 5, value=20 * MICRO), event("e2", 8, value=30 * MICRO)]

EXAMPLES: list[Example] = [
    Example(
        1, "published", "send day 0; purchase day 10",
        {}, [S1], [event(day=10)], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        2, "published", "send day 0; purchase day 1",
        {}, [S1], [event(day=1)], {}, ["in_offset"],
    ),
    Example(
        3, "published", "send day 0; purchase day 20",
        {}, [S1], [event(day=20)], {}, ["past_lookback"],
    ),
    Example(
        5, "bounds", "one microsecond before 3 d",
        {}, [S1], [event(at=T0 + 3 * DAY - 1)], {}, ["in_offset"],
    ),
    Example(
        6, "bounds", "one microsecond before 14 d",
        {}, [S1], [event(at=T0 + 14 * DAY - 1)], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        8, "bounds", "exactly 14 d, closed",
        {"bounds": "[]"}, [S1], [event(day=14)], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        9, "bounds", "exactly 3 d, open below",
        {"bounds": "(]"}, [S1], [event(day=3)], {}, ["in_offset"],
    ),
    Example(
        10, "bounds", "one microsecond before the send",
        {}, [S1], [event(at=T0 - 1)], {}, ["before_send"],
    ),
    Example(
        11, "bounds", "no offset, at the instant of the send",
        {"offset_days": 0}, [S1], [event(at=T0)], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        13, "days", "Mon 23:50 to Thu 00:10, elapsed",
        {}, [send(at=_at("2026-01-05T23:50", "UTC"))], [event(at=_at("2026-01-08T00:10", "UTC"))],
        {}, ["in_offset"],
    ),
    Example(
        15, "days", "sent 00:10, 13 d 23 h 55 m later, elapsed",
        {}, [send(at=_at("2026-01-05T00:10", "UTC"))], [event(at=_at("2026-01-19T00:05", "UTC"))],
        {"e1": {"S1": 1}}, WON,
    ),
    Example(
        16, "days", "same, calendar (date difference 14)",
        {"day_rule": "calendar"},
        [send(at=_at("2026-01-05T00:10", "UTC"))], [event(at=_at("2026-01-19T00:05", "UTC"))],
        {}, ["past_lookback"],
    ),
    Example(
        17, "days", "New York, over the clock change of 8 March, elapsed 2 d 23 h 30 m",
        {"tz": NEW_YORK},
        [send(at=_at("2026-03-06T12:00", NEW_YORK))], [event(at=_at("2026-03-09T12:30", NEW_YORK))],
        {}, ["in_offset"],
    ),
    Example(
        19, "several", "ages 10 and 5",
        {}, TWO, [event(day=10)], {"e1": {"S2": 1}}, WON,
    ),
    Example(
        20, "several", "ages 10 and 1",
        {}, [S1, send("S2", 9, "B")], [event(day=10)], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        22, "several", "ages 10 and 5, first_qualifying",
        {"credit": "first_qualifying"}, TWO, [event(day=10)], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        23, "several", "ages 10 and 5, linear",
        {"credit": "linear"}, TWO, [event(day=10)], {"e1": {"S1": 0.5, "S2": 0.5}}, WON,
    ),
    Example(
        24, "several", "ages 10 and 5, all",
        {"credit": "all"}, TWO, [event(day=10)], {"e1": {"S1": 1, "S2": 1}}, WON,
    ),
    Example(
        27, "several", "sends days 0, 2, 4, 6, position",
        {"credit": "position"},
        [S1, send("S2", 2, "B"), send("S3", 4), send("S4", 6)], [event(day=10)],
        {"e1": {"S1": 0.4, "S2": 0.1, "S3": 0.1, "S4": 0.4}}, WON,
    ),
    Example(
        29, "scope", "template T day 0, template T2 day 5: one credit in each",
        {}, [S1, send("S9", 5, template_id="T2")], [event(day=10)], {"e1": {"S1": 1, "S9": 1}}, WON,
    ),
    Example(
        31, "repeats", "purchases day 5 ($20) and day 8 ($30): converted once, revenue 50",
        {}, [S1], PURCHASES, {"e1": {"S1": 1}, "e2": {"S1": 1}}, WON * 2,
        totals={"numerator": 1, "conversion_count": 2, "revenue": 50},
    ),
    Example(
        32, "repeats", "same, every: numerator 2",
        {"repeat": "every"}, [S1], PURCHASES, {"e1": {"S1": 1}, "e2": {"S1": 1}}, WON * 2,
        totals={"numerator": 2, "revenue": 50},
    ),
    Example(
        34, "repeats", "once_per_user: both credited, only the first in the numerator",
        {"repeat": "once_per_user"}, [S1, send("S2", 7, "B")], [event("e1", 5), event("e2", 11)],
        {"e1": {"S1": 1}, "e2": {"S2": 1}}, WON * 2,
        per_send={"S1": {"numerator": 1}, "S2": {"numerator": 0}},
    ),
    Example(
        35, "copies", "the webhook delivers e1 twice",
        {}, [S1], [event(day=5, value=20 * MICRO)] * 2, {"e1": {"S1": 1}}, ["credited", "duplicate"],
        totals={"revenue": 20},
    ),
    Example(
        37, "ids", "ages 10 and 5, the event names S1",
        {}, TWO, [event(day=10, send_id="S1")], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        38, "ids", "the event names S1, day 1",
        {}, [S1], [event(day=1, send_id="S1")], {}, ["in_offset"],
    ),
    Example(
        40, "ids", "the event names an unknown send, S1 qualifies",
        {}, [S1], [event(day=10, send_id="S404")], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        42, "engagement", "open 2 minutes after the send, with id",
        {}, [S1], [event(kind="open", at=T0 + 2 * MINUTE, send_id="S1")], {"e1": {"S1": 1}}, WON,
        totals={"opens": 1},
    ),
    Example(
        43, "engagement", "click on day 20, with id",
        {}, [S1], [event(kind="click", day=20, send_id="S1")], {}, ["outside_engagement_window"],
        totals={"clicks": 0},
    ),
    Example(
        44, "engagement", "open flagged as a machine open",
        {}, [S1], [event(kind="open", at=T0 + 2 * MINUTE, send_id="S1", machine=1)], {}, ["machine"],
        totals={"opens": 0},
    ),
    Example(
        46, "engagement", "unsubscribe after 1 h, purchase day 5",
        {}, [S1], [event("e1", kind="unsubscribe", at=T0 + HOUR), event("e2", 5)],
        {"e1": {"S1": 1}, "e2": {"S1": 1}}, WON * 2,
        totals={"unsubscribes": 1, "numerator": 1},
    ),
    Example(
        47, "engagement", "open without id, S1 day 0 and S2 day 5",
        {}, TWO, [event(kind="open", at=T0 + 5 * DAY + HOUR)], {"e1": {"S2": 1}}, WON,
    ),
    Example(
        49, "delivery", "only a bounced send",
        {}, [send(status="bounced")], [event(day=6)], {}, ["not_delivered"],
    ),
    Example(
        50, "delivery", "delivered 6 h later, purchase 3 d 1 h after the send",
        {"anchor": "delivered"}, [send(delivered_at=T0 + 6 * HOUR)], [event(at=T0 + 3 * DAY + HOUR)],
        {}, ["in_offset"],
    ),
    Example(
        51, "holdout", "held-out user, decision day 0, purchase day 5",
        {}, [send(status="held_out", variant_id="holdout")], [event(day=5)], {"e1": {"S1": 1}}, WON,
    ),
    Example(
        53, "late", "purchase day 13, received day 15, as_of day 14",
        {}, [S1], [event(day=13, received_at=T0 + 15 * DAY)], {}, ["not_yet_known"],
        as_of=T0 + 14 * DAY,
    ),
    Example(
        55, "late", "S2 (day 5) reaches us on day 12; as_of day 11",
        {}, [S1, send("S2", 5, "B", received_at=T0 + 12 * DAY)], [event(day=10)], {"e1": {"S1": 1}}, WON,
        as_of=T0 + 11 * DAY,
    ),
    Example(
        58, "maturity", "S1 day 0, S2 day 12, as_of day 17: only S1 is mature",
        {}, [S1, send("S2", 12, "B")], [event(day=5)], {"e1": {"S1": 1}}, WON,
        as_of=T0 + 17 * DAY, totals={"mature_sends": 1, "mature_numerator": 1},
    ),
    Example(
        59, "goal", "page_view when the goal is purchase",
        {}, [S1], [event(day=5, name="page_view")], {}, ["wrong_event"],
    ),
]  # fmt: skip

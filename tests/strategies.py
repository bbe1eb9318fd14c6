"""Hypothesis strategies: rules with all options mixed, logs aimed at the edges of their windows.

`cases()` draws a rule and a log whose ages fall on, one microsecond before and after that rule's edges.
Rows are in the plain text form of `tests.oracle`; `to_log` turns them into coded tables.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

from justai_sim.attribution.rule import Rule
from justai_sim.errors import UsageError
from justai_sim.tables import KINDS, STATUSES
from justai_sim.testing.rows import to_log as to_log

Row = dict[str, Any]
Goals = dict[str, set[str]]
LogRows = tuple[list[Row], list[Row], Goals | None, int | None]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BASE = 1_772_668_800 * SECOND
"""2026-03-05 00:00 UTC: clocks change on 8 March (New York, Havana), 29 March (Berlin), 5 April (Lord Howe)."""

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana")
USERS = ("u1", "u2", "u10", "ü")
TEMPLATES = ("T1", "T2", "T3")
VARIANTS = ("A", "B", "control")
NAMES = ("purchase", "signup", "page_view")
SENDS = ("S1", "S10", "S2", "S3", "a", "Z", "é", "S4", "S5")
"""Byte order, number order and the order of drawing all differ."""


def _days(x: float) -> int:
    return round(x * DAY)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any valid rule: every option mixed with every other, days with fractions, a few time zones.

    The default comes first in each list, so that a failing example shrinks towards it.
    """

    def pick(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    lookback_from = pick("send", "offset_end")
    lookback = pick(14, 7, 3, 1, 10.5, 2.75, 21, 1 / 3)
    offsets = [x for x in (3, 0, 1, 0.5, 2.25, 0.1, 7) if lookback_from == "offset_end" or x < lookback]
    options = {
        "lookback_days": lookback,
        "offset_days": pick(*offsets),
        "bounds": pick("[)", "[]", "(]", "()"),
        "lookback_from": lookback_from,
        "day_rule": pick("elapsed", "calendar"),
        "tz": pick(*ZONES),
        "anchor": pick("sent", "sent", "delivered", "opened", "clicked"),
        "credit": pick(
            "last_qualifying", "last_then_check", "first_qualifying", "all",
            "all_variants", "linear", "time_decay", "position",
        ),
        "half_life_days": pick(7, 2, 2.5, 30),
        "scope": pick("template", "org", "group"),
        "groups": pick({}, {"T1": "G1", "T2": "G1"}, {"T1": "G1", "T2": "G2", "T3": "G1"}),
        "explicit": pick("window", "trust", "ignore", "window_then_join"),
        "engagement_lookback_days": pick(14, 7, 1, 0.5, 3.5),
        "click_implies_open": pick(False, True),
        "machine": pick("exclude", "include", "only"),
        "repeat": pick("once_per_send", "every", "once_per_user"),
        "refund_horizon_days": pick(180, 5, 0, 1.5),
        "rates": pick({}, {"EUR": 1.1}, {"EUR": 1.08375, "JPY": 0.0065}),
        "lateness_days": pick(7, 7, 2, 0.5),
        "mature_allowance_hours": pick(48, 0, 12.5),
    }  # fmt: skip
    try:
        return Rule(**options)
    except UsageError:  # few calendar days, none of them between the bounds
        return Rule(**options | {"offset_days": 0, "bounds": "[)"})


class _Dice:
    """One row's random numbers: they depend on the seed and the row's number alone, so that a failing
    example shrinks by leaving rows out, without a change to those that stay."""

    def __init__(self, seed: int, row: str, rule: Rule | None, mess: float) -> None:
        self.random = Random(f"{seed} {row}")
        self.rule, self.mess = rule or Rule(), mess

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def rarely(self, usual: Any, *others: Any) -> Any:
        """The usual value, or in a messy log sometimes one of the others."""
        return self.random.choice(others) if self.random.random() < self.mess else usual

    def age(self) -> int:
        """On, one microsecond before and after an edge; inside the window; a whole or half day; anything."""
        r = self.rule
        own = [r.offset, r.upper, _days(r.engagement_lookback_days)]
        common = [0, HOUR, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 17 * DAY, -5 * MINUTE]
        how = self.random.random()
        if how < 0.3:
            return int(self.pick(*own, *own, *common)) + int(self.pick(0, -1, 1))
        if how < 0.7:
            return self.random.randint(r.offset, r.upper)
        if how < 0.85:
            return self.random.randint(-2, 44) * DAY // 2
        return self.random.randint(-2 * DAY, 22 * DAY)

    def late(self) -> int:
        """received_at - occurred_at: soon, or late, or from the future, or at and past the limit."""
        limit = _days(self.rule.lateness_days)
        return int(self.pick(0, 1, HOUR, DAY, 3 * DAY, -1, -HOUR, limit, limit, limit + 1, limit - 1))


def _send(dice: _Dice, number: int, n_users: int, n_templates: int) -> list[Row]:
    """A send's row, sometimes with a second one that copies it or tells more, or was received before it."""
    step = dice.pick(DAY, DAY, DAY // 2, HOUR)  # few distinct instants: ties and runs of candidates
    sent_at = BASE + dice.random.randrange(12) * step + dice.rarely(0, 1, -1, 4 * HOUR, 5 * HOUR, 23 * HOUR)
    row = {
        "send_id": SENDS[number],
        "user_id": dice.pick("u1", *USERS[:n_users]),
        "template_id": dice.pick("T1", *TEMPLATES[:n_templates]),
        "variant_id": dice.pick(*VARIANTS),
        "sent_at": sent_at,
        "delivered_at": dice.pick(sent_at + 6 * HOUR, sent_at, dice.rarely(sent_at + 1, None)),
        "status": dice.rarely("sent", "bounced", "dropped", "suppressed", "held_out", "held_out"),
        "status_known_at": None,
        "received_at": dice.rarely(None, *[sent_at + dice.late() for _ in range(3)]),
    }
    if row["status"] in STATUSES[1:4]:
        row["status_known_at"] = dice.pick(None, sent_at + HOUR, sent_at + 10 * DAY)
    if not dice.rarely(False, True):
        return [row]
    status = row["status"] if row["status"] == "held_out" else dice.pick("sent", "dropped")
    moved = dice.pick(0, 0, 1, HOUR)
    more = {
        "sent_at": sent_at + moved,
        "status": status,
        "delivered_at": dice.pick(None, sent_at + 3 * HOUR),
        "status_known_at": dice.pick(None, sent_at + 2 * DAY) if status == "dropped" else None,
        "received_at": dice.pick(None, sent_at + moved + dice.late()),
    }
    return [row, row | more]


def _event(dice: _Dice, number: int, about: Row, n_users: int) -> list[Row]:
    """An event about a send, sometimes followed by a copy of it, or by a refund."""
    start = about["sent_at"]
    if dice.rule.anchor == "delivered" and about["delivered_at"] is not None:
        start = about["delivered_at"]
    at = start + dice.age()
    kind = dice.pick(*["conversion"] * 14, *["open", "click"] * 4, "unsubscribe", dice.pick(*KINDS[4:]))
    if dice.rule.anchor in ("opened", "clicked") and kind in ("open", "click"):
        at = start + dice.pick(0, 1, HOUR, DAY, dice.age())
    if kind in ("open", "click", "unsubscribe") and dice.random.random() < 0.1:
        at = about["sent_at"] - 5 * MINUTE + dice.pick(0, -1, 1)
    named = dice.pick("", "", about["send_id"]) if kind not in KINDS[4:] else about["send_id"]
    row = {
        "event_id": f"e{number}",
        "user_id": dice.rarely(about["user_id"], "", "", *USERS[:n_users], "stranger"),
        "kind": kind,
        "occurred_at": at,
        "name": "",
        "received_at": dice.rarely(None, *[at + dice.late() for _ in range(3)]),
        "value": None,
        "currency": "",
        "send_id": dice.rarely(named, "S404", *SENDS[:4]),
        "order_id": "",
        "template_id": dice.rarely("", "", "T1", "T2", "T9"),
        "variant_id": dice.rarely("", "", "A", "B"),
        "machine": dice.pick(-1, 0, 1) if kind in ("open", "click") else dice.rarely(dice.pick(-1, 0), 1),
    }
    if kind == "conversion":
        row |= {
            "name": dice.rarely("purchase", *NAMES),
            "value": dice.pick(None, 0, 20_000_000, 30_000_001, 5, dice.rarely(5, -5, -20_000_000)),
            "currency": dice.rarely("", "USD", "EUR", "JPY"),
            "order_id": dice.pick("", *[f"o{number}x"] * 3, "o1", "o2"),
        }
        if row["order_id"] == "o1":  # one order id under two names
            row["name"] = dice.pick("purchase", "signup")
    return [row, *_again(dice, row, number)]


def _again(dice: _Dice, row: Row, number: int) -> list[Row]:
    at, copies = row["occurred_at"], dice.random.random()
    if row["order_id"] and copies < 0.25:  # part of the order comes back, perhaps twice
        horizon = _days(dice.rule.refund_horizon_days)
        return [
            row
            | {
                "event_id": f"r{number}{part}",
                "value": -dice.pick(1, 5, 7_000_000, 20_000_000),
                "occurred_at": at + dice.pick(0, -1, DAY, 5 * DAY, 40 * DAY, horizon, horizon + 1),
                "received_at": None,
            }
            for part in "ab"[: dice.pick(1, 2)]
        ]
    if copies > 1 - dice.mess / 2:
        change = dice.pick(
            {"received_at": at + dice.late()},  # delivered twice
            {"occurred_at": at + dice.pick(-1, 1, -DAY, DAY)},  # the same id at another time
            {"event_id": f"d{number}"},  # another id, otherwise equal
        )
        return [row | change]
    return []


def _some_of(n: int) -> st.SearchStrategy[list[int]]:
    """All n row numbers, twice in three; else some of them."""
    whole = st.just(list(range(n)))
    return st.lists(st.integers(0, n - 1), unique=True, max_size=n) | whole | whole


@st.composite
def logs(draw: st.DrawFn, rule: Rule | None = None) -> LogRows:
    """(sends, events, goals, as_of): few users, templates and variants, times on the edges of `rule`.

    Ties in time, copies of rows, late and future rows, bounces, status rows out of order, unknown,
    foreign and missing ids, refunds, partial ids, machine flags and currencies all occur.
    """
    seed = draw(st.integers(0, 2**32))
    mess = draw(st.sampled_from((0.0, 0.05, 0.2)))
    n_users, n_templates = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    drawn = [_send(_Dice(seed, f"send {k}", rule, mess), k, n_users, n_templates) for k in range(len(SENDS))]
    sends = [row for k in draw(_some_of(len(SENDS))) for row in drawn[k]]
    events: list[Row] = []
    for k in draw(_some_of(14)):
        dice = _Dice(seed, f"event {k}", rule, mess)
        events += _event(dice, k, dice.pick(*drawn)[0], n_users)
    dice = _Dice(seed, "log", rule, mess)
    dice.random.shuffle(sends)
    dice.random.shuffle(events)
    goals: Goals | None = draw(
        st.sampled_from(
            (
                None,
                {t: {"purchase"} for t in TEMPLATES},
                {t: {"purchase", "signup"} for t in TEMPLATES},
                {"T1": {"purchase"}, "T2": {"purchase", "signup"}, "T3": set()},
                {"T1": {"signup"}, "T2": {"purchase"}},
            )
        )
    )
    return sends, events, goals, draw(st.none() | st.sampled_from(_moments(dice.rule, sends, events)))


def _moments(rule: Rule, sends: list[Row], events: list[Row]) -> list[int]:
    """Instants to look from: receipts, the ends at which a send becomes mature or final, just before both."""
    heard = [r["sent_at"] if r["received_at"] is None else r["received_at"] for r in sends]
    ends = [t + rule.upper for t in heard]
    heard += [r["occurred_at"] if r["received_at"] is None else r["received_at"] for r in events]
    heard += [r["status_known_at"] for r in sends if r["status_known_at"] is not None]
    allowances = (round(rule.mature_allowance_hours * HOUR), _days(rule.lateness_days))
    moments = heard + [e + a for e in ends for a in allowances]
    far = [BASE + 25 * DAY, BASE + 60 * DAY]
    moments.sort()  # the later ones, or too much is not yet known
    return far + [m + d for m in moments[len(moments) // 3 :] for d in (0, -1)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Rule, list[Row], list[Row], Goals | None, int | None]:
    """(rule, sends, events, goals, as_of) with the log aimed at the rule's own edges."""
    rule = draw(rules())
    return (rule, *draw(logs(rule)))

"""The terms of the bias identity, and which of them takes the credit that a conversion's own send did not get."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

from justai_sim.tables import I1, REASON, REASONS

ADDED = ("organic", "borrowed", "extra_copies", "spurious")
"""Weight that a send was given and did not cause."""
MISSED = (
    "lost", "not_yet_known", "heard_too_late", "wrong_event", "machine", "currency", "identity", "not_delivered",
    "too_early", "too_late", "elsewhere",
)  # fmt: skip
"""Weight that a send caused and was not given, the first that applies."""
TERMS = ("caused", *ADDED, *MISSED, "uncounted", "capped", "repeats", "refunds", "caps_and_rounding", "shown")
"""In the order of the bars: `shown` is the sum of the others."""
TERM = {name: i for i, name in enumerate(TERMS)}
IDENTITIES: dict[str, tuple[str, ...]] = {
    "events": ("caused", *ADDED, *MISSED, "uncounted", "shown"),
    "sends": ("caused", *ADDED, *MISSED, "uncounted", "capped", "repeats", "shown"),
    "revenue": ("caused", *ADDED, *MISSED, "uncounted", "refunds", "caps_and_rounding", "shown"),
}
"""Which terms an identity has; the others are 0 in it."""

MEANING = {
    "caused": "what the variant's sends caused before the end of the run: conversions, sends with one, or money",
    "organic": "credited, but nothing that was sent caused it",
    "borrowed": "credited, but another send (of this variant or not) caused it",
    "extra_copies": "a further row of a conversion, credited to its own send once more",
    "spurious": "credited, but nothing happened that the row tells of",
    "lost": "no row of it, or nobody ever heard of its send",
    "not_yet_known": "its row, or its send's, is received after the end",
    "heard_too_late": "its row, or its send's, came after `lateness_days`",
    "wrong_event": "its row has another name than a goal of its send's template, or tells of a refund",
    "machine": "its row is flagged as made by a machine",
    "currency": "its row is in a currency that the rule refuses",
    "identity": "its row leads elsewhere: no user, or another user, event, send, template or variant than its own",
    "not_delivered": "its own send counts as not delivered, or has not the anchor that the rule asks for",
    "too_early": "before its own send's window opens",
    "too_late": "after its own send's window closes",
    "elsewhere": "its own send qualifies, but the credit rule prefers others, in whole or in part",
    "uncounted": "credited to sends without an anchor, which no rate counts (only under explicit=\"trust\")",
    "capped": "what `repeat` leaves out of the conversion rate",
    "repeats": "further conversions of a send that caused several",
    "refunds": "refunds booked, less those that happened",
    "caps_and_rounding": "what revenue caps, truncated shares and other amounts than the true ones change",
    "shown": "what the results table shows",
}  # fmt: skip

NO_ROW = len(REASONS)
"""In the place of a reason: no row tells of the conversion."""
KNOWN, AWAY, LATE, LOST = range(4)
"""What became of the send that caused it: attribution knows it; its row is on its way; came too late; never came."""
LEADS, NO_GOAL, ASTRAY = range(3)
"""Whether the row leads to that send: it does; the send's template does not have its name as a goal; to others."""

_ROW = {
    "not_yet_known": "not_yet_known", "too_late": "heard_too_late", "duplicate": "identity", "machine": "machine",
    "wrong_event": "wrong_event", "currency": "currency", "refund": "wrong_event",
    "refund_without_order": "wrong_event", "status_event": "wrong_event", "unknown_send": "wrong_event",
    "outside_engagement_window": "wrong_event",
}  # fmt: skip
"""Reasons that are found before any window is looked at."""
_WINDOW = {
    "credited": "elsewhere", "in_offset": "too_early", "before_send": "too_early", "past_lookback": "too_late",
    "no_anchor": "not_delivered", "not_delivered": "not_delivered", "no_send": "identity",
}  # fmt: skip
"""Verdicts of the rule on the send alone."""


def missed_term(reason: int, send: int, way: int, verdict: int) -> str:
    """The term of the credit that a conversion's own send did not get: total, one of MISSED.

    reason: what its representative row ended in, or NO_ROW. send: KNOWN, AWAY, LATE or LOST. way: LEADS, NO_GOAL or
    ASTRAY. verdict: the reason that the rule gives where the row names its own send and no other is looked at.

    >>> r = REASON
    >>> missed_term(r["credited"], KNOWN, LEADS, r["in_offset"]), missed_term(NO_ROW, KNOWN, LEADS, r["credited"])
    ('too_early', 'lost')
    """
    told = "lost" if reason == NO_ROW else _ROW.get(REASONS[reason], "")
    sent = {KNOWN: "", AWAY: "not_yet_known", LATE: "heard_too_late", LOST: "lost"}[send]
    led = {LEADS: "", NO_GOAL: "wrong_event", ASTRAY: "identity"}[way]
    judged = _WINDOW.get(REASONS[verdict], "identity")
    return min((t for t in (told, sent, led or judged) if t), key=MISSED.index)


@cache
def missed_table() -> I1:
    """`missed_term` as indices in TERMS, shape (reasons + 1, sends, ways, reasons)."""
    shape = (NO_ROW + 1, LOST + 1, ASTRAY + 1, NO_ROW)
    out = np.empty(shape, np.int8)
    for at in product(*map(range, shape)):
        out[at] = TERM[missed_term(*at)]
    return out


def standing() -> I1:
    """Rank of each reason when a conversion's representative is chosen: credited first, then what got farthest through
    the checks, copies of other rows last."""
    window = REASONS[REASON["credited"] :]
    checks = [r for r in REASONS[REASON["credited"] - 1 :: -1] if r != "duplicate"]
    order = [*window, *checks, "duplicate"]
    return np.array([order.index(r) for r in REASONS], np.int8)

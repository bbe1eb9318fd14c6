"""The batch door: rule, sends and events in; credits, reasons and outcomes out."""

from __future__ import annotations

import numpy as np

from justai_sim.attribution.earnings import Earnings
from justai_sim.attribution.events import Bound
from justai_sim.attribution.outcomes import Attribution
from justai_sim.attribution.prepare import Ready, prepare, whole
from justai_sim.attribution.rule import Rule
from justai_sim.attribution.window import Contest
from justai_sim.tables import I8, Credits, Events, Sends


def attribute(bound: Bound, sends: Sends, events: Events, as_of: int | None = None) -> Attribution:
    """Credit of every event that is known at `as_of` (microseconds; None: all rows), as attribution rules say.

    A pure function of the rows known: their order and repetition change nothing. DataError for times outside
    1970..2100 and for sums of money that int64 cannot hold.
    """
    ready = prepare(bound, sends, events, as_of)
    return under(ready, Contest(ready), bound.rule)


def under(ready: Ready, contest: Contest, rule: Rule) -> Attribution:
    """The prepared log under `rule`, which may differ from the prepared one in the window and the credit rule."""
    judged = contest.judge(rule)
    reason = ready.reason.copy()
    reason[ready.rows] = judged.reason
    conversions = (judged.event, judged.send, judged.weight)
    parts = [conversions]
    if len(ready.engagement[0]):
        parts.insert(0, whole(ready.engagement))
    back, at = refunds(ready, judged.event)
    if len(back):
        parts.append((back, judged.send[at], judged.weight[at]))
    event, send, weight = parts[0] if len(parts) == 1 else (np.concatenate(c) for c in zip(*parts, strict=True))
    table = Credits(event_row=event, send_row=ready.known.rows(send), weight=weight)
    earned = Earnings(ready, rule, reason, event, send, weight)
    return Attribution(rule, ready.as_of, table, reason, ready.value, earned)


def refunds(ready: Ready, event: I8) -> tuple[I8, I8]:
    """A refund follows its order's credits, with the order's weights: refund rows, and the credits they follow.

    `event`: event row of each credit of a conversion.
    """
    if not len(ready.refunds):
        return ready.refunds, ready.refunds
    sort = np.argsort(event, kind="stable")
    lo = np.searchsorted(event[sort], ready.refunded, side="left")
    n = np.searchsorted(event[sort], ready.refunded, side="right") - lo
    at = sort[np.repeat(lo - np.cumsum(n) + n, n) + np.arange(int(n.sum()))]
    return np.repeat(ready.refunds, n), at

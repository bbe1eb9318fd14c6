"""What each send earned, from its credits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from justai_sim import clock
from justai_sim.attribution.events import money_share
from justai_sim.attribution.outcomes import Outcomes, close_of
from justai_sim.attribution.prepare import Ready
from justai_sim.attribution.rule import Rule
from justai_sim.errors import DataError
from justai_sim.tables import B1, CLICK, CONVERSION, F8, I1, I8, OPEN, PARTS, REASON, UNSUBSCRIBE


@dataclass(frozen=True)
class Earnings:
    """Calling it makes the outcomes of one attribution; credits are (event row, position of the send, weight)."""

    ready: Ready
    rule: Rule
    reason: I1
    event: I8
    send: I8
    weight: I8

    def __call__(self) -> Outcomes:
        """DataError where the revenue of one send is beyond int64."""
        from justai_sim.attribution import scan

        r, k, n = self.ready, self.ready.known, len(self.ready.known)
        kind = r.events.kind[self.event]
        conversion = kind == CONVERSION
        paid = conversion & (self.reason[self.event] == REASON["credited"])
        total = scan.sum_by(self.send[paid], self.weight[paid], n)
        numerator = total
        if self.rule.repeat == "once_per_send":
            numerator = np.minimum(total, PARTS)
        elif self.rule.repeat == "once_per_user":
            first = first_of_user(r, self.event[paid], self.send[paid])
            numerator = scan.sum_by(self.send[paid][first], self.weight[paid][first], n)
        opens, clicks = self._any(kind == OPEN), self._any(kind == CLICK)
        return Outcomes(
            send_row=k.rows(np.arange(n)),
            reached=k.reached,
            ghost=k.ghost,
            anchor=r.anchor,
            close_at=close_of(self.rule, r.anchor),
            engagement_close_at=k.sent_at + clock.days(self.rule.engagement_lookback_days),
            opens=np.maximum(opens, clicks) if self.rule.click_implies_open else opens,
            clicks=clicks,
            unsubscribes=self._any(kind == UNSUBSCRIBE),
            weight=total,
            numerator=numerator,
            revenue=self._revenue(conversion),
        )

    def _any(self, which: B1) -> I8:
        out = np.zeros(len(self.ready.known), np.int64)
        out[self.send[which]] = 1
        return out

    def _revenue(self, conversion: B1) -> I8:
        from justai_sim.attribution import scan

        n, send = len(self.ready.known), self.send[conversion]
        if not len(send):
            return np.zeros(n, np.int64)
        share = money_share(self.ready.value[self.event[conversion]], self.weight[conversion], PARTS)
        # int64 holds 9.2e12 units of money on one send; beyond that a sum would wrap round silently.
        if float(np.abs(share).max()) * len(share) > 9.2e18 and np.bincount(send, np.abs(share), n).max() > 9.2e18:
            raise DataError("the revenue of one send exceeds 9.2e12: check the unit of `value`")
        return scan.sum_by(send, share, n)


def capped(rule: Rule, revenue: F8, settled: B1) -> F8:
    """Net revenue of each send (n,), micro-units, not above the rule's cap (rule 29). `settled` (n,): the reached sends
    whose window has closed, of which a quantile is taken."""
    cap = None if rule.cap is None else rule.cap * 1e6
    if rule.cap_quantile is not None:
        paid = revenue[settled & (revenue > 0)]
        cap = float(np.quantile(paid, rule.cap_quantile)) if len(paid) else None
    return revenue if cap is None else np.minimum(revenue, cap)


def first_of_user(ready: Ready, event: I8, send: I8) -> I8:
    """Which credits (event row, position of the send) are of the first credited conversion of a user in a template:
    their indices. What `repeat="once_per_user"` counts."""
    k = ready.known
    user, template = k.user[send], k.template[send]
    order = np.lexsort((ready.events.event[event], ready.occurred[event], template, user))
    lead = np.ones(len(order), bool)
    u, t = user[order], template[order]
    lead[1:] = (u[1:] != u[:-1]) | (t[1:] != t[:-1])
    leader = event[order][lead][np.cumsum(lead) - 1] if len(order) else event
    return order[event[order] == leader]

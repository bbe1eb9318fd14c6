"""What separates the conversions that a dashboard shows from those that its sends caused, exactly.

For each group of sends (a variant of a template, in one world)

    shown = caused + organic + borrowed + extra_copies + spurious
            - sum over the conversions e that its sends caused of (1 - w0(e)), given to one of `terms.MISSED`
            - uncounted - capped + repeats

in parts of 1e9 conversions, w0 the weight of e's representative row on its cause. The unit is the weight of conversion
rows that are no refunds. `events` counts conversions (neither capped nor repeats), `sends` converted sends (caused:
sends that caused one). `revenue` is weight x value, shares truncated toward zero as attribution earns them; caused is
net of the refunds that happened, `refunds` what those booked differ from them, `caps_and_rounding` what caps, shares
and amounts that are told otherwise than they are change.

Under single or fractional credit with scope="org" a conversion that one send borrows is missed by another. So over all
groups `borrowed` balances what own sends missed of credited conversions: that is `elsewhere` where the own send
qualifies, else the term that says why it does not. Under other scopes or credit rules nothing balances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from justai_sim.attribution import Attribution, Bound
from justai_sim.attribution.attribute import under
from justai_sim.attribution.earnings import capped
from justai_sim.attribution.events import converted_values, money_share
from justai_sim.attribution.prepare import Ready, prepare
from justai_sim.attribution.window import Contest
from justai_sim.biases.match import Index, Sent, all_sent, is_refund, representatives, told_of
from justai_sim.biases.own import missed
from justai_sim.biases.terms import IDENTITIES, NO_ROW, TERM, TERMS
from justai_sim.clock import MISSING
from justai_sim.tables import CONVERSION, I4, I8, NONE, PARTS, REASON, Events, Sends
from justai_sim.truth import Behind, Truth


@dataclass(frozen=True)
class Identity:
    """The terms by group, one row each, exact in integers.

    `rep, template, variant` (groups,): codes; variant `match.HELD` are the ghost sends of held-out users, template and
    variant NONE sends of which only the truth knows. `amount`: by identity (groups, TERMS), in parts of 1e9
    conversions; `revenue` in micro-units of the declared currency. Per group `shown` is the sum of the other terms.
    """

    rep: I8
    template: I8
    variant: I8
    amount: dict[str, I8]


def identity(bound: Bound, sends: Sends, events: Events, behind: Behind, as_of: int, currency: int = NONE) -> Identity:
    """The bias identity of a log under a rule, by (rep, template, variant), for what happened before `as_of`.

    A conversion stands for one of its rows, its representative: the surviving copy, the credited one first. `currency`:
    code of the currency of the true amounts; NONE: the declared one.
    """
    ready = prepare(bound, sends, events, as_of)
    return _Books(ready, under(ready, Contest(ready), bound.rule), behind, currency).close()


class _Books:
    """Entries (send, term, amount) of each identity; sends are positions in `sent`, the known ones first."""

    def __init__(self, ready: Ready, got: Attribution, behind: Behind, currency: int) -> None:
        self.ready, self.got, self.behind = ready, got, behind
        truth = behind.truth.take(behind.truth.occurred_at < ready.as_of)
        self.sent: Sent = all_sent(ready, behind.unheard, truth)
        self.index = Index(self.sent.rep, self.sent.send)
        back = is_refund(truth)
        self.truth, self.refunded = truth.take(~back), truth.take(back)
        self.worth, self.back = (_worth(ready.bound, t, currency) for t in (self.truth, self.refunded))
        self.cause = self.index.find(self.truth.rep, self.truth.cause)
        known = len(ready.known)
        self.place = np.full(len(ready.sends), -1, np.int64)
        """Position of each send row that leads."""
        self.place[ready.known.rows(np.arange(known))] = np.arange(known)
        self.entries: dict[str, list[tuple[I8, I8, I8]]] = {k: [] for k in IDENTITIES}

    def book(self, which: str, send: I8, term: str | I8, amount: I8) -> None:
        column = np.full(len(send), TERM[term], np.int64) if isinstance(term, str) else term
        self.entries[which].append((send, column, amount))

    def weight(self, send: I8, term: str | I8, amount: I8) -> None:
        """An entry of conversions, the same in events and in converted sends."""
        self.book("events", send, term, amount)
        self.book("sends", send, term, amount)

    def close(self) -> Identity:
        self.credits()
        self.causes()
        self.outcomes()
        return self._sums()

    # -- what was credited ---------------------------------------------------------------------------

    def credits(self) -> None:
        """Weight that a send was given and did not cause; sets `row` and `own`, by conversion."""
        e, c, place = self.ready.events, self.got.credits, self.place
        paid = (e.kind[c.event_row] == CONVERSION) & (self.got.reason[c.event_row] == REASON["credited"])
        row, send, weight = c.event_row[paid], place[c.send_row[paid]], c.weight[paid]
        told = told_of(e, self.behind.origin, self.truth)
        event = told[row]
        cause = np.append(self.cause, -1)[event]
        on_cause = (cause >= 0) & (cause == send)
        own = np.zeros(len(e), np.int64)
        own[row[on_cause]] = weight[on_cause]
        self.row = representatives(e, told, self.got.reason, own, len(self.truth))
        self.own = np.append(own, 0)[self.row]
        self.row_value = np.append(self.got.value, 0)[self.row]
        standing = np.append(self.row, -1)[event] == row
        kind = np.select(
            [event < 0, cause < 0, ~on_cause, ~standing],
            [TERM["spurious"], TERM["organic"], TERM["borrowed"], TERM["extra_copies"]], -1,
        )  # fmt: skip
        some = kind >= 0
        self.weight(send[some], kind[some], weight[some])
        money = money_share(self.got.value[row], weight, PARTS)
        self.book("revenue", send[some], kind[some], money[some])
        named = np.append(self.ready.named, -1)[row] if self.ready.look.named else np.full(len(row), -1)
        self.to_named = np.zeros(len(e) + 1, bool)
        self.to_named[row[(named == send)]] = True

    # -- what was caused -----------------------------------------------------------------------------

    def causes(self) -> None:
        """Conversions and money that sends caused, and the credit for it that they did not get."""
        at = np.flatnonzero(self.cause >= 0)
        cause, row, own, worth = self.cause[at], self.row[at], self.own[at], self.worth[at]
        one = np.full(len(at), PARTS, np.int64)
        senders = np.unique(cause)
        self.book("events", cause, "caused", one)
        self.book("sends", senders, "caused", one[: len(senders)])
        self.book("sends", cause, "repeats", one)
        self.book("sends", senders, "repeats", -one[: len(senders)])
        self.book("revenue", cause, "caused", worth)
        back = self.index.find(self.refunded.rep, self.refunded.cause)
        some = back >= 0
        self.book("revenue", back[some], "caused", self.back[some])
        self.book("revenue", back[some], "refunds", -self.back[some])
        short = PARTS - own
        term = self._missed(at, row, cause)
        self.weight(cause, term, -short)
        lost, told = money_share(worth, short, PARTS), money_share(self.row_value[at], own, PARTS)
        self.book("revenue", cause, term, -lost)
        # What it earned its send, against the true amount less what is lost: other amounts, and truncated shares.
        self.book("revenue", cause, "caps_and_rounding", told - (worth - lost))

    def _missed(self, at: I8, row: I8, cause: I8) -> I8:
        """The term of what each conversion's own send did not get."""
        on_its_way = self.behind.unheard.events, self.behind.unheard.origin
        awaited = Index(on_its_way[0].rep, on_its_way[1]).find(self.truth.rep[at], self.truth.event[at]) >= 0
        no_row = np.where(awaited, REASON["not_yet_known"], NO_ROW)
        reason = np.where(row >= 0, np.append(self.got.reason, -1)[row], no_row).astype(np.int8)
        return missed(self.ready, row, reason, cause, self.sent.fate[cause], self.to_named[row]).astype(np.int64)

    # -- what is shown -------------------------------------------------------------------------------

    def outcomes(self) -> None:
        """What the results table makes of the credits: caps, refunds, sends that no rate counts."""
        o, got = self.got.outcomes, self.got
        earned = (o.weight != 0) | (o.revenue != 0)
        counts = o.close_at != MISSING
        send = np.flatnonzero(earned & ~counts)
        self.weight(send, "uncounted", -o.weight[send])
        self.book("revenue", send, "uncounted", -o.revenue[send])
        send = np.flatnonzero(earned & counts)
        self.book("sends", send, "capped", (o.numerator - o.weight)[send])
        self.book("events", send, "shown", o.weight[send])
        self.book("sends", send, "shown", o.numerator[send])
        money = self._capped()[send]
        self.book("revenue", send, "caps_and_rounding", money - o.revenue[send])
        self.book("revenue", send, "shown", money)
        c, e = got.credits, self.ready.events
        back = (e.kind[c.event_row] == CONVERSION) & (got.reason[c.event_row] == REASON["refund"])
        row, to = c.event_row[back], self.place[c.send_row[back]]
        self.book("revenue", to, "refunds", money_share(got.value[row], c.weight[back], PARTS))

    def _capped(self) -> I8:
        """Revenue of each known send under the rule's cap, which each world takes from its own sends."""
        o, rep = self.got.outcomes, self.sent.rep[: len(self.got.outcomes)]
        if self.got.rule.cap is None and self.got.rule.cap_quantile is None:
            return o.revenue
        out = o.revenue.astype(np.float64)
        settled = self.got.mature() & o.reached
        for r in np.unique(rep):
            out[rep == r] = capped(self.got.rule, out[rep == r], settled[rep == r])
        return np.rint(out).astype(np.int64)

    def _sums(self) -> Identity:
        from justai_sim.attribution import scan

        s = self.sent
        group, rep, template, variant = _groups(s.rep, s.template, s.variant)
        amount = {}
        for which, entries in self.entries.items():
            send, term, value = (np.concatenate(c) for c in zip(*entries, strict=True))
            n = len(rep) * len(TERMS)
            amount[which] = scan.sum_by(group[send] * len(TERMS) + term, value, n).reshape(len(rep), len(TERMS))
        return Identity(rep, template, variant, amount)


def _groups(rep: I4, template: I8, variant: I8) -> tuple[I8, I8, I8, I8]:
    """Which (rep, template, variant) each send belongs to, and the groups in that order."""
    t, v = int(template.max(initial=0)) + 2, int(variant.max(initial=0)) + 3
    key = (rep * np.int64(t) + template + 1) * v + variant + 2
    there = np.bincount(key) > 0
    found = np.flatnonzero(there)
    return (np.cumsum(there) - 1)[key], found // v // t, found // v % t - 1, found % v - 2


def _worth(bound: Bound, truth: Truth, currency: int) -> I8:
    """True amounts in the declared currency, micro-units; as they are where the rule refuses theirs."""
    value = np.where(truth.value == MISSING, 0, truth.value)
    return converted_values(bound, value, np.full(len(truth), currency, np.int64))[0]

"""Stored rows as the tables that `attribute` takes, and stand-ins for those that are left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from justai_sim.attribution import events as ev
from justai_sim.attribution.attribute import attribute
from justai_sim.attribution.events import Bound
from justai_sim.attribution.ledger_store import GHOST, MASKED, NO_ANCHOR, PLAIN, UNREACHED, Store
from justai_sim.attribution.outcomes import Attribution
from justai_sim.clock import MISSING
from justai_sim.tables import B1, BOUNCED, HELD_OUT, I4, I8, SENT, Events, Sends


def tables_of(st: Store, s_at: I8, e_at: I8, su: I8, eu: I8) -> tuple[Sends, Events]:
    """The rows at these places; users and replications are folded into the small codes `su`, `eu`."""
    from justai_sim.attribution.ledger_walk import picked as of

    s, e = st.sends, st.events
    s_id, e_id = of(s.id, s_at), of(e.id, e_at)
    send = of(st.ids.code, s_id)
    named = np.where(e_id >= 0, st.ids.code[e_id], -1)
    event, order = of(e.event, e_at), of(e.order, e_at)
    rep = of(e.rep, e_at)
    if rep.any() or st.ids.rep[s_id].any():
        both = _ranks(np.concatenate([st.ids.rep[s_id], rep]), np.concatenate([send, named]))
        send, named = both[: len(send)], both[len(send) :]
        event, order = _ranks(rep, event), _ranks(rep, order)
    n, m = len(s_at), len(e_at)
    zero = np.zeros(max(n, m), np.int32)
    return Sends(
        send=send, rep=zero[:n], user=su, template=of(s.template, s_at), variant=of(s.variant, s_at),
        sent_at=of(s.sent_at, s_at), delivered_at=of(s.delivered_at, s_at), status=s.status[s_at],
        status_known_at=of(s.status_known_at, s_at), received_at=of(s.received_at, s_at),
        decided_at=np.full(n, MISSING), propensity=np.zeros(n), segment=np.full(n, -1),
    ), Events(
        event=event, rep=zero[:m], user=eu, kind=e.kind[e_at], name=of(e.name, e_at),
        occurred_at=of(e.occurred_at, e_at), received_at=of(e.received_at, e_at), value=of(e.value, e_at),
        currency=of(e.currency, e_at), send=named, order=order, template=of(e.template, e_at),
        variant=of(e.variant, e_at), machine=e.machine[e_at],
    )  # fmt: skip


def _ranks(rep: I8, code: I8) -> I8:
    """Small integers for (replication, code) in that order; a missing code is -1.

    >>> _ranks(np.array([0, 1, 0, 1]), np.array([7, 7, 9, -1]))
    array([ 1,  4,  2, -1])
    """
    order = np.lexsort((code, rep))
    step = np.ones(len(order), np.int64)
    step[1:] = (np.diff(rep[order]) != 0) | (np.diff(code[order]) != 0)
    out = np.empty(len(order), np.int64)
    out[order] = np.cumsum(step)
    return np.where(code >= 0, out, -1)


class Goals:
    """Templates by what counts for them: of a closed send only its kind of goal still matters."""

    def __init__(self, bound: Bound) -> None:
        goals, kind = np.unique(bound.goal, axis=0, return_inverse=True)
        self.many = len(goals) > MASKED
        """More kinds than a mask holds: then every account is always seen whole."""
        self.kind: I8 = kind.reshape(-1).astype(np.int64) * (not self.many)
        """Per template."""
        self.example: I8 = np.zeros(MASKED, np.int64)
        """A template of each kind."""
        self.example[self.kind[::-1]] = np.arange(len(self.kind))[::-1]
        self.engaged = bound.rule.anchor in ("opened", "clicked")

    def stand_ins(self, closed: list[I8], at: int, sends: Sends, events: Events) -> Sends:
        """Sends of the instant `at` in place of `closed` ones (user, kind of goal, class): too old to qualify, but a
        reason why nothing does."""
        user, kind, klass = closed
        if not len(user):
            return Sends.empty()
        if self.engaged:  # a closed send with an anchor: one that competes, and one for engagement
            plain = klass == PLAIN
            user, kind = np.concatenate([user, user[plain]]), np.concatenate([kind, kind[plain]])
            klass = np.concatenate([np.where(plain, GHOST, klass), np.full(int(plain.sum()), NO_ANCHOR)])
        n = len(user)
        if int(sends.send.min(initial=1 << 62)) >= n and not (events.send >= 0).any():
            code = np.arange(n)  # before the others, so that the table stays in order
        else:
            code = np.arange(n) + 1 + max(int(sends.send.max(initial=-1)), int(events.send.max(initial=-1)))
        status = np.where(klass == GHOST, HELD_OUT, np.where(klass == UNREACHED, BOUNCED, SENT))
        return Sends.build(
            n, send=code, user=user, template=self.example[kind], variant=0, sent_at=at, received_at=at,
            status_known_at=at, delivered_at=np.where(klass == NO_ANCHOR, MISSING, at), status=status,
        )  # fmt: skip


def open_until(over: I8, lateness: int) -> I8:
    """The last settle after which a row that happened `over` or earlier can still arrive in time (rule 33)."""
    return over + lateness


def forgotten_at(until: I8, memory: int) -> I8:
    """The instant from which a row that was open `until` is no longer remembered."""
    return until + memory


class Run(NamedTuple):
    """One attribution of some accounts: positions of their rows, and what each event row comes to."""

    sends: I8
    events: I8
    live: B1
    """Event rows that are judged; the others are there for what they say of a send."""
    got: Attribution
    start: I8
    """Credits of event k are [start[k]:start[k + 1]] of `id` and `weight`, by rising id."""
    id: I8
    weight: I8
    amount: I8
    """Value of each event in the declared currency."""
    old: int
    """Stand-ins before the first of `sends` in what was attributed."""


def attributed(
    st: Store,
    bound: Bound,
    goals: Goals,
    roots: I4,
    now: int,
    settled: int,
    horizon: int,
    extra: int,
    before_all: int,
    whole: bool,
) -> Run:
    """Attribute the accounts as of `now`: their open rows at `settled`, or `whole` what was open after
    `horizon`, with stand-ins at `before_all` for the rest."""
    from justai_sim.attribution import ledger_walk as k

    s_at, e_at = k.gather(
        st.accounts, st.ids, st.sends, st.events, roots, settled, extra, goals.kind, whole or goals.many
    )
    s_at.sort()
    e_at.sort()
    su, eu, live, *closed = k.dense(st.accounts, st.sends, st.events, s_at, e_at, roots, settled, horizon)
    sends, events = tables_of(st, s_at, e_at, su, eu)
    old = goals.stand_ins(closed, before_all, sends, events)
    got = attribute(bound, Sends.concat([old, sends]) if len(old) else sends, events, now)
    row, weight = got.credits.event_row, got.credits.weight
    ids = k.picked(st.sends.id, s_at[got.credits.send_row - len(old)])
    rising = np.diff(row)
    if len(rising) and rising.min() <= 0:
        order = np.lexsort((ids, row))
        row, ids, weight = row[order], ids[order], weight[order]
    start = np.searchsorted(row, np.arange(len(e_at) + 1))
    amount, _ = ev.converted_values(bound, events.value, events.currency)
    return Run(s_at, e_at, live, got, start, ids, weight, np.where(amount == MISSING, 0, amount), len(old))

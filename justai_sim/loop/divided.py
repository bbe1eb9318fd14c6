"""A log replayed in parts: accounts are attributed elsewhere, the sums and the shares are made here.

Attribution is a function of an account's own rows, so it can be done anywhere. What a policy learns from is summed up
here, over all sends in the order in which they arrived: so the sums, which are floats, do not depend on the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from justai_sim.attribution import Attribution, Bound, attribute
from justai_sim.attribution.outcomes import Outcomes
from justai_sim.errors import UsageError
from justai_sim.executor import Executor
from justai_sim.loop.program import Program, bound_to
from justai_sim.loop.replay import Arrivals, machine_of, refresh_times, spans, with_decisions
from justai_sim.loop.state import Earned, State
from justai_sim.loop.step import Tick, learn, refresh
from justai_sim.tables import I1, I8, NONE, Array, Credits, Events, Log, Sends

MOST_PARTS = 4096


@dataclass(frozen=True)
class Part:
    """Some accounts of a log with all their rows, coded anew; `send_rows`, `event_rows` are theirs in the log.

    times: the refreshes to step through, none for the batch door alone; weighted: whether the policy needs credits.
    """

    bound: Bound
    sends: Sends
    events: Events
    send_rows: I8
    event_rows: I8
    as_of: int
    times: I8
    start: int
    weighted: bool


@dataclass(frozen=True)
class Change:
    """What a step found anew, in rows of the log: sends whose earnings are other ones than before (`earned` by column),
    and, where they are needed, events that were judged again with their credits."""

    sends: I8
    earned: dict[str, Array]
    judged: I8
    credits: Credits


@dataclass(frozen=True)
class Found:
    """The attribution of a part at `as_of`, in rows of the log, and what each of its steps changed."""

    event_rows: I8
    reason: I1
    value: I8
    credits: Credits
    outcomes: Outcomes
    changes: list[Change]


class Divided:
    """A replay whose attribution is done in `parts` parts; the same as `attribute_log` and `replay_log`."""

    def __init__(
        self, program: Program, log: Log, as_of: int, start: int | None, on: Executor, parts: int, steps: bool
    ) -> None:
        if not 1 <= parts <= MOST_PARTS:
            raise UsageError(f"partitions is {parts}; expected a whole number from 1 to {MOST_PARTS}")
        self.machine, self.as_of = machine_of(program, log), as_of
        self.bound = bound_to(program, log)
        self.sends, self.events = with_decisions(log.sends, log.decisions), log.events
        self.times, self.start, self.refused = np.zeros(0, np.int64), 0, None
        if steps:
            try:
                self.times, self.start = refresh_times(program, log, self.sends, as_of, start)
            except UsageError as e:
                self.refused = e
        weighted = program.feedback == "weighted"
        units = [
            _part(self.bound, self.sends, self.events, rows, as_of, self.times, self.start, weighted)
            for rows in split(self.sends, self.events, parts)
        ]
        self.found = [found for _, found in sorted(on.map(work, units), key=lambda f: f[0])]

    @property
    def attribution(self) -> Attribution:
        """The whole log's; credits by event and send."""
        reason, value = np.zeros(len(self.events), np.int8), np.zeros(len(self.events), np.int64)
        for f in self.found:
            reason[f.event_rows], value[f.event_rows] = f.reason, f.value
        earned = Credits.concat([f.credits for f in self.found])
        earned = earned.take(np.lexsort((earned.send_row, earned.event_row)))
        outcomes = Outcomes.concat([f.outcomes for f in self.found])
        outcomes = outcomes.take(np.argsort(outcomes.send_row))
        return Attribution(self.bound.rule, self.as_of, earned, reason, value, outcomes)

    def ticks(self) -> list[Tick]:
        """Every refresh. UsageError where there are too many of them."""
        if self.refused is not None:
            raise self.refused
        state = State(1, *spans(self.sends, self.events), self.start)
        batches = Arrivals(self.sends, self.events)
        place = {k: _inverse(batches.order[k]) for k in ("s", "e")}
        out = []
        for k, now in enumerate(self.times.tolist()):
            batch = batches.until(now)
            state.store(batch.sends, batch.events)
            for change in (f.changes[k] for f in self.found):
                state.book(place["s"][change.sends], change.earned)
                c = change.credits
                moved = Credits(event_row=place["e"][c.event_row], send_row=place["s"][c.send_row], weight=c.weight)
                state.recredit(place["e"][change.judged], moved)
            out.append(refresh(self.machine, state, now))
        return out


def work(part: Part) -> Found:
    """Attribute a part, and step through it: a pure function, run in a worker."""
    got = attribute(part.bound, part.sends, part.events, part.as_of)
    o, c = got.outcomes, got.credits
    return Found(
        part.event_rows, got.reason, got.value,
        Credits(event_row=part.event_rows[c.event_row], send_row=part.send_rows[c.send_row], weight=c.weight),
        o.with_(send_row=part.send_rows[o.send_row]), _steps(part) if len(part.times) else [],
    )  # fmt: skip


class _Watched(State):
    """A state that notes which sends the last attribution found changed, and which events it judged."""

    changed: I8
    judged: I8
    columns = ("counted", "ghost", *Earned.NUMBERS)

    known = 0
    """Sends that were attributed before; the others are changed in any case."""

    def write(self, send_rows: I8, event_rows: I8, got: Attribution) -> None:
        before = self.earnings.take(send_rows)
        super().write(send_rows, event_rows, got)
        after = self.earnings.take(send_rows)
        new = send_rows >= self.known
        for n in self.columns:
            new |= getattr(before, n) != getattr(after, n)
        self.changed, self.judged, self.known = send_rows[new], event_rows, self.sends.n


def _steps(part: Part) -> list[Change]:
    state = _Watched(1, *spans(part.sends, part.events), part.start)
    batches = Arrivals(part.sends, part.events)
    send_at, event_at = part.send_rows[batches.order["s"]], part.event_rows[batches.order["e"]]
    out = []
    for now in part.times.tolist():
        state.changed = state.judged = np.zeros(0, np.int64)
        learn(part.bound, state, batches.until(now), now)
        rows, judged = state.changed, state.judged if part.weighted else state.judged[:0]
        c = state.credits if part.weighted else Credits.empty()
        c = c.take(np.isin(c.event_row, judged))
        moved = Credits(event_row=event_at[c.event_row], send_row=send_at[c.send_row], weight=c.weight)
        earned = {n: state.earnings.column(n, rows) for n in state.columns}
        out.append(Change(send_at[rows], earned, event_at[judged], moved))
    return out


def split(sends: Sends, events: Events, parts: int) -> list[tuple[I8, I8]]:
    """Send and event rows of each part that has some, (rows, rows); an account lies in one part with all its rows."""
    of_send, of_event = accounts(sends, events)
    places = [_members(of % parts, parts) for of in (of_send, of_event)]
    return [(s, e) for s, e in zip(*places, strict=True) if len(s) or len(e)]


def accounts(sends: Sends, events: Events) -> tuple[I8, I8]:
    """The account of each send row and event row, numbered from 0.

    Users share one where their rows touch one another: a send id that both have, an event that names another user's
    send. An event without a user belongs to the send that it names and to whatever could be its copy or its order:
    rows with the same event or order id and no user either.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    users = max((int(t.user.max()) + 1 for t in (sends, events) if len(t)), default=0)
    span = max((int(t.send.max()) + 1 for t in (sends, events) if len(t)), default=1)
    owner = np.full(max(span, 1), NONE, np.int64)
    owner[sends.send[::-1]] = sends.user[::-1]  # the first row stays
    orphan = np.flatnonzero(events.user < 0)
    node = events.user.astype(np.int64).copy()
    node[orphan] = users + np.arange(len(orphan))
    named = np.flatnonzero(events.send >= 0)
    named = named[owner[events.send[named]] != NONE]
    edges = [(owner[sends.send], sends.user), (owner[events.send[named]], node[named])]
    size = users + len(orphan)
    for ids, there in ((events.event[orphan], orphan >= 0), (events.order[orphan], events.order[orphan] >= 0)):
        texts, code = np.unique(ids[there], return_inverse=True)
        edges.append((node[orphan[there]], size + code.ravel()))
        size += len(texts)
    a, b = (np.concatenate(x) for x in zip(*edges, strict=True))
    a, b = a[a != b], b[a != b]
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(max(size, 1), max(size, 1)))
    label = np.asarray(connected_components(graph, directed=False)[1], np.int64)
    return label[sends.user], label[node]


def _members(place: I8, parts: int) -> list[I8]:
    """Rows by place, in their order."""
    order = np.argsort(place, kind="stable")
    return np.split(order, np.searchsorted(place[order], np.arange(1, parts)))


def _part(
    bound: Bound, sends: Sends, events: Events, rows: tuple[I8, I8], as_of: int, times: I8, start: int, weighted: bool
) -> Part:
    s, e = sends.take(rows[0]), events.take(rows[1])
    for column in ("user", "send"):
        # Dense codes in the same order: what a state holds grows with its part, and ties stay as they are.
        own = [np.asarray(getattr(t, column)) for t in (s, e)]
        there = [c >= 0 for c in own]
        _, code = np.unique(np.concatenate([c[ok] for c, ok in zip(own, there, strict=True)]), return_inverse=True)
        code = code.ravel().astype(np.int64)
        new: list[Any] = [np.full(len(c), NONE, np.int64) for c in own]
        new[0][there[0]], new[1][there[1]] = np.split(code, [int(there[0].sum())])
        s, e = s.with_(**{column: new[0]}), e.with_(**{column: new[1]})
    return Part(bound, s, e, *rows, as_of, times, start, weighted)


def _inverse(order: I8) -> I8:
    out = np.empty(len(order), np.int64)
    out[order] = np.arange(len(order))
    return out

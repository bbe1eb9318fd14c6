"""What messages add by days since the send, fitted as a sum over the messages of a user.

Conversions of users who get several messages overlap, and some would have come anyway. The intensity of a user is
taken as a sum: background + for each message so far the effect of its variant at its age, constant within a day of
age and nothing after `ages` days (Aalen's additive model in discrete age). It is fitted by least squares over users'
time: a message is followed as long as the log goes, so young messages count for what was seen of them. Unlike
hazards, sums need no message to be isolated. Errors come from random groups of users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from justai_sim.clock import DAY, SECOND
from justai_sim.streams import uniform
from justai_sim.tables import B1, F8, I8

Background = Literal["holdout", "before", "upper"]
LONGEST, BEFORE = 30, 7
"""Days of age that are followed, and days before a user's first message that tell of the background."""
FEW = 5
"""Conversions before first messages below which the log is taken not to know its users before; and those of the
earlier half of the days must be half of the later's: users who sign up to get the message are not there before it."""
HELD_OUT_USERS = 30
MOST_PAIRS, MOST_OF_USER = 10_000_000, 100_000
"""Pairs of overlapping messages that are looked at, in all (else users are sampled) and of one user (else that user,
a mailbox and no person, is left out)."""


@dataclass(frozen=True)
class Touches:
    """Messages that may act, sorted by (user, time); columns (n,). user: rank 0..U-1. column: the variant's, or -1
    for a ghost, which brings a user's time and nothing else. second: a key that sorts like (user, time)."""

    user: I8
    column: I8
    at: I8
    key: I8
    first: I8
    """(U,): position of each user's first message."""
    labels: I8
    """(U,): the user codes, sorted."""
    group: I8
    """(U,): the random group of each user."""
    base: int
    span: int

    def keys(self, user: I8, at: I8) -> I8:
        """Keys of (user rank, instant), clipped to the user's own range."""
        return user * self.span + np.clip((at - self.base) // SECOND, 0, self.span - 1)


@dataclass(frozen=True)
class Fit:
    """background: conversions per user-day. effect (V, A): what each day of age adds, conversions per message; NaN
    where no message was seen. parts (G, 1 + V * A): each group's influence on (background, effect)."""

    kind: Background
    background: float
    effect: F8
    parts: F8
    known: bool
    """Whether the log can tell the background from the effects at all."""
    sends: I8
    """(V,): messages of each variant."""

    @property
    def ages(self) -> int:
        return int(self.effect.shape[1])

    def influence(self) -> F8:
        """(G, V, A)."""
        return self.parts[:, 1:].reshape(len(self.parts), *self.effect.shape)


def touches(user: I8, column: I8, at: I8, group: I8) -> Touches:
    """Sort messages; `group` (n,) is that of the message's user."""
    labels, rank = np.unique(user, return_inverse=True)
    base = int(at.min()) - LONGEST * DAY
    span = int((at.max() - base) // SECOND) + 2 * LONGEST * (DAY // SECOND) + 2
    order = np.argsort(rank * span + (at - base) // SECOND, kind="stable")
    rank, at = rank[order], at[order]
    first = np.searchsorted(rank, np.arange(len(labels)))
    key = rank * span + (at - base) // SECOND
    return Touches(rank, column[order], at, key, first, labels, group[order][first], base, span)


def fit(
    user: I8, column: I8, at: I8, group: I8, event_user: I8, event_at: I8, start: int, end: int,
    variants: int, groups: int,
) -> Fit | None:  # fmt: skip
    """Fit the effects of messages (n,) on conversions (m,) of their users; the log covers [start, end].

    column: 0..variants-1, -1 for ghosts of held-out users. Users without a message are left out. None where
    messages have not been followed long enough for any day of age.
    """
    inside = at <= end
    user, column, at, group = user[inside], column[inside], at[inside], group[inside]
    if not (column >= 0).any():
        return None
    seen = (end - at[column >= 0]) / DAY
    followed = int(np.quantile(seen, 0.9))
    t, sample = _sampled(touches(user, column, at, group))
    if not sample[t.user[t.column >= 0]].any():
        return None  # users with thousands of sends each: their days overlap too much to be told apart
    rank = np.minimum(np.searchsorted(t.labels, event_user), len(t.labels) - 1)
    there = (t.labels[rank] == event_user) & sample[rank] & (event_at <= end)
    rank, event_at = rank[there], event_at[there]
    opened = t.at[t.first]
    early = np.maximum(start, opened - BEFORE * DAY)
    held = np.ones(len(t.labels), bool)
    held[t.user[t.column >= 0]] = False
    kind: Background = "upper"
    if int(held.sum()) >= HELD_OUT_USERS:
        kind = "holdout"
    elif _known_before((opened - early)[rank], (opened[rank] - event_at)):
        kind = "before"
    ages = min(LONGEST, followed - BEFORE if kind == "upper" else followed)
    if ages < 1:
        return None
    entry = early if kind == "before" else opened
    keep = event_at >= entry[rank]
    rank, event_at = rank[keep], event_at[keep]
    P = 1 + variants * ages
    y = np.zeros((groups, P))
    y[:, 0] = np.bincount(t.group[rank], minlength=groups)
    y[:, 1:] = _paired(t, rank, event_at, ages, variants, groups).reshape(groups, -1)
    X = np.zeros((groups, P, P))
    X[:, 0, 0] = np.bincount(t.group[sample], ((end - entry) / DAY)[sample], groups)
    use = sample[t.user] & (t.column >= 0)
    exposure = _exposed(t, use, end, ages, variants, groups).reshape(groups, -1)
    X[:, 0, 1:] = X[:, 1:, 0] = exposure
    X[:, 1:, 1:] = _overlaps(t, use, end, ages, variants, groups).reshape(groups, P - 1, P - 1)
    i = np.arange(1, P)
    X[:, i, i] += exposure
    return _solve(kind, X, y, np.bincount(column[column >= 0], minlength=variants), ages)


def _known_before(watched: I8, ago: I8) -> bool:
    """Whether the log knows users before their first message. watched, ago (m,): per conversion, how long its user
    could be seen before that message, and how long before it the conversion lies, microseconds."""
    there = (ago > 0) & (ago <= watched)
    late = int((there & (2 * ago <= watched)).sum())
    early = int(there.sum()) - late
    return early + late >= FEW and 2 * early >= late


def _solve(kind: Background, X: F8, y: F8, sends: I8, ages: int) -> Fit:
    total, P = X.sum(0), X.shape[1]
    active = np.diag(total) > 0
    scale = np.sqrt(np.diag(total)[active])
    normal = total[np.ix_(active, active)] / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(normal)
    known = bool(values[0] > 1e-9)
    inverse = (vectors / np.maximum(values, 1e-9)) @ vectors.T / np.outer(scale, scale)
    theta = np.full(P, np.nan)
    theta[active] = inverse @ y.sum(0)[active]
    residual = y[:, active] - X[:, active][:, :, active] @ theta[active]
    parts = np.full((len(y), P), np.nan)
    parts[:, active] = residual @ inverse
    return Fit(kind, float(theta[0]), theta[1:].reshape(-1, ages), parts, known, sends)


def _sampled(t: Touches) -> tuple[Touches, B1]:
    """Which users (U,) are looked at: all, unless their pairs of messages are too many."""
    stop = np.append(t.first[1:], len(t.at))[t.user]
    later = np.searchsorted(t.key, t.key + LONGEST * (DAY // SECOND), side="right")
    pairs = np.bincount(t.user, np.minimum(later, stop) - np.arange(len(t.at)) - 1, len(t.labels))
    sample = pairs <= MOST_OF_USER
    share = MOST_PAIRS / max(float(pairs[sample].sum()), 1.0)
    if share < 1:
        sample &= uniform(0, "delay sample", np.zeros(len(t.labels), np.int64), np.abs(t.labels)) < share
    return t, sample


def _paired(t: Touches, rank: I8, at: I8, ages: int, variants: int, groups: int) -> F8:
    """(groups, variants, ages): conversions by the age of each message of their user."""
    lo = np.searchsorted(t.key, t.keys(rank, at - ages * DAY) - 1)
    hi = np.searchsorted(t.key, t.keys(rank, at), side="right")
    n = np.maximum(hi - lo, 0)
    who = np.repeat(np.arange(len(at)), n)
    touch = np.repeat(lo - np.cumsum(n) + n, n) + np.arange(int(n.sum()))
    age = (at[who] - t.at[touch]) // DAY
    good = (t.user[touch] == rank[who]) & (age >= 0) & (age < ages) & (t.column[touch] >= 0)
    touch, age, who = touch[good], age[good], who[good]
    cell = (t.group[rank[who]] * variants + t.column[touch]) * ages + age
    return np.bincount(cell, minlength=groups * variants * ages).reshape(groups, variants, ages).astype(np.float64)


def _exposed(t: Touches, use: B1, end: int, ages: int, variants: int, groups: int) -> F8:
    """(groups, variants, ages): message-days seen at each age."""
    seen = np.minimum((end - t.at[use]) / DAY, ages)
    whole = seen.astype(np.int64)
    cell = (t.group[t.user[use]] * variants + t.column[use]) * (ages + 1) + whole
    shape = (groups, variants, ages + 1)
    size = int(np.prod(shape))
    n = np.bincount(cell, minlength=size).reshape(shape).astype(np.float64)
    rest: F8 = np.bincount(cell, seen - whole, size).reshape(shape).astype(np.float64)
    return _from_older(n, rest)


def _from_older(n: F8, rest: F8) -> F8:
    """Time in each day of age from (..., ages + 1) rows by their last whole day, and what they saw of the next."""
    later = n[..., ::-1].cumsum(-1)[..., ::-1]
    return later[..., 1:] + rest[..., :-1]


def _overlaps(t: Touches, use: B1, end: int, ages: int, variants: int, groups: int) -> F8:
    """(groups, variants, ages, variants, ages): days that users spend at both ages since two messages."""
    out = np.zeros((groups, variants, ages, variants, ages))
    at = np.flatnonzero(use)
    user, when, key = t.user[at], t.at[at], t.key[at]
    later = np.searchsorted(key, t.keys(user, when + ages * DAY), side="right")
    edge = np.searchsorted(user, user, side="right")
    n = np.minimum(later, edge) - np.arange(len(at)) - 1
    old = np.repeat(np.arange(len(at)), n)
    young = old + 1 + np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
    gap = (when[young] - when[old]) / DAY
    near = gap < ages
    old, young, gap = old[near], young[near], gap[near]
    if not len(old):
        return out
    whole = gap.astype(np.int64)
    part = gap - whole
    seen = np.minimum((end - when[young]) / DAY, ages)
    last = seen.astype(np.int64)
    rest = seen - last
    column = t.column[at]
    cell = (t.group[user[young]] * variants + column[old]) * variants + column[young]
    cell = (cell * ages + whole) * (ages + 1) + last
    shape = (groups, variants, variants, ages, ages + 1)
    size = int(np.prod(shape))

    def time(each: F8, at_last: F8) -> F8:
        n, rest = (np.bincount(cell, w, size).reshape(shape).astype(np.float64) for w in (each, at_last))
        return _from_older(n, rest)

    # While the younger message is within a day of age, the older one goes from one day of its age to the next.
    same = time(1 - part, np.minimum(rest, 1 - part))
    after = time(part, np.maximum(rest - (1 - part), 0.0))
    for k in range(ages):
        for step, hours in ((k, same), (k + 1, after)):
            for a in range(ages - step):
                both = hours[:, :, :, k, a]
                out[:, :, a + step, :, a] += both
                out[:, :, a, :, a + step] += both.transpose(0, 2, 1)
    return out

"""What of a log is looked at, and the numbers of its variants under one rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from justai_sim.attribution import Attribution, Bound, Rule, attribute, bind
from justai_sim.attribution.attribute import under
from justai_sim.attribution.prepare import Ready, prepare
from justai_sim.attribution.window import Contest, same_contest
from justai_sim.bandit.policy import METRICS
from justai_sim.clock import MISSING
from justai_sim.errors import DataError, UsageError, nearest
from justai_sim.estimate.metrics import capped_revenue
from justai_sim.loop.program import CONTROL
from justai_sim.loop.replay import last_received
from justai_sim.meant import goals_of, suspicious, with_currency
from justai_sim.replays import Selection
from justai_sim.stats import influence_interval as interval
from justai_sim.tables import B1, F8, HELD_OUT, I8, PARTS, Log

__all__ = ["Numbers", "Study", "column", "control_of", "interval", "metric_of", "numbers", "ratio", "study"]

COUNTS = ("conversions", "revenue", "opens", "clicks", "unsubscribes")
OF_RATE = {
    "conversion_rate": "conversions",
    "revenue_per_send": "revenue",
    "open_rate": "opens",
    "click_rate": "clicks",
    "unsubscribe_rate": "unsubscribes",
}


@dataclass(frozen=True)
class Study:
    """A log with the choices that all readings share.

    shown: (sends,) the sends that the numbers are about; all compete for credit. user: (sends,) codes
    0..users-1 of their users. mature: only sends whose window has closed.
    """

    log: Log
    rule: Rule
    goals: list[str]
    as_of: int
    shown: B1
    user: I8
    users: int
    notes: list[str]
    mature: bool = False

    def attribute(self, rule: Rule) -> Attribution:
        """The whole log under a rule, through production's attribution. Rules that differ from the one in use in the
        window and the credit rule are judged on the same prepared log."""
        if same_contest(rule, self.rule):
            return under(*self._contest, rule)
        return attribute(self._bound(rule), self.log.sends, self.log.events, self.as_of)

    @cached_property
    def _contest(self) -> tuple[Ready, Contest]:
        ready = prepare(self._bound(self.rule), self.log.sends, self.log.events, self.as_of)
        return ready, Contest(ready)

    def _bound(self, rule: Rule) -> Bound:
        log = self.log
        return bind(
            rule,
            templates=log.names("template"),
            names=log.names("name"),
            currencies=log.names("currency"),
            goals=self.goals or None,
        )


def study(
    log: Log,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    template: str | None = None,
    since: int | None = None,
    until: int | None = None,
    as_of: int | None = None,
    currency_given: bool = False,
    mature: bool = False,
) -> Study:
    """The choices as `replay` makes them. DataError for a log without sends, or of which none is shown."""
    if not len(log.sends):
        raise DataError(f"{log.source or 'the log'} holds no sends, so nothing can be credited")
    notes = list(log.notes)
    chosen = goals_of(log, [goals] if isinstance(goals, str) else goals, notes)
    rule = with_currency(log, rule or Rule(), chosen, currency_given, notes)
    notes += suspicious(log, rule)
    shown = np.asarray(Selection(template, since, until).keeps(log)) & (log.sends.status != HELD_OUT)
    if not shown.any():
        raise DataError("no send is left to show; widen --template, --since or --until")
    s = log.sends
    span = int(s.user.max()) + 1
    user, users = s.user, span
    if s.rep.any() or span > 4 * len(s):  # codes are dense in a log of its own; several worlds share them
        found, user = np.unique(s.rep * np.int64(span) + s.user, return_inverse=True)
        users = len(found)
    return Study(
        log, rule, chosen, last_received(log) if as_of is None else as_of, shown, user.ravel(), users, notes, mature
    )


def control_of(log: Log, control: str | None) -> str | None:
    """The control's name: the given one, else the variant named 'control' (any case), else None."""
    names = log.names("variant")
    if control is not None and control not in names:
        raise UsageError(f"--control {control!r} is not a variant of the log; {nearest(control, names)}")
    return control or next((v for v in names if v.lower() == CONTROL), None)


def metric_of(name: str) -> str:
    """The name, if it is a metric. UsageError with the nearest one otherwise."""
    if name not in METRICS:
        raise UsageError(f"--metric {name!r} is not known; {nearest(name, METRICS)}")
    return name


@dataclass(frozen=True)
class Numbers:
    """One metric under one reading, by cell (a variant, or a variant of a template).

    value, cell, user: per outcome; cell is -1 where the send is in no denominator. total, count: (cells,)
    numerator and denominator as they are counted. per: 'send', 'user' (a share of users) or 'amount a user'.
    weight: per outcome, None for 1 each; a user's weight is the mean of its sends' in the cell. The rate is that
    of the weighted numerator and denominator. converted: (cells,) credited conversions, whatever the metric is.
    """

    value: F8
    cell: I8
    user: I8
    users: int
    per: str
    total: F8
    count: F8
    converted: F8
    weight: F8 | None = None

    @cached_property
    def rate(self) -> F8:
        """(cells,), NaN without a denominator."""
        if self.weight is None:
            return ratio(self.total, self.count)
        if self.per == "send":
            inside = self.cell >= 0
            cell, w, size = self.cell[inside], self.weight[inside], len(self.total)
            return ratio(_sums(cell, w * self.value[inside], size), _sums(cell, w, size))
        each = [self._by_user(i) for i in range(len(self.total))]
        return ratio(np.array([v.sum() for v, _ in each]), np.array([n.sum() for _, n in each]))

    def _by_user(self, cell: int) -> tuple[F8, F8]:
        """Weighted numerator and denominator of a cell by user, shape (users,) each."""
        here = self.cell == cell
        user, value = self.user[here], self.value[here]
        w = np.ones(len(user)) if self.weight is None else self.weight[here]
        if self.per == "send":
            return _sums(user, w * value, self.users), _sums(user, w, self.users)
        n = np.bincount(user, minlength=self.users)
        mean = _sums(user, w, self.users) / np.maximum(n, 1)
        total = _sums(user, value, self.users)
        return mean * (np.minimum(total, 1.0) if self.per == "user" else total), mean * (n > 0)

    def influence(self, cell: int) -> F8:
        """What each user moves the rate of a cell by, shape (users,); sums to zero. Weights are taken as known."""
        value, n = self._by_user(cell)
        return (value - self.rate[cell] * n) / n.sum()


def _sums(index: I8, value: F8, size: int) -> F8:
    return np.bincount(index, value, size).astype(np.float64)


def ratio(total: F8, count: F8) -> F8:
    """total / count, NaN where the count is 0."""
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def numbers(s: Study, got: Attribution, metric: str, cells: I8, size: int, weight: F8 | None = None) -> Numbers:
    """The metric's numerator and denominator in each of `size` cells; `cells`: cell of every send row, or -1.

    `weight`: of every send row, None for 1 each (see `estimate.age.send_weights`).
    """
    o, rule = got.outcomes, got.rule
    use = o.reached | (rule.denominator == "sends")
    if metric in ("conversion_rate", "revenue_per_send"):
        use = use & (o.close_at != MISSING)  # a send without its anchor is in no conversion denominator
        use = use & got.mature() if s.mature else use
    elif s.mature:
        use = use & got.mature_engagement()
    use = use & ~o.ghost & s.shown[o.send_row]
    value = column(got, OF_RATE[metric])
    cell = np.where(use, cells[o.send_row], -1)
    user, inside, per = s.user[o.send_row], cell >= 0, "send"
    if rule.denominator == "users":
        per = "amount a user" if metric == "revenue_per_send" else "user"
        key = cell[inside] * np.int64(s.users) + user[inside]
        found, index = np.unique(key, return_inverse=True)
        each = np.bincount(index.ravel(), value[inside], len(found))
        each = np.minimum(each, 1.0) if per == "user" else each
        total, count = (np.bincount(found // s.users, w, size) for w in (each, np.ones(len(found))))
    else:
        total, count = (np.bincount(cell[inside], w, size) for w in (value[inside], np.ones(int(inside.sum()))))
    credited = _sums(cell[inside], column(got, "conversions")[inside], size)
    each_weight = None if weight is None else weight[o.send_row]
    return Numbers(
        value, cell, user, s.users, per, total.astype(np.float64), count.astype(np.float64),
        total.astype(np.float64) if metric == "conversion_rate" else credited, each_weight,
    )  # fmt: skip


def column(got: Attribution, count: str) -> F8:
    """One of COUNTS per outcome: conversions as `repeat` counts them, revenue in units of the currency."""
    if count == "conversions":
        return got.outcomes.numerator / PARTS
    if count == "revenue":
        return capped_revenue(got) / 1e6
    return getattr(got.outcomes, count).astype(np.float64)

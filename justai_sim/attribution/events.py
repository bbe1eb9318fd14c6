"""Events before any send is looked at: what is known, late, a copy; names, currencies, refunds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np

from justai_sim.attribution.rule import Rule, required
from justai_sim.attribution.sends import distinct
from justai_sim.clock import MISSING
from justai_sim.errors import DataError
from justai_sim.tables import B1, CONVERSION, I8, Events


@dataclass(frozen=True)
class Bound:
    """A rule bound to the codes of one log.

    goal: (templates, names + 1), column 0 for events without a name. wanted: (names + 1,), whether any
    template, seen in the log or not, has the name as a goal. rate: per currency code + 1, NaN
    where the currency is refused. scope: per template code, the competition it belongs to.
    """

    rule: Rule
    goal: B1
    wanted: B1
    rate: tuple[Decimal | None, ...]
    scope: I8


def bind(
    rule: Rule,
    *,
    templates: Sequence[str],
    names: Sequence[str],
    currencies: Sequence[str] = (),
    goals: Mapping[str, Collection[str]] | Collection[str] | None = None,
) -> Bound:
    """Bind a rule to code texts; UsageError for anything but a Rule.

    `goals`: names per template, one collection for all templates, or None for any name.
    """
    required(rule)
    goal = np.ones((max(1, len(templates)), len(names) + 1), bool)
    if goals is not None:
        for i, template in enumerate(templates):
            wanted = goals.get(template, ()) if isinstance(goals, Mapping) else goals
            goal[i] = [False, *(n in wanted for n in names)]
    wanted_by_any: B1 = np.asarray(goal.any(axis=0))
    if isinstance(goals, Mapping):
        every = {n for names_of in goals.values() for n in names_of}
        wanted_by_any = np.array([False, *(n in every for n in names)])
    elif goals is not None:  # also where the log has no template
        wanted_by_any = np.array([False, *(n in goals for n in names)])
    rates = [Decimal(1)] + [
        Decimal(1) if c == rule.currency else (Decimal(str(rule.rates[c])) if c in rule.rates else None)
        for c in currencies
    ]
    if rule.scope == "template":
        scope = np.arange(len(templates), dtype=np.int64)
    elif rule.scope == "org":
        scope = np.zeros(len(templates), np.int64)
    else:
        keys = [("group", rule.groups[t]) if t in rule.groups else ("template", t) for t in templates]
        index = {k: i for i, k in enumerate(dict.fromkeys(keys))}
        scope = np.array([index[k] for k in keys], np.int64)
    return Bound(rule, goal, wanted_by_any, tuple(rates), scope)


def duplicates(events: Events, rows: I8, user: I8, occurred: I8, received: I8, event: I8, order: I8) -> B1:
    """Which of `rows` are copies of another of them (rule 26); arrays are aligned with `rows`."""
    copy = np.zeros(len(rows), bool)
    if not distinct(event):
        copy |= _not_first(np.lexsort((rows, received, occurred, event, user)), (user, event))
    value = events.value[rows]
    orders = np.flatnonzero(
        ~copy & (events.kind[rows] == CONVERSION) & (order >= 0) & ((value == MISSING) | (value >= 0))
    )
    if not distinct(order[orders]):
        u, name, o = user[orders], events.name[rows][orders], order[orders]
        sort = np.lexsort((rows[orders], event[orders], received[orders], occurred[orders], o, name, u))
        copy[orders] = _not_first(sort, (u, name, o))
    return copy


def _not_first(order: I8, keys: tuple[I8, ...]) -> B1:
    """Rows that are not the first of their group of equal keys in `order`."""
    same = np.zeros(len(order), bool)
    same[1:] = True
    for k in keys:
        s = k[order]
        same[1:] &= s[1:] == s[:-1]
    out = np.empty(len(order), bool)
    out[order] = same
    return out


def converted_values(bound: Bound, value: I8, currency: I8) -> tuple[I8, B1]:
    """Amounts in the declared currency (micro-units, half to even), and which rows are refused.

    DataError where an amount is beyond int64.
    """
    known = np.array([r is not None for r in bound.rate])
    ok = known[currency + 1]
    out = value.copy()
    for code, rate in enumerate(bound.rate):
        if rate is None or rate == 1:
            continue
        rows = np.flatnonzero((currency == code - 1) & (value != MISSING))
        amounts, place = np.unique(value[rows], return_inverse=True)
        exact = [int((Decimal(v) * rate).to_integral_value(rounding=ROUND_HALF_EVEN)) for v in amounts.tolist()]
        if max(map(abs, exact), default=0) > np.iinfo(np.int64).max:
            raise DataError(
                f"an amount in another currency exceeds 9.2e12 at the rate {rate}: check the unit of `value`"
            )
        out[rows] = np.array(exact, np.int64)[place]
    return out, ~ok


def match_refunds(user: I8, order: I8, occurred: I8, event: I8, is_order: B1, is_refund: B1, horizon: int) -> I8:
    """For each row the row of the order that it refunds (rule 27), -1 if there is none or it is too old."""
    out = np.full(len(user), -1, np.int64)
    refunds = np.flatnonzero(is_refund & (order >= 0))
    orders = np.flatnonzero(is_order & np.isin(order, order[refunds]))
    if not len(orders):
        return out
    _, code = np.unique(order[np.concatenate([orders, refunds])], return_inverse=True)
    who, who_of = np.unique(user[np.concatenate([orders, refunds])], return_inverse=True)
    key = code * np.int64(len(who)) + who_of
    mine, wanted = key[: len(orders)], key[len(orders) :]
    sort = np.lexsort((event[orders], occurred[orders], mine))
    at = np.searchsorted(mine[sort], wanted, side="left")
    found = orders[sort[np.minimum(at, len(sort) - 1)]]
    same = mine[sort[np.minimum(at, len(sort) - 1)]] == wanted
    good = same & (occurred[refunds] - occurred[found] <= horizon)
    out[refunds[good]] = found[good]
    return out


def money_share(value: I8, weight: I8, parts: int) -> I8:
    """value x weight / parts, truncated towards zero, without overflow: a full refund nets to zero exactly."""
    size = np.abs(value)
    share = (size // parts) * weight + (size % parts) * weight // parts
    return np.sign(value) * share

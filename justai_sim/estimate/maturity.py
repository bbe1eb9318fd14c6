"""Conversion rates when young sends still wait: so far, mature only, exposure-weighted, Kaplan-Meier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from justai_sim import clock, stats
from justai_sim.attribution import Attribution, Rule
from justai_sim.clock import HOUR, MISSING
from justai_sim.tables import B1, CONVERSION, F8, I8, REASON, Log

NEVER = int(np.iinfo(np.int64).max)
"""The clock of a send that has not converted."""
WHOLE = ("last_qualifying", "last_then_check", "first_qualifying", "all", "all_variants")
"""Credit rules that give whole credits, so that a send has converted or it has not."""


class Rate(NamedTuple):
    """A rate with a 95 % interval and the counts behind it. None: no value."""

    rate: float | None
    low: float | None
    high: float | None
    numerator: float
    denominator: float

    def columns(self, name: str, numerator: str, denominator: str) -> dict[str, float | None]:
        """The columns of a results table."""
        return {
            name: self.rate, f"{name}_low": self.low, f"{name}_high": self.high,
            numerator: self.numerator, denominator: self.denominator,
        }  # fmt: skip


def no_survival(rule: Rule) -> str:
    """Why a rule's conversion rate has no Kaplan-Meier and no exposure-weighted form; '' where it has.

    >>> no_survival(Rule()), no_survival(Rule(credit="linear"))
    ('', "credit='linear' gives parts of a conversion, so a send neither has converted nor has not")
    """
    if rule.credit not in WHOLE:
        return f"credit={rule.credit!r} gives parts of a conversion, so a send neither has converted nor has not"
    if rule.repeat == "every":
        return "repeat='every' counts a send more than once"
    if rule.denominator == "users":
        return "denominator='users' counts users, whose sends are of several ages"
    if rule.explicit == "trust":
        return "explicit='trust' credits conversions outside the window"
    return ""


def opens_at(rule: Rule, anchor: I8) -> I8:
    """When the conversion window of each anchor opens, microseconds; the pair of `close_of` (rules 4, 34)."""
    there = anchor != MISSING
    safe = np.where(there, anchor, 0)
    if rule.day_rule == "elapsed":
        return np.where(there, safe + rule.offset, MISSING)
    floor = int(np.floor(rule.offset_days))
    first = floor + 1 if rule.bounds[0] == "(" else int(np.ceil(rule.offset_days))
    midnight = clock.local_midnight(clock.local_dates(safe, rule.tz) + first, rule.tz)
    return np.where(there, np.maximum(midnight, safe), MISSING)


def occurred(log: Log, rows: I8) -> I8:
    """When events happened, never after we heard of them (rule 3)."""
    e = log.events
    received = e.received_at[rows]
    when = e.occurred_at[rows]
    return np.where(received == MISSING, when, np.minimum(when, received))


@dataclass(frozen=True)
class Waiting:
    """How long each outcome row's window has been watched, by a clock that starts when the window opens.

    seen (n,): microseconds watched, negative before the window opens and for sends without an anchor. It ends
    at `as_of` less the maturity allowance: what came later may not have been heard of yet. first (n,): the
    clock of the first credited conversion, NEVER without one. last: the last instant of the longest window.
    moved (n,): a credited conversion was heard of only after the send had matured.
    """

    seen: I8
    first: I8
    last: int
    moved: B1


def waiting(log: Log, got: Attribution, credit: tuple[I8, I8] | None = None) -> Waiting:
    """The clocks of an attribution's outcomes. `credit`: (event row, outcome row) of the conversions to use;
    None: all that are credited."""
    o, rule = got.outcomes, got.rule
    event, row = paid_credits(log, got) if credit is None else credit
    opens = opens_at(rule, o.anchor)
    there = (o.anchor != MISSING) & (o.close_at != MISSING)
    limit = got.as_of - round(rule.mature_allowance_hours * HOUR)
    seen = np.where(there, limit - np.where(there, opens, 0), -1)
    first = np.full(len(o), NEVER, np.int64)
    np.minimum.at(first, row, occurred(log, event) - opens[row])
    length = int((o.close_at - opens)[there].max(initial=0))
    last = length if rule.bounds[1] == "]" else length - 1
    moved = np.zeros(len(o), bool)
    allowance = round(rule.mature_allowance_hours * HOUR)
    moved[row[there[row] & (log.events.received_at[event] > o.close_at[row] + allowance)]] = True
    return Waiting(seen, first, last, moved)


def paid_credits(log: Log, got: Attribution) -> tuple[I8, I8]:
    """Event rows and outcome rows of the credited conversions, refunds apart."""
    c = got.credits
    place = np.full(len(log.sends), -1, np.int64)
    place[got.outcomes.send_row] = np.arange(len(got.outcomes))
    row = place[c.send_row]
    paid = (row >= 0) & (log.events.kind[c.event_row] == CONVERSION) & (got.reason[c.event_row] == REASON["credited"])
    return c.event_row[paid], row[paid]


def share_rate(value: F8, user: I8 | None) -> Rate:
    """The mean of 0/1 values with Wilson's interval; wider where users with several sends call for it."""
    n, y = len(value), float(value.sum())
    if not n:
        return Rate(None, None, None, 0.0, 0.0)
    p = y / n
    se = 0.0 if user is None or not repeats(user) else stats.mean_error(value, user)
    return Rate(p, *stats.wilson_effective(p, se, n), y, float(n))


def kaplan_meier_rate(first: I8, seen: I8, last: int, user: I8 | None = None) -> Rate:
    """P(a send has converted when its window closes), from sends of all ages.

    first, seen (n,): clocks as in `Waiting`; sends whose window has not opened are left out. Consistent
    for 1 - (1 - pG) e^(-rho W) without any assumption about the delay; it assumes that young and old
    sends behave alike. Greenwood's error, or by clusters of users where a user has several sends (then the
    larger of the two), and Wilson's interval on the effective number of sends. No value before some send
    has been watched to the end of its window. Numerator: conversions counted; denominator: sends at risk.
    """
    risk = seen >= 0
    first, seen = first[risk], seen[risk]
    age = np.minimum(first, seen)
    event = first <= seen
    n, y = float(len(age)), float(event.sum())
    if not len(age) or int(seen.max()) < last:
        return Rate(None, None, None, y, n)
    p, se = (float(x) for x in stats.kaplan_meier(age, event, last))
    if np.isnan(p):  # whoever was watched to the end converted before it, and others were not
        return Rate(None, None, None, y, n)
    whole = float((seen >= last).sum())
    if user is not None and repeats(user[risk]):
        se = max(se, stats.kaplan_meier_error(age, event, last, user[risk]))
    most = n if p > 0 else whole  # without a conversion only what was watched to the end counts
    return Rate(p, *stats.wilson_effective(p, se, most), y, n)


def exposure_rate(first: I8, seen: I8, inside: Callable[[I8], F8], user: I8 | None = None) -> Rate:
    """Conversions so far over the exposure so far: C / sum_i H(seen_i) (behind Vernade et al. 2017).

    `inside`: H, the distribution function of a conversion's clock given that it falls in the window, that is
    [F(min(a, L)) - F(o)] / G. Numerator: C; denominator: the sum. Unbiased for pG where H is the send's own
    and nothing converts on its own; see `organic_bias`. The interval takes H as known.
    """
    risk = seen >= 0
    first, seen = first[risk], seen[risk]
    event, weight = (first <= seen).astype(np.float64), inside(seen)
    y, n = float(event.sum()), float(weight.sum())
    if n <= 0:
        return Rate(None, None, None, y, n)
    p = y / n
    low, high = (float(x) for x in stats.wilson(min(y, n), n))
    if user is not None and repeats(user[risk]):
        se = stats.mean_error(event - p * weight, user[risk]) * len(event) / n
        low, high = stats.wilson_effective(min(p, 1.0), se, n)
    return Rate(p, min(low, p), max(high, p), y, n)


def organic_bias(rate: float, inside: F8, watched: F8, caught: float) -> float:
    """What purchases that come on their own add to an exposure-weighted rate of pG (theory, section 3).

    rate: such purchases per user-day; inside (n,): H of each send, `watched` (n,): days of its window seen so
    far; caught: G. rho G sum(min(a, L) - o)+ / sum(F(min(a, L)) - F(o))+, which is rho W for mature sends.

    >>> organic_bias(0.01, np.ones(4), np.full(4, 11.0), 0.5)
    0.11
    """
    return float(rate * caught * watched.sum() / (caught * inside.sum()))


def inside_window(first: I8, seen: I8, last: int) -> Callable[[I8], F8] | None:
    """H of `exposure_rate` from the log's own conversions: Kaplan-Meier's curve over its end. None without
    a conversion or before some send was watched to the end."""
    risk = seen >= 0
    age = np.minimum(first[risk], seen[risk])
    event = first[risk] <= seen[risk]
    if not len(age) or not event.any() or int(seen.max()) < last:
        return None
    at = np.unique(age[event])
    level = stats.kaplan_meier(age, event, np.append(at, last))[0]
    if not level[-1] > 0:
        return None
    steps = np.concatenate([[0.0], level[:-1] / level[-1]])
    return lambda seen: steps[np.searchsorted(at, seen, side="right")]


def repeats(user: I8) -> bool:
    """Whether some user has several rows."""
    if not len(user) or user.min() < 0 or user.max() > 8 * len(user) + 65_536:
        return len(np.unique(user)) < len(user)
    return bool(np.bincount(user).max() > 1)


def remarks(rule: Rule, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the rates of `metrics_table` needs to hear."""
    out = []
    why = no_survival(rule)
    if why:
        out.append(f"no Kaplan-Meier rate: {why}; the mature rate is the one to read")
    elif rows and all(r["km_conversion_rate"] is None for r in rows):
        out.append("no Kaplan-Meier rate yet: no send has been watched to the end of its window")
    for r in rows:
        km, exposure = r["km_conversion_rate"], r["exposure_conversion_rate"]
        if km and exposure is not None and not r["km_conversion_rate_low"] <= exposure <= r["km_conversion_rate_high"]:
            name = " ".join(str(r[k]) for k in ("template_id", "variant_id") if r[k])
            out.append(
                f"{name}: the exposure-weighted conversion rate is {100 * exposure:.2f} % and Kaplan-Meier's "
                f"{100 * km:.2f} %: its conversions come at other ages than those of the other variants (other delays, "
                "or more purchases that come on their own), which exposure weighting does not allow for"
            )
    moved, ripe = (sum(r[k] for r in rows[:-1]) for k in ("mature_moved", "mature_sends"))
    if moved:
        out.append(f"{moved:,} of {ripe:,} mature sends got a conversion only after they had matured")
    return out

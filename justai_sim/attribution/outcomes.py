"""What attribution returns: credits, reasons, and one outcome a send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from justai_sim import clock
from justai_sim.attribution.rule import Rule
from justai_sim.clock import MISSING
from justai_sim.tables import B1, I1, I8, REASONS, Column, Credits, Table


def _int(name: str, meaning: str) -> Column:
    return Column(name, "int64", "number", meaning, None)


def _bool(name: str, meaning: str) -> Column:
    return Column(name, "bool", "flag", meaning, None)


@dataclass(frozen=True, repr=False)
class Outcomes(Table):
    """One row a known send: what it earned and when that is settled, in the order of the table given."""

    send_row: I8
    reached: B1
    ghost: B1
    anchor: I8
    close_at: I8
    engagement_close_at: I8
    opens: I8
    clicks: I8
    unsubscribes: I8
    weight: I8
    numerator: I8
    revenue: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        _int("send_row", "row of the sends table given"),
        _bool("reached", "not bounced, dropped or suppressed"),
        _bool("ghost", "a held-out user's"),
        _int("anchor", "instant from which the window is measured, microseconds; missing: none"),
        _int("close_at", "when its conversion window closes, microseconds; missing: never opens"),
        _int("engagement_close_at", "when its engagement window closes, microseconds"),
        _int("opens", "1 if opened"),
        _int("clicks", "1 if clicked"),
        _int("unsubscribes", "1 if unsubscribed"),
        _int("weight", "credited conversions, parts of 1e9, refunds apart"),
        _int("numerator", "what enters the conversion rate (`repeat`), parts of 1e9"),
        _int("revenue", "credited revenue net of refunds, micro-units"),
    )


@dataclass(frozen=True)
class Attribution:
    """Result of `attribute`. `reason[i]` is the index in REASONS of event row i, `value[i]` its amount in
    the declared currency (micro-units; 0 where there is none or it does not count)."""

    rule: Rule
    as_of: int
    credits: Credits
    reason: I1
    value: I8
    earned: Outcomes | Callable[[], Outcomes]

    @cached_property
    def outcomes(self) -> Outcomes:
        """One row a known send; made when it is first asked for."""
        return self.earned() if callable(self.earned) else self.earned

    def __repr__(self) -> str:
        when = clock.iso(self.as_of)
        return f"Attribution({len(self.credits):,} credits of {len(self.reason):,} events as of {when})"

    def mature(self) -> B1:
        """Sends whose conversion window closed at least the maturity allowance before `as_of`."""
        allowance = round(self.rule.mature_allowance_hours * clock.HOUR)
        return _closed_by(self.outcomes.close_at, self.as_of - allowance)

    def mature_engagement(self) -> B1:
        allowance = round(self.rule.mature_allowance_hours * clock.HOUR)
        return _closed_by(self.outcomes.engagement_close_at, self.as_of - allowance)

    def final(self) -> B1:
        """Sends whose value can no longer move, refunds and `once_per_user` apart."""
        return _closed_by(self.outcomes.close_at, self.as_of - clock.days(self.rule.lateness_days))

    def reasons(self) -> dict[str, int]:
        """How many events ended in each reason."""
        counts = np.bincount(self.reason, minlength=len(REASONS))
        return {name: int(n) for name, n in zip(REASONS, counts, strict=True) if n}


def _closed_by(close: I8, limit: int) -> B1:
    return (close != MISSING) & (close <= limit)


def close_of(rule: Rule, anchor: I8) -> I8:
    """When the conversion window of each anchor closes, microseconds (rule 34)."""
    there = anchor != MISSING
    safe = np.where(there, anchor, 0)
    if rule.day_rule == "elapsed":
        close = safe + rule.upper
    else:
        closed = rule.bounds[1] == "]"
        length = int(np.floor(rule.upper_days)) + 1 if closed else int(np.ceil(rule.upper_days))
        close = clock.local_midnight(clock.local_dates(safe, rule.tz) + length, rule.tz)
    return np.where(there, close, MISSING)

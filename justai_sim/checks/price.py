"""What "would give N more" is worth: how much of it would have come anyway, and whether it helps to tell variants."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from justai_sim.attribution import Attribution, Rule
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import Number, percent
from justai_sim.clock import DAY
from justai_sim.estimate.additive import Fit, fit
from justai_sim.mix import comparable
from justai_sim.stats import trials_needed
from justai_sim.streams import uniform
from justai_sim.tables import F8, I8, PARTS, REASON

GROUPS = 20
MOST = 10_000_000
"""Sends per variant beyond which the number itself says nothing."""
MORE_IS_NOT_BETTER = "More credited conversions are not better"


@dataclass(frozen=True)
class Price:
    """What a window credits. background: the part that would have come anyway, None if unknown; source: `holdout`,
    `before` (the level before a user's first message), or `unknown`. first, second: the pair of variants that is
    compared; needed: sends of each to detect their present difference (80 % power at 5 %), inf if there is none."""

    rule: Rule
    credited: int
    background: float | None
    source: str
    first: str
    second: str
    rates: tuple[float, float]
    sends: tuple[int, int]
    needed: float

    def words(self) -> str:
        """'background about 36 % of all; 3,100 sends per variant'."""
        back = (
            "background unknown" if self.background is None else f"background about {percent(self.background)} of all"
        )
        if not self.second:
            return f"{back}; no two variants to tell apart"
        if not np.isfinite(self.needed):
            return f"{back}; no difference to detect"
        needed = f"{self.needed:,.0f}" if self.needed < MOST else f"over {MOST:,}"
        return f"{back}; {needed} sends per variant to detect the present difference"

    def terms(self) -> str:
        """What the words of `words` stand for."""
        told = {
            "holdout": "from held-out users",
            "before": "from the level before users' first message",
            "unknown": "unknown without a holdout or a time before users' first message",
        }[self.source]
        pair = f" The difference is that of {self.first!r} and {self.second!r}, which have {self.sends[0]:,} and "
        pair += f"{self.sends[1]:,} sends whose window has closed."
        return f"Background is the part of all that are credited that would have come anyway ({told})." + (
            pair if np.isfinite(self.needed) else ""
        )

    def numbers(self) -> dict[str, Number]:
        """For `Finding.numbers`."""
        return {
            "credited": self.credited,
            "background_share": "unknown" if self.background is None else self.background,
            "background_source": self.source,
            "sends_needed_per_variant": "none" if not np.isfinite(self.needed) else int(self.needed),
        }


class Prices:
    """Windows priced on one log, the same pair of variants under each."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def of(self, **window: float) -> Price:
        """The price of the rule in use with another window (`offset_days`, `lookback_days`)."""
        rule = msgspec.structs.replace(self.facts.rule, **window)
        got = self.facts.under(rule) if window else self.facts.got
        credited = int((got.reason[self.facts.goal] == REASON["credited"]).sum())
        share = None
        if self._background is not None and self.source != "unknown" and credited:
            share = float(np.clip(self._background.background * self._watched(rule) / credited, 0, 1))
        names = self.facts.log.names("variant")
        rate, n = self._by_variant(got)
        a, b = self.pair
        if b < 0 or not (n[a] and n[b]):
            return Price(rule, credited, share, self.source, names[a] if a >= 0 else "", "", (0, 0), (0, 0), np.inf)
        rates, sends = (float(rate[a]), float(rate[b])), (int(n[a]), int(n[b]))
        return Price(rule, credited, share, self.source, names[a], names[b], rates, sends, trials_needed(*rates))

    @cached_property
    def pair(self) -> tuple[int, int]:
        """The leader against the control under the rule in use; without a control the best two; -1 for none."""
        rate, n = self._by_variant(self.facts.got)
        order = [int(v) for v in np.argsort(-rate, kind="stable") if n[v]]
        names = self.facts.log.names("variant")
        control = names.index(self.facts.control) if self.facts.control in names else -1
        if control in order:
            order = [*[v for v in order if v != control][:1], control]
        return (order[0], order[1]) if len(order) > 1 else (order[0] if order else -1, -1)

    def _by_variant(self, got: Attribution) -> tuple[F8, I8]:
        """Rate of converted sends of every variant over the same mix of days and templates, and its mature sends."""
        o = got.outcomes
        use = o.reached & ~o.ghost & got.mature()
        row = o.send_row[use]
        variant = self.facts.log.sends.variant[row]
        size = max(len(self.facts.log.names("variant")), 1)
        w = np.ones(len(row)) if self._weight is None else self._weight[row]
        y = np.bincount(variant, w * np.minimum(o.numerator[use] / PARTS, 1.0), size)
        whole = np.bincount(variant, w, size)
        rate = np.divide(y, whole, out=np.full(size, -1.0), where=whole > 0)
        return rate, np.bincount(variant, w > 0, size).astype(np.int64)

    @cached_property
    def _weight(self) -> F8 | None:
        f = self.facts
        return comparable(f.log, np.where(f.ghosts, -1, f.log.sends.variant))[0]

    @property
    def source(self) -> str:
        kind = self._background.kind if self._background is not None and self._background.known else "unknown"
        return "unknown" if kind == "upper" else kind

    @cached_property
    def _background(self) -> Fit | None:
        f = self.facts
        o = f.got.outcomes
        row = o.send_row[o.reached]
        if not len(row) or not len(f.goal):
            return None
        s, when = f.log.sends, f.occurred[f.goal]
        group = (uniform(0, "doctor groups", np.zeros(len(row), np.int64), s.user[row]) * GROUPS).astype(np.int64)
        start = min(int(when.min()), int(s.sent_at[row].min()))
        column = np.where(o.ghost[o.reached], -1, 0)
        return fit(s.user[row], column, s.sent_at[row], group, f.user[f.goal], when, start, f.as_of, 1, GROUPS)

    def _watched(self, rule: Rule) -> float:
        """User-days that lie in the window of at least one reached send, up to the end of the log."""
        f = self.facts
        o = f.got.outcomes
        row = o.send_row[o.reached & ~o.ghost]
        user, start = f.log.sends.user[row], f.log.sends.sent_at[row] + rule.offset
        order: I8 = np.lexsort((start, user))
        user, start = user[order], start[order]
        end = np.minimum(start - rule.offset + rule.upper, f.as_of)
        same = user[1:] == user[:-1]
        end[:-1][same] = np.minimum(end[:-1], start[1:])[same]
        return float(np.maximum(end - start, 0).sum() / DAY)

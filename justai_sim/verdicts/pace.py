"""How fast sends come in and mature, for each variant that is still sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from justai_sim.clock import DAY, HOUR, MISSING
from justai_sim.replays import Replay
from justai_sim.tables import I8
from justai_sim.verdicts.trust import OF_CONVERSIONS

RECENT = 14
"""Days whose sends are the present rate; a variant that was not sent on them runs no more."""
MOST_DAYS = 28
"""The product's advice: four weeks at most."""


@dataclass(frozen=True)
class Flow:
    """Sends of the templates in which a variant and its control are both sent at present.

    ripe: when those on their way will be mature, microseconds, ascending. rate: sends a day; lag: days from a send to
    its maturity; share: the smaller part that the two have of them; kept: the part of mature sends that is compared.
    Without a control there is no rate.
    """

    as_of: int
    ripe: I8
    rate: float
    lag: float
    share: float
    kept: float

    @property
    def added(self) -> float:
        """Sends a day that will be compared."""
        return self.rate * self.kept

    def days(self, more: float) -> float:
        """Days until so many more sends that are compared will be mature; inf if never."""
        k = math.ceil(more / self.kept) if math.isfinite(more) and self.kept > 0 else math.inf
        if k <= 0:
            return 0.0
        if k <= len(self.ripe):
            return float(self.ripe[int(k) - 1] - self.as_of) / DAY
        return self.lag + (k - len(self.ripe)) / self.rate if self.rate > 0 else math.inf

    def sent_soon(self, more: float) -> bool:
        """Whether what is missing will be sent within `MOST_DAYS` days; it matures later."""
        return more - len(self.ripe) * self.kept <= MOST_DAYS * self.added

    def soon(self, more: float) -> bool:
        """Whether that is at most `MOST_DAYS` days of sends, or of waiting."""
        return more <= MOST_DAYS * self.added or self.days(more) <= MOST_DAYS


def ripe_at(result: Replay) -> I8:
    """When the outcome of each send row is mature, microseconds; MISSING where it never is."""
    o, rule = result.attribution.outcomes, result.program.rule
    close = o.close_at if result.program.key_metric in OF_CONVERSIONS else o.engagement_close_at
    allowance = round(rule.mature_allowance_hours * HOUR)
    out = np.full(len(result.log.sends), MISSING)
    out[o.send_row] = np.where(close == MISSING, MISSING, close + allowance)
    return out


def mature_sends(result: Replay, ripe: I8) -> int:
    """Shown sends that are mature by now."""
    there = result.shown & (ripe != MISSING)
    return int((there & (ripe <= result.attribution.as_of)).sum())


def flows(result: Replay, ripe: I8, compared: int) -> dict[str, Flow]:
    """The flow of every variant that was sent of late, but for the control. `ripe`: as of `ripe_at`; `compared`: how
    many mature sends are."""
    as_of, s, names = result.attribution.as_of, result.log.sends, result.log.names("variant")
    rows = np.flatnonzero(result.shown & (ripe != MISSING) & (s.sent_at <= as_of))
    if not len(rows):
        return {}
    sent, code = s.sent_at[rows], s.template[rows] * np.int64(len(names)) + s.variant[rows]
    first = np.full(int(code.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, code, sent)
    young = (sent > as_of - RECENT * DAY) | (ripe[rows] > as_of)
    lag = float((ripe[rows][young] - sent[young]).max(initial=0)) / DAY
    rows, sent, code = rows[young], sent[young], code[young]
    recent = sent > as_of - RECENT * DAY
    order = np.argsort(code // len(names), kind="stable")
    template = (code // len(names))[order]
    running: dict[int, list[int]] = {}
    for key in np.unique(code[recent]).tolist():
        running.setdefault(key // len(names), []).append(key % len(names))
    base = _base(result, running, names)
    mature = mature_sends(result, ripe)
    kept = compared / mature if mature and compared else 1.0
    parts: dict[str, list[_Part]] = {}
    for t, variants in running.items():
        here = order[slice(*np.searchsorted(template, (t, t + 1)))]
        control = next((v for v in sorted(variants, key=names.__getitem__) if names[v] in base), None)
        for v in variants:
            if names[v] in base:
                continue
            mine = parts.setdefault(names[v], [])
            if control is not None:
                both = t * len(names) + np.array([v, control])
                since = int(first[both].max())
                mine.append(_part(here[sent[here] >= since], both, sent, code, ripe[rows], as_of, since))
    return {v: _flow(p, as_of, lag, kept) for v, p in parts.items()}


def _base(result: Replay, running: dict[int, list[int]], names: list[str]) -> set[str]:
    """The control, or the first by name of every template where there is none."""
    if result.control in names and bool((result.log.sends.variant[result.shown] == names.index(result.control)).any()):
        return {result.control}
    return {min(names[v] for v in variants) for variants in running.values()}


@dataclass(frozen=True)
class _Part:
    """Of one template: when sends on their way mature, sends a day, recent sends, and those of the rarer of the two."""

    ripe: I8
    rate: float
    sends: int
    least: int


def _part(rows: I8, both: I8, sent: I8, code: I8, ripe: I8, as_of: int, since: int) -> _Part:
    span = min(max((as_of - since) / DAY, 1.0), RECENT)
    recent = rows[sent[rows] > as_of - RECENT * DAY]
    of = code[recent]
    return _Part(
        ripe[rows][ripe[rows] > as_of],
        len(recent) / span,
        len(recent),
        min(int((of == k).sum()) for k in both.tolist()),
    )


def _flow(parts: list[_Part], as_of: int, lag: float, kept: float) -> Flow:
    sends = sum(p.sends for p in parts)
    waiting = np.sort(np.concatenate([p.ripe for p in parts])) if parts else np.zeros(0, np.int64)
    share = sum(p.least for p in parts) / sends if sends else 0.0
    return Flow(as_of, waiting, sum(p.rate for p in parts), lag, share, kept)

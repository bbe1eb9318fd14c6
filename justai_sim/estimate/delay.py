"""How much of what messages add a window sees, and whether the window can change the ranking."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from justai_sim import stats
from justai_sim.attribution import Attribution
from justai_sim.clock import MISSING
from justai_sim.estimate.additive import Fit, fit
from justai_sim.estimate.age import countable
from justai_sim.estimate.maturity import occurred
from justai_sim.streams import generator
from justai_sim.tables import B1, F8, I8, Log

MOST_VARIANTS = 8
"""Variants that are told apart, those with most sends; the others act, and are not shown."""


def fit_log(log: Log, got: Attribution, keep: B1, group: I8, groups: int) -> tuple[Fit, list[int]] | None:
    """The fit of an attributed log, and the variant codes of its first columns. keep, group: by row of the sends;
    sends that are not kept act too, in a last column. Ages are measured from the anchor. None: nothing to follow.

    Every conversion of a goal counts, credited or not, so nothing here depends on the window.
    """
    o = got.outcomes
    use = o.reached & (o.anchor != MISSING)
    row = o.send_row[use]
    variant = np.where(keep[row], log.sends.variant[row], -1)
    ghost = o.ghost[use]
    counts = np.bincount(variant[~ghost & (variant >= 0)], minlength=1)
    shown = sorted(np.argsort(-counts, kind="stable")[:MOST_VARIANTS].tolist())
    shown = [v for v in shown if counts[v]]
    if not shown:
        return None
    column = np.full(len(log.names("variant")) + 1, len(shown))
    column[shown] = np.arange(len(shown))
    events = np.flatnonzero(countable(log.events.kind, got.reason) & (log.events.user >= 0))
    when = occurred(log, events)
    start = min(int(when.min(initial=got.as_of)), int(log.sends.sent_at.min(initial=got.as_of)))
    fitted = fit(
        log.sends.user[row], np.where(ghost, -1, column[variant]), o.anchor[use], group[row],
        log.events.user[events], when, start, got.as_of, len(shown) + 1, groups,
    )  # fmt: skip
    return None if fitted is None else (fitted, shown)


@dataclass(frozen=True)
class Value:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 above 0, -1 below, 0 cannot tell."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Captured:
    """What one variant (or all together, variant -1) adds up to the last age, and within the window, conversions
    per message; share is what the window sees of it, None where that cannot be told."""

    variant: int
    sends: int
    total: Value
    window: Value
    share: Value | None


def estimate(parts: F8, value: float, level: float = 0.95) -> Value:
    """Interval of an estimate from its groups' influences (G,)."""
    n = len(parts)
    whole = parts - parts.mean() + value / n
    low, high = stats.mean_interval(n * value, (n * n * whole * whole).sum(), n, level)
    return Value(value, float(low), float(high))


def curve(fitted: Fit, variant: int) -> tuple[F8, F8, F8]:
    """Effect added up to the end of each day of age, (A + 1,) from 0, with a band that holds all days at once."""
    G = len(fitted.parts)
    effect = np.concatenate([[0.0], np.cumsum(np.nan_to_num(fitted.effect[variant]))])
    parts = np.pad(np.cumsum(np.nan_to_num(fitted.influence()[:, variant]), axis=1), ((0, 0), (1, 0)))
    _, se, k = stats.simultaneous_band(parts + effect / G, rng=generator(0, "delay band"))
    gone = np.concatenate([[False], np.isnan(fitted.effect[variant])])
    effect = np.where(gone, np.nan, effect)
    return effect, effect - k * se, effect + k * se


class Window:
    """A fit looked at through the window [offset, lookback) in days; its first `shown` columns are shown."""

    def __init__(self, fitted: Fit, offset: float, lookback: float, shown: int) -> None:
        A = fitted.ages
        self.fit, self.shown = fitted, shown
        weight = np.clip(np.minimum(np.arange(A) + 1, lookback) - np.maximum(np.arange(A), offset), 0, 1)
        effect, influence = np.nan_to_num(fitted.effect), np.nan_to_num(fitted.influence())
        self.total, self.inside = effect.sum(1), effect @ weight
        self.total_parts, self.inside_parts = influence.sum(2), influence @ weight

    def captured(self, variant: int, level: float = 0.95) -> Captured:
        """One variant's, or with -1 the mean over the messages of all that are shown; `level` is the share's."""
        sends = self.fit.sends[: self.shown]
        pick = sends / max(int(sends.sum()), 1) if variant < 0 else np.eye(self.shown)[variant]
        values = [float(v[: self.shown] @ pick) for v in (self.total, self.inside)]
        parts = [p[:, : self.shown] @ pick for p in (self.total_parts, self.inside_parts)]
        total, inside = (estimate(p, v) for p, v in zip(parts, values, strict=True))
        n = int(sends.sum()) if variant < 0 else int(sends[variant])
        return Captured(variant, n, total, inside, self._share(values, parts, level) if total.sign > 0 else None)

    def _share(self, values: list[float], parts: list[F8], level: float) -> Value | None:
        """None where the interval is wider than the whole: it would say nothing."""
        cov = np.cov(parts) * len(parts[0])
        low, high = stats.ratio_interval(values[1], values[0], cov[1, 1], cov[0, 0], cov[0, 1], level)
        if not (self.fit.known and high - low <= 1):
            return None
        return Value(values[1] / values[0], float(low), float(high))

    def pair(self, i: int, j: int, level: float) -> tuple[Value, Value, Value]:
        """i minus j: in total, within the window, and the cross product W_i T_j - W_j T_i, which is positive where
        the window sees a larger share of i."""
        T, W, t, w = self.total, self.inside, self.total_parts, self.inside_parts
        cross = W[i] * T[j] - W[j] * T[i]
        parts = T[j] * w[:, i] + W[i] * t[:, j] - T[i] * w[:, j] - W[j] * t[:, i]
        return (
            estimate(t[:, i] - t[:, j], float(T[i] - T[j]), level),
            estimate(w[:, i] - w[:, j], float(W[i] - W[j]), level),
            estimate(parts, float(cross), level),
        )


UNLIKE = (
    "Shares of variants changed between days or templates, so what variants add, and how soon, is not compared: they "
    "stand for other days."
)
SHOWN = 0.01
"""Shares are shown in whole percents."""
NONE = 1e-6
"""Conversions per user-day below which a background is practically none."""


def level_words(background: float) -> str:
    """Conversions per user-day as people read them.

    >>> level_words(0.00213), level_words(2e-18)
    ('2.13 conversions per 1,000 users and day', 'practically none')
    """
    return f"{1000 * background:.3g} conversions per 1,000 users and day" if background >= NONE else "practically none"


def background_words(fitted: Fit) -> str:
    """Where the background comes from, in a sentence."""
    level = level_words(fitted.background)
    if fitted.kind == "holdout":
        return f"The background, {level}, is that of held-out users, who got no message."
    if fitted.kind == "before":
        return (
            f"The background, {level}, is mostly the level before users' first message: it is right if buying would "
            "have gone on as before."
        )
    return (
        f"There is no holdout, and the log does not know users before their first message: what is left {fitted.ages} "
        f"days after messages, {level}, is taken for the background. It is an upper bound, so the effects are lower "
        "bounds."
    )


def warnings(look: Window, names: list[str], offset: float, lookback: float, same_mix: bool = True) -> list[str]:
    """What the window does to the comparison, as sentences; only what is beyond chance at 5 %. `same_mix`: whether the
    variants had the same days and templates; else they differ by those too (Simpson), and none is held against another.
    """
    window, days = f"the window (day {offset:g} to day {lookback:g})", f"{look.fit.ages} days"
    if not look.fit.known:
        return ["The log cannot tell what messages add from what would have come anyway."]
    together = look.captured(-1)
    if together.total.sign <= 0:
        return [
            f"What messages add within {days} cannot be told from the background, so neither can the share of it that "
            f"{window} sees."
        ]
    out = []
    few = less_than_half(look)
    if together.share is not None and together.share.high < 0.5:
        out.append(f"Loses more than half: {window} sees {_of(together.share)} of what messages add within {days}.")
    elif few:
        said = ", ".join(f"{names[c.variant]} {_of(c.share)}" for c in few if c.share is not None)
        out.append(f"Loses more than half: of what it adds within {days}, {window} sees of {said}.")
    if same_mix or look.shown < 2:
        return out + rankings(look, names, window, days)
    return [*out, UNLIKE]


def less_than_half(look: Window) -> list[Captured]:
    """The variants of whose effect the window sees less than half, at 5 % over all variants (Bonferroni), as in
    `rankings`; with the 95 % intervals that the table shows. Half of it is the share of all together, which is asked
    first: an end of an interval errs in one direction only."""
    level = 1 - 0.05 / max(look.shown, 1)
    sure = [look.captured(v, level).share for v in range(look.shown)]
    return [look.captured(v) for v, share in enumerate(sure) if share is not None and share.high < 0.5]


def rankings(look: Window, names: list[str], window: str, days: str) -> list[str]:
    """Pairs whose order the window can change, at 5 % over all pairs (Bonferroni).

    Either the differences in total and inside the window are both beyond chance and opposite; or the shares that
    the window sees differ beyond chance (both effects being so themselves), while the two differences are not both
    beyond chance in the same direction.
    """
    pairs = list(combinations(range(look.shown), 2))
    level = 1 - 0.05 / max(len(pairs), 1)
    each = [look.captured(v) for v in range(look.shown)]
    turned, differ = [], []
    for i, j in pairs:
        total, inside, cross = look.pair(i, j, level)
        a, b = (i, j) if inside.value > 0 else (j, i)
        if total.sign * inside.sign < 0:
            turned.append(f"{names[a]} adds more than {names[b]} inside {window}, and less within {days}")
        elif (
            cross.sign and each[i].total.sign > 0 < each[j].total.sign and not total.sign * inside.sign > 0
            and _apart(each[i].share, each[j].share)
        ):  # fmt: skip
            a, b = (i, j) if cross.sign > 0 else (j, i)
            differ.append(f"{names[a]} ({_of(each[a].share)}) than of {names[b]} ({_of(each[b].share)})")
    out = [f"The window turns the ranking round: {text}." for text in turned]
    if differ:
        more = f", and so in {len(differ) - 1} more pairs" if len(differ) > 1 else ""
        out.append(f"Delays differ, so another window can change the ranking: {window} sees more of {differ[0]}{more}.")
    return out


def _apart(a: Value | None, b: Value | None) -> bool:
    """Whether two shares differ by what their figures show."""
    return a is None or b is None or abs(max(a.value, 0.0) - max(b.value, 0.0)) >= SHOWN


def _of(share: Value | None) -> str:
    """'13 % (8 to 18)'."""
    if share is None:
        return "a share that cannot be told"
    value, low, high = (max(v, 0.0) for v in (share.value, share.low, share.high))
    return f"{100 * value:.0f} % ({100 * low:.0f} to {100 * high:.0f})"

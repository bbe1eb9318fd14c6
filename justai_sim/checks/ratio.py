"""Sample-ratio mismatch: do the variants have the shares that were drawn or declared?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from justai_sim.checks.codes import ranked
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import LEVEL, Finding, NotChecked, Said, count, exceeding, percent
from justai_sim.clock import DAY, MISSING
from justai_sim.loop.replay import with_decisions
from justai_sim.tables import F8, I8

EXPECTED = 30.0
"""Sends of a variant that must be expected, so that the normal approximation holds at LEVEL."""
ABSENT = 20.0
"""A variant is missing from a day on which so many of its sends were to be expected."""
MEND = (
    "Compare by variant what was served, sent and loaded: a variant that fails to render, or a webhook that loses one, "
    "leaves such a gap. Until then no difference between variants can be trusted."
)


@dataclass(frozen=True)
class Draws:
    """Sends of one template with the share at which each variant was to be drawn, by day; columns of sends (n,).

    stratum: a day's code; share (strata, variants): NaN where it is not known; uneven (strata, variants): by how much
    shares that change within a day raise the variance of a count, at least 1; total (strata,): sends.
    """

    user: I8
    variant: I8
    stratum: I8
    share: F8
    uneven: F8

    @property
    def total(self) -> I8:
        return np.bincount(self.stratum, minlength=len(self.share))


def sample_ratio(f: Facts) -> Iterator[Said]:
    """Shares of the variants against the logged propensities, or the declared split."""
    if f.split is not None:
        found = _declared(f, f.split)
    else:
        sends = f.log.sends.take(f.sent)
        if not (sends.propensity > 0).any():
            sends = with_decisions(sends, f.log.decisions)
        known = sends.propensity > 0
        if not known.any():
            yield NotChecked(
                "sample ratio", "the log has no propensities; say what was meant with --split control=0.1,other=0.9"
            )
            return
        at = np.where(sends.decided_at == MISSING, sends.sent_at, sends.decided_at)
        found = {}
        for t in ranked(sends.template[known])[0].tolist():
            here = known & (sends.template == t)
            found[t] = logged(sends.user[here], sends.variant[here], at[here] // DAY, sends.propensity[here])
    if not any(len(d.user) * np.nanmax(d.share) >= EXPECTED for d in found.values()):
        yield NotChecked("sample ratio", f"fewer than {EXPECTED:.0f} sends of each variant")
    looks = max(sum(len(ranked(d.variant)[0]) for d in found.values()), 1)
    for t, draws in found.items():
        yield from _tested(f, t, draws, LEVEL / looks)


def _declared(f: Facts, split: Mapping[str, float]) -> dict[int, Draws]:
    s, names = f.log.sends, f.log.names("variant")
    share = np.full(len(names), np.nan)
    for name, p in split.items():
        share[names.index(name)] = p
    rows = f.got.outcomes.send_row  # a held-out share may be part of the split
    rows = rows[~np.isnan(share)[s.variant[rows]]]
    found = {}
    for t in ranked(s.template[rows])[0].tolist():
        here = rows[s.template[rows] == t]
        one, even = np.zeros(len(here), np.int64), np.ones((1, len(share)))
        found[t] = Draws(s.user[here], s.variant[here], one, share[None, :], even)
    return found


def logged(user: I8, variant: I8, day: I8, p: F8) -> Draws:
    """Draws from the propensity that each send was drawn with. A variant's share of a day is the harmonic mean of its
    own sends' propensities: 1 / p summed over them estimates the day's sends without bias, also where shares changed
    within the day. On a day without any send of it the share is what the others' leave."""
    stratum = ranked(day)[1]
    days, size = int(stratum.max(initial=-1)) + 1, int(variant.max(initial=-1)) + 1
    cell = stratum * size + variant
    n = np.bincount(cell, minlength=days * size).reshape(days, size)
    inverse = np.bincount(cell, 1 / p, days * size).reshape(days, size)
    share = np.divide(n, inverse, out=np.full(n.shape, np.nan), where=n > 0)
    varied = np.bincount(cell, (1 - p) / p**2, days * size).reshape(days, size) * share**2
    uneven = np.divide(varied, n * (1 - share), out=np.ones(n.shape), where=n * (1 - share) > 1e-9)
    return Draws(user, variant, stratum, share, np.maximum(uneven, 1.0))


def _tested(f: Facts, template: int, d: Draws, level: float) -> Iterator[Said]:
    total = d.total
    where, names = f.log.names("template")[template], f.log.names("variant")
    for v in np.flatnonzero((~np.isnan(d.share)).any(0)).tolist():
        p = d.share[:, v]
        # A day on which the variant could hardly occur would be chosen by its occurring.
        look = ~np.isnan(p) & ((len(total) == 1) | (total * np.nan_to_num(p) >= 10))
        expected = float((total * p)[look].sum())
        mine = look[d.stratum]
        found = int((d.variant[mine] == v).sum())
        factor = _design(d, v, mine)
        if expected < EXPECTED * factor:
            continue
        spread = np.sqrt(factor * float((total * p * (1 - p) * d.uneven[:, v])[look].sum()))
        z = (abs(found - expected) - 0.5) / max(spread, 1e-9)
        chance = 2 * float(special.ndtr(-z)) if z > 0 else 1.0
        if chance >= level:
            continue
        n = int(total[look].sum())
        yield Finding(
            "sample_ratio", "wrong",
            f"Variant {names[v]!r} of {where!r} has {count(found, 'send')} of {n:,} ({percent(found, n)}), where "
            f"{expected:,.0f} ({percent(expected, n)}) were meant; the chance of that is {exceeding(chance)}.",
            MEND, {"found": found, "expected": expected, "of": n, "chance": chance},
        )  # fmt: skip
    yield from _absent(where, d)


def _design(d: Draws, v: int, use: np.ndarray) -> float:
    """By how much sends of one user, who may keep a variant, raise the variance of the count; at least 1."""
    p = np.nan_to_num(d.share[:, v])[d.stratum[use]]
    off = (d.variant[use] == v) - p
    alone = float(off @ off)
    together = np.bincount(d.user[use], off) if len(off) else off
    return max(1.0, float(together @ together) / alone) if alone > 0 else 1.0


def _absent(where: str, d: Draws) -> Iterator[Said]:
    """Days on which the variants that were sent had a share well below 1: others were drawn, and none was sent."""
    total, seen = d.total, np.nansum(d.share, axis=1)
    gap = np.clip(1 - seen, 0, 1)
    missing = total * gap / np.maximum(seen, 0.05)
    # Shares that changed within a day are known to some error: a small gap is none.
    lost = (gap > np.maximum(0.02, 4 / np.sqrt(total))) & (missing >= ABSENT)
    lost &= np.isnan(d.share).any(1)
    if lost.any():
        n = int(missing[lost].sum())
        yield Finding(
            "sample_ratio", "wrong",
            f"On {count(int(lost.sum()), 'day')} the variants of {where!r} that were sent had only "
            f"{percent(float(seen[lost].mean()))} of the draws: about {count(n, 'send')} of another one are missing.",
            MEND, {"days": int(lost.sum()), "missing": n},
        )  # fmt: skip

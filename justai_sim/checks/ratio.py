"""Sample-ratio mismatch: do the variants have the shares that were drawn or declared?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from justai_sim.checks.codes import flags, ranked
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import LEVEL, Finding, NotChecked, Said, count, exceeding, listed, percent
from justai_sim.clock import DAY, MISSING
from justai_sim.loop.replay import with_decisions
from justai_sim.tables import B1, F8, I8, Sends

EXPECTED = 30.0
"""Sends of a variant that must be expected, so that the normal approximation holds at LEVEL."""
LIKELY = 10.0
"""Sends of a variant expected on a day, so that it hardly lacks by chance (e^-10)."""
SAME = 1e-6
"""Shares that differ by less are the same."""
ABSENT = 20.0
"""Sends that must be missing altogether before a variant is said to be absent."""
MEND = (
    "Compare by variant what was served, sent and loaded: a variant that fails to render, or a webhook that loses one, "
    "leaves such a gap. Until then no difference between variants can be trusted."
)


@dataclass(frozen=True)
class Draws:
    """Sends with the share at which each variant was to be drawn, by stratum: a template on a day, or a template.

    user, variant, stratum: by send; template, total (strata,): its template, its sends. The rest by cell, a stratum and
    a variant: where, which; sent: its sends; share; uneven: by how much shares that change within a day raise the
    variance of a count, at least 1. daily: whether strata are days, and shares estimated from their sends.
    """

    user: I8
    variant: I8
    stratum: I8
    template: I8
    total: I8
    where: I8
    which: I8
    sent: I8
    share: F8
    uneven: F8
    daily: bool

    @property
    def meant(self) -> F8:
        """Sends to be expected of each cell."""
        return self.total[self.where] * self.share


def sample_ratio(f: Facts, shown: B1 | None = None) -> Iterator[Said]:
    """Shares of the variants against the logged propensities, or the declared split; `shown` (sends,) narrows the
    former."""
    rows = f.got.outcomes.send_row
    if not (len(rows) if shown is None else shown[rows].any()):
        yield NotChecked("sample ratio", "no send is there by then")
        return
    if f.split is None:
        sends = _with_propensities(f, shown)
        bad = int((sends.propensity <= 0).sum() + (sends.propensity > 1).sum())
        if bad:
            yield Finding(
                "sample_ratio", "wrong",
                f"{count(bad, 'send')} went out with a logged propensity of 0 or less, or above 1: what is logged is "
                "not the share that variants were drawn with.", MEND, {"sends": bad},
            )  # fmt: skip
    d = _draws(sends) if f.split is None else _declared(f, f.split)
    if d is None:
        why = "the log has no propensities; say what was meant with --split control=0.1,other=0.9"
        yield NotChecked("sample ratio", why)
        return
    gone, n = lacking(d) if d.daily else (np.zeros(len(d.total), bool), 0)
    if n:
        yield _absent(f, d, gone, n)
    # A day on which a variant could hardly occur would be chosen by its occurring.
    look = ~gone[d.where] & ((d.meant >= LIKELY) | (not d.daily))
    templates, variants = f.log.names("template"), f.log.names("variant")
    several = len(ranked(d.template)[0]) > 1
    by_variant = counts(d, look, d.which)
    by_both = counts(d, look, d.template[d.where] * len(variants) + d.which)
    level = LEVEL / max(len(by_variant) * several + len(by_both), 1)
    told: set[int] = set()
    # What is the same in all templates is told once, and seen sooner.
    for v, c in by_variant.items() if several else ():
        if c.chance < level:
            told.add(v)
            yield _mismatch(f"{variants[v]!r} of all templates together", c)
    for key, c in by_both.items():
        t, v = divmod(key, len(variants))
        if c.chance < level and v not in told:
            yield _mismatch(f"{variants[v]!r} of {templates[t]!r}", c)
    if not any(c.expected >= EXPECTED for c in by_variant.values()):
        yield NotChecked("sample ratio", f"fewer than {EXPECTED:.0f} sends of each variant were to be expected")


def _declared(f: Facts, split: Mapping[str, float]) -> Draws | None:
    s, names = f.log.sends, f.log.names("variant")
    codes, shares = np.array([names.index(v) for v in split]), np.array(list(split.values()))
    rows = f.got.outcomes.send_row  # a held-out share may be part of the split
    rows = rows[flags(codes, len(names))[s.variant[rows]]]
    templates, stratum = ranked(s.template[rows])
    T, V = len(templates), len(codes)
    where, which = np.repeat(np.arange(T), V), np.tile(codes, T)
    n = np.bincount(stratum * len(names) + s.variant[rows], minlength=T * len(names))
    return Draws(
        s.user[rows], s.variant[rows], stratum, templates, np.bincount(stratum, minlength=T), where, which,
        n[where * len(names) + which], np.tile(shares, T), np.ones(T * V), False,
    )  # fmt: skip


def _with_propensities(f: Facts, shown: B1 | None) -> Sends:
    rows = f.got.outcomes.send_row
    sends = f.log.sends.take(rows if shown is None else rows[shown[rows]])  # a holdout that is drawn with them, too
    return sends if (sends.propensity > 0).any() else with_decisions(sends, f.log.decisions)


def _draws(sends: Sends) -> Draws | None:
    known = (sends.propensity > 0) & (sends.propensity <= 1)
    if not known.any():
        return None
    s = sends.take(known)
    at = np.where(s.decided_at == MISSING, s.sent_at, s.decided_at)
    return logged(s.user, s.template, s.variant, at // DAY, s.propensity)


def logged(user: I8, template: I8, variant: I8, day: I8, p: F8) -> Draws:
    """Draws from the propensity that each send was drawn with; columns (n,). A variant's share of a day is the harmonic
    mean of its own sends' propensities: 1 / p summed over them estimates the day's sends without bias, also where
    shares changed within the day. Days that are too thin are taken together where shares never changed."""
    whole = _strata(user, template, variant, np.zeros(len(day), np.int64), p)
    share, days = np.bincount(whole.where, whole.share), _days(whole.stratum, day)
    thin = np.full(len(share), np.inf)
    np.minimum.at(thin, whole.where, whole.meant)
    constant = np.bincount(whole.where, whole.uneven - 1) < SAME
    together = constant & (share < 1 + SAME) & (thin < LIKELY * days)
    return _strata(user, template, variant, np.where(together[whole.stratum], int(day.min(initial=0)), day), p)


def _days(stratum: I8, day: I8) -> I8:
    """On how many days each stratum has sends."""
    span = int(np.ptp(day)) + 1
    return np.bincount(ranked(stratum * span + day - day.min())[0] // span)


def _strata(user: I8, template: I8, variant: I8, day: I8, p: F8) -> Draws:
    width, size = int(template.max(initial=0)) + 1, int(variant.max(initial=0)) + 1
    strata, stratum = ranked((day - day.min(initial=0)) * width + template)
    cells, cell = ranked(stratum * size + variant)
    n, inverse = np.bincount(cell), np.bincount(cell, 1 / p)
    share = n / inverse
    varied = np.bincount(cell, (1 - p) / p**2) * share**2
    uneven = np.divide(varied, n * (1 - share), out=np.ones(len(n)), where=n * (1 - share) > 1e-9)
    return Draws(
        user, variant, stratum, strata % width, np.bincount(stratum), cells // size, cells % size, n, share,
        np.maximum(uneven, 1.0), True,
    )  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Sends of a variant, how many were meant, of how many sends; and the chance of a difference like that, 1 where too
    few were to be expected."""

    found: int
    expected: float
    of: int
    chance: float


def counts(d: Draws, look: B1, group: I8) -> dict[int, Counts]:
    """Found and meant by group of cells (a variant, or a variant of a template), over the cells in `look`."""
    groups, at = ranked(group[look])
    meant, share = d.meant[look], d.share[look]
    found, of = np.bincount(at, d.sent[look]), np.bincount(at, d.total[d.where[look]])
    expected, variance = np.bincount(at, meant), np.bincount(at, meant * (1 - share) * d.uneven[look])
    out = {}
    for i, g in enumerate(groups.tolist()):
        factor = 1.0
        chance = _chance(found[i], expected[i], variance[i])
        if expected[i] >= EXPECTED and chance < LEVEL:  # users can only make it less rare
            factor = _design(d, look & (group == g))
            chance = _chance(found[i], expected[i], factor * variance[i])
        enough = expected[i] >= EXPECTED * factor
        out[g] = Counts(int(found[i]), float(expected[i]), int(of[i]), chance if enough else 1.0)
    return out


def _chance(found: float, expected: float, variance: float) -> float:
    z = (abs(found - expected) - 0.5) / max(variance, 1e-18) ** 0.5
    return 2 * float(special.ndtr(-z)) if z > 0 else 1.0


def _design(d: Draws, cells: B1) -> float:
    """By how much sends of one user, who may keep a variant, raise the variance of its count; at least 1. `cells`: one
    variant's."""
    share = np.full(len(d.total), np.nan)
    share[d.where[cells]] = d.share[cells]
    p = share[d.stratum]
    use = ~np.isnan(p)
    off = (d.variant[use] == d.which[cells][0]) - p[use]
    alone, together = float(off @ off), np.bincount(d.user[use], off)
    return max(1.0, float(together @ together) / alone) if alone > 0 else 1.0


def _mismatch(who: str, c: Counts) -> Finding:
    return Finding(
        "sample_ratio", "wrong",
        f"Variant {who} has {count(c.found, 'send')} of {c.of:,} ({percent(c.found, c.of)}), where {c.expected:,.0f} "
        f"({percent(c.expected, c.of)}) were meant; the chance of that is {exceeding(c.chance)}.",
        MEND, {"found": c.found, "expected": c.expected, "of": c.of, "chance": c.chance},
    )  # fmt: skip


def lacking(d: Draws) -> tuple[B1, int]:
    """Days (strata,) on which a variant of their template was drawn and not one of its sends is there: the shares of
    those that were sent leave a gap; and how many sends are missing. None where that may be chance."""
    size = int(d.which.max(initial=0)) + 1
    usual = np.bincount(ranked(d.template[d.where] * size + d.which)[0] // size)[d.template]
    there = np.bincount(d.where, minlength=len(d.total))
    seen = np.bincount(d.where, d.share, len(d.total))
    # A variant that was hardly to be expected on a day is not missing from it.
    gone = (there < usual) & (d.total * (1 - seen) >= LIKELY)
    missing = d.total * (1 - seen) / np.maximum(seen, 0.05)
    n = float(missing[gone].sum())
    # Shares that changed within a day are known to some error, of about the root of its sends.
    if n < max(ABSENT, 4 * float(np.sqrt(d.total[gone].sum()))):
        return np.zeros(len(seen), bool), 0
    return gone, int(n)


def _absent(f: Facts, d: Draws, gone: B1, n: int) -> Finding:
    days = int(gone.sum())
    where = listed([f.log.names("template")[t] for t in ranked(d.template[gone])[0].tolist()])
    sent = int(d.total[gone].sum())
    return Finding(
        "sample_ratio", "wrong",
        f"A variant of {where} is missing altogether on some days ({days} counting each template by itself): by their "
        f"propensities the {sent:,} sends of these days were {percent(sent, sent + n)} of what was drawn, so about "
        f"{count(n, 'send')} are not there.", MEND, {"days": days, "missing": n, "found": sent},
    )  # fmt: skip

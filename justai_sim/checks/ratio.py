"""Sample-ratio mismatch: do the variants have the shares that were drawn or declared?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from justai_sim.checks.codes import ranked
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import LEVEL, Finding, NotChecked, Said, count, exceeding, listed, percent
from justai_sim.clock import DAY, MISSING
from justai_sim.loop.replay import with_decisions
from justai_sim.tables import B1, F8, I8

EXPECTED = 30.0
"""Sends of a variant that must be expected, so that the normal approximation holds at LEVEL."""
LIKELY = 10.0
"""Sends of a variant expected on a day, so that it hardly lacks by chance (e^-10)."""
ABSENT = 20.0
"""Sends that must be missing altogether before a variant is said to be absent."""
MEND = (
    "Compare by variant what was served, sent and loaded: a variant that fails to render, or a webhook that loses one, "
    "leaves such a gap. Until then no difference between variants can be trusted."
)


@dataclass(frozen=True)
class Draws:
    """Sends with the share at which each variant was to be drawn, by stratum: a template on a day, or a template.

    user, variant, stratum: by send; template, total (strata,): its template and its sends; share (strata, variants):
    NaN where it is not known; uneven (strata, variants): by how much shares that change within a day raise the variance
    of a count, at least 1. daily: whether strata are days, and shares estimated from their sends.
    """

    user: I8
    variant: I8
    stratum: I8
    template: I8
    total: I8
    share: F8
    uneven: F8
    daily: bool


def sample_ratio(f: Facts) -> Iterator[Said]:
    """Shares of the variants against the logged propensities, or the declared split."""
    d = _logged(f) if f.split is None else _declared(f, f.split)
    if d is None:
        why = "the log has no propensities; say what was meant with --split control=0.1,other=0.9"
        yield NotChecked("sample ratio", why)
        return
    templates, of = ranked(d.template)
    names = f.log.names("template")
    wheres: list[tuple[str, B1]] = [(repr(names[t]), of == i) for i, t in enumerate(templates.tolist())]
    if len(templates) > 1:  # what is the same in all of them is told once, and seen sooner
        wheres.insert(0, ("all templates together", np.ones(len(d.total), bool)))
    level = LEVEL / max(len(wheres) * d.share.shape[1], 1)
    told: set[int] = set()
    power = False
    gone, n = lacking(d) if d.daily else (np.zeros(len(d.total), bool), 0)
    if n:
        yield _absent(f, d, gone, n)
    for where, strata in wheres:
        for v in range(d.share.shape[1]):
            if v in told:
                continue
            got = _counts(d, v, strata & ~gone)
            power |= got is not None
            if got is None or got.chance >= level:
                continue
            told.add(v)
            yield _mismatch(f"{f.log.names('variant')[v]!r} of {where}", got)
    if not power:
        yield NotChecked("sample ratio", f"fewer than {EXPECTED:.0f} sends of each variant were to be expected")


def _declared(f: Facts, split: Mapping[str, float]) -> Draws | None:
    s, names = f.log.sends, f.log.names("variant")
    share = np.full(len(names), np.nan)
    for name, p in split.items():
        share[names.index(name)] = p
    rows = f.got.outcomes.send_row  # a held-out share may be part of the split
    rows = rows[~np.isnan(share)[s.variant[rows]]]
    templates, stratum = ranked(s.template[rows])
    shares = np.tile(share, (len(templates), 1))
    total = np.bincount(stratum, minlength=len(templates))
    return Draws(s.user[rows], s.variant[rows], stratum, templates, total, shares, np.ones(shares.shape), False)


def _logged(f: Facts) -> Draws | None:
    sends = f.log.sends.take(f.got.outcomes.send_row)  # a holdout that is drawn with them has propensities too
    if not (sends.propensity > 0).any():
        sends = with_decisions(sends, f.log.decisions)
    known = sends.propensity > 0
    if not known.any():
        return None
    s = sends.take(known)
    at = np.where(s.decided_at == MISSING, s.sent_at, s.decided_at)
    return logged(s.user, s.template, s.variant, at // DAY, s.propensity)


def logged(user: I8, template: I8, variant: I8, day: I8, p: F8) -> Draws:
    """Draws from the propensity that each send was drawn with; columns (n,). A variant's share of a day is the harmonic
    mean of its own sends' propensities: 1 / p summed over them estimates the day's sends without bias, also where
    shares changed within the day."""
    width = int(template.max(initial=0)) + 1
    found, stratum = ranked((day - day.min(initial=0)) * width + template)
    days, size = len(found), int(variant.max(initial=-1)) + 1
    cell = stratum * size + variant
    n = np.bincount(cell, minlength=days * size).reshape(days, size)
    inverse = np.bincount(cell, 1 / p, days * size).reshape(days, size)
    share = np.divide(n, inverse, out=np.full(n.shape, np.nan), where=n > 0)
    varied = np.bincount(cell, (1 - p) / p**2, days * size).reshape(days, size) * share**2
    uneven = np.divide(varied, n * (1 - share), out=np.ones(n.shape), where=n * (1 - share) > 1e-9)
    return Draws(user, variant, stratum, found % width, n.sum(1), share, np.maximum(uneven, 1.0), True)


@dataclass(frozen=True)
class Counts:
    """Sends of a variant, how many were meant, of how many sends; and the chance of a difference like that."""

    found: int
    expected: float
    of: int
    chance: float


def _counts(d: Draws, v: int, strata: B1) -> Counts | None:
    """None where too few sends of the variant were to be expected."""
    p, total = d.share[:, v], d.total
    # A day on which the variant could hardly occur would be chosen by its occurring.
    meant = total * np.nan_to_num(p)
    look = strata & ((meant >= LIKELY) if d.daily else ~np.isnan(p))
    mine = look[d.stratum]
    expected, found = float(meant[look].sum()), int((d.variant[mine] == v).sum())
    if expected < EXPECTED:
        return None
    factor = _design(d, v, mine)
    if expected < EXPECTED * factor:
        return None
    spread = np.sqrt(factor * float((meant * (1 - p) * d.uneven[:, v])[look].sum()))
    z = (abs(found - expected) - 0.5) / max(spread, 1e-9)
    return Counts(found, expected, int(total[look].sum()), 2 * float(special.ndtr(-z)) if z > 0 else 1.0)


def _mismatch(who: str, c: Counts) -> Finding:
    return Finding(
        "sample_ratio", "wrong",
        f"Variant {who} has {count(c.found, 'send')} of {c.of:,} ({percent(c.found, c.of)}), where {c.expected:,.0f} "
        f"({percent(c.expected, c.of)}) were meant; the chance of that is {exceeding(c.chance)}.",
        MEND, {"found": c.found, "expected": c.expected, "of": c.of, "chance": c.chance},
    )  # fmt: skip


def _design(d: Draws, v: int, use: B1) -> float:
    """By how much sends of one user, who may keep a variant, raise the variance of the count; at least 1."""
    off = (d.variant[use] == v) - np.nan_to_num(d.share[:, v])[d.stratum[use]]
    alone = float(off @ off)
    together = np.bincount(d.user[use], off) if len(off) else off
    return max(1.0, float(together @ together) / alone) if alone > 0 else 1.0


def lacking(d: Draws) -> tuple[B1, int]:
    """Days (strata,) on which a variant of their template was drawn and not one of its sends is there: the shares of
    those that were sent leave a gap; and how many sends are missing. None where that may be chance."""
    templates, of = ranked(d.template)
    there = ~np.isnan(d.share)
    usual = np.stack([there[of == i].any(0) for i in range(len(templates))])[of]
    seen = np.nansum(d.share, axis=1)
    # A variant that was hardly to be expected on a day is not missing from it.
    gone = (usual & ~there).any(1) & (d.total * (1 - seen) >= LIKELY)
    missing = d.total * (1 - seen) / np.maximum(seen, 0.05)
    n = float(missing[gone].sum())
    # Shares that changed within a day are known to some error, of about the root of its sends.
    if n < max(ABSENT, 4 * float(np.sqrt(d.total[gone].sum()))):
        return np.zeros(len(seen), bool), 0
    return gone, int(n)


def _absent(f: Facts, d: Draws, gone: B1, n: int) -> Finding:
    days = len(np.unique(d.stratum[gone[d.stratum]]))
    where = listed([f.log.names("template")[t] for t in ranked(d.template[gone])[0].tolist()])
    sent = int(d.total[gone].sum())
    return Finding(
        "sample_ratio", "wrong",
        f"A variant of {where} is missing altogether on some days ({days} counting each template by itself): by their "
        f"propensities the {sent:,} sends of these days were {percent(sent, sent + n)} of what was drawn, so about "
        f"{count(n, 'send')} are not there.", MEND, {"days": days, "missing": n, "found": sent},
    )  # fmt: skip

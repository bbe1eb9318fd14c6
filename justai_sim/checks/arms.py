"""Variants: those that nothing comes back from, users who saw several, a holdout that is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from justai_sim.checks.codes import flags, ranked, repeated
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import (
    LEVEL,
    Finding,
    NotChecked,
    Said,
    Severity,
    at_least,
    count,
    exceeding,
    listed,
    percent,
)
from justai_sim.stats import fewer_by_chance
from justai_sim.tables import B1, I8, PARTS

NO_SENDS = "the log has no sends"
FEW = 0.1
"""A variant is broken, not merely worse, where it gets less than this part of the others' rate."""


def quiet(f: Facts) -> Iterator[Said]:
    """Variants (and whole templates) with many sends and next to no opens, clicks or conversions."""
    o, s = f.got.outcomes, f.log.sends
    looks = {
        "open": (o.opens > 0, f.got.mature_engagement()),
        "click": (o.clicks > 0, f.got.mature_engagement()),
        "conversion": (o.numerator >= PARTS // 2, f.got.mature()),
    }
    every = o.reached & ~o.ghost
    for what, (hit, ripe) in looks.items():
        use = every & ripe
        if not use.any():
            # Without a send whose window has closed all are looked at: the variants are equally young.
            use = every
        if not hit[use].any():
            yield NotChecked(f"variants without {what}s", "no send has any that counts" if len(f.sent) else NO_SENDS)
            continue
        row = o.send_row[use]
        yield from _quiet(f, what, s.template[row], s.variant[row], hit[use])


def _quiet(f: Facts, what: str, template: I8, variant: I8, hit: B1) -> Iterator[Said]:
    size = int(variant.max(initial=0)) + 1
    cells, at = ranked(template * size + variant)
    n, y = np.bincount(at), np.bincount(at, hit)
    own = cells // size
    templates, of = ranked(own)
    names, variants = f.log.names("template"), f.log.names("variant")
    level = LEVEL / (3 * (len(cells) + len(templates)))
    N, Y = np.bincount(of, n).astype(np.int64), np.bincount(of, y).astype(np.int64)
    silent = np.zeros(len(templates), bool)
    for i, t in enumerate(templates.tolist() if len(templates) > 1 else ()):
        got = judged(names[t], N[i], Y[i], N.sum() - N[i], Y.sum() - Y[i])
        if got.chance < level:
            silent[i] = True
            # Templates are not drawn at random: a receipt has no link to follow.
            yield _said(f"All variants of {names[t]!r}", what, [got], "doubtful")
    weak = 0
    broken: dict[int, list[Verdict]] = {}
    for i, c in enumerate(cells.tolist()):
        others_n, others_y = int(N[of[i]] - n[i]), int(Y[of[i]] - y[i])
        if silent[of[i]] or not others_y:
            continue
        weak += fewer_by_chance(0, int(n[i]), others_y, others_n) >= level
        got = judged(names[own[i]], n[i], y[i], others_n, others_y)
        if got.chance < level:
            broken.setdefault(c % size, []).append(got)
    for v, some in broken.items():
        yield _said(f"Variant {variants[v]!r} of {listed([g.template for g in some])}", what, some)
    if weak:
        yield NotChecked(
            f"variants without {what}s", f"{weak:,} of {count(len(cells), 'variant')} have too few sends to tell"
        )


@dataclass(frozen=True)
class Verdict:
    """Sends of a variant (or template), how many have what is asked for, how many the others let expect, and the
    chance of so few; 1 where it is no next to nothing."""

    template: str
    sends: int
    found: int
    expected: float
    chance: float


def judged(template: str, n: int, y: int, others_n: int, others_y: int) -> Verdict:
    """y of n sends beside others_y of others_n."""
    expected = int(n) * int(others_y) / max(int(others_n), 1)
    p = fewer_by_chance(int(y), int(n), int(others_y), int(others_n)) if y < FEW * expected else 1.0
    return Verdict(template, int(n), int(y), expected, p)


def _said(who: str, what: str, some: list[Verdict], severity: Severity = "wrong") -> Finding:
    n, y, expected = sum(g.sends for g in some), sum(g.found for g in some), sum(g.expected for g in some)
    chance = max(g.chance for g in some)
    return Finding(
        f"variant_without_{what}s", severity,
        f"{who}: {count(n, 'send')} and {f'{y:,}' if y else 'no'} {what}{'' if y == 1 else 's'}, where {expected:,.0f} "
        f"were to be expected from the others; the chance of that is {exceeding(chance)}.",
        _MEND[what], {"sends": n, "found": y, "expected": expected, "chance": chance},
    )  # fmt: skip


_MEND = {
    "open": "Send it to yourself: see that the tracking pixel is in it, and that it reaches the inbox.",
    "click": "Send it to yourself and follow its links: they may be broken, or not tracked.",
    "conversion": "Follow its links to the end: see that the landing page works and sends the event.",
}


def several_arms(f: Facts) -> Iterator[Said]:
    """Users who saw several variants of one template."""
    s = f.log.sends
    user, template, variant = s.user[f.sent], s.template[f.sent], s.variant[f.sent]
    width = int(template.max(initial=0)) + 1
    again, several = repeated(user * width + template, variant)
    if not several:
        return
    yield Finding(
        "several_arms", "note",
        f"{several:,} of the {count(again, 'user')} who got a template more than once ({percent(several, again)}) saw "
        "several of its variants: a conversion may follow from the other one, which makes differences look smaller.",
        "By design if each request draws anew. If users should keep their variant, check the user id of the requests. "
        "Do not leave these users out: that selects by how often they were served.",
        {"users": several, "share": several / again},
    )  # fmt: skip


def held_out(f: Facts) -> Iterator[Said]:
    """Held-out users who got a message all the same."""
    s = f.log.sends
    held = flags(s.user[f.ghosts], f.users)
    if not held.any():
        yield NotChecked("holdout", "the log has no held-out users")
        return
    mixed, every = int((held & f.messaged).sum()), int(held.sum())
    if mixed:
        yield Finding(
            "holdout_reached", "doubtful" if at_least(mixed, every) < 0.01 else "wrong",
            f"{mixed:,} of {count(every, 'held-out user')} ({percent(mixed, every)}) got a message: the "
            "holdout is no measure of what would have come anyway.",
            "Check that held-out users are excluded from every template.", {"users": mixed, "share": mixed / every},
        )  # fmt: skip

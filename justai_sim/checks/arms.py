"""Variants: those that nothing comes back from, users who saw several, a holdout that is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from justai_sim.checks.codes import flags, ranked, repeated
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import LEVEL, Finding, NotChecked, Said, at_least, count, exceeding, percent
from justai_sim.stats import fewer_by_chance
from justai_sim.tables import I8, PARTS

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
    size = len(f.log.names("variant")) or 1
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
        yield from _quiet(f, what, s.template[row] * size + s.variant[row], hit[use], size)


def _quiet(f: Facts, what: str, cell: I8, hit: np.ndarray, size: int) -> Iterator[Said]:
    cells, at = ranked(cell)
    n, y = np.bincount(at), np.bincount(at, hit)
    template = cells // size
    weak = 0
    for i, c in enumerate(cells.tolist()):
        own = template == template[i]
        # The other variants of the template; a template with one variant, or all of them quiet, is held against others.
        against = own if own.sum() > 1 and y[own].sum() - y[i] > 0 else np.ones(len(n), bool)
        N, K = int(n[against].sum()), int(y[against].sum())
        others = (K - y[i]) / max(N - n[i], 1)
        weak += fewer_by_chance(0, int(n[i]), K, N - int(n[i])) >= LEVEL / (3 * len(cells))
        if not y[i] < FEW * others * n[i]:
            continue
        p = fewer_by_chance(int(y[i]), int(n[i]), K - int(y[i]), N - int(n[i]))
        if p >= LEVEL / (3 * len(cells)):
            continue
        name = f.log.names("variant")[c % size]
        where = f.log.names("template")[c // size]
        got = f"{int(y[i]):,}" if y[i] else "no"
        yield Finding(
            f"no_{what}s", "wrong",
            f"Variant {name!r} of {where!r}: {count(int(n[i]), 'send')} and {got} {what}{'' if y[i] == 1 else 's'}, "
            f"where {others * n[i]:,.0f} were to be expected from the others; the chance of that is {exceeding(p)}.",
            _MEND[what], {"sends": int(n[i]), "found": int(y[i]), "expected": float(others * n[i]), "chance": p},
        )  # fmt: skip
    if weak:
        yield NotChecked(
            f"variants without {what}s", f"{weak} of {count(len(cells), 'variant')} have too few sends to tell"
        )


_MEND = {
    "open": "Send the variant to yourself: is the tracking pixel in it, and is it delivered to the inbox?",
    "click": "Send the variant to yourself and follow its links: are they broken, or not tracked?",
    "conversion": "Follow the variant's links to the end: does its landing page work and send the event?",
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

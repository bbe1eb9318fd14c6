"""Where the answer changes along the assumptions of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from justai_sim.designs import axes_of
from justai_sim.scenario import Scenario
from justai_sim.sweeps.criteria import titles

if TYPE_CHECKING:
    from justai_sim.sweeps.recommend import Case


@dataclass(frozen=True)
class Flip:
    """Along an axis of assumptions the answer changes between two neighbouring values. It is told so by `fits` of `of`
    sets of assumptions: by all, unless others that a design varies with it matter as well. `under`: values of the
    other axes with which it does so; empty if with all."""

    axis: str
    below: str
    above: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    fits: int = 1
    of: int = 1
    under: tuple[str, ...] = ()


def flips(scenario: Scenario, cases: Sequence[Case]) -> list[Flip]:
    """Where the answer changes along each axis of assumptions, for every combination of the other axes.

    Neighbouring values have the same answer while some decision is among the best of all of them: ties change
    nothing. Numbers are neighbours by size, labels in the order of the sweep. The axes of a design vary together: one
    of them is told where a single change along it explains all, else the single change that explains most
    (`_threshold`).
    """
    out: list[Flip] = []
    called = titles(scenario)
    for axis in axes_of(scenario.sweep, scenario.seed):
        together = [n for n in axis.keys if n in cases[0].assumed]
        others: dict[str, list[Case]] = {}
        for c in cases if together else []:
            others.setdefault(
                ", ".join(f"{called[k]} {v}" for k, v in c.assumed.items() if k not in together), []
            ).append(c)
        found = [(name, flip) for name, along in others.items() for flip in _of_axis(together, along)]
        times = Counter(flip for _, flip in found)
        for flip, n in sorted(times.items(), key=lambda x: (-x[1], order(x[0].below), x[0].below, x[0].before)):
            under = tuple(sorted(name for name, other in found if other == flip)) if n < len(others) else ()
            out.append(replace(flip, under=under))
    return out


def _of_axis(together: Sequence[str], along: Sequence[Case]) -> list[Flip]:
    found = [_along(name, along) for name in together]
    whole = [f for of in found if len(together) == 1 or len(of) == 1 for f in of]
    return whole or (_threshold(together, along) if len(together) > 1 else [])


def _threshold(names: Sequence[str], cases: Sequence[Case]) -> list[Flip]:
    """The one value of one axis below and above which two decisions are among the best in most cases; none where that
    is hardly more than a single decision achieves (a tenth of the cases, two at least)."""
    decisions = [d for d in cases[0].decisions if any(d in c.chosen for c in cases)]
    best: tuple[int, Flip] | None = None
    for name in names:
        ranked = sorted(cases, key=lambda c: order(c.assumed[name]))
        hit = np.array([[d in c.chosen for d in decisions] for c in ranked], np.int64).reshape(len(ranked), -1)
        below = hit.cumsum(0)[:-1]
        above = hit.sum(0) - below
        labels = [c.assumed[name] for c in ranked]
        apart = np.array([a != b for a, b in pairwise(labels)], bool)
        if not apart.any() or not decisions:
            continue
        total = np.where(apart, below.max(1) + above.max(1), -1)
        k = int(total.argmax())
        one, other = decisions[int(below[k].argmax())], decisions[int(above[k].argmax())]
        fits = int(total[k])
        gain = fits - int(hit.sum(0).max())
        if one != other and gain >= max(2, 0.1 * len(cases)) and (best is None or fits > best[0]):
            best = fits, Flip(name, labels[k], labels[k + 1], (one,), (other,), fits, len(cases))
    return [best[1]] if best else []


def _along(name: str, cases: Sequence[Case]) -> list[Flip]:
    """Runs of cases, sorted by one axis, that have a decision in common; a flip between each two runs."""
    runs: list[tuple[list[Case], list[str]]] = []
    for case in sorted(cases, key=lambda c: order(c.assumed[name])):
        common = [d for d in runs[-1][1] if d in case.chosen] if runs else []
        if runs and (common or runs[-1][1] == case.chosen):
            runs[-1] = ([*runs[-1][0], case], common)
        else:
            runs.append(([case], case.chosen))
    named = [tuple(d for d in cases[0].decisions if d in common) for _, common in runs]
    ends = [(of[0].assumed[name], of[-1].assumed[name]) for of, _ in runs]
    return [
        Flip(name, a[1], b[0], one, other) for (a, b), (one, other) in zip(pairwise(ends), pairwise(named), strict=True)
    ]


def order(label: str) -> tuple[float, str]:
    """Numbers by size; other labels keep their order."""
    try:
        return float(label), ""
    except ValueError:
        return 0.0, ""

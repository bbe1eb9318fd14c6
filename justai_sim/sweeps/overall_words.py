"""A recommendation over several sets of assumptions, in sentences: none of them depends on their order."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from justai_sim.sweeps import recommend_words as words
from justai_sim.sweeps.recommend_words import names, percent, size, together

if TYPE_CHECKING:
    from justai_sim.sweeps.flips import Flip
    from justai_sim.sweeps.recommend import Case, Recommendation, Standing, Versus

MOST_FLIPS = 3
AHEAD = {
    "right_by_day": "puts the best variant first more often than", "conversions": "earns more than",
    "revenue": "earns more than", "decision_time": "decides sooner than",
}  # fmt: skip


def overall(r: Recommendation) -> str:
    """The decision that is told worse under no set of assumptions, or a tie of several, or where the answer flips."""
    told = [c for c in r.cases if c.best]
    if not told:
        case = min(r.cases, key=lambda c: (*_nearly(c), under(r, c)))
        said = words.nothing_shown(r, case)
        return f"{said} That is for {under(r, case)}; the same holds under all {_sets(r)}."
    if not r.chosen:
        return _flipped(r) + _warnings(r)
    said = _choose(r) if len(r.chosen) == 1 else _tie(r)
    if len(told) < len(r.cases):
        limit = percent(r.question.limit)
        said += f" Under {len(r.cases) - len(told)} of {_sets(r)} no decision is shown to keep false ships at or below "
        said += f"{limit}."
    if r.flips:
        said += f" The answer flips: {_flips(r)}."
    return said + _warnings(r)


def under(r: Recommendation, case: Case) -> str:
    """A set of assumptions: 'mean_days 1.5, bounce_rate 0.1'."""
    return ", ".join(f"{r.titles[k]} {v}" for k, v in case.assumed.items())


def _sets(r: Recommendation) -> str:
    return f"{len(r.cases)} sets of assumptions"


def _of(r: Recommendation, n: int) -> str:
    return f"{'all' if n == len(r.cases) else f'{n} of'} {_sets(r)}"


def _nearly(case: Case) -> tuple[float, float]:
    return min((s.wrong, s.value) for s in case.standings)


def _choose(r: Recommendation) -> str:
    """The one decision, the next best one, and how much they differ where they differ most."""
    first, sign = r.chosen[0], 1 if r.question.what.higher else -1
    if not r.lead:
        said = f"Choose {names([first])}, the only one that is shown to keep the limit."
        return said + _comes_to(r)
    worse = Counter(v.decision for v in r.lead if v.verdict == "worse")
    gap = {d: min(sign * v.difference for v in r.lead if v.decision == d) for d in {v.decision for v in r.lead}}
    rival = min(gap, key=lambda d: (worse[d], -gap[d], d))
    if not worse[rival]:
        said = f"Choose {names([first])}: every other decision is told worse under one of the {_sets(r)}."
        return said + _open(r) + _comes_to(r)
    told = [v for v in r.lead if v.decision == rival and v.verdict == "worse"]
    most = min(told, key=lambda v: (sign * v.difference, under(r, r.cases[v.case])))  # any order of equal ones: by name
    ends = sorted((abs(most.low), abs(most.high)))
    low, high = (size(r, e).split(" ")[0] for e in ends)
    where = under(r, r.cases[most.case])
    said = (
        f"Choose {names([first])}: it {AHEAD[r.question.criterion]} {names([rival])} under {_of(r, worse[rival])} "
        f"(most with {where}: {size(r, abs(most.difference))}, {low} to {high})"
    )
    none = ", and is told worse than another under none."
    return said + (_but(r) or none) + _open(r) + _comes_to(r)


def _but(r: Recommendation) -> str:
    """Where something that is not chosen does better: only what is told from the best, but not from each that is tied
    with it, comes to that."""
    better = [v for v in r.lead if v.verdict == "better" and not r.cases[v.case].of(v.decision).stopped]
    if not better:
        return ""
    order = r.cases[0].decisions
    who = sorted({v.decision for v in better}, key=order.index)
    return f"; {names(who)} did better under {_of(r, len({v.case for v in better}))}."


def _open(r: Recommendation) -> str:
    """How far the chosen decision may be behind another where that cannot be told."""
    sign = 1 if r.question.what.higher else -1

    def behind(v: Versus) -> float:
        return max(sign * v.low, sign * v.high)

    tied = [v for v in r.lead if v.verdict == "tied" and behind(v) > 0]
    if not tied:
        return ""
    sets = len({v.case for v in tied})
    far = max(tied, key=lambda v: (behind(v), under(r, r.cases[v.case])))
    where = r.cases[far.case]
    of = where.of(r.chosen[0])
    bound = words.bounded(r, behind(far), of)
    most = f": at most {bound} behind {names([far.decision])} with {under(r, where)}" if bound else ""
    return f" Under {_of(r, sets)} it cannot be told from some other{most}."


def _tie(r: Recommendation) -> str:
    """Decisions that no set of assumptions tells apart."""
    rows = [v for v in r.lead if v.decision in r.chosen]
    if any(v.verdict != "tied" for v in rows):
        said = (
            f"A tie: each of {together(r, r.chosen, least=2)} does better than another of them under some assumptions."
        )
        return said + _comes_to(r)
    far = max(rows, key=lambda v: (max(abs(v.low), abs(v.high)), under(r, r.cases[v.case])))
    of = r.cases[far.case].of(r.chosen[0])
    most = max(abs(far.low), abs(far.high))
    worse = {v.decision: v for v in r.lead if v.verdict == "worse"}
    others = [d for d in r.cases[0].decisions if d not in r.chosen and (d in worse or _worse(r, d))]
    if not others:
        said = (
            f"No difference that {_worlds(r)} can tell between {together(r, r.chosen, least=2)} under any of {_sets(r)}"
        )
        return f"{said}: {words.apart_at_most(r, most, of)}.{_comes_to(r)}"
    bound = words.bounded(r, most, of)
    said = f"A tie: {together(r, r.chosen, least=2)} cannot be told apart under any of {_sets(r)}"
    said += f" ({bound} at most, with {under(r, r.cases[far.case])})" if bound and most else ""
    sets = {k for k, c in enumerate(r.cases) for s in c.standings if s.decision in others and s.verdict == "worse"}
    return f"{said}; under {_of(r, len(sets))} {together(r, others)} did worse.{_comes_to(r)}"


def _worse(r: Recommendation, decision: str) -> bool:
    return any(c.of(decision).verdict == "worse" for c in r.cases)


def _worlds(r: Recommendation) -> str:
    n = max(s.worlds for c in r.cases for s in c.standings)
    return f"{n:,} worlds"


def _comes_to(r: Recommendation) -> str:
    """The values of what is chosen, from the least to the most."""
    found = [c.of(r.chosen[0]) for c in r.cases if c.best]
    low, high = (f(found, key=lambda s: s.value) for f in (min, max))

    def value(s: Standing) -> str:
        return percent(s.value) if r.question.criterion == "right_by_day" else size(r, s.value)

    one, other = value(low), value(high)
    what = words.unit_of(r)
    return f" Over them it comes to {one if one == other else f'{one} to {other}'}{what}."


def _flipped(r: Recommendation) -> str:
    """No decision is among the best everywhere."""
    if r.flips:
        return f"The answer flips: {_flips(r)}; no decision is best or tied under all {_sets(r)}."
    times = Counter(d for c in r.cases for d in c.chosen)
    order = {d: i for i, d in enumerate(r.cases[0].decisions)}
    most = sorted(times, key=lambda d: (-times[d], order[d]))
    said = [f"{names([d])} under {times[d]}" for d in most[:2]]
    return (
        f"It depends: no decision is best or tied under all {_sets(r)}, and no single assumption explains it. "
        f"Among the best: {', '.join(said)}; see the table."
    )


def _flips(r: Recommendation) -> str:
    said = [flip(f, r.titles[f.axis]) for f in r.flips[:MOST_FLIPS]]
    more = len(r.flips) - len(said)
    return "; ".join(said) + (f"; and {more} more times (see the table)" if more else "")


def flip(f: Flip, axis: str) -> str:
    """Between which values of an assumption the answer changes."""

    def of(found: tuple[str, ...]) -> str:
        return " or ".join(found) or "none"

    fits = "" if f.fits == f.of else f" (so in {f.fits} of {f.of} sets of assumptions)"
    if f.under:
        fits += f" (with {f.under[0]})" if len(f.under) == 1 else f" (so under {len(f.under)} sets of the others)"
    if all(re.fullmatch(r"[-+.\deE]+", v) for v in (f.below, f.above)):
        return f"{of(f.before)} up to {axis} {f.below}, {of(f.after)} from {f.above} on{fits}"
    return f"{of(f.before)} with {axis} {f.below}, {of(f.after)} with {f.above}{fits}"


def _warnings(r: Recommendation) -> str:
    """What was stopped and did better, and what is not shown to keep the limit of false ships."""
    ahead = {s.decision for c in r.cases for s in c.standings if s.verdict == "better"}
    shown = ("best", "tied", "worse", "better")
    unproven = {s.decision for c in r.cases if c.best for s in c.standings if s.verdict not in shown}
    order = r.cases[0].decisions
    said = words.overtaken([d for d in order if d in ahead])
    if unproven:
        somewhere = words.not_shown(r, [d for d in order if d in unproven]).rstrip(".")
        said += f"{somewhere} under some assumptions."
    return said

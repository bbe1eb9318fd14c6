"""A recommendation in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from justai_sim import stats
from justai_sim.errors import listed, several
from justai_sim.sweeps.criteria import ALPHA, kinds

if TYPE_CHECKING:
    from justai_sim.sweeps.recommend import Case, Recommendation, Standing

ONE_SIDED = 0.90
"""Level of the two-sided interval whose upper end holds with 95 %."""


def answer(r: Recommendation) -> str:
    """What to choose whatever is assumed, or where that changes; then how the sets of assumptions differ."""
    if max(s.worlds for c in r.cases for s in c.standings) < 2:
        return "One world tells no decisions apart: simulate more of them (--replications)."
    if len(r.cases) == 1:
        return _case(r, r.cases[0])
    from justai_sim.sweeps.overall_words import overall

    return overall(r)


def method(r: Recommendation) -> str:
    """How the intervals were made, and what was done about ties, races and limits."""
    worlds = [s.worlds for c in r.cases for s in c.standings]
    counts = several(max(worlds), "world") if min(worlds) == max(worlds) else f"{min(worlds)} to {max(worlds)} worlds"
    looks = f" and all {r.looks} looks of the race" if r.looks > 1 else ""
    level, of = percent(1 - ALPHA), several(r.comparisons // r.looks, "pair")
    text = (
        f"Paired over {counts}: all decisions meet the same users. Student's intervals, corrected by "
        f"Bonferroni: {level} for all {of} of decisions{looks} together. What cannot be told from the best is called "
        "tied."
    )
    if min(worlds) < max(worlds):
        text += " Where one decision has fewer worlds than another, they are compared over those that both have."
    if r.question.criterion in ("conversions", "revenue"):
        text += (
            " All purchases count, credited or not: what would have happened anyway is the same under every decision, "
            "so differences are what decisions earn."
        )
    if r.question.criterion == "revenue":
        text += " Each counts with the mean amount of what caused it, before refunds."
    if r.question.criterion == "decision_time":
        text += (
            " A decision counts where it is shown (95 %, one-sided, by Wilson's interval over worlds) that at most "
            f"{percent(r.question.limit)} of templates ship a wrong variant; what never ships takes the run."
        )
    return text


def _case(r: Recommendation, case: Case) -> str:
    best = case.best
    if best is None:
        return nothing_shown(r, case)
    others = [s for s in case.standings if s.verdict in ("tied", "worse", "better")]
    tied = [s for s in others if s.verdict == "tied"]
    ahead = [s.decision for s in others if s.verdict == "better"]
    warn = overtaken(ahead)
    if unproven := [s.decision for s in case.standings if s.verdict not in ("best", "tied", "worse", "better")]:
        warn += not_shown(r, unproven)
        sooner = [s for s in case.standings if s.may_keep(r.question.limit) and s.value < best.value]
        if sooner:
            warn += f" Of those that may, {would(r, min(sooner, key=lambda s: s.value))}."
    if tied:
        return _tie(r, best, tied, [s.decision for s in others if s.verdict == "worse"]) + warn
    if not others:
        return f"Choose {names([best.decision])}, the only one that is shown to keep the limit: {does(r, best)}.{warn}"
    next_best = max(others, key=lambda s: s.difference if r.question.what.higher else -s.difference)
    return f"Choose {names([best.decision])}: {does(r, best)}, {apart(r, next_best)}.{warn}"


def overtaken(ahead: list[str]) -> str:
    """A warning of decisions that a race by another criterion has stopped."""
    return f" {names(ahead)}, stopped early in a race by something else, did better: sweep again." if ahead else ""


def not_shown(r: Recommendation, unproven: list[str]) -> str:
    """A warning of decisions that may ship too many wrong variants."""
    return f" {together(r, unproven)}: not shown to keep false ships at or below {percent(r.question.limit)}."


def nothing_shown(r: Recommendation, case: Case) -> str:
    least = min(case.standings, key=lambda s: (s.wrong, s.value))
    said = f"No decision is shown to keep false ships at or below {percent(r.question.limit)}: "
    may = [s for s in case.standings if s.may_keep(r.question.limit)]
    if may:
        soonest = min(may, key=lambda s: (s.value, s.wrong))
        return f"{said}{several(least.worlds, 'world')} cannot show it. Of those that may, {would(r, soonest)}."
    of = f"{percent(least.wrong)} ({percent(least.wrong_low)} to {percent(least.wrong_high)})"
    more = "ask for a stricter program.shipping, or a higher --limit"
    return f"{said}{names([least.decision])} has the fewest, {of}; {more}."


def would(r: Recommendation, s: Standing) -> str:
    """How soon a decision decides that is not shown to keep the limit yet, and what would show it."""
    need = stats.trials_to_show(s.wrong, r.question.limit, ONE_SIDED)
    false = f"{percent(s.wrong)} false ships (at most {percent(s.wrong_high)})"
    return (
        f"{names([s.decision])} decides soonest, after {s.value:.1f} days on average with {false}; about "
        f"{need:,} worlds like these would show it (--replications), or ask for a --limit of "
        f"{math.ceil(1000 * s.wrong_high) / 1000:g}"
    )


def _tie(r: Recommendation, best: Standing, tied: list[Standing], worse: list[str]) -> str:
    far = max(max(abs(s.low), abs(s.high)) for s in tied)
    worlds = several(best.worlds, "world")
    alike = together(r, [best.decision, *(s.decision for s in tied)], least=2)
    if not worse:
        said = f"No difference that {worlds} can tell between {alike}"
        return f"{said}: {does(r, best)}; {apart_at_most(r, far, best)}."
    bound = f" ({of} at most)" if (of := bounded(r, far, best)) else ""
    return f"A tie: {alike} cannot be told apart{bound}; they do better than {together(r, worse)}."


def apart_at_most(r: Recommendation, far: float, s: Standing) -> str:
    """How far what is tied with a decision may be from it."""
    if far == 0:
        return "they are the same in every world"
    if not bounded(r, far, s):
        return "how far they are apart these worlds cannot tell: simulate more (--replications)"
    return f"none is further than {size(r, far)} away"


def bounded(r: Recommendation, far: float, s: Standing) -> str:
    """A bound on a difference from a decision; '' where it says nothing, because it is as wide as what is compared can
    be, or as large as all of it."""
    most = {"right_by_day": 0.995, "decision_time": 0.995 * r.scenario.days}.get(r.question.criterion, s.value)
    return size(r, far) if far < most else ""


def unit_of(r: Recommendation) -> str:
    """What follows a value that has only its unit."""
    ends = {"right_by_day": " of worlds and steps with the best variant in front", "decision_time": " to a decision"}
    return ends.get(r.question.criterion, " a world")


def does(r: Recommendation, s: Standing) -> str:
    """What a decision comes to."""
    if r.question.criterion == "right_by_day":
        by = f"day {r.question.day:g}" if r.question.day else "the last day"
        return f"the best variant leads on {by} in {percent(s.value)} of worlds and steps"
    if r.question.criterion == "conversions":
        return f"{s.value:,.1f} true conversions a world"
    if r.question.criterion == "revenue":
        return f"{s.value:,.0f} {r.scenario.world.value.currency} of true revenue a world"
    false = f"{percent(s.wrong)} false ships (at most {percent(s.wrong_high)})"
    return f"a decision after {s.value:.1f} days on average, with {false}"


def apart(r: Recommendation, s: Standing) -> str:
    """How far the best is from the next, with the interval of the difference."""
    ends = sorted((abs(s.low), abs(s.high)))
    low, high = (size(r, e).split(" ")[0] for e in ends)
    how = "more" if r.question.what.higher else "sooner"
    return f"{size(r, abs(s.difference))} {how} than {names([s.decision])} ({low} to {high})"


def size(r: Recommendation, x: float) -> str:
    """A difference with its unit."""
    if r.question.criterion == "right_by_day":
        return f"{100 * x:.1f} points"
    if r.question.criterion == "revenue":
        return f"{x:,.0f} {r.scenario.world.value.currency}"
    return f"{x:,.1f} {'days' if r.question.criterion == 'decision_time' else 'conversions'}"


def names(found: Iterable[str]) -> str:
    """Decisions in a sentence."""
    return listed([f'"{n}"' if "," in n else n for n in found], most=4)


def together(r: Recommendation, found: Iterable[str], least: int = 1) -> str:
    """Decisions in a sentence; where they are `least` labels or more of one axis with every label of the others, only
    these: '0-7 and 0-3 (any policy)'."""
    some, every = list(found), r.cases[0].decisions
    axes = [name for name, kind in kinds(r.scenario).items() if kind == "decision"]
    labels = {d: d.split(" · ") for d in every}
    if any(len(parts) != len(axes) for parts in labels.values()) or len(some) == len(every):
        return names(some)
    for i in range(len(axes)):
        own = list(dict.fromkeys(labels[d][i] for d in every if d in some))
        if least <= len(own) < len(some) and {d for d in every if labels[d][i] in own} == set(some):
            others = listed([r.titles[a] for j, a in enumerate(axes) if j != i])
            return f"{names(own)} (any {others})"
    return names(some)


def percent(x: float) -> str:
    """A share, with two digits where it is small."""
    return f"{100 * x:.0f} %" if x >= 0.095 or x == 0 else f"{100 * x:.2g} %"

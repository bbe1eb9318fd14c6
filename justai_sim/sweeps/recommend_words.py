"""A recommendation in sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from justai_sim import stats
from justai_sim.errors import listed, several
from justai_sim.sweeps.criteria import ALPHA

if TYPE_CHECKING:
    from justai_sim.sweeps.recommend import Case, Flip, Recommendation, Standing

ONE_SIDED = 0.90
"""Level of the two-sided interval whose upper end holds with 95 %."""


def answer(r: Recommendation) -> str:
    """What to choose under the first assumptions; then whether that depends on them."""
    if max(s.worlds for s in r.cases[0].standings) < 2:
        return "One world tells no decisions apart: simulate more of them (--replications)."
    said = _case(r, r.cases[0])
    if len(r.cases) == 1:
        return said
    under = ", ".join(f"{k} {v}" for k, v in r.cases[0].assumed.items())
    common = [d for d in r.cases[0].chosen if all(d in c.chosen for c in r.cases)]
    if r.flips:
        more = f" That is for {under}. The answer flips: {'; '.join(map(_flip, r.flips))}."
    elif common:
        verb = "is" if len(common) == 1 else "are"
        more = f" That is for {under}; {_over(r)}."
        more += f" {_names(common)} {verb} best or tied under all {len(r.cases)} assumptions."
    elif any(c.chosen for c in r.cases):
        more = f" That is for {under}; under others it differs, along no single assumption: see the table."
    else:
        more = f" The same holds under all {len(r.cases)} assumptions."
    return said + more


def method(r: Recommendation) -> str:
    """How the intervals were made, and what was done about ties, races and limits."""
    worlds = max(s.worlds for c in r.cases for s in c.standings)
    looks = f" and all {r.looks} looks of the race" if r.looks > 1 else ""
    level, of = _percent(1 - ALPHA), several(r.comparisons // r.looks, "pair")
    text = (
        f"Paired over {several(worlds, 'world')}: all decisions meet the same users. Student's intervals, corrected by "
        f"Bonferroni: {level} for all {of} of decisions{looks} together. What cannot be told from the best is called "
        "tied."
    )
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
            f"{_percent(r.question.limit)} of templates ship a wrong variant; what never ships takes the run."
        )
    return text


def _case(r: Recommendation, case: Case) -> str:
    best = case.best
    if best is None:
        return _none(r, case)
    others = [s for s in case.standings if s.verdict in ("tied", "worse", "better")]
    tied = [s for s in others if s.verdict == "tied"]
    ahead = [s.decision for s in others if s.verdict == "better"]
    warn = f" {_names(ahead)}, stopped early in a race by something else, did better: sweep again." if ahead else ""
    if unproven := [s.decision for s in case.standings if s.verdict not in ("best", "tied", "worse", "better")]:
        warn += f" {_names(unproven)}: not shown to keep false ships at or below {_percent(r.question.limit)}."
        sooner = [s for s in case.standings if s.may_keep(r.question.limit) and s.value < best.value]
        if sooner:
            warn += f" Of those that may, {_would(r, min(sooner, key=lambda s: s.value))}."
    if tied:
        return _tie(r, best, tied, [s.decision for s in others if s.verdict == "worse"]) + warn
    if not others:
        return (
            f"Choose {_names([best.decision])}, the only one that is shown to keep the limit: {_does(r, best)}.{warn}"
        )
    next_best = max(others, key=lambda s: s.difference if r.question.what.higher else -s.difference)
    return f"Choose {_names([best.decision])}: {_does(r, best)}, {_apart(r, next_best)}.{warn}"


def _none(r: Recommendation, case: Case) -> str:
    least = min(case.standings, key=lambda s: (s.wrong, s.value))
    said = f"No decision is shown to keep false ships at or below {_percent(r.question.limit)}: "
    may = [s for s in case.standings if s.may_keep(r.question.limit)]
    if may:
        soonest = min(may, key=lambda s: (s.value, s.wrong))
        return f"{said}{several(least.worlds, 'world')} cannot show it. Of those that may, {_would(r, soonest)}."
    of = f"{_percent(least.wrong)} ({_percent(least.wrong_low)} to {_percent(least.wrong_high)})"
    more = "ask for a stricter program.shipping, or a higher --limit"
    return f"{said}{_names([least.decision])} has the fewest, {of}; {more}."


def _would(r: Recommendation, s: Standing) -> str:
    """How soon a decision decides that is not shown to keep the limit yet, and what would show it."""
    need = stats.trials_to_show(s.wrong, r.question.limit, ONE_SIDED)
    false = f"{_percent(s.wrong)} false ships (at most {_percent(s.wrong_high)})"
    return (
        f"{_names([s.decision])} decides soonest, after {s.value:.1f} days on average with {false}; about "
        f"{need:,} worlds like these would show it (--replications), or ask for a --limit of "
        f"{math.ceil(1000 * s.wrong_high) / 1000:g}"
    )


def _tie(r: Recommendation, best: Standing, tied: list[Standing], worse: list[str]) -> str:
    far = max(max(abs(s.low), abs(s.high)) for s in tied)
    worlds = several(best.worlds, "world")
    names = _names([best.decision, *(s.decision for s in tied)])
    if not worse:
        said = f"No difference that {worlds} can tell between {names}"
        return f"{said}: {_does(r, best)}; none is further than {_size(r, far)} away."
    return f"A tie: {names} cannot be told apart ({_size(r, far)} at most); they do better than {_names(worse)}."


def _does(r: Recommendation, s: Standing) -> str:
    """What a decision comes to."""
    if r.question.criterion == "right_by_day":
        by = f"day {r.question.day:g}" if r.question.day else "the last day"
        return f"the best variant leads on {by} in {_percent(s.value)} of worlds and steps"
    if r.question.criterion == "conversions":
        return f"{s.value:,.1f} true conversions a world"
    if r.question.criterion == "revenue":
        return f"{s.value:,.0f} {r.scenario.world.value.currency} of true revenue a world"
    false = f"{_percent(s.wrong)} false ships (at most {_percent(s.wrong_high)})"
    return f"a decision after {s.value:.1f} days on average, with {false}"


def _over(r: Recommendation) -> str:
    """What the best decision comes to under each set of assumptions, from the least to the most."""
    ends = [f(c.best.value for c in r.cases if c.best) for f in (min, max)]
    if r.question.criterion == "right_by_day":
        low, high = (_percent(x) for x in ends)
    else:
        low, high = (_size(r, x) for x in ends)
    return f"over all of them it is {low} to {high}" if low != high else f"under the others it is {low}, too"


def _apart(r: Recommendation, s: Standing) -> str:
    """How far the best is from the next, with the interval of the difference."""
    ends = sorted((abs(s.low), abs(s.high)))
    low, high = (_size(r, e).split(" ")[0] for e in ends)
    how = "more" if r.question.what.higher else "sooner"
    return f"{_size(r, abs(s.difference))} {how} than {_names([s.decision])} ({low} to {high})"


def _size(r: Recommendation, x: float) -> str:
    if r.question.criterion == "right_by_day":
        return f"{100 * x:.1f} points"
    if r.question.criterion == "revenue":
        return f"{x:,.0f} {r.scenario.world.value.currency}"
    return f"{x:,.1f} {'days' if r.question.criterion == 'decision_time' else 'conversions'}"


def _flip(f: Flip) -> str:
    def of(names: tuple[str, ...]) -> str:
        return " or ".join(names) or "none"

    fits = "" if f.fits == f.of else f" (so in {f.fits} of {f.of} sets of assumptions)"
    if all(re.fullmatch(r"[-+.\deE]+", v) for v in (f.below, f.above)):
        return f"{of(f.before)} up to {f.axis} {f.below}, {of(f.after)} from {f.above} on{fits}"
    return f"{of(f.before)} with {f.axis} {f.below}, {of(f.after)} with {f.above}{fits}"


def _names(names: Iterable[str]) -> str:
    return listed([f'"{n}"' if "," in n else n for n in names], most=4)


def _percent(x: float) -> str:
    return f"{100 * x:.0f} %" if x >= 0.095 or x == 0 else f"{100 * x:.2g} %"

"""Are recommendations and verdicts right on the packaged scenarios?

python benchmarks/claims.py [scenario ...]

Every scenario as it is packaged, with fewer users. A sweep has 20 worlds; in each all points together send 12,000
messages a template at most. The 100 sweeps of a scenario have no world in common. What is true of a sweep is told by
the worlds of the 99 others: 1,980 worlds, none of which it has seen. The decisions that are truly best are the one with
the best mean there and all whose paired difference from it is within 3 standard errors. A recommendation is wrong if
under some set of assumptions none of the truly best decisions is among those that it chooses. Time to decision is asked
with a limit of 20 % of false ships (20 worlds cannot show less than 12 %); it is wrong, too, if what it chooses ships
more of them. Scenarios that vary only what is assumed get decisions to choose between: see EXTRA.

"No difference" is asked of two decisions between which there is none, by symmetry: both send the control alike, and
give half of the rest a good variant and half a poor one; the halves change places (see `mirrored`). Other users get the
good variant, so the worlds differ, and nothing else does. Two decisions are the hardest case: one interval of 95 %, and
no correction that would make it wider.

Verdicts: 100 logs a scenario, of at most 20,000 sends, whose variants all respond as the control does; a log counts if
anybody who looked on any day would have been told to ship something.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from justai_sim import replays
from justai_sim.scenario import Point, Scenario, packaged, points, read
from justai_sim.sim.cost import expected_sends
from justai_sim.sim.engine import simulate_block
from justai_sim.sim.record import race_of
from justai_sim.sweeps.collect import frame_of
from justai_sim.sweeps.criteria import Question, false_ships, families, values
from justai_sim.sweeps.data import SweepData
from justai_sim.sweeps.recommend import Recommendation, recommend
from justai_sim.verdicts.compare import Compared
from justai_sim.verdicts.verdict import compared

SWEEPS, WORLDS = 100, 20
SENDS = 12_000
"""A template, in one world of all points of a sweep together."""
LOG_SENDS = 20_000
BLOCK = 100
"""Worlds that are simulated together."""
TIE = 3.0
"""Standard errors within which decisions are truly tied."""
QUESTIONS = [
    Question(criterion="right_by_day"),
    Question(criterion="conversions"),
    Question(criterion="decision_time", limit=0.2),
]
EXTRA: dict[str, dict[str, Any]] = {
    "machine_opens": {"program.rule.machine": ["exclude", "include"]},
    "simpson_ramp": {"program.control_share": [0.5, 0.1]},
    "webhook_outage": {
        "window": {
            "0-7": {"program.rule.offset_days": 0, "program.rule.lookback_days": 7},
            "0-2": {"program.rule.offset_days": 0, "program.rule.lookback_days": 2},
            "3-14": {"program.rule.offset_days": 3, "program.rule.lookback_days": 14},
        }
    },
}


def smaller(scenario: Scenario, sends: float) -> Scenario:
    """With fewer users, so that a world has about so many sends a template at most."""
    part = min(1.0, sends * len(scenario.touches) / expected_sends(scenario))
    world = scenario.world
    users = {"signups_per_day": world.signups_per_day * part, "initial_users": round(world.initial_users * part)}
    return msgspec.structs.replace(scenario, world=msgspec.structs.replace(world, **users))


def deciding(name: str) -> Scenario:
    """A packaged scenario with a sweep that has decisions in it, made smaller."""
    scenario = read(name)
    scenario = msgspec.structs.replace(scenario, sweep=scenario.sweep | EXTRA.get(name, {}))
    return smaller(scenario, SENDS / len(points(scenario)))


def mirrored(scenario: Scenario) -> Scenario:
    """Two decisions, of which neither is better: treatment users get the best variant, or the one that they do not get
    under the other decision. `best2` is `best` by another name."""
    ranked = sorted(scenario.variants, key=lambda v: (v.conversion_rate, v.open_rate))
    poor, best = ranked[0], ranked[-1]
    control = msgspec.structs.replace(scenario.variants[0], id="control")
    always = {"from_day": 0.0, "until_day": None}
    arms = [
        control,
        *(msgspec.structs.replace(v, id=i, **always) for v, i in ((best, "best"), (poor, "poor"), (best, "best2"))),
    ]
    base = msgspec.structs.replace(scenario, variants=arms, sweep={})
    raw = msgspec.to_builtins(base)
    raw["program"]["policy"] = {"name": "fixed", "shares": {"best": 1.0, "poor": 1.0}}
    other = {"program.policy.shares": {"poor": 1.0, "best2": 1.0}}
    raw["sweep"] = {"shares": {"best first": {}, "poor first": other}}
    return msgspec.convert(raw, Scenario)


def equal(scenario: Scenario) -> Scenario:
    """All variants respond as the control does."""
    first = scenario.variants[0]
    same = [
        msgspec.structs.replace(first, id=v.id, from_day=v.from_day, until_day=v.until_day) for v in scenario.variants
    ]
    return msgspec.structs.replace(scenario, variants=same, sweep={})


class Worlds:
    """All worlds of all points of a scenario, and sweeps that are parts of them."""

    def __init__(self, scenario: Scenario, worlds: int) -> None:
        self.scenario, self.points = scenario, points(scenario)
        self.races = [self._race(p, worlds) for p in self.points]
        self.groups = families(scenario, self.points)

    def _race(self, point: Point, worlds: int) -> pd.DataFrame:
        blocks = (range(k, min(k + BLOCK, worlds)) for k in range(0, worlds, BLOCK))
        parts = [{"race": race_of(simulate_block(point.scenario, reps))} for reps in blocks]
        return frame_of(self.scenario, point, parts, "race")

    def sweep(self, reps: range) -> SweepData:
        """As if these worlds had been swept alone."""
        race = pd.concat([r[r["rep"].between(reps.start, reps.stop - 1)] for r in self.races], ignore_index=True)
        race["rep"] -= reps.start
        heads = race[["point"]].drop_duplicates()
        return SweepData(self.scenario, self.points, self.points[0].name, heads, race, heads, heads, heads)

    def of(self, question: Question) -> list[np.ndarray]:
        """The criterion in each world, of every point."""
        return [values(question, p, r, r) for p, r in zip(self.points, self.races, strict=True)]


def truly_best(found: Sequence[np.ndarray], among: Sequence[int], others: np.ndarray, higher: bool) -> set[int]:
    """Points that are best in the worlds `others` (a mask), ties included."""
    kept = {i: (found[i] if higher else -found[i])[others] for i in among}
    best = max(among, key=lambda i: kept[i].mean())
    out = set()
    for i in among:
        d = kept[i] - kept[best]
        out |= {i} if abs(d.mean()) <= TIE * d.std(ddof=1) / np.sqrt(len(d)) else set()
    return out


def judged(
    r: Recommendation, worlds: Worlds, question: Question, found: list[np.ndarray], wrong: list[np.ndarray],
    others: np.ndarray,
) -> str:  # fmt: skip
    """alone, tie, wrong, or open where no decision is shown to keep the limit of false ships."""
    out = []
    for case, group in zip(r.cases, worlds.groups.values(), strict=True):
        of = {s.point: i for i, s in zip(group, case.standings, strict=True)}
        able = [of[s.point] for s in case.standings if s.verdict in ("best", "tied", "worse", "better")]
        chosen = [of[s.point] for s in case.standings if s.verdict in ("best", "tied")]
        if not able:
            out.append("open")
            continue
        right = bool(truly_best(found, able, others, question.what.higher) & set(chosen))
        if question.criterion == "decision_time":
            w = [wrong[i][others] for i in chosen]
            right &= all(x.mean() <= question.limit + TIE * x.std(ddof=1) / np.sqrt(len(x)) for x in w)
        out.append(("alone" if len(chosen) == 1 else "tie") if right else "wrong")
    return next(k for k in ("wrong", "open", "tie", "alone") if k in out)


def asked(worlds: Worlds, question: Question, sweeps: int, size: int) -> Iterator[tuple[Recommendation, str]]:
    """What each sweep recommends, and whether that is right."""
    found = worlds.of(question)
    wrong = [false_ships(r) for r in worlds.races]
    for k in range(sweeps):
        reps = range(k * size, (k + 1) * size)
        others = np.ones(len(found[0]), bool)
        others[reps.start : reps.stop] = False
        r = recommend(worlds.sweep(reps), question)
        yield r, judged(r, worlds, question, found, wrong, others)


def no_difference(worlds: Worlds, question: Question, sweeps: int, size: int) -> int:
    """How many sweeps say that there is none."""
    said = (recommend(worlds.sweep(range(k * size, (k + 1) * size)), question) for k in range(sweeps))
    return sum(r.answer.startswith("No difference") and len(r.chosen) == len(worlds.points) for r in said)


def ships_at_some_look(got: Compared) -> bool:
    """Whether anybody who looked on any day would have been told to ship something."""
    told = got.race.pivot(index="as_of", columns="variant_id", values="told").to_numpy()
    return bool((told > 0).any() or (told < 0).all(1).any())


def false_verdicts(scenario: Scenario, logs: int) -> int:
    """Of logs of one world each, those of which something would have been shipped on some day."""
    program, shipped = scenario.program, 0
    for start in range(0, logs, 20):
        reps = range(start, min(start + 20, logs))
        block = simulate_block(scenario, reps)
        for rep in reps:
            log = replays.replay(
                block.log(rep), rule=program.rule, goals=program.goals, key_metric=program.key_metric, shares=False,
                control=scenario.variants[0].id,
            )  # fmt: skip
            shipped += ships_at_some_look(compared(log)[0])
    return shipped


def main() -> None:
    names = sys.argv[1:] or sorted(p.stem for p in packaged().glob("*.toml"))
    began, total = time.perf_counter(), Counter()
    print(f"load average {os.getloadavg()[0]:.1f} at the start", file=sys.stderr)
    heads = ("scenario", "points", "criterion", "right alone", "right within a tie", "wrong", "left open",
             "no difference said where none is", "equal variants shipped")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for name in names:
        worlds = Worlds(deciding(name), SWEEPS * WORLDS)
        null = Worlds(mirrored(smaller(read(name), SENDS / 4)), SWEEPS * WORLDS)
        shipped = false_verdicts(equal(smaller(read(name), LOG_SENDS)), SWEEPS)
        for question in QUESTIONS:
            told = Counter(said for _, said in asked(worlds, question, SWEEPS, WORLDS))
            none = "" if question.criterion == "decision_time" else no_difference(null, question, SWEEPS, WORLDS)
            head = (name, len(worlds.points), shipped) if question is QUESTIONS[0] else ("", "", "")
            counts = [told[k] for k in ("alone", "tie", "wrong", "open")]
            cells = [*head[:2], question.criterion, *counts, none, head[2]]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            total += told
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(
        f"{dict(total)} in {time.perf_counter() - began:.0f} s; load average {os.getloadavg()[0]:.1f}", file=sys.stderr
    )


if __name__ == "__main__":
    main()

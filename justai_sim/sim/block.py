"""What a block of worlds leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from justai_sim.clock import SECOND
from justai_sim.loop.program import Program
from justai_sim.loop.state import State
from justai_sim.loop.step import Machine, Tick
from justai_sim.scenario import Scenario
from justai_sim.sim.plan import by_code
from justai_sim.sim.wire import Wire
from justai_sim.tables import B1, F8, HELD_OUT, I4, I8, MODES, Codes, Decisions, Log, Sends
from justai_sim.truth import Truth, Unheard
from justai_sim.world.people import Users, cell_factors, cell_shares
from justai_sim.world.spec import Variant


@dataclass
class Block:
    """State at the end of the run, truth, and every refresh."""

    scenario: Scenario
    reps: range
    program: Program
    machine: Machine
    state: State
    truth: Truth
    origin: I8
    """The true event that each row of `state.events` tells of; NONE: of nothing that happened."""
    unheard: Unheard
    suppressed: Sends
    """Messages that were chosen and never sent."""
    users: Users
    ticks: list[Tick]
    codes: dict[str, Codes]
    wire: Wire | None
    replacing: Truth
    """The caused purchases that took the place of an organic one, which did not happen."""

    def signed_up(self, rep: I4, user: I8) -> I8:
        """When each user signed up, microseconds."""
        return self.users.signed_up[self.users.row(rep, user)]

    @property
    def rates(self) -> F8:
        """True conversion rates, (templates, arms): means over users and over the days on which all variants
        are there; NaN where a template has fewer arms."""
        return rates_of(self.scenario) @ cell_shares(self.scenario.world)

    def log(self, rep: int) -> Log:
        """The rows of one world that were known at the end, as a log with every decision."""
        local = rep - self.reps.start
        sends, events = self.state.sends.table, self.state.events.table
        s, e = sends.take(sends.rep == local), events.take(events.rep == local)
        s = s.with_(rep=np.zeros(len(s), np.int32))
        e = e.with_(rep=np.zeros(len(e), np.int32))
        chosen = Sends.concat([s, *(t.take(t.rep == local) for t in (self.unheard.sends, self.suppressed))])
        told = decisions_of(chosen, self.scenario)
        return Log(s, e, told, self.codes, source=f"simulated: {self.scenario.name}")


def decisions_of(sends: Sends, scenario: Scenario) -> Decisions:
    """The decision log of simulated sends: one choice each with its propensity, told again by every further call of a
    message. Where users keep their variant, a repeat of it is sticky; where the provider splits, it chose the repeats
    too."""
    _, first = np.unique(sends.send, return_index=True)
    sends = sends.take(np.sort(first))
    sends = sends.take(np.lexsort((sends.send, sends.sent_at)))
    calls = scenario.world.api_calls
    n = len(sends)
    usual = MODES.index("external" if scenario.program.split == "external" else "policy")
    mode = np.full(n, usual)
    if scenario.program.sticky == "variant" and scenario.program.split == "internal":
        order = np.lexsort((sends.template, sends.user))  # stable: in time within both
        now, before = order[1:], order[:-1]
        stays = [getattr(sends, c)[now] == getattr(sends, c)[before] for c in ("user", "template", "variant")]
        mode[now[np.all(stays, axis=0)]] = MODES.index("sticky")
    mode = np.where(sends.status == HELD_OUT, MODES.index("held_out"), mode)
    again = np.repeat(np.arange(calls), n)
    sends = Sends.concat([sends] * calls)
    return Decisions.build(
        n * calls, decision=sends.send, user=sends.user, template=sends.template, variant=sends.variant,
        segment=sends.segment, decided_at=sends.decided_at + again * SECOND, propensity=sends.propensity,
        mode=np.tile(mode, calls),
    )  # fmt: skip


def even_split(live: B1) -> F8:
    """What a provider that splits by itself serves: control and live treatments alike. Shares of the shape of `live`
    (..., K); the control is always there."""
    may = live.copy()
    may[..., 0] = True
    return np.asarray(may / may.sum(axis=-1, keepdims=True))


def rates_of(scenario: Scenario) -> F8:
    """True conversion rates by template, arm and cell of users, before spread, fatigue, carry-over and shocks; means
    over the days on which all variants of the template are there; NaN where a template has fewer arms."""
    touches = by_code(scenario)
    arms = max(len(scenario.variants_of(t)) for t in touches)
    cells = len(cell_shares(scenario.world))
    out = np.full((len(touches), arms, cells), np.nan)
    for t, touch in enumerate(touches):
        variants = scenario.variants_of(touch)
        common = together(variants, scenario.days)
        for a, v in enumerate(variants):
            rate = v.conversion_rate * trend(v, *common) * cell_factors(scenario.world, v.segments)
            out[t, a] = np.minimum(rate, 1.0)
    return out


def values_of(scenario: Scenario) -> F8:
    """Mean amount of a caused purchase by template and arm, NaN where there is no arm."""
    rows = [[(v.value or scenario.world.value).expected for v in scenario.variants_of(t)] for t in by_code(scenario)]
    arms = max(map(len, rows))
    return np.array([row + [np.nan] * (arms - len(row)) for row in rows])


def together(variants: Sequence[Variant], days: int) -> tuple[float, float]:
    """The days of the run on which all of these variants are there; the whole run if there are none."""
    start = max(v.from_day for v in variants)
    end = min(float(days) if v.until_day is None else min(v.until_day, days) for v in variants)
    return (start, end) if start < end else (0.0, float(days))


def trend(v: Variant, start: float, end: float) -> float:
    """Mean over these days of what drift and novelty multiply a rate by."""
    if not v.drift and not v.novelty:
        return 1.0
    day = np.linspace(start, end, 1001)
    fresh = np.exp(-np.maximum(day - v.from_day, 0) / v.novelty_days)
    return float(np.mean(np.exp(v.drift * day / 30) * (1 + v.novelty * fresh)))

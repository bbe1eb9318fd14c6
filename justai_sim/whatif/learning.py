"""The value of a policy that learns, from a log in which variants were drawn evenly: replay by rejection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
import numpy as np

from justai_sim import clock
from justai_sim.bandit.policy import PolicySpec
from justai_sim.clock import MISSING
from justai_sim.errors import UsageError, nearest
from justai_sim.loop.program import Feedback, Layout, Program, Template
from justai_sim.loop.replay import MAX_REFRESHES, machine_of, with_decisions
from justai_sim.loop.state import State
from justai_sim.loop.step import Batch, step
from justai_sim.stats import influence_interval
from justai_sim.streams import uniform
from justai_sim.tables import B1, CONVERSION, F8, Credits
from justai_sim.whatif.decided import WHOLE, Decided
from justai_sim.whatif.study import Study

PASSES = 5
"""Passes over the log, each with its own draws of what is kept; they are averaged."""
EVEN = 1e-3
"""Propensities of an evenly drawn log differ by at most this part."""


@dataclass(frozen=True)
class Learnt:
    """A learning policy over an evenly drawn log.

    value, low, high: the mean reward of the decisions kept, 95 % over users given the shares that the policy set;
    kept: (passes, n) which decisions were; influence (n,), what each moves the value by.
    """

    value: float
    low: float
    high: float
    se: float
    kept: B1
    influence: F8


def uneven(d: Decided) -> str:
    """Why a log was not drawn evenly over its treatment variants with a fixed control share; '' if it was."""
    treated = d.behaviour[:, 1:]
    live = d.live[d.context][:, 1:]
    if (live.sum(1) < 2).any():
        return "a template has fewer than two treatment variants"
    most, least = np.where(live, treated, 0.0).max(1), np.where(live, treated, np.inf).min(1)
    if d.estimated and not d.estimated.endswith(WHOLE):
        return "the shares of its variants changed over time"
    if d.estimated:
        return _uneven_counts(d)
    if (most - least > EVEN * most).any():
        worst = int(np.argmax(most - least))
        return (
            f"its variants were not drawn evenly (shares {least[worst]:.3g} to {most[worst]:.3g} in template "
            f"{d.templates[d.context[worst]]!r})"
        )
    for c in np.unique(d.context).tolist():
        if np.ptp(d.behaviour[d.context == c, 0]) > EVEN:
            return f"the control share of template {d.templates[c]!r} changed"
    return ""


def _uneven_counts(d: Decided) -> str:
    """Without propensities: whether the counts of the treatment variants differ by more than chance (chi-squared)."""
    from scipy import special

    for c in np.unique(d.context).tolist():
        count = np.bincount(d.arm[d.context == c], minlength=d.arms)[1:][d.live[c, 1:]]
        seen = float(((count - count.mean()) ** 2 / count.mean()).sum())
        if special.chdtrc(len(count) - 1, seen) < 0.01:
            return f"its variants were not drawn evenly in template {d.templates[c]!r} ({', '.join(map(str, count))})"
    return ""


@dataclass(frozen=True)
class Learning:
    """How a learning policy is told of outcomes: the program's `feedback` and `refresh_hours`."""

    feedback: Feedback = "all"
    refresh_hours: float = 24

    def __post_init__(self) -> None:
        if self.feedback not in get_args(Feedback):
            raise UsageError(f"--feedback {self.feedback!r} is not known; {nearest(self.feedback, get_args(Feedback))}")


def learning_of(feedback: str | None, refresh_hours: float | None) -> Learning | None:
    """What was said of how a policy learns; None where nothing was."""
    said: Any = {"feedback": feedback, "refresh_hours": refresh_hours}
    said = {k: v for k, v in said.items() if v is not None}
    return Learning(**said) if said else None


def learner(d: Decided, spec: PolicySpec, learning: Learning | None) -> Program:
    """The log's program with a policy that learns, over the variants that were drawn: one that was only ever forced, or
    chosen elsewhere, has no decisions to be kept. UsageError for what does not go together."""
    told, drawn = vars(learning or Learning()), {}
    for t, names, live in zip(d.templates, d.variants, d.live.tolist(), strict=True):
        here = [v for v, there in zip(names[1:], live[1:], strict=False) if there]
        drawn[t] = Template(id=t, variants=[names[0], *here])
    return msgspec.structs.replace(
        d.program, templates=list(drawn.values()), policy=spec, control_share=0.0, **told
    )  # fmt: skip


def learnt(
    s: Study, d: Decided, spec: PolicySpec, control_share: float | None, learning: Learning | None = None
) -> Learnt:
    """Step a learning policy through an evenly drawn log (Li et al., 2011), refresh by refresh.

    A decision is kept with probability share / (largest possible share / its own propensity), so that those kept are
    drawn as the policy would have drawn them; it learns from the kept ones alone, as they became known. That is its
    law at the traffic that is kept, of each template about 1 in K - 1 of the log's. UsageError where the policy cannot
    learn the metric.
    """
    if control_share is not None:
        raise UsageError("--control-share cannot be changed for a policy that learns; the log's own is kept")
    program = learner(d, spec, learning)
    many = int(np.ptp(d.at)) // program.refresh
    if many > MAX_REFRESHES:
        raise UsageError(
            f"--refresh-hours is {program.refresh_hours:g}, {many:,} refreshes of the log; "
            f"expected at most {MAX_REFRESHES:,}"
        )
    credited = s.attribute(s.rule).credits
    passes = np.stack([_pass(s, d, program, k, credited) for k in range(PASSES)])
    # A template keeps 1 in as many as it has variants: each counts as its decisions do in the log.
    weight = passes * d.live[d.context, 1:].sum(1)
    counts = weight.sum(1)
    if not counts.all():
        raise UsageError(f"policy {spec.name!r} would keep no decision of the log")
    means = (weight * d.reward).sum(1) / counts
    value = float(means.mean())
    influence = (weight * (d.reward - means[:, None]) / counts[:, None]).mean(0)
    codes = np.unique(d.user, return_inverse=True)[1].ravel()
    users = int(codes.max()) + 1
    move = np.bincount(codes, influence, users).astype(np.float64)
    low, high = influence_interval(value, move, users)
    se = math.sqrt(float(move @ move) * users / max(users - 1, 1))
    return Learnt(value, low, high, se, passes, influence)


def _pass(s: Study, d: Decided, program: Program, k: int, credited: Credits) -> B1:
    """Which decisions one pass keeps, (n,). Of the conversions the policy is told those that the log credits to a send
    that was kept: the others would be credited to kept sends that came before theirs."""
    log = s.log
    machine = machine_of(program, log)
    layout = Layout(machine.program, log.names("template"), log.names("variant"))
    sends, events = with_decisions(log.sends, log.decisions), log.events
    asked_at = sends.decided_at[d.send]
    asked_at = np.where(asked_at == MISSING, sends.sent_at[d.send], asked_at)
    start = clock.midnight(int(asked_at.min()))
    users = max((int(t.user.max()) + 1 for t in (sends, events) if len(t)), default=1)
    span = max((int(t.send.max()) + 1 for t in (sends, events) if len(t)), default=1)
    state = State(1, max(users, 1), max(span, 1), start)
    tick_of = (asked_at - start) // machine.program.refresh
    template = sends.template[d.send]
    arm = layout.arm[template, sends.variant[d.send]]
    count = layout.live.sum(1)[template]
    u = uniform(0, f"replay of a learning policy {k}", np.zeros(len(d), np.int64), d.send)
    kept, told_s, told_e = np.zeros(len(d), np.bool_), np.zeros(len(sends), np.bool_), np.zeros(len(events), np.bool_)
    for t in range(int(tick_of.max()) + 1):
        now = start + t * machine.program.refresh
        mine = np.zeros(len(sends), np.bool_)
        mine[d.send[kept]] = True
        new_s = mine & ~told_s & (sends.received_at <= now)
        own = events.kind != CONVERSION
        own[credited.event_row[mine[credited.send_row]]] = True
        new_e = own & ~told_e & (events.received_at <= now)
        told_s |= new_s
        told_e |= new_e
        state, tick = step(machine, state, Batch(sends.take(new_s), events.take(new_e)), now)
        here = np.flatnonzero(tick_of == t)
        row = sends.segment[d.send[here]] + 1 if machine.segments else np.zeros(len(here), np.int64)
        share = tick.shares[template[here], 0, row, arm[here]]
        # Relative to an even draw the largest share is 1 of 1 / count; the control is kept as often on average.
        chance = np.where(arm[here] == 0, 1 / count[here], share)
        kept[here] = u[here] < chance
    return kept

"""The decisions of a log that were drawn at random: what was chosen, with which probability, and what it earned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

from justai_sim.bandit.policy import PolicySpec
from justai_sim.clock import DAY, MISSING
from justai_sim.errors import DataError, several
from justai_sim.loop.program import Layout, Program, program_of
from justai_sim.loop.replay import with_decisions
from justai_sim.tables import B1, F8, I8, MODES, NONE, Decisions, Sends
from justai_sim.whatif.study import OF_RATE, Study, column

POLICY, STICKY, FORCED, EXTERNAL, HELD = range(len(MODES))
WHOLE = "over the whole log"
DOUBT = 0.05
"""Shares have changed where equal ones would differ as much between the weeks of the log this rarely."""
LEAST_CHOSEN = 10
"""Days are put together until they hold each variant this often."""


@dataclass(frozen=True)
class Decided:
    """n decisions with what their sends earned.

    arm, context, user, at, pscore, reward, send: (n,); behaviour (n, K), the probabilities of all arms. A context is
    a template and a segment, and has its row in `templates` and `segments`. variants: of each context, arm 0 the
    control; `live` (contexts, K) those that the log knows. estimated: how propensities were estimated, '' where they
    were logged. left_out: decisions by why they do not enter.
    """

    arm: I8
    context: I8
    user: I8
    at: I8
    pscore: F8
    reward: F8
    send: I8
    behaviour: F8
    templates: tuple[str, ...]
    segments: tuple[str, ...]
    variants: tuple[tuple[str, ...], ...]
    live: B1
    metric: str
    estimated: str
    left_out: dict[str, int]
    program: Program

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def arms(self) -> int:
        return self.behaviour.shape[1]

    def take(self, rows: B1) -> Decided:
        """Some of the decisions."""
        names = ("arm", "context", "user", "at", "pscore", "reward", "send", "behaviour")
        return replace(self, **{k: getattr(self, k)[rows] for k in names})

    @cached_property
    def learnt(self) -> bool:
        """Whether the shares of a context changed from day to day."""
        rows = np.round(self.behaviour, 6)
        first = np.zeros((len(self.templates), self.arms))
        first[self.context[::-1]] = rows[::-1]
        return bool(np.abs(rows - first[self.context]).max(initial=0.0) > 1e-3)

    @property
    def deterministic(self) -> B1:
        """(n,) decisions in which one of several treatment variants had all of the treatment traffic, as policies that
        take the best arm log them (propensity 1, or what the control leaves)."""
        treated = (self.behaviour[:, 1:] > 0).sum(1)
        return (treated == 1) & (self.live[self.context][:, 1:].sum(1) > 1)

    @property
    def notes(self) -> list[str]:
        """What a reader needs to know of how the decisions were found."""
        said = [f"{several(n, 'decision')} left out: {why}" for why, n in self.left_out.items()]
        if not self.estimated:
            sure = int(self.deterministic.sum())
            return said + [
                f"{sure:,} of {several(len(self), 'decision')} were deterministic: their policy gave one variant all "
                "of the treatment traffic, so that they tell nothing of the others"
            ] * (sure > 0)
        learnt = "" if self.estimated.endswith(WHOLE) else (
            "; if the log was made by a policy that learns, this leaves a part of the bias of plain means (variants "
            "that began badly look worse than they are), and intervals hold the truth in about 9 of 10 logs"
        )  # fmt: skip
        return [f"propensities are estimated, not logged: {self.estimated}{learnt}", *said]


def decided(s: Study, metric: str, control: str | None, logged: bool | None = None) -> Decided:
    """The decisions of a log whose outcome is mature, as `Decided`.

    Forced, external and held-out ones never enter. A sticky repeat carries the propensity and the day of the first
    choice. Where the log has propensities, decisions without one are left out (they were not drawn); where it has
    none they are estimated from the shares of each template and segment (`with_estimated_shares`). `logged`: True
    refuses to estimate, False estimates although they are logged.
    Raises DataError where no decision is left or a propensity is none.
    """
    rows, left_out, reward = _mature(s, metric)
    sends, mode, matched = _joined(s.log.sends, s.log.decisions)
    sends, mode = _first_choices(sends, s.log.decisions, mode, matched)
    mode = mode[rows]
    for code, why in ((FORCED, "forced"), (EXTERNAL, "external"), (HELD, "held out")):
        left_out[why] = int((mode == code).sum())
    keep = (mode == POLICY) | (mode == STICKY)
    known = ~np.isnan(sends.propensity[rows])
    estimate = not (known & keep).any() if logged is None else not logged
    if not estimate:
        left_out["without a propensity: not known to be drawn"] = int((keep & ~known).sum())
        keep &= known
    rows, reward = rows[keep], reward[keep]
    left_out = {k: n for k, n in left_out.items() if n}
    if not len(rows):
        told = "; ".join(f"{n:,} {why}" for why, n in left_out.items())
        raise DataError(f"no decision is left to value a policy on ({told or 'the log has none'})")
    settings: dict[str, Any] = {"goals": s.goals, "key_metric": metric, "rule": s.rule}
    program = program_of(s.log, Program(policy=PolicySpec(name="uniform"), **settings), control)
    got = _arrays(s, sends, rows, reward, program, metric, left_out)
    return with_estimated_shares(got) if estimate else _logged(got, s, sends.propensity[rows])


def _mature(s: Study, metric: str) -> tuple[I8, dict[str, int], F8]:
    """Send rows whose outcome is settled, how many are not, and what each earned."""
    got = s.attribute(s.rule)
    o = got.outcomes
    conversions = metric in ("conversion_rate", "revenue_per_send")
    ripe = got.mature() if conversions else got.mature_engagement()
    counted = s.shown[o.send_row] & ~o.ghost & (o.reached | (s.rule.denominator == "sends"))
    if conversions:
        counted = counted & (o.close_at != MISSING)
    left_out = {"outcome not settled yet": int((counted & ~ripe).sum())}
    use = counted & ripe
    return o.send_row[use], left_out, column(got, OF_RATE[metric])[use].astype(np.float64)


def _joined(sends: Sends, decisions: Decisions) -> tuple[Sends, I8, I8]:
    """The sends with what their decisions tell, their modes, and the rows of their decisions (-1: none)."""
    n = len(decisions)
    if not n:
        return sends, np.full(len(sends), POLICY, np.int64), np.full(len(sends), NONE, np.int64)
    # The join of the loop itself, made to carry the decision's row in place of its propensity.
    asked = sends.with_(propensity=np.full(len(sends), np.nan))
    found = with_decisions(asked, decisions.with_(propensity=np.arange(n, dtype=np.float64))).propensity
    row = np.where(np.isnan(found), NONE, np.nan_to_num(found)).astype(np.int64)
    there = row >= 0
    joined = sends.with_(
        decided_at=np.where(there & (sends.decided_at == MISSING), decisions.decided_at[row], sends.decided_at),
        propensity=np.where(there & np.isnan(sends.propensity), decisions.propensity[row], sends.propensity),
        segment=np.where(there & (sends.segment == NONE), decisions.segment[row], sends.segment),
    )
    # A send without decision and propensity, where others have decisions, was chosen elsewhere.
    own = np.where(np.isnan(joined.propensity), EXTERNAL, POLICY)
    return joined, np.where(there, decisions.mode[row], own).astype(np.int64), row


def _first_choices(sends: Sends, d: Decisions, mode: I8, matched: I8) -> tuple[Sends, I8]:
    """Sticky repeats with the propensity and time of the user's first choice of that template and variant; where that
    was forced or made elsewhere, so is the repeat."""
    sticky, made = np.flatnonzero(mode == STICKY), np.flatnonzero(np.isin(d.mode, (POLICY, FORCED, EXTERNAL)))
    if not len(sticky) or not len(made):
        return sends, mode
    # The first that was drawn, if any was.
    order = made[np.lexsort((d.decided_at[made], d.mode[made] != POLICY))]
    repeat = matched[sticky]
    ids = [np.concatenate([a[order], a[repeat]]) for a in (d.rep, d.user, d.template, d.variant)]
    group = np.unique(np.stack([i.astype(np.int64) for i in ids]), axis=1, return_inverse=True)[1].ravel()
    first = np.full(int(group.max()) + 1, NONE, np.int64)
    first[group[: len(order)][::-1]] = order[::-1]
    at = first[group[len(order) :]]
    found = (at >= 0) & (d.decided_at[at] <= d.decided_at[repeat])
    rows, at = sticky[found], at[found]
    time, chance, mode = sends.decided_at.copy(), sends.propensity.copy(), mode.copy()
    drawn = d.mode[at] == POLICY
    time[rows[drawn]] = d.decided_at[at[drawn]]
    chance[rows[drawn]] = np.where(np.isnan(chance[rows[drawn]]), d.propensity[at[drawn]], chance[rows[drawn]])
    elsewhere = ~drawn & np.isnan(chance[rows])
    mode[rows[elsewhere]] = d.mode[at[elsewhere]]
    return sends.with_(decided_at=time, propensity=chance), mode


def _arrays(
    s: Study, sends: Sends, rows: I8, reward: F8, program: Program, metric: str, left_out: dict[str, int]
) -> Decided:  # fmt: skip
    """The arrays of send rows, without probabilities."""
    log = s.log
    layout = Layout(program, log.names("template"), log.names("variant"))
    template, segment = sends.template[rows], sends.segment[rows]
    arm = layout.arm[template, sends.variant[rows]]
    pairs, context = np.unique(np.stack([template, segment]), axis=1, return_inverse=True)
    context = context.ravel()
    by_id = {t.id: tuple(t.variants) for t in program.templates}
    names = log.text("template", pairs[0])
    live = np.zeros((pairs.shape[1], layout.arms), bool)
    present = np.unique(template * layout.arms + arm)
    for c, t in enumerate(pairs[0].tolist()):  # an arm of the template is live in all its segments
        live[c, present[present // layout.arms == t] % layout.arms] = True
    decided_at = sends.decided_at[rows]
    at = np.where(decided_at == MISSING, sends.sent_at[rows], decided_at)
    none = np.zeros((len(rows), layout.arms))
    return Decided(
        arm, context, s.user[rows], at, none[:, 0], reward, rows, none, tuple(names),
        tuple(log.text("segment", pairs[1])), tuple(by_id[t] for t in names), live, metric, "", left_out, program,
    )  # fmt: skip


def _logged(d: Decided, s: Study, pscore: F8) -> Decided:
    """With the probabilities of the log: those of the other arms are what they had for others on the same day."""
    bad = np.flatnonzero(~((pscore > 0) & (pscore <= 1)))
    if len(bad):
        name = s.log.text("send", s.log.sends.send[d.send[bad[:1]]])[0]
        raise DataError(
            f"propensity of send {name!r} is {pscore[bad[0]]:g}; expected above 0 and at most 1 "
            f"({several(len(bad), 'decision')})"
        )
    cell = _cells(d.context, d.at // DAY)
    size = (int(cell.max()) + 1, d.arms)
    flat = cell * d.arms + d.arm
    count = np.bincount(flat, minlength=size[0] * size[1]).reshape(size)
    mean = np.bincount(flat, pscore, size[0] * size[1]).reshape(size) / np.maximum(count, 1)
    first = np.zeros(size[0], np.int64)
    first[cell] = d.context
    unseen = (count == 0) & d.live[first]
    rest = np.maximum(1 - mean.sum(1, keepdims=True), 0.0)
    rest = np.where(rest > 1e-6, rest, 0.0)  # what rounding leaves is no chance of being drawn
    table = np.where(unseen, rest / np.maximum(unseen.sum(1, keepdims=True), 1), mean)
    behaviour = table[cell]
    own = np.arange(len(d))
    behaviour[own, d.arm] = 0.0
    total = behaviour.sum(1, keepdims=True)
    behaviour *= np.divide(1 - pscore[:, None], total, out=np.zeros_like(total), where=total > 0)
    behaviour[own, d.arm] = np.where(total[:, 0] > 0, pscore, 1.0)
    return replace(d, pscore=pscore, behaviour=behaviour)


def with_estimated_shares(d: Decided) -> Decided:
    """With shares of each context as probabilities: of the whole log where they do not change from week to week, else
    of as few days as hold every variant often enough."""
    day = d.at // DAY - d.at.min() // DAY
    changed = _changed(d, _cells(d.context, day // 7))
    period = _merged(d, day) if changed else np.zeros(len(d), np.int64)
    count = _by_arm(d, cell := _cells(d.context, period))
    behaviour = (count / count.sum(1, keepdims=True))[cell]
    span = f"of as few days as hold each variant {LEAST_CHOSEN} times" if changed else WHOLE
    words = f"shares of each template and segment {span}"
    return replace(d, pscore=behaviour[np.arange(len(d)), d.arm], behaviour=behaviour, estimated=words)


def _merged(d: Decided, day: I8) -> I8:
    """A period for each decision: successive days of its context, until each live arm was chosen `LEAST_CHOSEN` times.
    What is left at the end belongs to the last period."""
    out = np.zeros(len(d), np.int64)
    for c in np.unique(d.context).tolist():
        rows = np.flatnonzero(d.context == c)
        counts = np.zeros((int(day[rows].max()) + 1, d.arms))
        np.add.at(counts, (day[rows], d.arm[rows]), 1)
        period, seen, number = np.zeros(len(counts), np.int64), np.zeros(d.arms), 0
        for t, row in enumerate(counts):
            period[t] = number
            seen += row
            if (seen[d.live[c]] >= LEAST_CHOSEN).all():
                number, seen = number + 1, np.zeros(d.arms)
        out[rows] = np.minimum(period, max(number - 1, 0))[day[rows]]
    return out


def _changed(d: Decided, cell: I8) -> bool:
    """Pearson's chi-squared test that all cells of a context have the same shares."""
    counts = _by_arm(d, cell)
    context = np.zeros(len(counts), np.int64)
    context[cell] = d.context
    whole = _by_arm(d, d.context)
    expected = counts.sum(1, keepdims=True) * (whole / np.maximum(whole.sum(1, keepdims=True), 1))[context]
    seen = float(((counts - expected) ** 2 / np.where(expected > 0, expected, 1.0)).sum())
    arms = np.maximum((whole > 0).sum(1) - 1, 0)
    free = int(arms[context].sum() - arms.sum())
    return free > 0 and bool(special.chdtrc(free, seen) < DOUBT)


def _by_arm(d: Decided, cell: I8) -> F8:
    """Decisions by cell and arm."""
    size = int(cell.max()) + 1
    return np.bincount(cell * d.arms + d.arm, minlength=size * d.arms).reshape(size, d.arms).astype(np.float64)


def _cells(a: I8, b: I8) -> I8:
    """Codes 0.. of the pairs."""
    return np.unique(a * (int(b.max()) - int(b.min()) + 1) + b - b.min(), return_inverse=True)[1].ravel()

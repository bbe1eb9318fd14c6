"""Every variant of a log against its control, at every day on which somebody may have looked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from justai_sim.bandit.policy import LOWER_IS_BETTER
from justai_sim.clock import DAY
from justai_sim.errors import listed
from justai_sim.estimate.sequences import confidence_path, sequence_radius
from justai_sim.estimate.trials import Trials
from justai_sim.tables import B1, F8, I8
from justai_sim.whatif.decided import Decided, with_estimated_shares

LEVEL = 0.95
TUNED = 20_000
"""Mature sends at which the intervals are tightest; fixed beforehand, and little is lost within a factor of ten."""
LEAST_SENDS = 1_000
"""Mature sends of each of two variants before they are told apart: where the product's own significance begins."""
LEAST_EARNED = 25
"""Sends with an outcome that each of two variants would have at their common rate: the intervals are approximations
for many. What decides are sends and the common rate, so no variant is left out for how it did."""


LEAST_USERS = 100
"""Users of each of two variants, by Kish's effective number (sum n)^2 / sum n^2 of their sends: intervals are over
users, and approximations for many."""


@dataclass(frozen=True)
class Pair:
    """A variant against the reference on the decisions in which either could have been drawn, by time of maturity.

    trials: arm 1 the variant, 0 the reference, 2 any other; context, ripe, send: (n,), where a context is a template
    and segment, and `ripe` when the outcome became mature.
    """

    variant: str
    against: str
    trials: Trials
    context: I8
    ripe: I8
    send: I8

    def difference(self) -> float:
        """The plain difference of means, per send."""
        y, arm = self.trials.outcome, self.trials.arm
        return float(y[arm == 1].mean() - y[arm == 0].mean())


@dataclass(frozen=True)
class Compared:
    """table: a row a variant, the best first: `variant_id, against, templates, sends, against_sends, earned` (the part
    of all that has an outcome), `users` (effective, of the variant that has fewer), `ready,
    difference_per_1000, low_per_1000, high_per_1000, se_per_1000, rows, told` (+1 better, -1 worse, 0 neither can be
    said). race: the same at every look, with `as_of` (UTC). pairs: what they are made of, in the order of the table.
    level: of each interval, so that all hold together at `LEVEL`. gaps: of the other variants, where that can be said,
    by how much they differ from the first per 1,000 sends, with the ends of an interval of the same level."""

    table: pd.DataFrame
    race: pd.DataFrame
    pairs: list[Pair]
    reference: str
    level: float
    sign: float
    notes: list[str]
    gaps: dict[str, tuple[float, float, float]] = field(default_factory=dict)


def pairs_of(d: Decided, ripe: I8) -> tuple[list[Pair], str, list[str]]:
    """The pairs, the name of the reference, and what to say of it. `ripe` (decisions,): when each became mature."""
    notes: list[str] = []
    controls = {d.variants[c][0] for c in range(len(d.templates)) if d.live[c, 0]}
    known = [[v for a, v in enumerate(vs) if d.live[c, a]] for c, vs in enumerate(d.variants)]
    names = sorted({v for vs in known for v in vs})
    base = controls or {min(vs) for vs in known if vs}
    if not controls and len(names) > 1:
        notes.append(
            f"no control: variants are compared with {listed(sorted(base))}, the first by name (--control chooses)"
        )
    without = sorted({d.templates[c] for c, vs in enumerate(known) if not base & set(vs)})
    if without:
        notes.append(f"not compared, as they have no control: {listed(without)}")
    column, reference = _columns(d, names), _columns(d, sorted(base))
    against = np.array([next((a for a in of if a >= 0), -1) for of in reference.tolist()], np.int64)
    order = np.lexsort((d.send, ripe))
    d, ripe = d.take(order), ripe[order]  # type: ignore[arg-type]
    out = []
    for name in names:
        if name in base:
            continue
        pair = _pair(d, ripe, column[:, names.index(name)], against)
        if pair is not None:
            out.append(Pair(name, listed(sorted(base)), *pair))
    return out, listed(sorted(base)), notes


def _columns(d: Decided, names: list[str]) -> I8:
    """The arm of each variant in each context, (contexts, names), -1 where it has none."""
    out = np.full((len(d.templates), len(names)), -1, np.int64)
    for c, vs in enumerate(d.variants):
        for a, v in enumerate(vs):
            if d.live[c, a] and v in names:
                out[c, names.index(v)] = a
    return out


def _pair(d: Decided, ripe: I8, of: I8, against: I8) -> tuple[Trials, I8, I8, I8] | None:
    """`of`, `against`: the arm of each context, -1 where it has none. Without logged propensities only days count on
    which both were sent: what was sent before or after is no comparison."""
    a, b = of[d.context], against[d.context]
    arm = np.where(d.arm == a, 1, np.where(d.arm == b, 0, 2))
    both: B1 = (a >= 0) & (b >= 0)
    if d.estimated:
        both &= _on_same_days(d, arm)
    else:
        row = np.arange(len(d))
        both &= (d.behaviour[row, a] > 0) & (d.behaviour[row, b] > 0)
    arm = arm[both]
    if not ((arm == 1).any() and (arm == 0).any()):
        return None
    d = d.take(both)
    if d.estimated:
        live = np.tile([True, True, False], (len(d.templates), 1))
        d = with_estimated_shares(replace(d, arm=arm, live=live, behaviour=np.zeros((len(d), 3))))
    return Trials(arm, d.reward, d.pscore, user=d.user), d.context, ripe[both], d.send


def _on_same_days(d: Decided, arm: I8) -> B1:
    """Decisions of the UTC days on which arms 0 and 1 were both sent in their context, (n,)."""
    day = d.at // DAY
    cell = np.unique(d.context * (int(np.ptp(day)) + 1) + day - day.min(), return_inverse=True)[1].ravel()
    sent = np.bincount(cell[arm == 1], minlength=cell.max() + 1) * np.bincount(cell[arm == 0], minlength=cell.max() + 1)
    return np.asarray(sent[cell] > 0)


def compare(d: Decided, ripe: I8, looks: I8) -> Compared:
    """Differences per 1,000 sends by AIPW with the propensities of `d`, as a confidence sequence over mature sends.

    `ripe` (decisions,): when each became mature; `looks`: instants, ascending, the last one is now. Intervals hold for
    all variants (Bonferroni) and all looks at once, at `LEVEL`. A pair without `LEAST_SENDS` or `LEAST_EARNED` is not
    `ready`: nothing is told of it.
    """
    pairs, reference, notes = pairs_of(d, ripe)
    level = 1 - (1 - LEVEL) / max(len(pairs), 1)
    sign = -1.0 if d.metric in LOWER_IS_BETTER else 1.0
    found = pd.concat([_at_looks(p, looks, level, sign, d) for p in pairs]) if pairs else pd.DataFrame()
    if not len(found):
        return Compared(found, found, [], reference, level, sign, notes)
    found["as_of"] = pd.to_datetime(found["as_of"], unit="us", utc=True)
    last = found[found["as_of"] == found["as_of"].max()]
    order = np.argsort(_rank(last, sign), kind="stable").tolist()
    table = last.iloc[order].reset_index(drop=True)
    race = pd.concat([found[found["variant_id"] == v] for v in table["variant_id"]], ignore_index=True)
    return Compared(table, race, [pairs[i] for i in order], reference, level, sign, notes)


def _rank(last: pd.DataFrame, sign: float) -> F8:
    """Smallest first: variants that are told to be better by their sure gain, then ready ones by their estimate."""
    sure = np.where(sign > 0, last["low_per_1000"], -last["high_per_1000"])
    gain = sign * last["difference_per_1000"].to_numpy(np.float64)
    better, ready = (last["told"] > 0).to_numpy(), last["ready"].to_numpy(bool)
    place = np.where(better, 0, np.where(ready, 1, 2))
    value = np.nan_to_num(np.where(better, sure, gain), nan=-np.inf)
    rank = np.empty(len(last))
    rank[np.lexsort((-value, place))] = np.arange(len(last))
    return rank


def _at_looks(p: Pair, looks: I8, level: float, sign: float, d: Decided) -> pd.DataFrame:
    t = p.trials
    at = np.searchsorted(p.ripe, looks, side="right")
    mean, se = confidence_path(t, 1, 0, at=at)
    radius = sequence_radius(se, np.maximum(at, 1), level, TUNED)
    earned = np.append(0, np.cumsum(t.outcome != 0))[at] / np.maximum(at, 1)
    n, base = (np.append(0, np.cumsum(t.arm == k))[at] for k in (1, 0))
    users = np.minimum(*(_users(t, k)[at] for k in (1, 0)))
    least = np.minimum(n, base)
    ready = (least >= LEAST_SENDS) & (least * earned >= LEAST_EARNED) & (users >= LEAST_USERS)
    low, high = mean - radius, mean + radius
    told = np.where(ready & (sign * mean > radius), 1, np.where(ready & (-sign * mean > radius), -1, 0))
    templates = len({d.templates[c] for c in np.unique(p.context).tolist()})
    return pd.DataFrame(
        {
            "as_of": looks, "variant_id": p.variant, "against": p.against, "templates": templates, "sends": n,
            "against_sends": base, "earned": earned, "users": users, "ready": ready, "difference_per_1000": 1000 * mean,
            "low_per_1000": 1000 * low, "high_per_1000": 1000 * high, "se_per_1000": 1000 * se, "rows": at,
            "told": told,
        }
    )  # fmt: skip


def _users(t: Trials, arm: int) -> F8:
    """The effective number of users of an arm after 0, 1, ... rows, (n + 1,)."""
    assert t.user is not None
    rows = np.flatnonzero(t.arm == arm)
    user = t.user[rows]
    order = np.argsort(user, kind="stable")
    start = np.flatnonzero(np.diff(user[order], prepend=user[order[0]] - 1))
    rank = np.empty(len(rows))  # a user's k-th row adds 2k + 1 to the sum of squares
    rank[order] = np.arange(len(rows)) - np.repeat(start, np.diff(np.append(start, len(rows))))
    n, squares = np.zeros((2, t.n))
    n[rows], squares[rows] = 1.0, 2 * rank + 1
    n, squares = np.append(0, np.cumsum(n)), np.append(0, np.cumsum(squares))
    return np.divide(n * n, squares, out=np.zeros(t.n + 1), where=squares > 0)


def gaps(got: Compared, d: Decided, ripe: I8) -> dict[str, tuple[float, float, float]]:
    """`Compared.gaps`: each variant against the first of the table, on the decisions in which either could be drawn."""
    names = [str(v) for v in got.table["variant_id"]]
    order, column = np.lexsort((d.send, ripe)), _columns(d, names)
    d, ripe = d.take(order), ripe[order]  # type: ignore[arg-type]
    out = {}
    for i, name in enumerate(names[1:], 1):
        made = _pair(d, ripe, column[:, i], column[:, 0])
        if made is None:
            continue
        pair = Pair(name, names[0], *made)
        row = _at_looks(pair, pair.ripe[-1:], got.level, got.sign, d).iloc[0]
        if row["ready"]:
            out[name] = (*(float(row[f"{k}_per_1000"]) for k in ("difference", "low", "high")),)
    return out  # type: ignore[return-value]


def by_template(d: Decided, ripe: I8, now: int) -> dict[str, Compared]:
    """Each template compared by itself, as of now; intervals hold for its own variants at once."""
    of = np.array(d.templates, dtype=object)
    here = {t: (of == t)[d.context] for t in sorted(set(d.templates))}
    return {t: compare(d.take(rows), ripe[rows], np.array([now], np.int64)) for t, rows in here.items() if rows.any()}

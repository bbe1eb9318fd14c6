"""What an interpretation changes: every named reading over one log, one option at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.attribution import Rule
from justai_sim.bandit.policy import LOWER_IS_BETTER
from justai_sim.errors import several
from justai_sim.estimate.surface import FEW
from justai_sim.mix import comparable
from justai_sim.tables import F8, I8, Log, badge
from justai_sim.whatif.readings import Reading, preset_readings, readings
from justai_sim.whatif.study import Numbers, Study, control_of, interval, metric_of, numbers, study

REFERENCE = "as in use"
TOGETHER = "several templates are shown together: a user with more sends has more chances; choose one with --template"
ROUNDING = 0.005
"""Per 1,000 sends: half of the last digit that is shown. A reading that moves nothing by more changes nothing."""

COLUMNS = (
    "reading", "kind", "status", "meaning", "conversions", "total", "sends", "leader", "leader_changes",
    "lead_per_1000", "lead_low", "lead_high", "variant", "against", "difference_per_1000", "difference_low",
    "difference_high", "sign_changes", "sign_clear", "effect_per_1000", "effect_low", "effect_high", "unit", "metric",
    "why",
)  # fmt: skip


@dataclass(frozen=True)
class Interpretations:
    """Result of `interpretations`.

    table: one row a reading, the one in use first, then by the size of their effect (readings in another unit
    after the others), presets after the single options.
    `status`: 'in use', 'changes', 'changes nothing', 'cannot apply' (then `why`). `conversions`: credited, as
    `repeat` counts them; `total`: what the metric adds up (conversions, money, opens), `sends` its denominator;
    these are plain counts. Rates are weighted to the same mix of templates and days in every variant (see
    `whatif.mix`). `leader`: best rate, '' where nothing counts. `difference_per_1000`: rate of
    `variant` minus rate of `against`, the same pair in every row, per 1,000 of `unit` (sends, or users where
    these are the denominator), with a 95 % interval clustered by user. `effect_per_1000`: how far the reading
    moves that difference, with its interval over the same users under both readings. `lead_per_1000`: the leader
    minus the second, or where the leader changes, minus the old one, under that reading, with an interval that holds
    for the whole table at 95 % (Bonferroni over the readings and the other variants, as the leader is the best of
    several under each of many readings); `sign_clear`: whether a changed sign is clear at that level. Intervals end
    where a difference of shares ends, and are missing where users are too few or too alike to tell.

    rates: `reading, variant_id, sends, conversions, total, rate, rank`, for the readings that apply; `rate` is
    weighted, the others are plain counts.
    """

    table: pd.DataFrame
    rates: pd.DataFrame
    rule: Rule
    metric: str
    as_of: int
    notes: list[str]
    simulated: bool = False

    def __repr__(self) -> str:
        return f"Interpretations({self.metric}: {several(len(self.table), 'reading')})"

    def _repr_html_(self) -> str:
        show = ["reading", "conversions", "leader", "difference_per_1000", "effect_per_1000", "status"]
        notes = "".join(f"<li>{escape(n)}</li>" for n in self.notes)
        table = badge(self.simulated) + self.table[show].to_html(index=False, float_format="%.2f")
        return table + (f"<ul>{notes}</ul>" if notes else "")


def interpretations(
    log: Log,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: int | None = None,
    until: int | None = None,
    as_of: int | None = None,
    metric: str = "conversion_rate",
    presets: bool = True,
    currency_given: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Interpretations:
    """Every named reading of `rule` (default: the default rule) over one log, one option at a time.

    Options as in `replay`. Variants of several templates are pooled by name if every template has the same
    ones; else, or if users are the rule's denominator, the template with most sends is shown. The pair that is
    compared is the leader against the control under the rule in use (without a control: the best two). One
    attribution a reading; only sums by user are kept.
    """
    metric = metric_of(metric)
    s = study(log, rule=rule, goals=goals, template=template, since=since, until=until, as_of=as_of,
              currency_given=currency_given)  # fmt: skip
    control = control_of(log, control)
    cells, names = _arms(s)
    weight, said = comparable(log, cells)
    s.notes.extend(said)
    todo = [*readings(log, s.rule, s.goals, metric), *(preset_readings(s.rule) if presets else [])]
    if len(np.unique(log.sends.template[cells >= 0])) > 1:
        todo = [_per_send(r) for r in todo]
    looks = max(sum(r.rule is not None for r in todo) * (len(names) - 1), 1)
    todo = [Reading(REFERENCE, "reading", "", s.rule), *todo]
    compare: _Comparison | None = None
    start: Numbers | None = None
    rows, rates = [], []
    for i, reading in enumerate(todo):
        row: dict[str, Any] = {"reading": reading.name, "kind": reading.kind, "meaning": reading.meaning}
        row |= {"metric": metric, "why": reading.why_not, "status": "cannot apply"}
        if reading.rule is not None:
            row["unit"] = "users" if reading.rule.denominator == "users" else "sends"
            # Several presets credit as the rule in use does.
            n = start if start is not None and reading.rule == s.rule else None
            n = n or numbers(s, s.attribute(reading.rule), metric, cells, len(names), weight)
            if compare is None:
                start, compare = n, _Comparison(n, names, control, metric, looks)
                row |= compare.row(n) | {"status": "in use"}
            else:
                row |= compare.row(n)
                row["status"] = "changes" if compare.matters(row, n) else "changes nothing"
            rates += compare.rates(reading.name, n)
        rows.append(row)
        if progress is not None:
            progress(i + 1, len(todo))
    assert compare is not None
    table = _sorted(pd.DataFrame(rows, columns=list(COLUMNS)))
    notes = [*s.notes, *compare.notes]
    assert start is not None
    if len(names) > 1 and start.converted.max() < FEW:
        notes.append(f"{several(int(start.converted.sum()), 'conversion')} in all, fewer than {FEW} of any variant: "
                     "too few to tell anything, whatever the reading")  # fmt: skip
    if len(names) > 1 and looks > 1:
        others = len(names) - 1
        notes.append(
            f"'clearly' holds for the whole table at 95 %: {looks // others} readings x {others} other "
            f"variant{'s' if others > 1 else ''} (Bonferroni); the intervals that are shown are 95 % each"
        )
    return Interpretations(table, pd.DataFrame(rates), s.rule, metric, s.as_of, notes, log.simulated)


def _per_send(r: Reading) -> Reading:
    """The reading, not applied where it divides by the users of several templates."""
    if r.rule is None or r.rule.denominator != "users":
        return r
    return Reading(r.name, r.kind, r.meaning, None, TOGETHER)


def _arms(s: Study) -> tuple[I8, list[str]]:
    """The variant of every shown send as a code into names; narrows to one template where their variants differ or
    users are counted. A template with one variant compares nothing and would change that variant's mix."""
    sends = s.log.sends
    of: dict[int, set[int]] = {}
    shown = np.flatnonzero(s.shown)
    for t, v in np.unique(np.stack([sends.template[shown], sends.variant[shown]]), axis=1).T.tolist():
        of.setdefault(t, set()).add(v)
    several = {t: vs for t, vs in of.items() if len(vs) > 1} or of
    keep = s.shown.copy()
    texts = s.log.names("template")
    users = s.rule.denominator == "users" and len(several) > 1
    if len({frozenset(vs) for vs in several.values()}) > 1 or users:
        largest = max(several, key=lambda t: int((sends.template[shown] == t).sum()))
        keep &= sends.template == largest
        others = ", ".join(texts[t] for t in sorted(of) if t != largest)
        why = "users of several templates cannot be compared" if users else "templates differ in their variants"
        s.notes.append(f"{why}; shown is {texts[largest]!r} (--template for: {others})")
    elif len(of) > 1:
        keep &= np.isin(sends.template, list(several))
        if len(several) > 1:
            s.notes.append(f"{len(several)} templates are shown together, variants by name; choose one with --template")
        if len(several) < len(of):
            left = ", ".join(texts[t] for t in sorted(set(of) - set(several)))
            s.notes.append(f"left out, as they have one variant: {left}")
    used = np.unique(sends.variant[keep])
    cells = np.full(len(sends), -1, np.int64)
    cells[keep] = np.searchsorted(used, sends.variant[keep])
    return cells, s.log.text("variant", used)


class _Comparison:
    """The leader and the pair under the reading in use, and what another reading makes of them."""

    def __init__(self, n: Numbers, names: list[str], control: str | None, metric: str, looks: int) -> None:
        self.names, self.notes = names, []
        self.alpha = 0.05 / looks
        self.shares = metric != "revenue_per_send"
        self.sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        self.leader = self._best(n.rate, None)
        self.start = n.rate
        b = names.index(control) if control in names else None
        self.pair: tuple[int, int] | None = None
        if len(names) < 2:
            self.notes.append("one variant only: nothing is compared, readings are sorted by conversions")
        elif b is None:
            order = np.argsort(-self.sign * np.nan_to_num(n.rate, nan=-np.inf * self.sign), kind="stable")
            self.pair = int(order[0]), int(order[1])
            self.notes.append(
                "no variant named 'control': the best two are compared, so their difference is flattered "
                "(name the control with --control)"
            )
        else:
            self.pair = self._best(n.rate, b), b
        self.base: F8 | None = None
        if self.pair is not None:
            self.base, self.diff = self._difference(n, *self.pair)

    def _best(self, rate: F8, without: int | None) -> int:
        score = np.where(np.isnan(rate), -np.inf, self.sign * rate)
        if without is not None:
            score[without] = -np.inf
        best = int(score.argmax())
        leader = getattr(self, "leader", best)
        return leader if score[leader] == score[best] else best  # a tie changes no leader

    @staticmethod
    def _difference(n: Numbers, a: int, b: int) -> tuple[F8, float]:
        if np.isnan(n.rate[[a, b]]).any():  # no sends, or none that can be compared
            return np.zeros(n.users), float("nan")
        return n.influence(a) - n.influence(b), float(n.rate[a] - n.rate[b])

    def row(self, n: Numbers) -> dict[str, Any]:
        leader = self._best(n.rate, None)
        out: dict[str, Any] = {
            "conversions": float(n.converted.sum()), "total": float(n.total.sum()), "sends": int(n.count.sum()),
            "leader": self.names[leader] if n.total.any() else "",
            "leader_changes": leader != self.leader, "sign_changes": False, "sign_clear": False,
        }  # fmt: skip
        if self.pair is None or self.base is None:
            return out
        a, b = self.pair
        influence, diff = self._difference(n, a, b)
        low, high = self._interval(diff, influence, n)
        effect = diff - self.diff
        around = self._interval(effect, influence - self.base, n, most=2.0)
        out |= {
            "variant": self.names[a], "against": self.names[b],
            "difference_per_1000": 1000 * diff, "difference_low": 1000 * low, "difference_high": 1000 * high,
            "effect_per_1000": 1000 * effect, "effect_low": 1000 * around[0], "effect_high": 1000 * around[1],
            "sign_changes": bool(diff * self.diff < 0),
        }  # fmt: skip
        if out["sign_changes"]:
            sure = interval(diff, influence, n.users, self.alpha)
            out["sign_clear"] = sure[0] > 0 or sure[1] < 0
        moved, lead = self._difference(n, leader, self.leader if leader != self.leader else self._second(n, leader))
        between = self._interval(lead, moved, n, self.alpha)
        return out | {"lead_per_1000": 1000 * lead, "lead_low": 1000 * between[0], "lead_high": 1000 * between[1]}

    def _second(self, n: Numbers, leader: int) -> int:
        score = np.where(np.isnan(n.rate), -np.inf, self.sign * n.rate)
        score[leader] = -np.inf
        return int(score.argmax())

    def _interval(
        self, estimate: float, influence: F8, n: Numbers, alpha: float = 0.05, most: float = 1.0
    ) -> tuple[float, float]:
        """The interval, not beyond what a difference of shares can be."""
        low, high = interval(estimate, influence, n.users, alpha)
        most = most if self.shares and n.value.max(initial=0.0) <= 1 else float("inf")
        return max(low, -most), min(high, most)

    def matters(self, row: dict[str, Any], n: Numbers) -> bool:
        """Whether any rate, the leader or the difference moves by more than rounding hides."""
        same = np.isnan(n.rate) == np.isnan(self.start)
        moved = np.nanmax(np.abs(n.rate - self.start), initial=0.0) * 1000
        return bool(row["leader_changes"] or not same.all() or moved >= ROUNDING)

    def rates(self, reading: str, n: Numbers) -> list[dict[str, Any]]:
        score = np.where(np.isnan(n.rate), -np.inf, self.sign * n.rate)
        rank = 1 + (score[None, :] > score[:, None]).sum(1)
        return [
            {"reading": reading, "variant_id": v, "sends": int(n.count[i]),
             "conversions": float(n.converted[i]),
             "total": float(n.total[i]), "rate": float(n.rate[i]), "rank": int(rank[i])}
            for i, v in enumerate(self.names)
        ]  # fmt: skip


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """In use first; then single options and presets, each by the size of their effect in the same unit."""
    place = table["status"].map({"in use": 0, "changes": 1, "changes nothing": 2, "cannot apply": 3})
    start = float(table["total"].iloc[0])
    size = table["effect_per_1000"].abs().fillna((table["total"] - start).abs())
    kind = (table["kind"] == "preset") & (place > 0)
    other = table["unit"] != table["unit"].iloc[0]
    keys = (-size.fillna(0), other, place, kind)
    order = np.lexsort(tuple(k.to_numpy() for k in keys))
    return table.iloc[order].reset_index(drop=True)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values, None where there is none."""
    return table.astype(object).where(table.notna(), None).to_dict("records")

"""Whether the numbers of a verdict can be trusted: seven checks that pass, fail, or cannot tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from justai_sim.checks import ratio, rows
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import Finding, NotChecked, Number, Said, at_least, percent
from justai_sim.clock import DAY, MISSING
from justai_sim.errors import JustaiError, listed
from justai_sim.estimate.batches import stratified
from justai_sim.estimate.trials import Trials
from justai_sim.replays import Replay
from justai_sim.stats import z_value
from justai_sim.surfaces import CANNOT_TELL, TOO_CLOSE, WindowSurface
from justai_sim.tables import CONVERSION
from justai_sim.verdicts.compare import Pair
from justai_sim.whatif.study import column
from justai_sim.whatif.words import ranged, signed

Status = Literal["pass", "fail", "cannot tell"]
NAMES = ("split", "maturity", "window", "days", "templates", "machines", "heavy orders")
OF_CONVERSIONS = ("conversion_rate", "revenue_per_send")
LATE = 0.05
"""Part of the conversions of mature sends heard of only after they had matured, from which on mature is not settled."""
FEW_ORDERS = 100
LARGEST = 10
"""The largest orders, and how many there must be in all before these are few of them."""
HEAVY = 0.5
"""Part of the variance of the revenue difference that the largest orders may carry."""


@dataclass(frozen=True)
class Check:
    """One check. said: a sentence with its number; numbers: the same for programs."""

    name: str
    status: Status
    said: str
    numbers: Mapping[str, Number] = field(default_factory=dict)


def split(facts: Facts, result: Replay) -> Check:
    """Sample-ratio mismatch: have the variants the shares with which they were drawn?"""
    return _of_doctor(
        "split",
        ratio.sample_ratio(facts, result.selection.keeps(result.log)),
        "Variants have the shares they were drawn with.",
    )


def _of_doctor(name: str, said: Iterator[Said], clean: str) -> Check:
    found = list(said)
    bad = [s for s in found if isinstance(s, Finding)]
    if bad:
        more = f" ({len(bad) - 1} more: justai-sim doctor)" if len(bad) > 1 else ""
        return Check(name, "fail", bad[0].sentence + more, bad[0].numbers)
    unknown = [s for s in found if isinstance(s, NotChecked)]
    if unknown:
        return Check(name, "cannot tell", _sentence(unknown[0].why))
    return Check(name, "pass", clean)


def maturity(result: Replay) -> Check:
    """Are the sends that count settled, or will their numbers still move?"""
    metric = result.program.key_metric
    row = result.rows()[-1]
    if metric not in OF_CONVERSIONS:
        got = result.attribution
        use = result.shown[got.outcomes.send_row] & ~got.outcomes.ghost
        n, ripe = int(use.sum()), int((use & got.mature_engagement()).sum())
        return _ripe(n, ripe, "")
    n, ripe, late, whole = (row[k] for k in ("sends", "mature_sends", "mature_moved", "mature_conversions"))
    rule = result.program.rule
    if ripe and whole and _lateness_unknown(result):
        said = "The log does not say when conversions were heard of (no received_at), so late ones cannot be seen."
        return Check("maturity", "cannot tell", said, {"sends": n, "mature_sends": ripe})
    if at_least(late, max(round(whole), late)) > LATE:
        said = (
            f"{late:,} conversions of mature sends were heard of only after they had matured "
            f"({percent(late, max(whole, 1))} of these); they can come until {rule.lateness_days:g} days after they "
            "happened, so mature numbers still move."
        )
        return Check("maturity", "fail", said, {"late": late, "conversions": whole})
    return _ripe(n, ripe, f" Of their conversions {percent(late, max(whole, 1))} were heard of late.")


def _lateness_unknown(result: Replay) -> bool:
    """Whether no conversion says when it was heard of; a receipt at the very moment of all of them says nothing."""
    e = result.log.events
    e = e.take(e.kind == CONVERSION)
    return not ((e.received_at != MISSING) & (e.received_at != e.occurred_at)).any()


def _ripe(n: int, ripe: int, rest: str) -> Check:
    numbers: dict[str, Number] = {"sends": n, "mature_sends": ripe}
    if not ripe:
        return Check("maturity", "cannot tell", "No send is mature yet: no window has closed.", numbers)
    said = f"{ripe:,} of {n:,} sends are mature and count, the {n - ripe:,} younger ones do not.{rest}"
    return Check("maturity", "pass", said, numbers)


def window(result: Replay, leader: str) -> Check:
    """Would another window have named another leader, beyond chance?"""
    metric = result.program.key_metric
    if metric not in OF_CONVERSIONS:
        return Check("window", "pass", "Opens, clicks and unsubscribes do not depend on the window of conversions.")
    got = result.surface if metric == "conversion_rate" else result.surface_on(metric="revenue")
    return told_by_windows(got, leader)


def told_by_windows(got: WindowSurface, leader: str) -> Check:
    """`leader` is who leads under the window in use."""
    count = got.counts()
    close, blind = count.pop(TOO_CLOSE), count.pop(CANNOT_TELL)
    able = close + sum(count.values())
    numbers: dict[str, Number] = {"windows": able, "same": count.get(leader, 0), "cannot_tell": blind}
    others = {v: n for v, n in count.items() if v != leader}
    if not count and able:
        said = f"No window of {able} tells the best variant from the second (the verdict compares with the control)."
        return Check("window", "cannot tell", said, numbers)
    if others:
        said = ", ".join(f"{v} in {n}" for v, n in others.items())
        numbers["other"] = sum(others.values())
        return Check("window", "fail", f"Other windows name another leader: {said} of {able} that can tell.", numbers)
    return Check("window", "pass" if able else "cannot tell", got.answer(), numbers)


def days(pair: Pair) -> Check:
    """Do the pooled rates say what the days say one by one? Shares that change make differences of their own."""
    t, strata = pair.trials, _strata(pair)
    try:
        got = stratified(Trials(t.arm, t.outcome, user=t.user, batch=strata), 1, 0)
    except JustaiError as e:
        return Check("days", "cannot tell", _sentence(str(e)))
    pooled, inside = 1000 * pair.difference(), 1000 * float(got.estimate)
    half = 1000 * z_value(0.95) * float(got.se)
    if not np.isfinite(inside) or not half > 0:
        return Check("days", "cannot tell", "No day of a template has two sends of both variants with outcomes.")
    numbers: dict[str, Number] = {"pooled": pooled, "stratified": inside, "half_width": half}
    both = (
        f"{pair.variant} minus {pair.against}: pooled {signed(pooled)} per 1,000 sends, day by day {signed(inside)} "
        f"({signed(inside - half)} to {signed(inside + half)})"
    )
    if abs(pooled - inside) > half:
        return Check("days", "fail", f"{both}: shares changed over days, so do not compare the plain rates.", numbers)
    return Check("days", "pass", f"{both}: they agree.", numbers)


def _strata(pair: Pair) -> np.ndarray:
    """The template (and segment) and UTC day of maturity of each decision."""
    day = pair.ripe // DAY
    return np.unique(pair.context * (int(np.ptp(day)) + 1) + day - day.min(), return_inverse=True)[1].ravel()


def templates(tables: pd.DataFrame, pooled: pd.DataFrame) -> Check:
    """Do single templates say the opposite of all together? `tables`: each compared by itself, with `template_id`;
    `pooled`: all. Both as `Compared.table`."""
    if not len(tables):
        return Check("templates", "pass", "There is one template.")
    ready = tables[tables["ready"]]
    n = int(ready["template_id"].nunique())
    whole = dict(zip(pooled["variant_id"], pooled["told"], strict=True))
    against = [r for r in ready.to_dict("records") if _opposite(r["told"], whole.get(r["variant_id"], 0))]
    numbers: dict[str, Number] = {"templates": n, "against": len(against)}
    if against:
        each = [
            f"{r['variant_id']} is {'worse' if r['told'] < 0 else 'better'} than {r['against']} in {r['template_id']} "
            f"({ranged(r['difference_per_1000'], r['low_per_1000'], r['high_per_1000'], 1)} per 1,000 sends)"
            for r in against
        ]
        return Check("templates", "fail", f"Templates differ from all together: {listed(each)}.", numbers)
    if not n:
        return Check("templates", "cannot tell", "In no single template is enough mature to tell.", numbers)
    return Check("templates", "pass", f"None of {n} templates that can tell says the opposite.", numbers)


def _opposite(told: int, pooled: int) -> bool:
    """Whether a variant is told to be worse in a template and not in all together, or better and there worse."""
    return pooled >= 0 if told < 0 else told > 0 > pooled


def machines(facts: Facts, result: Replay) -> Check:
    """Do machines open or click what people are counted for?"""
    kind = {"open_rate": "open", "click_rate": "click"}.get(result.program.key_metric)
    if kind is None:
        return Check("machines", "pass", "The key metric counts no opens and no clicks, so machines do not move it.")
    said = [s for s in rows.machines(facts) if isinstance(s, NotChecked) or s.name.endswith(f"{kind}s")]
    harm = [s for s in said if not (isinstance(s, Finding) and s.severity == "note")]
    out = next((s for s in said if isinstance(s, Finding) and s.severity == "note"), None)
    clean = f"Hardly any {kind} is by a machine." if out is None else out.sentence
    return _of_doctor("machines", iter(harm), clean)


def heavy_orders(pair: Pair, result: Replay) -> Check:
    """Do a few large orders carry the revenue difference?"""
    revenue = np.zeros(len(result.log.sends))
    o = result.attribution.outcomes
    revenue[o.send_row] = column(result.attribution, "revenue")
    t = pair.trials
    value = np.where(t.arm < 2, revenue[pair.send], 0.0)
    if not value.any():
        return Check("heavy orders", "cannot tell", "No amounts are credited to this pair.")
    n = int((value != 0).sum())
    if n < FEW_ORDERS:
        return Check("heavy orders", "cannot tell", f"{n} sends with revenue; it takes {FEW_ORDERS} to tell.",
                     {"orders": n})  # fmt: skip
    assert t.propensity is not None
    each = np.where(t.arm == 1, value, -value) / t.propensity
    square = each * each
    top = np.argpartition(square, -LARGEST)[-LARGEST:]
    half = int(np.searchsorted(np.cumsum(np.sort(square[top])[::-1]), HEAVY * square.sum())) + 1
    carried = float(square[top].sum() / square.sum())
    whole, rest = (1000 * float(x) / t.propensity.size for x in (each.sum(), each.sum() - each[top].sum()))
    said = (
        f"The {LARGEST} heaviest of {n:,} sends with revenue carry {percent(carried)} of the variance of the revenue "
        f"difference ({signed(whole)} per 1,000 sends, {signed(rest)} without them)."
    )
    numbers: dict[str, Number] = {"orders": n, "carried": carried, "half": half, "difference": whole, "without": rest}
    return Check("heavy orders", "fail" if carried > HEAVY else "pass", said, numbers)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def checks(
    facts: Facts, result: Replay, pair: Pair | None, leader: str, tables: pd.DataFrame, pooled: pd.DataFrame
) -> list[Check]:  # fmt: skip
    """All of them, in the order of `NAMES`; without a pair those that need one cannot tell."""
    alone = "There is no pair of variants to compare."
    first = [split(facts, result), maturity(result)]
    if pair is None:
        rest = [Check(n, "cannot tell", alone) for n in ("window", "days", "templates")]
        return [*first, *rest, machines(facts, result), Check("heavy orders", "cannot tell", alone)]
    middle = [window(result, leader), days(pair), templates(tables, pooled)]
    return [*first, *middle, machines(facts, result), heavy_orders(pair, result)]


def failed(found: list[Check]) -> str:
    """'split and window' for a list of checks."""
    return listed([c.name for c in found if c.status == "fail"], 6)

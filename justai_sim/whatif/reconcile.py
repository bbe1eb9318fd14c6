"""Somebody's dashboard beside ours: the difference by reason, and the preset that counts as it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from justai_sim.attribution import Attribution, Rule
from justai_sim.attribution.presets import OF_LOG, PRESETS, differences, on_log
from justai_sim.errors import DataError, nearest
from justai_sim.estimate.maturity import WHOLE
from justai_sim.tables import CONVERSION, F8, I8, PARTS, Log, badge
from justai_sim.whatif.dashboard import MEASURES, Dashboard, read_dashboard
from justai_sim.whatif.receipt import WHY, Counted, bridge, counted, why, within
from justai_sim.whatif.study import OF_RATE, Study, numbers, study

IN_USE = "in use"
CLOSE = 0.05
"""A preset farther than this from the dashboard, as a share of its total, is said not to come close."""
EXACT = 1e-9
LOOKBACKS = (1, 2, 3, 5, 7, 10, 14, 21, 30)
"""Days tried where a system leaves the window to its user and no preset fits as it is."""
ORDER = ("conversions", "conversion_rate", "revenue", "revenue_per_send", *MEASURES)
ALL = "ALL"
ENGAGEMENT = ("opens", "clicks", "unsubscribes", "open_rate", "click_rate", "unsubscribe_rate")


@dataclass(frozen=True)
class Reconciliation:
    """Result of `reconcile`.

    comparison: `template_id, variant_id, measure, theirs, ours, difference, closest` (the number of the closest
    preset). receipt: `template_id, variant_id, step, reason, events, conversions`: steps 'ours', 'they count',
    'we count', 'unexplained', 'theirs'; for every variant, and for ALL, ours + they count + we count (negative)
    + unexplained = theirs. `reason` is what became of the event under the reading that does not count it.
    ALL takes the variants together: a conversion that moves between them is no difference there.
    presets: `preset, distance, closest, conversions, same_as, options`, nearest first; `distance` is
    sum |theirs - preset's| / sum theirs over the variants in `measure`, beyond what their rounding of rates
    hides. reasons: `reason, events, counted_by_closest`: what the rule in use did with every goal event ('credited':
    counted for a send that is compared), and how many of them the closest reading counts for such a send.

    closest: the names of the nearest reading, several if they cannot be told apart on this log. close:
    whether it comes close at all, in `measure`; if not, the receipt leads to a reading that is not theirs. empty: all
    their numbers of `measure` are 0, and distances are plain sums of differences. contradicts: other measures of the
    dashboard that are more than CLOSE from the closest reading's, with that distance.
    """

    comparison: pd.DataFrame
    receipt: pd.DataFrame
    presets: pd.DataFrame
    reasons: pd.DataFrame
    closest: list[str]
    closest_rule: Rule
    distance: float
    measure: str
    contradicts: dict[str, float]
    rule: Rule
    as_of: int
    notes: list[str]
    simulated: bool = False

    @property
    def close(self) -> bool:
        return self.distance <= CLOSE

    @property
    def empty(self) -> bool:
        theirs = self.comparison.loc[self.comparison["measure"] == self.measure, "theirs"]
        return not theirs.fillna(0).any()

    @property
    def options(self) -> dict[str, Any]:
        """The options in which the closest reading differs from the default rule."""
        return differences(self.closest_rule, _like(self.closest_rule))

    def __repr__(self) -> str:
        return f"Reconciliation(closest {self.closest[0]}, {self.distance:.1%} of {self.measure} apart)"

    def _repr_html_(self) -> str:
        numbers = self.comparison.to_html(index=False, float_format="%.5g") + self.receipt.to_html(index=False)
        return badge(self.simulated) + numbers


@dataclass
class _Candidate:
    names: list[str]
    rule: Rule
    values: dict[str, F8]
    distance: float = float("nan")
    rest: float = 0.0


def reconcile(
    log: Log,
    against: str | Path | Any,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    template: str | None = None,
    since: int | None = None,
    until: int | None = None,
    as_of: int | None = None,
    mature: bool = False,
    currency_given: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Reconciliation:
    """Compare a dashboard (see `read_dashboard`) with the log under `rule`, and say which preset it follows.

    `template, since, until, as_of` should be what the dashboard shows; `mature`: ours are the sends whose
    window has closed. DataError for variants that the log does not have, with the nearest name.
    """
    dash = read_dashboard(against, fractional=rule is not None and rule.credit not in WHOLE)
    s = study(log, rule=rule, goals=goals, template=template, since=since, until=until, as_of=as_of,
              currency_given=currency_given, mature=mature)  # fmt: skip
    notes = [*s.notes, *dash.notes]
    cells = _cells(s, dash, notes)
    size, measures = len(dash.variants), [m for m in dict.fromkeys(ORDER) if m in dash.values]
    ours_got = s.attribute(s.rule)
    ours = measured(s, ours_got, cells, size, measures)
    told = _Progress(progress, len(PRESETS))
    found = _candidates(s, cells, size, measures, ours, told)
    _rank(found, dash, measures)
    if found[0].distance > EXACT:
        found += _other_windows(s, cells, size, measures, found, told)
        _rank(found, dash, measures)
    best = found[0]
    if " with " in best.names[0] and best.distance > EXACT:
        notes.append(
            f"no preset fits as it is, so {sum(' with ' in c.names[0] for c in found)} with other windows were tried: "
            "among so many "
            "a near fit is a hint, an exact one an answer"
        )
    alike = [c for c in found if c.distance <= best.distance + EXACT and c.rest <= best.rest + EXACT]
    theirs, derived = _their_conversions(dash)
    notes += derived
    best_got = ours_got if best.rule == s.rule else s.attribute(best.rule)
    mine = counted(s, ours_got, numbers(s, ours_got, "conversion_rate", cells, size), cells)
    other = counted(s, best_got, numbers(s, best_got, "conversion_rate", cells, size), cells)
    return Reconciliation(
        comparison=_comparison(dash, measures, ours, best.values),
        receipt=_receipt(dash, mine, other, theirs),
        presets=_preset_table(found, alike),
        reasons=_reasons(s, mine, other),
        closest=[n for c in alike for n in c.names],
        closest_rule=best.rule,
        distance=best.distance,
        measure=measures[0],
        contradicts={m: d for m in measures[1:] if CLOSE < (d := _distance(dash, m, best)) < np.inf},
        rule=s.rule,
        as_of=s.as_of,
        notes=notes,
        simulated=log.simulated,
    )


def measured(s: Study, got: Attribution, cells: I8, size: int, measures: Sequence[str]) -> dict[str, F8]:
    """Measures of each cell as the results table has them; NaN where a rate has no denominator."""
    out = {}
    of_count = {count: rate for rate, count in OF_RATE.items()}
    for m in measures:
        n = numbers(s, got, of_count.get(m, "conversion_rate" if m == "sends" else m), cells, size)
        inside = n.cell >= 0
        if m == "sends":
            out[m] = np.bincount(n.cell[inside], minlength=size).astype(np.float64)
        else:
            total = np.bincount(n.cell[inside], n.value[inside], size).astype(np.float64)
            out[m] = total if m in of_count else n.rate
    return out


# -- the dashboard's rows in the log ----------------------------------------------------------------


def _cells(s: Study, dash: Dashboard, notes: list[str]) -> I8:
    """The dashboard's row of every shown send, -1 where it has none."""
    sends = s.log.sends
    variants, templates = s.log.names("variant"), s.log.names("template")
    cells = np.full(len(sends), -1, np.int64)
    for i, (text, line) in enumerate(zip(dash.variants, dash.lines, strict=True)):
        here = s.shown & (sends.variant == _find(text, variants, line, "variant"))
        if dash.templates is not None:
            here &= sends.template == _find(dash.templates[i], templates, line, "template")
        if (cells[here] >= 0).any():
            raise DataError(f"{line}: variant {text!r} is there twice, in other letters")
        cells[here] = i
        if not here.any():
            notes.append(f"{line}: {text!r} has no shown send; see --template, --since, --until")
    left = s.shown & (cells < 0)
    if left.any():
        named = sorted({f"{templates[t]}/{variants[v]}" for t, v in np.unique(
            np.stack([sends.template[left], sends.variant[left]]), axis=1).T.tolist()})  # fmt: skip
        shown = ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "")
        notes.append(f"not on the dashboard, so not compared: {shown} ({int(left.sum()):,} sends)")
    if dash.templates is None and len(np.unique(sends.template[s.shown])) > 1:
        notes.append("the dashboard has no template column: its variants are compared over all templates together")
    return cells


def _find(text: str, names: list[str], line: str, what: str) -> int:
    """The code of a name, else of the only one that differs in letter case. DataError with the nearest."""
    if text in names:
        return names.index(text)
    alike = [i for i, n in enumerate(names) if n.strip().lower() == text.lower()]
    if len(alike) == 1:
        return alike[0]
    raise DataError(f"{line}: {what} {text!r} is not in the log; {nearest(text, names)}")


# -- who counts like that ---------------------------------------------------------------------------


class _Progress:
    def __init__(self, tell: Callable[[int, int], None] | None, total: int) -> None:
        self.tell, self.done, self.total = tell, 0, total

    def more(self, total: int) -> None:
        self.total += total

    def step(self) -> None:
        self.done += 1
        if self.tell is not None:
            self.tell(self.done, max(self.total, self.done))


def _candidates(
    s: Study, cells: I8, size: int, measures: Sequence[str], ours: dict[str, F8], told: _Progress
) -> list[_Candidate]:
    """The presets, those with the same rule together, and the rule in use where it is none of them."""
    found: list[_Candidate] = []
    for name in PRESETS:
        rule = on_log(name, s.rule)
        same = next((c for c in found if c.rule == rule), None)
        if same is not None:
            same.names.append(name)
        else:
            values = ours if rule == s.rule else measured(s, s.attribute(rule), cells, size, measures)
            found.append(_Candidate([name], rule, values))
        told.step()
    if all(c.rule != s.rule for c in found):
        found.append(_Candidate([IN_USE], s.rule, ours))
    return found


def _other_windows(
    s: Study, cells: I8, size: int, measures: Sequence[str], found: list[_Candidate], told: _Progress
) -> list[_Candidate]:
    """The presets of systems whose window is their user's own, with other windows."""
    out = []
    open_to = [(name, d) for name, p in PRESETS.items() if "lookback_days" in p.yours for d in LOOKBACKS]
    told.more(len(open_to))
    for name, days in open_to:
        rule = on_log(name, s.rule)
        told.step()
        if days == rule.lookback_days or days <= rule.offset_days:
            continue
        rule = msgspec.structs.replace(rule, lookback_days=days)
        values = measured(s, s.attribute(rule), cells, size, measures)
        out.append(_Candidate([f"{name} with lookback_days={days}"], rule, values))
    return [c for c in out if all(c.rule != f.rule for f in found)]


def _rank(found: list[_Candidate], dash: Dashboard, measures: Sequence[str]) -> None:
    """Nearest first: by the first measure, then by the mean of the others that readings differ in; presets as
    they are before those with another window."""
    others = [m for m in measures[1:] if m not in ENGAGEMENT]
    for c in found:
        c.distance = _distance(dash, measures[0], c)
        c.rest = float(np.mean([_distance(dash, m, c) for m in others])) if others else 0.0
    found.sort(key=lambda c: (round(c.distance, 9), round(c.rest, 9), " with " in c.names[0]))


def _distance(dash: Dashboard, measure: str, c: _Candidate) -> float:
    """sum |theirs - ours| / sum theirs, over the rows that they give; rates within their rounding agree."""
    theirs, ours = dash.values[measure], np.nan_to_num(c.values[measure])
    given = ~np.isnan(theirs)
    if not given.any():
        return float("inf")
    apart = np.abs(theirs - ours)[given]
    if measure in OF_RATE:
        apart = np.maximum(apart - _rounding(theirs[given]), 0.0)
    return float(apart.sum()) / (float(np.abs(theirs[given]).sum()) or 1.0)


def _rounding(x: F8) -> float:
    """Half of the last decimal that the numbers are written with.

    >>> _rounding(np.array([0.021, 0.03]))
    0.0005
    """
    places = next((p for p in range(12) if np.allclose(x, np.round(x, p), rtol=0, atol=1e-13)), 13)
    return 0.5 * 10.0**-places


def _same(a: dict[str, F8], b: dict[str, F8]) -> bool:
    return all(np.allclose(a[m], b[m], rtol=1e-12, atol=1e-12, equal_nan=True) for m in a)


# -- the frames -------------------------------------------------------------------------------------


def _their_conversions(dash: Dashboard) -> tuple[F8 | None, list[str]]:
    """Their conversions, given or from rate and sends; None if neither is there."""
    if "conversions" in dash.values:
        return dash.values["conversions"], []
    if "conversion_rate" not in dash.values:
        return None, ["the dashboard has neither conversions nor their rate: there is no receipt"]
    if "sends" not in dash.values:
        return None, ["the dashboard has no conversions, and no sends to make them of the rate: there is no receipt"]
    return dash.values["conversion_rate"] * dash.values["sends"], [
        "their conversions are rate x sends, as exact as their rate is written"
    ]


def _names(dash: Dashboard) -> list[tuple[str, str]]:
    return list(zip(dash.templates or [""] * len(dash.variants), dash.variants, strict=True))


def _comparison(dash: Dashboard, measures: Sequence[str], ours: dict[str, F8], closest: dict[str, F8]) -> pd.DataFrame:
    rows = [
        {"template_id": t, "variant_id": v, "measure": m, "theirs": float(dash.values[m][i]),
         "ours": float(ours[m][i]), "difference": apart(dash.values[m][i], ours[m][i]),
         "closest": float(closest[m][i])}
        for m in measures for i, (t, v) in enumerate(_names(dash))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _receipt(dash: Dashboard, mine: Counted, other: Counted, theirs: F8 | None) -> pd.DataFrame:
    """The bridge for each variant and for all that have their number."""
    columns = ["template_id", "variant_id", "step", "reason", "events", "conversions"]
    if theirs is None:
        return pd.DataFrame(columns=columns)
    names = _names(dash)
    use = [i for i in range(len(names)) if not np.isnan(theirs[i])]
    rows: list[dict[str, Any]] = []
    for members, (t, v) in [(use, (ALL, "")), *(([i], names[i]) for i in use)]:
        key = {"template_id": t, "variant_id": v}
        ours, its = within(mine, members), within(other, members)
        rows.append(key | {"step": "ours", "reason": "", "conversions": int(ours.parts.sum()) / PARTS})
        for x in bridge(ours, its):
            step = "they count" if x.adds else "we count"
            rows.append(key | {"step": step, "reason": x.reason, "events": x.events, "conversions": x.parts / PARTS})
        left = apart(theirs[members].sum(), int(its.parts.sum()) / PARTS)
        rows.append(key | {"step": "unexplained", "reason": "", "conversions": left})
        rows.append(key | {"step": "theirs", "reason": "", "conversions": float(theirs[members].sum())})
    return pd.DataFrame(rows, columns=columns)


def apart(a: Any, b: Any) -> float:
    """a - b, 0 where only the rounding of sums is left.

    >>> apart(0.1 + 0.2, 0.3), apart(3, 1)
    (0.0, 2.0)
    """
    d = float(a) - float(b)
    return 0.0 if abs(d) <= EXACT * max(1.0, abs(float(a))) else d


def _preset_table(found: Sequence[_Candidate], alike: Sequence[_Candidate]) -> pd.DataFrame:
    rows = []
    for c in found:
        total = c.values["conversions"].sum() if "conversions" in c.values else float("nan")
        options = ", ".join(f"{k}={v}" for k, v in differences(c.rule, _like(c.rule)).items())
        equal = [n for a in found if _same(a.values, c.values) for n in a.names]
        for name in c.names:
            same = ", ".join(n for n in equal if n != name)
            rows.append(
                {"preset": name, "distance": c.distance, "closest": c in alike, "conversions": float(total),
                 "same_as": same, "options": options}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _like(rule: Rule) -> Rule:
    """The default rule with what a rule takes from its log."""
    return msgspec.structs.replace(Rule(), **{k: getattr(rule, k) for k in OF_LOG})


def _reasons(s: Study, ours: Counted, best: Counted) -> pd.DataFrame:
    """What became of every goal conversion under the rule in use, and how many of them the closest counts; both for
    the sends that are compared."""
    e = s.log.events
    wanted = np.array([not s.goals or n in s.goals for n in [*s.log.names("name"), ""]])
    goal = (e.kind == CONVERSION) & wanted[e.name]
    became = why(ours)
    theirs = np.zeros(len(e), bool)
    theirs[best.event[best.parts > 0]] = True
    rows = [
        {"reason": name, "events": int(here.sum()), "counted_by_closest": int((here & theirs).sum())}
        for i, name in enumerate(WHY) if (here := goal & (became == i)).any()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["reason", "events", "counted_by_closest"])

"""True lift against shown lift; and what was credited, what happened, what the sends caused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from justai_sim.pages.inputs import SweepData
from justai_sim.pages.naming import alike, axis_columns, each_window, label_of, reference, with_assumed
from justai_sim.pages.table import Column, Part, write
from justai_sim.scenario import Point, Scenario, Touch
from justai_sim.streams import generator
from justai_sim.tables import F8

DRAWS = 2000
LEVEL = 0.95


def best_overall(scenario: Scenario) -> str | None:
    """The variant with the highest true conversion rate, if it is one and the same at every step."""
    found = set()
    for step in scenario.touches:
        variants = scenario.variants_of(step)
        found |= {v.id for v in variants if v.conversion_rate == max(w.conversion_rate for w in variants)}
    return found.pop() if len(found) == 1 else None


def control_of(scenario: Scenario) -> str:
    """The control of the first template."""
    return scenario.variants_of(scenario.touches[0])[0].id


def _treatment(scenario: Scenario, step: Touch) -> str | None:
    """The best variant other than the control."""
    others = scenario.variants_of(step)[1:]
    return max(others, key=lambda v: v.conversion_rate).id if others else None


def _values(data: SweepData, point: Point, metric: str) -> pd.DataFrame:
    """Worlds x (template, variant)."""
    m = data.metrics
    here = m[(m["point"] == point.name) & (m["metric"] == metric)]
    return here.pivot_table(index="rep", columns=["template_id", "variant_id"], values="value").fillna(0.0)


def lifts(data: SweepData) -> Part:
    """Best variant over control: the truth, and the ratio of the rates that the window shows."""
    s = data.scenario
    compared = [(t, v) for t in s.touches if (v := _treatment(s, t)) is not None]
    columns: list[Column] = [*axis_columns(data.scenario), Column("true_lift", "true lift", "lift"),
                             Column("shown_lift", "shown lift", "lift", interval=True)]  # fmt: skip
    title = "True lift against shown lift"
    if not compared:
        return Part(title, "There is no variant to compare with the control.", [], columns)
    rows: list[dict[str, Any]] = []
    for p in data.points:
        true, shown, low, high = _lift(data, p, compared)
        rows.append(
            label_of(p) | {"true_lift": true, "shown_lift": shown, "shown_lift_low": low, "shown_lift_high": high}
        )
    names = {v for _, v in compared}
    who = f"{names.pop()}, the best variant," if len(names) == 1 else "the best variant of each step"
    said = each_window(
        data.scenario,
        data.points,
        reference(data.points, data.reference),
        lambda i: write(rows[i]["shown_lift"], "lift"),
    )
    text = f"The true lift of {who} over the control is {write(rows[0]['true_lift'], 'lift')}. Shown: {said}."
    note = "Shown: credited purchases per send, variant over control, the mean over steps; 95 % intervals over worlds."
    return Part(title, text, rows, columns, note)


def _lift(data: SweepData, p: Point, compared: list[tuple[Touch, str]]) -> tuple[float, float, float, float]:
    """True lift, shown lift, and its bootstrap interval over worlds."""
    c, n, truth = (_values(data, p, m) for m in ("conversions", "sends", "true_rate"))
    control = {s.id: data.scenario.variants_of(s)[0].id for s, _ in compared}
    better, plain = [(s.id, v) for s, v in compared], [(s.id, control[s.id]) for s, _ in compared]
    have = [i for i, pair in enumerate(zip(better, plain, strict=True)) if all(k in n.columns for k in pair)]
    if not have:
        return np.nan, np.nan, np.nan, np.nan
    better, plain = [better[i] for i in have], [plain[i] for i in have]
    true = _share(truth[better].mean().sum(), truth[plain].mean().sum())
    worlds = len(n)
    draws = generator(data.scenario.seed, "bootstrap of lift").multinomial(worlds, np.full(worlds, 1 / worlds), DRAWS)
    weights = np.concatenate([np.ones((1, worlds)), draws])
    a, b = (_rate(weights, c[k].to_numpy(), n[k].to_numpy()) for k in (better, plain))
    ratio = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0) - 1
    if worlds < 2 or np.isnan(ratio).all():
        return true, float(ratio[0]), np.nan, np.nan
    low, high = np.nanquantile(ratio[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return true, float(ratio[0]), float(low), float(high)


def _rate(weights: F8, conversions: F8, sends: F8) -> F8:
    """Mean over steps of the pooled rates, for each row of world weights. A mean over sends would mix up
    steps and variants, because policies share them out differently."""
    y, n = weights @ conversions, weights @ sends
    rate: F8 = np.divide(y, n, out=np.full(y.shape, np.nan), where=n > 0)
    return rate.mean(1)


def _share(a: float, b: float) -> float:
    return a / b - 1 if b > 0 else np.nan


def credited(data: SweepData) -> Part:
    """Per 1,000 sends: credited (own, borrowed, organic), happened, caused."""
    s = data.scenario
    last = data.race[data.race["day"] == data.race["day"].max()]
    happened = last.groupby("point")["happened"].sum()
    rows = []
    for p in data.points:
        total = {
            m: float(_values(data, p, m).to_numpy().sum())
            for m in ("sends", "conversion_count", "caused", "credited_own", "credited_borrowed", "credited_organic")
        }
        per = 1000 / max(total["sends"], 1.0)
        rows.append(label_of(p) | {
            "credited": total["conversion_count"] * per, "own": total["credited_own"] * per,
            "borrowed": total["credited_borrowed"] * per, "organic": total["credited_organic"] * per,
            "happened": float(happened[p.name]) * per, "caused": total["caused"] * per,
        })  # fmt: skip
    text = _credits_most(data, rows)
    repeated = s.program.rule.scope == "template" and len(s.touches) > 1
    note = (
        "Own: caused by the send that got the credit; borrowed: caused by another send; organic: would have "
        "happened anyway; the rest of what is credited are further copies, and purchases that nobody made. "
        "Happened: all purchases after sign-up, whatever caused them."
        + (" A purchase is credited once at each step, so more can be credited than happened." if repeated else "")
    )
    columns = [*axis_columns(data.scenario),
               Column("credited", "credited", "one"), Column("own", "of these: own", "one"),
               Column("borrowed", "borrowed", "one"), Column("organic", "organic", "one"),
               Column("happened", "happened", "one"), Column("caused", "caused", "one")]  # fmt: skip
    return Part("Credited, happened, caused (per 1,000 sends)", text, rows, columns, note)


def _credits_most(data: SweepData, rows: list[dict[str, Any]]) -> str:
    """Of the points with the assumptions in use, the one that credits most, and to what."""
    use = reference(data.points, data.reference)
    own = alike(data.scenario, data.points, use)
    found = [(p, r) for p, r in zip(data.points, rows, strict=True) if p in own]
    point, most = max(found, key=lambda x: x[1]["credited"])
    part = write(most["own"] / most["credited"] if most["credited"] else 0.0, "percent")
    to = f"{part} of that went to the send that caused it; its sends caused {most['caused']:.1f}."
    if len(found) == 1:
        return f"{most['credited']:.1f} are credited{with_assumed(data.scenario, use)}, and {to.replace('its', 'the')}"
    return f"More credited is not better: {point.name} credits most ({most['credited']:.1f} per 1,000 sends), and {to}"

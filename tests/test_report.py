"""Figures and pages from made-up frames: what they say equals the frames, and nothing leaks out."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from justai_sim.report.inputs import SweepData
from justai_sim.scenario import Scenario, points, read
from justai_sim.streams import generator

DELAY, ORGANIC = 1.5, 0.002


def scenario_of(variants: int = 4, replications: int = 40) -> Scenario:
    text = read("welcome")
    import msgspec

    raw = msgspec.to_builtins(text) | {"replications": replications}
    rates = [0.015, 0.015, 0.021, 0.012, 0.017, 0.014, 0.016, 0.013][:variants]
    ids = ["control", "benefit", "story", "discount", "proof", "question", "urgency-now", "long-story-short"]
    template = raw["variants"][0]
    raw["variants"] = [template | {"id": i, "conversion_rate": r} for i, r in zip(ids, rates, strict=False)]
    return msgspec.convert(raw, Scenario)


@cache
def sweep_data(variants: int = 4, replications: int = 40) -> SweepData:
    scenario = scenario_of(variants, replications)
    rng = generator(7, "synthetic sweep")
    ps, worlds = points(scenario), range(replications)
    metrics, race = [], []
    level = {"14/3": 0.38, "0-14": 0.66, "0-7": 0.71, "0-3": 0.69}
    luck = rng.normal(0, 0.12, replications)
    for p in ps:
        keep = level[p.labels["window"]] + (0.05 if p.labels["policy"] == "uniform" else 0)
        rule = p.scenario.program.rule
        capture = np.exp(-rule.offset_days / DELAY) - np.exp(-rule.lookback_days / DELAY)
        organic = ORGANIC * (rule.lookback_days - rule.offset_days)
        for rep in worlds:
            for step in scenario.flow:
                for v in scenario.variants:
                    sends = int(rng.integers(900, 1100))
                    caused = int(rng.binomial(sends, v.conversion_rate))
                    own = int(rng.binomial(caused, capture * 0.9))
                    borrowed, free = int(rng.poisson(caused * 0.08)), int(rng.poisson(sends * organic))
                    n = own + borrowed + free
                    values = {
                        "sends": sends, "mature_sends": sends - 100, "opens": sends // 3, "clicks": sends // 30,
                        "conversions": n, "conversion_count": n, "unsubscribes": 2, "revenue": 40.0 * n,
                        "conversion_rate": n / sends, "true_rate": v.conversion_rate, "caused": caused,
                        "credited_own": own, "credited_borrowed": borrowed, "credited_organic": free,
                        "share_at_end": 1 / len(scenario.variants),
                    }  # fmt: skip
                    metrics += [
                        {"point": p.name, **p.labels, "rep": rep, "template_id": step.id, "variant_id": v.id,
                         "metric": m, "value": float(x)} for m, x in values.items()
                    ]  # fmt: skip
            lost = 0.0
            for day in range(scenario.days + 1):
                now = 0.2 + (keep - 0.2) * (1 - np.exp(-day / 12)) + luck[rep]
                right = rng.binomial(5, float(np.clip(now, 0.02, 0.98))) / 5
                lost = 28 * (1 - now) * (1 - np.exp(-day / 30)) + rng.normal(0, 0.4)
                race.append({
                    "point": p.name, **p.labels, "rep": rep, "day": day, "right_leader": right,
                    "shipped_wrong": np.clip(0.3 * (1 - keep) * (day > 20) * (day - 20) / 36, 0, 1),
                    "shipped_right": 0.0, "lost_per_10k": lost,
                })  # fmt: skip
    names, rates = [v.id for v in scenario.variants], [v.conversion_rate for v in scenario.variants]
    age = age_frame(names, rates, replications, 20_000)
    windows = window_frame(names, rates, replications, 18_000)
    return SweepData(scenario, ps, ps[0].name, pd.DataFrame(metrics), pd.DataFrame(race), age, windows)


def age_frame(names: list[str], rates: list[float], groups: int, sends: int) -> pd.DataFrame:
    rng, rows = generator(8, "synthetic age"), []
    for g in range(groups):
        for v, rate in zip(names, rates, strict=True):
            for a in range(-7, 30):
                exposure = sends * (1 - max(a, 0) / 56)
                caused = rate * (np.exp(-a / DELAY) - np.exp(-(a + 1) / DELAY)) if a >= 0 else 0.0
                n = rng.poisson(exposure * (ORGANIC + 0.0012 * (a > -4) + caused))
                rows.append({"group": g, "variant_id": v, "age_day": a, "conversions": n, "exposure": exposure})
    return pd.DataFrame(rows)


def window_frame(names: list[str], rates: list[float], groups: int, sends: float) -> pd.DataFrame:
    rng, rows = generator(9, "synthetic windows"), []
    for offset in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0):
        for lookback in (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 21.0, 30.0):
            for g in range(groups):
                for v, rate in zip(names, rates, strict=True):
                    n, c = np.nan, np.nan
                    if lookback > offset:
                        n = sends * (1 - lookback / 56)
                        capture = np.exp(-offset / DELAY) - np.exp(-lookback / DELAY)
                        late = 1.25 if v == names[1] and offset >= 3 else 1.0
                        c = float(rng.poisson(n * late * (rate * capture + ORGANIC * (lookback - offset))))
                    rows.append({"group": g, "offset_day": offset, "lookback_day": lookback, "variant_id": v,
                                 "conversions": c, "sends": n})  # fmt: skip
    return pd.DataFrame(rows)

"""Figures and pages from made-up frames: what they say equals the frames, and nothing leaks out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import special

from justai_sim.attribution import Rule
from justai_sim.pages.age import curves
from justai_sim.pages.age import sentence as age_sentence
from justai_sim.pages.answer import answer
from justai_sim.pages.figures import plot_age, plot_delay, plot_race, plot_receipt, plot_shares, plot_window_map, render
from justai_sim.pages.inputs import ReplayData, SweepData
from justai_sim.pages.page import tidy
from justai_sim.pages.race import share_band
from justai_sim.pages.recommend_page import by_criterion, recommendations
from justai_sim.pages.replay_page import MEANING, headline, write_replay_report
from justai_sim.pages.style import spread
from justai_sim.pages.sweep_page import write_sweep_report
from justai_sim.pages.table import percent
from justai_sim.pages.window_map import sentence as map_sentence
from justai_sim.pages.window_map import worlds_of
from justai_sim.scenario import Point, Scenario, points, read
from justai_sim.stats import wilson
from justai_sim.streams import generator
from justai_sim.surfaces import of_frame
from justai_sim.sweeps.criteria import Question
from justai_sim.sweeps.data import Raced
from justai_sim.sweeps.recommend import recommend
from justai_sim.tables import REASONS

DELAY, ORGANIC = 1.5, 0.002


def scenario_of(variants: int = 4, replications: int = 40) -> Scenario:
    raw = msgspec.to_builtins(read("welcome")) | {"replications": replications}
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
                    "shipped_right": 0.0, "lost_per_10k": lost, "happened": 40 * day,
                })  # fmt: skip
    names, rates = [v.id for v in scenario.variants], [v.conversion_rate for v in scenario.variants]
    age = age_frame(names, rates, replications, 20_000)
    windows = window_frame(names, rates, replications, 18_000)
    shares = share_frame(scenario, ps)
    return SweepData(scenario, ps, ps[0].name, pd.DataFrame(metrics), pd.DataFrame(race), age, windows, shares)


def share_frame(scenario: Scenario, ps: list[Point]) -> pd.DataFrame:
    rows = [
        {"point": p.name, **p.labels, "day": day, "template_id": t.id, "variant_id": v.id,
         "share": 1 / len(scenario.variants), "spread": 0.1, "worlds": scenario.replications}
        for p in ps for day in range(0, scenario.days + 1, 7) for t in scenario.flow for v in scenario.variants
    ]  # fmt: skip
    return pd.DataFrame(rows)


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


@cache
def replay_data(variants: int = 4) -> ReplayData:
    names = ["control", "benefit", "story", "discount", "proof", "question", "urgency-now", "long-story-short"][
        :variants
    ]
    rates = [0.015, 0.015, 0.021, 0.012, 0.017, 0.014, 0.016, 0.013][:variants]
    rng, rows, shares = generator(10, "synthetic replay"), [], []
    for t in ("welcome-1", "welcome-2"):
        for v in names:
            row = {"template_id": t, "variant_id": v, "sends": 4000, "mature_sends": 3000}
            for prefix, n in (("", 4000), ("mature_", 3000)):
                for rate, count in COUNTS.items():
                    y = float(rng.integers(40, 90))
                    low, high = wilson(y, n)
                    row |= {prefix + count: y, prefix + rate: y / n}
                    row |= {f"{prefix}{rate}_low": float(low), f"{prefix}{rate}_high": float(high)}
            rows.append(row)
            shares += [
                {
                    "day": float(d),
                    "template_id": t,
                    "variant_id": v,
                    "share": 1 / variants,
                    "sends": 70.0 * d,
                    "rate": 0.02,
                }
                for d in range(57)
            ]
    reasons = pd.DataFrame({
        "kind": ["conversion", "conversion", "open"], "reason": ["credited", "in_offset", "credited"],
        "events": [512, 1200, 3],
    })  # fmt: skip
    return ReplayData(
        title="orders", source="exports/may", as_of=1_767_571_200_000_000, rule=Rule(), key_metric="conversion_rate",
        control="control", notes=["no received_at: each event's own time is used"], metrics=pd.DataFrame(rows),
        reasons=reasons, shares=pd.DataFrame(shares), age=age_frame(names, rates, 100, 150),
        windows=window_frame(names, rates, 100, 120.0), settings={"policy": "weighted_thompson"},
    )  # fmt: skip


def delay_frame(variants: int) -> pd.DataFrame:
    names = ["control", "benefit", "story", "discount", "proof", "question", "urgency-now", "long-story-short"]
    rows = []
    for i, v in enumerate(names[:variants]):
        for day in range(31):
            effect = (0.012 + 0.002 * ((3 * i) % 8)) * (1 - np.exp(-day / (1.5 + i % 3)))
            half = 0.001 * day**0.5
            rows.append({"variant_id": v, "age_day": day, "effect": effect, "low": effect - half,
                         "high": effect + half, "background": 0.002, "source": "holdout"})  # fmt: skip
    return pd.DataFrame(rows)


COUNTS = {
    "open_rate": "opens", "click_rate": "clicks", "conversion_rate": "conversions", "unsubscribe_rate": "unsubscribes",
    "revenue_per_send": "revenue",
}  # fmt: skip
HOSTILE = '<script>alert(1)</script> & "$x^2$"'


class Page(HTMLParser):
    """Tables as lists of rows of cell texts; all attributes; all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.h1 = ""
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in ("meta", "img", "br", "link"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.inside:
            return
        self.text += data
        if "h1" in self.inside:
            self.h1 += data
        if {"td", "th"} & set(self.inside):
            self.tables[-1][-1][-1] += ("|" if "span" in self.inside else "") + data


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def renamed(frame: pd.DataFrame, old: str, new: str) -> pd.DataFrame:
    return frame.assign(variant_id=frame["variant_id"].replace(old, new))


@pytest.mark.parametrize("variants", [2, 4, 8])
def test_figures_are_drawn_with_units_on_every_axis(variants: int) -> None:
    sweep, replayed = sweep_data(variants), replay_data(variants)
    drawn = [
        (plot_age(sweep.age, control="control", offset_days=3, lookback_days=14), 2),
        (plot_window_map(sweep.windows, offset_days=0, lookback_days=7, best="story", groups_are_worlds=True), 1),
        (plot_window_map(replayed.windows, control="control", offset_days=0, lookback_days=7), 1),
        (plot_race(sweep.race), 3),
        (plot_shares(replayed.shares, control="control"), 2),
        (plot_delay(delay_frame(variants)), 1),
    ]
    for ax, count in drawn:
        assert len(ax.child_axes) == count
        assert render(ax, "png").startswith(b"\x89PNG")
        assert all(inner.get_ylabel() for inner in ax.child_axes)
        assert "days" in ax.child_axes[-1].get_xlabel() or "day" in ax.child_axes[-1].get_xlabel()
        texts = [t.get_text() for t in ax.texts]
        assert texts[0][0].isupper()
        assert min(t.get_fontsize() for t in ax.texts) >= 10


def test_no_text_leaves_the_figure_and_no_labels_overlap() -> None:
    for ax in (
        plot_age(sweep_data(8).age, control="control", offset_days=3, lookback_days=14),
        plot_window_map(sweep_data(8).windows, offset_days=3, lookback_days=14, best="story", groups_are_worlds=True),
        plot_window_map(replay_data(8).windows, offset_days=3, lookback_days=14),
        plot_race(sweep_data(8).race),
        plot_shares(replay_data(8).shares, control="control"),
        plot_delay(delay_frame(2)),
        plot_delay(delay_frame(3)),
        plot_delay(delay_frame(8)),
    ):
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        figure.canvas.draw()
        w, h = figure.bbox.width, figure.bbox.height
        for a in (ax, *ax.child_axes):
            boxes = [Text.get_window_extent(t) for t in a.texts if t.get_text()]  # without the leader line
            boxes += [t.get_window_extent() for t in (a.xaxis.label, a.yaxis.label) if t.get_text() and a is not ax]
            for b in boxes:
                assert b.x0 >= 0
                assert b.y0 >= 0
                assert b.x1 <= w
                assert b.y1 <= h
            for one, other in itertools.combinations(boxes, 2):
                across = min(one.x1, other.x1) - max(one.x0, other.x0)
                down = min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(across, down) <= 2, "two labels overlap"


def test_a_given_axes_becomes_the_container_and_global_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    figure = Figure(figsize=(12, 6))
    left, right = figure.subplots(1, 2)
    assert plot_race(sweep_data().race, ax=left) is left
    assert plot_age(sweep_data().age, control="control", offset_days=3, lookback_days=14, ax=right) is right
    render(left, "svg")
    assert dict(matplotlib.rcParams) == before
    assert not left.axison


def test_figures_do_not_import_pyplot() -> None:
    code = (
        "import sys, justai_sim.pages.sweep_page, justai_sim.pages.replay_page\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_age_curves_equal_the_frame() -> None:
    age = sweep_data().age
    got = curves(age, "control", 3, 14)
    assert got is not None
    total = age.groupby(["variant_id", "age_day"])[["conversions", "exposure"]].sum()
    rate = 1000 * total["conversions"] / total["exposure"]
    for v, row in zip(got.variants, got.rate, strict=True):
        np.testing.assert_allclose(row, rate[v].to_numpy())
    added = got.most or got.leader
    days = [a for a in rate["control"].index if a >= 0]
    expected = np.cumsum((rate[added.variant] - rate["control"])[days])
    np.testing.assert_allclose(added.diff[1:], expected)
    before = age[age["age_day"] < 0]
    assert got.before == pytest.approx(1000 * before["conversions"].sum() / before["exposure"].sum())
    assert added.total[0] == pytest.approx(expected.iloc[-1])
    assert added.window[0] == pytest.approx(expected.iloc[13] - expected.iloc[2])  # days 3 to 13
    for mean, low, high in (added.total, added.window):
        assert low < mean < high
    assert (added.low <= added.diff).all()
    assert (added.diff <= added.high).all()


def test_age_sentence_states_total_and_window_with_intervals() -> None:
    got = curves(sweep_data().age, "control", 3, 14)
    assert got is not None
    said = age_sentence(got, 3, 14)
    (total, *ends), (inside, *_) = got.leader.total, got.leader.window
    assert got.leader.variant == "story"
    assert f"story adds {total:.1f} ({ends[0]:.1f} to {ends[1]:.1f}) conversions per 1,000 sends" in said
    assert f"the window (day 3 to day 14) sees {inside:.1f} (" in said
    none = dataclasses.replace(got, leader=dataclasses.replace(got.leader, total=(1.0, -0.2, 2.2)))
    assert age_sentence(none, 3, 14).startswith("No clear difference: within 30 days story adds 1.0 (−0.2 to 2.2)")
    one = curves(sweep_data().age.query("group == 0"), "control", 3, 14)
    assert one is not None
    assert age_sentence(one, 3, 14).startswith("It takes 2 groups")
    texts = [t.get_text() for inner in plot_age(sweep_data().age).child_axes for t in inner.texts]
    assert "before the send" in texts
    assert "background" not in texts


def test_age_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Equal variants and clustered users: the intervals of total and window hold 0 in 95 % of logs."""
    logs, n, ages = 300, 40, np.arange(-7, 30)
    g, v, a = (x.ravel() for x in np.meshgrid(np.arange(n), ["a", "control"], ages, indexing="ij"))
    inside = np.zeros(2)
    for k in range(logs):
        rng = generator(k, "interval coverage")
        frame = pd.DataFrame({"group": g, "variant_id": v, "age_day": a, "exposure": 500.0})
        frame["conversions"] = rng.poisson(5 * rng.gamma(4, 0.25, (n, 2))[g, (v == "a").astype(int)])
        got = curves(frame, "control", 3, 14)
        assert got is not None
        inside += [x[1] <= 0 <= x[2] for x in (got.leader.total, got.leader.window)]
    sd = (0.95 * 0.05 / logs) ** 0.5
    assert (np.abs(inside / logs - 0.95) < 4 * sd).all()


def test_age_band_covers_the_truth_as_often_as_it_says() -> None:
    """Equal variants: the whole curve of differences (0) lies in the band in 95 % of logs."""
    inside, logs = 0, 200
    for k in range(logs):
        rng = generator(k, "coverage")
        n, ages = 40, np.arange(-7, 30)
        g, v, a = (x.ravel() for x in np.meshgrid(np.arange(n), ["a", "control"], ages, indexing="ij"))
        lumps = rng.gamma(4, 0.25, n)[g]  # users' groups differ
        frame = pd.DataFrame({"group": g, "variant_id": v, "age_day": a, "exposure": 500.0})
        frame["conversions"] = rng.poisson(500 * 0.01 * lumps)
        got = curves(frame, "control", 3, 14)
        assert got is not None
        inside += bool(((got.leader.low <= 0) & (got.leader.high >= 0)).all())
    sd = (0.95 * 0.05 / logs) ** 0.5
    assert inside / logs > 0.95 - 4 * sd


def test_window_map_of_worlds_by_hand() -> None:
    rows = []
    for g, (a, b) in enumerate([(30, 20), (32, 24), (28, 19)]):
        rows += [(g, 0.0, 7.0, "a", a, 1000.0), (g, 0.0, 7.0, "control", b, 1000.0)]
        rows += [(g, 3.0, 7.0, "a", 4, 1000.0), (g, 3.0, 7.0, "control", 5, 1000.0)]
        rows += [(g, 7.0, 7.0, v, np.nan, np.nan) for v in ("a", "control")]
    frame = pd.DataFrame(rows, columns=["group", "offset_day", "lookback_day", "variant_id", "conversions", "sends"])
    worlds = worlds_of(frame)
    assert worlds.leader.tolist() == [[0], [-1], [-1]]  # fewer than 10 a variant in a world; no window at all
    d = np.array([10, 8, 9]) / 1000
    t = d.mean() / d.std(ddof=1) / np.sqrt(1 + 1 / 3)  # of one more world
    assert worlds.z[0, 0] == pytest.approx(special.ndtri(special.stdtr(2, t)))


def test_few_worlds_of_equal_variants_are_not_clear() -> None:
    rng, maps, sure = generator(12, "two worlds"), 400, 0
    for _ in range(maps):
        frame = pd.DataFrame({"group": [0, 0, 1, 1], "variant_id": ["a", "b"] * 2, "sends": 5000.0})
        frame["conversions"] = rng.poisson(100, 4).astype(float)
        sure += worlds_of(frame.assign(offset_day=0.0, lookback_day=7.0)).z[0, 0] > 2
    p = 2 * float(special.ndtr(-2.0))  # the larger of two equal ones stands first
    assert sure / maps < p + 4 * (p * (1 - p) / maps) ** 0.5
    told = sweep_data().windows
    assert "clear" in drawn_text(plot_window_map(told, best="story", groups_are_worlds=True))
    assert "clear" not in drawn_text(plot_window_map(told[told["group"] < 9], best="story", groups_are_worlds=True))


def drawn_text(ax: Any) -> str:
    return " ".join(t.get_text() for a in (ax, *ax.child_axes) for t in a.texts)


def test_map_of_a_log_names_only_leaders_beyond_the_bound() -> None:
    """What the figure says and colours is what the surface judged."""
    small = of_frame(window_frame(["control", "a", "b"], [0.015] * 3, 100, 30.0), (3.0, 14.0))
    ax = plot_window_map(small.by_group)
    assert (small.judged.leader < 0).all()
    said = drawn_text(ax)
    assert "No leader in any of" in said
    assert "(14/3): too close." in " ".join(said.split())
    assert "leads" not in said
    strong = of_frame(window_frame(["control", "b", "a"], [0.015, 0.06, 0.015], 100, 300.0), (3.0, 14.0))
    leads = strong.judged.leader
    assert set(leads[leads >= 0].tolist()) == {strong.variants.index("b")}
    said = drawn_text(plot_window_map(strong))
    assert f"in {(leads >= 0).sum()} of {strong.judged.told.sum()}" in said
    assert "b leads, beyond the bound of the whole map (95 %)" in said
    assert render(plot_window_map(strong), "svg") == render(plot_window_map(strong.by_group), "svg")


def test_windows_expected_to_pick_another_are_ahead_by_two_errors_over_worlds() -> None:
    frame = window_frame(["control", "benefit", "story"], [0.015, 0.015, 0.015], 40, 4000)
    got = worlds_of(frame, "story")
    for i, j in np.argwhere(got.leader >= 0):
        cell = frame[(frame["offset_day"] == got.offsets[i]) & (frame["lookback_day"] == got.lookbacks[j])]
        c, n = (cell.pivot_table(index="group", columns="variant_id", values=x) for x in ("conversions", "sends"))
        lead, rate = got.variants[got.leader[i, j]], c.sum() / n.sum()
        moved = sum(s * (c[v] - rate[v] * n[v]) / n[v].sum() for s, v in ((1, lead), (-1, "story")))
        far = rate[lead] - rate["story"] > 2 * np.sqrt(40 * moved.var())
        assert got.wrong[i, j] == (lead != "story" and far)
        assert got.close[i, j] == (lead != "story" and not far)
    assert got.wrong.any()
    assert got.close.any()
    assert f"{got.wrong.sum()} of " in map_sentence(got, (3.0, 14.0), "story")
    few = worlds_of(frame[frame["group"] < 4], "story")
    assert not few.wrong.any()
    said = map_sentence(few, (3.0, 14.0), "story")
    assert said.startswith("4 worlds: too few worlds to tell what is expected")
    assert "are expected" not in said


def test_a_map_that_is_empty_world_by_world_does_not_say_that_nothing_was_counted() -> None:
    """Some conversions of a variant in each of 40 worlds: more than 100 in all, too few in one."""
    frame = window_frame(["control", "story"], [0.005, 0.005], 40, 150)
    said = map_sentence(worlds_of(frame, "story"), (3.0, 14.0), "story")
    assert frame.groupby(["offset_day", "lookback_day", "variant_id"])["conversions"].sum().max() > 100
    assert said.startswith("No window has 10 conversions of every variant in a world, on average over 40 worlds")


def test_spread_keeps_order_gap_and_range() -> None:
    rng = generator(3, "spread")
    for _ in range(200):
        n = int(rng.integers(1, 9))
        y = rng.random(n)
        out = np.array(spread(y, 0.12, 0, 1))
        assert (np.argsort(out, kind="stable") == np.argsort(y, kind="stable")).all()
        assert n == 1 or np.diff(np.sort(out)).min() > 0.12 - 1e-9
        assert out.min() >= -1e-9
        assert out.max() <= 1 + 1e-9


def test_answer_equals_the_frames() -> None:
    data = sweep_data()
    said = answer(data)
    last = data.race[data.race["day"] == data.race["day"].max()]
    mean = last.groupby("point")[["right_leader", "lost_per_10k"]].mean()
    for p, row in zip(data.points, said.summary.rows, strict=True):
        assert row["right"] == pytest.approx(mean["right_leader"][p.name])
        assert row["lost"] == pytest.approx(mean["lost_per_10k"][p.name])
        assert row["right_low"] < row["right"] < row["right_high"]
        assert row["true_lift"] == pytest.approx(0.021 / 0.015 - 1)
        m = data.metrics[data.metrics["point"] == p.name]
        total = m.groupby(["metric", "template_id", "variant_id"])["value"].sum()
        rate = (total["conversions"] / total["sends"]).unstack()
        assert row["shown_lift"] == pytest.approx(rate["story"].mean() / rate["control"].mean() - 1)
        assert row["shown_lift_low"] < row["shown_lift"] < row["shown_lift_high"]
        per = 1000 / total["sends"].sum()
        assert row["credited"] == pytest.approx(total["conversion_count"].sum() * per)
        assert row["caused"] == pytest.approx(total["caused"].sum() * per)
        assert row["own"] + row["borrowed"] + row["organic"] == pytest.approx(row["credited"])
        assert row["happened"] == pytest.approx(40 * 56 * data.scenario.replications * per)
    found = recommend(data, Question(criterion="right_by_day"))
    assert said.headline.startswith(found.answer.split(". ")[0])
    assert [r["verdict"] for r in said.comparison.rows] == found.table["verdict"].tolist()
    for p, row in zip(data.points, said.summary.rows, strict=True):
        assert row["verdict"].removeprefix("in use; ") == found.cases[0].of(p.name).verdict
    assert said.summary.rows[0]["verdict"] == "in use; worse"
    assert "40 worlds" in said.size
    assert "seed 1" in said.size
    assert json.loads(json.dumps(said.as_dict()))["headline"] == said.headline


def with_right(data: SweepData, right: dict[str, float]) -> SweepData:
    """The data with other last-day shares by window (plus a little noise by world)."""
    rng = generator(4, "race")
    value = data.race["window"].map(right) + rng.normal(0, 0.02, len(data.race))
    return dataclasses.replace(data, race=data.race.assign(right_leader=np.clip(value, 0, 1)))


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (
            {"14/3": 0.2, "0-14": 0.9, "0-7": 0.2, "0-3": 0.2},
            r"A tie: 0-14 .* cannot be told .*\. In use: 14/3 · .* \(counts from day 3 to day 14\), which is worse\.",
        ),
        (
            {"14/3": 0.9, "0-14": 0.3, "0-7": 0.3, "0-3": 0.2},
            r"A tie: 14/3 · .* they do better than 0-14, 0-7 and 0-3 \(any policy\)\.",
        ),
        (
            {"14/3": 0.5, "0-14": 0.5, "0-7": 0.5, "0-3": 0.5},
            r"No difference that 40 worlds can tell between .* points away\.",
        ),
    ],
)  # fmt: skip
def test_headline_fits_what_was_found(right: dict[str, float], said: str) -> None:
    assert re.fullmatch(said, answer(with_right(sweep_data(), right)).headline)


def test_the_headline_goes_by_the_criterion_of_the_race() -> None:
    data = sweep_data()
    best = data.race["happened"] + 50.0 * (data.race["point"] == "0-14 · uniform")
    data = dataclasses.replace(with_right(data, dict.fromkeys(("14/3", "0-14", "0-7", "0-3"), 0.5)),
                               race=data.race.assign(happened=best, right_leader=0.5))  # fmt: skip
    raced = dataclasses.replace(data, raced=Raced("conversions", [40], 0.99, []))
    said = answer(raced)
    assert said.headline.startswith("Choose 0-14 · uniform: ")
    assert "by: true conversions earned" in said.comparison.title
    assert by_criterion(recommendations(raced)).rows[0]["answer"].startswith("Choose 0-14 · uniform: ")
    plain = answer(data).headline
    assert plain.startswith("No difference")
    assert " But by true conversions earned: Choose 0-14 · uniform: " in plain


def test_worlds_of_different_assumptions_are_not_ranked() -> None:
    """The policy in the place of an assumption: no sentence says that a point with one is better than with another."""
    base = sweep_data()
    s = msgspec.structs.replace(base.scenario, sweep={"window": base.scenario.sweep["window"],
                                                      "world.bounce_rate": [0.0, 0.1]})  # fmt: skip
    new = {"weighted_thompson": "0.0", "uniform": "0.1"}

    def swapped(frame: pd.DataFrame) -> pd.DataFrame:
        if "policy" not in frame:
            return frame
        label = frame["policy"].map(new)
        return frame.rename(columns={"policy": "bounce_rate"}).assign(
            bounce_rate=label, point=frame["window"] + " · " + label
        )

    frames = {k: swapped(getattr(base, k)) for k in ("metrics", "race", "shares")}
    race = frames["race"]
    race = race.assign(lost_per_10k=race["lost_per_10k"] - 1000.0 * (race["point"] == "0-14 · 0.1"))
    ps = points(s)
    data = dataclasses.replace(base, scenario=s, points=ps, reference=ps[0].name, **(frames | {"race": race}))
    said = answer(data)
    text = " ".join(p.text for p in (said.leads, said.lost, said.credited))
    assert "Most often right of all" not in text
    assert "loses least with bounce rate 0.0." in text
    assert "0-14 · 0.1 loses least" not in text
    assert "(bounce rate 0.0)" in said.leads.text
    assert "sets of assumptions" in said.headline


def test_a_single_point_is_compared_with_nothing() -> None:
    base = sweep_data()
    s = msgspec.structs.replace(base.scenario, sweep={})
    name = points(s)[0].name

    def alone(frame: pd.DataFrame) -> pd.DataFrame:
        if "point" not in frame:
            return frame
        return frame[frame["point"] == base.reference].assign(point=name).drop(columns=["window", "policy"])

    frames = {k: alone(getattr(base, k)) for k in ("metrics", "race", "shares")}
    said = answer(dataclasses.replace(base, scenario=s, points=points(s), reference=name, **frames))
    text = " ".join([said.headline, said.leads.text, said.lost.text, said.credited.text])
    for word in ("more often", "most", "least", "best of", "Nothing that was compared"):
        assert word not in text, text
    assert said.headline.startswith("Counting from day 3 to day 14 puts the best variant first in ")
    assert "verdict" not in [c.key for c in said.summary.columns]


def test_worlds_that_all_agree_still_have_an_interval() -> None:
    low, high = share_band(np.ones((20, 3)))
    assert (high == 1).all()
    assert (low < 0.9).all()


def test_a_single_world_makes_a_page(tmp_path: Path) -> None:
    said = page(write_sweep_report(sweep_data(4, 1), tmp_path))
    assert "1 world ×" in said.text
    assert "nan" not in said.text
    assert "inf" not in said.text.replace("in front", "")
    assert said.h1.startswith("One world tells nothing apart")


def test_differences_of_few_worlds_stay_within_100_points() -> None:
    part = answer(sweep_data(4, 3)).comparison
    assert "Few worlds (3)" in part.note
    for row in part.rows:
        if row["verdict"] != "best":
            assert -1 <= row["difference_low"] <= row["difference"] <= row["difference_high"] <= 1
    assert "Few worlds" not in answer(sweep_data()).comparison.note


@pytest.mark.parametrize("kind", ["sweep", "replay"])
def test_pages_are_the_same_every_time_and_self_contained(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        if kind == "sweep":
            write_sweep_report(sweep_data(), tmp_path / name)
        else:
            write_replay_report(replay_data(), tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert len(files) == 11
    for f in files:
        assert (tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes(), f
    said = page(tmp_path / "one" / "index.html")
    assert "script" not in said.tags
    assert "link" not in said.tags
    for tag, key, value in said.attributes:
        if key in ("src", "href"):
            assert value.startswith(("data:", "#")) or (tag == "a" and value in files), value
    style = (tmp_path / "one" / "index.html").read_text(encoding="utf-8").split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    for svg in (f for f in files if f.endswith(".svg")):
        assert not re.search(r'href="(?!#)(?!data:)', (tmp_path / "one" / svg).read_text(encoding="utf-8"))


def test_sweep_page_says_what_the_answer_says(tmp_path: Path) -> None:
    data = sweep_data()
    said, got = page(write_sweep_report(data, tmp_path)), answer(data)
    assert said.h1 == tidy(got.headline)
    assert said.text.index("SIMULATED") < said.text.index(said.h1)
    assert "This is a simulation, not your data." in said.text
    assert "exponential, 1.5 days on average" in said.text
    assert "lookback" not in said.text
    head, *body = said.tables[0]
    assert head[:3] == ["window", "policy", "right at the end"]
    for row, cells in zip(got.summary.rows, body, strict=True):
        assert cells[0] == row["window"]
        assert cells[2] == f"{percent(row['right'])}|{100 * row['right_low']:.0f} to {100 * row['right_high']:.0f}"
        assert cells[3].startswith(f"{row['lost']:.1f}|")
        assert cells[4] == "+40 %"


def test_replay_page_equals_the_frames(tmp_path: Path) -> None:
    data = replay_data()
    said = page(write_replay_report(data, tmp_path))
    assert "SIMULATED" not in said.text
    assert "2026-01-05T00:00:00Z" in said.text
    assert "Counts until day 14 after a message was sent, ignored first 3 days" in said.text
    assert data.notes[0] in said.text
    assert "The shares it would have set on the data you had." in said.text
    for table, prefix in ((said.tables[0], ""), (said.tables[1], "mature_")):
        for (_, row), cells in zip(data.metrics.iterrows(), table[1:], strict=True):
            n = row[f"{prefix}sends"]
            assert cells[:3] == [row["template_id"], row["variant_id"], f"{n:,}"]
            low, high = row[f"{prefix}conversion_rate_low"], row[f"{prefix}conversion_rate_high"]
            y = row[f"{prefix}conversions"]
            assert cells[3] == f"{100 * y / n:.2f} %|{100 * low:.2f} to {100 * high:.2f}|{y:.0f} / {n:,}"
    reasons = said.tables[2]
    assert [r[-1] for r in reasons] == ["events", "512", "1,200", "3"]


def test_replay_page_of_a_simulated_log_says_so(tmp_path: Path) -> None:
    said = page(write_replay_report(dataclasses.replace(replay_data(), simulated=True), tmp_path))
    assert said.text.index("SIMULATED") < said.text.index(said.h1)


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    data = replay_data()
    frames = {k: renamed(getattr(data, k), "story", HOSTILE) for k in ("metrics", "shares", "age", "windows")}
    hostile = dataclasses.replace(data, title=HOSTILE, source=HOSTILE, notes=[HOSTILE], **frames)
    path = write_replay_report(hostile, tmp_path)
    assert "<script" not in path.read_text(encoding="utf-8")
    said = page(path)
    assert HOSTILE in said.text
    assert HOSTILE in [row[1] for row in said.tables[0]]


def test_pages_without_data_still_stand(tmp_path: Path) -> None:
    data = replay_data()
    empty = {k: getattr(data, k).iloc[:0] for k in ("metrics", "reasons", "shares", "age", "windows")}
    said = page(write_replay_report(dataclasses.replace(data, **empty), tmp_path))
    assert "Nothing was sent" in said.h1
    assert "nan" not in said.text


def test_the_receipt_of_a_log_goes_from_all_conversions_to_the_credited_ones() -> None:
    frame = pd.DataFrame(
        {"kind": ["conversion"] * 3 + ["open"], "reason": ["in_offset", "credited", "no_send", "credited"],
         "events": [30, 60, 10, 500]}
    )  # fmt: skip
    ax = plot_receipt(frame)
    text = " ".join(t.get_text() for t in ax.texts)
    assert "Of 100 conversions 60 are credited (60 %)." in text
    assert "within the ignored first days (30)" in text
    bars = [(b.get_x(), b.get_width()) for b in ax.child_axes[0].patches]
    assert bars == [(0, 100), (100, -30), (70, -10), (0, 60)]
    assert "holds no conversion" in " ".join(t.get_text() for t in plot_receipt(frame[3:]).texts)


def test_every_reason_has_a_meaning() -> None:
    assert set(MEANING) == set(REASONS)


def replay_of(cells: list[tuple[str, str, float, int]], key: str = "conversion_rate") -> ReplayData:
    """A replay with these (template, variant, rate, sends)."""
    rows = []
    for template, variant, rate, n in cells:
        low, high = wilson(rate * n, n)
        rows.append({"template_id": template, "variant_id": variant, "sends": n, key: rate,
                     f"{key}_low": float(low), f"{key}_high": float(high)})  # fmt: skip
    return dataclasses.replace(replay_data(), metrics=pd.DataFrame(rows), key_metric=key)


def test_headline_of_one_template() -> None:
    clear = replay_of([("t", "control", 0.02, 9000), ("t", "story", 0.03, 9000), ("t", "held_out", 0.5, 100)])
    assert headline(clear).startswith("story is ahead of control: conversion rate 3.00 %")
    luck = replay_of([("t", "control", 0.02, 900), ("t", "story", 0.03, 900)])
    assert headline(luck).startswith("No leader can be told apart yet: story has conversion rate 3.00 %")


def test_headline_names_a_leader_only_beyond_chance() -> None:
    alike = [(f"t{i}", v, r, 900) for i in range(4) for v, r in (("control", 0.02), ("story", 0.021))]
    only = [("single", "story", 0.9, 9000)]
    assert headline(replay_of(alike + only)) == (
        "By conversion rate, no leader can be told apart yet in any of 4 templates."
    )
    clear = [("x", "control", 0.02, 9000), ("x", "story", 0.03, 9000)]
    assert headline(replay_of(alike + only + clear)) == (
        "By conversion rate, story is ahead of control in 1 of 5 templates; "
        "in the other 4 no leader can be told apart yet."
    )
    fewer = headline(replay_of(alike + clear, "unsubscribe_rate"))  # less is better: the control leads
    assert fewer.startswith("By unsubscribe rate, control is ahead of story in 1 of 5 templates;")
    assert headline(replay_of(only)) == "No template has two variants: there is nothing to compare."
    unsure = replay_of(clear)
    unsure.metrics[["conversion_rate_low", "conversion_rate_high"]] = np.nan
    assert headline(unsure).startswith("No leader can be told apart yet")


def test_headline_is_rarely_wrong_about_equal_variants() -> None:
    rng, logs, n = generator(5, "headline"), 1000, 3000
    named = 0
    for y in rng.binomial(n, 0.02, (logs, 2)):
        data = replay_of([("t", v, k / n, n) for v, k in zip(("control", "story"), y, strict=True)])
        named += "is ahead" in headline(data)
    assert named / logs < 0.05 + 4 * (0.05 * 0.95 / logs) ** 0.5


def test_delay_figure_says_what_the_frame_says() -> None:
    frame = delay_frame(2)
    ax = plot_delay(frame, offset_days=3, lookback_days=14)
    said = " ".join(t.get_text() for t in ax.texts)
    for v, part in frame.groupby("variant_id"):
        part = part.set_index("age_day")["effect"] * 1000
        end = frame[(frame["variant_id"] == v) & (frame["age_day"] == 30)].iloc[0]
        low, high = 1000 * end["low"], 1000 * end["high"]
        assert f"{v} {part[30]:.1f} ({low:.1f} to {high:.1f}), in the window {part[14] - part[3]:.1f}" in said
    assert "Background: 2.0 per 1,000 users and day, that of held-out users" in said
    assert "not been followed long enough" in " ".join(t.get_text() for t in plot_delay(frame.iloc[:0]).texts)


def test_headline_ranks_by_kaplan_meier_where_it_has_a_value_else_by_mature_sends() -> None:
    data = replay_data(2)
    one = data.metrics[data.metrics["template_id"] == "welcome-1"]
    km = {f"km_conversion_rate{s}": [x, x + 0.1] for s, x in (("", 0.3), ("_low", 0.29), ("_high", 0.31))}
    said = headline(dataclasses.replace(data, metrics=one.assign(**km)))
    assert said.startswith("benefit is ahead of control: conversion rate (Kaplan-Meier) 40.00 % (39.00 to 41.00)")
    assert "mature conversion rate" in headline(dataclasses.replace(data, metrics=one))
    none = one.assign(**km, mature_conversion_rate=np.nan).assign(km_conversion_rate=np.nan)
    assert "mature" not in headline(dataclasses.replace(data, metrics=none))


def test_replay_page_shows_warnings_shares_and_every_estimator(tmp_path: Path) -> None:
    data = replay_data(2)
    names = ["km_conversion_rate", "exposure_conversion_rate"]
    extra = {f"{n}{s}": 0.0211 for n in names for s in ("", "_low", "_high")}
    counts = dict.fromkeys(("km_conversions", "km_sends", "exposure_conversions", "exposure_sends"), 70)
    metrics = data.metrics.assign(**extra, **counts, final_sends=2900, mature_moved=7)
    captured = pd.DataFrame(
        [{"variant_id": "story", "sends": 90, "total": 0.02, "total_low": 0.01, "total_high": 0.03, "window": 0.002,
          "window_low": 0.001, "window_high": 0.003, "share": 0.1, "share_low": 0.05, "share_high": 0.2},
         {"variant_id": "control", "sends": 90, "total": 0.001, "total_low": -0.01, "total_high": 0.012,
          "window": 0.0, "window_low": -0.001, "window_high": 0.003, "share": np.nan}]
    )  # fmt: skip
    full = dataclasses.replace(
        data, metrics=metrics, captured=captured, delay=delay_frame(2), warnings=["Loses more than half: <all>."],
        background="The background, 2 conversions per 1,000 users and day, is that of held-out users.", weighting="day",
    )  # fmt: skip
    said = page(write_replay_report(full, tmp_path))
    assert (tmp_path / "delay.png").exists()
    assert "Loses more than half: <all>." in said.text
    assert "weighted by template and day" in said.text
    first = said.tables[0][1]
    assert first[2] == "2.11 %|2.11 to 2.11|70 / 70"
    assert first[-2:] == ["100", "7"]
    shares = next(t for t in said.tables if "share that the window sees" in t[0])
    assert shares[1] == ["story", "90", "20.0|10.0 to 30.0", "2.0|1.0 to 3.0", "10 %|5 to 20"]
    assert shares[2][-1] == "–"

"""The packaged scenarios show what they say that they show."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pandas as pd
import pytest

from justai_sim import api
from justai_sim.scenario import packaged, read
from justai_sim.sweeps.data import SweepData

WORLDS = 12
K = 4.0
"""Standard errors that a difference must be away from none: chance does it once in 30,000 such checks."""


class Shown:
    """What a finished sweep shows, a value a world."""

    def __init__(self, data: SweepData) -> None:
        self.data = data
        self.last = data.race[data.race["day"] == data.race["day"].max()]

    def __call__(self, measure: str, point: str) -> np.ndarray:
        rows = self.last[self.last["point"] == point].sort_values("rep")
        return rows[measure].to_numpy(float)

    def sums(self, point: str) -> pd.DataFrame:
        """Metrics of a point over all worlds and templates, a row a variant."""
        m = self.data.metrics[self.data.metrics["point"] == point]
        return m.groupby(["variant_id", "metric"])["value"].sum().unstack()

    def rates(self, point: str) -> dict[str, float]:
        t = self.sums(point)
        return dict(t["conversions"] / t["sends"])

    def lift(self, point: str, a: str, b: str) -> float:
        r = self.rates(point)
        return r[a] / r[b] - 1


def more(a: np.ndarray, b: np.ndarray) -> None:
    """The paired difference of two samples (worlds,) is above 0 by K standard errors; never by one world alone."""
    d = a - b
    assert d.mean() > 0
    assert d.mean() > K * d.std(ddof=1) / math.sqrt(len(d)), (d.mean(), d.std(ddof=1))


def rarely(share: np.ndarray, most: float) -> None:
    """A share of worlds that is at most `most` up to K standard errors."""
    assert share.mean() <= most + K * math.sqrt(most * (1 - most) / len(share)), share.mean()


def clean_baseline(s: Shown) -> None:
    rarely(1 - s("right_leader", "uniform"), 0.05)
    true, shown = 0.04 / 0.03 - 1, s.lift("uniform", "better", "control")
    t = s.sums("uniform")
    sd = math.sqrt(sum(1 / t.loc[v, "conversions"] for v in ("better", "control"))) * (1 + true)
    assert abs(shown - true) < K * sd + 0.01  # sends of the last days have not earned all of theirs
    more(s("lost_per_10k", "uniform"), s("lost_per_10k", "weighted_thompson"))


def fast_converter(s: Shown) -> None:
    rarely(s("right_leader", "14/3"), 0.05)
    rarely(1 - s("right_leader", "0-14"), 0.05)
    more(s("lost_per_10k", "14/3"), s("lost_per_10k", "0-14"))
    more(s("best_share", "0-7"), s("best_share", "14/3"))


def wrong_winner_window(s: Shown) -> None:
    rarely(1 - s("right_leader", "0-14"), 0.05)
    rarely(s("right_leader", "0-3"), 0.02)
    rarely(s("right_leader", "0-5"), 0.05)
    assert s.lift("0-9", "b", "a") > 0 > s.lift("0-5", "b", "a")


def organic_flood(s: Shown) -> None:
    share, credited = {}, {}
    for p in ("14/3", "0-6", "0-14", "0-30"):
        t = s.sums(p).sum()
        share[p], credited[p] = t["credited_organic"] / t["conversion_count"], t["conversion_count"]
    assert all(0.68 < v < 0.95 for v in share.values()), share
    assert credited["0-30"] > credited["0-14"] > credited["0-6"]
    assert s.lift("0-6", "better", "control") > s.lift("0-30", "better", "control")


def overlapping_steps(s: Shown) -> None:
    d = {p: s.rates(p)["better"] - s.rates(p)["control"] for p in ("all", "last_qualifying", "last_then_check")}
    n = s.sums("all")["sends"].min()
    assert d["all"] > d["last_qualifying"] + K * math.sqrt(2 * 0.15 / n)  # variances: the larger rate of the two rules
    assert d["last_qualifying"] > d["last_then_check"] + K * math.sqrt(2 * 0.04 / n)
    assert d["last_then_check"] < 0.1 * 0.03


def unsubscribes_earn_credit(s: Shown) -> None:
    r = s.rates("last_qualifying")
    assert r["annoying"] > 1.5 * max(r["polite"], r["control"])
    t = s.sums("last_qualifying")
    assert t.loc["annoying", "sends"] > 3 * t.loc["polite", "sends"]
    rarely(s("right_leader", "last_qualifying"), 0.05)
    more(s("best_share", "all"), s("best_share", "last_qualifying"))


def immature_variant(s: Shown) -> None:
    for p in ("mature sends only", "weighted by exposure"):
        more(s("lost_per_10k", "silence is failure"), s("lost_per_10k", p))


def simpson_ramp(s: Shown) -> None:
    assert s.lift("joins on day 30", "ramped", "control") < -0.2
    assert s.lift("there from day 0", "ramped", "control") > 0.05
    rarely(s("right_leader", "joins on day 30"), 0.05)


def machine_opens(s: Shown) -> None:
    lifts = {}
    for p in ("unflagged", "flagged", "no machines"):
        t = s.sums(p)
        rate = t["opens"] / t["sends"]
        lifts[p] = rate["better"] / rate["control"] - 1
    n = s.sums("flagged")["sends"].min()
    error = K * math.sqrt(2 * 0.25 * 0.75 / n) / 0.22
    assert lifts["flagged"] == lifts["no machines"], "what is flagged is left out"
    assert abs(lifts["flagged"] - (0.25 / 0.22 - 1)) < error
    diluted = (1 - (1 - 0.25) * (1 - 0.45)) / (1 - (1 - 0.22) * (1 - 0.45)) - 1
    assert abs(lifts["unflagged"] - diluted) < error
    assert lifts["unflagged"] < lifts["flagged"]


def webhook_outage(s: Shown) -> None:
    none, late, lost = (s.sums(p) for p in ("none", "four days, retried", "four days, lost"))
    assert abs(late["conversions"].sum() / none["conversions"].sum() - 1) < 0.005
    assert lost["conversions"].sum() < 0.96 * none["conversions"].sum()
    rarely(1 - s("right_leader", "four days, lost"), 0.1)


def proxy_against_goal(s: Shown) -> None:
    for p in ("click_rate", "open_rate"):
        more(s("lost_per_10k", p), s("lost_per_10k", "conversion_rate"))
        assert s.sums(p)["sends"].idxmax() == "loud"
    assert s.sums("conversion_rate")["sends"].idxmax() == "honest"


def thousand_sends(s: Shown) -> None:
    rarely(s("shipped_wrong", "always valid"), 0.05)
    assert s("shipped_wrong", "1,000 sends, daily looks").mean() > s("shipped_wrong", "always valid").mean()


def one_day_blast(s: Shown) -> None:
    t = s.sums("one day")["sends"]
    assert abs(t["better"] / (t["better"] + t["worse"]) - 0.5) < 0.01
    assert s.sums("four weekly waves")["sends"]["better"] > 3 * s.sums("four weekly waves")["sends"]["worse"]
    more(s("lost_per_10k", "one day"), s("lost_per_10k", "four weekly waves"))


FINDINGS: dict[str, tuple[int, Callable[[Shown], None]]] = {
    f.__name__: (n, f)
    for n, f in [
        (WORLDS, clean_baseline), (WORLDS, fast_converter), (WORLDS, wrong_winner_window), (WORLDS, organic_flood),
        (20, overlapping_steps), (WORLDS, unsubscribes_earn_credit), (WORLDS, immature_variant),
        (WORLDS, simpson_ramp), (30, machine_opens), (WORLDS, webhook_outage), (WORLDS, proxy_against_goal),
        (60, thousand_sends), (WORLDS, one_day_blast),
    ]
}  # fmt: skip


def test_each_scenario_asks_and_answers() -> None:
    names = {p.stem for p in packaged().glob("*.toml")}
    assert names == {*FINDINGS, "welcome"}, "a scenario without a test of its finding, or the other way round"
    for name in sorted(names):
        s = read(name)
        assert s.name == name
        assert s.question.endswith("?")
        assert s.answer.endswith(".")
        assert s.sweep


@pytest.mark.parametrize("name", sorted(FINDINGS))
def test_it_shows_what_it_says(name: str) -> None:
    worlds, finding = FINDINGS[name]
    finding(Shown(api.sweep(msgspec.structs.replace(read(name), replications=worlds), workers=1).data))

"""What-if on logs: against simulated truth, what enters and what does not, refusals, the doors, wrong settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import justai_sim as js
from justai_sim import frames
from justai_sim.attribution import Rule
from justai_sim.bandit.policy import PolicySpec
from justai_sim.cli import run
from justai_sim.clock import DAY
from justai_sim.errors import DataError, UsageError
from justai_sim.estimate import overlap as overlap_limits
from justai_sim.estimate.offpolicy import ESTIMATORS
from justai_sim.loop.program import Program, Shipping
from justai_sim.loop.step import step
from justai_sim.pages.figures import plot_what_if, render
from justai_sim.scenario import Blast, Scenario, Step, read
from justai_sim.sim.engine import simulate_block
from justai_sim.tables import MODES, NONE, Decisions, Log
from justai_sim.whatif import learning
from justai_sim.whatif.decided import Decided, decided
from justai_sim.whatif.holdout import choices, held_out
from justai_sim.whatif.learning import Learning, learnt
from justai_sim.whatif.policy import WhatIf, what_if
from justai_sim.whatif.policy_words import headline
from justai_sim.whatif.study import study
from justai_sim.whatif.targets import Mixed, fixed, logged, only
from justai_sim.world.spec import Variant

RULE = Rule(lookback_days=7, offset_days=0)
RATES = {"control": 0.10, "a": 0.10, "b": 0.20, "c": 0.14}
SEEN = 1 - math.exp(-7 / 1.5)
"""Part of the conversions that the window of 7 days holds: delays are exponential with a mean of 1.5 days."""
TREATED = ("a", "b", "c")


def scenario(policy: str = "weighted_thompson", signups: float = 80, days: int = 40, **spec: Any) -> Scenario:
    """One message, nothing organic: a send earns its variant's rate, whatever the policy does elsewhere."""
    base = read("welcome")
    program = Program(rule=RULE, goals=["purchase"], policy=PolicySpec(name=policy, **spec))
    world = msgspec.structs.replace(base.world, signups_per_day=signups, organic_per_user_day=0.0)
    return msgspec.structs.replace(
        base, flow=[Step(id="hello", day=0)], variants=[Variant(id=k, conversion_rate=v) for k, v in RATES.items()],
        days=days, program=program, world=world, sweep={},
    )  # fmt: skip


@cache
def logs(policy: str = "weighted_thompson", reps: int = 60, **spec: Any) -> tuple[Log, ...]:
    block = simulate_block(scenario(policy, **spec), range(reps))
    return tuple(block.log(r) for r in range(reps))


def truth(shares: dict[str, float]) -> float:
    """The value per send of fixed shares."""
    return SEEN * sum(RATES[v] * x for v, x in shares.items())


EVEN = {"control": 0.1} | dict.fromkeys(TREATED, 0.3)
MOSTLY_B = {"control": 0.1, "b": 0.675, "c": 0.225}


def asked(log: Log, **options: Any) -> WhatIf:
    return what_if(log, rule=RULE, goals=["purchase"], **options)


def row(got: WhatIf, policy: str, template: str = "hello") -> dict[str, Any]:
    e = got.estimates
    return dict(e[(e["policy"] == policy) & (e["template_id"] == template)].iloc[0])


def of(log: Log, **options: Any) -> Decided:
    return decided(study(log, rule=RULE, goals=["purchase"]), "conversion_rate", None, **options)


# -- against the truth ---------------------------------------------------------------------------------------------


TARGETS = {"uniform": truth(EVEN), "fixed b=3,c=1": truth(MOSTLY_B)}


@cache
def valued(epsilon: float) -> pd.DataFrame:
    """Every estimate of the two targets on the 60 logs of a learner."""
    wanted = ["uniform", PolicySpec(name="fixed", shares={"b": 3.0, "c": 1.0})]
    return pd.concat([asked(x, policies=wanted, estimator="all").estimates for x in logs(epsilon=epsilon)])


@pytest.mark.parametrize("policy", TARGETS)
@pytest.mark.parametrize("name", ["default", *ESTIMATORS])
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_unbiased_and_covering_on_simulated_logs_of_a_learner(name: str, policy: str, epsilon: float) -> None:
    """Over 60 worlds: the mean within 4 of its standard errors, coverage within 4 of 95 %. Adaptive weights follow the
    log's outcomes and are only consistent: half a standard error of one log is allowed. Without epsilon some logs are
    refused."""
    e, right = valued(epsilon), TARGETS[policy]
    mine = e[(e["policy"] == policy) & (e["chosen"] if name == "default" else e["estimator"] == name)]
    told = mine[mine["status"] == "estimated"]
    assert len(mine) == 60
    assert len(told) >= (60 if epsilon else 54)
    value = told["value"].to_numpy(float)
    slack = 0.5 * value.std() if name in ("adaptive", "default") else 0.0
    assert abs(value.mean() - right) < 4 * value.std(ddof=1) / math.sqrt(len(told)) + slack
    inside = ((told["low"] <= right) & (right <= told["high"])).mean()
    assert inside > 0.95 - 4 * math.sqrt(0.95 * 0.05 / len(told))


@pytest.mark.parametrize("name", ["ips", "dr"])
def test_unbiased_over_all_logs_the_refused_ones_included(name: str) -> None:
    for target, right in (("uniform", TARGETS["uniform"]), ("fixed", TARGETS["fixed b=3,c=1"])):
        spec = PolicySpec(name=target, shares={"b": 3.0, "c": 1.0} if target == "fixed" else {})
        value = [ESTIMATORS[name](choices(d, fixed(d, spec).shares)).value for d in map(of, logs())]
        assert abs(np.mean(value) - right) < 4 * np.std(value, ddof=1) / math.sqrt(len(value))


def test_gains_over_the_log_cover_the_truth() -> None:
    """On uniform logs the gain of one variant over the log's own policy is known."""
    inside = []
    for log in logs("uniform", 40):
        r = row(asked(log, variants=["b"]), "only b")
        inside.append(r["gain_low"] <= truth({"b": 1.0}) - truth(EVEN) <= r["gain_high"])
    assert np.mean(inside) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 40)


def bare(log: Log) -> Log:
    """Without propensities and decisions."""
    none = np.full(len(log.sends), np.nan)
    return replace(log, sends=log.sends.with_(propensity=none), decisions=Decisions.empty())


def test_estimated_propensities_of_a_uniform_log() -> None:
    """They come from the shares of the whole log: unbiased, covering."""
    worlds = [bare(x) for x in logs("uniform", 40)]
    still = [x for x in worlds if of(x).estimated.endswith("over the whole log")]
    assert len(still) >= 40 * 0.95 - 4 * math.sqrt(40 * 0.05 * 0.95)
    rows = [row(asked(x, variants=["b"]), "only b") for x in still]
    value, right = np.array([r["value"] for r in rows]), truth({"b": 1.0})
    assert abs(value.mean() - right) < 4 * value.std(ddof=1) / math.sqrt(len(rows))
    inside = np.mean([r["low"] <= right <= r["high"] for r in rows])
    assert inside > 0.95 - 4 * math.sqrt(0.95 * 0.05 / len(rows))
    assert of(logs("uniform", 40)[0]).estimated == ""


def test_estimated_propensities_of_a_learnt_log() -> None:
    """Days are put together; shares cannot undo that a learner left arms that began badly: low by up to half an error
    of one log, and said."""
    rows = []
    for x in logs():
        got = asked(bare(x), policies=["uniform"])
        assert "as few days as hold each variant" in got.notes[0]
        assert "bias of plain means" in got.notes[0]
        rows.append(row(got, "uniform"))
    told = [r for r in rows if r["status"] == "estimated"]
    assert len(told) >= 0.9 * len(rows)
    value, n = np.array([r["value"] for r in told]), len(told)
    off, error = value.mean() - truth(EVEN), value.std(ddof=1)
    assert -0.5 * error - 4 * error / math.sqrt(n) < off < 4 * error / math.sqrt(n)
    inside = np.mean([r["low"] <= truth(EVEN) <= r["high"] for r in told])
    assert inside > 0.9 - 4 * math.sqrt(0.9 * 0.1 / n)


def test_the_time_split_predicts_the_later_half_as_often_as_it_says() -> None:
    for policy, reps in (("weighted_thompson", 60), ("uniform", 40)):
        checks = [held_out(of(log)) for log in logs(policy, reps)]
        inside = [c.inside for c in checks if c.inside is not None]
        assert len(inside) >= 0.8 * reps
        assert np.mean(inside) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / len(inside)), policy


def test_the_time_split_sees_a_change() -> None:
    """Rewards of the later half taken away: outside, and said."""
    d = of(logs("uniform", 40)[0])
    late = d.at >= np.median(d.at)
    c = held_out(replace(d, reward=np.where(late, 0.0, d.reward)))
    assert c.inside is False
    got = replace(asked(logs("uniform", 40)[0], policies=["uniform"]), check=c)
    assert "OUTSIDE" in got.check_said


@pytest.mark.slow
def test_a_learning_policy_on_uniform_logs_earns_what_it_earns_in_the_world() -> None:
    """Replayed at a third of the traffic (3 treatment variants) against worlds that have a third of it."""
    values = [learnt(study(x, rule=RULE, goals=["purchase"]), of(x), PolicySpec(), None).value
              for x in logs("uniform", 40, signups=120)]  # fmt: skip
    block = simulate_block(scenario(signups=40), range(300))
    direct = [of(block.log(r)).reward.mean() for r in range(300)]
    noise = math.sqrt(np.var(values, ddof=1) / 40 + np.var(direct, ddof=1) / 300)
    assert abs(np.mean(values) - np.mean(direct)) < 4 * noise
    assert np.mean(values) > truth(EVEN) + 4 * np.std(values) / math.sqrt(40)


def test_a_learning_policy_is_valued_on_uniform_logs_and_refused_elsewhere() -> None:
    on_even, on_learnt = logs("uniform", 40)[0], logs()[0]
    r = row(asked(on_even, policies=["weighted_thompson"]), "weighted_thompson")
    assert r["status"] == "estimated"
    assert 0.25 < r["effective"] / r["decisions"] < 0.42
    assert r["low"] < r["value"] < r["high"]
    got = asked(on_learnt, policies=["weighted_thompson"])
    assert row(got, "weighted_thompson")["status"] == "refused"
    assert "shares it would have set on the data you had" in got.answers[0]
    assert "drawn evenly" in got.answers[0]
    with pytest.raises(UsageError, match="control-share"):
        asked(on_even, policies=["weighted_thompson"], mixed=Mixed(control_share=0.5))


def test_a_learning_policy_has_the_variants_that_were_drawn() -> None:
    """One that was only forced is no arm: a policy that tries what it does not know would wait for it for ever."""
    log = logs("uniform", 40)[0]
    c = log.sends.variant == log.names("variant").index("c")
    p = np.where(c, np.nan, np.where(log.sends.variant == log.names("variant").index("control"), 0.1, 0.45))
    forced = log.decisions.with_(mode=np.where(c, MODES.index("forced"), log.decisions.mode), propensity=p)
    got = asked(
        replace(log, sends=log.sends.with_(propensity=p), decisions=forced),
        policies=[PolicySpec(name="epsilon_greedy", explore=1.0)],
    )
    r = row(got, "epsilon_greedy explore=1")
    assert 0.44 < r["effective"] / r["decisions"] < 0.56
    assert r["gain_low"] < 0 < r["gain_high"]


def test_a_learning_policy_is_told_of_the_conversions_of_the_sends_that_it_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where messages follow each other within the window, those of the others are not credited to kept ones before."""
    base = scenario("uniform")
    world = msgspec.structs.replace(base.world, initial_users=600, signups_per_day=0)
    blast = Blast(id="hello", day=0.5, times=5, every_days=2)
    made = msgspec.structs.replace(base, flow=[], blasts=[blast], days=20, world=world)
    log = simulate_block(made, range(1)).log(0)
    d, told = of(log), []

    def stepped(*given: Any) -> Any:
        state, tick = step(*given)
        told.append(tick.y.sum())
        return state, tick

    monkeypatch.setattr(learning, "step", stepped)
    monkeypatch.setattr(learning, "PASSES", 1)
    got = learnt(study(log, rule=RULE, goals=["purchase"]), d, PolicySpec(), None)
    assert 0 < told[-1] <= d.reward[got.kept[0]].sum()


def test_a_learning_policy_keeps_the_logs_mix_of_templates() -> None:
    """Of a template with more variants fewer decisions are kept; a policy that spreads evenly still gains nothing."""
    few = [Variant(id=v, conversion_rate=0.3) for v in ("control", "a", "b")]
    many = [Variant(id=v, conversion_rate=0.02) for v in ("control", "c", "d", "e", "f", "g")]
    flow = [Step(id="few", day=0, variants=few), Step(id="many", day=10, variants=many)]
    log = simulate_block(msgspec.structs.replace(scenario("uniform"), flow=flow, variants=[]), range(1)).log(0)
    r = row(asked(log, policies=[PolicySpec(name="epsilon_greedy", explore=1.0)]), "epsilon_greedy explore=1", "ALL")
    assert r["gain_low"] < 0 < r["gain_high"]


def test_settings_of_a_learning_policy_change_what_it_earns() -> None:
    """Each is named in the answer, and leads to other shares on the same decisions."""
    log = logs("uniform", 40)[0]
    told: list[tuple[PolicySpec, Learning | None, str]] = [
        (PolicySpec(), None, "weighted_thompson"),
        (PolicySpec(top_two=0.9), None, "weighted_thompson top_two=0.9"),
        (PolicySpec(), Learning(feedback="mature"), "weighted_thompson feedback=mature"),
        (PolicySpec(), Learning(refresh_hours=240), "weighted_thompson refresh_hours=240"),
        (PolicySpec(name="gamma_poisson"), Learning(feedback="weighted"), "gamma_poisson feedback=weighted"),
    ]
    values = [row(asked(log, policies=[spec], learning=learning), name)["value"] for spec, learning, name in told]
    assert len(set(values)) == len(values)


def test_too_many_refreshes_are_refused_before_they_are_gone_through() -> None:
    with pytest.raises(UsageError, match=r"--refresh-hours is 0\.001, .* expected at most 20,000"):
        asked(logs("uniform", 40)[0], policies=["weighted_thompson"], learning=Learning(refresh_hours=0.001))


def test_deterministic_decisions_are_marked() -> None:
    """Greedy gives one variant everything from its second day on: what it logs cannot tell of the others."""
    log = logs("greedy", 2)[0]
    d = of(log)
    sure = d.pscore[d.arm > 0] > 0.89
    assert sure.mean() > 0.9
    assert d.deterministic[d.arm > 0].tolist() == sure.tolist()
    assert any("decisions were deterministic" in n for n in d.notes)
    assert not of(logs()[0]).deterministic.any()
    got = asked(log, policies=["uniform"])
    assert any("were deterministic" in n for n in got.notes)


# -- what enters ---------------------------------------------------------------------------------------------------


def moded(log: Log, rows: Any, mode: str, propensity: float = float("nan"), **columns: Any) -> Log:
    """The log with some sends' decisions of another mode, their propensities in the decisions only."""
    d, s = log.decisions, log.sends
    assert (d.decision == s.send).all()
    mark, chance = d.mode.copy(), d.propensity.copy()
    mark[rows], chance[rows] = MODES.index(mode), propensity
    bare = s.with_(propensity=np.full(len(s), np.nan), decided_at=np.full(len(s), np.iinfo(np.int64).min))
    return replace(log, sends=bare, decisions=d.with_(mode=mark, propensity=chance, **columns))


def test_propensities_come_from_the_decisions_too() -> None:
    log = logs()[0]
    a, b = of(log), of(moded(log, [], "forced"))
    for name in ("arm", "pscore", "reward", "at", "behaviour"):
        assert (getattr(a, name) == getattr(b, name)).all(), name


@pytest.mark.parametrize("mode", ["forced", "external", "held_out"])
@pytest.mark.parametrize("propensity", [float("nan"), 1.0])
def test_forced_and_external_decisions_never_enter(mode: str, propensity: float) -> None:
    log = logs()[0]
    rows = np.arange(0, len(log.sends), 3)
    d = of(moded(log, rows, mode, propensity))
    whole = of(log)
    gone = np.isin(whole.send, rows)
    assert (d.send == whole.send[~gone]).all()
    assert d.left_out[mode.replace("_", " ")] == gone.sum()
    assert (d.reward == whole.reward[~gone]).all()


def test_sends_without_a_decision_are_left_out_where_others_have_one() -> None:
    log = logs()[0]
    bare = moded(log, [], "forced")
    some = replace(bare, decisions=bare.decisions.take(slice(100, None)))
    d = of(some)
    assert not np.isin(d.send, np.arange(100)).any()
    assert d.left_out["external"] == 100


def test_a_sticky_repeat_has_the_first_choices_propensity_and_day() -> None:
    """A second message of the same template two days later, when the shares were others."""
    t0 = 1_767_571_200_000_000
    sends, choices = [], []
    for u in range(40):
        for k, day in enumerate((0, 2)):
            at = t0 + day * DAY + u * 60_000_000
            who = {"user_id": f"u{u}", "template_id": "T", "variant_id": "ab"[u % 2]}
            sends.append(who | {"send_id": f"s{u}-{k}", "sent_at": at})
            mode, p = (("policy", 0.3 if u % 2 else 0.7), ("sticky", None if u < 20 else 0.9))[k]
            choices.append(who | {"decision_id": f"d{u}-{k}", "decided_at": at, "mode": mode, "propensity": p})
    events = [{"event_id": f"e{u}", "user_id": f"u{u}", "kind": "conversion", "name": "purchase",
               "occurred_at": t0 + 3 * DAY} for u in range(0, 40, 3)]  # fmt: skip
    log = frames.from_frames(pd.DataFrame(sends), pd.DataFrame(events), pd.DataFrame(choices))
    d = decided(study(log, rule=RULE, goals=["purchase"], as_of=t0 + 40 * DAY), "conversion_rate", None)
    user = np.array(log.text("user", log.sends.user[d.send]))
    first = np.array([0.3 if int(x[1:]) % 2 else 0.7 for x in user])
    repeat = np.array([x.endswith("-1") for x in log.text("send", log.sends.send[d.send])])
    late = np.array([int(x[1:]) >= 20 for x in user])
    assert len(d) == 80
    assert d.pscore == pytest.approx(np.where(repeat & late, 0.9, first)), (
        "a logged one is kept, a missing one is the first's"
    )
    assert (d.at < t0 + DAY).all()
    assert len(np.unique(d.user)) == 40


@pytest.mark.parametrize("mode", ["forced", "external"])
def test_a_repeat_of_what_was_not_drawn_never_enters(mode: str) -> None:
    """Half of the users were first given their variant by somebody else, and keep it."""
    t0 = 1_767_571_200_000_000
    sends, choices = [], []
    for u in range(80):
        for k in (0, 1):
            at = t0 + 2 * k * DAY + u * 60_000_000
            who = {"user_id": f"u{u}", "template_id": "T", "variant_id": "ab"[u % 2]}
            sends.append(who | {"send_id": f"s{u}-{k}", "sent_at": at})
            first = mode if u < 40 else "policy"
            choices.append(who | {"decision_id": f"d{u}-{k}", "decided_at": at, "mode": "sticky" if k else first})
    events = [{"event_id": "e", "user_id": "u0", "kind": "conversion", "name": "purchase", "occurred_at": t0 + DAY}]
    log = frames.from_frames(pd.DataFrame(sends), pd.DataFrame(events), pd.DataFrame(choices))
    d = decided(study(log, rule=RULE, goals=["purchase"], as_of=t0 + 40 * DAY), "conversion_rate", None)
    assert d.left_out == {mode: 80}
    assert len(d) == 80
    assert all(int(x[1:]) >= 40 for x in log.text("user", log.sends.user[d.send]))


def kept_over_days(variants: list[Variant], **settings: Any) -> pd.DataFrame:
    """Decisions by day, variant and mode of users who keep their variant, with three blasts, five days apart."""
    base = scenario()
    program = msgspec.structs.replace(base.program, sticky="variant", **settings)
    world = msgspec.structs.replace(base.world, initial_users=3000, signups_per_day=0)
    blast = Blast(id="hello", day=0.5, times=3, every_days=5)
    made = msgspec.structs.replace(base, program=program, flow=[], blasts=[blast], days=12, world=world,
                                   variants=variants)  # fmt: skip
    log = simulate_block(made, range(1)).log(0)
    d = log.decisions
    frame = pd.DataFrame({"day": (d.decided_at - d.decided_at.min()) // (4 * DAY), "mode": [MODES[m] for m in d.mode],
                          "variant": log.text("variant", d.variant), "user": d.user, "p": d.propensity})  # fmt: skip
    return frame.sort_values(["day", "user"]).reset_index(drop=True)


def test_users_who_kept_the_control_get_what_is_shipped() -> None:
    variants = [Variant(id="control", conversion_rate=0.05), Variant(id="b", conversion_rate=0.4)]
    d = kept_over_days(variants, control_share=0.3, shipping=Shipping(rule="significance"))
    assert set(d.loc[d["day"] == 0, "variant"]) == {"control", "b"}
    late = d[d["day"] > 0]
    assert set(late["variant"]) == {"b"}
    moved = late[(late["day"] == 1) & (late["mode"] == "policy")]
    assert set(moved["user"]) == set(d.loc[(d["day"] == 0) & (d["variant"] == "control"), "user"]) & set(
        late.loc[late["day"] == 1, "user"]
    )
    assert (moved["p"] == 1).all()


def test_another_choice_where_the_kept_variant_is_gone_is_no_repeat() -> None:
    variants = [Variant(id="control", conversion_rate=0.05), Variant(id="a", conversion_rate=0.1, until_day=3),
                Variant(id="b", conversion_rate=0.1)]  # fmt: skip
    d = kept_over_days(variants)
    gone = d.loc[(d["day"] == 0) & (d["variant"] == "a"), "user"]
    second = d[d["day"] == 1]
    assert (second["mode"] == "policy").tolist() == second["user"].isin(gone).tolist()
    assert (d.loc[d["day"] == 2, "mode"] == "sticky").all()


def test_repeats_of_an_external_split_are_external() -> None:
    base = scenario()
    program = msgspec.structs.replace(base.program, split="external", sticky="variant")
    blast = Blast(id="hello", day=3, times=3, every_days=3)
    world = msgspec.structs.replace(base.world, initial_users=50)
    made = msgspec.structs.replace(base, program=program, flow=[], blasts=[blast], days=12, world=world)
    log = simulate_block(made, range(1)).log(0)
    assert set(log.decisions.mode.tolist()) == {MODES.index("external")}


def test_immature_outcomes_and_bounces_are_left_out() -> None:
    log = logs()[0]
    d = of(log)
    assert d.left_out == {"outcome not settled yet": d.left_out["outcome not settled yet"]}
    assert (d.at <= d.at.max()).all()
    assert d.at.max() < log.sends.sent_at.max() - 7 * DAY
    assert (log.sends.status[d.send] == 0).all()


# -- targets -------------------------------------------------------------------------------------------------------


def test_behaviour_holds_the_shares_of_the_day() -> None:
    """A day on which every variant was sent tells all shares: rows sum to 1 and hold the propensity of the choice."""
    d = of(logs()[0])
    assert d.behaviour.sum(1) == pytest.approx(np.ones(len(d)))
    assert d.behaviour[np.arange(len(d)), d.arm] == pytest.approx(d.pscore)
    assert d.behaviour[:, 0] == pytest.approx(np.full(len(d), 0.1))
    assert d.learnt
    assert not of(logs("uniform", 40)[0]).learnt


def test_targets_have_the_shares_they_say() -> None:
    d = of(logs()[0])
    assert d.variants[0] == ("control", *TREATED)
    assert fixed(d, PolicySpec(name="uniform")).shares == pytest.approx(np.tile([0.1, 0.3, 0.3, 0.3], (len(d), 1)))
    spec = PolicySpec(name="fixed", shares={"b": 3, "c": 1}, epsilon=0.3)
    row = fixed(d, spec, 0.2).shares[0]
    assert row == pytest.approx([0.2, 0.8 * 0.1, 0.8 * (0.7 * 0.75 + 0.1), 0.8 * (0.7 * 0.25 + 0.1)])
    assert only(d, "b").shares[:, 2] == pytest.approx(np.ones(len(d)))
    assert only(d, "b", 0.1).shares[0] == pytest.approx([0.1, 0, 0.9, 0])
    assert logged(d, Mixed()).shares == pytest.approx(d.behaviour)
    assert logged(d, Mixed(control_share=0.0)).shares[:, 1:] == pytest.approx(d.behaviour[:, 1:] / 0.9)


def test_the_logged_policy_with_another_epsilon_and_floor() -> None:
    """What was mixed in is taken out exactly: the same settings give the log back, none gives the policy's shares."""
    d = of(logs(epsilon=0.3, floor=0.05)[0])
    assert d.pscore.min() >= 0.9 * 0.05 - 1e-9
    same = Mixed(epsilon=0.3, floor=0.05, logged_epsilon=0.3, logged_floor=0.05)
    assert logged(d, same).shares == pytest.approx(d.behaviour, abs=1e-9)
    pure = logged(d, Mixed(logged_epsilon=0.3, logged_floor=0.05)).shares / 0.9
    again = 0.05 + (1 - 3 * 0.05) * (0.7 * pure[:, 1:] + 0.1)
    assert again * 0.9 == pytest.approx(d.behaviour[:, 1:], abs=1e-9)
    with pytest.raises(UsageError, match="more than the log's shares hold"):
        logged(d, Mixed(logged_epsilon=0.9))


# -- refusals ------------------------------------------------------------------------------------------------------


def test_one_propensity_of_1e_6_is_refused_and_said() -> None:
    log = logs("uniform", 40)[0]
    d = of(log)
    worst = d.send[np.flatnonzero(d.reward)[:2]]
    p = log.sends.propensity.copy()
    p[worst] = 1e-6
    got = asked(replace(log, sends=log.sends.with_(propensity=p)), policies=["uniform"])
    r = row(got, "uniform")
    assert r["effective"] < 3
    assert r["status"] == "refused"
    assert r["value"] is None or math.isnan(r["value"])
    assert "effective sample" in got.answers[0]
    assert "probability 1e-06" in got.answers[0]


def test_a_variant_that_was_not_drawn_at_the_time_is_refused() -> None:
    """Variant c only in the first part of the log; later its chance was 0."""
    log = logs("uniform", 40)[0]
    names = log.names("variant")
    c, middle = names.index("c"), int(np.median(log.sends.sent_at))
    keep = ~((log.sends.variant == c) & (log.sends.sent_at > middle // DAY * DAY))
    p = np.where((log.sends.sent_at > middle // DAY * DAY) & (log.sends.propensity > 0.2), 0.45, log.sends.propensity)
    late = replace(log, sends=log.sends.with_(propensity=p).take(keep), decisions=log.decisions.take(keep))
    got = asked(late, variants=["c", "b"])
    assert "never drawn" in row(got, "only c")["why"]
    assert row(got, "only b")["status"] == "estimated"


def test_wrong_propensities_are_refused_and_noted() -> None:
    log = logs("uniform", 40)[0]
    wrong = np.where(log.sends.variant == log.names("variant").index("b"), 0.6, 0.2)
    got = asked(replace(log, sends=log.sends.with_(propensity=wrong)), variants=["b"])
    assert "not 1" in row(got, "only b")["why"]
    assert any("look wrong" in note for note in got.notes)
    with pytest.raises(DataError, match=r"propensity of send .* is 2"):
        asked(replace(log, sends=log.sends.with_(propensity=np.full(len(log.sends), 2.0))))


def test_a_setting_that_nothing_asked_for_has_a_use_for_is_refused() -> None:
    log = logs("uniform", 40)[0]
    with pytest.raises(UsageError, match=r"--epsilon is for a --policy.*--policy fixed --shares b=1"):
        asked(log, variants=["b"], mixed=Mixed(epsilon=0.3))
    with pytest.raises(UsageError, match="--floor is for a --policy"):
        asked(log, variants=["b"], mixed=Mixed(floor=0.1))
    with pytest.raises(UsageError, match="--logged-epsilon is for --policy logged"):
        asked(log, policies=["uniform"], mixed=Mixed(logged_epsilon=0.1))


def test_a_small_log_is_refused() -> None:
    log = logs("uniform", 40)[0]
    small = replace(log, sends=log.sends.take(slice(0, 40)), decisions=log.decisions.take(slice(0, 40)))
    got = asked(small)
    assert set(got.estimates["status"]) == {"refused"}
    assert got.check.inside is None
    assert "cannot tell" in got.headline
    assert render(plot_what_if(got.estimates, got.check, got.headline), "png").startswith(b"\x89PNG")


# -- doors ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("what-if") / "log"
    path.mkdir()
    for table in ("sends", "events", "decisions"):
        frames.to_frame(logs()[0], table).to_parquet(path / f"{table}.parquet", index=False)
    return path


OPTIONS = ("--goal", "purchase", "--set", "lookback_days=7", "--set", "offset_days=0")


def test_the_command_writes_tables_a_figure_and_one_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["what-if", str(folder), *OPTIONS, "--policy", "fixed", "--shares", "b=3,c=1", "--variant", "b"]
    assert run([*argv, "--json", "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    want = asked(logs()[0], policies=[PolicySpec(name="fixed", shares={"b": 3.0, "c": 1.0})], variants=["b"])
    assert told["schema_version"] == 1
    assert [r["value"] for r in told["estimates"]] == pytest.approx(want.estimates["value"].tolist())
    assert told["check"]["inside"] in (True, False)
    for name in ("index.html", "estimates.csv", "overlap.csv", "what_if.png", "what_if.svg", "manifest.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    table = pd.read_csv(tmp_path / "out" / "estimates.csv")
    assert table["policy"].tolist() == ["fixed b=3,c=1", "only b"]
    assert run(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Shares b=3,c=1: conversion rate ")
    assert any(line.startswith("Time split:") for line in lines)


def test_python_and_the_command_line_say_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = js.what_if(folder, "fixed", shares={"b": 1}, goals=["purchase"], lookback_days=7, offset_days=0)
    assert got.answers[0] in (run(["what-if", str(folder), *OPTIONS, "--shares", "b=1"]), capsys.readouterr().out)[1]
    assert "<table" in got._repr_html_()
    page = js.report(got, tmp_path / "page").read_text()
    assert "Time split" in page
    assert "What the log can tell of" in page
    every = js.what_if(folder, "uniform", estimator="all", goals=["purchase"], lookback_days=7, offset_days=0)
    assert every.estimates["estimator"].tolist() == list(ESTIMATORS)
    assert every.estimates["chosen"].sum() == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--policy", "unifrom"], 2, "--policy 'unifrom' is not known; did you mean 'uniform'?"),
        (["--estimator", "drs"], 2, "--estimator 'drs' is not known; did you mean 'dr"),
        (["--variant", "bb"], 2, "--variant 'bb' is not a variant of the log; did you mean 'b'?"),
        (["--policy", "fixed"], 2, "--policy fixed needs --shares"),
        (["--shares", "b"], 2, "--shares 'b': expected variant=weight"),
        (["--shares", "b=-1"], 2, "--shares 'b=-1': expected"),
        (["--shares", "b=nan"], 2, "--shares 'b=nan': expected"),
        (["--shares", "b=1,b=2"], 2, "names 'b' twice"),
        (["--shares", "d=1"], 2, "--shares names 'd', no variant of the log"),
        (["--shares", "b=0"], 2, "expects a positive weight"),
        (["--shares", "control=1"], 2, "control"),
        (["--policy", "uniform", "--shares", "b=1"], 2, "--shares belong to --policy fixed"),
        (["--epsilon", "1.5"], 2, "--epsilon is 1.5; expected a number from 0 to 1"),
        (["--policy", "uniform", "--floor", "0.5"], 2, "floor is 0.5; expected at most 0.3333"),
        (["--policy", "logged", "--floor", "0.5"], 2, "floor is 0.5; expected at most 0.3333"),
        (["--control-share", "-1"], 2, "--control-share is -1"),
        (["--policy", "logged", "--logged-epsilon", "0.99"], 2, "more than the log's shares hold"),
        (["--propensities", "loged"], 2, "--propensities 'loged' is not known; did you mean 'logged'?"),
        (["--metric", "conversion"], 2, "--metric 'conversion' is not known; did you mean"),
        (["--control", "contrl"], 2, "did you mean 'control'?"),
        (["--template", "hullo"], 2, "did you mean 'hello'?"),
        (["--since", "2030-01-01T00:00:00Z"], 3, "no send is left"),
        (["--as-of", "2026-01-06T00:00:00Z"], 3, "no decision is left to value a policy on"),
        (["--policy", "weighted_thompson", "--metric", "revenue_per_send"], 0, ""),
        (["--policy", "weighted_thompson", "--policy-set", "top_tow=0.5"], 2, "did you mean 'top_two'?"),
        (["--policy", "weighted_thompson", "--policy-set", "top_two=1.5"], 2, "policy.top_two is 1.5"),
        (["--policy", "weighted_thompson", "--policy-set", "top_two"], 2, "expected key=value"),
        (["--policy", "weighted_thompson", "--policy-set", "window=3"], 2, "no setting of the policy"),
        (["--policy", "weighted_thompson", "--policy-set", "warm_start.bb=9,1"], 2, "did you mean 'b'"),
        (["--policy", "logged", "--policy-set", "top_two=0.5"], 2, "--policy-set needs one --policy"),
        (["--policy-set", "top_two=0.5"], 2, "--policy-set needs one --policy"),
        (["--policy", "weighted_thompson", "--feedback", "matur"], 2, "did you mean 'mature'?"),
        (["--policy", "weighted_thompson", "--feedback", "weighted"], 2, "use the policy 'gamma_poisson'"),
        (
            ["--policy", "weighted_thompson", "--policy-set", "top_two=high"],
            2,
            "is 'high'; expected a number",
        ),
        (["--policy", "weighted_thompson", "--refresh-hours", "0"], 2, "refresh_hours is 0"),
        (["--policy", "uniform", "--feedback", "mature"], 2, "are for a --policy that learns"),
        (["--policy", "weighted_thompson", "--estimator", "dr"], 2, "'weighted_thompson' learns and is replayed"),
        (["--policy", "weighted_thompson", "--estimator", "all"], 2, "'weighted_thompson' learns and is replayed"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_wrong_settings_are_refused_with_the_field(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert run(["what-if", str(folder), *OPTIONS, *options]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_policy_that_cannot_learn_the_metric_is_refused_on_an_even_log() -> None:
    with pytest.raises(UsageError, match="sliding_thompson"):
        asked(logs("uniform", 40)[0], policies=["sliding_thompson"], metric="revenue_per_send")


def test_the_headline_allows_for_the_number_of_policies() -> None:
    """A gain that one comparison calls clear is not clear as the best of six."""
    log = logs("uniform", 40)[0]
    got = asked(log, policies=["uniform"], variants=["a", "b", "c", "control"])
    e = got.estimates.assign(gain=[0.0, 0.0, 0.021, 0.0, 0.0], gain_low=-0.02, gain_high=0.02)
    e.loc[2, ["gain_low", "gain_high"]] = [0.001, 0.041]
    assert headline(e, "conversion_rate").startswith("None of 5")
    assert headline(e.iloc[[2]], "conversion_rate").startswith("Sending only b would have changed the conversion rate")
    e.loc[2, ["gain_low", "gain_high"]] = [0.011, 0.031]
    assert "only b would have changed" in headline(e, "conversion_rate")
    assert headline(e, "unsubscribe_rate").startswith("None of 5")


def test_other_metrics_and_templates() -> None:
    log = js.simulate(msgspec.structs.replace(read("welcome"), days=40)).log
    got = what_if(log, goals=["purchase"], metric="revenue_per_send", variants=["story"])
    assert set(got.estimates["template_id"]) == {"ALL", *(f"welcome-{i}" for i in range(1, 6))}
    whole = row(got, "only story", "ALL")
    parts = got.estimates[got.estimates["template_id"] != "ALL"]
    assert parts["decisions"].sum() == whole["decisions"]
    assert whole["low"] < whole["value"] < whole["high"]
    clicks = what_if(log, goals=["purchase"], metric="click_rate", policies=["logged"])
    assert row(clicks, "logged", "ALL")["gain"] == 0
    d = decided(study(log, goals=["purchase"]), "click_rate", None)
    assert row(clicks, "logged", "ALL")["value"] == pytest.approx(d.reward.mean())


def test_segments_are_contexts_of_their_own() -> None:
    log = logs("uniform", 40)[0]
    half = (log.sends.user % 2).astype(np.int64)
    codes = log.codes | {"segment": js_codes("new", "old")}
    d = of(replace(log, sends=log.sends.with_(segment=half), codes=codes))
    assert sorted(d.segments) == ["new", "old"]
    assert len(d.templates) == 2
    assert (log.sends.segment == NONE).all()


def js_codes(*texts: str) -> Any:
    from justai_sim.tables import TextCodes

    return TextCodes.of(texts)


def test_the_figure_says_what_it_shows_and_nothing_leaves_it() -> None:
    got = asked(logs()[0], policies=["uniform", "logged"], variants=["b"], estimator="all")
    refused = asked(logs()[0], policies=["weighted_thompson"]).estimates.drop(columns=["tuned"])
    estimates = pd.concat([got.estimates, refused], ignore_index=True)
    ax = plot_what_if(estimates, got.check, got.headline)
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    (panel,) = ax.child_axes
    assert "% of sends" in panel.get_xlabel()
    labels = [t.get_text() for t in panel.get_yticklabels()]
    assert sum(t.startswith("uniform") for t in labels) == len(ESTIMATORS)
    assert labels[-1] == "later half, predicted"
    assert "the log cannot tell" in [t.get_text() for t in panel.texts]
    for text in [*ax.texts, *panel.texts, panel.xaxis.label, *panel.get_yticklabels()]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
    assert render(ax, "svg") == render(plot_what_if(estimates, got.check, got.headline), "svg")


def test_the_docs_name_every_estimator_and_limit() -> None:
    text = (Path(__file__).parents[1] / "docs" / "what_if.md").read_text()
    for name in ESTIMATORS:
        assert f"| `{name}` |" in text
    limits = overlap_limits
    assert f"at least {limits.LEAST_SAMPLE:g}; {limits.LEAST_USERS} |" in text
    assert f"users with a reward and a weight | at least {limits.LEAST_REWARDED} |" in text
    assert f"of all weight | at most {limits.MOST_ON_ONE:.0%} |".replace("%", " %") in text
    assert f"at most {100 * limits.MOST_UNSEEN:g} % |" in text
    assert f"within {limits.TOLD_APART:g} standard errors" in text


def test_a_contextual_policy_is_valued_by_the_segment_of_each_decision() -> None:
    """In x the one variant is far better, in y the other: a policy that tells them apart earns about .18."""
    rng = np.random.default_rng(4)
    n = 6000
    segment, arm = rng.integers(0, 2, n), rng.choice(3, n, p=[0.1, 0.45, 0.45])
    rate = np.where(arm == 0, 0.06, np.where((arm == 1) == (segment == 0), 0.2, 0.02))
    sent = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.sort(rng.uniform(0, 40, n)), unit="D").round("us")
    user = [f"u{i}" for i in range(n)]
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(n)], "user_id": user, "template_id": "T",
        "variant_id": np.array(["control", "a", "b"])[arm], "sent_at": sent, "decided_at": sent,
        "propensity": np.array([0.1, 0.45, 0.45])[arm], "segment": np.array(["k=x", "k=y"])[segment],
    })  # fmt: skip
    bought = np.flatnonzero(rng.random(n) < rate)
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in bought], "user_id": [user[i] for i in bought], "kind": "conversion",
        "name": "buy", "occurred_at": sent[bought] + pd.Timedelta(days=4),
    })  # fmt: skip
    log = frames.from_frames(sends, events)
    got = what_if(log, policies=[PolicySpec(name="linear_thompson", prior_sd=0.3)], goals=["buy"])
    value = got.estimates.query("policy == 'linear_thompson prior_sd=0.3'")["value"].iloc[0]
    assert value > 0.14, value

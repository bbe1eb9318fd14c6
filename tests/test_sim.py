"""The simulator against theory, and what its draws must not depend on."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from justai_sim.api import simulate
from justai_sim.clock import DAY
from justai_sim.errors import DataError, UsageError
from justai_sim.scenario import Scenario, notes, parse, read, with_settings
from justai_sim.sim.cost import affordable
from justai_sim.sim.engine import Block, simulate_block
from justai_sim.sim.record import best_arms, lost_of, race_of, record, served
from justai_sim.tables import CONVERSION, MODES, NONE, UNSUBSCRIBE
from justai_sim.world import laws
from justai_sim.world.codes import COPIES, REFUND, user_of_event
from justai_sim.world.people import Draws
from justai_sim.world.spec import Delay

K = 4.5
"""Bounds in standard errors: one of the handful of checks below fails by chance once in 30,000 changes."""


def small(**settings: Any) -> Scenario:
    """A single touchpoint, uniform policy, no bounces or unsubscribes unless asked for."""
    text = """
name = "small"
days = 40
replications = 2
esp = "generic"
[program]
goals = ["purchase"]
[program.policy]
name = "uniform"
[world]
signups_per_day = 300
organic_per_user_day = 0.0
bounce_rate = 0.0
delay = { law = "exponential", mean_days = 5.0 }
[telemetry]
clean = true
[[variants]]
id = "control"
conversion_rate = 0.2
unsubscribe_rate = 0.0
[[variants]]
id = "b"
conversion_rate = 0.2
unsubscribe_rate = 0.0
[[variants]]
id = "c"
conversion_rate = 0.2
unsubscribe_rate = 0.0
[[flow]]
id = "only"
day = 0
"""
    return with_settings(parse(text, "small"), settings)


def closed(block: Block, lookback: float) -> Any:
    """Rows of sends old enough for the window to be over, with receipt to spare."""
    sends = block.state.sends.table
    end = block.ticks[-1].now
    return (sends.sent_at < end - (lookback + 1) * 86_400_000_000) & block.state.earned.counted[: len(sends)]


def near(share: float, p: float, n: int) -> None:
    assert abs(share - p) < K * math.sqrt(p * (1 - p) / n), (share, p, n)


@pytest.mark.parametrize(("offset", "lookback"), [(3, 14), (0, 14), (0, 7), (0, 3)])
def test_capture_of_an_exponential_delay(offset: float, lookback: float) -> None:
    """theory: a send's conversion is credited with probability p (e^-lo - e^-lL)."""
    s = small(**{"program.rule.offset_days": offset, "program.rule.lookback_days": lookback})
    block = simulate_block(s, range(2))
    use = closed(block, lookback)
    capture = math.exp(-0.2 * offset) - math.exp(-0.2 * lookback)
    near((block.state.earned.numerator[: len(use)][use] > 0).mean(), 0.2 * capture, int(use.sum()))


def test_isolated_sends_with_organic_purchases() -> None:
    """theory: the 0/1 rate is 1 - (1 - pG) e^(-rho W)."""
    rates = {f"variants.{i}.conversion_rate": 0.05 for i in (0, 1, 2)}
    s = small(**{"world.organic_per_user_day": 0.02}, **rates)
    block = simulate_block(s, range(2))
    use = closed(block, 14)
    capture = math.exp(-0.6) - math.exp(-2.8)
    expected = 1 - (1 - 0.05 * capture) * math.exp(-0.02 * 11)
    near((block.state.earned.numerator[: len(use)][use] > 0).mean(), expected, int(use.sum()))
    table = record(block, full=False)["metrics"]
    organic = table["value"][table["metric"] == list(table["names"]).index("credited_organic")].sum()
    caused = table["value"][table["metric"] == list(table["names"]).index("credited_own")].sum()
    share = 0.05 * capture / (0.05 * capture + 0.02 * 11)
    near(caused / (caused + organic), share, int(caused + organic))


def test_more_purchases_than_ids_are_refused() -> None:
    with pytest.raises(UsageError, match="organic_per_user_day is 200: a user would buy more than 4,095 times"):
        simulate_block(small(**{"world.organic_per_user_day": 200, "world.signups_per_day": 1}), range(1))


def test_rates_of_the_world() -> None:
    s = small(**{"world.bounce_rate": 0.1, "variants.0.open_rate": 0.4, "variants.0.click_rate": 0.25})
    block = simulate_block(s, range(2))
    sends, events = block.state.sends.table, block.state.events.table
    control = sends.variant == 2  # 'b' and 'c' sort before 'control'
    n = int(control.sum())
    use = closed(block, 14) & control
    e = block.state.earned
    near(e.opens[: len(use)][use].mean(), 0.4, int(use.sum()))
    near(e.clicks[: len(use)][use].mean(), 0.1, int(use.sum()))
    near((~e.counted[: len(use)][control]).mean(), 0.1, n)
    near(control.mean(), 0.1, len(sends))
    assert np.array_equal(np.unique(sends.propensity[control]), [0.1])
    # sign-ups are Poisson: mean and variance over (world, day) cells
    day = (sends.sent_at - s.start_us) // 86_400_000_000
    counts = np.bincount(sends.rep * 40 + day, minlength=80)[np.tile(np.arange(40) < 39, 2)]
    assert abs(counts.mean() - 300) < K * math.sqrt(300 / 78)
    assert len(events) > 0


def test_laws_are_their_distribution_functions() -> None:
    u = (np.arange(100_000) + 0.5) / 100_000
    weibull, lognormal = Delay(law="weibull", shape=0.7, scale_days=4), Delay(law="lognormal", median_days=2, sigma=1.2)
    for law in (Delay(), weibull, lognormal):
        d = laws.delay(law, u) / 86_400_000_000
        assert np.abs(laws.delay_cdf(law, d) - u).max() < 1e-5
    # theory's figures for the published window
    for law, expected in ((weibull, 0.351), (lognormal, 0.315), (Delay(mean_days=5), 0.488)):
        edges = laws.delay_cdf(law, np.array([3.0, 14.0]))
        assert abs(edges[1] - edges[0] - expected) < 6e-4
    k = laws.poisson(3.7, u)
    assert abs(k.mean() - 3.7) < 1e-3
    assert abs(k.var() - 3.7) < 1e-2


def test_truth_names_one_cause_an_event() -> None:
    block = simulate_block(small(**{"world.organic_per_user_day": 0.01}), range(2))
    truth, events, sends = block.truth, block.state.events.table, block.state.sends.table
    key = truth.rep * np.int64(2**40) + truth.event
    assert len(np.unique(key)) == len(truth)
    paid = events.kind == CONVERSION
    assert np.isin(events.rep[paid] * np.int64(2**40) + events.event[paid], key).all()
    caused = truth.take(truth.cause != NONE)
    cause = dict(zip((sends.rep * np.int64(2**40) + sends.send).tolist(), sends.sent_at.tolist(), strict=True))
    known = [i for i in range(len(caused)) if int(caused.rep[i] * np.int64(2**40) + caused.cause[i]) in cause]
    assert len(known) > 0.99 * len(caused)
    assert all(caused.occurred_at[i] >= cause[int(caused.rep[i] * np.int64(2**40) + caused.cause[i])] for i in known)


def world_of(block: Block, rep: int) -> tuple[Any, ...]:
    log = block.log(rep)
    s, e = log.sends, log.events
    so, eo = np.argsort(s.send), np.lexsort((e.received_at, e.event))
    return (
        *(getattr(s, c.name)[so].tolist() for c in s.SCHEMA if c.name != "propensity"),
        *(getattr(e, c.name)[eo].tolist() for c in e.SCHEMA),
        [t.shares[:, rep - block.reps.start].tolist() for t in block.ticks],
    )


def test_worlds_do_not_depend_on_the_block() -> None:
    s = with_settings(small(), {"program.policy.name": "weighted_thompson", "days": 20})
    whole = simulate_block(s, range(3))
    alone = simulate_block(s, range(2, 3))
    assert world_of(whole, 2) == world_of(alone, 2)
    again = simulate_block(s, range(3))
    assert world_of(whole, 1) == world_of(again, 1)
    other = simulate_block(msgspec.structs.replace(s, seed=2), range(1))
    assert world_of(whole, 0) != world_of(other, 0)


def test_policy_and_window_do_not_change_the_draws() -> None:
    a = simulate_block(small(days=20), range(1))
    other = {"program.policy.name": "weighted_thompson", "program.rule.lookback_days": 7}
    b = simulate_block(small(days=20, **other), range(1))
    order_a, order_b = (np.argsort(x.state.sends.table.send) for x in (a, b))
    sa, sb = a.state.sends.table.take(order_a), b.state.sends.table.take(order_b)
    assert sa.sent_at.tolist() == sb.sent_at.tolist()
    same = sa.variant == sb.variant
    assert 0.3 < same.mean() < 1

    def responses(block: Block) -> set[tuple[int, int]]:
        e = block.state.events.table
        return set(zip(e.event.tolist(), e.occurred_at.tolist(), strict=True))

    # where the choice is the same, so are the responses
    users = set(sa.user[~same].tolist())
    ra, rb = ({p for p in responses(x) if (p[0] // 1024) // 128 not in users} for x in (a, b))
    assert ra == rb


def test_an_unsubscribe_stops_later_sends() -> None:
    s = read("welcome")
    raw = msgspec.structs.replace(s.world, signups_per_day=60)
    variants = [msgspec.structs.replace(v, unsubscribe_rate=0.5) for v in s.variants]
    s = msgspec.structs.replace(s, world=raw, variants=variants, days=30, esp="generic", sweep={})
    block = simulate_block(s, range(1))
    sends, events = block.state.sends.table, block.state.events.table
    gone = events.take(events.kind == UNSUBSCRIBE)
    left = dict(zip(gone.user.tolist(), gone.occurred_at.tolist(), strict=True))
    assert len(left) > 300
    assert all(t <= left.get(u, 2**62) for u, t in zip(sends.user.tolist(), sends.sent_at.tolist(), strict=True))


@pytest.mark.parametrize("wire", [False, True])
def test_every_row_knows_what_it_tells_of(wire: bool) -> None:
    s = small(
        days=12,
        **{
            "telemetry.clean": False,
            "telemetry.duplicate_share": 0.2,
            "telemetry.lost_share": 0.0,
            "world.organic_per_user_day": 0.02,
            "esp": "braze",
        },
    )
    block = simulate_block(with_settings(s, {"world.signups_per_day": 30}), range(2), wire=wire)
    events = block.state.events.table
    true = block.origin != NONE
    assert np.array_equal(block.origin[true], events.event[true])
    assert (events.machine[~true] >= 0).all(), "what no person did is an open or a click"
    told = np.concatenate([block.origin[events.kind == CONVERSION], block.unheard.origin])
    before_the_end = block.truth.take(block.truth.occurred_at < s.end_us)
    assert np.isin(before_the_end.event, told).all()
    assert len(block.unheard.events) > 0


def test_a_caused_purchase_may_take_the_place_of_the_next_organic_one() -> None:
    """A plain loop over each user's purchases in time finds the same organic ones missing."""
    own = {"world.organic_per_user_day": 0.05, "world.refund_rate": 0.2}
    plain = simulate_block(small(days=30, **own), range(2))
    s = small(days=30, **own, **{"world.replaces_organic": 0.6})
    block = simulate_block(s, range(2))
    draws = Draws(s.seed, 0)

    def by_user(truth: Any) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
        out: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for i in np.flatnonzero(truth.value >= 0).tolist():
            key = int(truth.rep[i]), int(user_of_event(truth.event[i : i + 1])[0])
            out.setdefault(key, []).append((int(truth.occurred_at[i]), int(truth.event[i]), int(truth.cause[i])))
        return {k: sorted(v) for k, v in out.items()}

    expected: set[tuple[int, int]] = set()
    for (rep, _), purchases in by_user(plain.truth).items():
        gone: set[int] = set()
        for t, event, cause in purchases:
            if cause == NONE or t >= s.end_us:
                continue
            one = np.array([rep], np.int32), np.array([event])
            if draws("replaces", *one)[0] < 0.6:
                later = [e for at, e, c in purchases if c == NONE and at > t and e not in gone]
                gone.update(later[:1])
        expected |= {(rep, e) for e in gone}
    assert len(expected) > 300
    missing = {(r, e) for r, e in zip(plain.truth.rep.tolist(), plain.truth.event.tolist(), strict=True)}
    missing -= {(r, e) for r, e in zip(block.truth.rep.tolist(), block.truth.event.tolist(), strict=True)}
    assert {m for m in missing if m[1] % COPIES == 0} == expected
    assert {m for m in missing if m[1] % COPIES} <= {(r, e + REFUND) for r, e in expected}
    assert len(block.replacing) == len(expected)
    table = record(block, full=False)["metrics"]

    def total(name: str) -> float:
        return float(table["value"][table["metric"] == list(table["names"]).index(name)].sum())

    assert total("added") == total("caused") - len(expected)


@pytest.mark.parametrize("spread", [1e-300, 1e-9, 1e-4])
def test_a_spread_next_to_none_is_none(spread: float):
    assert laws.gamma_factor(spread, np.array([0.01, 0.5, 0.99])) == pytest.approx(1, abs=4 * spread + 1e-5)


def test_a_run_without_any_message_is_refused():
    """Steps of the flow go to those who sign up, and not to the users of the start."""
    with pytest.raises(UsageError, match="no message would be sent in 40 days"):
        affordable(small(**{"world.signups_per_day": 0, "world.initial_users": 1000}))
    with pytest.raises(UsageError, match="no message would be sent"):
        affordable(small(**{"flow.0.day": 40}))
    affordable(small())


THREE = [
    {"id": "c", "conversion_rate": 0.1},
    {"id": "a", "conversion_rate": 0.2},
    {"id": "b", "conversion_rate": 0.4, "from_day": 10, "until_day": 20},
]


def test_nothing_is_lost_against_a_variant_that_is_not_there():
    """An even split of c, a and b loses 0.2, 0.2 and 0 against b where it is there, and half of 0.1 where it is not."""
    block = simulate_block(small(variants=THREE, **{"program.control_share": 1 / 3}), range(2))
    day = np.array([(t.now - block.scenario.start_us) / DAY for t in block.ticks])
    sends = block.state.sends.table
    sent = (sends.sent_at - block.scenario.start_us) / DAY
    arm = block.machine.layout.arm[sends.template, sends.variant]
    rate = np.array([0.1, 0.2, 0.4])
    best = np.where((sent >= 10) & (sent < 20), 0.4, 0.2)
    lost, _ = lost_of(block)
    for d in (5, 10, 15, 20, 40):
        for rep in range(2):
            mine = (sends.rep == rep) & (sent < d)
            assert lost[day == d, rep] == pytest.approx(1e4 * (best - rate[arm])[mine].mean())


def test_shares_are_those_of_the_messages():
    """A split of the provider's own is even, whatever the policy would have done."""
    given = {"program.split": "external", "program.policy.name": "weighted_thompson", "variants": THREE}
    block = simulate_block(small(**given), range(2))
    share = served(block)
    sends = block.state.sends.table
    day = (sends.sent_at - block.scenario.start_us) // DAY
    assert share[5, 0, 0].tolist() == [0.5, 0.5, 0.0]
    assert share[15, 0, 0] == pytest.approx([1 / 3] * 3)
    assert share[25, 0, 0].tolist() == [0.5, 0.5, 0.0]
    arm = block.machine.layout.arm[sends.template, sends.variant]
    for low, high in ((0, 10), (10, 20), (20, 40)):
        got = np.bincount(arm[(day >= low) & (day < high)], minlength=3)
        want = share[low, 0, 0] * got.sum()
        assert (np.abs(got - want) <= K * np.sqrt(want)).all()


def test_the_share_of_a_contextual_policy_is_that_of_its_users():
    """One user in ten is paid and has another best variant: it weighs a tenth, and a segment without users nothing."""
    given = {
        "world.attributes": {"plan": {"free": 0.9, "paid": 0.1}}, "program.segments": {"plan": ["free", "paid"]},
        "program.policy.name": "logistic_thompson", "program.control_share": 0.0,
        "world.delay.mean_days": 0.5, "program.rule.offset_days": 0.0,
        "variants": [{"id": "c", "conversion_rate": 0.1}, {"id": "a", "conversion_rate": 0.3},
                     {"id": "b", "conversion_rate": 0.05, "segments": {"plan=paid": 16}}],
    }  # fmt: skip
    block = simulate_block(small(**given), range(2))
    sends = block.state.sends.table
    last = sends.sent_at >= block.ticks[-8].now
    arm = block.machine.layout.arm[sends.template, sends.variant][last]
    got = np.bincount(arm, minlength=3)
    want = served(block)[-8:-1].mean(axis=(0, 1, 2)) * got.sum()
    assert (np.abs(got - want) <= K * np.sqrt(want) + 5).all()


def test_a_choice_made_anew_is_not_sticky():
    """Users who had the archived variant are drawn again, with a propensity of its own: a choice of the policy."""
    given = {
        "program.sticky": "variant",
        "variants": THREE,
        "flow.0.times": 4,
        "flow.0.every_days": 5.0,
        "world.signups_per_day": 60,
    }
    log = simulate_block(small(**given), range(1)).log(0)
    d = log.decisions
    before: dict[tuple[int, int], int] = {}
    anew = 0
    for user, template, variant, mode in zip(
        d.user.tolist(), d.template.tolist(), d.variant.tolist(), d.mode.tolist(), strict=True
    ):
        had = before.get((user, template))
        assert MODES[mode] == ("sticky" if had == variant else "policy")
        anew += had is not None and had != variant
        before[user, template] = variant
    assert anew > 10


@pytest.mark.parametrize(("rate", "mean"), [(0.07, 30.0), (0.1, 21.0), (0.21, 10.0), (0.3, 7.0), (0.7, 3.0)])
def test_variants_that_earn_the_same_are_all_best(rate: float, mean: float):
    variants = [{"id": "c", "conversion_rate": 0.01, "value": {"mean": 10}},
                {"id": "a", "conversion_rate": 0.21, "value": {"mean": 10}},
                {"id": "b", "conversion_rate": rate, "value": {"mean": mean}}]  # fmt: skip
    found = small(variants=variants, **{"program.key_metric": "revenue_per_send"})
    assert best_arms(found).tolist() == [[False, True, True]]


SLOWLY = {
    "days": 30, "program.rule.offset_days": 0, "variants.0.conversion_rate": 0.05,
    "variants.1": {"id": "b", "conversion_rate": 0.6, "unsubscribe_rate": 0.0,
                   "delay": {"law": "weibull", "shape": 8, "scale_days": 9}},
    "variants.2": {"id": "c", "conversion_rate": 0.3, "unsubscribe_rate": 0.0, "delay": {"mean_days": 0.2}},
}  # fmt: skip
"""b is the best, but nobody buys before the fifth day: c leads at first."""


def right_by_day(settings: dict[str, Any]) -> dict[float, float]:
    race = race_of(simulate_block(small(**(SLOWLY | settings)), range(2)))
    return {d: float(race["right_leader"][race["day"] == d].mean()) for d in np.unique(race["day"]).tolist()}


def test_what_is_archived_does_not_lead() -> None:
    assert right_by_day({})[10] == 0
    c = SLOWLY["variants.2"] | {"until_day": 6}
    found = right_by_day({"variants.2": c})
    assert found[6] == 0, "what is archived at an instant was there until then"
    assert found[10] == found[20] == 1
    # To the end of the run is all the time.
    assert right_by_day({"variants.2": c | {"until_day": 30}}) == right_by_day({})


def test_the_best_is_one_of_those_that_are_there() -> None:
    late = SLOWLY["variants.1"] | {"from_day": 12}
    found = right_by_day({"variants.1": late})
    assert found[11] == found[12] == 1, "c leads, and b is not there yet"
    assert found[13] == 0


def test_once_one_is_shipped_it_leads() -> None:
    """In the end b is ahead by what its sends before the ship have earned, but everybody gets c."""
    unshipped = right_by_day({})
    shipped = right_by_day({"program.shipping": {"rule": "significance", "settings": {"min_sends": 100}}})
    assert unshipped[30] == 1
    assert set(shipped.values()) == {0.0}


def test_chances_beyond_certainty_are_cut() -> None:
    """Of two equal halves of the users one would convert with probability 1.5: all of them do, and so fewer in all."""
    s = small(**{"world.attributes": {"plan": {"free": 1, "paid": 1}}, "variants.0.conversion_rate": 0.5,
                 "variants.0.segments": {"plan=paid": 3.0}, "program.control_share": 0.9, "days": 20})  # fmt: skip
    assert any("some would convert with probability 1.5; it is cut at 1" in n for n in notes(s))
    block = simulate_block(s, range(2))
    sends = block.state.sends.table
    names = np.array(block.codes["variant"].text(np.arange(3)))
    mine = (names[sends.variant] == "control") & (sends.rep == 0)
    caused = np.isin(sends.send[mine], block.truth.cause[block.truth.rep == 0])
    near(float(caused.mean()), (0.5 + 1) / 2, len(caused))


def test_openers_do_not_convert_with_more_than_certainty():
    """Clickers at 50 times the others would have to convert with 4: then the rate could not be the mean."""
    with pytest.raises(DataError, match=r"the likeliest would convert with probability 4\.05; expected at most 1"):
        small(**{"world.click_effect": 50.0})
    block = simulate_block(small(**{"world.click_effect": 5.0}), range(1))
    early = block.state.sends.table.sent_at < block.scenario.start_us + 10 * DAY
    sent = block.state.sends.table.send[early]
    caused, n = np.isin(block.truth.cause, sent).sum(), len(sent)
    assert caused == pytest.approx(0.2 * n, abs=K * math.sqrt(0.2 * 0.8 * n))


def test_where_nobody_converts_no_rate_is_the_mean():
    with pytest.raises(DataError, match="nobody would convert, since all open"):
        small(**{"world.open_effect": 0.0, "world.click_effect": 0.0, "variants.1.open_rate": 1.0})


@pytest.mark.parametrize(("source", "rep"), [(None, 0), (7, 0), ("welcome", 1.5), ("welcome", -1)])
def test_what_is_no_scenario_or_no_world_is_refused(source: Any, rep: Any) -> None:
    with pytest.raises(UsageError, match="expected"):
        simulate(source, rep=rep)

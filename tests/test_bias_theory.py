"""Where the credit of overlapping sends goes: the closed forms of theory, read off the terms of the bias identity.

Users are independent: each has one send at day 0 that causes one conversion after an exponential delay, and other
sends by a schedule that cause nothing. Only sends within the lookback before the conversion can matter, so no others
are made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from justai_sim.attribution import Rule, bind
from justai_sim.biases.identity import Identity, identity
from justai_sim.biases.match import HELD
from justai_sim.biases.terms import TERM
from justai_sim.clock import DAY
from justai_sim.tables import HELD_OUT, NONE, PARTS, SENT, Events, Sends
from justai_sim.truth import Behind, Truth, Unheard

START = 1_772_668_800_000_000
K = 4.5
"""Bounds in standard errors."""
MEAN, OFFSET, LOOKBACK, MU = 5.0, 3.0, 14.0, 0.15
M = MU * (LOOKBACK - OFFSET)
CAUSE, OTHER = 0, 1
"""Variants: the send that caused the conversion, all others."""


def cdf(x: float) -> float:
    return 1 - math.exp(-x / MEAN) if x > 0 else 0.0


G = cdf(LOOKBACK) - cdf(OFFSET)


def near(found: float, expected: float, n: int, variance: float | None = None) -> None:
    """Within K standard errors of a mean of n; `variance` of one, a share's unless said."""
    v = expected * (1 - expected) if variance is None else variance
    assert abs(found - expected) <= K * math.sqrt(max(v, 0) / n) + 1e-9, (found, expected, n)


def ago(n: int, rng: np.random.Generator) -> np.ndarray:
    """Days from each user's send to what it causes."""
    return rng.exponential(MEAN, n)


def poisson(delay: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(user, day since the causing send) of sends at rate MU in the lookback before the conversion."""
    user = np.repeat(np.arange(len(delay)), rng.poisson(MU * LOOKBACK, len(delay)))
    return user, delay[user] - rng.uniform(0, LOOKBACK, len(user))


def cadence(delay: np.ndarray, g: float) -> tuple[np.ndarray, np.ndarray]:
    """Sends every g days, the causing one among them, from before the lookback up to the conversion."""
    first = np.floor((delay - LOOKBACK) / g).astype(int)
    count = np.floor(delay / g).astype(int) - first + 1
    user = np.repeat(np.arange(len(delay)), count)
    step = first[user] + np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    return user[step != 0], (step * g)[step != 0]


def terms(rule: Rule, delay: np.ndarray, others: tuple[np.ndarray, np.ndarray], held: Any = 0, organic: int = 0) -> Any:
    """The identity where each user's send of day 0 causes a conversion `delay` days later.

    `held`: which users are held out: theirs are ghost sends, and they convert only of themselves. `organic`: a
    conversion of every user's own at the same instant.
    """
    n = len(delay)
    user = np.concatenate([np.arange(n), others[0]])
    day = np.concatenate([np.zeros(n), others[1]])
    out = np.broadcast_to(held, n).astype(bool)
    at = START + np.rint((day + 60) * DAY).astype(np.int64)
    sends = Sends.build(
        len(user), send=np.arange(len(user)), user=user, template=0, sent_at=at, received_at=at,
        variant=np.where(np.arange(len(user)) < n, CAUSE, OTHER), status=np.where(out[user], HELD_OUT, SENT),
    )  # fmt: skip
    when = START + np.rint((delay + 60) * DAY).astype(np.int64)
    who = np.flatnonzero(~out)
    who, cause = np.concatenate([who, np.arange(n * organic)]), np.concatenate([who, np.full(n * organic, NONE)])
    event = np.arange(len(who))
    events = Events.build(len(who), event=event, user=who, kind=0, name=0, occurred_at=when[who],
                          received_at=when[who])  # fmt: skip
    truth = Truth.build(len(who), event=event, cause=cause, occurred_at=when[who])
    behind = Behind(truth, event, Unheard(Sends.empty(), Events.empty(), np.zeros(0, np.int64)))
    bound = bind(rule, templates=["T"], names=["purchase"])
    return identity(bound, sends, events, behind, int(when.max()) + 1)


def total(found: Identity, term: str, variant: int | None = None) -> float:
    here = np.ones(len(found.variant), bool) if variant is None else found.variant == variant
    return float(found.amount["events"][here, TERM[term]].sum()) / PARTS


def per_conversion(found: Identity) -> dict[str, float]:
    """own, borrowed, none, and what its own send missed, per caused conversion."""
    n = total(found, "caused")
    missed = {t: -total(found, t) / n for t in ("too_early", "too_late", "elsewhere")}
    own, borrowed = 1 - sum(missed.values()), total(found, "borrowed") / n
    return missed | {"own": own, "borrowed": borrowed, "none": 1 - own - borrowed}


def test_last_qualifying_under_poisson_sends() -> None:
    rng, n = np.random.default_rng(1), 60_000
    delay = ago(n, rng)
    got = per_conversion(terms(Rule(repeat="every"), delay, poisson(delay, rng)))
    rate = 1 / MEAN
    own = rate * math.exp(MU * OFFSET) / (rate + MU)
    own *= math.exp(-(rate + MU) * OFFSET) - math.exp(-(rate + MU) * LOOKBACK)
    near(got["own"], own, n)
    later = G - own + (1 - cdf(LOOKBACK)) * (1 - math.exp(-M))
    earlier = cdf(OFFSET) * (1 - math.exp(-M))
    near(got["borrowed"], later + earlier, n)
    near(got["none"], (1 - G) * math.exp(-M), n)
    near(got["elsewhere"], G - own, n)
    near(got["too_early"], cdf(OFFSET), n)
    near(got["too_late"], 1 - cdf(LOOKBACK), n)
    assert abs(own - 0.307) < 6e-4
    assert abs(later - 0.230) < 6e-4
    assert abs(earlier - 0.365) < 6e-4


@pytest.mark.parametrize("g", [2.0, 5.0])
def test_last_qualifying_at_a_cadence(g: float) -> None:
    """Everything is credited; what the own send missed while it was in its offset went to an earlier one."""
    rng, n = np.random.default_rng(2), 30_000
    delay = ago(n, rng)
    got = per_conversion(terms(Rule(repeat="every"), delay, cadence(delay, g)))
    near(got["own"], cdf(OFFSET + g) - cdf(OFFSET), n)
    near(got["too_early"], cdf(OFFSET), n)
    near(got["elsewhere"] + got["too_late"], 1 - cdf(OFFSET + g), n)
    near(got["too_late"], 1 - cdf(LOOKBACK), n)
    assert got["none"] == pytest.approx(0, abs=1e-9)


def test_last_then_check() -> None:
    rng, n = np.random.default_rng(3), 60_000
    delay, rule = ago(n, rng), Rule(credit="last_then_check", repeat="every")
    got = per_conversion(terms(rule, delay, poisson(delay, rng)))
    rate = 1 / MEAN
    own = rate * math.exp(MU * OFFSET) / (rate + MU)
    own *= math.exp(-(rate + MU) * OFFSET) - math.exp(-(rate + MU) * LOOKBACK)
    near(got["own"], own * math.exp(-MU * OFFSET), n)
    daily = per_conversion(terms(rule, delay[:5000], cadence(delay[:5000], 2.0)))
    assert daily["own"] == daily["borrowed"] == 0, "with g <= o no send is ever credited"
    near(daily["elsewhere"], G, 5000)


def test_linear_and_all_under_poisson_sends() -> None:
    rng, n = np.random.default_rng(4), 60_000
    delay = ago(n, rng)
    others = poisson(delay, rng)
    linear = per_conversion(terms(Rule(credit="linear", repeat="every"), delay, others))
    near(linear["own"], G * (1 - math.exp(-M)) / M, n, variance=0.25)
    near(linear["none"], (1 - G) * math.exp(-M), n)
    every = per_conversion(terms(Rule(credit="all", repeat="every"), delay, others))
    near(every["own"], G, n)
    near(every["borrowed"], M, n, variance=M)
    assert every["elsewhere"] == 0, "the only rule without attenuation"


def test_all_inflates_totals() -> None:
    """Organic purchases at random instants among Poisson sends: m / (1 - e^-m) credits for each that is credited."""
    rng, n = np.random.default_rng(5), 60_000
    delay = ago(n, rng)
    user, day = poisson(delay, rng)
    far = 1000  # the send of day 0 is out of every window
    every, once = (
        terms(Rule(credit=c, repeat="every"), delay + far, (user, day + far), organic=1)
        for c in ("all", "last_qualifying")
    )
    near(total(every, "organic") / n, M, n, variance=M)
    near(total(once, "organic") / n, 1 - math.exp(-M), n)


@pytest.mark.parametrize("credit", ["last_qualifying", "linear", "first_qualifying", "all"])
def test_treatment_minus_ghosts(credit: Any) -> None:
    """Whole users held out, counts per send: p (1 - (1 - G) e^-m) under rules that always credit a candidate, p (G + m)
    under `all`; p and p W / g at a cadence g. Organic purchases cancel. Here p = 1."""
    rng, n = np.random.default_rng(6), 40_000
    delay, held = ago(n, rng), np.arange(n) % 2 == 0
    rule = Rule(credit=credit, repeat="every")
    found = terms(rule, delay, poisson(delay, rng), held, organic=1)
    ghosts = found.variant == HELD
    caused, free = total(found, "caused"), found.amount["events"][:, TERM["organic"]] / PARTS
    assert caused == n / 2
    scatter = 2 * (M + 1) if credit == "all" else 0.5
    near((free[~ghosts].sum() - free[ghosts].sum()) / caused, 0, n // 2, variance=scatter)
    assert found.amount["events"][ghosts, TERM["shown"]].sum() == found.amount["events"][ghosts, TERM["organic"]].sum()
    shown = found.amount["events"][:, TERM["shown"]] / PARTS
    expected = G + M if credit == "all" else 1 - (1 - G) * math.exp(-M)
    # Purchases of one user at one instant are credited alike: 3 sums of up to 2 each.
    near((shown[~ghosts].sum() - shown[ghosts].sum()) / caused, expected, n // 2, variance=4 * scatter)
    near((total(found, "borrowed") + per_conversion(found)["own"] * caused) / caused, expected, n // 2, scatter)
    g = 2.75
    regular = per_conversion(terms(rule, delay[:4000], cadence(delay[:4000], g)))
    assert regular["own"] + regular["borrowed"] == pytest.approx((LOOKBACK - OFFSET) / g if credit == "all" else 1)


def test_unsubscribes_inflate_last_touch_credit() -> None:
    """Organic credit of a send: rho g where the next send follows, rho W after an unsubscribe: 5.5 times at g = 2."""
    rng, n, g, rho = np.random.default_rng(7), 20_000, 2.0, 0.05
    window = LOOKBACK - OFFSET
    leaves = np.arange(n) % 2 == 0
    steps = np.arange(1, 9)  # until no purchase of the send's window is nearer to its end
    user = np.repeat(np.flatnonzero(~leaves), len(steps))
    day = np.concatenate([np.zeros(n), np.tile(steps * g, int((~leaves).sum()))])
    who = np.concatenate([np.arange(n), user])
    at = START + np.rint(day * DAY).astype(np.int64)
    sends = Sends.build(len(who), send=np.arange(len(who)), user=who, template=0, sent_at=at, received_at=at,
                        variant=np.where(day > 0, 2, leaves[who]))  # fmt: skip
    bought = np.repeat(np.arange(n), rng.poisson(rho * LOOKBACK, n))
    when = START + rng.integers(0, int(LOOKBACK) * DAY, len(bought))
    event = np.arange(len(bought))
    events = Events.build(len(event), event=event, user=bought, kind=0, name=0, occurred_at=when, received_at=when)
    behind = Behind(Truth.build(len(event), event=event, cause=np.full(len(event), NONE), occurred_at=when), event,
                    Unheard(Sends.empty(), Events.empty(), np.zeros(0, np.int64)))  # fmt: skip
    bound = bind(Rule(repeat="every"), templates=["T"], names=["purchase"])
    found = identity(bound, sends, events, behind, START + 30 * DAY)
    stays, gone = (total(found, "organic", v) / (n / 2) for v in (0, 1))
    near(stays, rho * g, n // 2, variance=rho * g)
    near(gone, rho * window, n // 2, variance=rho * window)
    assert window / g == 5.5

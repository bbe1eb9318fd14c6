"""What messages add and what a window sees of it, on worlds whose truth is known."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import justai_sim as js
from justai_sim import frames, stats
from justai_sim.cli import run
from justai_sim.clock import DAY, parse
from justai_sim.estimate.additive import Fit, fit
from justai_sim.estimate.age import send_weights
from justai_sim.estimate.delay import (
    UNLIKE,
    Captured,
    Value,
    Window,
    background_words,
    less_than_half,
    rankings,
    warnings,
)
from justai_sim.pages.delay import lines, sentence
from justai_sim.streams import generator

T0 = parse("2026-01-05T00:00:00Z")
DAYS, GROUPS, RHO = 60, 50, 0.002
NAMES = list("abcdef")


def world(
    name: str, rates: list[float], means: list[float], users: int = 20_000, held: float = 0.0, before: float = 0.0,
    gaps: tuple[float, ...] = (0.0,),
) -> dict[str, Any]:  # fmt: skip
    """Users who sign up over 30 days and get a message of a random variant at each of `gaps` days; `held` of them are
    ghosts; `before`: days that the log knows of a user before the first message."""
    rng, U, V = generator(0, name), users, len(rates)
    joined, ghost = rng.uniform(0, 30, U), rng.random(U) < held
    user, column, at, buyer, when = [], [], [], [], []
    for g in gaps:
        v = rng.integers(0, V, U)
        sent = joined + g + rng.uniform(0, 0.2, U)
        user.append(np.arange(U))
        column.append(np.where(ghost, -1, v))
        at.append(sent)
        buys = (rng.random(U) < np.array(rates)[v]) & ~ghost
        buyer.append(np.flatnonzero(buys))
        when.append((sent + rng.exponential(np.array(means)[v]))[buys])
    n = rng.poisson(RHO * (DAYS - joined + before))
    buyer.append(np.repeat(np.arange(U), n))
    when.append(np.repeat(joined - before, n) + rng.random(n.sum()) * np.repeat(DAYS - joined + before, n))
    u, c, a, b, w = (np.concatenate(x) for x in (user, column, at, buyer, when))
    sent, bought = a < DAYS, w < DAYS
    return {
        "user": u[sent], "column": c[sent], "at": T0 + (a[sent] * DAY).astype(np.int64), "group": u[sent] % GROUPS,
        "event_user": b[bought], "event_at": T0 + (w[bought] * DAY).astype(np.int64),
        "start": T0 - round(before * DAY), "end": T0 + DAYS * DAY, "variants": V, "groups": GROUPS,
    }  # fmt: skip


def fitted(*args: Any, **kw: Any) -> Fit:
    got = fit(**world(*args, **kw))
    assert got is not None
    return got


@cache
def fast_and_slow(**kw: Any) -> Fit:
    return fitted("fast and slow", [0.05, 0.03], [1.5, 8.0], users=40_000, **kw)


def brute(w: dict[str, Any], ages: int, entry: dict[int, int]) -> tuple[Any, Any]:
    """Normal equations of the additive model by walking over users in steps of an hour's tenth."""
    step = DAY // 240
    P = 1 + w["variants"] * ages
    X, y = np.zeros((P, P)), np.zeros(P)
    for u, opened in entry.items():
        mine = [(int(t), int(c)) for t, c, v in zip(w["at"], w["column"], w["user"], strict=True) if v == u and c >= 0]

        def row(now: int, mine: list[tuple[int, int]] = mine) -> Any:
            x = np.zeros(P)
            x[0] = 1
            for t, c in mine:
                if 0 <= now - t < ages * DAY:
                    x[1 + c * ages + (now - t) // DAY] += 1
            return x

        for now in range(opened + step // 2, w["end"], step):
            x = row(now)
            X += np.outer(x, x) / 240
        for when in w["event_at"][w["event_user"] == u].tolist():
            if opened <= when <= w["end"]:
                y += row(when)
    return X, y


def test_the_fit_is_least_squares_over_users_time() -> None:
    w = world("brute", [0.9, 0.7], [1.5, 4.0], users=12, gaps=(0.0, 0.4, 2.0, 5.0))
    w["start"], w["end"] = T0, T0 + 14 * DAY
    keep, known = w["at"] < w["end"], w["event_at"] < w["end"]
    w |= {k: w[k][keep] for k in ("user", "column", "at", "group")}
    w |= {k: w[k][known] for k in ("event_user", "event_at")}
    got = fit(**w)
    assert got is not None
    assert got.kind == "upper"
    entry = {int(u): int(w["at"][w["user"] == u].min()) for u in np.unique(w["user"])}
    X, y = brute(w, got.ages, entry)
    active = np.diag(X) > 0
    theta = np.linalg.solve(X[np.ix_(active, active)], y[active])
    mine = np.concatenate([[got.background], got.effect.ravel()])[active]
    np.testing.assert_allclose(mine, theta, atol=0.03 * np.abs(theta).max())


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"held": 0.2}, "holdout"),
        ({"before": 20.0}, "before"),
        ({}, "upper"),
        ({"held": 0.2, "gaps": (0.0, 2.0, 5.0, 10.0, 13.0)}, "holdout"),
        ({"gaps": (0.0, 2.0, 5.0, 10.0, 13.0)}, "upper"),
    ],
)
def test_effects_and_shares_are_the_worlds(options: dict[str, Any], kind: str) -> None:
    got = fast_and_slow(**options)
    assert (got.kind, got.known, got.ages) == (kind, True, 30)
    look = Window(got, 3, 14, 2)
    for v, (rate, mean) in enumerate([(0.05, 1.5), (0.03, 8.0)]):
        c = look.captured(v)
        full = 1 - math.exp(-30 / mean)
        # What comes after day 30 is in the upper bound of the background.
        slack = rate * (1 - full) * 2 if kind == "upper" else 0.0
        for value, truth in ((c.total, rate * full), (c.window, rate * (math.exp(-3 / mean) - math.exp(-14 / mean)))):
            assert abs(value.value - truth) < 2.2 * (value.high - value.low) / 2 + slack
        assert c.share is not None
        truth = (math.exp(-3 / mean) - math.exp(-14 / mean)) / full
        assert abs(c.share.value - truth) < 2.2 * (c.share.high - c.share.low) / 2
    words = {"holdout": "held-out users", "before": "level before users' first message", "upper": "upper bound"}
    assert words[kind] in background_words(got)


@pytest.mark.parametrize("options", [{"held": 0.2}, {"before": 20.0}, {}])
def test_14_3_loses_more_than_half_and_turns_the_ranking_round_for_fast_converters(options: dict[str, Any]) -> None:
    said = warnings(Window(fast_and_slow(**options), 3, 14, 2), NAMES, 3, 14)
    assert len(said) == 2
    assert said[0].startswith("Loses more than half: the window (day 3 to day 14) sees ")
    assert said[1] == (
        "The window turns the ranking round: b adds more than a inside the window (day 3 to day 14), "
        "and less within 30 days."
    )
    assert warnings(Window(fast_and_slow(**options), 0, 30, 2), NAMES, 0, 30) == []


def test_slow_equal_delays_are_warned_about_as_rarely_as_stated() -> None:
    """Equal delays of 8 days: [3, 14) sees 53 % of 30 days. Each of the two warnings is false in 5 % at most."""
    logs, lose, turn = 100, 0, 0
    for k in range(logs):
        got = fitted(f"slow {k}", [0.04, 0.04], [8.0, 8.0], users=10_000, held=0.2)
        said = warnings(Window(got, 3, 14, 2), NAMES, 3, 14)
        lose += any("Loses" in s for s in said)
        turn += any("ranking" in s for s in said)
    most = 0.05 + 4 * math.sqrt(0.05 * 0.95 / logs)
    assert lose / logs < most
    assert turn / logs < most


def test_of_many_variants_one_alone_has_to_be_surer_that_it_loses_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end of 49 % at 95 % is not below half once there are two to choose from; all together are one question."""
    look = Window(fast_and_slow(held=0.2), 3, 14, 2)

    def captured(_: Window, variant: int, level: float = 0.95) -> Captured:
        some = Value(0.02, 0.01, 0.03)
        end = 0.6 if variant < 0 else 0.49 if level <= 0.95 else 0.51
        return Captured(variant, 100, some, some, Value(0.4, 0.3, end))

    monkeypatch.setattr(Window, "captured", captured)
    assert less_than_half(look) == []
    assert not any("Loses" in s for s in warnings(look, NAMES, 3, 14))


@pytest.mark.slow
def test_eight_variants_that_lose_just_half_are_warned_about_as_rarely_as_stated() -> None:
    """Delays of 8 days: [3, 12.91) sees 50 % of 30 days of each of them."""
    logs, lose, alone = 150, 0, 0
    for k in range(logs):
        got = fitted(f"eight {k}", [0.06] * 8, [8.0] * 8, users=16_000, held=0.2)
        look = Window(got, 3, 12.91, 8)
        few = less_than_half(look)
        lose += bool(few)
        alone += any(c.share is not None and c.share.high < 0.5 for c in map(look.captured, range(8)))
    print(f"{lose} of {logs} logs name a variant; without Bonferroni {alone} would")
    assert lose / logs < 0.05 + 4 * math.sqrt(0.05 * 0.95 / logs)
    assert alone > lose


def test_effects_below_the_noise_have_no_share_but_a_sentence() -> None:
    got = fitted("nothing", [0.0, 0.0], [8.0, 8.0], users=5000, held=0.2)
    look = Window(got, 3, 14, 2)
    assert look.captured(-1).share is None
    (said,) = warnings(look, NAMES, 3, 14)
    assert "cannot be told from the background" in said


def test_users_who_sign_up_for_the_message_are_not_there_before_it() -> None:
    """Without days before it, the first hours between sign-up and message must not be taken for the background."""
    got = fast_and_slow()
    assert got.kind == "upper"
    assert got.background == pytest.approx(RHO, rel=0.15)


def test_without_time_to_follow_there_is_nothing_to_say() -> None:
    w = world("short", [0.1], [1.0], users=50)
    assert fit(**(w | {"end": T0 + DAY // 2})) is None
    none = np.zeros(0, np.int64)
    assert fit(**(w | dict.fromkeys(("user", "column", "at", "group"), none))) is None
    ghosts = w | {"column": np.full(len(w["user"]), -1)}
    assert fit(**ghosts) is None


def test_fieller_covers_ratios_and_refuses_a_denominator_that_may_be_zero() -> None:
    rng, n, inside = generator(0, "fieller"), 4000, 0
    for a, b in zip(rng.normal(1, 0.3, n), rng.normal(4, 0.8, n), strict=True):
        low, high = stats.ratio_interval(a, b, 0.09, 0.64, 0.0)
        inside += not low > 0.25 and not high < 0.25  # a refusal claims nothing
    assert abs(inside / n - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n)
    assert math.isnan(stats.ratio_interval(1, 0.1, 1, 1, 0)[0])


def test_weights_give_every_variant_the_same_days() -> None:
    """Simpson: shares .1 then .9 while the level falls; pooled rates differ, weighted ones do not."""
    rng, n = generator(0, "simpson"), 4000
    day = rng.integers(0, 2, n)
    p = np.where(day == 0, 0.1, 0.9)
    variant = (rng.random(n) < p).astype(np.int64)
    chance = np.where(variant == 1, p, 1 - p)
    template, at = np.zeros(n, np.int64), T0 + day * DAY
    for propensity, name, exact in ((chance, "inverse propensity", False), (np.full(n, np.nan), "day", True)):
        weight, said = send_weights(variant, template, at, propensity)
        assert said == name
        shares = [np.average(day[variant == v], weights=weight[variant == v]) for v in (0, 1)]
        if exact:
            assert shares == pytest.approx([day.mean()] * 2)
        else:
            assert shares == pytest.approx([day.mean()] * 2, abs=4 * 0.5 / math.sqrt(n * 0.1 / 2))
        for v in (0, 1):
            assert weight[variant == v].mean() == pytest.approx(1)
    left_out, _ = send_weights(np.where(day == 0, -1, variant), template, at, chance)
    assert (left_out[day == 0] == 0).all()
    assert send_weights(np.full(2, -1), template[:2], at[:2], chance[:2])[1] == "none"


def as_log(folder: Path, **options: Any) -> Any:
    w = world("log", [0.05, 0.03], [1.5, 8.0], users=12_000, **options)
    names = np.array(["fast", "slow", "slow"])
    stamp = lambda t: pd.to_datetime(t, unit="us", utc=True)  # noqa: E731
    held = w["column"] < 0
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(len(held))], "user_id": [f"u{u}" for u in w["user"]], "template_id": "T",
        "variant_id": names[w["column"]], "sent_at": stamp(w["at"]), "status": np.where(held, "held_out", "sent"),
    })  # fmt: skip
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in range(len(w["event_at"]))], "user_id": [f"u{u}" for u in w["event_user"]],
        "kind": "conversion", "name": "purchase", "occurred_at": stamp(w["event_at"]),
    })  # fmt: skip
    folder.mkdir()
    sends.to_parquet(folder / "sends.parquet")
    events.to_parquet(folder / "events.parquet")
    return frames.from_frames(sends, events)


def test_a_replay_tells_of_delays_in_frames_notes_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = as_log(tmp_path / "log", held=0.3)
    got = js.replay(log, goals="purchase", control="slow")
    assert list(got.delay["variant_id"].unique()) == ["fast", "slow"]
    assert set(got.delay["source"]) == {"holdout"}
    captured = got.delays.captured.set_index("variant_id")
    assert list(captured.index) == ["fast", "slow", "ALL"]
    assert captured.loc["fast", "share"] < 0.3 < captured.loc["slow", "share"]
    ends = got.delay[got.delay["age_day"] == got.delay["age_day"].max()].set_index("variant_id")["effect"]
    assert ends["fast"] == pytest.approx(captured.loc["fast", "total"])
    assert any(w.startswith("Loses more than half") for w in got.warnings)
    assert run(["replay", str(tmp_path / "log"), "--control", "slow", "--json", "--out", str(tmp_path / "out")]) == 0
    streams = capsys.readouterr()
    found = json.loads(streams.out)
    assert found["warnings"] == got.warnings
    assert [r["variant_id"] for r in found["delay"]["captured"]] == ["fast", "slow", "ALL"]
    assert all(f"note: {w}" in streams.err for w in got.warnings)
    assert found["metrics"][0]["km_conversion_rate"] is not None
    assert "Loses more than half" in (tmp_path / "out" / "index.html").read_text()
    assert js.plot_delay(got.delay, control="slow").figure is not None


def test_a_window_does_not_move_the_curves(tmp_path: Path) -> None:
    log = as_log(tmp_path / "log", held=0.3)
    one, other = (
        js.replay(log, goals="purchase", control="slow", **o) for o in ({}, {"offset_days": 0, "credit": "all"})
    )
    pd.testing.assert_frame_equal(one.delay, other.delay)


def test_a_log_of_one_day_is_told_apart_from_an_error(tmp_path: Path) -> None:
    sends = pd.DataFrame([{"send_id": "s", "user_id": "u", "template_id": "T", "variant_id": "a", "sent_at": T0}])
    event = {"event_id": "e", "user_id": "u", "kind": "conversion", "name": "purchase", "occurred_at": T0 + 1}
    got = js.replay(frames.from_frames(sends, pd.DataFrame([event])), control="a")
    assert got.delay.empty
    assert "not been followed long enough" in got.warnings[0]
    js.report(got, tmp_path)


def test_users_with_thousands_of_sends_are_an_answer_too(tmp_path: Path) -> None:
    """Their effects overlap on every day: nothing can be told of them, and nothing breaks."""
    start = 1_767_225_600_000_000
    rng = np.random.default_rng(1)
    n = 3000
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(n)], "user_id": "u", "template_id": "t",
        "variant_id": rng.choice(["A", "B"], n), "sent_at": start + np.sort(rng.integers(0, 40 * DAY, n)),
    })  # fmt: skip
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in range(50)], "user_id": "u", "kind": "conversion", "name": "purchase",
        "occurred_at": start + rng.integers(0, 60 * DAY, 50),
    })  # fmt: skip
    sends.to_csv(tmp_path / "sends.csv", index=False)
    events.to_csv(tmp_path / "events.csv", index=False)
    got = js.replay(js.read_log(tmp_path))
    assert any("cannot be told" in w for w in got.warnings)


def test_five_users_with_hundreds_of_sends_each_are_an_answer_too() -> None:
    rng = generator(1, "heavy")
    n = 4000
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(n)], "user_id": [f"u{i % 5}" for i in range(n)], "template_id": "t",
        "variant_id": rng.choice(["A", "B"], n), "sent_at": T0 + np.sort(rng.integers(0, 40 * DAY, n)),
    })  # fmt: skip
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in range(50)], "user_id": [f"u{i % 5}" for i in range(50)], "kind": "conversion",
        "name": "purchase", "occurred_at": T0 + rng.integers(0, 60 * DAY, 50),
    })  # fmt: skip
    got = js.replay(frames.from_frames(sends, events))
    assert any("cannot be told" in w for w in got.warnings)
    assert got.delay.empty


def test_variants_of_other_days_are_not_held_against_each_other() -> None:
    """The share that the window sees of each stays; who is ahead, and whose delay is longer, is not said."""
    look = Window(fast_and_slow(held=0.2), 3, 14, 2)
    alike, unlike = (warnings(look, NAMES, 3, 14, same_mix=m) for m in (True, False))
    assert alike[0] == unlike[0]
    assert "turns the ranking round" in alike[1]
    assert unlike[1:] == [UNLIKE]


def test_shares_are_said_within_what_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    def captured(_: Window, variant: int, level: float = 0.95) -> Captured:  # noqa: ARG001
        some = Value(0.02, 0.01, 0.03)
        return Captured(variant, 100, some, Value(-0.001, -0.002, 0.001), Value(-0.03, -0.1, 0.09))

    look = Window(fast_and_slow(held=0.2), 3, 14, 2)
    monkeypatch.setattr(Window, "captured", captured)
    assert "sees 0 % (0 to 9) of what" in warnings(look, NAMES, 3, 14)[0]


def test_shares_that_read_the_same_are_no_difference_of_delays() -> None:
    """Two variants of which the window sees all but for rounding errors, each surely: nothing to warn of."""
    part = 1e-15 * np.arange(50)
    close: Any = Window.__new__(Window)
    for share, warned in ((1 - 1e-9, False), (0.9, True)):
        close.shown, close.total, close.inside = 2, np.array([0.05, 0.05]), np.array([0.05, 0.05 * share])
        close.total_parts = close.inside_parts = np.tile(part[:, None], (1, 2))
        close.fit = dataclasses.replace(fast_and_slow(), sends=np.array([1_000, 1_000]), known=True)
        assert close.pair(0, 1, 0.95)[2].sign == 1
        assert any("Delays differ" in w for w in rankings(close, NAMES, "the window", "28 days")) == warned


@pytest.mark.parametrize("background", [2.17e-18, -1e-9, 0.0])
def test_a_background_of_rounding_errors_is_practically_none(background: float) -> None:
    got = dataclasses.replace(fast_and_slow(), background=background)
    assert ", practically none, " in background_words(got)
    frame = pd.DataFrame({
        "variant_id": "a", "age_day": [0, 1, 2], "effect": [0.0, 0.1, 0.2], "low": [0.0, 0.0, 0.1],
        "high": [0.0, 0.2, 0.3], "background": background, "source": "holdout",
    })  # fmt: skip
    got_lines = lines(frame)
    assert "Background: practically none, that of held-out users." in sentence(got_lines, got_lines, frame, 0, 2)

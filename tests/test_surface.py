"""The map of windows: no leader by chance, a true one found, honest estimates, and the command."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special

import justai_sim as js
from justai_sim import frames
from justai_sim.attribution import bind
from justai_sim.cli import run
from justai_sim.cli.surface import days_of, judgement
from justai_sim.clock import DAY
from justai_sim.errors import UsageError
from justai_sim.estimate.surface import FEW, Compared, _errors, chosen_and_judged, compare, expected, judge
from justai_sim.estimate.windows import LOOKBACKS, OFFSETS, window_counts
from justai_sim.pages.replay_page import headline
from justai_sim.stats import two_proportion_z
from justai_sim.streams import generator
from justai_sim.surfaces import GROUPS, WindowSurface, of_frame, user_groups
from justai_sim.tables import F8

Counts = tuple[F8, F8]
HEAVY = {"heavy": 2.0, "frailty": 2.0}
WORLDS: dict[str, dict[str, Any]] = {
    "two": {},
    "two, 0.5 %": {"rate": 0.005},
    "two, 5 %": {"rate": 0.05},
    "three": {"shares": [0.34, 0.33, 0.33]},
    "a small arm": {"shares": [0.1, 0.9]},
    "a small arm, heavy users": {"shares": [0.1, 0.9], **HEAVY},
    "a tiny arm, rare": {"shares": [0.05, 0.95], "users": 20_000, "rate": 0.005},
    "heavy users": HEAVY,
    "few users": {"users": 60, "rate": 0.05, "sends": 20.0},
    "eight": {"shares": [1 / 8] * 8, "users": 8000},
}


def counts(
    rng: np.random.Generator, shares: tuple[float, ...] | list[float] = (0.5, 0.5), users: int = 3000,
    sends: float = 3.0, heavy: float = 1.0, frailty: float = 1.0, rate: float = 0.02, lift: Any = None,
) -> Counts:  # fmt: skip
    """Conversions and sends (offsets, lookbacks, groups, variants) of a log of users.

    Sends and purchases a user are spread lognormally; half of the purchases would happen anyway and count for every
    send of the user that they follow (the most dependent reading), half come from the send, 5 days later on average.
    """
    V, G = len(shares), min(users, GROUPS)
    mean = sends * np.exp(heavy * rng.standard_normal(users) - heavy**2 / 2)
    m = np.minimum(1 + rng.poisson(mean), 400)
    user, S = np.repeat(np.arange(users), m), int(m.sum())
    sent, variant = rng.uniform(0, 56, S), rng.choice(V, S, p=shares)
    buys = np.exp(frailty * rng.standard_normal(users) - frailty**2 / 2)
    n = rng.poisson(rate / 2 / 11 * 86 * buys)
    who, when = np.repeat(np.arange(users), n), rng.uniform(0, 86, int(n.sum()))
    start, k = np.cumsum(m)[who] - m[who], m[who]
    send = np.repeat(start - np.cumsum(k) + k, k) + np.arange(int(k.sum()))
    caused = rng.random(S) < rate / 2 * buys[user] * (1 if lift is None else np.asarray(lift)[variant])
    age = np.concatenate([np.repeat(when, k) - sent[send], rng.exponential(5, int(caused.sum()))])
    send = np.concatenate([send, np.flatnonzero(caused)])
    use = (age >= 0) & (age < 30)
    cell = rng.permutation(users)[user] % G * V + variant
    day = np.bincount(cell[send[use]] * 30 + age[use].astype(int), minlength=G * V * 30).reshape(G, V, 30)
    until = np.concatenate([np.zeros((G, V, 1)), day.cumsum(2)], 2)
    y = np.stack([until[:, :, list(LOOKBACKS)] - until[:, :, [o]] for o in OFFSETS])  # (offsets, G, V, lookbacks)
    y = y.transpose(0, 3, 1, 2)
    whole = np.bincount(cell, minlength=G * V).reshape(G, V)
    window = (np.array(LOOKBACKS) > np.array(OFFSETS)[:, None])[:, :, None, None]
    return np.where(window, y, np.nan), np.where(window, np.broadcast_to(whole, y.shape), np.nan)


@cache
def outlined(name: str, maps: int) -> tuple[float, float, float]:
    """Of A/A maps of one world: those that name a leader, that hold a |z| > 1.96 (best against second by the plain
    two-sample test), and whose best variant changes."""
    named = fished = changes = 0
    for i in range(maps):
        rng = generator(i, f"equal {name}")
        y, n = counts(rng, **WORLDS[name])
        got = judge(y, n, rng, draws=500)
        named += bool((got.leader >= 0).any())
        told = got.told
        c, s, a, b = y[told].sum(1), n[told].sum(1), got.first[told], got.second[told]
        row = np.arange(len(c))
        z, _ = two_proportion_z(c[row, a], s[row, a], c[row, b], s[row, b])
        fished += bool((z > 1.96).any())
        changes += len(np.unique(a)) > 1
    return named / maps, fished / maps, changes / maps


def at_most(level: float, n: int) -> float:
    return level + 4 * (level * (1 - level) / n) ** 0.5


@pytest.mark.parametrize("name", ["two", "a small arm", "heavy users"])
def test_equal_variants_name_no_leader_in_95_of_100_maps(name: str) -> None:
    assert outlined(name, 100)[0] <= at_most(0.05, 100)


def test_the_same_maps_would_have_been_a_fishing_ground() -> None:
    named, fished, changes = outlined("two", 100)
    assert fished > 0.4 > at_most(0.05, 100) > named
    assert changes > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_equal_variants_name_no_leader_at_length(name: str) -> None:
    maps = 300 if name == "eight" else 1000
    named, fished, changes = outlined(name, maps)
    print(f"{name}: {named:.3f} of {maps} maps name a leader, {fished:.2f} hold |z| > 1.96, {changes:.2f} change")
    assert named <= at_most(0.05, maps)


@pytest.mark.slow
def test_no_pair_is_beyond_the_bound_more_often_than_promised_nor_much_less() -> None:
    """With eight equal variants a leader has to beat seven others, so leaders are rarer than 5 %; the bound itself is
    of all pairs. Two variants have one pair: there the rate must come near 5 %, else power is given away."""
    assert outlined("two, 5 %", 1000)[0] > 0.02


def test_a_strong_difference_is_outlined_and_no_other_variant() -> None:
    for i in range(10):
        rng = generator(i, "strong")
        y, n = counts(rng, [0.3, 0.4, 0.3], users=10_000, rate=0.03, lift=[1, 1, 4])
        got = judge(y, n, rng, draws=500)
        assert set(got.leader[got.told].tolist()) <= {-1, 2}
        assert (got.leader == 2).sum() > 100


def test_the_honest_half_is_standard_normal_and_the_choosing_half_is_not() -> None:
    maps, chosen, honest, covered = 150, [], [], 0
    for i in range(maps):
        got = chosen_and_judged(*counts(generator(i, "halves")))
        assert got is not None
        chosen.append(got.chosen_z)
        honest.append(got.z)
        covered += got.low <= 0 <= got.high
    z = np.array(honest)
    assert abs(z.mean()) < 4 / maps**0.5
    assert abs(z.var() - 1) < 4 * (2 / maps) ** 0.5 + 0.1  # Student's, not quite normal
    assert covered / maps > 0.95 - 4 * (0.05 * 0.95 / maps) ** 0.5
    assert np.mean(chosen) > 0.8 + 4 / maps**0.5  # |z| of one window fixed beforehand has mean 0.8


def test_the_other_half_does_not_move_the_choice() -> None:
    y, n = counts(generator(1, "no leak"), [0.3, 0.4, 0.3])
    one = chosen_and_judged(y, n)
    other = y.copy()
    other[..., 1::2, :] = np.roll(other[..., 1::2, :], 1, axis=-1)
    two = chosen_and_judged(other, n)
    assert one is not None
    assert two is not None
    assert (one.cell, one.first, one.second, one.chosen_z) == (two.cell, two.first, two.second, two.chosen_z)
    assert one.difference != two.difference
    fixed = chosen_and_judged(y, n, cell=(3, 13))
    assert fixed is not None
    assert fixed.cell == (3, 13)

    def largest(got: Compared) -> F8:
        return got.difference

    by_difference = chosen_and_judged(y, n, criterion=largest)
    assert by_difference is not None
    half = compare(y[..., ::2, :], n[..., ::2, :])
    assert by_difference.chosen_difference == np.nanmax(half.difference)


def test_errors_by_hand() -> None:
    """One send a user: the error over groups is the binomial one, up to the noise of an estimated variance."""
    rng = generator(2, "errors")
    p, users = np.array([0.045, 0.05]), 20_000
    y = rng.binomial(1, p, (1, users, 2)).astype(float)
    n = np.ones_like(y)
    rate = y.mean(1)[0]
    se, common = float(_errors(y, n, y, users)[0, 0, 1]), rate.mean()
    least = max(common * (1 - common), rate[0] * (1 - rate[0]))  # of the arm that is behind
    assert se == pytest.approx(np.sqrt((least + rate[1] * (1 - rate[1])) / users), rel=0.02)
    assert compare(y, n).z[0] == pytest.approx((rate[1] - rate[0]) / se)


def test_a_lucky_small_arm_keeps_the_error_of_the_common_rate() -> None:
    """Two conversions of a thousand sends beside 5 % of the others: its own spread would say 25 errors behind."""
    y, n = np.zeros((1, 100, 2)), np.tile([10.0, 90.0], (1, 100, 1))
    y[0, :2, 0], y[0, :, 1] = 1.0, 4.5
    got = compare(y, n)
    common = 452 / 10_000 * (1 - 452 / 10_000)
    assert got.se[0] >= np.sqrt(common / 1000)
    assert got.z[0] < (0.05 - 0.002) / np.sqrt(common / 1000)


def test_what_cannot_tell() -> None:
    y, n = np.full((1, 50, 2), 1.0), np.full((1, 50, 2), 20.0)
    rng = generator(3, "blind")
    assert judge(y, n, rng).told.all()
    few = y * (FEW - 1) / 50
    assert not judge(few, n, rng).told.any()
    assert not judge(y[:, :15] * 9, n[:, :15], rng).told.any(), "fifteen users"
    bot = n.copy()
    bot[0, 0] = 1e6
    assert not judge(y, bot, rng).told.any(), "one user has nearly all sends"
    assert not judge(y[..., :1], n[..., :1], rng).told.any(), "one variant"
    assert not judge(y * np.nan, n * np.nan, rng).told.any()
    worst = y.copy()
    worst[..., 0] = 0.0
    worst[..., 1] = 4.0
    got = judge(worst, n, rng)
    assert got.leader.tolist() == [1], "a variant without conversions is surely behind"
    assert np.isfinite(got.z).all()
    same = judge(y, n, rng)
    assert same.leader.tolist() == [-1], "equal to the last digit"


def test_groups_of_users_are_whole_random_and_even() -> None:
    user = generator(4, "users").integers(0, 5000, 20_000)
    group, groups = user_groups(user)
    assert groups == GROUPS
    assert pd.Series(group).groupby(user).nunique().max() == 1
    size = pd.Series(user).drop_duplicates().groupby(group[pd.Series(user).drop_duplicates().index]).size()
    assert size.max() - size.min() <= 1
    few, number = user_groups(np.array([7, 7, 9, 100]))
    assert number == 3
    assert len(np.unique(few)) == 3
    assert user_groups(np.empty(0, np.int64))[1] == 1


@pytest.fixture(scope="module")
def run_of() -> js.api.Run:  # type: ignore[name-defined]
    return js.simulate("welcome")


def test_frames_equal_the_counts_of_each_window(run_of: Any) -> None:
    got = js.window_surface(
        js.Rule(), run_of.sends, run_of.events, [0, 3, 5.5], [1, 5.5, 14], goals=["purchase"], as_of=None
    )
    replayed = run_of.replay(goals=["purchase"])
    log = replayed.log
    goal = bind(
        js.Rule(), templates=log.names("template"), names=log.names("name"), currencies=log.names("currency"),
        goals=["purchase"],
    )  # fmt: skip
    n = len(log.names("variant"))
    plain = window_counts(
        goal, log.sends, log.events, replayed.attribution.as_of, [0, 3, 5.5], [1, 5.5, 14],
        np.zeros(len(log.sends), np.int64), log.sends.variant, 1, n,
    )  # fmt: skip
    f = got.frame
    assert len(f) == 6 * n
    for i, j, v in np.ndindex(3, 3, n):
        row = f[(f["offset_day"] == got.offsets[i]) & (f["lookback_day"] == got.lookbacks[j])
                & (f["variant_id"] == log.names("variant")[v])]  # fmt: skip
        assert len(row) == (got.lookbacks[j] > got.offsets[i])
        for name in ("conversions", "sends", "converted", "revenue") if len(row) else ():
            assert row[name].item() == pytest.approx(getattr(plain, name)[i, j, 0, v])
    np.testing.assert_allclose(f["per_1000"], 1000 * f["conversions"] / f["sends"])
    cells = got.cells
    assert len(cells) == 6
    compared = got.sums if got.weighted is None else got.weighted  # a policy's shares change: over the same mix of days
    per_1000 = 1000 * compared["conversions"].sum(2) / compared["sends"].sum(2)
    for _, cell in cells[cells["ahead"].notna()].iterrows():
        place = got.at(cell["offset_day"], cell["lookback_day"])
        rate = pd.Series(per_1000[place], index=got.variants)
        assert rate.idxmax() == cell["ahead"]
        assert cell["difference_per_1000"] == pytest.approx(rate[cell["ahead"]] - rate[cell["second"]])
        assert cell["beyond"] == (cell["z"] > cell["bound"]) == (cell["leader"] == cell["ahead"])
    assert sum(got.counts().values()) == 6


def test_replay_and_frames_take_the_same_path(run_of: Any) -> None:
    replayed = run_of.replay(goals=["purchase"])
    assert replayed.surface is replayed.surface
    assert replayed.windows() is replayed.surface.by_group
    again = of_frame(replayed.windows(), replayed.surface.in_use)
    pd.testing.assert_frame_equal(again.cells, replayed.surface.cells)
    direct = js.window_surface(replayed.program.rule, run_of.sends, run_of.events, goals=["purchase"])
    assert direct.frame["conversions"].sum() == replayed.surface.frame["conversions"].sum()
    money = replayed.surface_on([0, 3], [7, 14], metric="revenue")
    assert (money.frame["rate"] * money.frame["sends"]).sum() == pytest.approx(money.frame["revenue"].sum())
    with pytest.raises(UsageError, match="did you mean 'revenue'"):
        replayed.surface_on([0], [7], metric="revenu")


@pytest.mark.parametrize("repeat", ["once_per_send", "every", "once_per_user"])
def test_the_map_compares_the_rate_of_the_results_table(repeat: Any) -> None:
    """Two sends of a variant, one with two purchases: once_per_send that is a rate of a half, else of 1."""
    sends = pd.DataFrame({
        "send_id": list("abcd"), "user_id": list("uvwx"), "template_id": "T", "variant_id": list("AABB"),
        "sent_at": pd.Timestamp("2026-01-01", tz="UTC"),
    })  # fmt: skip
    events = pd.DataFrame({
        "event_id": ["1", "2", "3"], "user_id": ["u", "u", "w"], "kind": "conversion", "name": "purchase",
        "occurred_at": [pd.Timestamp(f"2026-01-{d:02}", tz="UTC") for d in (6, 9, 7)],
    })  # fmt: skip
    log = frames.from_frames(sends, events)
    got = js.replay(log, rule=js.Rule(repeat=repeat), as_of="2026-03-01T00:00Z")
    rate = got.surface.frame.query("offset_day == 3 and lookback_day == 14").set_index("variant_id")
    for row in got.rows():
        if row["variant_id"] in ("A", "B"):
            assert rate.loc[row["variant_id"], "rate"] == row["mature_conversion_rate"]
            assert rate.loc[row["variant_id"], "conversions"] == row["conversions"]
            assert rate.loc[row["variant_id"], "conversion_count"] == row["conversion_count"]
    assert rate.loc["A", "rate"] == (1.0 if repeat == "every" else 0.5)


def test_a_variant_with_a_handful_of_sends_does_not_blind_the_map() -> None:
    y, n = counts(generator(5, "straggler"), [0.5, 0.49, 0.01])
    i, j, g, v = np.indices(y.shape).reshape(4, -1)
    frame = pd.DataFrame({
        "group": g, "offset_day": np.array(OFFSETS)[i], "lookback_day": np.array(LOOKBACKS)[j],
        "variant_id": np.array(["a", "b", "tiny"])[v], "conversions": y.ravel(), "sends": n.ravel(),
    })  # fmt: skip
    got = of_frame(frame.dropna(), (3.0, 14.0))
    assert got.left_out == ["tiny"]
    assert got.judged.told.sum() > 100
    assert set(got.cells["ahead"].dropna()) == {"a", "b"}
    assert set(got.frame["variant_id"]) == {"a", "b", "tiny"}


def with_a_third_arm(sends_of_third: int, rates: tuple[float, float, float] = (0.05, 0.10, 0.07)) -> Any:
    """20,000 users with a send each, a third variant that got few of them, the map of all windows."""
    n, rng = 20_000, generator(7, "third arm")
    variant = np.where(np.arange(n) < sends_of_third, 2, np.arange(n) % 2)
    sent = 1_767_225_600_000_000 + (rng.random(n) * 20 * DAY).astype(np.int64)
    bought = np.flatnonzero(rng.random(n) < np.array(rates)[variant])
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(n)], "user_id": [f"u{i}" for i in range(n)], "template_id": "T",
        "variant_id": np.array(["A", "B", "C"])[variant], "sent_at": sent,
    })  # fmt: skip
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in bought], "user_id": sends["user_id"][bought].to_numpy(), "kind": "conversion",
        "name": "purchase", "occurred_at": sent[bought] + (rng.exponential(5, len(bought)) * DAY).astype(np.int64),
    })  # fmt: skip
    return js.window_surface(js.Rule(), sends, events, as_of=int(sent.max()) + 40 * DAY)


@pytest.mark.parametrize("few", [100, 200, 250])
def test_a_third_variant_with_few_sends_is_left_out_and_the_others_are_told_apart(few: int) -> None:
    got = with_a_third_arm(few)
    assert got.left_out == ["C"]
    assert got.counts()["B"] > 200
    assert "cannot tell" not in got.answer()


def test_a_variant_that_makes_windows_blind_is_named() -> None:
    got = with_a_third_arm(500, (0.05, 0.10, 0.01))
    assert got.left_out == []
    blind = got.counts()["cannot tell"]
    assert 20 < blind < 106
    assert got.blinding == (["C"], blind)
    assert f"{blind} cannot tell: too few conversions of C." in got.answer()
    _, n, c = got._y
    assert not (expected(c, n)[~got.judged.told & got.windows][:, 2] >= FEW).any()


def third_arms(maps: int) -> tuple[float, float, float]:
    """Of A/A maps with a third arm of 2 to 8 % of the sends: those that name a leader, that leave the arm out, that
    compare it though it makes windows blind."""
    named = left = blind = 0
    for i in range(maps):
        rng = generator(i, "third arms")
        small = rng.uniform(0.02, 0.08)
        y, n = counts(rng, [(1 - small) / 2, (1 - small) / 2, small], rate=0.03)
        days = np.array(OFFSETS, float), np.array(LOOKBACKS, float)
        got = WindowSurface(["a", "b", "c"], *days, {"conversions": y, "sends": n}, (3.0, 14.0))
        named += bool(got.cells["beyond"].any())
        left += got.left_out == ["c"]
        blind += got.blinding[1] > 0
    return named / maps, left / maps, blind / maps


def test_leaving_a_small_variant_out_names_no_leader_of_equal_ones() -> None:
    named, left, blind = third_arms(40)
    assert named <= at_most(0.05, 40)
    assert min(left, blind) > 0.1, "both happen"


@pytest.mark.slow
def test_leaving_a_small_variant_out_names_no_leader_at_length() -> None:
    named, left, blind = third_arms(600)
    print(f"{named:.3f} of 600 maps name a leader; the small arm is left out of {left:.2f}, makes {blind:.2f} blind")
    assert named <= at_most(0.05, 600)


def test_an_empty_surface_says_so() -> None:
    empty: dict[str, list[Any]] = {c: [] for c in ("send_id", "user_id", "template_id", "variant_id", "sent_at")}
    events: dict[str, list[Any]] = {c: [] for c in ("event_id", "user_id", "kind", "occurred_at")}
    got = js.window_surface(js.Rule(), pd.DataFrame(empty), pd.DataFrame(events), [0, 3], [7, 14])
    assert got.answer().startswith("None of 4 windows can tell")
    assert got.chosen().empty
    assert (got.cells["leader"] == "cannot tell").all()
    assert js.plot_window_map(got) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [3]), ("0:3", [0, 1, 2, 3]), ("0:30:10", [0, 10, 20, 30]), ("0:1:0.1", [k / 10 for k in range(11)]),
     ("0.5,3:4", [0.5, 3, 4]), ("1:2.5", [1, 2])],
)  # fmt: skip
def test_ranges_of_days(text: str, expected: list[float]) -> None:
    assert days_of("--offsets", text) == expected


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory, run_of: Any) -> Path:
    out = tmp_path_factory.mktemp("surface") / "log"
    out.mkdir()
    run_of.sends.to_csv(out / "sends.csv", index=False)
    run_of.events.to_csv(out / "events.csv", index=False)
    return out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--offsets", "x"], "'x' is no day or range"),
        (["--offsets", "1:2:3:4"], "is no day or range"),
        (["--offsets", "nan"], "is no day or range"),
        (["--offsets", ""], "is no day or range"),
        (["--offsets", "7:0"], "runs backwards; expected 0:7"),
        (["--offsets", "0:7:0"], "the step is 0"),
        (["--offsets=-1:3"], "-1 days; expected 0 or more"),
        (["--lookbacks", "0:5"], "0 days; expected more than 0"),
        (["--lookbacks", "1:99999"], "take a larger step"),
        (["--lookbacks", "99999"], "expected at most 3650"),
        (["--offsets", "0:99", "--lookbacks", "1:99"], "expected at most 2,000"),
        (["--offsets", "30", "--lookbacks", "1:14"], "no window: every offset"),
        (["--metric", "convertd"], "did you mean 'converted'?"),
        (["--set", "credit"], "expected key=value"),
        (["--goal", "purchas"], "did you mean 'purchase'?"),
    ],
)
def test_nonsense_is_refused_in_words(
    options: list[str], said: str, log_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["surface", str(log_folder), *options]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_command_prints_answer_table_and_judgement(log_folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    argv = ["surface", str(log_folder), "--goal", "purchase", "--offsets", "0:3", "--lookbacks", "1:14"]
    assert run([*argv, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(("No leader in any of", "Same leader,", "2 leaders in"))
    for part in (
        "The window in use (14/3): ",
        "day 3 to 14 (in use)",
        "Chosen on half of the users",
        "at 95 % for this one window, judged alone and once. The map asks more of a window (z above ",
        "No window is re",
    ):
        assert part in text
    cells = pd.read_csv(out / "cells.csv")
    assert len(cells) == sum(b > a for a in range(4) for b in range(1, 15))
    assert {p.name for p in out.iterdir()} == {
        "windows.csv", "cells.csv", "chosen.csv", "window_map.png", "window_map.svg", "manifest.json", "index.html",
        "tables",
    }  # fmt: skip
    assert run([*argv, "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert sum(got["counts"].values()) == len(got["cells"]) == len(cells)
    assert [c["leader"] for c in got["cells"]] == cells["leader"].tolist()
    assert got["bound"] > special.ndtri(0.975)
    assert got["chosen"][0]["low_per_1000"] is None


def test_a_window_judged_alone_is_not_said_to_confirm_what_the_map_does_not() -> None:
    """The other half is beyond chance by itself, and the map has no leader."""
    y = np.full((1, 2, 100, 2), np.nan)
    rng = generator(11, "alone")
    y[...] = rng.poisson(5, (1, 2, 100, 2)) + np.array([0.0, 0.55])
    got = WindowSurface(["a", "b"], np.zeros(1), np.array([7.0, 14.0]),
                        {"conversions": y, "sends": np.full_like(y, 100.0)}, (0.0, 7.0))  # fmt: skip
    text = judgement(got)
    assert "above 0 at 95 % for this one window" in text
    assert "confirmed" not in text
    assert f"z above {got.judged.bound:.2f}"[:8] in text


@pytest.mark.parametrize("changing", ["template", "day"])
@pytest.mark.parametrize("known", [True, False])
def test_shares_that_change_make_no_leader(changing: str, known: bool) -> None:
    """Equal variants at rates of 10 % and 3 %, shared 80/20 and 20/80 by template or by day (Simpson): pooled they
    differ by 35 per 1,000, some twenty standard errors. With and without logged propensities."""
    rng = np.random.default_rng(3)
    n = 8000
    late = np.arange(n) % 2 == 1
    share = np.where(late, 0.2, 0.8)
    first = rng.random(n) < share
    day = rng.random(n) * 20 + (20 * late if changing == "day" else 0)
    sent = 1_767_225_600_000_000 + (day * DAY).astype(np.int64)
    bought = rng.random(n) < np.where(late, 0.03, 0.10)
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(n)], "user_id": [f"u{i}" for i in range(n)],
        "template_id": np.where(late & (changing == "template"), "T2", "T1"),
        "variant_id": np.where(first, "A", "B"), "sent_at": sent,
    })  # fmt: skip
    if known:
        sends["propensity"] = np.where(first, share, 1 - share)
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in np.flatnonzero(bought)], "user_id": sends["user_id"][bought].to_numpy(),
        "kind": "conversion", "name": "purchase",
        "occurred_at": sent[bought] + (rng.random(int(bought.sum())) * 14 * DAY).astype(np.int64),
    })  # fmt: skip
    got = js.window_surface(js.Rule(), sends, events, [0, 3], [7, 14], as_of=int(sent.max()) + 40 * DAY)
    assert not got.cells["beyond"].any()
    assert (got.cells["z"].abs() < 4).all()
    pooled = got.frame.pivot_table(index=["offset_day", "lookback_day"], columns="variant_id", values="per_1000")
    assert (pooled["A"] - pooled["B"] > 10).all()
    again = of_frame(got.by_group, got.in_use)
    assert np.allclose(again.judged.z, got.judged.z, equal_nan=True)


def changing_log(
    seed: int, mode: str, known: bool, lift: float = 1.0, shares: tuple[float, float] = (0.8, 0.2), n: int = 6000
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Variants A and B with rates of 10 % on the first half of the sends and 3 % on the second, shared by `shares`.

    mode: what the halves are: `template`, `day` (the first twenty and the last twenty), `joins` (B is there on the
    last twenty only), `apart` (templates, the second with A and C). known: whether propensities are logged.
    """
    rng = generator(seed, f"changing {mode} {known}")
    late = np.arange(n) % 2 == 1
    share = np.where(late, shares[1], shares[0])
    if mode == "joins":
        share = np.where(late, 0.5, 1.0)
    first = rng.random(n) < share
    by_day = mode in ("day", "joins")
    sent = 1_767_225_600_000_000 + ((rng.random(n) * 20 + 20 * (late & by_day)) * DAY).astype(np.int64)
    bought = rng.random(n) < np.where(late, 0.03, 0.10) * np.where(first, lift, 1.0)
    user = rng.integers(0, n // 2, n)
    sends = pd.DataFrame({
        "send_id": [f"s{i}" for i in range(n)], "user_id": [f"u{i}" for i in user],
        "template_id": np.where(late & (not by_day), "T2", "T1"),
        "variant_id": np.where(first, "A", np.where(late & (mode == "apart"), "C", "B")), "sent_at": sent,
    })  # fmt: skip
    if known:
        sends["propensity"] = np.where(first, share, 1 - share)
    events = pd.DataFrame({
        "event_id": [f"e{i}" for i in np.flatnonzero(bought)], "user_id": sends["user_id"][bought].to_numpy(),
        "kind": "conversion", "name": "purchase",
        "occurred_at": sent[bought] + (rng.random(int(bought.sum())) * 14 * DAY).astype(np.int64),
    })  # fmt: skip
    return sends, events


def map_of(sends: pd.DataFrame, events: pd.DataFrame, **options: Any) -> Any:
    now = int(sends["sent_at"].max()) + 40 * DAY
    return js.window_surface(js.Rule(), sends, events, [0, 1, 3, 7], [3, 7, 14, 21, 30], as_of=now, **options)


CHANGING = [(m, k) for m in ("template", "day", "joins") for k in (True, False)]


@pytest.mark.parametrize(("mode", "known"), CHANGING)
def test_equal_variants_whose_shares_change_name_no_leader_in_95_of_100_maps(mode: str, known: bool) -> None:
    maps = 8
    named = sum(bool(map_of(*changing_log(i, mode, known)).cells["beyond"].any()) for i in range(maps))
    assert named / maps <= at_most(0.05, maps)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "known"), CHANGING)
def test_equal_variants_whose_shares_change_at_length(mode: str, known: bool) -> None:
    maps = 200
    named = sum(bool(map_of(*changing_log(i, mode, known)).cells["beyond"].any()) for i in range(maps))
    print(f"{mode}, {'known' if known else 'no'} propensities: {named} of {maps} maps name a leader")
    assert named / maps <= at_most(0.05, maps)


@pytest.mark.parametrize("mode", ["template", "day"])
def test_a_true_leader_is_found_though_it_got_the_worse_half(mode: str) -> None:
    got = map_of(*changing_log(1, mode, False, lift=1.8, shares=(0.1, 0.9), n=16_000))
    pooled = got.frame.pivot_table(index=["offset_day", "lookback_day"], columns="variant_id", values="per_1000")
    assert (pooled["A"] < pooled["B"]).all(), "Simpson: pooled it is behind"
    assert set(got.cells.loc[got.cells["beyond"], "leader"]) == {"A"}


def test_constant_shares_are_not_weighted() -> None:
    got = map_of(*changing_log(2, "day", False, shares=(0.5, 0.5)))
    assert got.weighted is None
    known = map_of(*changing_log(2, "day", True, shares=(0.5, 0.5)))
    assert known.weighted is None


def test_variants_of_different_templates_are_not_compared_and_one_template_is() -> None:
    sends, events = changing_log(3, "apart", False)
    got = map_of(sends, events)
    assert not got.judged.told.any()
    assert "no template had all variants at the same time" in got.answer()
    one = map_of(sends, events, template="T1")
    assert set(one.variants) == {"A", "B"}
    assert one.judged.told.any()
    with pytest.raises(UsageError, match="'T9' is not in the log"):
        map_of(sends, events, template="T9")


def folder_of(sends: pd.DataFrame, events: pd.DataFrame, out: Path) -> Path:
    out.mkdir()
    sends.to_csv(out / "sends.csv", index=False)
    events.to_csv(out / "events.csv", index=False)
    return out


@pytest.mark.parametrize(("mode", "lift", "says"), [("day", 1.0, False), ("joins", 1.0, False), ("day", 2.0, True)])
def test_the_headline_names_a_leader_only_over_the_same_days(mode: str, lift: float, says: bool) -> None:
    sends, events = changing_log(4, mode, False, lift=lift)
    events.loc[len(events)] = ["end", "nobody", "conversion", "purchase", sends["sent_at"].max() + 40 * DAY]
    got = js.replay(frames.from_frames(sends, events))
    data = got.data("title")
    a, b = (r for r in got.rows() if r["variant_id"] in ("A", "B"))
    assert a["conversion_rate_low"] > b["conversion_rate_high"], "pooled it is clear"
    text = headline(data)
    assert text.startswith("A is ahead of B: ") == says
    assert text.startswith("Shares changed over days, and over the same mix of days no leader") != says
    assert "over the same mix of days, on mature sends, " in text
    assert any(w.startswith("Shares of variants changed") for w in got.warnings)
    assert not any("ranking" in w or "Delays differ" in w for w in got.warnings)


def test_the_command_says_what_it_weighs(tmp_path: Path, capsys: Any) -> None:
    log = folder_of(*changing_log(5, "day", True), tmp_path / "log")
    argv = ["surface", str(log), "--goal", "purchase", "--offsets", "0,7", "--lookbacks", "7,14"]
    out = tmp_path / "out"
    rule = ["--set", "repeat=every", "--set", "cap=5", "--set", "lookback_from=offset_end"]
    assert run([*argv, *rule, "--json", "--out", str(out)]) == 0
    got = json.loads(capsys.readouterr().out)
    assert len([n for n in got["notes"] if n.startswith("shares changed")]) == 1
    assert json.loads((out / "manifest.json").read_text())["notes"] == got["notes"]
    assert len(got["cells"]) == 4, "a lookback of 7 days after 7 ignored ones is a window"
    assert run([*argv, *rule]) == 0
    assert "day 7 to 21" in capsys.readouterr().out
    for none in (["--since", "2030-01-01T00:00Z"], ["--as-of", "2020-01-01T00:00Z"]):
        assert run([*argv, *none]) == 3
        assert "no send is left to show" in capsys.readouterr().err


def test_a_page_without_a_control_does_not_name_one(tmp_path: Path) -> None:
    log = frames.from_frames(*changing_log(6, "day", False, n=400))
    js.report(js.replay(log), tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<dt>control</dt><dd>none</dd>" in "".join(page.split("\n")).replace("  ", "")

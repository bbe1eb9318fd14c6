"""Variants that come, go and are reset, their themes, and who may have them: in the loop and at the service's door."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from litestar.testing import TestClient

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.bandit.policies.linear import linear
from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import Shape
from justai_sim.clock import DAY, HOUR
from justai_sim.errors import UsageError
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.log import build
from justai_sim.loop.program import Program, Shipping, Template
from justai_sim.loop.replay import replay_log
from justai_sim.loop.segments import features
from justai_sim.loop.step import Tick
from justai_sim.service.app import create_app
from justai_sim.service.engine import Engine
from justai_sim.service.run import kept
from justai_sim.service.settings import read_program
from justai_sim.service.store import Store

START = clock.parse("2026-01-05T00:00:00Z")
TEMPLATE = Template(id="t", variants=["control", "a", "b"])
PROGRAM = Program(templates=[TEMPLATE], rule=Rule(offset_days=0, lookback_days=2))


def log_of(sends: list[tuple[str, int]], bought: list[tuple[int, int]]) -> Any:
    """Sends (variant, instant), one a user, and conversions (which send, instant)."""
    made = [SendRow(send_id=f"s{i}", user_id=f"u{i}", template_id="t", variant_id=v, sent_at=at, received_at=at)
            for i, (v, at) in enumerate(sends)]  # fmt: skip
    events = [EventRow(event_id=f"e{i}", user_id=f"u{i}", kind="conversion", occurred_at=at, received_at=at)
              for i, at in bought]  # fmt: skip
    return build([Rows(made, events, [])], "test", [])


def last(program: Program, log: Any, now: int) -> Tick:
    return replay_log(program, log, now)[2][-1]


def test_a_reset_forgets_and_pending_sends_as_the_setting_says() -> None:
    """a: one send whose window has closed before the reset, one still open then, one after it."""
    at = [START + 1, START + 4 * DAY, START + 6 * DAY]
    log = log_of(
        [("a", at[0]), ("a", at[1]), ("a", at[2]), ("b", at[0])], [(0, at[0] + HOUR), (1, START + 5 * DAY + HOUR)]
    )
    now, told = START + 20 * DAY, {}
    for pending in ("dropped", "kept"):
        template = msgspec.structs.replace(TEMPLATE, reset={"a": START + 5 * DAY})
        program = msgspec.structs.replace(PROGRAM, templates=[template], pending=pending)
        tick = last(program, log, now)
        told[pending] = (tick.n[0, 0].tolist(), tick.y[0, 0].tolist())
        # Before that instant nothing was reset.
        assert last(program, log, START + 5 * DAY - 1).n[0, 0].tolist() == [0, 2, 1]
    assert told["dropped"] == ([0, 1, 1], [0, 0, 0])
    assert told["kept"] == ([0, 2, 1], [0, 1, 0])
    plain = last(PROGRAM, log, now)
    assert (plain.n[0, 0].tolist(), plain.y[0, 0].tolist()) == ([0, 3, 1], [0, 2, 0])


def test_a_reset_arm_is_shared_as_a_new_one() -> None:
    sends = [("a", START + i) for i in range(300)] + [("b", START + i) for i in range(300)]
    log = log_of(sends, [(i, START + HOUR) for i in range(250)])
    tick = last(PROGRAM, log, START + 5 * DAY)
    assert tick.shares[0, 0, 0, 1] > 0.89
    again = msgspec.structs.replace(
        PROGRAM, templates=[msgspec.structs.replace(TEMPLATE, reset={"a": START + 3 * DAY})]
    )
    got = last(again, log, START + 5 * DAY)
    # Beta(1, 1) against Beta(1, 301): the chance that the new one is the better is 301 / 302.
    assert got.shares[0, 0, 0, 1] == pytest.approx(0.9 * 301 / 302, abs=1e-6)
    # It has its burn-in again too.
    first = msgspec.structs.replace(again, policy=PolicySpec(burn_in=50))
    assert last(first, log, START + 5 * DAY).shares[0, 0, 0].tolist() == pytest.approx([0.1, 0.45, 0.45])


def test_arms_are_live_between_their_instants() -> None:
    template = Template(
        id="t", variants=["control", "a", "b"], added={"b": START + DAY}, archived={"a": START + 3 * DAY}
    )
    program = msgspec.structs.replace(PROGRAM, templates=[template])
    log = log_of([("a", START + 1)], [])
    ticks = replay_log(program, log, START + 4 * DAY)[2]
    shares = {(t.now - START) // DAY: t.shares[0, 0, 0].round(6).tolist() for t in ticks}
    assert shares[0] == [0.1, 0.9, 0]
    assert shares[1][2] > 0
    assert shares[3] == [0.1, 0, 0.9]


def test_what_was_shipped_and_then_archived_is_not_served() -> None:
    """The control has all from then on."""
    sends = [(v, START + i) for v in ("control", "a", "b") for i in range(2000)]
    log = log_of(sends, [(i, START + HOUR) for i in [*range(200), *range(2000, 2900)]])
    template = msgspec.structs.replace(TEMPLATE, archived={"a": START + 3 * DAY})
    program = msgspec.structs.replace(PROGRAM, templates=[template], shipping=Shipping(rule="significance"))
    ticks = {(t.now - START) // DAY: t for t in replay_log(program, log, START + 4 * DAY)[2]}
    assert [c.what for c in ticks[1].changes if c.arm == 1] == ["ship"]
    assert ticks[2].shares[0, 0, 0].tolist() == [0, 1, 0]
    for day in (3, 4):
        assert ticks[day].shares[0, 0, 0].tolist() == [1, 0, 0]
        assert not ticks[day].live[0, 0].any()


def test_a_floor_is_for_the_variants_that_are_served_at_once() -> None:
    spans: Any = {"added": {"c": 20}, "archived": {"a": 20}}
    one = Template(id="t", variants=["control", "a", "b", "c"], **spans)
    Program(templates=[one], policy=PolicySpec(floor=0.5))
    with pytest.raises(UsageError, match=r"expected at most 0\.3333: template 't' has 3 variants at once"):
        Program(templates=[msgspec.structs.replace(one, archived={"a": 21})], policy=PolicySpec(floor=0.5))


@pytest.mark.parametrize("name", ["added", "archived", "reset"])
def test_instants_of_unknown_variants_are_refused(name: str) -> None:
    made: Any = {name: {"aa": 1}}
    with pytest.raises(UsageError, match=f"{name} of template 't': 'aa' is no variant; did you mean 'a'"):
        Template(id="t", variants=["control", "a"], **made)
    made = {name: {"control": 1}}
    with pytest.raises(UsageError, match="is the control"):
        Template(id="t", variants=["control", "a"], **made)


# -- themes ----------------------------------------------------------------------------------------------


def test_a_theme_is_a_coefficient_of_its_variants_alone() -> None:
    """With a theme the level of a variant is the sum of two coefficients: its prior variance is twice as large, and
    after n sends the posterior is that of a ridge half as large. Others are as without."""
    x = features(["plan=free", "plan=paid"], [[], ["urgency"], []])
    assert x.shape == (3, 3, 4)
    spec = PolicySpec(name="linear_thompson", ridge=2.0)
    n = np.array([[[0.0, 40, 40], [0, 0, 0], [0, 0, 0]]])
    y = np.array([[[0.0, 10, 10], [0, 0, 0], [0, 0, 0]]])
    p = policy("linear_thompson")

    def scores(x: Any, ridge: float) -> Any:
        state = p.init(msgspec.structs.replace(spec, ridge=ridge), Shape(1, 3, 3, features=x))
        return linear(state + {"n": n, "y": y, "y2": y}).sd[0, 0, 1:] ** 2

    mine, plain, half = scores(x, 2.0), scores(x[..., :3], 2.0), scores(x[..., :3], 1.0)
    assert mine[0] == pytest.approx(half[0], rel=1e-12)
    assert mine[1] == pytest.approx(plain[1], rel=1e-12)
    assert mine[0] > plain[0]


def test_themes_reach_the_policy_of_the_loop() -> None:
    """Of two variants with equal results the one with a wider prior is tried more where little is known."""
    log = log_of([(v, START + i) for i, v in enumerate(["a", "b"] * 20)], [(2 * i, START + HOUR) for i in range(4)])
    share = []
    for themes in ({}, {"b": ["urgency"]}):
        spec = PolicySpec(name="linear_thompson", ridge=50.0)
        tick = last(msgspec.structs.replace(PROGRAM, policy=spec, themes=themes), log, START + 3 * DAY)
        share.append(tick.shares[0, 0, 0])
    # b is behind, and with a theme its prior holds it back less.
    assert share[0][1] > 0.55
    assert share[1][1] > share[0][1] + 0.001


# -- the service -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Site:
    """A service in this process, with a clock that is set and a program that is kept in a file."""

    folder: Path
    program: Program = PROGRAM

    def __post_init__(self) -> None:
        self.now = START + HOUR
        self.path = self.folder / "program.toml"
        self.store = Store(self.folder / "store.sqlite")
        self.engine = Engine(self.program, self.store, lambda: self.now, keep=lambda p: kept(self.path, p))
        self.http = TestClient(create_app(self.engine))

    def change(self, action: str, variant: str, status: int = 200, **more: Any) -> Any:
        body = {"action": action, "template_id": "t", "variant_id": variant} | more
        answer = self.http.post("/api/variants", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def drawn(self, n: int, tag: str, status: int = 200, **query: Any) -> list[Any]:
        out = []
        for i in range(n):
            q = {"template_id": "t", "user_id": f"{tag}{i}"} | query
            answer = self.http.post("/api/generate/acme", json=q)
            assert answer.status_code == status, answer.text
            out.append(answer.json())
        return out


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with made.http:
        yield made
    made.store.close()


def seen(found: list[Any]) -> dict[str, float]:
    """The propensity of every variant that was served."""
    out: dict[str, float] = {}
    for d in found:
        assert out.setdefault(d["copy"]["id"], d["propensity"]) == d["propensity"]
    return out


@pytest.mark.parametrize(("setting", "value"), [("split", "external"), ("holdout_share", 0.1)])
def test_what_only_a_simulation_can_do_is_refused_by_the_service(tmp_path: Path, setting: str, value: Any) -> None:
    program = msgspec.structs.replace(PROGRAM, **{setting: value})
    store = Store(tmp_path / "store.sqlite")
    with pytest.raises(UsageError, match=f"{setting} is .*the service draws every choice itself"):
        Engine(program, store)
    store.close()


def test_a_variant_is_archived_at_once_and_the_others_share_its_part(site: Site) -> None:
    assert seen(site.drawn(60, "x")) == pytest.approx({"control": 0.1, "a": 0.45, "b": 0.45})
    site.now += HOUR
    told = site.change("archive", "a")
    assert [(v["variant_id"], v["state"]) for v in told["variants"]] == [
        ("control", "control"), ("a", "archived"), ("b", "active"),
    ]  # fmt: skip
    assert seen(site.drawn(60, "y")) == pytest.approx({"control": 0.1, "b": 0.9})
    shown = site.http.get("/api/results", params={"org": "acme"}).json()["shares"]["by_template"]["t"]
    assert shown == pytest.approx({"control": 0.1, "a": 0.0, "b": 0.9}), "what is served now"
    assert seen(site.drawn(60, "e", epsilon=0.5)) == pytest.approx({"control": 0.1, "b": 0.9})
    site.now += 2 * DAY
    assert seen(site.drawn(60, "z")) == pytest.approx({"control": 0.1, "b": 0.9})
    site.change("archive", "b")
    assert seen(site.drawn(5, "w")) == {"control": 1.0}, "when the last one is archived the control is served"


def test_a_variant_is_added_from_the_next_refresh_on_and_the_program_is_kept(site: Site) -> None:
    site.drawn(1, "first")
    site.change("add", "c", sends=100, outcomes=0, themes=["price"])
    assert set(seen(site.drawn(40, "x"))) == {"control", "a", "b"}
    site.now += DAY
    found = seen(site.drawn(120, "y"))
    shares = site.engine.shares("acme").by_template["t"][0, 0]
    # Beta(1, 101) against two of Beta(1, 1): the warm start says that it is bad.
    assert 0 < shares[3] < 0.001
    assert shares[1] == pytest.approx(shares[2], abs=1e-9)
    assert found["a"] == shares[1]
    read = read_program(site.path)
    assert read == site.engine.program
    assert read.policy.warm_start == {"c": (100, 0)}
    assert read.themes == {"c": ["price"]}
    site.change("reset", "c", sends=0)
    assert site.engine.program.policy.warm_start == {}
    assert site.engine.shares("acme").by_template["t"][0, 0, 1:].tolist() == pytest.approx([0.3] * 3)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"action": "archiv"}, "did you mean 'archive'"),
        ({"variant_id": "bb"}, "did you mean 'b'"),
        ({"variant_id": "control"}, "is the control"),
        ({"template_id": "u"}, "template_id 'u' is not in the program"),
        ({"variant_id": ""}, "variant_id '' is no variant"),
        ({"variant": "a"}, "field 'variant' is not known"),
        ({"sends": 3}, "not for 'archive'"),
        ({"action": "add", "variant_id": "b"}, "is in template 't' already"),
        ({"action": "add", "variant_id": ""}, "variant_id is missing"),
        ({"action": "add", "variant_id": "c", "sends": 3, "outcomes": 5}, "no more successes than sends"),
        ({"action": "add", "variant_id": "c", "sends": -3}, "warm_start"),
        ({"action": "add", "variant_id": "c", "sends": "many"}, "expected a number of at least 0"),
        ({"action": "add", "variant_id": "c", "sends": True}, "expected a number of at least 0"),
        ({"action": "add", "variant_id": "c", "themes": [1]}, "expected a list of texts"),
        ({"action": "add", "variant_id": "x" * 600}, "at most 512"),
    ],
)
def test_a_change_that_cannot_be_changes_nothing(site: Site, body: dict[str, Any], says: str) -> None:
    before = site.engine.program
    answer = site.http.post("/api/variants", json={"action": "archive", "template_id": "t", "variant_id": "a"} | body)
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]
    assert site.engine.program == before
    assert not site.path.exists()


def test_what_was_archived_stays_archived(site: Site) -> None:
    site.change("archive", "a")
    for action in ("archive", "reset", "add"):
        assert "was archived at 2026-01-05" in site.change(action, "a", 400)["error"]
    assert "was archived" in site.drawn(1, "f", 400, copy_id="a")[0]["error"]
    assert site.http.get("/api/variants").json()["variants"][1]["archived"] == "2026-01-05T01:00:00Z"


def test_too_large_a_floor_for_one_more_variant(tmp_path: Path) -> None:
    made = Site(tmp_path, msgspec.structs.replace(PROGRAM, policy=PolicySpec(floor=0.4)))
    with made.http:
        assert "policy.floor is 0.4; expected at most 0.3333" in made.change("add", "c", 400)["error"]
    made.store.close()


def test_eligible_variants_share_the_treatment_traffic(site: Site) -> None:
    assert seen(site.drawn(60, "x", eligible=["b"])) == pytest.approx({"control": 0.1, "b": 0.9})
    assert seen(site.drawn(5, "y", eligible=[])) == {"control": 1.0}
    answer = site.http.get("/api/generate/acme", params={"template_id": "t", "user_id": "g", "eligible": "a, b"})
    assert answer.json()["propensity"] in (0.1, 0.45)
    assert (
        "eligible names 'bb', no variant of 't'; did you mean 'b'"
        in site.drawn(1, "z", 404, eligible=["bb"])[0]["error"]
    )
    assert "expected a list of texts" in site.drawn(1, "z", 400, eligible=[1])[0]["error"]
    assert "not among eligible" in site.drawn(1, "z", 400, eligible=["b"], copy_id="a")[0]["error"]
    # The repeat of a request shares its decision only where that is one that it may have.
    first = site.drawn(1, "q", eligible=["b"])[0]
    assert site.drawn(1, "q", eligible=["b"])[0] == first
    assert site.drawn(1, "q", eligible=["a"])[0]["copy"]["id"] in ("control", "a")


def test_a_sticky_user_keeps_a_variant_while_there_is_one_and_it_is_eligible(tmp_path: Path) -> None:
    made = Site(tmp_path, msgspec.structs.replace(PROGRAM, sticky="variant", control_share=0.0))
    with made.http:
        first = made.drawn(1, "s")[0]["copy"]["id"]
        other = {"a": "b", "b": "a"}[first]
        made.now += HOUR
        assert made.drawn(1, "s")[0]["copy"]["id"] == first
        made.now += HOUR
        assert made.drawn(1, "s", eligible=[other])[0]["copy"]["id"] == other
        made.change("archive", first)
        made.now += HOUR
        assert made.drawn(1, "s", eligible=None)[0]["copy"]["id"] == other
    made.store.close()


@pytest.mark.parametrize("shipping", [None, Shipping(rule="significance", settings={"min_sends": 40})])
def test_a_replay_of_the_kept_program_gives_the_shares_of_the_service(
    tmp_path: Path, shipping: Shipping | None
) -> None:
    """Variants come, go and are reset between refreshes; the file and the rows tell all of it."""
    made = Site(tmp_path, msgspec.structs.replace(PROGRAM, shipping=shipping))
    plan = [("add", "c"), ("archive", "a"), ("reset", "b"), None, None]
    with made.http:
        for day, action in enumerate(plan):
            for i, d in enumerate(made.drawn(40, f"d{day}-")):
                user, variant = f"d{day}-{i}", d["copy"]["id"]
                row = {"table": "sends", "send_id": f"s-{user}", "user_id": user, "template_id": "t",
                       "variant_id": variant, "sent_at": made.now}  # fmt: skip
                rows = [row]
                if i % {"control": 7, "a": 3, "b": 4, "c": 5}[variant] == 0:
                    rows.append({"event_id": f"e-{user}", "user_id": user, "kind": "conversion", "name": "buy",
                                 "occurred_at": made.now + 1000})  # fmt: skip
                assert made.http.post("/api/webhook/events/acme", json=rows).status_code == 200
            if action is not None:
                made.change(*action)
            made.now += DAY
        got = made.engine.shares("acme", made.now)
        log = made.engine._log("acme")[0]
    made.store.close()
    program = read_program(made.path)
    ticks = replay_log(program, log, made.now)[2]
    tick = next(t for t in ticks if t.now == got.at)
    np.testing.assert_array_equal(got.by_template["t"][0], tick.shares[log.names("template").index("t"), 0])
    assert got.by_template["t"][0, 0, 1] == 0
    assert got.by_template["t"][0, 0, 3] > 0

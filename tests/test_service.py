"""The service: durable answers, shared decisions, results equal to a direct attribution, clear refusals."""

from __future__ import annotations

import gzip
import hmac
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import httpx
import msgspec
import numpy as np
import pytest
from litestar.testing import TestClient

from justai_sim import cli, clock, scenario
from justai_sim.attribution import Rule, TrainingWindow
from justai_sim.bandit.policy import PolicySpec
from justai_sim.clock import DAY, HOUR, MINUTE
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.base import adapter
from justai_sim.esp.rows import Rows
from justai_sim.estimate.metrics import metrics_table
from justai_sim.log import build
from justai_sim.loop.program import Program, Shipping, Template
from justai_sim.loop.replay import attribute_log, replay_log
from justai_sim.service import app as app_module
from justai_sim.service.app import create_app
from justai_sim.service.engine import Engine
from justai_sim.service.run import listen, locked, settled_program
from justai_sim.service.settings import program_toml, read_program
from justai_sim.service.store import VERSION, Decision, Store, StoreError

ROOT = Path(__file__).parents[1]
START = clock.parse("2026-01-05T00:00:00Z")
PROGRAM = Program(
    templates=[Template(id="hello", variants=["control", "a", "b"]), Template(id="bye", variants=["control", "a"])],
    goals=["purchase"],
)


class Clock:
    """A clock that the test sets."""

    def __init__(self, now: int = START + HOUR) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Site:
    """A service in this process with a set clock."""

    def __init__(
        self, folder: Path, program: Program = PROGRAM, api_key: str = "", secrets: dict[str, list[str]] | None = None
    ) -> None:
        self.clock = Clock()
        self.store = Store(folder / "store.sqlite")
        self.engine = Engine(program, self.store, self.clock)
        self.http = TestClient(create_app(self.engine, api_key, secrets))

    def generate(self, **query: Any) -> Any:
        answer = self.http.get("/api/generate/acme", params={"template_id": "hello", "user_id": "u1"} | query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, *rows: dict[str, Any]) -> Any:
        return self.http.post("/api/webhook/events/acme", json=list(rows))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with made.http:
        yield made
    made.store.close()


def send(i: int, variant: str, at: int = START, **more: Any) -> dict[str, Any]:
    return {
        "table": "sends", "send_id": f"s{i}", "user_id": f"u{i}", "template_id": "hello", "variant_id": variant,
        "sent_at": at,
    } | more  # fmt: skip


def purchase(i: int, at: int, **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{i}", "user_id": f"u{i}", "kind": "conversion", "name": "purchase", "occurred_at": at} | more


# -- choices ---------------------------------------------------------------------------------------------


def test_a_choice_is_answered_and_stored_with_its_propensity(site: Site) -> None:
    found = site.generate(**{"attrs.industry": "retail"})
    assert found["copy"]["vars"] == {}
    assert found["template_id"] == "hello"
    assert found["mode"] == "policy"
    share = {"control": 0.1, "a": 0.45, "b": 0.45}[found["copy"]["id"]]
    assert found["propensity"] == pytest.approx(share)
    ((_, stored),) = site.store.decisions("acme")
    assert stored.propensity == found["propensity"]
    assert stored.variant_id == found["copy"]["id"]
    assert stored.decided_at == site.clock.now


def test_get_and_post_make_the_same_choice(site: Site) -> None:
    body = {"template_id": "hello", "user_id": "u1", "attrs": {"industry": "retail"}, "fields": ["subject"]}
    answer = site.http.post("/api/generate/acme", json=body)
    assert answer.json() == site.generate()


def served(site: Site, users: int, **query: Any) -> list[Any]:
    return [site.generate(user_id=f"u{i}", **query) for i in range(users)]


def made(folder: Path, **settings: Any) -> Site:
    return Site(folder, msgspec.structs.replace(PROGRAM, **settings))


@pytest.mark.parametrize("sticky", ["arm", "variant"])
def test_users_stay_where_they_were(sticky: Any, tmp_path: Path) -> None:
    site = made(tmp_path, sticky=sticky)
    with site.http:
        first = served(site, 150)
        site.clock.now += 40 * MINUTE
        again = served(site, 150)
        other = served(site, 150, template_id="bye")
    site.store.close()
    moved = 0
    for one, two, three in zip(first, again, other, strict=True):
        control = [x["copy"]["id"] == "control" for x in (one, two, three)]
        if sticky == "variant":
            assert (two["copy"], two["mode"], two["propensity"]) == (one["copy"], "sticky", one["propensity"])
        else:
            assert len(set(control)) == 1, "the arm holds over templates"
            assert two["mode"] == "policy"
            moved += two["copy"] != one["copy"]
        assert one["propensity"] == pytest.approx(0.1 if control[0] else 0.45)
    assert (moved > 0) == (sticky == "arm")
    n = sum(x["copy"]["id"] == "control" for x in first)
    assert abs(n - 15) <= 4 * (150 * 0.1 * 0.9) ** 0.5


def test_a_forced_copy_does_not_end_a_stay(tmp_path: Path) -> None:
    site = made(tmp_path, sticky="variant")
    with site.http:
        first = served(site, 30)
        site.clock.now += 40 * MINUTE
        served(site, 30, copy_id="control")
        site.clock.now += 40 * MINUTE
        again = served(site, 30)
    site.store.close()
    assert [x["copy"] for x in again] == [x["copy"] for x in first]
    assert {x["mode"] for x in again} == {"sticky"}


def test_what_is_shipped_or_archived_is_served_to_nobody_else(tmp_path: Path) -> None:
    """b wins and is shipped: users who had another variant, and requests with an epsilon, get b from then on."""
    shipping = Shipping(rule="significance", settings={"min_sends": 30.0})
    site = made(tmp_path, sticky="variant", shipping=shipping, policy=PolicySpec(name="uniform"), control_share=0.4)
    with site.http:
        first, bought = served(site, 300), []
        for i, found in enumerate(first):
            assert site.events(send(i, found["copy"]["id"], site.clock.now + 1)).status_code == 200
            if found["copy"]["id"] == "b" and i % 3:
                bought.append(purchase(i, site.clock.now + 4 * DAY))
        site.clock.now += 8 * DAY
        assert site.events(*bought).status_code == 200
        site.clock.now += DAY
        later = served(site, 60, epsilon=0.5)
        new = [site.generate(user_id=f"n{i}", epsilon=0.5) for i in range(40)]
    site.store.close()
    assert {x["copy"]["id"] for x in first[:60]} == {"control", "a", "b"}
    assert {x["copy"]["id"] for x in [*later, *new]} == {"b"}
    assert {x["propensity"] for x in new} == {1.0}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"key_metric": "revenue_per_send", "shipping": Shipping(rule="expected_loss")}, "not on money"),
        ({"policy": PolicySpec(name="gamma_poisson"), "feedback": "weighted",
          "shipping": Shipping(rule="value_remaining")}, "decides on trials"),
        ({"policy": PolicySpec(name="explore_then_commit"), "training": TrainingWindow()}, "first sends"),
    ],
)  # fmt: skip
def test_programs_that_would_fail_later_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        msgspec.structs.replace(PROGRAM, **settings)


def test_a_request_has_its_own_epsilon(tmp_path: Path) -> None:
    shares = {"a": 1.0}
    site = made(tmp_path, policy=PolicySpec(name="fixed", shares=shares))
    with site.http:
        found = served(site, 200, epsilon=0.5)
        bad = [site.http.get("/api/generate/acme", params={"template_id": "hello", "user_id": "u", "epsilon": e})
               for e in ("1.5", "x", "nan")]  # fmt: skip
    site.store.close()
    expected = {"control": 0.1, "a": 0.9 * 0.75, "b": 0.9 * 0.25}
    for name, share in expected.items():
        mine = [x["propensity"] for x in found if x["copy"]["id"] == name]
        assert mine == pytest.approx([share] * len(mine))
        assert abs(len(mine) - 200 * share) <= 4 * (200 * share * (1 - share)) ** 0.5
    assert [b.status_code for b in bad] == [400] * 3
    assert all("epsilon" in b.text for b in bad)


def test_segments_are_stored_and_served_from_their_own_shares(tmp_path: Path) -> None:
    """A contextual policy sends b to those who buy after b."""
    segments: dict[str, list[str | float]] = {"plan": ["free", "paid"], "age_days": [7.0, 30.0]}
    site = made(tmp_path, segments=segments, policy=PolicySpec(name="linear_thompson", prior_sd=0.1), control_share=0.0)
    bought = []
    with site.http:
        for i in range(120):
            plan = "free" if i % 2 else "paid"
            found = site.generate(user_id=f"u{i}", **{"attrs.plan": plan, "attrs.age_days": "9"})
            assert site.events(send(i, found["copy"]["id"], site.clock.now + 1)).status_code == 200
            if (found["copy"]["id"] == "b") == (plan == "free"):
                bought.append(purchase(i, site.clock.now + 4 * DAY))
        site.clock.now += 8 * DAY
        assert site.events(*bought).status_code == 200
        site.clock.now += DAY
        rows = dict(site.store.decisions("acme")).values()
        assert {d.segment for d in rows} == {"plan=free|age_days<=30", "plan=paid|age_days<=30"}
        by = {}
        for plan in ("free", "paid"):
            got = [site.generate(user_id=f"new-{plan}-{i}", **{"attrs.plan": plan, "attrs.age_days": "12"})
                   for i in range(30)]  # fmt: skip
            by[plan] = {x["copy"]["id"]: x["propensity"] for x in got}
        unknown = site.generate(user_id="nobody")
    site.store.close()
    assert by["free"]["b"] > 0.95
    assert by["paid"]["a"] > 0.95
    assert 0 < unknown["propensity"] < 1


def test_requests_of_one_message_share_a_decision(site: Site) -> None:
    first = site.generate()
    site.clock.now += 10 * MINUTE
    assert site.generate() == first
    assert site.generate(tracking_id=first["tracking_id"]) == first
    site.clock.now += 1
    assert site.generate()["decision_id"] != first["decision_id"]
    assert site.generate(template_id="bye")["decision_id"] != first["decision_id"]
    assert site.generate(user_id="u2")["decision_id"] != first["decision_id"]


def test_an_equal_tracking_id_shares_a_decision_for_ever(site: Site) -> None:
    first = site.generate(tracking_id="m1")
    other = site.generate(tracking_id="m2")
    assert other["decision_id"] != first["decision_id"], "two tracking ids are two messages"
    site.clock.now += 40 * DAY
    assert site.generate(tracking_id="m1") == first
    # A tracking id that was used for everybody (a campaign's, say) gives everybody a decision of their own.
    assert site.generate(tracking_id="m1", user_id="u2")["decision_id"] != first["decision_id"]


def test_a_forced_variant_has_no_propensity(site: Site) -> None:
    site.generate()
    for variant in ("a", "b"):
        found = site.generate(copy_id=variant, user_id="u7")
        assert (found["copy"]["id"], found["mode"], found["propensity"]) == (variant, "forced", None)
    stored = [d for _, d in site.store.decisions("acme")]
    assert [math.isnan(d.propensity) for d in stored] == [False, True, True]


def test_variants_are_drawn_with_the_shares(site: Site) -> None:
    n = 3000
    drawn = [site.engine.generate("acme", "hello", f"u{i}").variant_id for i in range(n)]
    for variant, p in (("control", 0.1), ("a", 0.45), ("b", 0.45)):
        # 5 sigma of a binomial share: fails once in 1.7 million for each variant if the draw is right.
        assert abs(drawn.count(variant) / n - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_shares_move_at_the_refresh_and_not_before(site: Site) -> None:
    rows = [send(i, "a" if i % 2 else "b", opened=1) for i in range(200)]
    good = [purchase(i, START + 10, value=3) for i in range(200) if i % 2]
    site.engine.program = msgspec.structs.replace(PROGRAM, rule=Rule(offset_days=0))
    assert site.events(*rows, *good).json() == {"accepted": 300, "rejected": 0, "skipped": 0}
    assert site.engine.shares("acme").at == START
    assert site.generate()["propensity"] in (0.1, 0.45)
    site.clock.now = START + DAY
    shares = site.engine.shares("acme")
    assert shares.at == START + DAY
    assert shares.by_template["hello"][0, 0, 1] > 0.89
    found = site.generate(user_id="u2000")
    k = {"control": 0, "a": 1, "b": 2}[found["copy"]["id"]]
    assert found["propensity"] == shares.by_template["hello"][0, 0, k]
    assert shares.by_template["bye"][0, 0].tolist() == [0.1, 0.9, 0.0]


def test_concurrent_requests_of_one_message_get_one_decision(site: Site) -> None:
    site.generate(user_id="somebody")  # so that nobody waits for the first refresh
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: site.engine.generate("acme", "hello", f"u{i % 5}"), range(200)))
    assert len({d.decision_id for d in found}) == 5
    assert len(list(site.store.decisions("acme"))) == 6


def test_organisations_do_not_see_each_other(site: Site) -> None:
    site.events(send(1, "a"))
    site.http.post("/api/webhook/events/other", json=[send(1, "b")])
    assert site.http.get("/api/results").status_code == 400
    for org, variant in (("acme", "a"), ("other", "b")):
        rows = site.http.get("/api/results", params={"org": org}).json()["metrics"]
        assert [r["variant_id"] for r in rows] == [variant, ""]
    page = site.http.get("/", params={"org": "other"})
    assert "acme" in page.text
    assert site.http.get("/api/results", params={"org": "othre"}).json() == {
        "error": "org 'othre' has nothing stored; did you mean 'other'?"
    }


# -- results ---------------------------------------------------------------------------------------------


def fill(site: Site) -> Rows:
    """Forty days of messages and purchases through the webhook; the rows as an adapter reads them."""
    rng = np.random.default_rng(5)
    rows = Rows()
    for i in range(300):
        site.clock.now = START + i * 3 * HOUR
        at = site.clock.now - MINUTE
        kind = ("conversion", "open", "click", "unsubscribe")[i % 4]
        bodies = [
            send(i, ("control", "a", "b")[i % 3], at),
            {"table": "events", "user_id": f"u{int(rng.integers(i + 1))}", "kind": kind, "name": "purchase",
             "occurred_at": at, "value": float(i)},
        ]  # fmt: skip
        body = json.dumps(bodies).encode()
        site.http.post("/api/webhook/events/acme", content=body)
        adapter("generic").parse(body, rows, "here", site.clock.now)
    return rows


def test_results_are_those_of_a_direct_attribution(site: Site) -> None:
    rows = fill(site)
    site.clock.now += HOUR
    log = build([rows])
    for as_of in (None, START + 20 * DAY):
        query = {} if as_of is None else {"as_of": clock.iso(as_of)}
        found = site.http.get("/api/results", params=query).json()
        at = site.clock.now if as_of is None else as_of
        bound, got = attribute_log(PROGRAM, log, at)
        assert found["as_of"] == clock.iso(at)
        assert found["metrics"] == plain(metrics_table(log, bound, got))
        reasons: dict[str, int] = {}
        for r in found["reasons"]:
            reasons[r["reason"]] = reasons.get(r["reason"], 0) + r["events"]
        assert reasons == got.reasons()


def test_a_replay_applies_another_rule(site: Site) -> None:
    rows = fill(site)
    log = build([rows])
    rule = {"lookback_days": 30, "offset_days": 0, "credit": "linear"}
    found = site.http.post("/api/replay", json={"rule": rule, "as_of": site.clock.now}).json()
    program = msgspec.structs.replace(PROGRAM, rule=Rule(lookback_days=30, offset_days=0, credit="linear"))
    bound, got = attribute_log(program, log, site.clock.now)
    assert found["metrics"] == plain(metrics_table(log, bound, got))
    assert found["rule"]["credit"] == "linear"
    every = site.http.post("/api/replay", json={"rule": {"repeat": "every"}})
    assert every.status_code == 200, "a rule that the policy cannot learn from can still be counted with"
    unknown = site.http.post("/api/replay", json={"goals": ["purchase", "purchas"]})
    assert unknown.status_code == 400
    assert unknown.json() == {"error": "goals: no conversion named 'purchas' was received; did you mean 'purchase'?"}
    assert site.http.get("/api/results").json()["metrics"][-1]["conversions"] > 0, "a replay changes nothing"


def plain(found: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(found, enc_hook=lambda x: x.item()))


def test_a_goal_that_nobody_reported_yet(site: Site) -> None:
    """Before the first conversion any name may be right; later the program's wrong name is a note."""
    assert site.http.post("/api/replay", json={"goals": ["sign_up"]}).status_code == 200
    site.events(send(1, "a"), purchase(1, START + DAY, name="sign_up"))
    assert site.http.post("/api/replay", json={"goals": ["sign_up"]}).status_code == 200
    assert site.engine.results()["notes"] == ["no conversion named purchase was received; received were sign_up 1"]


def test_the_plain_log_has_two_names(site: Site) -> None:
    assert site.http.post("/api/webhook/generic/acme", json=send(1, "a")).json()["accepted"] == 1
    assert [a.esp for a in site.store.arrivals("acme")] == ["generic"]


def test_the_page_shows_every_metric_and_escapes(site: Site) -> None:
    assert "No message has been reported yet" in site.http.get("/").text
    site.events(send(1, "<script>alert(1)</script>", template_id="<b>"), purchase(1, START + 5 * DAY))
    page = site.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    for word in ("Opens", "Clicks", "Conversions", "Unsubscribes", "Revenue per send", "from day 3 to before day 14"):
        assert word in page.text


def test_a_body_cannot_say_when_we_heard_of_it(site: Site) -> None:
    site.events(send(1, "a", received_at=START - DAY), purchase(1, START + 1, received_at=START + 1))
    log = site.engine._log("acme")[0]
    assert log.sends.received_at.tolist() == [site.clock.now]
    assert log.events.received_at.tolist() == [site.clock.now]


def test_sends_that_came_too_late_are_told_of(site: Site) -> None:
    site.events(send(1, "a", START - 30 * DAY), send(2, "a", START - DAY))
    found = site.engine.results()
    assert found["metrics"][-1]["sends"] == 1
    assert found["notes"] == ["sends received more than 7 days after they left, which are not counted: 1"]
    assert site.engine.shares("acme").at == START


def test_a_decision_gives_its_send_time_and_propensity(site: Site) -> None:
    found = site.generate()
    decided = site.clock.now
    site.events(send(1, found["copy"]["id"], decided - 4 * MINUTE), send(2, "a", decided))
    book = site.engine._log("acme")[1]
    sends = book.at(book.log(), site.clock.now).sends
    assert sends.decided_at.tolist()[0] == decided
    assert sends.propensity[0] == found["propensity"]
    assert np.isnan(sends.propensity[1])


# -- parity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("esp", ["generic", "braze", "segment"])
def test_the_service_repeats_a_simulation(tmp_path: Path, esp: str) -> None:
    """The simulator's journal and decisions, posted, give its tallies and shares at every refresh."""
    if importlib.util.find_spec(f"justai_sim.esp.{esp}") is None:
        pytest.skip(f"no adapter for {esp} yet")
    from justai_sim.sim.engine import simulate_block

    chosen = scenario.read("welcome")
    world = msgspec.structs.replace(chosen.world, signups_per_day=25)
    chosen = msgspec.structs.replace(chosen, esp=esp, days=18, world=world)
    block = simulate_block(chosen, range(1), wire=True, keep_journal=True)
    assert block.wire is not None
    site = Site(tmp_path, chosen.full_program())
    log = block.log(0)
    happened: list[tuple[int, Any]] = [(at, body) for at, body in block.wire.journal[0]]
    ids = {c: log.text(c, getattr(log.decisions, c)) for c in ("decision", "user", "template", "variant")}
    for d, u, t, v, at, p in zip(
        *ids.values(), log.decisions.decided_at.tolist(), log.decisions.propensity.tolist(), strict=True
    ):
        happened.append((at, Decision(d, d, "acme", u, t, v, "", at, p, "policy")))
    happened.sort(key=lambda x: x[0])
    for at, what in happened:
        site.clock.now = at
        if isinstance(what, bytes):
            assert site.engine.receive(esp, "acme", what).accepted == 1
        else:
            site.store.append_decision(what)
    for tick in block.ticks:
        got, rows, _ = site.engine.tick("acme", tick.now)
        assert got.now == tick.now
        assert list(rows.values()) == list(range(5))
        np.testing.assert_array_equal(got.n, tick.n)
        np.testing.assert_array_equal(got.y, tick.y)
        np.testing.assert_array_equal(got.shares, tick.shares)
    stored = site.engine._log("acme")[0]
    _, _, ticks = replay_log(chosen.full_program(), stored, chosen.end_us)
    np.testing.assert_array_equal(ticks[-1].shares, block.ticks[-1].shares)
    site.store.close()


@pytest.mark.parametrize("esp", ["braze", "segment"])
def test_webhook_batches_of_a_provider(site: Site, esp: str) -> None:
    if importlib.util.find_spec(f"justai_sim.esp.{esp}") is None:
        pytest.skip(f"no adapter for {esp} yet")
    rows = Rows()
    for table in ([send(i, "ab"[i % 2]) for i in range(10)], [purchase(i, START + 4 * DAY) for i in range(10)]):
        adapter("generic").parse(json.dumps(table).encode(), rows, "here", START + 5 * DAY)
    site.clock.now = START + 5 * DAY
    for _, body in adapter(esp).render(build([rows])):
        answer = site.http.post(f"/api/webhook/{esp}/acme", content=body)
        assert answer.json() == {"accepted": 1, "rejected": 0, "skipped": 0}
    assert site.engine.results()["metrics"][-1]["conversions"] == 10


# -- wrong input -----------------------------------------------------------------------------------------

DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/api/generate/acme", b"{}", 400, "template_id is missing"),
        ("/api/generate/acme", b'{"template_id": "hello"}', 400, "user_id is missing; expected the id of the user"),
        ("/api/generate/acme", b'{"templateid": "hello"}', 400, "template_id is missing; is 'templateid' meant"),
        ("/api/generate/acme", b'{"template_id": "hallo", "user_id": "u"}', 404, "did you mean 'hello'?"),
        ("/api/generate/acme", b'{"template_id": "bye", "user_id": 5, "copy_id": "b"}', 404, "valid: a, control"),
        ("/api/generate/acme", b'{"template_id": ["hello"], "user_id": "u"}', 400, "found a list, expected text"),
        ("/api/generate/acme", b'{"template_id": "hello", "user_id": true}', 400, "user_id: found True"),
        ("/api/generate/acme", b'{"template_id": "hello", "user_id": "u", "attrs": 1}', 400, "attrs: found 1"),
        ("/api/generate/acme", b'{"template_id": "hello", "user_id": "' + b"u" * 600 + b'"}', 400, "at most 512"),
        ("/api/generate/a%20b", b'{"template_id": "hello", "user_id": "u"}', 400, "organisation 'a b'"),
        ("/api/generate/acme", b'{"template_id": ', 400, "not JSON"),
        ("/api/generate/acme", b"\xff\xfe\x00", 400, "not JSON"),
        ("/api/generate/acme", b'{"template_id": "\xff"}', 400, "UTF-8"),
        ("/api/generate/acme", b"[1]", 400, "found a list, expected a JSON object"),
        ("/api/generate/acme", DEEP, 400, "not JSON"),
        ("/api/generate/acme", b" " * 1_000_001, 413, "Too Large"),
        ("/api/webhook/events/acme", b"", 400, "empty"),
        ("/api/webhook/events/acme", b"{", 400, "nothing could be read"),
        ("/api/webhook/events/acme", b"\x00\xff", 400, "nothing could be read"),
        ("/api/webhook/events/acme", DEEP, 400, "nothing could be read"),
        ("/api/webhook/events/acme", b'{"kind": "opn", "user_id": "u", "occurred_at": 1}', 400, "open"),
        ("/api/webhook/events/a%2Fb", b"{}", 404, "expected /api/webhook/"),
        ("/api/webhook/events/-", b"{}", 400, "organisation '-'"),
        ("/api/webhook/brze/acme", b"{}", 404, "did you mean 'braze'?"),
        ("/api/webhook/itb/acme", b"{}", 404, "did you mean 'itbl'?"),
        (
            "/api/webhook/events/acme",
            b'{"kind": "open", "user_id": "u", "occurred_at": "2026-01-05"}',
            400,
            "expected an offset (Z, +02:00); write one",
        ),
        ("/api/generate/acme", b'{"template_id": "hallo", "user_id": "u"}', 404, "are declared in program.toml"),
        ("/api/webhook/events", b"{}", 404, "expected /api/webhook/"),
        ("/api/replay", b'{"rule": {"lookback_day": 3}}', 400, "did you mean 'lookback_days'?"),
        ("/api/replay", b'{"rule": {"lookback_days": "x"}}', 400, "lookback_days='x'"),
        ("/api/replay", b'{"rule": {"lookback_days": 1e999}}', 400, "not JSON"),
        ("/api/replay", b'{"rule": {"offset_days": 20}}', 400, "offset_days 20 is not below"),
        ("/api/replay", b'{"rule": {"credit": "linea"}}', 400, "did you mean 'linear'?"),
        ("/api/replay", b'{"rule": {"tz": "Mars/Base"}}', 400, "IANA"),
        ("/api/replay", b'{"rule": 3}', 400, "rule: found 3, expected an object"),
        ("/api/replay", b'{"goals": "purchase"}', 400, "expected a list of names"),
        ("/api/replay", b'{"as_of": "yesterday"}', 400, "as_of: found 'yesterday', expected ISO-8601"),
        ("/api/replay", b'{"as_of": "2026-01-05"}', 400, "with an offset"),
        ("/api/replay", b'{"as_of": 99999999999999999999999999}', 400, "as_of"),
        ("/api/replay", b'{"asof": 1}', 400, "did you mean 'as_of'?"),
        ("/api/replay", b'{"org": "nobody"}', 404, "nothing stored"),
        ("/api/nothing", b"{}", 404, "Not Found"),
        ("/", b"{}", 405, "Not Allowed"),
    ],
    ids=lambda v: repr(v[:40]) if isinstance(v, bytes) else None,
)
def test_wrong_input_gets_a_clear_refusal(site: Site, path: str, body: bytes, status: int, says: str) -> None:
    answer = site.http.post(path, content=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert says in error, error
    assert "Traceback" not in answer.text


def test_a_bad_element_does_not_cost_its_neighbours(site: Site) -> None:
    answer = site.events(send(1, "a"), {"kind": "conversion"}, purchase(1, START + 1), purchase(2, "2026-01-05"))
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2, "rejected": 2, "skipped": 0})
    found = site.engine.results()
    assert found["rows"]["sends"] == found["rows"]["events"] == 1
    assert sum(found["rejects"].values()) == 2


def test_unreadable_bodies_are_kept_all_the_same(site: Site) -> None:
    for body in (b"\xff\xfe", DEEP, b"{"):
        assert site.http.post("/api/webhook/events/acme", content=body).status_code == 400
    assert [a.body for a in site.store.arrivals("acme")] == [b"\xff\xfe", DEEP, b"{"]
    assert sum(site.engine.results()["rejects"].values()) == 3


@pytest.mark.parametrize(
    ("esp", "body", "status"),
    [
        ("cio", {"object_type": "email", "metric": "sent", "timestamp": 1, "event_id": "e",
                 "data": {"customer_id": None, "identifiers": {"id": None}, "delivery_id": "d"}}, 200),
        ("cio", {"object_type": "push", "metric": "sent", "timestamp": 1, "event_id": "e", "data": {}}, 200),
        ("cio", "{", 200), ("sfmc", "{", 200),
        ("sfmc", [{"eventCategoryType": "TransactionalSendEvents.EmailSent"}], 200),
        ("itbl", "{", 200), ("braze", "{", 400), ("segment", "{", 400), ("events", "{", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_read_holds_up_no_provider_that_would_send_it_again(
    site: Site, esp: str, body: Any, status: int
) -> None:
    """Customer.io tries a refused event for seven days, with those behind it waiting; Marketing Cloud a whole batch."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    answer = site.http.post(f"/api/webhook/{esp}/acme", content=content)
    assert (answer.status_code, answer.json()["rejected"]) == (status, 1), answer.text
    assert answer.json()["error"].startswith("nothing could be read: ")
    assert sum(site.engine.results()["rejects"].values()) == 1
    assert [a.body for a in site.store.arrivals("acme")] == [content]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_segments_other_methods_and_its_librarys_gzip_are_read(tmp_path: Path, method: str) -> None:
    row = {"type": "track", "event": "Email Opened", "messageId": "e1", "userId": "u1",
           "timestamp": "2026-01-05T00:00:00Z", "properties": {"message_id": "m1"}}  # fmt: skip
    body = json.dumps(row).encode()
    signed = {"X-Signature": hmac.new(b"abc123", body, "sha1").hexdigest()}
    site = Site(tmp_path, secrets={"segment": ["abc123"]})
    with site.http as http:
        for content, how in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
            answer = http.request(method, "/api/webhook/segment/acme", content=content, headers=signed | how)
            assert (answer.status_code, answer.json()["accepted"]) == (200, 1), answer.text
    assert [a.body for a in site.store.arrivals("acme")] == [body, body]
    site.store.close()


def test_a_packed_webhook_keeps_to_the_bounds(site: Site) -> None:
    packed = gzip.compress(b"[]")
    for content, how, status, said in (
        (gzip.compress(b" " * (app_module.MAX_WEBHOOK + 1)), "gzip", 413, "unpacks to more than 10,000,000 bytes"),
        (b"[]", "gzip", 400, "not gzip"), (packed[:-1], "gzip", 400, "cut off"), (packed * 2, "gzip", 400, "followed"),
        (b"[]", "br", 415, "expected a body as it is, or gzip"),
    ):  # fmt: skip
        answer = site.http.post("/api/webhook/events/acme", content=content, headers={"Content-Encoding": how})
        assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert not list(site.store.arrivals("acme"))


def test_a_large_webhook_is_refused_with_and_without_a_length(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "MAX_WEBHOOK", 1000)
    assert site.http.post("/api/webhook/events/acme", content=b" " * 1001).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    assert site.http.post("/api/webhook/events/acme", content=chunks()).status_code == 413
    assert not list(site.store.arrivals("acme"))


def test_an_adapter_that_fails_costs_neither_the_body_nor_the_rest(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, parse = type(adapter("generic")), type(adapter("generic")).parse

    def broken(self: Any, body: bytes, rows: Rows, place: str, received_at: int) -> None:
        if b"poison" in body:
            raise KeyError("a bug")
        parse(self, body, rows, place, received_at)

    monkeypatch.setattr(kind, "parse", broken)
    assert site.events({"poison": 1}).status_code == 400
    assert site.events(send(1, "a")).status_code == 200
    assert site.engine.results()["rows"]["sends"] == 1
    assert site.engine.results()["rejects"] == {"unreadable": 1}


def test_a_full_disk_is_not_answered_as_kept(site: Site) -> None:
    pages = site.store._writer.execute("PRAGMA page_count").fetchall()[0][0]
    site.store._writer.execute(f"PRAGMA max_page_count={pages + 2}").fetchall()
    answer = site.http.post("/api/webhook/events/acme", content=b'"' + b"x" * 100_000 + b'"')
    assert answer.status_code == 503
    assert "could not be written" in answer.json()["error"]
    assert not list(site.store.arrivals("acme"))
    assert site.events(send(1, "a")).status_code == 200, "a small body still fits"


def test_a_surprise_is_a_500_without_a_traceback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(site.engine, "results", bad)
    monkeypatch.setattr(site.engine, "receive", bad)
    for answer in (site.http.get("/api/results"), site.events(send(1, "a"))):
        assert answer.status_code == 500
        assert "secret" not in answer.text


def test_a_signed_webhook_needs_no_key_and_an_unsigned_one_is_stored_nowhere(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="k3y", secrets={"segment": ["new", "old"], "braze": ["token"]})
    body = (
        b'{"type": "track", "event": "Email Opened", "messageId": "m", "userId": "u", "timestamp": "2026-01-05T09:00Z"}'
    )
    for secret, status in ((b"new", 200), (b"old", 200), (b"older", 401)):
        signature = hmac.new(secret, body, "sha1").hexdigest()
        got = site.http.post("/api/webhook/segment/acme", content=body, headers={"X-Signature": signature})
        assert got.status_code == status, got.text
    got = site.http.post("/api/webhook/segment/acme", content=body, headers={"X-Api-Key": "k3y"})
    assert got.status_code == 401
    assert "X-Signature: found nothing" in got.json()["error"]
    probe = site.http.post("/api/webhook/braze/acme", content=b"", headers={"Authorization": "Bearer token"})
    assert (probe.status_code, probe.json()["accepted"]) == (200, 0)
    assert site.http.post("/api/webhook/braze/acme", content=b"").status_code == 401
    assert site.http.post("/api/webhook/events/acme", content=b"{}").status_code == 401  # by the key, as before


def test_marketing_cloud_verifies_a_callback(tmp_path: Path) -> None:
    site = Site(tmp_path, secrets={"sfmc": ["key"]})
    asked = {"callbackId": "c", "verificationKey": "v"}
    got = site.http.post("/api/webhook/sfmc/acme", json=asked)
    assert (got.status_code, got.json()) == (200, {"verify": asked})
    assert site.http.post("/api/webhook/sfmc/acme", json=[]).status_code == 401


def test_an_api_key_is_asked_for_everywhere(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="k3y")
    with site.http as http:
        asked: list[dict[str, Any]] = [
            {"method": "GET", "url": "/"},
            {"method": "GET", "url": "/api/results"},
            {"method": "POST", "url": "/api/replay", "content": b"{}"},
            {"method": "GET", "url": "/api/generate/acme?template_id=hello&user_id=u"},
            {"method": "POST", "url": "/api/webhook/events/acme", "content": b"[]"},
        ]
        right = [{"X-Api-Key": "k3y"}, {"Authorization": "Bearer k3y"}, {"Authorization": "Basic eDprM3k="}]
        wrong = [
            {},
            {"X-Api-Key": "k3"},
            {"Authorization": "Bearer "},
            {"Authorization": "Basic !"},
            {"X-Api-Key": "ü"},
        ]
        for request in asked:
            assert {http.request(**request, headers=h).status_code for h in right} == {200}
            for h in wrong:
                bad = http.request(**request, headers={k: v.encode() for k, v in h.items()})
                assert bad.status_code == 401
                assert "WWW-Authenticate" in bad.headers
    site.store.close()


# -- the store and the program ---------------------------------------------------------------------------


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    Store(path).close()
    c = apsw.Connection(str(path))
    c.execute(f"PRAGMA user_version={VERSION + 1}").fetchall()
    c.close()
    with pytest.raises(DataError, match="newer version"):
        Store(path)


def test_other_files_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello " * 1000)
    with pytest.raises(DataError, match="cannot be opened as a store"):
        Store(tmp_path / "a")
    c = apsw.Connection(str(tmp_path / "b"))
    c.execute("CREATE TABLE t (x)")
    c.close()
    with pytest.raises(DataError, match="not a store"):
        Store(tmp_path / "b")


def test_times_never_step_back(tmp_path: Path) -> None:
    now = Clock()
    store = Store(tmp_path / "s")
    first = store.append_arrival("acme", "generic", b"1", now)
    now.now -= HOUR
    assert store.append_arrival("acme", "generic", b"2", now).received_at == first.received_at
    store.close()
    again = Store(tmp_path / "s")
    assert again.now(now) == first.received_at
    again.close()


@pytest.mark.parametrize("bad", [False, True])
def test_what_waits_shares_a_commit_and_a_bad_row_hurts_nobody(tmp_path: Path, bad: bool) -> None:
    store = Store(tmp_path / "s")
    commits: list[int] = []
    store._writer.set_commit_hook(lambda: bool(commits.append(1)))
    bodies: list[Any] = [b"%d" % i for i in range(60)] + (["\ud800"] if bad else [])  # which cannot be stored
    failed: list[Any] = []

    def append(body: Any) -> None:
        try:
            store.append_arrival("acme", "generic", body, Clock())
        except StoreError:
            failed.append(body)

    with store._writing:  # all of them wait
        threads = [threading.Thread(target=append, args=(b,)) for b in bodies]
        for t in threads:
            t.start()
        while len(store._pending) < len(bodies):
            time.sleep(0.001)
    for t in threads:
        t.join()
    assert sorted(a.body for a in store.arrivals("acme")) == sorted(bodies[:60])
    assert failed == bodies[60:]
    assert len(commits) == (60 if bad else 1)
    store.close()


def test_concurrent_appends_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    commits: list[int] = []
    store._writer.set_commit_hook(lambda: bool(commits.append(1)))
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda i: store.append_arrival("acme", "generic", b"%d" % i, Clock(i)), range(500)))
    kept = list(store.arrivals("acme"))
    assert {(a.serial, a.received_at, a.body) for a in got} == {(a.serial, a.received_at, a.body) for a in kept}
    assert [a.received_at for a in kept] == sorted(a.received_at for a in kept)
    assert len(commits) <= 500
    store.close()


def test_a_program_file_reads_back_as_written(tmp_path: Path) -> None:
    program = msgspec.structs.replace(
        PROGRAM,
        templates=[*PROGRAM.templates, Template(id='odd "ü"\n\x7f#', variants=["contröl", "x y"])],
        policy=PolicySpec(name="fixed", shares={"a": 3.0, "x y": 1.0}),
        rule=Rule(lookback_days=7.5, cap=100.0, groups={"hello": "g 1"}, scope="group", rates={"EUR": 1.1}),
    )
    path = tmp_path / "program.toml"
    path.write_text(program_toml(program), encoding="utf-8")
    assert read_program(path) == program


def test_the_first_program_is_the_packaged_one(tmp_path: Path) -> None:
    program = settled_program(tmp_path, None)
    assert program == scenario.read("welcome").full_program()
    assert (tmp_path / "program.toml").is_file()
    assert settled_program(tmp_path, "welcome") == program
    other = tmp_path / "other.toml"
    other.write_text(program_toml(PROGRAM))
    with pytest.raises(UsageError, match="differs from"):
        settled_program(tmp_path, other)
    new = tmp_path / "new"
    new.mkdir()
    assert settled_program(new, other) == PROGRAM


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = ", "not TOML"),
        ("goal = ['p']", "did you mean 'goals'?"),
        ("[rule]\nlookback_day = 3", "rule: .*did you mean 'lookback_days'?"),
        ("[[templates]]\nid = 'a'\nvariants = ['c', 'c']", "distinct variants"),
        ("[[templates]]\nid = 'a'", "templates.*variants"),
        ("[policy]\nname = 'unifrm'\n", "did you mean 'uniform'?"),
        ("goals = ['p']", "templates: found none"),
        ("control_share = 'x'", "control_share: Expected `float`"),
        ("flow = 3", "flow"),
        ("[rule]\nrepeat = 'every'", "not repeat 'every'"),
        ("key_metric = 'revenue_per_send'\n[policy]\nname = 'sliding_thompson'", "is money"),
    ],
)
def test_a_wrong_program_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "program.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=says) as e:
        settled_program(tmp_path, None)
    assert str(path) in str(e.value)


def test_a_wrong_program_at_start_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "program.toml").write_text(program_toml(PROGRAM).replace("once_per_send", "every"))
    assert cli.run(["serve", "--data", str(tmp_path), "--port", "0"]) == 3
    said = capsys.readouterr().err
    assert f"{tmp_path / 'program.toml'}: policy 'weighted_thompson' learns" in said
    assert "Traceback" not in said


def test_an_unknown_template_is_told_where_they_are_declared(tmp_path: Path) -> None:
    server = Process(tmp_path)
    try:
        answer = server.http.get("/api/generate/acme", params={"template_id": "welcome", "user_id": "u"})
        assert answer.status_code == 404
        assert f"declared in {tmp_path / 'program.toml'}" in answer.json()["error"]
    finally:
        server.kill()


def test_a_second_service_on_a_folder_or_a_port_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UsageError, match="another service"):
        locked(tmp_path)
    with listen("127.0.0.1", 0) as s:
        s.listen()
        port = s.getsockname()[1]
        with pytest.raises(UsageError, match="try another --port"):
            listen("127.0.0.1", port)
    with pytest.raises(UsageError, match="--port"):
        listen("127.0.0.1", 70000)


# -- kill -9 ---------------------------------------------------------------------------------------------


class Process:
    """The real server in a process of its own, on a free port of the loopback."""

    def __init__(self, data: Path) -> None:
        code = f"from justai_sim.service.run import serve; serve('127.0.0.1', 0, {str(data)!r})"
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=env)
        assert self.process.stderr is not None
        line = next((x for x in self.process.stderr if "serving on" in x), "")
        assert line, "the server did not start"
        self.http = httpx.Client(base_url=line.split()[2], timeout=30, trust_env=False)

    def kill(self, how: int = signal.SIGKILL) -> int:
        self.process.send_signal(how)
        code = self.process.wait(20)
        self.http.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def storm(server: Process, seconds: float, threads: int, tag: str) -> tuple[set[str], dict[str, str]]:
    """Webhooks and choices from several threads until the server is killed; what was answered with 2xx."""
    sent: set[str] = set()
    chosen: dict[str, str] = {}
    base = str(server.http.base_url)

    def work(t: int) -> None:
        with httpx.Client(base_url=base, timeout=10, trust_env=False) as http:
            for i in range(1_000_000):
                name = f"{tag}-{t}-{i}"
                try:
                    if http.post("/api/webhook/events/acme", json=[send(0, "a", send_id=name)]).status_code == 200:
                        sent.add(name)
                    got = http.get("/api/generate/acme", params={"template_id": "welcome-1", "user_id": name})
                    if got.status_code == 200:
                        chosen[name] = got.json()["decision_id"]
                except httpx.HTTPError:
                    return

    pool = [threading.Thread(target=work, args=(t,)) for t in range(threads)]
    for thread in pool:
        thread.start()
    time.sleep(seconds)
    server.kill()
    for thread in pool:
        thread.join(30)
    return sent, chosen


def check_kept(data: Path, sent: set[str], chosen: dict[str, str]) -> None:
    store = Store(data / "store.sqlite")
    names = {json.loads(a.body)[0]["send_id"] for a in store.arrivals("acme")}
    decisions = {d.user_id: d.decision_id for _, d in store.decisions("acme")}
    store.close()
    assert sent <= names
    assert chosen.items() <= decisions.items()


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    server = Process(tmp_path)
    try:
        sent, chosen = storm(server, 1.0, 4, "x")
    finally:
        server.process.kill()
    assert len(sent) > 20
    assert len(chosen) > 20
    check_kept(tmp_path, sent, chosen)
    again = Process(tmp_path)
    try:
        user, decision = next(iter(chosen.items()))
        got = again.http.get("/api/generate/acme", params={"template_id": "welcome-1", "user_id": user})
        assert got.json()["decision_id"] == decision
        results = again.http.get("/api/results").json()
        assert results["rows"]["sends"] >= len(sent)
        assert results["rows"]["decisions"] >= len(chosen)
        assert again.http.get("/").status_code == 200
        assert again.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
    finally:
        again.process.kill()


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    sent: set[str] = set()
    chosen: dict[str, str] = {}
    for k in range(200):
        server = Process(tmp_path)
        try:
            s, c = storm(server, 0.05 + (k % 20) / 50, 3, str(k))
        finally:
            server.process.kill()
        sent |= s
        chosen |= c
        check_kept(tmp_path, sent, chosen)

"""Named rules: what each one counts, on worked examples of the behaviour that it follows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import justai_sim as js
from justai_sim.attribution.presets import OF_LOG, PRESETS, Preset, differences, on_log, preset
from justai_sim.attribution.rule import Rule
from justai_sim.attribution.training import TrainingWindow
from justai_sim.cli import run
from justai_sim.clock import DAY, HOUR
from justai_sim.errors import UsageError

T0 = 1_767_600_000_000_000
NAMES = {
    "default", "naive", "vendor", "justai_api", "braze_canvas", "braze_campaign", "iterable", "customerio",
    "growthbook",
}  # fmt: skip


def credited(name: str, sends: list[tuple[str, str, float]], events: list[float]) -> dict[str, float]:
    """Weight by send: sends (id, template, day) of one user, purchases at days."""
    s = pd.DataFrame(
        {"send_id": i, "user_id": "u", "template_id": t, "variant_id": "A", "sent_at": T0 + round(d * DAY)}
        for i, t, d in sends
    )
    e = pd.DataFrame(
        {"event_id": f"e{k}", "user_id": "u", "kind": "conversion", "name": "buy", "occurred_at": T0 + round(d * DAY)}
        for k, d in enumerate(events)
    )
    got = js.attribute(preset(name).rule, s, e).credits
    return {str(k): float(v) for k, v in got.groupby("send_id")["weight"].sum().items()}


def test_the_nine_presets() -> None:
    assert set(PRESETS) == NAMES
    assert PRESETS["default"].rule == PRESETS["vendor"].rule == PRESETS["justai_api"].rule == Rule()
    assert PRESETS["justai_api"].training == TrainingWindow(lookback_days=14, offset_days=3)
    assert [n for n, p in PRESETS.items() if p.training is not None] == ["justai_api"]
    assert PRESETS["vendor"].feedback == "all"
    naive = PRESETS["naive"]
    assert (naive.rule.credit, naive.rule.bounds, naive.denominator) == ("last_then_check", "[]", "sends")
    for name, p in PRESETS.items():
        assert p.denominator == p.rule.denominator
        assert p.follows
        assert bool(p.source) == (name not in ("default", "naive", "vendor"))


def test_a_given_denominator_is_the_rules() -> None:
    assert Preset(Rule(), denominator="users").rule == Rule(denominator="users")
    with pytest.raises(AttributeError):
        Preset(Rule()).rule = Rule(lookback_days=7)  # type: ignore[misc]


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'customerio'"):
        preset("customer_io")


def test_a_presets_options_on_a_log_keep_the_logs_own() -> None:
    like = Rule(currency="EUR", rates={"USD": 0.9}, groups={"T": "g"}, lookback_days=99, tz="Asia/Tokyo")
    rule = on_log("iterable", like)
    assert differences(rule, PRESETS["iterable"].rule).keys() == {"currency", "rates", "groups", "tz"} <= set(OF_LOG)


@pytest.mark.parametrize(
    ("name", "sends", "events", "expected"),
    [
        # Braze: a step's conversions until the next step; the deadline; the next step starts its own.
        ("braze_canvas", [("S1", "T1", 0), ("S2", "T2", 1)], [0.5], {"S1": 1}),
        ("braze_canvas", [("S1", "T1", 0), ("S2", "T2", 1)], [1.5], {"S2": 1}),
        ("braze_canvas", [("S1", "T1", 0), ("S2", "T2", 1)], [4.1], {}),
        # Braze: an action within the deadlines of two campaigns counts for both.
        ("braze_campaign", [("S1", "T1", 0), ("S2", "T2", 1)], [1.5], {"S1": 1, "S2": 1}),
        ("braze_campaign", [("S1", "T1", 0), ("S2", "T2", 1)], [3.5], {"S2": 1}),
        # Iterable: the last campaign within 24 hours; each purchase.
        ("iterable", [("S1", "T1", 0), ("S2", "T2", 0.5)], [0.6, 0.7], {"S2": 2}),
        ("iterable", [("S1", "T1", 0)], [1.1], {}),
        # Customer.io: one delivery converts, the last whose time frame fits.
        ("customerio", [("S1", "T1", 0), ("S2", "T2", 5)], [6], {"S2": 1}),
        ("customerio", [("S1", "T1", 0)], [7.5], {}),
        # GrowthBook: 72 hours from the first exposure, both ends included.
        ("growthbook", [("S1", "T1", 0), ("S2", "T1", 1)], [2], {"S1": 1}),
        ("growthbook", [("S1", "T1", 0)], [3], {"S1": 1}),
        ("growthbook", [("S1", "T1", 0)], [3 + 1e-6], {}),
        # A quick query: the newest send, in BETWEEN 3 AND 14.
        ("naive", [("S1", "T1", 0), ("S2", "T1", 9)], [10], {}),
        ("naive", [("S1", "T1", 0)], [14], {"S1": 1}),
        ("default", [("S1", "T1", 0), ("S2", "T1", 9)], [10], {"S1": 1}),
        ("default", [("S1", "T1", 0)], [14], {}),
    ],
)
def test_what_is_documented_is_what_is_credited(
    name: str, sends: list[tuple[str, str, float]], events: list[float], expected: dict[str, float]
) -> None:
    assert credited(name, sends, events) == expected


def test_repeats_of_presets() -> None:
    def converted(name: str) -> float:
        s = pd.DataFrame([{"send_id": "S", "user_id": "u", "template_id": "T", "variant_id": "A", "sent_at": T0}])
        e = pd.DataFrame(
            {"event_id": f"e{k}", "user_id": "u", "kind": "conversion", "name": "b", "occurred_at": T0 + (1 + k) * HOUR}
            for k in range(3)
        )
        return float(js.metrics(js.attribute(preset(name).rule, s, e))["conversions"].iloc[0])

    assert {n: converted(n) for n in ("braze_canvas", "braze_campaign", "iterable", "customerio", "growthbook")} == {
        "braze_canvas": 1, "braze_campaign": 1, "iterable": 3, "customerio": 1, "growthbook": 1,
    }  # fmt: skip


def write_log(folder: Any, sends: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    pd.DataFrame(sends).to_csv(folder / "sends.csv", index=False)
    pd.DataFrame(events).to_csv(folder / "events.csv", index=False)


def test_replay_takes_a_preset_and_changes_it(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    send = {"send_id": "S", "user_id": "u", "template_id": "T", "variant_id": "A", "sent_at": T0}
    event = {"event_id": "e", "user_id": "u", "kind": "conversion", "name": "b", "occurred_at": T0 + 5 * DAY}
    write_log(tmp_path / "log", [send], [event])

    def conversions(*options: str) -> tuple[float, dict[str, Any]]:
        assert run(["replay", str(tmp_path / "log"), "--json", "--policy", "uniform", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        return found["metrics"][0]["conversions"], found["rule"]

    assert conversions("--preset", "braze_canvas")[0] == 0
    count, rule = conversions("--preset", "braze_canvas", "--set", "lookback_days=7")
    assert (count, rule["scope"], rule["credit"]) == (1, "org", "last_then_check")
    assert run(["replay", str(tmp_path / "log"), "--preset", "braze_canvass"]) == 2
    assert "did you mean 'braze_canvas'" in capsys.readouterr().err


def test_schema_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name}: " in out for name in NAMES)

"""Replays of logs with ordinary mistakes and unusual parts: held-out users, no sends, wrong units, shared ids."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import justai_sim as js
from justai_sim import frames
from justai_sim.api import instant
from justai_sim.cli import run
from justai_sim.clock import DAY
from justai_sim.errors import DataError, UsageError
from justai_sim.tables import Log

T0 = 1_767_600_000_000_000


def log_of(sends: list[dict[str, Any]], events: list[dict[str, Any]]) -> Log:
    base = {"template_id": "T", "variant_id": "A", "sent_at": T0}
    rows = [base | {"send_id": f"s{i}", "user_id": f"u{i}"} | s for i, s in enumerate(sends)]
    kind = {"kind": "conversion", "name": "purchase", "occurred_at": T0 + 5 * DAY}
    told = [kind | {"event_id": f"e{i}"} | e for i, e in enumerate(events)]
    return frames.from_frames(pd.DataFrame(rows), pd.DataFrame(told or [kind | {"event_id": "x", "user_id": "nobody"}]))


def test_held_out_users_have_a_row_of_their_own_and_are_no_arm() -> None:
    sends: list[dict[str, Any]] = [{}] * 20 + [{"status": "held_out"}] * 20 + [{"variant_id": "control"}] * 20
    log = log_of(sends, [{"user_id": f"u{i}", "value": 10.0} for i in (0, 1, 2, 3, 20, 59)])
    result = js.replay(log)
    rows = result.metrics.set_index("variant_id")
    assert rows.loc["A", ["sends", "conversions", "conversion_rate"]].tolist() == [20, 4, 0.2]
    assert rows.loc["held_out", ["sends", "conversions"]].tolist() == [20, 1]
    assert pd.isna(rows.loc["held_out", "open_rate"])
    assert rows.loc["", ["sends", "conversions"]].tolist() == [40, 5]
    assert [t.variants for t in result.program.templates] == [["control", "A"]]
    assert set(result.age()["variant_id"]) == {"A", "control"}
    assert result.windows()["sends"].max() <= 20


def test_a_log_without_sends_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"type": "track", "event": "Email Delivered", "userId": f"u{i}", "messageId": f"m{i}",
         "timestamp": "2026-01-05T00:00:00Z", "properties": {"message_id": f"x{i}", "campaign_id": "T", "copy_id": "A"}}
        for i in range(5)
    ]  # fmt: skip
    order = {"type": "track", "event": "Order Completed", "userId": "u1", "messageId": "o1",
             "timestamp": "2026-01-10T00:00:00Z", "properties": {"revenue": 5}}  # fmt: skip
    (tmp_path / "raw.json").write_text("\n".join(json.dumps(x) for x in [*lines, order]))
    assert run(["replay", str(tmp_path), "--esp", "segment"]) == 3
    assert "--esp segment-deliveries" in capsys.readouterr().err
    assert run(["replay", str(tmp_path), "--esp", "segment-deliveries", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"][0]["sends"] == 5
    assert found["metrics"][0]["conversions"] == 1


def test_metrics_come_even_where_the_policy_cannot_learn() -> None:
    log = log_of([{}, {"variant_id": "control"}], [{"user_id": "u0"}, {"user_id": "u0", "occurred_at": T0 + 6 * DAY}])
    result = js.replay(log, repeat="every")
    assert result.ticks == []
    assert any("no shares are shown" in n for n in result.notes)
    assert len(result.metrics) == 3
    assert len(js.replay(log, metric="revenue_per_send").ticks) == 8
    row = js.replay(log, repeat="every").metrics.iloc[0]
    assert row["conversion_rate"] == 2


def test_the_distinct_row_follows_the_rule() -> None:
    both = [{"template_id": t, "user_id": "u0", "send_id": t} for t in ("T", "T2")] + [{"user_id": "u1"}]
    twice = [{"user_id": "u0", "value": 20.0}, {"user_id": "u0", "value": 30.0, "occurred_at": T0 + 6 * DAY}]
    log = log_of(both, twice)

    def last(**rule: Any) -> Any:
        return js.replay(log, **rule).metrics.iloc[-1]

    assert last()["conversions"] == 1  # once per send, and once whatever the number of templates
    assert last()["conversion_count"] == 2
    assert last()["revenue"] == 50
    assert last(repeat="every")["conversions"] == 2
    assert last(cap=10.0)["revenue"] == 10
    assert last(denominator="users")["conversion_rate"] == 0.5
    assert last()["conversion_rate_low"] >= 0


def test_ordinary_mistakes_are_named() -> None:
    shared = log_of([{"send_id": "camp"}] * 3, [{"user_id": "u1"}])
    assert any("1 send id stand for several users" in n for n in js.replay(shared).notes)
    imported = log_of([{"received_at": T0 + 300 * DAY}] * 2, [{"user_id": "u1"}])
    assert any("time of an import" in n for n in js.replay(imported).notes)
    seconds = log_of([{"sent_at": T0 // 1_000_000}, {}], [{"user_id": "u1"}])
    result = js.replay(seconds)
    assert any("were seconds meant" in n for n in result.notes)
    assert any("no shares are shown" in n for n in result.notes)
    euro = log_of([{}], [{"user_id": "u0", "currency": "EUR"}, {"user_id": "u0", "name": "view", "currency": "USD"}])
    assert js.replay(euro, goals="purchase").metrics.iloc[0]["conversions"] == 1


def test_money_does_not_wrap_round() -> None:
    log = log_of(
        [{}], [{"user_id": "u0", "value": 4e12}, {"user_id": "u0", "value": 4e12, "occurred_at": T0 + 6 * DAY}]
    )
    assert js.replay(log).metrics.iloc[0]["revenue"] == 8e12
    three = log_of([{}], [{"user_id": "u0", "value": 4e12, "occurred_at": T0 + (4 + i) * DAY} for i in range(3)])
    with pytest.raises(DataError, match="check the unit"):
        js.replay(three)


def test_times_in_python() -> None:
    aware = datetime(2026, 1, 5, tzinfo=UTC)
    assert instant(aware) == instant(pd.Timestamp(aware)) == instant("2026-01-05T00:00:00Z") == 1_767_571_200_000_000
    assert instant(np.int64(1_767_571_200_000_000)) == 1_767_571_200_000_000
    seconds = 1_767_571_200, "were seconds meant"
    for wrong, says in (seconds, (1.5, "is a float"), (True, "is a bool"), (2**62, "1970"), (2**70, "1970")):
        with pytest.raises(UsageError, match=says):
            instant(wrong)
    assert instant(None) is None
    with pytest.raises(UsageError, match="no time zone"):
        instant(datetime(2026, 1, 5))


def test_a_report_never_overwrites_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    text = (Path(__file__).parents[1] / "scenarios" / "welcome.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace("= 400", "= 10").replace("days = 56", "days = 16"))
    argv = ["run", str(tmp_path / "mine.toml"), "--out", str(out), "--replications", "1", "--workers", "1"]
    assert run(argv) == 0
    log = str(out / "log")
    assert run(["replay", log, "--out", log]) == 2
    assert "holds a log" in capsys.readouterr().err
    assert run(["sweep", str(tmp_path / "mine.toml"), "--out", log]) == 2
    assert run(["replay", log, "--out", str(tmp_path / "page")]) == 0
    assert "SIMULATED" in (tmp_path / "page" / "index.html").read_text()
    # the demo's folder begins anew when it holds another scenario
    assert run(["load", log, "--esp", "generic", "--out", str(tmp_path / "loaded")]) == 0
    assert run(["replay", str(tmp_path / "loaded"), "--out", str(tmp_path / "loaded")]) == 2

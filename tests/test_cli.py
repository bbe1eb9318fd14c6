"""The command line as a user meets it: exit codes, messages, and no traceback for bad input."""

from __future__ import annotations

import ast
import gzip
import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from justai_sim.cli import run
from justai_sim.clock import DAY
from justai_sim.scenario import packaged

T0 = 1_767_600_000_000_000


def cli(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = run([str(a) for a in argv])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A log of 40 users: half get A, half B; A's buy on day 5, every other B too; one name."""
    folder = tmp_path / "plain"
    folder.mkdir()
    sends, events = [], []
    for i in range(40):
        variant = ("control", "b")[i % 2]
        sends.append(
            {"send_id": f"s{i:02}", "user_id": f"u{i:02}", "template_id": "t", "variant_id": variant, "sent_at": T0}
        )
        if i % 2 == 0 or i % 4 == 1:
            events.append(
                {"event_id": f"e{i:02}", "user_id": f"u{i:02}", "kind": "conversion", "name": "purchase",
                 "occurred_at": T0 + 5 * DAY, "value": "10.50", "currency": "USD"}
            )  # fmt: skip
    pd.DataFrame(sends).to_csv(folder / "sends.csv", index=False)
    pd.DataFrame(events).to_csv(folder / "events.csv", index=False)
    return folder


def test_replay_writes_what_it_promises(capsys: pytest.CaptureFixture[str], plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, err = cli(capsys, "replay", plain, "--out", out)
    assert code == 0
    assert "as of 2026-01-10T08:00:00Z (the last receipt)" in err
    assert "ALL (distinct)" in text
    assert text.startswith("Stop: cannot be told: no send is mature yet; at the present rate it takes ")
    assert {p.name for p in out.iterdir()} >= {
        "credits.parquet",
        "reasons.parquet",
        "metrics.csv",
        "results.csv",
        "brief.png",
        "index.html",
        "manifest.json",
    }
    metrics = pd.read_csv(out / "metrics.csv")
    assert list(metrics.columns[:9]) == [
        "template_id", "variant_id", "sends", "mature_sends", "opens", "clicks", "conversions", "unsubscribes",
        "revenue",
    ]  # fmt: skip
    for rate in ("open_rate", "click_rate", "conversion_rate", "unsubscribe_rate", "revenue_per_send"):
        for prefix in ("", "mature_"):
            assert {f"{prefix}{rate}{s}" for s in ("", "_low", "_high")} <= set(metrics.columns)
    rows = metrics.set_index("variant_id")
    assert rows.loc["control", "conversions"] == 20
    assert rows.loc["b", "conversions"] == 10
    assert rows.loc["b", "revenue"] == 105
    assert metrics.iloc[-1]["template_id"] == "ALL (distinct)"
    assert metrics.iloc[-1]["conversions"] == 30
    reasons = pd.read_parquet(out / "reasons.parquet")
    assert list(reasons.columns) == ["event_id", "reason"]
    assert (reasons["reason"] == "credited").sum() == 30
    credited = pd.read_parquet(out / "credits.parquet")
    assert list(credited.columns) == ["event_id", "send_id", "weight"]
    page = (out / "index.html").read_text()
    assert "u00" not in page, "no user-level data in reports"
    assert json.loads((out / "manifest.json").read_text())["schema_version"] == 1


def test_replay_json_and_settings(capsys: pytest.CaptureFixture[str], plain: Path) -> None:
    code, text, _ = cli(capsys, "replay", plain, "--lookback-days", "4", "--offset-days", 0, "--json")
    found = json.loads(text)
    assert code == 0
    assert found["schema_version"] == 1
    assert found["rule"]["lookback_days"] == 4
    assert found["reasons"] == {"past_lookback": 30}
    window = ("--lookback-days", "4", "--offset-days", 0)
    alone = json.loads(cli(capsys, "verdict", plain, *window, "--json")[1])
    assert found["verdict"]["sentence"] == alone["sentence"]
    assert found["verdict"]["differences"] == alone["differences"]
    code, text, _ = cli(capsys, "replay", plain, "--set", "credit=linear", "--set", "bounds=[]", "--json")
    assert code == 0
    assert json.loads(text)["rule"]["credit"] == "linear"


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--set", "credit=liner"], 2, "did you mean 'linear'"),
        (["--set", "credits=linear"], 2, "did you mean 'credit'"),
        (["--set", "credit"], 2, "expected key=value"),
        (["--lookback-days", "3"], 2, "not below lookback_days"),
        (["--goal", "purchas"], 2, "did you mean 'purchase'"),
        (["--control", "contrl"], 2, "did you mean 'control'"),
        (["--template", "tt"], 2, "not in the log"),
        (["--as-of", "2026-01-12"], 2, "--timezone"),
        (["--policy", "weighted_thomson"], 2, "did you mean 'weighted_thompson'"),
        (["--policy-set", "epsilom=0.1"], 2, "did you mean 'epsilon'"),
        (["--policy-set", "epsilon=x"], 2, "policy.epsilon is 'x'; expected a number"),
        (["--policy-set", "temperature=2"], 2, "no setting of the policy 'weighted_thompson'"),
        (["--policy-set", "weights.opens=2"], 2, "policy.weights names 'opens', no metric"),
        (["--esp", "braz"], 2, "did you mean 'braze'"),
        (["--lookbak-days", "3"], 2, "lookback-days"),
    ],
)
def test_wrong_options(
    capsys: pytest.CaptureFixture[str], plain: Path, argv: list[str], code: int, message: str
) -> None:
    got, out, err = cli(capsys, "replay", plain, *argv)
    assert got == code, err
    assert message in err
    assert out == ""


def test_several_goals_are_listed(capsys: pytest.CaptureFixture[str], plain: Path) -> None:
    events = pd.read_csv(plain / "events.csv")
    events.loc[:4, "name"] = "signup"
    events.to_csv(plain / "events.csv", index=False)
    code, _, err = cli(capsys, "replay", plain)
    assert code == 2
    assert "signup" in err
    assert "25 events" in err
    assert "0.625 per user" in err
    assert cli(capsys, "replay", plain, "--goal", "signup", "--goal", "purchase")[0] == 0


def test_bad_logs(capsys: pytest.CaptureFixture[str], plain: Path, tmp_path: Path) -> None:
    code, _, err = cli(capsys, "replay", tmp_path / "plan")
    assert code == 3
    assert "did you mean" in err
    text = (plain / "events.csv").read_text()
    (plain / "events.csv").write_text(text.replace("occurred_at", "occured_at"))
    code, _, err = cli(capsys, "replay", plain)
    assert code == 3
    assert "events.csv" in err
    assert "occurred_at" in err
    (plain / "events.csv").unlink()
    (plain / "events.csv.gz").write_bytes(gzip.compress(text.encode())[:-20])
    code, _, err = cli(capsys, "load", plain, "--esp", "generic", "--out", tmp_path / "log")
    assert code == 0
    assert "could not be read" in err
    (plain / "events.csv.gz").unlink()
    (plain / "events.csv").write_text(text.replace(str(T0 + 5 * DAY), "2026-01-10T08:00:00"))
    (plain / "sends.csv").write_text((plain / "sends.csv").read_text().replace(str(T0), "2026-01-05T08:00:00"))
    code, _, err = cli(capsys, "replay", plain)
    assert code == 3
    assert "--timezone" in err
    assert cli(capsys, "replay", plain, "--timezone", "Europe/Berlin")[0] == 0


def test_bad_line_keeps_its_neighbours(capsys: pytest.CaptureFixture[str], plain: Path, tmp_path: Path) -> None:
    lines = (plain / "events.csv").read_text().splitlines()
    lines[3] = lines[3].replace("conversion", "conversation")
    (plain / "events.csv").write_text("\n".join(lines) + "\n")
    code, text, err = cli(capsys, "replay", plain, "--rejects", tmp_path / "rejects", "--json")
    assert code == 0
    assert "events.csv:4" in err
    assert "did you mean 'conversion'" in err
    assert json.loads(text)["reasons"] == {"credited": 29}
    assert "events.csv:4" in (tmp_path / "rejects" / "rejects.ndjson").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("signups_per_day = 400", "signup_per_day = 400"), ":27: field 'world'"),
        (("signups_per_day = 400", "signup_per_day = 400"), "did you mean 'signups_per_day'"),
        (("offset_days = 3", "offset_days = 14"), "not below lookback_days"),
        (("conversion_rate = 0.021\n", ""), "conversion_rate"),
        (("conversion_rate = 0.021", "conversion_rate = 2.1"), "expected 0 to 1"),
        (('name = "weighted_thompson"', 'name = "weighted_thomson"'), "did you mean 'weighted_thompson'"),
        (("days = 56", "days = fifty"), "not TOML"),
        (("days = 56", 'days = "56"'), "Expected `int`, got `str`"),
    ],
)
def test_bad_scenarios(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = (packaged() / "welcome.toml").read_text()
    assert change[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change, 1))
    for command in ("check", "run", "sweep"):
        code, out, err = cli(capsys, command, path)
        assert code == 3, err
        assert "mine.toml" in err
        assert message in err
        assert out == ""


def test_check_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = cli(capsys, "check", "welcome", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["sends_per_world"] == 100_000
    assert found["smallest_visible_lift_against_control"].startswith("+")
    code, _, err = cli(capsys, "check", "welcom")
    assert code == 3
    assert "did you mean 'welcome'" in err
    code, text, _ = cli(capsys, "schema")
    assert code == 0
    assert "signups_per_day" in text
    assert "weighted_thompson" in text


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("demo", "run", "sweep", "load", "replay", "serve", "report", "check", "schema"):
        code, text, _ = cli(capsys, command, "--help")
        assert code == 0
        assert f"Example: justai-sim {command}" in text
    assert cli(capsys, "runn")[0] == 2


def test_run_writes_a_report_and_a_log_that_replays(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (packaged() / "welcome.toml").read_text()
    scenario = tmp_path / "mine.toml"
    scenario.write_text(text.replace("signups_per_day = 400", "signups_per_day = 20").replace("days = 56", "days = 20"))
    argv = ["run", scenario, "--replications", 2, "--seed", 7, "--out", tmp_path / "out", "--json", "--workers", 1]
    code, out, err = cli(capsys, *argv)
    assert code == 0, err
    found = json.loads(out)
    assert found["seed"] == 7
    assert "SIMULATED" in (tmp_path / "out" / "index.html").read_text()
    code, _, _ = cli(capsys, "replay", tmp_path / "out" / "log", "--json")
    assert code == 0
    argv[argv.index("--json")] = "--wire"
    assert cli(capsys, *argv)[0] == 0
    first = (tmp_path / "out" / "index.html").read_bytes()
    assert cli(capsys, "report", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "index.html").read_bytes() == first


HOSTILE = "\x1b[31mred\u202e\x9b2J\u2066\r\x07"
"""A name that colours, clears and turns round a terminal."""


def commands_a_terminal(text: str) -> list[str]:
    """The characters that a terminal obeys; all that are not shown but ends of lines."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"]


def texts(found: Any) -> str:
    """All texts of a JSON value, one after the other."""
    if isinstance(found, dict):
        return "|".join(texts(x) for pair in found.items() for x in pair)
    return "|".join(map(texts, found)) if isinstance(found, list) else str(found)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A log whose names are all hostile, in JSON."""
    folder, sends, events = tmp_path / "hostile", list[dict[str, Any]](), list[dict[str, Any]]()
    folder.mkdir()
    for i in range(80):
        variant = ("control", f"b{HOSTILE}", f"c{HOSTILE}\nforged")[i % 3]
        sends.append({"send_id": f"s{i}{HOSTILE}", "user_id": f"u{i}{HOSTILE}", "template_id": f"t{HOSTILE}",
                      "variant_id": variant, "sent_at": T0})  # fmt: skip
        events += [
            {"event_id": f"{what}{i}{HOSTILE}", "user_id": f"u{i}{HOSTILE}", "kind": "conversion",
             "name": f"{what}{HOSTILE}", "occurred_at": T0 + (3 + i % 7) * DAY, "value": 1.5, "currency": "USD"}
            for what in ("buy", "b uy", "view")
        ]  # fmt: skip
    events.append({"event_id": "x", "user_id": "u1", "kind": f"opn{HOSTILE}", "occurred_at": T0})
    events.append({"event_id": "y", "user_id": "u1", "kind": "open", "occurred_at": f"yesterday{HOSTILE}"})
    (folder / "sends.ndjson").write_text("\n".join(map(json.dumps, sends)))
    (folder / "events.ndjson").write_text("\n".join(map(json.dumps, events)))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "replay", "replay --json", "doctor", "doctor --json", "verdict", "interpretations", "interpretations --json",
        "surface", "what-if", "replay --template nobody", "replay --control nobody", "replay --goal nobody",
        "load", "load --json",
    ],
)  # fmt: skip
def test_names_of_a_log_do_not_command_the_terminal(
    capsys: pytest.CaptureFixture[str], hostile: Path, tmp_path: Path, command: str
) -> None:
    name, *options = command.split(" ")
    if name == "load":
        options += ["--esp", "generic", "--out", str(tmp_path / "log")]
    elif "--goal" not in options:
        options += ["--goal", f"buy{HOSTILE}"]
    code, out, err = cli(capsys, name, hostile, *options)
    assert code == (2 if "nobody" in command else 0) or name == "what-if", err
    assert not commands_a_terminal(out + err)
    assert "\nforged" not in out
    assert "\\u001b[31mred\\u202e" in out + err or "\\x1b[31mred\\u202e" in out + err
    if "--json" in options:
        assert HOSTILE in texts(json.loads(out)), "JSON means the same name"


def test_everything_is_printed_through_one_place() -> None:
    """A `print` elsewhere would bring the names of a log to the terminal as they are."""
    folder = Path(__file__).parents[1] / "justai_sim" / "cli"
    for path in folder.glob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        printed = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert not printed or path.name == "output.py", (path.name, printed)


@pytest.mark.parametrize("module", ["justai_sim", "justai_sim.cli"])
def test_the_modules_are_the_command_line(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "no-such-command"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("justai-sim: ")
    assert "Traceback" not in done.stderr

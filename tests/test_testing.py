"""`justai_sim.testing` accepts a right attribution, catches seeded mistakes with a small log, writes true cases."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import justai_sim as js
from justai_sim import testing
from justai_sim.attribution import Rule
from justai_sim.cli import run
from justai_sim.errors import UsageError
from justai_sim.tables import REASONS
from justai_sim.testing.answers import judge
from justai_sim.testing.check import ON_EDGES
from justai_sim.testing.draw import FEATURES, TICK, Seeded, Shape, draw_log, feature_set
from justai_sim.testing.edges import edge_logs, edges, features_of
from justai_sim.testing.rows import event_row, heard, send_row
from tests.oracle import brute
from tests.worked_examples import EXAMPLES

DAYS = pd.Timedelta(days=1)
TICK_1 = pd.Timedelta(microseconds=1)
OWN = ("duplicates", "late", "bounces", "refunds", "ties", "other_events", "machine")
"""What the attribution below knows of."""


def mine(
    sends: pd.DataFrame, events: pd.DataFrame, rule: Rule | None = None, *, offset: Any = None, upper: Any = None,
    low: str = ">=", high: str = "<", tie: str = "send_id", drop_copies: bool = True, late: bool = True,
    bounces: bool = True, refunds: bool = True, newest_only: bool = False, machine: bool = True, clamp: bool = True,
    all_rows: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """A right attribution in plain Python, by other hands than the oracle; each option seeds one mistake."""
    rule = rule or Rule()
    offset = rule.offset_days * DAYS if offset is None else offset
    upper = rule.lookback_days * DAYS if upper is None else upper
    reached: dict[str, Any] = {}
    gone = {e["send_id"] for e in records(events) if e["kind"] == "bounce"}
    for s in usable(records(sends), "sent_at", rule, late, clamp):
        reached.setdefault(s["send_id"], s)
        if s["status"] in ("bounced", "dropped", "suppressed"):
            gone.add(s["send_id"])
    known = [s for s in reached.values() if not (bounces and s["send_id"] in gone)]
    known.sort(key=lambda s: (s["sent_at"], s[tie]) if tie else s["sent_at"])
    seen: set[Any] = set()
    out = []
    for e in usable(records(events), "occurred_at", rule, late, clamp):
        refund = e["value"] < 0  # a missing value is NaN
        keys = [(e["user_id"], e["event_id"])]
        copy = keys[0] in seen
        if not (copy or refund) and isinstance(e["order_id"], str) and e["kind"] == "conversion":
            keys.append((e["user_id"], e["name"], e["order_id"]))
            copy = keys[1] in seen
        seen |= set(keys)
        if (drop_copies and copy) or (refunds and refund) or (machine and e["machine"] is True):
            continue
        if e["kind"] != "conversion" or str(e["name"]) != "purchase":
            continue
        own = [s for s in known if s["user_id"] == e["user_id"]]
        if newest_only:
            own = [s for s in own if s["sent_at"] <= e["occurred_at"]][-1:]
        ages = {s["send_id"]: e["occurred_at"] - s["sent_at"] for s in own}
        fits = [s for s, a in ages.items() if (a >= offset if low == ">=" else a > offset)
                and (a < upper if high == "<" else a <= upper)]  # fmt: skip
        out += [(e["event_id"], s) for s in (fits if all_rows else fits[-1:])]
    return pd.DataFrame(out, columns=["event_id", "send_id"])


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {str(c): frame[c].tolist() for c in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def usable(rows: list[dict[str, Any]], own: str, rule: Rule, late: bool, clamp: bool) -> list[dict[str, Any]]:
    """Rows that came in time, the first heard first; the future clamped."""
    out = []
    for row in rows:
        heard_at = row[own] if pd.isna(row["received_at"]) else row["received_at"]
        at = min(row[own], heard_at) if clamp else row[own]
        if not late or heard_at - at <= rule.lateness_days * DAYS:
            first = (heard_at, at) if own == "sent_at" else (at, heard_at)
            out.append((first, str(row.get("event_id", "")).encode(), row | {own: at}))
    return [row for _, _, row in sorted(out, key=lambda x: x[:2])]


def test_a_right_attribution_holds_every_law() -> None:
    report = testing.check_attribution(mine, features=OWN, max_examples=20)
    report.raise_if_broken()
    assert report.ok
    assert sum(f.examples for f in report.findings) == 20 * (len(testing.LAWS) + len(ON_EDGES))


@pytest.mark.slow
def test_many_logs_find_nothing_wrong_with_it() -> None:
    testing.check_attribution(mine, features=OWN, max_examples=2_000).raise_if_broken()
    testing.check_attribution(mine, Rule(lookback_days=7, offset_days=0), features=OWN).raise_if_broken()


RULES = [
    {"day_rule": "calendar", "tz": "America/New_York"},
    {"anchor": "opened"},
    {"anchor": "delivered", "credit": "last_then_check"},
    {"credit": "time_decay", "scope": "org"},
    {"credit": "position", "scope": "group", "groups": {"T1": "G", "T2": "G"}},
    {"lookback_from": "offset_end", "bounds": "(]"},
    {"explicit": "trust"},
    {"explicit": "window_then_join", "credit": "all_variants"},
    {"lateness_days": 0.5, "lookback_days": 1, "offset_days": 0},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", RULES, ids=str)
def test_the_laws_hold_under_other_rules(settings: dict[str, Any]) -> None:
    def production(sends: pd.DataFrame, events: pd.DataFrame, rule: Rule) -> pd.DataFrame:
        return js.attribute(rule, sends, events, goals=["purchase"]).credits

    testing.check_attribution(production, Rule(**settings), features="all").raise_if_broken()


MUTANTS: dict[str, tuple[dict[str, Any], str, int]] = {
    "offset a microsecond more": ({"offset": 3 * DAYS + TICK_1}, "", 2),
    "offset a microsecond less": ({"offset": 3 * DAYS - TICK_1}, "", 2),
    "lookback a microsecond more": ({"upper": 14 * DAYS + TICK_1}, "", 2),
    "lookback a microsecond less": ({"upper": 14 * DAYS - TICK_1}, "", 2),
    "< for <=": ({"low": ">"}, "", 2),
    "<= for <": ({"high": "<="}, "", 2),
    "newest send only": ({"newest_only": True}, "", 3),
    "ties by receipt": ({"tie": ""}, "ties", 3),
    "ties by variant": ({"tie": "variant_id"}, "ties", 3),
    "every send that fits": ({"all_rows": True}, "", 3),
    "copies kept": ({"drop_copies": False}, "duplicates", 3),
    "late rows used": ({"late": False}, "late", 2),
    "the future not clamped": ({"clamp": False}, "late", 2),
    "bounces used": ({"bounces": False}, "bounces", 2),
    "refunds counted": ({"refunds": False}, "refunds", 2),
    "machines counted": ({"machine": False}, "machine", 2),
}
"""The seeded mistake, the feature that shows it, and the rows that are needed to show it."""


LATER = ("offset a microsecond less", "lookback a microsecond less", "machines counted", "ties by variant")
"""Close relatives of others in the list."""


@pytest.mark.parametrize("name", [pytest.param(m, marks=[pytest.mark.slow] * (m in LATER)) for m in MUTANTS])
def test_a_seeded_mistake_is_caught_by_a_small_log(name: str) -> None:
    mistake, feature, rows = MUTANTS[name]

    def wrong(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        return mine(sends, events, **mistake)

    features = [feature] if feature else []
    laws = ["agreement", "permutation"] if feature == "ties" else ["agreement"]
    report = testing.check_attribution(wrong, features=features, laws=laws)
    assert "agreement" in report.broken or (feature == "ties" and "permutation" in report.broken), str(report)
    assert not report.ok
    for breach in report.broken.values():
        small = breach.small
        assert len(small) <= rows, str(report)
        off = [row["sent_at"] % TICK["day"] for row in small.send_rows]
        assert not any(off), f"sends at midnight: {report}"


def test_without_its_feature_a_mistake_stays_unseen() -> None:
    """The switch works: a function that keeps copies and late rows is right on logs that have none."""

    def partial(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        return mine(sends, events, drop_copies=True, late=False, bounces=False, refunds=False, machine=False)

    assert testing.check_attribution(partial, features=["ties", "duplicates"], max_examples=40).ok


def test_the_text_says_what_happened_and_why() -> None:
    def closed(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        return mine(sends, events, low=">")

    report = testing.check_attribution(closed, features=[], max_examples=30)
    text = str(report)
    assert "user u1: send S1 (A) Mon 1 Jan 00:00" in text
    assert "purchase e1 Thu 4 Jan 00:00, exactly 3 days after S1" in text
    assert "the rule: credits e1 to S1" in text
    assert "rule 4" in text
    assert "holds on 60 logs: answers\nholds on 30 logs: permutation," in text
    assert "not checked, the function takes no parameter `rule`: wider, same_winner, partition" in text
    assert "BROKEN" in report._repr_html_()
    with pytest.raises(AssertionError, match="exactly 3 days after S1"):
        report.raise_if_broken()


def test_production_holds_every_law_with_every_feature() -> None:
    def production(sends: pd.DataFrame, events: pd.DataFrame, rule: Rule) -> pd.DataFrame:
        return js.attribute(rule, sends, events, goals=["purchase"]).credits

    testing.check_attribution(production, features="all", max_examples=12).raise_if_broken()


BY_DEFAULT: list[dict[str, Any]] = [
    {},
    {"credit": "linear"},
    {"credit": "all"},
    {"day_rule": "calendar", "tz": "America/New_York"},
    {"anchor": "opened"},
    {"scope": "group", "groups": {"T1": "G", "T2": "G"}},
]


@pytest.mark.parametrize("settings", BY_DEFAULT, ids=str)
@pytest.mark.parametrize("resolution", ["microsecond", "day"])
def test_production_holds_with_the_features_that_are_the_default(settings: dict[str, Any], resolution: Any) -> None:
    """Its credits of opens may be there though engagement is not asked for."""
    rule = Rule(**settings)

    def production(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        return js.attribute(rule, sends, events, goals=["purchase"]).credits

    laws = ["answers", "agreement", "weights"]
    testing.check_attribution(production, rule, resolution=resolution, laws=laws, max_examples=40).raise_if_broken()


def test_engagement_may_be_left_out_but_not_go_to_another_send() -> None:
    def oldest(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        """Opens to the oldest send."""
        pairs = events[events["kind"] == "open"].merge(sends, on="user_id", suffixes=("", "_of"))
        pairs = pairs[pairs["occurred_at"] - pairs["sent_at"] < 14 * DAYS].query("sent_at <= occurred_at")
        first = pairs.sort_values("sent_at").drop_duplicates("event_id").assign(send_id=lambda f: f["send_id_of"])
        return pd.concat([mine(sends, events), first[["event_id", "send_id"]]])

    report = testing.check_attribution(oldest, features=["other_events"], laws=["agreement"])
    text = str(report)
    assert not report.ok
    assert "the rule: credits e1 to S" in text, text
    assert "as engagement is not among the features, it may be left out" in text


@pytest.mark.parametrize("features", [None, "all"])
def test_a_wrong_reading_of_ids_is_caught_by_the_edges(features: Any) -> None:
    def joins(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        return js.attribute(Rule(explicit="window_then_join"), sends, events, goals=["purchase"]).credits

    report = testing.check_attribution(joins, features=features, laws=["agreement"])
    assert len(report.broken["agreement"].small) == 3, str(report)


def test_edges_have_only_the_features_that_are_asked_for() -> None:
    for features in ([], ["ties"], ["late", "ids"], ["other_events"], None, "all"):
        for resolution in TICK:
            shape = Shape(Rule(), feature_set(features), resolution)  # type: ignore[arg-type]
            found = edge_logs(shape)
            assert len(found) > 15
            assert all(shape.allows(small) and features_of(small, shape) <= shape.features for small in found)
    every = Shape(Rule(), feature_set("all"))
    assert {f for small in edge_logs(every) for f in features_of(small, every)} == set(FEATURES) - {"ties"}
    for name in FEATURES:  # and drawn logs agree on what a feature is
        shape = Shape(Rule(), frozenset({name}))
        for number in range(50):
            assert features_of(draw_log(Seeded(f"{name} {number}"), shape), shape) <= {name}


@pytest.mark.parametrize("credit", ["linear", pytest.param("all_variants", marks=pytest.mark.slow)])
@pytest.mark.parametrize("columns", [["send_id"], ["variant_id", "template_id"], ["variant_id"], []])
def test_every_form_of_answer(credit: str, columns: list[str]) -> None:
    """The same credits by send, by variant, and as totals."""
    rule = Rule(credit=credit, scope="org")  # type: ignore[arg-type]

    def answer(sends: pd.DataFrame, events: pd.DataFrame, factor: float = 1) -> pd.DataFrame:
        credited = js.attribute(rule, sends, events, goals=["purchase"]).credits.astype({"send_id": "string"})
        named = credited.merge(sends[["send_id", "variant_id", "template_id"]].drop_duplicates("send_id"), on="send_id")
        if columns:
            by = ["event_id", *columns]
            named["weight"] *= factor
            return named.groupby(by, as_index=False)["weight"].sum()
        total = named.groupby("variant_id", as_index=False)["weight"].sum()
        return total.rename(columns={"weight": "conversions"}).assign(conversions=lambda f: f["conversions"] * factor)

    def halved(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        return answer(sends, events, 0.5)

    features = ["several_templates", "ties", "late"]
    options: dict[str, Any] = {"features": features, "max_examples": 8}
    testing.check_attribution(answer, rule, **options).raise_if_broken()
    report = testing.check_attribution(halved, rule, **options, laws=["agreement"])
    assert len(report.broken["agreement"].small) == 2


def test_a_crash_is_a_finding() -> None:
    def fails(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        if len(sends) > 1:
            raise KeyError("two")
        return mine(sends, events)

    report = testing.check_attribution(fails, features=[], max_examples=30)
    assert list(report.broken) == ["answers"]
    assert len(report.broken["answers"].small) == 2
    assert "yours failed: KeyError: 'two'" in str(report)

    def always(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:  # noqa: ARG001
        raise ZeroDivisionError

    report = testing.check_attribution(always, max_examples=5)
    assert len(report.broken["answers"].small) == 0
    assert "not checked, the function failed on every log: agreement, " in str(report)


def test_an_answer_with_state_is_found() -> None:
    seen: list[int] = []

    def counts(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:  # noqa: ARG001
        seen.append(1)
        return pd.DataFrame({"event_id": [f"e{len(seen)}"], "send_id": ["S1"]})

    assert "incremental" in testing.check_attribution(counts, features=[], max_examples=5).broken


def test_windows_are_compared_where_the_function_takes_the_rule() -> None:
    def stiff(sends: pd.DataFrame, events: pd.DataFrame, rule: Rule) -> pd.DataFrame:
        """Long windows are cut, and the offset is open: both of no consequence at 14 and 3."""
        longest = min(rule.lookback_days, 15) if rule.lookback_days != 21 else 4
        return mine(sends, events, Rule(lookback_days=longest, offset_days=min(rule.offset_days, 3)))

    report = testing.check_attribution(stiff, features=[], laws=["agreement", "wider"])
    assert list(report.broken) == ["wider"], str(report)
    assert len(report.broken["wider"].small) == 2

    def gap(sends: pd.DataFrame, events: pd.DataFrame, rule: Rule) -> pd.DataFrame:
        return mine(sends, events, rule, low=">")

    assert "partition" in testing.check_attribution(gap, features=[], laws=["partition"]).broken

    def by_length(sends: pd.DataFrame, events: pd.DataFrame, rule: Rule) -> pd.DataFrame:
        pairs = mine(sends, events, rule, all_rows=True)
        return pairs.drop_duplicates("event_id", keep="last" if rule.lookback_days == 14 else "first")

    assert "same_winner" in testing.check_attribution(by_length, features=[], laws=["same_winner"]).broken


def test_dates() -> None:
    """A function on dates is right at the resolution of a day, and wrong below it."""

    def dates(sends: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        for frame, own in ((sends, "sent_at"), (events, "occurred_at")):
            frame[own] = frame[own].dt.floor("D")
        return mine(sends, events)

    assert testing.check_attribution(dates, features=["late"], resolution="day", max_examples=20).ok
    assert (
        "agreement"
        in testing.check_attribution(
            dates, features=[], resolution="second", max_examples=30, laws=["agreement"]
        ).broken
    )


JOIN = """
SELECT e.event_id, s.send_id FROM events e JOIN sends s ON s.user_id = e.user_id
AND e.occurred_at >= s.sent_at + INTERVAL 3 DAY AND e.occurred_at < s.sent_at + INTERVAL 14 DAY
WHERE e.kind = 'conversion'
"""


def test_sql() -> None:
    right = JOIN + " QUALIFY row_number() OVER (PARTITION BY e.event_id ORDER BY s.sent_at DESC, s.send_id DESC) = 1"
    report = testing.check_attribution(testing.sql(right), features=["ties"], max_examples=15)
    report.raise_if_broken()
    report = testing.check_attribution(testing.sql(JOIN), features=["ties"], laws=["weights"], max_examples=25)
    assert len(report.broken["weights"].small) == 3
    with pytest.raises(UsageError, match=r"the query failed: .*occured_at"):
        testing.check_attribution(testing.sql("SELECT occured_at FROM events"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            pd.DataFrame({"event": ["e1"], "send": ["S1"]}),
            r"has the columns event, send; expected event_id and send_id",
        ),
        ([("e1", "S1")], "returned list; expected a DataFrame"),
        (pd.DataFrame({"variant_id": ["A"], "count": [1]}), "variant_id, count; expected"),
    ],
)
def test_an_answer_that_cannot_be_read(answer: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        testing.check_attribution(lambda sends, events: answer)  # noqa: ARG005


def test_options_that_do_not_exist() -> None:
    for wrong in ({"features": ["dupes"]}, {"resolution": "hour"}, {"laws": ["weight"]}, {"max_examples": 0}):
        with pytest.raises(UsageError):
            testing.check_attribution(mine, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="add a column weight"):
        testing.check_attribution(mine, Rule(credit="linear"))
    with pytest.raises(UsageError, match="did you mean 'duplicates'"):
        feature_set(["duplicate"])


# --- the logs themselves ---


@given(testing.rules(), st.data())
def test_drawn_logs_are_attributed_as_the_oracle_does(rule: Rule, data: st.DataObject) -> None:
    small = data.draw(testing.logs(rule, features="all"))
    judged = judge(rule, ["purchase"], small, engagement=True)
    templates = {"T1", *(r["template_id"] for r in small.send_rows)}
    want = brute(rule, small.send_rows, small.event_rows, {t: {"purchase"} for t in templates}, None)
    assert judged.reasons == want.reasons
    got = {(e, small.send_rows[s]["send_id"]): w for e, s, w in judged.credits}
    assert got == pytest.approx({(e, s): w / 1e9 for e, s, w in want.credits}, abs=2e-9)


@given(st.sampled_from(["second", "day"]), st.data())
def test_times_lie_on_the_grid(resolution: Any, data: st.DataObject) -> None:
    small = data.draw(testing.logs(features="all", resolution=resolution))
    assert Shape(Rule(), feature_set("all"), resolution).allows(small)


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_each_feature_changes_what_happens(feature: str) -> None:
    """Without it its mark never occurs, with it it does."""
    marks: dict[str, Any] = {
        "bounces": lambda s: any(r["status"] == "bounced" for r in s.send_rows),
        "currency": lambda s: any(r["currency"] == "EUR" for r in s.event_rows),
        "duplicates": lambda s: len({r["event_id"] for r in s.event_rows}) < len(s.event_rows),
        "engagement": lambda s: any(r["kind"] == "unsubscribe" for r in s.event_rows),
        "holdout": lambda s: any(r["status"] == "held_out" for r in s.send_rows),
        "ids": lambda s: any(r["send_id"] for r in s.event_rows),
        "late": lambda s: any(heard(r) > r["occurred_at"] for r in s.event_rows),
        "machine": lambda s: any(r["machine"] == 1 for r in s.event_rows),
        "other_events": lambda s: any(r["name"] == "page_view" for r in s.event_rows),
        "refunds": lambda s: any((r["value"] or 0) < 0 for r in s.event_rows),
        "several_templates": lambda s: len({r["template_id"] for r in s.send_rows}) > 1,
        "ties": lambda s: len({(r["user_id"], r["sent_at"]) for r in s.send_rows}) < len(s.send_rows),
    }
    mark = marks[feature]
    found = {}
    for on in (False, True):
        shape = Shape(Rule(), frozenset([feature] if on else set(FEATURES) - {feature, "duplicates"}))
        found[on] = sum(mark(draw_log(Seeded(str(k)), shape)) for k in range(100))
    assert found[True] >= 5
    assert found[False] == 0


# --- cases for other languages ---


def read_case(x: Any) -> tuple[list[Any], list[Any]]:
    """The rows of a case in full, read as its README says."""
    sends = [send_row(r.pop("send_id"), r.pop("user_id"), r.pop("variant_id"), r.pop("sent_at"), **r)
             for r in map(dict, x["sends"])]  # fmt: skip
    events = []
    for r in map(dict, x["events"]):
        if "value" in r:
            r["value"] = round(r["value"] * 1_000_000)
        r["machine"] = int(r.get("machine", -1))
        r.setdefault("name", "")
        events.append(event_row(r.pop("event_id"), r.pop("user_id"), r.pop("occurred_at"), **r))
    return sends, events


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["credit=linear", "bounds=(]", "scope=org"],
        pytest.param(["day_rule=calendar", "tz=America/New_York", "anchor=delivered"], marks=SLOW),
        pytest.param(["anchor=opened", "explicit=trust", "offset_days=0"], marks=SLOW),
    ],
)
@pytest.mark.filterwarnings("ignore::justai_sim.errors.NotInLogWarning")
def test_cases_are_what_oracle_and_production_say(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [x for s in settings for x in ("--set", s)]
    assert run(["cases", "--out", str(tmp_path / "a"), *sets, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"] == 200
    about = json.loads((tmp_path / "a" / "rule.json").read_text())
    rule, goals = Rule(**about["rule"]), about["goals"]
    lines = (tmp_path / "a" / "cases.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    assert len(cases) == 200
    reasons: set[str] = set()
    for x in cases:
        sends, events = read_case(x)
        templates = {"T1", *(r["template_id"] for r in sends)}
        want = brute(rule, sends, events, {t: set(goals) for t in templates}, x["as_of"])
        expected, number = x["expected"], x["case"]
        assert expected["reasons"] == want.reasons, number
        found = {(c["event_row"], c["send_id"]): c["weight"] for c in expected["credits"]}
        assert found == {(e, s): w for e, s, w in want.credits}, number
        revenue = sum(o["revenue"] for o in want.outcomes.values() if o["reached"])
        assert sum(t["revenue"] for t in expected["totals"]) == revenue, number
        mature = sum(o["reached"] and o["mature"] for o in want.outcomes.values())
        assert sum(t["mature_sends"] for t in expected["totals"]) == mature, number
        reasons |= set(want.reasons)
        if x["sends"] and x["events"]:
            frames = (pd.DataFrame(x["sends"], dtype=object), pd.DataFrame(x["events"], dtype=object))
            got = js.attribute(rule, *frames, goals=goals, as_of=x["as_of"])
            assert got.reasons["reason"].tolist() == want.reasons, number
            pairs = [(e, s) for e, s, _ in got.credits.itertuples(index=False)]
            assert sorted(pairs) == sorted((c["event_id"], c["send_id"]) for c in expected["credits"]), number
    if not settings:
        assert set(REASONS) - reasons == {"no_anchor"}


def test_cases_are_the_same_for_the_same_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(["cases", "--out", str(tmp_path / name), "--seed", str(seed), "--count", "150"]) == 0
    texts = [(tmp_path / n / "cases.jsonl").read_bytes() for n in "abc"]
    assert texts[0] == texts[1] != texts[2]
    assert "published" in capsys.readouterr().out


def test_cases_span_the_worked_examples() -> None:
    """Every group of the table of worked examples has cases, and their first hundred hold each group."""
    groups = [e.group for e in edges(Rule(), ("purchase",))]
    assert {x.group for x in EXAMPLES} <= set(groups)
    assert set(groups[:40]) == set(groups)


@pytest.mark.parametrize("argv", [["--rule", "defualt"], ["--count", "0"], ["--set", "credit"], ["--set", "x=1"]])
def test_cases_with_wrong_options(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cases", "--out", str(tmp_path / "x"), *argv]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_without_hypothesis_and_duckdb_the_extra_is_named() -> None:
    code = (
        "import sys\nsys.modules['hypothesis'] = None\nsys.modules['duckdb'] = None\n"
        "import justai_sim\nfrom justai_sim import testing\nfrom justai_sim.errors import UsageError\n"
        "from justai_sim.cli import run\nassert run(['cases', '--help']) == 0\n"
        "for ask in (lambda: testing.logs, lambda: testing.sql('SELECT 1')):\n"
        "    try:\n        ask()\n    except UsageError as e:\n        assert 'justai-sim[testing]' in str(e)\n"
        "    else:\n        raise SystemExit('no error')\n"
        "import tempfile\nassert run(['cases', '--out', tempfile.mkdtemp(), '--count', '3']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

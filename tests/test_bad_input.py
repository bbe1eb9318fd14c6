"""What attribution does with input that no provider should send: a clear error or a defined result, never silence."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest

import justai_sim as js
from justai_sim.attribution import Bound, Rule, attribute, bind
from justai_sim.clock import DAY, LATEST, MISSING
from justai_sim.errors import DataError, NotInLogWarning, UsageError
from justai_sim.tables import BOUNCED, CONVERSION, MICRO, OPEN, PARTS, REASON, Events, Sends

T0 = 1_767_225_600_000_000
MILLION = 1_000_000


def bound(currencies: tuple[str, ...] = (), **rule: Any) -> Bound:
    return bind(Rule(**rule), templates=["t"], names=[], currencies=currencies)


def sends(n: int = 1, **columns: Any) -> Sends:
    given: dict[str, Any] = {"send": np.arange(n), "user": 0, "template": 0, "variant": 0, "sent_at": T0}
    return Sends.build(n, **(given | columns))


def events(n: int = 1, **columns: Any) -> Events:
    given: dict[str, Any] = {"event": np.arange(n), "user": 0, "kind": CONVERSION, "occurred_at": T0 + 5 * DAY}
    return Events.build(n, **(given | columns))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"offset_days": 14}, "no age could qualify"),
        ({"offset_days": -1}, "expected a number of days"),
        ({"lookback_days": float("nan")}, "expected a number of days"),
        ({"lookback_days": 0, "lookback_from": "offset_end"}, "expected a number of days"),
        ({"lookback_days": 1e300}, "expected a number of days"),
        ({"half_life_days": 1e-30}, "at least a microsecond"),
        ({"cap": 5, "cap_quantile": 0.5}, "exclude each other"),
        ({"cap_quantile": 0}, "expected a number in"),
        ({"rates": {"EUR": 0}}, "must all be positive"),
        ({"credit": "last_qualifing"}, "did you mean"),
        ({"tz": "Mars/Olympus"}, "not known"),
        ({"bounds": "[["}, "not an option"),
    ],
)
def test_contradictory_rules(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Rule(**rule)


@pytest.mark.parametrize("t", [-1, LATEST, 10**18, -(10**18), np.iinfo(np.int64).max, MISSING + 1])
def test_times_before_1970_or_after_2100(t: int) -> None:
    """Nothing near the ends of int64 reaches the arithmetic of windows."""
    for s, e in (
        (sends(sent_at=t), events()),
        (sends(received_at=t), events()),
        (sends(), events(occurred_at=t)),
        (sends(), events(received_at=t)),
    ):
        with pytest.raises(DataError, match=r"outside 1970\.\.2100"):
            attribute(bound(), s, e)
    with pytest.raises(DataError, match="anchor 'delivered'"):
        attribute(bound(anchor="delivered"), sends(delivered_at=t), events())


def test_missing_users() -> None:
    with pytest.raises(DataError, match="no user"):
        attribute(bound(), sends(user=-1), events())
    got = attribute(bound(), sends(), events(2, user=-1, send=np.array([-1, 0])))
    assert got.reason.tolist() == [REASON["no_send"], REASON["credited"]]  # the second names its send


def test_a_million_copies_of_one_event_are_one() -> None:
    order = np.random.default_rng(1).permutation(MILLION)
    received = T0 + 6 * DAY + order
    got = attribute(bound(), sends(), events(MILLION, event=7, received_at=received, value=3 * MICRO))
    assert got.reasons() == {"duplicate": MILLION - 1, "credited": 1}
    assert got.reason[order.argmin()] == REASON["credited"]
    assert got.outcomes.revenue.tolist() == [3 * MICRO]
    orders = attribute(bound(), sends(), events(MILLION, order=7))
    assert orders.reasons() == {"duplicate": MILLION - 1, "credited": 1}
    none = attribute(bound(), sends(MILLION, send=3, received_at=T0 + order % DAY), events())
    assert (len(none.outcomes), none.reasons()) == (1, {"credited": 1})


@pytest.mark.parametrize("credit", ["last_qualifying", "first_qualifying", "all", "all_variants", "linear",
                                    "time_decay", "position"])  # fmt: skip
def test_a_million_candidates_for_one_conversion(credit: str) -> None:
    """Weights add up to the last part; equal instants are ordered by id."""
    at = T0 + np.arange(MILLION) % 1000
    got = attribute(bound(credit=credit), sends(MILLION, sent_at=at, variant=np.arange(MILLION) % 8), events())
    total = got.credits.weight.sum()
    assert total == {"all": MILLION * PARTS, "all_variants": 8 * PARTS}.get(credit, PARTS)
    if credit == "last_qualifying":
        assert got.credits.send_row.tolist() == [MILLION - 1]
    if credit == "first_qualifying":
        assert got.credits.send_row.tolist() == [0]


def test_money_cannot_overflow_unnoticed() -> None:
    most = 4 * 10**18
    with pytest.raises(DataError, match=r"exceeds 9\.2e12"):
        _ = attribute(bound(), sends(), events(3, value=most)).outcomes
    two = attribute(bound(), sends(), events(2, value=most)).outcomes.revenue
    assert two.tolist() == [2 * most]
    with pytest.raises(DataError, match="another currency exceeds"):
        attribute(bound(("EUR",), rates={"EUR": 3.0}), sends(), events(value=most, currency=0))


def test_a_refused_row_does_not_harm_its_neighbours() -> None:
    e = events(5, kind=np.array([CONVERSION] * 4 + [OPEN]), currency=np.array([0, -1, -1, -1, -1]),
               send=np.array([-1, 9, -1, -1, 9]), user=np.array([0, 0, 5, 0, 0]))  # fmt: skip
    got = attribute(bound(("EUR",)), sends(), e)
    names = ["currency", "credited", "no_send", "credited", "unknown_send"]
    assert got.reason.tolist() == [REASON[n] for n in names]
    assert attribute(bound(), sends(status=BOUNCED), events()).reasons() == {"not_delivered": 1}
    empty = attribute(bound(), Sends.empty(), Events.empty())
    assert (len(empty.credits), len(empty.outcomes)) == (0, 0)
    assert attribute(bound(), Sends.empty(), events()).reasons() == {"no_send": 1}
    assert len(attribute(bound(), sends(), Events.empty()).outcomes) == 1


def test_sparse_codes_need_no_table() -> None:
    """Ids may be any int64, hashes for instance: memory follows the rows, not the largest code."""
    far = 1 << 60
    tracemalloc.start()
    s = sends(3, send=np.array([5, far, far + 1]), user=np.array([1, far, far]))
    e = events(2, event=np.array([far, 1]), user=far, send=np.array([far + 1, -1]), kind=np.array([OPEN, CONVERSION]))
    got = attribute(bound(engagement_lookback_days=14), s, e)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(zip(*(c.tolist() for c in (got.credits.event_row, got.credits.send_row)), strict=True)) == [
        (0, 2), (1, 2)
    ]  # fmt: skip
    assert peak < 50e6


def test_a_name_that_is_no_goal_is_wrong_even_where_no_template_is_known() -> None:
    other = bind(Rule(), templates=[], names=["other", "purchase"], goals=["purchase"])
    got = attribute(other, Sends.empty(), events(2, name=np.array([0, 1])))
    assert got.reasons() == {"wrong_event": 1, "no_send": 1}


def test_goals_that_the_log_does_not_have_are_told_with_the_nearest_name() -> None:
    at = pd.Timestamp("2026-01-01", tz="UTC")
    sends = pd.DataFrame({"send_id": ["s"], "user_id": ["u"], "template_id": ["welcome"], "variant_id": ["A"],
                          "sent_at": [at]})  # fmt: skip
    events = pd.DataFrame({"event_id": ["e"], "user_id": ["u"], "kind": ["conversion"], "name": ["purchase"],
                           "occurred_at": [at + pd.Timedelta(days=5)]})  # fmt: skip
    said = r"goals: 'purchse' is no conversion of the log; did you mean 'purchase'\?"
    for wrong in (["purchse"], "purchse", {"welcome": ["purchse"]}):
        with pytest.warns(NotInLogWarning, match=said):
            js.attribute(Rule(), sends, events, goals=wrong)
    with pytest.warns(NotInLogWarning, match=r"'welcom' is no template of the log; did you mean 'welcome'\?"):
        js.window_surface(Rule(), sends, events, [0], [7], goals={"welcom": ["purchase"]})
    right: tuple[Any, ...] = (None, "purchase", {"welcome": ["purchase"]})
    for goals in right:  # a warning would be an error here
        assert len(js.attribute(Rule(), sends, events, goals=goals).credits) == 1
    js.attribute(Rule(), sends, events[:0], goals=["purchse"])

"""The rule as data: what is refused, and that every option's name and values are checked."""

from __future__ import annotations

from typing import Any

import pytest

from justai_sim.attribution.rule import CHOICES, Rule, with_settings
from justai_sim.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"credit": "liner"}, "did you mean 'linear'"),
        ({"bounds": "[["}, "bounds"),
        ({"lookback_days": 3}, "not below lookback_days"),
        ({"offset_days": -1}, "offset_days is -1"),
        ({"lookback_days": "7"}, "expected a number"),
        ({"lookback_days": float("nan")}, "lookback_days is nan"),
        ({"half_life_days": 1e-12}, "at least a microsecond"),
        ({"tz": "Europe/Berln"}, "IANA"),
        ({"cap": 1.0, "cap_quantile": 0.9}, "exclude each other"),
        ({"cap_quantile": 1.5}, "cap_quantile is 1.5"),
        ({"rates": {"EUR": 0.0}}, "must all be positive"),
    ],
)
def test_wrong_rules(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        Rule(**settings)


@pytest.mark.parametrize("name", CHOICES)
def test_every_value_can_be_set_as_text(name: str) -> None:
    for value in CHOICES[name]:
        assert getattr(with_settings(Rule(), {name: value}), name) == value
    with pytest.raises(UsageError, match=name):
        with_settings(Rule(), {name: "nonsense"})


def test_texts_become_the_options_type() -> None:
    rule = with_settings(
        Rule(), {"cap": "99.5", "rates": '{"EUR": 1.1}', "click_implies_open": "true", "groups": '{"T": "g"}'}
    )
    assert (rule.cap, rule.rates, rule.click_implies_open, rule.groups) == (99.5, {"EUR": 1.1}, True, {"T": "g"})
    assert with_settings(rule, {"cap": "none"}).cap is None
    for bad in ({"rates": "{EUR: 1.1}"}, {"cap": "much"}, {"lookback_days": "two"}):
        with pytest.raises(UsageError):
            with_settings(Rule(), bad)


def test_offset_end_allows_a_long_offset() -> None:
    assert Rule(lookback_from="offset_end", offset_days=14, lookback_days=3).upper_days == 17


@pytest.mark.parametrize(
    "options",
    [
        {"bounds": "()", "offset_days": 3, "lookback_days": 3 + 1 / 86_400e6},
        {"day_rule": "calendar", "offset_days": 3.2, "lookback_days": 3.8},
        {"day_rule": "calendar", "bounds": "()", "offset_days": 3, "lookback_days": 4},
        {"bounds": "()", "lookback_from": "offset_end", "offset_days": 3, "lookback_days": 1 / 86_400e6},
    ],
)
def test_a_window_without_any_age_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no age could qualify"):
        Rule(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"click_implies_open": "no"}, "expected true or false"),
        ({"groups": "x"}, "expected a table"),
        ({"groups": {"T": 5}}, "expected a table"),
        ({"currency": 5}, "expected a text"),
        ({"currency": ""}, "expected a code"),
        ({"cap": True}, "expected a number"),
        ({"cap": "x"}, "expected a number"),
        ({"tz": 5}, "expected a text"),
        ({"rates": None}, "expected a table"),
        ({"lookback_days": True}, "expected a number"),
    ],
)
def test_an_option_of_another_type_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} is .*{says}"):
        Rule(**options)

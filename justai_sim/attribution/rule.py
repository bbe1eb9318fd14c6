"""The attribution rule as data, its named alternatives and its presets."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from justai_sim import clock
from justai_sim.errors import UsageError, nearest

CreditRule = Literal[
    "last_qualifying",
    "last_then_check",
    "first_qualifying",
    "all",
    "all_variants",
    "linear",
    "time_decay",
    "position",
]
Bounds = Literal["[)", "[]", "(]", "()"]
LookbackFrom = Literal["send", "offset_end"]
DayRule = Literal["elapsed", "calendar"]
Anchor = Literal["sent", "delivered", "opened", "clicked"]
Scope = Literal["template", "org", "group"]
Explicit = Literal["window", "trust", "ignore", "window_then_join"]
Machine = Literal["exclude", "include", "only"]
Repeat = Literal["once_per_send", "every", "once_per_user"]
Denominator = Literal["reached", "sends", "users"]


CHOICES: dict[str, tuple[str, ...]] = {
    "bounds": get_args(Bounds),
    "lookback_from": get_args(LookbackFrom),
    "day_rule": get_args(DayRule),
    "anchor": get_args(Anchor),
    "credit": get_args(CreditRule),
    "scope": get_args(Scope),
    "explicit": get_args(Explicit),
    "machine": get_args(Machine),
    "repeat": get_args(Repeat),
    "denominator": get_args(Denominator),
}
"""The options with a fixed list of values."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How conversions and engagement become credits. Every field is an option of `--set`.

    Days are elapsed 24-hour days unless `day_rule` says calendar. A conversion counts for a send iff
    `offset_days <= age < lookback_days`, both measured from the anchor of the send.

    >>> Rule().lookback_days, Rule().offset_days, Rule().bounds
    (14, 3, '[)')
    >>> Rule(offset_days=14)
    Traceback (most recent call last):
    justai_sim.errors.UsageError: offset_days 14 is not below lookback_days 14: no age could qualify
    """

    lookback_days: float = 14
    offset_days: float = 3
    bounds: Bounds = "[)"
    lookback_from: LookbackFrom = "send"
    day_rule: DayRule = "elapsed"
    tz: str = "UTC"
    anchor: Anchor = "sent"
    credit: CreditRule = "last_qualifying"
    half_life_days: float = 7
    scope: Scope = "template"
    groups: dict[str, str] = {}
    explicit: Explicit = "window"
    engagement_lookback_days: float = 14
    click_implies_open: bool = False
    machine: Machine = "exclude"
    repeat: Repeat = "once_per_send"
    refund_horizon_days: float = 180
    currency: str = "USD"
    rates: dict[str, float] = {}
    cap: float | None = None
    cap_quantile: float | None = None
    denominator: Denominator = "reached"
    lateness_days: float = 7
    mature_allowance_hours: float = 48

    def __post_init__(self) -> None:
        _typed(self)
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise UsageError(f"{name}={value!r} is not an option; {nearest(str(value), choices)}")
        for name in (
            "lookback_days",
            "offset_days",
            "half_life_days",
            "engagement_lookback_days",
            "refund_horizon_days",
            "lateness_days",
            "mature_allowance_hours",
        ):
            value = getattr(self, name)
            low_ok = value > 0 if name in ("lookback_days", "half_life_days") else value >= 0
            if not (math.isfinite(value) and low_ok and value <= 36_500):
                raise UsageError(f"{name} is {value}; expected a number of days from 0 to 36500")
        if clock.days(self.half_life_days) < 1 or clock.days(self.lookback_days) < 1:
            raise UsageError("half_life_days and lookback_days must be at least a microsecond")
        if self.lookback_from == "send" and self.offset_days >= self.lookback_days:
            raise UsageError(
                f"offset_days {self.offset_days:g} is not below lookback_days {self.lookback_days:g}: "
                "no age could qualify"
            )
        if not self._some_age():
            raise UsageError(
                f"no age could qualify: bounds {self.bounds}, offset_days {self.offset_days:g}, lookback_days "
                f"{self.lookback_days:g}, day_rule {self.day_rule}"
            )
        if not self.currency:
            raise UsageError("currency is ''; expected a code such as USD")
        if self.cap is not None and self.cap_quantile is not None:
            raise UsageError("cap and cap_quantile exclude each other; set one of them")
        if self.cap is not None and not self.cap >= 0:
            raise UsageError(f"cap is {self.cap}; expected an amount of at least 0")
        if self.cap_quantile is not None and not 0 < self.cap_quantile <= 1:
            raise UsageError(f"cap_quantile is {self.cap_quantile}; expected a number in (0, 1]")
        if any(not (math.isfinite(v) and v > 0) for v in self.rates.values()):
            raise UsageError(f"rates {self.rates} must all be positive: units of {self.currency} per unit")
        clock.zone(self.tz)

    def _some_age(self) -> bool:
        """Whether any age, or for calendar days any number of days, lies in the window."""
        low, high = self.bounds[0] == "[", self.bounds[1] == "]"
        if self.day_rule == "elapsed":
            return self.offset + (not low) <= self.upper - (not high)
        first, last = math.ceil(self.offset_days), math.floor(self.upper_days)
        first += not low and first == self.offset_days
        last -= not high and last == self.upper_days
        return first <= last

    @property
    def offset(self) -> int:
        """Microseconds."""
        return clock.days(self.offset_days)

    @property
    def upper(self) -> int:
        """The outer edge of the window in microseconds from the anchor."""
        length = clock.days(self.lookback_days)
        return length + self.offset if self.lookback_from == "offset_end" else length

    @property
    def upper_days(self) -> float:
        return self.lookback_days + (self.offset_days if self.lookback_from == "offset_end" else 0)


def _typed(rule: Rule) -> None:
    """UsageError for an option of another type than its own; msgspec checks only what it decodes."""
    for name, hint in _hints().items():
        value = getattr(rule, name)
        ok = not isinstance(value, bool) or hint is bool
        if ok:
            try:
                msgspec.convert(value, hint, strict=True)
            except msgspec.ValidationError:
                ok = False
        if not ok and name not in CHOICES:
            kind = {"dict": "a table", "bool": "true or false", "str": "a text"}.get(
                getattr(hint, "__name__", ""), "a table" if "dict" in str(hint) else "a number"
            )
            raise UsageError(f"{name} is {value!r}; expected {kind}")


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Rule)


def required(rule: object) -> None:
    """UsageError for anything but a Rule: a window of another meaning, a preset, a text."""
    if isinstance(rule, Rule):
        return
    hint = {
        "TrainingWindow": "a TrainingWindow says what a policy learns from: pass it as training=",
        "Preset": "the rule of a preset is its .rule",
        "str": "a named one is preset(NAME).rule",
    }.get(type(rule).__name__, "options are given as Rule(lookback_days=7)")
    raise UsageError(f"rule is a {type(rule).__name__}; expected a Rule ({hint})")


def with_settings(rule: Rule, settings: dict[str, Any]) -> Rule:
    """The rule with some options replaced; texts are read as the option's type.

    >>> with_settings(Rule(), {"credit": "linear", "lookback_days": "30"}).credit
    'linear'
    >>> with_settings(Rule(), {"credits": "linear"})
    Traceback (most recent call last):
    justai_sim.errors.UsageError: rule has no option 'credits'; did you mean 'credit'?
    """
    required(rule)
    hints = get_type_hints(Rule)
    changes = {}
    for key, value in settings.items():
        if key not in Rule.__struct_fields__:
            raise UsageError(f"rule has no option {key!r}; {nearest(key, Rule.__struct_fields__)}")
        hint = hints[key]
        if isinstance(value, str) and value in ("none", "None", "") and type(None) in get_args(hint):
            value = None
        choices = CHOICES.get(key, ())
        if choices and value not in choices:
            raise UsageError(f"{key}={value!r} is not an option; {nearest(str(value), choices)}")
        if isinstance(value, str) and value[:1] == "{":
            try:
                value = msgspec.json.decode(value)
            except msgspec.DecodeError as e:
                raise UsageError(f"{key}={value!r} is not a JSON object: {e}") from None
        try:
            changes[key] = msgspec.convert(value, hint, strict=False)
        except msgspec.ValidationError as e:
            raise UsageError(f"{key}={value!r}: {e}") from None
    return msgspec.structs.replace(rule, **changes)

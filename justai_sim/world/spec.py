"""The parameters of a world: who the users are, how they respond, what they would do anyway."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from justai_sim import clock
from justai_sim.errors import JustaiError, UsageError, nearest

MOST_CELLS = 10_000
"""Combinations of attributes that a world can have."""


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all scenario parts: unknown keys are refused."""


def between(part: Spec, low: float, high: float, *names: str, of: str = "") -> None:
    """UsageError for the first of these numbers that lies outside [low, high] (or is not a number)."""
    for name in names:
        if not low <= getattr(part, name) <= high:
            at = f"{low:g} to {high:g}" if high < 1e6 else f"at least {low:g}"
            raise UsageError(f"{name}{of} is {getattr(part, name)}; expected {at}")


def readable(name: str, what: str) -> None:
    """UsageError for an id that a log could not carry."""
    if not name.strip() or not name.isprintable():
        raise UsageError(f"id of a {what} is {name!r}; expected a text that can be read")


class Delay(Spec, frozen=True, kw_only=True):
    """Days from a send to the conversion that it causes.

    exponential: mean_days. weibull, gamma: shape, scale_days. lognormal: median_days, sigma. mixture: `parts`, each a
    delay, with `weights`. empirical: `days`, observed delays in any order, equally likely, straight lines between.
    """

    law: Literal["exponential", "weibull", "lognormal", "gamma", "mixture", "empirical"] = "exponential"
    mean_days: float = 1.5
    shape: float = 1.0
    scale_days: float = 1.5
    median_days: float = 1.0
    sigma: float = 1.0
    parts: list[Delay] = []
    weights: list[float] = []
    days: list[float] = []

    def __post_init__(self) -> None:
        for name in ("mean_days", "shape", "scale_days", "median_days", "sigma"):
            if not 0 < getattr(self, name) <= 3650:
                raise UsageError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if (self.law == "mixture") != bool(self.parts) or len(self.parts) != len(self.weights):
            raise UsageError(
                f"parts: {len(self.parts)} delays and {len(self.weights)} weights; a mixture needs as many"
            )
        if self.parts and not (min(self.weights) >= 0 and 0 < sum(self.weights) < math.inf):
            raise UsageError(f"weights is {self.weights}; expected numbers of at least 0, not all 0")
        if (self.law == "empirical") != bool(self.days) or len(self.days) == 1:
            raise UsageError(f"days has {len(self.days)} delays; the empirical law needs two or more, others none")
        for day in self.days:
            if not 0 <= day <= 3650:
                raise UsageError(f"days holds {day}; expected delays from 0 to 3650 days")


class Value(Spec, frozen=True, kw_only=True):
    """Amount of a purchase with this `mean`: fixed, log-normal with log-scale `sigma`, or Pareto with tail index `tail`
    (above 1; the smaller the heavier). `zero_share`: part of the purchases that cost nothing; `mean` is that of the
    others."""

    law: Literal["fixed", "lognormal", "pareto"] = "lognormal"
    mean: float = 40.0
    sigma: float = 0.6
    tail: float = 2.5
    zero_share: float = 0.0
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not (0 <= self.mean <= 1e6 and 0 < self.sigma <= 5):
            raise UsageError(f"value: mean {self.mean} or sigma {self.sigma} is out of range (0..1e6, 0..5)")
        between(self, 0, 1, "zero_share")
        if not 1 < self.tail <= 100:
            raise UsageError(f"tail is {self.tail}; expected a number above 1: below it there is no mean")

    @property
    def expected(self) -> float:
        """Mean of all purchases, those that cost nothing included."""
        return self.mean * (1 - self.zero_share)


class Variant(Spec, frozen=True, kw_only=True):
    """How users respond to a variant; rates are probabilities per delivered send.

    `click_rate` is given an open. `delay` and `value` replace the world's. `segments` multiply the conversion rate for
    users with an attribute ("plan=paid"). `drift`: how the log of the conversion rate changes in 30 days. `novelty`: by
    what part it is higher at first, fading with `novelty_days`. `from_day`, `until_day` (days of the run): when it is
    added and archived.
    """

    id: str
    conversion_rate: float
    open_rate: float = 0.30
    click_rate: float = 0.10
    unsubscribe_rate: float = 0.002
    delay: Delay | None = None
    value: Value | None = None
    segments: dict[str, float] = {}
    drift: float = 0.0
    novelty: float = 0.0
    novelty_days: float = 7.0
    from_day: float = 0.0
    until_day: float | None = None

    def __post_init__(self) -> None:
        of = f" of variant {self.id!r}"
        between(self, 0, 1, "conversion_rate", "open_rate", "click_rate", "unsubscribe_rate", of=of)
        between(self, -5, 5, "drift", of=of)
        between(self, -1, 100, "novelty", of=of)
        between(self, 0.01, 3650, "novelty_days", of=of)
        between(self, 0, 3650, "from_day", of=of)
        if self.until_day is not None and not self.from_day < self.until_day <= 3650:
            raise UsageError(f"until_day{of} is {self.until_day}; expected a day after from_day {self.from_day:g}")
        factors(self.segments, f"segments{of}")


class Shock(Spec, frozen=True, kw_only=True):
    """Some days (from `day` of the run, for `days`) on which purchases that happen anyway and the conversion rates of
    messages sent then are multiplied: a sale weekend."""

    day: float
    days: float = 2.0
    organic: float = 1.0
    conversion: float = 1.0

    def __post_init__(self) -> None:
        between(self, 0, 3650, "day")
        between(self, 0.01, 3650, "days")
        between(self, 0, 1000, "organic", "conversion")


class World(Spec, frozen=True, kw_only=True):
    """The users and what they do.

    Users: `initial_users` are there at the start, `signups_per_day` come. `attributes`: their values and shares, e.g.
    plan = { free = 0.8, paid = 0.2 }. `time_zones`: shares of users ({}: all UTC). `hours` (24 numbers) and `weekdays`
    (7, Monday first): relative activity in local time, to which purchases, opens and unsubscribes keep. `*_spread`:
    coefficient of variation of each user's own rate around the mean (gamma).

    Purchases that happen anyway: `organic_per_user_day`, from `history_days` before sign-up; `organic_by` multiplies
    for an attribute; `shocks`. `repeat_rate`: chance of one more purchase after each caused one. `refund_rate`, after
    `refund_delay_days` on average. `replaces_organic`: part of the caused purchases that only come earlier: the user's
    next purchase of his own does not happen (what was *added* is then less than what was caused).

    Messages: `bounce_rate`; `suppressed_rate` (chosen, never sent); `api_calls` a message. `open_effect`,
    `click_effect`: how much likelier those who opened, or clicked, convert (the variant's rate stays the mean).
    `fatigue`: each message of late (half-forgotten in `fatigue_days`) lowers the log of open and conversion rates by
    so much; `fatigue_unsubscribe` raises that of unsubscribing. `carry_over`: part of the previous message's conversion
    rate that is added to this one's.
    """

    signups_per_day: float = 400
    initial_users: int = 0
    attributes: dict[str, dict[str, float]] = {}
    time_zones: dict[str, float] = {}
    hours: list[float] = []
    weekdays: list[float] = []
    conversion_spread: float = 0.0
    engagement_spread: float = 0.0
    organic_spread: float = 0.0
    organic_per_user_day: float = 0.002
    organic_by: dict[str, float] = {}
    history_days: float = 7
    """Days before sign-up in which organic purchases already happen."""
    delay: Delay = Delay()
    value: Value = Value()
    repeat_rate: float = 0.0
    refund_rate: float = 0.0
    refund_delay_days: float = 7.0
    shocks: list[Shock] = []
    open_delay_hours: float = 6
    click_delay_minutes: float = 10
    unsubscribe_delay_hours: float = 6
    bounce_rate: float = 0.01
    suppressed_rate: float = 0.0
    api_calls: int = 1
    open_effect: float = 1.0
    click_effect: float = 1.0
    replaces_organic: float = 0.0
    fatigue: float = 0.0
    fatigue_unsubscribe: float = 0.0
    fatigue_days: float = 7.0
    carry_over: float = 0.0

    def __post_init__(self) -> None:
        between(self, 0, 1, "bounce_rate", "suppressed_rate", "refund_rate", "carry_over", "replaces_organic")
        between(self, 0, 0.95, "repeat_rate")
        between(self, 0, 1e7, "signups_per_day", "organic_per_user_day")
        between(self, 0, 3650, "history_days")
        between(self, 0, 1e9, "initial_users")
        between(
            self, 0, 5, "conversion_spread", "engagement_spread", "organic_spread", "fatigue", "fatigue_unsubscribe"
        )
        between(self, 0.01, 3650, "refund_delay_days", "fatigue_days")
        between(self, 0, 3650, "open_delay_hours", "click_delay_minutes", "unsubscribe_delay_hours")
        between(self, 0, 1000, "open_effect", "click_effect")
        between(self, 1, 10, "api_calls")
        for name, many in (("hours", 24), ("weekdays", 7)):
            weights = getattr(self, name)
            if weights and not (len(weights) == many and min(weights) >= 0 and 0 < sum(weights) < math.inf):
                raise UsageError(f"{name} has {len(weights)} weights; expected {many} of at least 0, not all 0")
        for name, values in self.attributes.items():
            if not values or any(c in name for c in "=|"):
                raise UsageError(f"attributes.{name} is {values}; expected values with their shares")
            shares(values, f"attributes.{name}")
        if (n := math.prod(map(len, self.attributes.values()))) > MOST_CELLS:
            raise UsageError(f"attributes have {n:,} combinations of values; expected at most {MOST_CELLS:,}")
        shares(self.time_zones, "time_zones")
        for zone in self.time_zones:
            try:
                clock.zone(zone)
            except JustaiError as e:
                raise UsageError(f"time_zones: {e}") from None
        factors(self.organic_by, "organic_by", self.attributes)


def shares(given: Mapping[str, float], name: str) -> None:
    """UsageError for shares that are negative or sum to nothing."""
    if given and not (min(given.values()) >= 0 and 0 < sum(given.values()) < math.inf):
        raise UsageError(f"{name} is {dict(given)}; expected shares of at least 0, not all 0")


def factors(given: Mapping[str, float], name: str, attributes: Mapping[str, Mapping[str, float]] | None = None) -> None:
    """UsageError for factors that are not "attribute=value" with a number from 0 on (of a known attribute)."""
    for key, factor in given.items():
        attribute, _, value = key.partition("=")
        if not re.fullmatch(r"[^=|]+=[^=|]+", key) or not 0 <= factor <= 1000:
            raise UsageError(f"{name}: {key!r} = {factor}; expected 'attribute=value' with a factor from 0 to 1000")
        if attributes is not None and value not in attributes.get(attribute, {}):
            known = [f"{a}={v}" for a, values in attributes.items() for v in values]
            raise UsageError(f"{name}: {key!r} is no attribute of the world; {nearest(key, known)}")

"""The parameters of a world: how users respond, and what comes back."""

from __future__ import annotations

from typing import Literal

import msgspec

from justai_sim.errors import UsageError


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all scenario parts: unknown keys are refused."""


class Delay(Spec, frozen=True, kw_only=True):
    """Days from a send to the conversion that it causes.

    exponential: mean_days. weibull: shape, scale_days. lognormal: median_days, sigma.
    """

    law: Literal["exponential", "weibull", "lognormal"] = "exponential"
    mean_days: float = 1.5
    shape: float = 1.0
    scale_days: float = 1.5
    median_days: float = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mean_days", "shape", "scale_days", "median_days", "sigma"):
            if not 0 < getattr(self, name) <= 3650:
                raise UsageError(f"{name} is {getattr(self, name)}; expected a number above 0")


class Value(Spec, frozen=True, kw_only=True):
    """Amount of a purchase: fixed at `mean`, or log-normal with that mean and log-scale `sigma`."""

    law: Literal["fixed", "lognormal"] = "lognormal"
    mean: float = 40.0
    sigma: float = 0.6
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not (0 <= self.mean <= 1e6 and 0 < self.sigma <= 5):
            raise UsageError(f"value: mean {self.mean} or sigma {self.sigma} is out of range (0..1e6, 0..5)")


class Variant(Spec, frozen=True, kw_only=True):
    """How users respond to a variant; rates are probabilities per delivered send.

    `click_rate` is given an open. `delay` replaces the world's.
    """

    id: str
    conversion_rate: float
    open_rate: float = 0.30
    click_rate: float = 0.10
    unsubscribe_rate: float = 0.002
    delay: Delay | None = None

    def __post_init__(self) -> None:
        for name in ("conversion_rate", "open_rate", "click_rate", "unsubscribe_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} of variant {self.id!r} is {getattr(self, name)}; expected 0 to 1")


class World(Spec, frozen=True, kw_only=True):
    """The users and what comes back from them."""

    signups_per_day: float = 400
    organic_per_user_day: float = 0.002
    history_days: float = 7
    """Days before sign-up in which organic purchases already happen."""
    delay: Delay = Delay()
    value: Value = Value()
    open_delay_hours: float = 6
    click_delay_minutes: float = 10
    unsubscribe_delay_hours: float = 6
    bounce_rate: float = 0.01
    webhook_delay_minutes: float = 2
    duplicate_share: float = 0.0
    """Share of events that the provider delivers twice."""

    def __post_init__(self) -> None:
        for name in ("bounce_rate", "duplicate_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in ("signups_per_day", "organic_per_user_day", "history_days", "webhook_delay_minutes"):
            if not 0 <= getattr(self, name) <= 1e7:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 0")

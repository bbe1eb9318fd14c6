"""The training window: which sends a policy learns from. It never touches credit."""

from __future__ import annotations

import math

import msgspec

from justai_sim import clock
from justai_sim.errors import UsageError, nearest
from justai_sim.tables import B1, I8


class TrainingWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The other meaning that the two parameters have in the vendor's API: the age of the sends to learn from.

    Learns from sends with `as_of - offset - lookback <= sent_at < as_of - offset`; `lookback_days=None`
    has no far end. A type of its own, so that it cannot be taken for the attribution rule's window.

    >>> TrainingWindow(lookback_days=14, offset_days=3).bounds(30 * clock.DAY)[0] // clock.DAY
    13
    """

    lookback_days: float | None = None
    offset_days: float = 0

    def __post_init__(self) -> None:
        for name, low in (("lookback_days", "positive"), ("offset_days", "at least 0")):
            value = getattr(self, name)
            if value is None and name == "lookback_days":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"training {name} is {value!r}; expected a number of days, {low}")
            enough = value > 0 if low == "positive" else value >= 0
            if not (math.isfinite(value) and enough and value <= 36_500):
                raise UsageError(f"training {name} is {value}; expected a number of days, {low}, up to 36500")

    def bounds(self, as_of: int) -> tuple[int, int]:
        """First instant of `sent_at` that is learned from, and the first that is too young (microseconds)."""
        end = as_of - clock.days(self.offset_days)
        far = -(1 << 62) if self.lookback_days is None else end - clock.days(self.lookback_days)
        return far, end

    def words(self) -> str:
        """
        >>> TrainingWindow(lookback_days=14, offset_days=3).words()
        'sends that are 3 to 17 days old'
        """
        if self.lookback_days is None:
            return f"sends that are at least {self.offset_days:g} days old"
        return f"sends that are {self.offset_days:g} to {self.offset_days + self.lookback_days:g} days old"

    def holds(self, sent_at: I8, as_of: int) -> B1:
        """Which sends are learned from at `as_of`, shape (n,)."""
        start, end = self.bounds(as_of)
        return (sent_at >= start) & (sent_at < end)


def training_window(text: str) -> TrainingWindow:
    """The window of a text such as `lookback_days=14,offset_days=3`.

    >>> training_window("lookback_days=30")
    TrainingWindow(lookback_days=30.0, offset_days=0)
    """
    given: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = (p.strip() for p in part.partition("="))
        if key not in TrainingWindow.__struct_fields__:
            raise UsageError(
                f"training {part.strip()!r}: expected e.g. lookback_days=14,offset_days=3; "
                f"{nearest(key, TrainingWindow.__struct_fields__)}"
            )
        try:
            given[key] = float(value)
        except ValueError:
            raise UsageError(f"training {key}={value!r} is not a number of days") from None
    return TrainingWindow(**given)

"""Every point of a scenario's sweep."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec

from justai_sim.designs import MAX_POINTS, SweepError, axes_of
from justai_sim.errors import DataError, JustaiError, nearest
from justai_sim.scenario.explain import explain
from justai_sim.scenario.model import Scenario


class Point(msgspec.Struct, frozen=True):
    """One point of a sweep: its labels per axis, and the scenario that it stands for."""

    labels: dict[str, str]
    scenario: Scenario

    @property
    def name(self) -> str:
        return " · ".join(self.labels.values()) or "as given"


def points(scenario: Scenario) -> list[Point]:
    """Every point of the `[sweep]` table (`designs.axes_of`): the product of its axes, in the order written.

    SweepError if one of them is no scenario.
    """
    axes = [axis.options for axis in axes_of(scenario.sweep, scenario.seed)]
    if (n := math.prod(map(len, axes))) > MAX_POINTS:
        raise SweepError(f"sweep has {n:,} points; expected at most {MAX_POINTS:,}", ("sweep",))
    out = []
    for combination in itertools.product(*axes):
        labels: dict[str, str] = {}
        settings: dict[str, Any] = {}
        for o in combination:
            labels |= o.labels
            settings |= o.settings
        try:
            found = with_settings(scenario, settings)
        except DataError as e:
            wrong = next((o for o in combination if not _works(scenario, o.settings)), combination[-1])
            raise SweepError(str(e), wrong.path) from None
        out.append(Point(labels, found))
    return out


def _works(scenario: Scenario, settings: dict[str, Any]) -> bool:
    """Whether settings are fine by themselves."""
    try:
        with_settings(scenario, settings)
    except DataError:
        return False
    return True


def with_settings(scenario: Scenario, settings: dict[str, Any]) -> Scenario:
    """The scenario with dotted keys replaced, such as `program.rule.lookback_days`."""
    raw = msgspec.to_builtins(scenario)
    raw["sweep"] = {}
    for key, value in settings.items():
        here: Any = raw
        *path, last = key.split(".")
        try:
            for part in path:
                here = here[int(part)] if isinstance(here, list) else here[part]
        except (KeyError, IndexError, ValueError):
            raise DataError(f"sweep key {key!r}: the scenario has no {part!r}; {nearest(part, here)}") from None
        if isinstance(here, list):
            last_index = int(last) if last.isdigit() else -1
            if not 0 <= last_index < len(here):
                raise DataError(f"sweep key {key!r}: expected an index below {len(here)}, found {last!r}")
            here[last_index] = value
        elif last in here:
            here[last] = value
        else:
            raise DataError(f"sweep key {key!r}: {nearest(last, here)}")
    try:
        return msgspec.convert(raw, Scenario)
    except (msgspec.ValidationError, JustaiError) as e:
        raise DataError(f"sweep settings {settings}: {explain(str(e))[0]}") from None

"""The `[sweep]` table: lists, labelled settings, and designs over ranges; which axes are assumptions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from justai_sim.errors import DataError, nearest
from justai_sim.streams import generator
from justai_sim.tables import F8

MAX_POINTS = 10_000
"""Points of a sweep; each is checked when the scenario is read."""
DESIGN = "design"
RESERVED = frozenset(
    ("point", "rep", "day", "template_id", "variant_id", "metric", "value", "decision", "worlds", "difference", "low",
     "high", "verdict", "stopped", "best_value", "wrong", "wrong_low", "wrong_high", "share", "spread", "criterion",
     "unit", DESIGN)
)  # fmt: skip
"""Columns of a sweep's tables: no axis has such a name."""

Key = tuple[str | int, ...]
"""Where a value stands in a file: names of tables and keys, positions in arrays."""


class SweepError(DataError):
    """A sweep that cannot be run; `path` is the key that it is about."""

    def __init__(self, message: str, path: Key = ()) -> None:
        super().__init__(message)
        self.path = path


class Design(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How values are drawn from the ranges: `[sweep.design]`."""

    kind: Literal["random", "latin_hypercube"]
    points: int

    def __post_init__(self) -> None:
        if not 1 <= self.points <= MAX_POINTS:
            raise DataError(f"points is {self.points:,}; expected 1 to {MAX_POINTS:,}")


class Range(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values from `low` to `high`, both ends included; even in their logarithm where `scale` is log."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise DataError(f"low is {self.low:g} and high {self.high:g}; expected low below high")
        if self.scale == "log" and self.low <= 0:
            raise DataError(f"low is {self.low:g}; expected more than 0 where the scale is log")
        if self.integer and (self.low % 1 or self.high % 1):
            raise DataError(f"low is {self.low:g} and high {self.high:g}; expected whole numbers where integer is true")

    def at(self, u: F8) -> list[int] | list[float]:
        """The values at parts `u` of the range, (n,) from 0 to 1; four digits each, so that a label is the value.

        >>> Range(low=1, high=100, scale="log").at(np.array([0.0, 0.5, 1.0]))
        [1.0, 10.0, 100.0]
        """
        high = self.high + self.integer  # each whole number has a cell of its own
        if self.scale == "log":
            value = np.exp(np.log(self.low) + u * (np.log(high) - np.log(self.low)))
        else:
            value = self.low + u * (high - self.low)
        if self.integer:
            return np.clip(np.floor(value), self.low, self.high).astype(np.int64).tolist()
        return [min(max(float(f"{v:.4g}"), self.low), self.high) for v in value.tolist()]


class Option(NamedTuple):
    """One choice on an axis: its labels, the keys that it sets, and where it stands."""

    labels: dict[str, str]
    settings: dict[str, Any]
    path: Key


class Axis(NamedTuple):
    """What varies together. `keys`: by the name of each label the dotted keys that it stands for."""

    keys: dict[str, list[str]]
    options: list[Option]


def axes_of(sweep: Mapping[str, Any], seed: int) -> list[Axis]:
    """The axes of a `[sweep]` table in the order written; ranges are one axis, where the first of them stands.

    A dotted key has a list of values or a range; any other name a table of labels, each of which sets several
    keys together. SweepError for everything else.
    """
    names = _names(sweep)
    ranges = {key: _read(Range, values, ("sweep", key)) for key, values in sweep.items() if _is_range(values)}
    found: list[Axis] = []
    for key, values in sweep.items():
        if key in ranges:
            if key == next(iter(ranges)):
                found.append(_designed(sweep, ranges, names, seed))
        elif key != DESIGN or _is_labelled(values):
            found.append(_listed(key, names[key], values))
    if DESIGN in sweep and not ranges:
        raise SweepError("sweep.design: there is no range; expected an axis such as {low = 1, high = 14}",
                         ("sweep", DESIGN))  # fmt: skip
    return found


def decided(key: str) -> bool:
    """Whether a dotted key is set in production: the program, and when and to whom messages go. All else is assumed.

    >>> decided("program.rule.offset_days"), decided("flow.0.day"), decided("flow.0.variants.1.open_rate")
    (True, True, False)
    """
    parts = key.split(".")
    touch = parts[0] in ("flow", "blasts", "triggered") and "variants" not in parts
    return parts[0] == "program" or (touch and parts[-1] != "per_user_day")


def _is_labelled(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(v, dict) for v in values.values())


def _is_range(values: Any) -> bool:
    return isinstance(values, dict) and not _is_labelled(values) and bool({"low", "high"} & set(values))


def _names(sweep: Mapping[str, Any]) -> dict[str, str]:
    """What each key is called as a column: its last part, unless that is taken."""
    short = {k: "policy" if k == "program.policy.name" else k.rpartition(".")[2] for k in sweep if k != DESIGN}
    count = Counter(short.values())
    names = {k: k if count[s] > 1 or s in RESERVED else s for k, s in short.items()}
    for key, name in names.items():
        if name in RESERVED:
            raise SweepError(
                f"sweep axis {key!r}: the tables have a column of that name; choose another", ("sweep", key)
            )
    return names | {DESIGN: DESIGN}


def _listed(key: str, name: str, values: Any) -> Axis:
    path: Key = ("sweep", key)
    if key == DESIGN:
        raise SweepError(f"sweep axis {key!r}: the name is taken; choose another", path)
    if isinstance(values, list):
        options = [Option({name: str(v)}, {key: v}, (*path, i)) for i, v in enumerate(values)]
        keys = [key]
    elif _is_labelled(values):
        options = [Option({name: label}, settings, (*path, label)) for label, settings in values.items()]
        keys = list(dict.fromkeys(k for settings in values.values() for k in settings))
    else:
        raise SweepError(
            f"sweep axis {key!r}: expected a list of values, a range {{low = 1, high = 2}} or labelled settings", path
        )
    if not options:
        raise SweepError(f"sweep axis {key!r} has no values", path)
    for label, n in Counter(o.labels[name] for o in options).items():
        if n > 1:
            raise SweepError(f"sweep axis {key!r} has {label!r} {n} times", path)
    return Axis({name: keys}, options)


def _designed(sweep: Mapping[str, Any], ranges: dict[str, Range], names: dict[str, str], seed: int) -> Axis:
    """The points of a design; where whole numbers give the same point twice it is there once."""
    if DESIGN not in sweep:
        first = next(iter(ranges))
        raise SweepError(
            f"sweep axis {first!r} is a range; expected a table [sweep.design] with kind and points", ("sweep", first)
        )
    design = _read(Design, sweep[DESIGN], ("sweep", DESIGN))
    u = unit_points(design, len(ranges), seed)
    columns = [r.at(u[:, i]) for i, r in enumerate(ranges.values())]
    options = []
    for row in dict.fromkeys(zip(*columns, strict=True)):
        settings = dict(zip(ranges, row, strict=True))
        options.append(Option({names[k]: _label(v) for k, v in settings.items()}, settings, ("sweep", DESIGN)))
    return Axis({names[k]: [k] for k in ranges}, options)


def _label(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def unit_points(design: Design, axes: int, seed: int) -> F8:
    """Points of the unit cube, (points, axes), from a stream of the scenario's seed."""
    rng = generator(seed, "sweep design")
    if design.kind == "random":
        return rng.random((design.points, axes))
    from scipy.stats import qmc

    return np.asarray(qmc.LatinHypercube(axes, rng=rng).random(design.points))


def _read(kind: Any, values: Any, path: Key) -> Any:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as e:
        what = str(e)
        if "unknown field" in what:
            wrong = next(k for k in values if k not in kind.__struct_fields__)
            what = f"unknown key {wrong!r}; {nearest(wrong, kind.__struct_fields__)}"
            path = (*path, wrong)
        elif "Invalid enum value" in what:
            wrong = next(k for k in ("kind", "scale") if k in values)
            valid = {"kind": ("random", "latin_hypercube"), "scale": ("linear", "log")}[wrong]
            what = f"{wrong} is {values[wrong]!r}; {nearest(str(values[wrong]), valid)}"
            path = (*path, wrong)
    except DataError as e:
        what = str(e)
    raise SweepError(f"{'.'.join(map(str, path[:2]))}: {what}", path)

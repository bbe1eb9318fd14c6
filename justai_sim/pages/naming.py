"""What a sweep's points are called, and which of them differ on the axis that the page is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from justai_sim.pages.inputs import kinds, titles
from justai_sim.pages.table import Column
from justai_sim.scenario import Point, Scenario

WINDOW = "window"


def axis_columns(scenario: Scenario) -> list[Column]:
    """The columns that name a point: its label on every axis."""
    return [Column(a, called.replace("_", " ")) for a, called in titles(scenario).items()] or [Column("point", "point")]


def label_of(p: Point) -> dict[str, Any]:
    """The cells below `axis_columns`."""
    return dict(p.labels) or {"point": p.name}


def words(p: Point) -> str:
    """The window of a point in words: 'day 3 to day 14'."""
    rule = p.scenario.program.rule
    return f"day {rule.offset_days:g} to day {rule.upper_days:g}"


def axis_of(p: Point) -> str:
    """The axis that the page is about: the window, else the first one; '' without any."""
    return WINDOW if WINDOW in p.labels else next(iter(p.labels), "")


def window_label(p: Point) -> str:
    """What that axis calls this point; the whole name if there is none."""
    return p.labels.get(axis_of(p), p.name)


def elsewhere(p: Point) -> dict[str, str]:
    """Its labels on all other axes."""
    return {k: v for k, v in p.labels.items() if k != axis_of(p)}


def siblings(points: Sequence[Point], like: Point) -> list[Point]:
    """The points that differ from `like` on that axis only; `like` is one of them."""
    return [p for p in points if elsewhere(p) == elsewhere(like)]


def alike(scenario: Scenario, points: Sequence[Point], use: Point) -> list[Point]:
    """The points that a decision is made between: those with the assumptions of `use`, itself among them."""
    assumed = [name for name, kind in kinds(scenario).items() if kind == "assumption"]
    return [p for p in points if all(p.labels[a] == use.labels[a] for a in assumed)]


def with_assumed(scenario: Scenario, use: Point) -> str:
    """' with mean_days 2' where the points differ in what is assumed, else ''."""
    named, found = titles(scenario), kinds(scenario)
    assumed = [f"{named[n].replace('_', ' ')} {use.labels[n]}" for n, kind in found.items() if kind == "assumption"]
    return f" with {', '.join(assumed)}" if assumed else ""


def reference(points: Sequence[Point], name: str) -> Point:
    """The point in use."""
    return next((p for p in points if p.name == name), points[0])


def each_window(scenario: Scenario, points: Sequence[Point], use: Point, say: Callable[[int], str]) -> str:
    """'14/3: 38 %, 0-7: 71 % (policy weighted_thompson)': what `say` says of the windows with all else as in use."""
    family, called = siblings(points, use), titles(scenario)
    said = ", ".join(f"{window_label(p)}: {say(i)}" for i, p in enumerate(points) if p in family)
    rest = ", ".join(f"{called[k].replace('_', ' ')} {v}" for k, v in elsewhere(use).items())
    return f"{said} ({rest})" if rest and len(family) < len(points) else said


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

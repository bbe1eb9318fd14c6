"""Figures on axes that a user gives: of any size, under any style."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec
from weakref import WeakKeyDictionary

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

P = ParamSpec("P")
SCALES: WeakKeyDictionary[Axes, float] = WeakKeyDictionary()
"""Of axes whose figure was laid out larger than they are: by what its text and marks are still to be scaled."""

TICKS = {"labelsize": 10.0, "length": 3.5, "pad": 3.5}
"""What of ticks is scaled, and matplotlib's values where a figure sets none."""


def figure(plot: Callable[P, Axes]) -> Callable[P, Axes]:
    """A figure that looks the same under every style (rcParams), and whose text is scaled to the room it has."""

    @wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with matplotlib.style.context("default"):
            ax = plot(*args, **kwargs)
        scale(ax, SCALES.pop(ax, 1.0))
        return ax

    return drawn


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height (of axes without any: a little)."""
    box, (w, h) = ax.get_position(), ax.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
    return max(float(box.width * w), 0.1), max(float(box.height * h), 0.1)


def white(ax: Axes) -> None:
    """A white sheet behind everything: our text is dark whatever the style is."""
    sheet = Rectangle((0, 0), 1, 1, transform=ax.transAxes, facecolor="white", edgecolor="none", zorder=-9)
    ax.add_artist(sheet).set_clip_on(False)


def scale(container: Axes, by: float) -> None:
    """Scale text, lines, marks and their distances in a container and its panels."""
    if by == 1:
        return
    for artist in [*container.texts, *container.lines]:
        _scale(artist, by)
    for panel in container.child_axes:
        ticks = [(axis, axis.get_tick_params()) for axis in (panel.xaxis, panel.yaxis)]
        for artist in [*panel.findobj(Text), *panel.findobj(Line2D)]:
            _scale(artist, by)
        for axis, kept in ticks:
            sizes: dict[str, Any] = {k: by * float(kept.get(k, usual)) for k, usual in TICKS.items()}
            axis.set_tick_params(**sizes)
            axis.labelpad = by * float(axis.labelpad)
    container.stale = True


def _scale(artist: Any, by: float) -> None:
    if isinstance(artist, Text):
        artist.set_fontsize(by * float(artist.get_fontsize()))
    if isinstance(artist, Annotation) and artist.anncoords == "offset points":
        x, y = artist.xyann
        artist.xyann = (by * x, by * y)
    if isinstance(artist, Line2D):
        artist.set_linewidth(by * artist.get_linewidth())
        artist.set_markersize(by * artist.get_markersize())

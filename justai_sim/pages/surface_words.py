"""What a window surface says, in sentences and rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from justai_sim.pages.table import number
from justai_sim.surfaces import WindowSurface

USUAL = ((0.0, 1.0), (0.0, 3.0), (0.0, 7.0), (0.0, 14.0), (3.0, 14.0), (0.0, 30.0))
"""(offset, lookback) of the rows that are shown: fixed beforehand, not by what they show."""


def in_use(got: WindowSurface) -> str:
    """What the rule's own window says."""
    offset, lookback = got.in_use
    said = f"The window in use ({lookback:g}/{offset:g}): {got.said_at(offset, lookback)}"
    place = got.at(offset, lookback)
    if place is None or not got.judged.told[place]:
        return f"{said}."
    row = _row(got, offset, lookback)
    return (
        f"{said} ({row['ahead']} before {row['second']} by {ranged(row)} per 1,000 sends, z {number(float(row['z']))})."
    )


def judgement(got: WindowSurface) -> str:
    """The window chosen on half of the users, and what the other half says."""
    both = got.chosen().to_dict("records")
    if not both:
        return "Half of the users are too few to choose a window on and judge it on the others."
    one, other = both
    said = "above 0" if other["low_per_1000"] > 0 else "not above 0"
    bound = number(got.judged.bound)
    return (
        f"Chosen on half of the users: {window(got, one)}, {one['first']} before {one['second']} by "
        f"{number(one['difference_per_1000'])} per 1,000 (z {number(one['z'])}); the other half says {ranged(other)} "
        f"(z {number(other['z'])}): {said} at 95 % for this one window, judged alone and once. The map asks more of a "
        f"window (z above {bound}, with all users), as it asks all at once; only that makes a leader of the map."
    )


def usual_rows(got: WindowSurface) -> list[dict[str, Any]]:
    """Rows of `cells` with the window's name: the one in use and the usual ones, or some spread evenly over the map."""
    on_map = [w for w in sorted({*USUAL, got.in_use}, key=lambda w: (w[1], w[0])) if got.at(*w) is not None]
    if len(on_map) < 3:
        c = got.cells
        spread = c.iloc[np.unique(np.linspace(0, len(c) - 1, min(len(c), 5)).astype(int))]
        more = zip(spread["offset_day"].tolist(), spread["lookback_day"].tolist(), strict=True)
        on_map = sorted({*on_map, *more}, key=lambda w: (w[1], w[0]))
    rows = []
    for offset, lookback in on_map:
        row = _row(got, offset, lookback)
        used = " (in use)" if (offset, lookback) == got.in_use else ""
        rows.append(row | {"window": window(got, row) + used})
    return rows


def _row(got: WindowSurface, offset: float, lookback: float) -> dict[str, Any]:
    c = got.cells
    return dict(c[(c["offset_day"] == offset) & (c["lookback_day"] == lookback)].iloc[0])


def window(got: WindowSurface, row: dict[str, Any]) -> str:
    """A row's window in words: 'day 3 to 14'."""
    first, last = row["offset_day"], row["lookback_day"]
    return f"day {first:g} to {last + first if got.from_offset else last:g}"


def ranged(row: dict[str, Any]) -> str:
    """A row's difference with its interval."""
    value, low, high = (row[f"{k}_per_1000"] for k in ("difference", "low", "high"))
    return "-" if value != value else f"{value:.2f} ({low:.2f} to {high:.2f})"

"""What shares would the policy have set? One panel a template."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.style import (
    FAINT,
    QUIET,
    End,
    Look,
    Panel,
    distinct,
    label_ends,
    look,
    looks,
    panels,
    room_for,
    shown,
    units,
)

SHARES = "What shares would the policy have set?"
MOST_TEMPLATES = 6
MOST_COLOURS, LEADERS = 7, 4
"""With more variants than colours only these many and the control have one; the others are grey lines."""


@figure
def plot_shares(shares: Any, *, control: str | None = "control", ax: Axes | None = None) -> Axes:
    """The share of each variant over time, a panel a template (the six with most sends).

    `shares`: `day` (days since the start), `template_id, variant_id, share` and optionally `sends`.
    With more than seven variants besides the control only it, the first at the end and the three that had the largest
    share at any time have colours; the others are grey, each with its name and last share at its end. The
    returned axes are a container; its `child_axes` are the panels.
    """
    shares = as_pandas(shares, "plot_shares's frame")
    if not len(shares):
        return panels(ax, SHARES, "There was nothing to learn from: no refresh saw a send.", [])[0]
    need(shares, "day template_id variant_id share", "plot_shares", "Replay.shares, or Sweep.data.shares")
    templates = _busiest(shares)
    variants = sorted({str(v) for v in shares["variant_id"]})
    style, names = looks(variants, control), distinct(variants)
    most = int(shares.groupby("template_id")["variant_id"].nunique().max())
    heights = [max(1.05, 0.19 * most)] * len(templates)
    hidden = shares["template_id"].nunique() - len(templates)
    seen = _shares_sentence(shares, templates[0], control, hidden, names)
    crowded = len(set(variants) - {control}) > MOST_COLOURS
    ax, stack, _ = panels(
        ax, SHARES, seen, heights, right=room_for([f"{n}  100 %" if crowded else n for n in names.values()])
    )
    for panel, template in zip(stack, templates, strict=True):
        here = shares[shares["template_id"] == template]
        drawn = _leaders(here, control) if crowded else style
        ends = []
        for v in sorted(here["variant_id"].unique()):
            part = here[here["variant_id"] == v].sort_values("day")
            x = part["day"].to_numpy(np.float64)
            y = part["share"].to_numpy(np.float64) * 100
            s = drawn.get(str(v))
            name = f"{names[str(v)]}  {y[-1]:.0f} %" if crowded else names[str(v)]
            if s is None:
                panel.ax.plot(x, y, color=FAINT, drawstyle="steps-post", linewidth=1.0, zorder=1.5)
            else:
                panel.ax.plot(x, y, color=s.colour, linestyle=s.dash, drawstyle="steps-post", linewidth=1.9)
            ends.append(End(x[-1], y[-1], name, QUIET if s is None else s.colour))
        _share_axes(panel, f"{shown(template, 30)}: share of sends, %", panel is stack[-1])
        label_ends(panel, ends)
    return ax


def _leaders(here: pd.DataFrame, control: str | None) -> dict[str, Look]:
    """The looks of the first variant at the end, of those that had the largest shares, and of the control."""
    others = here[here["variant_id"] != control].sort_values("share", ascending=False, kind="stable")
    last = others[others["day"] == others["day"].max()]["variant_id"].astype(str)
    top = list(dict.fromkeys([*last[:1], *others["variant_id"].astype(str)]))
    out = {v: look(i) for i, v in enumerate(top[:LEADERS])}
    return out if control is None else out | looks([], control)


def _share_axes(panel: Panel, title: str, last: bool) -> None:
    panel.ax.set_ylim(0, 103)
    panel.ax.margins(x=0)
    panel.ax.set_yticks([0, 50, 100])
    units(panel, title, "days since the start" if last else None)


def _busiest(shares: pd.DataFrame) -> list[str]:
    names = list(dict.fromkeys(shares["template_id"].tolist()))
    if len(names) <= MOST_TEMPLATES:
        return names
    n = shares.groupby("template_id")["sends"].max() if "sends" in shares else None
    top = sorted(names, key=lambda t: -float(n[t]))[:MOST_TEMPLATES] if n is not None else names[:MOST_TEMPLATES]
    return [t for t in names if t in top]


def _shares_sentence(
    shares: pd.DataFrame, template: str, control: str | None, hidden: int, names: dict[str, str]
) -> str:
    here = shares[(shares["template_id"] == template) & (shares["variant_id"] != control)]
    last = here[here["day"] == here["day"].max()]
    if len(last) > 1 and last["share"].max() - last["share"].min() > 0.005:
        row = last.loc[last["share"].idxmax()]
        given = f"{names[str(row['variant_id'])]} {100 * row['share']:.0f} % of the sends"
        text = f"At the end it gives {given} of {shown(template)}."
    else:
        text = f"At the end it treats all variants of {shown(template)} alike."
    return text + (f" {hidden} more templates are in the table." if hidden else "")

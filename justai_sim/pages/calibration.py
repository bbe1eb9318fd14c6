"""Is a chance to be the best what it says? Said against right, with the spread that chance allows."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from justai_sim.pages.canvas import figure
from justai_sim.pages.style import GRID, INK, PALETTE, SMALL, panels, units
from justai_sim.stats import wilson
from justai_sim.tables import F8

QUESTION = "When the policy said 90 %, was it right in 90 %?"


@figure
def plot_calibration(said: F8, right: F8, n: F8, ax: Axes | None = None) -> Axes:
    """Chances to be the best against how often the arm was the best, by bins (`bandit.study.Study.calibration`).

    The whiskers are 95 % intervals of the part that was right. Returns the container.
    """
    off = float(np.abs(np.asarray(said) - right) @ n / np.sum(n))
    seen = f"On average over {np.sum(n):,.0f} chances, said and right are {100 * off:.1f} points apart."
    ax, (panel,), _ = panels(ax, QUESTION, seen, [3.4])
    low, high = wilson(right * n, n)
    a = panel.ax
    a.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    spread = np.stack([right - low, high - right]) * 100
    a.errorbar(100 * said, 100 * right, yerr=np.maximum(spread, 0), fmt="o", color=PALETTE[0], markersize=6,
               elinewidth=1.4, zorder=3)  # fmt: skip
    a.grid(color=GRID, linewidth=0.8)
    a.set_xlim(-2, 102)
    a.set_ylim(-2, 102)
    a.annotate("as said", (72, 72), xytext=(6, -12), textcoords="offset points", fontsize=SMALL, color=INK)
    units(panel, "was the best, % of the worlds", "chance to be the best that was said, %")
    return ax

"""The figures. Each takes a frame, draws on a given or a new `ax` and returns it; pyplot is never touched."""

from justai_sim.pages.age import plot_age
from justai_sim.pages.bias import plot_bias
from justai_sim.pages.brief import plot_brief
from justai_sim.pages.delay import plot_delay
from justai_sim.pages.interpretations import plot_interpretations
from justai_sim.pages.race import plot_race
from justai_sim.pages.receipt import plot_receipt
from justai_sim.pages.recommend import plot_recommend
from justai_sim.pages.shares import plot_shares
from justai_sim.pages.style import render, save
from justai_sim.pages.what_if import plot_what_if
from justai_sim.pages.window_map import plot_window_map

__all__ = [
    "plot_age",
    "plot_bias",
    "plot_brief",
    "plot_delay",
    "plot_interpretations",
    "plot_race",
    "plot_receipt",
    "plot_recommend",
    "plot_shares",
    "plot_what_if",
    "plot_window_map",
    "render",
    "save",
]

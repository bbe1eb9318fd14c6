"""The figures. Each takes a frame, draws on a given or a new `ax` and returns it; pyplot is never touched."""

from justai_sim.pages.age import plot_age
from justai_sim.pages.race import plot_race
from justai_sim.pages.shares import plot_shares
from justai_sim.pages.style import render, save
from justai_sim.pages.window_map import plot_window_map

__all__ = ["plot_age", "plot_race", "plot_shares", "plot_window_map", "render", "save"]

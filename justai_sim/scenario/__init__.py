"""A scenario: a program, the world it meets, how long, how many worlds, and what is swept."""

from justai_sim.scenario.files import find, packaged, parse, read
from justai_sim.scenario.grid import Point, points, with_settings
from justai_sim.scenario.lines import Lines
from justai_sim.scenario.model import Blast, Scenario, Step, Touch, Trigger
from justai_sim.scenario.notes import notes

__all__ = [
    "Blast", "Lines", "Point", "Scenario", "Step", "Touch", "Trigger",
    "find", "notes", "packaged", "parse", "points", "read", "with_settings",
]  # fmt: skip

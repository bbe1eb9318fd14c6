"""What the pages are made of: frames and a few facts. Pages and figures know nothing else."""

from __future__ import annotations

from justai_sim.replays import ReplayData
from justai_sim.sweeps.criteria import CRITERIA, Question, kinds, titles
from justai_sim.sweeps.data import Raced, SweepData
from justai_sim.sweeps.recommend import Recommendation, Standing, recommend

__all__ = [
    "CRITERIA",
    "Question",
    "Raced",
    "Recommendation",
    "ReplayData",
    "Standing",
    "SweepData",
    "kinds",
    "recommend",
    "titles",
]

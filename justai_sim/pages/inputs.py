"""What the pages are made of: frames and a few facts. Pages and figures know nothing else."""

from __future__ import annotations

from justai_sim.replays import ReplayData
from justai_sim.sweeps.data import SweepData

__all__ = ["ReplayData", "SweepData"]

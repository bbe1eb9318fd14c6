"""All commands: importing their modules registers them."""

from __future__ import annotations

from justai_sim.cli import of_logs, of_readings, of_worlds
from justai_sim.cli.options import app

__all__ = ["app", "of_logs", "of_readings", "of_worlds"]

"""Which send is due which event: one rule, one kernel."""

from justai_sim.attribution.attribute import attribute
from justai_sim.attribution.events import Bound, bind
from justai_sim.attribution.ledger import Ledger, open_ledger
from justai_sim.attribution.outcomes import Attribution, Outcomes, close_of
from justai_sim.attribution.presets import PRESETS, Preset, preset
from justai_sim.attribution.rule import Rule, with_settings
from justai_sim.attribution.training import TrainingWindow, training_window

__all__ = [
    "PRESETS",
    "Attribution",
    "Bound",
    "Ledger",
    "Outcomes",
    "Preset",
    "Rule",
    "TrainingWindow",
    "attribute",
    "bind",
    "close_of",
    "open_ledger",
    "preset",
    "training_window",
    "with_settings",
]

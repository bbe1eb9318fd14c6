"""Which send is due which event: one rule, one kernel."""

from justai_sim.attribution.attribute import attribute
from justai_sim.attribution.events import Bound, bind
from justai_sim.attribution.outcomes import Attribution, Outcomes, close_of
from justai_sim.attribution.rule import Rule, with_settings

__all__ = ["Attribution", "Bound", "Outcomes", "Rule", "attribute", "bind", "close_of", "with_settings"]

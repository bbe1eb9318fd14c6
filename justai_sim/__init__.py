"""justai_sim: what attribution windows and bandit policies do to message experiments.

    import justai_sim as js
    log = js.read_log("my_log")
    js.replay(log, goals=["purchase"]).metrics

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from justai_sim.version import __version__

if TYPE_CHECKING:
    from justai_sim.api import (
        PRESETS,
        Preset,
        Rule,
        TrainingWindow,
        attribute,
        bias,
        doctor,
        estimates,
        export,
        interpretations,
        load,
        metrics,
        outcomes,
        plot_age,
        plot_bias,
        plot_brief,
        plot_delay,
        plot_interpretations,
        plot_race,
        plot_receipt,
        plot_recommend,
        plot_shares,
        plot_what_if,
        plot_window_map,
        preset,
        read_log,
        read_scenario,
        recommend,
        reconcile,
        replay,
        report,
        scenarios,
        simulate,
        sweep,
        verdict,
        what_if,
        window_surface,
    )

__all__ = [
    "PRESETS",
    "Preset",
    "Rule",
    "TrainingWindow",
    "__version__",
    "attribute",
    "bias",
    "doctor",
    "estimates",
    "export",
    "interpretations",
    "load",
    "metrics",
    "outcomes",
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
    "preset",
    "read_log",
    "read_scenario",
    "recommend",
    "reconcile",
    "replay",
    "report",
    "scenarios",
    "simulate",
    "sweep",
    "verdict",
    "what_if",
    "window_surface",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'justai_sim' has no attribute {name!r}")
    from justai_sim import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)

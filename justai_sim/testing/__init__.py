"""Tests for one's own attribution: logs that find its mistakes, the laws that it must hold, cases for other languages.

    from justai_sim import testing
    report = testing.check_attribution(mine, features=["ties", "duplicates"])
    print(report)

The strategies need hypothesis, `sql` needs duckdb: pip install 'justai-sim[testing]'.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from justai_sim.errors import UsageError

if TYPE_CHECKING:
    from justai_sim.testing.check import Finding, Report, check_attribution
    from justai_sim.testing.draw import FEATURES
    from justai_sim.testing.law import Breach, Law
    from justai_sim.testing.laws import LAWS
    from justai_sim.testing.rows import SmallLog
    from justai_sim.testing.sql import sql
    from justai_sim.testing.strategies import events, logs, rules, sends, users

_HOME = {
    "FEATURES": "draw",
    "LAWS": "laws",
    "Breach": "law",
    "Finding": "check",
    "Law": "law",
    "Report": "check",
    "SmallLog": "rows",
    "check_attribution": "check",
    "events": "strategies",
    "logs": "strategies",
    "rules": "strategies",
    "sends": "strategies",
    "sql": "sql",
    "users": "strategies",
}

__all__ = [
    "FEATURES",
    "LAWS",
    "Breach",
    "Finding",
    "Law",
    "Report",
    "SmallLog",
    "check_attribution",
    "events",
    "logs",
    "rules",
    "sends",
    "sql",
    "users",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'justai_sim.testing' has no attribute {name!r}")
    try:
        found = getattr(import_module(f"justai_sim.testing.{_HOME[name]}"), name)
    except ModuleNotFoundError as e:
        if e.name != "hypothesis":
            raise
        raise UsageError(
            f"testing.{name} needs hypothesis; install it with: pip install 'justai-sim[testing]'"
        ) from None
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

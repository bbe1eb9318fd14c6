"""Everything that is asked of one log, for one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from justai_sim.checks.doctor import Diagnosis, doctor
from justai_sim.errors import DataError, JustaiError
from justai_sim.replays import Replay
from justai_sim.verdicts.results import results, segments
from justai_sim.verdicts.verdict import Verdict, decisions, verdict
from justai_sim.whatif.interpretations import Interpretations, interpretations
from justai_sim.whatif.policy import WhatIf, what_if

MOST_SENDS = 10_000_000
"""A log with more is not attributed under every reading for a page; the single commands do it."""
T = TypeVar("T")


@dataclass(frozen=True)
class Desk:
    """The answers beside a replay; None where there is none, then `why` says so by name."""

    verdict: Verdict
    results: pd.DataFrame
    segments: pd.DataFrame
    readings: Interpretations | None
    diagnosis: Diagnosis | None
    what_if: WhatIf | None
    why: dict[str, str] = field(default_factory=dict)


def desk(result: Replay, split: Mapping[str, float] | None = None) -> Desk:
    """The verdict, the results table, and what `interpretations`, `doctor` and `what_if` say of a replayed log."""
    why: dict[str, str] = {}
    program, chosen, log = result.program, result.selection, result.log
    control = result.control if result.control in log.names("variant") else None
    same: dict[str, Any] = {
        "rule": program.rule, "goals": program.goals, "control": control, "as_of": result.attribution.as_of,
        "currency_given": True,
    }  # fmt: skip
    shown: dict[str, Any] = {"template": chosen.template, "since": chosen.since, "until": chosen.until}
    metric = program.key_metric

    def tried(name: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except JustaiError as e:
            why[name] = re.sub(r"send '[^']*'", "a send", str(e))  # a page names no message and no user
            return None

    def large(name: str) -> bool:
        if len(log.sends) > MOST_SENDS:
            why[name] = f"the log has {len(log.sends):,} sends; ask by itself: justai-sim {name.replace('_', '-')}"
        return name in why

    readings = None if large("interpretations") else tried(
        "interpretations", lambda: interpretations(log, metric=metric, **same, **shown)
    )  # fmt: skip
    other = None if large("what_if") else tried("what_if", lambda: what_if(log, metric=metric, **same, **shown))
    diagnosis = tried("doctor", lambda: doctor(log, split=split, **same))
    try:
        found = decisions(result)
    except DataError:
        found = None
    return Desk(
        verdict(result, split, found), results(result, found), segments(result), readings, diagnosis, other, why
    )

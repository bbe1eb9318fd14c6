"""verdict: ship, wait or stop, in one sentence."""

from __future__ import annotations

from pathlib import Path

import msgspec

from justai_sim import clock, replays
from justai_sim.bandit.policy import METRICS
from justai_sim.cli.doctor import shares_of
from justai_sim.cli.output import emit_json, say, tell
from justai_sim.cli.whatif import Asked, checked_out
from justai_sim.errors import UsageError, nearest
from justai_sim.verdicts.verdict import verdict as judge


def verdict(
    asked: Asked, control: str | None, metric: str, split: str | None, brief: Path | None, out: Path | None,
    json: bool,
) -> None:  # fmt: skip
    checked_out(out)
    if metric not in METRICS:
        raise UsageError(f"--metric {metric!r} is not known; {nearest(metric, METRICS)}")
    if brief is not None and brief.suffix.lower() != ".png":
        raise UsageError(f"--brief {str(brief)!r}: the slide is a PNG; expected a name that ends in .png")
    shares = None if split is None else shares_of(split)
    result = replays.replay(asked.log(), control=control, shares=False, key_metric=metric, **asked.options())  # type: ignore[arg-type]
    got = judge(result, shares)
    say(f"as of {clock.iso(got.as_of)}" + ("" if asked.as_of else " (the last receipt)"))
    notes = [*result.notes, *got.notes]
    for note in notes:
        say(f"note: {note}")
    if brief is not None:
        from justai_sim.pages.brief import save_brief

        brief.parent.mkdir(parents=True, exist_ok=True)
        save_brief(got, brief)
    page = None
    if out is not None:
        from justai_sim.pages import reports

        page = reports.publish(got, out, asked.path.name)
    if json:
        emit_json(
            **got.as_dict(), as_of=clock.iso(got.as_of), rule=msgspec.to_builtins(got.rule), goals=got.goals,
            simulated=got.simulated, notes=notes, brief=str(brief) if brief else None,
            report=str(page) if page else None,
        )  # fmt: skip
        return
    tell(f"SIMULATED: {got}" if got.simulated else got)
    if brief is not None:
        say(f"written: {brief}")
    if page is not None:
        say(f"report: {page}")

"""cases: adversarial logs with answers, for attributions in other languages."""

from __future__ import annotations

from pathlib import Path

from justai_sim.attribution import preset, with_settings
from justai_sim.cli.logs import parse_settings
from justai_sim.cli.output import emit_json, say, tell
from justai_sim.testing.cases import write_cases


def cases(rule: str, out: Path, settings: list[str], goals: list[str], count: int, seed: int, json: bool) -> None:
    chosen = with_settings(preset(rule).rule, parse_settings(settings))
    name = " ".join([rule, *settings])
    written = write_cases(chosen, out, name=name, goals=goals or ["purchase"], count=count, seed=seed)
    if json:
        emit_json(out=str(out), cases=sum(written.groups.values()), groups=written.groups)
    else:
        for group, n in written.groups.items():
            tell(f"{group:12} {n:>5}")
    say(f"{sum(written.groups.values())} cases: {out / 'cases.jsonl'}; the format is in {out / 'README.md'}")

"""doctor: the troubleshooting list over one log."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from justai_sim import clock
from justai_sim.checks.doctor import Diagnosis
from justai_sim.checks.doctor import doctor as diagnose
from justai_sim.cli.output import emit_json, say, tell
from justai_sim.cli.whatif import Asked, checked_out
from justai_sim.errors import UsageError
from justai_sim.version import __version__


def doctor(asked: Asked, control: str | None, split: str | None, out: Path | None, json: bool) -> None:
    checked_out(out)
    options = asked.options()
    for shown in ("template", "since", "until"):
        del options[shown]  # a fault concerns the whole log
    shares = None if split is None else shares_of(split)
    log = asked.log()
    got = diagnose(log, control=control, split=shares, **options)
    goals = ", ".join(repr(g) for g in got.goals) or "none"
    say(f"as of {clock.iso(got.as_of)}{'' if asked.as_of else ' (the last receipt)'}; goal: {goals}")
    for note in log.notes:
        say(f"note: {note}")
    files = _write(got, asked.path.name, out) if out is not None else []
    if json:
        emit_json(**_plain(got), files=files)
        return
    tell(got)
    for f in files:
        say(f"written: {f}")


def shares_of(text: str) -> dict[str, float]:
    """`control=0.1,story=0.9` as shares by variant.

    >>> shares_of("control=0.1, story=0.9")
    {'control': 0.1, 'story': 0.9}
    """
    out: dict[str, float] = {}
    for part in text.split(","):
        name, eq, value = part.rpartition("=")
        try:
            share = float(value)
        except ValueError:
            share = float("nan")
        if not eq or not name.strip() or share != share:
            raise UsageError(f"--split {part.strip()!r}: expected variant=share, e.g. control=0.1,story=0.9")
        if name.strip() in out:
            raise UsageError(f"--split names {name.strip()!r} twice")
        out[name.strip()] = share
    return out


def _plain(got: Diagnosis) -> dict[str, object]:
    return {
        "as_of": clock.iso(got.as_of), "rule": msgspec.to_builtins(got.rule), "goals": got.goals,
        "headline": got.headline, "findings": [dataclasses.asdict(f) for f in got.findings],
        "unchecked": [dataclasses.asdict(u) for u in got.unchecked], "clean": got.clean,
    }  # fmt: skip


def _write(got: Diagnosis, title: str, out: Path) -> list[str]:
    from justai_sim.pages import reports

    reports.publish(got, out, title)
    found = {"schema_version": 1, "kind": "doctor", "version": __version__, "source": got.source}
    encoded = msgspec.json.encode(found | _plain(got), enc_hook=lambda x: x.item())
    (out / "doctor.json").write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    return [str(out / n) for n in ("index.html", "doctor.txt", "doctor.json")]

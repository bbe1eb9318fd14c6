"""what-if: what other policies would have earned on a log."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from justai_sim import clock
from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.texts import with_policy_settings
from justai_sim.cli.logs import parse_settings
from justai_sim.cli.output import emit_json, say, table, tell
from justai_sim.cli.whatif import Asked, _told, checked_out
from justai_sim.errors import UsageError
from justai_sim.whatif.interpretations import records
from justai_sim.whatif.learning import learning_of
from justai_sim.whatif.policy import WhatIf, check_record, manifest, what_if
from justai_sim.whatif.policy_words import form_of
from justai_sim.whatif.targets import LOGGED, Mixed, policy_of
from justai_sim.whatif.words import ranged

PRINTED = ("policy", "template", "estimator", "value (95 %)", "gain per 1,000 (95 %)", "decisions", "worth",
           "largest weight", "mean weight")  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """The policies that are asked for, as the command line writes them."""

    policies: list[str] = field(default_factory=list)
    shares: str | None = None
    variants: list[str] = field(default_factory=list)
    mixed: Mixed = field(default_factory=Mixed)
    settings: list[str] = field(default_factory=list)
    feedback: str | None = None
    refresh_hours: float | None = None

    def specs(self) -> list[PolicySpec | str]:
        """Names, or settings where there are shares. UsageError for shares that belong to none."""
        names = [policy_of(p) for p in self.policies]
        shares = shares_of(self.shares) if self.shares is not None else {}
        if shares and "fixed" not in names:
            if names:
                raise UsageError(f"--shares belong to --policy fixed; found --policy {', '.join(names)}")
            names = ["fixed"]
        if "fixed" in names and not shares:
            raise UsageError("--policy fixed needs --shares, relative weights of variants, e.g. --shares b=3,c=1")
        given = parse_settings(self.settings, "--policy-set", "top_two=0.5")
        if given and (len(names) != 1 or names[0] in (LOGGED, "fixed")):
            raise UsageError("--policy-set needs one --policy of the registry that it belongs to (fixed has --shares, "
                             f"logged --epsilon and --floor); found {', '.join(names) or 'none'}")  # fmt: skip
        specs = [PolicySpec(name="fixed", shares=shares) if n == "fixed" else n for n in names]
        return [with_policy_settings(names[0], given)] if given else specs


def shares_of(text: str) -> dict[str, float]:
    """'b=3,c=1' as weights. UsageError for anything else.

    >>> shares_of("b=3, c=1")
    {'b': 3.0, 'c': 1.0}
    """
    out: dict[str, float] = {}
    for part in text.split(","):
        name, eq, weight = (x.strip() for x in part.rpartition("="))
        try:
            value = float(weight)
        except ValueError:
            value = -1.0
        if not (eq and name and 0 <= value < float("inf")):
            raise UsageError(f"--shares {part.strip()!r}: expected variant=weight of at least 0, e.g. b=3,c=1")
        if name in out:
            raise UsageError(f"--shares names {name!r} twice")
        out[name] = value
    return out


def run(
    asked: Asked, wanted: Wanted, estimator: str | None, propensities: str, control: str | None, metric: str,
    out: Path | None, json: bool,
) -> None:  # fmt: skip
    checked_out(out)
    policies, options = wanted.specs(), asked.options()
    got = what_if(
        asked.log(), policies=policies, variants=wanted.variants, mixed=wanted.mixed, estimator=estimator,
        learning=learning_of(wanted.feedback, wanted.refresh_hours), propensities=propensities, metric=metric,
        control=control, **options,
    )  # fmt: skip
    say(f"as of {clock.iso(got.as_of)}" + ("" if asked.as_of else " (the last receipt)"))
    for note in got.notes:
        say(f"note: {note}")
    files = _write(got, out, asked.path.name) if out is not None else []
    if json:
        emit_json(
            as_of=clock.iso(got.as_of), metric=got.metric, notes=got.notes, answers=got.answers,
            estimates=records(got.estimates), overlap=records(got.overlap), check=check_record(got), files=files,
        )  # fmt: skip
        return
    for line in got.answers:
        tell(line)
    tell(got.check_said)
    tell()
    table(_rows(got), PRINTED)


def _rows(got: WhatIf) -> list[dict[str, Any]]:
    """The printed table: all templates together first, each policy's templates below."""
    form = form_of(got.metric)
    out = []
    for r in records(got.estimates):
        told = r["status"] == "estimated"
        value = (
            "{} ({} to {})".format(*(form.format(r[k]) for k in ("value", "low", "high"))) if told else "cannot tell"
        )
        gain = ranged(*(1000 * r[k] for k in ("gain", "gain_low", "gain_high"))) if told else "-"
        name = r["estimator"] + ("" if r["tuned"] is None else f" {r['tuned']:.3g}")
        out.append(
            {
                "policy": r["policy"], "template": r["template_id"], "estimator": name, "value (95 %)": value,
                "gain per 1,000 (95 %)": gain, "decisions": r["decisions"],
                "worth": None if r.get("effective") is None else round(r["effective"]),
                "largest weight": r.get("largest_weight"), "mean weight": r.get("mean_weight"),
            }
        )  # fmt: skip
    return out


def _write(got: WhatIf, out: Path, title: str) -> list[str]:
    from justai_sim.pages import reports

    reports.publish(got, out, title, manifest(got))
    return _told(out, ["index.html", "estimates.csv", "overlap.csv", "what_if.png", "what_if.svg", "manifest.json"])

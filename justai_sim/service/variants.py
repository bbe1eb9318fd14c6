"""Variants that come, go and are made anew while the service runs: the program from an instant on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from justai_sim import clock
from justai_sim.bandit.policy import PolicySpec
from justai_sim.errors import UsageError, nearest
from justai_sim.loop.program import Program, Template
from justai_sim.tables import B1


class NotFoundError(UsageError):
    """Something named in the request does not exist."""


ACTIONS = ("add", "archive", "reset")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a variant of a template. `sends`, `outcomes`: what an added or reset one is taken to have had."""

    action: str
    template_id: str
    variant_id: str
    sends: float = 0.0
    outcomes: float = 0.0
    themes: list[str] = []


def changed(program: Program, change: Change, now: int) -> Program:
    """The program with the change from `now` (microseconds) on. UsageError for what cannot be."""
    template = next((t for t in program.templates if t.id == change.template_id), None)
    if change.action not in ACTIONS:
        raise UsageError(f"action {change.action!r} is not known; {nearest(change.action, ACTIONS)}")
    if template is None:
        known = [t.id for t in program.templates]
        raise UsageError(
            f"template_id {change.template_id!r} is not in the program; {nearest(change.template_id, known)}"
        )
    if change.action == "archive" and (change.sends or change.outcomes or change.themes):
        raise UsageError("sends, outcomes and themes are for 'add' and 'reset', not for 'archive'")
    new = {"add": _added, "archive": _archived, "reset": _reset}[change.action](template, change.variant_id, now)
    templates = [new if t.id == template.id else t for t in program.templates]
    changes: dict[str, Any] = {"templates": templates}
    if change.action != "archive":
        themes = {v: x for v, x in program.themes.items() if v != change.variant_id}
        changes["themes"] = themes | ({change.variant_id: change.themes} if change.themes else {})
        changes["policy"] = _started(program.policy, change)
    return msgspec.structs.replace(program, **changes)


def _added(t: Template, variant: str, now: int) -> Template:
    if not variant:
        raise UsageError("variant_id is missing; expected the id of the new variant")
    if variant in t.archived:
        raise UsageError(
            f"variant {variant!r} was archived at {clock.iso(t.archived[variant])}; add it under another id"
        )
    if variant in t.variants:
        raise UsageError(f"variant {variant!r} is in template {t.id!r} already; 'reset' forgets what is known of it")
    return msgspec.structs.replace(t, variants=[*t.variants, variant], added=t.added | {variant: now})


def _archived(t: Template, variant: str, now: int) -> Template:
    return msgspec.structs.replace(t, archived=t.archived | {_there(t, variant): now})


def _reset(t: Template, variant: str, now: int) -> Template:
    return msgspec.structs.replace(t, reset=t.reset | {_there(t, variant): now})


def _there(t: Template, variant: str) -> str:
    """The variant, if it is one of the template's that can be served."""
    served = [v for v in t.variants[1:] if v not in t.archived]
    if variant == t.variants[0]:
        raise UsageError(f"variant {variant!r} is the control of {t.id!r}, which stays as it is")
    if variant in t.archived:
        raise UsageError(f"variant {variant!r} was archived at {clock.iso(t.archived[variant])} already")
    if variant not in served:
        raise UsageError(f"variant_id {variant!r} is no variant of {t.id!r}; {nearest(variant, served)}")
    return variant


def _started(spec: PolicySpec, change: Change) -> PolicySpec:
    """The policy with the variant's warm start, which is by id, for every template that has it."""
    kept = {v: x for v, x in spec.warm_start.items() if v != change.variant_id}
    if change.sends or change.outcomes:
        kept[change.variant_id] = (change.sends, change.outcomes)
    return msgspec.structs.replace(spec, warm_start=kept)


def gone(template: Template, variant: str, now: int) -> bool:
    """Whether a variant was archived by now."""
    return template.archived.get(variant, now + 1) <= now


def served(template: Template, may: frozenset[str], now: int, arms: int) -> B1:
    """(1, arms): the variants of `may` that are not archived by now."""
    out = np.zeros((1, arms), bool)
    out[0, : len(template.variants)] = [v in may and not gone(template, v, now) for v in template.variants]
    return out


def check_variants(template: Template, copy_id: str, eligible: Sequence[str] | None) -> None:
    """UsageError for what a request may not ask for."""
    variants = template.variants
    if copy_id and copy_id not in variants:
        raise NotFoundError(f"copy_id {copy_id!r} is no variant of {template.id!r}; {nearest(copy_id, variants)}")
    if copy_id in template.archived:
        raise UsageError(f"copy_id {copy_id!r} was archived at {clock.iso(template.archived[copy_id])}")
    for v in eligible or ():
        if v not in variants:
            raise NotFoundError(f"eligible names {v!r}, no variant of {template.id!r}; {nearest(v, variants)}")
    if copy_id and eligible is not None and copy_id not in (*eligible, variants[0]):
        raise UsageError(f"copy_id {copy_id!r} is not among eligible ({', '.join(eligible)})")


def states(program: Program) -> list[dict[str, Any]]:
    """A row a variant: its template, state and the instants of its changes."""

    def told(at: int | None) -> str | None:
        return None if at is None else clock.iso(at)

    return [
        {
            "template_id": t.id, "variant_id": v,
            "state": "control" if not i else "archived" if v in t.archived else "active",
            "added": told(t.added.get(v)), "archived": told(t.archived.get(v)), "reset": told(t.reset.get(v)),
            "warm_start": list(program.policy.warm_start[v]) if v in program.policy.warm_start else None,
            "themes": program.themes.get(v, []),
        }
        for t in program.templates for i, v in enumerate(t.variants)
    ]  # fmt: skip

"""Reports: a folder of long tables, and the page that is made of nothing else.

A command writes the tables, and then the page from what was written, as `justai-sim report DIR` does at any later time:
there is one way to a page, so that both have the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from justai_sim.checks.doctor import Diagnosis
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.generic import plain_files
from justai_sim.log import is_log
from justai_sim.pages import store
from justai_sim.pages.bias_page import BiasData, write_bias_report
from justai_sim.pages.inputs import ReplayData, SweepData
from justai_sim.pages.log_pages import (
    write_doctor_report,
    write_interpretations_report,
    write_reconcile_report,
    write_verdict_report,
)
from justai_sim.pages.recommend_page import RecommendData, write_recommend_page
from justai_sim.pages.replay_page import write_replay_report
from justai_sim.pages.surface_page import SurfaceData, write_surface_report
from justai_sim.pages.sweep_page import write_sweep_report
from justai_sim.pages.what_if_page import write_what_if_report
from justai_sim.sweeps.collect import read_tables, write_tables
from justai_sim.verdicts.desk import Desk
from justai_sim.verdicts.verdict import Verdict
from justai_sim.version import __version__
from justai_sim.whatif.interpretations import Interpretations
from justai_sim.whatif.policy import WhatIf
from justai_sim.whatif.reconcile import Reconciliation

MANIFEST = "manifest.json"
SWEEP = "sweep"


@dataclass(frozen=True)
class Replayed:
    """A replayed log with everything that its page asks of it."""

    data: ReplayData
    desk: Desk | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of report: what its tables hold, and the page that is made of it and a title."""

    data: type[Any]
    page: Callable[[Any, str, Path], Path]


KINDS = {
    "replay": Kind(Replayed, lambda d, _, out: write_replay_report(d.data, out, d.desk)),
    "verdict": Kind(Verdict, write_verdict_report),
    "surface": Kind(SurfaceData, write_surface_report),
    "interpretations": Kind(Interpretations, write_interpretations_report),
    "reconcile": Kind(Reconciliation, write_reconcile_report),
    "doctor": Kind(Diagnosis, write_doctor_report),
    "what-if": Kind(WhatIf, write_what_if_report),
    "recommend": Kind(RecommendData, write_recommend_page),
    "bias": Kind(BiasData, write_bias_report),
}
"""By the name that manifest.json has. A sweep keeps tables of its own, from which it goes on, too."""


def publish(data: Any, out: Path, title: str, about: Mapping[str, Any] | None = None) -> Path:
    """Write a report into the folder `out` (made if absent): its tables, manifest.json with what is told `about` it,
    and from them the page; returns the page.

    UsageError where `out` is a log, or holds a report of another kind.
    """
    name = SWEEP if isinstance(data, SweepData) else next(k for k, v in KINDS.items() if isinstance(data, v.data))
    checked_folder(out, name)
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(data, SweepData):
        write_tables(data, out)
        return rebuild(out)
    store.write(data, out)
    found = {"schema_version": 1, "kind": name, "version": __version__, "title": title, **(about or {})}
    encoded = msgspec.json.encode(found, enc_hook=lambda x: x.item())
    (out / MANIFEST).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    return rebuild(out)


def rebuild(out: Path) -> Path:
    """Make the page and its figures from the tables in the folder `out`; returns the page. DataError for others."""
    found = _manifest(out)
    name = found.get("kind")
    if name == SWEEP:
        return write_sweep_report(read_tables(out), out)
    if name not in KINDS or "title" not in found:
        raise DataError(f"{out / MANIFEST}: is not of a report; found kind {name!r}, expected one of "
                        f"{', '.join([SWEEP, *KINDS])}, as this version writes it")  # fmt: skip
    kind = KINDS[name]
    return kind.page(store.read(kind.data, out), str(found["title"]), out)


def checked_folder(out: Path, name: str) -> None:
    """UsageError where a report of this kind must not be written into `out`."""
    if is_log(out) or plain_files(out):
        raise UsageError(f"{out} holds a log; choose another folder for the report")
    there = _manifest(out).get("kind", name) if (out / MANIFEST).exists() else name
    if there != name:
        raise UsageError(f"{out} holds another report ({there}); choose another folder")


def _manifest(out: Path) -> dict[str, Any]:
    path = out / MANIFEST
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as e:
        raise DataError(f"{out}: is not the folder of a report: {e}") from None
    return found if isinstance(found, dict) else {}

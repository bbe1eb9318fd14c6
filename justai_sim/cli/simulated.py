"""demo, run, sweep and report: everything about simulated worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from justai_sim import api
from justai_sim.cli.output import Bar, emit_json, say, table, tell
from justai_sim.errors import StoppedError, UsageError
from justai_sim.esp import exports
from justai_sim.esp.base import adapter
from justai_sim.pages import reports
from justai_sim.scenario import Scenario, read
from justai_sim.sweeps.data import SweepData
from justai_sim.tables import SIMULATED, Log

COLUMNS = ("point", "right_leader", "days_until_right", "shipped_wrong", "shipped_right", "lost_per_10k")


def demo(out: Path, workers: int | None, replications: int | None) -> None:
    scenario = _with(read("welcome"), None, replications)
    say(f"{scenario.question} ({scenario.replications} simulated worlds, four windows, two policies)")
    again = "the same command"
    try:
        _sweep(scenario, out, workers, resume=True, again=again)
    except UsageError:  # what lies there is of another scenario or version: begin anew
        _sweep(scenario, out, workers, again=again)
    tell(f"report: {_rebuilt(out)}")


def scenarios(json: bool) -> None:
    """Each packaged scenario with the question that it asks and what its report answers."""
    found = api.scenarios().to_dict("records")
    if json:
        emit_json(scenarios=found)
        return
    width = max(len(s["name"]) for s in found)
    for s in found:
        tell(f"{s['name']:{width}}  {s['question']} {s['answer']}")
    say("justai-sim sweep NAME simulates one and writes its report; justai-sim check NAME says what it costs")


def run(
    source: str, out: Path | None, seed: int | None, replications: int | None, wire: bool, export_as: str | None,
    workers: int | None, resume: bool, json: bool,
) -> None:  # fmt: skip
    if wire and replications is None:
        replications = 1
    scenario = msgspec.structs.replace(_with(read(source), seed, replications), sweep={})
    folder = out or Path("reports") / f"{scenario.name}-run"
    if export_as is not None:
        scenario = msgspec.structs.replace(scenario, esp=export_as)  # its ids, its grids of time and money
        exports.check_new(folder / "export")  # before all the work
    data = _sweep(scenario, folder, workers, resume=resume, wire=wire)
    page = _rebuilt(folder)
    log = write_world(scenario, folder / "log", wire)
    if export_as is not None:
        for what, n in exports.export(log, export_as, folder / "export").items():
            say(f"left out of the export: {what}: {n:,}")
        _mark(scenario, folder / "export")
        say(f"export: {folder / 'export'} (read it with --esp {export_as})")
    _show(data, json, page)


def sweep(
    source: str, out: Path | None, workers: int | None, scheduler: str | None, resume: bool, race: str | None,
    replications: int | None, json: bool,
) -> None:  # fmt: skip
    scenario = _with(read(source), None, replications)
    if not scenario.sweep:
        raise UsageError(f"{source}: has no [sweep] table; add one, or use `justai-sim run`")
    folder = out or Path("reports") / scenario.name
    data = _sweep(scenario, folder, workers, resume=resume, scheduler=scheduler, race=race)
    for s in data.raced.stopped if data.raced else []:
        say(f"stopped after {s.worlds} worlds: {s.point}, behind {s.against}")
    _show(data, json, _rebuilt(folder))


def report(folder: Path) -> None:
    tell(f"report: {_rebuilt(folder)}")


def _rebuilt(folder: Path) -> Path:
    """The page of a folder whose tables are on disk."""
    try:
        return reports.rebuild(folder)
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; the tables are kept: justai-sim report {folder} makes the page") from None


def recommend(folder: Path, criterion: str, day: float | None, limit: float, out: Path | None, json: bool) -> None:
    from justai_sim.pages.recommend_page import RecommendData
    from justai_sim.sweeps.collect import read_tables

    if out is not None:
        reports.checked_folder(out, "recommend")
    data = read_tables(folder)
    found = api.recommend(api.Sweep(data), criterion, day=day, limit=limit)
    page = None if out is None else reports.publish(RecommendData(found, data.raced), out, data.scenario.name)
    if json:
        emit_json(**found.as_dict(), report=None if page is None else str(page))
    else:
        tell(f"SIMULATED: {found.answer}\n")
        same = ["best_value"] if found.table["worlds"].nunique() == 1 else []
        left = ("criterion", "unit", "point", "stopped", *same)
        table(found.table.to_dict("records"), [c for c in found.table.columns if c not in left])
        tell(f"\n{found.method}")
    if page is not None:
        say(f"report: {page}")


def write_world(scenario: Scenario, folder: Path, wire: bool) -> Log:
    """The first world, and it as a plain log that `replay` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    _mark(scenario, folder)
    log = api.simulate(scenario, wire=wire).log
    adapter("generic").export(log, folder)
    return log


def _mark(scenario: Scenario, folder: Path) -> None:
    """Reports on what lies there will say that it was simulated."""
    (folder / SIMULATED).write_text(f"{scenario.name}, seed {scenario.seed}: a simulated world, not your data\n")


def _with(scenario: Scenario, seed: int | None, replications: int | None) -> Scenario:
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if replications is not None:
        changes["replications"] = replications
    return msgspec.structs.replace(scenario, **changes)


def _sweep(scenario: Scenario, out: Path, workers: int | None, **options: Any) -> SweepData:
    if workers is not None and workers < 1:
        raise UsageError(f"--workers is {workers}; expected at least 1")
    reports.checked_folder(out, "sweep")
    bar = Bar("simulating")
    try:
        return api.run_sweep(scenario, out, workers=workers, progress=bar, notice=say, **options)
    finally:
        bar.close()


def _show(data: SweepData, json: bool, page: Path) -> None:
    summary = api.Sweep(data).summary().reset_index()
    rows = summary.to_dict("records")
    if json:
        emit_json(scenario=data.scenario.name, seed=data.scenario.seed, replications=data.scenario.replications,
                  points=rows, report=str(page))  # fmt: skip
    else:
        table(rows, COLUMNS)
    say(f"report: {page}")

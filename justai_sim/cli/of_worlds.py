"""The commands about simulated worlds, and those that describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from justai_sim.cli.options import Json, Out, Resume, Settings, Workers, app


@app.command
def demo(*, out: Path = Path("reports/welcome"), workers: Workers = None, replications: int | None = None) -> None:
    """Simulate the packaged welcome flow, compare four windows and two policies, write the report.

    Example: justai-sim demo
    """
    from justai_sim.cli import simulated

    simulated.demo(out, workers, replications)


@app.command
def scenarios(*, json: Json = False) -> None:
    """List the packaged scenarios, each with its question and its answer.

    Example: justai-sim scenarios
    """
    from justai_sim.cli import simulated

    simulated.scenarios(json)


@app.command
def run(
    scenario: str, /, *, out: Out = None, seed: int | None = None, replications: int | None = None,
    wire: bool = False, export_as: str | None = None, workers: Workers = None, resume: Resume = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Simulate a scenario as it is given: attribute, let the policy learn, report.

    Without --out the report goes to reports/NAME-run.
    With --wire every event goes through its provider's payload and back; one world, unless
    --replications says otherwise. With --out, `OUT/log` is the first world as a plain log, and with
    --export-as `OUT/export` is it as that provider's bulk export, which `replay OUT/export --esp` reads.

    Example: justai-sim run welcome --replications 20 --out reports/run --export-as braze

    Parameters
    ----------
    scenario
        A TOML file, or the name of a packaged scenario.
    seed
        Replaces the scenario's seed: other worlds.
    replications
        Number of worlds.
    wire
        Through the provider's payloads.
    export_as
        braze, customerio, iterable, segment, sfmc or generic; the world is then of this provider.
    """
    from justai_sim.cli import simulated

    simulated.run(scenario, out, seed, replications, wire, export_as, workers, resume, json)


@app.command
def sweep(
    scenario: str, /, *, out: Out = None, workers: Workers = None, scheduler: str | None = None,
    resume: Resume = False, race: Annotated[bool, Parameter(negative="")] = False, criterion: str = "right_by_day",
    replications: int | None = None, json: Json = False,
) -> None:  # fmt: skip
    """Run every point of the scenario's [sweep] table over the same worlds; long tables and a report.

    Without --out the report goes to reports/NAME.
    A killed sweep goes on with --resume without redoing what is finished.

    Example: justai-sim sweep scenarios/welcome.toml --out reports/welcome --resume

    Parameters
    ----------
    scheduler
        Address of a Dask scheduler, e.g. tcp://10.0.0.5:8786: its workers simulate, the files are written here.
    race
        Points that are clearly worse than another stop early; the report says which, when and why.
    criterion
        What a race is judged by: right_by_day, conversions or revenue.
    """
    from justai_sim.cli import simulated

    simulated.sweep(scenario, out, workers, scheduler, resume, criterion if race else None, replications, json)


@app.command
def bias(
    scenario: str, /, *, seed: int | None = None, rep: int = 0, settings: Settings = None, identity: str = "sends",
    variant: str | None = None, template: str | None = None, out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """What separates a dashboard from what the sends caused, in one simulated world: term by term, adding up exactly.

    Example: justai-sim bias welcome --set offset_days=0 --out reports/bias

    Parameters
    ----------
    scenario
        A TOML file, or the name of a packaged scenario.
    seed
        Replaces the scenario's seed: other worlds.
    rep
        Number of the world, from 0 on.
    identity
        What is counted: sends (converted), events (every credited conversion) or revenue.
    variant
        Only this one; held_out: the ghost sends of held-out users.
    template
        Only this one; default: all, added up.
    out
        Folder for bias.csv (all identities) and the figure.
    """
    from justai_sim.cli import bias as of_world

    of_world.bias(scenario, settings or [], seed, rep, identity, variant, template, out, json)


@app.command
def cases(
    *, out: Path, rule: str = "default", settings: Annotated[list[str] | None, Parameter(name="--set")] = None,
    goal: list[str] | None = None, count: int = 200, seed: int = 0, json: Json = False,
) -> None:  # fmt: skip
    """Write small adversarial logs with their answers, to test an attribution in another language.

    Example: justai-sim cases --rule default --out cases/

    Parameters
    ----------
    out
        Folder for cases.jsonl, rule.json and a README that describes them.
    rule
        A preset: default, naive, braze_canvas, ...
    settings
        An option of the rule, key=value, e.g. --set credit=linear; may be repeated.
    goal
        Name of a conversion event that counts; may be repeated. Default: purchase.
    count
        Number of cases; from about 110 on all edges are there, the rest are drawn.
    seed
        Of the drawn cases.
    """
    from justai_sim.cli import cases as adversarial

    adversarial.cases(rule, out, settings or [], goal or [], count, seed, json)


@app.command
def report(folder: Path, /) -> None:
    """Write the page and figures of any report again, from its tables: the same bytes.

    Example: justai-sim report reports/welcome

    Parameters
    ----------
    folder
        What a command wrote with --out.
    """
    from justai_sim.cli import simulated

    simulated.report(folder)


@app.command
def recommend(
    folder: Path, /, *, criterion: str = "right_by_day", day: float | None = None, limit: float = 0.05,
    out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """What to choose among the decisions of a finished sweep, and under which assumptions that changes.

    Decisions are the sweep's axes of the program; its axes of the world and the variants are assumptions.

    Example: justai-sim recommend reports/welcome --criterion conversions

    Parameters
    ----------
    folder
        The folder of a finished sweep.
    criterion
        right_by_day (the best variant leads), conversions or revenue (true ones), decision_time (until the product's
        rule ships a variant).
    day
        Of right_by_day; default: the last.
    limit
        Of decision_time: the largest share of false ships.
    """
    from justai_sim.cli import simulated

    simulated.recommend(folder, criterion, day, limit, out, json)


@app.command
def check(scenario: str, /, *, json: Json = False) -> None:
    """Validate a scenario; print its size, what its traffic can see, and what it costs to run.

    Example: justai-sim check welcome
    """
    from justai_sim.cli import describe

    describe.check(scenario, json)


@app.command
def schema(*, json: Json = False) -> None:
    """The scenario's fields with their defaults, the columns of the tables, the policies, the rule's options.

    Example: justai-sim schema
    """
    from justai_sim.cli import describe

    describe.schema(json)

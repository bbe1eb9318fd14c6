"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from justai_sim.version import __version__

app = App(
    name="justai-sim",
    help="What attribution windows and bandit policies do to message experiments: simulated, and on your own log.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

Out = Annotated[Path | None, Parameter(help="Folder for the report and its tables.")]
Json = Annotated[bool, Parameter(help="Print one JSON object with a schema_version instead of a table.", negative="")]
Workers = Annotated[int | None, Parameter(help="Processes; default: one a core. The numbers do not depend on it.")]
Resume = Annotated[bool, Parameter(help="Keep the finished parts of the same scenario.", negative="")]
Timezone = Annotated[
    str | None, Parameter(help="Zone of times written without an offset, e.g. Europe/Berlin or UTC-6.")
]
Rejects = Annotated[Path | None, Parameter(help="Folder for the rows that could not be read, with place and reason.")]
Preset = Annotated[str | None, Parameter(help="Start from a named rule, e.g. naive, braze_canvas; --set changes it.")]
Settings = Annotated[
    list[str] | None, Parameter(name="--set", help='An option of the rule, key=value: --set "bounds=[]"; repeatable.')
]
EspOptions = Annotated[
    list[str] | None,
    Parameter(
        name="--esp-option",
        negative="",
        help="A switch of the provider, key=value: --esp-option variant_from=split,header; repeatable. "
        "justai-sim schema lists them.",
    ),
]
Raw = Annotated[bool, Parameter(help="Do not mask e-mail addresses in the rejects.", negative="")]


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
def load(
    src: Path, /, *, esp: str, out: Path, timezone: Timezone = None, rejects: Rejects = None, raw: Raw = False,
    keep_emails: Annotated[bool, Parameter(negative="")] = False, events: str | None = None,
    hash_users: Annotated[bool, Parameter(negative="")] = False, hash_key: Path | None = None,
    esp_option: EspOptions = None, json: Json = False,
) -> None:  # fmt: skip
    """Load an export once into a log: Parquet, partitioned by user, without personal columns.

    A load that was interrupted goes on where it was when the same command is given again.

    Example: justai-sim load export/ --esp braze --out log/

    Parameters
    ----------
    src
        File or folder of the export.
    esp
        braze, customerio, iterable, segment, segment-deliveries (a source that tells of deliveries only: each is a
        send), sfmc, sfmc-dmy (dates with the day first), or generic (a folder with sends.* and events.*).
    out
        Folder of the log.
    keep_emails
        Keep ids that are e-mail addresses as they are; by default they become hashes.
    events
        The kinds of events to load, e.g. open,click,conversion; default: all. Sends are always loaded.
    hash_users
        Replace every id by a hash under a secret key. The key is in JUSTAI_SIM_HASH_KEY, else in a file that is made
        at the first time (~/.config/justai-sim/hash.key). The same key gives the same hashes.
    hash_key
        Another file of the key; it is made if it is not there.
    """
    from justai_sim.cli import logs

    logs.load(
        src, esp, out, timezone=timezone, rejects=rejects, raw=raw, keep_emails=keep_emails, events=events,
        hash_users=hash_users, hash_key=hash_key, esp_options=esp_option or [], json=json,
    )  # fmt: skip


@app.command
def replay(
    log: Path, /, *, esp: str | None = None, esp_option: EspOptions = None,
    goal: list[str] | None = None, control: str | None = None,
    template: str | None = None, since: str | None = None, until: str | None = None,
    lookback_days: float | None = None, offset_days: float | None = None, as_of: str | None = None,
    preset: Preset = None, settings: Annotated[list[str] | None, Parameter(name="--set")] = None,
    policy: str = "weighted_thompson",
    policy_settings: Annotated[list[str] | None, Parameter(name="--policy-set")] = None,
    training: str | None = None, metric: str = "conversion_rate", workers: int | None = None,
    scheduler: str | None = None,
    timezone: Timezone = None, out: Out = None, rejects: Rejects = None, raw: Raw = False, json: Json = False,
) -> None:  # fmt: skip
    """A log through attribution, metrics and policy: what another window would have said.

    Example: justai-sim replay log/ --goal purchase --lookback-days 7 --offset-days 0 --out reports/mine

    Parameters
    ----------
    log
        A loaded log, a plain log folder, or with --esp an export.
    esp
        Read an export of this provider directly.
    goal
        Name of a conversion event that counts; may be repeated. Needed when the log has several.
    control
        The control variant; default: the one named control.
    template
        Show only this template. All sends compete for credit whatever is shown.
    since
        Show only sends from this time on.
    until
        Show only sends before this time.
    lookback_days
        Counts until this day.
    offset_days
        Ignored first days.
    as_of
        What was known at this time; default: the last receipt.
    settings
        An option of the rule, key=value, e.g. --set credit=linear --set "bounds=[]"; may be repeated.
    policy
        Whose shares are shown day by day; `justai-sim schema` lists the policies and their settings.
    policy_settings
        A setting of the policy, key=value, e.g. --policy-set epsilon=0.1; may be repeated.
    training
        The ages of the sends that the policy learns from, e.g. lookback_days=14,offset_days=3. Not the window above:
        it never touches credit.
    metric
        The key metric that the policy learns from.
    workers
        Processes that attribute; default: one. For logs of millions of rows; the numbers are the same.
    scheduler
        Address of a Dask scheduler whose workers attribute instead, e.g. tcp://10.0.0.5:8786.
    """
    from justai_sim.cli import logs

    logs.replay(
        log, esp=esp, goals=goal or [], control=control, template=template, since=since, until=until,
        lookback_days=lookback_days, offset_days=offset_days, as_of=as_of, preset=preset, settings=settings or [],
        policy=policy, policy_settings=policy_settings or [], training=training, metric=metric, workers=workers,
        scheduler=scheduler, timezone=timezone, out=out, rejects=rejects, raw=raw,
        json=json, esp_options=esp_option or [],
    )  # fmt: skip


@app.command
def verdict(
    log: Path, /, *, esp: str | None = None, esp_option: EspOptions = None,
    goal: list[str] | None = None, control: str | None = None,
    template: str | None = None, since: str | None = None, until: str | None = None,
    lookback_days: float | None = None, offset_days: float | None = None, as_of: str | None = None,
    preset: Preset = None, settings: Settings = None, metric: str = "conversion_rate", split: str | None = None,
    timezone: Timezone = None, brief: Path | None = None, out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """Ship a variant, wait some days, or stop: the first line is the answer, then why and whether to trust it.

    Intervals hold for all variants and for every day on which one looks: of logs of equal variants at most 5 % are
    ever told to ship one. docs/verdict.md says how, and what each of the six checks looks at.

    Example: justai-sim verdict log/ --goal purchase --brief brief.png

    Parameters
    ----------
    log
        A loaded log, a plain log folder, or with --esp an export.
    esp
        Read an export of this provider directly.
    goal
        Name of a conversion event that counts; may be repeated. Needed when the log has several.
    control
        The control variant; default: the one named control.
    template
        Show only this template. All sends compete for credit whatever is shown.
    since
        Show only sends from this time on.
    until
        Show only sends before this time.
    lookback_days
        Counts until this day.
    offset_days
        Ignored first days.
    as_of
        What was known at this time; default: the last receipt.
    metric
        What decides: conversion_rate, revenue_per_send, open_rate, click_rate or unsubscribe_rate.
    split
        The declared share of each variant, e.g. control=0.1,story=0.9; default: the logged propensities.
    brief
        Write the slide, a PNG of 1600 x 900, to this file.
    """
    from justai_sim.cli import verdict as verdicts
    from justai_sim.cli.whatif import Asked

    window = {"lookback_days": lookback_days, "offset_days": offset_days}
    chosen = [*(settings or []), *(f"{k}={v}" for k, v in window.items() if v is not None)]
    asked = Asked(log, esp, goal or [], template, since, until, as_of, preset, chosen, timezone, esp_option or [])
    verdicts.verdict(asked, control, metric, split, brief, out, json)


@app.command
def interpretations(
    log: Path, /, *, esp: str | None = None, esp_option: EspOptions = None,
    goal: list[str] | None = None, control: str | None = None,
    template: str | None = None, since: str | None = None, until: str | None = None, as_of: str | None = None,
    preset: Preset = None, settings: Settings = None, metric: str = "conversion_rate", timezone: Timezone = None,
    out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """What every other reading of the rule would have said, one option at a time, by the size of its effect.

    The difference per 1,000 sends is of the same pair in every line: the leader against the control under the
    rule in use. Its change is measured on the same users under both readings.

    Example: justai-sim interpretations log/ --goal purchase --out reports/readings

    Parameters
    ----------
    log
        A loaded log, a plain log folder, or with --esp an export.
    esp
        Read an export of this provider directly.
    goal
        Name of a conversion event that counts; may be repeated. Needed when the log has several.
    control
        The control variant; default: the one named control.
    template
        Show only this template. All sends compete for credit whatever is shown.
    since
        Show only sends from this time on.
    until
        Show only sends before this time.
    as_of
        What was known at this time; default: the last receipt.
    metric
        What is compared: conversion_rate, revenue_per_send, open_rate, click_rate or unsubscribe_rate.
    """
    from justai_sim.cli import whatif

    asked = whatif.Asked(
        log, esp, goal or [], template, since, until, as_of, preset, settings or [], timezone,
        esp_option or [],
    )  # fmt: skip
    whatif.interpretations(asked, control, metric, out, json)


@app.command
def doctor(
    log: Path, /, *, esp: str | None = None, esp_option: EspOptions = None, goal: list[str] | None = None,
    control: str | None = None,
    split: str | None = None, as_of: str | None = None, preset: Preset = None, settings: Settings = None,
    timezone: Timezone = None, out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """What makes a log's numbers empty, wrong or misleading: each with the number behind it and the next step.

    docs/doctor.md says what each finding means and when it is raised; a clean log raises a false one about once in a
    thousand. What cannot be checked is said.

    Example: justai-sim doctor export/ --esp braze --goal purchase

    Parameters
    ----------
    log
        A loaded log, a plain log folder, or with --esp an export.
    esp
        Read an export of this provider directly.
    goal
        Name of a conversion event that counts; may be repeated. Default: the one that most looks like a purchase.
    control
        The control variant; default: the one named control.
    split
        The declared share of each variant, e.g. control=0.1,story=0.9; default: the logged propensities.
    as_of
        What was known at this time; default: the last receipt.
    """
    from justai_sim.cli import doctor as doctors
    from justai_sim.cli.whatif import Asked

    asked = Asked(log, esp, goal or [], None, None, None, as_of, preset, settings or [], timezone, esp_option or [])
    doctors.doctor(asked, control, split, out, json)


@app.command
def reconcile(
    log: Path, /, *, against: Path, esp: str | None = None, esp_option: EspOptions = None,
    goal: list[str] | None = None,
    template: str | None = None, since: str | None = None, until: str | None = None, as_of: str | None = None,
    mature: Annotated[bool, Parameter(negative="")] = False, preset: Preset = None, settings: Settings = None,
    timezone: Timezone = None, out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """Your dashboard's numbers beside ours: the difference by reason, and the system that counts as it does.

    Example: justai-sim reconcile log/ --against dashboard.csv --goal purchase --since 2026-01-01T00:00:00Z

    Parameters
    ----------
    log
        A loaded log, a plain log folder, or with --esp an export.
    against
        A CSV with a column variant_id (and template_id where there are several), and any of sends, conversions,
        conversion_rate, revenue, opens, clicks, unsubscribes and their rates.
    esp
        Read an export of this provider directly.
    goal
        Name of a conversion event that counts; may be repeated. Needed when the log has several.
    template
        The dashboard shows only this template.
    since
        The dashboard shows only sends from this time on.
    until
        The dashboard shows only sends before this time.
    as_of
        When the dashboard was looked at; default: the last receipt.
    mature
        Compare with the sends whose window has closed.
    """
    from justai_sim.cli import whatif

    asked = whatif.Asked(
        log, esp, goal or [], template, since, until, as_of, preset, settings or [], timezone,
        esp_option or [],
    )  # fmt: skip
    whatif.reconcile(asked, against, mature, out, json)


@app.command
def surface(
    log: Path, /, *, offsets: str = "0:7", lookbacks: str = "1:30",
    esp: str | None = None, esp_option: EspOptions = None,
    goal: list[str] | None = None, control: str | None = None, template: str | None = None, since: str | None = None,
    until: str | None = None, as_of: str | None = None, preset: Preset = None, settings: Settings = None,
    metric: str = "conversions", timezone: Timezone = None, out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """Every window at once: who leads in which, and whether any of it is more than chance.

    A window has a leader only beyond the bound of the largest |z| of the whole map (95 %), else it is too close; with
    too few conversions it cannot tell. Windows are compared by the difference per 1,000 mature sends.

    Example: justai-sim surface log/ --offsets 0:7 --lookbacks 1:30 --goal purchase --out reports/windows

    Parameters
    ----------
    log
        A loaded log, a plain log folder, or with --esp an export.
    offsets
        Ignored first days: a range with both ends (0:7), with a step (0:6:0.5), or a comma list.
    lookbacks
        Counts until these days, in the same form.
    esp
        Read an export of this provider directly.
    goal
        Name of a conversion event that counts; may be repeated. Needed when the log has several.
    control
        The control variant, dark in the figure; default: the one named control.
    template
        Show only this template. All sends compete for credit whatever is shown.
    since
        Show only sends from this time on.
    until
        Show only sends before this time.
    as_of
        What was known at this time; default: the last receipt.
    metric
        What is compared per send: conversions, converted (sends) or revenue.
    """
    from justai_sim.cli import surface as surfaces
    from justai_sim.cli.whatif import Asked

    asked = Asked(log, esp, goal or [], template, since, until, as_of, preset, settings or [], timezone,
                  esp_option or [])  # fmt: skip
    surfaces.surface(asked, offsets, lookbacks, metric, control, out, json)


@app.command(name="what-if")
def what_if(
    log: Path, /, *, policy: list[str] | None = None,
    policy_settings: Annotated[list[str] | None, Parameter(name="--policy-set")] = None,
    feedback: str | None = None, refresh_hours: float | None = None,
    shares: str | None = None, variant: list[str] | None = None,
    estimator: str | None = None, epsilon: float = 0.0, floor: float = 0.0, control_share: float | None = None,
    logged_epsilon: float = 0.0, logged_floor: float = 0.0, propensities: str = "auto", esp: str | None = None,
    esp_option: EspOptions = None,
    goal: list[str] | None = None, control: str | None = None, template: str | None = None, since: str | None = None,
    until: str | None = None, as_of: str | None = None, preset: Preset = None, settings: Settings = None,
    metric: str = "conversion_rate", timezone: Timezone = None, out: Out = None, json: Json = False,
) -> None:  # fmt: skip
    """What another policy would have earned on this log: an interval, or the reasons why the log cannot tell.

    Without --policy and --variant: the log's own policy, equal shares, and each single variant. A policy that learns
    is valued only on a log whose variants were drawn evenly. Forced and external choices never enter.

    Example: justai-sim what-if log/ --policy fixed --shares b=3,c=1 --goal purchase --out reports/whatif

    Parameters
    ----------
    log
        A loaded log, a plain log folder, or with --esp an export.
    policy
        uniform, fixed (with --shares), logged (the log's own with other settings), or one that learns; repeatable.
    policy_settings
        A setting of the policy that learns, key=value, e.g. --policy-set top_two=0.5; may be repeated.
    feedback
        What a policy that learns counts: all (default), mature or weighted.
    refresh_hours
        Hours between the refreshes of a policy that learns; default: 24.
    shares
        Relative weights of the treatment variants for --policy fixed, e.g. b=3,c=1.
    variant
        Every send this one variant; repeatable.
    estimator
        dr, ips, snips, dm, sndr, switch-dr, dros, adaptive, rejection, or all; not for one that learns. Default: chosen
        by the overlap.
    epsilon
        Part of the treatment traffic that is spread evenly; for --policy logged on top of what was logged.
    floor
        The least part of the treatment traffic of each variant.
    control_share
        Part of the traffic of the control; default: the log's own (none for --variant).
    logged_epsilon
        The epsilon that the log's own policy had; it is taken out before --epsilon goes in.
    logged_floor
        The floor that the log's own policy had; it is taken out before --floor goes in.
    propensities
        auto (the logged ones where there are any), logged, or estimated (from shares of each template and period).
    esp
        Read an export of this provider directly.
    goal
        Name of a conversion event that counts; may be repeated. Needed when the log has several.
    control
        The control variant; default: the one named control.
    template
        Value only decisions of this template. All sends compete for credit whatever is shown.
    since
        Only decisions whose send left from this time on.
    until
        Only decisions whose send left before this time.
    as_of
        What was known at this time; default: the last receipt.
    metric
        What is valued: conversion_rate, revenue_per_send, open_rate, click_rate or unsubscribe_rate.
    """
    from justai_sim.cli import policy as policies
    from justai_sim.cli.whatif import Asked
    from justai_sim.whatif.targets import Mixed

    asked = Asked(log, esp, goal or [], template, since, until, as_of, preset, settings or [], timezone,
                  esp_option or [])  # fmt: skip
    mixed = Mixed(control_share, epsilon, floor, logged_epsilon, logged_floor)
    wanted = policies.Wanted(policy or [], shares, variant or [], mixed, policy_settings or [], feedback,
                             refresh_hours)  # fmt: skip
    policies.run(asked, wanted, estimator, propensities, control, metric, out, json)


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
def serve(*, host: str = "127.0.0.1", port: int = 8000, data: Path = Path("data")) -> None:
    """A replay service on an embedded store: webhooks in, choices out, results under /.

    The templates that it serves are in DATA/program.toml (the welcome flow's, until you change it); webhooks go
    to /api/webhook/{braze|cio|itbl|segment|sfmc|events}/ORG, choices come from /api/generate/ORG.

    Example: justai-sim serve --port 8000 --data data/
    """
    from justai_sim.errors import UsageError

    try:
        from justai_sim.service.run import serve as start
    except ModuleNotFoundError as e:
        raise UsageError(f"serve needs {e.name}; install it with: pip install 'justai-sim[serve]'") from None
    start(host, port, data)


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

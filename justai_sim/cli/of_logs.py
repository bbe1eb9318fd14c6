"""The commands that take in a log and say what it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from justai_sim.cli.options import EspOptions, Json, Out, Preset, Raw, Rejects, Settings, Timezone, app


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
    ever told to ship one. docs/verdict.md says how, and what each of the seven checks looks at.

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

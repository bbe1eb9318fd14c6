"""The commands that ask a log what would have been: other windows, readings, policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from justai_sim.cli.options import EspOptions, Json, Out, Preset, Settings, Timezone, app


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

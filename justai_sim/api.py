"""The public functions: DataFrames in and out, one call a question."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pandas as pd

from justai_sim import clock, frames, replays
from justai_sim import log as logs
from justai_sim import scenario as scenario_files
from justai_sim.attribution import (
    PRESETS,
    Attribution,
    Bound,
    Preset,
    Rule,
    TrainingWindow,
    bind,
    preset,
    with_settings,
)
from justai_sim.attribution import attribute as attribute_tables
from justai_sim.bandit.policy import PolicySpec
from justai_sim.biases.identity import identity
from justai_sim.biases.table import Bias, bias_table
from justai_sim.checks import doctor as checks
from justai_sim.checks.doctor import Diagnosis
from justai_sim.errors import DataError, NotInLogWarning, StoppedError, UsageError, checked_type
from justai_sim.esp import exports
from justai_sim.estimate.metrics import metrics_table
from justai_sim.estimate.windows import LOOKBACKS, OFFSETS
from justai_sim.loop.program import Feedback, KeyMetric
from justai_sim.loop.replay import last_received
from justai_sim.meant import not_there, shared_ids
from justai_sim.mix import comparable
from justai_sim.pages.figures import (
    plot_age,
    plot_bias,
    plot_brief,
    plot_delay,
    plot_interpretations,
    plot_race,
    plot_receipt,
    plot_recommend,
    plot_shares,
    plot_what_if,
    plot_window_map,
)
from justai_sim.replays import Replay
from justai_sim.scenario import Scenario
from justai_sim.surfaces import WindowSurface
from justai_sim.surfaces import window_surface as surface_of_log
from justai_sim.sweeps import recommend as recommendations
from justai_sim.sweeps.criteria import Question
from justai_sim.sweeps.data import SweepData
from justai_sim.sweeps.recommend import Recommendation
from justai_sim.tables import HELD_OUT, PARTS, REASONS, SIMULATED, Log, badge
from justai_sim.truth import Behind
from justai_sim.verdicts import verdict as verdicts
from justai_sim.verdicts.verdict import Verdict
from justai_sim.whatif import estimates as estimates_of
from justai_sim.whatif import interpretations as readings_of
from justai_sim.whatif import policy as policies
from justai_sim.whatif import reconcile as dashboards
from justai_sim.whatif.estimates import Estimates
from justai_sim.whatif.interpretations import Interpretations
from justai_sim.whatif.learning import learning_of
from justai_sim.whatif.policy import WhatIf
from justai_sim.whatif.reconcile import Reconciliation
from justai_sim.whatif.targets import Mixed

Instant: TypeAlias = "str | int | date | pd.Timestamp"
"""A time: ISO-8601 with an offset, microseconds since the epoch, or an aware datetime or Timestamp."""

__all__ = [
    "PRESETS",
    "Attributed",
    "Bias",
    "Diagnosis",
    "Estimates",
    "Interpretations",
    "Preset",
    "Recommendation",
    "Reconciliation",
    "Replay",
    "Rule",
    "Run",
    "Sweep",
    "TrainingWindow",
    "Verdict",
    "WhatIf",
    "attribute",
    "bias",
    "doctor",
    "estimates",
    "export",
    "interpretations",
    "load",
    "metrics",
    "outcomes",
    "plot_age",
    "plot_bias",
    "plot_brief",
    "plot_delay",
    "plot_interpretations",
    "plot_race",
    "plot_receipt",
    "plot_recommend",
    "plot_shares",
    "plot_what_if",
    "plot_window_map",
    "preset",
    "read_log",
    "read_scenario",
    "recommend",
    "reconcile",
    "replay",
    "report",
    "scenarios",
    "simulate",
    "sweep",
    "verdict",
    "what_if",
    "window_surface",
]


def instant(t: Instant | None) -> int | None:
    """Microseconds since the epoch, or None. UsageError for what is no time, or lies outside 1970..2100."""
    if t is None:
        return None
    if isinstance(t, (bool, float)):
        raise UsageError(f"time {t!r} is a {type(t).__name__}; expected microseconds, an aware datetime or a text")
    if isinstance(t, (int, np.integer)):
        if 0 < int(t) < 366 * clock.DAY:
            raise UsageError(f"time {int(t)} lies in 1970; expected microseconds since the epoch (were seconds meant?)")
        try:
            return clock.checked(int(t))
        except DataError as e:
            raise UsageError(str(e)) from None
    if isinstance(t, date):
        stamp = pd.Timestamp(t)
        if stamp.tzinfo is None:
            raise UsageError(f"time {t} has no time zone; use e.g. pd.Timestamp({str(t)!r}, tz='UTC')")
        return int((stamp - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(microseconds=1))
    return clock.parse(t)


def load(src: str | Path, esp: str, out: str | Path, **options: Any) -> logs.Summary:
    """Load an export of `esp` once into a log folder; see `justai_sim.log.load` for the options.

    `esp_options={"variant_from": ["split"]}`: switches of the provider; `hash_key=...`: every id as a keyed hash.
    """
    return logs.load(src, esp, out, **options)


def read_log(path: str | Path, esp: str | None = None, timezone: str | None = None, **options: Any) -> Log:
    """A loaded log, a plain log folder, or with `esp` an export directly, with switches in `esp_options`."""
    checked_type(path, (str, Path), "log", "a Log, or the path of one")
    return logs.read_log(path, esp, timezone, **options)


def export(
    log: Log | str | Path, esp: str, folder: str | Path, *, esp_options: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Write a log as the bulk export of `esp` into a new folder, whole or not at all; `read_log` reads it back.

    What a provider's files have no place for is on its page (docs/esp) and in its adapter's `export_cannot_carry`.
    Returned is what was left out, by reason. UsageError if there is something in the folder.

    `js.export(js.simulate("welcome").log, "braze", "currents")`
    """
    log = log if isinstance(log, Log) else read_log(log)
    left_out = exports.export(log, esp, Path(folder), esp_options)
    if log.simulated:
        (Path(folder) / SIMULATED).write_text("a simulated world, not your data\n")
    return left_out


@dataclass(frozen=True)
class Attributed:
    """Result of `attribute`, as frames."""

    log: Log
    bound: Bound
    result: Attribution

    @cached_property
    def credits(self) -> pd.DataFrame:
        """`event_id, send_id, weight`."""
        c = self.result.credits
        c = c.take(np.lexsort((c.send_row, c.event_row)))
        return pd.DataFrame(
            {
                "event_id": np.array(self.log.text("event", self.log.events.event[c.event_row]), dtype=object),
                "send_id": np.array(self.log.text("send", self.log.sends.send[c.send_row]), dtype=object),
                "weight": c.weight / PARTS,
            }
        )

    @cached_property
    def reasons(self) -> pd.DataFrame:
        """`event_id, reason`, one row an event row."""
        return pd.DataFrame(
            {
                "event_id": self.log.text("event", self.log.events.event),
                "reason": [REASONS[r] for r in self.result.reason.tolist()],
            }
        )

    def __repr__(self) -> str:
        return f"Attributed({self.log!r}, {len(self.result.credits):,} credits)"

    def _repr_html_(self) -> str:
        return badge(self.log.simulated) + self.reasons["reason"].value_counts().rename("events").to_frame().to_html()


def attribute(
    rule: Rule,
    sends: Any,
    events: Any,
    *,
    goals: Mapping[str, Collection[str]] | Collection[str] | None = None,
    as_of: Instant | None = None,
    timezone: str | None = None,
) -> Attributed:
    """Credit the events of two frames with the plain log's columns (see the README) to their sends.

    `goals`: names of the conversion events, for all templates or per template; None: every name counts. A
    UserWarning says which rows were refused and whether send ids stand for several messages, a NotInLogWarning names
    goals that the log does not have.
    """
    log = frames.from_frames(sends, events, timezone=timezone)
    for note in shared_ids(log):
        warnings.warn(note, stacklevel=2)
    bound = _bound(rule, log, goals)
    return Attributed(log, bound, attribute_tables(bound, log.sends, log.events, instant(as_of)))


def window_surface(
    rule: Rule,
    sends: Any,
    events: Any,
    offsets: Sequence[float] = OFFSETS,
    lookbacks: Sequence[float] = LOOKBACKS,
    *,
    goals: Mapping[str, Collection[str]] | Collection[str] | None = None,
    as_of: Instant | None = None,
    timezone: str | None = None,
    metric: str = "conversions",
    template: str | None = None,
) -> WindowSurface:
    """What every window [offset, lookback) of a grid of days would have credited, and whether it names a leader.

    `.frame`: a row a window and variant. `.cells`: a row a window, with a leader only where its difference is beyond
    the bound of the largest |z| of the whole map (95 %). `.chosen()`: the clearest window of half of the users judged
    on the other half. `metric`, per mature send: `conversions` (as the rule's `repeat` counts
    them), `conversion_count` (every credited one), `converted` (sends) or `revenue`. Frames, `goals` and
    `timezone` as in `attribute`; `as_of` is by default the last receipt, `template` says which one is shown (all
    sends compete). Where shares of variants changed between days or templates, differences are of the same mix.
    """
    log = frames.from_frames(sends, events, timezone=timezone)
    now = instant(as_of)
    keep = replays.Selection(template=template).keeps(log)
    weight, _ = comparable(log, np.where(keep & (log.sends.status != HELD_OUT), log.sends.variant, -1))
    return surface_of_log(
        _bound(rule, log, goals), log, last_received(log) if now is None else now, offsets, lookbacks, keep=keep,
        metric=metric, weight=weight,
    )  # fmt: skip


def _bound(rule: Rule, log: Log, goals: Mapping[str, Collection[str]] | Collection[str] | None) -> Bound:
    goals = [goals] if isinstance(goals, str) else goals
    for slip in not_there(log, goals):  # no error: a day's log need not hold every goal
        warnings.warn(slip, NotInLogWarning, stacklevel=3)
    return bind(
        rule, templates=log.names("template"), names=log.names("name"), currencies=log.names("currency"), goals=goals
    )


def outcomes(attributed: Attributed) -> pd.DataFrame:
    """One row a send: what it earned and when that is settled."""
    log, got = attributed.log, attributed.result
    o = got.outcomes
    row = o.send_row
    return pd.DataFrame(
        {
            "send_id": log.text("send", log.sends.send[row]),
            "user_id": log.text("user", log.sends.user[row]),
            "template_id": log.text("template", log.sends.template[row]),
            "variant_id": log.text("variant", log.sends.variant[row]),
            "sent_at": pd.to_datetime(log.sends.sent_at[row], unit="us", utc=True),
            "reached": o.reached,
            "opened": o.opens,
            "clicked": o.clicks,
            "unsubscribed": o.unsubscribes,
            "conversions": o.weight / PARTS,
            "converted": o.numerator / PARTS,
            "revenue": o.revenue / 1e6,
            "mature": got.mature(),
            "final": got.final(),
        }
    )


def metrics(attributed: Attributed) -> pd.DataFrame:
    """The results table: a row a template and variant, and `ALL (distinct)`."""
    return pd.DataFrame(metrics_table(attributed.log, attributed.bound, attributed.result))


def replay(
    log: Log | str | Path,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    as_of: Instant | None = None,
    policy: PolicySpec | str | None = None,
    metric: KeyMetric = "conversion_rate",
    training: TrainingWindow | None = None,
    feedback: Feedback = "all",
    partitions: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    **settings: Any,
) -> Replay:
    """A log through attribution, metrics and policy; further settings are options of the rule.

    `workers`: attribute on so many processes (or on the Dask cluster at `scheduler`), users cut into `partitions`. The
    numbers are the same; it pays for logs of millions of rows.

    `js.replay(log, goals=["purchase"], lookback_days=7, offset_days=0).metrics`
    """
    if not isinstance(log, Log):
        log = read_log(log)
    chosen = with_settings(rule or Rule(), settings)
    spec = PolicySpec(name=policy) if isinstance(policy, str) else policy
    return replays.replay(
        log, rule=chosen, goals=goals, control=control, template=template, since=instant(since), until=instant(until),
        as_of=instant(as_of), policy=spec, key_metric=metric, training=training, feedback=feedback,
        currency_given="currency" in settings or rule is not None, partitions=partitions, workers=workers,
        scheduler=scheduler,
    )  # fmt: skip


def verdict(
    log: Log | str | Path | Replay,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    as_of: Instant | None = None,
    metric: KeyMetric = "conversion_rate",
    split: Mapping[str, float] | None = None,
    **settings: Any,
) -> Verdict:
    """Ship, wait, or stop: what a log says in one sentence, and seven checks whether its numbers can be trusted.

    `print(js.verdict(log, goals=["purchase"]))`; options as in `replay`, whose result is taken too (then only `split`
    counts). Intervals hold for all variants and for every day on which one looks: of logs of equal variants at most
    5 % are ever told to ship one. `split`: the declared share of each variant, for logs without propensities.
    """
    if isinstance(log, Replay):
        given = {"rule": rule, "goals": goals, "control": control, "template": template, "since": since,
                 "until": until, "as_of": as_of, **settings}  # fmt: skip
        if extra := [k for k, v in given.items() if v not in (None, ())]:
            raise UsageError(f"a replay has its options already: give {extra[0]!r} to js.replay")
        return verdicts.verdict(log, split)
    result = replays.replay(
        log if isinstance(log, Log) else read_log(log), rule=with_settings(rule or Rule(), settings), goals=goals,
        control=control, template=template, since=instant(since), until=instant(until), as_of=instant(as_of),
        key_metric=metric, currency_given="currency" in settings or rule is not None, shares=False,
    )  # fmt: skip
    return verdicts.verdict(result, split)


def interpretations(
    log: Log | str | Path,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    as_of: Instant | None = None,
    metric: str = "conversion_rate",
    presets: bool = True,
    **settings: Any,
) -> Interpretations:
    """Every named reading of the rule over one log, one option at a time; further settings are options of the rule.

    `js.plot_interpretations(js.interpretations(log, goals=["purchase"]).table)`
    """
    return readings_of.interpretations(
        log if isinstance(log, Log) else read_log(log), rule=with_settings(rule or Rule(), settings), goals=goals,
        control=control, template=template, since=instant(since), until=instant(until), as_of=instant(as_of),
        metric=metric, presets=presets, currency_given="currency" in settings or rule is not None,
    )  # fmt: skip


def estimates(
    log: Log | str | Path,
    *,
    method: Sequence[str] | str = (),
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    as_of: Instant | None = None,
    metric: str = "conversion_rate",
    level: float = 0.95,
    epoch_days: float = 1.0,
    mature: bool = True,
    **settings: Any,
) -> Estimates:
    """What each variant is worth although shares followed the results: by one or several methods, clustered by user.

    `js.estimates(log, goals=["purchase"], method=["sample_mean", "aipw_uniform"]).table`. Without `method` all of
    `justai_sim.estimate.adaptive.METHODS`; further settings are options of the rule.
    """
    return estimates_of.estimates(
        log if isinstance(log, Log) else read_log(log), rule=with_settings(rule or Rule(), settings),
        methods=[method] if isinstance(method, str) else method, goals=goals, control=control, template=template,
        since=instant(since), until=instant(until), as_of=instant(as_of), metric=metric, level=level,
        epoch_days=epoch_days, mature=mature, currency_given="currency" in settings or rule is not None,
    )  # fmt: skip


def reconcile(
    log: Log | str | Path,
    against: str | Path | Any,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    template: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    as_of: Instant | None = None,
    mature: bool = False,
    **settings: Any,
) -> Reconciliation:
    """A dashboard's numbers (a CSV or a table) beside ours, with a receipt of the difference by reason.

    `js.reconcile(log, "dashboard.csv", goals=["purchase"]).closest`: the preset that counts as it does.
    """
    return dashboards.reconcile(
        log if isinstance(log, Log) else read_log(log), against, rule=with_settings(rule or Rule(), settings),
        goals=goals, template=template, since=instant(since), until=instant(until), as_of=instant(as_of),
        mature=mature, currency_given="currency" in settings or rule is not None,
    )  # fmt: skip


def what_if(
    log: Log | str | Path,
    policy: PolicySpec | str | Sequence[PolicySpec | str] = (),
    *,
    shares: Mapping[str, float] | None = None,
    variants: Sequence[str] | str = (),
    estimator: str | None = None,
    epsilon: float = 0.0,
    floor: float = 0.0,
    control_share: float | None = None,
    logged_epsilon: float = 0.0,
    logged_floor: float = 0.0,
    propensities: str = "auto",
    feedback: Feedback | None = None,
    refresh_hours: float | None = None,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    as_of: Instant | None = None,
    metric: str = "conversion_rate",
    **settings: Any,
) -> WhatIf:
    """What other policies would have earned on a log, each with a 95 % interval, or the reasons for having none.

    `policy`: `uniform`, `fixed` (with `shares`, relative weights by variant), `logged` (the log's own with another
    `epsilon`, `floor` or `control_share`; `logged_epsilon` and `logged_floor` are taken out first), or a policy that
    learns, which is valued only on a log whose variants were drawn evenly. `variants`: every send that one variant.
    Without any: the log's own, equal shares and each single variant. `estimator`: `dr, ips, snips, dm, sndr, switch-dr,
    dros, adaptive, rejection`, `all`, or None, chosen by the overlap of each policy with the log. `propensities`:
    `auto`, `logged`, or `estimated` from shares. Values are per send, gains over the log's own policy on the same
    decisions; users are the independent units. `feedback`, `refresh_hours`: what a policy that learns counts, and how
    often it looks. Further settings are options of the rule. UsageError for a wrong
    setting, DataError for a log without a decision that was drawn.

    `js.what_if(log, "fixed", shares={"b": 3, "c": 1}, goals=["purchase"]).estimates`
    """
    asked: list[PolicySpec | str] = [policy] if isinstance(policy, (str, PolicySpec)) else list(policy)
    if shares is not None:
        asked = [PolicySpec(name="fixed", shares=dict(shares)), *(p for p in asked if p != "fixed")]
    return policies.what_if(
        log if isinstance(log, Log) else read_log(log),
        policies=asked,
        variants=[variants] if isinstance(variants, str) else variants,
        mixed=Mixed(control_share, epsilon, floor, logged_epsilon, logged_floor),
        learning=learning_of(feedback, refresh_hours),
        estimator=estimator,
        propensities=propensities,
        rule=with_settings(rule or Rule(), settings),
        goals=goals,
        control=control,
        template=template,
        since=instant(since),
        until=instant(until),
        as_of=instant(as_of),
        metric=metric,
        currency_given="currency" in settings or rule is not None,
    )


def doctor(
    log: Log | str | Path,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    split: Mapping[str, float] | None = None,
    as_of: Instant | None = None,
    **settings: Any,
) -> Diagnosis:
    """What makes a log's numbers empty, wrong or misleading, each with its number and the next step.

    `print(js.doctor(log, goals=["purchase"]))`; `.findings` for programs. `split`: the declared share of each variant,
    e.g. `{"control": 0.1, "story": 0.9}`, for logs without propensities. Further settings are options of the rule.
    """
    return checks.doctor(
        log if isinstance(log, Log) else read_log(log), rule=with_settings(rule or Rule(), settings), goals=goals,
        control=control, split=split, as_of=instant(as_of), currency_given="currency" in settings or rule is not None,
    )  # fmt: skip


def _scenario(source: Scenario | str | Path) -> Scenario:
    if not isinstance(source, (Scenario, str, Path)):
        raise UsageError(
            f"scenario {source!r} is a {type(source).__name__}; expected a file, a packaged name or a Scenario"
        )
    return source if isinstance(source, Scenario) else scenario_files.read(source)


def scenarios() -> pd.DataFrame:
    """The packaged scenarios: `name`, the `question` that each asks, and the `answer` that its report gives."""
    found = [scenario_files.read(path) for path in sorted(scenario_files.packaged().glob("*.toml"))]
    return pd.DataFrame([{"name": s.name, "question": s.question, "answer": s.answer} for s in found])


@dataclass(frozen=True)
class Run:
    """A simulated world: what production saw, and the truth behind it."""

    scenario: Scenario
    log: Log
    truth: pd.DataFrame
    """`event_id, cause_send_id` ('' = organic), `occurred_at`: one row a conversion that happened."""
    behind: Behind
    """The same as codes, and which true event each row of the log tells of; what `bias` reads."""

    @cached_property
    def sends(self) -> pd.DataFrame:
        return frames.to_frame(self.log, "sends")

    @cached_property
    def events(self) -> pd.DataFrame:
        return frames.to_frame(self.log, "events")

    def replay(self, **options: Any) -> Replay:
        """The world's log replayed under the scenario's program, or with other options of `replay`."""
        program = self.scenario.program
        given: dict[str, Any] = {"rule": program.rule, "goals": program.goals, "policy": program.policy}
        given |= options
        return dataclasses.replace(replay(self.log, **given), simulated=True)

    def __repr__(self) -> str:
        return f"Run({self.scenario.name}, seed {self.scenario.seed}: {self.log.counted()})"

    def _repr_html_(self) -> str:
        return (
            f"<p><b>{SIMULATED}</b> {escape(self.scenario.name)}, seed {self.scenario.seed}: "
            f"{len(self.log.sends):,} sends, {len(self.log.events):,} events, {len(self.truth):,} conversions</p>"
        )


def read_scenario(
    source: Scenario | str | Path, settings: Mapping[str, Any] | None = None, *, sweep: Mapping[str, Any] | None = None
) -> Scenario:
    """A scenario (a file, or the name of a packaged one) with dotted keys replaced, and with other sweep axes.

    `js.sweep(js.read_scenario("welcome", {"replications": 8}, sweep={"world.signups_per_day": [100, 400]}))`: what a
    scenario file can hold, from Python. DataError for what is no key or no value of it.
    """
    given = _scenario(source)
    changed = scenario_files.with_settings(given, dict(settings or {}))
    changed = msgspec.structs.replace(changed, sweep=given.sweep if sweep is None else dict(sweep))
    scenario_files.points(changed)  # an axis that is none is told here, not when the sweep begins
    return changed


def simulate(source: Scenario | str | Path, *, seed: int | None = None, rep: int = 0, wire: bool = False) -> Run:
    """One world of a scenario (a file, the name of a packaged one, or a Scenario)."""
    from justai_sim.sim.cost import affordable
    from justai_sim.sim.engine import simulate_block

    scenario = _scenario(source)
    if not isinstance(rep, (int, np.integer)) or rep < 0:
        raise UsageError(f"rep is {rep}; expected the number of a world, from 0 on")
    if seed is not None:
        checked_type(seed, (int, np.integer), "seed", "a whole number")
        scenario = msgspec.structs.replace(scenario, seed=int(seed))
    affordable(scenario)
    block = simulate_block(scenario, range(rep, rep + 1), wire=wire)
    log = block.log(rep)
    truth = pd.DataFrame(
        {
            "event_id": log.text("event", block.truth.event),
            "cause_send_id": log.text("send", block.truth.cause),
            "occurred_at": pd.to_datetime(block.truth.occurred_at, unit="us", utc=True),
        }
    )
    return Run(scenario, log, truth, Behind(block.truth, block.origin, block.unheard))


def bias(run: Run, **settings: Any) -> Bias:
    """What separates the numbers that a dashboard shows from what the sends caused, per variant, exactly.

    Under the scenario's rule, or with options of the rule changed: `js.bias(js.simulate("welcome"),
    offset_days=0).table`. In each identity (`events`, `sends`, `revenue`) all terms add up to `shown`; `Bias.meaning`
    says what they are, `js.plot_bias(bias.table)` draws them.
    """
    if not isinstance(run, Run):
        raise UsageError(f"run is a {type(run).__name__}; expected a simulated world, js.simulate(SCENARIO): only a "
                         "simulator knows what caused a conversion")  # fmt: skip
    program, log = run.scenario.program, run.log
    bound = _bound(with_settings(program.rule, settings), log, program.goals or None)
    currency = log.names("currency").index(run.scenario.world.value.currency)
    found = identity(bound, log.sends, log.events, run.behind, run.scenario.end_us, currency)
    return Bias(bias_table(found, log.text), f"{run.scenario.name}, seed {run.scenario.seed}")


def summary_of(race: pd.DataFrame) -> pd.DataFrame:
    """See `Sweep.summary`."""
    race = race.sort_values(["point", "rep", "day"], kind="stable")
    until = race.groupby(["point", "rep"], sort=False)["day"].shift(-1) - race["day"]
    wrong = ((1 - race["right_for_good"]) * until.fillna(0)).groupby([race["point"], race["rep"]]).sum()
    last = race[race["day"] == race["day"].max()]
    columns = ["right_leader", "shipped_wrong", "shipped_right", "lost_per_10k"]
    out = last.groupby("point", sort=False)[columns].mean()
    out["missed_winner"] = 1 - out["shipped_right"]
    out["days_until_right"] = wrong.groupby("point").mean()
    return out


@dataclass(frozen=True)
class Sweep:
    """A finished sweep as frames; see `SweepData` for their columns."""

    data: SweepData

    @property
    def metrics(self) -> pd.DataFrame:
        return self.data.metrics

    @property
    def race(self) -> pd.DataFrame:
        return self.data.race

    @property
    def age(self) -> pd.DataFrame:
        return self.data.age

    @property
    def windows(self) -> pd.DataFrame:
        return self.data.windows

    @property
    def answer(self) -> str:
        """The first sentence of its page."""
        from justai_sim.pages.answer import answer

        return answer(self.data).headline

    def summary(self) -> pd.DataFrame:
        """Per point at the end, means over worlds: how often the right variant leads, what was shipped wrong (a false
        ship), the share of winners that were not shipped (`missed_winner`), what was lost, and the days until the right
        variant leads for good (`days_until_right`; those of the whole run where it never does)."""
        return summary_of(self.race)

    def __repr__(self) -> str:
        return repr(self.data).replace("SweepData", "Sweep", 1)

    def _repr_html_(self) -> str:
        said = f"<p><b>{SIMULATED}</b> {escape(self.data.scenario.name)}: {escape(self.answer)}</p>"
        return said + self.summary().to_html(float_format="%.3g")


def sweep(
    source: Scenario | str | Path,
    out: str | Path | None = None,
    *,
    replications: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    race: str | None = None,
) -> Sweep:
    """Run every point of a scenario's `[sweep]` over the same worlds. Parts and tables are kept in `out`.

    On `workers` processes (default: one a core), or on the Dask cluster at `scheduler`. `race`: `right_by_day`,
    `conversions` or `revenue`; points that are clearly worse by it stop early (`.data.raced`).
    """
    import tempfile

    scenario = _scenario(source)
    for name, given in (("replications", replications), ("workers", workers)):
        if given is not None:
            checked_type(given, (int, np.integer), name, "a whole number")
    if replications is not None:
        scenario = msgspec.structs.replace(scenario, replications=int(replications))
    how: dict[str, Any] = {"workers": workers, "scheduler": scheduler, "race": race}
    if out is not None:
        return Sweep(run_sweep(scenario, Path(out), resume=resume, again="the same call with resume=True", **how))
    with tempfile.TemporaryDirectory() as folder:
        return Sweep(run_sweep(scenario, Path(folder), again="", **how))


def run_sweep(scenario: Scenario, out: Path, **options: Any) -> SweepData:
    """Simulate, collect, write the tables; options as in `justai_sim.sweeps.run.sweep`."""
    from justai_sim.sweeps.collect import collect, write_tables
    from justai_sim.sweeps.run import AGAIN, kept
    from justai_sim.sweeps.run import sweep as run

    done = run(scenario, out, **options)
    try:
        data = collect(scenario, *done)
        write_tables(data, out)
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; {kept(out, options.get('again', AGAIN))}") from None
    return data


def recommend(
    result: Sweep | str | Path, criterion: str = "right_by_day", *, day: float | None = None, limit: float = 0.05
) -> Recommendation:
    """What to choose among the decisions of a finished sweep (or its folder): `.answer`, `.table`, `.flips`.

    `criterion`: `right_by_day` (the best variant leads on `day`, default the last), `conversions` or `revenue` (true
    ones, whatever was credited), `decision_time` (until the product's rule ships, among those whose share of false
    ships is shown to be at most `limit`). Differences are paired over worlds and hold all together; what cannot be
    told from the best is tied; along axes of the world and the variants, `flips` says where the answer changes.

    `js.plot_recommend(js.recommend("reports/welcome", "conversions").table)`
    """
    from justai_sim.sweeps.collect import read_tables

    checked_type(result, (Sweep, str, Path), "result", "a Sweep, or the folder of one")
    question = Question(criterion=criterion, day=day, limit=limit)
    data = result.data if isinstance(result, Sweep) else read_tables(Path(result))
    return recommendations.recommend(data, question)


def report(
    result: Sweep | Replay | Verdict | WhatIf | Interpretations | Reconciliation | Diagnosis | Bias | Recommendation,
    out: str | Path,
    title: str = "",
) -> Path:
    """Write the report of a result into the folder `out`; returns the page.

    The folder keeps the long tables that its page is made of: `justai-sim report DIR` makes the same bytes of them.
    UsageError for a folder that holds a log, or a report of another kind.
    """
    from justai_sim.pages import reports
    from justai_sim.pages.bias_page import BiasData
    from justai_sim.pages.recommend_page import RecommendData

    known = (Sweep, Replay, Verdict, WhatIf, Interpretations, Reconciliation, Diagnosis, Bias, Recommendation)
    checked_type(result, known, "result", f"one of {', '.join(k.__name__ for k in known)}")
    out = Path(out)
    if isinstance(result, Replay):
        from justai_sim.verdicts.desk import desk

        title = title or Path(result.log.source).name or "log"
        reports.checked_folder(out, "replay")  # before all the work
        found = reports.Replayed(result.data(title), desk(result))
        page = reports.publish(found, out, title, replays.manifest(result))
        replays.write_tables(result, out)
        return page
    if isinstance(result, Sweep):
        return reports.publish(result.data, out, title)
    if isinstance(result, WhatIf):
        return reports.publish(result, out, title or result.source or "log", policies.manifest(result))
    if isinstance(result, Bias):
        return reports.publish(BiasData(result), out, title or result.world)
    if isinstance(result, Recommendation):
        return reports.publish(RecommendData(result), out, title or result.scenario.name)
    return reports.publish(result, out, title or getattr(result, "source", "") or "log")

"""A log replayed under one rule: credits, reasons, metrics, shares, and the frames of its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pandas as pd

from justai_sim import clock
from justai_sim.attribution import Attribution, Bound, Rule, TrainingWindow
from justai_sim.bandit.policy import PolicySpec
from justai_sim.clock import DAY
from justai_sim.delays import Delays, age_frame, delays, overlapping
from justai_sim.errors import DataError, UsageError, nearest, several
from justai_sim.estimate.maturity import remarks
from justai_sim.estimate.metrics import metrics_table
from justai_sim.estimate.windows import LOOKBACKS, OFFSETS
from justai_sim.executor import executor
from justai_sim.loop.divided import Divided
from justai_sim.loop.program import Feedback, KeyMetric, Program, program_of
from justai_sim.loop.replay import attribute_log, last_received, replay_log
from justai_sim.loop.step import Tick
from justai_sim.meant import goals_of, suspicious, with_currency
from justai_sim.mix import comparable, rates_over_same_mix
from justai_sim.sheets import write_csv
from justai_sim.stats import z_value
from justai_sim.streams import uniform
from justai_sim.surfaces import WindowSurface, window_surface
from justai_sim.tables import B1, F8, HELD_OUT, I8, KINDS, PARTS, REASONS, Log, badge

PARTITIONS = 16
"""Of a replay on several processes, where their number is not given."""
GROUPS = 100
"""Random groups of users: the clusters of the intervals in the figures."""
ESTIMATORS = {
    "kaplan_meier": ("km_conversion_rate", "km_conversions", "km_sends"),
    "mature": ("mature_conversion_rate", "mature_conversions", "mature_sends"),
    "so_far": ("conversion_rate", "conversions", "sends"),
    "exposure": ("exposure_conversion_rate", "exposure_conversions", "exposure_sends"),
}
"""Estimators of the conversion rate, the headline first: rate, numerator and denominator in the results table."""


@dataclass(frozen=True)
class ReplayData:
    """A log replayed under one rule.

    metrics: the frame of metrics.csv. reasons: `kind, reason, events`. shares: `day, template_id,
    variant_id, share` (what the policy would have set on that day), `sends, rate` (key metric as the page
    would have shown it then). age, windows: as in SweepData, groups being random groups of users; weighting: how the
    sends of `age` are weighted; overlapping: whether many follow others to the same users. same_mix:
    `Replay.same_mix` by template and variant. delay, captured, background, warnings: as in `Delays`.
    """

    title: str
    source: str
    as_of: int
    rule: Rule
    key_metric: str
    control: str
    notes: list[str]
    metrics: pd.DataFrame
    reasons: pd.DataFrame
    shares: pd.DataFrame
    age: pd.DataFrame
    windows: pd.DataFrame
    simulated: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    delay: pd.DataFrame = field(default_factory=pd.DataFrame)
    captured: pd.DataFrame = field(default_factory=pd.DataFrame)
    background: str = ""
    warnings: list[str] = field(default_factory=list)
    weighting: str = "none"
    same_mix: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    overlapping: bool = False

    def doubted(self, a: dict[str, Any], b: dict[str, Any], less: bool = False) -> bool:
        """Whether a's lead over b (rows of `metrics` of one template; `less`: by being below) is not clear once both
        are weighted to the same mix of days: shares that change with the days make differences of their own (Simpson).
        """
        both = self.mixed(a, b)
        if both is None:
            return False
        (x, dx), (y, dy) = both
        return not (y - x if less else x - y) > z_value(0.95) * (dx**2 + dy**2) ** 0.5

    def mixed(self, a: dict[str, Any], b: dict[str, Any]) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """The two entries of `same_mix`; None where the shares of the template did not change."""
        x, y = (self.same_mix.get(r["template_id"], {}).get(r["variant_id"]) for r in (a, b))
        return None if x is None and y is None else (x or (np.nan, np.nan), y or (np.nan, np.nan))


@dataclass(frozen=True)
class Selection:
    """Which sends the tables show. All sends compete for credit whatever is shown."""

    template: str | None = None
    since: int | None = None
    until: int | None = None

    def keeps(self, log: Log) -> Any:
        s = log.sends
        keep = np.ones(len(s), bool)
        if self.template is not None:
            names = log.names("template")
            if self.template not in names:
                raise UsageError(f"--template {self.template!r} is not in the log; {nearest(self.template, names)}")
            keep &= s.template == names.index(self.template)
        if self.since is not None:
            keep &= s.sent_at >= self.since
        if self.until is not None:
            keep &= s.sent_at < self.until
        return keep


@dataclass(frozen=True)
class Replay:
    """Result of `replay`. Frames are made when they are asked for."""

    log: Log
    program: Program
    bound: Bound
    attribution: Attribution
    ticks: list[Tick]
    selection: Selection
    notes: list[str]
    control: str
    simulated: bool = False

    @property
    def as_of(self) -> pd.Timestamp:
        return pd.Timestamp(self.attribution.as_of, unit="us", tz="UTC")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row a template and variant, and `ALL (distinct)`; see `estimate.metrics`."""
        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """The metrics as plain rows."""
        return [dict(row) for row in self._rows]

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        keep = self.selection.keeps(self.log)
        return metrics_table(self.log, self.bound, restricted(self.attribution, keep))

    @cached_property
    def credits(self) -> pd.DataFrame:
        """`event_id, send_id, weight`: every credited event of every kind, refunds with their order's weights."""
        c = self.attribution.credits
        order = np.lexsort((c.send_row, c.event_row))
        return pd.DataFrame(
            {
                "event_id": self.log.text("event", self.log.events.event[c.event_row[order]]),
                "send_id": self.log.text("send", self.log.sends.send[c.send_row[order]]),
                "weight": c.weight[order] / PARTS,
            }
        )

    @cached_property
    def reasons(self) -> pd.DataFrame:
        """`event_id, reason`: one row for every event of the input, in its order."""
        names = np.array(REASONS, dtype=object)
        return pd.DataFrame(
            {
                "event_id": self.log.text("event", self.log.events.event),
                "reason": names[self.attribution.reason],
            }
        )

    def reason_counts(self) -> pd.DataFrame:
        """`kind, reason, events`."""
        pairs = np.stack([self.log.events.kind, self.attribution.reason])
        found, count = np.unique(pairs, axis=1, return_counts=True)
        return pd.DataFrame(
            {
                "kind": [KINDS[k] for k in found[0].tolist()],
                "reason": [REASONS[r] for r in found[1].tolist()],
                "events": count,
            }
        )

    @cached_property
    def shares(self) -> pd.DataFrame:
        """`day, template_id, variant_id, share, sends, rate` at every refresh, as the policy would have set them."""
        machine_templates = self.log.names("template")
        by_id = {t.id: t.variants for t in self.program.templates}
        start = self.ticks[0].now if self.ticks else 0
        rows = []
        for tick in self.ticks:
            for t, name in enumerate(machine_templates):
                if self.selection.template not in (None, name):
                    continue
                for a, variant in enumerate(by_id.get(name, [])):
                    n = float(tick.n[t, 0, a])
                    rows.append(
                        {
                            "day": (tick.now - start) / DAY,
                            "template_id": name,
                            "variant_id": variant,
                            "share": float(tick.shares[t, 0, 0, a]),
                            "sends": n,
                            "rate": float(tick.y[t, 0, a]) / n if n else None,
                        }
                    )
        columns = ["day", "template_id", "variant_id", "share", "sends", "rate"]
        return pd.DataFrame(rows, columns=columns)

    def data(self, title: str) -> ReplayData:
        """What the page shows."""
        return ReplayData(
            title=title,
            source=Path(self.log.source).name,  # pages travel, and a path tells whose machine it was
            as_of=self.attribution.as_of,
            rule=self.program.rule,
            key_metric=self.program.key_metric,
            control=self.control,
            notes=[*self.notes, *self.mix[1]],
            metrics=self.metrics,
            reasons=self.reason_counts(),
            shares=self.shares,
            age=self.age(),
            windows=self.windows(),
            simulated=self.simulated,
            settings=self.settings(),
            delay=self.delay, captured=self.delays.captured, background=self.delays.background,
            warnings=self.warnings, weighting=self._age[1], same_mix=by_template(self.same_mix()),
            overlapping=overlapping(self.log, self.shown),
        )  # fmt: skip

    def settings(self) -> dict[str, str]:
        """What the page says of the policy besides the rule."""
        p = self.program
        out = {"policy": p.policy.name, "feedback": p.feedback}
        return out | ({"training": p.training.words()} if p.training else {})

    def groups(self) -> I8:
        """A random group of each send's user, the same at every replay."""
        user = self.log.sends.user
        return (uniform(0, "report groups", np.zeros(len(user), np.int64), user) * GROUPS).astype(np.int64)

    def age(self) -> pd.DataFrame:
        """Conversions by days since the send; all shown templates together. Every variant is weighted to the same mix
        of days and templates (`estimate.age.send_weights`)."""
        return self._age[0]

    @cached_property
    def _age(self) -> tuple[pd.DataFrame, str]:
        return age_frame(self.log, self.attribution, self.selection.keeps(self.log), self.groups(), GROUPS)

    @cached_property
    def maturity(self) -> pd.DataFrame:
        """`template_id, variant_id, estimator, rate, low, high, numerator, denominator`: the conversion rate
        by the four estimators of `estimate.maturity`."""
        out = []
        for row in self.rows():
            head = {k: row[k] for k in ("template_id", "variant_id")}
            for name, (rate, y, n) in ESTIMATORS.items():
                ends = {"rate": row[rate], "low": row[f"{rate}_low"], "high": row[f"{rate}_high"]}
                out.append(head | {"estimator": name} | ends | {"numerator": row[y], "denominator": row[n]})
        return pd.DataFrame(out)

    @cached_property
    def delays(self) -> Delays:
        """What messages add by days since the send and what of it the window sees; all shown templates together."""
        keep = self.selection.keeps(self.log)
        return delays(self.log, self.attribution, keep, self.groups(), same_mix=self.mix[0] is None)

    @property
    def delay(self) -> pd.DataFrame:
        """The curves of `delays`, as `plot_delay` takes them."""
        return self.delays.curves

    @cached_property
    def warnings(self) -> list[str]:
        """What the window does to the comparison, and what a reader of the rates needs to hear."""
        return [*self.delays.warnings, *remarks(self.program.rule, self._rows)]

    @cached_property
    def surface(self) -> WindowSurface:
        """What every window on the default grid would have credited, and which differences are more than chance."""
        return self.surface_on()

    def surface_on(
        self, offsets: Sequence[float] = OFFSETS, lookbacks: Sequence[float] = LOOKBACKS, metric: str = "conversions"
    ) -> WindowSurface:
        """The same on another grid of days, or comparing another of `surfaces.COMPARED`."""
        log, keep = self.log, self.selection.keeps(self.log)
        return window_surface(
            self.bound, log, self.attribution.as_of, offsets, lookbacks, keep=keep, metric=metric, weight=self.mix[0]
        )

    @cached_property
    def mix(self) -> tuple[F8 | None, list[str]]:
        """Weights of the sends that give every variant shown the same mix of days and templates, None where they are
        all 1; and what to say of it."""
        return comparable(self.log, np.where(self.shown, self.log.sends.variant, -1))

    @cached_property
    def shown(self) -> B1:
        """The sends that the tables show: selected, known by then, and no ghosts."""
        s = self.log.sends
        keep = self.selection.keeps(self.log) & (s.received_at <= self.attribution.as_of)
        return np.asarray(keep & (s.status != HELD_OUT))

    def same_mix(self) -> dict[tuple[str, str], tuple[float, float]]:
        """`mix.rates_over_same_mix` of the key metric."""
        return rates_over_same_mix(self.log, self.attribution, self.shown, self.program.key_metric)

    def windows(self) -> pd.DataFrame:
        """Its counts by random group of users; all shown templates together."""
        return self.surface.by_group

    def __repr__(self) -> str:
        return f"Replay({self.log!r} as of {clock.iso(self.attribution.as_of)})"

    def _repr_html_(self) -> str:
        show = ["template_id", "variant_id", "sends", "conversions", "conversion_rate", "open_rate", "click_rate"]
        head = f"{badge(self.simulated)}<p>Replay as of {self.as_of:%Y-%m-%d %H:%M} UTC</p>"
        return head + self.metrics[show].to_html(index=False)


def by_template(rates: dict[tuple[str, str], tuple[float, float]]) -> dict[str, dict[str, tuple[float, float]]]:
    """What is known by template and variant, as nested dicts."""
    out: dict[str, dict[str, tuple[float, float]]] = {}
    for (template, variant), found in rates.items():
        out.setdefault(template, {})[variant] = found
    return out


def restricted(got: Attribution, keep: Any) -> Attribution:
    """The attribution with only the outcomes and credits of some send rows."""
    rows = keep[got.outcomes.send_row]
    if rows.all():
        return got
    return Attribution(
        got.rule, got.as_of, got.credits.take(keep[got.credits.send_row]), got.reason, got.value,
        got.outcomes.take(rows),
    )  # fmt: skip


def replay(
    log: Log,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: int | None = None,
    until: int | None = None,
    as_of: int | None = None,
    start: int | None = None,
    policy: PolicySpec | None = None,
    training: TrainingWindow | None = None,
    feedback: Feedback = "all",
    key_metric: KeyMetric = "conversion_rate",
    refresh_hours: float = 24,
    control_share: float = 0.10,
    currency_given: bool = False,
    shares: bool = True,
    partitions: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Replay:
    """Attribute a log under `rule`, and step a policy through it as it arrived. Times in microseconds.

    `goals`: the conversion names that count; needed when the log has several. `template`, `since`,
    `until` choose the sends that are shown, `as_of` what is known (default: the last receipt).
    Without `shares` no policy is stepped through the log. With `partitions`, `workers` or a Dask `scheduler` users are
    attributed in parts, on several processes; the results are the same, to the bit.
    """
    if key_metric not in get_args(KeyMetric):
        raise UsageError(f"metric {key_metric!r} is not known; {nearest(str(key_metric), get_args(KeyMetric))}")
    if not len(log.sends):
        refused = sum(log.rejects.values())
        raise DataError(
            f"{log.source or 'the log'} holds no sends, so nothing can be credited ({len(log.events):,} events"
            + (f", {several(refused, 'row')} refused); see them with --rejects DIR" if refused else ")")
            + "; a Segment source that tells only of deliveries is read with --esp segment-deliveries"
        )
    notes = list(log.notes)
    chosen = goals_of(log, [goals] if isinstance(goals, str) else goals, notes)
    rule = with_currency(log, rule or Rule(), chosen, currency_given, notes)
    notes += suspicious(log, rule)
    if as_of is None:
        as_of = last_received(log)
    spec = policy or PolicySpec()
    settings: dict[str, Any] = {
        "goals": chosen, "key_metric": key_metric, "control_share": control_share, "refresh_hours": refresh_hours,
        "rule": rule, "training": training, "feedback": feedback,
    }  # fmt: skip
    learns = shares
    try:
        base = Program(policy=spec, **settings)
    except UsageError as e:
        if spec.name != "weighted_thompson":
            raise
        learns = False
        notes.append(f"no shares are shown: {e}")
        base = Program(policy=PolicySpec(name="uniform"), **settings)
    program = program_of(log, base, control)
    selection = Selection(template, since, until)
    selection.keeps(log)
    divided = None
    if partitions is not None or workers is not None or scheduler is not None:
        with executor(workers, scheduler) as on:
            divided = Divided(program, log, as_of, start, on, PARTITIONS if partitions is None else partitions, learns)
    bound, got = (divided.bound, divided.attribution) if divided else attribute_log(program, log, as_of)
    ticks: list[Tick] = []
    if learns:
        try:
            ticks = divided.ticks() if divided else replay_log(program, log, as_of, start)[2]
        except UsageError as e:
            notes.append(f"no shares are shown: {e}")
    used = {t.variants[0] for t in program.templates}
    name = control or (used.pop() if len(used) == 1 else "control")
    if name not in log.names("variant"):
        notes.append(f"no variant named {name!r}: nothing is compared with a control (name one with --control)")
    return Replay(log, program, bound, got, ticks, selection, notes, name, log.simulated)


def write_tables(result: Replay, out: Path) -> None:
    """credits.parquet, reasons.parquet and metrics.csv."""
    out.mkdir(parents=True, exist_ok=True)
    result.credits.to_parquet(out / "credits.parquet", index=False)
    result.reasons.to_parquet(out / "reasons.parquet", index=False)
    write_csv(result.metrics, out / "metrics.csv")


def manifest(result: Replay) -> dict[str, Any]:
    """What its report's manifest.json says."""
    return {
        "source": Path(result.log.source).name,
        "simulated": result.simulated, "as_of": clock.iso(result.attribution.as_of),
        "rule": msgspec.to_builtins(result.program.rule), "goals": result.program.goals,
        "policy": msgspec.to_builtins(result.program.policy), "notes": [*result.notes, *result.mix[1]],
        "warnings": result.warnings, "reasons": result.attribution.reasons(), "rejects": dict(result.log.rejects),
        "skipped": dict(result.log.skipped),
    }  # fmt: skip

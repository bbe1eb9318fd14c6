"""What each variant of a log is worth, by several estimators that allow for shares that followed the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.attribution import Rule
from justai_sim.clock import DAY, MISSING
from justai_sim.errors import DataError, JustaiError, UsageError, nearest, several
from justai_sim.estimate.adaptive import METHODS
from justai_sim.estimate.trials import Trials, shares_by_batch
from justai_sim.loop.replay import with_decisions
from justai_sim.tables import B1, I8, Log, badge
from justai_sim.whatif.study import Study, control_of, metric_of, numbers, study

WITHOUT_PROPENSITY = ("sample_mean", "batched_ols", "stratified")


@dataclass(frozen=True)
class Estimates:
    """Result of `estimates`.

    table: one row a template, variant and method. `estimate, se, low, high` of the metric per send; `lead, lead_low,
    lead_high` over the control (None where there is no control, or for it); `sends` of the variant that the method saw,
    `used` the share of all its rows that count; `caveat` names its bias or what it assumes. notes: what was left out,
    and why a method could not be applied.
    """

    table: pd.DataFrame
    notes: list[str]
    metric: str
    level: float
    simulated: bool = False

    def __repr__(self) -> str:
        return f"Estimates({self.metric}: {several(len(self.table), 'row')})"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(n)}</p>" for n in self.notes)
        return badge(self.simulated) + self.table.to_html(index=False) + notes


def estimates(
    log: Log,
    *,
    rule: Rule,
    methods: Sequence[str] = (),
    goals: Sequence[str] | str = (),
    control: str | None = None,
    template: str | None = None,
    since: int | None = None,
    until: int | None = None,
    as_of: int | None = None,
    metric: str = "conversion_rate",
    level: float = 0.95,
    epoch_days: float = 1.0,
    mature: bool = True,
    currency_given: bool = False,
) -> Estimates:
    """Every method of `estimate.adaptive.METHODS` (or those named) on each template's sends, clustered by user.

    Outcomes are those of the rule, of sends whose window has closed unless `mature` is false. Epochs are `epoch_days`
    of the decisions. Sends without a propensity (forced, external) stay out of the methods that need one. A method
    that was named and cannot be applied is an error; one that was not is a note.
    """
    for name in methods:
        if name not in METHODS:
            raise UsageError(f"method {name!r} is not known; {nearest(name, METHODS)}")
    if rule.denominator == "users":
        raise UsageError("denominator 'users' has no propensity: estimates are per send")
    if not epoch_days > 0:
        raise UsageError(f"epoch_days is {epoch_days}; expected a number above 0")
    metric = metric_of(metric)
    log = replace(log, sends=with_decisions(log.sends, log.decisions))
    s = study(
        log, rule=rule, goals=goals, template=template, since=since, until=until, as_of=as_of,
        currency_given=currency_given, mature=mature,
    )  # fmt: skip
    rows = _Rows.of(s, metric, epoch_days)
    out, notes = [], list(s.notes)
    base = control_of(log, control)
    for code in np.unique(rows.template):
        name = log.text("template", np.array([code]))[0]
        part = _Part(log, rows, rows.template == code, base, level)
        out += [{"template_id": name} | row for row in part.table(methods, notes, name)]
    if not out:
        raise DataError("no send can be used; with mature=False young ones count too")
    return Estimates(pd.DataFrame(out), notes, metric, level, log.simulated)


@dataclass(frozen=True)
class _Rows:
    """Per send that counts, in the order of the decisions."""

    template: I8
    variant: I8
    user: I8
    epoch: I8
    segment: I8
    propensity: Any
    value: Any

    @classmethod
    def of(cls, s: Study, metric: str, epoch_days: float) -> _Rows:
        sends = s.log.sends
        got = s.attribute(s.rule)
        n = numbers(s, got, metric, sends.variant, len(s.log.names("variant")))
        row = got.outcomes.send_row
        decided = np.where(sends.decided_at == MISSING, sends.sent_at, sends.decided_at)[row]
        use = np.flatnonzero(n.cell >= 0)
        use = use[np.lexsort((sends.send[row[use]], decided[use]))]
        row, decided = row[use], decided[use]
        epoch = (decided - decided.min(initial=np.iinfo(np.int64).max) // DAY * DAY) // round(epoch_days * DAY)
        return cls(
            sends.template[row],
            n.cell[use],
            n.user[use],
            epoch,
            sends.segment[row],
            sends.propensity[row],
            n.value[use],
        )


class _Part:
    """One template."""

    def __init__(self, log: Log, rows: _Rows, here: B1, control: str | None, level: float) -> None:
        self.rows, self.here, self.level = rows, here, level
        self.codes, self.arm = np.unique(rows.variant[here], return_inverse=True)
        self.names = log.text("variant", self.codes)
        self.control = self.names.index(control) if control in self.names else None

    def table(self, methods: Sequence[str], notes: list[str], template: str) -> list[dict[str, Any]]:
        out = []
        for method in methods or METHODS:
            try:
                trials = self.trials(method)
                out += [self.row(method, trials, k) for k in range(len(self.names))]
            except JustaiError as e:
                if methods:
                    raise
                notes.append(f"{template}: {method} cannot be applied: {e}")
        known = int(np.isfinite(self.rows.propensity[self.here]).sum())
        if 0 < known < len(self.arm):
            notes.append(
                f"{template}: {several(len(self.arm) - known, 'send')} without a propensity left out by weighting"
            )
        return out

    def trials(self, method: str) -> Trials:
        rows, arm, here = self.rows, self.arm, np.flatnonzero(self.here)
        if method in WITHOUT_PROPENSITY:
            return Trials(arm, rows.value[here], user=rows.user[here], batch=rows.epoch[here])
        known = np.isfinite(rows.propensity[here])
        if not known.any():
            raise DataError("the log has no propensities")
        arm, here = arm[known], here[known]
        shares = None
        if method in ("aipw_sqrt", "aipw_two_point"):
            cell = rows.epoch[here] * (int(rows.segment.max()) + 2) + rows.segment[here]
            shares = shares_by_batch(arm, rows.propensity[here], cell, len(self.names))
        return Trials(
            arm, rows.value[here], rows.propensity[here], shares, user=rows.user[here], batch=rows.epoch[here]
        )

    def row(self, method: str, trials: Trials, k: int) -> dict[str, Any]:
        apply = METHODS[method]
        e = apply(trials, k, level=self.level)
        out: dict[str, Any] = {"variant_id": self.names[k], "method": method}
        out |= {f: _plain(getattr(e, f)) for f in ("estimate", "se", "low", "high")}
        lead = None if self.control in (None, k) else apply(trials, k, self.control, level=self.level)
        for column, field in (("lead", "estimate"), ("lead_low", "low"), ("lead_high", "high")):
            out[column] = None if lead is None else _plain(getattr(lead, field))
        used = e.used if lead is None else lead.used
        return out | {"sends": int((trials.arm == k).sum()), "used": float(used), "caveat": e.caveat}


def _plain(x: Any) -> float | None:
    return float(x) if np.isfinite(x) else None

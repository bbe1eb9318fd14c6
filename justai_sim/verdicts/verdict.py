"""The verdict on a log: ship a variant, wait some days, or stop because it cannot be told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.checks.doctor import checked_split
from justai_sim.checks.facts import Facts
from justai_sim.clock import DAY
from justai_sim.errors import DataError
from justai_sim.replays import Replay
from justai_sim.tables import I8
from justai_sim.verdicts.answer import Answer, Given, said
from justai_sim.verdicts.compare import LEAST_SENDS, LEAST_USERS, Compared, by_template, compare, gaps
from justai_sim.verdicts.decide import decide, users_words
from justai_sim.verdicts.pace import flows, mature_sends, ripe_at
from justai_sim.verdicts.trust import Check, checks
from justai_sim.whatif.decided import Decided, decided
from justai_sim.whatif.study import study

EMPTY = pd.DataFrame()


@dataclass(frozen=True)
class Verdict:
    """Result of `verdict`.

    sentence: the answer with its reason. answer: 'ship X', 'wait N days' or 'stop: cannot be told'; kind, variant, days
    are its parts. table: a row a variant against the control, per 1,000 sends, with intervals that hold for all
    variants and all days together (95 %). race: the same at every day. templates: of several templates the same as
    `table` for each by itself, with `template_id`. checks: seven, each pass, fail or cannot tell.
    smallest_per_1000: differences below it are not visible now. as_of in microseconds.
    """

    decided: Answer
    table: pd.DataFrame
    race: pd.DataFrame
    checks: list[Check]
    reference: str
    metric: str
    unit: str
    level: float
    rule: Rule
    goals: list[str]
    as_of: int
    source: str
    simulated: bool
    templates: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        return self.decided.sentence

    @property
    def kind(self) -> Literal["ship", "wait", "stop"]:
        return self.decided.kind

    @property
    def answer(self) -> str:
        return self.decided.answer

    @property
    def variant(self) -> str | None:
        """What to ship."""
        return self.decided.variant

    @property
    def days(self) -> int | None:
        """How many days to wait."""
        return self.decided.days

    @property
    def leader(self) -> str | None:
        return self.decided.leader

    @property
    def smallest_per_1000(self) -> float | None:
        """Half of the width of the leader's interval."""
        return self.decided.smallest

    @cached_property
    def trust(self) -> pd.DataFrame:
        """`check, status, said`, a row a check."""
        return pd.DataFrame([(c.name, c.status, c.said) for c in self.checks], columns=["check", "status", "said"])

    def lines(self) -> list[str]:
        """The verdict as text, the answer first."""
        out = [self.sentence]
        out += [f"  {line}" for line in self.decided.because]
        if len(self.table):
            out += ["", f"{self.unit} per 1,000 sends against {self.reference}, intervals for all days and variants:"]
            width = max(len(str(v)) for v in self.table["variant_id"])
            out += [f"  {v:{width}}  {text}" for v, text in self.differences()]
        out += [""] + [f"  {c.status:11}  {c.name:12}  {c.said}" for c in self.checks]
        return out

    def differences(self) -> list[tuple[str, str]]:
        """Each variant with its difference in words."""
        return [(str(r["variant_id"]), _said(r)) for r in self.table.to_dict("records")]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "sentence": self.sentence, "answer": self.answer, "kind": self.kind, "variant": self.variant,
            "days": self.days, "leader": self.leader, "against": self.reference, "not_in": self.decided.not_in,
            "may_be_better": self.decided.perhaps, "because": self.decided.because,
            "smallest_per_1000": self.smallest_per_1000, "metric": self.metric, "unit": self.unit, "level": self.level,
            "differences": _records(self.table), "race": _records(self.race),
            "templates": _records(self.templates),
            "checks": [{"name": c.name, "status": c.status, "said": c.said, "numbers": dict(c.numbers)}
                       for c in self.checks],
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"Verdict({self.sentence})"

    def _repr_html_(self) -> str:
        because = "".join(f"<li>{escape(line)}</li>" for line in self.decided.because)
        badge = "SIMULATED. " if self.simulated else ""
        rows = "".join(f"<tr><td>{escape(v)}</td><td>{escape(text)}</td></tr>" for v, text in self.differences())
        head = f"<tr><th>variant</th><th>{escape(self.unit)} per 1,000 sends against {escape(self.reference)}</th></tr>"
        return (
            f"<p><b>{badge}{escape(self.sentence)}</b></p><ul>{because}</ul>"
            + (f"<table>{head}{rows}</table>" if rows else "")
            + self.trust.to_html(index=False)
        )


def _said(r: Mapping[str, Any]) -> str:
    if r["users"] < LEAST_USERS and min(r["sends"], r["against_sends"]) >= LEAST_SENDS:
        return f"too few users: the sends amount to {users_words(r['users'])}"
    if not r["ready"]:
        return f"too little is mature: {r['sends']:,} sends, {r['against_sends']:,} of {r['against']}"
    told = {1: "better", -1: "worse", 0: "not told apart"}[int(r["told"])]
    return f"{said(r)}, {told}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with null where a number is missing or not finite, times as ISO-8601."""

    def plain(v: Any) -> Any:
        if isinstance(v, pd.Timestamp):
            return clock.iso(int(v.value // 1000))
        return None if isinstance(v, float) and not np.isfinite(v) else v

    return [{k: plain(v) for k, v in row.items()} for row in frame.to_dict("records")]


UNITS = {
    "conversion_rate": "conversions", "open_rate": "opens", "click_rate": "clicks", "unsubscribe_rate": "unsubscribes",
}  # fmt: skip


def verdict(
    result: Replay, split: Mapping[str, float] | None = None, found: tuple[Decided, I8] | None = None
) -> Verdict:
    """What a replayed log says of its key metric, in one sentence, and whether its numbers can be trusted.

    Only mature sends count. Differences are AIPW estimates with the logged propensities (without any: with the shares
    of each template and day), as a confidence sequence: of logs of equal variants at most 5 % are ever told to ship
    one, however often they are looked at (`verdicts.compare`). `split`: the declared share of each variant, for a log
    without propensities; `found`: what `decisions` gave, if that is there already. UsageError for a split of variants
    that the log does not have.
    """
    log, program = result.log, result.program
    control = result.control if result.control in log.names("variant") else None
    facts = Facts(
        log, program.rule, program.goals, program.goals, result.attribution.as_of, control, checked_split(log, split)
    )
    notes: list[str] = []
    got: Compared | None = None
    why, as_of = "", result.attribution.as_of
    ripe = ripe_at(result)
    compared_sends, tables = 0, EMPTY
    try:
        found = found or decisions(result, ripe)
        got, notes = compared(result, found)
        compared_sends, tables = len(found[0]), _templates(found, as_of)
    except DataError as e:
        why = re.sub(r"send '[^']*'", "a send", str(e))  # a page names no message and no user
    if not (log.sends.sent_at <= as_of).any():
        why = f"nothing was sent before {clock.iso(as_of)[:16].replace('T', ' ')} UTC"
    pair = got.pairs[0] if got is not None and got.pairs else None
    table = EMPTY if got is None else got.table
    checked = checks(facts, result, pair, _leader(got) if got is not None else "", tables, table)
    unit = UNITS.get(program.key_metric, program.rule.currency)
    given = Given(
        got, tables, flows(result, ripe, compared_sends), mature_sends(result, ripe), as_of, program.key_metric, unit,
        program.rule, why,
    )  # fmt: skip
    return Verdict(
        decide(given, checked), table, EMPTY if got is None else got.race, checked,
        result.control if got is None else got.reference, program.key_metric, unit, 0.95 if got is None else got.level,
        program.rule, list(program.goals), as_of, Path(log.source).name, result.simulated, tables, notes,
    )  # fmt: skip


def _templates(found: tuple[Decided, I8], as_of: int) -> pd.DataFrame:
    """Each of several templates compared by itself; empty where there is one."""
    d, ripe = found
    if len(set(d.templates)) < 2:
        return EMPTY
    each = [c.table.assign(template_id=t) for t, c in by_template(d, ripe, as_of).items() if len(c.table)]
    return pd.concat(each, ignore_index=True) if each else EMPTY


def decisions(result: Replay, ripe: I8 | None = None) -> tuple[Decided, I8]:
    """The decisions whose outcome is mature, and when each became it. DataError where there is none."""
    program, chosen = result.program, result.selection
    control = result.control if result.control in result.log.names("variant") else None
    s = study(
        result.log, rule=program.rule, goals=program.goals, template=chosen.template, since=chosen.since,
        until=chosen.until, as_of=result.attribution.as_of, currency_given=True, mature=True,
    )  # fmt: skip
    d = decided(s, program.key_metric, control)
    return d, (ripe_at(result) if ripe is None else ripe)[d.send]


def compared(result: Replay, found: tuple[Decided, I8] | None = None) -> tuple[Compared, list[str]]:
    """Every variant against the control at every look, and what to say of it. DataError as `decisions`."""
    d, ripe = found or decisions(result)
    got = compare(d, ripe, looks(ripe, result.attribution.as_of))
    if len(got.table) > 1 and got.table["told"].iloc[0] > 0:
        got = replace(got, gaps=gaps(got, d, ripe))
    notes = [*d.notes, *got.notes]
    if result.program.rule.denominator == "users":
        notes.append("the verdict's differences are per send, although the rule divides by users")
    return got, notes


def looks(ripe: I8, as_of: int) -> I8:
    """UTC midnights from the first mature send on, and now."""
    first = int(ripe.min(initial=as_of))
    return np.append(np.arange(clock.midnight(first) + DAY, as_of, DAY, dtype=np.int64), as_of)


def _leader(got: Compared) -> str:
    """Who has the better estimate of the first pair."""
    if not len(got.table):
        return ""
    top = got.table.iloc[0]
    return str(top["variant_id"]) if got.sign * top["difference_per_1000"] > 0 else got.reference

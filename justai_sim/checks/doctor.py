"""All checks over one log, and what they found."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from justai_sim.attribution import Rule
from justai_sim.checks import arms, goals, ratio, rows, times
from justai_sim.checks.codes import flags
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import SEVERITIES, Finding, NotChecked, Said
from justai_sim.checks.goals import PAGE_WORDS, nearest_first
from justai_sim.checks.price import MORE_IS_NOT_BETTER
from justai_sim.checks.window import window
from justai_sim.errors import UsageError, nearest
from justai_sim.loop.replay import last_received
from justai_sim.meant import with_currency
from justai_sim.tables import CONVERSION, HELD_OUT, Log, badge
from justai_sim.whatif.study import control_of

CHECKS: dict[str, Callable[[Facts], Iterator[Said]]] = {
    "sends": goals.no_sends,
    "refused rows": goals.refused,
    "unit of times": times.units,
    "late times": times.late,
    "future times": times.future,
    "time zones": times.shifted,
    "silence": times.silent,
    "conversions and their name": goals.conversions,
    "other spellings": goals.spellings,
    "ids of both sides": goals.people,
    "credit": goals.nothing_credited,
    "missing user ids": goals.missing_users,
    "page-view-like goal": goals.page_views,
    "restated goal": goals.restated,
    "repeated conversions": goals.twins,
    "window": window,
    "quiet variants": arms.quiet,
    "sample ratio": ratio.sample_ratio,
    "several arms": arms.several_arms,
    "holdout": arms.held_out,
    "copies": rows.copies,
    "shared ids": rows.shared_ids,
    "machines": rows.machines,
    "deliveries": rows.undelivered,
    "unknown sends": rows.unknown_sends,
}
"""The list, causes before what follows from them; each check is a function of the facts."""
WIDTH = 110
MOST = 5
"""Findings of one name that the text shows; `findings` holds all."""


@dataclass(frozen=True)
class Diagnosis:
    """Result of `doctor`. findings: the wrong ones first; unchecked: what could not be looked at, and why; clean:
    checks that found nothing; goals: what was counted as a conversion; as_of in microseconds."""

    source: str
    goals: list[str]
    as_of: int
    rule: Rule
    findings: list[Finding]
    unchecked: list[NotChecked]
    clean: list[str]
    simulated: bool = False

    @cached_property
    def frame(self) -> pd.DataFrame:
        """`severity, finding, sentence, next_step`, a row a finding."""
        rows = [(f.severity, f.name, f.sentence, f.next_step) for f in self.findings]
        return pd.DataFrame(rows, columns=["severity", "finding", "sentence", "next_step"])

    @property
    def headline(self) -> str:
        """The first sentence: what more credit is worth; then how many findings there are."""
        n = {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        told = ", ".join(f"{k} {s}{'s' if s == 'note' and k > 1 else ''}" for s, k in n.items() if k) or "nothing"
        return f"{MORE_IS_NOT_BETTER}: what tells variants apart counts. Found: {told}."

    @property
    def not_checked(self) -> list[str]:
        """What could not be looked at, a line a reason."""
        by_reason: dict[str, list[str]] = {}
        for u in self.unchecked:
            by_reason.setdefault(u.why, []).append(u.name)
        return [f"{', '.join(names)} ({why})" for why, names in by_reason.items()]

    def __str__(self) -> str:
        out = [self.headline]
        same: Counter[str] = Counter()
        for f in self.findings:
            same[f.name] += 1
            if same[f.name] > MOST:
                continue
            out += ["", *_wrapped(f"{f.severity.upper()} {f.name}: ", f.sentence), *_wrapped("  next: ", f.next_step)]
        more = [f"{n - MOST:,} more of {name}" for name, n in same.items() if n > MOST]
        if more:
            out += ["", *_wrapped("and ", ", ".join(more))]
        if self.unchecked:
            out += ["", *(line for text in self.not_checked for line in _wrapped("not checked: ", text))]
        if self.clean:
            out += ["", *_wrapped("nothing found: ", ", ".join(self.clean))]
        return "\n".join(out)

    def __repr__(self) -> str:
        return f"Diagnosis({len(self.findings)} found, {len(self.unchecked)} not checked, {len(self.clean)} clean)"

    def _repr_html_(self) -> str:
        table = self.frame.to_html(index=False) if self.findings else ""
        notes = "".join(f"<li>not checked: {escape(text)}</li>" for text in self.not_checked)
        clean = f"<p>nothing found: {escape(', '.join(self.clean))}</p>" if self.clean else ""
        said = f"{badge(self.simulated)}<p>{escape(self.headline)}</p>{table}"
        return said + (f"<ul>{notes}</ul>" if notes else "") + clean


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(head + text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def doctor(
    log: Log,
    *,
    rule: Rule | None = None,
    goals: Sequence[str] | str = (),
    control: str | None = None,
    split: Mapping[str, float] | None = None,
    as_of: int | None = None,
    currency_given: bool = False,
) -> Diagnosis:
    """Look through a log for what makes its numbers empty, wrong or misleading. `as_of` in microseconds.

    `goals`: the conversion names that count; a name that the log does not have is a finding. Without, the name that
    most looks like a purchase is taken. `split`: the declared share of each variant, for logs without propensities.
    UsageError for a control or a split of variants that the log does not have.
    """
    asked = [goals] if isinstance(goals, str) else list(goals)
    counted = counted_goals(log, asked)
    rule = with_currency(log, rule or Rule(), counted, currency_given, [])
    control = control_of(log, control)
    as_of = last_received(log) if as_of is None else as_of
    facts = Facts(log, rule, asked, counted, as_of, control, checked_split(log, split))
    found: list[Finding] = []
    unchecked: list[NotChecked] = []
    clean: list[str] = []
    for name, check in CHECKS.items():
        said = list(check(facts))
        found += [s for s in said if isinstance(s, Finding)]
        unchecked += [s for s in said if isinstance(s, NotChecked)]
        if not said:
            clean.append(name)
    found.sort(key=lambda s: SEVERITIES.index(s.severity))
    return Diagnosis(Path(log.source).name, counted, as_of, rule, found, unchecked, clean, log.simulated)


def counted_goals(log: Log, asked: Sequence[str]) -> list[str]:
    """The goals asked for that the log has; else the name nearest to the first of them; else the one that most looks
    like a purchase: no page view, with amounts, frequent. Empty where there is no named conversion."""
    e, texts = log.events, log.names("name")
    n = np.bincount(e.name[e.kind == CONVERSION] + 1, minlength=len(texts) + 1)[1:]
    names = [texts[i] for i in np.argsort(-n, kind="stable").tolist() if n[i]]
    present = [g for g in asked if g in names]
    if present or not names:
        return present
    if asked:
        return nearest_first(asked[0], names)[:1]
    paid = flags(e.name[(e.kind == CONVERSION) & (e.value > 0)], len(texts))
    with_amount = {texts[i] for i in np.flatnonzero(paid).tolist()}
    return sorted(names, key=lambda n: (bool(PAGE_WORDS.search(n)), n not in with_amount, names.index(n)))[:1]


def checked_split(log: Log, split: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """The split if its variants are in the log, with all others of their templates, and its shares add up to 1;
    UsageError otherwise."""
    if split is None:
        return None
    names = log.names("variant")
    for v, p in split.items():
        if v not in names:
            raise UsageError(f"split: variant {v!r} is not in the log; {nearest(v, names)}")
        if not 0 < p <= 1:
            raise UsageError(f"split: the share of {v!r} is {p:g}; expected a number above 0, at most 1")
    total = sum(split.values())
    if abs(total - 1) > 1e-3:
        raise UsageError(f"split: the shares add up to {total:g}; expected 1")
    _whole(log, set(split))
    return {v: p / total for v, p in split.items()}


def _whole(log: Log, split: set[str]) -> None:
    """UsageError where a template of a split's variants has others, that are in no share; held-out users may be."""
    s, names = log.sends, log.names("variant")
    drawn = s.status != HELD_OUT
    pairs = np.unique(np.stack([s.template[drawn], s.variant[drawn]]), axis=1)
    inside = np.isin(pairs[1], [names.index(v) for v in split])
    left = pairs[:, np.isin(pairs[0], pairs[0][inside]) & ~inside]
    if left.size:
        t, v = left[:, 0].tolist()
        n = int((drawn & (s.template == t) & (s.variant == v)).sum())
        raise UsageError(
            f"split: {names[v]!r} has no share, but {n:,} sends of template {log.names('template')[t]!r}; expected a "
            "share for each variant"
        )

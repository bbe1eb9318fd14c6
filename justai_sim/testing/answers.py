"""What a user's attribution answers, in one form, and what the rule answers in the same form."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from justai_sim.attribution import Attribution, Rule, attribute, bind
from justai_sim.errors import JustaiError, NotInLogWarning, UsageError
from justai_sim.tables import CONVERSION, PARTS, REASONS
from justai_sim.testing.draw import Goals
from justai_sim.testing.rows import SmallLog

Answer = dict[tuple[str, ...], float]
"""Credit by (event, send), (event, variant[, template]) or (variant[, template]); nothing is left out but zeros."""

TOLERANCE = 1e-6
SINGLE = ("last_qualifying", "last_then_check", "first_qualifying")
FRACTIONAL = ("linear", "time_decay", "position")

EXPECTED = (
    "expected event_id and send_id, or event_id and variant_id (perhaps template_id), each with weight where it is "
    "not 1, or totals: variant_id (perhaps template_id) and conversions"
)


class WrongAnswerError(Exception):
    """An answer that cannot be read: a finding about the user's function, not a failure of the check."""


@dataclass(frozen=True)
class Form:
    """How a function answers: `columns` are the keys, `value` the column of the credit ('' = 1 a row)."""

    columns: tuple[str, ...]
    value: str

    @property
    def totals(self) -> bool:
        return self.columns[0] == "variant_id"

    @property
    def by_send(self) -> bool:
        return "send_id" in self.columns

    @property
    def by_template(self) -> bool:
        return "template_id" in self.columns

    def __str__(self) -> str:
        return ", ".join([*self.columns, *([self.value] if self.value else [])])


def as_frame(found: Any) -> pd.DataFrame:
    """The answer as a DataFrame; polars and Arrow tables are converted."""
    if isinstance(found, pd.DataFrame):
        return found
    if hasattr(found, "to_pandas"):
        return found.to_pandas()
    raise WrongAnswerError(f"the function returned {type(found).__name__}; expected a DataFrame: {EXPECTED}")


def form_of(frame: pd.DataFrame) -> Form | None:
    """The form of an answer by its columns; None of one without rows and columns, which could be any.

    >>> str(form_of(pd.DataFrame({"event_id": ["e1"], "send_id": ["S1"], "age": [4]})))
    'event_id, send_id'
    >>> form_of(pd.DataFrame({"event": ["e1"], "send": ["S1"]}))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    justai_sim.testing.answers.WrongAnswerError: the answer has the columns event, send; expected ...
    """
    names = [str(c) for c in frame.columns]
    if not names and frame.empty:
        return None
    weight = "weight" if "weight" in names else ""
    template = ("template_id",) if "template_id" in names else ()
    if "event_id" in names and "send_id" in names:
        return Form(("event_id", "send_id"), weight)
    if "event_id" in names and "variant_id" in names:
        return Form(("event_id", "variant_id", *template), weight)
    if "variant_id" in names and "conversions" in names:
        return Form(("variant_id", *template), "conversions")
    raise WrongAnswerError(f"the answer has the columns {', '.join(names) or '(none)'}; {EXPECTED}")


def read_answer(form: Form, found: Any) -> Answer:
    """The answer's credits. A row without a send or variant is an event without credit, as a left join leaves it."""
    frame = as_frame(found)
    mine = form_of(frame)
    if mine is None:
        return {}
    if mine != form:
        raise WrongAnswerError(f"the answer has the columns {mine} on this log, and {form} on another one")
    answer: Answer = {}
    values = frame[form.value].tolist() if form.value else [1.0] * len(frame)
    for key, value in zip(zip(*(frame[c].tolist() for c in form.columns), strict=True), values, strict=True):
        if any(_empty(k) for k in key):
            continue
        try:
            weight = 0.0 if form.totals and _empty(value) else float(value)
        except (TypeError, ValueError):
            raise WrongAnswerError(f"{form.value} of {key} is {value!r}; expected a number") from None
        if not math.isfinite(weight):
            raise WrongAnswerError(f"{form.value} of {key} is {value!r}; expected a number")
        text = tuple(str(k) for k in key)
        answer[text] = answer.get(text, 0.0) + weight
    return {k: v for k, v in answer.items() if abs(v) > TOLERANCE}


def _empty(x: Any) -> bool:
    return x is None or x is pd.NA or x is pd.NaT or x != x or x == ""


@dataclass(frozen=True)
class Judged:
    """A small log under the rule, by the production code."""

    small: SmallLog
    rule: Rule
    result: Attribution
    engagement: bool

    @cached_property
    def reasons(self) -> list[str]:
        """One a row of the events."""
        return [REASONS[r] for r in self.result.reason.tolist()]

    @cached_property
    def credits(self) -> list[tuple[int, int, float]]:
        """(row of the event, row of the send, weight), in this order."""
        c = self.result.credits
        rows = zip(c.event_row.tolist(), c.send_row.tolist(), (c.weight / PARTS).tolist(), strict=True)
        return sorted(rows)

    def counts(self, row: int) -> bool:
        """Whether a credited event of that row is part of the answer: refunds are not, engagement if asked for."""
        conversion = self.small.log.events.kind[row] == CONVERSION
        return self.reasons[row] == "credited" and bool(conversion or self.engagement)

    def answer(self, form: Form) -> Answer:
        """What the rule says, in the function's form."""
        out: Answer = {}
        for e, s, weight in self.credits:
            conversion = self.small.event_rows[e]["kind"] == "conversion"
            if self.counts(e) and (conversion or not form.totals):
                key = self._key(form, e, s)
                out[key] = out.get(key, 0.0) + weight
        return out

    def optional(self, form: Form) -> Answer:
        """Credits that an answer may hold or leave out: a refund with its order's weights, engagement if not asked
        for. Totals hold neither."""
        out: Answer = {}
        for e, s, w in [] if form.totals else self.credits:
            if not self.counts(e):
                key = self._key(form, e, s)
                out[key] = out.get(key, 0.0) + w
        return out

    def _key(self, form: Form, event: int, send: int) -> tuple[str, ...]:
        row = self.small.send_rows[send] | {"event_id": self.small.event_rows[event]["event_id"]}
        return tuple(str(row[c]) for c in form.columns)


def judge(rule: Rule, goals: Goals, small: SmallLog, *, engagement: bool, as_of: int | None = None) -> Judged:
    """The production attribution of a small log."""
    log = small.log
    bound = bind(
        rule, templates=log.names("template") or ["T1"], names=log.names("name"), currencies=log.names("currency"),
        goals=[goals] if isinstance(goals, str) else goals,
    )  # fmt: skip
    return Judged(small, rule, attribute(bound, log.sends, log.events, as_of), engagement)


def differences(mine: Answer, want: Answer, optional: Mapping[tuple[str, ...], float] | None = None) -> Answer:
    """Mine less wanted, where they differ. Keys of `optional` may be absent or right."""
    left_out = {k: v for k, v in (optional or {}).items() if k not in want and k in mine}
    wanted = want | left_out
    keys = sorted(mine.keys() | wanted.keys())
    gaps = {k: mine.get(k, 0.0) - wanted.get(k, 0.0) for k in keys}
    return {k: gap for k, gap in gaps.items() if abs(gap) > TOLERANCE}


@dataclass(frozen=True)
class Subject:
    """The user's function: called with fresh frames, its answers read in one form."""

    function: Callable[..., Any]
    takes_rule: bool
    form: Form

    def __call__(self, small: SmallLog, rule: Rule) -> Answer:
        return read_answer(self.form, call(self.function, self.takes_rule, small, rule))


def call(function: Callable[..., Any], takes_rule: bool, small: SmallLog, rule: Rule) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotInLogWarning)  # few of the small logs hold every goal
        if takes_rule:
            return function(small.sends, small.events, rule=rule)
        return function(small.sends, small.events)


def subject(function: Callable[..., Any], takes_rule: bool, rule: Rule, first: SmallLog) -> Subject:
    """The function with its form, found by a log with one credited purchase.

    UsageError if its answer cannot be read there. Where it fails by an error of its own, the form is not known
    yet; the first form is assumed, and the failure is found again as a law.
    """
    try:
        form = form_of(as_frame(call(function, takes_rule, first, rule)))
    except WrongAnswerError as e:
        raise UsageError(str(e)) from None
    except JustaiError:
        raise
    except Exception:
        form = Form(("event_id", "send_id"), "weight" if rule.credit in FRACTIONAL else "")
    form = form or Form(("event_id", "send_id"), "weight")
    if rule.credit in FRACTIONAL and not form.value:
        raise UsageError(f"the answer has the columns {form}, but credit={rule.credit} splits it; add a column weight")
    return Subject(function, takes_rule, form)

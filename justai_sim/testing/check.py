"""One's own attribution against the rule and its laws; each broken law with its smallest counter-example."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any

from justai_sim.attribution.rule import Rule
from justai_sim.clock import DAY
from justai_sim.errors import UsageError, nearest
from justai_sim.testing.answers import subject
from justai_sim.testing.draw import Goals, Resolution, Seeded, Shape, draw_log, feature_set
from justai_sim.testing.edges import edge_logs
from justai_sim.testing.law import Breach, Context, CrashError, Law
from justai_sim.testing.laws import LAWS
from justai_sim.testing.rows import SmallLog, event_row, send_row
from justai_sim.testing.shrink import smallest
from justai_sim.testing.words import explain

ON_EDGES = ("answers", "agreement")
"""Laws that one answer about a log decides: these are tried on logs written by hand too."""


@dataclass(frozen=True)
class Finding:
    """What became of one law: `examples` logs that it held on before a `breach`, or why it was not checked."""

    law: Law
    examples: int = 0
    breach: Breach | None = None
    left_out: str = ""
    lines: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        return self.breach is not None


@dataclass(frozen=True)
class Report:
    """What `check_attribution` found. `str(report)` says it in words, `raise_if_broken()` is for tests."""

    findings: tuple[Finding, ...]
    subject: str

    @property
    def ok(self) -> bool:
        return not any(f.broken for f in self.findings) and any(f.examples for f in self.findings)

    @property
    def broken(self) -> dict[str, Breach]:
        """The counter-examples by the name of the law: `.small.sends`, `.small.events`, `.answers`."""
        return {f.law.name: f.breach for f in self.findings if f.breach is not None}

    def raise_if_broken(self) -> None:
        """AssertionError with the whole text if a law is broken or nothing was checked."""
        if not self.ok:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        broken = [f for f in self.findings if f.broken]
        n = sum(not f.left_out for f in self.findings)
        out = [f"{self.subject}: " + (f"breaks {len(broken)} of {n} laws" if broken else f"holds all {n} laws")]
        for f in broken:
            out += ["", f"BROKEN {f.law}", *(f"  {line}" for line in f.lines)]
        rest: dict[str, list[str]] = {}
        for f in self.findings:
            if not f.broken:
                what = f"not checked, {f.left_out}" if f.left_out else f"holds on {f.examples:,} logs"
                rest.setdefault(what, []).append(f.law.name)
        out += ["", *(f"{what}: {', '.join(names)}" for what, names in rest.items())]
        return "\n".join(out)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, _, rest = str(self).partition("\n")
        return f"<p><b>{escape(head)}</b></p><pre style='white-space: pre-wrap'>{escape(rest.strip())}</pre>"


def check_attribution(
    function: Callable[..., Any],
    rule: Rule | None = None,
    *,
    features: Collection[str] | str | None = None,
    resolution: Resolution = "microsecond",
    goals: Goals = ("purchase",),
    laws: Collection[str] | None = None,
    max_examples: int = 100,
) -> Report:
    """Hold `function(sends, events)` to the rule and to the laws of attribution.

    It is called with small DataFrames that have the plain log's columns, and returns one of: a row a credit with
    `event_id, send_id`, or with `event_id, variant_id` and perhaps `template_id`, each with `weight` where that is
    not 1; or totals, `variant_id` (perhaps `template_id`) and `conversions`. Rows without send or variant are events
    without credit. Refunds may be left out or have their order's weights; opens, clicks and unsubscribes have the
    rule's credits if `engagement` is among the features, else they may be left out too. A function with a parameter
    `rule` is also held to the laws across windows.

    features: which complications occur (`testing.FEATURES`; None: all but engagement, "all":
    all). resolution: the grid of all times; "day" for
    functions on dates. laws: names of `testing.LAWS` (None: all). max_examples: drawn logs a law; `answers` and
    `agreement` are first tried on at most as many written by hand for the rule's edges. The same call takes the same
    logs. UsageError for options that do not exist and for an answer that cannot be read.

    >>> import justai_sim as js
    >>> def mine(sends, events):
    ...     return js.attribute(js.Rule(), sends, events, goals=["purchase"]).credits
    >>> check_attribution(mine, features=["ties", "late"], max_examples=10).ok
    True
    """
    rule = rule or Rule()
    if max_examples < 1:
        raise UsageError(f"max_examples is {max_examples}; expected at least 1")
    shape = Shape(rule, feature_set(features), resolution, goals)
    takes_rule = _takes_rule(function)
    context = Context(subject(function, takes_rule, rule, _first_log(shape)), rule, shape)
    name = getattr(function, "__name__", type(function).__name__)
    chosen = {law: _left_out(law, context) for law in _chosen(laws)}
    tried = _search([law for law, why in chosen.items() if not why], context, max_examples)
    found = tuple(
        Finding(law, left_out=why) if why else _finding(law, context, tried[law.name]) for law, why in chosen.items()
    )
    return Report(found, f"{name} (answers by {context.subject.form}, resolution {resolution})")


def _takes_rule(function: Callable[..., Any]) -> bool:
    try:
        return "rule" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _chosen(laws: Collection[str] | None) -> list[Law]:
    for name in laws or ():
        if name not in LAWS:
            raise UsageError(f"law {name!r} is not known; {nearest(name, LAWS)}")
    return [law for name, law in LAWS.items() if laws is None or name in laws]


def _first_log(shape: Shape) -> SmallLog:
    """One send and one purchase in its window: what tells the form of the answers."""
    send = send_row("S1", "u1", "A", shape.start, template_id=shape.templates[0], delivered_at=shape.start)
    at = shape.start + (shape.rule.offset + shape.rule.upper) // 2 // DAY * DAY
    return SmallLog([send], [event_row("e1", "u1", at, name=shape.names[0])])


def _left_out(law: Law, c: Context) -> str:
    """Why a law cannot be checked, or ''."""
    return law.needs(c) or ("" if law.cases(c) else "there is no other window to compare with")


@dataclass
class _Tried:
    """What the search saw of one law: logs that it held on, and the smallest on which it broke, with their case."""

    held: int = 0
    failed: tuple[SmallLog, Any] | None = None


def _search(laws: list[Law], c: Context, max_examples: int) -> dict[str, _Tried]:
    """The laws on the rule's edges first, as far as one answer a log decides them, then all laws on the same logs,
    which a seeded generator draws; each law goes through its cases in turn."""
    tried = {law.name: _Tried() for law in laws}
    cases = {law.name: law.cases(c) for law in laws}
    first = [law for law in laws if law.name in ON_EDGES]
    # As many as are drawn at most: who asks for few examples has a slow function.
    by_hand = [(first, small) for small in edge_logs(c.shape)[:max_examples]] if first else []
    drawn = ((laws, draw_log(Seeded(str(number)), c.shape)) for number in range(max_examples))
    for number, (some, small) in enumerate(chain(by_hand, drawn), -len(by_hand)):
        answered = c.look_at(small)
        for law in some:
            if not answered and law.name != "answers":
                continue
            case, found = cases[law.name][number % len(cases[law.name])], tried[law.name]
            if _test(law, c, small, case) is None:
                found.held += not found.failed
            else:
                found.failed = min(found.failed or (small, case), (small, case), key=lambda f: len(f[0]))
    c.memo.clear()
    return tried


def _finding(law: Law, c: Context, tried: _Tried) -> Finding:
    if not tried.failed:
        return Finding(law, tried.held, left_out="" if tried.held else "the function failed on every log")

    first, case = tried.failed

    def broken(other: SmallLog) -> bool:
        return c.shape.allows(other) and _test(law, c, other, case) is not None

    small = smallest(first, broken, c.shape.start)
    breach = _test(law, c, small, case)
    if breach is None:  # the function gives another answer each time
        breach = Breach(small, {}, {}, error="it answers the same log differently at another time")
    lines = explain(breach, c.subject.form.totals, c.shape.goals)
    return Finding(law, tried.held, breach, lines=tuple(lines))


def _test(law: Law, c: Context, small: SmallLog, case: Any) -> Breach | None:
    """The law on one log; a log on which the function fails breaks only the law that says it must not."""
    try:
        return law.test(c, small, case)
    except CrashError:
        return None

"""From differences and checks to one answer: ship, wait, or stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.clock import DAY
from justai_sim.errors import listed, several
from justai_sim.estimate.sequences import sequence_radius
from justai_sim.stats import z_value
from justai_sim.verdicts.compare import LEAST_EARNED, LEAST_SENDS, TUNED, Compared
from justai_sim.verdicts.trust import Check
from justai_sim.whatif.words import ranged

MOST_DAYS = 28
"""The product's advice: four weeks at most."""
MOST_TIMES = 4
"""After these days it is not waited for more than this many times of what has been gathered."""
CANNOT = "Stop: cannot be told"


@dataclass(frozen=True)
class Pace:
    """as_of in microseconds; rate: sends a day at present; mature: sends; pending: sends that will mature, the first
    and the last of them at `first`, `last`."""

    as_of: int
    rate: float
    mature: int
    pending: int
    first: int | None
    last: int | None


@dataclass(frozen=True)
class Answer:
    """kind with `variant` (ship) or `days` (wait); sentence says it, because says how. smallest: the smallest
    difference that is visible now, per 1,000 sends."""

    kind: Literal["ship", "wait", "stop"]
    sentence: str
    because: list[str]
    variant: str | None = None
    days: int | None = None
    leader: str | None = None
    smallest: float | None = None

    @property
    def answer(self) -> str:
        """
        >>> Answer("wait", "", [], days=1).answer, Answer("ship", "", [], variant="b").answer
        ('wait 1 day', 'ship b')
        """
        if self.kind == "ship":
            return f"ship {self.variant}"
        return f"wait {several(self.days or 0, 'day')}" if self.kind == "wait" else "stop: cannot be told"


@dataclass(frozen=True)
class _Top:
    """The pair that decides: the best variant against the reference."""

    row: dict[str, Any]
    ahead: str
    behind: str
    lead: float
    half: float
    told: bool
    unit: str

    @property
    def between(self) -> str:
        """'+4.2 (+1.1 to +7.3) conversions per 1,000 sends'"""
        return f"{said(self.row)} {self.unit} per 1,000 sends"

    @property
    def said(self) -> str:
        return f"{self.row['variant_id']} minus {self.row['against']} is {self.between}"

    @property
    def leads(self) -> str:
        return f"{self.ahead} leads {self.behind} by {self.lead:,.{places(self.half)}f} {self.unit} per 1,000 sends"


def places(half: float) -> int:
    """Decimals that an interval of this half-width deserves."""
    return 0 if half >= 100 else 1 if half >= 1 else 2


def said(row: Mapping[str, Any]) -> str:
    """The difference of a row of `Compared.table` with its interval."""
    half = (row["high_per_1000"] - row["low_per_1000"]) / 2
    return ranged(row["difference_per_1000"], row["low_per_1000"], row["high_per_1000"], places(half))


def decide(
    got: Compared | None, found: Sequence[Check], pace: Pace, *, metric: str, unit: str, rule: Rule, why: str = ""
) -> Answer:
    """The answer. `why`: what kept the log from being compared, where `got` is None."""
    if got is None or not len(got.table):
        return _nothing(got, pace, why)
    top = _top(got, unit)
    smallest = top.half if top.row["ready"] else None
    by = {c.name: c for c in found}

    def stop(reason: str, because: list[str]) -> Answer:
        return Answer("stop", f"{CANNOT}, {reason}.", because, leader=top.ahead, smallest=smallest)

    if by["split"].status == "fail":
        return stop("because the variants do not have the shares they were drawn with", [by["split"].said])
    if by["machines"].status == "fail":
        return stop("because machines make the key metric", [by["machines"].said])
    if not top.told:
        return _wait(got, top, pace, smallest)
    if by["window"].status == "fail":
        return stop("because the leader hangs on the window", [by["window"].said, f"{top.said}."])
    if metric == "revenue_per_send" and by["heavy orders"].status == "fail":
        return stop("because a few orders carry the difference", [
            by["heavy orders"].said, "Judge by conversion_rate, or cap amounts: --set cap=AMOUNT."])  # fmt: skip
    if by["maturity"].status == "fail":
        days = max(math.ceil(rule.lateness_days), 1)
        text = f"Wait {several(days, 'day')}: {top.ahead} is ahead, but its numbers are not settled."
        because = [by["maturity"].said, f"{top.said}."]
        return Answer("wait", text, because, days=days, leader=top.ahead, smallest=smallest)
    return _ship(got, top, smallest)


def _top(got: Compared, unit: str) -> _Top:
    row: dict[str, Any] = {str(k): v for k, v in got.table.iloc[0].items()}
    gain = got.sign * float(row["difference_per_1000"])
    half = (row["high_per_1000"] - row["low_per_1000"]) / 2
    variant = gain > 0
    all_worse = bool((got.table["told"] < 0).all())
    told = bool(row["told"] > 0) or (not variant and all_worse)
    names = str(row["variant_id"]), got.reference
    return _Top(row, *(names if variant else names[::-1]), abs(gain), float(half), told, unit)


def _ship(got: Compared, top: _Top, smallest: float | None) -> Answer:
    because = [f"The interval holds for {_all(got)} and for every day on which one may have looked (95 %)."]
    if top.ahead == got.reference:
        text = f"Ship {top.ahead}: every other variant is worse, the nearest by {top.lead:,.{places(top.half)}f} "
        text += f"{top.unit} per 1,000 sends."
        return Answer("ship", text, [*because, f"{top.said}."], variant=top.ahead, leader=top.ahead, smallest=smallest)
    others = [str(v) for v, t in zip(got.table["variant_id"][1:], got.table["told"][1:], strict=True) if t > 0]
    if others:
        because.append(
            f"{listed(others)} {'is' if len(others) == 1 else 'are'} better than {got.reference}, too; whether "
            f"{top.ahead} is better than {'that' if len(others) == 1 else 'these'} is not told."
        )
    text = f"Ship {top.ahead}: {top.between} against {got.reference}."
    return Answer("ship", text, because, variant=top.ahead, leader=top.ahead, smallest=smallest)


def _all(got: Compared) -> str:
    n = len(got.table)
    return f"all {n} variants together" if n > 2 else "both variants together" if n == 2 else "this pair"


def _wait(got: Compared, top: _Top, pace: Pace, smallest: float | None) -> Answer:
    """Wait for as many days as the present rate of sends asks, or stop where these are too many."""
    rows = int(top.row["rows"])
    share = rows / pace.mature if pace.mature else 1.0
    rate = pace.rate * share

    def days(needed: float) -> float:
        more = needed - rows
        if rate > 0:
            return more / rate
        last = pace.last if more <= pace.pending * share else None
        return math.inf if last is None else (last - pace.as_of) / DAY

    added = f"at present {rate:,.0f} are added a day (the sends of the last 14 days)"
    if not top.row["ready"]:
        return _too_early(top, pace, days(rows_until_ready(top.row)), added)
    needed = rows_needed(top.row, top.lead, got.level)
    likely = days(needed)
    # A difference that is small by chance may still grow: stop only if none that the data allow would be told in time.
    best = min(days(rows_needed(r, lead, got.level)) for r, lead in _allowed(got))
    state = f"{top.leads}, and only {top.half:,.{places(top.half)}f} or more is visible yet"
    takes = f"takes about {needed:,.0f}" if math.isfinite(needed) else "takes more than anybody has"
    because = [
        f"{top.said}.",
        f"At the present difference it {takes} mature sends of all variants, of which {rows:,} are there; {added}.",
    ]
    after = _visible(top, rate, got.level)
    late = rows >= MOST_DAYS * rate and needed > MOST_TIMES * rows
    if best <= MOST_DAYS and not late:
        n = min(max(math.ceil(likely), 1), MOST_DAYS) if math.isfinite(likely) else MOST_DAYS
        if likely > MOST_DAYS:
            because.append(
                f"That is more than {MOST_DAYS} days, but the difference may be larger than it looks.{after}"
            )
        return Answer("wait", f"{_until(n, pace)}: {state}.", because, days=n, leader=top.ahead, smallest=smallest)
    why = (
        f"Even the largest difference that the data allow (95 %) would take more than {MOST_DAYS} days, the product's "
        "advice."
        if best > MOST_DAYS
        else f"{MOST_DAYS} days, the product's advice, are gathered, and it takes more than {MOST_TIMES} times as much."
    )
    because.append(why + after)
    ends = f"at the present rate it takes {_many(likely)} more days" if rate > 0 else "the sends have stopped"
    return Answer("stop", f"{CANNOT}: {state}; {ends}.", because, leader=top.ahead, smallest=smallest)


def _allowed(got: Compared) -> list[tuple[dict[str, Any], float]]:
    """The lead over the reference that each variant's own 95 % interval allows, and that of the reference over all."""
    rows = [{str(k): v for k, v in r.items()} for r in got.table.to_dict("records") if r["ready"]]
    gain = [got.sign * r["difference_per_1000"] for r in rows]
    room = [z_value(0.95) * r["se_per_1000"] for r in rows]
    last = gain.index(max(gain))  # the last variant to be told to be worse
    return [*zip(rows, np.add(gain, room).tolist(), strict=True), (rows[last], room[last] - gain[last])]


def _too_early(top: _Top, pace: Pace, days: float, added: str) -> Answer:
    r = top.row
    least = min((r["sends"], r["variant_id"]), (r["against_sends"], r["against"]))
    state = f"{least[0]:,} mature sends of {least[1]} are too few"
    because = [
        f"Variants are told apart from {LEAST_SENDS:,} mature sends of each on, {LEAST_EARNED} of them with an outcome "
        f"at the common rate; {added}."
    ]
    if days <= MOST_DAYS:
        n = max(math.ceil(days), 1)
        return Answer("wait", f"{_until(n, pace)}: {state}.", because, days=n, leader=top.ahead)
    if not r["earned"] > 0:
        return Answer("stop", f"{CANNOT}: no mature send has an outcome (see justai-sim doctor).", because)
    ends = f"at the present rate it takes {_many(days)} more days" if math.isfinite(days) else "the sends have stopped"
    because.append(f"More than {MOST_DAYS} days are beyond the product's advice.")
    return Answer("stop", f"{CANNOT}: {state}; {ends}.", because, leader=top.ahead)


def _until(n: int, pace: Pace) -> str:
    return f"Wait {several(n, 'day')}, until {clock.iso(pace.as_of + n * DAY)[:10]}"


def _many(days: float) -> str:
    """
    >>> _many(31.2), _many(5000)
    ('32', 'more than 1,000')
    """
    return f"{math.ceil(days):,}" if days <= 1000 else "more than 1,000"


def _visible(top: _Top, rate: float, level: float) -> str:
    if not top.row["ready"] or not rate > 0:
        return ""
    n = np.array([top.row["rows"] + MOST_DAYS * rate])
    sd = float(top.row["se_per_1000"]) * math.sqrt(top.row["rows"])
    half = float(sequence_radius(sd / np.sqrt(n), n, level, TUNED)[0])
    return (
        f" After {MOST_DAYS} days a difference of {half:,.{places(half)}f} {top.unit} per 1,000 sends would be visible."
    )


def rows_needed(row: Mapping[str, Any], lead: float, level: float) -> float:
    """Mature sends at which the interval would leave out 0 with this lead per 1,000 and the spread of `row`; inf for
    none."""
    rows = int(row["rows"])
    sd = float(row["se_per_1000"]) * math.sqrt(rows)
    n = rows * np.exp2(np.linspace(0, 24, 24 * 64 + 1))
    far = sequence_radius(sd / np.sqrt(n), n, level, TUNED) <= lead
    return float(n[far.argmax()]) if far.any() else math.inf


def rows_until_ready(row: Mapping[str, Any]) -> float:
    """Mature sends until the pair begins to be told, with its present shares and rate of outcomes."""
    least = min(row["sends"], row["against_sends"])
    earned = least * row["earned"]
    if not earned > 0:
        return math.inf
    return float(row["rows"] * max(LEAST_SENDS / least, LEAST_EARNED / earned))


def _nothing(got: Compared | None, pace: Pace, why: str) -> Answer:
    """There is no pair: too early, or for good."""
    if not pace.mature and pace.first is not None:
        days = max(math.ceil((pace.first - pace.as_of) / DAY), 1)
        on = clock.iso(pace.first)[:10]
        text = f"Wait {several(days, 'day')}: no send is mature yet, the first ones will be on {on}."
        because = ["Only sends count whose window has closed, and whose conversions had time to be heard of."]
        return Answer("wait", text, because, days=days)
    if got is None:
        return Answer("stop", f"{CANNOT}: {why}.", [])
    return Answer("stop", f"{CANNOT}: no template has two variants to compare.", [])

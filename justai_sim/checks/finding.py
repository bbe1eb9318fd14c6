"""What a check says: a finding, or why it could not look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from justai_sim.stats import wilson

Severity = Literal["wrong", "doubtful", "note"]
SEVERITIES: tuple[Severity, ...] = ("wrong", "doubtful", "note")
"""`wrong`: numbers are empty or wrong until it is mended. `doubtful`: they may mislead. `note`: by design, but it
explains what is seen."""
LEVEL = 1e-4
"""Chance with which a clean log may raise one check that tests for chance: a check shares it out over its looks
(Bonferroni), so that the whole list raises a false alarm in about one log of a thousand."""
Number: TypeAlias = "float | int | str"


@dataclass(frozen=True)
class Finding:
    """One line of the list. `sentence` says what is the matter with its number, `next_step` what to do; `numbers`
    holds the same for programs (times in ISO-8601, shares from 0 to 1)."""

    name: str
    severity: Severity
    sentence: str
    next_step: str
    numbers: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class NotChecked:
    """What could not be looked at, and why."""

    name: str
    why: str


Said: TypeAlias = "Finding | NotChecked"


def at_least(part: int, whole: int) -> float:
    """The share part / whole that is certain at LEVEL: the lower end of its Wilson interval, 0 without any.

    >>> round(at_least(10, 100), 3), at_least(0, 0)
    (0.033, 0.0)
    """
    return float(wilson(part, whole, 1 - 2 * LEVEL)[0]) if whole else 0.0


def percent(part: float, whole: float = 1.0) -> str:
    """'12 %', '0.4 %', 'under 0.1 %'.

    >>> percent(12, 100), percent(4, 1000), percent(1, 100_000), percent(0.9996)
    ('12 %', '0.4 %', 'under 0.1 %', '99.9 %')
    """
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "under 0.1 %"
    if 99.5 <= share < 100:
        return f"{min(share, 99.9):.1f} %"
    return f"{share:.0f} %" if share >= 9.95 or share == 0 else f"{share:.1f} %"


def count(n: int, what: str) -> str:
    """'1 send', '1,200 sends'; `what` in the singular.

    >>> count(1, "send"), count(1200, "open"), count(2, "copy")
    ('1 send', '1,200 opens', '2 copies')
    """
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{n:,} {what if n == 1 else many}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names from a log, quoted so that no control character reaches a terminal; the first `most` of them.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d"])
    ("'a' and 'b'", "'a', 'b', 'c' and 1 more")
    """
    shown = [repr(n) for n in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def spread(hours: float) -> str:
    """A length of time in hours as people say it.

    >>> spread(30), spread(75)
    ('30 hours', '3.1 days')
    """
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.1f} days"


def exceeding(p: float) -> str:
    """A chance in words, for sentences: 'less than 1 in 10^12', '1 in 20,000'."""
    if p < 1e-12:
        return "less than 1 in 10^12"
    return f"1 in {float(f'{1 / p:.2g}'):,.0f}" if p < 0.5 else "about even"

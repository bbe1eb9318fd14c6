"""The answer of a verdict, and what it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from justai_sim.attribution import Rule
from justai_sim.errors import listed, several
from justai_sim.verdicts.compare import Compared
from justai_sim.verdicts.pace import Flow
from justai_sim.whatif.words import ranged


@dataclass(frozen=True)
class Given:
    """What the answer is made from, besides the checks. tables: of several templates, each by itself (`Compared.table`
    with `template_id`); flows: of the variants that are sent at present; mature: sends; why: what kept the log from
    being compared, where `got` is None; as_of in microseconds."""

    got: Compared | None
    tables: pd.DataFrame
    flows: Mapping[str, Flow]
    mature: int
    as_of: int
    metric: str
    unit: str
    rule: Rule
    why: str = ""


@dataclass(frozen=True)
class Answer:
    """kind with `variant` (ship) or `days` (wait); sentence says it, because says how. smallest: the smallest
    difference that is visible now, per 1,000 sends. not_in: templates in which the variant is not to be shipped;
    perhaps: variants that may be better still."""

    kind: Literal["ship", "wait", "stop"]
    sentence: str
    because: list[str]
    variant: str | None = None
    days: int | None = None
    leader: str | None = None
    smallest: float | None = None
    not_in: list[str] = field(default_factory=list)
    perhaps: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """
        >>> Answer("wait", "", [], days=1).answer, Answer("ship", "", [], variant="b").answer
        ('wait 1 day', 'ship b')
        """
        if self.kind == "ship":
            return f"ship {self.variant}{f', not in {listed(self.not_in)}' if self.not_in else ''}"
        return f"wait {several(self.days or 0, 'day')}" if self.kind == "wait" else "stop: cannot be told"


@dataclass(frozen=True)
class Top:
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

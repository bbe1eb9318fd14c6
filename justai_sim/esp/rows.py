"""What an adapter makes of its provider's bytes: text rows, rejects with a reason, counts of what it skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from justai_sim.clock import MISSING
from justai_sim.esp import limits

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 20_000
"""Rows (or rejects) of one batch of `read`."""
NO_SENDS = "deliveries but no send event; --esp segment-deliveries reads them as sends"
"""A note of a reader; it counts only if the whole log has no sends."""


class SendRow(NamedTuple):
    """One send as text. Times are microseconds; `MISSING` where unknown; '' for a missing id."""

    send_id: str
    user_id: str
    template_id: str
    variant_id: str
    sent_at: int
    delivered_at: int = MISSING
    status: str = "sent"
    status_known_at: int = MISSING
    received_at: int = MISSING
    decided_at: int = MISSING
    propensity: float = float("nan")
    segment: str = ""


class EventRow(NamedTuple):
    """One event as text. `value` in micro-units, `MISSING` where there is none; machine 1, 0 or -1 unknown."""

    event_id: str
    user_id: str
    kind: str
    occurred_at: int
    name: str = ""
    received_at: int = MISSING
    value: int = MISSING
    currency: str = ""
    send_id: str = ""
    order_id: str = ""
    template_id: str = ""
    variant_id: str = ""
    machine: int = -1


class DecisionRow(NamedTuple):
    """One choice as text."""

    decision_id: str
    user_id: str
    template_id: str
    variant_id: str
    decided_at: int
    propensity: float = float("nan")
    mode: str = "policy"
    segment: str = ""


class Reject(NamedTuple):
    """A row that could not be read: where, a typed reason, a sentence, and its raw bytes as text."""

    place: str
    reason: str
    message: str
    raw: str


OTHERS = "(others)"


class Counts(Counter[str]):
    """A counter of names that come from outside: after `limits.KINDS` of them new ones count as others."""

    def __missing__(self, key: str) -> int:
        if len(self) > limits.KINDS and key != OTHERS:
            newest = next(k for k in reversed(self) if k != OTHERS)
            self[OTHERS] += self.pop(newest)
        return 0

    def add(self, found: Mapping[str, int]) -> None:
        """As `update`, within the bound."""
        for key, n in found.items():
            self[key] += n


@dataclass
class Rows:
    """What was read so far. Adapters append; nothing is dropped without a reject or a skip count."""

    sends: list[SendRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    decisions: list[DecisionRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counts)
    notes: Counter[str] = field(default_factory=Counts)
    held: int = field(default=0, compare=False)
    """Bytes of input that the rows were made of, as far as they are counted, and of raw text in the rejects."""
    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    """More rows of each table, as text tables (see `coding.text_schema`): what is read a column at a time."""

    def reject(self, place: str, reason: str, message: str, raw: str = "") -> None:
        self.held += len(raw)
        self.rejects.append(Reject(place, reason, message, raw))

    def __len__(self) -> int:
        listed = len(self.sends) + len(self.events) + len(self.decisions)
        return listed + sum(t.num_rows for tables in self.tables.values() for t in tables)


class Batches:
    """The batch being filled; `full` hands out what is to be yielded."""

    def __init__(self) -> None:
        self.rows = Rows()

    def current(self) -> Rows:
        return self.rows

    def full(self) -> Iterator[Rows]:
        rows = self.rows
        if len(rows) >= BATCH or len(rows.rejects) >= BATCH or rows.held >= limits.HELD:
            yield self.take()

    @property
    def most(self) -> int:
        """Rows of a batch."""
        return BATCH

    @property
    def room(self) -> int:
        """Rows until the batch is full, at least one."""
        return max(1, BATCH - len(self.rows))

    def take(self) -> Rows:
        rows, self.rows = self.rows, Rows()
        return rows

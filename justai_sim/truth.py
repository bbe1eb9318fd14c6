"""Which cause each simulated event has. Production code cannot import this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from justai_sim.clock import MISSING
from justai_sim.tables import I4, I8, NONE, Column, Events, Sends, Table


@dataclass(frozen=True, repr=False)
class Truth(Table):
    """One row a conversion that happened (or a refund: a negative value): its cause is a send, or nothing (organic)."""

    event: I8
    rep: I4
    cause: I8
    occurred_at: I8
    value: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        Column("event", "int64", "id", "event code", None, "event_id", "event"),
        Column("rep", "int32", "number", "replication", None),
        Column("cause", "int64", "id", "send that caused it; missing: organic", NONE, "cause_send_id", "send"),
        Column("occurred_at", "int64", "time", "when it happened", None),
        Column("value", "int64", "money", "what was paid; negative: refund", MISSING),
    )


@dataclass(frozen=True)
class Unheard:
    """Rows that nobody has heard of by the end of a run: sends whose webhooks were lost (no receipt) or are on their
    way, and events that are on their way, each with the true event that it tells of (as `origin` in a block)."""

    sends: Sends
    events: Events
    origin: I8


@dataclass(frozen=True)
class Behind:
    """What is true behind the sends and events of a log."""

    truth: Truth
    origin: I8
    """The true event that each event row tells of, shape (rows,); NONE: of nothing that happened."""
    unheard: Unheard

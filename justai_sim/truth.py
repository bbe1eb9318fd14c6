"""Which cause each simulated event has. Production code cannot import this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from justai_sim.tables import I4, I8, NONE, Column, Table


@dataclass(frozen=True)
class Truth(Table):
    """One row a conversion that happened: its cause is a send, or nothing (organic)."""

    event: I8
    rep: I4
    cause: I8
    occurred_at: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        Column("event", "int64", "id", "event code", None, "event_id", "event"),
        Column("rep", "int32", "number", "replication", None),
        Column("cause", "int64", "id", "send that caused it; missing: organic", NONE, "cause_send_id", "send"),
        Column("occurred_at", "int64", "time", "when it happened", None),
    )

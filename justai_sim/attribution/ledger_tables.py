"""What a settle of the ledger returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from justai_sim.tables import I8, Column, Table


def _int(name: str, meaning: str) -> Column:
    return Column(name, "int64", "number", meaning, None)


_EVENT_KEY = (
    _int("rep", "replication of the event"),
    _int("user", "user code on the event; -1: missing"),
    _int("event", "event code"),
    _int("serial", "number of the event row, in the order of ingestion from 0"),
)


@dataclass(frozen=True)
class Changes(Table):
    """One row a change: add `weight` to what (event, send) has."""

    rep: I8
    user: I8
    event: I8
    serial: I8
    send: I8
    weight: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        *_EVENT_KEY,
        _int("send", "send code, of the same replication"),
        _int("weight", "signed parts of 1e9"),
    )


@dataclass(frozen=True)
class Reasons(Table):
    """One row an event whose reason was set or changed."""

    rep: I8
    user: I8
    event: I8
    serial: I8
    reason: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (*_EVENT_KEY, _int("reason", "index in REASONS"))


@dataclass(frozen=True)
class Finals(Table):
    """One row a send whose value has become final (rule 34; refunds and `once_per_user` apart)."""

    rep: I8
    send: I8
    weight: I8
    numerator: I8
    revenue: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        _int("rep", "replication of the send"),
        _int("send", "send code"),
        _int("weight", "credited conversions, parts of 1e9, refunds apart"),
        _int("numerator", "what enters the conversion rate (`repeat`), parts of 1e9"),
        _int("revenue", "credited revenue net of refunds, micro-units; no cap"),
    )


class Settlement(NamedTuple):
    """What a settle found out."""

    now: int
    changes: Changes
    final: Finals
    reasons: Reasons


class Memory(NamedTuple):
    """What a ledger holds."""

    open_sends: int
    open_events: int
    sends: int
    events: int
    """Rows remembered, the open ones included."""
    orders: int
    """Distinct rows of orders among them."""
    users: int
    waiting: int
    """Rows ingested that no settle has taken yet."""
    bytes: int

"""Small logs as plain rows, and the same as DataFrames and as coded tables.

A row is a dict with the plain log's columns (README, "Your log"). Times are integer microseconds UTC,
`value` is in micro-units of money, a missing id is '', any other missing value None; `machine` is 1, 0 or -1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from justai_sim import frames
from justai_sim.clock import MISSING
from justai_sim.tables import CODE_SPACES, KINDS, STATUSES, Codes, Decisions, Events, Log, Sends, TextCodes

Row = dict[str, Any]


def send_row(send_id: str, user_id: str, variant_id: str, sent_at: int, **more: Any) -> Row:
    """A send with every column, of template T1 unless `more` says otherwise."""
    return {
        "send_id": send_id,
        "user_id": user_id,
        "template_id": "T1",
        "variant_id": variant_id,
        "sent_at": sent_at,
        "delivered_at": None,
        "status": "sent",
        "status_known_at": None,
        "received_at": None,
    } | more


def event_row(event_id: str, user_id: str, occurred_at: int, **more: Any) -> Row:
    """An event with every column, a purchase unless `more` says otherwise."""
    return {
        "event_id": event_id,
        "user_id": user_id,
        "kind": "conversion",
        "occurred_at": occurred_at,
        "name": "purchase",
        "received_at": None,
        "value": None,
        "currency": "",
        "send_id": "",
        "order_id": "",
        "template_id": "",
        "variant_id": "",
        "machine": -1,
    } | more


@dataclass(frozen=True)
class SmallLog:
    """A few sends and events.

    >>> log = SmallLog([send_row("S1", "u1", "A", 0)], [event_row("e1", "u1", 5, value=20_000_000)])
    >>> log.sends["variant_id"].tolist(), log.events["value"].tolist()
    (['A'], [20.0])
    """

    send_rows: list[Row]
    event_rows: list[Row]

    @cached_property
    def log(self) -> Log:
        """The coded tables, rows in their order."""
        return to_log(self.send_rows, self.event_rows)

    @cached_property
    def _frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return frames.to_frame(self.log, "sends"), frames.to_frame(self.log, "events")

    @property
    def sends(self) -> pd.DataFrame:
        """A fresh DataFrame of the sends, as `frames.to_frame` makes them of any log."""
        return self._frames[0].copy()

    @property
    def events(self) -> pd.DataFrame:
        return self._frames[1].copy()

    def __len__(self) -> int:
        return len(self.send_rows) + len(self.event_rows)


def heard(row: Row) -> int:
    """When the row became known: `received_at`, else its own time."""
    own = row["sent_at"] if "sent_at" in row else row["occurred_at"]
    return int(own if row["received_at"] is None else row["received_at"])


def known_at(log: SmallLog, t: int) -> SmallLog:
    """The rows received by `t`; a status that was learned later is not yet on its row."""
    sends = []
    for row in log.send_rows:
        if heard(row) > t:
            continue
        later = row["status_known_at"] is not None and row["status_known_at"] > t
        sends.append(row | {"status": "sent", "status_known_at": None} if later else row)
    return SmallLog(sends, [e for e in log.event_rows if heard(e) <= t])


def _or_missing(values: Iterable[int | None]) -> list[int]:
    return [MISSING if v is None else v for v in values]


def to_log(sends: list[Row], events: list[Row]) -> Log:
    """Coded tables of the rows, in their order; every id named on an event has a code, known or not.

    received_at defaults to the row's own time, status_known_at to received_at; rep is 0.
    """
    s = {k: [r[k] for r in sends] for k in (sends[0] if sends else ())}
    e = {k: [r[k] for r in events] for k in (events[0] if events else ())}
    spaces = {
        "user": "user_id", "send": "send_id", "event": "event_id", "order": "order_id", "template": "template_id",
        "variant": "variant_id", "name": "name", "currency": "currency",
    }  # fmt: skip
    code = {
        space: TextCodes.of([*s.get(spaces.get(space, ""), ()), *e.get(spaces.get(space, ""), ())])
        for space in CODE_SPACES
    }
    received = [heard(r) for r in sends]
    status_known = [
        at if r["status_known_at"] is None else r["status_known_at"] for r, at in zip(sends, received, strict=True)
    ]
    send_table = Sends.build(
        len(sends),
        **{name: code[name].codes(s.get(f"{name}_id", ())) for name in ("send", "user", "template", "variant")},
        sent_at=s.get("sent_at", []),
        delivered_at=_or_missing(s.get("delivered_at", ())),
        status=[STATUSES.index(x) for x in s.get("status", ())],
        status_known_at=status_known,
        received_at=received,
    )
    ids = ("event", "user", "send", "order", "template", "variant")
    event_table = Events.build(
        len(events),
        **{name: code[name].codes(e.get(f"{name}_id", ())) for name in ids},
        kind=[KINDS.index(x) for x in e.get("kind", ())],
        name=code["name"].codes(e.get("name", ())),
        occurred_at=e.get("occurred_at", []),
        received_at=[heard(r) for r in events],
        value=_or_missing(e.get("value", ())),
        currency=code["currency"].codes(e.get("currency", ())),
        machine=e.get("machine", []),
    )
    codes: dict[str, Codes] = {**code}
    return Log(send_table, event_table, Decisions.empty(), codes)

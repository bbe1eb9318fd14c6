"""A clean log for the tests of the doctor, made fast, and ways to plant a fault in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from justai_sim.clock import DAY, HOUR, MINUTE, MISSING, SECOND
from justai_sim.tables import (
    CLICK,
    CODE_SPACES,
    CONVERSION,
    DELIVERY,
    OPEN,
    Codes,
    Decisions,
    Events,
    Log,
    MadeCodes,
    Sends,
    TextCodes,
)

T0 = 1_767_571_200_000_000
DAYS = 56
SHARES = {"a": 0.45, "b": 0.45, "control": 0.10}


def clean_log(seed: int = 0, users: int = 3000, *, effect: float = 0.15, background: float = 0.0001) -> Log:
    """Users who get two templates some days apart, drawn with logged propensities; one in ten users is held out.

    Opens and clicks name their send; purchases come 3 to 14 days after it, a few at any time. Nothing is wrong with it.
    """
    rng = np.random.default_rng(seed)
    joined = rng.integers(7 * DAY, (DAYS - 20) * DAY, users)
    user = np.repeat(np.arange(users), 2)
    template = np.tile([0, 1], users)
    sent = T0 + joined[user] + template * 6 * DAY
    held = rng.random(users)[user] < 0.1
    shares = np.array(list(SHARES.values()))
    variant = np.where(held, 3, rng.choice(3, len(user), p=shares))
    order = np.argsort(sent, kind="stable")
    user, template, sent, held, variant = user[order], template[order], sent[order], held[order], variant[order]
    n = len(user)
    sends = Sends.build(
        n, send=np.arange(n), user=user, template=template, variant=variant, sent_at=sent,
        received_at=sent + rng.integers(1, 60, n) * SECOND, status=np.where(held, 4, 0),
        propensity=np.where(held, np.nan, np.append(shares, np.nan)[variant]),
    )  # fmt: skip
    real = np.flatnonzero(~held)
    parts: list[dict[str, Any]] = []

    def add(kind: int, at: Any, who: Any, **more: Any) -> None:
        keep = at < T0 + DAYS * DAY
        columns = {"kind": np.full(len(at), kind), "occurred_at": at, "user": who, **more}
        parts.append({k: np.broadcast_to(v, len(at))[keep] for k, v in columns.items()})

    add(DELIVERY, sent[real] + rng.integers(5, 90, len(real)) * SECOND, user[real], send=real)
    opened = real[rng.random(len(real)) < 0.3]
    at = sent[opened] + 20 * SECOND + (rng.exponential(6, len(opened)) * HOUR).astype(np.int64)
    add(OPEN, at, user[opened], send=opened, machine=0)
    clicked = rng.random(len(opened)) < 0.4
    add(CLICK, at[clicked] + 10 * MINUTE, user[opened[clicked]], send=opened[clicked], machine=0)
    bought = real[rng.random(len(real)) < effect]
    at = sent[bought] + rng.integers(3 * DAY, 13 * DAY, len(bought))
    add(CONVERSION, at, user[bought], name=0, value=rng.integers(5, 90, len(bought)) * 1_000_000)
    organic = rng.integers(0, users, rng.poisson(users * DAYS * background))
    at = T0 + rng.integers(0, DAYS * DAY, len(organic))
    add(CONVERSION, at, organic, name=0, value=rng.integers(5, 90, len(organic)) * 1_000_000)
    holes = {"name": -1, "value": MISSING, "machine": -1, "send": -1}
    columns = {
        k: np.concatenate([p.get(k, np.full(len(p["kind"]), holes.get(k, 0))) for p in parts])
        for k in ("kind", "occurred_at", "user", "name", "value", "machine", "send")
    }
    m = len(columns["kind"])
    received = columns["occurred_at"] + rng.integers(1, 300, m) * SECOND
    events = Events.build(m, event=np.arange(m), received_at=received, order=-1, **columns)
    codes: dict[str, Codes] = {s: TextCodes.of([]) for s in CODE_SPACES}
    codes |= {
        "user": MadeCodes.of("u%07d", users), "send": MadeCodes.of("s%08d", n),
        "event": MadeCodes.of("e%08d", 4 * m), "template": TextCodes(["t1", "t2"]),
        "variant": TextCodes([*SHARES, "held_out"]), "name": TextCodes(["purchase"]),
    }  # fmt: skip
    return Log(sends, events, Decisions.empty(), codes, source="made")


def with_sends(log: Log, **columns: Any) -> Log:
    """The log with some columns of its sends replaced."""
    return replace(log, sends=log.sends.with_(**columns))


def with_events(log: Log, **columns: Any) -> Log:
    return replace(log, events=log.events.with_(**columns))


def without_events(log: Log, lost: Any) -> Log:
    return replace(log, events=log.events.take(~lost))


def without_sends(log: Log, lost: Any) -> Log:
    return replace(log, sends=log.sends.take(~lost))


def more_events(log: Log, rows: Any, **columns: Any) -> Log:
    """The log with copies of some event rows, changed in `columns`."""
    more = log.events.take(rows)
    return replace(log, events=Events.concat([log.events, more.with_(**columns)]))


def named(log: Log, *names: str) -> Log:
    """The log with these conversion names."""
    return replace(log, codes={**log.codes, "name": TextCodes(list(names))})

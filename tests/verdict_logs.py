"""Logs of users who each get one template daily or once, whose variants differ as told; made fast, for the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np

from justai_sim.clock import DAY, HOUR, MINUTE, MISSING, SECOND
from justai_sim.tables import (
    CODE_SPACES,
    CONVERSION,
    Codes,
    Decisions,
    Events,
    Log,
    MadeCodes,
    Sends,
    TextCodes,
)

T0 = 1_767_571_200_000_000
"""2026-01-05, a midnight UTC."""
NAMES = ("a", "b", "control")


def made_log(
    seed: int = 0, *, rates: tuple[float, ...] = (0.04, 0.04, 0.04), shares: Any = (0.45, 0.45, 0.10),
    per_day: int = 300, days: int = 56, users: int | None = None, sticky: bool = False, propensities: bool = True,
    daily: Any = 1.0, names: tuple[str, ...] = NAMES, learn: bool = False, amounts: Any = None, templates: int = 1,
) -> Log:  # fmt: skip
    """A send a row; its user buys with the variant's rate (times `daily`, by day), 3 to 14 days later.

    users: how many there are (default: one a send); sticky: each keeps its first variant. shares: of the variants, or
    (days, variants). learn: after each day Thompson sampling sets the treatments' shares from all outcomes so far.
    amounts: what an order brings, drawn by `amounts(rng, n)`.
    """
    rng = np.random.default_rng(seed)
    n, K = per_day * days, len(names)
    day = np.repeat(np.arange(days), per_day)
    user = np.arange(n) if users is None else rng.integers(0, users, n)
    share = np.broadcast_to(np.asarray(shares, float), (days, K)).copy()
    rate = np.outer(np.broadcast_to(np.asarray(daily, float), days), rates)
    draw, luck = rng.random(n), rng.random(n)
    arm, bought = np.zeros(n, np.int64), np.zeros(n, bool)
    y, m = np.zeros(K), np.zeros(K)
    for d in range(days):  # shares stand still within a day
        if learn and d:
            theta = rng.beta(1 + y, 1 + m - y, (2000, K))
            theta[:, -1] = -1
            best = np.bincount(theta.argmax(1), minlength=K)[:-1] / 2000
            share[d, :-1] = 0.9 * (0.02 + best * (1 - 0.02 * (K - 1)))
        rows = slice(d * per_day, (d + 1) * per_day)
        arm[rows] = np.searchsorted(np.cumsum(share[d]), draw[rows], side="right").clip(0, K - 1)
        bought[rows] = luck[rows] < rate[d][arm[rows]]
        y += np.bincount(arm[rows], bought[rows], K)
        m += np.bincount(arm[rows], minlength=K)
    if sticky:
        _, first, code = np.unique(user, return_index=True, return_inverse=True)
        arm = arm[first][code]
        bought = luck < rate[day, arm]
        share = share[day[first][code]]
    else:
        share = share[day]
    sent = T0 + day * DAY + rng.integers(0, 24 * 60, n) * MINUTE
    sends = Sends.build(
        n, send=np.arange(n), user=user, template=np.arange(n) % templates, variant=arm, sent_at=sent,
        received_at=sent + SECOND, propensity=share[np.arange(n), arm] if propensities else np.nan,
    )  # fmt: skip
    who = np.flatnonzero(bought)
    at = sent[who] + 3 * DAY + (rng.random(len(who)) * 11 * 24 * HOUR * 0.999).astype(np.int64)
    value = np.full(len(who), MISSING) if amounts is None else np.round(amounts(rng, len(who)) * 1e6).astype(np.int64)
    k = len(who)
    events = Events.build(
        k, event=np.arange(k), user=user[who], kind=CONVERSION, name=0, occurred_at=at, received_at=at + MINUTE,
        value=value, order=-1, send=-1,
    )  # fmt: skip
    codes: dict[str, Codes] = {s: TextCodes.of([]) for s in CODE_SPACES}
    codes |= {
        "user": MadeCodes.of("u%07d", int(user.max()) + 1), "send": MadeCodes.of("s%08d", n),
        "event": MadeCodes.of("e%08d", max(k, 1)), "template": TextCodes([f"t{i}" for i in range(templates)]),
        "variant": TextCodes(list(names)), "name": TextCodes(["purchase"]),
    }  # fmt: skip
    return Log(sends, events, Decisions.empty(), codes, source="made")

"""What messages add by days since the send, as frames; and the age profile of the same sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.attribution import Attribution, Rule
from justai_sim.clock import DAY, MISSING
from justai_sim.estimate import delay
from justai_sim.estimate.age import FIRST_AGE, LAST_AGE, age_profile, countable, send_weights
from justai_sim.loop.replay import with_decisions
from justai_sim.tables import B1, HELD_OUT, I8, Log

GROUPS = 50
"""Random groups of users behind the intervals of the delay curves."""
FEW_FOLLOW = 0.05
"""Share of sends that follow others of their user, up to which the level before a send is about the background."""
TOGETHER = "ALL"
"""All variants that are shown, each message counting the same."""


@dataclass(frozen=True)
class Delays:
    """curves: `variant_id, age_day, effect, low, high, background, source`: what a message has added by the end of that
    day of age (0: nothing yet), conversions per message over the background, with a band that holds a whole curve
    at 95 %; the background in conversions per user-day and where it comes from (`holdout`, `before` the first
    message, `upper` bound). captured: per variant and for all, `variant_id, sends, total, window, share`, each with
    `_low, _high` (95 %): what it adds within the last age and inside the window, and the part that the window
    sees; share is missing where it cannot be told. background: the source in words; warnings: sentences."""

    curves: pd.DataFrame
    captured: pd.DataFrame
    background: str
    warnings: list[str]


def delays(log: Log, got: Attribution, keep: B1, group: I8, same_mix: bool = True) -> Delays:
    """The delay curves of the sends in `keep`, seen through the rule's window; both by row. Without `same_mix`, where
    shares of variants changed between templates or days, nothing is said of one variant against another."""
    rule: Rule = got.rule
    found = delay.fit_log(log, got, keep, group % GROUPS, GROUPS)
    if found is None:
        why = (
            "What messages add cannot be told: they have not been followed long enough, or each user has so many that "
            "their effects overlap."
        )
        return Delays(pd.DataFrame(columns=CURVES), pd.DataFrame(columns=CAPTURED), "", [why])
    fitted, shown = found
    names = [log.names("variant")[v] for v in shown]
    window = rule.offset_days, rule.upper_days
    look = delay.Window(fitted, *window, len(shown))
    curves = []
    for i, name in enumerate(names):
        effect, low, high = delay.curve(fitted, i)
        columns = {"variant_id": name, "age_day": np.arange(len(effect)), "effect": effect, "low": low, "high": high}
        curves.append(pd.DataFrame(columns | {"background": fitted.background, "source": fitted.kind}))
    captured = [_row(look.captured(i), name) for i, name in [*enumerate(names), (-1, TOGETHER)]]
    said = delay.warnings(look, names, *window, same_mix=same_mix)
    table = pd.DataFrame(captured, columns=CAPTURED)
    return Delays(pd.concat(curves, ignore_index=True), table, delay.background_words(fitted), said)


CURVES = ["variant_id", "age_day", "effect", "low", "high", "background", "source"]
CAPTURED = ["variant_id", "sends", *(f"{v}{s}" for v in ("total", "window", "share") for s in ("", "_low", "_high"))]


def _row(got: delay.Captured, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"variant_id": name, "sends": got.sends}
    for key in ("total", "window", "share"):
        v = getattr(got, key)
        ends = (np.nan,) * 3 if v is None else (v.value, v.low, v.high)
        row |= dict(zip((key, f"{key}_low", f"{key}_high"), ends, strict=True))
    return row


def overlapping(log: Log, keep: B1) -> bool:
    """Whether more than a few of the sends in `keep` follow another to the same user, whose effects are then part of
    the level before the send."""
    s = log.sends
    real = s.status != HELD_OUT
    order = np.lexsort((s.sent_at, np.where(real, s.user, -1)))
    order = order[real[order]]
    after = np.zeros(len(s), bool)
    gap, same = np.diff(s.sent_at[order]), np.diff(s.user[order]) == 0
    after[order[1:]] = same & (gap > 0) & (gap < (LAST_AGE - FIRST_AGE) * DAY)
    return bool((after & keep).sum() > FEW_FOLLOW * (real & keep).sum())


def age_frame(log: Log, got: Attribution, keep: B1, group: I8, groups: int) -> tuple[pd.DataFrame, str]:
    """`group, variant_id, age_day, conversions, exposure` of the sends in `keep`, weighted as `send_weights` says, and
    how they were weighted."""
    s, e = log.sends, log.events
    use = np.zeros(len(s), bool)
    use[got.outcomes.send_row] = got.outcomes.reached & ~got.outcomes.ghost
    use &= keep
    variant = np.where(use, s.variant, -1)
    known = e.occurred_at[e.received_at <= got.as_of]
    start = int(min(known.min(initial=got.as_of), s.sent_at.min(initial=got.as_of)))
    chosen = with_decisions(s, log.decisions)
    decided = np.where(chosen.decided_at == MISSING, s.sent_at, chosen.decided_at)
    weight, name = send_weights(variant, s.template, decided, chosen.propensity)
    V = len(log.names("variant"))
    profile = age_profile(
        s.user, group, variant, s.sent_at, e, e.user, countable(e.kind, got.reason), groups, V, start, got.as_of,
        weight,
    )  # fmt: skip
    g, v, age = (i.ravel() for i in np.indices(profile.conversions.shape))
    frame = pd.DataFrame(
        {
            "group": g,
            "variant_id": np.array(log.names("variant"), dtype=object)[v],
            "age_day": age + FIRST_AGE,
            "conversions": profile.conversions.ravel(),
            "exposure": profile.exposure.ravel(),
        }
    )
    return frame, name

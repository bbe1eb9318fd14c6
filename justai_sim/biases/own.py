"""Why a conversion was not credited to the send that caused it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from justai_sim.attribution.prepare import Ready
from justai_sim.attribution.window import Contest
from justai_sim.biases.terms import ASTRAY, KNOWN, LEADS, NO_GOAL, NO_ROW, missed_table
from justai_sim.tables import B1, I1, I8, REASON


def missed(ready: Ready, row: I8, reason: I1, cause: I8, fate: I1, elsewhere: B1) -> I1:
    """The term that takes the credit which each conversion's own send did not get, an index in TERMS.

    By conversion, shape (n,): `row` its representative (-1: none), `reason` what that ended in (or NO_ROW), `cause` and
    `fate` its own send, a position among the known ones where `fate` is KNOWN, and whether the send that the row names
    was credited with it (`elsewhere`).
    """
    way, verdict = np.full(len(row), LEADS), np.full(len(row), REASON["credited"])
    seen = np.flatnonzero((row >= 0) & (fate == KNOWN))
    way[seen] = _way(ready, row[seen], cause[seen], elsewhere[seen])
    judged = seen[(way[seen] == LEADS) & (reason[seen] >= REASON["credited"]) & (reason[seen] != NO_ROW)]
    verdict[judged] = _alone(ready, row[judged], cause[judged])
    return missed_table()[reason, fate, way, verdict]


def _way(ready: Ready, row: I8, cause: I8, elsewhere: B1) -> I8:
    """Whether each row leads to its cause: by the id that it names, else by its user and partial ids."""
    e, known, goal = ready.events, ready.known, ready.bound.goal
    template, variant = known.template[cause], known.variant[cause]
    name = e.name[row] + 1
    named, explicit = np.full(len(row), -1, np.int64), ready.bound.rule.explicit
    if ready.look.named and explicit != "ignore":
        named = ready.named[row]
        counts = (named >= 0) & (known.user[named] == ready.user[row]) & goal[known.template[named], name]
        named = np.where(counts, named, -1)
    final = (named >= 0) & (elsewhere | (explicit != "window_then_join"))
    fits = (ready.user[row] == known.user[cause]) & ~final
    fits &= (e.template[row] < 0) | (e.template[row] == template)
    fits &= (e.variant[row] < 0) | (e.variant[row] == variant)
    fits |= named == cause
    return np.where(goal[template, name], np.where(fits, LEADS, ASTRAY), NO_GOAL)


def _alone(ready: Ready, row: I8, cause: I8) -> I1:
    """The rule's verdict on each conversion as if it named its cause and no other send were looked at."""
    named = np.full(len(ready.events), -1, np.int64)
    named[row] = cause
    alone = replace(ready, rows=row, named=named, look=ready.look._replace(named=len(row)))
    # A credit rule without a fast path of its own: all conversions then go through the one that reads ids.
    rule = msgspec.structs.replace(ready.bound.rule, explicit="window", credit="all")
    return Contest(alone).judge(rule).reason

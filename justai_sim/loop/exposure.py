"""How much of a trial each send is so far, for policies that learn from young sends (feedback "weighted")."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.clock import MISSING
from justai_sim.estimate.maturity import NEVER, inside_window
from justai_sim.loop.state import METRIC, State
from justai_sim.tables import B1, CLICK, CONVERSION, F8, OPEN, UNSUBSCRIBE

KIND = {"open_rate": OPEN, "click_rate": CLICK, "unsubscribe_rate": UNSUBSCRIBE}


def exposure(state: State, rule: Rule, metric: str, now: int) -> tuple[F8, B1]:
    """The part of a send's responses that would have come by now, (sends,), from 0 to 1; and of which sends the
    response counts by now: what was heard of within the maturity allowance has no exposure yet.

    It is the distribution of the age of a replication's own first responses, by Kaplan-Meier over sends of all ages
    (`estimate.maturity.inside_window`), at the age of each send. Before any send was watched to the end of its window,
    the part of the window that has passed.
    """
    n = state.sends.n
    close = state.earnings.column(METRIC[metric][1])
    kind = KIND.get(metric, CONVERSION)
    length = rule.upper - rule.offset if kind == CONVERSION else clock.days(rule.engagement_lookback_days)
    opens = np.where(close == MISSING, MISSING, close - length)
    limit = now - round(rule.mature_allowance_hours * clock.HOUR)
    seen = np.where(close == MISSING, -1, limit - opens)
    first = np.full(n, NEVER, np.int64)
    c = state.credits
    mine = state.events.column("kind", c.event_row) == kind
    row, event = c.send_row[mine], c.event_row[mine]
    when = np.minimum(state.events.column("occurred_at", event), state.events.column("received_at", event))
    np.minimum.at(first, row, np.maximum(when - opens[row], 0))
    out = np.clip(seen / length, 0.0, 1.0)
    rep = state.sends.column("rep")
    order = np.argsort(rep, kind="stable")
    ends = np.searchsorted(rep[order], np.arange(state.reps + 1))
    use = state.earnings.column("counted") & ~state.earnings.column("ghost")
    for lo, hi in pairwise(ends.tolist()):
        mine = order[lo:hi]
        mine = mine[use[mine]]
        inside = inside_window(first[mine], seen[mine], length - 1)
        if inside is not None:
            out[mine] = inside(np.minimum(seen[mine], length - 1))
    return np.where(seen >= 0, out, 0.0), first <= seen

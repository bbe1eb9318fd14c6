"""Variants compared over the same mix of templates and days."""

from __future__ import annotations

import numpy as np
from scipy import special

from justai_sim.attribution import Attribution
from justai_sim.clock import DAY, MISSING
from justai_sim.estimate.age import send_weights
from justai_sim.estimate.metrics import capped_revenue
from justai_sim.loop.replay import with_decisions
from justai_sim.tables import B1, F8, I8, PARTS, Log, Sends

DOUBT = 0.05
"""Without propensities: shares of variants have changed where equal ones would differ as much this rarely. Smaller
changes are hidden in the noise, and so is what they do to a difference; counts that agree with `replay` are kept."""
SPANS = (1, 7)
"""Days over which shares are looked at: single ones for jumps, weeks for a slow drift."""
RARE, EXPECTED = 0.01, 3.0
"""A template lacks a variant on a day (or in a week) where none was sent and this many would have been at its share of
all sends; variants of a smaller share than RARE are not asked for."""
ALONE = 0.1
"""Said if more than this part of the sends left on days of their template on which a variant was missing."""


def _decided(log: Log) -> tuple[Sends, I8]:
    """The sends with what their decisions tell, and when each was decided, microseconds."""
    sends = with_decisions(log.sends, log.decisions)
    return sends, np.where(sends.decided_at == MISSING, sends.sent_at, sends.decided_at)


def _same_mix(sends: Sends, decided: I8, cells: I8) -> tuple[F8 | None, list[str]]:
    """Weight of every send row that gives each cell the same mix (those of `estimate.age.send_weights`), None if all
    are 1; and what to say of it."""
    weight, method = send_weights(cells, sends.template, decided, sends.propensity)
    use = cells >= 0
    if not use.any():
        return None, []
    cell, template, day = cells[use], sends.template[use], decided[use] // DAY
    if np.ptp(weight[use]) < 1e-9:
        return None, []
    if method == "day" and not any(_changed(_counts(cell, template, day // d)) for d in SPANS):
        return None, []
    notes = [
        "shares changed between days or templates: differences are weighted to the same mix "
        f"({'by template and day' if method == 'day' else method})"
    ]
    counts = _counts(cell, template, day)
    alone = float(counts[(counts == 0).any(1)].sum() / counts.sum())
    if method == "day" and alone > ALONE:
        notes.append(
            f"{alone:.0%} of the sends left on days on which their template had not every variant, so their mix cannot "
            "be made the same there (choose days with --since and --until)"
        )
    return weight, notes


def comparable(log: Log, cells: I8) -> tuple[F8 | None, list[str]]:
    """Weight of every send row that gives each cell the same mix of templates and days, None if all are 1; and what
    to say of it. `cells`: the variant of every send row, -1 for those not shown. One set of weights serves every
    reading.

    It is 0 for the sends whose template lacked a variant at the time: one that joined later, or is of another
    template, stands for other days and users, and no weight can mend that.
    """
    use = cells >= 0
    if not use.any():
        return None, []
    sends, decided = _decided(log)
    weight, notes = _same_mix(sends, decided, cells)
    day = decided[use] // DAY
    _, cell = np.unique(cells[use], return_inverse=True)
    share = np.bincount(cell) / len(cell)
    lacks = np.zeros(len(cell), bool)
    for d in SPANS:
        stratum = (day // d - day.min() // d) * (int(sends.template.max()) + 1) + sends.template[use]
        _, index = np.unique(stratum, return_inverse=True)
        counts = _by_stratum(index, cell)
        gone = (counts == 0) & (counts.sum(1, keepdims=True) * share >= EXPECTED) & (share >= RARE)
        lacks |= gone.any(1)[index]
    if not lacks.any():
        return weight, notes
    out = np.zeros(len(cells))
    kept = np.where(lacks, 0.0, 1.0 if weight is None else weight[use])
    # So that weights are 1 on average, over the sends that are left of each variant.
    mean = np.bincount(cell, kept) / np.maximum(np.bincount(cell, kept > 0), 1)
    out[use] = kept / np.where(mean > 0, mean, 1.0)[cell]
    if lacks.all():
        return out, ["no variants are compared: no template had all of them at the same time (choose with --template, "
                     "--since and --until)"]  # fmt: skip
    left_out = (
        f"{lacks.mean():.0%} of the sends are in no comparison: their template had not every variant then (choose with "
        "--template, --since and --until)"
    )
    return out, [*(n for n in notes if "on days on which" not in n), left_out]


def rates_over_same_mix(
    log: Log, got: Attribution, shown: B1, metric: str
) -> dict[tuple[str, str], tuple[float, float]]:
    """Per (template, variant) the rate per mature send over the same mix of days, and its standard error clustered by
    user; NaN where nothing is comparable. Of the templates whose shares changed over time only; `shown` (sends,)."""
    s, o = log.sends, got.outcomes
    value = {
        "conversion_rate": o.numerator / PARTS, "revenue_per_send": capped_revenue(got) / 1e6, "open_rate": o.opens,
        "click_rate": o.clicks, "unsubscribe_rate": o.unsubscribes,
    }.get(metric)  # fmt: skip
    if value is None:
        return {}
    ripe = got.mature() if metric in ("conversion_rate", "revenue_per_send") else got.mature_engagement()
    use = o.reached & ~o.ghost & ripe & shown[o.send_row]
    row, value = o.send_row[use], value[use].astype(np.float64)
    out = {}
    for t in np.unique(s.template[row]).tolist():
        weight, _ = comparable(log, np.where(shown & (s.template == t), s.variant, -1))
        if weight is None:
            continue
        for v in np.unique(s.variant[row[s.template[row] == t]]).tolist():
            here = (s.template[row] == t) & (s.variant[row] == v)
            w, y, user = weight[row[here]], value[here], np.unique(s.user[row[here]], return_inverse=True)[1]
            whole = float(w.sum()) or np.nan
            rate = float(w @ y) / whole
            error = float(np.sqrt((np.bincount(user, w * (y - rate)) ** 2).sum())) / whole
            out[log.names("template")[t], log.names("variant")[v]] = (rate, error)
    return out


def _by_stratum(index: I8, cell: I8) -> F8:
    width = int(cell.max()) + 1
    size = (int(index.max()) + 1) * width
    return np.bincount(index.ravel() * width + cell, minlength=size).reshape(-1, width).astype(np.float64)


def _counts(cell: I8, template: I8, day: I8) -> F8:
    """Sends by stratum (template and day) and cell."""
    stratum = (day - day.min()) * (int(template.max()) + 1) + template
    return _by_stratum(np.unique(stratum, return_inverse=True)[1], cell)


def _changed(counts: F8) -> bool:
    """Pearson's chi-squared test that every stratum has the same shares."""
    if min(counts.shape) < 2:
        return False
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    seen = float((((counts - expected) ** 2) / np.where(expected > 0, expected, 1.0)).sum())
    return bool(special.chdtrc((counts.shape[0] - 1) * (counts.shape[1] - 1), seen) < DOUBT)

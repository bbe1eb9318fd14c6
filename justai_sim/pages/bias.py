"""From what sends caused to what a dashboard shows, term by term: a waterfall."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from justai_sim.biases.table import ALL, HELD_OUT
from justai_sim.biases.terms import ADDED, IDENTITIES, MISSED
from justai_sim.errors import UsageError, nearest
from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.inputs import SweepData
from justai_sim.pages.style import (
    FONT,
    GREY,
    GRID,
    INK,
    PALETTE,
    SMALL,
    panels,
    shown,
    text_width,
    units,
    width_of,
    wrap,
)
from justai_sim.whatif.words import signed

ROW = 0.42
QUESTION = "What separates the dashboard from what the sends caused?"
TOTAL, MORE, LESS = PALETTE[0], PALETTE[1], PALETTE[2]
LABELS = {
    "caused": "caused", "organic": "organic: nothing sent caused it", "borrowed": "borrowed: another send caused it",
    "extra_copies": "credited once more for a copy", "spurious": "told of, but never happened",
    "lost": "lost on the way", "not_yet_known": "not yet heard of", "heard_too_late": "heard of too late to count",
    "wrong_event": "rejected: wrong event", "machine": "rejected: machine", "currency": "rejected: currency",
    "identity": "rejected: leads to no or another user, send or event", "not_delivered": "its send not delivered",
    "too_early": "before its send's window", "too_late": "after its send's window",
    "elsewhere": "in its send's window, the rule prefers others", "uncounted": "credited to sends without an anchor",
    "capped": "left out of the rate by `repeat`", "repeats": "further conversions of the same send",
    "refunds": "refunds booked, less those that happened", "caps_and_rounding": "caps, rounding, other amounts",
    "shown": "the dashboard shows",
}  # fmt: skip
UNITS = {
    "events": "conversions (credited weight)", "sends": "converted sends",
    "revenue": "revenue, units of the declared currency",
}  # fmt: skip

COLUMNS = ["template_id", "variant_id", "identity", "term", "value"]


@figure
def plot_bias(
    frame: Any, ax: Axes | None = None, identity: str = "sends", variant: str | None = None,
    template: str | None = None,
) -> Axes:  # fmt: skip
    """The terms of `Bias.table` as bars that start where the last one ended, from what was caused to what is shown.

    `variant`, `template`: whose terms, summed over the others; by default all but held-out users. Orange adds to what
    is shown, green takes away; terms that are 0 are left out. Returns the container; `child_axes` holds the panel.
    """
    frame = as_pandas(frame, "plot_bias's frame")
    need(frame, "identity term value template_id variant_id", "plot_bias", "Bias.table")
    if identity not in IDENTITIES:
        raise UsageError(f"identity={identity!r} is not an identity; {nearest(str(identity), IDENTITIES)}")
    value = _values(frame, identity, variant, template)
    terms = [t for t in value.index if t in ("caused", "shown") or round(value[t], 9) != 0]
    labels = [wrap(LABELS[t], 2.5, SMALL) for t in terms]
    left = min(max(text_width(line, SMALL) for label in labels for line in label) + 0.3, 0.55 * width_of(ax))
    container, (panel,), _ = panels(
        ax,
        QUESTION,
        f"SIMULATED. {_seen(value, identity, variant, template)}",
        [ROW * (len(terms) + 0.4)],
        left=left,
        right=0.8,
    )
    inner, at = panel.ax, 0.0
    inner.grid(False)
    inner.grid(axis="x", color=GRID, linewidth=0.8)
    inner.set_ylim(len(terms) - 0.4, -0.6)
    for y, t in enumerate(terms):
        whole, v = t in ("caused", "shown"), float(value[t])
        start, x = (0.0, v) if whole else (at, at + v)
        inner.barh([y], [x - start], left=start, height=0.62, color=TOTAL if whole else MORE if v > 0 else LESS,
                   zorder=2)  # fmt: skip
        if y < len(terms) - 1:
            inner.plot([x, x], [y - 0.31, y + 1.31], color=GREY, linewidth=0.8, zorder=1)
        inner.annotate(_told(v, whole), (max(start, x), y), xytext=(4, 0), textcoords="offset points", va="center",
                       fontsize=SMALL, color=INK, family=FONT, annotation_clip=False)  # fmt: skip
        at = x
    inner.set_xlim(left=min(0.0, *inner.get_xlim()))
    inner.set_yticks(range(len(terms)), ["\n".join(label) for label in labels])
    inner.tick_params(axis="y", length=0, labelsize=SMALL)
    inner.locator_params(axis="x", nbins=4)  # room for thousands
    inner.xaxis.set_major_formatter(lambda x, _: f"{x:,.10g}")
    units(panel, "", UNITS[identity])
    return container


def _values(frame: pd.DataFrame, identity: str, variant: str | None, template: str | None) -> pd.Series[float]:
    """Value by term, in the order of the identity. UsageError for a variant or template that is not there."""
    here = frame[frame["identity"] == identity]
    for column, wanted in (("variant_id", variant), ("template_id", template)):
        if wanted is not None:
            known = [str(x) for x in dict.fromkeys(frame[column])]
            if wanted not in known:
                raise UsageError(f"{column[:-3]}={wanted!r} is not in the table; {nearest(wanted, known)}")
            here = here[here[column] == wanted]
    for column, wanted in (("variant_id", variant), ("template_id", template)):
        if wanted is None:  # the sums that the table holds are not summed again
            here = here[here[column] != ALL]
    if variant is None:
        here = here[here["variant_id"] != HELD_OUT]
    return here.groupby("term", sort=False)["value"].sum().reindex([*IDENTITIES[identity]], fill_value=0.0)


def _told(v: float, whole: bool) -> str:
    digits = 0 if abs(v) >= 10 or v == int(v) else 1
    return f"{v:,.{digits}f}" if whole else signed(v, digits)


def seen(frame: pd.DataFrame, identity: str = "sends", variant: str | None = None, template: str | None = None) -> str:
    """What the waterfall shows, in a sentence; arguments as in `plot_bias`."""
    return _seen(_values(frame, identity, variant, template), identity, variant, template)


def _seen(value: pd.Series[float], identity: str, variant: str | None, template: str | None) -> str:
    """The sentence below the question: both ends and the largest steps between them."""
    who = " ".join([*([shown(variant)] if variant else []), *([f"in {shown(template)}"] if template else [])])
    what = {
        "events": "The dashboard shows {} conversions where the sends caused {}.",
        "sends": "The dashboard shows {} converted sends where {} caused a conversion.",
        "revenue": "The dashboard shows {} of revenue where the sends caused {}.",
    }  # fmt: skip
    steps = value[[*ADDED, *MISSED]]
    steps = steps[steps != 0].reindex(steps.abs().sort_values(ascending=False).index).dropna()[:2]
    most = " and ".join(f"{t if t in ADDED[:2] else LABELS[str(t)]} ({_told(v, False)})" for t, v in steps.items())
    caused, seen = (_told(float(value[t]), True) for t in ("caused", "shown"))
    said = f"{who + ': ' if who else ''}{what[identity].format(seen, caused)}"
    return said + (f" Most of the difference: {most}." if most else "")


def of_sweep(data: SweepData) -> pd.DataFrame:
    """The identity of converted sends of the point in use, as in `Bias.table`: means over worlds. Empty for a sweep
    of an earlier version, which has no terms."""
    m = data.metrics[data.metrics["point"] == data.reference]
    if not (m["metric"] == "caused_sends").any():
        return pd.DataFrame(columns=COLUMNS)
    cells = ["template_id", "variant_id"]
    wide = m.pivot_table(index=cells, columns="metric", values="value", aggfunc="sum", sort=False) / m["rep"].nunique()
    terms = {"caused": wide["caused_sends"], "uncounted": -wide["uncounted"], "capped": -wide["capped"]}
    terms |= {t: wide[f"credited_{t}"] for t in ADDED} | {t: -wide[f"missed_{t}"] for t in MISSED}
    terms |= {"repeats": wide["caused"] - wide["caused_sends"], "shown": wide["conversions"]}
    long = pd.DataFrame({t: terms[t] for t in IDENTITIES["sends"]}).reset_index()
    long = long.melt(cells, var_name="term", value_name="value")
    return long.assign(identity="sends")[COLUMNS]

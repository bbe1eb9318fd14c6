"""Where every conversion of a log ended: the receipt of a log by reason, as a waterfall."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from justai_sim.pages.canvas import figure
from justai_sim.pages.style import FONT, GREY, GRID, INK, PALETTE, SMALL, panels, text_width, units, width_of, wrap
from justai_sim.tables import REASONS

QUESTION = "Which conversions count, and why do the others not?"
ROW = 0.42
MEANING = {
    "not_yet_known": "received after the moment of the report",
    "too_late": "received too long after it happened",
    "duplicate": "a copy of an event that is already there",
    "status_event": "tells of a message, is no response",
    "machine": "made by a machine",
    "wrong_event": "not one of the goals",
    "currency": "a currency without a rate",
    "refund": "a refund, taken off the revenue of its order",
    "refund_without_order": "a refund whose order is not known",
    "unknown_send": "names a send that is not there",
    "outside_engagement_window": "an open, click or unsubscribe too long after its send",
    "credited": "credited to a send",
    "in_offset": "within the ignored first days",
    "past_lookback": "after the last day that counts",
    "before_send": "before any send of the user",
    "no_anchor": "the send was not delivered, opened or clicked as the rule demands",
    "not_delivered": "the send did not arrive",
    "no_send": "the user had no send",
}


@figure
def plot_reasons(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """From all conversions of the log to the credited ones, a bar a reason, in the order in which the rule checks.

    `frame`: `Replay.reason_counts()`. Returns the container; `child_axes` holds the panel.
    """
    counts = frame[frame["kind"] == "conversion"].set_index("reason")["events"].to_dict()
    whole, credited = sum(counts.values()), int(counts.get("credited", 0))
    if not whole:
        return panels(ax, QUESTION, "The log holds no conversion.", [])[0]
    steps = [(r, int(counts[r])) for r in REASONS if r in counts and r != "credited"]
    rows = [("all conversions", whole), *((MEANING[r], -n) for r, n in steps), ("credited to a send", credited)]
    labels = [wrap(text, 2.5, SMALL)[:2] for text, _ in rows]
    left = min(max(text_width(line, SMALL) for label in labels for line in label) + 0.3, 0.5 * width_of(ax))
    seen = f"Of {whole:,} conversions {credited:,} are credited ({100 * credited / whole:.0f} %)."
    if steps:
        reason, n = max(steps, key=lambda s: s[1])
        seen += f" Most of the others: {MEANING[reason]} ({n:,})."
    container, (panel,), _ = panels(ax, QUESTION, seen, [ROW * (len(rows) + 0.4)], left=left, right=0.75)
    inner, at = panel.ax, 0.0
    inner.grid(False)
    inner.grid(axis="x", color=GRID, linewidth=0.8)
    inner.set_ylim(len(rows) - 0.4, -0.6)
    for y, (_, n) in enumerate(rows):
        ends = y in (0, len(rows) - 1)
        start, x = (0.0, float(n)) if ends else (at, at + n)
        inner.barh([y], [x - start], left=start, height=0.62, color=PALETTE[0] if ends else PALETTE[1], zorder=2)
        if y < len(rows) - 1:
            inner.plot([x, x], [y - 0.31, y + 1.31], color=GREY, linewidth=0.8, zorder=1)
        text = f"{n:,}" if ends else f"−{-n:,}"
        inner.annotate(text, (max(start, x), y), xytext=(4, 0), textcoords="offset points", va="center",
                       fontsize=SMALL, color=INK, family=FONT, annotation_clip=False)  # fmt: skip
        at = x
    inner.set_xlim(left=0)
    inner.set_yticks(range(len(rows)), ["\n".join(label) for label in labels])
    inner.tick_params(axis="y", length=0, labelsize=SMALL)
    units(panel, "", "conversions")
    return container

"""From our conversions to a dashboard's, reason by reason: a waterfall."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from justai_sim.frames import as_pandas, need
from justai_sim.pages.canvas import figure
from justai_sim.pages.reasons import plot_reasons
from justai_sim.pages.style import FONT, GREY, GRID, INK, PALETTE, SMALL, panels, text_width, units, width_of, wrap
from justai_sim.whatif.words import REASON, signed

QUESTION = "Why do they count other conversions than we do?"
ROW = 0.42
COLOURS = {"ours": PALETTE[0], "theirs": PALETTE[0], "they count": PALETTE[2], "we count": PALETTE[1]}
SAID = {"ours": "ours", "theirs": "theirs", "unexplained": "unexplained"}


@figure
def plot_receipt(frame: Any, ax: Axes | None = None) -> Axes:
    """The bridge of `Reconciliation.receipt` over all its variants, as bars that start where the last one ended.

    Green: they count it and we do not (what it is for us); orange: the reverse (what it is for them); grey:
    unexplained. Of `Replay.reason_counts()` the receipt of the log itself, by reason (`plot_reasons`). Returns the
    container; `child_axes` holds the panel.
    """
    frame = as_pandas(frame, "plot_receipt's frame")
    if "kind" in frame:
        return plot_reasons(frame, ax)
    need(
        frame,
        "template_id step reason conversions",
        "plot_receipt",
        "Reconciliation.receipt, or Replay.reason_counts()",
    )
    rows = frame[frame["template_id"] == "ALL"].reset_index(drop=True)
    if not len(rows):
        return panels(ax, QUESTION, "Nothing to compare: the dashboard gives no conversions.", [])[0]
    labels = [_label(r) for _, r in rows.iterrows()]
    left = min(max(text_width(line, SMALL) for label in labels for line in label) + 0.3, 0.55 * width_of(ax))
    ours, theirs = rows["conversions"].iloc[0], rows["conversions"].iloc[-1]
    lost = float(rows.loc[rows["step"] == "unexplained", "conversions"].iloc[0])
    seen = f"We count {ours:,.0f} conversions, they {theirs:,.0f}; {signed(lost, 0)} of the difference is unexplained."
    container, (panel,), _ = panels(ax, QUESTION, seen, [ROW * (len(rows) + 0.4)], left=left, right=0.75)
    inner, at = panel.ax, 0.0
    inner.grid(False)
    inner.grid(axis="x", color=GRID, linewidth=0.8)
    inner.set_ylim(len(rows) - 0.4, -0.6)
    for y, r in rows.iterrows():
        whole = r["step"] in ("ours", "theirs")
        start, x = (0.0, r["conversions"]) if whole else (at, at + r["conversions"])
        colour = COLOURS.get(r["step"], GREY)
        inner.barh([y], [x - start], left=start, height=0.62, color=colour, zorder=2)
        if y < len(rows) - 1:
            inner.plot([x, x], [y - 0.31, y + 1.31], color=GREY, linewidth=0.8, zorder=1)
        text = f"{r['conversions']:,.0f}" if whole else signed(r["conversions"], 0)
        inner.annotate(text, (max(start, x), y), xytext=(4, 0), textcoords="offset points", va="center",
                       fontsize=SMALL, color=INK, family=FONT, annotation_clip=False)  # fmt: skip
        at = x
    inner.set_xlim(left=min(0.0, *inner.get_xlim()))
    inner.set_yticks(range(len(rows)), ["\n".join(label) for label in labels])
    inner.tick_params(axis="y", length=0, labelsize=SMALL)
    units(panel, "", "conversions")
    return container


def _label(row: Any) -> list[str]:
    if row["step"] in SAID:
        return [SAID[row["step"]]]
    told = REASON.get(row["reason"], row["reason"])
    who = "they count it; for us" if row["step"] == "they count" else "we count it; for them"
    return [who, *wrap(told, 2.6, SMALL)[:2]]

"""What the tables of this package say, in sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd


def signed(x: Any, places: int = 2) -> str:
    """'+4.3', '−0.2', '0.0'; '–' for no value.

    >>> signed(4.339), signed(-0.175, 1), signed(0.001), signed(float("nan"))
    ('+4.34', '−0.2', '0.00', '–')
    """
    if x is None or x != x:
        return "–"
    text = f"{abs(x):,.{places}f}"
    if float(text.replace(",", "")) == 0:
        return text
    return ("−" if x < 0 else "+") + text


def ranged(x: Any, low: Any, high: Any, places: int = 2) -> str:
    """'+4.34 (−0.18 to +8.85)'."""
    if low is None or low != low or low == high:
        return signed(x, places)
    return f"{signed(x, places)} ({signed(low, places)} to {signed(high, places)})"


def leader_of(row: Any) -> str:
    """The leader of a reading, and whether it leads clearly; one that stays the leader clearly has only its name."""
    if nothing_counts(row):
        return "counts nothing"
    lead = row["lead_per_1000"]
    if lead is None or lead != lead:  # nothing to compare with
        return str(row["leader"])
    if lead == 0:
        return f"{row['leader']} (a tie)"
    if not clear(row["lead_low"], row["lead_high"]):
        return f"{row['leader']} (too close)"
    return f"{row['leader']} (clearly)" if row["leader_changes"] else str(row["leader"])


def nothing_counts(row: Any) -> bool:
    """Whether nothing at all counts under a reading, so that it has no leader."""
    return bool(row["total"] == 0)


def clear(low: Any, high: Any) -> bool:
    """Whether an interval leaves zero out; none does not."""
    return low is not None and high is not None and bool(low > 0 or high < 0)


def verdict(table: pd.DataFrame) -> str:
    """What a table of interpretations comes to, in two sentences; the presets are not counted."""
    use = table.iloc[0]
    table = table[table["kind"] == "reading"]
    changing = table[table["status"] == "changes"]
    if pd.isna(use["difference_per_1000"]):
        return f"{len(changing)} of {_applied(table)} readings change something; there is no pair to compare."
    gap = ranged(use["difference_per_1000"], use["difference_low"], use["difference_high"])
    sure = "" if clear(use["difference_low"], use["difference_high"]) else ", too close to call"
    first = f"As in use, {use['variant']} minus {use['against']} is {gap} per 1,000 {use['unit']}{sure}."
    if nothing_counts(use):
        first = "As in use, nothing counts."
    if not len(changing):
        return f"{first} None of {_applied(table)} other readings changes anything."
    leads = changing[changing["leader_changes"]]
    clearly = sum(clear(r["lead_low"], r["lead_high"]) for _, r in leads.iterrows())
    flips = changing[changing["sign_changes"]]
    flipped = int(flips["sign_clear"].sum())
    empty = int((changing["total"] == 0).sum())
    return (
        f"{first} Of {_applied(table)} other readings {len(changing)} change something{_empty(empty)}; the leader "
        f"changes in {_times(len(leads), clearly)}, the sign of this difference in {_times(len(flips), flipped)}."
    )


def headline(table: pd.DataFrame) -> str:
    """Whether another reading would have named another leader, in a sentence; the presets are not counted."""
    use = table.iloc[0]
    rows = table[(table["kind"] == "reading") & table["status"].isin(["changes", "changes nothing"])]
    if pd.isna(use["difference_per_1000"]):
        return "There is no pair of variants to compare under any reading."
    if nothing_counts(use):
        return "Nothing counts under the rule in use, so no variant is ahead."
    empty = int((rows["total"] == 0).sum())
    rows = rows[rows["total"] != 0]
    leads = rows[rows["leader_changes"].astype(bool)]
    clearly = sum(clear(r["lead_low"], r["lead_high"]) for _, r in leads.iterrows())
    sure = clear(use["lead_low"], use["lead_high"])
    who = f"{use['leader']} is ahead under the rule in use{'' if sure else ' (too close to call)'}"
    if not len(leads):
        return f"{who}, and under all {len(rows)} other readings of it{_empty(empty, 'more')}."
    told = f"{clearly or 'none'} of them clearly"
    return f"{who}; {len(leads)} of {len(rows)} other readings name another leader, {told}{_empty(empty, 'more')}."


def _empty(n: int, which: str = "of them") -> str:
    """', 2 of them count nothing'; '' for none."""
    return f", {n} {which} {'count' if n > 1 else 'counts'} nothing" if n else ""


def _times(n: int, clearly: int) -> str:
    """'3 (none clearly)'; 'none'."""
    return f"{n} ({clearly or 'none'} clearly)" if n else "none"


def _applied(table: pd.DataFrame) -> int:
    return int(table["status"].isin(["changes", "changes nothing"]).sum())


def unchanged(table: pd.DataFrame) -> str:
    """The readings that change nothing, in one line; '' if there is none."""
    names = table.loc[table["status"] == "changes nothing", "reading"]
    return f"change nothing: {', '.join(names)}" if len(names) else ""


def not_applied(table: pd.DataFrame) -> str:
    """The readings that cannot be applied and why, in one line; '' if there is none."""
    rows = table[table["status"] == "cannot apply"]
    by_reason: dict[str, list[str]] = {}
    for _, r in rows.iterrows():
        by_reason.setdefault(r["why"], []).append(r["reading"])
    parts = [f"{', '.join(names)} ({why})" for why, names in by_reason.items()]
    return f"cannot be applied: {'; '.join(parts)}" if parts else ""


def off(distance: float, none: bool = False) -> str:
    """How far a reading is from a dashboard whose numbers are not all 0 (`none`: they are).

    >>> off(0.0314), off(27.4), off(3.0, none=True), off(0.0)
    ('3.1%', '27 times', '–', '0.0%')
    """
    if none:
        return "–"
    return f"{distance:.1%}" if distance < 2 else f"{distance:,.0f} times"


REASON = {
    "credited_elsewhere": "credited to another variant or template",
    "not_shown": "credited to a send not compared",
    "repeat": "counted already",
    "smaller_part": "counted for fewer sends, or shared",
    "immature": "the send's window is still open",
    "in_offset": "in the ignored first days",
    "past_lookback": "after the window",
    "before_send": "before any send",
    "no_anchor": "no anchor (not delivered, opened or clicked)",
    "not_delivered": "all sends bounced",
    "no_send": "no send to this user",
    "machine": "made by a machine",
    "outside_engagement_window": "outside the engagement window",
}


def step(name: str, reason: str) -> str:
    """A line of a receipt in words.

    >>> step("they count", "in_offset"), step("ours", "")
    ('+ they count; for us in the ignored first days (in_offset)', 'ours')
    """
    if not reason:
        return name
    told = f"{REASON[reason]} ({reason})" if reason in REASON else reason
    return f"+ they count; for us {told}" if name == "they count" else f"− we count; for them {told}"

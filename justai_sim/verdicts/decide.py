"""From differences and checks to one answer: ship, wait, or stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from justai_sim import clock
from justai_sim.clock import DAY
from justai_sim.errors import listed, several
from justai_sim.estimate.sequences import sequence_radius
from justai_sim.stats import z_value
from justai_sim.verdicts.answer import Answer, Given, Top, places, said
from justai_sim.verdicts.compare import LEAST_EARNED, LEAST_SENDS, LEAST_USERS, TUNED, Compared
from justai_sim.verdicts.pace import MOST_DAYS, Flow
from justai_sim.verdicts.trust import Check
from justai_sim.whatif.words import ranged

MOST_TIMES = 4
"""After these days it is not waited for more than this many times of what has been gathered."""
MATTERS = 0.5
"""A variant that may be better than the best one by more than this part of its lead is worth a longer look."""
CANNOT = "Stop: cannot be told"


def decide(g: Given, found: Sequence[Check]) -> Answer:
    """The answer."""
    got = g.got
    if got is None or not len(got.table):
        return _nothing(g)
    top = _top(got, g.unit)
    smallest = top.half if top.row["ready"] else None
    by = {c.name: c for c in found}

    def stop(reason: str, because: list[str]) -> Answer:
        return Answer("stop", f"{CANNOT}, {reason}.", because, leader=top.ahead, smallest=smallest)

    if by["split"].status == "fail":
        return stop("because the variants do not have the shares they were drawn with", [by["split"].said])
    if by["machines"].status == "fail":
        return stop("because machines make the key metric", [by["machines"].said])
    if g.metric == "revenue_per_send" and by["heavy orders"].status == "fail":
        few = "one order carries" if by["heavy orders"].numbers["half"] == 1 else "a few orders carry"
        return stop(f"because {few} the difference", [
            by["heavy orders"].said, "Judge by conversion_rate, or cap amounts: --set cap=AMOUNT."])  # fmt: skip
    if not top.told:
        return _unsettled(g, got, top, smallest)
    if by["window"].status == "fail":
        return stop("because the leader hangs on the window", [by["window"].said, f"{top.said}."])
    if by["maturity"].status == "fail":
        days = max(math.ceil(g.rule.lateness_days), 1)
        text = f"Wait {several(days, 'day')}: {top.ahead} is ahead, but its numbers are not settled."
        because = [by["maturity"].said, f"{top.said}."]
        return Answer("wait", text, because, days=days, leader=top.ahead, smallest=smallest)
    return _ship(g, got, top, smallest, by["split"].status == "pass")


def _top(got: Compared, unit: str) -> Top:
    row: dict[str, Any] = {str(k): v for k, v in got.table.iloc[0].items()}
    gain = got.sign * float(row["difference_per_1000"])
    half = (row["high_per_1000"] - row["low_per_1000"]) / 2
    variant = gain > 0
    all_worse = bool((got.table["told"] < 0).all())
    told = bool(row["told"] > 0) or (not variant and all_worse)
    names = str(row["variant_id"]), got.reference
    return Top(row, *(names if variant else names[::-1]), abs(gain), float(half), told, unit)


def _ship(g: Given, got: Compared, top: Top, smallest: float | None, drawn: bool) -> Answer:
    """What is told to be better, where not, on which condition, and what may be better still."""
    because = [f"The interval holds for {_all(got)} and for every day on which one may have looked (95 %)."]
    control = top.ahead == got.reference
    not_in, harm = _not_in(g.tables, top.ahead, control)
    if not drawn:
        because.append("Nothing shows how variants were drawn: who was chosen for one may differ from the others.")
    perhaps, why = _perhaps(g, got, top)
    because += why
    if control:
        number = (
            f"every other variant is worse, the nearest by {top.lead:,.{places(top.half)}f} {top.unit} per 1,000 sends"
        )
        because.append(f"{top.said}.")
    else:
        number = f"{top.between} against {got.reference}"
        others = [str(v) for v, t in zip(got.table["variant_id"][1:], got.table["told"][1:], strict=True) if t > 0]
        if others:
            close = any(v not in got.gaps or got.gaps[v][1] <= 0 <= got.gaps[v][2] for v in others)
            rest = f"; whether {top.ahead} is better still is not told" if close else f", and {top.ahead} better still"
            because.append(
                f"{listed(others)} {'is' if len(others) == 1 else 'are'} better than {got.reference}, too{rest}."
            )
    text = f"Ship {top.ahead}{harm}{'' if drawn else ', if variants were drawn at random (not checked)'}: {number}"
    text += f"; {listed(perhaps)} may be better still, so keep testing it." if perhaps else "."
    return Answer("ship", text.replace("it.", "them.") if len(perhaps) > 1 else text, because, variant=top.ahead,
                  leader=top.ahead, smallest=smallest, not_in=not_in, perhaps=perhaps)  # fmt: skip


def _not_in(tables: pd.DataFrame, variant: str, control: bool) -> tuple[list[str], str]:
    """Templates in which a variant is told to be worse (the control: another one better), and how to say it."""
    if not len(tables):
        return [], ""
    bad = tables[tables["told"] > 0] if control else tables[(tables["variant_id"] == variant) & (tables["told"] < 0)]
    names = list(dict.fromkeys(bad["template_id"]))
    if not names:
        return [], ""
    better = listed(dict.fromkeys(bad["variant_id"]))
    return names, f", not in {listed(names)}, where {f'{better} is better' if control else 'it is worse'}"


def _perhaps(g: Given, got: Compared, top: Top) -> tuple[list[str], list[str]]:
    """Variants that are still sent and may be better than the best one by what matters, and why that is not known."""
    told = {str(r["variant_id"]): r for r in got.table.to_dict("records")}
    names, why = [], []
    for v in [*told, *(v for v in g.flows if v not in told)]:
        if v == top.ahead or (v in told and told[v]["told"] < 0):
            continue
        if v in got.gaps:
            gap, low, high = got.gaps[v]
            if got.sign * (high if got.sign > 0 else low) <= MATTERS * top.lead:
                continue
            why.append(f"{v} minus {top.ahead} is {ranged(gap, low, high, places((high - low) / 2))}: not told.")
        else:
            why.append(f"Too little is known of {v} yet.")
        if v in g.flows:
            names.append(v)
    return names, why[:6]


def _all(got: Compared) -> str:
    n = len(got.table)
    return f"all {n} variants together" if n > 2 else "both variants together" if n == 2 else "this pair"


def _unsettled(g: Given, got: Compared, top: Top, smallest: float | None) -> Answer:
    """Nothing can be shipped: wait for what may be told in time, stop where nothing may."""
    answer = _wait(g, got, top, smallest) if top.row["ready"] else None
    later = _newcomer(g, got, top) if answer is None or answer.kind == "stop" else None
    answer = later or answer or _too_few(g, top)
    worse, where = _harm(got, g.tables)
    return replace(answer, sentence=answer.sentence[:-1] + worse + ".", because=[*answer.because, *where])


def _harm(got: Compared, tables: pd.DataFrame) -> tuple[str, list[str]]:
    """What is told to be worse, for the first line, and what is told of single templates."""
    worse = [str(v) for v, t in zip(got.table["variant_id"], got.table["told"], strict=True) if t < 0]
    text = f"; {listed(worse)} {'is' if len(worse) == 1 else 'are'} worse than {got.reference}" if worse else ""
    there = tables[tables["told"] != 0] if len(tables) else tables
    single = there[(there["told"] < 0) & ~there["variant_id"].isin(worse)] if len(there) else there
    if len(single):
        pairs = [f"{r['variant_id']} in {r['template_id']}" for r in single.to_dict("records")]
        text += f"; worse than {got.reference} by template: {listed(pairs)}"
    rows = there.to_dict("records")
    return text, [
        f"In {r['template_id']} {r['variant_id']} is {'better' if r['told'] > 0 else 'worse'} than {r['against']}: "
        f"{said(r)} (--template {r['template_id']})."
        for r in rows[:6]
    ]


def _wait(g: Given, got: Compared, top: Top, smallest: float | None) -> Answer:
    """Wait for as many days as the present difference asks at the present pace, or stop where these are too many."""
    rows = int(top.row["rows"])
    flow = g.flows.get(str(top.row["variant_id"]), NO_FLOW)
    needed = rows_needed(top.row, top.lead, got.level)
    likely = flow.days(needed - rows)
    # A difference that is small by chance may still grow: stop only if none that the data allow would be told in time.
    able = [
        g.flows.get(str(r["variant_id"]), NO_FLOW).soon(rows_needed(r, lead, got.level) - int(r["rows"]))
        for r, lead in _allowed(got)
    ]
    state = f"{top.leads}, and only {top.half:,.{places(top.half)}f} or more is visible yet"
    takes = f"takes about {needed:,.0f}" if math.isfinite(needed) else "takes more than anybody has"
    because = [
        f"{top.said}.",
        f"At the present difference it {takes} mature sends of all variants, of which {rows:,} are there; "
        f"{_added(flow)}.",
    ]
    after = _visible(top, flow.added, got.level)
    late = rows >= MOST_DAYS * flow.added and needed > MOST_TIMES * rows
    if any(able) and not late:
        enough = flow.soon(needed - rows)
        n = max(math.ceil(likely), 1) if enough else MOST_DAYS
        if not enough:
            because.append(
                f"That is more than {MOST_DAYS} days, but the difference may be larger than it looks.{after}"
            )
        text = f"{_until(n, g.as_of)}{'' if enough else ', and look again'}: {state}."
        return Answer("wait", text, because, days=n, leader=top.ahead, smallest=smallest)
    why = (
        f"{MOST_DAYS} days, the product's advice, are gathered, and it takes more than {MOST_TIMES} times as much."
        if any(able)
        else f"Even the largest difference that the data allow (95 %) would take more than {MOST_DAYS} days, the "
        "product's advice."
    )
    because.append(why + after)
    return Answer("stop", f"{CANNOT}: {state}; {_ends(likely)}.", because, leader=top.ahead, smallest=smallest)


NO_FLOW = Flow(0, np.zeros(0, np.int64), 0.0, 0.0, 0.0, 1.0)


def _added(flow: Flow) -> str:
    return f"at present {flow.added:,.0f} are added a day (the sends of the last 14 days)"


def _ends(days: float) -> str:
    return f"at the present rate it takes {_many(days)} more days" if math.isfinite(days) else "the sends have stopped"


def _allowed(got: Compared) -> list[tuple[dict[str, Any], float]]:
    """The lead over the reference that each variant's own 95 % interval allows, and that of the reference over all."""
    rows = [{str(k): v for k, v in r.items()} for r in got.table.to_dict("records") if r["ready"]]
    gain = [got.sign * r["difference_per_1000"] for r in rows]
    room = [z_value(0.95) * r["se_per_1000"] for r in rows]
    last = gain.index(max(gain))  # the last variant to be told to be worse
    return [*zip(rows, np.add(gain, room).tolist(), strict=True), (rows[last], room[last] - gain[last])]


def _newcomer(g: Given, got: Compared | None, top: Top | None) -> Answer | None:
    """Wait for the variant of which something can be said first, if that is in time."""
    table = {} if got is None else {str(r["variant_id"]): r for r in got.table.to_dict("records")}
    found = []
    for v, flow in g.flows.items():
        row = table.get(v)
        if row is not None and row["ready"]:
            continue
        more = _more(row, flow)
        if flow.sent_soon(more) and math.isfinite(flow.days(more)):
            found.append((flow.days(more), v))
    if not found:
        return None
    days, v = min(found)
    n, row = max(math.ceil(days), 1), table.get(v)
    others = top is not None and bool(top.row["ready"])
    state = f"no send of {v} is mature yet" if row is None else _few(row)
    if not g.mature:
        state = "no send is mature yet"
    because = [LEAST, f"{_added(g.flows[v])}."[:1].upper() + f"{_added(g.flows[v])}."[1:]]
    if others and top is not None:
        because.insert(0, f"{top.said}, which tells nothing.")
    text = f"{_until(n, g.as_of)}, and look again{f' at {v}' if others else ''}: {state}."
    return Answer("wait", text, because, days=n, leader=top.ahead if top and top.row["ready"] else None)


LEAST = (
    f"Variants are told apart from {LEAST_SENDS:,} mature sends of each on, to {LEAST_USERS} users, {LEAST_EARNED} of "
    "the sends with an outcome at the common rate."
)


def _more(row: Mapping[str, Any] | None, flow: Flow) -> float:
    """Mature sends that are missing until something is told of a variant; `row`: its row, None without any."""
    if row is None:
        return LEAST_SENDS / flow.share if flow.share > 0 else math.inf
    return rows_until_ready(row) - int(row["rows"])


def _few(r: Mapping[str, Any]) -> str:
    """What there is too little of."""
    sends, name = min((r["sends"], r["variant_id"]), (r["against_sends"], r["against"]))
    if r["users"] < LEAST_USERS and r["users"] * LEAST_SENDS < sends * LEAST_USERS:
        return f"the mature sends of a variant amount to {users_words(r['users'])}, too few"
    if sends >= LEAST_SENDS:
        return f"{sends * r['earned']:,.0f} outcomes to be expected of {sends:,} mature sends of {name} are too few"
    return f"{sends:,} mature sends of {name} are too few"


def users_words(n: float) -> str:
    """
    >>> users_words(1.0), users_words(57.3)
    ('1 user', '57 users')
    """
    return several(round(n), "user")


def _too_few(g: Given, top: Top) -> Answer:
    """Nothing is known, and it would take too long."""
    r = top.row
    if not r["earned"] > 0:
        return Answer("stop", f"{CANNOT}: no mature send has an outcome (see justai-sim doctor).", [LEAST])
    flow = g.flows.get(str(r["variant_id"]), NO_FLOW)
    days = flow.days(_more(r, flow))
    because = [f"{LEAST[:-1]}; {_added(flow)}.", f"More than {MOST_DAYS} days are beyond the product's advice."]
    ends = "" if r["users"] * LEAST_SENDS < LEAST_USERS * min(r["sends"], r["against_sends"]) else f"; {_ends(days)}"
    return Answer("stop", f"{CANNOT}: {_few(r)}{ends}.", because)


def _until(n: int, as_of: int) -> str:
    return f"Wait {several(n, 'day')}, until {clock.iso(as_of + n * DAY)[:10]}"


def _many(days: float) -> str:
    """
    >>> _many(31.2), _many(5000)
    ('32', 'more than 1,000')
    """
    return f"{math.ceil(days):,}" if days <= 1000 else "more than 1,000"


def _visible(top: Top, rate: float, level: float) -> str:
    if not top.row["ready"] or not rate > 0:
        return ""
    n = np.array([top.row["rows"] + MOST_DAYS * rate])
    sd = float(top.row["se_per_1000"]) * math.sqrt(top.row["rows"])
    half = float(sequence_radius(sd / np.sqrt(n), n, level, TUNED)[0])
    return (
        f" After {MOST_DAYS} days a difference of {half:,.{places(half)}f} {top.unit} per 1,000 sends would be visible."
    )


def rows_needed(row: Mapping[str, Any], lead: float, level: float) -> float:
    """Mature sends at which the interval would leave out 0 with this lead per 1,000 and the spread of `row`; inf for
    none."""
    rows = int(row["rows"])
    sd = float(row["se_per_1000"]) * math.sqrt(rows)
    n = rows * np.exp2(np.linspace(0, 24, 24 * 64 + 1))
    far = sequence_radius(sd / np.sqrt(n), n, level, TUNED) <= lead
    return float(n[far.argmax()]) if far.any() else math.inf


def rows_until_ready(row: Mapping[str, Any]) -> float:
    """Mature sends until the pair begins to be told, with its present shares, users and rate of outcomes."""
    least = min(row["sends"], row["against_sends"])
    earned = least * row["earned"]
    if not earned > 0:
        return math.inf
    return float(row["rows"] * max(LEAST_SENDS / least, LEAST_EARNED / earned, LEAST_USERS / row["users"]))


def _nothing(g: Given) -> Answer:
    """There is no pair: too early, or for good."""
    if g.got is None and g.mature:
        return Answer("stop", f"{CANNOT}: {g.why}.", [])
    early = _newcomer(g, g.got, None)
    if early is not None:
        return early
    if not g.mature and g.flows:
        days = min(f.days(_more(None, f)) for f in g.flows.values())
        if math.isfinite(days):
            return Answer("stop", f"{CANNOT}: no send is mature yet; {_ends(days)}.", [LEAST])
    if g.got is None:
        return Answer("stop", f"{CANNOT}: {g.why}.", [])
    return Answer("stop", f"{CANNOT}: no template had two variants at the same time, and what was sent before or after "
                  "another is no comparison.", [])  # fmt: skip

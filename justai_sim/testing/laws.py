"""The laws of attribution as objects: what holds for every log, whatever the function's inside.

A law is tested on one small log and one of its `cases` (an order, a shift, another window). It returns None where
it holds, and a `Breach` where it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from justai_sim import clock
from justai_sim.attribution.rule import Rule
from justai_sim.clock import DAY, HOUR
from justai_sim.testing.answers import SINGLE, TOLERANCE, Answer, differences
from justai_sim.testing.draw import TICK
from justai_sim.testing.law import Breach, Context, CrashError, Law
from justai_sim.testing.rows import Row, SmallLog, known_at


def answers_every_log(c: Context, small: SmallLog, _: None) -> Breach | None:
    try:
        c.ask(small)
    except CrashError as e:
        return Breach(small, {}, {}, error=str(e))
    return None


def agreement(c: Context, small: SmallLog, _: None) -> Breach | None:
    judged = c.judge(small)
    mine, want, optional = c.ask(small), judged.answer(c.subject.form), judged.optional(c.subject.form)
    gaps = differences(mine, want, optional)
    if not gaps:
        return None
    wrong = {key[0] for key in gaps}  # of an event in dispute, what would be right is said though it may be left out
    want |= {key: weight for key, weight in optional.items() if key[0] in wrong}
    return Breach(small, {"yours": mine, "the rule": want}, gaps, judged)


def _same(small: SmallLog, before: Answer, after: Answer, how: str) -> Breach | None:
    gaps = differences(after, before)
    return Breach(small, {"yours": before, f"yours, {how}": after}, gaps) if gaps else None


# --- the rows: their order, their copies, their time, their neighbours ---


def _when(row: Row) -> int:
    return int(row["sent_at"] if "sent_at" in row else row["occurred_at"])


ORDERS: dict[str, Callable[[list[Row]], list[Row]]] = {
    "with the rows in reverse": lambda rows: rows[::-1],
    "with the rows in order of time": lambda rows: sorted(rows, key=_when),
    "with the rows newest first": lambda rows: sorted(rows, key=_when, reverse=True),
}


def permutation(c: Context, small: SmallLog, how: str) -> Breach | None:
    order = ORDERS[how]
    other = SmallLog(order(small.send_rows), order(small.event_rows))
    return _same(small, c.ask(small), c.ask(other), how)


COPIES: dict[str, Callable[[list[Row]], list[Row]]] = {
    "with every row twice": lambda rows: rows + rows,
    "with every row followed by its copy": lambda rows: [r for r in rows for _ in range(2)],
}


def duplication(c: Context, small: SmallLog, how: str) -> Breach | None:
    twice = COPIES[how]
    other = SmallLog(twice(small.send_rows), twice(small.event_rows))
    return _same(small, c.ask(small), c.ask(other), how)


TIMES = ("sent_at", "delivered_at", "status_known_at", "received_at", "occurred_at")


def shifted(rows: list[Row], by: int) -> list[Row]:
    return [r | {k: r[k] + by for k in TIMES if r.get(k) is not None} for r in rows]


def _shifts(c: Context) -> list[int]:
    tick = TICK[c.shape.resolution]
    finer = [] if c.rule.day_rule == "calendar" else [HOUR, 12 * HOUR, tick]
    return [DAY, 7 * DAY, 400 * DAY, *(x for x in finer if x % tick == 0)]


def shift(c: Context, small: SmallLog, by: int) -> Breach | None:
    other = SmallLog(shifted(small.send_rows, by), shifted(small.event_rows, by))
    length = f"{by / DAY:g} days" if by >= DAY else f"{by / HOUR:g} hours" if by >= HOUR else f"{by} microseconds"
    return _same(small, c.ask(small), c.ask(other), f"with all times {length} later")


def _linked(small: SmallLog, user: str) -> set[str]:
    """The user with all who are linked to him by an event of one that names a send of another."""
    owner = {s["send_id"]: s["user_id"] for s in small.send_rows}
    pairs = [(e["user_id"], owner[e["send_id"]]) for e in small.event_rows if e["send_id"] in owner]
    found: set[str] = set()
    new = {user}
    while new:
        found |= new
        new = {b for pair in pairs if found & set(pair) for b in pair} - found
    return found


def other_users(c: Context, small: SmallLog, user: str) -> Breach | None:
    circle = _linked(small, user)

    def part(inside: bool) -> SmallLog:
        sends = [s for s in small.send_rows if (s["user_id"] in circle) == inside]
        ids = {s["send_id"] for s in small.send_rows if s["user_id"] in circle}
        events = [e for e in small.event_rows if (e["user_id"] in circle or e["send_id"] in ids) == inside]
        return SmallLog(sends, events)

    one, rest = part(True), part(False)
    if not len(one) or not len(rest):
        return None
    apart = c.ask(one)
    for key, weight in c.ask(rest).items():
        apart[key] = apart.get(key, 0.0) + weight
    return _same(small, c.ask(small), apart, f"asked for user {user} and for the others apart")


# --- weights ---


def weights(c: Context, small: SmallLog, _: None) -> Breach | None:
    mine = c.ask(small)
    sends = {s["send_id"]: s for s in small.send_rows}
    total: dict[tuple[str, ...], float] = {}
    for key, weight in mine.items():
        group = _scope_of(c, key, sends)
        total[group] = total.get(group, 0.0) + weight
    gaps = {g: w - 1 for g, w in total.items() if not _adds_up(c, w)}
    return Breach(small, {"yours": mine}, gaps) if gaps else None


def _scope_of(c: Context, key: tuple[str, ...], sends: dict[str, Row]) -> tuple[str, ...]:
    """What the weights are summed over: the event in its scope, under `all` each credit by itself."""
    rule, form = c.rule, c.subject.form
    if rule.credit == "all" or (rule.credit == "all_variants" and not form.by_send):
        return key
    send = sends.get(key[1], {}) if form.by_send else {}
    template = str(send.get("template_id", "?")) if form.by_send else key[2] if form.by_template else ""
    scope = {"template": template, "org": "", "group": rule.groups.get(template, template)}[rule.scope]
    variant = (template, str(send.get("variant_id", "?"))) if rule.credit == "all_variants" else ()
    return (key[0], scope, *variant)


def _adds_up(c: Context, total: float) -> bool:
    """1; a whole number where the answer does not say the scope or the send."""
    form = c.subject.form
    one = abs(total - 1) <= TOLERANCE
    if form.by_send or (form.by_template and c.rule.credit not in ("all", "all_variants")) or c.rule.scope == "org":
        return one if form.by_send or c.rule.credit in (*SINGLE, "linear", "time_decay", "position") else _whole(total)
    return _whole(total)


def _whole(x: float) -> bool:
    return x > TOLERANCE and abs(x - round(x)) <= TOLERANCE


# --- other windows: for functions that take the rule ---


def _with(rule: Rule, **changes: Any) -> Rule:
    return msgspec.structs.replace(rule, **changes)


def _wider(c: Context) -> list[Rule]:
    r = c.rule
    longer = [_with(r, lookback_days=r.lookback_days + more) for more in (7, 1, 30)]
    smaller = [x for x in (0, r.offset_days / 2) if x < r.offset_days]
    if r.lookback_from == "offset_end":  # the outer edge stays where it is
        return longer + [_with(r, offset_days=x, lookback_days=r.lookback_days + r.offset_days - x) for x in smaller]
    return longer + [_with(r, offset_days=x) for x in smaller]


def _orders_only(small: SmallLog, c: Context, answer: Answer) -> Answer:
    """Without engagement and refunds, which no conversion window concerns."""
    if c.subject.form.totals:
        return answer
    ids = {e["event_id"] for e in small.event_rows if e["kind"] == "conversion" and (e["value"] or 0) >= 0}
    return {k: v for k, v in answer.items() if k[0] in ids}


def _window(rule: Rule) -> str:
    return f"{rule.offset_days:g} to {rule.lookback_days:g} days"


def _two_windows(c: Context, small: SmallLog, wide: Rule) -> tuple[Answer, Answer]:
    return _orders_only(small, c, c.ask(small)), _orders_only(small, c, c.ask(small, wide))


def monotone(c: Context, small: SmallLog, wide: Rule) -> Breach | None:
    mine, more = _two_windows(c, small, wide)
    if c.subject.form.totals:
        lost: Answer = {("all variants",): sum(more.values()) - sum(mine.values())}
        gaps = {k: v for k, v in lost.items() if v < -TOLERANCE}
    else:
        kept = {k[0] for k in more}
        gaps = {k: -v for k, v in mine.items() if k[0] not in kept}
    return Breach(small, {"yours": mine, f"yours, window {_window(wide)}": more}, gaps) if gaps else None


def same_winner(c: Context, small: SmallLog, wide: Rule) -> Breach | None:
    mine, more = _two_windows(c, small, wide)
    gaps = {k: -v for k, v in mine.items() if k not in more and any(o[0] == k[0] for o in more)}
    return Breach(small, {"yours": mine, f"yours, window {_window(wide)}": more}, gaps) if gaps else None


def partition(c: Context, small: SmallLog, cut: tuple[float, float]) -> Breach | None:
    a, b = cut
    first: dict[str, str] = {}
    for s in small.send_rows:
        first.setdefault(s["user_id"], s["send_id"])
    alone = SmallLog([s for s in small.send_rows if first[s["user_id"]] == s["send_id"]], small.event_rows)
    base = _with(c.rule, bounds="[)", lookback_from="send", offset_days=0, lookback_days=b)
    early, late = _with(base, lookback_days=a), _with(base, offset_days=a)
    both = _orders_only(alone, c, c.ask(alone, early))
    for key, weight in _orders_only(alone, c, c.ask(alone, late)).items():
        both[key] = both.get(key, 0.0) + weight
    whole = _orders_only(alone, c, c.ask(alone, base))
    gaps = differences(both, whole)
    words = {f"yours, window 0 to {b:g} days": whole, f"yours, 0 to {a:g} and {a:g} to {b:g} days together": both}
    return Breach(alone, words, gaps) if gaps else None


def _cuts(c: Context) -> list[tuple[float, float]]:
    own = (c.rule.offset_days, c.rule.upper_days)
    return list(dict.fromkeys([cut for cut in (own, (3.0, 14.0), (1.0, 7.0)) if 0 < cut[0] < cut[1]]))


# --- what becomes known ---


def final_is_stable(c: Context, small: SmallLog, which: int) -> Breach | None:
    ends = c.judge(small).result.outcomes.close_at.tolist()
    ends = sorted({t + clock.days(c.rule.lateness_days) for t in ends if t > 0})
    if not ends:
        return None
    t = ends[which % len(ends)]
    then = c.judge(small, t).result
    sends = small.log.text("send", small.log.sends.send[then.outcomes.send_row])
    final = {s for s, done in zip(sends, then.final().tolist(), strict=True) if done}

    def settled(answer: Answer) -> Answer:
        return {k: v for k, v in _orders_only(small, c, answer).items() if k[1] in final}

    before, after = settled(c.ask(known_at(small, t))), settled(c.ask(small))
    gaps = differences(after, before)
    words = {f"yours at {clock.iso(t)}, of final sends": before, "yours at the end, of the same sends": after}
    return Breach(small, words, gaps) if gaps else None


def incremental(c: Context, small: SmallLog, parts: int) -> Breach | None:
    moments = sorted({_heard(r) for r in [*small.send_rows, *small.event_rows]})
    once = c.ask(small)
    for k in range(1, parts):
        if moments:
            c.ask(known_at(small, moments[k * (len(moments) - 1) // parts]))
    return _same(small, once, c.ask(small, again=True), "after it was asked while the rows came in")


def _heard(row: Row) -> int:
    return _when(row) if row["received_at"] is None else int(row["received_at"])


# --- when a law does not apply ---


def _needs_rule(c: Context) -> str:
    return "" if c.subject.takes_rule else "the function takes no parameter `rule`"


def _needs_copies(c: Context) -> str:
    return "" if c.shape.has("duplicates") else "duplicates is not among the features"


def _needs_events(c: Context) -> str:
    return "totals say nothing of single events" if c.subject.form.totals else ""


def _needs_monotone(c: Context) -> str:
    return "not so under last_then_check" if c.rule.credit == "last_then_check" else _needs_rule(c)


def _needs_winner(c: Context) -> str:
    if c.rule.credit != "last_qualifying" or c.rule.explicit == "window_then_join":
        return "only under last_qualifying, and not under window_then_join"
    return _needs_rule(c) or _needs_events(c)


def _needs_partition(c: Context) -> str:
    return "ids are trusted whatever the window" if c.rule.explicit == "trust" else _needs_rule(c)


def _needs_final(c: Context) -> str:
    if not c.subject.form.by_send:
        return "only for answers by send"
    return "the anchor itself may move" if c.rule.anchor != "sent" else ""


def _needs_elapsed(c: Context) -> str:
    local = c.rule.day_rule == "calendar" and c.rule.tz != "UTC"
    return "local days are not all 24 hours long" if local else ""


LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law("answers", "the function answers every log", "a defined result for any input", answers_every_log),
        Law("agreement", "the credit is the one that the rule gives", "rules 4 to 31", agreement),
        Law("permutation", "the order of the rows means nothing", "rules 10, 32", permutation, lambda _: list(ORDERS)),
        Law(
            "duplication", "rows that are delivered twice change nothing", "rule 26",
            duplication, lambda _: list(COPIES), _needs_copies,
        ),
        Law("shift", "only ages count: all times later, the same credit", "rule 4", shift, _shifts, _needs_elapsed),
        Law(
            "other_users", "a user's credit does not depend on other users' rows", "rule 10",
            other_users, lambda _: ["u1", "u2", "u3"],
        ),
        Law(
            "weights", "the weights of a conversion sum to 1 in its scope (under `all`, each is 1)", "rule 11",
            weights, needs=_needs_events,
        ),
        Law(
            "wider", "a longer lookback or a smaller offset never loses a credited conversion", "rules 4, 10",
            monotone, _wider, _needs_monotone,
        ),
        Law(
            "same_winner", "a longer lookback never changes who wins under last_qualifying", "rule 10",
            same_winner, lambda c: _wider(c)[:3], _needs_winner,
        ),
        Law(
            "partition", "of a lone send, windows [0, a) and [a, b) together credit what [0, b) does", "rule 4",
            partition, _cuts, _needs_partition,
        ),
        Law(
            "final", "what a final send earned stands still whatever comes later", "rules 33, 34",
            final_is_stable, lambda _: [0, 1, 2], _needs_final,
        ),
        Law(
            "incremental", "asked while the rows come in or once at the end: the same", "rule 32",
            incremental, lambda _: [2],
        ),
    )
}  # fmt: skip
"""The laws of attribution by name (section 12 of the rule)."""

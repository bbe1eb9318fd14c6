"""Is there a conversion at all, by the name that was meant, of the people who got a message, and once?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

import numpy as np

from justai_sim.checks.codes import flags
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import Finding, NotChecked, Said, at_least, count, listed, percent
from justai_sim.clock import DAY, MINUTE, MISSING
from justai_sim.tables import CONVERSION, I8, KINDS, REASONS, UNSUBSCRIBE
from justai_sim.whatif import words

ENOUGH = 10
"""Events below which a share says nothing."""
FEW_GOALS = f"fewer than {ENOUGH} goal conversions"
WEEKLY = 1.0
"""A goal that a user meets more often than this a week on average is no purchase."""
TWIN = MINUTE
"""Two events of a user that lie so close together tell of the same thing."""
PAGE_WORDS = re.compile(r"page|view|visit|session|screen|impression|scroll|heartbeat|pixel", re.I)
RESTATED = re.compile(r"conver(sion|ted)", re.I)


def conversions(f: Facts) -> Iterator[Said]:
    """No conversion at all, none of the goal's name, or no goal chosen among several."""
    names = f.by_name
    if not names:
        kinds = np.bincount(f.log.events.kind, minlength=len(KINDS)).tolist()
        there = ", ".join(count(n, k) for k, n in zip(KINDS, kinds, strict=True) if n) or "no event"
        yield Finding(
            "no_conversions", "wrong", f"The log holds no conversion: {count(len(f.log.sends), 'send')}, {there}.",
            "Send the event that counts (e.g. purchase) to the webhook, or add its export; check it is switched on.",
            {"conversions": 0, "sends": len(f.log.sends)},
        )  # fmt: skip
        return
    absent = [g for g in f.asked if g not in names]
    for goal in absent:
        near = nearest_first(goal, list(names))
        shown = ", ".join(f"{n!r} ({names[n]:,})" for n in near[:5])
        yield Finding(
            "wrong_event", "wrong",
            f"No event is called {goal!r}. Present, nearest first: {shown}."
            + (f" This list goes on with {f.goals[0]!r}." if f.goals and f.goals != f.asked else ""),
            f"Ask for --goal {near[0]!r}, or have the event renamed at its source.",
            {"events": 0, "nearest": near[0], "nearest_events": names[near[0]]},
        )  # fmt: skip
    if not f.asked and len(names) > 1:
        shown = ", ".join(f"{n or '(no name)'!r} ({k:,})" for n, k in list(names.items())[:5])
        yield Finding(
            "goal_not_chosen", "note",
            f"The log has {len(names)} conversion names and none was chosen; this list takes {f.goals[0]!r}. Present: "
            f"{shown}.", "Choose with --goal NAME.", {"names": len(names)},
        )  # fmt: skip


def nearest_first(name: str, names: list[str]) -> list[str]:
    """Names by likeness, case and punctuation apart.

    >>> nearest_first("Order Completed", ["page", "order_completed", "order_cancelled"])
    ['order_completed', 'order_cancelled', 'page']
    """
    plain = _plain(name)
    return sorted(names, key=lambda n: (-difflib.SequenceMatcher(None, plain, _plain(n)).ratio(), n))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def spellings(f: Facts) -> Iterator[Said]:
    """Other spellings of a goal that are not counted with it."""
    for goal in f.goals:
        other = [n for n in f.by_name if n not in f.goals and n and _plain(n) == _plain(goal)]
        if other:
            n = sum(f.by_name[o] for o in other)
            yield Finding(
                "other_spelling", "wrong",
                f"{listed(other)} ({count(n, 'event')}) is {goal!r} ({f.by_name.get(goal, 0):,}) in another spelling, "
                "and is not counted.", f"Give --goal for each spelling, or name both {goal!r} at the source.",
                {"events": n},
            )  # fmt: skip


def people(f: Facts) -> Iterator[Said]:
    """Whether those who convert are those who got a message: ids of two systems may not be the same."""
    user = f.user[f.goal]
    known = user >= 0
    if known.sum() < ENOUGH or not len(f.sent):
        yield NotChecked("ids of both sides", f"{FEW_GOALS} name a user" if len(f.sent) else "the log has no sends")
        return
    met = int(flags(f.log.sends.user, f.users)[user[known]].sum())
    if met == 0:
        yield Finding(
            "ids_do_not_match", "wrong",
            f"None of {count(int(known.sum()), 'goal conversion')} belongs to a user with a send: the ids of both "
            "sides are not the same.",
            "Send the same user id with conversions as with messages (not e-mail here and a number there).",
            {"conversions": int(known.sum()), "matched": 0},
        )  # fmt: skip


def nothing_credited(f: Facts) -> Iterator[Said]:
    """Goal conversions of which not one is credited, and why."""
    if not len(f.goal) or not len(f.sent):
        return
    reason = np.bincount(f.got.reason[f.goal], minlength=len(REASONS))
    if reason[REASONS.index("credited")]:
        return
    why = {REASONS[i]: int(reason[i]) for i in np.argsort(-reason, kind="stable") if reason[i]}
    said = ", ".join(f"{words.REASON.get(k, k)} ({n:,})" for k, n in why.items())
    first = next(iter(why))
    mend = _NAMELESS if first == "no_send" and 2 * (f.user[f.goal] < 0).sum() > len(f.goal) else _MEND[first]
    yield Finding(
        "nothing_credited", "wrong" if len(f.goal) >= ENOUGH else "doubtful",
        f"Not one of {count(len(f.goal), 'goal conversion')} is credited. Why: {said}.", mend,
        {"conversions": len(f.goal)} | why,
    )  # fmt: skip


_MEND = {
    "in_offset": "Nothing can count during the ignored first days; if conversions come that soon, look at other "
    "windows with justai-sim surface.",
    "past_lookback": "Load the sends of the days before these conversions too.",
    "before_send": "Load conversions of the days after the sends too; check the time zones of both.",
    "no_anchor": "Use --set anchor=sent, or load what the anchor is taken from.",
    "not_delivered": "See why these sends bounced or were dropped.",
    "no_send": "Send the same user id with conversions as with messages, or load the sends of these users.",
}
"""By the most frequent reason."""
_NAMELESS = "Most of them name neither a user nor a known send: send the user id with conversions, as with messages."


def missing_users(f: Facts) -> Iterator[Said]:
    """Events without a user whose send does not tell one either."""
    e = f.log.events
    rows = np.flatnonzero(f.first & (e.kind <= UNSUBSCRIBE))  # responses; status events need no user
    lost = f.user[rows] < 0
    if not lost.any():
        return
    n, of_goal = int(lost.sum()), int((f.user[f.goal] < 0).sum())
    yield Finding(
        "missing_users", "doubtful" if at_least(n, len(rows)) > 0.01 or of_goal else "note",
        f"{n:,} of {count(len(rows), 'response')} ({percent(n, len(rows))}) name neither a user nor a known send, "
        f"{of_goal:,} of them goal conversions: nobody can be credited.",
        "Have the source send the user id also for people who are not logged in, or pass on the message id.",
        {"events": n, "share": n / len(rows), "goal_conversions": of_goal},
    )  # fmt: skip


def page_views(f: Facts) -> Iterator[Said]:
    """Goals that happen like page views: often to everybody, without an amount."""
    e = f.log.events
    for goal in f.goals:
        rows = f.goal[e.name[f.goal] == f.log.names("name").index(goal)] if goal in f.by_name else f.goal[:0]
        if len(rows) < ENOUGH:
            yield NotChecked("page-view-like goal", FEW_GOALS)
            continue
        when = f.occurred[rows]
        weeks = max((f.as_of - min(int(when.min()), int(f.log.sends.sent_at.min(initial=f.as_of)))) / (7 * DAY), 1.0)
        people = int((flags(f.user[rows], f.users) | f.messaged).sum())
        rate = len(rows) / people / weeks
        no_amount = bool((e.value[rows] == MISSING).all())
        named = bool(PAGE_WORDS.search(goal)) and no_amount
        if rate > WEEKLY or named:
            why = f"{rate:.2g} times per user and week" + (", and never has an amount" if no_amount else "")
            yield Finding(
                "page_view_goal", "doubtful",
                f"The goal {goal!r} happens {why}: it looks like a page view, and hardly depends on a message.",
                "Choose an event that a message is meant to bring about, such as a purchase.",
                {"per_user_week": rate, "events": len(rows)},
            )  # fmt: skip


def restated(f: Facts) -> Iterator[Said]:
    """One conversion under two names: a platform's own conversion event beside the purchase."""
    told = {k: n for k, n in f.log.skipped.items() if RESTATED.search(k)}
    if told:
        yield Finding(
            "restated_goal", "note",
            f"The export holds {count(sum(told.values()), 'conversion')} that the platform attributed itself "
            f"({listed(list(told))}); they restate others and are not loaded.",
            "Count purchases or custom events, and do not add the platform's own conversions to them.",
            {"events": sum(told.values())},
        )  # fmt: skip
    names = [n for n in f.by_name if f.by_name[n] >= ENOUGH][:8]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:  # the rarer of the two
            if a in f.goals or b in f.goals:
                yield from _restated(f, a, b)


def _restated(f: Facts, a: str, b: str) -> Iterator[Said]:
    rows_a, rows_b = _of_name(f, a), _of_name(f, b)
    n = int(_close(f, rows_b, rows_a).sum())
    if at_least(n, len(rows_b)) < 0.5:
        return
    both = a in f.goals and b in f.goals
    yield Finding(
        "restated_goal", "wrong" if both else "note",
        f"{n:,} of {len(rows_b):,} {b!r} ({percent(n, len(rows_b))}) have a {a!r} of the same user within a minute: "
        + ("both are counted, so most count twice." if both else "they tell of the same thing twice."),
        f"Count one of {a!r} and {b!r} only.", {"events": n, "share": n / len(rows_b)},
    )  # fmt: skip


def _of_name(f: Facts, name: str) -> I8:
    e = f.log.events
    code = f.log.names("name").index(name) if name else -1
    return np.flatnonzero((e.kind == CONVERSION) & f.first & (e.name == code) & (f.user >= 0))


def _close(f: Facts, rows: I8, others: I8) -> np.ndarray:
    """Which of `rows` have one of `others` by the same user within TWIN."""
    key = f.user[others] * (1 << 33) + f.occurred[others] // 1_000_000
    key.sort()
    mine = f.user[rows] * (1 << 33) + f.occurred[rows] // 1_000_000
    width = TWIN // 1_000_000
    return np.searchsorted(key, mine + width, side="right") > np.searchsorted(key, mine - width, side="left")


def twins(f: Facts) -> Iterator[Said]:
    """Goal conversions told twice under two ids: the same user, name and amount within a minute."""
    e = f.log.events
    rows = f.goal[f.user[f.goal] >= 0]
    order = rows[np.lexsort((f.occurred[rows], e.value[rows], e.name[rows], f.user[rows]))]
    a, b = order[:-1], order[1:]
    same = (f.user[a] == f.user[b]) & (e.name[a] == e.name[b]) & (e.value[a] == e.value[b])
    n = int((same & (f.occurred[b] - f.occurred[a] <= TWIN)).sum())
    if n < ENOUGH or at_least(n, len(rows)) < 0.01:
        return
    yield Finding(
        "twins", "doubtful",
        f"{n:,} of {count(len(rows), 'goal conversion')} ({percent(n, len(rows))}) repeat one of the same user and "
        "amount within a minute under another id: retries, or line items.",
        "Send an event id that stays the same on a retry, or an order id.", {"events": n, "share": n / len(rows)},
    )  # fmt: skip


def no_sends(f: Facts) -> Iterator[Said]:
    """A log without sends: nothing can be credited."""
    if not len(f.sent):
        yield Finding(
            "no_sends", "wrong",
            f"None of {count(len(f.log.sends), 'send')} was received in time, so nothing can be credited."
            if len(f.log.sends)
            else f"The log holds no sends ({count(len(f.log.events), 'event')}), so nothing can be credited.",
            "Add the export of sends; a Segment source that tells only of deliveries is read with --esp "
            "segment-deliveries.", {"sends": 0},
        )  # fmt: skip


def refused(f: Facts) -> Iterator[Said]:
    """Rows that could not be read."""
    n = sum(f.log.rejects.values())
    if n:
        whole = n + len(f.log.sends) + len(f.log.events) + len(f.log.decisions)
        most = max(f.log.rejects, key=lambda k: f.log.rejects[k])
        yield Finding(
            "refused_rows", "wrong" if at_least(n, whole) > 0.05 else "doubtful",
            f"{n:,} of {count(whole, 'row')} could not be read ({percent(n, whole)}), most of them for {most!r}.",
            "Look at them: justai-sim load ... --rejects DIR.", {"rows": n, "share": n / whole},
        )  # fmt: skip

"""When: silence, late and future rows, wrong units, shifted zones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import special

from justai_sim import clock
from justai_sim.attribution.prepare import SKEW
from justai_sim.checks.ages import Ages
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import LEVEL, Finding, NotChecked, Said, at_least, count, exceeding, percent, spread
from justai_sim.clock import DAY, HOUR, MINUTE, MISSING
from justai_sim.tables import CLICK, F8, I8, OPEN, REASON

LOOKED_AT = 5
"""Gaps of a stream that are looked at, the longest ones."""
WEEKEND = 3 * DAY
"""A shorter silence must stand out among the others, or it may be a weekend."""
SLOWER = 0.5
"""Rates may be this much lower than on average (seasons, weekdays) without being a silence."""
NO_RECEIPTS = "the log does not say when rows were received"
SHIFTS = tuple(k for k in range(-14, 15) if k)


def silent(f: Facts) -> Iterator[Said]:
    """Streams that fall silent for a day or more while messages go on that should bring some."""
    for name, rows in f.streams.items():
        if not len(rows) or not len(f.sent):
            yield NotChecked(f"silence of {name}", f"the log has no {name}" if len(f.sent) else "the log has no sends")
            continue
        yield from _silent(f, name, rows)


def _silent(f: Facts, name: str, rows: I8) -> Iterator[Said]:
    when = f.occurred[rows]
    first = int(f.log.sends.sent_at[f.sent].min())
    inside = np.sort(when[(when >= first) & (when <= f.as_of)])
    at = np.concatenate([[first], inside, [f.as_of]])
    gap = np.diff(at)
    longest = np.argsort(-gap, kind="stable")[:LOOKED_AT]
    parts = _by_age(f, rows)
    usual = int(gap[longest[min(3, len(longest) - 1)]])
    for i in longest.tolist():
        length = int(gap[i])
        if length < DAY or (length < WEEKEND and length < 2 * usual):
            continue
        expected = sum(ages.expected(rate, int(at[i]), int(at[i + 1])) for ages, rate in parts)
        chance = float(np.exp(-SLOWER * expected)) * len(gap)
        if chance >= LEVEL / 3:
            continue
        start, end = clock.iso(int(at[i]))[:16] + "Z", clock.iso(int(at[i + 1]))[:16] + "Z"
        yield Finding(
            "silent", "wrong",
            f"No {name} for {spread(length / HOUR)}, from {start} to {end}, where {expected:,.0f} were to be expected "
            f"after the sends before: the webhook or the export is likely silent (by chance: {exceeding(chance)}).",
            "Look at the webhook's log for these days and load the missing ones from an export; leave them out with "
            "--since and --until until then.",
            {"stream": name, "from": start, "to": end, "hours": length / HOUR, "expected": expected, "chance": chance},
        )  # fmt: skip


def _by_age(f: Facts, rows: I8) -> list[tuple[Ages, F8]]:
    """What to expect when of a stream of events: stretches of time, and the rates by age in them; parts that add up.

    The age is that of the send which most of them name: responses to sends that are not in the log (or to an older one)
    would fill the late ages of the user's latest, and let expect some long after the last send. Without names it is
    the time since the user's latest send; after the first apart, as an earlier message's late responses fill the early
    ages of the next.
    """
    sent = f.log.sends.sent_at
    if 2 * int((f.log.events.send[rows] >= 0).sum()) < len(rows):
        return [(a, a.rate(a.since(f.user[rows], f.occurred[rows]))) for a in f.ages.parts()]
    rows = rows[f.named[rows] >= 0]
    ages = Ages.of(np.arange(len(f.sent)), sent[f.sent], f.as_of)
    return [(ages, ages.rate(f.occurred[rows] - sent[f.named[rows]]))]


def late(f: Facts) -> Iterator[Said]:
    """Rows heard of too long after they happened."""
    e, s, limit = f.log.events, f.log.sends, f.rule.lateness_days
    if not f.receipts:
        yield NotChecked("late times", NO_RECEIPTS)
        return
    events = int((f.got.reason == REASON["too_late"]).sum())
    sends = int((s.received_at - s.sent_at > clock.days(limit)).sum())
    if not events + sends:
        return
    whole = len(e) + len(s)
    imported = len(s) > 0 and at_least(sends, len(s)) > 0.5
    yield Finding(
        "late", "wrong" if at_least(events + sends, whole) > 0.05 else "doubtful",
        f"{count(events, 'event')} and {count(sends, 'send')} were received more than {limit:g} days after they "
        f"happened ({percent(events + sends, whole)} of all rows), and are ignored.",
        "If received_at is the time of an import, leave the column out."
        if imported
        else "Find out what held them back; --set lateness_days=30 takes them in.",
        {"events": events, "sends": sends, "share": (events + sends) / whole},
    )  # fmt: skip


def future(f: Facts) -> Iterator[Said]:
    """Rows that happened after they were heard of."""
    e, s = f.log.events, f.log.sends
    if not f.receipts:
        yield NotChecked("future times", NO_RECEIPTS)
        return
    ahead = e.occurred_at - np.where(e.received_at == MISSING, e.occurred_at, e.received_at)
    ahead_sends = s.sent_at - np.where(s.received_at == MISSING, s.sent_at, s.received_at)
    n, m = int((ahead > SKEW).sum()), int((ahead_sends > SKEW).sum())
    if not n + m:
        return
    most = max(int(ahead.max(initial=0)), int(ahead_sends.max(initial=0)))
    whole, longest = len(e) + len(s), count(max(round(most / HOUR), 1), "hour")
    yield Finding(
        "future", "wrong" if at_least(n + m, whole) > 0.01 else "doubtful",
        f"{count(n, 'event')} and {count(m, 'send')} happened after we heard of them, by up to {longest} "
        f"({percent(n + m, whole)} of all rows): their clock is ahead, or their zone was misread. The time of receipt "
        "is used.",
        "Check the zone of the source (--timezone for times without an offset) and the clocks of users' devices.",
        {"events": n, "sends": m, "most_hours": most / HOUR},
    )  # fmt: skip


def units(f: Facts) -> Iterator[Said]:
    """Integer times in a wrong unit lie in 1970."""
    n = int((f.log.sends.sent_at < 365 * DAY).sum() + (f.log.events.occurred_at < 365 * DAY).sum())
    if n:
        yield Finding(
            "wrong_unit", "wrong", f"{count(n, 'row')} lie in 1970: integer times are microseconds.",
            "Multiply seconds by 1,000,000 (milliseconds by 1,000), or write ISO-8601.", {"rows": n},
        )  # fmt: skip


def shifted(f: Facts) -> Iterator[Said]:
    """Responses that start a whole number of hours after (or before) the send they name: two zones."""
    e, s = f.log.events, f.log.sends
    rows = np.flatnonzero(f.first & ((e.kind == OPEN) | (e.kind == CLICK)) & (f.named >= 0))
    if len(rows) < 20:
        yield NotChecked("time zones", f"{count(len(rows), 'open')} or clicks name a known send; 20 are needed")
        return
    sent = s.sent_at[f.named[rows]]
    delay = f.occurred[rows] - sent
    # An hour's shift comes and goes with summer time, so each week is looked at by itself, then all together.
    every = shift_of(delay, SHIFTS, LEVEL / 2 / len(SHIFTS))
    week = (sent - int(sent.min())) // (7 * DAY)
    order = np.argsort(week, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(week[order])) + 1)
    found: dict[int, list[I8]] = {every: [order]} if every else {}
    for part in [] if every else parts:
        k = shift_of(delay[part], (-1, 1), LEVEL / 4 / len(parts))
        if k:
            found.setdefault(k, []).append(part)
    if not every and len(found) == 1:  # with other weeks that show the same, if less clearly
        k = next(iter(found))
        found[k] = [part for part in parts if shift_of(delay[part], (k,), 0.01)]
    for k, some in sorted(found.items()):
        at = np.concatenate(some)
        start, end = (clock.iso(int(t))[:10] for t in (sent[at].min(), sent[at].max()))
        how = f"{abs(k)} hour{'s' if abs(k) > 1 else ''} {'after' if k > 0 else 'before'}"
        yield Finding(
            "time_shift", "wrong",
            f"{count(len(at), 'open')} and clicks start {how} the send that they name (sends of {start} to {end}): "
            "sends and responses are in different time zones, and every age is off by that.",
            "Load again with the right zone (--timezone), or have both write UTC.",
            {"hours": k, "events": len(at), "from": start, "to": end},
        )  # fmt: skip


def shift_of(delay: I8, hours: tuple[int, ...], level: float) -> int:
    """The whole number of `hours` at which delays (n,), microseconds, start beyond chance; 0 if at none of them.

    Responses are the likelier the younger the message. So delays that are shifted by k hours are next to absent up to
    there, and jump within minutes of it: both must hold, as people who sleep until morning make neither at the hour.
    """
    ordered = np.sort(delay)

    def between(low: int, high: int) -> int:
        return int(np.searchsorted(ordered, high) - np.searchsorted(ordered, low))

    for k in hours:
        at = k * HOUR - SKEW
        before, after = between(at - 30 * MINUTE, at), between(at, at + 30 * MINUTE)
        if before > 0.1 * after or between(int(ordered[0]), at) > 0.02 * len(ordered):
            continue
        if special.bdtr(before, before + after, 0.5) < level:
            return k
    return 0

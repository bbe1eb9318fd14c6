"""Rows: copies, ids that are shared, machines, deliveries, responses to sends that are not there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from justai_sim.checks.codes import ranked, repeated
from justai_sim.checks.copies import RETOLD
from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import Finding, NotChecked, Said, at_least, count, percent
from justai_sim.clock import MISSING, SECOND
from justai_sim.tables import CLICK, CONVERSION, DELIVERY, KINDS, OPEN, REASON, SENT, UNSUBSCRIBE

SHARE = 0.05
"""The part of opens by machines, or of sends without delivery, from which on it is worth a line."""
FAST = 10 * SECOND
"""Nobody opens a message sooner after it left."""


def copies(f: Facts) -> Iterator[Said]:
    """Rows told more than once; harmless, as one counts."""
    events = int((f.got.reason == REASON["duplicate"]).sum()) - len(f.lost_events)
    s = f.log.sends
    sends = len(s) - len(ranked(s.send)[0]) - len(f.lost_sends)
    if events + sends:
        whole = len(f.log.events) + len(s)
        yield Finding(
            "copies", "note",
            f"{count(events, 'event')} and {count(sends, 'send')} are copies ({percent(events + sends, whole)} of all "
            "rows): each counts once.", "Nothing to do; providers retry, and exports overlap.",
            {"events": events, "sends": sends, "share": (events + sends) / whole},
        )  # fmt: skip


def shared_ids(f: Facts) -> Iterator[Said]:
    """Ids that stand for several things, so that all but one of them are lost."""
    s, e = f.log.sends, f.log.events
    differ = repeated(s.send, s.user)[1]
    if differ:
        yield Finding(
            "shared_send_ids", "wrong",
            f"Several users share {count(differ, 'send id')}: only the first row of each counts.",
            "Make send_id one message to one user, e.g. campaign:user.", {"ids": differ},
        )  # fmt: skip
    differ = repeated(s.send, s.template * (int(s.variant.max(initial=0)) + 1) + s.variant)[1] - differ
    if differ > 0:
        yield Finding(
            "two_variants", "wrong",
            f"Rows of {count(differ, 'send id')} differ in variant or template: the first one heard of counts.",
            "Make send_id one message; look at what writes the variant into it.", {"ids": differ},
        )  # fmt: skip
    first = f.first_sends
    again = int(((s.user == s.user[first]) & (s.sent_at - s.sent_at[first] > RETOLD)).sum())
    if again:
        yield Finding(
            "repeated_send_ids", "wrong",
            f"{count(again, 'send')} have the id of one to the same user over a day before: only the first counts.",
            "Make send_id one message at one time, e.g. campaign:user:day.", {"sends": again},
        )  # fmt: skip
    yield from _shared_event_ids(f)
    several = repeated(e.event[f.user >= 0], f.user[f.user >= 0])[1]
    if several:
        yield Finding(
            "event_ids_of_several_users", "doubtful",
            f"Several users share {count(several, 'event id')}. Nothing is lost, as copies are sought among a "
            "user's own events; but an event that is told under two ids of one person counts twice.",
            "Give every event an id of its own. If these are the same events, use one id for each person.",
            {"ids": several},
        )  # fmt: skip


def _shared_event_ids(f: Facts) -> Iterator[Said]:
    rows, e = f.lost_events, f.log.events
    if not len(rows):
        return
    conversions = rows[e.kind[rows] == CONVERSION]
    names = [repr(text) for text in f.log.names("name")]
    told = {names[i] if i >= 0 else "unnamed conversion": int((e.name[conversions] == i).sum())
            for i in np.unique(e.name[conversions]).tolist()}  # fmt: skip
    others = np.bincount(e.kind[rows[e.kind[rows] != CONVERSION]], minlength=len(KINDS)).tolist()
    told |= {kind: n for kind, n in zip(KINDS, others, strict=True) if n}
    which = ", ".join(f"{n:,} {what}" for what, n in sorted(told.items(), key=lambda x: -x[1])[:3])
    yield Finding(
        "shared_event_ids", "wrong",
        f"{count(len(rows), 'event')} have the id of another event of the same user, but another time, amount, name or "
        f"kind: they are no copies, and are lost ({which}).",
        "Give every event an id of its own, e.g. kind:message:time; a purchase the order's, not the customer's; or "
        "leave it empty. reasons.parquet of replay --out has them as 'duplicate'.",
        {"events": len(rows), "conversions": len(conversions), "ids": len(np.unique(e.event[rows]))},
    )  # fmt: skip


def machines(f: Facts) -> Iterator[Said]:
    """Opens and clicks that machines made, flagged or not."""
    e = f.log.events
    told = False
    for kind, what in ((OPEN, "open"), (CLICK, "click")):
        rows = f.rows(kind)
        flag = e.machine[rows]
        told |= bool((flag >= 0).any())
        n = int((flag == 1).sum())
        if at_least(n, len(rows)) > SHARE:
            yield _flagged(f, what, n, len(rows))
        rows = rows[(flag != 1) & (f.named[rows] >= 0)]
        age = f.occurred[rows] - f.log.sends.sent_at[f.named[rows]]
        fast = int(((age >= 0) & (age < FAST)).sum())
        if at_least(fast, len(rows)) > SHARE:
            yield Finding(
                f"fast_{what}s", "doubtful",
                f"{fast:,} of {count(len(rows), what)} that are not flagged ({percent(fast, len(rows))}) come within "
                "10 seconds of the send: mail privacy or a scanner, not people.",
                f"Do not judge variants by {what}s; if the source has a flag for machines, pass it on.",
                {"events": fast, "share": fast / len(rows)},
            )  # fmt: skip
    if not told:
        yield NotChecked("machine opens and clicks", "no event says whether a machine made it")


def _flagged(f: Facts, what: str, n: int, whole: int) -> Finding:
    out = f.rule.machine == "exclude"
    share = n / whole
    effect = "excluded from the rates" if out else f"counted (machine={f.rule.machine})"
    return Finding(
        f"machine_{what}s",
        "note" if out else "doubtful",
        f"{n:,} of {count(whole, what)} ({percent(share)}) were made by machines, and are {effect}. A machine's {what} "
        "hides the person's: differences of variants show smaller than they are.",
        "Judge variants by clicks or conversions." if what == "open" else "Judge variants by conversions.",
        {"events": n, "share": share},
    )


def undelivered(f: Facts) -> Iterator[Said]:
    """Sends that nothing says were delivered, where deliveries are told; and sends that bounced."""
    o, s = f.got.outcomes, f.log.sends
    row = o.send_row[~o.ghost]
    if not len(row):
        return
    bad = int((~o.reached & ~o.ghost).sum())
    if at_least(bad, len(row)) > SHARE:
        yield Finding(
            "bounced", "doubtful",
            f"{bad:,} of {count(len(row), 'send')} ({percent(bad, len(row))}) bounced or were dropped; they are in no "
            "rate.", "Clean the list of addresses; a bounce rate above 2 % hurts the delivery of the rest.",
            {"sends": bad, "share": bad / len(row)},
        )  # fmt: skip
    told = np.zeros(len(s), bool)
    told[s.delivered_at != MISSING] = True
    named = f.named[(f.log.events.kind == DELIVERY) & (f.named >= 0)]
    told[named] = True
    if not told.any():
        yield NotChecked("sends without delivery", "the log tells of no delivery")
        return
    reached = o.send_row[o.reached & ~o.ghost & (s.status[o.send_row] == SENT)]
    lost = int((~told[reached]).sum())
    if at_least(lost, len(reached)) > SHARE:
        yield Finding(
            "undelivered", "doubtful",
            f"{lost:,} of {count(len(reached), 'send')} that did not bounce ({percent(lost, len(reached))}) have no "
            "delivery: they count as received, and make every rate too low.",
            "Check that delivery events are switched on for all channels, and whether requests are counted as sends.",
            {"sends": lost, "share": lost / len(reached)},
        )  # fmt: skip


def unknown_sends(f: Facts) -> Iterator[Said]:
    """Responses that name sends which the log does not hold."""
    e = f.log.events
    rows = np.flatnonzero(f.first & (e.send >= 0) & (e.kind <= UNSUBSCRIBE))
    n = int((f.named[rows] < 0).sum())
    if at_least(n, len(rows)) > 0.01:
        yield Finding(
            "unknown_sends", "wrong" if at_least(n, len(rows)) > 0.2 else "doubtful",
            f"{n:,} of {count(len(rows), 'response')} with a message id ({percent(n, len(rows))}): the log holds no "
            "such send.",
            "Load the sends of an earlier time too; check that sends and responses carry the same message id.",
            {"events": n, "share": n / len(rows)},
        )  # fmt: skip

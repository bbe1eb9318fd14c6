"""What a log is replayed with: the goals and the currency that were meant, and what looks like a mistake in it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.clock import DAY
from justai_sim.errors import UsageError, nearest, several
from justai_sim.log import conversion_names
from justai_sim.tables import CONVERSION, I8, Log


def goals_of(log: Log, goals: Sequence[str], notes: list[str]) -> list[str]:
    """The goals to count. UsageError that lists the names when the log has several and none is given."""
    names = conversion_names(log)
    present = [n.name for n in names]
    for g in goals:
        if g not in present and not present:
            notes.append(f"the log holds no conversion, so --goal {g!r} is found nowhere")
        elif g not in present:
            raise UsageError(f"--goal {g!r} is not a conversion of the log; {nearest(g, present)}")
    if goals:
        return list(goals)
    if len(names) > 1:
        lines = "\n".join(
            f"  {n.name or '(no name)':32} {n.events:>10,} events  {n.per_user:.4g} per user" for n in names
        )
        raise UsageError(
            f"the log has {len(names)} conversion names; choose with --goal NAME (may be repeated):\n{lines}"
        )
    if not names:
        notes.append("the log holds no conversion")
    return [n for n in present if n]


def suspicious(log: Log, rule: Rule) -> list[str]:
    """Notes on what ordinary mistakes look like: shared send ids, imports as receipts, wrong units of time."""
    s, notes = log.sends, shared_ids(log)
    late = int((s.received_at - s.sent_at > clock.days(rule.lateness_days)).sum())
    if late:
        notes.append(
            f"{late:,} of {len(s):,} sends were received more than {rule.lateness_days:g} days after they left and are "
            "ignored; if received_at is the time of an import, leave the column out"
        )
    early = int((s.sent_at < 365 * DAY).sum())
    if early:
        notes.append(f"{early:,} sends lie in 1970: integer times are microseconds; were seconds meant?")
    return notes


def shared_ids(log: Log) -> list[str]:
    """Notes on send ids that stand for several messages, of which only the first heard of counts."""
    s = log.sends
    order = np.lexsort((s.rep, s.send))
    same = (s.send[order][1:] == s.send[order][:-1]) & (s.rep[order][1:] == s.rep[order][:-1])
    if not same.any():
        return []

    def differ(column: I8) -> I8:
        found = column[order].astype(np.int64)
        return np.unique(s.send[order][1:][same & (found[1:] != found[:-1])])

    users, variants = differ(s.user), np.union1d(differ(s.template), differ(s.variant))
    variants = np.setdiff1d(variants, users)
    advice = "only the first row of each counts: make send_id one message to one user, e.g. campaign:user"
    counts = ((len(users), "users"), (len(variants), "templates or variants"))
    return [f"{several(n, 'send id')} stand for several {what}, and {advice}" for n, what in counts if n]


def with_currency(log: Log, rule: Rule, goals: Sequence[str], given: bool, notes: list[str]) -> Rule:
    """The rule with the currency of the goal events declared, when they have only one and none was given."""
    e = log.events
    wanted = np.array([not goals or n in goals for n in [*log.names("name"), ""]])
    paid = (e.kind == CONVERSION) & wanted[e.name]
    used = sorted({c for c in log.text("currency", np.unique(e.currency[paid])) if c})
    if given or not used or used == [rule.currency]:
        return rule
    if len(used) == 1:
        notes.append(f"amounts are in {used[0]}, the only currency of the log")
        return msgspec.structs.replace(rule, currency=used[0])
    refused = [c for c in used if c != rule.currency and c not in rule.rates]
    if refused:
        notes.append(
            f"amounts are in {rule.currency}; conversions in {', '.join(refused)} are refused "
            "(declare with --set currency=..., or give --set 'rates={...}')"
        )
    return rule

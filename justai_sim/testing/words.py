"""A counter-example in words: the tiny log as a timeline, what was answered, what the rule says and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from justai_sim import clock
from justai_sim.attribution.rule import Rule
from justai_sim.clock import DAY, HOUR, MINUTE, SECOND
from justai_sim.testing.answers import Answer, Judged, judge
from justai_sim.testing.draw import Goals
from justai_sim.testing.law import Breach
from justai_sim.testing.rows import Row, SmallLog

WHY: dict[str, str] = {
    "not_yet_known": "it was not yet received (rule 32)",
    "too_late": "it was received more than {lateness} after it happened, and such rows are not used (rule 33)",
    "duplicate": "it is a copy: of rows with the same event id, or the same name and order id, the earliest stays (26)",
    "status_event": "it tells what became of a send and is no response (rule 9)",
    "machine": "it is flagged as made by a machine (rule 22)",
    "wrong_event": "its name is not a goal (rule 14)",
    "currency": "its currency is neither the declared one nor in the rates (rule 28)",
    "refund": "a refund follows its order: the same sends and weights, and it is no conversion (rule 27)",
    "refund_without_order": "a negative value without a known order within {horizon} (rule 27)",
    "unknown_send": "it names a send that is not in the log (rule 16)",
    "outside_engagement_window": "it lies {engagement} or more after the send (rule 18)",
    "credited": "it lies in the window (rule 4): {window}",
    "in_offset": "too early: the window is {window} (rule 4)",
    "past_lookback": "too late after the send: the window is {window} (rule 4)",
    "before_send": "it happened before the send (rule 2)",
    "no_anchor": "the send has no anchor, anchor={anchor} (rule 8)",
    "not_delivered": "the send did not reach the user (rule 9)",
    "no_send": "the user has no send that could earn it (rules 10, 14)",
}
"""What each reason means, with the number of the rule."""

CREDIT: dict[str, str] = {
    "last_qualifying": "of the sends whose own window contains it, the last gets it; ties by send id (rule 10)",
    "last_then_check": "only the newest send before it is looked at (rule 11)",
    "first_qualifying": "of the sends whose own window contains it, the first gets it (rule 11)",
    "all": "every send whose window contains it gets weight 1 (rule 11)",
    "all_variants": "the last qualifying send of each variant gets weight 1 (rule 11)",
    "linear": "the sends whose window contains it share it equally (rule 11)",
    "time_decay": "the sends whose window contains it share it, younger ones more (rule 11)",
    "position": "the sends whose window contains it share it 40/20/40 (rule 11)",
}


def window_words(rule: Rule) -> str:
    """The window for people.

    >>> window_words(Rule())
    'from 3 days (included) to 14 days (excluded) after the send'
    """
    kind = {"[": "included", "(": "excluded", "]": "included", ")": "excluded"}
    low, high = (length(t).removeprefix("exactly ") for t in (rule.offset, rule.upper))
    unit = f", in calendar days of {rule.tz}" if rule.day_rule == "calendar" else ""
    after = {"sent": "send", "delivered": "delivery", "opened": "first open", "clicked": "first click"}[rule.anchor]
    return f"from {low} ({kind[rule.bounds[0]]}) to {high} ({kind[rule.bounds[1]]}) after the {after}{unit}"


def length(us: int) -> str:
    """A length of time for people.

    >>> length(3 * DAY), length(3 * DAY - 1), length(DAY + SECOND), length(-DAY), length(0)
    ('exactly 3 days', '1 microsecond less than 3 days', '1 second more than 1 day', 'exactly 1 day', '0 days')
    >>> length(2 * DAY + 5 * HOUR)
    '2 days 5 hours'
    """
    us = abs(us)
    whole, rest = divmod(us, DAY)
    if rest == 0:
        return f"exactly {_count(whole, 'day')}" if whole else "0 days"
    for unit, name in ((1, "microsecond"), (SECOND, "second"), (MINUTE, "minute")):
        if rest == unit and whole:
            return f"1 {name} more than {_count(whole, 'day')}"
        if DAY - rest == unit:
            return f"1 {name} less than {_count(whole + 1, 'day')}"
    parts = [_count(whole, "day")] if whole else []
    for unit, name in ((HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second"), (1, "microsecond")):
        n, rest = divmod(rest, unit)
        parts += [_count(n, name)] if n else []
    return " ".join(parts)


def _count(n: int, name: str) -> str:
    return f"{n:,} {name}" + ("" if n == 1 else "s")


def moment(t: int) -> str:
    """An instant for people, as short as exact.

    >>> moment(0), moment(DAY - 1)
    ('Thu 1 Jan 00:00', 'Thu 1 Jan 23:59:59.999999')
    """
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t)
    text = f"{at:%a} {at.day} {at:%b} {at:%H:%M}"
    if t % MINUTE:
        text += f":{at:%S}"
    return text + (f".{at.microsecond:06d}" if t % SECOND else "")


def timeline(small: SmallLog) -> list[str]:
    """The log, a line a row, by user and time.

    >>> from justai_sim.testing.rows import event_row, send_row
    >>> for line in timeline(SmallLog([send_row("S1", "u1", "A", 0)], [event_row("e1", "u1", 3 * DAY)])): print(line)
    user u1: send S1 (A) Thu 1 Jan 00:00
             purchase e1 Sun 4 Jan 00:00, exactly 3 days after S1
    """
    users = sorted({str(r["user_id"]) for r in [*small.send_rows, *small.event_rows]})
    templates = len({r["template_id"] for r in small.send_rows}) > 1
    out = []
    for user in users:
        mine = [s for s in small.send_rows if s["user_id"] == user]
        lines = [(s["sent_at"], s["send_id"], _send(s, templates)) for s in mine]
        named = {s["send_id"]: s for s in small.send_rows}
        for e in small.event_rows:
            if e["user_id"] == user:
                about = mine or [named[e["send_id"]]] if mine or e["send_id"] in named else []
                lines.append((e["occurred_at"], "~" + e["event_id"], _event(e, about)))
        head = f"user {user}: " if user else "no user: "
        for i, (_, _, text) in enumerate(sorted(lines, key=lambda x: x[:2])):
            out.append((head if i == 0 else " " * len(head)) + text)
    return out or ["a log without rows"]


def _send(row: Row, templates: bool) -> str:
    of = f" of {row['template_id']}" if templates else ""
    text = f"send {row['send_id']} ({row['variant_id']}{of}) {moment(row['sent_at'])}"
    if row["status"] == "held_out":
        text += ", a ghost: the user is held out"
    elif row["status"] != "sent":
        known = row["status_known_at"]
        text += f", {row['status']}" + (f" (known {moment(known)})" if known is not None else "")
    if row["delivered_at"] is not None:
        text += f", delivered {moment(row['delivered_at'])}"
    return text + _receipt(row, row["sent_at"])


def _event(row: Row, sends: list[Row]) -> str:
    what = row["name"] or row["kind"]
    if (row["value"] or 0) < 0:
        what = "refund"
    text = f"{what} {row['event_id']} {moment(row['occurred_at'])}"
    shown: list[str] = []
    for s in sorted({s["send_id"]: s for s in sends}.values(), key=lambda s: (s["sent_at"], s["send_id"])):
        age = row["occurred_at"] - s["sent_at"]
        at = "at the instant of" if age == 0 else f"{length(age)} {'after' if age > 0 else 'before'}"
        shown.append(f"{at} {s['send_id']}")
    text += ", " + ", ".join(shown) if shown else ""
    if row["value"] is not None:
        text += f", value {row['value'] / 1_000_000:g}" + (f" {row['currency']}" if row["currency"] else "")
    said = {"order_id": "order {}", "send_id": "names {}", "template_id": "of {}", "variant_id": "of variant {}"}
    text += "".join(", " + said[k].format(row[k]) for k in said if row[k])
    text += ", made by a machine" if row["machine"] == 1 else ""
    return text + _receipt(row, row["occurred_at"])


def _receipt(row: Row, own: int) -> str:
    if row["received_at"] is None or row["received_at"] == own:
        return ""
    gap = row["received_at"] - own
    return f", received {length(gap)} {'later' if gap > 0 else 'before that (so that is when it happened)'}"


def credits_words(answer: Answer, keys: set[tuple[str, ...]] | None = None, totals: bool = False) -> str:
    """An answer in a line; `keys`: only what concerns these."""
    parts = []
    for key, weight in sorted(answer.items()):
        if keys is not None and key not in keys:
            continue
        if totals:
            parts.append(f"{' of '.join(key)} {weight:g}")
        else:
            parts.append(f"{key[0]} to {' of '.join(key[1:])}" + ("" if abs(weight - 1) < 1e-9 else f" (x {weight:g})"))
    return ", ".join(parts) or "nothing"


def explain(breach: Breach, totals: bool, goals: Goals) -> list[str]:
    """The counter-example of a broken law, line by line."""
    out = timeline(breach.small)
    if breach.error:
        return [*out, f"yours failed: {breach.error}"]
    wide = max(len(name) for name in breach.answers)
    for name, answer in breach.answers.items():
        text = credits_words(answer, totals=totals)
        out.append(f"{name + ':':{wide + 1}} {text if totals else _credits(text)}")
    if breach.judged is not None:
        out += _because(breach, breach.judged, totals, goals)
    return out


def _credits(text: str) -> str:
    return "credits " + text


def _because(breach: Breach, judged: Judged, totals: bool, goals: Goals) -> list[str]:
    """Why the rule says what it says, for each event that is in dispute."""
    small = breach.small
    wrong = {key[0] for key in breach.gaps}
    out = []
    seen: set[str] = set()
    for i, event in enumerate(small.event_rows):
        name = event["event_id"]
        if (totals or name in wrong) and (line := _why(judged, goals, i)) not in seen:
            seen.add(line)
            out += line.split("\n")
    unknown = sorted(wrong - {e["event_id"] for e in small.event_rows}) if not totals else []
    return out + [f"because {e} is not an event of the log" for e in unknown]


def _why(judged: Judged, goals: Goals, row: int) -> str:
    """The reason of one event row, and what each of its user's sends is to it by itself."""
    small, rule = judged.small, judged.rule
    event, reason = small.event_rows[row], judged.reasons[row]
    engagement = event["kind"] in ("open", "click", "unsubscribe")
    text = f"because {event['event_id']} is `{reason}`: {_reason(rule, reason)}"
    if engagement and reason == "credited":
        text = f"because {event['event_id']} is `{reason}`: "
        text += "an open, click or unsubscribe belongs to the send it names, else to the newest (rule 19)"
        return text if judged.engagement else f"{text}; as engagement is not among the features, it may be left out"
    mine = {s["send_id"]: s for s in small.send_rows if s["user_id"] == event["user_id"]}
    if reason != "credited" or event["kind"] != "conversion":
        return text
    if len(mine) > 1:
        alone = [f"{s}: {_alone(judged, goals, event, s)}" for s in sorted(mine, key=lambda s: (mine[s]["sent_at"], s))]
        text += f"\n        by itself, {', '.join(alone)}"
        named = event["send_id"] if rule.explicit != "ignore" else ""
        text += f"\n        it names {named} (rule 15)" if named in mine else f"\n        {CREDIT[rule.credit]}"
    return text


def _alone(judged: Judged, goals: Goals, event: Row, send_id: str) -> str:
    """What becomes of the event if this were the only send."""
    sends = [s for s in judged.small.send_rows if s["send_id"] == send_id]
    others = [e for e in judged.small.event_rows if e["kind"] != "conversion" and e["send_id"] in ("", send_id)]
    lone = SmallLog(sends, [event, *others])
    reason = judge(judged.rule, goals, lone, engagement=judged.engagement).reasons[0]
    return "qualifies" if reason == "credited" else f"`{reason}`"


def _reason(rule: Rule, reason: str) -> str:
    return WHY[reason].format(
        window=window_words(rule),
        lateness=f"{rule.lateness_days:g} days",
        horizon=f"{rule.refund_horizon_days:g} days",
        engagement=length(clock.days(rule.engagement_lookback_days)),
        anchor=rule.anchor,
    )

"""The rule as sentences for a person."""

from __future__ import annotations

from collections.abc import Sequence

from justai_sim.attribution import Rule

_CREDIT = {
    "last_qualifying": "the last message that qualifies",
    "last_then_check": "the last message before it, if that one qualifies",
    "first_qualifying": "the first message that qualifies",
    "all": "every message that qualifies, fully",
    "all_variants": "the last qualifying message of every variant, fully",
    "linear": "all messages that qualify, in equal parts",
    "time_decay": "all messages that qualify, younger ones more",
    "position": "all messages that qualify, first and last most",
}
_ANCHOR = {"sent": "sent", "delivered": "delivered", "opened": "first opened", "clicked": "first clicked"}
_SCOPE = {"template": "within its template", "org": "over all templates", "group": "within its group of templates"}
_FROM = {"[": "from", "(": "after"}
_TO = {"]": "up to and including", ")": "before"}


def rule_in_words(rule: Rule, goals: Sequence[str] = ()) -> str:
    """What counts, in two or three sentences.

    >>> rule_in_words(Rule(), ["purchase"])
    "A 'purchase' counts from day 3 to before day 14 after the message was sent (days of 24 hours). It is \
credited to the last message that qualifies, within its template. Opens, clicks and unsubscribes count \
for 14 days from the start."
    """
    what = "A conversion" if not goals else "A " + " or ".join(repr(g) for g in goals)
    low = f"{_FROM[rule.bounds[0]]} day {rule.offset_days:g}"
    high = f"{_TO[rule.bounds[1]]} day {rule.upper_days:g}"
    days = "days of 24 hours" if rule.day_rule == "elapsed" else f"calendar days, {rule.tz}"
    return (
        f"{what} counts {low} to {high} after the message was {_ANCHOR[rule.anchor]} ({days}). "
        f"It is credited to {_CREDIT[rule.credit]}, {_SCOPE[rule.scope]}. "
        f"Opens, clicks and unsubscribes count for {rule.engagement_lookback_days:g} days from the start."
    )

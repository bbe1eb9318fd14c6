"""A rule in words."""

from __future__ import annotations

from justai_sim.attribution import Rule


def window_words(rule: Rule) -> str:
    """
    >>> window_words(Rule())
    'counts until day 14, ignored first days: 3'
    """
    return f"counts until day {rule.upper_days:g}, ignored first days: {rule.offset_days:g}"


def rule_words(rule: Rule) -> str:
    """The rule as a person would say it.

    >>> rule_words(Rule())
    'Counts until day 14 after a message was sent, ignored first 3 days; credit goes to the last qualifying send.'
    """
    start = {"sent": "was sent", "delivered": "was delivered", "opened": "was opened", "clicked": "was clicked"}
    n = f"{rule.offset_days:g} day{'' if rule.offset_days == 1 else 's'}"
    ignored = f"ignored first {n}" if rule.offset_days else "no day is ignored"
    credit = {
        "last_qualifying": "credit goes to the last qualifying send",
        "last_then_check": "credit goes to the last send, if it qualifies",
        "first_qualifying": "credit goes to the first qualifying send",
        "all": "every qualifying send gets full credit",
        "all_variants": "every variant with a qualifying send gets full credit",
        "linear": "qualifying sends share the credit equally",
        "time_decay": "qualifying sends share the credit, recent ones more",
        "position": "qualifying sends share the credit by position",
    }[rule.credit]
    return f"Counts until day {rule.upper_days:g} after a message {start[rule.anchor]}, {ignored}; {credit}."

"""Named rules: this project's readings, and how other systems count, so that their numbers can be reproduced."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from justai_sim.attribution.rule import Denominator, Rule
from justai_sim.attribution.training import TrainingWindow
from justai_sim.errors import UsageError, nearest

Feedback = Literal["all", "mature", "weighted"]


class Preset(msgspec.Struct, frozen=True):
    """A rule, what a policy learns from (`feedback`, `training`), and what a rate is divided by.

    `denominator` is the rule's own; a given one replaces it. `source`: the title of the page whose documented
    behaviour is followed ('' for this project's own). `follows`: which option stands for what. `lacks`: what
    the rule cannot say. `yours`: the options that are each user's own setting in that system.

    >>> Preset(Rule(), denominator="sends").rule.denominator
    'sends'
    """

    rule: Rule
    feedback: Feedback = "all"
    training: TrainingWindow | None = None
    denominator: Denominator | None = None
    source: str = ""
    follows: str = ""
    lacks: str = ""
    yours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.denominator is not None and self.denominator != self.rule.denominator:
            rule = msgspec.structs.replace(self.rule, denominator=self.denominator)
            msgspec.structs.force_setattr(self, "rule", rule)
        msgspec.structs.force_setattr(self, "denominator", self.rule.denominator)


PRESETS: dict[str, Preset] = {
    "default": Preset(Rule(), follows="this project's reading of the published rule: 14 and 3 days, last qualifying"),
    "naive": Preset(
        Rule(credit="last_then_check", bounds="[]"),
        denominator="sends",
        follows="a quick SQL query: the newest send before the event, BETWEEN 3 and 14 days, over all rows of sends",
    ),
    "vendor": Preset(
        Rule(),
        feedback="all",
        follows="credits as the default; the policy learns from all sends, and silence is a failure at once",
    ),
    "justai_api": Preset(
        Rule(),
        training=TrainingWindow(lookback_days=14, offset_days=3),
        source="Generate Copy API (lookback_days, offset_days)",
        follows="credits as the default; the policy learns from sends that are 3 to 17 days old",
    ),
    "braze_canvas": Preset(
        Rule(
            lookback_days=3, offset_days=0, bounds="[]", credit="last_then_check", scope="org", explicit="ignore",
            repeat="once_per_send",
        ),
        source="Braze: Conversion events; Canvas FAQs",
        follows=(
            "a conversion belongs to the step received last and tracking of a step stops at the next one "
            "(last_then_check over all templates: the log is taken for one Canvas, else scope=group); opening the "
            "message is not needed; the conversion deadline is the lookback, 3 days as in the templates"
        ),
        lacks=(
            "one conversion per entry over all its steps (here one per message); a deadline that runs from the entry "
            "of the Canvas (here from the message); conversions before the first message, which Braze counts for the "
            "entry and no step"
        ),
        yours=("lookback_days",),
    ),
    "braze_campaign": Preset(
        Rule(
            lookback_days=3, offset_days=0, bounds="[]", credit="last_qualifying", scope="template",
            explicit="ignore", repeat="once_per_send",
        ),
        denominator="users",
        source="Braze: Conversion events; Report metrics",
        follows=(
            "tracking begins when the message is received; a user converts once within the deadline (once_per_send); "
            "an action within the deadlines of two campaigns counts for both (scope=template); the rate is over "
            "unique recipients; the conversion deadline is the lookback, up to 30 days, 3 as in the templates"
        ),
        lacks="one conversion per channel of a multichannel campaign; recipients counted anew each day",
        yours=("lookback_days",),
    ),
    "iterable": Preset(
        Rule(
            lookback_days=1, offset_days=0, bounds="[]", credit="last_qualifying", scope="org", explicit="ignore",
            repeat="every",
        ),
        source="Iterable: Campaign Attribution",
        follows=(
            "time-based attribution: new occurrences of the event within the attribution period (24 hours unless "
            "the project says otherwise) go to the last campaign that touched the user (scope=org); each occurrence "
            "counts (repeat=every)"
        ),
        lacks="attribution by the campaignId on the event (--set explicit=trust comes near); periods per campaign",
        yours=("lookback_days", "anchor"),
    ),
    "customerio": Preset(
        Rule(
            lookback_days=7, offset_days=0, bounds="[]", credit="last_qualifying", scope="org", explicit="ignore",
            repeat="once_per_send",
        ),
        source="Customer.io: Conversion goals and exit criteria",
        follows=(
            "a goal reached within the time frame (up to 90 days, each campaign's own; 7 here) after a message was "
            "sent, opened or clicked (anchor) converts that delivery, once; the deliveries of the log are taken for "
            "one campaign, and the last one that fits has the conversion"
        ),
        lacks="goals that are segments; journeys that leave on conversion; goals changed later (not applied backwards)",
        yours=("lookback_days", "anchor"),
    ),
    "growthbook": Preset(
        Rule(
            lookback_days=3, offset_days=0, bounds="[]", credit="first_qualifying", scope="template",
            explicit="ignore", repeat="once_per_user",
        ),
        denominator="users",
        source="GrowthBook: Metrics; Experiment Configuration",
        follows=(
            "a conversion metric over users: the conversion window (72 hours by default; lookback) opens at the "
            "first exposure (first_qualifying, both ends included) after the metric delay (0; offset); a user "
            "converts once; users still in their window count"
        ),
        lacks=(
            "users who saw several variants are left out there, and here count for each; a conversion outside the "
            "window of the first send may still fit a later send's here"
        ),
        yours=("lookback_days", "offset_days"),
    ),
}  # fmt: skip
"""The presets by name."""


OF_LOG = ("currency", "rates", "groups", "tz", "lateness_days", "mature_allowance_hours")
"""Options that tell of a log and not of a reading: presets take them over."""


def preset(name: str) -> Preset:
    """The preset of that name. UsageError that names the nearest one.

    >>> preset("naive").rule.credit, preset("naive").denominator
    ('last_then_check', 'sends')
    >>> preset("braze")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: preset 'braze' is not known; valid: braze_campaign, braze_canvas, customerio, ...
    """
    if name not in PRESETS:
        raise UsageError(f"preset {name!r} is not known; {nearest(name, PRESETS)}")
    return PRESETS[name]


def differences(rule: Rule, base: Rule | None = None) -> dict[str, Any]:
    """The options in which a rule differs from another (the default rule), with its own values.

    >>> differences(Rule(lookback_days=7, credit="all"))
    {'lookback_days': 7, 'credit': 'all'}
    """
    base = base or Rule()
    return {f: v for f in Rule.__struct_fields__ if (v := getattr(rule, f)) != getattr(base, f)}


def on_log(name: str, like: Rule) -> Rule:
    """A preset's rule with what belongs to the log and not to the reading (OF_LOG) taken from `like`."""
    return msgspec.structs.replace(preset(name).rule, **{k: getattr(like, k) for k in OF_LOG})

"""Every named reading of the rule, one option at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from justai_sim.attribution.presets import PRESETS, on_log
from justai_sim.attribution.rule import CHOICES, Rule
from justai_sim.clock import MISSING
from justai_sim.errors import UsageError
from justai_sim.tables import CLICK, CONVERSION, DELIVERY, OPEN, Log

ZONE = "America/New_York"
"""The zone of the calendar reading when the rule has none but UTC."""

MEANING = {
    "credit=last_qualifying": "the last send whose window holds the purchase gets it",
    "credit=last_then_check": "only the newest send may get it, if its window fits",
    "credit=first_qualifying": "the first send whose window holds it gets it",
    "credit=all": "every send whose window holds it gets a whole one",
    "credit=all_variants": "every variant that qualifies gets a whole one",
    "credit=linear": "the sends that qualify share it equally",
    "credit=time_decay": "they share it, later sends more",
    "credit=position": "they share it: 40 % first, 40 % last, 20 % between",
    "bounds=[)": "first day counts from its start, last day ends before its instant",
    "bounds=[]": "both ends of the window count",
    "bounds=(]": "the far end counts, the near end does not",
    "bounds=()": "neither end counts",
    "lookback_from=send": "both days are counted from the send",
    "lookback_from=offset_end": "the lookback starts where the ignored days end",
    "day_rule=elapsed": "a day is 24 hours",
    "day_rule=calendar": "days are dates",
    "anchor=sent": "age runs from the send",
    "anchor=delivered": "age runs from the delivery; only sends with one count",
    "anchor=opened": "age runs from the open; compares openers only",
    "anchor=clicked": "age runs from the click; compares clickers only",
    "scope=template": "each template may credit a purchase",
    "scope=org": "all templates compete for one credit",
    "scope=group": "the templates of a group compete for one credit",
    "explicit=window": "a send named by the event gets it if its window fits",
    "explicit=trust": "a send named by the event gets it at any age",
    "explicit=ignore": "send ids on events are not used",
    "explicit=window_then_join": "a named send outside its window: other sends may get it",
    "repeat=once_per_send": "a send converts once",
    "repeat=every": "every purchase counts",
    "repeat=once_per_user": "a user converts once per template",
    "machine=exclude": "machine-made events do not count",
    "machine=include": "machine-made events count",
    "machine=only": "of opens and clicks only machine-made ones count",
    "denominator=reached": "rates are per send that was not bounced",
    "denominator=sends": "rates are per send, bounces too",
    "denominator=users": "rates are per user",
    "click_implies_open=True": "a click counts as an open",
    "click_implies_open=False": "a click is no open",
}
"""What a reading says, for people."""

OPTIONS = (
    "credit", "bounds", "lookback_from", "day_rule", "scope", "explicit", "repeat", "machine", "anchor", "denominator",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A named reading. `why_not`: why it cannot be applied to this log or rule; `rule` is then None."""

    name: str
    kind: str
    meaning: str
    rule: Rule | None
    why_not: str = ""


def readings(log: Log, rule: Rule, goals: Sequence[str], metric: str = "conversion_rate") -> list[Reading]:
    """Every other value of every option, each alone; the rule's own values are not among them."""
    facts = _facts(log, goals)
    changes: list[dict[str, Any]] = [
        {o: v} for o in OPTIONS for v in CHOICES[o] if v != getattr(rule, o) and (o, v) != ("day_rule", "calendar")
    ]
    zones = dict.fromkeys(("UTC", rule.tz if rule.tz != "UTC" else ZONE))
    changes += [
        {"day_rule": "calendar", "tz": z} for z in zones if (rule.day_rule, rule.tz) != ("calendar", z)
    ]  # fmt: skip
    if metric == "open_rate":
        changes.append({"click_implies_open": not rule.click_implies_open})
    return [_reading(rule, c, facts) for c in changes]


def preset_readings(rule: Rule) -> list[Reading]:
    """The presets, with the log's own currency, groups and zone."""
    out = []
    for name, p in PRESETS.items():
        made = on_log(name, rule)
        words = p.source or re.split("[:;]", p.follows)[0]
        out.append(Reading(name, "preset", words, made))
    return out


def _reading(rule: Rule, change: dict[str, Any], facts: dict[str, str]) -> Reading:
    first = next(iter(change.items()))
    key = f"{first[0]}={first[1]}"
    name = ", ".join(f"{k}={v}" for k, v in change.items())
    meaning = MEANING[key] + (f" in {change['tz']}" if "tz" in change else "")
    if why := facts.get(key, ""):
        return Reading(name, "reading", meaning, None, why)
    if key == "scope=group" and not rule.groups:
        return Reading(name, "reading", meaning, None, 'no groups are named (--set \'groups={"TEMPLATE": "GROUP"}\')')
    try:
        return Reading(name, "reading", meaning, msgspec.structs.replace(rule, **change))
    except UsageError as e:
        return Reading(name, "reading", meaning, None, str(e))


def _facts(log: Log, goals: Sequence[str]) -> dict[str, str]:
    """Readings that this log has nothing for, and why."""
    s, e = log.sends, log.events
    out = {}
    if not ((s.delivered_at != MISSING).any() or (e.kind == DELIVERY).any()):
        out["anchor=delivered"] = "the log tells of no delivery"
    human = e.machine != 1
    for value, kind, word in (("opened", OPEN, "open"), ("clicked", CLICK, "click")):
        if not ((e.kind == kind) & human).any():
            out[f"anchor={value}"] = f"the log holds no {word} by a person"
    wanted = np.array([not goals or n in goals for n in [*log.names("name"), ""]])
    goal = (e.kind == CONVERSION) & wanted[e.name]
    if not (goal & (e.send >= 0)).any():
        for v in CHOICES["explicit"]:
            out[f"explicit={v}"] = "no conversion names a send"
    if not (e.machine == 1).any():
        for v in CHOICES["machine"]:
            out[f"machine={v}"] = "no event is flagged as machine-made"
    if len(np.unique(s.template)) < 2:
        for v in CHOICES["scope"]:
            out[f"scope={v}"] = "the log has one template"
    return out

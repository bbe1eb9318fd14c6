"""What all checks look at: a log with its goals and rule, attributed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from justai_sim.attribution import Attribution, Rule, bind
from justai_sim.attribution.attribute import under
from justai_sim.attribution.prepare import Ready, prepare
from justai_sim.attribution.window import Contest
from justai_sim.checks import copies
from justai_sim.checks.ages import Ages
from justai_sim.checks.codes import flags
from justai_sim.clock import MISSING
from justai_sim.estimate.age import countable
from justai_sim.tables import B1, CLICK, CONVERSION, HELD_OUT, I8, OPEN, REASON, Log


@dataclass(frozen=True)
class Facts:
    """A log and what is asked of it. asked: goals as they were given; goals: the ones that are counted; split: the
    declared shares of variants, if any. Times in microseconds; arrays named after events are per event row."""

    log: Log
    rule: Rule
    asked: list[str]
    goals: list[str]
    as_of: int
    control: str | None = None
    split: Mapping[str, float] | None = None

    @cached_property
    def _contest(self) -> tuple[Ready, Contest]:
        log = self.log
        bound = bind(
            self.rule, templates=log.names("template"), names=log.names("name"), currencies=log.names("currency"),
            goals=self.goals or None,
        )  # fmt: skip
        ready = prepare(bound, log.sends, log.events, self.as_of)
        return ready, Contest(ready)

    @cached_property
    def got(self) -> Attribution:
        """The log under the rule in use."""
        return self.under(self.rule)

    def under(self, rule: Rule) -> Attribution:
        """The log under a rule that differs from the one in use in its window only."""
        return under(*self._contest, rule)

    @cached_property
    def occurred(self) -> I8:
        """When events happened, never after they were heard of."""
        return self._contest[0].occurred

    @cached_property
    def user(self) -> I8:
        """Each event's user, taken from the send it names where the row has none; -1 where neither tells."""
        return self._contest[0].user

    @cached_property
    def named(self) -> I8:
        """The row of the send that each event names, -1 where it names none that is known."""
        ready = self._contest[0]
        if not len(ready.named):
            return np.full(len(self.log.events), -1, np.int64)
        at = ready.named
        return np.where(at >= 0, np.append(ready.known.rows(np.arange(len(ready.known))), -1)[at], -1)

    @cached_property
    def first(self) -> B1:
        """Events that count at all: known by then, in time, no copies."""
        return np.asarray(self.got.reason > REASON["duplicate"])

    @cached_property
    def first_sends(self) -> I8:
        """For each row of sends the earliest one with its id."""
        return copies.first_sends(self.log.sends)

    @cached_property
    def lost_sends(self) -> I8:
        """Rows of sends with the id of an earlier send that they are no copy of."""
        return copies.lost_sends(self.log.sends, self.first_sends)

    @cached_property
    def lost_events(self) -> I8:
        """Rows of events that are left out as copies, but tell of something else."""
        return copies.lost_events(self.log.events, self.user, self.occurred, self.got.reason)

    @cached_property
    def goal(self) -> I8:
        """Rows of conversions of the goals that reach the window."""
        return np.flatnonzero(countable(self.log.events.kind, self.got.reason))

    @cached_property
    def sent(self) -> I8:
        """Rows of known sends, one a send id, ghosts left out."""
        o = self.got.outcomes
        return o.send_row[~o.ghost]

    @property
    def users(self) -> int:
        """All user codes lie below."""
        return len(self.log.codes["user"])

    @cached_property
    def messaged(self) -> B1:
        """Per user code: whether the user got a message."""
        return flags(self.log.sends.user[self.sent], self.users)

    @cached_property
    def ages(self) -> Ages:
        """Time since each user's latest send."""
        s = self.log.sends
        return Ages.of(s.user[self.sent], s.sent_at[self.sent], self.as_of)

    @cached_property
    def ghosts(self) -> B1:
        return np.asarray(self.log.sends.status == HELD_OUT)

    def rows(self, kind: int) -> I8:
        """Rows of events of a kind that count (machine-made ones too)."""
        return np.flatnonzero((self.log.events.kind == kind) & self.first)

    @cached_property
    def streams(self) -> dict[str, I8]:
        """What comes back, by name: rows of events."""
        return {"opens": self.rows(OPEN), "clicks": self.rows(CLICK), "goal conversions": self.goal}

    @cached_property
    def receipts(self) -> bool:
        """Whether the log tells when its rows were received."""
        e, s = self.log.events, self.log.sends
        told = (e.received_at != MISSING) & (e.received_at != e.occurred_at)
        return bool(told.any() or ((s.received_at != MISSING) & (s.received_at != s.sent_at)).any())

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Conversion names and how many events each has, copies left out, most frequent first."""
        e = self.log.events
        rows = np.flatnonzero((e.kind == CONVERSION) & (self.got.reason != REASON["duplicate"]))
        n = np.bincount(e.name[rows] + 1, minlength=len(self.log.names("name")) + 1).tolist()
        names = ["", *self.log.names("name")]
        return {names[i]: n[i] for i in sorted(range(len(n)), key=lambda i: (-n[i], names[i])) if n[i]}

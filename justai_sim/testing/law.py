"""What a law is, what it is tested with, and how it is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from justai_sim.attribution.rule import Rule
from justai_sim.testing.answers import Answer, Judged, Subject, WrongAnswerError, judge
from justai_sim.testing.draw import Shape
from justai_sim.testing.rows import SmallLog


class CrashError(Exception):
    """The user's function failed on a log; `__cause__` is its error."""


@dataclass(frozen=True)
class Context:
    """What a law needs to know of the check: the function, the rule, and the logs' shape."""

    subject: Subject
    rule: Rule
    shape: Shape
    memo: dict[int, tuple[SmallLog, Answer]] = field(default_factory=dict)
    """The answer about the log that all laws look at, by the log's identity."""

    def look_at(self, small: SmallLog) -> bool:
        """Ask once about `small`, for all laws; whether there is an answer."""
        self.memo.clear()
        try:
            self.memo[id(small)] = (small, self.ask(small))
        except CrashError:
            return False
        return True

    def ask(self, small: SmallLog, rule: Rule | None = None, *, again: bool = False) -> Answer:
        """The function's answer. CrashError if it fails or cannot be read."""
        if rule is None and not again and id(small) in self.memo:
            return dict(self.memo[id(small)][1])
        try:
            return self.subject(small, rule or self.rule)
        except Exception as e:
            raise CrashError(f"{type(e).__name__}: {e}" if not isinstance(e, WrongAnswerError) else str(e)) from e

    def judge(self, small: SmallLog, as_of: int | None = None) -> Judged:
        return judge(self.rule, self.shape.goals, small, engagement=self.shape.has("engagement"), as_of=as_of)


@dataclass(frozen=True)
class Breach:
    """A law broken on `small`: the function's answers by what it was asked, and where they differ.

    `judged` is there where the rule's own answer is what was compared with; `error` where the function failed.
    """

    small: SmallLog
    answers: dict[str, Answer]
    gaps: Answer
    judged: Judged | None = None
    error: str = ""


Test = Callable[[Context, SmallLog, Any], Breach | None]


@dataclass(frozen=True)
class Law:
    """`says`: the law in one sentence. `source`: the rules that it follows from. `needs`: '' or why it is left out."""

    name: str
    says: str
    source: str
    test: Test = field(repr=False)
    cases: Callable[[Context], Sequence[Any]] = field(repr=False, default=lambda _: [None])
    needs: Callable[[Context], str] = field(repr=False, default=lambda _: "")

    def __str__(self) -> str:
        return f"{self.name}: {self.says} ({self.source})"

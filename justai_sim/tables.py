"""The tables that everything becomes: Decisions, Sends, Events; and what attribution makes of them.

A table is a struct of equal-length 1-D numpy arrays. One literal schema each drives the check, the
docs (`justai-sim schema`) and the frames. Times are int64 microseconds UTC, money int64 micro-units,
ids integer codes of a `Codes` whose integer order is the byte order of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from html import escape
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from justai_sim.clock import MISSING
from justai_sim.errors import DataError

I1 = npt.NDArray[np.int8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

NONE = -1
"""A missing code: no such id on the row."""

KINDS = ("conversion", "open", "click", "unsubscribe", "bounce", "spam", "delivery", "drop")
CONVERSION, OPEN, CLICK, UNSUBSCRIBE, BOUNCE, SPAM, DELIVERY, DROP = range(8)
"""`bounce, spam, delivery, drop` are status events: they tell of a send, they are not a response."""

STATUSES = ("sent", "bounced", "dropped", "suppressed", "held_out")
SENT, BOUNCED, DROPPED, SUPPRESSED, HELD_OUT = range(5)

MODES = ("policy", "sticky", "forced", "external", "held_out")

REASONS = (
    "not_yet_known",
    "too_late",
    "duplicate",
    "status_event",
    "machine",
    "wrong_event",
    "currency",
    "refund",
    "refund_without_order",
    "unknown_send",
    "outside_engagement_window",
    "credited",
    "in_offset",
    "past_lookback",
    "before_send",
    "no_anchor",
    "not_delivered",
    "no_send",
)
"""What an event ends in, exactly one each, in the order in which the checks run."""
REASON = {name: i for i, name in enumerate(REASONS)}

PARTS = 1_000_000_000
"""A credit weight of 1 in integer parts."""
MICRO = 1_000_000
"""One unit of money in micro-units."""


class Codes(Protocol):
    """Texts as integers: `text(code)`; code order is the byte order of the texts."""

    def __len__(self) -> int: ...
    def text(self, codes: Array) -> list[str]: ...


class TextCodes:
    """Codes of a sorted list of distinct texts.

    >>> c = TextCodes.of(["b", "a", "b"])
    >>> c.text(c.codes(["b", "?", ""])), len(c)
    (['b', '', ''], 2)
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._code = {t: i for i, t in enumerate(self.texts)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        return cls(sorted({t for t in texts if t}, key=lambda t: t.encode()))

    def __len__(self) -> int:
        return len(self.texts)

    def code(self, text: str) -> int:
        return self._code.get(text, NONE)

    def codes(self, texts: Iterable[str]) -> I8:
        get = self._code.get
        return np.fromiter((get(t, NONE) for t in texts), np.int64)

    def text(self, codes: Array) -> list[str]:
        texts = self.texts
        return [texts[c] if c >= 0 else "" for c in np.asarray(codes).tolist()]


@dataclass(frozen=True)
class MadeCodes:
    """Codes of ids that a formula writes: nothing is stored. `make(codes)`, of ids that are there, must keep the order.

    >>> MadeCodes.of("u%02d", 100).text(np.array([7, NONE, 8]))
    ['u07', '', 'u08']
    """

    make: Callable[[I8], list[str]]
    size: int

    @classmethod
    def of(cls, form: str, size: int) -> Self:
        """Each code written into a form such as 'u%08d'."""
        return cls(lambda codes: [*map(form.__mod__, codes.tolist())], size)

    def __len__(self) -> int:
        return self.size

    def text(self, codes: Array) -> list[str]:
        there = np.asarray(codes) >= 0
        if there.all():
            return self.make(codes)
        found = iter(self.make(codes[there]))
        return [next(found) if t else "" for t in there.tolist()]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: dtype in memory, unit, the value that says missing, and what it means.

    `text` is the type of the column in files and frames: 'id', 'time', 'money', 'number', 'flag', or
    the tuple of names of an enumeration.
    """

    name: str
    dtype: str
    text: str | tuple[str, ...]
    meaning: str
    missing: int | float | None = None
    file_name: str = ""
    codes: str = ""

    @property
    def public(self) -> str:
        """The column's name in files and frames ('' where it has none there)."""
        return self.file_name or self.name


def _id(name: str, codes: str, meaning: str, *, missing: bool = False, file_name: str = "") -> Column:
    return Column(name, "int64", "id", meaning, NONE if missing else None, file_name or f"{name}_id", codes)


def _time(name: str, meaning: str, *, missing: bool = False) -> Column:
    return Column(name, "int64", "time", meaning, MISSING if missing else None)


_REP = Column("rep", "int32", "number", "replication; 0 in real data", None)


@dataclass(frozen=True)
class Table:
    """Equal-length 1-D arrays, one field a column of SCHEMA."""

    SCHEMA: ClassVar[tuple[Column, ...]] = ()

    def __post_init__(self) -> None:
        n = len(self)
        for c in self.SCHEMA:
            a = getattr(self, c.name)
            if a.dtype != np.dtype(c.dtype) or a.shape != (n,):
                raise DataError(
                    f"{type(self).__name__}.{c.name}: found {a.dtype} of shape {a.shape}, "
                    f"expected {c.dtype} of shape ({n},)"
                )

    def __len__(self) -> int:
        return len(getattr(self, self.SCHEMA[0].name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} rows)"

    @classmethod
    def build(cls, n: int, **columns: Any) -> Self:
        """A table of n rows; scalars are repeated, columns left out are missing (an error if required)."""
        out = {}
        for c in cls.SCHEMA:
            v = columns.pop(c.name, 0 if c.name == "rep" else c.missing)
            if v is None:
                raise DataError(f"{cls.__name__}: column {c.name!r} is required")
            a = np.asarray(v, dtype=c.dtype)
            out[c.name] = np.full(n, a, c.dtype) if a.ndim == 0 else a
        if columns:
            raise DataError(f"{cls.__name__} has no column {next(iter(columns))!r}")
        return cls(**out)

    @classmethod
    def empty(cls) -> Self:
        return cls(**{c.name: np.zeros(0, c.dtype) for c in cls.SCHEMA})

    def take(self, rows: Array | slice) -> Self:
        """The rows that an index array, a boolean mask or a slice picks."""
        return type(self)(**{c.name: getattr(self, c.name)[rows] for c in self.SCHEMA})

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        return cls(**{c.name: np.concatenate([getattr(p, c.name) for p in parts]) for c in cls.SCHEMA})

    def with_(self, **columns: Array) -> Self:
        """A copy with some columns replaced."""
        return type(self)(**({f.name: getattr(self, f.name) for f in fields(self)} | columns))


@dataclass(frozen=True, repr=False)
class Decisions(Table):
    """One row a choice. Served is not sent."""

    decision: I8
    rep: I4
    user: I8
    template: I8
    variant: I8
    segment: I8
    decided_at: I8
    propensity: F8
    mode: I1

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        _id("decision", "decision", "id of the choice (tracking_id)"),
        _REP,
        _id("user", "user", "who was chosen for"),
        _id("template", "template", "touchpoint"),
        _id("variant", "variant", "what was chosen"),
        _id("segment", "segment", "bucketed attributes", missing=True, file_name="segment"),
        _time("decided_at", "when the choice was made"),
        Column("propensity", "float64", "number", "probability with which it was drawn", float("nan")),
        Column("mode", "int8", MODES, "how the choice came about", 0),
    )


@dataclass(frozen=True, repr=False)
class Sends(Table):
    """One row a message that left (or a ghost of a held-out user). Several rows of one id are merged."""

    send: I8
    rep: I4
    user: I8
    template: I8
    variant: I8
    sent_at: I8
    delivered_at: I8
    status: I1
    status_known_at: I8
    received_at: I8
    decided_at: I8
    propensity: F8
    segment: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        _id("send", "send", "id of the message to this user"),
        _REP,
        _id("user", "user", "who it went to"),
        _id("template", "template", "touchpoint"),
        _id("variant", "variant", "which variant"),
        _time("sent_at", "when it left"),
        _time("delivered_at", "when it arrived; missing: not known", missing=True),
        Column("status", "int8", STATUSES, "what became of it", 0),
        _time("status_known_at", "when we learned the status; missing: with the row", missing=True),
        _time("received_at", "when we heard of the row", missing=True),
        _time("decided_at", "when it was chosen; missing: sent_at", missing=True),
        Column("propensity", "float64", "number", "probability with which it was drawn", float("nan")),
        _id("segment", "segment", "bucketed attributes", missing=True, file_name="segment"),
    )


@dataclass(frozen=True, repr=False)
class Events(Table):
    """One row a thing that came back."""

    event: I8
    rep: I4
    user: I8
    kind: I1
    name: I8
    occurred_at: I8
    received_at: I8
    value: I8
    currency: I8
    send: I8
    order: I8
    template: I8
    variant: I8
    machine: I1

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        _id("event", "event", "id of the event, shared by its copies; may be empty: the row then gets a stable one"),
        _REP,
        _id("user", "user", "who did it; missing: taken from the named send", missing=True),
        Column("kind", "int8", KINDS, "what it is", None),
        _id("name", "name", "name of the conversion event", missing=True, file_name="name"),
        _time("occurred_at", "when it happened"),
        _time("received_at", "when we heard of it", missing=True),
        Column("value", "int64", "money", "amount, micro-units of the currency; negative: refund", MISSING),
        _id("currency", "currency", "ISO 4217; missing: the declared one", missing=True, file_name="currency"),
        _id("send", "send", "the send that the event names", missing=True),
        _id("order", "order", "the order it belongs to", missing=True),
        _id("template", "template", "partial id: restricts the candidates", missing=True),
        _id("variant", "variant", "partial id: restricts the candidates", missing=True),
        Column("machine", "int8", "flag", "1 made by a machine, 0 not, -1 unknown", -1),
    )


@dataclass(frozen=True, repr=False)
class Credits(Table):
    """One row a credit: event row and send row of the tables given, weight in parts of 1e9."""

    event_row: I8
    send_row: I8
    weight: I8

    SCHEMA: ClassVar[tuple[Column, ...]] = (
        Column("event_row", "int64", "number", "row of the events table", None),
        Column("send_row", "int64", "number", "row of the sends table", None),
        Column("weight", "int64", "number", "parts of 1e9; a single credit is 1e9", None),
    )


TABLES: dict[str, type[Table]] = {"sends": Sends, "events": Events, "decisions": Decisions}
CODE_SPACES = (
    "user",
    "send",
    "event",
    "order",
    "decision",
    "template",
    "variant",
    "segment",
    "name",
    "currency",
)


@dataclass(frozen=True)
class Log:
    """A log: the three tables with the texts of their codes, and notes on how it was read."""

    sends: Sends
    events: Events
    decisions: Decisions
    codes: dict[str, Codes]
    notes: tuple[str, ...] = ()
    source: str = ""
    rejects: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether it is a simulated world; whatever is shown of it says so."""
        return self.source.startswith("simulated")

    def text(self, space: str, codes: Array) -> list[str]:
        return self.codes[space].text(codes)

    def names(self, space: str) -> list[str]:
        """All texts of a code space, in code order."""
        return self.codes[space].text(np.arange(len(self.codes[space])))

    def counted(self) -> str:
        """How many rows it has, in words."""
        return f"{len(self.sends):,} sends, {len(self.events):,} events, {len(self.decisions):,} decisions"

    def __repr__(self) -> str:
        return f"Log({self.source or 'no source'}: {self.counted()})"

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(n)}</li>" for n in self.notes)
        said = f"{badge(self.simulated)}<p>Log {escape(self.source)}: {self.counted()}</p>"
        return said + (f"<ul>{notes}</ul>" if notes else "")


SIMULATED = "SIMULATED"
"""A file of this name in a log, a plain log or an export says that it is a simulated world."""


def badge(simulated: bool) -> str:
    """What a result shown in a notebook begins with."""
    return f"<p><b>{SIMULATED}</b>, not your data</p>" if simulated else ""

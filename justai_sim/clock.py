"""Time: int64 microseconds since the epoch, UTC. Days exist for people and are converted here, once."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from justai_sim.errors import DataError, UsageError

I8 = npt.NDArray[np.int64]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MISSING = int(np.iinfo(np.int64).min)
"""A missing time or amount; the same bits as pandas' and numpy's NaT."""
EARLIEST = 0
LATEST = 4_102_444_800 * SECOND
"""Times are accepted from 1970-01-01 up to 2100-01-01; outside lies a unit mistake, not a message."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANO = re.compile(r"(\.\d{6})\d+")
_ZONE_NAME = re.compile(r"\[[A-Za-z0-9_/+-]+\]$")
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE)


def days(x: float | int | str) -> int:
    """Days to microseconds, rounded half to even.

    >>> days(3), days(0.5), days("1e-11"), days(2.5 / 86_400_000_000)
    (259200000000, 43200000000, 1, 2)
    """
    return int((Decimal(str(x)) * DAY).to_integral_value(rounding=ROUND_HALF_EVEN))


def zone(name: str) -> tzinfo:
    """An IANA time zone, or a fixed offset such as 'UTC-6' or '+05:30'; else a UsageError that names what was given.

    >>> zone("UTC-7").utcoffset(None) == zone("-0700").utcoffset(None) == timedelta(hours=-7)
    True
    """
    if found := _OFFSET.fullmatch(name.strip()):
        by = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        if by > timedelta(hours=14):
            raise UsageError(f"time zone {name!r} lies more than 14 hours from UTC; expected e.g. 'UTC-6'")
        return timezone(-by if found[1] == "-" else by)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        expected = "expected an IANA name such as 'Europe/Berlin', or an offset such as 'UTC-6'"
        raise UsageError(f"time zone {name!r} is not known; {expected}") from e


def parse(text: str, tz: str | None = None) -> int:
    """ISO-8601 to microseconds. A time without an offset needs `tz`, the zone it was written in.

    >>> parse("2026-01-05T00:00:00Z")
    1767571200000000
    >>> parse("2026-01-05 01:00:00+01:00") == parse("2026-01-05")
    Traceback (most recent call last):
    justai_sim.errors.DataError: time '2026-01-05' has no offset; write one (Z, +02:00) or name the zone with --timezone
    """
    s = _ZONE_NAME.sub("", text.strip())
    s = _NANO.sub(r"\1", s)
    try:
        t = datetime.fromisoformat(s)
    except ValueError:
        raise DataError(f"time {text!r} is not ISO-8601; expected e.g. 2026-01-05T09:30:00Z") from None
    if t.tzinfo is None:
        if tz is None:
            raise DataError(f"time {text!r} has no offset; write one (Z, +02:00) or name the zone with --timezone")
        t = t.replace(tzinfo=zone(tz))
    return checked((t - _EPOCH) // timedelta(microseconds=1), text)


def checked(t: int, text: object = None) -> int:
    """`t` if it lies in 1970..2100, else a DataError."""
    if not EARLIEST <= t < LATEST:
        shown = text if text is not None else t
        raise DataError(f"time {shown!r} lies outside 1970..2100; expected microseconds or ISO-8601")
    return t


def iso(t: int) -> str:
    """Microseconds to ISO-8601 with Z, as short as exact.

    >>> iso(1767571200000000), iso(1767571200500000)
    ('2026-01-05T00:00:00Z', '2026-01-05T00:00:00.500000Z')
    """
    if t == MISSING:
        return ""
    return (_EPOCH + timedelta(microseconds=int(t))).isoformat().replace("+00:00", "Z")


def midnight(t: int) -> int:
    """The UTC midnight at or before `t`."""
    return t - t % DAY


def local_dates(t: I8, tz: str) -> I8:
    """Local calendar dates as days since 1970-01-01, for instants in microseconds, shape (n,).

    >>> import numpy as np
    >>> local_dates(np.array([parse("2026-03-08T04:30:00Z")]), "America/New_York") - date(2026, 3, 7).toordinal()
    array([-719163])
    """
    at, offset = utc_offsets(tz, int(t.min()), int(t.max())) if len(t) else (np.zeros(1, np.int64),) * 2
    shift = offset[np.searchsorted(at, t, side="right") - 1]
    return np.asarray((t + shift) // DAY, dtype=np.int64)


def local_midnight(day: I8, tz: str) -> I8:
    """The first instant of a local date (days since 1970-01-01), shape (n,)."""
    out = np.empty(len(day), np.int64)
    z = zone(tz)
    for d in np.unique(day):
        out[day == d] = _start_of_day(int(d), z)
    return out


def _start_of_day(day: int, z: tzinfo) -> int:
    when = datetime.combine(date.fromordinal(719163 + day), datetime.min.time(), z)
    t = (when - _EPOCH) // timedelta(microseconds=1)
    # A skipped midnight (clocks go forward at 00:00) starts at the transition, not an hour before it.
    back = datetime.fromtimestamp(t / SECOND, z)
    return t if back.date().toordinal() >= 719163 + day else t + HOUR


def utc_offsets(tz: str, low: int, high: int) -> tuple[I8, I8]:
    """The zone's transitions that cover [low, high]: instants (first <= low) and offsets from UTC in us."""
    z = zone(tz)

    def offset(t: int) -> int:
        delta = datetime.fromtimestamp(t // SECOND, z).utcoffset()
        assert delta is not None
        return delta // timedelta(microseconds=1)

    start = max(low - DAY, -2 * 10**15)
    at, value = [start], [offset(start)]
    for t in range(start, high + DAY, DAY):
        last = t + DAY
        while offset(last) != value[-1]:
            a, b = max(t, at[-1]), last
            while b - a > SECOND:
                mid = (a + b) // 2
                a, b = (a, mid) if offset(mid) != value[-1] else (mid, b)
            edge = b - b % SECOND
            at.append(edge)
            value.append(offset(edge))
    return np.array(at, np.int64), np.array(value, np.int64)

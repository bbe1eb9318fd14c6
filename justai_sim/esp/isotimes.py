"""Times as most systems write them (2026-03-01T09:30:00.250Z), many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from justai_sim.clock import EARLIEST, LATEST, MISSING

_FORM = np.frombuffer(b"0000-00-00T00:00:00.000Z", np.uint8)
_DIGIT = np.flatnonzero(ord("0") == _FORM)
_MARK = np.flatnonzero(ord("0") != _FORM)
_LENGTH = len(_FORM)
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


def instants(texts: Sequence[object]) -> list[int]:
    """Microseconds of each text of the form 2026-03-01T09:30:00.250Z; `MISSING` for anything else.

    >>> instants(["1970-01-01T00:00:01.500Z", "2026-02-29T00:00:00.000Z", "2026-03-01", None])
    [1500000, -9223372036854775808, -9223372036854775808, -9223372036854775808]
    """
    fit = [t if type(t) is str and len(t) == _LENGTH and t.isascii() else "" for t in texts]
    at = np.flatnonzero(np.fromiter(map(len, fit), np.int64, len(fit)))
    out = np.full(len(fit), MISSING)
    letters = np.frombuffer("".join(fit).encode(), np.uint8).reshape(len(at), _LENGTH)
    d = letters[:, _DIGIT].astype(np.int32) - ord("0")
    year = d[:, 0] * 1000 + d[:, 1] * 100 + d[:, 2] * 10 + d[:, 3]
    month, day, hour, minute, second = (d[:, i] * 10 + d[:, i + 1] for i in range(4, 14, 2))
    milli = d[:, 14] * 100 + d[:, 15] * 10 + d[:, 16]
    good = (letters[:, _MARK] == _FORM[_MARK]).all(1) & ((d >= 0) & (d <= 9)).all(1)
    good &= (year >= 1970) & (month >= 1) & (month <= 12) & (hour < 24) & (minute < 60) & (second < 60)
    last = _DAYS[np.clip(month, 1, 12) - 1] + ((month == 2) & (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)))
    good &= (day >= 1) & (day <= last)
    # The calendar whose year begins in March, so that the leap day is the last.
    y, m = year - (month < 3), (month + 9) % 12
    days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 + day - 719_469
    t = ((days.astype(np.int64) * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + milli * 1_000
    good &= (t >= EARLIEST) & (t < LATEST)
    out[at] = np.where(good, t, MISSING)
    found: list[int] = out.tolist()
    return found

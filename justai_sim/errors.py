"""Errors that reach a user: where, what was found, what was expected, the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JustaiError(Exception):
    """A failure with a message fit for a user; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(JustaiError):
    """The call is wrong: an unknown option, a value out of range, a missing choice (exit code 2)."""

    exit_code = 2


class DataError(JustaiError):
    """The input is wrong: a file, a line, a field (exit code 3)."""

    exit_code = 3


def several(n: int, one: str) -> str:
    """A count with its noun.

    >>> several(1, "row"), several(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause that names the valid name nearest to `name`, or lists all of them.

    >>> nearest("lookback", ["lookback_days", "offset_days"])
    "did you mean 'lookback_days'?"
    >>> nearest("x", ["a", "b"])
    'valid: a, b'
    """
    names = sorted({str(v) for v in valid})
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid: {', '.join(names)}" if names else "there is none"

"""Errors that reach a user: where, what was found, what was expected, the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_COMMANDS = re.compile(
    "[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
"""What a terminal does not show but obey."""


class JustaiError(Exception):
    """A failure with a message fit for a user; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(JustaiError):
    """The call is wrong: an unknown option, a value out of range, a missing choice (exit code 2)."""

    exit_code = 2


class DataError(JustaiError):
    """The input is wrong: a file, a line, a field (exit code 3)."""

    exit_code = 3


class StoppedError(JustaiError):
    """The user stopped it; the message says what is kept and how to go on (exit code 130)."""

    exit_code = 130


class NotInLogWarning(UserWarning):
    """A name that was asked for and that the log does not have: perhaps a slip, perhaps a day without it."""


def escaped(text: str) -> str:
    """The text with control characters (but the ends of lines), lone surrogates and what turns the direction of writing
    as escapes, as JSON has them.

    >>> print(escaped("\\x1b[31mred\\u202e"))
    \\u001b[31mred\\u202e
    """
    return _COMMANDS.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def one_line(text: str) -> str:
    """`escaped`, the ends of lines too."""
    return escaped(text).replace("\n", "\\u000a")


def checked_type(value: object, kinds: type | tuple[type, ...], what: str, expected: str) -> None:
    """UsageError where an argument is of another type (a truth value is no number).

    >>> checked_type("8", int, "workers", "a whole number")
    Traceback (most recent call last):
    justai_sim.errors.UsageError: workers is a str; expected a whole number
    """
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise UsageError(f"{what} is a {type(value).__name__}; expected {expected}")


def several(n: int, one: str) -> str:
    """A count with its noun.

    >>> several(1, "row"), several(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


def listed(names: Iterable[str], most: int = 3) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b", "c", "d", "e"])
    ('a', 'a, b and c', 'a, b, c and 2 more')
    """
    found = list(names)
    if len(found) > most:
        return f"{', '.join(found[:most])} and {len(found) - most} more"
    return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))


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

"""Values of a provider's fields as text or numbers: ids, amounts, and what is said of those that are none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any

from justai_sim.esp import limits

Element = dict[str, Any]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_LIMIT = Decimal(1 << 62)


class ElementError(ValueError):
    """An element that cannot become a row: a typed reason and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


def shown(value: Any) -> str:
    """A value for a message, at most 80 characters."""
    text = repr(value[:80] if isinstance(value, str | bytes | list) else value)
    whole = not isinstance(value, str | bytes | list) or len(value) <= 80
    return text if whole and len(text) <= 80 else text[:77] + "..."


def ident(value: Any) -> str:
    """An id as text: a text, or a whole number written out; '' for nothing, ValueError for anything else.

    >>> ident("u1"), ident(42), ident(42.0), ident("  "), ident(None)
    ('u1', '42', '42', '', '')
    """
    if type(value) is str:
        return short(value) if value and not value.isspace() else ""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return str(int(value)) if value == value and abs(value) < 1e15 and int(value) == value else str(value)


def short(text: str) -> str:
    """The text; an ElementError if it is longer than any id or name."""
    if len(text) <= limits.TEXT:
        return text
    found = f"found a text of {len(text):,} characters ({text[:40]!r}...)"
    raise ElementError("text_too_long", f"{found}, expected an id or a name of at most {limits.TEXT:,}")


def first_ident(source: Element, keys: Iterable[str]) -> str:
    """The first of `keys` that holds an id; what is no id (an object, a flag) is passed over."""
    for key in keys:
        value = source.get(key)
        if value is not None:
            if type(value) is str and 0 < len(value) <= limits.TEXT and not value.isspace():
                return value
            try:
                found = ident(value)
            except ElementError:
                raise
            except ValueError:
                continue
            if found:
                return found
    return ""


def decimal(value: Any) -> Decimal | None:
    """A number, or a text such as '39.95', '$1,055.34' or '55,34 €', as a decimal; None if it is none.

    >>> decimal(0.1), decimal("$1,055.34"), decimal("55,34 €"), decimal("1,000"), decimal("free"), decimal(True)
    (Decimal('0.1'), Decimal('1055.34'), Decimal('55.34'), Decimal('1000'), None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    text = str(value)
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 40:
            return None
        if not _NUMBER.fullmatch(text):
            text = _plain(text)
            if not _NUMBER.fullmatch(text):
                return None
    found = Decimal(text)
    return found if found.is_finite() and abs(found.scaleb(6)) < _LIMIT else None


def _plain(text: str) -> str:
    """A written amount without symbol and thousands marks; a comma is decimal unless three digits follow."""
    core = text.strip(" $€£¥₹\u00a0").removesuffix(".-")
    if len(core) > 4 and core[:3].isalpha():
        core = core[3:].strip()
    elif len(core) > 4 and core[-3:].isalpha():
        core = core[:-3].strip()
    core = core.replace("-$", "-").replace(" ", "").replace("\u00a0", "")
    comma, dot = core.rfind(","), core.rfind(".")
    if comma > dot and len(core) - comma - 1 != 3:
        return core.replace(".", "").replace(",", ".")
    return core.replace(",", "")


def micro(amount: Decimal) -> int:
    """Micro-units, half to even."""
    return int(amount.scaleb(6).to_integral_value(ROUND_HALF_EVEN))


def micro_of(value: Any) -> int | None:
    """Micro-units of a number or a written amount; None if it is none. Numbers are remembered: prices repeat.

    >>> micro_of(19.99), micro_of("$1,055.34"), micro_of(True), micro_of("free")
    (19990000, 1055340000, None, None)
    """
    if type(value) is float or type(value) is int:
        return _micro_of_number(value)
    amount = decimal(value)
    return None if amount is None else micro(amount)


@lru_cache(1 << 14)
def _micro_of_number(value: float) -> int | None:
    amount = decimal(value)
    return None if amount is None else micro(amount)


def copy_text(extras: Any, key: str = "copy_id") -> str:
    """The `copy_id` of a set of key-values, or what another key holds ('' if there is none)."""
    names = ("copy_id", "copyId") if key == "copy_id" else (key,)
    return first_ident(extras, names) if isinstance(extras, dict) else ""


def message_key(dispatch: str, user: str, part: str) -> str:
    """The id of one message to one user where a dispatch id is shared by all recipients."""
    return f"{dispatch}:{user}:{part}" if part else f"{dispatch}:{user}"

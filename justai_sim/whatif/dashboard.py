"""A dashboard's numbers as somebody exported them: headers, thousands separators, percent signs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.errors import DataError, UsageError, nearest
from justai_sim.frames import as_pandas
from justai_sim.sheets import unquoted
from justai_sim.tables import F8

KEYS = {
    "template_id": ("template", "template_name", "campaign", "campaign_id", "canvas_step", "step", "touchpoint"),
    "variant_id": ("variant", "variant_name", "variation", "variation_id", "arm", "copy", "copy_id"),
}
COUNTS = {
    "sends": ("sent", "send_count", "messages_sent", "total_sends"),
    "conversions": ("conversion", "conversion_count", "converted", "total_conversions", "purchases"),
    "revenue": ("total_revenue",),
    "opens": ("opened", "unique_opens"),
    "clicks": ("clicked", "unique_clicks"),
    "unsubscribes": ("unsubscribed", "unsubs"),
}
RATES = {
    "conversion_rate": ("cvr", "cr", "conversions_rate", "converted_rate"),
    "open_rate": ("opens_rate", "opened_rate"),
    "click_rate": ("ctr", "clicks_rate", "clicked_rate"),
    "unsubscribe_rate": ("unsubscribes_rate", "unsubscribed_rate"),
    "revenue_per_send": ("rps",),
}
SHARES = ("conversion_rate", "open_rate", "click_rate", "unsubscribe_rate")
MEASURES = (*COUNTS, *RATES)
WHOLE = tuple(m for m in COUNTS if m != "revenue")
EMPTY = {"", "-", "–", "—", "n/a", "na", "none", "null"}
TOTALS = {
    "total", "totals", "all", "overall", "all variants", "all (distinct)", "grand total", "sum", "average", "averages",
    "avg", "mean",
}  # fmt: skip
TITLE = 20
"""Lines above the header that are looked through for it."""

_GROUPED = re.compile(r"[1-9]\d{0,2}([.,])(\d{2,3}\1)*\d{3}")
"""Whole numbers with separators for the thousands, or as in India; 0,279 is none."""
_MONEY = re.compile(r"^[A-Z]{3}\s+|\s+[A-Z]{3}$|[$€£¥\s\u00a0\u202f'’]")


@dataclass(frozen=True)
class Dashboard:
    """templates: per row, or None without such a column. values: measure -> (rows,), NaN where not given.
    lines: where each row stood. Shares are fractions, money is in units."""

    templates: list[str] | None
    variants: list[str]
    values: dict[str, F8]
    lines: list[str]
    notes: list[str]


def read_dashboard(source: str | Path | Any, *, fractional: bool = False) -> Dashboard:
    """A CSV file (comma, semicolon, tab or bar) or a DataFrame with a variant column and any of MEASURES.

    Column names are read without regard to case and blanks, with the usual other words for them ('variant',
    'arm', 'sent', 'cvr'); other columns are ignored and named in a note. Numbers may have thousands
    separators, currency signs, percent signs; in a file with semicolons a comma is a decimal point. Lines of a
    title above the header and rows that are totals or averages are left out. Rows of one variant are added up.
    Counts are whole numbers, but for conversions where credit is shared (`fractional`). UsageError if the file is
    not there, DataError for what cannot be read: line, column, what was found.
    """
    header, rows, name, decimal, above = _cells(source)
    notes = [f"{above} lines of {name} above the header are left out"] if above else []
    columns = _columns(header, name, notes)
    percent = [i for m, i in columns.items() if m in SHARES and "%" in header[i]]
    rows = [[c + "%" if i in percent and c.strip() and "%" not in c else c for i, c in enumerate(r)] for r in rows]
    body = [(f"{name} line {i}", r) for i, r in enumerate(rows, 2 + above) if any(c.strip() for c in r)]
    variant = columns["variant_id"]
    kept = [(line, r) for line, r in body if _at(r, variant).strip().lower() not in TOTALS | {""}]
    if len(kept) < len(body):
        notes.append(
            f"{len(body) - len(kept)} rows of {name} without a variant or with a total or an average are left out"
        )
    if not kept:
        raise DataError(f"{name} holds no row with a variant")
    lines = [line for line, _ in kept]
    values = {
        m: np.array([_number(_at(r, i), m, line, header[i], decimal) for line, r in kept])
        for m, i in columns.items() if m in MEASURES
    }  # fmt: skip
    _check_whole(values, kept, {m: columns[m] for m in values}, header, fractional, notes)
    _scale_shares(values, {m: [_at(r, columns[m]) for _, r in kept] for m in values if m in SHARES}, notes)
    template = columns.get("template_id")
    templates = None if template is None else [_at(r, template).strip() for _, r in kept]
    return _added(Dashboard(templates, [_at(r, variant).strip() for _, r in kept], values, lines, notes))


def _cells(source: str | Path | Any) -> tuple[list[str], list[list[str]], str, str, int]:
    """Header, rows, name, the sign before decimals, and how many lines stand above the header."""
    if not isinstance(source, (str, Path)):
        frame = as_pandas(source, "the dashboard")
        frame = frame.reset_index() if frame.index.names != [None] else frame
        rows = [["" if pd.isna(v) else str(v) for v in r] for r in frame.itertuples(index=False)]
        return [str(c) for c in frame.columns], rows, "the frame", ".", 0
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"{path} is not there; expected a CSV of the dashboard's numbers")
    raw = path.read_bytes()
    for encoding in ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            text = raw.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise DataError(f"{path.name} is not text; expected a CSV")
    if "\x00" in text:
        raise DataError(f"{path.name} is not text; expected a CSV")
    if not text.strip(' \t\r\n,;|"'):
        raise DataError(f"{path.name} is empty; expected a header and a row a variant")
    lines = text.splitlines(keepends=True)
    above = _header_at(lines)
    delimiter = max(",;\t|", key=lines[above].count)
    rows = list(csv.reader(io.StringIO("".join(lines[above:]), newline=""), delimiter=delimiter))
    return rows[0], rows[1:], path.name, "," if delimiter == ";" else ".", above


def _header_at(lines: Sequence[str]) -> int:
    """The first line with a column for the variant, else the first that is not blank."""
    for i, line in enumerate(lines[: TITLE + 1]):
        words = {_plain(c) for c in re.split(r"[,;\t|]", line)}
        if len(words) > 1 and words & {"variant_id", *KEYS["variant_id"]}:
            return i
    return next(i for i, line in enumerate(lines) if line.strip())


def _plain(header: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", header.lower()).strip("_")


def _columns(header: Sequence[str], name: str, notes: list[str]) -> dict[str, int]:
    """Which column is what; the exact names win over the other words for them."""
    plain = [_plain(h) for h in header]
    # 'Conversion %' is a rate; 'conversion rate (%)' is one already.
    plain = [p + "_rate" if "%" in h and not p.endswith("rate") else p for p, h in zip(plain, header, strict=True)]
    out: dict[str, int] = {}
    words = {**KEYS, **COUNTS, **RATES}
    for own in (True, False):
        for key, others in words.items():
            for word in (key,) if own else others:
                found = [i for i, p in enumerate(plain) if p == word and i not in out.values()]
                if key not in out and found:
                    if len(found) > 1:
                        raise DataError(f"{name}: column {header[found[0]]!r} is there twice")
                    out[key] = found[0]
    if "variant_id" not in out:
        raise DataError(f"{name} has no column variant_id (or variant, arm); found {', '.join(header)}{_hint(plain)}")
    if not any(m in out for m in MEASURES):
        raise DataError(
            f"{name} has no number to compare; expected one of {', '.join(MEASURES)}; found {', '.join(header)}"
            f"{_hint(p for p in plain if p not in ('variant_id', 'template_id'))}"
        )
    ignored = [header[i] for i in range(len(header)) if i not in out.values() and header[i].strip()]
    if ignored:
        close = _hint(plain[i] for i in range(len(header)) if i not in out.values())
        notes.append(f"columns of {name} that are not compared: {', '.join(ignored)}{close}")
    return out


def _hint(found: object) -> str:
    """'; did you mean ...' for the first name that is close to a known one."""
    for p in found:  # type: ignore[attr-defined]
        near = nearest(p, [*KEYS, *MEASURES])
        if near.startswith("did you mean"):
            return f"; {p}: {near}"
    return ""


def _at(row: Sequence[str], i: int) -> str:
    """A cell; a text that we wrote ourselves without its apostrophe."""
    return unquoted(row[i]) if i < len(row) else ""


def _number(text: str, measure: str, line: str, column: str, decimal: str) -> float:
    """A cell as a number; NaN where it is empty. DataError that names line and column otherwise."""
    if text.strip().rstrip("%").lower() in EMPTY:
        return float("nan")
    plain = _MONEY.sub("", text.strip().replace("−", "-"))
    percent = plain.endswith("%")
    plain = plain.rstrip("%").strip()
    sign = -1.0 if plain.startswith("-") or (plain.startswith("(") and plain.endswith(")")) else 1.0
    plain = plain.strip("()").lstrip("+-")
    try:
        x = sign * float(_western(plain, decimal))
    except ValueError:
        x = float("nan")
    if not np.isfinite(x) or "_" in plain:
        raise DataError(f"{line}, column {column!r}: found {text!r}, expected a number")
    if percent and measure not in SHARES:
        raise DataError(f"{line}, column {column!r}: found {text!r}, expected {measure} without a percent sign")
    if x < 0 and measure not in ("revenue", "revenue_per_send"):
        raise DataError(f"{line}, column {column!r}: found {text!r}, expected at least 0")
    return x / 100 if percent else x


def _western(text: str, decimal: str) -> str:
    """The number with a point for the decimals and nothing for the thousands.

    >>> _western("1,234.5", "."), _western("1.234,5", ","), _western("12,5", "."), _western("1.234", ",")
    ('1234.5', '1234.5', '12.5', '1234')
    >>> _western("0,279", "."), _western("0.279", ","), _western("1.234", "."), _western("12,34,567", ".")
    ('0.279', '0.279', '1.234', '1234567')
    """
    both = "," in text and "." in text
    last = max(text.rfind(","), text.rfind("."))
    head = text[:last] if both else text
    if both and text[last] not in head:
        return re.sub(r"[.,]", "", head) + "." + text[last + 1 :] if _GROUPED.fullmatch(head) else text
    sign = "." if "." in text else ","
    grouped = not both and _GROUPED.fullmatch(text) is not None
    if grouped and (text.count(sign) > 1 or sign != decimal):
        return text.replace(sign, "")
    return text.replace(sign, ".") if text.count(sign) == 1 else text


def _check_whole(
    values: dict[str, F8], kept: Sequence[tuple[str, list[str]]], columns: dict[str, int], header: Sequence[str],
    fractional: bool, notes: list[str],
) -> None:  # fmt: skip
    """DataError for a count that is not whole; conversions may be parts where the rule shares them."""
    for m in (m for m in WHOLE if m in values):
        apart = np.abs(values[m] - np.round(values[m])) > 1e-9
        if not apart.any():
            continue
        i = int(apart.argmax())
        line, row = kept[i]
        column, found = header[columns[m]], _at(row, columns[m])
        if m != "conversions" or not fractional:
            raise DataError(f"{line}, column {column!r}: found {found!r}, expected a whole number of {m}")
        notes.append(f"{line}, column {column!r}: {found!r} is not whole; conversions are read as shared credit")


def _scale_shares(values: dict[str, F8], texts: dict[str, list[str]], notes: list[str]) -> None:
    """A rate without percent signs may be in per cent: its counts tell, else a value above 1 does."""
    for m, cells in texts.items():
        x = values[m]
        if any("%" in c for c in cells) or np.isnan(x).all():
            continue
        top = values.get({"conversion_rate": "conversions", "open_rate": "opens", "click_rate": "clicks",
                          "unsubscribe_rate": "unsubscribes"}[m])  # fmt: skip
        per = bool(np.nanmax(x) > 1)
        if top is not None and "sends" in values:
            with np.errstate(divide="ignore", invalid="ignore"):
                own = np.nansum(top) / np.nansum(values["sends"])
            if own > 0:
                mean = float(np.nanmean(x))
                per = abs(np.log(max(mean, 1e-12) / 100 / own)) < abs(np.log(max(mean, 1e-12) / own))
        if per:
            values[m] = x / 100
            notes.append(f"{m} is read as per cent")


def _added(d: Dashboard) -> Dashboard:
    """Rows of the same variant (a day, a segment) added up; their rates cannot be and are left out."""
    keys = list(zip(d.templates or [""] * len(d.variants), d.variants, strict=True))
    first = list(dict.fromkeys(keys))
    if len(first) == len(keys):
        return d
    group = np.array([first.index(k) for k in keys])
    values = {m: np.bincount(group, x, len(first)).astype(np.float64) for m, x in d.values.items() if m in COUNTS}
    lost = [m for m in d.values if m not in COUNTS]
    note = f"rows of the same variant are added up ({len(keys)} to {len(first)})"
    if lost:
        note += f"; their rates cannot be and are left out: {', '.join(lost)}"
    if not values:
        raise DataError(f"{d.lines[0]} and others are of the same variant, and only rates are given: cannot be added")
    return Dashboard(
        None if d.templates is None else [k[0] for k in first], [k[1] for k in first], values,
        [d.lines[keys.index(k)] for k in first], [*d.notes, note],
    )  # fmt: skip

"""Data to stdout, everything else to stderr, progress only on a terminal.

Everything that a command prints goes through here: texts of a log must not command the terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from justai_sim.errors import escaped, one_line
from justai_sim.pages.table import number


def say(text: str) -> None:
    """A remark for the person at the terminal."""
    print(escaped(text), file=sys.stderr)


def tell(text: object = "") -> None:
    """A line, or several, of the answer."""
    print(escaped(str(text)))


def emit_json(**content: Any) -> None:
    """One JSON object with a schema_version."""
    tell(msgspec.json.encode({"schema_version": 1, **content}, enc_hook=_plain).decode())


def _plain(x: Any) -> Any:
    if hasattr(x, "item"):
        return x.item()
    return str(x)


def table(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> None:
    """Rows as aligned text."""
    columns = list(columns)
    cells = [[one_line(c) for c in line] for line in (columns, *([number(r.get(c)) for c in columns] for r in rows))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        left = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        tell("  ".join(left).rstrip())


class Bar:
    """A progress bar over units; where stderr is no terminal a line with an estimate of the end every half minute."""

    EVERY = 30.0
    """Seconds between two lines."""

    def __init__(self, what: str, unit: str = "part") -> None:
        self.what, self.unit = what, unit
        self.bar: Any = None
        self.began, self.told, self.first = time.monotonic(), time.monotonic(), -1

    def __call__(self, done: int, total: int | None) -> None:
        if not sys.stderr.isatty():
            self._line(done, total)
            return
        if self.bar is None:
            from tqdm import tqdm

            # What was done before does not enter the rate, from which the end is estimated.
            self.bar = tqdm(total=total, initial=done, desc=self.what, unit=self.unit, unit_scale=self.unit == "B",
                            file=sys.stderr, leave=True)  # fmt: skip
        self.bar.total = total  # a race gets shorter
        self.bar.update(done - self.bar.n)

    def _line(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self.first < 0:
            self.first, self.began, self.told = done, now, now
        if total is None or now - self.told < self.EVERY or not self.first < done < total:
            return
        self.told = now
        left = (now - self.began) / (done - self.first) * (total - done)
        say(f"{self.what}: {100 * done / total:.0f} %, about {max(1, round(left / 60)):,} min left")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

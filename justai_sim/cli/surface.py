"""surface: every window of a log at once, and whether any difference on the map is more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from justai_sim import clock, replays
from justai_sim.cli.output import emit_json, say, table, tell
from justai_sim.cli.whatif import Asked, checked_out
from justai_sim.errors import DataError, UsageError
from justai_sim.pages.surface_words import in_use, judgement, ranged, usual_rows
from justai_sim.pages.table import number
from justai_sim.surfaces import ADVICE, WindowSurface, checked_grid, checked_metric

MOST_DAYS = 10_000


def surface(
    asked: Asked, offsets: str, lookbacks: str, metric: str, control: str | None, out: Path | None, json: bool
) -> None:  # fmt: skip
    checked_out(out)
    checked_metric(metric)
    options = asked.options()
    apart = options["rule"].lookback_from == "offset_end"
    grid = checked_grid(days_of("--offsets", offsets), days_of("--lookbacks", lookbacks), apart)
    result = replays.replay(asked.log(), control=control, shares=False, **options)
    if not result.shown.any():
        raise DataError("no send is left to show; widen --template, --since, --until or --as-of")
    say(f"as of {clock.iso(result.attribution.as_of)}" + ("" if asked.as_of else " (the last receipt)"))
    notes = [*result.notes, *result.mix[1]]
    for note in notes:
        say(f"note: {note}")
    count = sum(apart or b > a for a in grid[0] for b in grid[1])
    say(f"counting {count:,} windows of {len(result.log.sends):,} sends and {len(result.log.events):,} events ...")
    got = result.surface_on(*grid, metric=metric)
    if got.left_out:
        names = ", ".join(v or "(none)" for v in got.left_out)
        say(f"note: not compared, too few conversions in most windows: {names}")
    files = _write(result, got, asked.path.name, out) if out is not None else []
    if json:
        _emit(result, got, notes, files)
        return
    tell(got.answer())
    tell(in_use(got))
    tell()
    table(rows_of(got), ("window", "leader", "ahead", "second", "difference per 1,000 (95 %)", "z", "conversions",
                         "mature sends"))  # fmt: skip
    tell(f"\nA leader needs z above {number(got.judged.bound)}, the bound of the whole map (95 %); the intervals hold "
          "for all windows at once.")  # fmt: skip
    tell(judgement(got))
    tell(ADVICE)
    for f in files:
        say(f"written: {f}")


def days_of(option: str, text: str) -> list[float]:
    """`a:b`, `a:b:step` (both ends included) and comma lists of days, as numbers.

    >>> days_of("--offsets", "0:3"), days_of("--offsets", "0:1:0.5,7")
    ([0.0, 1.0, 2.0, 3.0], [0.0, 0.5, 1.0, 7.0])
    """
    out: list[float] = []
    for part in text.split(","):
        try:
            numbers = [float(x) for x in part.split(":")]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 3 or not np.isfinite(numbers).all():
            raise UsageError(f"{option} {text!r}: {part.strip()!r} is no day or range; expected e.g. 3, 0:7, 0:30:5 "
                             "or a comma list")  # fmt: skip
        first, last, step = numbers[0], numbers[min(1, len(numbers) - 1)], numbers[2] if len(numbers) == 3 else 1.0
        if step <= 0:
            raise UsageError(f"{option} {text!r}: the step is {step:g}; expected a number of days above 0")
        if last < first:
            raise UsageError(f"{option} {text!r}: {part.strip()!r} runs backwards; expected {last:g}:{first:g}")
        if (last - first) / step > MOST_DAYS:
            raise UsageError(f"{option} {text!r}: more than {MOST_DAYS:,} values; take a larger step")
        # A step of 0.1 must reach the end in spite of its rounding error.
        out += [round(first + k * step, 9) for k in range(int((last - first) / step + 1e-9) + 1)]
    return out


def rows_of(got: WindowSurface) -> list[dict[str, Any]]:
    """The windows that are printed."""
    return [
        {"window": r["window"], "leader": r["leader"], "ahead": r["ahead"], "second": r["second"],
         "difference per 1,000 (95 %)": ranged(r), "z": r["z"], "conversions": r["conversions"],
         "mature sends": r["mature_sends"]} for r in usual_rows(got)
    ]  # fmt: skip


def _write(result: replays.Replay, got: WindowSurface, title: str, out: Path) -> list[str]:
    from justai_sim.pages import reports
    from justai_sim.pages.surface_page import FILES, surface_data

    data = surface_data(result, got)
    reports.publish(data, out, title, {
        "source": Path(result.log.source).name, "as_of": clock.iso(data.as_of),
        "rule": msgspec.to_builtins(data.rule), "goals": data.goals, "metric": got.metric, "bound": got.judged.bound,
        "answer": got.answer(), "advice": ADVICE, "left_out": got.left_out, "notes": data.notes,
    })  # fmt: skip
    return [str(out / n) for n in ("index.html", *FILES, "window_map.png", "window_map.svg", "manifest.json")]


def _emit(result: replays.Replay, got: WindowSurface, notes: list[str], files: list[str]) -> None:
    emit_json(
        as_of=clock.iso(result.attribution.as_of), rule=msgspec.to_builtins(result.program.rule),
        goals=result.program.goals, metric=got.metric, notes=notes, left_out=got.left_out, answer=got.answer(),
        counts=got.counts(), bound=got.judged.bound,
        in_use={"offset_day": got.in_use[0], "lookback_day": got.in_use[1], "said": in_use(got)},
        chosen=_plain(got.chosen()), advice=ADVICE, cells=_plain(got.cells), files=files,
    )  # fmt: skip


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with null where a number is missing or not finite."""
    return [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in frame.to_dict("records")
    ]

"""surface: every window of a log at once, and whether any difference on the map is more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from justai_sim import clock, replays
from justai_sim.cli.output import emit_json, number, say, table
from justai_sim.cli.whatif import Asked, checked_out
from justai_sim.errors import DataError, UsageError
from justai_sim.sheets import write_csv
from justai_sim.surfaces import ADVICE, WindowSurface, checked_grid, checked_metric
from justai_sim.version import __version__

USUAL = ((0.0, 1.0), (0.0, 3.0), (0.0, 7.0), (0.0, 14.0), (3.0, 14.0), (0.0, 30.0))
"""(offset, lookback) of the rows that are printed: fixed beforehand, not by what they show."""
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
    files = _write(result, got, notes, out) if out is not None else []
    if json:
        _emit(result, got, notes, files)
        return
    print(got.answer())
    print(in_use(got))
    print()
    table(rows_of(got), ("window", "leader", "ahead", "second", "difference per 1,000 (95 %)", "z", "conversions",
                         "mature sends"))  # fmt: skip
    print(f"\nA leader needs z above {number(got.judged.bound)}, the bound of the whole map (95 %); the intervals hold "
          "for all windows at once.")  # fmt: skip
    print(judgement(got))
    print(ADVICE)
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


def in_use(got: WindowSurface) -> str:
    """What the rule's own window says."""
    offset, lookback = got.in_use
    said = f"The window in use ({lookback:g}/{offset:g}): {got.said_at(offset, lookback)}"
    place = got.at(offset, lookback)
    if place is None or not got.judged.told[place]:
        return f"{said}."
    row = _row(got, offset, lookback)
    return (
        f"{said} ({row['ahead']} before {row['second']} by {_ranged(row)} per 1,000 sends, "
        f"z {number(float(row['z']))})."
    )


def judgement(got: WindowSurface) -> str:
    """The window chosen on half of the users, and what the other half says."""
    both = got.chosen().to_dict("records")
    if not both:
        return "Half of the users are too few to choose a window on and judge it on the others."
    one, other = both
    said = "above 0" if other["low_per_1000"] > 0 else "not above 0"
    bound = number(got.judged.bound)
    return (
        f"Chosen on half of the users: {_window(got, one)}, {one['first']} before {one['second']} by "
        f"{number(one['difference_per_1000'])} per 1,000 (z {number(one['z'])}); the other half says {_ranged(other)} "
        f"(z {number(other['z'])}): {said} at 95 % for this one window, judged alone and once. The map asks more of a "
        f"window (z above {bound}, with all users), as it asks all at once; only that makes a leader of the map."
    )


def rows_of(got: WindowSurface) -> list[dict[str, Any]]:
    """The windows that are printed: the one in use and the usual ones, or some spread evenly over the map."""
    on_map = [w for w in sorted({*USUAL, got.in_use}, key=lambda w: (w[1], w[0])) if got.at(*w) is not None]
    if len(on_map) < 3:
        c = got.cells
        spread = c.iloc[np.unique(np.linspace(0, len(c) - 1, min(len(c), 5)).astype(int))]
        more = zip(spread["offset_day"].tolist(), spread["lookback_day"].tolist(), strict=True)
        on_map = sorted({*on_map, *more}, key=lambda w: (w[1], w[0]))
    out = []
    for offset, lookback in on_map:
        row = _row(got, offset, lookback)
        used = " (in use)" if (offset, lookback) == got.in_use else ""
        out.append(
            {
                "window": _window(got, row) + used, "leader": row["leader"], "ahead": row["ahead"],
                "second": row["second"],
                "difference per 1,000 (95 %)": _ranged(row), "z": row["z"], "conversions": row["conversions"],
                "mature sends": row["mature_sends"],
            }
        )  # fmt: skip
    return out


def _row(got: WindowSurface, offset: float, lookback: float) -> dict[str, Any]:
    c = got.cells
    return dict(c[(c["offset_day"] == offset) & (c["lookback_day"] == lookback)].iloc[0])


def _window(got: WindowSurface, row: dict[str, Any]) -> str:
    first, last = row["offset_day"], row["lookback_day"]
    return f"day {first:g} to {last + first if got.from_offset else last:g}"


def _ranged(row: dict[str, Any]) -> str:
    value, low, high = (row[f"{k}_per_1000"] for k in ("difference", "low", "high"))
    return "-" if value != value else f"{value:.2f} ({low:.2f} to {high:.2f})"


def _write(result: replays.Replay, got: WindowSurface, notes: list[str], out: Path) -> list[str]:
    from justai_sim.pages.figures import plot_window_map, save

    out.mkdir(parents=True, exist_ok=True)
    write_csv(got.frame, out / "windows.csv", "%.10g")
    write_csv(got.cells, out / "cells.csv", "%.10g")
    write_csv(got.chosen(), out / "chosen.csv", "%.10g")
    offset, lookback = got.in_use
    save(plot_window_map(got, control=result.control, offset_days=offset, lookback_days=lookback), out / "window_map")
    manifest = {
        "schema_version": 1, "kind": "surface", "version": __version__, "source": Path(result.log.source).name,
        "as_of": clock.iso(result.attribution.as_of), "rule": msgspec.to_builtins(result.program.rule),
        "goals": result.program.goals, "metric": got.metric, "bound": got.judged.bound, "answer": got.answer(),
        "advice": ADVICE, "left_out": got.left_out, "notes": notes,
    }  # fmt: skip
    (out / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    names = ("windows.csv", "cells.csv", "chosen.csv", "window_map.png", "window_map.svg", "manifest.json")
    return [str(out / n) for n in names]


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

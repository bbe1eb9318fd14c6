"""Parts to long frames, and frames to and from disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from justai_sim.errors import DataError
from justai_sim.scenario import Point, Scenario, points
from justai_sim.sheets import write_csv
from justai_sim.sim.plan import by_code
from justai_sim.sweeps.data import Raced, SweepData, figures_of
from justai_sim.sweeps.parts import Tables
from justai_sim.version import __version__

FRAMES = ("metrics", "race", "age", "windows", "shares")


def collect(
    scenario: Scenario, all_points: list[Point], parts: list[list[Tables]], raced: Raced | None = None
) -> SweepData:
    """Long frames from the parts of each point."""
    figures = figures_of(all_points)

    def frame(table: str) -> pd.DataFrame:
        both = zip(all_points, parts, strict=True)
        return pd.concat([frame_of(scenario, p, of, table) for p, of in both], ignore_index=True)

    return SweepData(
        scenario=scenario,
        points=all_points,
        reference=all_points[0].name,
        figures=all_points[figures].name,
        metrics=frame("metrics"),
        race=frame("race"),
        age=frame_of(scenario, all_points[figures], parts[figures], "age"),
        windows=frame_of(scenario, all_points[figures], parts[figures], "windows"),
        shares=mean_shares(frame("shares")),
        raced=raced,
    )


def mean_shares(sums: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over worlds, from the sums of the blocks."""
    numbers = ["share", "share_squared", "worlds"]
    keys = [c for c in sums.columns if c not in numbers]
    out = sums.groupby(keys, sort=False, as_index=False)[numbers].sum()
    mean = out["share"] / out["worlds"] / 1e9
    spread = np.sqrt(np.maximum(out["share_squared"] / out["worlds"] / 1e12 - mean**2, 0))
    return out.assign(share=mean, spread=spread)[[*keys, "share", "spread", "worlds"]]


def frame_of(scenario: Scenario, point: Point, parts: list[Tables], table: str) -> pd.DataFrame:
    """One long table of a point, ordered by replication whatever order the parts came in."""
    pieces = []
    for part in parts:
        columns = dict(part[table])
        metric_names = columns.pop("names", None)
        piece = pd.DataFrame(columns)
        if metric_names is not None:
            piece["metric"] = metric_names[piece["metric"]]
        pieces.append(piece)
    out = pd.concat(pieces, ignore_index=True)
    if "rep" in out:  # blocks may be cut anywhere: rows go by replication
        out = out.sort_values("rep", kind="stable", ignore_index=True)
    head = {"point": point.name, **point.labels} if table in ("metrics", "race", "shares") else {}
    for k, (name, value) in enumerate(head.items()):
        out.insert(k, name, value)
    if "template" in out:
        out["template"] = np.array([s.id for s in by_code(scenario)], dtype=object)[out["template"]]
    if "variant" in out:
        variants = sorted({v.id for s in scenario.touches for v in scenario.variants_of(s)}, key=str.encode)
        out["variant"] = np.array(variants, dtype=object)[out["variant"]]
    renamed = {"template": "template_id", "variant": "variant_id"}
    return out.rename(columns=renamed | ({"rep": "group"} if table in ("age", "windows") else {}))


def write_tables(data: SweepData, out: Path) -> None:
    """The long tables as Parquet, the two main ones as CSV too, and the manifest."""
    tables = out / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for name in FRAMES:
        frame: pd.DataFrame = getattr(data, name)
        frame.to_parquet(tables / f"{name}.parquet", index=False)
        if name in ("metrics", "race"):
            write_csv(frame, tables / f"{name}.csv", "%.10g")
    manifest = {
        "schema_version": 1,
        "kind": "sweep",
        "version": __version__,
        "seed": data.scenario.seed,
        "points": [p.name for p in data.points],
        "race": msgspec.to_builtins(data.raced),
        "scenario": msgspec.to_builtins(data.scenario),
    }
    (out / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as e:  # Arrow's errors are of these
        raise DataError(f"{path}: cannot be read, the same sweep with --resume writes it again: {e}") from None


def read_tables(out: Path) -> SweepData:
    """A finished sweep from its folder."""
    path = out / "manifest.json"
    try:
        raw = msgspec.json.decode(path.read_bytes())
        scenario = msgspec.convert(raw["scenario"], Scenario)
        raced = msgspec.convert(raw.get("race"), Raced | None)
    except (OSError, KeyError, TypeError, msgspec.DecodeError, msgspec.ValidationError) as e:
        raise DataError(f"{out}: is not the folder of a finished sweep: {e}") from None
    frames = {n: _read_table(out / "tables" / f"{n}.parquet") for n in FRAMES}
    all_points = points(scenario)
    if [p.name for p in all_points] != raw["points"]:
        raise DataError(f"{path}: its design draws other points with the scipy that is installed; sweep again")
    figures = all_points[figures_of(all_points)].name
    return SweepData(
        scenario=scenario, points=all_points, reference=all_points[0].name, figures=figures, raced=raced, **frames
    )

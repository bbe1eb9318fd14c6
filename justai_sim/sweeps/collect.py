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
from justai_sim.sweeps.data import SweepData, figures_of
from justai_sim.sweeps.parts import Tables
from justai_sim.version import __version__

FRAMES = ("metrics", "race", "age", "windows", "shares")


def collect(scenario: Scenario, all_points: list[Point], parts: list[list[Tables]]) -> SweepData:
    """Long frames from the parts, ordered by point and replication whatever order they came in."""
    templates = np.array([s.id for s in by_code(scenario)], dtype=object)
    variants = sorted({v.id for s in scenario.touches for v in scenario.variants_of(s)}, key=str.encode)
    names = np.array(variants, dtype=object)

    def frame(table: str, which: list[int]) -> pd.DataFrame:
        pieces = []
        for i in which:
            for part in parts[i]:
                columns = dict(part[table])
                metric_names = columns.pop("names", None)
                piece = pd.DataFrame(columns)
                if metric_names is not None:
                    piece["metric"] = metric_names[piece["metric"]]
                head = (
                    {"point": all_points[i].name, **all_points[i].labels}
                    if table in ("metrics", "race", "shares")
                    else {}
                )
                for k, (name, value) in enumerate(head.items()):
                    piece.insert(k, name, value)
                pieces.append(piece)
        # Blocks may be cut anywhere: within a point, rows go by replication.
        out = pd.concat(pieces, ignore_index=True)
        order = out["point"].map({p.name: i for i, p in enumerate(all_points)}) if "point" in out else 0
        keys = ["_point", "rep"] if "rep" in out else ["_point"]
        out = out.assign(_point=order).sort_values(keys, kind="stable", ignore_index=True)
        out = out.drop(columns="_point")
        if "template" in out:
            out["template"] = templates[out["template"]]
        if "variant" in out:
            out["variant"] = names[out["variant"]]
        renamed = {"template": "template_id", "variant": "variant_id"}
        if table in ("age", "windows"):
            renamed["rep"] = "group"
        return out.rename(columns=renamed)

    every = list(range(len(all_points)))
    figures = figures_of(all_points)
    return SweepData(
        scenario=scenario,
        points=all_points,
        reference=all_points[0].name,
        figures=all_points[figures].name,
        metrics=frame("metrics", every),
        race=frame("race", every),
        age=frame("age", [figures]),
        windows=frame("windows", [figures]),
        shares=mean_shares(frame("shares", every)),
    )


def mean_shares(sums: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over worlds, from the sums of the blocks."""
    numbers = ["share", "share_squared", "worlds"]
    keys = [c for c in sums.columns if c not in numbers]
    out = sums.groupby(keys, sort=False, as_index=False)[numbers].sum()
    mean = out["share"] / out["worlds"]
    spread = np.sqrt(np.maximum(out["share_squared"] / out["worlds"] - mean**2, 0))
    return out.assign(share=mean, spread=spread)[[*keys, "share", "spread", "worlds"]]


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
        "scenario": msgspec.to_builtins(data.scenario),
    }
    (out / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def read_tables(out: Path) -> SweepData:
    """A finished sweep from its folder."""
    path = out / "manifest.json"
    try:
        raw = msgspec.json.decode(path.read_bytes())
        scenario = msgspec.convert(raw["scenario"], Scenario)
        frames = {n: pd.read_parquet(out / "tables" / f"{n}.parquet") for n in FRAMES}
    except (OSError, KeyError, msgspec.DecodeError, msgspec.ValidationError) as e:
        raise DataError(f"{out}: is not the folder of a finished sweep: {e}") from None
    all_points = points(scenario)
    figures = all_points[figures_of(all_points)].name
    return SweepData(scenario=scenario, points=all_points, reference=all_points[0].name, figures=figures, **frames)

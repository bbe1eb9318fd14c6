"""What a page is made of, as a folder of long tables: to disk and back."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pandas as pd

from justai_sim.errors import DataError

FOLDER, FACTS = "tables", "page.json"
T = TypeVar("T")


def write(data: Any, out: Path) -> None:
    """A dataclass into `out`/tables: each frame as Parquet, named by its place in it, all else into page.json."""
    folder = out / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # a table of an earlier run must not be taken for one of this
    folder.mkdir(parents=True)
    facts = _put(data, "", folder)
    (folder / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def read(kind: type[T], out: Path) -> T:
    """The same dataclass from its folder. DataError for what is none, or has been changed."""
    folder = out / FOLDER

    def frame(wanted: type, name: Any) -> Any:
        if wanted is not pd.DataFrame:
            raise TypeError(f"no table holds a {wanted.__name__}")
        return pd.read_parquet(folder / f"{name}.parquet")

    try:
        return msgspec.convert(json.loads((folder / FACTS).read_bytes()), kind, dec_hook=frame)
    except (OSError, ValueError, TypeError) as e:  # what msgspec and Arrow raise are ValueErrors
        raise DataError(f"{folder}: are not the tables of a report as this version writes them: {e}") from None


def _put(value: Any, name: str, folder: Path) -> Any:
    """Plain values for JSON; in the place of a frame the name of its file."""
    if isinstance(value, pd.DataFrame):
        value.to_parquet(folder / f"{name}.parquet", index=False)
        return name
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return {k: _put(v, f"{name}.{k}".lstrip("."), folder) for k, v in parts.items()}
    if isinstance(value, (list, tuple)):
        return [_put(v, f"{name}.{i}", folder) for i, v in enumerate(value)]
    return msgspec.to_builtins(value, enc_hook=lambda x: x.item())  # a number of numpy

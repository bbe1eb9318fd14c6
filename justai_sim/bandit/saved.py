"""A policy's state as bytes and back: arrays in npz, the rest in JSON, with a version; nothing is executed."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import msgspec
import numpy as np

from justai_sim.bandit.policy import PolicySpec, State
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import Shape
from justai_sim.errors import DataError

VERSION = 1
HEADER = "header"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    spec: PolicySpec
    size: tuple[int, int, int]
    variants: list[str]
    metric: str
    cohorts: int


def save(state: State) -> bytes:
    """The state as an npz file."""
    s = state.shape
    head = Header(version=VERSION, spec=state.spec, size=state.size, variants=list(s.variants), metric=s.metric,
                  cohorts=state.cohorts)  # fmt: skip
    arrays: dict[str, Any] = {f"array_{k}": a for k, a in state.arrays.items()}
    arrays[HEADER] = np.frombuffer(msgspec.json.encode(head), np.uint8)
    if s.features is not None:
        arrays["features"] = s.features
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def load(data: bytes) -> State:
    """The state that `save` wrote. DataError for anything else, and for another version."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {k: found[k] for k in found.files}
        head = msgspec.json.decode(arrays.pop(HEADER).tobytes(), type=Header)
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile, msgspec.MsgspecError) as e:
        raise DataError(f"not the saved state of a policy ({e})") from e
    if head.version != VERSION:
        raise DataError(f"a state of version {head.version}; expected {VERSION}")
    shape = Shape(*head.size, tuple(head.variants), head.metric, arrays.pop("features", None))
    fresh = policy(head.spec.name).init(head.spec, shape)
    kept = {k.removeprefix("array_"): a for k, a in arrays.items()}
    for k, a in fresh.arrays.items():
        if k not in kept or kept[k].shape != a.shape or kept[k].dtype != a.dtype:
            raise DataError(f"the saved state's {k!r} does not fit the policy {head.spec.name!r} of size {head.size}")
    return State(head.spec, shape, {k: kept[k] for k in fresh.arrays}, head.cohorts)

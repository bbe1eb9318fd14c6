"""Randomness: every draw of the world is a pure function of what it is for.

`uniform(seed, purpose, rep, user, place, k)` hashes its arguments, so a draw does not depend on order,
batches, workers, the variant chosen or the policy: all of them face the same worlds.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1


def key(seed: int, purpose: str) -> int:
    """The 64-bit key of a seed and a named purpose."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniform(
    seed: int,
    purpose: str,
    rep: npt.NDArray[np.integer],
    user: npt.NDArray[np.integer],
    place: npt.NDArray[np.integer] | int = 0,
    k: int = 0,
) -> npt.NDArray[np.float64]:
    """Uniforms in the open interval (0, 1), shape (n,): one for each (rep, user, place, k), all >= 0."""
    from justai_sim import streams_kernel

    rep = np.asarray(rep, np.int64)
    place = np.broadcast_to(np.asarray(place, np.int64), rep.shape)
    return streams_kernel.uniforms(
        np.uint64(key(seed, purpose)), rep, np.asarray(user, np.int64), np.ascontiguousarray(place), k
    )


def uniform_one(seed: int, purpose: str, rep: int, user: int, place: int = 0, k: int = 0) -> float:
    """The same number by plain integers: the twin that the tests and the slow simulator use."""
    h = key(seed, purpose)
    for x in (rep, user, place, k):
        h = ((h ^ x) + 0x9E3779B97F4A7C15) & _MASK
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
        h ^= h >> 31
    return ((h >> 11) + 0.5) / 9007199254740992.0


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A named numpy stream, for draws that are not per row (bootstrap multipliers)."""
    return np.random.Generator(np.random.PCG64(key(seed, purpose)))

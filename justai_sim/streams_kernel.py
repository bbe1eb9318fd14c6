"""Compiled side of `streams`; imported only where draws are made."""

from __future__ import annotations

import numpy as np
from numba import njit

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xBF58476D1CE4E5B9)
_C = np.uint64(0x94D049BB133111EB)


@njit(cache=True, nogil=True)
def _mix(h, x):
    """One absorption of the SplitMix64 finaliser (Steele, Lea & Flood 2014)."""
    h = (h ^ x) + _A
    h = (h ^ (h >> np.uint64(30))) * _B
    h = (h ^ (h >> np.uint64(27))) * _C
    return h ^ (h >> np.uint64(31))


@njit(cache=True, nogil=True)
def uniforms(key, rep, user, place, k):
    """Uniforms in (0, 1), shape (n,), from a key and three integer columns."""
    n = len(rep)
    out = np.empty(n, np.float64)
    for i in range(n):
        h = _mix(key, np.uint64(rep[i]))
        h = _mix(h, np.uint64(user[i]))
        h = _mix(h, np.uint64(place[i]))
        h = _mix(h, np.uint64(k))
        out[i] = (np.float64(h >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)
    return out

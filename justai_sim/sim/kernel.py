"""Compiled side of the engine; imported only where it runs."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def turns(who, seen):
    """For each row (n,) how many earlier rows have the same value; `seen` (largest value + 1,) holds zeros before and
    after."""
    out = np.empty(len(who), np.int64)
    for i in range(len(who)):
        out[i] = seen[who[i]]
        seen[who[i]] += 1
    for i in range(len(who)):
        seen[who[i]] = 0
    return out

"""Sets of codes as tables: codes are dense, and a table is much faster than a sort or a hash."""

from __future__ import annotations

import numpy as np

from justai_sim.tables import B1, I8

SPARSE = 8
"""Entries a code from which on sorting needs less memory than a table."""


def flags(codes: I8, size: int) -> B1:
    """Which of 0..size-1 occur; missing codes are left out.

    >>> flags(np.array([2, -1, 2]), 4).tolist()
    [False, False, True, False]
    """
    out = np.zeros(size + 1, bool)  # the last place takes what is missing
    out[codes] = True
    return out[:size]


def ranked(codes: I8) -> tuple[I8, I8]:
    """The codes that occur (all >= 0), ascending, and the place of each row's among them.

    >>> [a.tolist() for a in ranked(np.array([7, 3, 7]))]
    [[3, 7], [1, 0, 1]]
    """
    size = int(codes.max(initial=-1)) + 1
    if size > SPARSE * len(codes) + 65_536:
        found, at = np.unique(codes, return_inverse=True)
        return found, at.ravel()
    there = flags(codes, size)
    return np.flatnonzero(there), (np.cumsum(there) - 1)[codes]


def repeated(key: I8, value: I8) -> tuple[int, int]:
    """How many keys (those >= 0) occur on several rows, and how many of them with several values.

    >>> repeated(np.array([5, 5, 6, 6, 7]), np.array([1, 1, 1, 2, 1]))
    (2, 1)
    """
    order = np.argsort(key, kind="stable")
    key, value = key[order], value[order]
    same = (key[1:] == key[:-1]) & (key[1:] >= 0)
    other = same & (value[1:] != value[:-1])
    return _runs(key[1:][same]), _runs(key[1:][other])


def _runs(ordered: I8) -> int:
    """Distinct values of a sorted array."""
    return int(len(ordered) > 0) + int((ordered[1:] != ordered[:-1]).sum())

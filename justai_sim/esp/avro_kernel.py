"""The compiled part of `avro_columns`: the values of flat records, a column at a time.

Imported only where it runs, so that `--help` never pays for the compiler.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NULL, BOOLEAN, LONG, FLOAT, DOUBLE, TEXT, ARRAY = range(7)
WRONG = -1
"""Where a value would end that is none, or that runs over the end of its block."""


@njit(cache=True, nogil=True)
def _long(data, at, end):
    """(value, where it ends) of a zigzag number of up to 64 bits."""
    value, shift = np.uint64(0), 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        if shift == 63 and byte > 1:
            break
        value |= np.uint64(byte & 0x7F) << np.uint64(shift)
        if byte < 0x80:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += 7
    return 0, WRONG


@njit(cache=True, nogil=True)
def _bits(data, at, size):
    """The bits of a little-endian number."""
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return np.int64(value)


@njit(cache=True, nogil=True)
def _value(data, at, end, kind):
    """(value, length, where it ends): of a text its start and length, of a float its bits."""
    if kind == LONG:
        value, at = _long(data, at, end)
        return value, 0, at
    if kind == TEXT:
        length, at = _long(data, at, end)
        if at == WRONG or length < 0 or length > end - at:
            return 0, 0, WRONG
        return at, length, at + length
    size = 8 if kind == DOUBLE else 4 if kind == FLOAT else 1 if kind == BOOLEAN else 0
    if size > end - at:
        return 0, 0, WRONG
    value = _bits(data, at, size)
    if kind == BOOLEAN and value > 1:
        return 0, 0, WRONG
    return value, 0, at + size


@njit(cache=True, nogil=True)
def _branch(data, at, end, null):
    """(whether a value follows, where it begins) of a field whose null is branch 0 or 1, or that has none (-1)."""
    if null < 0:
        return True, at
    branch, at = _long(data, at, end)
    if at != WRONG and branch != 0 and branch != 1:
        return False, WRONG
    return branch != null, at


@njit(cache=True, nogil=True)
def _items(data, at, end, kind, null):
    """(how many, 0, where it ends) of an array."""
    found = 0
    while True:
        count, at = _long(data, at, end)
        if at == WRONG or count == 0:
            return found, 0, at
        if count < 0:  # a block that tells its size as well
            count = -count
            _, at = _long(data, at, end)
            if at == WRONG:
                return 0, 0, WRONG
        if count < 0 or count > end - at:
            return 0, 0, WRONG
        found += count
        for _ in range(count):
            filled, at = _branch(data, at, end, null)
            if filled and at != WRONG:
                _, _, at = _value(data, at, end, kind)
            if at == WRONG:
                return 0, 0, WRONG


@njit(cache=True, nogil=True)
def columns(data, ends, counts, fields, values, lengths):
    """Fill `values` and `lengths`, shape (columns, records); False unless all blocks are whole and used up.

    `data` holds blocks that end at `ends` and have `counts` records each. `fields`, shape (fields, 5), are the
    kind, the branch of null, the column (-1: passed over), and of an array the items' kind and branch of null.
    The length of a null is -1.
    """
    row = at = 0
    for block in range(len(ends)):
        end = ends[block]
        for _ in range(counts[block]):
            for f in range(len(fields)):
                kind, null, column = fields[f, 0], fields[f, 1], fields[f, 2]
                value, length = 0, -1
                filled, at = _branch(data, at, end, null)
                if at == WRONG:
                    return False
                if filled:
                    if kind == ARRAY:
                        value, length, at = _items(data, at, end, fields[f, 3], fields[f, 4])
                    else:
                        value, length, at = _value(data, at, end, kind)
                    if at == WRONG:
                        return False
                if column >= 0:
                    values[column, row] = value
                    lengths[column, row] = length
            row += 1
        if at != end:
            return False
    return True


@njit(cache=True, nogil=True)
def gather(data, starts, offsets, out):
    """The texts at `starts` one behind the other; text i fills `out` from offsets[i] to offsets[i + 1]."""
    for i in range(len(starts)):
        at, start = offsets[i], starts[i]
        for k in range(offsets[i + 1] - at):
            out[at + k] = data[start + k]

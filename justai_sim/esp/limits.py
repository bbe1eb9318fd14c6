"""How much of a file or a webhook body is held at once: what lies beyond is refused with a typed reason.

The bounds are far above what the providers write, and what they refuse costs no neighbour. A file that is
packed may unpack to `may_unpack` bytes: sizes that a file claims are never believed.
"""

from __future__ import annotations

MIB = 1 << 20

LINE = 8 * MIB
"""Bytes of a line of CSV, of a CSV record over several lines, and of one event in JSON."""
DOCUMENT = 64 * MIB
"""Bytes of a JSON document: a line, or a whole file that is one document. Above `LINE` it is cut into its events."""
ELEMENTS = 200_000
"""Events of one JSON document or webhook body."""
INHERITED = 64 << 10
"""Bytes of the fields that the events of one JSON document share (Segment's `context`)."""
HELD = 16 * MIB
"""Bytes of rows in work, and of raw bytes in rejects, after which a batch is handed out."""
COLUMNS = 2_000
"""Columns of a table."""
TEXT = 4_096
"""Characters of an id or a name."""
KINDS = 1_000
"""Different names that are counted apart; the others are counted together."""
REREAD = 1_000_000
"""Lines that may be read again after stray quotes in CSV, besides four times those of the file so far."""

RATIO = 250
"""How many times its own size a file may unpack to (a repetitive UTF-16 table packs to a fiftieth)."""
FLOOR = 64 * MIB
"""Bytes that any file may unpack to."""

AVRO_HEADER = 4 * MIB
"""Bytes of the header of an Avro file."""
AVRO_BLOCK = 64 * MIB
"""Bytes of an unpacked block of Avro; less where the schema lets each byte become many values."""
AVRO_VALUES = 256 * MIB
"""Bytes that the values of one record of Avro may take, by its schema and the size of its block."""
AVRO_NODES = 10_000
"""Values in one record of Avro, by its schema."""

PARQUET_PAGE = 64 * MIB
"""Bytes of an unpacked page of Parquet, and of the texts of one batch of rows."""
PARQUET_ROWS = 100
"""Rows by the byte of a Parquet file (counted as 10 kB at least): equal rows take next to nothing."""


def may_unpack(size: int) -> int:
    """Bytes that a packed file of `size` bytes may unpack to.

    >>> may_unpack(0) == FLOOR, may_unpack(1 << 30) // (1 << 30)
    (True, 250)
    """
    return RATIO * size + FLOOR

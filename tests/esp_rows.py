"""What the provider tests share: rows to coded tables with `TextCodes`, and any JSON at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from justai_sim.clock import MISSING
from justai_sim.esp.base import Adapter
from justai_sim.esp.coding import COLUMNS, ROWS, listed
from justai_sim.esp.rows import Rows
from justai_sim.tables import CODE_SPACES, TABLES, Log, TextCodes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def text_log(rows: Rows) -> Log:
    """Rows as a coded log, the obvious way."""
    texts: dict[str, list[str]] = {space: [] for space in CODE_SPACES}
    columns = {n: {c: [getattr(r, c) for r in getattr(rows, n)] for c in ROWS[n]._fields} for n in ROWS}
    for n in ROWS:
        for c, values in columns[n].items():
            if COLUMNS[n][c].codes:
                texts[COLUMNS[n][c].codes] += values
    codes = {space: TextCodes.of(t) for space, t in texts.items()}
    tables: dict[str, Any] = {}
    for n in ROWS:
        made: dict[str, Any] = {}
        for public, values in columns[n].items():
            c = COLUMNS[n][public]
            named = isinstance(c.text, tuple)
            made[c.name] = codes[c.codes].codes(values) if c.codes else values
            made[c.name] = [c.text.index(v) for v in values] if named else made[c.name]
        tables[n] = TABLES[n].build(len(getattr(rows, n)), **made)
    return Log(**tables, codes=codes)


def carried(adapter: Adapter, rows: Rows) -> Rows:
    """The rows after render and parse; every body must come back whole."""
    out, last = Rows(), (0, 0)
    for i, (received, body) in enumerate(adapter.render(text_log(rows))):
        before = len(out.sends), len(out)
        adapter.parse(body, out, f"body {i}", received)
        assert len(out) == before[1] + 1, (body, out.rejects, out.skipped)
        now = received, int(len(out.sends) == before[0])
        assert last <= now, "bodies come in the order of receipt, sends first"
        last = now
    assert not out.rejects
    assert not out.skipped
    return out


def in_order(rows: Rows) -> Rows:
    """The rows in the order of receipt, with a missing receipt filled in as `render` does."""
    sends = [r._replace(received_at=r.sent_at) if r.received_at == MISSING else r for r in rows.sends]
    events = [r._replace(received_at=r.occurred_at) if r.received_at == MISSING else r for r in rows.events]
    return Rows(sorted(sends, key=lambda r: r.received_at), sorted(events, key=lambda r: r.received_at))


def parsed(adapter: Adapter, body: bytes, received_at: int = MISSING) -> Rows:
    rows = Rows()
    adapter.parse(body, rows, "body 1", received_at)
    return rows


def read_all(adapter: Adapter, path: Path, timezone: str | None = None) -> Rows:
    """All batches of a read as one."""
    out = Rows()
    for batch in map(listed, adapter.read(path, timezone)):
        for name in ("sends", "events", "decisions", "rejects"):
            getattr(out, name).extend(getattr(batch, name))
        out.skipped.update(batch.skipped)
        out.notes.update(batch.notes)
    return out

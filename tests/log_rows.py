"""Hypothesis strategies for text rows of every column, shared by the tests of logs, adapters and frames."""

from __future__ import annotations

from hypothesis import strategies as st

from justai_sim import clock
from justai_sim.clock import MISSING
from justai_sim.esp.rows import DecisionRow, EventRow, Rows, SendRow
from justai_sim.tables import KINDS, MODES, STATUSES

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
maybe = st.one_of(st.just(""), texts)
times = st.integers(0, clock.LATEST - 1)
maybe_times = st.one_of(st.just(MISSING), times)
chances = st.one_of(st.just(float("nan")), st.floats(0, 1))
money = st.one_of(st.just(MISSING), st.integers(-(1 << 61), 1 << 61))
send_rows = st.builds(
    SendRow,
    texts,
    texts,
    texts,
    texts,
    times,
    maybe_times,
    st.sampled_from(STATUSES),
    maybe_times,
    times,
    maybe_times,
    chances,
    maybe,
)
event_rows = st.builds(
    EventRow,
    texts,
    texts,
    st.sampled_from(KINDS),
    times,
    maybe,
    times,
    money,
    maybe,
    maybe,
    maybe,
    maybe,
    maybe,
    st.integers(-1, 1),
)
decision_rows = st.builds(DecisionRow, texts, texts, texts, texts, times, chances, st.sampled_from(MODES), maybe)
all_rows = st.builds(
    Rows, st.lists(send_rows, max_size=5), st.lists(event_rows, max_size=5), st.lists(decision_rows, max_size=5)
)


def same(a: Rows, b: Rows) -> bool:
    """Equal as multisets; repr, because NaN is not itself."""
    return all(
        sorted(map(repr, getattr(a, t))) == sorted(map(repr, getattr(b, t))) for t in ("sends", "events", "decisions")
    )

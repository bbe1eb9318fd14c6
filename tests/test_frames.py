"""Tables to DataFrames and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given

from justai_sim import clock
from justai_sim.clock import MISSING
from justai_sim.errors import DataError, UsageError
from justai_sim.esp.coding import ROWS, build, rows_of
from justai_sim.esp.rows import EventRow, Rows, SendRow
from justai_sim.frames import from_frames, to_frame
from justai_sim.tables import KINDS
from tests.log_rows import all_rows, same

T0 = clock.parse("2026-01-05T00:00:00Z")
NOON = datetime(2026, 1, 5, tzinfo=UTC)


def sends(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {"send_id": ["s1"], "user_id": ["u1"], "template_id": ["t"], "variant_id": ["v"], "sent_at": [NOON]} | columns
    )


def events(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {"event_id": ["e1", None], "user_id": ["u1", "u2"], "kind": ["open", "conversion"], "occurred_at": [NOON] * 2}
        | columns
    )


@given(all_rows)
def test_round_trip(rows: Rows) -> None:
    # Float units are exact below 2^33: one micro-unit is then more than the gap between floats.
    small = [e if e.value == MISSING else e._replace(value=e.value % (1 << 52) - (1 << 51)) for e in rows.events]
    log = build([Rows(rows.sends, small, rows.decisions)])
    back = from_frames(*(to_frame(log, name) for name in ("sends", "events", "decisions")))
    assert same(rows_of(back), rows_of(log))


def test_types_of_a_frame() -> None:
    rows = Rows(
        sends=[SendRow("s", "u", "t", "v", T0)],
        events=[
            EventRow("e", "", "open", T0, send_id="s", value=19_990_000, machine=1),
            EventRow("f", "u", "spam", T0),
        ],
    )
    frame = to_frame(build([rows]), "events")
    assert tuple(frame.columns) == ROWS["events"]._fields
    assert frame["value"].tolist()[0] == 19.99
    assert np.isnan(frame["value"][1])
    assert str(frame["occurred_at"].dtype) == "datetime64[us, UTC]"
    assert frame["occurred_at"][0] == pd.Timestamp("2026-01-05T00:00:00Z")
    assert list(frame["kind"].cat.categories) == list(KINDS)
    assert frame["kind"].tolist() == ["open", "spam"]
    assert frame["machine"][0] is np.True_ or frame["machine"][0]
    assert frame["user_id"].isna().tolist() == [True, False]
    assert frame["machine"].isna().tolist() == [False, True]
    sent = to_frame(build([rows]), "sends")
    assert sent["delivered_at"].isna().all()
    assert sent["status"].tolist() == ["sent"]
    with pytest.raises(UsageError, match="did you mean 'events'"):
        to_frame(build([rows]), "event")


def test_several_replications_are_shown() -> None:
    log = build([Rows(sends=[SendRow("s", "u", "t", "v", T0)])])
    many = log.sends.with_(rep=np.array([2], np.int32))
    assert to_frame(type(log)(many, log.events, log.decisions, log.codes), "sends")["rep"].tolist() == [2]


@pytest.mark.parametrize(
    "times",
    [
        [NOON, NOON + timedelta(hours=1)],
        ["2026-01-05T00:00:00Z", "2026-01-05 02:00:00+01:00"],
        [T0, T0 + clock.HOUR],
        pd.to_datetime(["2026-01-05T00:00:00Z", "2026-01-05T01:00:00Z"]).as_unit("ns"),
        pd.to_datetime(["2026-01-05 01:00", "2026-01-05 02:00"]).tz_localize("Europe/Berlin"),
        [NOON, "2026-01-05T01:00:00Z"],
    ],
)
def test_times_of_every_type(times: Any) -> None:
    log = from_frames(sends(), events(occurred_at=times))
    assert log.events.occurred_at.tolist() == [T0, T0 + clock.HOUR]


def test_naive_times_need_a_zone() -> None:
    naive = events(occurred_at=[datetime(2026, 1, 5)] * 2)
    with pytest.raises(DataError, match=r"events: occurred_at is a timestamp.*timezone="):
        from_frames(sends(), naive)
    assert from_frames(sends(), naive, timezone="Europe/Berlin").events.occurred_at[0] == T0 - clock.HOUR
    text = events(occurred_at=["2026-01-05", "2026-01-05T00:00:00Z"])
    with pytest.warns(UserWarning, match=r"1 row refused; the first is events:0: .*timezone="):
        log = from_frames(sends(), text)
    assert (len(log.events), log.rejects) == (1, {"naive_time": 1})


@pytest.mark.parametrize("table", [pl.from_pandas, lambda f: pa.Table.from_pandas(f).cast(
    pa.schema([(n, pa.string_view()) for n in f.columns]))])  # fmt: skip
def test_texts_and_times_as_polars_keeps_them(table: Any) -> None:
    """Arrow cannot take rows of its string views."""
    rows = [sends(sent_at=["2026-01-05T00:00:00Z"]), events(occurred_at=["2026-01-05T01:00:00Z"] * 2)]
    want = rows_of(from_frames(*rows))
    assert same(rows_of(from_frames(*map(table, rows))), want)
    assert same(rows_of(from_frames(*(pa.table(table(f)) for f in rows))), want)


def test_missing_columns_and_nothing_readable() -> None:
    with pytest.raises(DataError, match=r"'occurred_at' of events is missing.*'occured_at' meant"):
        from_frames(sends(), events().rename(columns={"occurred_at": "occured_at"}))
    with pytest.raises(DataError, match="there twice"):
        from_frames(pd.concat([sends(), sends()], axis=1), events())
    with pytest.raises(DataError, match="none of 1 row of sends could be read; sends:0: user_id"):
        from_frames(sends(user_id=[None]), events().iloc[:0])
    with pytest.raises(UsageError, match="found int, expected a DataFrame"):
        from_frames(sends(), 5)


def test_mixed_and_gappy_ids() -> None:
    log = from_frames(sends(user_id=[7]), events(user_id=[7, "u"], send_id=[12.0, np.nan], value=[None, 3]))
    assert log.text("user", log.events.user) == ["7", "u"]
    assert log.text("user", log.sends.user) == ["7"]
    assert log.text("send", log.events.send) == ["12", ""]
    assert log.events.value.tolist() == [MISSING, 3_000_000]
    assert log.text("event", log.events.event)[1].startswith("auto:")


def test_other_tables() -> None:
    expected = rows_of(from_frames(sends(), events()))
    arrow = [pa.Table.from_pandas(f, preserve_index=False) for f in (sends(), events())]
    assert same(rows_of(from_frames(*arrow)), expected)
    assert same(rows_of(from_frames(*(pl.from_arrow(t) for t in arrow))), expected)


def test_a_misspelt_optional_column_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="events: column 'recieved_at' is not read; is it 'received_at'"):
        from_frames(sends(), events(recieved_at=[NOON] * 2))

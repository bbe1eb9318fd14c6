"""A SQL attribution as a function of two frames, on DuckDB."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from justai_sim.errors import UsageError


def sql(
    query: str, *, sends: str = "sends", events: str = "events"
) -> Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]:
    """A function that runs `query` over the two frames, for `check_attribution`.

    The tables are called `sends` and `events` in the query. Ids, `kind` and `status` are VARCHAR, times TIMESTAMP in
    UTC, `value` DOUBLE, `machine` BOOLEAN. UsageError with the database's words if the query fails.

    >>> frame = pd.DataFrame({"send_id": ["S1"], "user_id": ["u1"]})
    >>> sql("SELECT count(*) AS n FROM mails", sends="mails")(frame, frame)["n"].tolist()
    [1]
    >>> sql("SELECT nothing FROM sends")(frame, frame)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    justai_sim.errors.UsageError: the query failed: Binder Error: Referenced column "nothing" not found...
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise UsageError("testing.sql needs duckdb; install it with: pip install 'justai-sim[testing]'") from None
    connection = duckdb.connect()

    def query_of(sends_frame: pd.DataFrame, events_frame: pd.DataFrame) -> pd.DataFrame:
        for name, frame in ((sends, sends_frame), (events, events_frame)):
            connection.register(name, _plain(frame))
        try:
            return connection.execute(query).df()
        except duckdb.Error as e:
            raise UsageError(f"the query failed: {e}") from None

    query_of.__name__ = "the query"
    return query_of


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories as texts, aware times as UTC without a zone."""
    changed = {}
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            changed[name] = column.astype("string")
        elif isinstance(column.dtype, pd.DatetimeTZDtype):
            changed[name] = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return frame.assign(**changed)

"""Zones: names and fixed offsets, one reading of them wherever a zone is asked for."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.cli import run
from justai_sim.errors import UsageError
from justai_sim.esp.customerio_export import _arrow_zone


@given(st.integers(-14 * 60, 14 * 60), st.sampled_from(["", "UTC", "GMT", "utc"]), st.booleans())
def test_offsets(minutes: int, prefix: str, colon: bool) -> None:
    hours, rest = divmod(abs(minutes), 60)
    text = f"{prefix}{'-' if minutes < 0 else '+'}{hours:02d}{':' if colon else ''}{rest:02d}"
    found = clock.zone(text)
    assert found.utcoffset(None) == timedelta(minutes=minutes)
    written = clock.parse("2026-01-05T12:00:00", text)
    assert written + minutes * clock.MINUTE == clock.parse("2026-01-05T12:00:00Z")
    day = clock.local_dates(np.array([written]), text)
    assert day[0] == clock.parse("2026-01-05T00:00:00Z") // clock.DAY
    assert clock.local_midnight(day, text)[0] == written - 12 * clock.HOUR
    naive = pa.array([clock.parse("2026-01-05T12:00:00Z")], pa.timestamp("us"))
    assert pa.compute.assume_timezone(naive, _arrow_zone(found)).cast(pa.int64())[0].as_py() == written


@pytest.mark.parametrize("name", ["UTC-15", "UTC-7:99", "Mars/Olympus", "UTC-", "+", "", "../../etc/passwd"])
def test_what_is_no_zone(name: str) -> None:
    with pytest.raises(UsageError, match="time zone"):
        clock.zone(name)


def test_every_command_takes_an_offset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "sends.csv").write_text(
        "send_id,user_id,template_id,variant_id,sent_at\ns1,u1,t,a,2026-01-05 09:00:00\ns2,u2,t,b,2026-01-05 09:00:00\n"
    )
    (log / "events.csv").write_text(
        "event_id,user_id,kind,occurred_at,name\ne1,u1,conversion,2026-01-09 09:00:00,buy\n"
    )
    for command in ("replay", "interpretations", "surface"):
        assert run([command, str(log), "--timezone", "UTC-7", "--since", "2026-01-05", "--json"]) == 0
        assert "2026-01-09T16:00:00Z" in capsys.readouterr().out
        assert run([command, str(log), "--timezone", "UTC-77"]) == 2
        assert "14 hours" in capsys.readouterr().err
    assert Rule(day_rule="calendar", tz="UTC-7").tz == "UTC-7"

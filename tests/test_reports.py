"""The committed example reports are those that the sources make."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "reports" / "examples"
_spec = importlib.util.spec_from_file_location("make_reports", ROOT / "reports" / "make.py")
assert _spec is not None
assert _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)
KEPT = json.loads((EXAMPLES / "manifest.json").read_text())


def test_they_are_not_stale() -> None:
    assert KEPT["fingerprint"] == make.fingerprint(), "a page or the numbers changed: run make reports"
    assert KEPT["files"] == make.files(EXAMPLES), "a report was changed by hand: run make reports"


def test_they_are_small_and_for_everybody() -> None:
    paths = [p for p in EXAMPLES.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in paths) < 3_000_000
    assert {p.suffix for p in paths} <= {".html", ".png", ".csv", ".json"}
    for page in make.REPORTS:
        text = (EXAMPLES / page / "index.html").read_text(encoding="utf-8")
        assert "SIMULATED" in text
        assert '.svg"' not in text
        assert f"examples/{page}/index.html" in (ROOT / "reports" / "README.md").read_text()


@pytest.mark.slow
def test_made_again_they_have_the_same_bytes(tmp_path: Path) -> None:
    make.make(tmp_path)
    assert make.files(tmp_path) == make.files(EXAMPLES)

"""Each provider has a page whose example runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from justai_sim.esp.base import PROVIDERS, adapter
from justai_sim.log import read_log

DOCS = Path(__file__).parents[1] / "docs" / "esp"
NAMES = sorted({p.partition("-")[0] for p in PROVIDERS} - {"generic"})


@pytest.mark.parametrize("esp", NAMES)
def test_a_provider_has_a_page_and_its_example_runs(esp: str, tmp_path: Path) -> None:
    page = (DOCS / f"{esp}.md").read_text(encoding="utf-8")
    for part in ("switch on", "variant id goes", "expect", "erify"):
        assert part in page
    script = "\n".join(re.findall(r"```(?:sh|bash)\n(.*?)```", page, re.S))
    assert f"--esp {esp}" in script
    tool = Path(sys.executable).with_name("justai-sim")
    script = re.sub(r"^justai-sim", str(tool), script, flags=re.M)
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = next(p for p in tmp_path.iterdir() if p.name.startswith("log"))
    log = read_log(folder)
    assert len(log.sends) >= 1
    assert len(log.events) >= 1


@pytest.mark.parametrize("name", ["braze", "customerio", "iterable", "segment", "sfmc"])
def test_the_page_says_what_the_formats_cannot_carry(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    part = page.split("## What its formats cannot carry")[1].split("## ")[0]
    assert [line[2:] for line in part.splitlines() if line.startswith("- ")] == list(adapter(name).cannot_carry)
    part = page.split("## Writing an export")[1].split("## ")[0]
    assert f"--export-as {name}" in part
    assert [line[2:] for line in part.splitlines() if line.startswith("- ")] == list(adapter(name).export_cannot_carry)

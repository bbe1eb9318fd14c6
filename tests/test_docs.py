"""Docs that cannot rot: the README's commands, code, tables and links; the notebooks run and match their twins."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import justai_sim as js
from justai_sim.attribution import Rule
from justai_sim.bandit.policy import COMMON
from justai_sim.bandit.registry import POLICIES
from justai_sim.cli import run
from justai_sim.tables import REASONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def commands() -> list[list[str]]:
    pages = README + "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("load", "sweeps"))
    found = re.findall(r"`(justai-sim [^`]+)`", pages) + re.findall(r"^(justai-sim .+)$", pages, re.M)
    return [shlex.split(c)[1:] for c in found]


@pytest.mark.parametrize("argv", commands(), ids=" ".join)
def test_the_readmes_commands_are_understood(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each is parsed with all its options; the option --help keeps it from running."""
    assert run([*argv, "--help"]) == 0
    options = {a for a in argv if a.startswith("--")}
    text = capsys.readouterr().out
    assert all(o in text for o in options), (options, text)


def test_the_readmes_notebook_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    lines = [line for line in code.group(1).splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code.group(1), names)
    assert (tmp_path / "reports" / "log" / "index.html").exists()


def test_the_readme_names_every_reason_and_option() -> None:
    for reason in REASONS:
        assert reason in README
    for option in ("credit", "bounds", "lookback_from", "day_rule", "anchor", "scope", "explicit", "repeat", "machine"):
        default = getattr(Rule(), option)
        row = next(line for line in README.splitlines() if line.startswith(f"| `{option}`"))
        assert f"`{default}`" in row


def test_the_page_of_policies_is_the_registry() -> None:
    page = (ROOT / "docs" / "bandits.md").read_text()
    for name, p in POLICIES.items():
        settings = [*p.settings, *(["top_two"] if p.chances else [])]
        cell = ", ".join(f"`{s}`" for s in settings) or "-"
        assert f"| `{name}` | {p.shelf} | {p.said} | {cell} |" in page
    for name in COMMON[1:]:
        assert f"`{name}`" in page


def test_links_point_at_files() -> None:
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (ROOT / target).exists(), f"{page.name}: {target}"


def test_the_public_names_have_docs() -> None:
    for name in js.__all__:
        if not name.startswith("_"):
            assert getattr(js, name).__doc__, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run_and_match_their_text(path: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    jupytext = pytest.importorskip("jupytext")
    text = jupytext.read(path)
    paired = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert [c.source for c in paired.cells] == [c.source for c in text.cells], f"run make notebooks: {path.name}"
    assert all(not c.get("outputs") for c in paired.cells), "outputs are stripped"
    assert all(len(c.source.splitlines()) <= 15 for c in text.cells if c.cell_type == "code")
    # In a process of its own: a kernel brings warnings and sockets that are not ours.
    (tmp_path / "notebooks").mkdir()
    script = (
        "import sys, nbformat, nbclient\n"
        "nb = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(nb, timeout=300, resources={'metadata': {'path': sys.argv[2]}}).execute()\n"
        "kinds = [o.output_type for c in nb.cells if c.cell_type == 'code' for o in c.outputs]\n"
        "assert kinds and 'error' not in kinds, kinds\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path.with_suffix(".ipynb")), str(tmp_path / "notebooks")],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

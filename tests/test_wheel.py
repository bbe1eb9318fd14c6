"""The built wheel works without a clone: everything that it reads is inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True,
                   capture_output=True)  # fmt: skip
    [path] = out.glob("*.whl")
    return path


def test_it_holds_the_scenarios_and_the_pages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as z:
        inside = set(z.namelist())
    package = ROOT / "justai_sim"
    wanted = {f"justai_sim/scenarios/{p.name}" for p in (ROOT / "scenarios").glob("*.toml")}
    wanted |= {p.relative_to(ROOT).as_posix() for p in package.rglob("*") if p.suffix in (".py", ".j2", ".typed")}
    assert len(wanted) > 200
    assert wanted <= inside, wanted - inside
    assert not any(name.startswith(("tests/", "reports/", "notebooks/")) for name in inside)


@pytest.mark.slow
def test_it_works_without_a_clone(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own; the dependencies are those of this one, the package is not."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    [site] = (home / "lib").glob("python*/site-packages")
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
                    "--disable-pip-version-check", str(wheel)], check=True)  # fmt: skip
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    work.mkdir()
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*argv: str) -> str:
        done = subprocess.run([str(home / "bin" / "justai-sim"), *argv], cwd=work, env=env, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = subprocess.run([str(python), "-c", "import justai_sim; print(justai_sim.__file__)"], cwd=work, env=env,
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(site)
    names = [s["name"] for s in json.loads(run("scenarios", "--json"))["scenarios"]]
    assert names == sorted(p.stem for p in (ROOT / "scenarios").glob("*.toml"))
    run("demo", "--replications", "4")
    assert "SIMULATED" in (work / "reports" / "welcome" / "index.html").read_text(encoding="utf-8")
    run("run", "fast_converter", "--replications", "1", "--out", "world", "--export-as", "customerio")
    run("load", "world/export", "--esp", "customerio", "--out", "log")
    run("replay", "log", "--goal", "purchase", "--out", "page")
    assert "SIMULATED" in (work / "page" / "index.html").read_text(encoding="utf-8")

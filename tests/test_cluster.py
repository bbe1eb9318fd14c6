"""A sweep on a Dask cluster: a real scheduler and two worker processes on this machine, one of them killed half-way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from justai_sim import executor
from justai_sim.cli import run
from justai_sim.errors import UsageError

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs distributed: pip install .[dask]")
ENV = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}


@contextmanager
def process(*argv: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as into:
        child = subprocess.Popen([sys.executable, "-m", "distributed.cli." + argv[0], *argv[1:]], env=ENV, stdout=into,
                                 stderr=subprocess.STDOUT)  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def waits(what: str, log: Path, seconds: float = 60) -> str:
    """The first match of a pattern in a log that is being written."""
    for _ in range(int(seconds * 20)):
        if m := re.search(what, log.read_text()):
            return m[0]
        time.sleep(0.05)
    raise AssertionError(f"no {what} in {log.read_text()}")


SWEEP = """
import sys
from pathlib import Path
import msgspec
from justai_sim import api
from justai_sim.scenario import read, with_settings
small = with_settings(read("welcome"), {"days": 8, "world.signups_per_day": 10, "replications": 600, "esp": "generic"})
small = msgspec.structs.replace(small, sweep={"program.rule.offset_days": [0, 3]})
api.run_sweep(small, Path(sys.argv[1]), **({"scheduler": sys.argv[2]} if len(sys.argv) > 2 else {"workers": 1}))
"""


@needs_dask
def test_a_sweep_survives_the_death_of_a_worker_with_the_same_bytes(tmp_path: Path) -> None:
    """24 units; as soon as two are done one of the two workers gets kill -9."""
    log = {n: tmp_path / f"{n}.log" for n in ("scheduler", "a", "b")}
    out, here = tmp_path / "cluster", tmp_path / "here"
    with ExitStack() as stack:
        stack.enter_context(process("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                                    log=log["scheduler"]))  # fmt: skip
        address = waits(r"tcp://127\.0\.0\.1:\d+", log["scheduler"])
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path))
        a, _ = [stack.enter_context(process("dask_worker", address, *options, log=log[n])) for n in ("a", "b")]
        for n in ("a", "b"):
            waits("Registered to", log[n])
        child = subprocess.Popen([sys.executable, "-c", SWEEP, str(out), address], env=ENV, stderr=subprocess.PIPE)
        while child.poll() is None and len(list((out / "parts").glob("*.npz"))) < 2:
            time.sleep(0.02)
        a.send_signal(signal.SIGKILL)
        done = len(list((out / "parts").glob("*.npz")))
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said.decode()
        assert 2 <= done < 24, "killed in the middle"
        assert "Remove worker" in waits("Remove worker", log["scheduler"])
    subprocess.run([sys.executable, "-c", SWEEP, str(here)], env=ENV, check=True)
    for name in ("tables", "parts"):
        for path in sorted((here / name).iterdir()):
            assert (out / name / path.name).read_bytes() == path.read_bytes(), path.name


@needs_dask
def test_no_scheduler_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "ANSWER_SECONDS", 1)
    with pytest.raises(UsageError, match="no Dask scheduler answers there"):
        executor.executor(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match="no Dask scheduler answers there"):
        executor.executor(scheduler="nonsense://x")


def test_without_dask_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(["sweep", "welcome", "--out", str(tmp_path), "--scheduler", "tcp://127.0.0.1:8786"]) == 2
    assert "pip install 'justai-sim[dask]'" in capsys.readouterr().err


def test_a_worker_of_another_version_is_refused() -> None:
    assert executor._checked(abs, -3, (executor.__version__, executor.NUMBERS)) == 3
    with pytest.raises(executor.WorkerError, match=r"has justai-sim .* this is 0\.0 \(0\)"):
        executor._checked(abs, -3, ("0.0", 0))


def test_workers_or_a_scheduler() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        executor.executor(workers=0)
    with pytest.raises(UsageError, match="leave out either"):
        executor.executor(workers=2, scheduler="tcp://127.0.0.1:8786")

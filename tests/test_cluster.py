"""Sweeps and replays on a Dask cluster: a real scheduler and worker processes on this machine, killed half-way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

import justai_sim as js
from justai_sim import executor, replays
from justai_sim.cli import run
from justai_sim.errors import UsageError
from justai_sim.scenario import packaged, read, with_settings

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs distributed: pip install .[dask]")
ENV = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}


@contextmanager
def process(*argv: str, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as into:
        child = subprocess.Popen([sys.executable, "-m", "distributed.cli." + argv[0], *argv[1:]], env=ENV | settings,
                                 stdout=into, stderr=subprocess.STDOUT)  # fmt: skip
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


class LocalCluster:
    """A real scheduler on this machine, and workers as they are asked for. All end with it."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: str) -> None:
        self.folder, self.stack, self.logs = folder, stack, count()
        self.log = folder / "scheduler.log"
        self.scheduler = stack.enter_context(
            process("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", log=self.log, **settings)
        )
        self.address = waits(r"tcp://127\.0\.0\.1:\d+", self.log)

    def workers(self, n: int = 1, *options: str) -> list[subprocess.Popen[bytes]]:
        logs = [self.folder / f"worker{next(self.logs)}.log" for _ in range(n)]
        argv = ("dask_worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory",
                str(self.folder), *options)  # fmt: skip
        found = [self.stack.enter_context(process(*argv, log=log)) for log in logs]
        for log in logs:
            waits("Registered to", log)
        return found


@needs_dask
def test_a_sweep_survives_the_death_of_a_worker_with_the_same_bytes(tmp_path: Path) -> None:
    """24 units; as soon as two are done one of the two workers gets kill -9."""
    out, here = tmp_path / "cluster", tmp_path / "here"
    with ExitStack() as stack:
        cluster = LocalCluster(tmp_path, stack)
        a, _ = cluster.workers(2)
        argv = [sys.executable, "-c", SWEEP, str(out), cluster.address]
        child = subprocess.Popen(argv, env=ENV, stderr=subprocess.PIPE)
        while child.poll() is None and len(list((out / "parts").glob("*.npz"))) < 2:
            time.sleep(0.02)
        a.send_signal(signal.SIGKILL)
        done = len(list((out / "parts").glob("*.npz")))
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said.decode()
        assert 2 <= done < 24, "killed in the middle"
        assert "Remove worker" in waits("Remove worker", cluster.log)
    subprocess.run([sys.executable, "-c", SWEEP, str(here)], env=ENV, check=True)
    for name in ("tables", "parts"):
        for path in sorted((here / name).iterdir()):
            assert (out / name / path.name).read_bytes() == path.read_bytes(), path.name


@needs_dask
def test_a_replay_on_a_cluster_and_a_worker_of_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files of the replay are those of one without a cluster, and workers of another version are told."""
    small = with_settings(read("welcome"), {"days": 20, "world.signups_per_day": 20, "esp": "generic"})
    world = js.simulate(small).log
    js.export(world, "generic", tmp_path / "log")
    old = tmp_path / "old.py"
    old.write_text("from justai_sim import executor\nexecutor.__version__ = '0.0.9'\n")
    with ExitStack() as stack:
        cluster = LocalCluster(tmp_path, stack)
        (worker,) = cluster.workers()
        for name, address in (("here", None), ("there", cluster.address)):
            replays.write_tables(replays.replay(world, goals=["purchase"], scheduler=address), tmp_path / name)
        argv = ["replay", str(tmp_path / "log"), "--goal", "purchase", "--json"]
        assert run([*argv, "--scheduler", cluster.address]) == 0
        there = capsys.readouterr().out
        assert run(argv) == 0
        assert capsys.readouterr().out == there
        worker.kill()
        waits("Remove worker", cluster.log)
        cluster.workers(1, "--preload", str(old))
        capsys.readouterr()
        argv = ["sweep", "welcome", "--replications", "1", "--out", str(tmp_path / "sweep")]
        assert run([*argv, "--scheduler", cluster.address]) == 1
        said = capsys.readouterr().err
    assert "a worker of the cluster has justai-sim 0.0.9" in said
    assert "no part was finished yet: the same command starts again" in said
    tables = [p.name for p in (tmp_path / "here").iterdir() if p.suffix in (".parquet", ".csv")]
    assert {"credits.parquet", "reasons.parquet", "metrics.csv"} <= set(tables)
    for name in tables:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name


@needs_dask
def test_what_is_told_while_a_cluster_falls_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that ends its worker, no worker to begin with, none any more, and no scheduler."""
    monkeypatch.setattr(executor, "WORKER_SECONDS", 1)
    monkeypatch.setattr(executor, "LOOK_SECONDS", 0.2)

    def lost(ends: Callable[[], None]) -> None:
        with executor.executor(scheduler=cluster.address) as on:
            for i, _ in on.map(time.sleep, [0, 600]):
                assert i == 0
                ends()

    with ExitStack() as stack:
        cluster = LocalCluster(tmp_path, stack, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
        cluster.workers()
        with (
            pytest.raises(executor.WorkerError, match=r"ended every worker that took it, 1 in all .*, the last at tcp"),
            executor.executor(scheduler=cluster.address) as on,
        ):
            list(on.map(os._exit, [1]))
        with pytest.raises(executor.WorkerError, match="no worker came in 1 s; start some: dask worker tcp://"):
            executor.executor(scheduler=cluster.address)
        # A scheduler that forgives, so that the loss of the worker is not the unit's fault.
        cluster = LocalCluster(tmp_path, stack)
        (worker,) = cluster.workers()
        with pytest.raises(executor.WorkerError, match="the cluster has had no worker for 1 s: all of them ended"):
            lost(worker.kill)
        cluster.workers()
        with pytest.raises(executor.WorkerError, match="the cluster cannot be reached any more"):
            lost(cluster.scheduler.kill)
        monkeypatch.setattr(executor, "ANSWER_SECONDS", 1)
        with pytest.raises(UsageError, match="no Dask scheduler answers there"):
            executor.executor(scheduler=cluster.address)


@pytest.mark.slow
@needs_dask
def test_a_sweep_whose_scheduler_ends_says_how_to_go_on(tmp_path: Path) -> None:
    """No traceback, of ours or of Dask, the parts are kept, and the same command goes on without the cluster."""
    scenario, out = tmp_path / "mine.toml", tmp_path / "out"
    text = (packaged() / "welcome.toml").read_text().replace("signups_per_day = 400", "signups_per_day = 20")
    scenario.write_text(text.replace("replications = 100", "replications = 40"))
    argv = [sys.executable, "-c", "from justai_sim.cli import main; main()", "sweep", str(scenario), "--out", str(out)]
    with ExitStack() as stack:
        cluster = LocalCluster(tmp_path, stack)
        cluster.workers()
        child = subprocess.Popen([*argv, "--scheduler", cluster.address], env=ENV, stderr=subprocess.PIPE, text=True)
        while child.poll() is None and not list((out / "parts").glob("*.npz")):
            time.sleep(0.02)
        cluster.scheduler.kill()
        _, said = child.communicate(timeout=120)
    assert child.returncode == 1, said
    assert "the cluster cannot be reached any more" in said
    assert "--resume" in said
    assert "Traceback" not in said
    done = {p: p.stat().st_mtime_ns for p in (out / "parts").glob("*.npz")}
    assert done
    subprocess.run([*argv, "--resume", "--workers", "1"], env=ENV, check=True, capture_output=True)
    assert {p: p.stat().st_mtime_ns for p in done} == done


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

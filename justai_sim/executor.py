"""Work in units on the cores of this machine, or on a Dask cluster: pure functions of what they are given."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from justai_sim.errors import JustaiError, UsageError
from justai_sim.version import NUMBERS, __version__

U = TypeVar("U")
R = TypeVar("R")

ANSWER_SECONDS = 15
"""How long a scheduler may take to answer."""
WORKER_SECONDS = 60
"""How long to wait for the first worker of a cluster, and for another once the last one is lost."""
LOOK_SECONDS = 2
"""How often to look whether a cluster has workers, while no unit is finished."""


class WorkerError(JustaiError):
    """Workers ended before their units did, or cannot be reached."""


class Executor:
    """Runs units one after the other in this process; the others do the same elsewhere."""

    def map(self, function: Callable[[U], R], units: Sequence[U]) -> Iterator[tuple[int, R]]:
        """(index, result) of every unit as it is finished, in any order. WorkerError where workers are lost."""
        for i, unit in enumerate(units):
            yield i, function(unit)

    def close(self, now: bool = False) -> None:
        """Give the workers back; with `now` whatever they are at."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close(now=kind is not None)


def executor(
    workers: int | None = None, scheduler: str | None = None, warm: Callable[[], object] | None = None
) -> Executor:
    """Processes on this machine, one a core by default; with `scheduler` the Dask cluster at that address.

    `warm` is called once before processes start, e.g. to fill the compiler's cache. UsageError for a wrong number
    or address, or where Dask is not installed.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}; expected at least 1")
    if scheduler is not None:
        if workers is not None:
            raise UsageError("a scheduler knows its own workers; leave out either --workers or --scheduler")
        return Cluster(scheduler)
    n = workers or os.cpu_count() or 1
    if n > 1 and _unguarded_script():
        warnings.warn("a script without `if __name__ == '__main__':` runs on one process", stacklevel=4)
        n = 1
    return Processes(n, warm) if n > 1 else Executor()


class Processes(Executor):
    """Processes of this machine. They are started when there is more than one unit to do."""

    def __init__(self, workers: int, warm: Callable[[], object] | None) -> None:
        self.workers, self.warm = workers, warm
        self.pool: ProcessPoolExecutor | None = None
        # Spawned, not forked: the parent may hold threads (a progress bar, a notebook).
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()

    def map(self, function: Callable[[U], R], units: Sequence[U]) -> Iterator[tuple[int, R]]:
        if self.pool is None and len(units) < 2:
            yield from super().map(function, units)
            return
        pool = self._started(len(units))
        with _deaf():  # the first submit starts the processes
            futures: dict[Future[R], int] = {pool.submit(function, u): i for i, u in enumerate(units)}
        try:
            for f in as_completed(list(futures)):
                yield futures.pop(f), f.result()  # a result that was handed out is not kept
        except BrokenProcessPool:
            raise WorkerError("a worker ended unexpectedly (out of memory?); perhaps try fewer --workers") from None
        except GeneratorExit:  # the rest is not wanted; workers go on to other units
            for f in futures:
                f.cancel()
            raise

    def _started(self, units: int) -> ProcessPoolExecutor:
        if self.pool is None:
            if self.warm is not None:
                self.warm()
            self.pool = ProcessPoolExecutor(
                min(self.workers, units), mp_context=self.context, initializer=_quiet, initargs=(os.getpid(), self.stop)
            )
        return self.pool

    def close(self, now: bool = False) -> None:
        if self.pool is not None:
            if now:
                self.stop.set()
            # Workers that end break the pool, which then fails on units that were cancelled (CPython before 3.12).
            self.pool.shutdown(wait=not now, cancel_futures=not now)


class Cluster(Executor):
    """The workers of a Dask scheduler. What a lost worker had is done again by another, with the same result."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ModuleNotFoundError as e:
            raise UsageError(f"--scheduler needs {e.name}; install it with: pip install 'justai-sim[dask]'") from None
        try:
            self.client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
        except (OSError, ValueError) as e:
            raise UsageError(
                f"--scheduler {address!r}: no Dask scheduler answers there ({e}); expected e.g. tcp://10.0.0.5:8786"
            ) from None
        try:
            self.client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            self.close()
            raise WorkerError(
                f"--scheduler {address!r}: no worker came in {WORKER_SECONDS} s; start some: dask worker {address}"
            ) from None
        except OSError as e:
            self.close()
            raise WorkerError(f"--scheduler {address!r}: it ended ({type(e).__name__})") from None

    def map(self, function: Callable[[U], R], units: Sequence[U]) -> Iterator[tuple[int, R]]:
        from distributed import CancelledError, KilledWorker
        from distributed import as_completed as finished

        mark = (__version__, NUMBERS)
        futures: dict[Any, int] = {
            self.client.submit(_checked, function, u, mark, pure=False): i for i, u in enumerate(units)
        }
        try:
            done = finished(list(futures), loop=self.client.loop)
            while futures:
                self._wait(done)
                f = next(done)
                i = futures.pop(f)
                result = f.result()
                f.release()
                yield i, result
        except KilledWorker as e:
            raise WorkerError(
                f"a unit has ended every worker that took it, {e.allowed_failures + 1} in all (out of memory?), the "
                f"last at {e.last_worker.address}; their logs say more"
            ) from None
        except ModuleNotFoundError as e:
            raise WorkerError(
                f"a worker of the cluster lacks {e.name}; install justai-sim {__version__} there"
            ) from None
        except RuntimeError as e:
            if "deserialization" not in str(e):
                raise
            raise WorkerError(
                f"the cluster cannot read what it is sent: install justai-sim {__version__} where its scheduler and "
                "workers run, with the same Python and Dask"
            ) from None
        except (CancelledError, OSError) as e:
            raise WorkerError(f"the cluster cannot be reached any more ({type(e).__name__})") from None
        finally:
            if futures:
                self.client.cancel(list(futures))

    def _wait(self, done: Any) -> None:
        """Until a unit is finished. A cluster without workers would wait for ever: WorkerError after a while."""
        looked = seen = time.monotonic()
        while not done.has_ready():
            time.sleep(0.01)
            now = time.monotonic()
            if now - looked > LOOK_SECONDS:
                looked = now
                seen = now if self.client.nthreads() else seen
                if now - seen > WORKER_SECONDS:
                    raise WorkerError(f"the cluster has had no worker for {WORKER_SECONDS} s: all of them ended")

    def close(self, now: bool = False) -> None:  # noqa: ARG002 -- units are cancelled by then
        log = logging.getLogger("distributed.client")
        before = log.level
        log.setLevel(logging.CRITICAL)  # a client that is closed while it looks for its scheduler logs a traceback
        try:
            self.client.close()
        finally:
            log.setLevel(before)


def _checked(function: Callable[[U], R], unit: U, mark: tuple[str, int]) -> R:
    """Runs on a worker of a cluster, which may have another version."""
    if mark != (__version__, NUMBERS):
        raise WorkerError(
            f"a worker of the cluster has justai-sim {__version__} ({NUMBERS}), this is {mark[0]} ({mark[1]})"
        )
    return function(unit)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started inside do not hear Ctrl-C from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _quiet(parent: int, stop: Event) -> None:
    """Ctrl-C is the parent's to handle; a worker ends when it is told to, and when its parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent, stop), daemon=True).start()


def _follow(parent: int, stop: Event) -> None:
    try:
        while os.getppid() == parent and not stop.wait(1):
            pass
    finally:  # the event itself goes away with the parent
        os._exit(1)


def _unguarded_script() -> bool:
    """Whether the program is a plain script without the guard that spawned workers need."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return path is not None and "__main__" not in Path(path).read_text(encoding="utf-8", errors="ignore")
    except OSError:
        return False

"""The command line. Importing it costs only the argument parser; each command imports what it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failure, 2 usage, 3 bad input data, 130 interrupted."""
    try:
        code = run(sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:  # before or after the command itself
        code = _fail("interrupted", 130)
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run a command; returns the exit code. No traceback reaches the user for bad input."""
    # Arrow's own allocator keeps what it was given back: twice the memory for a large log.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from cyclopts import CycloptsError

    from justai_sim.cli.app import app
    from justai_sim.errors import JustaiError

    try:
        app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0
    except CycloptsError as e:
        return _fail(f"{str(e).strip()}\n(justai-sim {' '.join(argv[:1])} --help shows how)", 2)
    except JustaiError as e:
        return _fail(str(e), e.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command starts again", 130)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        return _fail(f"{e.filename or 'system'}: {e.strerror or e}", 1)
    except MemoryError:
        return _fail("out of memory; fewer replications or workers, or a smaller scenario, need less", 1)
    return 0


def _fail(message: str, code: int) -> int:
    from justai_sim.cli.output import say

    say(f"justai-sim: {message}")
    return code

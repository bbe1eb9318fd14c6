"""Production modules run without the simulator, pandas and plotting; importing the package loads nothing."""

import subprocess
import sys

BLOCKED = ("simpy", "pandas", "matplotlib", "justai_sim.truth", "justai_sim.sim")
PRODUCTION = (
    "justai_sim.attribution",
    "justai_sim.bandit.registry",
    "justai_sim.bandit.stopping",
    "justai_sim.esp.braze",
    "justai_sim.esp.customerio",
    "justai_sim.esp.iterable",
    "justai_sim.esp.segment",
    "justai_sim.esp.signatures",
    "justai_sim.esp.sfmc",
    "justai_sim.esp.generic",
    "justai_sim.estimate.adaptive",
    "justai_sim.estimate.metrics",
    "justai_sim.log",
    "justai_sim.loop.replay",
    "justai_sim.loop.step",
    "justai_sim.service.app",
)


def python(code: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code], check=True, capture_output=True, text=True
    )


def test_production_imports_with_the_rest_blocked() -> None:
    block = "\n".join(f"sys.modules[{name!r}] = None" for name in BLOCKED)
    imports = "\n".join(f"import {name}" for name in PRODUCTION)
    python(f"import sys\n{block}\n{imports}\nassert 'numba' not in sys.modules, 'numba belongs to kernels'")


def test_importing_the_package_is_lazy() -> None:
    python(
        "import sys, justai_sim\n"
        "heavy = {'numpy', 'pandas', 'simpy', 'matplotlib', 'numba', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_help_does_not_load_the_compiler() -> None:
    python(
        "import sys\nfrom justai_sim.cli import run\n"
        "assert run(['--help']) == 0\nassert run(['sweep', '--help']) == 0\n"
        "heavy = {'numba', 'pandas', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )

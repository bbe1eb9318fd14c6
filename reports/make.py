"""`make reports`: the example reports that are committed beside this file, and the fingerprint of what they come from.

Deterministic: the same sources and pinned packages give the same bytes, on any number of workers.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import justai_sim as js
from justai_sim.version import NUMBERS, __version__

HERE = Path(__file__).parent
ROOT = HERE.parent
SOURCES = ("justai_sim/pages/**/*.py", "justai_sim/pages/templates/*.j2", "scenarios/fast_converter.toml",
           "reports/make.py")  # fmt: skip
"""What changes the pages most often. Whatever else does is seen by the slow test, which makes them again."""


def sweep(out: Path) -> None:
    js.report(js.sweep("fast_converter"), out)


def replay(out: Path) -> None:
    world = js.simulate(js.read_scenario("fast_converter", {"program.policy.name": "uniform"}))
    js.report(world.replay(policy="weighted_thompson"), out, "fast_converter, one world with an even split")


def what_if(out: Path) -> None:
    world = js.simulate("fast_converter")  # the policy in use learned
    got = js.what_if(world.log, goals=["purchase"], lookback_days=7, offset_days=0)
    js.report(got, out, "fast_converter, one world whose policy learned")


REPORTS: dict[str, Callable[[Path], None]] = {"sweep": sweep, "replay": replay, "what_if": what_if}


def make(out: Path) -> None:
    """Write all reports into the folder `out`, a folder each, and `manifest.json`."""
    for name, write in REPORTS.items():
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            for path in sorted(Path(folder).iterdir()):
                if path.suffix == ".html":  # without links to what is not kept
                    text = re.sub(r', <a href="[^"]+\.svg">SVG</a>', "", path.read_text(encoding="utf-8"))
                    (out / name / path.name).write_text(text, encoding="utf-8", newline="\n")
                elif path.suffix == ".png":  # a palette is enough, and a third of the bytes
                    with Image.open(path) as image:
                        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
                            out / name / path.name, optimize=True
                        )
                elif path.suffix == ".csv":
                    shutil.copyfile(path, out / name / path.name)
    found = {"fingerprint": fingerprint(), "files": files(out)}
    (out / "manifest.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def files(out: Path) -> dict[str, str]:
    """The hash of every file of the reports, by its path below `out`."""
    found = (p for name in REPORTS for p in sorted((out / name).rglob("*")) if p.is_file())
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def fingerprint() -> str:
    """Of the sources that the pages come from."""
    digest = hashlib.sha256(f"{__version__} {NUMBERS}".encode())
    for path in sorted({p for pattern in SOURCES for p in ROOT.glob(pattern)}):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "examples")

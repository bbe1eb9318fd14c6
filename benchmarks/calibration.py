"""The calibration figure of the docs: python benchmarks/calibration.py docs/img/calibration"""

from __future__ import annotations

import sys
from pathlib import Path

from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.study import study
from justai_sim.pages.calibration import plot_calibration
from justai_sim.pages.style import save
from justai_sim.streams import generator

WORLDS, ARMS, DECISIONS, BATCH = 20_000, 5, 500, 25


def main(out: str) -> None:
    rng = generator(1, "calibration figure")
    rates = rng.beta(1, 1, (WORLDS, ARMS))
    got = study(PolicySpec(), rates, DECISIONS, WORLDS, rng, batch=BATCH)
    said, right, n = got.calibration()
    for row in zip(said, right, n, strict=True):
        print("said {:.3f} right {:.3f} n {:,.0f}".format(*row))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save(plot_calibration(said, right, n), Path(out))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "docs/img/calibration")

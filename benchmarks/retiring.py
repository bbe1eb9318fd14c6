"""Thompson sampling where items retire and feedback is delayed: Chapelle and Li 2011 (NIPS), Table 1.

python benchmarks/retiring.py            20 repetitions of 1,000,000 decisions a cell: a quarter of an hour

10 items with rates Beta(4, 4), one retires every 1,000 decisions, feedback only every `delay` decisions. "at the next
feedback": the policy learns of a swap with the next feedback, as the published table seems to; "at once": it is told at
once, and the feedback that is still on its way for the old item is dropped.
"""

from __future__ import annotations

from justai_sim.bandit.study import retiring
from justai_sim.streams import generator

PUBLISHED = {1: 9105, 3: 9199, 10: 9049, 32: 9451, 100: 11_550, 316: 21_594, 1000: 59_256}
R, T = 20, 1_000_000


def main() -> None:
    print("| delay | published | learns of a swap at the next feedback | off | told at once |\n|---|---|---|---|---|")
    for delay, published in PUBLISHED.items():
        cells = []
        for pending, seed in (("boundary", f"retiring {delay}"), ("dropped", f"retiring, dropped {delay}")):
            if pending == "dropped" and delay < 100:  # hardly anything is on its way
                cells.append((0.0, "-"))
                continue
            found = retiring(T, R, delay, generator(3, seed), pending=pending)
            cells.append((found.mean(), f"{found.mean():,.0f} ± {found.std(ddof=1) / R**0.5:,.0f}"))
        off = cells[0][0] / published - 1
        print(f"| {delay} | {published:,} | {cells[0][1]} | {100 * off:+.1f} % | {cells[1][1]} |", flush=True)


if __name__ == "__main__":
    main()

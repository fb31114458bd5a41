"""How often a non-inferiority gate is wrong: python benchmarks/gate_simulation.py [--prompts 48] [--simulations 1000]

Without a difference, and with twice the smallest difference that the gate says it sees, at several margins.
"""

from __future__ import annotations

import argparse

import numpy as np

from eddy_bench.compare.gate import PASS, REGRESSION, TOO_FEW, judge_gaps
from eddy_bench.scoring.statistics import detectable

SCATTER = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--simulations", type=int, default=1000)
    options = parser.parse_args()
    print(
        f"{'margin':>7} {'difference':>22} {'passes':>7} {'regression':>11} {'too few':>8}   of {options.simulations}"
    )
    for margin in (0.0, 0.05, 0.1):
        for name, times in (("none", 0.0), ("twice the detectable", 2.0)):
            rng, counts = np.random.default_rng(11), dict.fromkeys((PASS, REGRESSION, TOO_FEW), 0)
            for _ in range(options.simulations):
                gaps = rng.normal(0, SCATTER, options.prompts)
                counts[judge_gaps(gaps - times * (margin + detectable(gaps)), margin)[0]] += 1
            print(
                f"{margin:7.2f} {name:>22} {counts[PASS]:7} {counts[REGRESSION]:11} {counts[TOO_FEW]:8}",
                flush=True,
            )


if __name__ == "__main__":
    main()

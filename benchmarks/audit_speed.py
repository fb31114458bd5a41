"""Seconds for 2,000 groups of 8 particles over 400 steps in the plane, and each method as a ratio
to iid in the same process.

python benchmarks/audit_speed.py [--groups 2000] [--steps 400]
"""

from __future__ import annotations

import argparse
import time

from eddy_bench.audit.draw import draw_groups
from eddy_bench.audit.plan import make_plan
from eddy_bench.methods.iid import Iid


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    for block in make_plan(["ring8"]).blocks:
        draw_groups(block, Iid(), 10, 500, 0, "warm-up")
        baseline = None
        for name, method in [
            ("iid", Iid()),
            *((candidate.label, candidate.method) for candidate in block.candidates),
        ]:
            start = time.perf_counter()
            draw_groups(block, method, options.steps, options.groups, 0, "main")
            seconds = time.perf_counter() - start
            baseline = baseline or seconds
            print(
                f"{block.scheduler!s:12} {name:12} {seconds:6.1f} s  "
                f"{seconds / baseline:5.1f} x iid",
                flush=True,
            )


if __name__ == "__main__":
    main()

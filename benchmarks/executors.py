"""Ray with two local workers against one process: python -m benchmarks.executors [--workers 2]
[--pairs 1] [-- more of `eddy-bench run`]

Runs the embedded suite whole, scores included, by turns with each executor into new folders,
compares the images hash by hash, and prints the ratio of the wall
times. Exit code 1 where an image differs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.experiment.soak import image_hashes, scores


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("arguments", nargs="*", help="more of `eddy-bench run`, after --")
    options = parser.parse_args()
    suite = options.arguments or ["fashion"]
    executors = {"one process": [], "Ray": ["--executor", "ray", "--workers", str(options.workers)]}
    ratios, same = [], True
    for _ in range(options.pairs):
        with tempfile.TemporaryDirectory() as temporary:
            seconds = {}
            for name, more in executors.items():
                start = time.perf_counter()
                command = [
                    sys.executable,
                    "-m",
                    "eddy_bench.cli",
                    "run",
                    *suite,
                    *more,
                    "--out",
                    str(Path(temporary, name)),
                ]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(f"{name}: {done.stderr}")
                seconds[name] = time.perf_counter() - start
                drawing = next(
                    (line for line in done.stderr.splitlines() if line.startswith("Drew ")), ""
                )
                print(f"{name:12} {seconds[name]:6.1f} s; {drawing}", flush=True)
            first, second = (Path(temporary, name) for name in executors)
            ratios.append(seconds["Ray"] / seconds["one process"])
            same = (
                same
                and image_hashes(first) == image_hashes(second)
                and scores(first) == scores(second)
            )
            print(
                f"Ray with {options.workers} workers takes {ratios[-1]:.3f} of one process; "
                f"images and scores {'the same' if same else 'DIFFERENT'}"
            )
    if len(ratios) > 1:
        print(f"median {statistics.median(ratios):.3f}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

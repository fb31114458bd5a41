"""A run that is killed again and again ends as one that was not.

    python tests/experiment/soak.py [--kills 20] [--limit N] [--seed 0] [--folder DIR]

Draws a suite once undisturbed, then once more with SIGKILL at random moments, each time going on
with the same command, and compares the images and the scores byte for byte, times and memory
aside. Exit code 1 where they differ. The slow tests run it on a small suite.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMES = ("seconds_per_image", "peak_memory_mb")


def image_hashes(folder: Path) -> dict[str, str]:
    images = [path for name in ("samples", "reference") for path in folder.glob(f"{name}/**/*.png")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(images)
    }


def scores(folder: Path) -> list[str]:
    return [
        line
        for line in (folder / "scores.csv").read_text().splitlines()
        if not any(f",{name}," in line for name in TIMES)
    ]


def command(options: argparse.Namespace, out: Path) -> list[str]:
    limit = ["--limit", str(options.limit)] if options.limit else []
    program = [sys.executable, "-m", "eddy_bench.cli"]
    return [*program, "run", options.suite, *limit, *options.arguments, "--out", str(out)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="fashion")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("arguments", nargs="*", help="more of `eddy-bench run`, after --")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        whole, killed = folder / "whole", folder / "killed"
        start = time.perf_counter()
        subprocess.run(command(options, whole), check=True, capture_output=True)
        alone = time.perf_counter() - start
        print(f"undisturbed: {alone:.0f} s", flush=True)
        for k in range(options.kills):
            process = subprocess.Popen(
                command(options, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            wait = rng.uniform(1, max(5.0, 1.5 * alone / options.kills + 8))
            try:
                process.wait(wait)
                state = f"ended by itself ({process.returncode})"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                state = "killed"
            groups = len(list(killed.glob("samples/*/*/*/group.json")))
            print(f"{k + 1:3}: {state} after {wait:.1f} s, {groups} groups finished", flush=True)
        subprocess.run(command(options, killed), check=True, capture_output=True)

        same = image_hashes(whole) == image_hashes(killed), scores(whole) == scores(killed)
        images, rows = ("the same" if equal else "DIFFERENT" for equal in same)
        counts = f"{len(image_hashes(whole))} images, {len(scores(whole))} rows"
        print(f"images {images}, scores {rows}: {counts}")
        return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())

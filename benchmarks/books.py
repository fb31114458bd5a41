"""The books of a large run: what a hundred thousand groups cost besides drawing them.

    python benchmarks/books.py [--groups 100000] [--methods 20] [--folder DIR]

Writes groups of two small pictures into a run folder, then measures how long it takes to find what
is missing from the index, with the index lost and with
every image hashed, and the time and peak memory of scoring. The folder is kept where one is given.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from eddy_bench.models.base import Cost
from eddy_bench.runs.missing import find_missing
from eddy_bench.scoring.score import ScoringRequest, score_folder
from eddy_bench.storage.group import group_key, png_bytes
from eddy_bench.storage.records import Group, RunRecord, RunSettings, SuiteRecord
from eddy_bench.storage.run_files import write_run
from eddy_bench.storage.run_folder import RunFolder

SETTINGS = RunSettings(
    model="exact:ring8",
    revision=None,
    variant=None,
    weights_fingerprint="0",
    scheduler="DDIM",
    steps=1,
    guidance_scale=1.0,
    negative_prompt="",
    particles=2,
    size=None,
    dtype="float32",
)
METRICS = ("vendi[pixels]", "pdist[pixels]", "mss[pixels]")


@contextmanager
def timed(name: str, goal: str = "") -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{name:62} {time.perf_counter() - start:8.1f} s  {goal}", flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_groups(count: int, methods: int) -> list[Group]:
    groups = []
    for k in range(count):
        method, prompt = f"m{k % methods:02}", f"p{k // methods:06}"
        key = group_key(method=method, prompt=prompt)
        groups.append(Group(method, method, "", "", prompt, f"a picture of {prompt}", 0, 2, key))
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--methods", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder.prepare(options.folder or Path(temporary) / "run", SETTINGS)
        groups = make_groups(options.groups, options.methods)
        write_run(folder.path, RunRecord(suite=SuiteRecord(), settings=SETTINGS))
        rng = np.random.default_rng(0)
        pictures = [
            png_bytes(Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8))) for _ in range(64)
        ]
        with timed(f"writing {options.groups} groups"):
            for k, group in enumerate(groups):
                folder.write_group(
                    group, [pictures[k % 64], pictures[(k + 7) % 64]], asdict(Cost(0.1, 2.0)), {}
                )
        with timed("finding what is missing, from the index", "at most 10 s for 100,000"):
            assert find_missing(groups, folder, False) == ([], [])
        folder.index.forget()
        with timed("finding what is missing, the index lost"):
            assert find_missing(groups, folder, False) == ([], [])
        with timed("finding what is missing, every image hashed"):
            assert find_missing(groups, folder, True) == ([], [])
        before = peak_mb()
        with timed("scoring (vendi, pdist, mss on pixels; costs)"):
            score_folder(folder, ScoringRequest(METRICS), lambda total: lambda count, label: None)
        print(
            f"{'peak memory of scoring, above what was there before':62} "
            f"{peak_mb() - before:8.0f} MiB  at most 1024",
            flush=True,
        )
        names = ("scores.csv", "scores.parquet")
        csv, parquet = ((folder.path / name).stat().st_size / 2**20 for name in names)
        print(
            f"{'scores.csv, scores.parquet':62} {csv:8.0f} MiB, {parquet:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()

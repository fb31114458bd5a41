"""Seconds of `compare` over 100,000 score rows and 20 methods, and as a ratio to reading the file
with pandas alone, in one process.

python benchmarks/compare_speed.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from eddy_bench.compare.comparable import check_comparable
from eddy_bench.compare.fronts import fronts
from eddy_bench.compare.paired import compare
from eddy_bench.results.results import read_results
from eddy_bench.scoring.metrics import METRICS

METHODS, SEEDS = 20, 5
GROUP = [name for name, metric in METRICS.items() if metric.scope == "group"]
COST = [name for name, metric in METRICS.items() if metric.scope == "cost"]


def main() -> None:
    prompts = 100_000 // (METHODS * SEEDS * (len(GROUP) + len(COST))) + 1
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [
            ["iid", *(f"pg:strength={k}" for k in range(1, METHODS))],
            GROUP + COST,
            range(prompts),
            range(SEEDS),
        ],
        names=["method", "metric", "prompt", "seed"],
    )
    rows = index.to_frame(index=False)
    rows["prompt_id"] = "p" + rows["prompt"].astype(str)
    rows["prompt"] = "a " + rows["prompt_id"]
    rows["value"] = rng.random(len(rows))
    rows["signature"] = rows["metric"] + "|N=4"
    rows = rows.assign(
        model="m",
        scheduler="s",
        steps=20,
        guidance_scale=4.0,
        particles=4,
        higher_is_better=[METRICS[name].higher_is_better for name in rows["metric"]],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        rows.to_csv(path, index=False)
        start = time.perf_counter()
        pd.read_csv(path)
        reading = time.perf_counter() - start
        start = time.perf_counter()
        scores = read_results([path])
        check_comparable(scores)
        differences, curves = compare(scores), fronts(scores)
        seconds = time.perf_counter() - start
    print(
        f"{len(rows):,} rows, {METHODS} methods: {seconds:.1f} s, "
        f"{seconds / reading:.0f} times reading the file; "
        f"{len(differences)} differences, fronts: {curves is not None}"
    )


if __name__ == "__main__":
    main()

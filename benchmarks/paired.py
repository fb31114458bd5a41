"""Paired differences to iid over prompts, with 95% bootstrap intervals: python benchmarks/paired.py
results/fashion/scores.csv. Without a file, those of the reference run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from eddy_bench.results.io import read_scores
from eddy_bench.results.statistics import mean_interval

FILE = "results/baselines/fashion.csv"
scores = read_scores(Path(sys.argv[1] if len(sys.argv) > 1 else FILE)).astype(
    {"method": str, "metric": str, "prompt_id": str}
)
for metric in ("pdist", "vendi", "attributes", "clip", "align"):
    table = scores[scores["metric"].str.partition("[")[0] == metric].pivot_table(
        index="prompt_id", columns="method", values="value"
    )
    base = table["iid"]
    for label in table.columns.drop("iid"):
        mean, low, high = mean_interval((table[label] - base).to_numpy(float))
        print(
            f"{metric:10} {label:30} {mean:+.4f} [{low:+.4f}, {high:+.4f}]  "
            f"{100 * (table[label].mean() / base.mean() - 1):+.2f}%"
        )

"""How much headroom each method of the reference run uses: docs/studies/ceiling.md, its figure.

    python benchmarks/pages/ceiling.py [SCORES]

SCORES is a score file or run folder, results/baselines/fashion.csv by default. The table and the
figure are written anew; the text around them stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.pages.marked import put
from eddy_bench.compare.subsampling import direction_words, subsampling_of
from eddy_bench.results.headroom import Headroom, headrooms
from eddy_bench.results.results import Results, read_results

ROOT = Path(__file__).parents[2]
PAGE, FIGURE = ROOT / "docs" / "studies" / "ceiling.md", ROOT / "docs" / "studies" / "ceiling.png"
BEGIN, END = "<!-- table begins -->", "<!-- table ends -->"


def draw(found: Sequence[Headroom]) -> None:
    """Draw one line per method: 0 is i.i.d. sampling, 1 the ceiling."""
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(found) + 1.2), layout="constrained")
    for row, own in enumerate(reversed(found)):
        colour = "#c0392b" if own.shifted else "#1f618d"
        axes.plot([own.low, own.high], [row, row], color=colour, linewidth=1.5)
        axes.plot(own.value, row, "o", color=colour, markersize=5)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.axvline(1, color="#222222", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(found)), [str(own.method) for own in reversed(found)], fontsize=8)
    axes.set_xlabel("headroom used: 0 i.i.d. sampling, 1 the ceiling (95% intervals)")
    axes.set_title(
        "Right of the dashed line marginals have shifted; red: the scores prove it", fontsize=9
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(FIGURE, dpi=110)


def table(found: Sequence[Headroom], results: Results) -> str:
    lines = ["| method | headroom used | significant | where to |", "| --- | --- | --- | --- |"]
    subsampling = subsampling_of(results)
    for own in found:
        shift = f"marginals shifted, p = {own.p_holm:.2g}" if own.shifted else ""
        where = direction_words(results, own.method, subsampling) if own.shifted else ""
        used = f"{own.value:.2f} [{own.low:.2f}, {own.high:.2f}]"
        lines.append(f"| {own.method} | {used} | {shift} | {where} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ROOT / "results" / "baselines" / "fashion.csv"
    parser.add_argument("scores", nargs="?", type=Path, default=default)
    results = read_results([parser.parse_args().scores])
    found = sorted(headrooms(results), key=lambda own: own.value)
    draw(found)
    put(PAGE, BEGIN, END, table(found, results))


if __name__ == "__main__":
    main()

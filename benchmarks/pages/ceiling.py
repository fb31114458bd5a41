"""How much headroom each method of the reference run uses: docs/studies/ceiling.md, its figure.

    python benchmarks/pages/ceiling.py [SCORES] [--keep-text]

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
from eddy_bench.results.headroom import MethodShare, headroom
from eddy_bench.results.results import ScoreSet, read_results

ROOT = Path(__file__).parents[2]
PAGE, FIGURE = ROOT / "docs" / "studies" / "ceiling.md", ROOT / "docs" / "studies" / "ceiling.png"
BEGIN, END = "<!-- table begins -->", "<!-- table ends -->"


def draw(shares: Sequence[MethodShare]) -> None:
    """Draw one line per method: 0 is i.i.d. sampling, 1 the ceiling."""
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(shares) + 1.2), layout="constrained")
    for row, share in enumerate(reversed(shares)):
        free, colour = share.free, "#c0392b" if share.moved else "#1f618d"
        axes.plot([free.low, free.high], [row, row], color=colour, linewidth=1.5)
        axes.plot(free.share, row, "o", color=colour, markersize=5)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.axvline(1, color="#222222", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(shares)), [share.label for share in reversed(shares)], fontsize=8)
    axes.set_xlabel("share of what is free: 0 i.i.d. sampling, 1 the ceiling (95% intervals)")
    axes.set_title("Right of the dashed line samples moved; red: the scores prove it", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(FIGURE, dpi=110)


def table(shares: Sequence[MethodShare], scores: ScoreSet) -> str:
    lines = ["| method | share of what is free | shown | where to |", "| --- | --- | --- | --- |"]
    subsampling = subsampling_of(scores)
    for share in shares:
        free = share.free
        moved = f"samples moved, p = {share.p_holm:.2g}" if share.moved else ""
        where = direction_words(scores, share.label, subsampling) if share.moved else ""
        lines.append(
            f"| {share.label} | {free.share:.2f} [{free.low:.2f}, {free.high:.2f}] "
            f"| {moved} | {where} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ROOT / "results" / "baselines" / "fashion.csv"
    parser.add_argument("scores", nargs="?", type=Path, default=default)
    scores = read_results([parser.parse_args().scores])
    shares = sorted(headroom(scores), key=lambda share: share.free.share)
    draw(shares)
    put(PAGE, BEGIN, END, table(shares, scores))


if __name__ == "__main__":
    main()

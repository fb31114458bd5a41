"""Seconds of a Frechet distance of few images, over those of torchmetrics on the same features.

    python benchmarks/frechet.py [--width 2048]

Both run in turn in one process; the ratio of medians over three turns is printed, and how far the
values differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.image.fid import FrechetInceptionDistance

from eddy_bench.scoring.fidelity import Given, frechet_distance

TURNS = 3
Features = NDArray[np.float64]


def of_torchmetrics(candidate: Features, reference: Features) -> float:
    """Return the distance from covariances, in float64."""
    metric = FrechetInceptionDistance(feature=Given(candidate.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(reference), real=True)
    metric.update(torch.from_numpy(candidate), real=False)
    return float(metric.compute())


def timed(distance: Callable[[Features, Features], float], *sets: Features) -> tuple[float, float]:
    """Return seconds and value of one call."""
    start = time.perf_counter()
    value = distance(*sets)
    return time.perf_counter() - start, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=2048, help="features of an image")
    width = parser.parse_args().width
    rng = np.random.default_rng(0)
    for count in (8, 192, 1000):
        sets = rng.normal(size=(count, width)), 0.2 + 1.3 * rng.normal(size=(count, width))
        turns = [
            (timed(frechet_distance, *sets), timed(of_torchmetrics, *sets)) for _ in range(TURNS)
        ]
        ours, theirs = (statistics.median(turn[side][0] for turn in turns) for side in (0, 1))
        (_, value), (_, expected) = turns[0]
        print(
            f"{count} images: {ours / theirs:.2g} times the seconds ({ours:.2g} to {theirs:.2g}), "
            f"values differ by {abs(value / expected - 1):.1g}"
        )


if __name__ == "__main__":
    main()

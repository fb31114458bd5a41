"""How many prompts a comparison needs, from a run's own scatter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eddy_bench.compare.paired import Difference

MOST = 10_000_000


def prompts_needed(
    differences: Sequence[Difference], effect: float, comparisons: int, power: float = 0.8
) -> list[tuple[Difference, float]]:
    """Return how many prompts show a difference on each metric; infinite where none would.

    Args:
        differences: of a run, paired over prompts.
        effect: the difference to be shown, as a share of the baseline's value.
        comparisons: how many methods share the 5%.
        power: how often it is to be shown.

    """
    return [
        (own, _prompts(own.scatter, abs(effect * own.baseline), comparisons, power))
        for own in differences
        if own.prompts > 1 and own.baseline
    ]


def fewest(comparisons: int) -> int:
    """Return below how many prompts even signs that all agree show nothing.

    >>> fewest(1), fewest(64)
    (6, 12)
    """
    return math.floor(math.log2(comparisons / 0.05)) + 2


def _prompts(scatter: float, size: float, comparisons: int, power: float) -> float:
    """Return the smallest number of prompts at which `detectable` is at most a size.

    >>> _prompts(1.0, 0.5, 1, 0.8)
    34
    """
    from scipy.stats import t

    if not (math.isfinite(scatter) and size > 0):
        return float("inf")

    def enough(count: int) -> bool:
        shown = count >= fewest(comparisons)
        quantiles = t.ppf(1 - 0.025 / comparisons, count - 1) + t.ppf(power, count - 1)
        return shown and scatter / math.sqrt(count) * quantiles <= size

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST:
            return float("inf")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high

"""The ceiling of free diversity: how much of what costs no sample its distribution a method gains.

Let phi be unit features, mu their mean under the law of one particle. For any joint law of N
particles each of which has that law,
    sum_{i<j} |phi_i - phi_j|^2 = N sum_i |phi_i - mu|^2 - |sum_i (phi_i - mu)|^2,
so that the mean squared distance D of pairs obeys E D <= N / (N - 1) E D_iid, with equality when
the mean of a group is always mu. Above it the samples have moved: their scores alone prove it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.scoring.statistics import mean_intervals, positive_mean_p

SIMILARITY = "mss"  # D = 2 (1 - mss) for unit features
NAME = "free_share"
ROUNDING = 1e-9  # of a squared distance between float32 features of equal images
Array = NDArray[np.float64]


@dataclass(frozen=True)
class FreeShare:
    """Hold where a method stands between i.i.d. sampling and the ceiling.

    share: (E D / E D_iid - 1) (N - 1): 0 is i.i.d., 1 the most that samples which keep their
        distribution can reach.
    low, high: 95% interval over prompts.
    p: of the samples having kept their distribution, one-sided, over prompts: D is above
        N / (N - 1) D_iid on average.
    prompts: how many both have.
    """

    share: float
    low: float
    high: float
    p: float
    prompts: int


def free_share(distances: Array, independent: Array, particles: int) -> FreeShare:
    """Compare mean squared distances with those of i.i.d. sampling, prompt by prompt.

    The interval is the studentised bootstrap's of the ratio's linear part.

    Args:
        distances: D of the method, (prompts,), in [0, 4].
        independent: D of i.i.d. samples of the same prompts, (prompts,).
        particles: N, at least 2.

    Returns:
        NaN where no prompt has both, or i.i.d. samples do not differ but for rounding.

    """
    count, base = len(distances), float(independent.mean()) if len(independent) else 0.0
    if not base > ROUNDING:
        nan = float("nan")
        return FreeShare(nan, nan, nan, nan, count)
    ratio = float(distances.mean()) / base
    linear = (distances - ratio * independent) / base
    (low,), (high,) = mean_intervals(linear[None])
    (chance,) = positive_mean_p((distances - particles / (particles - 1) * independent)[None])
    share, low, high = ((particles - 1) * (value + ratio - 1) for value in (0.0, low, high))
    return FreeShare(share, low, high, chance, count)


def paired_distances(own: pd.DataFrame, iid: pd.DataFrame) -> tuple[Array, Array]:
    """Return mean squared distances of the prompts that two methods have, over shared seeds.

    Args:
        own: rows of scores.csv with the mean similarity of a method's groups.
        iid: the same of i.i.d. sampling.

    Returns:
        Two arrays (prompts,); groups without a value on either side are left out.

    """
    keys = ["prompt_id", "seed"]
    both = own[[*keys, "value"]].merge(iid[[*keys, "value"]], on=keys, suffixes=("", "_iid"))
    both = both.dropna(subset=["value", "value_iid"])
    means = 2 * (1 - both.groupby("prompt_id", sort=True)[["value", "value_iid"]].mean())
    return means["value"].to_numpy(np.float64), means["value_iid"].to_numpy(np.float64)

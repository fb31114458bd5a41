"""Statistics over prompts: particles of a group depend on each other, so groups are what is resampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def mean_interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and percentile-bootstrap interval over prompts, with a fixed seed.

    Args:
        values: (prompts,), one value per prompt; NaN entries are left out. level: of the interval.

    Returns:
        (mean, low, high); low and high are NaN for fewer than 2 prompts, all are NaN for none.

    """
    from scipy.stats import bootstrap

    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return (float("nan"),) * 3
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
        vectorized=True,
    ).confidence_interval
    return float(values.mean()), float(found.low), float(found.high)

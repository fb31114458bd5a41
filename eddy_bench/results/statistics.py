"""Statistics over prompts: particles of a group depend on each other, so groups are resampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 9999
MOST = 1000  # prompts; with more the studentised bootstrap and Student's t agree
WIDEST = (
    4 / 3
)  # times Student's quantile; with few prompts resamples of hardly any scatter are many


def mean_interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and an interval over prompts, as `mean_intervals`.

    Args:
        values: (prompts,), one value per prompt; NaN entries are left out.
        level: of the interval.

    Returns:
        (mean, low, high); low and high are NaN for fewer than 2 prompts, all are NaN for none.

    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return (float("nan"),) * 3
    (low,), (high,) = mean_intervals(values[None], level)
    return float(values.mean()), low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's (1979) adjusted p-values.

    Rejecting those below a level keeps the family's error rate there.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    count, order = len(p_values), sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, highest = [1.0] * count, 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (count - rank) * p_values[k]))
        adjusted[k] = highest
    return adjusted


def mean_intervals(
    values: NDArray[np.float64], level: float = 0.95
) -> tuple[list[float], list[float]]:
    """Return studentised bootstrap intervals of several means over the same prompts.

    Equal tails of t* = (mean* - mean) / error* (Efron & Tibshirani 1993, section 12.5), which heed
    skewness, no further from the mean than 4/3 of Student's t (10/n for fewer than 8 prompts).
    The seed is fixed. How often they cover: docs/statistics.md.

    Args:
        values: (means, prompts), without NaN.
        level: of the intervals.

    Returns:
        Lower and upper ends; NaN for fewer than 2 prompts.

    """
    from scipy.stats import t

    count = values.shape[1]
    if count < 2:
        return [float("nan")] * len(values), [float("nan")] * len(values)
    means, errors = _mean_and_error(values)
    tail = (1 - level) / 2
    usual = float(t.ppf(1 - tail, count - 1))
    lows, highs = np.full(len(values), -usual), np.full(len(values), usual)
    if count <= MOST:
        draws = np.sort(_studentised(values), axis=0)
        lows, highs = draws[int(tail * RESAMPLES)], draws[int((1 - tail) * RESAMPLES)]
        widest = max(WIDEST, 10 / count) * usual
        lows, highs = lows.clip(-widest, widest), highs.clip(-widest, widest)
    return (means - highs * errors).tolist(), (means - lows * errors).tolist()


def zero_mean_p(values: NDArray[np.float64]) -> list[float]:
    """Return two-sided p-values of several means of paired differences being 0.

    They invert the studentised bootstrap's equal-tailed interval, and are never below what signs
    that all agree would show, 2^(1 - prompts).

    Args:
        values: (means, prompts), without NaN.

    Returns:
        One per row; 1 for a row of zeros, NaN without prompts.

    """
    upper, lower = _tails(values)
    chances: list[float] = np.minimum(1.0, 2 * np.minimum(upper, lower)).tolist()
    return chances


def positive_mean_p(values: NDArray[np.float64]) -> list[float]:
    """Return one-sided p-values against several means being 0 or below, as `zero_mean_p`.

    Args:
        values: (means, prompts), without NaN.

    Returns:
        One per row, at least 2^-prompts; 1 for a row of zeros or one prompt, NaN without prompts.

    """
    upper, _ = _tails(values)
    chances: list[float] = upper.tolist()
    return chances


def _tails(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the chances of means as high, and as low, as those of rows if they were 0."""
    from scipy.stats import t

    count = values.shape[1]
    if count < 2:
        chances = np.full(len(values), 1.0 if count else np.nan)
        return chances, chances
    means, errors = _mean_and_error(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.where(means == 0, 0.0, means / errors)
    if count <= MOST:
        draws = _studentised(values)
        upper, lower = (
            (1 + beyond.sum(0)) / (1 + RESAMPLES)
            for beyond in (draws >= observed, draws <= observed)
        )
    else:
        upper, lower = t.sf(observed, count - 1), t.cdf(observed, count - 1)
    upper, lower = (
        np.where(means == 0, 1.0, np.maximum(tail, 2.0**-count)) for tail in (upper, lower)
    )
    return upper, lower


def _mean_and_error(values: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return the means of rows, and their standard errors."""
    return values.mean(1), values.std(1, ddof=1) / math.sqrt(values.shape[1])


def _studentised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (mean* - mean) / error* of resampled prompts, (resamples, means).

    It is infinite, with the shift's sign, where a resample has no scatter.
    """
    count = values.shape[1]
    centred = values - values.mean(1, keepdims=True)
    weights = _resampled_shares(count)
    shifts = weights @ centred.T
    variances = (weights @ np.square(centred).T - np.square(shifts)) / (count - 1)
    none = variances <= 1e-12 * np.square(centred).mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(none, np.sign(shifts) * np.inf, shifts / np.sqrt(variances))
    drawn: NDArray[np.float64] = np.nan_to_num(ratios, nan=0.0, posinf=np.inf, neginf=-np.inf)
    return drawn


@lru_cache(maxsize=4)
def _resampled_shares(count: int) -> NDArray[np.float64]:
    """Return how much of each resample is each of `count` prompts, (resamples, count)."""
    rng = np.random.default_rng(0)
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count


def detectable(values: NDArray[np.float64], power: float = 0.8, comparisons: int = 1) -> float:
    """Return the smallest mean difference that this many prompts show at 5% with a power.

    Args:
        values: (prompts,), paired differences whose scatter is taken.
        power: how often it is to be shown.
        comparisons: how many methods share the 5% (Bonferroni's bound of what Holm asks of the
            first).

    Returns:
        NaN for fewer than 2 prompts; infinite where even signs that all agree are not enough, as
        with 5 prompts or fewer.

    """
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return float("nan")
    if 2.0 ** (1 - count) * comparisons >= 0.05:
        return float("inf")
    error = float(values.std(ddof=1)) / math.sqrt(count)
    return error * (
        float(t.ppf(1 - 0.025 / comparisons, count - 1)) + float(t.ppf(power, count - 1))
    )

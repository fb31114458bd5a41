"""Means over groups with their errors, and what can be shown of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Estimate:
    """A mean over groups with its standard error and a t interval. groups: how many it is from."""

    value: float
    error: float
    groups: int

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return self.value - self._quantile * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return self.value + self._quantile * self.error

    @property
    def _quantile(self) -> float:
        from scipy.stats import t

        return float(t.ppf(0.975, self.groups - 1)) if self.groups > 1 else float("nan")

    def difference_p(self) -> float:
        """Return the two-sided p-value of the mean being 0."""
        return min(1.0, 2 * self._tail(abs(self.value)))

    def equivalence_p(self, margin: float) -> float:
        """Return the p-value of two one-sided tests (Schuirmann 1987).

        It is small when the mean is shown to lie within (-margin, margin).
        """
        return self._tail(margin - abs(self.value))

    def above_p(self, bound: float) -> float:
        """Return the one-sided p-value, small when the mean is shown to be more than a bound."""
        return self._tail(self.value - bound)

    def below_p(self, bound: float) -> float:
        """Return the one-sided p-value, small when the mean is shown to be less than a bound."""
        return self._tail(bound - self.value)

    def _tail(self, distance: float) -> float:
        from scipy.stats import t

        if self.groups < 2 or not np.isfinite(self.value):
            return 1.0
        if self.error == 0:
            return 1.0 if distance <= 0 else 0.0
        return float(t.sf(distance / self.error, self.groups - 1))


def group_mean(values: NDArray[np.float64]) -> Estimate:
    """Return the mean over groups, (G,), with its standard error.

    >>> round(group_mean(np.array([1.0, 2.0, 3.0])).error, 4)
    0.5774
    """
    count = len(values)
    error = float(values.std(ddof=1)) / count**0.5 if count > 1 else float("nan")
    return Estimate(float(values.mean()) if count else float("nan"), error, count)


def groups_needed(estimate: Estimate, distance: float, level: float, power: float = 0.8) -> float:
    """Return how many groups about show, one-sided, that a mean lies `distance` from a bound."""
    from scipy.stats import norm

    return (
        estimate.groups * (estimate.error * (norm.isf(level) + norm.ppf(power)) / distance) ** 2
        if distance > 0
        else float("inf")
    )


def frequency_chi2(
    counts: NDArray[np.float64], reference: NDArray[np.float64]
) -> tuple[float, int, float]:
    """Return Wald's chi-square of mode frequencies between two independent sets of groups.

    Particles of a group may depend on each other.
    Pearson's chi-square assumes independent samples; here the covariance is that of the groups'
    counts.

    Args:
        counts, reference: particles of each group in each mode, (G, K) and (H, K).

    Returns:
        (statistic, degrees of freedom, p-value); without any variation (nan, 0, nan).
    """
    from scipy.stats import chi2

    shares = [values / values.sum(1, keepdims=True) for values in (counts, reference)]
    gap = shares[0].mean(0) - shares[1].mean(0)
    covariance = sum(np.atleast_2d(np.cov(share.T)) / len(share) for share in shares)
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * max(values.max(), 1e-30)
    if not values.max() > 0:
        return float("nan"), 0, float("nan")
    statistic = float(((vectors[:, kept].T @ gap) ** 2 / values[kept]).sum())
    return statistic, int(kept.sum()), float(chi2.sf(statistic, int(kept.sum())))

"""How much of the diversity that keeps every marginal a method uses: its headroom.

Let phi be unit features, mu their mean under the law of one particle. For any joint law of N
particles each of which has that law,
    sum_{i<j} |phi_i - phi_j|^2 = N sum_i |phi_i - mu|^2 - |sum_i (phi_i - mu)|^2,
so that the mean squared distance D of pairs obeys E D <= N / (N - 1) E D_iid, with equality when
the mean of a group is always mu. Above it marginals have shifted: their scores alone prove it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.ids import IID, MethodId, MetricId
from eddy_bench.results.results import Results
from eddy_bench.results.statistics import holm, mean_intervals, positive_mean_p
from eddy_bench.scoring.metrics import role_of

ROUNDING = 1e-9  # of a squared distance between float32 features of equal images
LEVEL = 0.05
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Headroom:
    """Where a method stands between i.i.d. sampling and the ceiling, under one extractor.

    value: (E D / E D_iid - 1) (N - 1): 0 is i.i.d., 1 the most that marginal-preserving methods
        can reach.
    low, high: 95% interval over prompts.
    p: of the marginals having been kept, one-sided, over prompts: D is above N / (N - 1) D_iid on
        average; p_holm: corrected over the methods.
    prompts: how many both have.
    """

    method: MethodId
    column: MetricId
    value: float
    low: float
    high: float
    p: float
    prompts: int
    p_holm: float = float("nan")

    @property
    def shifted(self) -> bool:
        """Whether the scores prove that marginals have shifted."""
        return self.p_holm < LEVEL and self.value > 1

    @property
    def words(self) -> str:
        """What is shown, in words; empty where there is no value."""
        if self.value != self.value:
            return ""
        gain = f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}] of the headroom used"
        shift = "the marginals shifted" if self.shifted else "no shift of the marginals is shown"
        return f"{gain}: {shift}"


def headrooms(results: Results) -> list[Headroom]:
    """Return the headroom that every method uses, under every extractor with a mean similarity.

    Nothing without i.i.d. sampling, and for one particle (`why_no_headroom` says so).
    """
    name, found = role_of("headroom").name, list[Headroom]()
    for column in _similarities(results):
        rows = results.rows(column=column)
        iid, particles = rows[rows["method"] == IID], int(rows["particles"].iloc[0])
        if iid.empty or particles < 2 or rows["signature"].nunique() > 1:
            continue
        own = [
            _headroom(method, MetricId(name, column.extractor), rows, iid, particles)
            for method in dict.fromkeys(rows["method"])
            if method != IID
        ]
        chances = holm([1.0 if one.p != one.p else one.p for one in own])
        found += [replace(one, p_holm=p) for one, p in zip(own, chances, strict=True)]
    return found


def why_no_headroom(results: Results) -> str:
    """Say why there is no headroom; empty where there is one."""
    if not _similarities(results):
        metric = role_of("similarity").name
        return f"no headroom: it needs the metric {metric}; eddy-bench score adds it"
    if IID not in results.methods:
        return "no headroom: it is what iid leaves, and iid is not in the run"
    if (results.frame["particles"].astype(int) < 2).all():
        return "no headroom: it is of groups of two images or more, set --particles"
    return ""


def _similarities(results: Results) -> list[MetricId]:
    return [own for own in results.columns if results.metric(own).role == "similarity"]


def _headroom(
    method: MethodId, column: MetricId, rows: pd.DataFrame, iid: pd.DataFrame, particles: int
) -> Headroom:
    own, independent = paired_distances(rows[rows["method"] == method], iid)
    return Headroom(method, column, *headroom(own, independent, particles), len(own))


def headroom(
    distances: Array, independent: Array, particles: int
) -> tuple[float, float, float, float]:
    """Compare mean squared distances with those of i.i.d. sampling, prompt by prompt.

    The interval is the studentised bootstrap's of the ratio's linear part.

    Args:
        distances: D of the method, (prompts,), in [0, 4].
        independent: D of i.i.d. samples of the same prompts, (prompts,).
        particles: N, at least 2.

    Returns:
        Value, low, high and p of `Headroom`; NaN where no prompt has both, or i.i.d. samples do not
        differ but for rounding.

    """
    base = float(independent.mean()) if len(independent) else 0.0
    if not base > ROUNDING:
        return (float("nan"),) * 4
    ratio = float(distances.mean()) / base
    linear = (distances - ratio * independent) / base
    (low,), (high,) = mean_intervals(linear[None])
    (chance,) = positive_mean_p((distances - particles / (particles - 1) * independent)[None])
    value, low, high = ((particles - 1) * (gap + ratio - 1) for gap in (0.0, low, high))
    return value, low, high, chance


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

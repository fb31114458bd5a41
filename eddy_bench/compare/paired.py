"""Paired differences to the baseline over prompts, and between two runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.compare.comparable import no_baseline
from eddy_bench.ids import CIRCULAR, SMALL_SAMPLE, MethodId, MetricId
from eddy_bench.results.headroom import Headroom
from eddy_bench.results.results import Results
from eddy_bench.results.statistics import detectable, holm, mean_intervals, zero_mean_p

LEVEL = 0.05
# values that only --allow-missing lets stand side by side; no verdict is given on them
SIGNATURES = "signatures differ"
BEFORE, NOW = MethodId("before"), MethodId("now")
Progress = Callable[[int], Callable[[int, str], None]]
NAN = float("nan")


def quiet(total: int) -> Callable[[int, str], None]:
    """Tell nobody of progress."""
    return lambda count, label: None


@dataclass(frozen=True)
class Difference:
    """A method against the baseline on one metric.

    prompts: how many both have; 0 for pooled metrics and for costs, whose prompts share batches:
        they have no interval.
    baseline, value: means.
    low, high: 95% studentised bootstrap interval of the difference over prompts.
    effect: mean over standard deviation of the paired differences (Cohen's d_z).
    p: of no difference, by the studentised bootstrap; of headroom, one-sided, that marginals were
        kept.
    p_holm: corrected over the methods.
    wins: share of prompts on which the method is better, ties half.
    detectable: the smallest difference that this many prompts show 4 times in 5.
    warning: what speaks against reading much into it.
    scatter: standard deviation of the paired differences over prompts.
    judged: whether `better` is said of it; a shift of marginals is no gain.
    """

    method: MethodId
    metric: MetricId
    higher_is_better: bool
    prompts: int
    baseline: float
    value: float
    difference: float
    low: float = NAN
    high: float = NAN
    effect: float = NAN
    p: float = NAN
    p_holm: float = NAN
    wins: float = NAN
    detectable: float = NAN
    warning: str = ""
    scatter: float = NAN
    judged: bool = True

    @property
    def better(self) -> bool | None:
        """True for a significant gain, False for a significant loss, None for neither."""
        significant = self.p_holm < LEVEL and (self.low > 0 or self.high < 0)
        if not (self.judged and significant) or SIGNATURES in self.warning:
            return None
        return (self.difference > 0) == self.higher_is_better

    @property
    def gain(self) -> float:
        """The difference, better counted up."""
        return self.difference if self.higher_is_better else -self.difference

    @property
    def ratio(self) -> float:
        """How many times the baseline the value is; NaN without one."""
        return self.value / self.baseline if self.baseline else NAN


def by_prompt(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds: prompts down, methods across, in order."""
    means = rows.groupby(["prompt_id", "method"], sort=False, observed=True)["value"].mean()
    table = means.unstack("method")
    prompts, methods = (list(dict.fromkeys(rows[name])) for name in ("prompt_id", "method"))
    return table.loc[prompts, methods]


def medians_by_method(rows: pd.DataFrame) -> dict[MethodId, float]:
    """Return the median over groups, which no batch that something else stalled moves."""
    medians: Any = rows.groupby("method", sort=False, observed=True)["value"].median()
    return {method: float(value) for method, value in medians.items()}


def compare(
    results: Results, advance: Callable[[int, str], None] = lambda count, label: None
) -> list[Difference]:
    """Compare every method with the results' baseline on every metric.

    Args:
        results: of all methods.
        advance: is called with the metric at work, and with 1 when it is done.

    Raises:
        CompareError: the baseline is not there.

    """
    if results.baseline not in results.methods:
        raise no_baseline(results)
    differences: list[Difference] = []
    for column in results.in_order(results.columns):
        advance(0, str(column))
        metric, rows = results.metric(column), results.rows(column=column)
        if results.baseline in set(rows["method"]):
            if metric.scope == "group":
                differences += _paired(column, rows, results)
            elif metric.role != "memory":  # on a CPU it is that of the process so far
                differences += _pooled(column, rows, results)
        advance(1, str(column))
    return differences


def between(now: Results, before: Results, progress: Progress = quiet) -> list[Difference]:
    """Compare each method with itself in another run. progress: over methods."""
    shared = [method for method in now.methods if method in before.methods]
    found: list[Difference] = []
    advance = progress(len(shared))
    for method in shared:
        advance(0, str(method))
        parts = [_renamed(side.rows(method), name) for side, name in ((before, BEFORE), (now, NOW))]
        sources = (*before.sources, *now.sources)
        metrics = {**before.metrics, **now.metrics}
        both = Results(pd.concat(parts, ignore_index=True), metrics, sources, baseline=BEFORE)
        found += [replace(difference, method=method) for difference in compare(both)]
        advance(1, str(method))
    columns = dict.fromkeys(difference.metric for difference in found)
    return [
        own if own.prompts else replace(own, p_holm=NAN)
        for column in columns
        for own in corrected([one for one in found if one.metric == column])
    ]


def _renamed(rows: pd.DataFrame, method: MethodId) -> pd.DataFrame:
    names: Any = [method] * len(rows)
    return rows.assign(method=names)


def headroom_differences(headrooms: Sequence[Headroom]) -> list[Difference]:
    """Return headrooms as lines beside other differences: 0 is i.i.d., nothing is called better."""
    return [
        Difference(
            own.method,
            own.column,
            True,
            own.prompts,
            0.0,
            own.value,
            own.value,
            own.low,
            own.high,
            p=own.p,
            p_holm=own.p_holm,
            warning=f"marginals shifted, p = {own.p_holm:.2g}" if own.shifted else "",
            judged=False,
        )
        for own in headrooms
    ]


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Return differences of one metric with Holm's correction over the methods."""
    chances = holm([1.0 if math.isnan(own.p) else own.p for own in differences])
    return [replace(own, p_holm=p) for own, p in zip(differences, chances, strict=True)]


def _warnings(rows: pd.DataFrame) -> str:
    signatures = set(rows["signature"])
    marks = [m for m in (SMALL_SAMPLE, CIRCULAR) if any(own.has(m) for own in signatures)]
    return ", ".join([*marks, *([SIGNATURES] if len(signatures) > 1 else [])])


def _pooled(column: MetricId, rows: pd.DataFrame, results: Results) -> list[Difference]:
    """Compare medians, which no stalled batch moves, each with its own run's baseline."""
    medians = medians_by_method(rows)
    baselines, usual = results.baseline_costs(column), medians[results.baseline]
    sources = dict(zip(rows["method"][::-1], rows["source"][::-1], strict=True))
    higher, warning = results.metric(column).higher_is_better, _warnings(rows)
    differences = []
    for method in dict.fromkeys(rows["method"]):
        value, own = medians[method], baselines.get(str(sources[method]), usual)
        if method != results.baseline:
            differences.append(
                Difference(method, column, higher, 0, own, value, value - own, warning=warning)
            )
    return differences


def _paired(column: MetricId, rows: pd.DataFrame, results: Results) -> list[Difference]:
    table, higher = by_prompt(rows), results.metric(column).higher_is_better
    baseline_values = table[results.baseline].to_numpy(np.float64)
    table = table.drop(columns=results.baseline)
    if table.empty:
        return []
    found = _differences(column, table, baseline_values, higher, _warnings(rows))
    methods: list[Any] = list(table.columns)
    return corrected(sorted(found, key=lambda own: methods.index(own.method)))


def _differences(
    column: MetricId,
    table: pd.DataFrame,
    baseline_values: NDArray[np.float64],
    higher: bool,
    warning: str,
) -> Iterator[Difference]:
    values: Any = table.to_numpy(np.float64).T
    methods: list[Any] = list(table.columns)
    gaps = values - baseline_values  # (methods, prompts)
    for shared in _same_prompts(gaps):
        there = ~np.isnan(gaps[shared[0]])
        rows = gaps[shared][:, there]
        count = rows.shape[1]
        lows, highs = mean_intervals(rows)
        chances = zero_mean_p(rows)
        for row, k in enumerate(shared):
            own = rows[row]
            lost = int((np.isnan(values[k]) != np.isnan(baseline_values)).sum())
            smallest = detectable(own, comparisons=len(methods))
            few = "too few prompts to show anything" if count and np.isinf(smallest) else ""
            scatter = float(own.std(ddof=1)) if count > 1 else NAN
            yield Difference(
                methods[k],
                column,
                higher,
                count,
                _mean(baseline_values[there]),
                _mean(values[k][there]),
                _mean(own),
                lows[row],
                highs[row],
                float(own.mean() / scatter) if count > 1 and scatter > 0 else NAN,
                chances[row],
                wins=win_rate(own if higher else -own),
                detectable=smallest,
                warning=", ".join(filter(None, [warning, missing_words(lost), few])),
                scatter=scatter,
            )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else NAN


def missing_words(lost: int) -> str:
    """Say how many prompts there are for which only one of two methods has a value."""
    return f"{lost} prompt{'s have' if lost > 1 else ' has'} one value only" if lost else ""


def _same_prompts(gaps: NDArray[np.float64]) -> list[list[int]]:
    """Return rows with values for the same prompts, together."""
    together: dict[bytes, list[int]] = {}
    for k, row in enumerate(gaps):
        together.setdefault(np.isnan(row).tobytes(), []).append(k)
    return list(together.values())


def win_rate(gains: NDArray[np.float64]) -> float:
    """Return the share of gains above 0, ties half.

    >>> win_rate(np.array([1.0, 0.0, -1.0, 2.0]))
    0.625
    """
    return float(((gains > 0) + 0.5 * (gains == 0)).mean()) if len(gains) else NAN

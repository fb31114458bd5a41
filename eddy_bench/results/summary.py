"""One line per method: means over prompts with 95% intervals, pooled metrics, costs, headroom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eddy_bench.ids import MethodId, MetricId
from eddy_bench.results.headroom import Headroom
from eddy_bench.results.io import escaped
from eddy_bench.results.results import Results
from eddy_bench.results.statistics import mean_interval
from eddy_bench.scoring.measure import Methods
from eddy_bench.scoring.metrics import BAD_IMAGES
from eddy_bench.storage.files import write_text

NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its 95% interval; pooled metrics and costs have none."""

    value: float
    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class MethodSummary:
    """What a run measured of a method.

    kernel: as resolved; empty for methods without one.
    groups, images, bad: how many there are, and how many images are bad.
    """

    method: MethodId
    kernel: str
    groups: int
    images: int
    bad: int
    values: Mapping[MetricId, Estimate]


def summarise(
    results: Results, methods: Methods, headrooms: Sequence[Headroom]
) -> list[MethodSummary]:
    """Return a summary of each method, with the groups that were drawn of it."""
    return [
        MethodSummary(
            method,
            groups[0].group.kernel,
            len(groups),
            sum(group.group.particles for group in groups),
            sum(len(group.bad) for group in groups),
            _values(results, method, headrooms),
        )
        for method, groups in methods.items()
    ]


def _values(
    results: Results, method: MethodId, headrooms: Sequence[Headroom]
) -> dict[MetricId, Estimate]:
    rows = results.rows(method)
    values = {
        column: _estimate(results, column, rows[rows["metric"] == column])
        for column in results.columns
        if column in set(rows["metric"])
    }
    costs = [column for column in values if results.metric(column).scope == "cost"]
    own = {one.column: one for one in headrooms if one.method == method}
    values |= {column: Estimate(one.value, one.low, one.high) for column, one in own.items()}
    others = [column for column in values if column not in costs]
    return {column: values[column] for column in [*others, *costs]}


def _estimate(results: Results, column: MetricId, rows: pd.DataFrame) -> Estimate:
    metric = results.metric(column)
    if metric.scope == "pooled":
        return Estimate(float(rows["value"].iloc[0]))
    if metric.scope == "cost":
        return Estimate(
            float(rows["value"].max() if metric.takes_highest else rows["value"].mean())
        )
    by_prompt = rows.groupby("prompt_id", sort=False, observed=True)["value"].mean()
    return Estimate(*mean_interval(by_prompt.to_numpy()))


def write_summary(folder: Path, results: Results, summaries: Sequence[MethodSummary]) -> None:
    """Write summary.csv: a row per method.

    Raises:
        StoreError: it cannot be written.

    """
    model, bad = results.frame["model"].iloc[0], any(own.bad for own in summaries)
    rows: list[dict[str, Any]] = []
    for own in summaries:
        row = {
            "model": model,
            "method": str(own.method),
            "kernel": own.kernel,
            "groups": own.groups,
            "images": own.images,
        }
        for column, estimate in own.values.items():
            row[str(column)] = estimate.value
            if results.metric(column).scope == "group" or estimate.low == estimate.low:
                row |= {f"{column}.low": estimate.low, f"{column}.high": estimate.high}
        rows.append(row | ({BAD_IMAGES: own.bad} if bad else {}))
    table = pd.DataFrame(rows)
    costs = [name for name in map(str, _costs(results)) if name in table]
    table = table[[name for name in table if name not in costs] + costs]
    write_text(folder / "summary.csv", escaped(table).to_csv(index=False, lineterminator="\n"))


def _costs(results: Results) -> list[MetricId]:
    return [own for own in results.columns if results.metric(own).scope == "cost"]

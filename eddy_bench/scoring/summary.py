"""One row per method from the rows of scores.csv."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from eddy_bench.scoring.bad_images import count_bad
from eddy_bench.scoring.ceiling import NAME, SIMILARITY, free_share, paired_distances
from eddy_bench.scoring.metrics import COSTS, METRICS, MetricSpec
from eddy_bench.scoring.signature import BAD_IMAGES
from eddy_bench.scoring.statistics import mean_interval
from eddy_bench.storage.group import FinishedGroup

BASELINE = "iid"


def summarise(
    by_method: Iterable[tuple[str, pd.DataFrame]], by_label: dict[str, list[FinishedGroup]]
) -> pd.DataFrame:
    """Return one row per (method, params).

    It holds means over prompts with 95% intervals, pooled metrics, shares of what is free and mean
    costs; and bad images, where there are any.
    """
    lines: list[dict[str, Any]] = []
    similarities: dict[str, pd.DataFrame] = {}
    for label, rows in by_method:
        lines.append(_line(rows, by_label[str(label)]))
        similarities[str(label)] = rows[rows["metric"] == SIMILARITY]
    for line, label in zip(lines, similarities, strict=True):
        line |= _free_shares(similarities, label)
    summary = pd.DataFrame(lines)
    costs = [name for name in COSTS if name in summary]
    summary = summary[[column for column in summary if column not in costs] + costs]
    bad = [count_bad(by_label[label]) for label in similarities]
    return summary.assign(**{BAD_IMAGES: bad}) if any(bad) else summary


def _free_shares(similarities: dict[str, pd.DataFrame], label: str) -> dict[str, float]:
    """Return a method's share of what is free under each extractor, with its interval."""
    if BASELINE not in similarities or label == BASELINE:
        return {}
    values: dict[str, float] = {}
    own = similarities[label]
    for extractor, rows in own.groupby(own["extractor"].astype(str), sort=False):
        iid = similarities[BASELINE]
        iid = iid[iid["extractor"].astype(str) == extractor]
        particles = int(rows["particles"].iloc[0])
        if particles < 2 or set(rows["signature"]) != set(iid["signature"]):
            continue
        free = free_share(*paired_distances(rows, iid), particles)
        name = f"{NAME}[{extractor}]"
        values |= {name: free.share, f"{name}.low": free.low, f"{name}.high": free.high}
    return values


def _line(rows: pd.DataFrame, groups: list[FinishedGroup]) -> dict[str, Any]:
    first = groups[0].group
    line: dict[str, Any] = {
        "model": rows["model"].iloc[0],
        "method": first.method,
        "params": first.parameters,
        "kernel": first.kernel,
        "groups": len(groups),
        "images": sum(group.group.particles for group in groups),
    }
    for column, values in rows.groupby(column_of(rows), sort=False):
        name = str(column)
        if (values["prompt_id"] == "").all():
            line[name] = float(values["value"].iloc[0])
        elif name in COSTS:
            numbers = values["value"]
            highest = METRICS[name].takes_highest
            line[name] = float(numbers.max() if highest else numbers.mean())
        else:
            by_prompt = values.groupby("prompt_id", sort=False)["value"].mean().to_numpy()
            line[name], line[f"{name}.low"], line[f"{name}.high"] = mean_interval(by_prompt)
    return line


def column_of(rows: pd.DataFrame) -> pd.Series:
    """Return the heading in summary.csv of each row of scores.csv: `vendi-q2[fmnist-clip]`."""
    keys = list(
        zip(
            rows["metric"].astype(str),
            rows["extractor"].astype(str),
            rows["signature"].astype(str),
            strict=True,
        )
    )
    columns = {key: MetricSpec.of_row(*key).column for key in dict.fromkeys(keys)}
    return pd.Series([columns[key] for key in keys], index=rows.index, dtype=object)

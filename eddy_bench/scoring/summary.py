"""One row per method from the rows of scores.csv."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from eddy_bench.scoring.metrics import COSTS
from eddy_bench.statistics import mean_interval
from eddy_bench.storage.group import FinishedGroup


def summarise(
    by_method: Iterable[tuple[str, pd.DataFrame]], by_label: dict[str, list[FinishedGroup]]
) -> pd.DataFrame:
    """One row per (method, params): means over prompts with 95% intervals, pooled metrics, mean costs."""
    lines = []
    for label, rows in by_method:
        order = rows["signature"].astype(str).str.extract(r"^vendi\|q=([^|]+)\|", expand=False)
        suffix = order.map(
            lambda q: f"-q{q}" if isinstance(q, str) and q != "1" else "", na_action=None
        )
        part = rows.assign(
            column=rows["metric"].astype(str)
            + suffix
            + rows["extractor"].map(lambda name: f"[{name}]" if name else "")
        )
        groups = by_label[str(label)]
        first = groups[0].group
        line: dict[str, Any] = {
            "model": part["model"].iloc[0],
            "method": first.method,
            "params": first.parameters,
            "kernel": first.kernel,
            "groups": len(groups),
        }
        line["images"] = sum(group.group.particles for group in groups)
        for column, values in part.groupby("column", sort=False):
            name = str(column)
            if (values["prompt_id"] == "").all():
                line[name] = float(values["value"].iloc[0])
            elif name in COSTS:
                line[name] = float(
                    values["value"].max() if name == "peak_memory_mb" else values["value"].mean()
                )
            else:
                by_prompt = values.groupby("prompt_id", sort=False)["value"].mean().to_numpy()
                line[name], line[f"{name}.low"], line[f"{name}.high"] = mean_interval(by_prompt)
        lines.append(line)
    found = pd.DataFrame(lines)
    costs = [name for name in COSTS if name in found]
    return found[[column for column in found if column not in costs] + costs]

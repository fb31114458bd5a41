"""What metrics and extractors were measured to take: `python benchmarks/pages/metric_cost.py`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

FILE = Path(__file__).parents[1] / "data" / "metric_costs.yaml"


@dataclass(frozen=True)
class Measured:
    """Hold what a metric or an extractor takes on two CPU cores, with 512-pixel images.

    seconds: per 1,000 images.
    memory_mb: beyond what the process takes without it, 10^6 bytes; None for functions of features,
        which take next to none.
    """

    seconds: float
    memory_mb: float | None = None

    def __str__(self) -> str:
        memory = f"{self.memory_mb / 1000:g} GB, " if self.memory_mb is not None else ""
        return f"{memory}{self.seconds:g} s per 1,000 images"


@cache
def measured() -> dict[str, Measured]:
    """Return what was measured, by the name of a metric, or of an extractor in brackets."""
    return {name: Measured(**row) for name, row in yaml.safe_load(FILE.read_text()).items()}


def of_metric(name: str, extractor: str = "") -> Measured | None:
    """Return what a metric takes: its own, or its only extractor's."""
    found = measured()
    return found.get(name) or found.get(f"[{extractor}]")

"""What drawing costs, counted per image in every group.json; what scoring was measured to take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import yaml

from eddy_bench.scoring.metric import Metric

FILE = Path(__file__).parents[1] / "data" / "metric_costs.yaml"


COUNTER = partial(Metric, needs="cost", higher_is_better=False, cost="none", digits=0)
METRICS = (
    COUNTER(
        "seconds_per_image",
        summary="solver seconds per image, guidance and decoding included",
        role="seconds",
        rank=3,
        title="s/image",
        digits=4,
    ),
    COUNTER(
        "nfe",
        summary="network evaluations per image, both branches of guidance counted",
        role="nfe",
        rank=9,
    ),
    COUNTER("decoder_calls", summary="decoder rows per image inside the method"),
    COUNTER("feature_forwards", summary="guide-network rows per image, forward"),
    COUNTER("feature_backwards", summary="guide-network rows per image, backward"),
    COUNTER(
        "peak_memory_mb",
        summary="peak memory of the process or GPU in a batch, MiB",
        role="memory",
        takes_highest=True,
    ),
)


@dataclass(frozen=True)
class MetricCost:
    """What a metric or an extractor takes on two CPU cores, with 512-pixel images."""

    seconds: float  # per 1,000 images
    # 10^6 bytes beyond what the process takes without it; None for functions of features, which
    # take next to none
    memory_mb: float | None = None

    def __str__(self) -> str:
        memory = f"{self.memory_mb / 1000:g} GB, " if self.memory_mb is not None else ""
        return f"{memory}{self.seconds:g} s per 1,000 images"


@cache
def metric_costs() -> dict[str, MetricCost]:
    """Return what was measured (`python benchmarks/pages/metric_cost.py`), by the name of a metric,
    or of an extractor in brackets.
    """
    return {name: MetricCost(**row) for name, row in yaml.safe_load(FILE.read_text()).items()}


def cost_of_metric(name: str, extractor: str = "") -> MetricCost | None:
    """Return what a metric takes: its own, or its only extractor's."""
    found = metric_costs()
    return found.get(name) or found.get(f"[{extractor}]")

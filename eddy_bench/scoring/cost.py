"""Costs of drawing, counted per image in every group.json."""

from __future__ import annotations

from typing import Any

from eddy_bench.scoring.metric import Metric


def _counter(name: str, summary: str, **more: Any) -> Metric:
    return Metric(name, "cost", False, summary, cost="none", **more)


METRICS = (
    _counter(
        "seconds_per_image", "solver seconds per image, guidance and decoding included", rank=3
    ),
    _counter("nfe", "network evaluations per image, both branches of guidance counted", rank=9),
    _counter("decoder_calls", "decoder rows per image inside the method"),
    _counter("feature_forwards", "guide-network rows per image, forward"),
    _counter("feature_backwards", "guide-network rows per image, backward"),
    _counter(
        "peak_memory_mb", "peak memory of the process or GPU in a batch, MiB", takes_highest=True
    ),
)

"""Rows of scores.csv from measured values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from eddy_bench.models.backbones import same_network
from eddy_bench.scoring.extractors import DINOV2
from eddy_bench.scoring.metrics import COSTS, METRICS
from eddy_bench.scoring.readings import Measured
from eddy_bench.scoring.signature import CIRCULAR, Signature
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import RunSettings


def cost_rows(groups: list[FinishedGroup], settings: RunSettings) -> list[dict[str, Any]]:
    """Return what drawing the groups cost, a row per group and counter."""
    rows = []
    for group in groups:
        for name in COSTS:
            value = group.cost.get(name, float("nan"))
            signature = Signature(name, (("N", str(group.group.particles)),))
            rows.append(score_row(Measured(group.group, name, "", value, signature), settings))
    return rows


def score_row(measured: Measured, settings: RunSettings) -> dict[str, Any]:
    """Return a row of scores.csv; pooled metrics have neither prompt nor seed."""
    metric = METRICS[measured.metric]
    row = row_of(measured, settings, metric.higher_is_better)
    return (
        row | dict.fromkeys(("prompt_id", "prompt", "seed"), "")
        if metric.scope == "pooled"
        else row
    )


def row_of(
    measured: Measured, settings: RunSettings, higher_is_better: bool = False
) -> dict[str, Any]:
    """Return a row of scores.csv for a value of a group."""
    group = measured.group
    return {
        "model": settings.model,
        "method": group.method,
        "params": group.parameters,
        "scheduler": settings.scheduler,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "particles": group.particles,
        "prompt_id": group.prompt_id,
        "prompt": group.prompt,
        "seed": group.seed,
        "metric": measured.metric,
        "extractor": measured.extractor,
        "value": measured.value,
        "higher_is_better": higher_is_better,
        "signature": str(measured.signature),
        "label": group.label,
    }


def without_infinity(measured: Measured) -> Measured:
    """Return a value without infinite ones, which no mean or interval can hold: NaN stands there.

    A group whose images have one has none itself.
    """
    finite = tuple(math.nan if math.isinf(value) else value for value in measured.images)
    broken = math.isinf(measured.value) or any(map(math.isinf, measured.images))
    return replace(measured, value=math.nan, images=finite) if broken else measured


def marked_circular(measured: Measured, settings: RunSettings, judge: str = "") -> Measured:
    """Mark a value as circular where its extractor is the network that also guided or judged.

    judge: as the method declared it when its groups were drawn; empty for none.
    """
    extractor = DINOV2 if measured.extractor == "dinov2" else measured.extractor
    if judge and same_network(extractor, judge):
        return replace(measured, signature=measured.signature.adding([CIRCULAR]))
    guide, _, digest = (settings.guide or "").rpartition("@")
    if not guide:
        return measured
    words = (part if isinstance(part, str) else part[1] for part in measured.signature.parts)
    seen = bool(digest) and any(word.endswith(f"@{digest}") for word in words)
    if not (seen or same_network(extractor, guide)):
        return measured
    signature = measured.signature.adding([CIRCULAR])
    return replace(measured, signature=signature)

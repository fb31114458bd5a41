"""The features of texts that a metric compares images with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eddy_bench.errors import MetricError
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.feature_cache import Scorer
from eddy_bench.scoring.metrics import MetricSpec


def with_texts(scorer: Scorer, spec: MetricSpec) -> Extractor:
    """Return a metric's extractor, which must have a text tower."""
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    if extractor.texts is None:
        raise MetricError(
            f"Metric {spec.name!r} needs an extractor with a text tower, got {extractor.name!r}. "
            "Use fmnist-clip or open_clip:MODEL/WEIGHTS."
        )
    if spec.metric.texts and extractor.name == "fmnist-clip":  # it knows words of garments alone
        raise MetricError(
            f"Metric {spec.name!r} asks for words that fmnist-clip was not taught. Name a CLIP of "
            f"photographs: {spec.name}[open_clip:ViT-B-32-quickgelu/openai]."
        )
    return extractor


def texts_of(
    extractor: Extractor, spec: MetricSpec, prompts: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the features of each prompt, or those of the metric's own texts."""
    assert extractor.texts is not None, "checked before"
    if spec.metric.texts:
        return dict.fromkeys(prompts, extractor.texts(spec.metric.texts))
    return dict(zip(prompts, extractor.texts(prompts), strict=True))

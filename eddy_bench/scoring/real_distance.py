"""What compares a method's features with real images, or with their saved statistics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from eddy_bench.errors import MetricError
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.feature_cache import Scorer
from eddy_bench.scoring.metric import read_only
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.scoring.reference import RealImages
from eddy_bench.scoring.reference_statistics import SavedStatistics


def to_real(
    scorer: Scorer, real: RealImages | SavedStatistics, spec: MetricSpec, extractor: Extractor
) -> tuple[Callable[[NDArray[np.float32]], float], int]:
    """Return what compares features with those of real images, and how many those are."""
    if isinstance(real, SavedStatistics):
        real.check(extractor)
        if spec.metric.moments is not None:
            return partial(_to_moments, spec.metric.moments, real), real.count
    reference = scorer.real_features(extractor)
    return lambda images: spec.metric(images, reference, **spec.values), len(reference)


def _to_moments(
    distance: Callable[..., float], real: SavedStatistics, images: NDArray[np.float32]
) -> float:
    if images.shape[1] != len(real.mean):
        raise MetricError(
            f"Expected statistics of {images.shape[1]} features in {real.source}, "
            f"got {len(real.mean)}. Write them again: eddy-bench reference."
        )
    return distance(*map(read_only, (images, real.mean, real.covariance)))

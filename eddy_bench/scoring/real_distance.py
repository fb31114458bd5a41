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
            return partial(_to_moments, spec.metric.moments, extractor, real), real.count
    reference = scorer.real_features(extractor)

    def distance(images: NDArray[np.float32]) -> float:
        _check_width(images, reference.shape[1], extractor, real)
        return spec.metric(images, reference, **spec.values)

    return distance, len(reference)


def _check_width(
    images: NDArray[np.float32],
    width: int,
    extractor: Extractor,
    real: RealImages | SavedStatistics,
) -> None:
    """Raise MetricError where real images have another number of features."""
    if images.shape[1] == width:
        return
    raise MetricError(
        f"Expected {images.shape[1]} features of {extractor.name} for each image of {real.name}, "
        f"got {width}. Give --reference images of the run's size"
        ", or their statistics written anew: eddy-bench reference."
    )


def _to_moments(
    distance: Callable[..., float],
    extractor: Extractor,
    real: SavedStatistics,
    images: NDArray[np.float32],
) -> float:
    _check_width(images, len(real.mean), extractor, real)
    return distance(*map(read_only, (images, real.mean, real.covariance)))

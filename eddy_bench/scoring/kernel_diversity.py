"""Diversity of a group by kernels of its unit features: Gaussian Vendi score, log-determinant."""

from __future__ import annotations

import math

import numpy as np

from eddy_bench.scoring.diversity import (
    Features,
    directions,
    effective_number,
    squared_distances,
)
from eddy_bench.scoring.metric import Metric, Parameter


def gaussian_vendi(features: Features, h: float = 0.6, q: float = 1.0) -> float:
    """Return the Vendi score under K_ij = exp(-|z_i - z_j|^2 / (2 h^2)), z unit features, 1 to N.

    Other than under the cosine kernel, features that point apart reach N as h falls.

    >>> round(gaussian_vendi(np.eye(3), h=0.1), 6)
    3.0
    """
    square = squared_distances(directions(features))
    return effective_number(np.exp(-square / (2 * h**2)), q)


def log_determinant(features: Features) -> float:
    """Return log det(1 + K), K the cosine kernel: log(N + 1) for equal images, N log 2 at most.

    The log-normaliser of the determinantal point process with that kernel; higher is more diverse.

    >>> round(log_determinant(np.eye(3)), 4)  # 3 log 2
    2.0794
    """
    z = directions(features)
    if not np.isfinite(z).all():
        return math.nan
    return float(np.linalg.slogdet(np.eye(len(z)) + z @ z.T).logabsdet)


METRICS = (
    Metric(
        "vendi-rbf",
        "features",
        True,
        "effective number of different images under a Gaussian kernel of width h, 1 to N",
        "arXiv 2210.02410",
        function=gaussian_vendi,
        parameters=(
            Parameter("h", default=0.6, above=1e-6, below=1000.0),  # distances round at 1e-8
            Parameter("q", default=1.0, above=0.0, below=1000.0),
        ),
        marks=(("k", "rbf"),),
        judges="diversity",
        range=(1.0, float("inf")),
    ),
    Metric(
        "logdet",
        "features",
        True,
        "log det(1 + K), K the cosine kernel: log(N + 1) for equal images to N log 2",
        "arXiv 1207.6083",
        function=log_determinant,
        marks=(("k", "cos"),),
        judges="diversity",
        range=(0.0, float("inf")),
    ),
)

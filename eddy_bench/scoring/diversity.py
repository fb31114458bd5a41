"""Diversity within one group, from features (N, F) or predicted attributes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eddy_bench.models.attributes import Attributes
from eddy_bench.scoring.metric import Metric, Parameter

Features = NDArray[np.floating]


def unit(features: Features) -> NDArray[np.float64]:
    """Return rows of length 1, in float64; a zero row stays zero."""
    features = np.asarray(features, np.float64)
    length: NDArray[np.float64] = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def directions(features: Features) -> NDArray[np.float64]:
    """Return rows of length 1, (N, F + 1), in float64, of which equal images have equal ones.

    Features of nothing but zeros, as of black images under `pixels`, have a direction of their own:
    they are like each other, and like nothing else.
    """
    z = unit(features)
    return np.concatenate([z, ~z.any(-1, keepdims=True)], -1)


def squared_distances(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared distances of rows, (N, N): exactly 0 between equal rows."""
    square = np.zeros((len(z), len(z)))
    for k, row in enumerate(z):
        square[k, k + 1 :] = np.square(z[k + 1 :] - row).sum(-1)
    return square + square.T


def vendi(features: Features, q: float = 1.0) -> float:
    """Return the Vendi score (arXiv 2210.02410).

    It is the exponential of the Renyi entropy of order q of the eigenvalues of K / N, K the cosine
    kernel.

    Returns:
        1 (all the same) to N (all orthogonal); higher is more diverse. q = 1 is Shannon's,
        q = 2 is RKE. NaN where a feature is not finite.

    >>> round(vendi(np.eye(4)), 6)
    4.0
    """
    z = directions(features)
    return effective_number(z @ z.T, q)


def effective_number(kernel: NDArray[np.float64], q: float = 1.0) -> float:
    """Return the exponential of the Renyi entropy of order q of the eigenvalues of K / N.

    K is 1 on its diagonal; where it is not finite there is none.
    """
    if not np.isfinite(kernel).all():
        return math.nan
    values = np.clip(np.linalg.eigvalsh(kernel / len(kernel)), 0, None)
    values = values[values > 1e-12]
    values = values / values.sum()
    if q == 1:
        return float(np.exp(-(values * np.log(values)).sum()))
    largest = values.max()  # taken out, so that no power of it vanishes
    power = q * np.log(largest) + np.log(((values / largest) ** q).sum())
    return float(np.exp(power / (1 - q)))


def mean_similarity(features: Features) -> float:
    """Return the mean cosine similarity over pairs i < j, -1 to 1.

    Lower is more diverse; NaN at N = 1. Exactly 1 where all are the same.

    >>> mean_similarity(np.eye(3))
    0.0
    """
    square = squared_distances(directions(features))[np.triu_indices(len(features), 1)]
    return float(1 - square.mean() / 2) if len(square) else float("nan")


def pairwise_distance(features: Features) -> float:
    """Return the mean Euclidean distance of unit-normalised features over pairs i < j, 0 to 2.

    Higher is more diverse; NaN at N = 1.

    >>> round(pairwise_distance(np.eye(3)) ** 2, 6)
    2.0
    """
    square = squared_distances(directions(features))[np.triu_indices(len(features), 1)]
    return float(np.sqrt(square).mean()) if len(square) else float("nan")


def distinct_attributes(predicted: NDArray[np.int64], wanted: Attributes) -> float:
    """Return how many combinations of the attributes that a prompt leaves free are there, 1 to N.

    NaN where the prompt leaves none.
    """
    words = (wanted.garment, wanted.tone, wanted.shape)
    free = [k for k, value in enumerate(words) if value is None]
    return float(len(np.unique(predicted[:, free], axis=0))) if free else float("nan")


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
        "vendi",
        "features",
        True,
        "effective number of different images in a group, 1 to N; q is the Renyi order",
        "arXiv 2210.02410",
        function=vendi,
        parameters=(Parameter("q", default=1.0, above=0.0, below=1000.0),),
        marks=(("k", "cos"),),
        aspect="diversity",
        rank=0,
        range=(1.0, math.inf),
    ),
    Metric(
        "pdist",
        "features",
        True,
        "mean distance of unit-normalised features over pairs of a group, 0 to 2",
        function=pairwise_distance,
        aspect="diversity",
        rank=4,
        range=(0.0, 2.0),
    ),
    Metric(
        "mss",
        "features",
        False,
        "mean cosine similarity over pairs of a group, -1 to 1",
        function=mean_similarity,
        aspect="diversity",
        role="similarity",
        range=(-1.0, 1.0),
    ),
    Metric(
        "attributes",
        "attributes",
        True,
        "distinct combinations of the attributes that the prompt leaves free, 1 to N",
        cost="classifier",
        function=distinct_attributes,
        extractor="classifier",
        aspect="diversity",
        rank=9,
        range=(1.0, math.inf),
    ),
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
        aspect="diversity",
        range=(1.0, math.inf),
    ),
    Metric(
        "logdet",
        "features",
        True,
        "log det(1 + K), K the cosine kernel: log(N + 1) for equal images to N log 2",
        "arXiv 1207.6083",
        function=log_determinant,
        marks=(("k", "cos"),),
        aspect="diversity",
        range=(0.0, math.inf),
    ),
)

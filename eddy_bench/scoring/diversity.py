"""Diversity within one group, from features (N, F)."""

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
    return features / np.maximum(length, 1e-12)


def vendi(features: Features, q: float = 1.0) -> float:
    """Return the Vendi score (arXiv 2210.02410).

    It is the exponential of the Renyi entropy of order q of the eigenvalues of K / N, K the cosine
    kernel.

    Returns:
        1 (all the same) to N (all orthogonal); higher is more diverse. q = 1 is Shannon's,
        q = 2 is RKE.

    >>> round(vendi(np.eye(4)), 6)
    4.0

    """
    z = unit(features)
    return effective_number(z @ z.T, q)


def effective_number(kernel: NDArray[np.float64], q: float = 1.0) -> float:
    """Return the exponential of the Renyi entropy of order q of the eigenvalues of K / N."""
    values = np.clip(np.linalg.eigvalsh(kernel / len(kernel)), 0, None)
    values = values[values > 1e-12]
    values = values / values.sum()
    if not len(values):  # features of nothing but zeros
        return math.nan
    if q == 1:
        return float(np.exp(-(values * np.log(values)).sum()))
    largest = values.max()  # taken out, so that no power of it vanishes
    power = q * np.log(largest) + np.log(((values / largest) ** q).sum())
    return float(np.exp(power / (1 - q)))


def mean_similarity(features: Features) -> float:
    """Return the mean cosine similarity over pairs i < j, -1 to 1.

    Lower is more diverse; NaN at N = 1.

    >>> mean_similarity(np.eye(3))
    0.0
    """
    z = unit(features)
    i, j = np.triu_indices(len(z), 1)
    return float((z[i] * z[j]).sum(1).mean()) if len(i) else float("nan")


def pairwise_distance(features: Features) -> float:
    """Return the mean Euclidean distance of unit-normalised features over pairs i < j, 0 to 2.

    Higher is more diverse; NaN at N = 1.

    >>> round(pairwise_distance(np.eye(3)) ** 2, 6)
    2.0
    """
    z = unit(features)
    i, j = np.triu_indices(len(z), 1)
    return float(np.linalg.norm(z[i] - z[j], axis=1).mean()) if len(i) else float("nan")


def distinct_attributes(predicted: NDArray[np.int64], wanted: Attributes) -> float:
    """Return how many combinations of the attributes that a prompt leaves free are there, 1 to N.

    NaN where the prompt leaves none.
    """
    words = (wanted.garment, wanted.tone, wanted.shape)
    free = [k for k, value in enumerate(words) if value is None]
    return float(len(np.unique(predicted[:, free], axis=0))) if free else float("nan")


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
        judges="diversity",
        rank=0,
        range=(1.0, math.inf),
    ),
    Metric(
        "pdist",
        "features",
        True,
        "mean distance of unit-normalised features over pairs of a group, 0 to 2",
        function=pairwise_distance,
        judges="diversity",
        rank=4,
        range=(0.0, 2.0),
    ),
    Metric(
        "mss",
        "features",
        False,
        "mean cosine similarity over pairs of a group, -1 to 1",
        function=mean_similarity,
        judges="diversity",
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
        judges="diversity",
        rank=9,
        range=(1.0, math.inf),
    ),
)

"""Fidelity: agreement with the text, and how sets of features lie to each other."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from eddy_bench.models.attributes import Attributes
from eddy_bench.scoring import frechet
from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.frechet import Given, frechet_distance
from eddy_bench.scoring.metric import Metric


def clip_score(images: Features, text: Features) -> float:
    """Return 100 cosine(image, text), mean over images, without a clamp: -100 to 100.

    Higher is better. arXiv 2104.08718 multiplies by 2.5 and clamps.

    Args:
        images: (N, F). text: (F,).

    """
    return float(100 * (unit(images) @ unit(text)).mean())


def clip_of_images(images: Features, text: Features) -> NDArray[np.float64]:
    """Return 100 cosine(image, text) of each image, (N,)."""
    cosines: NDArray[np.float64] = 100 * (unit(images) @ unit(text))
    return cosines


def kernel_distance(candidate: Features, reference: Features, subset: int = 1000) -> float:
    """Return KID: the unbiased squared MMD with the cubic kernel (arXiv 1801.01401).

    It is the mean over 50 subsets drawn with a fixed seed; lower is better, around 0 when equal.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(candidate), len(reference), subset)
    if size < 2:
        return float("nan")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # about the memory that stored features take
        torch.manual_seed(0)
        metric = KernelInceptionDistance(
            feature=Given(candidate.shape[1]), subsets=50, subset_size=size
        )
        metric.update(torch.from_numpy(np.asarray(reference, np.float32)), real=True)
        metric.update(torch.from_numpy(np.asarray(candidate, np.float32)), real=False)
        return float(metric.compute()[0])


def _radii(features: torch.Tensor, k: int) -> torch.Tensor:
    """Return the distance of each point to its k-th nearest neighbour."""
    return torch.cdist(features, features).kthvalue(k + 1, dim=1).values


def precision_recall(candidate: Features, reference: Features, k: int = 3) -> tuple[float, float]:
    """Return improved precision and recall with k-nearest-neighbour balls (arXiv 1904.06991).

    Each is 0 to 1, higher is better; NaN when a set has no more than k points.
    """
    if min(len(candidate), len(reference)) <= k:
        return float("nan"), float("nan")
    fake, real = (torch.from_numpy(np.asarray(x, np.float64)) for x in (candidate, reference))
    distance = torch.cdist(fake, real)
    precision = (distance <= _radii(real, k)[None]).any(1).double().mean()
    recall = (distance <= _radii(fake, k)[:, None]).any(0).double().mean()
    return float(precision), float(recall)


def density_coverage(candidate: Features, reference: Features, k: int = 5) -> tuple[float, float]:
    """Return density and coverage with real images' k-nearest-neighbour balls (arXiv 2002.09797).

    Density is 0 up, 1 when the sets are alike; coverage 0 to 1; NaN when a set is empty or the
    reference has no more than k points.
    """
    if not len(candidate) or len(reference) <= k:
        return float("nan"), float("nan")
    fake, real = (torch.from_numpy(np.asarray(x, np.float64)) for x in (candidate, reference))
    inside = torch.cdist(real, fake) < _radii(real, k)[:, None]
    return float(inside.double().sum(0).mean() / k), float(inside.any(1).double().mean())


def align(predicted: NDArray[np.int64], wanted: Attributes) -> float:
    """Return the share of images whose predicted attributes match every word of the prompt, 0 to 1.

    NaN for a prompt that fixes nothing.

    Args:
        predicted: (N, 3): class, tone, shape.

    """
    words = (wanted.garment, wanted.tone, wanted.shape)
    fixed = [(k, value) for k, value in enumerate(words) if value is not None]
    if not fixed:
        return float("nan")
    return float(np.all([predicted[:, k] == value for k, value in fixed], axis=0).mean())


def _precision(candidate: Features, reference: Features) -> float:
    return precision_recall(candidate, reference)[0]


def _recall(candidate: Features, reference: Features) -> float:
    return precision_recall(candidate, reference)[1]


def _density(candidate: Features, reference: Features) -> float:
    return density_coverage(candidate, reference)[0]


def _coverage(candidate: Features, reference: Features) -> float:
    return density_coverage(candidate, reference)[1]


def drift(slots: Features, reference: Features) -> float:
    """Return the Frechet distance of one slot per group to i.i.d. images, mean over the slots.

    Args:
        slots: (groups, N, F) of a method.
        reference: (groups, F) of disjoint i.i.d. images of the same prompts and seeds.

    """
    distances = [frechet_distance(slots[:, slot], reference) for slot in range(slots.shape[1])]
    return float(np.mean(distances))


METRICS = (
    Metric(
        "clip",
        "text",
        True,
        "100 cosine(image, text), mean over images",
        "arXiv 2104.08718",
        function=clip_score,
        each=clip_of_images,
        marks=("100cos",),
        judges="fidelity",
        rank=1,
        range=(-100.0, 100.0),
    ),
    Metric(
        "align",
        "attributes",
        True,
        "share of images whose attributes match the prompt's words, 0 to 1",
        cost="classifier",
        function=align,
        extractor="classifier",
        judges="fidelity",
        rank=5,
        range=(0.0, 1.0),
    ),
    *frechet.METRICS,
    Metric(
        "kid",
        "real",
        False,
        "unbiased squared MMD, cubic kernel, to real images",
        "arXiv 1801.01401",
        function=kernel_distance,
    ),
    Metric(
        "precision",
        "real",
        True,
        "share of images inside the real images' manifold, 0 to 1",
        "arXiv 1904.06991",
        function=_precision,
        range=(0.0, 1.0),
    ),
    Metric(
        "recall",
        "real",
        True,
        "share of real images inside the images' manifold, 0 to 1",
        "arXiv 1904.06991",
        function=_recall,
        range=(0.0, 1.0),
    ),
    Metric(
        "density",
        "real",
        True,
        "how many real images' balls hold an image, relative to k; 0 up, 1 when equal",
        "arXiv 2002.09797",
        function=_density,
        range=(0.0, math.inf),
    ),
    Metric(
        "coverage",
        "real",
        True,
        "share of real images whose ball holds an image, 0 to 1",
        "arXiv 2002.09797",
        function=_coverage,
        range=(0.0, 1.0),
    ),
    Metric(
        "drift",
        "iid",
        False,
        "Frechet distance of one slot per group to a disjoint i.i.d. set, mean over slots",
        function=drift,
        flags_small_sample=True,
        rank=2,
        range=(0.0, math.inf),
    ),
    Metric(
        "free_share",
        "scores",
        True,
        "gain in squared distances of pairs over the most that kept distributions allow; above 1 "
        "samples have moved",
        "docs/ceiling.md",
        implied=True,
        rank=3,
    ),
    Metric(
        "drift_floor",
        "iid",
        False,
        "the same for i.i.d. samples: what drift is without any",
        function=drift,
        flags_small_sample=True,
        implied=True,
        range=(0.0, math.inf),
    ),
)

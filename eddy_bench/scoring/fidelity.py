"""Fidelity: agreement with the text, and how sets of features lie to each other."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from eddy_bench.models.attributes import Attributes
from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.metric import Metric

BLOCK = 2**23  # kernel values at once: 64 MB


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


def kernel_distance(candidate: Features, reference: Features) -> float:
    """Return KID: the unbiased squared MMD with the cubic kernel (arXiv 1801.01401).

    It is over all pairs of the two sets, which need not be of one size; lower is better, around 0
    when equal. NaN below 2 samples.
    """
    if min(len(candidate), len(reference)) < 2:
        return float("nan")
    x, y = (torch.from_numpy(np.asarray(side, np.float64)) for side in (candidate, reference))
    within = sum(
        (_cubic_sum(z, z) - _cubic(z.square().sum(1), z)) / (len(z) * (len(z) - 1)) for z in (x, y)
    )
    return within - 2 * _cubic_sum(x, y) / (len(x) * len(y))


def _cubic(products: torch.Tensor, like: torch.Tensor) -> float:
    return float((products / like.shape[1] + 1).pow(3).sum())


def _cubic_sum(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the sum of the cubic kernel over all of x and all of y, some rows at a time."""
    return sum(_cubic(rows @ y.T, x) for rows in x.split(max(1, BLOCK // len(y))))


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


def drift(slots: Features, reference: Features) -> float:
    """Return the Frechet distance of one slot per group to i.i.d. images, mean over the slots.

    Args:
        slots: (groups, N, F) of a method.
        reference: (groups, F) of disjoint i.i.d. images of the same prompts and seeds.
    """
    return float(np.mean([frechet_distance(slots[:, k], reference) for k in range(slots.shape[1])]))


class Given(torch.nn.Module):
    """Pass on features that are there already, for torchmetrics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return features


def frechet_distance(candidate: Features, reference: Features) -> float:
    """Return the Frechet distance of two Gaussians fitted to features, in float64; lower is better.

    Biased upwards at small samples: compare equal sizes only. NaN below 2 samples.

    The trace of the root of the product of covariances is the sum of the singular values of
    `C R^T`, (n, m), with the centred features C and R as rows over sqrt(n - 1): where that is
    no larger than covariances (F, F) it is up to thousands of times faster, and free of the
    rounding of their zero eigenvalues. Elsewhere torchmetrics computes it.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(candidate), len(reference)) < 2:
        return float("nan")
    width = candidate.shape[1]
    own, other = (torch.from_numpy(np.asarray(x, np.float64)) for x in (candidate, reference))
    if len(own) * len(other) <= width**2:
        offset = (own.mean(0) - other.mean(0)).square().sum()
        rows, columns = _centred(own), _centred(other)
        roots = torch.linalg.svdvals(rows @ columns.T).sum()
        spreads = rows.square().sum() + columns.square().sum()
        return max(float(offset + spreads - 2 * roots), 0.0)
    metric = FrechetInceptionDistance(feature=Given(width)).set_dtype(torch.float64)
    metric.update(other, real=True)
    metric.update(own, real=False)
    return max(float(metric.compute()), 0.0)


def frechet_to_moments(
    candidate: Features, mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> float:
    """Return `frechet_distance` to a Gaussian whose moments were saved, by the same formula.

    Args:
        candidate: (n, F). mean: (F,). covariance: (F, F), with n - 1 in the denominator.
    """
    if len(candidate) < 2:
        return float("nan")
    own, other = torch.from_numpy(np.asarray(candidate, np.float64)), torch.from_numpy(covariance)
    rows = _centred(own)
    if len(own) <= len(mean):
        roots = torch.linalg.eigvalsh(rows @ other @ rows.T).clamp(min=0).sqrt().sum()
    else:
        roots = torch.linalg.eigvals(rows.T @ rows @ other).sqrt().real.sum()
    offset = (own.mean(0) - torch.from_numpy(mean)).square().sum()
    return max(float(offset + rows.square().sum() + other.trace() - 2 * roots), 0.0)


def _centred(features: torch.Tensor) -> torch.Tensor:
    """Return rows whose products with themselves are the covariance."""
    return (features - features.mean(0)) / math.sqrt(len(features) - 1)


def cmmd(candidate: Features, reference: Features, width: float = 10.0) -> float:
    """Return CMMD (arXiv 2401.09603); 0 when equal.

    It is 1000 times the squared MMD (V-statistic) of unit features under the kernel
    exp(-|x - y|^2 / (2 width^2)).

    Its authors take CLIP ViT-L/14 at 336 pixels; the extractor is in the signature.
    """
    x, y = (torch.from_numpy(unit(side)) for side in (candidate, reference))

    def mean(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        distance = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-distance.square() / (2 * width**2)).mean()

    return float(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)))


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
        aspect="fidelity",
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
        aspect="fidelity",
        rank=5,
        range=(0.0, 1.0),
    ),
    Metric(
        "fd",
        "real",
        False,
        "Frechet distance to real images under any extractor",
        "arXiv 1706.08500",
        role="reference-distance",
        function=frechet_distance,
        moments=frechet_to_moments,
        flags_small_sample=True,
        rank=6,
        range=(0.0, math.inf),
    ),
    *(
        Metric(
            name,
            "real",
            False,
            "Frechet distance under the Inception-v3 FID weights"
            + (f", images resized as {tool} does" if tool else ""),
            citation,
            "Inception-v3",
            function=frechet_distance,
            moments=frechet_to_moments,
            extractor=name.replace("fid", "inception", 1),
            licence="Apache-2.0",
            download="95 MB",
            flags_small_sample=True,
            role="reference-distance" if name == "fid" else "",
            rank=7 if name == "fid" else None,
            range=(0.0, math.inf),
        )
        for name, tool, citation in (
            ("fid", "", "arXiv 1706.08500"),
            ("fid-clean", "clean-fid", "arXiv 2104.11222"),
            ("fid-torch-fidelity", "torch-fidelity", "github.com/toshas/torch-fidelity"),
        )
    ),
    Metric(
        "kid",
        "real",
        False,
        "unbiased squared MMD of all pairs, cubic kernel, to real images",
        "arXiv 1801.01401",
        role="reference-distance",
        function=kernel_distance,
        marks=("all pairs",),
    ),
    Metric(
        "precision",
        "real",
        True,
        "share of images inside the real images' manifold, 0 to 1",
        "arXiv 1904.06991",
        function=lambda own, real: precision_recall(own, real)[0],
        range=(0.0, 1.0),
    ),
    Metric(
        "recall",
        "real",
        True,
        "share of real images inside the images' manifold, 0 to 1",
        "arXiv 1904.06991",
        role="reference-distance",
        function=lambda own, real: precision_recall(own, real)[1],
        range=(0.0, 1.0),
    ),
    Metric(
        "density",
        "real",
        True,
        "how many real images' balls hold an image, relative to k; 0 up, 1 when equal",
        "arXiv 2002.09797",
        function=lambda own, real: density_coverage(own, real)[0],
        range=(0.0, math.inf),
    ),
    Metric(
        "coverage",
        "real",
        True,
        "share of real images whose ball holds an image, 0 to 1",
        "arXiv 2002.09797",
        function=lambda own, real: density_coverage(own, real)[1],
        range=(0.0, 1.0),
    ),
    Metric(
        "drift",
        "iid",
        False,
        "Frechet distance of one slot per group to a disjoint i.i.d. set, mean over slots",
        role="hold-out",
        function=drift,
        flags_small_sample=True,
        rank=2,
        range=(0.0, math.inf),
    ),
    Metric(
        "headroom",
        "scores",
        True,
        "gain in squared distances of pairs, 1 the most that marginal-preserving methods reach; "
        "above it marginals have shifted",
        "docs/studies/ceiling.md",
        role="headroom",
        implied=True,
        rank=3,
    ),
    Metric(
        "drift_floor",
        "iid",
        False,
        "the same for i.i.d. samples: what drift is without any",
        role="hold-out floor",
        function=drift,
        flags_small_sample=True,
        implied=True,
        range=(0.0, math.inf),
    ),
    Metric(
        "cmmd",
        "real",
        False,
        "1000 times the squared MMD of unit features, Gaussian kernel of width 10, to real images",
        "arXiv 2401.09603",
        function=cmmd,
        range=(0.0, math.inf),
    ),
)

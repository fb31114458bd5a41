"""Frechet distances between Gaussians fitted to features (arXiv 1706.08500)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from eddy_bench.scoring.diversity import Features
from eddy_bench.scoring.metric import Metric


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
    own, other = (
        torch.from_numpy(np.asarray(features, np.float64)) for features in (candidate, reference)
    )
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


METRICS = (
    Metric(
        "fd",
        "real",
        False,
        "Frechet distance to real images under any extractor",
        "arXiv 1706.08500",
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
            f"Frechet distance under the Inception-v3 FID weights{more}",
            citation,
            "Inception-v3",
            function=frechet_distance,
            moments=frechet_to_moments,
            extractor=name.replace("fid", "inception", 1),
            licence="Apache-2.0",
            download="95 MB",
            flags_small_sample=True,
            rank=7 if name == "fid" else None,
            range=(0.0, math.inf),
        )
        for name, more, citation in (
            ("fid", "", "arXiv 1706.08500"),
            ("fid-clean", ", images resized as clean-fid does", "arXiv 2104.11222"),
            (
                "fid-torch-fidelity",
                ", images resized as torch-fidelity does",
                "github.com/toshas/torch-fidelity",
            ),
        )
    ),
)

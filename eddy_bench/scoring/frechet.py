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
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(candidate), len(reference)) < 2:
        return float("nan")
    metric = FrechetInceptionDistance(feature=Given(candidate.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(np.asarray(reference, np.float64)), real=True)
    metric.update(torch.from_numpy(np.asarray(candidate, np.float64)), real=False)
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
    own = np.asarray(candidate, np.float64)
    spread = np.atleast_2d(np.cov(own, rowvar=False))
    roots = torch.linalg.eigvals(torch.from_numpy(spread @ covariance)).sqrt().real.sum()
    offset = np.square(own.mean(0) - mean).sum()
    return max(float(offset + spread.trace() + covariance.trace() - 2 * float(roots)), 0.0)


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

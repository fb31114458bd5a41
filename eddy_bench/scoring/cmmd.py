"""CMMD: a kernel distance of unit features to those of real images (arXiv 2401.09603)."""

from __future__ import annotations

import math

import numpy as np
import torch

from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.metric import Metric


def cmmd(candidate: Features, reference: Features, width: float = 10.0) -> float:
    """Return CMMD (arXiv 2401.09603); 0 when equal.

    It is 1000 times the squared MMD (V-statistic) of unit features under the kernel
    exp(-|x - y|^2 / (2 width^2)).

    Its authors take CLIP ViT-L/14 at 336 pixels; the extractor is in the signature.
    """
    sides = [
        torch.from_numpy(np.asarray(unit(np.asarray(x, np.float64))))
        for x in (candidate, reference)
    ]

    def mean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(
            -torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
            / (2 * width**2)
        ).mean()

    return float(
        1000 * (mean(sides[0], sides[0]) + mean(sides[1], sides[1]) - 2 * mean(sides[0], sides[1]))
    )


METRICS = (
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

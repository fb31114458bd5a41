"""1 - MS-SSIM over pairs of a group: how little structure two images share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eddy_bench.models.images import channels_first, enlarged
from eddy_bench.scoring.forward import Forward, Row
from eddy_bench.scoring.metric import Judge, Metric, mean_of

SMALLEST_SIDE = 176  # pixels: four halvings leave a window of 11
PIXELS = 2**21  # of a batch
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
K1, K2 = 0.01, 0.03


def load_ms_ssim(weights: Path | None, device: torch.device) -> Judge:
    """Return what judges pairs of images; those with a side below 176 pixels are enlarged."""
    return Judge(Forward("ms-ssim", ms_ssim_distance, device, _both, pixels=PIXELS), "")


def _both(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(np.stack([row[side] for row in rows])) for side in (0, 1))
    return first, second


def ms_ssim_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - MS-SSIM of pairs of images, (n,): 0 when equal, at most 1.

    The product over five scales is taken in each colour channel, as the paper takes it of grey
    images, and the mean is over channels. torchmetrics takes the mean over channels before the
    product, and its last scale counts reflected borders.

    Args:
        first: (n, h, w, 3) or (n, h, w), 0 to 255.
        second: the same.

    """
    one, other = (
        enlarged(channels_first(pixels).float() / 255, SMALLEST_SIDE) for pixels in (first, second)
    )
    return 1 - ms_ssim(one.flatten(0, 1), other.flatten(0, 1)).reshape(one.shape[:2]).mean(1)


def ms_ssim(one: Tensor, other: Tensor) -> Tensor:
    """Return prod_k mean(contrast_k structure_k)^w_k, with the luminance at the coarsest scale.

    A negative factor counts as 0.

    Args:
        one: grey images, (n, h, w), 0 to 1. other: the same.

    """
    product = torch.ones(len(one), device=one.device)
    for scale, weight in enumerate(WEIGHTS):
        alike = _similarities(one, other, luminance=scale + 1 == len(WEIGHTS))
        product = product * alike.mean((1, 2)).clamp_min(0) ** weight
        one, other = (torch.nn.functional.avg_pool2d(side, 2) for side in (one, other))
    return product


def _similarities(one: Tensor, other: Tensor, luminance: bool) -> Tensor:
    """Return contrast times structure, times luminance if it is wanted, at each place."""
    mean, mean_of_other = _blurred(one), _blurred(other)
    covariance = _blurred(one * other) - mean * mean_of_other
    squares = mean.square() + mean_of_other.square()
    variances = _blurred(one.square() + other.square()) - squares
    alike = (2 * covariance + K2**2) / (variances + K2**2)
    return alike * (2 * mean * mean_of_other + K1**2) / (squares + K1**2) if luminance else alike


def _blurred(images: Tensor) -> Tensor:
    """Return means under a Gaussian window of 11 pixels and deviation 1.5, where it fits whole."""
    window = torch.exp(-(torch.arange(-5, 6, device=images.device).float() ** 2) / (2 * 1.5**2))
    window = (window / window.sum()).reshape(1, 1, 1, -1)
    along = torch.nn.functional.conv2d(images[:, None], window)
    return torch.nn.functional.conv2d(along, window.mT)[:, 0]


METRICS = (
    Metric(
        "ms-ssim",
        "pairs",
        True,
        "1 - MS-SSIM, mean over pairs of a group: 0 for equal images",
        "Wang et al. 2003",
        "no network",
        function=mean_of,
        load=load_ms_ssim,
        marks=(("size", f"{SMALLEST_SIDE}+"), ("channels", "mean"), "1-ms-ssim"),
        judges="diversity",
        range=(0.0, 1.0),
    ),
)

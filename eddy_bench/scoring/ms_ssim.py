"""1 - MS-SSIM over pairs of a group: how little structure two images share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eddy_bench.models.images import channels_first
from eddy_bench.scoring.forward import Forward, Row
from eddy_bench.scoring.metric import Judge, Metric, mean_of

SMALLEST_SIDE = 176  # pixels: four halvings leave a window of 11
PIXELS = 2**21  # of a batch


def load_ms_ssim(weights: Path | None, device: torch.device) -> Judge:
    """Return what judges pairs of images; those with a side below 176 pixels are enlarged."""
    return Judge(Forward("ms-ssim", ms_ssim_distance, device, _both, pixels=PIXELS), "")


def _both(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(np.stack([row[side] for row in rows])) for side in (0, 1))
    return first, second


def ms_ssim_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - MS-SSIM of pairs of images, (n,): 0 when equal, at most 1; torchmetrics' MS-SSIM.

    Where images are so opposed that it is not defined, it counts as 0.

    Args:
        first: (n, h, w, 3), 0 to 255.
        second: the same.

    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    likeness = multiscale_structural_similarity_index_measure(
        _prepared(first), _prepared(second), reduction="none", data_range=1.0
    )
    return 1 - torch.nan_to_num(likeness)  # products of negative terms to fractional powers


def _prepared(pixels: Tensor) -> Tensor:
    images = channels_first(pixels).float() / 255
    smallest = min(images.shape[-2:])
    if smallest >= SMALLEST_SIDE:
        return images
    return torch.nn.functional.interpolate(
        images, scale_factor=SMALLEST_SIDE / smallest, mode="bilinear", align_corners=False
    )


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
        marks=(("size", f"{SMALLEST_SIDE}+"), "1-ms-ssim"),
        judges="diversity",
        range=(0.0, 1.0),
    ),
)

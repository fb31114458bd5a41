"""LPIPS: a learned perceptual distance of two images (arXiv 1801.03924)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.images import image_tensor
from eddy_bench.scoring.extractors import file_digest, find_weights

ALEXNET = "alexnet-owt-7be5be79.pth"
SMALLEST_SIDE = 64  # pixels; AlexNet's strides need as many


def mean_perceptual_distance(
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], images: Sequence[Image.Image]
) -> float:
    """Return the mean learned distance over pairs i < j; higher is more diverse; NaN at N = 1.

    Images under 64 pixels are enlarged.

    Args:
        distance: of two (n, 3, h, w) batches in [-1, 1].
        images: N of one size.

    """
    batch = torch.stack([image_tensor(image.convert("RGB")) for image in images])
    if min(batch.shape[-2:]) < SMALLEST_SIDE:
        batch = torch.nn.functional.interpolate(
            batch,
            scale_factor=SMALLEST_SIDE / min(batch.shape[-2:]),
            mode="bilinear",
            align_corners=False,
        )
    i, j = np.triu_indices(len(batch), 1)
    if not len(i):
        return float("nan")
    with torch.inference_mode():
        return float(distance(batch[i], batch[j]).mean())


def load_lpips(
    weights: Path | None,
) -> tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]:
    """Load LPIPS with the AlexNet backbone.

    Returns a function of two (n, 3, h, w) batches in [-1, 1], and the digest of its weights.

    torchmetrics has the linear layers; the backbone's file must be at hand.
    """
    from torchmetrics.functional.image.lpips import _LPIPS

    path = find_weights(ALEXNET, weights, "lpips")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
        slices = {f"slice{k}" for k in range(1, 6)}
        own = {
            name: name.replace("net.", "", 1).split(".", 1)
            for name in network.state_dict()
            if name.startswith("net.")
        }
        renamed = {
            name: state[f"features.{rest}"] for name, (part, rest) in own.items() if part in slices
        }
        network.load_state_dict(renamed, strict=False)
    except Exception as error:
        raise MetricError(
            f"{path} cannot be read as AlexNet weights: {brief(error, 120)}"
        ) from None
    network.requires_grad_(False)
    return partial(network, normalize=False), file_digest(path)

"""LPIPS: a learned perceptual distance of two images (arXiv 1801.03924)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.devices import CPU
from eddy_bench.models.images import signed
from eddy_bench.scoring.extractor import file_digest, find_weights
from eddy_bench.scoring.forward import Forward, Row

ALEXNET = "alexnet-owt-7be5be79.pth"
SMALLEST_SIDE = 64  # pixels; AlexNet's strides need as many
PIXELS = 2**21  # of a batch of pairs: 64 of up to 181 pixels a side, 8 of 512, about 1 GiB


def mean_perceptual_distance(distances: NDArray[np.float32]) -> float:
    """Return the mean learned distance over pairs i < j; higher is more diverse; NaN at N = 1.

    Args:
        distances: of the pairs of one group, (N (N - 1) / 2,).

    >>> mean_perceptual_distance(np.array([0.25, 0.75]))
    0.5

    """
    return float(np.mean(distances, dtype=np.float64)) if len(distances) else float("nan")


def load_lpips(weights: Path | None, device: torch.device = CPU) -> tuple[Forward, str]:
    """Load LPIPS with the AlexNet backbone.

    Returns what maps pairs of RGB images, (h, w, 3) from 0 to 255, to distances, and the digest of
    its weights. Images under 64 pixels are enlarged.

    torchmetrics has the linear layers; the backbone's file must be at hand.

    Raises:
        MetricError: the backbone's file is missing or cannot be read.

    """
    path = find_weights(ALEXNET, weights, "lpips")
    try:
        network = _lpips(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise MetricError(
            f"{path} cannot be read as AlexNet weights: {brief(error, 120)}"
        ) from None
    network.eval().requires_grad_(False).to(device)
    distances = partial(_distances, network)
    return Forward("lpips", distances, device, _distinct, pixels=PIXELS), file_digest(path)


def _lpips(backbone: dict[str, Tensor]) -> Any:
    """Return torchmetrics' network with a backbone's weights under its own names."""
    from torchmetrics.functional.image.lpips import _LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    slices = {f"slice{k}" for k in range(1, 6)}
    own = {
        name: name.replace("net.", "", 1).split(".", 1)
        for name in network.state_dict()
        if name.startswith("net.")
    }
    renamed = {
        name: backbone[f"features.{rest}"] for name, (part, rest) in own.items() if part in slices
    }
    network.load_state_dict(renamed, strict=False)
    return network


def _distinct(pairs: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the images of pairs, each once, and the places of the first and second ones."""
    images = {id(image): image for pair in pairs for image in pair}
    place = {key: k for k, key in enumerate(images)}
    first, second = (torch.tensor([place[id(pair[side])] for pair in pairs]) for side in (0, 1))
    return torch.from_numpy(np.stack(list(images.values()))), first, second


def _distances(network: Any, pixels: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the distances of pairs of images, (n,); each image goes through the backbone once.

    Args:
        network: of torchmetrics.
        pixels: (m, h, w, 3), 0 to 255.
        first, second: (n,), places among the images.

    """
    images = _enlarged(signed(pixels))
    total = torch.zeros(len(first), device=images.device)
    for maps, head in zip(network.net(network.scaling_layer(images)), network.lins, strict=True):
        unit = maps / torch.sqrt(1e-8 + maps.square().sum(1, keepdim=True))  # as torchmetrics does
        total += head((unit[first] - unit[second]).square()).mean((1, 2, 3))
    return total


def _enlarged(images: Tensor) -> Tensor:
    smallest = min(images.shape[-2:])
    if smallest >= SMALLEST_SIDE:
        return images
    return torch.nn.functional.interpolate(
        images, scale_factor=SMALLEST_SIDE / smallest, mode="bilinear", align_corners=False
    )

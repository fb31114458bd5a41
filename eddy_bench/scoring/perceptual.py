"""Distances of two images: LPIPS (arXiv 1801.03924), and 1 - MS-SSIM without a network."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.devices import CPU
from eddy_bench.models.images import channels_first, enlarged, signed
from eddy_bench.scoring.extractor import file_digest, find_weights
from eddy_bench.scoring.forward import Forward, Row
from eddy_bench.scoring.metric import Judge, Metric, mean_of

ALEXNET = "alexnet-owt-7be5be79.pth"
BACKBONES = {  # torchvision's files
    "alex": ALEXNET,
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
_LAYER = r"net\.slice(?:s\.)?\d+\.(.+)"  # of torchmetrics' backbones
SMALLEST_SIDE = 64  # pixels; AlexNet's strides need as many
MS_SSIM_SIDE = 176  # pixels: four halvings leave a window of 11
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
K1, K2 = 0.01, 0.03
PIXELS = 2**21  # of a batch of pairs: 64 of up to 181 pixels a side, 8 of 512, about 1 GiB


def load_lpips(weights: Path | None, device: torch.device = CPU, net: str = "alex") -> Judge:
    """Load LPIPS with a backbone: `alex`, `vgg` or `squeeze`.

    It judges pairs of RGB images, (h, w, 3) from 0 to 255; those under 64 pixels are enlarged.
    torchmetrics has the linear layers; the backbone's file must be at hand.

    Raises:
        MetricError: the backbone's file is missing or cannot be read.
    """
    path = find_weights(BACKBONES[net], weights, "lpips" if net == "alex" else f"lpips-{net}")
    try:
        network = _lpips(torch.load(path, map_location="cpu", weights_only=True), net)
    except Exception as error:
        raise MetricError(
            f"{path} cannot be read as the weights of {net} ({type(error).__name__}: "
            f"{brief(error, 120)}). Put torchvision's own {BACKBONES[net]} there."
        ) from None
    network.eval().requires_grad_(False).to(device)
    forward = Forward("lpips", partial(_distances, network), device, _distinct, pixels=PIXELS)
    return Judge(forward, file_digest(path))


def _lpips(backbone: dict[str, Tensor], net: str) -> Any:
    from torchmetrics.functional.image.lpips import _LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _LPIPS(pretrained=True, net=net, pnet_rand=True)
    own = (re.fullmatch(_LAYER, name) for name in network.state_dict())
    renamed = {match[0]: backbone[f"features.{match[1]}"] for match in own if match}
    network.load_state_dict(renamed, strict=False)
    return network


def _distinct(pairs: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the images of pairs, each once, and the places of the first and second ones."""
    images = {id(image): image for pair in pairs for image in pair}
    place = {key: k for k, key in enumerate(images)}
    first, second = (torch.tensor([place[id(pair[side])] for pair in pairs]) for side in (0, 1))
    return torch.from_numpy(np.stack(list(images.values()))), first, second


def _distances(network: Any, pixels: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the distances (n,) of the images at the places `first` and `second`, (n,) each."""
    images = enlarged(signed(pixels), SMALLEST_SIDE)
    total = torch.zeros(len(first), device=images.device)
    for maps, head in zip(network.net(network.scaling_layer(images)), network.lins, strict=True):
        unit = maps / torch.sqrt(1e-8 + maps.square().sum(1, keepdim=True))  # as torchmetrics does
        total += head((unit[first] - unit[second]).square()).mean((1, 2, 3))
    return total


def load_ms_ssim(weights: Path | None, device: torch.device) -> Judge:
    """Return what judges pairs of images; those with a side below 176 pixels are enlarged."""
    return Judge(Forward("ms-ssim", ms_ssim_distance, device, _both, pixels=PIXELS), "")


def _both(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(np.stack([row[side] for row in rows])) for side in (0, 1))
    return first, second


def ms_ssim_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - MS-SSIM of pairs of images, (n,): 0 when equal, at most 1.

    MS-SSIM is prod_k mean(contrast_k structure_k)^w_k, with the luminance at the coarsest scale; a
    negative factor counts as 0. The product over five scales is taken in each colour channel, as
    the paper takes it of grey images, and the mean is over channels. torchmetrics takes the mean
    over channels before the product, and its last scale counts reflected borders.

    Args:
        first, second: (n, h, w, 3) or (n, h, w), 0 to 255.
    """
    one, other = (
        enlarged(channels_first(pixels).float() / 255, MS_SSIM_SIDE) for pixels in (first, second)
    )
    channels, product = one.shape[:2], torch.ones(one.shape[:2].numel(), device=one.device)
    one, other = one.flatten(0, 1), other.flatten(0, 1)
    for scale, weight in enumerate(SCALES):
        alike = _similarities(one, other, luminance=scale + 1 == len(SCALES))
        product = product * alike.mean((1, 2)).clamp_min(0) ** weight
        one, other = (torch.nn.functional.avg_pool2d(side, 2) for side in (one, other))
    return 1 - product.reshape(channels).mean(1)


def _similarities(one: Tensor, other: Tensor, luminance: bool) -> Tensor:
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
    *(
        Metric(
            "lpips" if net == "alex" else f"lpips-{net}",
            "pairs",
            True,
            "mean learned perceptual distance over pairs of a group" + more,
            "arXiv 1801.03924",
            f"{network} per pair",
            function=mean_of,
            load=partial(load_lpips, net=net),
            extractor=net,
            marks=(("size", f"{SMALLEST_SIDE}+"),),
            aspect="diversity",
            rank=8 if net == "alex" else None,
            range=(0.0, math.inf),
            licence="BSD-3-Clause (torchvision); BSD-2-Clause (LPIPS)",
            download=size,
        )
        for net, network, more, size in (
            ("alex", "AlexNet", "", "244 MB"),
            ("vgg", "VGG-16", ", VGG-16", "553 MB"),
            ("squeeze", "SqueezeNet", ", SqueezeNet", "5 MB"),
        )
    ),
    Metric(
        "ms-ssim",
        "pairs",
        True,
        "1 - MS-SSIM, mean over pairs of a group: 0 for equal images",
        "Wang et al. 2003",
        "no network",
        function=mean_of,
        load=load_ms_ssim,
        marks=(("size", f"{MS_SSIM_SIDE}+"), ("channels", "mean"), "1-ms-ssim"),
        aspect="diversity",
        range=(0.0, 1.0),
    ),
)

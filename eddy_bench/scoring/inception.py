"""Inception-v3 with the FID weights, under the three ways in which images are resized for it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.images import channels_first, rgb_array
from eddy_bench.scoring.extractor import Extractor, file_digest, find_weights
from eddy_bench.scoring.forward import Forward

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
SIDE = 299  # pixels that the network sees
LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


@dataclass(frozen=True)
class Convention:
    """How images are resized to 299 pixels a side."""

    prepare: Callable[[Image.Image], NDArray[Any]]  # to an array, 0 to 255; called in threads
    resize: Callable[[Tensor], Tensor]  # (n, 3, h, w) in float32 to (n, 3, 299, 299)
    summary: str


def antialiased_bilinear(images: Tensor) -> Tensor:
    """Resize as torchmetrics does since 1.8: bilinear, antialiased, not rounded."""
    return torch.nn.functional.interpolate(
        images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
    )


def tensorflow_bilinear(images: Tensor) -> Tensor:
    """Resize as torch-fidelity and TensorFlow 1 do: bilinear, corners at 0, not antialiased."""
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(
        images, size=(SIDE, SIDE), align_corners=False
    )
    return resized


def clean_bicubic(image: Image.Image) -> NDArray[np.float32]:
    """Resize as clean-fid does: PIL's bicubic, antialiased, a channel at a time in floats.

    The result is cut to 0 to 255 and not rounded (arXiv 2104.11222).
    """
    channels = [
        Image.fromarray(band) for band in rgb_array(image).astype(np.float32).transpose(2, 0, 1)
    ]
    resized = [band.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for band in channels]
    return np.stack([np.asarray(band).clip(0, 255) for band in resized], axis=-1)


CONVENTIONS = {
    "inception": Convention(rgb_array, antialiased_bilinear, "bilinear, antialiased"),
    "inception-clean": Convention(
        clean_bicubic, torch.nn.Identity(), "clean-fid's: PIL bicubic, antialiased"
    ),
    "inception-torch-fidelity": Convention(
        rgb_array, tensorflow_bilinear, "torch-fidelity's: TensorFlow 1's bilinear, not antialiased"
    ),
}


def load_inception(weights: Path | None, device: torch.device, name: str) -> Extractor:
    """Load Inception-v3, under a name of `CONVENTIONS`, from a folder with the file of its weights.

    Raises:
        MetricError: its package or weights are missing, or the weights cannot be read.
    """
    convention = CONVENTIONS[name]
    path = find_weights(INCEPTION, weights, "fid")
    network = _network(path).to(device)

    def features(pixels: Tensor) -> Tensor:
        return pooled(network, convention.resize(channels_first(pixels).float()))

    forward = Forward(name, features, device)
    return Extractor(name, file_digest(path), convention.prepare, forward, minimum=2048)


def pooled(network: torch.nn.Module, images: Tensor) -> Tensor:
    """Return the 2048 features before the last layer, (n, 2048), of images of 299 pixels."""
    images = (images - 128) / 128
    for layer in LAYERS:
        images = getattr(network, layer)(images)
    return images.flatten(1)


def _network(path: Path) -> torch.nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity unpickles whatever it is given, so it is given tensors that were read here
        state = io.BytesIO()
        torch.save(torch.load(path, map_location="cpu", weights_only=True), state)
        state.seek(0)
        network: torch.nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], state
        )
    except ImportError:
        raise MetricError(
            "The metric 'fid' needs the package torch-fidelity. Install eddy-bench[fid]."
        ) from None
    except Exception as error:
        raise MetricError(
            f"{path} cannot be read as Inception-v3 weights: {brief(error, 120)}"
        ) from None
    return network.eval()

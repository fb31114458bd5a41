"""The two small convolutional networks that ship with the embedded model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class GuideNetwork(nn.Module):
    """Smooth features of 32 x 32 images for feature kernels, trained without labels."""

    def __init__(self, width: int = 16, features: int = 128) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 6 * width]
        self.stages = nn.ModuleList(_stage(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1] * 4, features)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps after each stage."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, 1, 32, 32) in [-1, 1] to (n, features)."""
        features: Tensor = self.head(self.maps(images)[-1].flatten(1))
        return features


class AttributeClassifier(nn.Module):
    """Class, tone and shape logits of 32 x 32 images, for `align` and `attributes` alone."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = [1, width, 2 * width, 4 * width]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [
                nn.Conv2d(outputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3))
        self.heads = nn.Linear(widths[-1] * 16, 10 + 3 + 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (n, 1, 32, 32) in [-1, 1] to logits (n, 10), (n, 3), (n, 2)."""
        garment, tone, shape = self.heads(self.trunk(images)).split([10, 3, 2], 1)
        return garment, tone, shape


def save_network(network: nn.Module, path: Path) -> None:
    """Write the weights in float16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def load_network(network: Network, path: Path) -> Network:
    """Read float16 weights into a float32 network in evaluation mode, frozen."""
    state = load_file(path)
    network.load_state_dict(
        {
            name: value.float() if value.is_floating_point() else value
            for name, value in state.items()
        }
    )
    return network.eval().requires_grad_(False)


def to_gray(images: Tensor) -> Tensor:
    """Map (n, c, h, w) in [-1, 1] to (n, 1, 32, 32)."""
    gray = images.mean(1, keepdim=True)
    if gray.shape[-2:] != (32, 32):
        gray = torch.nn.functional.interpolate(
            gray, size=(32, 32), mode="bilinear", antialias=True, align_corners=False
        )
    return gray

"""The models that ship with the package: a U-Net, the same distilled to four steps, networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eddy_bench.models.attributes import unknown_words
from eddy_bench.models.identity import folder_digest

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
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3))
        self.heads = nn.Linear(widths[-1] * 16, 10 + 3 + 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (n, 1, 32, 32) in [-1, 1] to logits (n, 10), (n, 3), (n, 2)."""
        garment, tone, shape = self.heads(self.trunk(images)).split([10, 3, 2], 1)
        return garment, tone, shape


def load_network(network: Network, path: Path) -> Network:
    """Read float16 weights into a float32 network in evaluation mode, frozen."""
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def to_gray(images: Tensor) -> Tensor:
    """Map (n, c, h, w) in [-1, 1] to (n, 1, 32, 32)."""
    gray = images.mean(1, keepdim=True)
    if gray.shape[-2:] != (32, 32):
        gray = torch.nn.functional.interpolate(
            gray, size=(32, 32), mode="bilinear", antialias=True, align_corners=False
        )
    return gray


ASSETS = Path(__file__).parents[1] / "assets"
BASE = ASSETS / "fashion"
DIFFERENCE = "unet-difference.safetensors"
SCALE = ".scale"


@dataclass(frozen=True)
class EmbeddedModel:
    """How an embedded model differs from `fashion`, and how it is drawn."""

    about: str
    cost: str  # in words, on two cores
    # of its files; another than `fashion`'s holds the difference of the U-Net's weights
    folder: Path = BASE
    # keys of a suite that the model brings along where its suite names none
    settings: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Return a digest of all its files."""
        parts = dict.fromkeys([BASE, self.folder])
        return "+".join(folder_digest(part) for part in parts)

    def finish(self, unet: nn.Module) -> None:
        """Turn the U-Net of `fashion` into this model's."""
        if self.folder != BASE:
            add_difference(unet, self.folder / DIFFERENCE)


EMBEDDED = {
    "fashion": EmbeddedModel(
        "small latent diffusion model of Fashion-MNIST garments, 32 x 32, ships with the package",
        "0.07 s per image on two cores",
        settings={"steps": 20, "guidance_scale": 4.0},
    ),
    "fashion-4step": EmbeddedModel(
        "the same, distilled to 4 steps with its guidance built in: draw it at guidance scale 1",
        "0.01 s per image on two cores",
        ASSETS / "fashion-4step",
        {"name": "fashion-4step", "steps": 4, "guidance_scale": 1.0},
    ),
}


def rows_of(weight: Tensor) -> int:
    """Return how many scales a weight has; a vector has one."""
    return len(weight) if weight.ndim > 1 else 1


def add_difference(unet: nn.Module, path: Path) -> None:
    """Add a difference to weights, in their own precision: 8 bits under a scale of each row."""
    file = load_file(path)
    with torch.no_grad():
        for name, weight in unet.state_dict().items():
            change = file[name].float().reshape(rows_of(weight), -1) * file[name + SCALE][:, None]
            weight.add_(change.reshape(weight.shape))


def embedded_warning(name: str, prompt: str) -> str | None:
    """Return a warning of words that an embedded model was never trained on."""
    words = unknown_words(prompt)
    if not words:
        return None
    shown = ", ".join(dict.fromkeys(words[:5]))
    return (
        f"the model {name!r} was never trained on: {shown}{', ...' if len(words) > 5 else ''} "
        "(see eddy_bench/assets/MODEL_CARD.md)"
    )

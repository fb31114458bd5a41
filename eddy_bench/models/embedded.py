"""The models that ship with the package: one U-Net, and the same distilled to four steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eddy_bench.models.attributes import unknown_words
from eddy_bench.models.fingerprint import folder_digest

ASSETS = Path(__file__).parents[1] / "assets"
BASE = ASSETS / "fashion"
DIFFERENCE = "unet-difference.safetensors"
SCALE = ".scale"


@dataclass(frozen=True)
class EmbeddedModel:
    """Hold how an embedded model differs from `fashion`, and how it is drawn.

    cost: in words, on two cores.
    folder: of its files; another than `fashion`'s holds the difference of the U-Net's weights.
    settings: keys of a suite that the model brings along where its suite names none.
    """

    about: str
    cost: str
    folder: Path = BASE
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


def save_difference(unet: nn.Module, other: nn.Module, path: Path) -> None:
    """Write what must be added to the weights of `unet` to get those of `other`.

    Each row of a weight (its first dimension) is kept in 8 bits under a scale of its own: half
    the size of float16 weights, and an error of at most 1/254 of the row's largest difference.
    """
    file: dict[str, Tensor] = {}
    for name, weight in unet.state_dict().items():
        change = (other.state_dict()[name].float() - weight.float()).reshape(_rows(weight), -1)
        scale = change.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
        file[name] = (change / scale).round().to(torch.int8).reshape(weight.shape)
        file[name + SCALE] = scale.flatten()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(file, path)


def _rows(weight: Tensor) -> int:
    """Return how many scales a weight has; a vector has one."""
    return len(weight) if weight.ndim > 1 else 1


def add_difference(unet: nn.Module, path: Path) -> None:
    """Add a difference of `save_difference` to weights, in their own precision."""
    file = load_file(path)
    with torch.no_grad():
        for name, weight in unet.state_dict().items():
            change = file[name].float().reshape(_rows(weight), -1) * file[name + SCALE][:, None]
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

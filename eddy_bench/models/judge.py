"""What judges images by their prompt while they are drawn: an open_clip model of both towers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eddy_bench.models.backbones import Backbone, load_backbone


@dataclass(frozen=True)
class Judge:
    """A model of images and texts.

    Args:
        backbone: the image tower, on images in [-1, 1].
        texts: prompts to (n, F).

    """

    backbone: Backbone
    texts: Callable[[Sequence[str]], Tensor]

    @property
    def name(self) -> str:
        """Its name with the digest of its weights."""
        return f"{self.backbone.name}@{self.backbone.digest}"

    def cosines(self, features: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the cosine of each image with its prompt, (G, n); features: (G, n, F)."""
        normalise = torch.nn.functional.normalize
        texts = normalise(self.texts(prompts).to(features), dim=-1)
        cosines: Tensor = (normalise(features, dim=-1) * texts[:, None]).sum(-1)
        return cosines


def load_judge(name: str, weights: Path | None, device: torch.device) -> Judge:
    """Load `open_clip:MODEL/WEIGHTS` with both towers.

    Raises:
        UnknownName: no such model.
        ModelError: its weights cannot be had.

    """
    import open_clip

    backbone = load_backbone(name, weights, device)
    model, _, _ = name.removeprefix("open_clip:").partition("/")
    tokenizer = open_clip.get_tokenizer(model)

    def texts(prompts: Sequence[str]) -> Tensor:
        with torch.inference_mode():
            features: Tensor = backbone.module.encode_text(tokenizer(list(prompts)).to(device))  # type: ignore[operator]
        return features.float()

    return Judge(backbone, texts)

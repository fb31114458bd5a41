"""DreamSim: a distance of images that was tuned to people's choices (arXiv 2306.09344)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.backbones import weights_digest
from eddy_bench.models.images import channels_first
from eddy_bench.scoring.diversity import Features, mean_similarity
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.metric import Metric

FOLDER, SIDE = "dreamsim", 224


def load_dreamsim(weights: Path | None, device: torch.device) -> Extractor:
    """Load the ensemble by its authors' package, from a folder `dreamsim` of the weights.

    Nothing is downloaded: the package would unpack an archive from elsewhere.

    Raises:
        MetricError: the package or the weights are missing.

    """
    folder = weights / FOLDER if weights is not None else None
    try:
        package: Any = importlib.import_module("dreamsim")
    except ImportError:
        raise MetricError(
            "The metric 'dreamsim' needs the package dreamsim. Install it: pip install dreamsim."
        ) from None
    if folder is None or not folder.is_dir():
        raise MetricError(
            f"The metric 'dreamsim' needs a folder {FOLDER} with the weights of its package, "
            f"unpacked, which is not {f'in {weights}' if weights else 'given'}. "
            "Put it into a folder and give --weights DIR."
        )
    try:
        model, _ = package.dreamsim(pretrained=True, device=str(device), cache_dir=str(folder))
    except Exception as error:
        raise MetricError(
            f"{folder} cannot be read as weights of DreamSim: {brief(error, 120)}"
        ) from None

    def encode(pixels: Tensor) -> Tensor:
        embedded: Tensor = model.embed(channels_first(pixels).float() / 255)
        return embedded.reshape(len(pixels), -1)

    forward = Forward("dreamsim", encode, device)
    return Extractor("dreamsim-ensemble", weights_digest(model), _prepare, forward)


def _prepare(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def dreamsim(features: Features) -> float:
    """Return 1 - cosine, mean over pairs i < j, 0 to 2; higher is more diverse; NaN at N = 1."""
    return 1 - mean_similarity(features)


METRICS = (
    Metric(
        "dreamsim",
        "features",
        True,
        "mean DreamSim distance over pairs of a group, 1 - cosine of its ensemble",
        "arXiv 2306.09344",
        "three ViT-B/16",
        function=dreamsim,
        sees=load_dreamsim,
        extractor="dreamsim-ensemble",
        judges="diversity",
        range=(0.0, 2.0),
        licence="MIT",
        download="about 1 GB, and the package dreamsim",
    ),
)

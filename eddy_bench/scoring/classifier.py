"""The classifier of garments, which judges the embedded model's images and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eddy_bench.models.embedded import AttributeClassifier, load_network, to_gray
from eddy_bench.models.images import pixel_array, signed
from eddy_bench.scoring.extractors import ASSETS
from eddy_bench.scoring.forward import Forward

WEIGHTS = ASSETS / "classifier" / "model.safetensors"


def load_classifier(device: torch.device) -> Forward:
    """Load the classifier: images as `pixel_array` gives them to (n, 3) class, tone and shape."""
    network = load_network(AttributeClassifier(), WEIGHTS).to(device)
    return Forward("the classifier", partial(_attributes, network), device)


def predict_attributes(
    classifier: AttributeClassifier, images: Sequence[Image.Image]
) -> NDArray[np.int64]:
    """Return the class, tone and shape of images, (N, 3)."""
    pixels = torch.from_numpy(np.stack([pixel_array(image) for image in images]))
    with torch.inference_mode():
        return _attributes(classifier, pixels).numpy()


def _attributes(classifier: AttributeClassifier, pixels: Tensor) -> Tensor:
    return torch.stack([logits.argmax(1) for logits in classifier(to_gray(signed(pixels)))], 1)

"""What only training needs: attributes of real garments, captions, files of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from eddy_bench.models.attributes import ANY_CLASS, CLASSES, SHOES, TONES, Attributes, shape_words
from eddy_bench.models.embedded import SCALE, rows_of
from eddy_bench.models.images import pixel_array
from eddy_bench.scoring.forward import Forward

FOREGROUND = 25  # 8-bit brightness above which a pixel belongs to the garment
TONE_EDGES = (140.0, 180.0)  # close to the terciles of the training set
SHAPE_EDGES = (15.2, 8.9, 17.2, 11.0, 16.2, 6.9, 16.7, 8.0, 19.1, 12.1)  # medians per class, pixels


def predict_attributes(classifier: Forward, images: Sequence[Image.Image]) -> NDArray[np.int64]:
    """Return the class, tone and shape of images, (N, 3)."""
    return np.array(list(classifier((pixel_array(image),) for image in images)))


def measure(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Measure the attributes of real images.

    Args:
        images: (n, 28, 28), 0 to 255.
        labels: (n,), class indices.

    Returns:
        (n, 3): class, tone level, shape level.
    """
    mask = images > FOREGROUND
    area = mask.sum((1, 2)).clip(1)
    tone = np.digitize((images * mask).sum((1, 2)) / area, TONE_EDGES)
    height = mask.any(2).sum(1).clip(1)
    width = mask.any(1).sum(1).clip(1)
    extent = area / np.where(np.isin(labels, list(SHOES)), width, height)
    shape = extent >= np.asarray(SHAPE_EDGES)[labels]
    return np.stack([labels, tone, shape], 1).astype(np.int64)


def caption(attributes: Attributes, rng: np.random.Generator | None = None) -> str:
    """Return the words of attributes; with `rng`, synonyms and an opening are random."""
    garment = attributes.garment
    nouns = ANY_CLASS if garment is None else CLASSES[garment]
    words = [] if attributes.tone is None else [TONES[attributes.tone]]
    if attributes.shape is not None and garment is not None:
        words.append(shape_words(garment)[attributes.shape])
    words.append(nouns[0] if rng is None else str(rng.choice(nouns)))
    opening = (
        "" if rng is None else str(rng.choice(["", "", "a ", "a photo of a ", "picture of a "]))
    )
    return opening + " ".join(words)


def save_network(network: nn.Module, path: Path) -> None:
    """Write the weights in float16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def save_difference(unet: nn.Module, other: nn.Module, path: Path) -> None:
    """Write what must be added to the weights of `unet` to get those of `other`.

    Each row of a weight (its first dimension) is kept in 8 bits under a scale of its own: half
    the size of float16 weights, and an error of at most 1/254 of the row's largest difference.
    """
    file: dict[str, Tensor] = {}
    for name, weight in unet.state_dict().items():
        change = (other.state_dict()[name].float() - weight.float()).reshape(rows_of(weight), -1)
        scale = change.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
        file[name] = (change / scale).round().to(torch.int8).reshape(weight.shape)
        file[name + SCALE] = scale.flatten()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(file, path)

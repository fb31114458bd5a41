"""Images as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def image_tensor(image: Any) -> Tensor:
    """Return a PIL image as (c, h, w) in [-1, 1], grey or RGB."""
    pixels = (
        np.asarray(image.convert("RGB") if image.mode != "L" else image, np.float32) / 127.5 - 1
    )
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())

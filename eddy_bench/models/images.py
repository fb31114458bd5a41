"""Images as arrays and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def image_tensor(image: Any) -> Tensor:
    """Return a PIL image as (c, h, w) in [-1, 1], grey or RGB."""
    return signed(torch.from_numpy(pixel_array(image)[None].copy()))[0]


def pixel_array(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image as (h, w) where it is grey, else as RGB, (h, w, 3)."""
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def rgb_array(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image as RGB, (h, w, 3)."""
    return np.asarray(image.convert("RGB"))


def signed(pixels: Tensor) -> Tensor:
    """Map (n, h, w) or (n, h, w, 3) from 0 to 255 to (n, c, h, w) in [-1, 1]."""
    return channels_first(pixels).float() / 127.5 - 1


def enlarged(images: Tensor, side: int) -> Tensor:
    """Return images (n, c, h, w) with no side below `side`, those of smaller ones enlarged."""
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    if scale <= 1:
        return images
    size = [max(side, round(scale * length)) for length in (height, width)]
    return torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)


def channels_first(pixels: Tensor) -> Tensor:
    """Map (n, h, w) or (n, h, w, 3) to (n, c, h, w), laid out in that order."""
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()

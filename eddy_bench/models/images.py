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


def channels_first(pixels: Tensor) -> Tensor:
    """Map (n, h, w) or (n, h, w, 3) to (n, c, h, w), laid out in that order."""
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()

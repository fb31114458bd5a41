"""Images as arrays and tensors, and images that are none.

An image made of values that are not finite, or blacked out by a safety checker, carries the reason
in its `info`, under `BAD`, through whatever is chosen of a call's images; no file of an image
holds it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eddy_bench.sampling.session import replaced
from eddy_bench.storage.records import BLACKED, NOT_FINITE, Fault


def image_tensor(image: Any) -> Tensor:
    """Return a PIL image as (c, h, w) in [-1, 1], grey or RGB."""
    return signed(torch.from_numpy(pixel_array(image)[None].copy()))[0]


def pixel_array(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image as (h, w) where it is grey, else as RGB, (h, w, 3)."""
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def rgb_array(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image as RGB, (h, w, 3)."""
    return np.asarray(image.convert("RGB"))


def squared(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Return a PIL image as RGB of a size whatever its shape, (side, side, 3)."""
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


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


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (images - mean) / std by channel, of images (n, c, h, w)."""
    centre, spread = (by_channel(tuple(own), images.device) for own in (mean, std))
    return (images - centre) / spread


@functools.cache
def by_channel(
    values: tuple[float, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    shape: tuple[int, ...] = (-1, 1, 1),
) -> Tensor:
    """Return numbers of channels as a tensor, which is made and copied to the device once."""
    with torch.inference_mode(False):  # gradients pass by it
        return torch.tensor(values, dtype=dtype, device=device).view(shape)


BAD = "bad"


def fault(image: Any) -> Fault | None:
    """Return why an image is none; None for one that is."""
    found: Fault | None = getattr(image, "info", {}).get(BAD)
    return found


@contextmanager
def watched_pixels(pipe: Any) -> Iterator[None]:
    """Mark images that a pipeline turns into bytes from values that are not finite.

    Pipelines turn them by the `postprocess` of an image processor, or by their `numpy_to_pil`.
    Numpy's warning of such values is what the marks say.
    """
    parts = [part for part in vars(pipe).values() if callable(getattr(part, "postprocess", None))]
    owners = [*((part, "postprocess") for part in parts), (pipe, "numpy_to_pil")]
    with ExitStack() as stack:
        for owner, name in owners:
            if hasattr(owner, name):
                stack.enter_context(replaced(owner, name, _marking(getattr(owner, name))))
        yield


def _marking(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return a conversion of arrays to images that marks what was not finite."""

    def convert(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(invalid="ignore"):
            made = inner(*args, **kwargs)
        if isinstance(made, list):
            mark_rows(made, args[0] if args else next(iter(kwargs.values())))
        return made

    return convert


def mark_rows(images: Sequence[Any], values: Any) -> None:
    """Mark images whose rows of values are not finite."""
    rows = torch.as_tensor(values).reshape(len(images), -1)
    _mark(images, (~rows.isfinite().all(1)).tolist(), NOT_FINITE)


def mark_call(images: Sequence[Any], output: Any, finished: Tensor | None) -> None:
    """Mark images by what a pipeline's call says of them, and by its last latents (G, N, d)."""
    if finished is not None and finished.shape[:2].numel() == len(images):
        mark_rows(images, finished)
    for name in ("nsfw_content_detected", "nsfw_detected"):
        if (detected := getattr(output, name, None)) is not None:
            _mark(images, detected, BLACKED)


def _mark(images: Sequence[Any], whether: Sequence[Any], reason: Fault) -> None:
    for image, bad in zip(images, whether, strict=True):
        if bad:
            image.info.setdefault(BAD, reason)

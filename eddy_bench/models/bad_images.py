"""Images that are none: made of values that are not finite, or blacked out by a safety checker.

Such an image carries the reason in its `info`, under `BAD`, through whatever is chosen of a call's
images; no file of an image holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eddy_bench.sampling.replacing import replaced
from eddy_bench.storage.records import BLACKED, NOT_FINITE, Fault

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

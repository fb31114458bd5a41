"""What an extractor is, and the files that it is loaded from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import MetricError
from eddy_bench.scoring.ahead import ahead
from eddy_bench.scoring.forward import BATCH, Forward

FLOAT = NDArray[np.float32]


@dataclass(frozen=True)
class Extractor:
    """Turn images into features, and texts where it has a text tower.

    Args:
        name: in `extractor`.
        digest: of the weights.
        prepare: an image to what goes into a batch, 0 to 255; called in threads.
        forward: batches of prepared images to (n, F).
        texts: to (n, F), or None.
        minimum: fewer samples than this flag a Frechet distance as small-sample; 0 is F.
        truncated: whether a text is longer than the text tower takes.

    """

    name: str
    digest: str
    prepare: Callable[[Image.Image], NDArray[Any]]
    forward: Forward
    texts: Callable[[Sequence[str]], FLOAT] | None = None
    minimum: int = 0
    truncated: Callable[[str], bool] | None = None

    def images(self, images: Sequence[Image.Image]) -> FLOAT:
        """Return the features of images, (n, F)."""
        with ahead(self.prepare, images, 2 * BATCH) as prepared:
            return self.stacked(list(self.forward((array,) for array in prepared)))

    def stacked(self, features: Sequence[FLOAT]) -> FLOAT:
        """Return the features of images as rows, (n, F).

        Raises:
            MetricError: they differ in number, as those of pixels do, or are not finite.

        """
        counts = sorted({len(row) for row in features})
        if len(counts) > 1:
            raise MetricError(
                f"Expected images of one size under {self.name}, got some of {counts[0]} and some "
                f"of {counts[-1]} features. Resize them, or take another extractor."
            )
        return self.checked(np.stack(features))

    def checked(self, features: FLOAT) -> FLOAT:
        """Return features; raise MetricError where they are no rows of finite numbers."""
        if features.ndim != 2:
            raise MetricError(
                f"Expected a row of features for each image from {self.name}, "
                f"got an array of shape {features.shape}."
            )
        if not np.isfinite(features).all():
            raise MetricError(f"The features of {self.name} are not finite. Check --weights.")
        return features


def file_digest(path: Path) -> str:
    """Return the first 10 hex digits of a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:10]


def find_weights(filename: str, weights: Path | None, metric: str) -> Path:
    """Find a file of weights, in the folder that was given or in torch's own cache.

    Raises:
        MetricError: it is in neither; says which file and how to supply it.

    """
    for folder in (weights, Path(torch.hub.get_dir()) / "checkpoints"):
        if folder is not None and (folder / filename).is_file():
            return folder / filename
    searched = f"in {weights}" if weights else "on this machine"
    raise MetricError(
        f"The metric {metric!r} needs {filename}, which is not {searched}. "
        "Put it into a folder and give --weights DIR."
    )

"""What an extractor is, and the files of weights that networks are loaded from.

Weights are read as tensors alone, so that no file runs code.
"""

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
from torch import Tensor

from eddy_bench.errors import MetricError, brief
from eddy_bench.scoring.forward import BATCH, Forward, ahead

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


def read_state(filename: str, weights: Path | None, metric: str) -> tuple[dict[str, Tensor], str]:
    """Read a network's weights and their digest, from `filename` or its .safetensors twin.

    Raises:
        MetricError: they are not there, or are no tensors by name.
    """
    twin = f"{Path(filename).stem}.safetensors"
    here = weights is not None and (weights / twin).is_file()
    path = find_weights(twin if here else filename, weights, metric)
    try:
        state = read_tensors(path)
    except Exception as error:
        raise MetricError(f"{path} cannot be read as weights: {brief(error, 120)}") from None
    return state, file_digest(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, from safetensors or a file of torch's; no code of it runs.

    Raises:
        Exception: it holds something else; what kind depends on where.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    names = all(isinstance(name, str) for name in state)
    if not (state and names and all(isinstance(value, Tensor) for value in state.values())):
        raise ValueError("no tensors by name")
    return dict(state)


def load_into(network: torch.nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Put weights into a network, ready to use; MetricError where they are of another shape."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise MetricError(
            f"The weights of {name} are of another network: {brief(error, 120)}"
        ) from None
    network.eval().requires_grad_(False)

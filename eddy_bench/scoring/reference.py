"""Real images that a method's images are compared with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eddy_bench.errors import MetricError
from eddy_bench.models.scoring_defaults import ScoringDefaults
from eddy_bench.scoring.extractor import file_digest

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class RealImages:
    """Hold real images, and their name with a digest."""

    name: str
    images: list[Image.Image]


def load_reference(source: str | None, defaults: ScoringDefaults) -> RealImages | None:
    """Load the images of a folder, or the model's own held-out set; None where there is neither.

    Raises:
        MetricError: the folder holds no image, or one that cannot be read.

    """
    if source is not None:
        return _of_folder(source)
    if defaults.reference is None:
        return None
    with np.load(defaults.reference) as data:
        padded = np.pad(data["images"], ((0, 0), (2, 2), (2, 2)))
    name = f"fashion-test@{file_digest(defaults.reference)}"
    return RealImages(name, [Image.fromarray(image) for image in padded])


def _of_folder(source: str) -> RealImages:
    folder = Path(source)
    paths = sorted(folder.rglob("*")) if folder.is_dir() else []
    paths = [path for path in paths if path.suffix.lower() in ENDINGS]
    if not paths:
        raise MetricError(f"Expected a folder with images at --reference {source}, found none.")
    listing = "".join(f"{path.relative_to(folder)}:{path.stat().st_size};" for path in paths)
    digest = hashlib.sha256(listing.encode()).hexdigest()[:10]
    try:
        images = [Image.open(path).convert("RGB") for path in paths]
    except OSError as error:
        raise MetricError(f"--reference {source}: {error}") from None
    return RealImages(f"{folder.name}@{digest}", images)

"""Real images that a method's images are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.defaults import ScoringDefaults
from eddy_bench.scoring.extractor import file_digest
from eddy_bench.scoring.reference_statistics import SavedStatistics, read_statistics
from eddy_bench.storage.pictures import open_picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")  # whatever a file is called


@dataclass(frozen=True)
class RealImages:
    """Hold real images, and their name with a digest."""

    name: str
    images: list[Image.Image]


def load_reference(
    source: str | None, defaults: ScoringDefaults
) -> RealImages | SavedStatistics | None:
    """Load a folder's images, a file's statistics, or the model's own set; None without any.

    Raises:
        MetricError: the folder holds no image, or one that cannot be read; the file holds no
            statistics.

    """
    if source is None:
        return held_out(defaults)
    if Path(source).is_file():
        return read_statistics(Path(source))
    images = [read_image(path) for path in image_paths(source)]
    return RealImages(name_of(source, map(image_digest, images)), images)


def held_out(defaults: ScoringDefaults) -> RealImages | None:
    """Load the model's own held-out images; None where it has none."""
    if defaults.reference is None:
        return None
    with np.load(defaults.reference) as data:
        padded = np.pad(data["images"], ((0, 0), (2, 2), (2, 2)))
    name = f"fashion-test@{file_digest(defaults.reference)}"
    return RealImages(name, [Image.fromarray(image) for image in padded])


def image_paths(source: str) -> list[Path]:
    """Return the images below a folder, in order.

    Raises:
        MetricError: there are none.

    """
    folder = Path(source)
    paths = sorted(folder.rglob("*")) if folder.is_dir() else []
    paths = [path for path in paths if path.suffix.lower() in ENDINGS and path.is_file()]
    if not paths:
        raise MetricError(
            f"Expected a folder with images (or a file of `eddy-bench reference`) at --reference "
            f"{source}, found none."
        )
    return paths


def read_image(path: Path) -> Image.Image:
    """Read an image as RGB.

    Raises:
        MetricError: it cannot be read.

    """
    try:
        return open_picture(path, FORMATS).convert("RGB")
    except ValueError as error:
        raise MetricError(
            f"{path} cannot be read as an image: {brief(error, 120)}. Remove or replace it."
        ) from None


def image_digest(image: Image.Image) -> bytes:
    """Return a hash of an image's size and pixels, whatever the file they came from."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()


def name_of(source: str, digests: Iterable[bytes]) -> str:
    """Return a folder's name with a hash of its images, in order."""
    digest = hashlib.sha256(b"".join(digests)).hexdigest()[:10]
    return f"{Path(source).resolve().name}@{digest}"

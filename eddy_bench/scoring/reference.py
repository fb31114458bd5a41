"""Real images that a method's images are compared with, or saved statistics of their features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import MetricError, StoreError, brief, why
from eddy_bench.models.defaults import ScoringDefaults
from eddy_bench.scoring.extractor import Extractor, file_digest
from eddy_bench.storage.files import read_arrays
from eddy_bench.storage.paths import replacing
from eddy_bench.storage.pictures import Pictures, picture_at, pictures_below

FEATURES_LIMIT = 32 * 2**20  # bytes; 4,096 images under Inception, 16,384 under CLIP ViT-B/32
TEXTS = ("extractor", "weights", "images")
KEYS = ("mean", "covariance", "count", *TEXTS)


@dataclass(frozen=True)
class RealImages:
    """Real images."""

    name: str  # with a digest
    images: list[Image.Image]
    notes: Sequence[str] = ()  # on what was left out


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
    pictures = reference_pictures(source)
    images = [read_image(path) for path in pictures.paths]
    notes = [f"--reference {source}: {note}" for note in pictures.notes]
    return RealImages(name_of(source, map(image_digest, images)), images, notes)


def held_out(defaults: ScoringDefaults) -> RealImages | None:
    """Load the model's own held-out images; None where it has none."""
    if defaults.reference is None:
        return None
    with np.load(defaults.reference) as data:
        padded = np.pad(data["images"], ((0, 0), (2, 2), (2, 2)))
    name = f"fashion-test@{file_digest(defaults.reference)}"
    return RealImages(name, [Image.fromarray(image) for image in padded])


def reference_pictures(source: str) -> Pictures:
    """Return the images below a folder, in order; MetricError where there are none."""
    pictures = pictures_below(Path(source))
    if not pictures.paths:
        raise MetricError(
            f"Expected a folder with images (or a file of `eddy-bench reference`) at --reference "
            f"{source}, found none."
        )
    return pictures


def read_image(path: Path) -> Image.Image:
    """Read an image as `read_picture`; MetricError where it cannot be read."""
    return picture_at(path, MetricError)


def image_digest(image: Image.Image) -> bytes:
    """Return a hash of an image's size and pixels, whatever the file they came from."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()


def name_of(source: str, digests: Iterable[bytes]) -> str:
    """Return a folder's name with a hash of its images, in order."""
    digest = hashlib.sha256(b"".join(digests)).hexdigest()[:10]
    return f"{Path(source).resolve().name}@{digest}"


@dataclass(frozen=True)
class SavedStatistics:
    """The mean and the covariance of real images' features."""

    source: str  # the file, for messages
    name: str  # of the images, with their digest
    extractor: str  # that the features are of
    weights: str  # the digest of its weights
    count: int  # of the images
    mean: NDArray[np.float64]  # (F,)
    covariance: NDArray[np.float64]  # (F, F), with count - 1 in the denominator
    features: NDArray[np.float32] | None = None  # (count, F), where few enough to be kept

    @classmethod
    def of_features(
        cls, source: str, name: str, extractor: Extractor, features: NDArray[np.float32]
    ) -> SavedStatistics:
        """Return the statistics of features (n, F); MetricError below 2, or where not finite."""
        if len(features) < 2:
            raise MetricError(f"Expected at least 2 images for statistics, got {len(features)}.")
        exact = extractor.checked(features).astype(np.float64)
        covariance = np.atleast_2d(np.cov(exact, rowvar=False))
        kept = features if features.nbytes <= FEATURES_LIMIT else None
        own = extractor.name, extractor.digest
        return cls(source, name, *own, len(features), exact.mean(0), covariance, kept)

    def check(self, extractor: Extractor) -> None:
        """Raise MetricError where a metric sees images through another extractor."""
        theirs, own = f"{self.extractor}@{self.weights}", f"{extractor.name}@{extractor.digest}"
        if theirs != own:
            raise MetricError(
                f"Expected statistics of {own}, got those of {theirs} in {self.source}. "
                f"Save them: eddy-bench reference DIR --extractor {extractor.name} --out FILE; or "
                f"score fd[{self.extractor}] with the same weights."
            )

    def all_features(self) -> NDArray[np.float32]:
        """Return the features (count, F); MetricError where they were too many to be kept."""
        if self.features is None:
            raise MetricError(
                f"Expected features of real images, got {self.source}, which holds their mean and "
                f"covariance alone: {self.count} images are too many to keep. "
                "Give --reference DIR with the images."
            )
        return self.features


def write_statistics(path: Path, statistics: SavedStatistics) -> None:
    """Write a file of statistics in one step; StoreError where it cannot be written."""
    arrays = {
        "mean": statistics.mean,
        "covariance": statistics.covariance,
        "count": np.array(statistics.count),
        "extractor": np.array(statistics.extractor),
        "weights": np.array(statistics.weights),
        "images": np.array(statistics.name),
    }
    if statistics.features is not None:
        arrays["features"] = statistics.features
    write_arrays(path, arrays)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file of arrays, by name, in one step; raises StoreError where that fails."""
    try:
        with replacing(path) as written, written.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None


def read_statistics(path: Path) -> SavedStatistics:
    """Read a file of statistics, of which nothing is run; MetricError where it is none."""
    try:
        arrays = read_arrays(path)
        wrong = _wrong(arrays)
    except Exception as error:  # numpy has many
        wrong = brief(error, 120)
    if wrong:
        raise MetricError(
            f"Expected a folder of images or a file of `eddy-bench reference` at --reference "
            f"{path}, got one that cannot be used: {wrong.rstrip('.')}. "
            "Write it again: eddy-bench reference DIR --extractor NAME --out FILE."
        )
    extractor, weights, name = (str(arrays[key]) for key in TEXTS)
    count, mean, covariance = int(arrays["count"]), arrays["mean"], arrays["covariance"]
    features = arrays.get("features")
    return SavedStatistics(str(path), name, extractor, weights, count, mean, covariance, features)


def _wrong(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Say what is wrong with the arrays of a file; an empty text where nothing is."""
    if missing := [key for key in KEYS if key not in arrays]:
        return f"it lacks {', '.join(missing)} and holds {', '.join([*arrays][:8]) or 'nothing'}"
    for key in TEXTS:
        if arrays[key].dtype.kind != "U" or arrays[key].shape or len(str(arrays[key])) > 500:
            return f"expected a text in {key}"
    count, mean, covariance = arrays["count"], arrays["mean"], arrays["covariance"]
    if count.dtype.kind not in "iu" or count.shape or count < 2:
        return "expected a whole number of 2 or more in count"
    if mean.dtype != np.float64 or mean.ndim != 1 or not mean.size or not np.isfinite(mean).all():
        return "expected finite float64 numbers (F,) in mean"
    width = len(mean)
    if covariance.dtype != np.float64 or covariance.shape != (width, width):
        return f"expected float64 numbers ({width}, {width}) in covariance"
    if not np.isfinite(covariance).all() or not np.allclose(covariance, covariance.T):
        return "expected a finite and symmetric covariance"
    if (np.diag(covariance) < 0).any():
        return "expected no variance below 0 on the diagonal of covariance"
    features = arrays.get("features")
    if features is None:
        return ""
    if features.dtype != np.float32 or features.shape != (count, width):
        return f"expected float32 numbers ({count}, {width}) in features"
    agree = np.allclose(features.mean(0, dtype=np.float64), mean, rtol=1e-4, atol=1e-4)
    return "" if agree else "its features are not those of its mean"

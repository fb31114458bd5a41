"""Features of finished groups under scoring extractors, kept on disk by a hash of their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import StoreError, why
from eddy_bench.models.images import image_tensor
from eddy_bench.models.networks import AttributeClassifier, load_network, to_gray
from eddy_bench.scoring.extractors import ASSETS, Extractor, load_extractor
from eddy_bench.scoring.reference import RealImages
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.paths import replacing
from eddy_bench.storage.run_folder import RunFolder

Advance = Callable[[int, str], None]
Features = NDArray[np.float32]
GROUPS_TOGETHER = 16  # whose images are in memory at once


@dataclass
class Scorer:
    """Load extractors once and compute features once in a scoring pass.

    folder: of the run.
    weights: a folder with weights that cannot be downloaded.
    real: images that the methods are compared with.
    advance: is told how many groups went through an extractor, and whose.
    """

    folder: RunFolder
    weights: Path | None
    real: RealImages | None
    advance: Advance
    extractors: dict[str, Extractor] = field(default_factory=dict)
    classifier: AttributeClassifier | None = None
    kept: dict[tuple[str, str], dict[str, Features]] = field(default_factory=dict)
    judged: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def extractor(self, name: str) -> Extractor:
        """Load an extractor once."""
        if name not in self.extractors:
            self.extractors[name] = load_extractor(name, self.weights)
        return self.extractors[name]

    def features(self, name: str, groups: Sequence[FinishedGroup]) -> dict[str, Features]:
        """Return features (N, F) of each group of one method, by key; compute what is new."""
        extractor = self.extractor(name)
        label = groups[0].group.label if groups else "none"
        path = features_folder(self.folder.path, name, extractor.digest) / f"{label}.npz"
        if (name, label) not in self.kept:  # of one method at a time: runs may be large
            self.kept = {(name, label): read_features(path)}
        known = self.kept[name, label]
        new = [
            group
            for group in groups
            if len(known.get(group.fingerprint, ())) != group.group.particles
        ]
        for start in range(0, len(new), GROUPS_TOGETHER):
            part = new[start : start + GROUPS_TOGETHER]
            rows = extractor.images([image for group in part for image in group.images()])
            sizes = np.cumsum([group.group.particles for group in part])[:-1]
            for group, features in zip(part, np.split(rows, sizes), strict=True):
                known[group.fingerprint] = features
            self.advance(len(part), f"{label} {name}")
        if new:
            write_features(path, known)
        return {group.group.key: known[group.fingerprint] for group in groups}

    def real_features(self, extractor: Extractor) -> Features:
        """Return features (n, F) of the real images, kept in the run folder."""
        assert self.real is not None
        folder = features_folder(self.folder.path, extractor.name, extractor.digest)
        path = folder / f"reference-{file_name(self.real.name)}.npz"
        known = read_features(path)
        if "real" not in known:
            known = {"real": extractor.images(self.real.images)}
            write_features(path, known)
        return known["real"]

    def reference_groups(self) -> list[FinishedGroup]:
        """Return the disjoint i.i.d. set for drift, one image a group."""
        return list(self.folder.reference().finished())

    def attributes(self, groups: Sequence[FinishedGroup]) -> dict[str, NDArray[np.int64]]:
        """Return the predicted (class, tone, shape) of each image, by the group's key."""
        if self.classifier is None:
            path = ASSETS / "classifier" / "model.safetensors"
            self.classifier = load_network(AttributeClassifier(), path)
        for group in groups:
            if group.group.key not in self.judged:
                self.judged[group.group.key] = predict_attributes(self.classifier, group.images())
                self.advance(1, f"{group.group.label} classifier")
        return {group.group.key: self.judged[group.group.key] for group in groups}

    def note_truncated(self, extractor: Extractor, prompts: Sequence[str]) -> None:
        """Warn of prompts that are longer than the extractor's text tower takes."""
        if extractor.truncated is None:
            return
        for prompt in prompts:
            note = (
                f"prompt {prompt[:60]!r} is longer than {extractor.name} reads; "
                "the rest does not count in clip"
            )
            if note not in self.warnings and extractor.truncated(prompt):
                self.warnings.append(note)


def predict_attributes(
    classifier: AttributeClassifier, images: Sequence[Image.Image]
) -> NDArray[np.int64]:
    """Return the class, tone and shape of images, (N, 3)."""
    with torch.inference_mode():
        logits = classifier(to_gray(torch.stack([image_tensor(image) for image in images])))
    return torch.stack([z.argmax(1) for z in logits], 1).numpy()


def features_folder(run: Path, extractor: str, digest: str) -> Path:
    """Return where a run keeps features of an extractor with these weights."""
    return run / "features" / f"{file_name(extractor)}-{digest}"


def file_name(extractor: str) -> str:
    """Return a name as that of a file."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in extractor)


def read_features(path: Path) -> dict[str, Features]:
    """Read arrays by name; nothing where the file is not there or broken."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except Exception:  # a cache: what cannot be read, for any of numpy's reasons, is made again
        return {}
    whole = all(
        array.ndim == 2 and array.dtype.kind == "f" and np.isfinite(array).all()
        for array in arrays.values()
    )
    return arrays if whole and len({array.shape[1] for array in arrays.values()}) <= 1 else {}


def write_features(path: Path, features: dict[str, Features]) -> None:
    """Replace a file of arrays in one step."""
    try:
        with replacing(path) as written, written.open("wb") as file:
            np.savez(file, **features)  # type: ignore[arg-type]
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None

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
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.paths import replacing
from eddy_bench.storage.run_folder import RunFolder

Advance = Callable[[int, str], None]


@dataclass
class Scorer:
    """Extractors and features of one scoring pass; features are kept on disk by a hash of their images."""

    folder: RunFolder
    weights: Path | None
    advance: Advance
    extractors: dict[str, Extractor] = field(default_factory=dict)
    classifier: AttributeClassifier | None = None
    kept: dict[tuple[str, str], dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    judged: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def extractor(self, name: str) -> Extractor:
        """Load an extractor once."""
        if name not in self.extractors:
            self.extractors[name] = load_extractor(name, self.weights)
        return self.extractors[name]

    def features(
        self, name: str, groups: Sequence[FinishedGroup]
    ) -> dict[str, NDArray[np.float32]]:
        """Features (N, F) of each group of one method, by key; only what is new is computed."""
        extractor = self.extractor(name)
        label = groups[0].group.label if groups else "none"
        path = (
            self.folder.path / "features" / f"{file_name(name)}-{extractor.digest}" / f"{label}.npz"
        )
        if (name, label) not in self.kept:
            self.kept = {
                (name, label): read_features(path)
            }  # of one method at a time: runs may be large
        known = self.kept[name, label]
        new = [
            group
            for group in groups
            if len(known.get(group.fingerprint, ())) != group.group.particles
        ]
        for start in range(0, len(new), 16):
            part = new[start : start + 16]
            found, position = (
                extractor.images([image for group in part for image in group.images()]),
                0,
            )
            for group in part:
                known[group.fingerprint] = found[position : position + group.group.particles]
                position += group.group.particles
            self.advance(len(part), f"{label} {name}")
        if new:
            write_features(path, known)
        return {group.group.key: known[group.fingerprint] for group in groups}

    def attributes(self, groups: Sequence[FinishedGroup]) -> dict[str, NDArray[np.int64]]:
        """Predicted (class, tone, shape) of each image, by key."""
        if self.classifier is None:
            self.classifier = load_network(
                AttributeClassifier(), ASSETS / "classifier" / "model.safetensors"
            )
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
            note = f"prompt {prompt[:60]!r} is longer than {extractor.name} reads; the rest does not count in clip"
            if note not in self.warnings and extractor.truncated(prompt):
                self.warnings.append(note)


def predict_attributes(
    classifier: AttributeClassifier, images: Sequence[Image.Image]
) -> NDArray[np.int64]:
    """(N, 3) class, tone and shape of images."""
    with torch.inference_mode():
        logits = classifier(to_gray(torch.stack([image_tensor(image) for image in images])))
    return torch.stack([z.argmax(1) for z in logits], 1).numpy()


def file_name(extractor: str) -> str:
    """An extractor's name as a folder's."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in extractor)


def read_features(path: Path) -> dict[str, NDArray[np.float32]]:
    """Arrays by name; nothing where the file is not there or broken."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            found = {name: data[name] for name in data.files}
    except (
        Exception
    ):  # a cache: what cannot be read, for any of numpy's and zlib's reasons, is computed again
        return {}
    whole = all(
        value.ndim == 2 and value.dtype.kind == "f" and np.isfinite(value).all()
        for value in found.values()
    )
    return found if whole and len({value.shape[1] for value in found.values()}) <= 1 else {}


def write_features(path: Path, features: dict[str, NDArray[np.float32]]) -> None:
    """Replace a file of arrays in one step."""
    try:
        with replacing(path) as written, written.open("wb") as file:
            np.savez(file, **features)  # type: ignore[arg-type]
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None

"""Images of finished groups through networks; features are kept on disk by a hash of the images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, islice
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import MetricError, counted
from eddy_bench.models.devices import CPU
from eddy_bench.models.images import pixel_array
from eddy_bench.scoring.attribute_values import Values
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.extractors import load_classifier, load_extractor
from eddy_bench.scoring.forward import BATCH, Forward, Row, ahead
from eddy_bench.scoring.reference import RealImages, SavedStatistics, write_arrays
from eddy_bench.storage.files import read_arrays
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.paths import refuse_link, safe_name
from eddy_bench.storage.run_folder import RunFolder

Advance = Callable[[int, str], None]
Features = NDArray[np.float32]
Load = Callable[[Path | None, torch.device], Extractor]
GROUPS_TOGETHER = 16  # whose images may share a batch


@dataclass
class Scorer:
    """Load extractors once and compute features once in a scoring pass."""

    folder: RunFolder
    weights: Path | None  # a folder with weights that cannot be downloaded
    real: RealImages | SavedStatistics | None  # what methods are compared with
    advance: Advance  # is told how many groups went through an extractor, and whose
    device: torch.device = CPU  # of every network
    extractors: dict[str, Extractor] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)  # why an extractor cannot be had
    classifier: Forward | None = None
    kept: dict[tuple[str, str], dict[str, Features]] = field(default_factory=dict)
    judged: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # what images went through, by name
    networks: dict[str, Callable[..., Any]] = field(default_factory=dict)
    values: Values = field(default_factory=dict)  # that prompts leave open, where a metric asks

    def extractor(self, name: str, load: Load | None = None) -> Extractor:
        """Load an extractor once; `load` is of one that a metric brings along.

        What failed is not tried again: without network a hub keeps one waiting.
        """
        if name in self.lacking:
            raise MetricError(self.lacking[name])
        if name not in self.extractors:
            load = load or partial(load_extractor, name)
            try:
                self.extractors[name] = load(self.weights, self.device)
            except MetricError as error:
                self.lacking[name] = str(error)
                raise
        return self.extractors[name]

    def features(self, name: str, groups: Sequence[FinishedGroup]) -> dict[str, Features]:
        """Return features (N, F) of each group of one method, by key; compute what is new."""
        extractor = self.extractor(name)
        self.networks[name] = extractor.forward
        label = groups[0].group.label if groups else "none"
        path = features_folder(self.folder.path, name, extractor.digest) / f"{label}.npz"
        if (name, label) not in self.kept:  # of one method at a time: runs may be large
            self.kept = {(name, label): self._read(path)}
        known = self.kept[name, label]
        new = [own for own in groups if len(known.get(own.fingerprint, ())) != own.group.particles]
        with closing(rows_of_groups(extractor.forward, extractor.prepare, new)) as rows:
            for count, (group, features) in enumerate(rows, 1):
                known[group.fingerprint] = features = extractor.checked(features)
                width, others = features.shape[1], next(iter(known.values())).shape[1]
                if width != others:
                    raise MetricError(
                        f"Expected images of one size under {name}, got {others} features of other "
                        f"groups and {width} in {group.folder}. Take another extractor, or remove "
                        "it and run again to redraw it."
                    )
                if count % GROUPS_TOGETHER == 0 or count == len(new):
                    done = (count - 1) % GROUPS_TOGETHER + 1
                    self.advance(done, f"{group.group.name} {name}")
        if new:
            write_features(path, known)
        return {group.group.key: known[group.fingerprint] for group in groups}

    def _read(self, path: Path) -> dict[str, Features]:
        known = read_features(path)
        if not known and path.exists():
            self.warnings.append(f"{path} could not be read; its features are computed again")
        return known

    def real_features(self, extractor: Extractor) -> Features:
        """Return features (n, F) of the real images, kept in the run folder or in their file.

        Raises:
            MetricError: there is a file, and it does not hold them.
        """
        assert self.real is not None
        if isinstance(self.real, SavedStatistics):
            return self.real.all_features()
        folder = features_folder(self.folder.path, extractor.name, extractor.digest)
        path = folder / f"reference-{safe_name(self.real.name)}.npz"
        known = self._read(path)
        if "real" not in known:
            known = {"real": extractor.images(self.real.images)}
            write_features(path, known)
        return known["real"]

    def hold_out(self) -> list[FinishedGroup]:
        """Return the disjoint i.i.d. set for drift, one image a group."""
        broken: list[str] = []
        groups = list(self.folder.reference().finished(broken))
        if broken:
            count = counted(len(broken), "broken group")
            note = f"left out {count} of the hold-out set ({broken[0]})"
            self.warnings += [note] if note not in self.warnings else []
        return groups

    def attributes(self, groups: Sequence[FinishedGroup]) -> dict[str, NDArray[np.int64]]:
        """Return the predicted (class, tone, shape) of each image, by the group's key."""
        self.classifier = self.classifier or load_classifier(self.device)
        self.networks["the classifier"] = self.classifier
        new = [group for group in groups if group.group.key not in self.judged]
        with closing(rows_of_groups(self.classifier, pixel_array, new)) as rows:
            for group, predicted in rows:
                self.judged[group.group.key] = predicted
                self.advance(1, f"{group.group.name} classifier")
        return {group.group.key: self.judged[group.group.key] for group in groups}

    @property
    def memory_notes(self) -> list[str]:
        """What memory made of the batches of each network."""
        own = (each for each in self.networks.values() if isinstance(each, Forward))
        return [each.note for each in own if each.note]

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


def features_folder(run: Path, extractor: str, digest: str) -> Path:
    """Return where a run keeps features of an extractor with these weights."""
    return run / "features" / f"{safe_name(extractor)}-{safe_name(digest)}"


def read_features(path: Path) -> dict[str, Features]:
    """Read what `write_features` wrote; nothing where the file is not there or broken."""
    try:
        data = read_arrays(path)
        rows, counts = data["rows"], data["counts"]
        whole = rows.ndim == 2 and rows.dtype.kind == "f" and int(counts.sum()) == len(rows)
        if not whole or not np.isfinite(rows).all():
            return {}
        parts = np.split(rows, np.cumsum(counts)[:-1])
        return dict(zip(map(str, data["names"]), parts, strict=True))
    except Exception:  # a cache: what cannot be read, for any of numpy's reasons, is made again
        return {}


def write_features(path: Path, features: dict[str, Features]) -> None:
    """Replace a file of arrays in one step: all rows as one array, read back in one piece."""
    arrays = {
        "names": np.array(list(features)),
        "counts": np.array([len(values) for values in features.values()]),
        "rows": np.concatenate(list(features.values())),
    }
    refuse_link(path.parents[1], path.parent)
    write_arrays(path, arrays)


def rows_of_groups(
    forward: Callable[[Iterable[Row]], Iterator[Any]],
    prepare: Callable[[Image.Image], NDArray[Any]],
    groups: Sequence[FinishedGroup],
    together: int = 1,
    beside: Callable[[str], Any] | None = None,
) -> Generator[tuple[FinishedGroup, NDArray[Any]], None, None]:
    """Yield each group with the network's results of its images, or of its pairs, in order.

    Files are read, checked, decoded and prepared in threads while the network is at work.

    Args:
        forward: of rows of `together` prepared images.
        prepare: an image for the network.
        groups: of equally many images.
        together: 1 for single images; 2 for pairs i < j.
        beside: from a prompt to what stands behind its images in each row; None for nothing.

    Yields:
        (group, (N, ...)), or (group, (N (N - 1) / 2, ...)) for pairs.

    Raises:
        StoreError: an image is missing or was changed.
        MetricError: not even one row fits into memory; there are more results than rows, or fewer.
    """

    def prepared(group: FinishedGroup) -> list[NDArray[Any]]:
        return [prepare(image) for image in group.images()]

    waiting = -(-2 * BATCH // groups[0].group.particles) if groups else 0
    with ahead(prepared, groups, waiting) as read:
        for start in range(0, len(groups), GROUPS_TOGETHER):
            part = groups[start : start + GROUPS_TOGETHER]
            images = islice(read, len(part))
            texts = [() if beside is None else (beside(group.group.prompt),) for group in part]
            results = forward(
                (*row, *text)
                for own, text in zip(images, texts, strict=True)
                for row in combinations(own, together)
            )
            for group in part:
                count = comb(group.group.particles, together)
                own = list(islice(results, count))
                if len(own) < count:
                    raise MetricError(f"Expected {count} results of a group, got {len(own)}.")
                yield group, np.array(own)
            if next(iter(results), None) is not None:
                raise MetricError("Expected one result for each image or pair, got more.")

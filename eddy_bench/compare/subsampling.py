"""Intervals of pooled metrics: how much the difference between two runs scatters over random halves of the prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eddy_bench.scoring.feature_cache import file_name, read_features
from eddy_bench.scoring.fidelity import (
    cmmd,
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from eddy_bench.storage.run_folder import RunFolder

HALVES = 40
FUNCTIONS: dict[str, Callable[[NDArray[np.float32], NDArray[np.float32]], float]] = {
    "fd": frechet_distance,
    "fid": frechet_distance,
    "kid": kernel_distance,
    "precision": lambda images, real: precision_recall(images, real)[0],
    "recall": lambda images, real: precision_recall(images, real)[1],
    "density": lambda images, real: density_coverage(images, real)[0],
    "coverage": lambda images, real: density_coverage(images, real)[1],
    "cmmd": cmmd,
}


@dataclass(frozen=True)
class Sides:
    """The run folders of both sides; None for a CSV file."""

    candidate: Path | None
    baseline: Path | None

    def difference(self, label: str, column: str, signature: str) -> tuple[float, float] | None:
        """The difference of a pooled metric, candidate less baseline, and its standard error; None where features are missing.

        Halves are drawn without replacement, as duplicates would bias a Frechet distance; the scatter of a difference over random halves is
        the standard error of the whole. Both sides are computed on the same half, from the features that the signature names.
        """
        metric = column.partition("[")[0]
        if metric not in FUNCTIONS or self.candidate is None or self.baseline is None:
            return None
        found = [_features(folder, label, signature) for folder in (self.candidate, self.baseline)]
        if found[0] is None or found[1] is None:
            return None
        (ours, real), (theirs, _) = found[0], found[1]
        prompts = sorted(ours)
        if len(prompts) < 4 or ours.keys() != theirs.keys():
            return None
        function, rng = FUNCTIONS[metric], np.random.default_rng(0)

        def gap(chosen: list[str]) -> float:
            return function(np.concatenate([ours[p] for p in chosen]), real) - function(
                np.concatenate([theirs[p] for p in chosen]), real
            )

        halves = [
            gap([prompts[k] for k in rng.permutation(len(prompts))[: len(prompts) // 2]])
            for _ in range(HALVES)
        ]
        return gap(prompts), float(np.std(halves, ddof=1))


def _features(
    folder: Path, label: str, signature: str
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]] | None:
    """Features (images, F) of each prompt of a method, and of the real images; None where they were not kept."""
    run = RunFolder(folder)
    groups = [
        found
        for found in run.finished()
        if _label(found.group.method, found.group.parameters) == label
    ]
    parts = dict(part.split("=", 1) for part in signature.split("|") if "=" in part)
    extractor, _, digest = parts.get("features", "").rpartition("@")
    place = folder / "features" / f"{file_name(extractor)}-{digest}"
    if not groups or not place.is_dir():
        return None
    known = read_features(place / f"{groups[0].group.label}.npz")
    real = read_features(
        place / f"reference-{file_name(parts.get('ref', '').rpartition(':')[0])}.npz"
    ).get("real")
    if real is None or any(found.fingerprint not in known for found in groups):
        return None
    by_prompt: dict[str, list[NDArray[np.float32]]] = {}
    for found in groups:
        by_prompt.setdefault(found.group.prompt_id, []).append(known[found.fingerprint])
    return {prompt: np.concatenate(parts) for prompt, parts in by_prompt.items()}, real


def _label(method: str, parameters: str) -> str:
    return f"{method}:{parameters}" if parameters else method

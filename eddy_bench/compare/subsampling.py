"""Intervals of pooled metrics: how a difference of runs scatters over random halves of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eddy_bench.scoring.feature_cache import features_folder, read_features
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.scoring.signature import Signature
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.paths import safe_name
from eddy_bench.storage.run_folder import RunFolder

SUBSAMPLES = 40
FEWEST_PROMPTS = 4
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Subsampling:
    """Compare two run folders on random halves of their prompts; a CSV file has none."""

    candidate: Path | None
    baseline: Path | None

    @cached_property
    def _candidates(self) -> dict[str, list[FinishedGroup]]:
        return _groups(self.candidate)

    @cached_property
    def _baselines(self) -> dict[str, list[FinishedGroup]]:
        return self._candidates if self.baseline == self.candidate else _groups(self.baseline)

    def difference(self, label: str, column: str, signature: str) -> tuple[float, float] | None:
        """Return the difference of a pooled metric, candidate less baseline, and its error.

        None where features are missing. Halves are drawn without replacement, as duplicates would
        bias a Frechet distance; the scatter of a difference over random halves is the standard
        error of the whole. Both sides are computed on the same half, from the features that the
        signature names.
        """
        return self._difference((label, label), column, signature)

    def between(
        self, label: str, other: str, column: str, signature: str
    ) -> tuple[float, float] | None:
        """Return the same of one method of the candidate less another one of the baseline."""
        return self._difference((label, other), column, signature)

    def _difference(
        self, labels: tuple[str, str], column: str, signature: str
    ) -> tuple[float, float] | None:
        metric = MetricSpec.of_column(column).metric
        if metric.needs != "real" or metric.function is None:  # a plug-in's code is not at hand
            return None
        if self.candidate is None or self.baseline is None:
            return None
        sides = [
            _features(folder, groups.get(label, []), Signature.parse(signature))
            for folder, groups, label in (
                (self.candidate, self._candidates, labels[0]),
                (self.baseline, self._baselines, labels[1]),
            )
        ]
        if sides[0] is None or sides[1] is None:
            return None
        (candidate, real), (baseline, _) = sides[0], sides[1]
        prompts = sorted(candidate)
        if len(prompts) < FEWEST_PROMPTS or candidate.keys() != baseline.keys():
            return None
        rng = np.random.default_rng(0)

        def gap(chosen: list[str]) -> float:
            values = (
                metric(np.concatenate([side[prompt] for prompt in chosen]), real)
                for side in (candidate, baseline)
            )
            return next(values) - next(values)

        gaps = [
            gap([prompts[k] for k in rng.permutation(len(prompts))[: len(prompts) // 2]])
            for _ in range(SUBSAMPLES)
        ]
        return gap(prompts), float(np.std(gaps, ddof=1))


def _groups(folder: Path | None) -> dict[str, list[FinishedGroup]]:
    """Return the finished groups of a run folder by method."""
    groups: dict[str, list[FinishedGroup]] = {}
    for group in RunFolder(folder).finished() if folder is not None else ():
        groups.setdefault(group.group.name, []).append(group)
    return groups


def _features(
    folder: Path, groups: Sequence[FinishedGroup], signature: Signature
) -> tuple[dict[str, Features], Features] | None:
    """Return features (images, F) of each prompt of a method, and of the real images.

    None where they were not kept.
    """
    path = features_folder(folder, *signature.features)
    if not groups or not path.is_dir():
        return None
    known = read_features(path / f"{groups[0].group.label}.npz")
    name = signature.value("ref").rpartition(":")[0]
    real = read_features(path / f"reference-{safe_name(name)}.npz").get("real")
    if real is None or any(group.fingerprint not in known for group in groups):
        return None
    by_prompt: dict[str, list[Features]] = {}
    for group in groups:
        good = [k for k in range(group.group.particles) if k not in group.bad]
        by_prompt.setdefault(group.group.prompt_id, []).append(known[group.fingerprint][good])
    return {prompt: np.concatenate(parts) for prompt, parts in by_prompt.items()}, real

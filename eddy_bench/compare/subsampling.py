"""Pooled metrics: how a difference scatters over halves of prompts, and where samples went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eddy_bench.ids import IID, MethodId, MetricId, Signature
from eddy_bench.results.results import Results
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.scoring.scorer import features_folder, read_features
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.names import safe_name
from eddy_bench.storage.paths import as_path
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
    def _candidates(self) -> dict[MethodId, list[FinishedGroup]]:
        return _groups(self.candidate)

    @cached_property
    def _baselines(self) -> dict[MethodId, list[FinishedGroup]]:
        return self._candidates if self.baseline == self.candidate else _groups(self.baseline)

    def difference(
        self,
        method: MethodId,
        column: MetricId,
        signature: Signature,
        other: MethodId | None = None,
    ) -> tuple[float, float] | None:
        """Return the difference of a pooled metric, candidate less baseline, and its error.

        None where features are missing. Halves are drawn without replacement, as duplicates would
        bias a Frechet distance; the scatter of a difference over random halves is the standard
        error of the whole. Both sides are computed on the same half, from the features that the
        signature names.

        Args:
            method: of the candidate.
            column: of the metric.
            signature: of its value.
            other: of the baseline; None is the same.

        """
        metric = METRICS.get(column.name)  # a plug-in's code is not at hand
        if metric is None or metric.needs != "real":
            return None
        if self.candidate is None or self.baseline is None:
            return None
        one = _features(self.candidate, self._candidates.get(method, []), signature)
        two = _features(self.baseline, self._baselines.get(other or method, []), signature)
        if one is None or two is None:
            return None
        (candidate, real), (baseline, _) = one, two
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


def _groups(folder: Path | None) -> dict[MethodId, list[FinishedGroup]]:
    """Return the finished groups of a run folder by method."""
    groups: dict[MethodId, list[FinishedGroup]] = {}
    for group in RunFolder(folder).finished() if folder is not None else ():
        groups.setdefault(group.group.id, []).append(group)
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


@dataclass(frozen=True)
class Direction:
    """A distance to the real images, of a method and of i.i.d. sampling.

    gain: closer to the real images, in the metric's unit.
    error: its standard error by subsampling prompts; None where features are not at hand.
    """

    column: MetricId
    independent: float
    value: float
    gain: float
    error: float | None

    @property
    def closer(self) -> bool | None:
        """True for closer, False for farther, None where neither is significant."""
        if self.error is None or not abs(self.gain) > 1.96 * self.error:
            return None
        return self.gain > 0

    @property
    def text(self) -> str:
        """The figures: `fd[fmnist-clip] 62 -> 48`."""
        untested = "" if self.error is not None else ", untested without features"
        return f"{self.column} {self.independent:.3g} -> {self.value:.3g}{untested}"


def directions(
    results: Results, method: MethodId, subsampling: Subsampling | None
) -> list[Direction]:
    """Return what each metric of real images says of a method against i.i.d. sampling.

    Args:
        results: of one run or several.
        method: one of them.
        subsampling: `subsampling_of` the results, one for all methods.

    """
    answers = []
    for column in results.columns:
        if (metric := results.metric(column)).role != "reference-distance":
            continue
        own, iid = (results.rows(name, column) for name in (method, IID))
        if own.empty or iid.empty:
            continue
        value, independent = float(own["value"].iloc[0]), float(iid["value"].iloc[0])
        signature, sampled = own["signature"].iloc[0], None
        if subsampling is not None:
            sampled = subsampling.difference(method, column, signature, IID)
        gain = value - independent if metric.higher_is_better else independent - value
        error = None if sampled is None else sampled[1]
        answers.append(Direction(column, independent, value, gain, error))
    return answers


def subsampling_of(results: Results) -> Subsampling | None:
    """Return what compares methods of one run folder by its features; None for anything else."""
    folder = as_path(results.sources[0])
    return Subsampling(folder, folder) if len(results.sources) == 1 and folder.is_dir() else None


def direction_words(results: Results, method: MethodId, subsampling: Subsampling | None) -> str:
    """Say where a method's samples went; empty without a metric of real images."""
    answers = directions(results, method, subsampling)
    if not answers:
        return ""
    if all(answer.error is None for answer in answers):
        return answers[0].text
    for closer, words in ((True, "closer to the real images"), (False, "farther from them")):
        shown = [answer for answer in answers if answer.closer is closer]
        against = [answer for answer in answers if answer.closer is (not closer)]
        if shown and not against:
            return f"{words} ({'; '.join(answer.text for answer in shown)})"
    return f"neither closer to the real images nor farther is significant ({answers[0].text})"

"""Methods over a grid of strengths: diversity against fidelity and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy_bench.compare.families import families_of, strength_text
from eddy_bench.compare.fronts import Array, Attained, Family, Fronts, Point, Range
from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import by_prompt
from eddy_bench.scoring.metrics import MetricSpec, judging

RESAMPLES = 1000
LEVELS = 120
LOSS = 0.01  # of the baseline's fidelity, at which methods are compared


@dataclass(frozen=True)
class _Table:
    """Hold methods on the plane, in the order of `labels`, larger being better everywhere.

    means: (2, methods): diversity and fidelity.
    drawn: (2, resamples, methods): the same over resampled prompts, at the baseline's own means.
    seconds: (methods,).
    speed: (methods,), -log2 of seconds; NaN where some are missing.
    """

    labels: list[str]
    baseline: int
    means: Array
    drawn: Array
    seconds: Array
    speed: Array

    @property
    def timed(self) -> bool:
        """Whether every method has its seconds."""
        return bool(np.isfinite(self.speed).all())

    @property
    def reference(self) -> tuple[float, float]:
        """The worst diversity and fidelity of any method."""
        return float(self.means[0].min()), float(self.means[1].min())

    @property
    def samples(self) -> list[Array]:
        """The means, then every resample, (2, methods) each."""
        return [self.means, *self.drawn.swapaxes(0, 1)]


def fronts(scores: ScoreSet, baseline: str = "iid") -> Fronts | None:
    """Compare every method as a family over its strengths.

    None without a diversity and a fidelity metric or without the baseline. Prompts that any method
    lacks are left out, so that all points are means over the same ones.
    """
    diversity = _column(scores, judging("diversity"))
    fidelity = _column(scores, judging("fidelity"))
    if diversity is None or fidelity is None or baseline not in scores.labels:
        return None
    columns = (diversity, fidelity)
    tables = [by_prompt(scores.frame[scores.frame["column"] == column]) for column in columns]
    labels = [label for label in scores.labels if all(label in table for table in tables)]
    shared = [table[labels].dropna() for table in tables]
    prompts = shared[0].index.intersection(shared[1].index)
    if baseline not in labels or len(labels) < 2 or len(prompts) < 2:
        return None
    signs = [1.0 if MetricSpec.of_column(c).metric.higher_is_better else -1.0 for c in columns]
    values = np.stack([part.loc[prompts].to_numpy(np.float64) for part in shared])
    values *= np.asarray(signs)[:, None, None]  # (2, prompts, methods)
    table = _resampled(values, labels, baseline, _seconds(scores, labels, baseline))
    points = _points(table)
    families = tuple(
        _family(name, members, table, points)
        for name, members in families_of(labels, baseline).items()
    )
    return Fronts(
        diversity, fidelity, baseline, len(prompts), table.reference, families, *_curves(table)
    )


def _resampled(values: Array, labels: list[str], baseline: str, seconds: Array) -> _Table:
    """Resample prompts of (2, prompts, methods); what counts is the difference to the baseline."""
    count, start = values.shape[1], labels.index(baseline)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    means, drawn = values.mean(1), weights @ values
    drawn = drawn + (means[:, None, start] - drawn[:, :, start])[..., None]
    timed = bool((seconds > 0).all())
    speed = -np.log2(seconds) if timed else np.full(len(labels), np.nan)
    return _Table(labels, start, means, drawn, seconds, speed)


def _points(table: _Table) -> dict[str, Point]:
    """Return every method as a point with its intervals, and whether it is on the fronts."""
    front = _nondominated(table.means.T)
    front_seconds = np.zeros(len(table.labels), bool)
    if table.timed:
        front_seconds = _nondominated(np.stack([table.means[0], table.speed], 1))
    return {
        label: Point(
            label,
            strength_text(label),
            _range([table.means[0, k], *table.drawn[0, :, k]]),
            _range([table.means[1, k], *table.drawn[1, :, k]]),
            float(table.seconds[k]),
            bool(front[k]),
            bool(front_seconds[k]),
        )
        for k, label in enumerate(table.labels)
    }


def _family(name: str, members: list[str], table: _Table, points: dict[str, Point]) -> Family:
    """Return a method over its strengths with its figures."""
    own = [table.labels.index(label) for label in members]
    start, reference, speed = table.baseline, table.reference, table.speed
    slowest = (reference[0], float(speed.min()) if table.timed else float("nan"))
    hypervolumes = [_hypervolume(sample[:, own].T, reference) for sample in table.samples]
    timed_hypervolumes = [
        _hypervolume(np.stack([sample[0, own], speed[own]], 1), slowest)
        if table.timed
        else float("nan")
        for sample in table.samples
    ]
    at_loss = [diversity_at_loss(sample[0, own], sample[1, own]) for sample in table.samples]
    height = float(table.means[0, start]) - reference[0]
    alone = height * np.asarray([table.means[1, start] - reference[1], speed[start] - slowest[1]])
    return Family(
        name,
        tuple(points[label] for label in members),
        _range(hypervolumes),
        _range(timed_hypervolumes),
        _range(at_loss),
        (float(alone[0]), float(alone[1])),
    )


def _curves(table: _Table) -> tuple[Attained, Attained | None]:
    """Return the fronts of all methods against fidelity and, where all are timed, speed."""
    front = _attained(table.means, table.drawn)
    if not table.timed:
        return front, None
    speeds = np.broadcast_to(table.speed, table.drawn[0].shape)
    timed = np.stack([table.means[0], table.speed]), np.stack([table.drawn[0], speeds])
    return front, _attained(*timed)


def _seconds(scores: ScoreSet, labels: Sequence[str], baseline: str) -> Array:
    """Return seconds per image.

    Of several runs, they are as many times the first one's baseline as each method takes of its
    own run's.
    """
    rows = scores.frame[scores.frame["metric"] == "seconds_per_image"]
    means = rows.groupby("label")["value"].median()
    baselines = scores.baselines("seconds_per_image", baseline)
    first = means.get(baseline, np.nan)
    source = dict(zip(rows["label"], rows["source"], strict=True))
    return np.asarray(
        [
            means.get(label, np.nan) * (first / baselines.get(str(source.get(label)), first))
            for label in labels
        ],
        np.float64,
    )


def _attained(means: Array, drawn: Array) -> Attained:
    """Return the front over points (2, methods) and resamples (2, resamples, methods).

    The first axis holds the height, then the level at which it is reached; more is better.
    """
    levels = np.unique(
        np.concatenate([np.linspace(means[1].min(), means[1].max(), LEVELS), means[1]])
    )

    def heights(sample: Array) -> Array:
        reached = np.where(sample[1][..., None] >= levels, sample[0][..., None], -np.inf).max(-2)
        return np.where(np.isfinite(reached), reached, np.nan)

    value, scattered = heights(means), heights(drawn)
    # beyond the best level of a resample, its height is that of nothing
    lost = np.isnan(scattered)
    low, high = np.quantile(
        np.where(lost, -np.inf, scattered), [0.025, 0.975], axis=0, method="nearest"
    )
    return Attained(
        levels,
        value,
        np.where(np.isfinite(low), low, np.nan),
        np.where(np.isfinite(high), high, np.nan),
    )


def diversity_at_loss(
    diversity: Sequence[float] | Array, fidelity: Sequence[float] | Array, loss: float = LOSS
) -> float:
    """Return the most diversity at no more than a share of the first point's fidelity lost.

    It is linear between neighbours.

    >>> diversity_at_loss([1.0, 2.0, 4.0], [100.0, 99.5, 98.5])
    3.0
    """
    least = fidelity[0] - loss * abs(fidelity[0])
    best = float(diversity[0])
    for (d0, f0), (d1, f1) in zip(
        zip(diversity[:-1], fidelity[:-1], strict=True),
        zip(diversity[1:], fidelity[1:], strict=True),
        strict=True,
    ):
        if f1 >= least:
            best = max(best, float(d1))
        if (f0 - least) * (f1 - least) < 0:
            best = max(best, float(d0 + (d1 - d0) * (f0 - least) / (f0 - f1)))
    return best


def _column(scores: ScoreSet, names: Sequence[str]) -> str | None:
    """Return the first column of the first metric that is there."""
    columns = {column: MetricSpec.of_column(column).name for column in scores.columns}
    return next(
        (column for name in names for column, metric in columns.items() if metric == name), None
    )


def _range(samples: Sequence[float] | Array) -> Range:
    """Return a value and its interval from the value itself, first, and its resamples."""
    low, high = np.quantile(np.asarray(samples)[1:], [0.025, 0.975])
    return Range(float(samples[0]), float(low), float(high))


def _nondominated(points: Array) -> NDArray[np.bool_]:
    import moocore

    kept: NDArray[np.bool_] = moocore.is_nondominated(points, maximise=True, keep_weakly=True)
    return kept


def _hypervolume(points: Array, reference: tuple[float, float]) -> float:
    import moocore

    return float(moocore.hypervolume(np.ascontiguousarray(points), ref=reference, maximise=True))

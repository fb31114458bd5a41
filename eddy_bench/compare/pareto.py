"""Methods over a grid of strengths: diversity against fidelity and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import by_prompt
from eddy_bench.errors import EddyError
from eddy_bench.methods.registry import load_method
from eddy_bench.scoring.metrics import METRICS

RESAMPLES = 1000
LEVELS = 120
LOSS = 0.01  # of the baseline's fidelity, at which methods are compared
DIVERSITY = ("vendi", "pdist", "lpips")
FIDELITY = ("clip", "align")
DIALS = {
    "best-of-m": "m"
}  # what is turned up to trade fidelity and time for diversity; of all others `strength`
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """A value with the 95% bootstrap interval, over prompts, of its difference to the baseline."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A method on the plane: both means with their intervals, and seconds per image.

    front: no other point of any family is better in diversity and fidelity. front_seconds: nor in diversity and seconds.
    """

    label: str
    strength: str
    diversity: Range
    fidelity: Range
    seconds: float
    front: bool
    front_seconds: bool


@dataclass(frozen=True)
class Family:
    """A method over its strengths, the baseline included.

    hypervolume: area between its points and the reference, of diversity times fidelity. hypervolume_seconds: of diversity times doublings of
    speed (log2 of seconds, which have no interval of their own). at_fidelity: its diversity at no more than 1% loss of the baseline's fidelity,
    linear between neighbouring strengths. baseline_hypervolumes: of the baseline alone, both.
    """

    name: str
    points: tuple[Point, ...]
    hypervolume: Range
    hypervolume_seconds: Range
    at_fidelity: Range
    baseline_hypervolumes: tuple[float, float]


@dataclass(frozen=True)
class Attained:
    """The front of all methods: the most diversity at each level of fidelity or more, or at each number of seconds or fewer.

    levels, value, low, high: (levels,), the last two with 95% of the bootstrap's fronts between them.
    """

    levels: Array
    value: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Fronts:
    """All families on one pair of metrics. reference: the worst diversity and fidelity of any point, from which hypervolumes are taken."""

    diversity: str
    fidelity: str
    baseline: str
    prompts: int
    reference: tuple[float, float]
    families: tuple[Family, ...]
    front: Attained
    front_seconds: Attained | None


def fronts(scores: ScoreSet, baseline: str = "iid") -> Fronts | None:
    """Every method as a family over its strengths; None without a diversity and a fidelity metric or without the baseline.

    Prompts that any method lacks are left out, so that all points are means over the same ones.
    """
    diversity, fidelity = (_column(scores, names) for names in (DIVERSITY, FIDELITY))
    if diversity is None or fidelity is None or baseline not in scores.labels:
        return None
    tables = [
        by_prompt(scores.frame[scores.frame["column"] == column])
        for column in (diversity, fidelity)
    ]
    labels = [label for label in scores.labels if all(label in table for table in tables)]
    shared = [table[labels].dropna() for table in tables]
    prompts = shared[0].index.intersection(shared[1].index)
    if baseline not in labels or len(labels) < 2 or len(prompts) < 2:
        return None
    values = np.stack(
        [table.loc[prompts].to_numpy(np.float64) for table in shared]
    )  # (2, prompts, methods)
    values *= np.asarray(
        [
            1.0 if METRICS[column.partition("[")[0].partition("-q")[0]].higher_is_better else -1.0
            for column in (diversity, fidelity)
        ]
    )[:, None, None]
    rng = np.random.default_rng(0)
    weights = rng.multinomial(
        len(prompts), np.full(len(prompts), 1 / len(prompts)), RESAMPLES
    ) / len(prompts)
    means, drawn = values.mean(1), weights @ values  # (2, methods), (2, resamples, methods)
    start = labels.index(baseline)
    drawn = (
        drawn + (means[:, None, start] - drawn[:, :, start])[..., None]
    )  # what counts is the difference to the baseline
    reference = (float(means[0].min()), float(means[1].min()))
    seconds = _seconds(scores, labels, baseline)
    timed = bool((seconds > 0).all())
    speed = -np.log2(seconds) if timed else np.full(len(labels), np.nan)
    front = _nondominated(means.T)
    front_seconds = (
        _nondominated(np.stack([means[0], speed], 1)) if timed else np.zeros(len(labels), bool)
    )
    points = {
        label: Point(
            label,
            _strength(label),
            _range([means[0, k], *drawn[0, :, k]]),
            _range([means[1, k], *drawn[1, :, k]]),
            float(seconds[k]),
            bool(front[k]),
            bool(front_seconds[k]),
        )
        for k, label in enumerate(labels)
    }
    slowest = (reference[0], float(speed.min()) if timed else float("nan"))
    samples = [means, *drawn.swapaxes(0, 1)]
    families = []
    for name, members in _families(labels, baseline).items():
        places = [labels.index(label) for label in members]
        hyper = [_hypervolume(sample[:, places].T, reference) for sample in samples]
        quick = [
            _hypervolume(np.stack([sample[0, places], speed[places]], 1), slowest)
            if timed
            else float("nan")
            for sample in samples
        ]
        kept = [diversity_at_loss(sample[0, places], sample[1, places]) for sample in samples]
        alone = (means[0, start] - reference[0]) * np.asarray(
            [means[1, start] - reference[1], speed[start] - slowest[1]]
        )
        families.append(
            Family(
                name,
                tuple(points[label] for label in members),
                _range(hyper),
                _range(quick),
                _range(kept),
                (float(alone[0]), float(alone[1])),
            )
        )
    curves = (
        _attained(means, drawn),
        _attained(
            np.stack([means[0], speed]),
            np.stack([drawn[0], np.broadcast_to(speed, drawn[0].shape)]),
        )
        if timed
        else None,
    )
    return Fronts(diversity, fidelity, baseline, len(prompts), reference, tuple(families), *curves)


def _seconds(scores: ScoreSet, labels: Sequence[str], baseline: str) -> Array:
    """Seconds per image; of several runs, as many times the first one's baseline as each method takes of its own run's."""
    rows = scores.frame[scores.frame["metric"] == "seconds_per_image"]
    means, usual = (
        rows.groupby("label")["value"].mean(),
        scores.baselines("seconds_per_image", baseline),
    )
    first = means.get(baseline, np.nan)
    source = dict(zip(rows["label"], rows["source"], strict=True))
    return np.asarray(
        [
            means.get(label, np.nan) * (first / usual.get(str(source.get(label)), first))
            for label in labels
        ],
        np.float64,
    )


def _attained(means: Array, drawn: Array) -> Attained:
    """The front over points (2, methods) and its resamples (2, resamples, methods): first the height, then the place, more is better."""
    levels = np.unique(
        np.concatenate([np.linspace(means[1].min(), means[1].max(), LEVELS), means[1]])
    )

    def heights(sample: Array) -> Array:
        reached = np.where(sample[1][..., None] >= levels, sample[0][..., None], -np.inf).max(-2)
        return np.where(np.isfinite(reached), reached, np.nan)

    value, scattered = heights(means), heights(drawn)
    lost = np.isnan(
        scattered
    )  # beyond the best place of a resample; its height there is that of nothing
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
    """The most diversity at no more than a share of the first point's fidelity lost, linear between neighbours.

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


def _families(labels: Sequence[str], baseline: str) -> dict[str, list[str]]:
    """Labels of each method without its strength, the baseline first, by rising strength; negative strengths are a family of their own."""
    found: dict[str, list[str]] = {}
    for label in labels:
        if label != baseline:
            method, _, parameters = label.partition(":")
            rest = ",".join(
                part
                for part in parameters.split(",")
                if part and not part.startswith(f"{_dial(method)}=")
            )
            name = f"{method}:{rest}" if rest else method
            found.setdefault(f"{name} (negative)" if strength_of(label) < 0 else name, []).append(
                label
            )
    return {
        name: [baseline, *sorted(members, key=lambda label: abs(strength_of(label)))]
        for name, members in found.items()
    }


def strength_of(label: str) -> float:
    """The strength of a method, its default where none is named; infinite for methods without one.

    >>> strength_of("pg"), strength_of("pg:strength=0.5"), strength_of("iid")
    (3.0, 0.5, inf)
    """
    method, _, text = label.partition(":")
    parameters = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    try:
        if _dial(method) in parameters:
            return float(parameters[_dial(method)])
        cls = load_method(method)
    except (ValueError, EddyError):  # of another version, or a plug-in that is not installed
        return float("inf")
    default: Any = next(
        (item.default for item in fields(cls) if item.name == _dial(method)), float("inf")
    )
    kernel = parameters.get("kernel", getattr(cls, "preferred_kernel", ""))
    return float(cls.strengths.get(kernel, float("inf")) if default is None else default)


def _strength(label: str) -> str:
    method, _, text = label.partition(":")
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part).get(
        _dial(method), ""
    )


def _dial(method: str) -> str:
    return DIALS.get(method, "strength")


def _column(scores: ScoreSet, names: Sequence[str]) -> str | None:
    columns = dict.fromkeys(scores.frame["column"])
    return next(
        (column for name in names for column in columns if column.partition("[")[0] == name), None
    )


def _range(samples: Sequence[float] | Array) -> Range:
    """A value and its interval from the value itself, first, and its resamples."""
    low, high = np.quantile(np.asarray(samples)[1:], [0.025, 0.975])
    return Range(float(samples[0]), float(low), float(high))


def _nondominated(points: Array) -> NDArray[np.bool_]:
    import moocore

    found: NDArray[np.bool_] = moocore.is_nondominated(points, maximise=True, keep_weakly=True)
    return found


def _hypervolume(points: Array, reference: tuple[float, float]) -> float:
    import moocore

    return float(moocore.hypervolume(np.ascontiguousarray(points), ref=reference, maximise=True))

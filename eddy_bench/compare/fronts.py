"""Methods as families over their sweep parameter: diversity against fidelity and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy_bench.compare.paired import Difference, by_prompt, medians_by_method
from eddy_bench.errors import EddyError
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import load_method
from eddy_bench.results.results import Results
from eddy_bench.scoring.metrics import role_of

Array = NDArray[np.float64]
RESAMPLES = 1000
LEVELS = 120
LOSS = 0.01  # of the baseline's fidelity, at which methods are compared


@dataclass(frozen=True)
class Range:
    """A value with the 95% bootstrap interval of its difference to the baseline."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A method on the plane.

    strength: as the method's id names it.
    diversity, fidelity: means with their intervals.
    seconds: per image.
    front: no other point of any family is better in diversity and fidelity.
    front_seconds: nor in diversity and seconds.
    """

    method: MethodId
    strength: str
    diversity: Range
    fidelity: Range
    seconds: float
    front: bool
    front_seconds: bool


@dataclass(frozen=True)
class Family:
    """A method over its strengths, the baseline included.

    hypervolume: area between its points and the reference, of diversity times fidelity.
    hypervolume_seconds: of diversity times doublings of speed (log2 of seconds, which have no
        interval of their own).
    at_fidelity: its diversity at no more than 1% loss of the baseline's fidelity, linear between
        neighbouring strengths.
    baseline_hypervolumes: of the baseline alone, both.
    """

    name: str
    points: tuple[Point, ...]
    hypervolume: Range
    hypervolume_seconds: Range
    at_fidelity: Range
    baseline_hypervolumes: tuple[float, float]


@dataclass(frozen=True)
class Attained:
    """The most diversity of all methods at each level of fidelity or speed, or more.

    levels, value, low, high: (levels,), the last two with 95% of the bootstrap's fronts between
        them.
    """

    levels: Array
    value: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Fronts:
    """All families on one pair of metrics.

    reference: the worst diversity and fidelity of any point, from which hypervolumes are taken.
    """

    diversity: MetricId
    fidelity: MetricId
    baseline: MethodId
    prompts: int
    reference: tuple[float, float]
    families: tuple[Family, ...]
    front: Attained
    front_seconds: Attained | None


@dataclass(frozen=True)
class _Table:
    """Methods on the plane, in the order of `methods`, larger being better everywhere.

    means: (2, methods): diversity and fidelity.
    drawn: (2, resamples, methods): the same over resampled prompts, at the baseline's own means.
    seconds: (methods,).
    speed: (methods,), -log2 of seconds; NaN where some are missing.
    """

    methods: list[MethodId]
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


def fronts(results: Results) -> Fronts | None:
    """Compare every method as a family over its strengths.

    None without a diversity and a fidelity metric or without the baseline. Prompts that any method
    lacks are left out, so that all points are means over the same ones.
    """
    leading = [results.of_aspect(aspect, results.columns) for aspect in ("diversity", "fidelity")]
    if not all(leading) or results.baseline not in results.methods:
        return None
    diversity, fidelity = columns = [own[0] for own in leading]
    tables = [by_prompt(results.rows(column=column)) for column in columns]
    methods = [own for own in results.methods if all(own in table for table in tables)]
    shared = [table[methods].dropna() for table in tables]
    prompts = [name for name in shared[0].index if name in shared[1].index]
    if results.baseline not in methods or len(methods) < 2 or len(prompts) < 2:
        return None
    signs = [1.0 if results.metric(own).higher_is_better else -1.0 for own in columns]
    values = np.stack([part.loc[prompts].to_numpy(np.float64) for part in shared])
    values *= np.asarray(signs)[:, None, None]  # (2, prompts, methods)
    table = _resampled(values, methods, results.baseline, _seconds(results, methods))
    points = _points(table)
    families = tuple(
        _family(name, members, table, points)
        for name, members in families_of(methods, results.baseline).items()
    )
    return Fronts(
        diversity,
        fidelity,
        results.baseline,
        len(prompts),
        table.reference,
        families,
        *_curves(table),
    )


def _resampled(
    values: Array, methods: list[MethodId], baseline: MethodId, seconds: Array
) -> _Table:
    """Resample prompts of (2, prompts, methods); what counts is the difference to the baseline."""
    count, start = values.shape[1], methods.index(baseline)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    means, drawn = values.mean(1), weights @ values
    drawn = drawn + (means[:, None, start] - drawn[:, :, start])[..., None]
    timed = bool((seconds > 0).all())
    speed = -np.log2(seconds) if timed else np.full(len(methods), np.nan)
    return _Table(methods, start, means, drawn, seconds, speed)


def _points(table: _Table) -> dict[MethodId, Point]:
    """Return every method as a point with its intervals, and whether it is on the fronts."""
    front = _nondominated(table.means.T)
    front_seconds = np.zeros(len(table.methods), bool)
    if table.timed:
        front_seconds = _nondominated(np.stack([table.means[0], table.speed], 1))
    return {
        method: Point(
            method,
            strength_text(method),
            _range([table.means[0, k], *table.drawn[0, :, k]]),
            _range([table.means[1, k], *table.drawn[1, :, k]]),
            float(table.seconds[k]),
            bool(front[k]),
            bool(front_seconds[k]),
        )
        for k, method in enumerate(table.methods)
    }


def _family(
    name: str, members: list[MethodId], table: _Table, points: dict[MethodId, Point]
) -> Family:
    """Return a method over its strengths with its figures."""
    own = [table.methods.index(method) for method in members]
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
        tuple(points[method] for method in members),
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


def _seconds(results: Results, methods: Sequence[MethodId]) -> Array:
    """Return seconds per image.

    Of several runs, they are as many times the first one's baseline as each method takes of its
    own run's.
    """
    column = MetricId(role_of("seconds").name)
    rows = results.rows(column=column)
    medians = medians_by_method(rows)
    baselines = results.baseline_costs(column)
    first = medians.get(results.baseline, np.nan)
    source = dict(zip(rows["method"], rows["source"], strict=True))
    return np.asarray(
        [
            medians.get(own, np.nan) * (first / baselines.get(str(source.get(own)), first))
            for own in methods
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


def front_differences(fronts: Fronts) -> list[Difference]:
    """Return the figures of each family as differences to the baseline."""
    both = f"{fronts.diversity} at no more than 1% loss of {fronts.fidelity}"
    return [
        Difference(
            MethodId.parse(family.name),
            MetricId(name),
            True,
            fronts.prompts,
            level,
            figure.value,
            figure.value - level,
            figure.low - level,
            figure.high - level,
        )
        for family in fronts.families
        for name, figure, level in (
            (both, family.at_fidelity, family.points[0].diversity.value),
            (
                f"hypervolume of {fronts.diversity} and {fronts.fidelity}",
                family.hypervolume,
                family.baseline_hypervolumes[0],
            ),
            (
                f"hypervolume of {fronts.diversity} and log2 seconds",
                family.hypervolume_seconds,
                family.baseline_hypervolumes[1],
            ),
        )
    ]


def families_of(methods: Sequence[MethodId], baseline: MethodId) -> dict[str, list[MethodId]]:
    """Return each method without its sweep parameter, with its ids by rising strength.

    The baseline comes first in each; negative strengths are a family of their own.
    """
    families: dict[str, list[MethodId]] = {}
    for method in methods:
        if method != baseline:
            swept = _sweep_parameter(method.name)
            pairs = (f"{key}={value}" for key, value in method.values.items() if key != swept)
            name = str(MethodId(method.name, ",".join(pairs)))
            name = f"{name} (negative)" if strength_of(method) < 0 else name
            families.setdefault(name, []).append(method)
    return {
        name: [baseline, *sorted(members, key=lambda method: abs(strength_of(method)))]
        for name, members in families.items()
    }


def strength_of(method: MethodId) -> float:
    """Return the sweep parameter's value, its default where none is named.

    It is infinite for methods without one.

    >>> [strength_of(MethodId.parse(text)) for text in ("pg", "pg:strength=0.5", "iid")]
    [3.0, 0.5, inf]
    """
    swept, values = _sweep_parameter(method.name), method.values
    try:
        if swept in values:
            return float(values[swept])
        cls = load_method(method.name)
    except (ValueError, EddyError):  # of another version, or a plug-in that is not installed
        return float("inf")
    defaults: dict[str, Any] = {field.name: field.default for field in fields(cls)}
    default = defaults.get(swept, float("inf"))
    if isinstance(default, str):  # a range, as interval's
        return float("inf")
    if default is not None:
        return float(default)
    kernel = values.get("kernel", getattr(cls, "preferred_kernel", ""))
    relative = values.get("scale", "relative") == "relative"
    tuned = {**getattr(cls, "strengths", {}), **(getattr(cls, "shares", {}) if relative else {})}
    return float(tuned.get(kernel, float("inf")))


def strength_text(method: MethodId) -> str:
    """Return the sweep parameter as the id names it; empty for the default."""
    return method.values.get(_sweep_parameter(method.name), "")


def _sweep_parameter(method: str) -> str:
    """Return the parameter that is turned up; of methods that are not known, the usual one."""
    try:
        return str(load_method(method).sweep)
    except EddyError:
        return Method.sweep

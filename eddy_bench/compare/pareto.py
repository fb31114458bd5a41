"""Methods over a grid of strengths: diversity against fidelity and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.compare.load import Scores
from eddy_bench.compare.paired import by_prompt
from eddy_bench.errors import EddyError
from eddy_bench.metrics.base import METRICS
from eddy_bench.registry import load_method

RESAMPLES = 1000
LOSS = 0.01  # of the baseline's fidelity, at which methods are compared
DIVERSITY = ("vendi", "pdist", "lpips")
FIDELITY = ("clip", "align")
DIAL = "strength"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """A value with the 95% bootstrap interval, over prompts, of its difference to the baseline."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A method on the plane: both means with their intervals, and seconds per image. front: no other point of any family is better in both."""

    label: str
    strength: str
    diversity: Range
    fidelity: Range
    seconds: float
    front: bool


@dataclass(frozen=True)
class Family:
    """A method over its strengths, the baseline included.

    hypervolume: area between its points and the reference, of diversity times fidelity. at_fidelity: its diversity at no more than 1% loss of the
    baseline's fidelity, linear between neighbouring strengths.
    """

    name: str
    points: tuple[Point, ...]
    hypervolume: Range
    at_fidelity: Range


@dataclass(frozen=True)
class Fronts:
    """All families on one pair of metrics. reference: the worst diversity and fidelity of any point, from which hypervolumes are taken."""

    diversity: str
    fidelity: str
    baseline: str
    reference: tuple[float, float]
    families: tuple[Family, ...]


def fronts(scores: Scores, baseline: str = "iid") -> Fronts | None:
    """Every method as a family over its strengths; None without a diversity and a fidelity metric or without the baseline.

    Prompts that any method lacks are left out, so that all points are means over the same ones.
    """
    diversity, fidelity = (_column(scores, names) for names in (DIVERSITY, FIDELITY))
    if diversity is None or fidelity is None or baseline not in scores.labels:
        return None
    tables = [by_prompt(scores.frame[scores.frame["column"] == column]) for column in (diversity, fidelity)]
    labels = [label for label in scores.labels if all(label in table for table in tables)]
    shared = [table[labels].dropna() for table in tables]
    prompts = shared[0].index.intersection(shared[1].index)
    if baseline not in labels or len(labels) < 2 or len(prompts) < 2:
        return None
    values = np.stack([table.loc[prompts].to_numpy(np.float64) for table in shared])  # (2, prompts, methods)
    values *= np.asarray(
        [1.0 if METRICS[column.partition("[")[0].partition("-q")[0]].higher_is_better else -1.0 for column in (diversity, fidelity)]
    )[:, None, None]
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), RESAMPLES) / len(prompts)
    means, drawn = values.mean(1), weights @ values  # (2, methods), (2, resamples, methods)
    start = labels.index(baseline)
    drawn = drawn + (means[:, None, start] - drawn[:, :, start])[..., None]  # what counts is the difference to the baseline
    reference = (float(means[0].min()), float(means[1].min()))
    dominated = ~_nondominated(means.T)
    seconds = scores.frame[scores.frame["metric"] == "seconds_per_image"].groupby("label")["value"].mean()
    points = {
        label: Point(
            label, _strength(label), _range(means[0, k], drawn[0, :, k]), _range(means[1, k], drawn[1, :, k]), float(seconds.get(label, np.nan)),
            not dominated[k],
        )
        for k, label in enumerate(labels)
    }  # fmt: skip
    families = []
    for name, members in _families(labels, baseline).items():
        places = [labels.index(label) for label in members]
        hyper = [_hypervolume(sample[:, places].T, reference) for sample in (means, *drawn.swapaxes(0, 1))]
        kept = [diversity_at_loss(sample[0, places], sample[1, places]) for sample in (means, *drawn.swapaxes(0, 1))]
        families.append(
            Family(
                name,
                tuple(points[label] for label in members),
                _range(hyper[0], np.asarray(hyper[1:])),
                _range(kept[0], np.asarray(kept[1:])),
            )
        )
    return Fronts(diversity, fidelity, baseline, reference, tuple(families))


def diversity_at_loss(diversity: Sequence[float] | Array, fidelity: Sequence[float] | Array, loss: float = LOSS) -> float:
    """The most diversity at no more than a share of the first point's fidelity lost, linear between neighbours.

    >>> diversity_at_loss([1.0, 2.0, 4.0], [100.0, 99.5, 98.5])
    3.0
    """
    least = fidelity[0] - loss * abs(fidelity[0])
    best = float(diversity[0])
    for (d0, f0), (d1, f1) in zip(
        zip(diversity[:-1], fidelity[:-1], strict=True), zip(diversity[1:], fidelity[1:], strict=True), strict=True
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
            rest = ",".join(part for part in parameters.split(",") if part and not part.startswith(f"{DIAL}="))
            name = f"{method}:{rest}" if rest else method
            found.setdefault(f"{name} (negative)" if strength_of(label) < 0 else name, []).append(label)
    return {name: [baseline, *sorted(members, key=lambda label: abs(strength_of(label)))] for name, members in found.items()}


def strength_of(label: str) -> float:
    """The strength of a method, its default where none is named; infinite for methods without one.

    >>> strength_of("pg"), strength_of("pg:strength=0.5"), strength_of("iid")
    (3.0, 0.5, inf)
    """
    method, _, text = label.partition(":")
    parameters = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    try:
        if DIAL in parameters:
            return float(parameters[DIAL])
        cls = load_method(method)
    except (ValueError, EddyError):  # of another version, or a plug-in that is not installed
        return float("inf")
    default: Any = next((item.default for item in fields(cls) if item.name == DIAL), float("inf"))
    kernel = parameters.get("kernel", getattr(cls, "preferred_kernel", ""))
    return float(cls.strengths[kernel] if default is None else default)


def _strength(label: str) -> str:
    return dict(part.split("=", 1) for part in label.partition(":")[2].split(",") if "=" in part).get(DIAL, "")


def _column(scores: Scores, names: Sequence[str]) -> str | None:
    columns = dict.fromkeys(scores.frame["column"])
    return next((column for name in names for column in columns if column.partition("[")[0] == name), None)


def _range(value: float, drawn: Array) -> Range:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Range(float(value), float(low), float(high))


def _nondominated(points: Array) -> NDArray[np.bool_]:
    import moocore

    found: NDArray[np.bool_] = moocore.is_nondominated(points, maximise=True, keep_weakly=True)
    return found


def _hypervolume(points: Array, reference: tuple[float, float]) -> float:
    import moocore

    return float(moocore.hypervolume(np.ascontiguousarray(points), ref=reference, maximise=True))


def range_text(found: Range) -> str:
    """`1.55 [1.5, 1.59]`."""
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def front_lines(found: Fronts) -> list[tuple[str, str, str, str, str]]:
    """Per family: name, number of strengths, diversity at 1% loss, hypervolume, strengths on the front of all."""
    return [
        (
            family.name, str(len(family.points) - 1), range_text(family.at_fidelity), range_text(family.hypervolume),
            ", ".join(point.strength or point.label for point in family.points[1:] if point.front) or "-",
        )
        for family in found.families
    ]  # fmt: skip


def front_header(found: Fronts) -> tuple[str, ...]:
    """Titles of `front_lines`."""
    return ("method", "strengths", f"{found.diversity} at no more than 1% loss of {found.fidelity}", "hypervolume", "on the front")


def front_records(found: Fronts) -> list[dict[str, Any]]:
    """Each family in numbers, with its points."""
    lines = fronts_frame(found).to_dict("records")
    return [
        {**{str(key): value for key, value in line.items()}, "points": [asdict(point) for point in family.points]}
        for line, family in zip(lines, found.families, strict=True)
    ]


def fronts_frame(found: Fronts) -> pd.DataFrame:
    """A line per family, in numbers."""
    return pd.DataFrame(
        [
            {
                "family": family.name, "strengths": len(family.points) - 1,
                **{f"diversity_at_1%_loss{end}": getattr(family.at_fidelity, name) for end, name in (("", "value"), (".low", "low"), (".high", "high"))},
                **{f"hypervolume{end}": getattr(family.hypervolume, name) for end, name in (("", "value"), (".low", "low"), (".high", "high"))},
            }
            for family in found.families
        ]
    )  # fmt: skip

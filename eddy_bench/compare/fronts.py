"""Fronts over all methods, as records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """Hold a value with the 95% bootstrap interval of its difference to the baseline."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """Hold a method on the plane.

    label: the method with its parameters.
    strength: as the label names it.
    diversity, fidelity: means with their intervals.
    seconds: per image.
    front: no other point of any family is better in diversity and fidelity.
    front_seconds: nor in diversity and seconds.
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
    """Hold a method over its strengths, the baseline included.

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
    """Hold the most diversity of all methods at each level of fidelity or speed, or more.

    levels, value, low, high: (levels,), the last two with 95% of the bootstrap's fronts between
        them.
    """

    levels: Array
    value: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Fronts:
    """Hold all families on one pair of metrics.

    reference: the worst diversity and fidelity of any point, from which hypervolumes are taken.
    """

    diversity: str
    fidelity: str
    baseline: str
    prompts: int
    reference: tuple[float, float]
    families: tuple[Family, ...]
    front: Attained
    front_seconds: Attained | None

"""Fronts as tables, records and differences."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from eddy_bench.compare.fronts import Fronts, Range
from eddy_bench.compare.paired import Difference

CAPTION = (
    "Diversity at 1% loss is interpolated between neighbouring strengths. Hypervolumes: over the "
    "worst point of all, of diversity times fidelity, and of diversity times doublings of speed; "
    "seconds have no interval of their own, so close ones are not told apart."
)


def range_text(interval: Range) -> str:
    """Return `1.55 [1.5, 1.59]`; a dash where it could not be measured."""
    if not math.isfinite(interval.value):
        return "-"
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def front_lines(fronts: Fronts) -> list[tuple[str, ...]]:
    """Return a line per family, then the baseline's.

    Name, number of strengths, diversity at 1% loss, both hypervolumes, strengths on both fronts.
    """
    start = fronts.families[0].points[0]
    return [
        (
            family.name,
            str(len(family.points) - 1),
            *map(range_text, (family.at_fidelity, family.hypervolume, family.hypervolume_seconds)),
            *(
                ", ".join(
                    point.strength or point.label
                    for point in family.points[1:]
                    if getattr(point, name)
                )
                or "-"
                for name in ("front", "front_seconds")
            ),
        )
        for family in fronts.families
    ] + [
        (
            fronts.baseline,
            "0",
            f"{start.diversity.value:.3g}",
            "-",
            "-",
            *(fronts.baseline if on else "-" for on in (start.front, start.front_seconds)),
        )
    ]


def front_header(fronts: Fronts) -> tuple[str, ...]:
    """Return the titles of `front_lines`."""
    return (
        "method",
        "strengths",
        f"{fronts.diversity} at no more than 1% loss of {fronts.fidelity}",
        "hypervolume",
        "hypervolume, seconds",
        "on the front",
        "on the front, seconds",
    )


def front_records(fronts: Fronts) -> list[dict[str, Any]]:
    """Return each family in numbers, with its points."""
    names = ("at_fidelity", "hypervolume", "hypervolume_seconds")
    return [
        {
            "family": family.name,
            "strengths": len(family.points) - 1,
            **{name: asdict(getattr(family, name)) for name in names},
            "points": [asdict(point) for point in family.points],
        }
        for family in fronts.families
    ]


def front_differences(fronts: Fronts) -> list[Difference]:
    """Return the figures of each family as differences to the baseline."""
    lines = []
    for family in fronts.families:
        baseline_level = family.points[0].diversity.value
        for column, figure, level in (
            (
                f"{fronts.diversity} at no more than 1% loss of {fronts.fidelity}",
                family.at_fidelity,
                baseline_level,
            ),
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
        ):
            lines.append(
                Difference(
                    family.name,
                    column,
                    True,
                    fronts.prompts,
                    level,
                    figure.value,
                    figure.value - level,
                    figure.low - level,
                    figure.high - level,
                )
            )
    return lines

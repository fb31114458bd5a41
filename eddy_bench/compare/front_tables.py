"""Fronts as tables, records and differences."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from eddy_bench.compare.paired import Difference
from eddy_bench.compare.pareto import Fronts, Range

CAPTION = (
    "Diversity at 1% loss is interpolated between neighbouring strengths. Hypervolumes: over the worst point of all, of diversity times fidelity, "
    "and of diversity times doublings of speed; seconds have no interval of their own, so close ones are not told apart."
)


def range_text(found: Range) -> str:
    """`1.55 [1.5, 1.59]`; a dash where it could not be measured."""
    if not math.isfinite(found.value):
        return "-"
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def front_lines(found: Fronts) -> list[tuple[str, ...]]:
    """Per family: name, number of strengths, diversity at 1% loss, both hypervolumes, strengths on both fronts of all; then the baseline."""
    start = found.families[0].points[0]
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
        for family in found.families
    ] + [
        (
            found.baseline,
            "0",
            f"{start.diversity.value:.3g}",
            "-",
            "-",
            *(found.baseline if on else "-" for on in (start.front, start.front_seconds)),
        )
    ]


def front_header(found: Fronts) -> tuple[str, ...]:
    """Titles of `front_lines`."""
    return (
        "method",
        "strengths",
        f"{found.diversity} at no more than 1% loss of {found.fidelity}",
        "hypervolume",
        "hypervolume, seconds",
        "on the front",
        "on the front, seconds",
    )


def front_records(found: Fronts) -> list[dict[str, Any]]:
    """Each family in numbers, with its points."""
    names = ("at_fidelity", "hypervolume", "hypervolume_seconds")
    return [
        {
            "family": family.name,
            "strengths": len(family.points) - 1,
            **{name: asdict(getattr(family, name)) for name in names},
            "points": [asdict(point) for point in family.points],
        }
        for family in found.families
    ]


def front_differences(found: Fronts) -> list[Difference]:
    """The figures of each family as differences to the baseline, in the layout of all others."""
    lines = []
    for family in found.families:
        usual = family.points[0].diversity.value
        for column, own, base in (
            (
                f"{found.diversity} at no more than 1% loss of {found.fidelity}",
                family.at_fidelity,
                usual,
            ),
            (
                f"hypervolume of {found.diversity} and {found.fidelity}",
                family.hypervolume,
                family.baseline_hypervolumes[0],
            ),
            (
                f"hypervolume of {found.diversity} and log2 seconds",
                family.hypervolume_seconds,
                family.baseline_hypervolumes[1],
            ),
        ):
            lines.append(
                Difference(
                    family.name,
                    column,
                    True,
                    found.prompts,
                    base,
                    own.value,
                    own.value - base,
                    own.low - base,
                    own.high - base,
                )
            )
    return lines

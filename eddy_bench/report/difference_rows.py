"""The differences of a page as a picture: a line per method with its intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eddy_bench.compare.free_shares import MethodShare
from eddy_bench.compare.paired import Difference
from eddy_bench.scoring.metrics import MetricSpec, judging


@dataclass(frozen=True)
class Interval:
    """Hold an interval on an axis, in percent of the axis's width.

    zero: where nothing differs. mark: a second line, of what is free. text: the figures.
    tone: `better`, `worse`, `moved`, or empty.
    """

    zero: float
    value: float
    low: float
    high: float
    text: str
    tone: str
    mark: float | None = None


@dataclass(frozen=True)
class Row:
    """Hold a method's line: its intervals by column, None where there is none."""

    label: str
    intervals: tuple[Interval | None, ...]


@dataclass(frozen=True)
class Picture:
    """Hold the lines of all methods, the most diverse first.

    columns: what each interval is of.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def difference_picture(
    differences: Sequence[Difference], shares: Sequence[MethodShare]
) -> Picture | None:
    """Return diversity, fidelity and free share of every method; None without either metric."""
    diversity = _first_column(differences, judging("diversity"))
    fidelity = _first_column(differences, judging("fidelity"))
    if not (diversity or fidelity):
        return None
    order = [
        item.label
        for item in sorted(
            (item for item in differences if item.column == (diversity or fidelity)),
            key=lambda item: item.difference if item.higher_is_better else -item.difference,
            reverse=True,
        )
    ]
    parts = [_of_differences(differences, column) for column in (diversity, fidelity) if column]
    names = [f"{column}, difference" for column in (diversity, fidelity) if column]
    if shares:
        parts.append(_of_shares([share for share in shares if share.column == shares[0].column]))
        names.append("share of what is free (line: the most that unmoved samples can have)")
    rows = [Row(label, tuple(part.get(label) for part in parts)) for label in order]
    return Picture(tuple(names), tuple(rows))


def _first_column(differences: Sequence[Difference], names: Sequence[str]) -> str:
    """Return the first column of the first of these metrics that was compared per prompt."""
    return next(
        (
            item.column
            for name in names
            for item in differences
            if item.prompts and MetricSpec.of_column(item.column).name == name
        ),
        "",
    )


def _of_differences(differences: Sequence[Difference], column: str) -> dict[str, Interval]:
    own = [item for item in differences if item.column == column]
    scale = _Scale([bound for item in own for bound in (item.low, item.high, item.difference)])
    tones = {True: "better", False: "worse", None: ""}
    return {
        item.label: Interval(
            scale(0.0),
            scale(item.difference),
            scale(item.low),
            scale(item.high),
            f"{item.difference:+.3g} [{item.low:+.3g}, {item.high:+.3g}]",
            tones[item.better],
        )
        for item in own
        if math.isfinite(item.low) and math.isfinite(item.high)
    }


def _of_shares(shares: Sequence[MethodShare]) -> dict[str, Interval]:
    known = [share for share in shares if math.isfinite(share.free.low + share.free.high)]
    bounds = [bound for share in known for bound in (share.free.low, share.free.high)]
    scale = _Scale([*bounds, 1.0])
    return {
        share.label: Interval(
            scale(0.0),
            scale(share.free.share),
            scale(share.free.low),
            scale(share.free.high),
            f"{_two(share.free.share)} [{_two(share.free.low)}, {_two(share.free.high)}]"
            + (", moved" if share.moved else ""),
            "moved" if share.moved else "",
            scale(1.0),
        )
        for share in known
    }


def _two(value: float) -> str:
    """Return two decimals, without the sign of what rounds to 0."""
    return f"{value:z.2f}"


class _Scale:
    """Map values to percent of an axis that shows all of them, and 0."""

    def __init__(self, values: Sequence[float]) -> None:
        finite = [value for value in values if math.isfinite(value)]
        low, high = min(0.0, *finite, 0.0), max(0.0, *finite, 0.0)
        margin = 0.03 * (high - low) or 1.0
        self.low, self.width = low - margin, high - low + 2 * margin

    def __call__(self, value: float) -> float:
        return round(100 * (value - self.low) / self.width, 2)

"""One table of a comparison: a row per method, a column per metric, each cell a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eddy_bench.cli.figure_table import Cell, Column, FigureTable
from eddy_bench.compare.paired import Difference
from eddy_bench.compare.tables import number_text
from eddy_bench.scoring.ceiling import NAME as FREE_SHARE
from eddy_bench.scoring.metrics import COSTS, MetricSpec, judging

SECONDS = "seconds_per_image"
POOLED = ("fd", "fid", "recall")  # of what is pooled, those that say where samples went
LEGEND = (
    "Difference to {baseline} with its 95% interval over prompts; * shown, after Holm's correction "
    "over the methods. free_share: of what samples that keep their law can gain, * they moved. "
    "Costs and pooled metrics: times the baseline's. Everything else: --full."
)


def comparison_matrix(differences: Sequence[Difference], baseline: str) -> FigureTable | None:
    """Return the matrix; None where nothing was compared."""
    methods = list(dict.fromkeys(item.label for item in differences))
    by_place = {(item.label, item.column): item for item in differences}
    columns = [
        Column(
            _heading(column, differences),
            rank,
            [_cell(by_place.get((method, column))) for method in methods],
        )
        for rank, column in enumerate(ordered_columns(differences))
    ]
    return FigureTable(f"differences to {baseline}", methods, columns) if columns else None


def ordered_columns(differences: Sequence[Difference]) -> list[str]:
    """Return columns by their importance: the first of each kind, then the rest of it."""
    told = [
        item.column
        for item in differences
        if item.prompts or (item.difference and item.difference == item.difference)
    ]
    columns = list(dict.fromkeys(told))
    names = {column: MetricSpec.of_column(column).name for column in columns}
    diversity, fidelity = (
        [column for name in group for column in columns if names[column] == name]
        for group in (judging("diversity"), judging("fidelity"))
    )
    shares = [column for column in columns if column.startswith(FREE_SHARE)]
    costs = [column for column in columns if names[column] in COSTS]
    first = [*diversity[:1], *fidelity[:1], *(c for c in costs if c == SECONDS), *shares[:1]]
    pooled = [column for name in POOLED for column in columns if names[column] == name]
    rest = [*fidelity[1:], *diversity[1:], *pooled, *(c for c in costs if c == "nfe")]
    return list(dict.fromkeys([*first, *rest]))


def _heading(column: str, differences: Sequence[Difference]) -> str:
    spec = MetricSpec.of_column(column)
    if spec.name in COSTS:
        return {SECONDS: "seconds"}.get(spec.name, spec.name)
    if column.startswith(FREE_SHARE):
        return FREE_SHARE
    higher = next(item.higher_is_better for item in differences if item.column == column)
    bare = spec.name if spec.column == column else column.partition("[")[0]  # as clip-best
    same_name = {item.column for item in differences if item.column.startswith(f"{bare}[")}
    name = bare if len(same_name) <= 1 else column
    return f"{name} {'↑' if higher else '↓'}"


def _cell(difference: Difference | None) -> Cell:
    if difference is None or math.isnan(difference.difference):
        return Cell("-")
    if not difference.prompts:
        times = difference.value / difference.baseline if difference.baseline else float("nan")
        return Cell("-" if math.isnan(times) else f"x{times:.3g}")
    share = difference.column.startswith(FREE_SHARE)
    moved = share and "moved" in difference.warning
    shown = moved or difference.better is not None
    figure = number_text(difference.difference, 2) if share else f"{difference.difference:+.3g}"
    low, high = _short(difference.low), _short(difference.high)
    interval = "" if math.isnan(difference.low) else f" [{low}, {high}]"
    return Cell(
        figure + ("*" if shown else ""),
        interval,
        marked=difference.better is True,
        worse=moved or difference.better is False,
    )


def _short(bound: float) -> str:
    """Return a signed bound of an interval, one digit below 0.01, no zero before the point.

    >>> _short(0.0319), _short(-1.204), _short(0.0087)
    ('+.032', '-1.2', '+.009')
    """
    text = f"{bound:+.2g}" if abs(bound) >= 0.01 else f"{bound:+.1g}"
    return text.replace("+0.", "+.").replace("-0.", "-.")

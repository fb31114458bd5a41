"""The tables of `eddy-bench compare`: one per metric, a row per method."""

from __future__ import annotations

from collections.abc import Sequence

from eddy_bench.cli.figure_table import Cell, Column, FigureTable
from eddy_bench.compare.free_shares import BASELINE as IID
from eddy_bench.compare.paired import Difference
from eddy_bench.compare.tables import HEADER, cells, number_text
from eddy_bench.scoring.ceiling import NAME as FREE_SHARE

RANKS = {  # the lower, the later a column is left out
    "difference": 0,
    "95% interval": 1,
    "p": 2,
    "wins": 3,
    "effect": 4,
    "detectable": 5,
    "prompts": 6,
}
POOLED = ("difference", "95% interval")
STYLES = {True: "green", False: "red", None: ""}


def comparison_tables(differences: Sequence[Difference], baseline: str) -> list[FigureTable]:
    """Return a table per metric; a counter that is the same everywhere is left out."""
    shown = [item for item in differences if item.prompts or item.difference]
    columns = dict.fromkeys(item.column for item in shown)
    return [
        _metric_table([item for item in shown if item.column == column], baseline)
        for column in columns
    ]


def _metric_table(differences: Sequence[Difference], baseline: str) -> FigureTable:
    rows = [dict(zip(HEADER, cells(difference), strict=True)) for difference in differences]
    levels = sorted({number_text(difference.baseline) for difference in differences})
    level = levels[0] if len(levels) == 1 else "each on its own prompts or run"
    tested = any(difference.prompts for difference in differences)
    names = [name for name in HEADER if name in (RANKS if tested else POOLED)]
    columns = [
        Column(
            name if tested or name != "95% interval" else "times",
            RANKS[name],
            [Cell(row[name]) for row in rows],
        )
        for name in names
    ]
    if differences[0].column.startswith(FREE_SHARE):
        baseline = IID  # what is free is what iid leaves, whatever is compared with
    return FigureTable(
        f"{rows[0]['metric']}   {baseline} {level}",
        [row["method"] for row in rows],
        columns,
        remarks=[row["note"] for row in rows],
        styles=[STYLES[difference.better] for difference in differences],
    )

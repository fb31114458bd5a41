"""What `eddy-bench power` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from eddy_bench.cli.comparison_matrix import ordered_columns
from eddy_bench.cli.console import console, say, write_line
from eddy_bench.cli.figure_table import Cell, Column, FigureTable, left_out_note, print_figures
from eddy_bench.cli.progress import progress_bar
from eddy_bench.compare.comparable import canonical, check_comparable
from eddy_bench.compare.load import last_run, read_scores
from eddy_bench.compare.paired import compare
from eddy_bench.compare.power import Needed, prompts_needed
from eddy_bench.errors import CompareError


def print_needed(
    sources: Sequence[Path], effect: float, methods: int | None, baseline: str
) -> None:
    """Print the prompts that each method needs on each metric."""
    scores = read_scores(list(sources) or [last_run()])
    for note in check_comparable(scores, None, partly=False):
        say(note, "Note")
    baseline = baseline if baseline in scores.labels else canonical(baseline)
    with progress_bar("Comparing", len(scores.columns), passing=True) as advance:
        differences = compare(scores, baseline, advance)
    count = methods or max(1, len(scores.labels) - 1)
    needed = prompts_needed(differences, effect, count)
    if not needed:
        raise CompareError(
            "Expected two methods on two prompts or more, whose scatter can be taken; found fewer."
        )
    columns = [
        name for name in ordered_columns(differences) if any(n.column == name for n in needed)
    ]
    labels = list(dict.fromkeys(item.label for item in needed))
    by_place = {(item.label, item.column): item for item in needed}
    table = FigureTable(
        f"prompts that show a difference of {effect:.3g} of {baseline}'s value, 4 times in 5",
        labels,
        [
            Column(name, rank, [_cell(by_place.get((label, name))) for label in labels])
            for rank, name in enumerate(columns)
        ],
    )
    print_figures(table)
    others = "one method" if count == 1 else f"{count} methods that share them"
    write_line(
        f"At a level of 5% for {others}, from the scatter of {needed[0].had} prompts with "
        f"{len(set(scores.frame['seed']) - {''})} seed(s) each; paired over prompts, on the same "
        "noise. More seeds lower the scatter within prompts. inf: a method without scatter to take."
    )
    if left_out := left_out_note([table], console().width, "a wider terminal"):
        write_line(left_out)


def _cell(needed: Needed | None) -> Cell:
    if needed is None or math.isnan(needed.prompts):
        return Cell("-")
    return Cell("inf" if math.isinf(needed.prompts) else str(int(needed.prompts)))

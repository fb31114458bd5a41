"""`eddy-bench power`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eddy_bench.cli.arguments import Sources
from eddy_bench.errors import counted

if TYPE_CHECKING:
    from eddy_bench.ids import MetricId
    from eddy_bench.results.results import Results

FEW = 16  # prompts whose scatter is hardly known


def power(
    sources: Sources = None,
    effect: Annotated[
        float,
        typer.Option(
            min=1e-6, max=10, help="The difference to be shown, as a share of the baseline's value."
        ),
    ] = 0.05,
    methods: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many methods the planned comparison has. [default: as the run]"
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="The method that the others are compared with.")
    ] = "iid",
) -> None:
    """Say how many prompts show a difference of a size 4 times in 5, from a run's own scatter."""
    from eddy_bench.cli.console import print_table, say, write_line
    from eddy_bench.cli.progress import progress_bar
    from eddy_bench.compare.comparable import check_comparable, drawn_elsewhere, with_baseline
    from eddy_bench.compare.paired import compare
    from eddy_bench.compare.power import fewest, prompts_needed
    from eddy_bench.compare.tables import ordered_columns
    from eddy_bench.errors import CompareError
    from eddy_bench.render.table import Cell, Column, Table
    from eddy_bench.results.results import last_run, read_results

    results = with_baseline(read_results(sources or [last_run()]), baseline)
    for note in check_comparable(results):
        say(note, "Note")
    with progress_bar("Comparing", len(results.columns), passing=True) as advance:
        differences = compare(results, advance)
    count = methods or max(1, len(results.methods) - 1)
    needed = prompts_needed(differences, effect, count)
    if not needed:
        raise CompareError(_missing(results))
    columns = ordered_columns([own for own, _ in needed], results)
    by_place = {(own.method, own.metric): prompts for own, prompts in needed}
    rows = list(dict.fromkeys(own.method for own, _ in needed))
    cells = [[Cell(_text(by_place.get((row, own)))) for row in rows] for own in columns]
    had, seeds = needed[0][0].prompts, len(set(results.frame["seed"]) - {""})
    others = "one method" if count == 1 else f"{count} methods that share them"
    title = (
        f"prompts that show a difference of {effect:.3g} of {results.baseline}'s value, "
        "4 times in 5"
    )
    noise = "" if drawn_elsewhere(results.frame).any() else ", on the same noise"
    caption = (
        f"At a level of 5% for {others}, from the scatter of {had} prompts with {seeds} seed(s) "
        f"each; paired over prompts{noise}. More seeds lower the scatter within prompts."
        f" inf: more than 10 million. {fewest(count)} at least: fewer could show nothing."
    )
    write_line(_answer(columns[0], [own for key, own in by_place.items() if key[1] == columns[0]]))
    titled = [
        Column(str(own), column, k)
        for k, (own, column) in enumerate(zip(columns, cells, strict=True))
    ]
    print_table(Table(title, [*map(str, rows)], titled, caption=caption), "a wider terminal")
    if had < FEW:
        say(f"The scatter of {counted(had, 'prompt')} is hardly known.", "Note")


def _missing(results: Results) -> str:
    """Say what keeps the scatter from being taken: methods, prompts, or metrics of each prompt."""
    prompts = len(set(results.frame["prompt_id"]) - {""})
    if len(results.methods) > 1 and prompts > 1:
        return (
            "Expected a metric with a value for each prompt, found none in these scores. "
            "Add one: eddy-bench score RUN --metric vendi."
        )
    return (
        "Expected two methods or more on two prompts or more, whose scatter can be taken, "
        f"found {counted(len(results.methods), 'method')} and {counted(prompts, 'prompt')}."
    )


def _answer(column: MetricId, needed: Sequence[float]) -> str:
    """Say how many prompts, in one line."""
    counts = sorted(needed)
    half, most = (
        "no number of" if own == float("inf") else f"{own:.0f}"
        for own in (counts[(len(counts) - 1) // 2], counts[-1])
    )
    if half == most:
        return f"{column}: {half} prompts show it."
    return f"{column}: {half} prompts show it for half of the methods, {most} for all."


def _text(prompts: float | None) -> str:
    return "-" if prompts is None or prompts != prompts else f"{prompts:.0f}"

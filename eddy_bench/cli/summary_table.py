"""What `run` and `score` print last: the table, and where the files are."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eddy_bench.cli.console import console, print_table, verbose, write_line

if TYPE_CHECKING:
    from eddy_bench.experiment.score import Scored
    from eddy_bench.ids import MetricId
    from eddy_bench.storage.run_folder import RunFolder

FILES = ("scores", "summary")


def print_summary(
    folder: RunFolder, scored: Scored, grids: Sequence[Path], requested: Collection[MetricId] = ()
) -> None:
    """Print the table and where the files are.

    Args:
        folder: of the run.
        scored: what scoring gave.
        grids: that were drawn; none for those that are there.
        requested: metrics that were requested by name, shown beside the usual ones.

    """
    from eddy_bench.compare.summary_table import summary_table

    write_line(f"{folder.read_run().settings.described()}.")
    table = summary_table(str(folder.path), scored.results, scored.summaries, requested)
    print_table(table, "summary.csv")
    for name in FILES:
        console().print(f"{name:9}{folder.path / name}.csv", soft_wrap=True, markup=False)
    for text in _shown_grids(folder, grids):
        console().print(f"{'grids':9}{text}", soft_wrap=True, markup=False)
    path = shlex.quote(str(folder.path))
    following = f"eddy-bench compare {path}, eddy-bench report {path}"
    console().print(f"{'next':9}{following}", soft_wrap=True, markup=False)


def _shown_grids(folder: RunFolder, grids: Sequence[Path]) -> list[str]:
    """Return where the picture of all methods is, or the only one, and where the others are."""
    from eddy_bench.experiment.grids import SIDE_BY_SIDE

    found = list(grids) or sorted((folder.path / "grids").glob("*.png"))
    if verbose():
        return list(map(str, found))
    shown = [path for path in found if path.name == SIDE_BY_SIDE] or found[:1]
    beside = ", and one per method beside it" if len(found) > len(shown) else ""
    return [f"{path}{beside}" for path in shown]

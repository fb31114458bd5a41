"""`eddy-bench merge`: the groups of shards in one folder, scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.terminal import Terminal
from eddy_bench.storage.paths import reachable


def merge(
    target: Annotated[
        Path, typer.Argument(parser=reachable, metavar="OUT", help="The run folder to be.")
    ],
    sources: Annotated[
        list[Path],
        typer.Argument(parser=reachable, metavar="SHARD...", help="Run folders of run --shard."),
    ],
    pack: Annotated[
        bool,
        typer.Option("--pack", help="Put the groups into Parquet files, as run --pack does."),
    ] = False,
) -> None:
    """Put the shards of a run together and score them.

    Exit code 2 when groups are missing.
    """
    from eddy_bench.experiment.merge import merge as merge_shards
    from eddy_bench.experiment.score import ScoringRequest, score_if_needed
    from eddy_bench.storage.lock import locked
    from eddy_bench.storage.run_folder import RunFolder
    from eddy_bench.suites.method_spec import is_file_plugin

    terminal = Terminal()
    missing = merge_shards(target, sources, terminal, pack)
    folder = RunFolder.existing(target)
    suite = folder.read_run().suite
    files = [text for text in suite.metrics or [] if is_file_plugin(text)]
    for name in files:
        terminal.tell(
            f"{name} is a Python file's, and run.yaml may be anyone's. Add it: score --metric.",
            "Note",
        )
    metrics = suite.metrics and [text for text in suite.metrics if text not in files]
    with locked(target, terminal.tell) as check_ownership:
        # the shards' device may not be here
        request = ScoringRequest(metrics, suite.reference, suite.weights, "auto", check_ownership)
        score_if_needed(folder, request, terminal)
    raise typer.Exit(2 if missing else 0)
